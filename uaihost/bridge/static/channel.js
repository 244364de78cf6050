// What is known of one task's channel, built from its events. No elements here.

export class Channel {
  constructor() {
    this.entries = new Map(); // key -> entry, in order
    this.agents = new Map(); // id -> {state, detail}
    this.last = 0;
    this.loaded = false;
    this.group = null;
  }

  // The key of the entry that changed; null when none did.
  apply(event, id) {
    if (id) {
      if (id <= this.last) return null;
      this.last = id;
    }
    switch (event.type) {
      case "task.status": return this.status(event);
      case "task.progress": return this.progress(event);
      case "channel.message": return this.message(event);
      case "channel.delta": return this.delta(event);
      case "channel.activity":
        this.agents.set(event.agentId, { state: event.state, detail: event.detail ?? "" });
        return null;
      case "permission.requested": return this.put(`ask-${event.agentId}-${event.requestId}`, { kind: "ask", ...event, decision: null });
      case "permission.resolved": {
        const key = `ask-${event.agentId}-${event.requestId}`;
        const asked = this.entries.get(key);
        if (asked) Object.assign(asked, { decision: event.decision, by: event.by });
        return asked ? key : null;
      }
      default: return null;
    }
  }

  put(key, entry) {
    this.entries.set(key, { ...entry, key });
    return key;
  }

  status(event) {
    if (event.status === "preparing" || event.status === "stopping") {
      const open = this.entries.get(this.group);
      // The same state again only tells how a wait goes on.
      if (open?.state === "running" && open.down === (event.status === "stopping")) return null;
      this.group = this.put(`steps-${event.at}-${event.status}`, {
        kind: "steps", down: event.status === "stopping", steps: [], state: "running", at: event.at, message: "",
      });
      return this.group;
    }
    const group = this.entries.get(this.group);
    if (!group || group.state !== "running" || event.status === "starting") return null;
    group.state = event.status === "failed" ? "failed" : "done";
    group.message = event.message ?? "";
    group.took = event.at - group.at;
    return this.group;
  }

  progress(event) {
    let group = this.entries.get(this.group);
    if (!group) {
      this.group = this.put(`steps-${event.at}`, { kind: "steps", down: false, steps: [], state: "running", at: event.at, message: "" });
      group = this.entries.get(this.group);
    }
    let step = group.steps.findLast((one) => one.name === event.step);
    if (!step || (step.state !== "started" && event.state === "started")) {
      step = { name: event.step, since: event.at };
      group.steps.push(step);
    }
    Object.assign(step, { state: event.state, message: event.message ?? "", took: event.elapsedMs });
    return this.group;
  }

  message(event) {
    const waiting = [...this.entries.values()].find(
      (entry) => entry.kind === "waiting" && event.author.kind === "user" && (entry.messageId === event.messageId || entry.text === event.text),
    );
    if (waiting) this.entries.delete(waiting.key);
    return this.put(event.messageId, { kind: "message", author: event.author, text: event.text, at: event.at, live: false });
  }

  delta(event) {
    const known = this.entries.get(event.messageId);
    if (known && !known.live) return null;
    if (known) {
      known.text += event.text;
      return known.key;
    }
    const author = { kind: "agent", id: event.agentId, label: event.agentId };
    return this.put(event.messageId, { kind: "message", author, text: event.text, at: event.at, live: true });
  }

  // A word of this page that has not come back as an event yet.
  wait(text) {
    const key = `waiting-${Date.now()}-${this.entries.size}`;
    return this.put(key, { kind: "waiting", text, at: Date.now(), note: "sending" });
  }
}

export const BUSY = new Set(["starting", "thinking", "tool", "awaiting-permission"]);

// Events that are not stored: they have no number of their own.
export const FLEETING = new Set(["channel.delta", "task.resources"]);

// What is known of one task's channel, built from its events. No elements here.

import { hearers, mentions, offered, takeFiles } from "./words.js";

export class Channel {
  constructor() {
    this.entries = new Map(); // key -> entry, in order
    this.agents = new Map(); // id -> {state, detail, until, at}
    this.usage = new Map(); // id -> {read, written, cost}; cost is null where none was told
    this.partner = ""; // the agent that people spoke with last
    this.last = 0;
    this.loaded = false;
    this.group = null;
    this.work = new Map(); // agent id -> key of what it does in this turn
    this.offers = new Map(); // agent id -> key of the note that offers to try again
  }

  get crew() {
    return [...this.agents.keys()];
  }

  // The keys of the entries that changed, came or went.
  apply(event, id) {
    if (id) {
      if (id <= this.last) return [];
      this.last = id;
    }
    switch (event.type) {
      case "task.status": return some(this.status(event));
      case "task.progress": return some(this.progress(event));
      case "channel.message": return this.message(event);
      case "channel.delta": return some(this.delta(event));
      case "channel.activity": return this.activity(event);
      case "permission.requested": return this.asked(event);
      case "permission.resolved": return this.resolved(event);
      case "agent.usage": this.used(event); return [];
      default: return [];
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
    const { author, text } = event;
    const changed = [];
    let to = [];
    if (author.kind === "user") {
      const said = takeFiles(text).text;
      const waiting = [...this.entries.values()].find((entry) => entry.kind === "waiting" && (entry.messageId === event.messageId || entry.text === said));
      if (waiting) {
        this.entries.delete(waiting.key);
        changed.push(waiting.key);
      }
      if (!text.startsWith("/")) {
        to = hearers(text, this.crew, this.partner);
        this.partner = to.at(-1) ?? this.partner;
      }
    } else if (author.kind === "agent") {
      changed.push(...this.drop(author.id, event.messageId), ...this.rest(author.id, event.at));
      to = mentions(text, this.crew.filter((id) => id !== author.id));
    }
    const offer = author.kind === "system" ? offered(text, this.crew) : "";
    if (offer) {
      changed.push(...this.settle(offer));
      this.offers.set(offer, event.messageId);
    }
    this.put(event.messageId, { kind: "message", author, text, to, offer, at: event.at, live: false });
    return [...changed, event.messageId];
  }

  delta(event) {
    const known = this.entries.get(event.messageId);
    if (known && !known.live) return null;
    if (known) {
      known.text += event.text;
      return known.key;
    }
    // Pieces are told past the order of the rest: one of a turn that has ended would stay for ever.
    const agent = this.agents.get(event.agentId);
    if (agent && RESTING.has(agent.state) && event.at <= agent.at) return null;
    const author = { kind: "agent", id: event.agentId, label: event.agentId };
    return this.put(event.messageId, { kind: "message", author, text: event.text, to: [], offer: "", at: event.at, live: true });
  }

  activity(event) {
    const { agentId: id, state, detail = "", until = null, at } = event;
    this.agents.set(id, { state, detail, until, at });
    if (RESTING.has(state)) return [...this.drop(id), ...this.rest(id, at)];
    const changed = state === "thinking" || state === "tool" ? this.settle(id) : [];
    if (state === "tool") changed.push(this.tool(id, detail, at));
    return changed;
  }

  // What an agent does between two of its messages is one entry.
  tool(id, detail, at) {
    const open = this.entries.get(this.work.get(id));
    if (open) {
      if (open.tools.at(-1) !== detail) open.tools.push(detail);
      return open.key;
    }
    const key = this.put(`work-${id}-${at}`, { kind: "work", agentId: id, tools: [detail], at, running: true });
    this.work.set(id, key);
    return key;
  }

  rest(id, at) {
    const open = this.entries.get(this.work.get(id));
    this.work.delete(id);
    if (!open) return [];
    Object.assign(open, { running: false, took: at - open.at });
    return [open.key];
  }

  // Unfinished words of an agent that will not be finished any more.
  drop(id, but = "") {
    const stale = [...this.entries.values()].filter((entry) => entry.live && entry.author.id === id && entry.key !== but);
    for (const entry of stale) this.entries.delete(entry.key);
    return stale.map((entry) => entry.key);
  }

  // The agent is at work again, or has a newer fault: the older offer is of no use.
  settle(id) {
    const note = this.entries.get(this.offers.get(id));
    this.offers.delete(id);
    if (!note) return [];
    note.offer = "";
    return [note.key];
  }

  asked(event) {
    const key = `ask-${event.agentId}-${event.requestId}`;
    if (!this.entries.has(key)) this.put(key, { kind: "ask", ...event, decision: null, drafts: new Map() });
    return [key];
  }

  resolved(event) {
    const key = `ask-${event.agentId}-${event.requestId}`;
    const asked = this.entries.get(key);
    if (!asked) return [];
    Object.assign(asked, { decision: event.decision, by: event.by, decidedAt: event.at });
    return [key];
  }

  // Requests that wait for a person, of one agent or of all, oldest first.
  open(id = "") {
    return [...this.entries.values()].filter((entry) => entry.kind === "ask" && entry.decision === null && (!id || entry.agentId === id));
  }

  used(event) {
    const sums = this.usage.get(event.agentId) ?? { read: 0, written: 0, cost: null };
    sums.read += event.inputTokens || 0;
    sums.written += event.outputTokens || 0;
    if (typeof event.costUsd === "number") sums.cost = (sums.cost ?? 0) + event.costUsd;
    this.usage.set(event.agentId, sums);
  }

  // A word of this page that has not come back as an event yet.
  wait(text) {
    const key = `waiting-${Date.now()}-${this.entries.size}`;
    return this.put(key, { kind: "waiting", text, at: Date.now(), note: "sending" });
  }
}

const some = (key) => (key === null ? [] : [key]);

export const BUSY = new Set(["starting", "thinking", "tool", "awaiting-permission"]);
const RESTING = new Set(["idle", "stopped", "failed"]);

// Events that are not stored: they have no number of their own.
export const FLEETING = new Set(["channel.delta", "task.resources"]);

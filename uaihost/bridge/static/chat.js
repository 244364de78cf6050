// A task's chat: messages, steps, permission cards, what agents do, and the box to write in.

import { post } from "./api.js";
import { BUSY } from "./channel.js";
import { clock, duration, el, icon, prose } from "./dom.js";

const DOING = {
  starting: "starting", idle: "idle", thinking: "thinking", tool: "working",
  "awaiting-permission": "waits for you", stopped: "stopped", failed: "failed",
};
const STATE_WORD = { started: "running", done: "done", failed: "failed" };

export class Chat {
  constructor(task, channel) {
    this.task = task;
    this.channel = channel;
    this.nodes = new Map();
    this.log = el("div", { class: "log", role: "log", "aria-label": "Chat", tabindex: "0" });
    this.doing = el("div", { class: "doing", "aria-live": "polite" });
    this.problem = el("p", { class: "problem", role: "alert", hidden: true });
    this.box = el("textarea", {
      id: "say", rows: "1", placeholder: "Say something to the agents…", "aria-label": "Message",
      oninput: () => this.fit(),
      onkeydown: (key) => {
        if (key.key === "Enter" && !key.shiftKey && !key.isComposing) {
          key.preventDefault();
          this.send();
        }
      },
    });
    this.picker = el("input", { type: "file", hidden: true, onchange: () => this.attach() });
    this.button = el("button", { class: "primary round", type: "submit", "aria-label": "Send" }, icon("send"));
    this.clip = el("button", { class: "quiet round", type: "button", "aria-label": "Attach a file", title: "Attach a file", onclick: () => this.picker.click() }, icon("clip"));
    this.form = el("form", { class: "composer", onsubmit: (event) => { event.preventDefault(); this.send(); } },
      this.clip, this.picker, this.box, this.button);
    this.hint = el("p", { class: "hint" });
    this.node = el("section", { class: "chat" }, this.log, el("div", { class: "foot" }, this.doing, this.problem, this.form, this.hint));
    this.all();
  }

  // Everything anew; the place in the log is kept at its end.
  all() {
    this.nodes.clear();
    this.log.replaceChildren();
    for (const key of this.channel.entries.keys()) this.entry(key, false);
    this.blank();
    this.about();
    this.log.scrollTop = this.log.scrollHeight;
    requestAnimationFrame(() => { this.log.scrollTop = this.log.scrollHeight; });
  }

  blank() {
    this.empty?.remove();
    this.empty = null;
    if (this.channel.entries.size) return;
    this.empty = this.channel.loaded
      ? el("div", { class: "blank" }, el("h2", {}, "Nothing said yet"), el("p", {}, "The steps of this task and everything that is said show up here."))
      : el("div", { class: "blank", "aria-busy": "true" }, el("span", { class: "spinner" }), el("p", {}, "Loading the chat…"));
    this.log.append(this.empty);
  }

  // One entry changed or is new.
  entry(key, follow = true) {
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 60;
    const entry = this.channel.entries.get(key);
    const old = this.nodes.get(key);
    const made = this.draw(entry, old);
    if (old) {
      if (made !== old) old.replaceWith(made);
    } else {
      this.log.append(made);
    }
    this.nodes.set(key, made);
    for (const [known, node] of this.nodes) {
      if (!this.channel.entries.has(known)) {
        node.remove();
        this.nodes.delete(known);
      }
    }
    if (this.empty) this.blank();
    if (follow && atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  draw(entry, old) {
    if (entry.kind === "steps") return this.steps(entry, old);
    if (entry.kind === "ask") return this.ask(entry);
    if (entry.kind === "waiting") return bubble("mine waiting", "You", entry.note === "queued" ? "waits for the host" : "sending…", entry.text);
    const { kind, label, id } = entry.author;
    if (kind === "system") return system(entry.text, old);
    const who = kind === "user" ? (id === "user" ? "You" : label) : label;
    return bubble(kind === "user" ? "mine" : "theirs", who, clock(entry.at), entry.text, entry.live);
  }

  steps(entry, old) {
    const failed = entry.state === "failed";
    const title = entry.down
      ? { running: "Taking the task down…", done: "The task is down", failed: "The task could not be taken down" }[entry.state]
      : { running: "Getting ready…", done: "Ready", failed: "The task could not be started" }[entry.state];
    const rows = entry.steps.map((step) => el("li", { class: `step ${step.state}` },
      step.state === "done" ? icon("check") : step.state === "failed" ? icon("cross") : el("span", { class: "spinner" }),
      el("span", { class: "step-name" }, step.name, el("span", { class: "unseen" }, ` ${STATE_WORD[step.state] ?? step.state}`)),
      el("span", { class: "dim" }, step.state === "started" ? step.message : duration(step.took)),
      step.state === "failed" && step.message && !this.said(step.message) ? el("span", { class: "step-why" }, step.message) : null,
    ));
    const told = this.said(entry.message) || entry.steps.some((step) => step.state === "failed" && step.message === entry.message);
    const open = old ? old.open : entry.state !== "done";
    return el("details", { class: `card steps ${entry.state}`, open: entry.state === "done" && old?.dataset.state !== "done" ? false : open, "data-state": entry.state },
      el("summary", {}, title, entry.state === "running" ? null : el("span", { class: "dim" }, duration(entry.took))),
      rows.length ? el("ol", {}, rows) : null,
      failed && entry.message && !told ? el("p", { class: "problem" }, entry.message) : null);
  }

  // Whether the notice above the chat says it already.
  said(message) {
    return this.task.phase === "failed" && this.task.message === message;
  }

  ask(entry) {
    const decided = entry.decision !== null;
    const fields = Object.entries(entry.input ?? {}).map(([name, value]) => [
      el("dt", {}, name), el("dd", {}, el("pre", { tabindex: "0" }, typeof value === "string" ? value : JSON.stringify(value, null, 2))),
    ]);
    const problem = el("p", { class: "problem", role: "alert", hidden: true });
    const buttons = el("div", { class: "choice" },
      el("button", { class: "primary", onclick: () => this.decide(entry, "accept", buttons, problem) }, icon("check"), "Accept"),
      el("button", { onclick: () => this.decide(entry, "decline", buttons, problem) }, icon("cross"), "Decline"));
    return el("section", { class: `card ask ${decided ? entry.decision : "open"}`, "aria-label": `Permission: ${entry.title}` },
      el("h3", {}, decided ? null : el("span", { class: "mark" }, "?"), entry.title),
      el("p", { class: "dim" }, `${entry.agentId} asks to use ${entry.tool}`),
      fields.length ? el("dl", {}, fields) : null,
      decided ? el("p", { class: "verdict" }, icon(entry.decision === "accept" ? "check" : "cross"),
        entry.decision === "accept" ? "Accepted" : "Declined", entry.by && entry.by !== "user" ? ` (${entry.by})` : "") : buttons,
      problem);
  }

  async decide(entry, decision, buttons, problem) {
    for (const button of buttons.children) button.disabled = true;
    problem.hidden = true;
    try {
      await post(`/api/tasks/${this.task.id}/permissions/${encodeURIComponent(entry.requestId)}`, { agentId: entry.agentId, decision });
      this.box.focus();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      for (const button of buttons.children) button.disabled = false;
    }
  }

  // What agents do, and whether somebody can write.
  about(task = this.task, hostThere = this.hostThere ?? true) {
    const turned = task.phase !== this.task.phase;
    this.task = task;
    this.hostThere = hostThere;
    if (turned) {
      for (const entry of this.channel.entries.values()) if (entry.kind === "steps") this.entry(entry.key, false);
    }
    const rows = [...this.channel.agents].filter(([, agent]) => agent.state !== "idle").map(([id, agent]) => el("div", { class: `agent ${agent.state}` },
      BUSY.has(agent.state) && agent.state !== "awaiting-permission" ? el("span", { class: "pulse", "aria-hidden": "true" }) : el("span", { class: "dot", "aria-hidden": "true" }),
      el("span", {}, el("strong", {}, id), ` ${DOING[agent.state] ?? agent.state}`, agent.detail ? el("span", { class: "dim" }, ` · ${agent.detail}`) : null),
      BUSY.has(agent.state) ? el("button", { class: "quiet small", onclick: () => this.stop(id), "aria-label": `Stop ${id}` }, icon("stop"), "Stop") : null));
    this.doing.replaceChildren(...(this.open() ? rows : []));
    const closed = this.open() ? "" : this.closedBecause();
    this.form.hidden = Boolean(closed);
    this.hint.textContent = closed || (hostThere ? "" : "The host is not connected; what you write now waits for it.");
    this.hint.hidden = !this.hint.textContent;
  }

  open() {
    return ["prompt", "ready"].includes(this.task.phase);
  }

  closedBecause() {
    if (this.task.phase === "gone") return "This task is down. Its branch has its work.";
    if (this.task.phase === "down") return "This task is being taken down.";
    if (this.task.phase === "failed") return "This task failed; try again or take it down.";
    if (this.task.exposed) return "An exposed task has previews only; nobody is here to talk to.";
    return "You can write as soon as the task is ready.";
  }

  fit() {
    this.box.rows = 1;
    const line = parseFloat(getComputedStyle(this.box).lineHeight);
    this.box.rows = Math.min(8, Math.max(1, Math.floor((this.box.scrollHeight - 16) / line)));
  }

  async send() {
    const text = this.box.value.trim();
    if (!text) return;
    this.tell("");
    this.box.value = "";
    this.fit();
    const key = this.channel.wait(text);
    this.entry(key);
    this.log.scrollTop = this.log.scrollHeight;
    try {
      const said = await post(`/api/tasks/${this.task.id}/messages`, { text });
      const waiting = this.channel.entries.get(key);
      if (!waiting) return;
      if (said.messageId && this.channel.entries.has(said.messageId)) {
        this.channel.entries.delete(key);
        this.entry(said.messageId);
      } else {
        Object.assign(waiting, { messageId: said.messageId, note: said.queued ? "queued" : "sending" });
        this.entry(key);
      }
    } catch (error) {
      this.channel.entries.delete(key);
      this.nodes.get(key)?.remove();
      this.nodes.delete(key);
      if (!this.box.value) this.box.value = text;
      this.fit();
      this.tell(error.message);
    }
  }

  async stop(agentId) {
    try {
      await post(`/api/tasks/${this.task.id}/interrupt`, { agentId });
    } catch (error) {
      this.tell(error.message);
    }
  }

  async attach() {
    const file = this.picker.files[0];
    this.picker.value = "";
    if (!file) return;
    if (file.size > 25 * 1024 * 1024) {
      this.tell("An attachment may have 25 MiB; share a larger file in another way.");
      return;
    }
    this.clip.disabled = true;
    try {
      const url = await new Promise((done, failed) => {
        const reader = new FileReader();
        reader.onload = () => done(reader.result);
        reader.onerror = () => failed(new Error("The file cannot be read."));
        reader.readAsDataURL(file);
      });
      const answer = await post(`/api/tasks/${this.task.id}/attachments`, { filename: file.name, dataBase64: url.slice(url.indexOf(",") + 1) });
      this.box.value = `${this.box.value}${this.box.value ? "\n" : ""}See ${answer.path}`;
      this.fit();
      this.box.focus();
      this.tell("");
    } catch (error) {
      this.tell(error.message);
    } finally {
      this.clip.disabled = false;
    }
  }

  tell(problem) {
    this.problem.textContent = problem;
    this.problem.hidden = !problem;
  }
}

// A line, or a card whose first line says what the rest is about.
function system(text, old) {
  const [first, ...rest] = text.split("\n");
  if (!rest.length) return el("div", { class: "system" }, prose(text));
  return el("details", { class: "card told", open: old?.open ?? false }, el("summary", {}, first), el("pre", { tabindex: "0" }, rest.join("\n").trim()));
}

function bubble(kind, who, when, text, live = false) {
  return el("article", { class: `message ${kind}${live ? " live" : ""}` },
    el("header", {}, el("strong", {}, who), el("span", { class: "dim" }, when)),
    el("div", { class: "words" }, prose(text)));
}

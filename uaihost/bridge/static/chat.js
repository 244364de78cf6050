// A task's chat: messages, steps, cards of requests, what agents do, and the box to write in.

import { post } from "./api.js";
import { askCard } from "./asks.js";
import { base64, Composer } from "./composer.js";
import { Crew } from "./crew.js";
import { clock, duration, el, icon, prose } from "./dom.js";
import { exact } from "./exact.js";
import { takeFiles } from "./words.js";

const STATE_WORD = { started: "running", done: "done", failed: "failed" };
const IMAGE = /\.(png|jpe?g|gif|webp|avif|svg|bmp)$/i;

export class Chat {
  constructor(task, channel) {
    this.task = task;
    this.channel = channel;
    this.nodes = new Map();
    this.crew = new Crew(task, channel, {
      stop: (id) => this.stop(id), say: (text) => this.order(text), mention: (id) => this.composer.mention(id), look: (id) => this.look(id),
    });
    this.composer = new Composer(this.crew, channel, { send: (text, files, changed) => this.send(text, files, changed), taken: () => this.fileNames() });
    this.log = el("div", { class: "log", role: "log", "aria-label": "Chat", tabindex: "0" });
    this.hint = el("p", { class: "hint" });
    this.node = el("section", { class: "chat", ondragover: (event) => this.drag(event), ondrop: (event) => this.drop(event) },
      this.crew.strip, this.log, el("div", { class: "foot" }, this.crew.doing, this.composer.node, this.hint));
    this.all();
  }

  get box() {
    return this.composer.box;
  }

  fit() {
    this.composer.fit();
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

  // One entry changed, is new or went.
  entry(key, follow = true) {
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 60;
    const entry = this.channel.entries.get(key);
    const old = this.nodes.get(key);
    if (!entry) {
      old?.remove();
      this.nodes.delete(key);
      return;
    }
    const made = this.draw(entry, old);
    if (!old) this.log.append(made);
    else if (made !== old) old.replaceWith(made);
    this.nodes.set(key, made);
    if (this.empty) this.blank();
    if (follow && atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  draw(entry, old) {
    if (entry.kind === "steps") return this.steps(entry, old);
    if (entry.kind === "work") return this.work(entry, old);
    if (entry.kind === "ask") return askCard(entry, this.crew.name(entry.agentId), (choice) => this.decide(entry, choice), old);
    if (entry.kind === "waiting") return this.bubble("mine waiting", el("strong", {}, "You"), entry.note === "queued" ? "waits for the host" : "sending…", entry);
    const { kind, label, id } = entry.author;
    if (kind === "system") return this.system(entry, old);
    if (kind === "user") return this.bubble("mine", el("strong", {}, id === "user" ? "You" : label), clock(entry.at), entry);
    return this.bubble(`theirs ${this.crew.hue(id)}`, this.crew.name(id), clock(entry.at), entry);
  }

  bubble(kind, who, when, entry) {
    const { text, paths } = takeFiles(entry.text);
    const to = this.crew.ids.length > 1 ? entry.to ?? [] : [];
    return el("article", { class: `message ${kind}${entry.live ? " live" : ""}` },
      el("header", {}, who, to.length ? el("span", { class: "dim to" }, "to ", to.flatMap((id, at) => [at ? ", " : "", this.crew.name(id, "span")])) : null, el("span", { class: "dim" }, when)),
      text || !paths.length ? el("div", { class: "words" }, prose(text)) : null,
      paths.length ? el("ul", { class: "chips" }, paths.map((path) => el("li", { class: "chip-file", title: path }, icon(IMAGE.test(path) ? "image" : "file"), el("span", { class: "chip-name" }, path.slice("/attachments/".length))))) : null);
  }

  // A line, a note that offers to try again, or a card whose first line says what the rest is about.
  system(entry, old) {
    const [first, ...rest] = entry.text.split("\n");
    if (entry.offer) {
      const id = entry.offer;
      return el("section", { class: "card fault", "aria-label": first }, el("p", {}, el("strong", {}, first)), rest.map((line) => el("p", {}, prose(line))),
        el("button", { class: "small", type: "button", onclick: () => this.order(`/retry @${id}`) }, icon("reload"), `Try again with ${this.crew.label(id)}`));
    }
    if (!rest.length) return el("div", { class: "system" }, prose(entry.text));
    return el("details", { class: "card told", open: old?.open ?? false }, el("summary", {}, first), el("pre", { tabindex: "0" }, rest.join("\n").trim()));
  }

  work(entry, old) {
    const count = entry.tools.length;
    const title = entry.running ? ["works", el("span", { class: "dim" }, ` · ${count === 1 ? "1 tool" : `${count} tools`} so far`)]
      : [count === 1 ? "used 1 tool" : `used ${count} tools`, el("span", { class: "dim" }, ` · ${duration(entry.took)}`)];
    return el("details", { class: "work", open: old?.open ?? false }, el("summary", {}, this.crew.name(entry.agentId), " ", title),
      el("ol", {}, entry.tools.map((tool) => el("li", {}, exact(tool)))));
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

  // ---- requests

  async decide(entry, choice) {
    try {
      await post(`/api/tasks/${this.task.id}/permissions/${encodeURIComponent(entry.requestId)}`, { agentId: entry.agentId, ...choice });
    } catch (error) {
      return error.message;
    }
    const next = this.channel.open().find((other) => other !== entry);
    if (next) this.look(next.agentId, next);
    else this.box.focus();
    return "";
  }

  // The card of the oldest request of an agent comes into sight and has the focus.
  look(id, entry = this.channel.open(id)[0]) {
    const card = this.nodes.get(entry?.key);
    card?.scrollIntoView({ block: "center" });
    card?.focus({ preventScroll: true });
  }

  // ---- what agents do, and whether somebody can write

  about(task = this.task, hostThere = this.hostThere ?? true) {
    const turned = task.phase !== this.task.phase;
    this.task = task;
    this.hostThere = hostThere;
    if (turned) {
      for (const entry of this.channel.entries.values()) if (entry.kind === "steps") this.entry(entry.key, false);
    }
    this.crew.draw(task, this.open());
    this.composer.addressed();
    const closed = this.open() ? "" : this.closedBecause();
    this.composer.node.hidden = Boolean(closed);
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

  // ---- words and files

  // Files first: the host hands them over with the next words. "" or why it was refused; changed(): a file's state did.
  async send(text, files, changed) {
    try {
      for (const one of files) {
        if (one.path) continue;
        one.busy = true;
        changed();
        const answer = await post(`/api/tasks/${this.task.id}/attachments`, { filename: one.name, dataBase64: await base64(one.file) });
        one.path = answer.path;
      }
    } catch (error) {
      return error.message;
    }
    return this.say(text || (files.length > 1 ? "Look at these files." : "Look at this file."));
  }

  async say(text) {
    const key = this.channel.wait(text);
    this.entry(key);
    this.log.scrollTop = this.log.scrollHeight;
    try {
      const said = await post(`/api/tasks/${this.task.id}/messages`, { text });
      const waiting = this.channel.entries.get(key);
      if (waiting && said.messageId && this.channel.entries.has(said.messageId)) this.channel.entries.delete(key);
      else if (waiting) Object.assign(waiting, { messageId: said.messageId, note: said.queued ? "queued" : "sending" });
      this.entry(key);
      return "";
    } catch (error) {
      this.channel.entries.delete(key);
      this.entry(key);
      return error.message;
    }
  }

  async order(text) {
    this.composer.tell(await this.say(text));
  }

  async stop(agentId) {
    try {
      await post(`/api/tasks/${this.task.id}/interrupt`, { agentId });
    } catch (error) {
      this.composer.tell(error.message);
    }
  }

  drag(event) {
    if (this.open() && event.dataTransfer.types.includes("Files")) event.preventDefault();
  }

  drop(event) {
    if (!this.open() || !event.dataTransfer.files.length) return;
    event.preventDefault();
    this.composer.add(event.dataTransfer.files);
  }

  // Of the files that went with the messages of this task.
  fileNames() {
    const said = [...this.channel.entries.values()].filter((entry) => entry.kind === "message" || entry.kind === "waiting");
    return said.flatMap((entry) => takeFiles(entry.text).paths.map((path) => path.slice("/attachments/".length)));
  }
}

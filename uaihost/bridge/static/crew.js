// The crew of a task: who is in it, what each does now, and what it has used.

import { BUSY } from "./channel.js";
import { el, icon } from "./dom.js";
import { exact } from "./exact.js";
import { ahead, dollars, moment, tokens } from "./words.js";

const DOING = {
  starting: "starting", idle: "idle", thinking: "thinking", tool: "working",
  "awaiting-permission": "waits for you", stopped: "stopped", failed: "failed",
};
const HUES = 8;
// Letters of what an agent does that stand in one line; the rest is folded.
const SHORT = 90;

export class Crew {
  // act: {stop(id), say(text), mention(id), look(id)}.
  constructor(task, channel, act) {
    this.task = task;
    this.channel = channel;
    this.act = act;
    this.strip = el("div", { class: "crew", role: "group", "aria-label": "Crew" });
    this.doing = el("div", { class: "doing", "aria-live": "polite" });
    this.drawn = ["", ""];
    this.unfolded = new Set();
    this.timer = null;
  }

  get ids() {
    const ids = (this.task.agents ?? []).map((agent) => agent.id);
    return [...ids, ...this.channel.crew.filter((id) => !ids.includes(id))];
  }

  label(id) {
    return (this.task.agents ?? []).find((agent) => agent.id === id)?.label ?? id;
  }

  // The agent's name in its colour.
  name(id, tag = "strong") {
    const label = this.label(id);
    const hue = Math.max(0, this.ids.indexOf(id)) % HUES;
    return el(tag, { class: `who hue-${hue}` }, exact(label), label === id || this.ids.length < 2 ? null : el("span", { class: "handle" }, ` @${id}`));
  }

  hue(id) {
    return `hue-${Math.max(0, this.ids.indexOf(id)) % HUES}`;
  }

  draw(task, open) {
    this.task = task;
    this.members();
    const rows = open ? this.ids.map((id) => [id, this.channel.agents.get(id)]).filter(([, agent]) => agent && (agent.state !== "idle" || agent.until)) : [];
    const now = JSON.stringify(rows.map(([id, agent]) => [id, agent, this.channel.open(id).length]));
    if (this.turned(1, now)) this.doing.replaceChildren(...rows.map(([id, agent]) => this.row(id, agent)));
    clearInterval(this.timer);
    this.timer = rows.some(([, agent]) => agent.until) ? setInterval(() => this.count(), 1000) : null;
  }

  // The same again would be read aloud again, and would take the focus from its buttons.
  turned(part, now) {
    const before = this.drawn[part];
    this.drawn[part] = now;
    return before !== now;
  }

  members() {
    const ids = this.ids;
    this.strip.hidden = !ids.length;
    if (!this.turned(0, JSON.stringify([ids.map((id) => [id, BUSY.has(this.channel.agents.get(id)?.state)]), [...this.channel.usage], this.task.agents, this.task.reviewerOrder]))) return;
    let read = 0, written = 0, cost = null;
    for (const used of this.channel.usage.values()) {
      read += used.read;
      written += used.written;
      if (used.cost !== null) cost = (cost ?? 0) + used.cost;
    }
    const reviews = this.task.reviewerOrder ?? [];
    this.strip.replaceChildren(...ids.map((id) => {
      const agent = this.channel.agents.get(id);
      const about = (this.task.agents ?? []).find((one) => one.id === id);
      const used = this.channel.usage.get(id);
      const at = reviews.indexOf(id);
      const title = [`@${id}`, about?.kind, about?.model, at >= 0 ? `reviewer ${at + 1}` : "", used ? usageWords(used) : ""].filter(Boolean).join(" · ");
      return el("button", { class: `member small ${this.hue(id)}`, type: "button", title, onclick: () => this.act.mention(id), "aria-label": `Mention ${this.label(id)}. ${title}` },
        el("span", { class: `dot ${agent && BUSY.has(agent.state) ? "busy" : ""}`, "aria-hidden": "true" }), this.name(id, "span"),
        at >= 0 ? el("span", { class: "dim" }, reviews.length > 1 ? `reviews, ${at + 1}.` : "reviews") : null,
        used ? el("span", { class: "dim" }, tokens(used.read + used.written)) : null);
    }), read + written ? el("span", { class: "total dim", title: usageWords({ read, written, cost }) }, `${tokens(read + written)} tokens${cost === null ? "" : ` · ${dollars(cost)}`}`) : "");
  }

  row(id, agent) {
    const button = (label, name, action, kind = "") => el("button", { class: `small ${kind}`, type: "button", "aria-label": `${label} ${this.label(id)}`, onclick: action }, name ? icon(name) : null, label);
    const waits = agent.state === "awaiting-permission" && this.channel.open(id).length;
    return el("div", { class: `agent ${agent.state}${agent.until ? " parked" : ""} ${this.hue(id)}` },
      BUSY.has(agent.state) && agent.state !== "awaiting-permission" ? el("span", { class: "pulse", "aria-hidden": "true" }) : el("span", { class: "dot", "aria-hidden": "true" }),
      el("div", { class: "what" }, this.name(id), agent.until ? this.parked(agent.until) : [` ${DOING[agent.state] ?? agent.state}`, this.detail(id, agent.detail)]),
      waits ? button("Show", null, () => this.act.look(id)) : null,
      agent.until ? button("Try now", "reload", () => this.act.say(`/retry @${id}`)) : null,
      agent.state === "failed" || agent.state === "stopped" ? button("Restart", "reload", () => this.act.say(`/restart @${id}`)) : null,
      BUSY.has(agent.state) ? button("Stop", "stop", () => this.act.stop(id), "quiet") : null);
  }

  detail(id, text) {
    if (!text) return null;
    if (text.length <= SHORT && !text.includes("\n")) return el("span", { class: text.startsWith("retry ") ? "retrying" : "dim" }, " · ", exact(text));
    return el("details", { class: "long", open: this.unfolded.has(id), ontoggle: (event) => this.unfolded[event.target.open ? "add" : "delete"](id) },
      el("summary", { class: "dim" }, " · ", exact(text.split("\n")[0].slice(0, SHORT)), "… ", el("span", { class: "more-word" }, "all")), el("pre", { class: "exact", tabindex: "0" }, exact(text)));
  }

  parked(until) {
    return [" has met its usage limit", el("span", { class: "dim" }, ` · goes on by itself at ${moment(until)}, `, el("span", { role: "timer", "data-until": until }, ahead(until)))];
  }

  count() {
    if (!this.doing.isConnected) return;
    for (const node of this.doing.querySelectorAll("[data-until]")) {
      const words = ahead(Number(node.dataset.until));
      if (node.textContent !== words) node.textContent = words;
    }
  }
}

function usageWords({ read, written, cost }) {
  return `${read.toLocaleString()} tokens read, ${written.toLocaleString()} written${cost === null ? "" : `, ${dollars(cost)}`}`;
}

// The crew of a new task: one row an agent, and who reviews in which order.

import { el, icon } from "./dom.js";

const MOST = 16;
const ID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/;

export class CrewForm {
  // changed(): something was typed or chosen.
  constructor(changed) {
    this.changed = changed;
    this.offered = [];
    this.agents = []; // {id, label, kind, model, defaultPrompt, initialPrompt, named}
    this.reviewers = []; // agents that review, in order
    this.node = el("fieldset", { class: "crew-form" });
  }

  // kinds: [{kind, models, title?}] of the host; what it does not have is replaced by its first.
  offer(kinds) {
    this.offered = kinds;
    if (!this.agents.length) this.agents = [this.fresh()];
    for (const agent of this.agents) this.fit(agent);
    this.draw();
  }

  fresh() {
    const agent = { id: "", label: "", kind: this.offered[0]?.kind ?? "", model: "", defaultPrompt: "", initialPrompt: "", named: false };
    this.fit(agent);
    return agent;
  }

  fit(agent) {
    const kind = this.offered.find((one) => one.kind === agent.kind) ?? this.offered[0];
    agent.kind = kind?.kind ?? "";
    if (!kind?.models?.includes(agent.model)) agent.model = kind?.models?.[0] ?? "";
    if (!agent.named) agent.id = this.free(agent);
  }

  // The kind as an id, numbered when it is taken.
  free(agent) {
    const base = agent.kind.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 28) || "agent";
    const taken = this.agents.filter((other) => other !== agent).map((other) => other.id);
    let id = base;
    for (let number = 2; taken.includes(id); number += 1) id = `${base}-${number}`;
    return id;
  }

  draw(focus = "") {
    const several = this.agents.length > 1;
    this.node.replaceChildren(el("legend", {}, several ? "Crew" : "Agent"),
      ...this.agents.map((agent, at) => this.row(agent, at)),
      el("div", { class: "crew-actions" }, el("button", { class: "small", type: "button", id: "add-agent", disabled: !this.offered.length || this.agents.length >= MOST, onclick: () => this.add() }, el("span", { "aria-hidden": "true" }, "+"), "Add an agent"),
        several ? el("span", { class: "help" }, "They share the branch and speak to one another by @id; the first one hears the first message.") : null),
      several ? this.reviews() : "",
      el("p", { class: "problem", id: "crew-problem", role: "alert", hidden: true }));
    if (focus) this.node.querySelector(focus)?.focus();
  }

  row(agent, at) {
    const several = this.agents.length > 1;
    const models = this.offered.find((one) => one.kind === agent.kind)?.models ?? [];
    const on = (name) => (event) => { agent[name] = event.target.value; this.changed(); };
    const field = (name, label, control, help) => el("div", { class: "field" }, el("label", { for: `${name}-${at}` }, label), control, help ? el("p", { class: "help" }, help) : null);
    const id = el("input", { id: `agent-id-${at}`, class: "mono", autocomplete: "off", spellcheck: "false", autocapitalize: "off", maxlength: "32", value: agent.id,
      oninput: () => {
        agent.id = id.value.trim().replace(/^@/, "");
        agent.named = Boolean(agent.id);
        this.changed();
        this.renamed(agent, at);
      },
      onchange: () => {
        this.fit(agent);
        id.value = agent.id;
        this.renamed(agent, at);
      } });
    const label = el("input", { id: `agent-label-${at}`, autocomplete: "off", maxlength: "40", value: agent.label, placeholder: agent.id, oninput: on("label") });
    const kind = el("select", { id: `agent-kind-${at}`, onchange: (event) => { agent.kind = event.target.value; this.fit(agent); this.changed(); this.draw(`#agent-kind-${at}`); } },
      this.offered.length ? this.offered.map((one) => el("option", { value: one.kind, selected: one.kind === agent.kind }, one.title || one.kind)) : el("option", { value: "" }, "none on this host"));
    const model = el("select", { id: `agent-model-${at}`, onchange: on("model") }, models.map((one) => el("option", { value: one, selected: one === agent.model }, one)));
    const told = el("textarea", { id: `agent-prompt-${at}`, rows: "3", placeholder: "You review. Change nothing yourself…", oninput: on("defaultPrompt") });
    const first = el("textarea", { id: `agent-first-${at}`, rows: "2", placeholder: "Read the README and say what is missing…", oninput: on("initialPrompt") });
    told.value = agent.defaultPrompt;
    first.value = agent.initialPrompt;
    const filled = Boolean(agent.defaultPrompt || agent.initialPrompt || agent.label);
    return el("section", { class: `agent-row card hue-${at % 8}`, "aria-label": `Agent ${at + 1}` },
      el("div", { class: "agent-line" },
        field("agent-id", "Name", id), field("agent-kind", "Kind", kind), models.length ? field("agent-model", "Model", model) : null,
        several ? el("button", { class: "quiet round remove", type: "button", "aria-label": `Remove ${agent.id}`, "data-label": String(at), "data-verb": "Remove", title: "Remove", onclick: () => this.remove(agent) }, icon("cross")) : null),
      el("details", { class: "agent-more", open: agent.open ?? filled, ontoggle: (event) => { agent.open = event.target.open; } }, el("summary", {}, "Label, instructions and first word"),
        field("agent-label", "Label", label, "What people read; the name is what is typed after @."),
        field("agent-prompt", "Instructions", told, "What this agent is told to be, all the time."),
        field("agent-first", "First word", first, "Opens its first turn as soon as the task is ready.")));
  }

  // In place: an element that is being clicked, or sends, must stay where it is.
  renamed(agent, at) {
    this.node.querySelector(`#agent-label-${at}`).placeholder = agent.id;
    for (const node of this.node.querySelectorAll(`[data-name="${at}"]`)) node.textContent = agent.id;
    for (const node of this.node.querySelectorAll(`[data-label="${at}"]`)) node.setAttribute("aria-label", `${node.dataset.verb} ${agent.id}`);
  }

  add() {
    const agent = this.fresh();
    this.agents.push(agent);
    this.fit(agent);
    this.changed();
    this.draw(`#agent-id-${this.agents.length - 1}`);
  }

  remove(agent) {
    this.agents = this.agents.filter((other) => other !== agent);
    this.reviewers = this.reviewers.filter((other) => other !== agent);
    this.changed();
    this.draw("#add-agent");
  }

  // ---- who reviews

  reviews() {
    const first = this.agents[0];
    this.reviewers = this.reviewers.filter((one) => one !== first && this.agents.includes(one));
    const others = this.agents.slice(1).filter((one) => !this.reviewers.includes(one));
    const rows = [...this.reviewers, ...others].map((agent) => {
      const at = this.reviewers.indexOf(agent);
      const name = this.agents.indexOf(agent);
      const move = (by, label, shown) => el("button", { class: "quiet tiny", type: "button", id: `${shown}-${name}`, "aria-label": `${label} ${agent.id}`, "data-label": String(name), "data-verb": label, disabled: at + by < 0 || at + by >= this.reviewers.length, onclick: () => {
        this.reviewers.splice(at, 1);
        this.reviewers.splice(at + by, 0, agent);
        this.changed();
        this.draw(`#${shown}-${name}:not(:disabled), #reviews-${name}`);
      } }, icon(shown));
      return el("li", {}, el("label", { class: "option" }, el("input", { type: "checkbox", id: `reviews-${name}`, checked: at >= 0, onchange: (event) => {
        this.reviewers = this.reviewers.filter((one) => one !== agent);
        if (event.target.checked) this.reviewers.push(agent);
        this.changed();
        this.draw(`#reviews-${name}`);
      } }), el("span", {}, el("span", { "data-name": String(name) }, agent.id), at >= 0 ? el("span", { class: "dim" }, ` reviews ${["first", "second", "third"][at] ?? `as number ${at + 1}`}`) : null)),
      at >= 0 && this.reviewers.length > 1 ? [move(-1, "Earlier:", "up"), move(1, "Later:", "down")] : null);
    });
    return el("div", { class: "reviewers" }, el("h3", {}, "Review"), el("p", { class: "help" }, "When ", el("span", { "data-name": "0" }, first.id), " has changed something, these look at it, one after the other."), el("ul", {}, rows));
  }

  // ---- what is sent

  // "" or what is wrong, beside the row where it is.
  fault() {
    const ids = this.agents.map((agent) => agent.id);
    const wrong = this.agents.findIndex((agent, at) => !ID.test(agent.id) || ids.indexOf(agent.id) !== at);
    const line = this.node.querySelector("#crew-problem");
    for (const input of this.node.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    line.hidden = wrong < 0;
    if (wrong < 0) return "";
    line.textContent = ID.test(ids[wrong]) ? `Two agents have the name ${ids[wrong]}; each needs its own.` : `“${ids[wrong]}” cannot be a name: letters, digits, _ and -, at most 32.`;
    const input = this.node.querySelector(`#agent-id-${wrong}`);
    input.setAttribute("aria-invalid", "true");
    input.focus();
    return line.textContent;
  }

  // For the API.
  value() {
    const text = (value) => value.trim() || null;
    const agents = this.agents.filter((agent) => agent.kind).map((agent) => ({
      id: agent.id, label: agent.label.trim(), kind: agent.kind, model: text(agent.model), defaultPrompt: text(agent.defaultPrompt), initialPrompt: text(agent.initialPrompt),
    }));
    return { agents, reviewerOrder: agents.length > 1 ? this.reviewers.map((agent) => agent.id) : [] };
  }

  // For keeping, and back.
  draft() {
    return { agents: this.agents.map(({ open, ...agent }) => agent), reviewers: this.reviewers.map((agent) => this.agents.indexOf(agent)) };
  }

  restore(draft) {
    const text = ["id", "label", "kind", "model", "defaultPrompt", "initialPrompt"];
    const agents = Array.isArray(draft?.agents) ? draft.agents.filter((agent) => text.every((name) => typeof agent?.[name] === "string")) : [];
    if (!agents.length) return;
    this.agents = agents.slice(0, MOST);
    this.reviewers = (draft.reviewers ?? []).map((at) => this.agents[at]).filter(Boolean);
  }
}

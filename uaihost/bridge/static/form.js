// The form of a new task.

import { post } from "./api.js";
import { CrewForm } from "./crew_form.js";
import { el } from "./dom.js";

// Where a form that was not sent is kept, in this tab only: an address may have a password in it.
const KEPT = "uaihost.new-task";
const FIELDS = ["repo", "prompt", "name", "branch", "ports", "context"];

export class NewTask {
  constructor(state, opened) {
    this.state = state;
    this.opened = opened;
    this.node = el("section", { class: "page" });
    this.draw();
  }

  hosts() {
    return this.state.hosts.filter((host) => host.connected);
  }

  // Anew when hosts come and go, unless somebody has begun to write.
  refresh() {
    if (!this.touched && !this.sending) this.draw();
  }

  draw() {
    const hosts = this.hosts();
    if (!hosts.length) {
      this.node.replaceChildren(el("h1", {}, "New task"), noHost(this.state));
      return;
    }
    const field = (id, label, control, help) => el("div", { class: "field" },
      el("label", { for: id }, label), control, help ? el("p", { class: "help", id: `${id}-help` }, help) : null, el("p", { class: "problem", id: `${id}-problem`, hidden: true }));
    this.repo = el("input", { id: "repo", name: "repo", required: true, autocomplete: "off", spellcheck: "false", autocapitalize: "off", placeholder: "https://github.com/you/shop.git", "aria-describedby": "repo-help repo-problem" });
    this.name = el("input", { id: "name", autocomplete: "off", maxlength: "80", placeholder: "What is to be done" });
    this.prompt = el("textarea", { id: "prompt", rows: "4", placeholder: "Add opening hours to the front page…" });
    this.ports = el("input", { id: "ports", value: "web:3000", autocomplete: "off", spellcheck: "false", autocapitalize: "off", "aria-describedby": "ports-help ports-problem" });
    this.branch = el("input", { id: "branch", autocomplete: "off", spellcheck: "false", autocapitalize: "off", placeholder: "A new one, from the default branch" });
    this.host = el("select", { id: "host", onchange: () => this.kinds() }, hosts.map((host) => el("option", { value: host.id }, host.id)));
    this.context = el("textarea", { id: "context", rows: "3", placeholder: "The shop sells apples. Prices are in euros…" });
    this.crew = new CrewForm(() => this.keep());
    this.problem = el("p", { class: "problem", role: "alert", hidden: true });
    this.button = el("button", { class: "primary", type: "submit" }, "Start the task");
    this.form = el("form", { novalidate: true, onsubmit: (event) => { event.preventDefault(); this.send(); }, oninput: () => this.keep() },
      field("repo", "Repository", this.repo, "A URL, or the path of a repository on the host. It is cloned: your own checkout is not touched."),
      field("prompt", "First message", this.prompt, "What the agent begins with. You can also say it later."),
      this.crew.node,
      el("details", { class: "more" }, el("summary", {}, "Name, branch, previews and context"),
        field("name", "Name", this.name, "The repository's name when left empty."),
        field("branch", "Branch", this.branch, "Made when it does not exist."),
        field("ports", "Previews", this.ports, "Names and ports of what the task serves, as web:3000, api:8000."),
        field("context", "For every agent", this.context, "What all of them should know, all the time."),
        hosts.length > 1 ? field("host", "Host", this.host) : null),
      hosts.length > 1 ? el("p", { class: "help" }, "Several hosts are connected; the one is chosen under “Name, branch, previews and context”.") : null,
      this.problem,
      el("div", { class: "actions" }, this.button, el("a", { class: "button", href: "#/" }, "Cancel")));
    this.restore();
    this.kinds();
    this.node.replaceChildren(el("h1", {}, "New task"), el("p", { class: "lead" }, "A container of its own, a branch of its own, and a crew of agents, or a single one, at work in it."), this.form);
  }

  kinds() {
    const host = this.hosts().find((one) => one.id === this.host.value) ?? this.hosts()[0];
    this.crew.offer(host.capabilities.agentKinds ?? []);
  }

  // What is written stays until it is sent, over a look at another page and a reload.
  keep() {
    this.touched = true;
    const draft = { crew: this.crew.draft() };
    for (const name of FIELDS) draft[name] = this[name].value;
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(draft));
    } catch {
      // A browser that keeps nothing, or has no room.
    }
  }

  restore() {
    let draft = null;
    try {
      draft = JSON.parse(sessionStorage.getItem(KEPT));
    } catch {
      // Nothing is kept, or nothing that this page wrote.
    }
    if (!draft || typeof draft !== "object") return;
    for (const name of FIELDS) if (typeof draft[name] === "string") this[name].value = draft[name];
    this.crew.restore(draft.crew);
    this.touched = true;
    const more = ["name", "branch", "context"].some((name) => this[name].value) || this.ports.value !== "web:3000";
    this.name.closest("details").open = more;
  }

  fault(id, text) {
    const line = this.form.querySelector(`#${id}-problem`);
    const control = this.form.querySelector(`#${id}`);
    line.textContent = text;
    line.hidden = !text;
    control.toggleAttribute("aria-invalid", Boolean(text));
    if (text) {
      control.closest("details")?.setAttribute("open", "");
      control.focus();
      line.scrollIntoView({ block: "center" });
    }
  }

  async send() {
    this.problem.hidden = true;
    this.fault("ports", "");
    this.fault("repo", "");
    const ports = readPorts(this.ports.value);
    if (typeof ports === "string") this.fault("ports", ports);
    if (!this.repo.value.trim()) this.fault("repo", "Give the repository's URL or path.");
    if (typeof ports === "string" || !this.repo.value.trim() || this.crew.fault()) return;
    this.sending = true;
    this.button.disabled = true;
    this.button.textContent = "Starting…";
    try {
      const { id } = await post("/api/tasks", {
        repoUrl: this.repo.value.trim(), name: this.name.value.trim(), branch: this.branch.value.trim(), previewPorts: ports,
        ...this.crew.value(), prompt: this.prompt.value.trim(), globalContext: this.context.value.trim(), hostId: this.host.value,
      });
      sessionStorage.removeItem(KEPT);
      this.opened(id);
    } catch (error) {
      this.problem.textContent = error.message;
      this.problem.hidden = false;
    } finally {
      this.sending = false;
      this.button.disabled = false;
      this.button.textContent = "Start the task";
    }
  }
}

// "web:3000, api:8000" as the API wants it, or a sentence that says what is wrong.
function readPorts(text) {
  const found = [];
  for (const part of text.split(/[\s,]+/).filter(Boolean)) {
    const match = /^([a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?):(\d{1,5})$/.exec(part);
    const port = match ? Number(match[3]) : 0;
    if (!match || port < 1 || port > 65535) return `“${part}” is not a name and a port, like web:3000 (names: a-z, 0-9 and -).`;
    if (found.some((one) => one.name === match[1])) return `The name ${match[1]} stands twice.`;
    found.push({ name: match[1], port });
  }
  return found;
}

export function noHost(state) {
  const known = state.hosts.map((host) => host.id);
  return el("div", { class: "card guide" },
    el("h2", {}, known.length ? "The host is not connected" : "No host yet"),
    el("p", {}, known.length
      ? `${known.join(", ")} was here before. Tasks run there; start its service again, and this page goes on by itself.`
      : "Tasks run on a host: a machine with a container engine. Start one, and this page goes on by itself."),
    el("pre", { tabindex: "0" }, "# bridge and host on this machine\nuaihost up\n\n# a host alone (UAI_HOST_TOKEN set)\ntwistd -n uaihost"));
}

// The page: what is shown where, and what changes it.

import { get, listen, post, sentence } from "./api.js";
import { BUSY, Channel, FLEETING } from "./channel.js";
import { Chat } from "./chat.js";
import { Diff } from "./diff.js";
import { el, icon } from "./dom.js";
import { NewTask, noHost } from "./form.js";
import { reasonWords, waitingNotice } from "./waiting.js";

// Events after which the crew is shown anew.
const ABOUT_AGENTS = new Set(["channel.activity", "agent.usage", "permission.requested", "permission.resolved"]);

const state = { hosts: [], tasks: new Map(), loaded: false, link: "connecting", problem: "" };
const channels = new Map();
const main = document.getElementById("main");
let shown = { name: "", id: "" };
let view = null;
let source = null;

// ---- what is known

async function load() {
  try {
    const found = await get("/api/state");
    state.hosts = found.hosts;
    state.tasks = new Map(found.tasks.map((task) => [task.id, task]));
    state.loaded = true;
    state.problem = "";
    source?.close();
    source = listen(found.lastEventId, { event: onEvent, task: onTask, hosts: onHosts, link: onLink, again: load });
  } catch (error) {
    state.problem = error.message;
    onLink("lost");
    setTimeout(load, 2000);
  }
  channels.clear();
  shown = { name: "", id: "" };
  route();
}

function onLink(link) {
  const back = state.link === "lost" && link === "open";
  state.link = link;
  side();
  if (back) catchUp();
}

// What the stream does not repeat: records, and words that were streamed meanwhile come whole as events.
async function catchUp() {
  try {
    const found = await get("/api/state");
    state.hosts = found.hosts;
    state.tasks = new Map(found.tasks.map((task) => [task.id, task]));
    side();
    if (view?.refresh) view.refresh();
  } catch {
    // The stream says by itself when the bridge is lost again.
  }
}

function onHosts(hosts) {
  state.hosts = hosts;
  side();
  view?.refresh?.();
}

function onTask(task) {
  state.tasks.set(task.id, task);
  side();
  if (shown.id === task.id) view?.refresh?.();
  else if (!shown.id) view?.refresh?.();
}

function onEvent(event, lastId) {
  // A browser repeats the last id with every event that has none of its own.
  const id = FLEETING.has(event.type) ? 0 : lastId;
  const channel = channels.get(event.taskId);
  if (!channel) return;
  if (!channel.loaded) {
    channel.early.push([event, id]);
    return;
  }
  const keys = channel.apply(event, id);
  if (shown.id === event.taskId) view?.happened?.(keys, event);
}

async function channelOf(id) {
  const channel = new Channel();
  channel.early = [];
  channels.set(id, channel);
  let more = true;
  while (more) {
    const page = await get(`/api/tasks/${id}/events?after=${channel.last}`);
    for (const event of page.events) channel.apply(event, event.id);
    more = page.more;
  }
  channel.loaded = true;
  for (const [event, at] of channel.early) channel.apply(event, at);
  return channel;
}

const hostOf = (task) => state.hosts.find((host) => host.id === task.hostId);

// ---- the side

function side() {
  const link = document.getElementById("link");
  link.className = `link ${state.link}`;
  link.textContent = { open: "live", lost: "offline", connecting: "connecting" }[state.link];
  const banner = document.getElementById("banner");
  banner.hidden = state.link !== "lost" || !state.loaded;
  banner.textContent = "The bridge does not answer. Trying again by itself; is uaihost still running?";
  const tasks = [...state.tasks.values()].sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1));
  const active = tasks.filter((task) => task.phase !== "gone");
  const gone = tasks.filter((task) => task.phase === "gone");
  const nav = document.getElementById("tasks");
  const open = nav.querySelector("details")?.open ?? false;
  nav.replaceChildren(
    active.length ? el("ul", {}, active.map(taskItem)) : el("p", { class: "dim pad" }, state.loaded ? "No task is open." : "Loading…"),
    gone.length ? el("details", { open: open || gone.some((task) => task.id === shown.id) }, el("summary", {}, `Down (${gone.length})`), el("ul", {}, gone.map(taskItem))) : "");
  document.getElementById("hosts").replaceChildren(...state.hosts.map((host) => el("p", { class: host.connected ? "host on" : "host off", title: host.id },
    el("span", { class: "dot", "aria-hidden": "true" }), el("span", { class: "host-name" }, shortId(host.id)), el("span", { class: "dim" }, host.connected ? "connected" : "not connected"))));
  document.getElementById("new").toggleAttribute("aria-current", shown.name === "new");
}

function shortId(id) {
  return id.length > 18 ? `Host ${id.slice(-6)}` : id;
}

function taskItem(task) {
  const agents = channels.get(task.id)?.agents ?? new Map();
  const asks = [...agents.values()].some((agent) => agent.state === "awaiting-permission");
  const busy = [...agents.values()].some((agent) => BUSY.has(agent.state));
  return el("li", {}, el("a", { href: `#/task/${task.id}`, "aria-current": task.id === shown.id ? "page" : null },
    el("span", { class: `dot ${task.status}${busy ? " busy" : ""}`, "aria-hidden": "true" }),
    el("span", { class: "task-name" }, task.name),
    el("span", { class: "dim", title: task.waiting ? reasonWords(task.waiting) : null }, asks ? "waits for you" : task.phase === "gone" ? "" : statusWord(task))));
}

function statusWord(task) {
  if (task.exposed) return "exposed";
  if (task.waiting?.reason === "parked") return "resting";
  if (task.phase === "failed") return "failed";
  if (task.status === "running" && !task.ready && task.phase !== "down") return "starting";
  return task.status;
}

// ---- where we are

function route() {
  const [, name = "", id = "", part = ""] = location.hash.split("/");
  const same = shown.name === name && shown.id === id;
  document.body.dataset.at = name || "home";
  if (same && name === "task" && view?.part) {
    view.part(part);
    return;
  }
  shown = { name, id };
  if (!state.loaded) {
    view = null;
    main.replaceChildren(state.problem
      ? el("div", { class: "blank" }, el("h2", {}, "No answer"), el("p", { role: "alert" }, state.problem))
      : el("div", { class: "blank", "aria-busy": "true" }, el("span", { class: "spinner" }), el("p", {}, "Loading…")));
  } else if (name === "new") {
    view = new NewTask(state, (task) => { location.hash = `#/task/${task}`; });
    main.replaceChildren(back(), view.node);
    main.querySelector("input")?.focus();
  } else if (name === "task") {
    view = new TaskView(id, part);
  } else {
    view = new Home();
  }
  side();
}

function back() {
  return el("a", { class: "back button quiet", href: "#/" }, icon("back"), "Tasks");
}

class Home {
  constructor() {
    this.refresh();
  }

  refresh() {
    document.title = "uaihost";
    const there = state.hosts.some((host) => host.connected);
    const some = [...state.tasks.values()].some((task) => task.phase !== "gone");
    // On a narrow page the list of tasks takes all the room, unless there is more to say.
    document.body.toggleAttribute("data-blank", !there || !some);
    main.replaceChildren(el("section", { class: "page home" },
      el("h1", {}, some ? "Pick a task" : "Put an agent to work"),
      el("p", { class: "lead" }, some
        ? "Open one of the tasks, or start another: they run side by side and never see one another."
        : "Name a repository. It gets a container and a branch of its own; you talk with the agent in it, watch what it changes and open what it serves."),
      there ? el("p", {}, el("a", { class: "button primary", href: "#/new" }, "New task")) : noHost(state)));
  }
}

class TaskView {
  constructor(id, part) {
    this.id = id;
    const task = state.tasks.get(id);
    if (!task) {
      main.replaceChildren(back(), el("div", { class: "blank" }, el("h2", {}, "There is no such task"), el("p", {}, "It may belong to another bridge."), el("a", { class: "button", href: "#/" }, "All tasks")));
      return;
    }
    this.head = el("header", { class: "task-head" });
    this.body = el("div", { class: "task-body" });
    this.notice = el("div", { class: "notices" });
    main.replaceChildren(this.head, this.notice, this.body);
    this.part(part);
    this.fill();
  }

  get task() {
    return state.tasks.get(this.id);
  }

  async fill() {
    try {
      const known = channels.get(this.id);
      const channel = known?.loaded ? known : await channelOf(this.id);
      if (view !== this) return;
      this.chat = new Chat(this.task, channel);
      this.refresh();
      this.part(this.shownPart);
    } catch (error) {
      channels.delete(this.id);
      if (view === this) {
        this.body.replaceChildren(el("div", { class: "blank" }, el("h2", {}, "The chat cannot be read"), el("p", { role: "alert" }, error.message),
          el("button", { onclick: () => this.fill() }, "Try again")));
      }
    }
  }

  part(part) {
    if (!this.body) return;
    this.shownPart = part;
    this.refresh();
    if (part === "changes") {
      this.diff ??= new Diff(this.task);
      if (!this.body.contains(this.diff.node)) {
        this.body.replaceChildren(this.diff.node);
        this.diff.load();
      }
    } else if (this.chat) {
      if (!this.body.contains(this.chat.node)) {
        this.body.replaceChildren(this.chat.node);
        this.chat.all();
        this.chat.fit();
        if (matchMedia("(min-width: 721px)").matches) this.chat.box.focus();
      }
    } else {
      this.body.replaceChildren(el("div", { class: "blank", "aria-busy": "true" }, el("span", { class: "spinner" }), el("p", {}, "Loading the chat…")));
    }
  }

  happened(keys, event) {
    for (const key of keys) this.chat?.entry(key);
    if (event.type === "task.resources") {
      this.used = el("span", { class: "dim used", title: "Memory and processor time of the task now" }, `${size(event.memoryBytes)} · ${Math.round(event.cpuPercent)} %`);
      this.refresh();
    }
    if (ABOUT_AGENTS.has(event.type)) this.chat?.about();
    if (event.type === "channel.activity") {
      side();
      if (event.state === "idle" && this.shownPart === "changes") this.diff?.load();
    }
  }

  refresh() {
    const task = this.task;
    if (!task || !this.head) return;
    document.title = `${task.name} · uaihost`;
    const there = hostOf(task)?.connected ?? false;
    const tab = (part, label) => el("a", { href: `#/task/${task.id}${part ? `/${part}` : ""}`, "aria-current": (this.shownPart || "") === part ? "page" : null }, label);
    const tell = (href, label) => el("a", { class: "button small", href, target: "_blank", rel: "noopener" }, label, icon("external"));
    this.head.replaceChildren(
      el("div", { class: "title" }, el("a", { class: "back", href: "#/", "aria-label": "All tasks" }, icon("back")),
        el("h1", { title: task.name }, task.name), el("span", { class: `chip ${task.phase === "failed" ? "failed" : task.status}` }, statusWord(task)), this.used ?? ""),
      el("div", { class: "where" }, task.branch ? [el("span", { class: "branch", title: "Branch" }, task.branch), el("span", { class: "dim repo", title: task.repoUrl }, task.repoUrl)] : el("span", { class: "dim" }, "made with uaihost expose")),
      el("div", { class: "links" }, task.previews.map((preview) => tell(preview.url, preview.name)), task.editorUrl ? tell(task.editorUrl, "Editor") : null,
        task.exposed || task.phase === "gone" ? null : el("button", { class: "small danger", onclick: () => this.askDown() }, "Take down")),
      task.exposed ? "" : el("nav", { class: "tabs", "aria-label": "Parts of the task" }, tab("", "Chat"), ["prompt", "ready"].includes(task.phase) ? tab("changes", "Changes") : ""));
    const host = hostOf(task);
    this.notice.replaceChildren(
      !there && task.phase !== "gone" ? el("p", { class: "notice warn", role: "status" }, el("span", {}, `The host${host ? ` ${shortId(host.id)}` : ""} is not connected. Start its service (`, el("code", {}, "uaihost up"), "); the task goes on from where it is.")) : "",
      task.phase === "failed" ? el("div", { class: "notice bad", role: "alert" }, el("span", {}, sentence(task.message || "The task failed")), el("button", { class: "small", onclick: (event) => this.retry(event.target) }, icon("reload"), "Try again")) : "",
      there && task.phase !== "gone" && task.phase !== "failed" ? waitingNotice(task.waiting) : "",
      task.phase === "ready" && task.status === "stopped" && !task.waiting ? el("p", { class: "notice warn" }, "The container of this task has ended. Its work is kept; take the task down to save it.") : "",
      task.phase === "ready" && task.status !== "failed" && task.message ? el("p", { class: "notice warn" }, sentence(task.message)) : "",
      this.kept ?? "");
    this.chat?.about(task, there);
  }

  async retry(button) {
    button.disabled = true;
    try {
      await post(`/api/tasks/${this.id}/retry`);
    } catch (error) {
      button.disabled = false;
      this.say(error.message);
    }
  }

  say(problem) {
    this.kept = el("p", { class: "notice bad", role: "alert" }, problem);
    this.refresh();
  }

  askDown() {
    const task = this.task;
    const dialog = document.getElementById("ask");
    const problem = el("p", { class: "problem", role: "alert", hidden: true });
    const yes = el("button", { class: "danger filled", onclick: async () => {
      yes.disabled = true;
      yes.textContent = "Taking down…";
      problem.hidden = true;
      try {
        const answer = await post(`/api/tasks/${task.id}/down`);
        dialog.close();
        this.saved(answer);
      } catch (error) {
        problem.textContent = error.message;
        problem.hidden = false;
        yes.disabled = false;
        yes.textContent = "Take down";
      }
    } }, "Take down");
    dialog.replaceChildren(el("h2", { id: "ask-title" }, `Take “${task.name}” down?`),
      el("p", {}, "The agents stop and the container is removed. Nothing of the work is lost: commits stay on ", el("code", {}, task.branch), ", and what is not committed is saved to a branch beside it."),
      problem, el("div", { class: "actions" }, el("button", { onclick: () => dialog.close() }, "Keep it running"), yes));
    dialog.showModal();
  }

  saved(answer) {
    const lines = (answer.saved ?? []).map((one) => el("li", {}, el("strong", {}, one.slug), ": ", el("code", {}, one.wip ?? one.branch), one.repository ? [" in ", el("code", {}, one.repository)] : null));
    this.kept = el("div", { class: "notice good", role: "status" }, el("span", {}, answer.status === "stopping" ? "The host takes the task down as soon as it is connected." : "The task is down. Its work is kept:", lines.length ? el("ul", {}, lines) : null));
    if (this.shownPart === "changes") location.hash = `#/task/${this.id}`;
    this.refresh();
  }
}

function size(bytes) {
  return bytes < 1 << 30 ? `${Math.round(bytes / (1 << 20))} MiB` : `${(bytes / (1 << 30)).toFixed(1)} GiB`;
}

window.addEventListener("hashchange", route);
document.addEventListener("keydown", (key) => {
  const typing = key.target.closest?.("input, textarea, select, dialog");
  if (!typing && key.key === "n" && !key.ctrlKey && !key.metaKey && !key.altKey) {
    key.preventDefault();
    location.hash = "#/new";
  }
});
document.querySelector(".skip").addEventListener("click", (event) => {
  // The fragment is the page's route, so the jump is made by hand.
  event.preventDefault();
  main.focus();
});
route();
side();
load();

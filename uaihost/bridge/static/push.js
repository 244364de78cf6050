// Pushing what a task has committed, and opening a pull request: a button, what is under way, what came of it.

import { post, sentence } from "./api.js";
import { el, icon } from "./dom.js";

export class Push {
  constructor(task) {
    this.task = task;
    this.node = el("div", { class: "push", "aria-label": "Push", role: "group" });
    this.idle();
  }

  // said: what came of the last one, above the button.
  idle(...said) {
    const pull = el("input", { type: "checkbox", id: `pull-${this.task.id}`, checked: this.wanted ?? true });
    pull.addEventListener("change", () => { this.wanted = pull.checked; });
    const form = el("form", { onsubmit: (event) => { event.preventDefault(); this.push(pull.checked); } },
      el("button", { type: "submit", class: "small" }, icon("up"), "Push"),
      el("label", { for: pull.id }, pull, " and open a pull request"));
    this.node.replaceChildren(...said, form);
  }

  async push(pull) {
    this.node.replaceChildren(el("p", { role: "status", "aria-busy": "true" }, el("span", { class: "spinner" }), " Pushing…"));
    try {
      const done = await post(`/api/tasks/${this.task.id}/push`, { pullRequest: pull });
      const said = done.projects.flatMap((project) => lines(project, done.projects.length > 1));
      this.idle(el("ul", { class: "pushed", role: "status" }, ...said));
    } catch (error) {
      this.idle(el("p", { class: "notice warn", role: "alert" }, error.message));
    }
  }
}

function lines(project, named) {
  const about = named ? `${project.slug}: ` : "";
  const found = [];
  if (project.pushed) found.push(el("li", {}, `${about}${project.branch} is at ${project.remote}.`));
  if (project.message) found.push(el("li", {}, about + sentence(project.message)));
  const pull = project.pullRequest;
  if (pull) {
    found.push(el("li", {}, about, link(pull.url, `Pull request ${pull.number}`), pull.created ? " is opened." : " was open already."));
  } else if (project.url) {
    found.push(el("li", {}, about, link(project.url, "Open a pull request"), " at the forge."));
  }
  if (project.error) found.push(el("li", { class: "failed" }, about + sentence(project.error.message)));
  return found;
}

// The address comes from a forge: only https leads anywhere.
function link(address, text) {
  return address.startsWith("https://") ? el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, text) : `${text} (${address})`;
}

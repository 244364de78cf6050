// What a task changed: files with their unified hunks, two columns of line numbers, colours and signs.

import { get } from "./api.js";
import { el, icon } from "./dom.js";

// Lines of one file that are drawn before somebody asks for the rest.
const FIRST_LINES = 600;

export class Diff {
  constructor(task) {
    this.task = task;
    this.node = el("section", { class: "diff", "aria-label": "Changes" });
    this.load();
  }

  async load() {
    if (this.loading) return;
    this.loading = true;
    if (!this.node.childElementCount) {
      this.node.replaceChildren(el("div", { class: "blank", "aria-busy": "true" }, el("span", { class: "spinner" }), el("p", {}, "Comparing…")));
    }
    try {
      this.show(await get(`/api/tasks/${this.task.id}/diff`));
    } catch (error) {
      this.node.replaceChildren(el("div", { class: "blank" }, el("h2", {}, "No comparison"), el("p", { role: "alert" }, error.message), this.again("Try again")));
    } finally {
      this.loading = false;
    }
  }

  again(label) {
    return el("button", { class: "small", onclick: () => this.load() }, icon("reload"), label);
  }

  show(diff) {
    const closed = new Set([...this.node.querySelectorAll("details:not([open])")].map((node) => node.dataset.path));
    const files = diff.projects.flatMap((project) => project.files);
    if (!files.length) {
      this.node.replaceChildren(el("div", { class: "blank" }, el("h2", {}, "Nothing changed yet"), el("p", {}, "Whatever the agents change, committed or not, shows up here."), this.again("Look again")));
      return;
    }
    const added = files.reduce((sum, file) => sum + file.additions, 0);
    const removed = files.reduce((sum, file) => sum + file.deletions, 0);
    const head = el("div", { class: "diff-head" },
      el("p", {}, `${files.length} ${files.length === 1 ? "file" : "files"} changed `, counts(added, removed)), this.again("Look again"));
    const parts = diff.projects.map((project) => [
      diff.projects.length > 1 ? el("h2", {}, project.slug) : null,
      project.files.map((file) => this.file(file, closed)),
      project.truncated ? el("p", { class: "notice" }, "This is too much to show; the rest is in the task's branch.") : null,
    ]);
    this.node.replaceChildren(head, ...parts.flat(3).filter(Boolean));
  }

  file(file, closed) {
    const name = file.oldPath && file.oldPath !== file.path ? `${file.oldPath} → ${file.path}` : file.path;
    const body = el("div", { class: "hunks", tabindex: "0", role: "region", "aria-label": file.path });
    const details = el("details", { class: "file card", "data-path": file.path, open: !closed.has(file.path) },
      el("summary", {}, el("span", { class: `status ${file.status}` }, file.status), el("span", { class: "path" }, name), counts(file.additions, file.deletions)), body);
    if (file.binary) body.append(el("p", { class: "notice" }, "A binary file."));
    else if (!file.hunks) body.append(el("p", { class: "notice" }, file.oldMode !== file.newMode && file.oldMode && file.newMode ? `Mode ${file.oldMode} → ${file.newMode}.` : "No lines to show."));
    else this.lines(body, file.hunks.replace(/\n$/, "").split("\n"), FIRST_LINES);
    if (file.truncated) body.append(el("p", { class: "notice" }, "The rest of this file is too long to show."));
    return details;
  }

  lines(body, lines, limit) {
    let before = 0;
    let after = 0;
    const table = el("table", {}, el("tbody"));
    for (const line of lines.slice(0, limit)) {
      const head = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@(.*)/.exec(line);
      if (head) {
        before = Number(head[1]);
        after = Number(head[2]);
        table.tBodies[0].append(el("tr", { class: "hunk" }, el("td", { colspan: "3" }, line)));
        continue;
      }
      const sign = line[0] ?? " ";
      const kind = { "+": "added", "-": "removed", "\\": "note" }[sign] ?? "same";
      table.tBodies[0].append(el("tr", { class: kind },
        el("td", { class: "number" }, kind === "same" || kind === "removed" ? String(before++) : ""),
        el("td", { class: "number" }, kind === "same" || kind === "added" ? String(after++) : ""),
        el("td", { class: "line" }, el("span", { class: "sign" }, kind === "note" ? " " : sign), kind === "note" ? line : line.slice(1))));
    }
    body.append(table);
    if (lines.length > limit) {
      const more = el("button", { class: "small", onclick: () => { body.replaceChildren(); this.lines(body, lines, Infinity); } }, `Show all ${lines.length} lines`);
      body.append(more);
    }
  }
}

function counts(added, removed) {
  return el("span", { class: "counts" }, el("span", { class: "plus" }, `+${added}`), " ", el("span", { class: "minus" }, `−${removed}`));
}

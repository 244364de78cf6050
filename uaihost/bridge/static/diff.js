// What a task changed: files with their unified hunks, two columns of line numbers, colours and signs.

import { get } from "./api.js";
import { el, icon } from "./dom.js";
import { Push } from "./push.js";

// Lines of one file that are drawn before somebody asks for the rest.
const FIRST_LINES = 600;

// Why something is not shown.
const REASONS = {
  total: "The changes together are too long to show; this is in the task's branch.",
  large: "This file is too large to be compared line by line.",
  unread: "This file is too large to be looked at.",
};

export class Diff {
  constructor(task) {
    this.task = task;
    this.push = new Push(task);
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
      el("p", {}, `${many(diff.projects.reduce((sum, project) => sum + (project.fileCount ?? project.files.length), 0))} changed `, counts(added, removed)), this.again("Look again"));
    const parts = diff.projects.map((project) => [
      diff.projects.length > 1 ? el("h2", {}, project.slug) : null,
      conflicts(project),
      project.files.map((file) => this.file(file, closed)),
      project.truncated ? el("p", { class: "notice left-out" }, leftOut(project)) : null,
    ]);
    this.node.replaceChildren(head, this.push.node, ...parts.flat(3).filter(Boolean));
  }

  file(file, closed) {
    const name = file.oldPath && file.oldPath !== file.path ? `${file.oldPath} → ${file.path}` : file.path;
    const body = el("div", { class: "hunks", tabindex: "0", role: "region", "aria-label": file.path });
    const status = file.conflict ? "conflict" : file.status;
    const details = el("details", { class: "file card", "data-path": file.path, open: !closed.has(file.path) },
      el("summary", {}, el("span", { class: `status ${status}` }, status), el("span", { class: "path" }, name),
        (file.where ?? []).filter((place) => place !== "conflict").map((place) => el("span", { class: `where ${place}` }, place)),
        counts(file.additions, file.deletions)), body);
    body.append(...facts(file).map((fact) => el("p", { class: "notice" }, fact)));
    if (file.hunks) this.lines(body, file.hunks);
    else if (!body.childElementCount && !file.truncated) body.append(el("p", { class: "notice" }, file.similarity === 100 ? "Only its name changed." : "No lines to show."));
    if (file.conflict) this.sides(body, file.conflict);
    if (file.truncated) body.append(el("p", { class: "notice left-out" }, reason(file)));
    return details;
  }

  // What each side of a conflict made of the common beginning.
  sides(body, conflict) {
    for (const [title, side] of [["Ours", conflict.ours], ["Theirs", conflict.theirs]]) {
      const part = el("div", { class: "side" }, el("h3", {}, title, side ? counts(side.additions, side.deletions) : null));
      if (!side) part.append(el("p", { class: "notice" }, "This side has no such file."));
      else if (side.hunks) this.lines(part, side.hunks);
      else part.append(el("p", { class: "notice" }, side.binary ? "A binary file." : side.truncated ? reason(side) : "As it was at the common beginning."));
      body.append(part);
    }
  }

  lines(body, hunks, limit = FIRST_LINES) {
    const lines = hunks.replace(/\n$/, "").split("\n");
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
      const more = el("button", { class: "small", onclick: () => { const all = el("div"); this.lines(all, hunks, Infinity); table.replaceWith(all); more.remove(); } }, `Show all ${lines.length} lines`);
      body.append(more);
    }
  }
}

function reason(file) {
  return REASONS[file.truncatedBy] ?? `${file.hunks ? "The rest of this file" : "This file"} is too long to show.`;
}

function many(number) {
  return `${number} ${number === 1 ? "file" : "files"}`;
}

// What there is to know of a file beside its lines.
function facts(file) {
  const told = [];
  if (file.submodule) {
    const { from, to, dirty } = file.submodule;
    if (from !== to) told.push(`A repository of its own: ${short(from)} → ${short(to)}.`);
    if (dirty) told.push("A repository of its own, with changes inside that are not committed there.");
  }
  if (file.binary) told.push(`A binary file${sizes(file)}.`);
  if (file.conflict) told.push(`In conflict: ${file.conflict.kind}.`);
  if (file.oldMode && file.newMode && file.oldMode !== file.newMode) told.push(`Mode ${file.oldMode} → ${file.newMode}.`);
  return told;
}

function short(commit) {
  return commit ? commit.slice(0, 10) : "none";
}

function sizes(file) {
  const known = [file.oldSize, file.newSize].filter((size) => size !== undefined);
  return known.length ? `, ${known.map((size) => `${size.toLocaleString("en")} bytes`).join(" → ")}` : "";
}

function conflicts(project) {
  const number = project.files.filter((file) => file.conflict).length;
  return number ? el("p", { class: "notice warn" }, `${many(number)} in conflict: somebody has to decide.`) : null;
}

function leftOut(project) {
  const hidden = (project.fileCount ?? 0) - project.files.length;
  return hidden > 0 ? `${many(hidden)} more ${hidden === 1 ? "is" : "are"} not listed; all is in the task's branch.` : "Not everything is shown; all is in the task's branch.";
}

function counts(added, removed) {
  return el("span", { class: "counts" }, el("span", { class: "plus" }, `+${added}`), " ", el("span", { class: "minus" }, `−${removed}`));
}

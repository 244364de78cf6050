// The tasks: what each does, uses and waits for; and the two things to do to one from here.

import { at, bytes, make, plural, refresh, sentence, span, word } from "/static/dom.js";
import { verb } from "/static/api.js";

const DOTS = { running: "good", failed: "bad", stopped: "off", exposed: "good" };
const LIVE = new Set(["running", "failed", "pending", "preparing", "starting", "stopping", "exposed"]);
const rows = new Map();

export function tasks(status) {
  at("no-tasks").hidden = status.tasks.length > 0;
  const order = [...status.tasks].sort((one, other) => rank(one) - rank(other) || (other.updatedAt ?? 0) - (one.updatedAt ?? 0));
  const ids = new Set(order.map((task) => task.id));
  for (const [id, row] of rows) {
    if (!ids.has(id)) {
      row.root.remove();
      rows.delete(id);
    }
  }
  order.forEach((task, index) => {
    const row = rows.get(task.id) ?? begin(task.id);
    show(row, task, status.now);
    if (at("tasks").children[index] !== row.root) at("tasks").insertBefore(row.root, at("tasks").children[index] ?? null);
  });
}

const rank = (task) => (task.status === "stopped" ? 1 : 0);

function begin(id) {
  const row = { id, busy: "" };
  row.head = make("div.head");
  row.facts = make("dl");
  row.waits = make("p.waits");
  row.steps = make("ol");
  row.more = make("details", null, make("summary", null, "Steps"), row.steps);
  row.said = make("p.said", { role: "status" });
  row.export = make("button", { type: "button", click: () => act(row, "export") }, "Export");
  row.stop = make("button.danger", { type: "button", click: () => act(row, "stop") }, "Stop");
  row.root = make("li", { "data-task": id }, row.head, make("div.acts", null, row.export, row.stop), row.waits, row.facts, row.more, row.said);
  rows.set(id, row);
  return row;
}

function show(row, task, now) {
  const waiting = task.waiting;
  row.name = task.slug ?? task.id;
  row.export.setAttribute("aria-label", `Export the work of ${row.name}`);
  row.stop.setAttribute("aria-label", `Stop ${row.name}`);
  refresh(row.head, [task.status, task.slug, task.branch], () => [
    make(`span.dot.${DOTS[task.status] ?? "busy"}`, { "aria-hidden": "true" }),
    make("h3", null, task.slug ?? task.id),
    task.slug && task.slug !== task.id ? make("code", null, task.id) : null,
    make("span.status", null, task.status),
    task.branch && task.branch !== task.slug ? make("span.branch", null, task.branch) : null,
  ]);
  const why = waiting
    ? `${waiting.text}${waiting.percent === undefined ? "" : ` (${waiting.percent} %)`}, for ${span((now - waiting.since) / 1000)}`
    : task.message ?? (task.ended ? task.ended.text : "");
  word(row.waits, sentence(why));
  row.waits.hidden = !why;
  refresh(row.facts, [task.usage, task.previewPorts, task.codeServerPort, task.agents, task.memoryLimit], () => facts(task));
  const steps = task.steps ?? [];
  row.more.hidden = !steps.length;
  refresh(row.steps, steps, () => steps.map((one) => make(`li.${one.state}`, null,
    make("span", null, one.step), make("span.dim", null, one.message ?? one.state),
    make("span.number", null, one.elapsedMs === null ? "" : `${(one.elapsedMs / 1000).toFixed(1)} s`))));
  row.stop.hidden = !LIVE.has(task.status);
  row.stop.disabled = row.export.disabled = Boolean(row.busy);
  row.export.hidden = task.status === "exposed";
  row.stop.textContent = row.busy === "stop" ? "Stopping" : "Stop";
  row.export.textContent = row.busy === "export" ? "Exporting" : "Export";
}

function facts(task) {
  const found = [];
  const add = (name, ...value) => found.push(make("div", null, make("dt", null, name), make("dd", null, ...value)));
  if (task.usage) {
    add("Memory", `${bytes(task.usage.memoryBytes)} of ${bytes(task.memoryLimit)}`);
    add("CPU", `${Math.round(task.usage.cpuPercent)} %`);
  }
  if (task.agents?.length) add("Agents", task.agents.map((one) => `@${one.id} ${one.state}`).join(", "));
  const ports = [...(task.previewPorts ?? [])];
  if (task.codeServerPort) ports.unshift({ name: "editor", hostPort: task.codeServerPort });
  if (ports.length) add("Ports", ports.map(port));
  return found;
}

// By another name than this page has: what the browser keeps for this page is not sent along.
function port({ name, hostPort, containerPort }) {
  if (!hostPort) return make("span.port", null, `${name} ${containerPort ?? ""}`, make("small", null, " through the bridge"));
  return make("a.port", { href: `http://localhost:${hostPort}/`, target: "_blank", rel: "noopener noreferrer" }, `${name} ${hostPort}`);
}

async function act(row, name) {
  if (name === "stop" && !(await sure(row.name))) return;
  row.busy = name;
  row.stop.disabled = row.export.disabled = true;
  word(row.said, name === "stop" ? "Its work is saved, then it ends." : "Its work is packed. The task goes on.");
  row.said.className = "said";
  try {
    const done = await verb(`task.${name}`, { taskId: row.id });
    if (name === "stop") stopped(row, done);
    else exported(row, done);
  } catch (error) {
    word(row.said, sentence(error.message));
    row.said.className = "said failed";
  }
  row.busy = "";
  row.stop.disabled = row.export.disabled = false;
}

function stopped(row, done) {
  const kept = done.saved.map((one) => `${one.slug} (${one.branch}${one.wip ? ", uncommitted work too" : ""})`);
  row.said.replaceChildren(
    kept.length ? `Stopped. Saved: ${kept.join(", ")}. To get it back: ` : "Stopped. It held no work.",
    ...(done.restore ? [make("code", null, done.restore)] : []),
  );
}

function exported(row, done) {
  const names = Object.keys(done.notes);
  word(row.said, `${done.file}, ${bytes(done.bytes)}, with ${plural(names.length, "folder")}: ${names.join(", ")}.`);
  const link = make("a", { href: done.download, download: done.file });
  document.body.append(link);
  link.click();
  link.remove();
}

function sure(name) {
  word(at("ask-title"), `Stop ${name}?`);
  word(at("ask-text"), "Its agents and servers end. Its work is saved first, with uncommitted files, and can be had back.");
  const dialog = at("ask");
  dialog.returnValue = "no";
  dialog.showModal();
  at("ask-no").focus();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

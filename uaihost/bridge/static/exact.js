// What an agent wants to do, to the letter: nothing hidden, nothing reordered, nothing left out.

import { el } from "./dom.js";
import { exactParts } from "./words.js";

// A text with what cannot be seen written out.
export function exact(text) {
  return exactParts(String(text)).map(([part, hidden]) => (hidden ? el("span", { class: "hidden-character", title: "A character that cannot be seen" }, part) : part));
}

const PATHS = ["file_path", "path", "notebook_path"];
const PAIRS = [["old_string", "new_string"], ["old", "new"], ["old_text", "new_text"]];
const WHOLE = ["content", "text", "new_source"];

// The input of a request: command, paths and changes first, the rest by name, and all of it as it was given.
export function inputOf(input) {
  const left = new Map(Object.entries(input ?? {}));
  const take = (name, fits) => {
    const value = left.get(name);
    if (!fits(value)) return undefined;
    left.delete(name);
    return value;
  };
  const text = (value) => typeof value === "string";
  const parts = [];
  const command = take("command", (value) => text(value) || Array.isArray(value));
  if (command !== undefined) parts.push(block("Command", text(command) ? command : JSON.stringify(command), "command"));
  for (const name of PATHS) {
    const path = take(name, text);
    if (path !== undefined) parts.push(el("p", { class: "exact-path" }, el("code", {}, exact(path))));
  }
  for (const [before, after] of PAIRS) {
    if (text(left.get(before)) && text(left.get(after))) parts.push(change(take(before, text), take(after, text)));
  }
  for (const one of take("edits", (value) => Array.isArray(value) && value.every(isPair)) ?? []) parts.push(change(one.old_string, one.new_string));
  for (const one of take("changes", (value) => Array.isArray(value) && value.every(isChange)) ?? []) {
    parts.push(el("p", { class: "exact-path" }, el("code", {}, exact(one.path)), kindOf(one) ? el("span", { class: "status" }, exact(kindOf(one))) : null), unified(one.diff, kindOf(one)));
  }
  for (const name of WHOLE) {
    const whole = take(name, text);
    if (whole !== undefined) parts.push(block(name === "text" ? "Text" : "Content", whole));
  }
  const rest = [...left].map(([name, value]) => [el("dt", {}, exact(name)), el("dd", {}, el("pre", { tabindex: "0", class: "exact" }, exact(text(value) ? value : JSON.stringify(value, null, 2))))]);
  if (rest.length) parts.push(el("dl", {}, rest));
  if (parts.length) {
    parts.push(el("details", { class: "given" }, el("summary", {}, "Input as given"), el("pre", { tabindex: "0", class: "exact" }, exact(JSON.stringify(input, null, 2)))));
  }
  return parts;
}

const isPair = (one) => typeof one?.old_string === "string" && typeof one?.new_string === "string" && Object.keys(one).length === 2;
const isChange = (one) => typeof one?.path === "string" && typeof one?.diff === "string";
const kindOf = (one) => String(one.kind?.type ?? one.kind ?? "");

function block(name, text, kind = "") {
  const lines = text.split("\n").length;
  return el("figure", { class: "exact-block" },
    el("figcaption", {}, name, lines > 10 ? el("span", { class: "dim" }, `${lines} lines, look at all of them`) : null),
    el("pre", { tabindex: "0", class: `exact ${kind}` }, exact(text)));
}

// Equal lines at both ends are shown as such.
function change(before, after) {
  const [old, now] = [before.split("\n"), after.split("\n")];
  let head = 0;
  while (head < old.length && head < now.length && old[head] === now[head]) head += 1;
  let tail = 0;
  while (tail < old.length - head && tail < now.length - head && old.at(-1 - tail) === now.at(-1 - tail)) tail += 1;
  return rows([
    ...old.slice(0, head).map((line) => [" ", line]),
    ...old.slice(head, old.length - tail).map((line) => ["-", line]),
    ...now.slice(head, now.length - tail).map((line) => ["+", line]),
    ...old.slice(old.length - tail).map((line) => [" ", line]),
  ]);
}

// A file that is new or goes has its content here instead of a diff.
function unified(text, kind) {
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  if (!lines.some((line) => line.startsWith("@@"))) {
    const sign = { add: "+", delete: "-" }[kind] ?? " ";
    return rows(lines.map((line) => [sign, line]));
  }
  return rows(lines.map((line) => (/^[-+ ]/.test(line) ? [line[0], line.slice(1)] : ["", line])));
}

const ROW = { "+": "added", "-": "removed", "": "hunk" };

function rows(lines) {
  return el("figure", { class: "exact-block" },
    lines.length > 14 ? el("figcaption", {}, "Change", el("span", { class: "dim" }, `${lines.length} lines, look at all of them`)) : null,
    el("pre", { tabindex: "0", class: "exact change" }, lines.map(([sign, line]) => el("span", { class: `line ${ROW[sign] ?? ""}` },
      el("span", { class: "sign" }, sign), el("span", {}, exact(line)), "\n"))));
}

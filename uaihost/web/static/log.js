// The log as it is written; by level and by task, and held while somebody reads.

import { at, make, word } from "/static/dom.js";
import { follow, Locked } from "/static/api.js";

// Records on the page: what the host keeps too.
const LIMIT = 1000;
let after = 0;
let reading = null;
let held = [];
let paused = false;

export function startLog() {
  at("log-level").addEventListener("change", again);
  at("log-task").addEventListener("change", again);
  at("log-pause").addEventListener("click", pause);
  again();
}

// From the first record that is kept: another filter, or another process of the host.
export function again() {
  after = 0;
  held = [];
  at("records").replaceChildren();
  reading?.abort();
  reading = new AbortController();
  listen(reading.signal);
}

export function knownTasks(ids) {
  const place = at("log-task");
  const there = new Set([...place.options].map((option) => option.value));
  for (const id of ids) if (!there.has(id)) place.append(make("option", { value: id }, id));
}

async function listen(signal) {
  while (!signal.aborted) {
    try {
      const words = { after: String(after), level: at("log-level").value, task: at("log-task").value };
      await follow(words, signal, heard);
    } catch (error) {
      if (signal.aborted || error instanceof Locked) return;
      await new Promise((done) => setTimeout(done, 2000));
    }
  }
}

function heard(number, record) {
  after = number;
  if (paused) {
    held.push(record);
    held.splice(0, held.length - LIMIT);
    word(at("log-pause"), `Go on (${held.length} new)`);
  } else {
    add([record]);
  }
}

function pause() {
  paused = !paused;
  at("log-pause").setAttribute("aria-pressed", String(paused));
  word(at("log-pause"), paused ? "Go on" : "Pause");
  if (!paused) add(held.splice(0));
}

function add(records) {
  const place = at("records");
  const atEnd = place.scrollTop + place.clientHeight >= place.scrollHeight - 30;
  place.append(...records.map(line));
  while (place.children.length > LIMIT) place.firstChild.remove();
  if (atEnd) place.scrollTop = place.scrollHeight;
}

function line(record) {
  const about = ["task", "command"].filter((name) => record[name]).map((name) => make("span.about", null, record[name]));
  return make(`li.${record.level}`, null,
    make("time", { datetime: record.time }, new Date(record.time).toLocaleTimeString()),
    make("span.level", null, record.level),
    make("span.text", null, record.message, ...about,
      record.trace ? make("details", null, make("summary", null, "where"), make("pre", null, record.trace)) : null));
}

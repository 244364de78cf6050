// The local page: looks at the host every other second while somebody sees it.

import { at, sentence, word } from "/static/dom.js";
import { Locked, look } from "/static/api.js";
import { cards, countDown, health, silence } from "/static/cards.js";
import { again, knownTasks, startLog } from "/static/log.js";
import { tasks } from "/static/tasks.js";

// Milliseconds between two looks, seen and not seen.
const SEEN = 2000;
const UNSEEN = 20000;
let process = 0;
let ahead = 0;
let timer = 0;

async function see() {
  clearTimeout(timer);
  try {
    const status = await look("/api/status");
    ahead = status.now - Date.now();
    at("main").hidden = false;
    at("locked").hidden = true;
    health(status);
    tasks(status);
    cards(status);
    countDown(status.now);
    knownTasks(status.tasks.map((task) => task.id));
    if (!process) startLog();
    else if (process !== status.startedAt) again();
    process = status.startedAt;
    word(at("pulse"), "");
    away(false);
  } catch (error) {
    if (error instanceof Locked) {
      at("main").hidden = true;
      at("locked").hidden = false;
      word(at("pulse"), "");
      return;
    }
    const silent = error instanceof TypeError;
    if (silent) silence();
    word(at("pulse"), silent ? "" : sentence(error.message));
    away(true);
  }
  timer = setTimeout(see, document.hidden ? UNSEEN : SEEN);
}

// What is shown is of before, and nobody is there to ask.
function away(gone) {
  document.body.classList.toggle("away", gone);
  at("tasks").inert = gone;
}

document.addEventListener("visibilitychange", () => document.hidden || see());
setInterval(() => countDown(Date.now() + ahead), 1000);
see();

// Why a task does not move, as its host says it (docs/tasks.md), in words.

import { el } from "./dom.js";

const WORDS = {
  queued: "Waits for an earlier command",
  "engine-unreachable": "The container engine does not answer",
  memory: "Waits for free memory",
  disk: "Waits for free disk",
  cloning: "Fetching the repository",
  copying: "Making the work copy",
  "image-pulling": "Pulling the base image",
  "image-building": "Building the task image",
  tools: "Installing tool versions",
  "container-starting": "Starting the container",
  "isolation-check": "Checking what the container can reach",
  setup: "Running the repository's set-up",
  "editor-starting": "Starting the editor",
  "waiting-for-approval": "An agent waits for your answer",
  "agents-stopping": "Stopping the agents",
  saving: "Saving the work",
  removing: "Removing the container",
  restart: "The container ended; starting it again",
  parked: "Resting since the machine was restarted; it starts when you use it",
};

export const reasonWords = (waiting) => WORDS[waiting.reason] ?? waiting.reason;

// One line under the task's head; nothing when a person is asked, since the question itself is there.
export function waitingNotice(waiting) {
  if (!waiting || waiting.reason === "waiting-for-approval") return "";
  const known = Number.isFinite(waiting.percent);
  const still = waiting.reason === "parked";
  return el("div", { class: "notice waiting", role: "status" },
    el("span", { class: "waiting-what" }, still ? null : el("span", { class: "spinner", "aria-hidden": "true" }),
      el("span", {}, el("strong", {}, reasonWords(waiting)), waiting.text ? el("span", { class: "dim" }, ` · ${waiting.text}`) : null)),
    el("span", { class: "waiting-how" },
      known ? el("progress", { max: "100", value: String(waiting.percent), "aria-label": reasonWords(waiting) }) : null,
      known ? `${waiting.percent} %` : null,
      waiting.deadline ? el("span", { class: "dim" }, `gives up in ${left(waiting.deadline)}`) : null));
}

function left(deadline) {
  const seconds = Math.max(0, Math.round((deadline - Date.now()) / 1000));
  return seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}

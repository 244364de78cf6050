// The cards of what agents ask: leave to use a tool, or the answers to questions.

import { el, icon } from "./dom.js";
import { exact, inputOf } from "./exact.js";
import { ahead, moment } from "./words.js";

// A card. who: the agent's name as an element; decide(choice): sends it, and gives the refusal as a text, "" if
// there was none. choice: {decision, scope?, answers?}.
export function askCard(entry, who, decide, old) {
  if (entry.decision !== null) return decided(entry, who, old);
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const card = el("section", { class: "card ask open", "aria-label": `${entry.questions ? "Question" : "Permission"}: ${entry.title}`, tabindex: "-1" });
  const send = async (choice) => {
    const controls = [...card.querySelectorAll("button, input, textarea")];
    for (const control of controls) control.disabled = true;
    problem.hidden = true;
    problem.textContent = await decide(choice);
    problem.hidden = !problem.textContent;
    if (problem.textContent) for (const control of controls) control.disabled = false;
  };
  // The words of a question stand with its answers.
  const title = !entry.questions ? exact(entry.title) : entry.questions.length > 1 ? [who, " has questions"] : [who, " has a question"];
  card.append(el("h3", {}, el("span", { class: "mark", "aria-hidden": "true" }, "?"), el("span", {}, title)),
    el("p", { class: "dim" }, entry.questions ? "It goes on with your answer" : [who, " asks to use ", exact(entry.tool)], expiry(entry)));
  card.append(...(entry.questions ? questionParts(entry, send, problem) : [...inputOf(entry.input), consent(entry, send)]), problem);
  return card;
}

function expiry(entry) {
  if (!entry.expiresAt) return null;
  return el("span", { title: "Without an answer it counts as declined then" }, ` · open until ${moment(entry.expiresAt)} (${ahead(entry.expiresAt)})`);
}

function consent(entry, send) {
  return el("div", { class: "choice" },
    el("button", { class: "primary", type: "button", onclick: () => send({ decision: "accept" }) }, icon("check"), "Accept"),
    el("button", { type: "button", onclick: () => send({ decision: "decline" }) }, icon("cross"), "Decline"),
    el("button", { class: "quiet always", type: "button", onclick: () => send({ decision: "accept", scope: "task" }) }, "Always allow ", el("strong", {}, exact(entry.tool)), " in this task"));
}

function decided(entry, who, old) {
  const yes = entry.decision === "accept";
  return el("details", { class: `card ask ${entry.decision}`, open: old?.open ?? false },
    el("summary", {}, icon(yes ? "check" : "cross"), el("span", { class: "verdict" }, verdict(entry)), el("span", { class: "ask-title" }, exact(entry.title))),
    el("p", { class: "dim" }, who, entry.questions ? " had a question" : [" asked to use ", exact(entry.tool)], entry.decidedAt ? ` · decided ${moment(entry.decidedAt)}` : null),
    entry.questions ? el("ul", {}, entry.questions.map((one) => el("li", {}, exact(one.question)))) : inputOf(entry.input));
}

function verdict(entry) {
  const by = entry.by ?? "";
  if (by === "withdrawn") return "Withdrawn";
  if (by.startsWith("nobody")) return "Expired";
  if (by.startsWith("rule of ")) return `Allowed by the ${by}`;
  const word = entry.questions ? { accept: "Answered", decline: "Not answered" } : { accept: "Accepted", decline: "Declined" };
  return `${word[entry.decision]}${by && by !== "user" ? ` by ${by}` : ""}`;
}

// ---- questions

function questionParts(entry, send, problem) {
  const fields = entry.questions.map((question, number) => field(entry, question, number));
  const form = el("form", { class: "questions", oninput: () => { problem.hidden = true; }, onsubmit: (event) => {
    event.preventDefault();
    const answers = {};
    for (const one of fields) {
      answers[one.question] = one.answer();
      if (answers[one.question]) continue;
      problem.textContent = fields.length > 1 ? "Answer every question, or decline." : "Choose an answer or write one, or decline.";
      problem.hidden = false;
      one.node.querySelector("input")?.focus();
      return;
    }
    send({ decision: "accept", answers });
  } }, fields.map((one) => one.node), el("div", { class: "choice" },
    el("button", { class: "primary", type: "submit" }, icon("check"), "Answer"),
    el("button", { type: "button", onclick: () => send({ decision: "decline" }) }, icon("cross"), "Decline")));
  return [form];
}

// What is chosen stays with the entry, so that it outlives its elements.
function field(entry, question, number) {
  const draft = entry.drafts.get(number) ?? { picked: new Set(), own: "" };
  entry.drafts.set(number, draft);
  const name = `ask-${entry.agentId}-${entry.requestId}-${number}`;
  const boxes = question.options.map((option) => el("input", { type: question.many ? "checkbox" : "radio", name, checked: draft.picked.has(option.label), onchange: (event) => {
    if (!question.many) {
      draft.picked.clear();
      draft.own = own.value = "";
    }
    if (event.target.checked) draft.picked.add(option.label);
    else draft.picked.delete(option.label);
  } }));
  const own = el("input", { type: "text", autocomplete: "off", "aria-label": `Your own answer to: ${question.question}`, placeholder: question.options.length ? "Or in your own words…" : "Your answer…", oninput: () => {
    draft.own = own.value;
    if (!question.many && own.value) {
      draft.picked.clear();
      for (const box of boxes) box.checked = false;
    }
  } });
  own.value = draft.own;
  return {
    question: question.question,
    answer: () => [...draft.picked, draft.own.trim()].filter(Boolean).join(", "),
    node: el("fieldset", {}, el("legend", {}, exact(question.question), question.many ? el("span", { class: "dim" }, " (several are possible)") : null),
      question.options.map((option, at) => el("label", { class: "option" }, boxes[at],
        el("span", {}, exact(option.label), option.description ? el("span", { class: "dim" }, exact(option.description)) : null))),
      own),
  };
}

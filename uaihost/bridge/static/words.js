// What words mean in a channel, and how numbers and hidden characters are written. No elements here.

// An `@id` that is no part of a longer word; what stands in code addresses nobody. As the host reads it.
const MENTION = /(?<![\p{L}\p{N}_@./-])@([A-Za-z0-9_-]{1,32})(?![\p{L}\p{N}_-])/gu;
const CODE = /```[^]*?(?:```|$)|`[^`\n]*`/g;

export const ORDERS = [
  ["status", "what each agent does and has used"],
  ["interrupt", "stop a turn"],
  ["retry", "try the last turn again"],
  ["restart", "start an agent anew"],
  ["rules", "what agents may do without asking"],
  ["ask", "ask again before a tool is used"],
  ["help", "what can be said here"],
];

// The members of `crew` that a text addresses, in the order of first mention.
export function mentions(text, crew) {
  const found = new Set();
  for (const [, id] of text.replace(CODE, " ").matchAll(MENTION)) if (crew.includes(id)) found.add(id);
  return [...found];
}

// Who hears a person's words: the mentioned, else the partner of before, else the first of the crew.
export function hearers(text, crew, partner) {
  const addressed = mentions(text, crew);
  if (addressed.length) return addressed;
  return crew.includes(partner) ? [partner] : crew.slice(0, 1);
}

// The order that a message is, "" for an ordinary one.
export function order(text) {
  const first = text.trim().split(/\s/)[0];
  return ORDERS.some(([verb]) => first === `/${verb}`) ? first.slice(1) : "";
}

// The member of `crew` whose turn a note offers to try again, "" for none.
export function offered(text, crew) {
  const found = /\/retry @([A-Za-z0-9_-]{1,32})/.exec(text)?.[1] ?? "";
  return crew.includes(found) ? found : "";
}

// A message without the lines that the host adds for the files that went with it, and their paths.
export function takeFiles(text) {
  const lines = text.split("\n");
  const paths = [];
  for (;;) {
    const path = /^Attached file: (\/attachments\/.+) \([\d,]+ bytes\)$/.exec(lines.at(-1) ?? "")?.[1];
    if (!path) return { text: lines.join("\n"), paths };
    paths.unshift(path);
    lines.pop();
  }
}

export function tokens(count) {
  if (count < 1000) return String(count);
  return count < 999500 ? `${(count / 1000).toFixed(count < 9950 ? 1 : 0)}k` : `${(count / 1e6).toFixed(1)}M`;
}

export function dollars(cost) {
  return cost > 0 && cost < 0.01 ? "<$0.01" : `$${cost.toFixed(2)}`;
}

export function bytes(size) {
  if (size < 1024) return `${size} B`;
  return size < 1 << 20 ? `${Math.round(size / 1024)} KiB` : `${(size / (1 << 20)).toFixed(1)} MiB`;
}

// A time from now on: "in 40 s", "in 12 min", "in 3 h", "in 6 days".
export function ahead(at, now = Date.now()) {
  const seconds = Math.max(0, Math.round((at - now) / 1000));
  if (seconds < 90) return `in ${seconds} s`;
  if (seconds < 90 * 60) return `in ${Math.round(seconds / 60)} min`;
  return seconds < 36 * 3600 ? `in ${Math.round(seconds / 3600)} h` : `in ${Math.round(seconds / 86400)} days`;
}

// A time of day here, with its date when it is not today's.
export function moment(at, now = Date.now()) {
  const day = new Date(at).toDateString() === new Date(now).toDateString() ? {} : { month: "short", day: "numeric" };
  return new Date(at).toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit" });
}

// Controls, formats that turn the direction of writing, and everything else that takes no ink.
const HIDDEN = /[^\P{C}\n\t]|[\p{Zl}\p{Zp}]|[^\P{Zs} ]|\p{DI}|[\u2800\u3164\uffa0]/gu;

// A text as [plain, is hidden] parts; a hidden part is the name of a character, as U+202E.
export function exactParts(text) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > at) parts.push([text.slice(at, match.index), false]);
    parts.push([`U+${match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`, true]);
    at = match.index + match[0].length;
  }
  if (at < text.length) parts.push([text.slice(at), false]);
  return parts;
}

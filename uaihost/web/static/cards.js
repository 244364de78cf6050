// The host itself: whether all is well, its link, image, disk, agents and GitHub.

import { at, bytes, make, plural, refresh, sentence, span, word } from "/static/dom.js";

const LINK = {
  connected: ["good", "connected"],
  connecting: ["busy", "connecting"],
  waiting: ["bad", "not connected"],
  fatal: ["bad", "refused"],
  stopped: ["off", "stopped"],
};
const IMAGE = {
  present: ["good", "ready"],
  building: ["busy", "being built"],
  missing: ["off", "not built yet"],
  failed: ["bad", "failed"],
  unknown: ["off", "not looked for yet"],
};
const KEPT = new Set(["saved", "attachments", "transcripts", "database"]);

export function health(status) {
  const found = status.warnings;
  const bad = found.some((one) => one.level === "bad");
  const apart = status.bridge.state !== "connected";
  at("health").className = bad ? "bad" : found.length || apart ? "note" : "good";
  word(at("verdict"), bad ? "Something needs you" : found.length ? "It works; have a look at this" : apart ? "Reaching the bridge" : "All is well");
  const runs = status.tasks.filter((task) => task.status === "running").length;
  word(at("gist"), [
    `${LINK[status.bridge.state][1]}${status.bridge.state === "connected" ? " to the bridge" : ""}`,
    runs ? `${plural(runs, "task")} ${runs === 1 ? "runs" : "run"}` : "no task runs",
    `${bytes(status.space.free)} of disk free`,
    `up for ${span((status.now - status.startedAt) / 1000)}`,
  ].join(" · "));
  refresh(at("warnings"), found, () => found.map(warning));
  document.title = `${found.length ? `(${found.length}) ` : ""}This host · uaihost`;
  word(at("host"), `${status.hostId} · ${status.version}`);
}

// Instead of what it last said of its health, which may be long untrue.
export function silence() {
  at("health").className = "bad";
  word(at("verdict"), "The host does not answer");
  word(at("gist"), "What is below is old. This page goes on by itself when the host is back.");
  const found = [{ level: "bad", text: "the host was stopped, or is held up", fix: "`uaihost start` starts the service, `uaihost logs` says what happened; without a service, `uaihost up`" }];
  refresh(at("warnings"), found, () => found.map(warning));
  document.title = "(!) This host · uaihost";
}

const warning = (one) => make("li", null,
  make(`span.dot.${one.level}`, { "aria-hidden": "true" }),
  make("div", null, make("strong", null, sentence(one.text)), make("p", null, typed(sentence(one.fix)))));

// `commands` in a sentence stand out.
export const typed = (text) => text.split("`").map((part, index) => (index % 2 ? make("code", null, part) : part));

const places = new Map();

function card(name, title, source, content) {
  let place = places.get(name);
  if (!place) {
    place = make("div.inner");
    places.set(name, place);
    at("cards").append(make("section.card", { id: `card-${name}`, "aria-label": title }, make("h2", null, title), place));
  }
  refresh(place, source, content);
  return place;
}

const state = ([look, text]) => make("p.state", null, make(`span.dot.${look}`, { "aria-hidden": "true" }), make("span", null, text));
const fact = (name, ...value) => make("div", null, make("dt", null, name), make("dd", null, ...value));

export function cards(status) {
  const { bridge } = status;
  card("bridge", "Bridge", { ...bridge, outbox: status.outbox, tunnels: status.tunnels }, () => [
    state(LINK[bridge.state]),
    bridge.reason && bridge.state !== "connected" ? make("p.why", null, sentence(bridge.reason)) : null,
    bridge.retryAt && bridge.state === "waiting" ? make("p.retry", { "data-retry": bridge.retryAt }) : null,
    make("dl", null, fact("Address", bridge.url), make("div", { "data-since": bridge.since }, make("dt", null, "For"), make("dd")), fact("Waits to be sent", plural(status.outbox, "message")),
      fact("Tunnels", String(status.tunnels))),
  ]);
  const { image } = status;
  card("image", "Task image", image, () => [
    state(IMAGE[image.state]),
    image.state === "building" ? progress(image.percent, image.doing) : null,
    image.message ? make("p.why", null, sentence(image.message)) : null,
    image.state === "missing" ? make("p.why", null, "The first task that needs it builds it.") : null,
    image.reference ? make("p.mono", null, image.reference) : null,
    image.lines.length ? make("pre.tail", { tabindex: "0", "aria-label": "Last lines of the build" }, image.lines.slice(-12).join("\n")) : null,
  ]);
  card("disk", "Disk", { disk: status.disk, space: status.space }, () => disk(status));
  card("agents", "Agents", status.agents, () => agents(status.agents));
  const connections = status.github.map((one) => ({ ...one, lasts: lasts(one, status.now) }));
  card("github", "GitHub", connections, () => github(connections));
  const { engine } = status;
  card("engine", "This host", { engine, folder: status.dataFolder }, () => make("dl", null,
    fact("Engine", engine.answers ? "answers" : engine.answers === null ? "not heard yet" : "does not answer", make("small", null, engine.address)),
    fact("Data folder", status.dataFolder)));
}

export function countDown(now) {
  for (const place of document.querySelectorAll("[data-since] dd")) word(place, span(now / 1000 - Number(place.parentNode.dataset.since)));
  for (const place of document.querySelectorAll("[data-retry]")) {
    const left = Number(place.dataset.retry) - now / 1000;
    word(place, left > 0.5 ? `Next try in ${span(left)}` : "Trying now");
  }
}

function progress(percent, doing) {
  const bar = make("progress", { max: "100", "aria-label": "Build of the task image" });
  if (percent !== null) bar.value = percent;
  return make("div", null, bar, make("p.why", null, `${doing ?? ""}${percent === null ? "" : ` (${percent} %)`}`));
}

function disk({ disk: classes, space }) {
  const parts = Object.entries(classes).filter(([, size]) => size > 0).sort((one, other) => other[1] - one[1]);
  const meter = make("meter", { min: "0", max: String(space.budget), "aria-label": "Of the disk budget" });
  meter.high = space.budget * 0.9;
  meter.value = space.used ?? 0;
  return [
    meter,
    make("p", null, space.used === null ? `Not measured yet; the host may fill ${bytes(space.budget)}`
      : `${bytes(space.used)} of ${bytes(space.budget)} that the host may fill`),
    make("ul.classes", null, parts.map(([name, size]) => make("li", null,
      make("span", null, sentence(name), KEPT.has(name) ? make("small", null, " never removed") : ""), make("span.number", null, bytes(size))))),
    make("p.why", null, `${bytes(space.free)} of ${bytes(space.total)} free on this disk`),
  ];
}

function agents({ accounts, kinds }) {
  return [
    make("ul.rows", null, accounts.map((one) => make("li", null,
      make(`span.dot.${one.problem ? "bad" : one.form === "none" ? "off" : "good"}`, { "aria-hidden": "true" }),
      make("div", null, make("strong", null, one.provider), ` ${one.form === "none" ? "not signed in" : `signed in (${one.form})`}`,
        one.form === "none" && !one.problem ? make("p.why", null, typed(`\`uaihost login ${one.provider}\``)) : null,
        one.problem ? make("p.why", null, sentence(one.problem)) : null)))),
    make("h3", null, "Kinds that tasks can use"),
    make("ul.rows", null, kinds.map((one) => make("li", null,
      make(`span.dot.${one.problem ? "off" : "good"}`, { "aria-hidden": "true" }),
      make("div", null, make("strong", null, one.title), one.problem ? make("p.why", null, typed(sentence(one.problem))) : " works")))),
  ];
}

function github(found) {
  if (!found.length) return make("p.why", null, "Nobody is connected. ", typed("`uaihost github login` connects you."));
  return make("ul.rows", null, found.map((one) => make("li", null,
    make(`span.dot.${one.problem ? "bad" : "good"}`, { "aria-hidden": "true" }),
    make("div", null, make("strong", null, one.login ?? one.userId), one.problem ? "" : ` at ${one.host ?? "github.com"}`,
      one.problem ? make("p.why", null, `${sentence(one.problem)}; `, typed("connect again in the app, or with `uaihost github login`"))
        : one.lasts ? make("p.why", null, one.lasts) : null))));
}

// In the words of `uaihost github status`.
function lasts({ form, expires }, now) {
  if (form === "token") return "By a personal access token";
  if (expires === null) return "";
  return expires < now ? "Its token is renewed when it is next used" : `Token until ${new Date(expires).toLocaleString()}, then renewed`;
}

"""What a page tries that is not the local page's own, and a plain request without a browser."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.error import HTTPError
from urllib.request import Request, urlopen

# `attack()` tries each way once, `opened()` one more that leaves a page open; all must come to `refused`.
HOSTILE = """<!doctype html><meta charset="utf-8"><title>hostile</title><body><script>
const target = TARGET;
const body = JSON.stringify({taskId: "fix-checkout"});
const stop = `${target}/api/verbs/task.stop`;
const waiting = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const seen = (look) => {
  try { return look() ? "read" : "refused"; } catch { return "refused"; }
};
const answered = async (path, options) => {
  try {
    const answer = await fetch(path, {credentials: "include", ...options});
    return answer.type === "opaque" ? "refused" : `read ${answer.status}`;
  } catch { return "refused"; }
};
const loaded = (kind, address) => new Promise((done) => {
  const made = document.createElement(kind);
  made.onload = () => done("loaded");
  made.onerror = () => done("refused");
  made[kind === "link" ? "href" : "src"] = address;
  if (kind === "link") made.rel = "stylesheet";
  document.body.append(made);
});
const framed = async (address) => {
  const frame = document.createElement("iframe");
  frame.src = address;
  document.body.append(frame);
  await waiting(500);
  return seen(() => frame.contentDocument.body.innerHTML);
};
const posted = async (kind) => {
  const frame = document.createElement("iframe");
  frame.name = `sink-${kind}`;
  const form = document.createElement("form");
  Object.assign(form, {method: "post", action: stop, enctype: kind, target: frame.name});
  const field = document.createElement("input");
  field.name = body.slice(0, -1) + ', "x": "';
  field.value = '"}';
  form.append(field);
  document.body.append(frame, form);
  form.submit();
  await waiting(300);
  return seen(() => frame.contentDocument.body.innerHTML.includes("stopped"));
};
const heard = (made) => new Promise((done) => {
  made.onopen = made.onmessage = () => { made.close(); done("heard"); };
  made.onerror = () => { made.close(); done("refused"); };
});
const opened = async () => {
  const other = window.open(`${target}/`);
  await waiting(500);
  if (!other) return "refused";
  return seen(() => other.document.body.innerHTML);
};
async function attack() {
  const json = {"Content-Type": "application/json"};
  const plain = {"Content-Type": "text/plain"};
  return JSON.stringify({
    read: await answered(`${target}/api/status`),
    blind: await answered(`${target}/api/status`, {mode: "no-cors"}),
    log: await answered(`${target}/api/log`, {mode: "no-cors", signal: AbortSignal.timeout(1000)}),
    guessed: await answered(`${target}/api/status`, {headers: {"X-Uaihost-Key": "0".repeat(64)}}),
    simple: await answered(stop, {method: "POST", mode: "no-cors", headers: plain, body}),
    preflighted: await answered(stop, {method: "POST", headers: json, body}),
    beacon: (navigator.sendBeacon(stop, body), await waiting(100), "refused"),
    form: await posted("text/plain"),
    encoded: await posted("application/x-www-form-urlencoded"),
    events: await heard(new EventSource(`${target}/api/log`, {withCredentials: true})),
    socket: await heard(new WebSocket(`${target.replace("http", "ws")}/api/log`)),
    frame: await framed(`${target}/`),
    script: await loaded("script", `${target}/static/page.js`),
    style: await loaded("link", `${target}/static/local.css`),
    picture: await loaded("img", `${target}/static/icon.svg`),
  });
}
</script>"""


def asked(url: str, headers: Mapping[str, str]) -> int:
    """The status of a request as a program of another user makes it. Blocking."""
    try:
        with urlopen(Request(url, headers=dict(headers)), timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code

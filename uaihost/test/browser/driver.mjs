// A browser on a leash: one JSON request a line on stdin, one JSON answer a line on stdout.
//
//   {"id": 1, "do": "click", "args": ["text=Send"]}  ->  {"id": 1, "ok": true, "value": null} or {"id": 1, "ok": false, "error": TEXT}
//
// usage: driver.mjs CHROMIUM USER_DATA_DIR

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [executablePath, profile] = process.argv.slice(2);
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  viewport: { width: 1280, height: 800 },
});
context.setDefaultTimeout(20000);
const problems = [];
// Every WebSocket that a page asked for, in order, and those that were answered by a message.
const sockets = [];
const heard = new Set();
const watch = (page) => {
  page.on("websocket", (socket) => {
    sockets.push(socket);
    socket.on("framereceived", () => heard.add(socket));
  });
  page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`console: ${message.text()} ${message.location().url}`);
  });
};
context.on("page", watch);
const page = context.pages()[0] ?? (await context.newPage());
watch(page);

// What Playwright tells of a socket comes as events only; a look every few ms finds them all.
const until = async (holds, what) => {
  const end = Date.now() + 30000;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`not seen within 30 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

// Words that stand for a while only are caught by watching the page, not by looking now and then.
const seenLive = () => {
  window.seen = [];
  new MutationObserver(() => {
    for (const node of document.querySelectorAll(".message.live .words")) window.seen.push(node.textContent);
  }).observe(document, { childList: true, subtree: true, characterData: true });
};

const verbs = {
  open: async (url) => (await page.goto(url, { waitUntil: "domcontentloaded" }))?.status() ?? 0,
  // Seconds from asking for a page until each of these is there to be seen.
  load: async (url, selectors) => {
    const start = performance.now();
    const seen = {};
    await page.goto(url, { waitUntil: "commit", timeout: 60000 });
    for (const [name, selector] of Object.entries(selectors)) {
      await page.locator(selector).first().waitFor({ state: "visible", timeout: 60000 });
      seen[name] = (performance.now() - start) / 1000;
    }
    return seen;
  },
  url: async () => page.url(),
  title: async () => page.title(),
  click: async (selector) => page.click(selector),
  fill: async (selector, text) => page.fill(selector, text),
  press: async (selector, key) => page.press(selector, key),
  key: async (key) => page.keyboard.press(key),
  select: async (selector, value) => { await page.selectOption(selector, value); },
  see: async (selector, timeout) => { await page.locator(selector).first().waitFor({ state: "visible", timeout }); },
  gone: async (selector, timeout) => { await page.locator(selector).first().waitFor({ state: "hidden", timeout }); },
  text: async (selector) => page.locator(selector).first().innerText(),
  count: async (selector) => page.locator(selector).count(),
  focused: async () => page.evaluate(() => document.activeElement?.id || document.activeElement?.tagName),
  watchLive: async () => page.evaluate(seenLive),
  live: async () => page.evaluate(() => window.seen ?? []),
  overflow: async () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
  shot: async (path) => { await page.screenshot({ path, animations: "disabled" }); },
  size: async (width, height) => page.setViewportSize({ width, height }),
  theme: async (colorScheme) => page.emulateMedia({ colorScheme }),
  run: async (expression) => page.evaluate(expression),
  until: async (expression, value, timeout) => { await page.waitForFunction(`(${expression}) === ${JSON.stringify(value)}`, null, { timeout }); },
  type: async (text) => page.keyboard.type(text),
  sockets: async () => sockets.map((socket) => ({ url: socket.url(), open: !socket.isClosed() })),
  connected: async (count) => until(() => sockets.filter((socket) => heard.has(socket) && !socket.isClosed()).length >= count, `${count} open sockets`),
  disconnected: async () => until(() => sockets.every((socket) => socket.isClosed()), "the end of all sockets"),
  cookies: async () => context.cookies(),
  // The text of the page that a click opens in a tab of its own.
  popup: async (selector, path) => {
    const [opened] = await Promise.all([context.waitForEvent("page"), page.click(selector)]);
    await opened.waitForLoadState("domcontentloaded");
    if (path) await opened.screenshot({ path });
    const found = { url: opened.url(), text: await opened.locator("body").innerText() };
    await opened.close();
    return found;
  },
  problems: async () => problems.splice(0),
};

process.stdout.write(`${JSON.stringify({ id: 0, ok: true, value: context.browser()?.version() ?? "" })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = { id: request.id, ok: true, value: (await verbs[request.do](...(request.args ?? []))) ?? null };
  } catch (error) {
    answer = { id: request.id, ok: false, error: String(error.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await context.close();

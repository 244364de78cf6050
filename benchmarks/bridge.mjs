// The bridge of the benchmarks: revision 1 of docs/protocol.md, with the clients inside it, so that what is
// measured is the host and not a path to a browser.
//
//     node bridge.mjs on|off          (permessage-deflate negotiated, or not)
//
// Orders come as JSON lines on standard input, {"do": name, ...}; each is answered by one line, in order.
// Seconds are of this process's own clock.

import { createServer } from "node:http";
import { performance } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { randomFillSync } from "node:crypto";
import { WebSocketServer } from "ws";

const TASK = "bench";
const HEADERS = [["Host", "web.preview.example"], ["Accept", "*/*"]];
const UPGRADE = [...HEADERS, ["Connection", "Upgrade"], ["Upgrade", "echo"]];

let socket = null;
let ws = null;
let arrived = null;
let due = null;
let next = 0;
const tunnels = new Map();
const connected = new Promise((done) => (arrived = done));

// ---- the host's socket --------------------------------------------------------------------------------

const server = createServer();
const sockets = new WebSocketServer({
  server,
  perMessageDeflate: process.argv[2] === "on",
  maxPayload: 64 << 20,
});

sockets.on("connection", (opened, request) => {
  ws = opened;
  socket = request.socket;
  socket.setNoDelay(true);
  ws.on("message", (data, binary) => {
    if (binary) {
      const tunnel = due;
      due = null;
      tunnel?.data(data);
    } else {
      frame(JSON.parse(data));
    }
  });
  ws.on("close", (code) => {
    process.stderr.write(`the host closed: ${code}\n`);
    process.exit(1);
  });
});

function frame(message) {
  if (message.kind === "ping") return send({ kind: "pong", ts: message.ts });
  if (message.kind === "host.capabilities") return arrived();
  const tunnel = tunnels.get(message.tunnelId);
  if (message.kind === "tunnel.data") due = tunnel;
  else if (message.kind === "tunnel.ack") tunnel?.ack(message);
  else if (message.kind === "tunnel.close") {
    tunnels.delete(message.tunnelId);
    tunnel?.close(message.reason);
  }
}

function send(message) {
  ws.send(JSON.stringify(message));
}

// Already compressed or random in all measures, so that this end's deflate is not what is measured.
function sendBytes(tunnelId, data) {
  send({ kind: "tunnel.data", tunnelId });
  return new Promise((done) => ws.send(data, { binary: true, compress: false }, done));
}

// ---- one request --------------------------------------------------------------------------------------

// Calls `data` with each piece; `acked` and `closed` settle with the frames, or fail with a refusal.
function open(name, method, url, headers, upgrade, data) {
  const tunnelId = `t${next++}`;
  const tunnel = { tunnelId, data };
  tunnel.acked = new Promise((done, failed) => {
    tunnel.ack = (message) =>
      message.ok && message.status < 400 ? done(message) : failed(new Error(JSON.stringify(message)));
  });
  tunnel.closed = new Promise((done) => (tunnel.close = done));
  tunnels.set(tunnelId, tunnel);
  const reqLine = { method, url, headers };
  send({ kind: "tunnel.open", tunnelId, target: "preview", taskId: TASK, name, reqLine, upgrade });
  return tunnel;
}

async function get(name, url, data) {
  const tunnel = open(name, "GET", url, HEADERS, false, data);
  send({ kind: "tunnel.requestEnd", tunnelId: tunnel.tunnelId });
  await tunnel.acked;
  await tunnel.closed;
}

// ---- the measures -------------------------------------------------------------------------------------

const measures = {
  ready: () => connected.then(() => ({ extensions: ws.extensions })),

  // One download after the other until `seconds` have passed.
  async download({ name, url, seconds }) {
    const began = performance.now();
    const before = socket.bytesRead;
    let bytes = 0;
    let elapsed = 0;
    while (elapsed < seconds) {
      await get(name, url, (data) => (bytes += data.length));
      elapsed = (performance.now() - began) / 1000;
    }
    return { bytes, seconds: elapsed, wire: socket.bytesRead - before };
  },

  async upload({ name, url, bytes, seconds }) {
    const piece = randomFillSync(Buffer.alloc(64 << 10));
    const began = performance.now();
    let sent = 0;
    let elapsed = 0;
    while (elapsed < seconds) {
      const headers = [...HEADERS, ["Content-Length", String(bytes)]];
      const tunnel = open(name, "POST", url, headers, false, () => {});
      for (let left = bytes; left > 0; left -= piece.length) {
        await sendBytes(tunnel.tunnelId, piece.subarray(0, Math.min(left, piece.length)));
      }
      send({ kind: "tunnel.requestEnd", tunnelId: tunnel.tunnelId });
      await tunnel.acked;
      await tunnel.closed;
      sent += bytes;
      elapsed = (performance.now() - began) / 1000;
    }
    return { bytes: sent, seconds: elapsed };
  },

  async requests({ name, url, parallel, seconds }) {
    const began = performance.now();
    let count = 0;
    const client = async () => {
      while (performance.now() - began < seconds * 1000) {
        await get(name, url, () => {});
        count += 1;
      }
    };
    await Promise.all(Array.from({ length: parallel }, client));
    return { count, seconds: (performance.now() - began) / 1000 };
  },

  // Round trips in milliseconds of `size`-byte messages sent every `interval` ms, `loads` downloads beside.
  // Sent by the clock, not by the answer: a stall delays every message behind it and is counted so.
  async echo({ name, url, size, interval, seconds, loads, loadName, loadUrl }) {
    let running = true;
    const began = performance.now();
    let loaded = 0;
    const load = async () => {
      while (running) await get(loadName, loadUrl, (data) => (loaded += data.length));
    };
    const downloads = Array.from({ length: loads }, load);
    const sent = [];
    const times = [];
    let got = 0;
    let complete;
    const all = new Promise((done) => (complete = done));
    const total = Math.floor((seconds * 1000) / interval);
    const tunnel = open(name, "GET", url, UPGRADE, true, (data) => {
      const now = performance.now();
      got += data.length;
      while (times.length < Math.floor(got / size)) times.push(now - sent[times.length]);
      if (times.length === total) complete();
    });
    await tunnel.acked;
    const message = Buffer.alloc(size, "x");
    const first = performance.now() + interval;
    const timer = setInterval(() => {
      while (sent.length < total && performance.now() >= first + sent.length * interval) {
        sent.push(first + sent.length * interval);
        sendBytes(tunnel.tunnelId, message);
      }
      if (sent.length === total) clearInterval(timer);
    }, 1);
    await all;
    running = false;
    const elapsed = (performance.now() - began) / 1000;
    send({ kind: "tunnel.close", tunnelId: tunnel.tunnelId });
    await Promise.all([tunnel.closed, ...downloads]);
    return { times, loaded, seconds: elapsed };
  },
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const order = JSON.parse(line);
    try {
      process.stdout.write(JSON.stringify({ value: await measures[order.do](order) }) + "\n");
    } catch (error) {
      process.stdout.write(JSON.stringify({ error: String(error.stack ?? error) }) + "\n");
    }
  })
  .on("close", () => process.exit(0));

server.listen(0, "127.0.0.1", () => process.stdout.write(JSON.stringify({ port: server.address().port }) + "\n"));

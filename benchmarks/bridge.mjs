// The bridge of the benchmarks: docs/protocol.md, with the clients inside it, so that what is measured is the
// host and not a path to a browser.
//
//     node bridge.mjs on|off [mux] [compress]
//
// on, off: permessage-deflate negotiated, or not. mux: tunnels by mux.1 instead of revision 1, which is what
// a host that does not offer mux.1 gets anyway. compress: uploads and echoes are compressed as `ws` does it of
// itself, everything above its threshold; without it they are sent as they are, so that what is measured is
// not this end's deflate.
//
// Orders come as JSON lines on standard input, {"do": name, ...}; each is answered by one line, in order.
// Seconds are of this process's own clock.

import { createServer } from "node:http";
import { performance } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { randomFillSync } from "node:crypto";
import { WebSocketServer } from "ws";
import { FEATURE, Mux } from "./mux.mjs";

const WORDS = process.argv.slice(2);
const TASK = "bench";
const HEADERS = [["Host", "web.preview.example"], ["Accept", "*/*"]];
const UPGRADE = [...HEADERS, ["Connection", "Upgrade"], ["Upgrade", "echo"]];

let socket = null;
let ws = null;
let arrived = null;
let due = null;
let next = 0;
let mux = null; // once the host has said that it speaks it
const tunnels = new Map();
const connected = new Promise((done) => (arrived = done));

// ---- the host's socket --------------------------------------------------------------------------------

const server = createServer();
const sockets = new WebSocketServer({
  server,
  perMessageDeflate: WORDS.includes("on"),
  maxPayload: 64 << 20,
});

sockets.on("connection", (opened, request) => {
  ws = opened;
  socket = request.socket;
  socket.setNoDelay(true);
  ws.on("message", (data, binary) => {
    if (binary && mux && !due) {
      mux.message(data);
    } else if (binary) {
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
  if (message.kind === "host.capabilities") return greet(message.capabilities.features ?? []);
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

function sendBinary(data, compress) {
  return new Promise((done) => ws.send(data, compress ? { binary: true } : { binary: true, compress: false }, done));
}

function greet(features) {
  if (WORDS.includes("mux") && features.includes(FEATURE) && !mux) {
    send({ kind: "bridge.hello", features: [FEATURE] });
    mux = new Mux({
      send: (message, bulk) => sendBinary(message, !bulk || WORDS.includes("compress")),
      close: (code, reason) => ws.close(code, reason),
      violation: (what) => process.stderr.write(`the host broke the protocol: ${what}\n`),
    });
    follow();
  }
  arrived();
}

// The round trip, by which windows grow.
function follow() {
  let sent = null;
  const ask = () => {
    if (sent !== null) return;
    sent = performance.now();
    ws.ping();
  };
  ws.on("pong", () => {
    if (sent === null) return;
    mux.roundTrip = performance.now() - sent;
    sent = null;
  });
  ask();
  setInterval(ask, 500).unref();
}

// ---- one request --------------------------------------------------------------------------------------

// A tunnel with `write(data)` (settles when the data has left), `end()` of the request, and `stop()`. `data`
// is called with each piece of the answer; `acked` and `closed` settle with its head and its end, `acked`
// fails with a refusal. `whole`: the request has no body and is ended at once.
function open(name, method, url, headers, upgrade, data, whole = false) {
  const tunnel = { data };
  tunnel.acked = new Promise((done, failed) => {
    tunnel.ack = (message) =>
      message.ok && message.status < 400 ? done(message) : failed(new Error(JSON.stringify(message)));
  });
  tunnel.closed = new Promise((done) => (tunnel.close = done));
  const fields = { target: "preview", taskId: TASK, name, reqLine: { method, url, headers }, upgrade };
  return mux ? openStream(tunnel, fields, whole) : openTunnel(tunnel, fields, whole);
}

// By revision 1.
function openTunnel(tunnel, fields, whole) {
  const tunnelId = `t${next++}`;
  tunnels.set(tunnelId, tunnel);
  tunnel.end = () => send({ kind: "tunnel.requestEnd", tunnelId });
  tunnel.stop = () => send({ kind: "tunnel.close", tunnelId });
  tunnel.write = (data) => {
    send({ kind: "tunnel.data", tunnelId });
    return sendBinary(data, WORDS.includes("compress"));
  };
  send({ kind: "tunnel.open", tunnelId, ...fields });
  if (whole) tunnel.end();
  return tunnel;
}

// By mux.1.
function openStream(tunnel, fields, whole) {
  const heard = {
    head: tunnel.ack,
    data: tunnel.data,
    end: () => tunnel.close("upstream ended"),
    reset: (code, reason) => {
      tunnel.ack({ ok: false, code, reason });
      tunnel.close(reason);
    },
  };
  const stream = mux.open(fields, heard, { whole });
  tunnel.write = (data) => stream.write(data);
  tunnel.end = () => stream.end();
  tunnel.stop = () => {
    stream.reset(1, "done");
    tunnel.close("done");
  };
  return tunnel;
}

async function get(name, url, data) {
  const tunnel = open(name, "GET", url, HEADERS, false, data, true);
  await tunnel.acked;
  await tunnel.closed;
}

// ---- the measures -------------------------------------------------------------------------------------

const measures = {
  ready: () => connected.then(() => ({ extensions: ws.extensions, mux: mux !== null })),

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
        await tunnel.write(piece.subarray(0, Math.min(left, piece.length)));
      }
      tunnel.end();
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
        tunnel.write(message);
      }
      if (sent.length === total) clearInterval(timer);
    }, 1);
    await all;
    running = false;
    const elapsed = (performance.now() - began) / 1000;
    tunnel.stop();
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

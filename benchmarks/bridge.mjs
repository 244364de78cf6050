// The bridge of the benchmarks: docs/protocol.md, with the clients inside it, so that what is measured is the
// host and not a path to a browser.
//
//     node bridge.mjs on|off [mux] [compress]
//
// on, off: permessage-deflate negotiated, or not. mux: tunnels by mux.1 instead of revision 1, which is what
// a host that does not offer mux.1 gets anyway. compress: uploads and echoes are compressed as `ws` does it of
// itself, everything above its threshold; without it they are sent as they are, so that what is measured is
// not this end's deflate.
// BRIDGE_ADDRESS: where it listens, 127.0.0.1 unless given.

import { createServer } from "node:http";
import { performance } from "node:perf_hooks";
import { WebSocketServer } from "ws";
import { measures } from "./measures.mjs";
import { FEATURE, Mux } from "./mux.mjs";
import { obey } from "./orders.mjs";

const WORDS = process.argv.slice(2);
const TASK = "bench";

// Bytes that zlib inflates at a time. Its own 16 KiB cost a step of the event loop each, which would make this
// end the limit of every lane that compresses.
const INFLATED = 256 << 10;

// Pings that may be unanswered at once.
const PINGS = 4;

let socket = null;
let ws = null;
let arrived = null;
let due = null;
let next = 0;
let mux = null; // once the host has said that it speaks it
let left = null;
let pinged = null;
let losses = 0;
const tunnels = new Map();
const commands = new Map();
const pings = new Map();
const connected = new Promise((done) => (arrived = done));
const lost = new Promise((done) => (left = done));

// ---- the host's socket --------------------------------------------------------------------------------

const server = createServer();
const sockets = new WebSocketServer({
  server,
  perMessageDeflate: WORDS.includes("on") && { zlibInflateOptions: { chunkSize: INFLATED } },
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
  ws.on("pong", (word) => answered(pings, word.toString()));
  ws.on("error", (error) => process.stderr.write(`the host's socket: ${error.message}\n`));
  ws.on("close", (code, reason) => {
    process.stderr.write(`the host closed: ${code} ${reason}\n`);
    losses += 1;
    left();
  });
});

function frame(message) {
  if (message.kind === "ping") return send({ kind: "pong", ts: message.ts });
  if (message.kind === "result") return answered(commands, message.commandId, message.result);
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
async function follow() {
  const began = performance.now();
  await ping();
  mux.roundTrip = performance.now() - began;
  setTimeout(follow, 500).unref();
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
  tunnel.stop = () => {
    send({ kind: "tunnel.close", tunnelId });
    // Its head may not have come yet.
    tunnel.ack({ ok: false, reason: "done" });
  };
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
    heard.reset(1, "done");
  };
  return tunnel;
}

// ---- commands and pings -------------------------------------------------------------------------------

// The answer to a command; waits for ever when none comes.
function command(name, args) {
  const commandId = `c${next++}`;
  send({ kind: "command", commandId, command: name, args });
  return new Promise((done) => commands.set(commandId, done));
}

// A ping of RFC 6455, which the host's WebSocket answers. Few are on their way at once: `ws` at the other end
// takes too many for an attack and cuts the connection. One more waits for the last one's answer.
function ping() {
  if (pings.size < PINGS) {
    const word = `p${next++}`;
    ws.ping(word);
    pinged = new Promise((done) => pings.set(word, done));
  }
  return pinged;
}

function answered(waiting, word, value) {
  waiting.get(word)?.(value);
  waiting.delete(word);
}

const link = {
  open,
  command,
  ping,
  lost,
  losses: () => losses,
  wire: () => socket.bytesRead,
  ready: () => connected.then(() => ({ extensions: ws.extensions, mux: mux !== null })),
};

server.listen(0, process.env.BRIDGE_ADDRESS ?? "127.0.0.1", () =>
  obey(measures(link), { port: server.address().port }, lost),
);

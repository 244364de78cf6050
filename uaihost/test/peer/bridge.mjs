// A bridge to try a host against: docs/protocol.md, revision 1 and mux.1, with the WebSocket library `ws`.
//
// It owns the far end of the socket and nothing else; a test drives it. Each line on standard input is
// {"id": n, "do": name, ...arguments}, answered by {"id": n, "value": ...} or {"id": n, "error": text}.
// What happens meanwhile is printed as {"event": name, ...}. It ends when standard input does.
//
// It shares no code with the host, and it is strict: whatever the protocol forbids a host to send is an
// event `violation`.

import { createHash, randomFillSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { WebSocketServer } from "ws";
import { OPEN, frame as muxFrame } from "./frames.mjs";
import { FEATURE, Mux } from "./mux.mjs";

const HANDSHAKES = ["accept", "refuse", "ignore"];

const policy = {
  handshake: "accept", // refuse: an HTTP answer with `status`; ignore: no answer at all
  status: 503,
  pongs: true,
  reject: null, // {code, reason}: close when the `auth` frame comes
  features: [], // of those that a host offers, what `bridge.hello` names
};

let count = 0; // of connections so far
let link = null; // the newest connection while it is open

function report(event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
}

// ---- one tunnel ---------------------------------------------------------------------------------------

// keep: what happens to the bytes that come: "count" them, report the whole "body" at the close, or
// "stream" each piece as it comes.
class Tunnel {
  constructor(id, keep) {
    this.id = id;
    this.keep = keep;
    this.acked = false;
    this.closed = false;
    this.bytes = 0;
    this.pieces = 0;
    this.hash = createHash("sha256");
    this.body = [];
  }

  take(data) {
    this.bytes += data.length;
    this.pieces += 1;
    this.hash.update(data);
    if (this.keep === "body") this.body.push(data);
    if (this.keep === "stream") report("data", { tunnelId: this.id, base64: data.toString("base64") });
  }

  // What it does as the user of a tunnel of mux.1; its id is that tunnel's number.
  heard(number) {
    this.id = number;
    return {
      head: (head) => report("head", { tunnel: number, head }),
      data: (data) => this.take(data),
      end: (trailers) => this.finish("end", { tunnel: number, trailers }),
      reset: (code, reason) => this.finish("reset", { tunnel: number, code, reason }),
    };
  }

  finish(event, fields) {
    this.closed = true;
    report(event, { ...fields, ...this.summary() });
  }

  summary() {
    const fields = { bytes: this.bytes, pieces: this.pieces };
    if (this.closed) fields.sha256 = this.hash.copy().digest("hex");
    if (this.keep === "body") fields.base64 = Buffer.concat(this.body).toString("base64");
    return fields;
  }
}

// ---- one connection -----------------------------------------------------------------------------------

class Link {
  constructor(ws, socket) {
    this.ws = ws;
    this.socket = socket;
    this.number = ++count;
    this.tunnels = new Map();
    this.due = null; // the tunnel whose bytes the next message must hold
    this.frames = 0;
    this.mux = null; // once it was agreed on
    this.streams = new Map(); // the tunnels of mux.1 by number
    ws.on("message", (data, binary) => (binary ? this.bytes(data) : this.frame(data.toString("utf8"))));
    ws.on("close", (code, reason) => {
      if (link === this) link = null;
      report("disconnected", { link: this.number, code, reason: reason.toString() });
    });
    ws.on("error", (error) => report("socket-error", { link: this.number, message: error.message }));
  }

  violation(what) {
    report("violation", { link: this.number, what });
  }

  bytes(data) {
    const tunnel = this.due;
    this.due = null;
    if (tunnel) tunnel.take(data);
    else if (this.mux) this.mux.message(data);
    else this.violation(`${data.length} bytes that belong to no tunnel`);
  }

  frame(text) {
    this.frames += 1;
    if (this.due) this.violation(`a frame where the bytes of ${this.due.id} were due: ${text.slice(0, 80)}`);
    this.due = null;
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return this.violation(`not JSON: ${text.slice(0, 80)}`);
    }
    const wanted = { 1: "auth", 2: "host.capabilities" }[this.frames];
    if (wanted && frame.kind !== wanted) this.violation(`frame ${this.frames} is ${frame.kind}`);
    if (typeof frame.kind === "string" && frame.kind.startsWith("tunnel.")) return this.tunnelFrame(frame);
    report("frame", { link: this.number, frame });
    if (frame.kind === "auth" && policy.reject) this.ws.close(policy.reject.code, policy.reject.reason);
    if (frame.kind === "ping" && policy.pongs) this.send({ kind: "pong", ts: frame.ts });
    if (frame.kind === "host.capabilities") this.greet(frame.capabilities?.features ?? []);
  }

  greet(offered) {
    const features = policy.features.filter((feature) => offered.includes(feature));
    if (!features.length || this.mux) return;
    this.send({ kind: "bridge.hello", features });
    if (!features.includes(FEATURE)) return;
    this.mux = new Mux({
      send: (message) => new Promise((done) => this.ws.send(message, { binary: true }, done)),
      close: (code, reason) => this.ws.close(code, reason),
      violation: (what) => this.violation(what),
    });
    let asked = performance.now();
    this.ws.on("pong", () => {
      this.mux.roundTrip = performance.now() - asked;
    });
    const ask = () => {
      asked = performance.now();
      this.ws.ping();
    };
    const timer = setInterval(ask, 1000);
    this.ws.on("close", () => clearInterval(timer));
    ask();
  }

  tunnelFrame(frame) {
    const tunnel = this.tunnels.get(frame.tunnelId);
    if (!tunnel) return this.violation(`${frame.kind} for a tunnel that was never opened`);
    if (tunnel.closed) return this.violation(`${frame.kind} after the close of ${tunnel.id}`);
    if (frame.kind === "tunnel.ack") {
      if (tunnel.acked) this.violation(`${tunnel.id} acknowledged twice`);
      tunnel.acked = true;
      report("ack", frame);
    } else if (frame.kind === "tunnel.data") {
      if (!tunnel.acked) this.violation(`data of ${tunnel.id} before its ack`);
      this.due = tunnel;
    } else if (frame.kind === "tunnel.close") {
      tunnel.closed = true;
      report("close", { ...frame, ...tunnel.summary() });
    } else {
      this.violation(`unknown kind ${frame.kind}`);
    }
  }

  send(frame) {
    this.ws.send(JSON.stringify(frame));
  }

  // One piece of a tunnel's bytes; settles when it has been handed to the system.
  sendBytes(tunnelId, data, compress = true) {
    this.send({ kind: "tunnel.data", tunnelId });
    return new Promise((done, failed) =>
      this.ws.send(data, { binary: true, compress }, (error) => (error ? failed(error) : done())),
    );
  }
}

// ---- the server ---------------------------------------------------------------------------------------

const server = createServer((_, response) => response.writeHead(404).end());
const sockets = new WebSocketServer({
  noServer: true,
  perMessageDeflate: true,
  maxPayload: 64 << 20,
});

server.on("upgrade", (request, socket, head) => {
  report("handshake", { url: request.url, headers: request.headers });
  if (policy.handshake !== "accept") socket.on("error", () => {});
  if (policy.handshake === "ignore") return;
  if (policy.handshake === "refuse") {
    socket.end(`HTTP/1.1 ${policy.status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    return;
  }
  socket.setNoDelay(true);
  sockets.handleUpgrade(request, socket, head, (ws) => {
    link = new Link(ws, socket);
    report("connected", { link: link.number, url: request.url, extensions: ws.extensions });
  });
});

// ---- what a test may ask for --------------------------------------------------------------------------

function open() {
  if (!link) throw new Error("no host is connected");
  return link;
}

function known(tunnelId) {
  const tunnel = open().tunnels.get(tunnelId);
  if (!tunnel) throw new Error(`no tunnel ${tunnelId} on this connection`);
  return tunnel;
}

function stream(tunnel) {
  const found = open().mux?.tunnels.get(tunnel);
  if (!found) throw new Error(`no tunnel ${tunnel} of mux.1 is open`);
  return found;
}

// `bytes` of noise in pieces of `size` by `write`, as fast as they are taken; their digest.
async function noise(bytes, size, write) {
  const piece = randomFillSync(Buffer.alloc(size));
  const hash = createHash("sha256");
  for (let left = bytes; left > 0; left -= size) {
    const part = piece.subarray(0, Math.min(size, left));
    hash.update(part);
    await write(part);
  }
  return { sha256: hash.digest("hex") };
}

const controls = {
  // Any part of `policy`; it counts from the next handshake or frame on.
  policy(values) {
    if (values.handshake && !HANDSHAKES.includes(values.handshake)) throw new Error("unknown handshake");
    Object.assign(policy, values);
  },

  // One text message, verbatim.
  text({ text }) {
    open().ws.send(text);
  },

  // One binary message, verbatim; in `fragments` frames when given.
  binary({ base64, fragments = 1 }) {
    const data = Buffer.from(base64, "base64");
    const size = Math.max(1, Math.ceil(data.length / fragments));
    for (let at = 0; at < data.length || at === 0; at += size) {
      open().ws.send(data.subarray(at, at + size), { binary: true, fin: at + size >= data.length });
    }
  },

  frame({ frame }) {
    open().send(frame);
  },

  // `tunnel.open`; all of `fields` go into the frame.
  open({ fields, keep = "count" }) {
    open().tunnels.set(fields.tunnelId, new Tunnel(fields.tunnelId, keep));
    open().send({ kind: "tunnel.open", ...fields });
  },

  async data({ tunnelId, base64 }) {
    await open().sendBytes(tunnelId, Buffer.from(base64, "base64"));
  },

  // `bytes` of noise in pieces of `size`, as fast as the host reads them; the answer has their digest.
  async flood({ tunnelId, bytes, size }) {
    const here = open();
    return noise(bytes, size, (piece) => here.sendBytes(tunnelId, piece, false));
  },

  // How far a tunnel has come.
  tunnel({ tunnelId }) {
    return known(tunnelId).summary();
  },

  // ---- mux.1: tunnels by number

  // OPEN with these fields, and END with it if the request is `whole`; `number`: not the next one. With
  // `reading` false what comes is not taken, and no credit given for it, until `muxRead`.
  muxOpen({ fields, keep = "count", whole = false, reading = true, number }) {
    const { mux, streams } = open();
    const taken = number ?? mux.highest + 1;
    const tunnel = new Tunnel(taken, keep);
    streams.set(taken, tunnel);
    mux.open(fields, tunnel.heard(taken), { whole, number: taken }).reading = reading;
    return { tunnel: taken };
  },

  // `force`: whatever the windows say.
  async muxData({ tunnel, base64, force = false }) {
    await stream(tunnel).write(Buffer.from(base64, "base64"), force);
  },
  muxFlood({ tunnel, bytes, size, force = false }) {
    const { mux } = open();
    return noise(bytes, size, (piece) => mux.tunnels.get(tunnel)?.write(piece, force));
  },
  // Of one that the host has ended meanwhile, because it needs no more, nothing.
  async muxEnd({ tunnel }) {
    await open().mux.tunnels.get(tunnel)?.end();
  },
  muxReset({ tunnel, code, reason = "" }) {
    stream(tunnel).reset(code, reason);
  },
  muxRead({ tunnel, reading }) {
    stream(tunnel).read(reading);
  },

  // One frame, verbatim, whatever it is.
  muxFrame({ type, tunnel, base64 = "" }) {
    const { mux } = open();
    if (type === OPEN) mux.highest = Math.max(mux.highest, tunnel);
    mux.post(muxFrame(type, tunnel, Buffer.from(base64, "base64")));
  },

  // What a tunnel has received and which of its windows are left.
  muxTunnel({ tunnel }) {
    const { mux, streams } = open();
    const live = mux.tunnels.get(tunnel);
    const windows = live && { permitted: live.permitted, window: live.window.size, waiting: live.waiting };
    return { ...streams.get(tunnel).summary(), over: !live, ...windows };
  },

  // The link's own; `giving` false: its credit is not given back any more.
  muxLink({ giving = true } = {}) {
    const { mux } = open();
    mux.giving = giving;
    mux.giveBack();
    const { permitted, window, held, counts, tunnels } = mux;
    return { permitted, window: window.size, held, open: tunnels.size, ...counts };
  },

  // Stop and start reading from the host's socket.
  pause() {
    open().ws.pause();
  },
  resume() {
    open().ws.resume();
  },

  // Read for `on` milliseconds, then not for `off`, until the connection ends.
  sip({ on, off }) {
    const { ws } = open();
    const step = (reading) => {
      if (ws.readyState !== ws.OPEN) return;
      reading ? ws.resume() : ws.pause();
      setTimeout(step, reading ? on : off, !reading);
    };
    step(true);
  },

  // Close properly, or end the TCP connection without a word (with a reset if asked).
  shut({ code, reason = "" }) {
    open().ws.close(code, reason);
  },
  cut({ reset = false }) {
    reset ? open().socket.resetAndDestroy() : open().ws.terminate();
  },
};

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { id, do: name, ...rest } = JSON.parse(line);
    try {
      if (!Object.hasOwn(controls, name)) throw new Error(`unknown control ${name}`);
      const value = (await controls[name](rest)) ?? null;
      process.stdout.write(JSON.stringify({ id, value }) + "\n");
    } catch (error) {
      process.stdout.write(JSON.stringify({ id, error: String(error.message ?? error) }) + "\n");
    }
  })
  .on("close", () => process.exit(0));

server.listen(0, "127.0.0.1", () => report("listening", { port: server.address().port }));

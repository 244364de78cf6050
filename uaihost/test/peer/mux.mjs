// The bridge's end of mux.1 (docs/protocol.md): windows and tunnels. It shares no code with the host.
//
// It knows neither sockets nor what its user does with a tunnel. The user gives it `send(message, bulk)`,
// which returns a promise that settles when the message has been handed to the system, `close(code, reason)`,
// and `violation(text)`, called for whatever the protocol forbids a host to send.

import { performance } from "node:perf_hooks";
import { CREDIT, DATA, END, HEAD, OPEN, RESET, creditFrame, frame, frames, jsonFrame, resetFrame } from "./frames.mjs";

export const FEATURE = "mux.1";
export const PROTOCOL_ERROR = 4002;

const MAX_WINDOW = 2 ** 31 - 1;

// Windows at first, as the protocol sets them, and the largest that a receiver here makes of them.
const TUNNEL_WINDOW = 64 << 10;
const LINK_WINDOW = 1 << 20;
const TUNNEL_LIMIT = 4 << 20;
const LINK_LIMIT = 16 << 20;

// Bytes that may wait for readers before the link's credit waits with them.
const HELD = 64 << 20;

// Bytes of one DATA frame, and of one message unless a single frame is longer.
const PIECE = 64 << 10;
const MESSAGE = 128 << 10;

// Milliseconds taken for the round trip until one was measured.
const ROUND_TRIP = 100;

// Tunnels that are over and still remembered, to tell what comes late from what must never come.
const REMEMBERED = 4096;

const EMPTY = Buffer.alloc(0);

// ---- windows ------------------------------------------------------------------------------------------

// What the other end may still send. It grows while it is used up faster than credit can come back.
class ReceiveWindow {
  constructor(size, limit) {
    this.size = size;
    this.limit = limit;
    this.left = size;
    this.owed = 0; // received and not given back
    this.since = performance.now();
  }

  received(size) {
    if (size > this.left) return false;
    this.left -= size;
    this.owed += size;
    return true;
  }

  // The credit to send now, if any, when all but `kept` of what is owed may be given back.
  credit(kept, roundTrip) {
    const back = this.owed - kept;
    if (back <= 0 || back < this.size / 2) return 0;
    const now = performance.now();
    const fast = now - this.since < 2 * roundTrip;
    const growth = fast ? Math.min(this.size, this.limit - this.size) : 0;
    this.since = now;
    this.size += growth;
    this.owed -= back;
    this.left += back + growth;
    return back + growth;
  }
}

// ---- one tunnel ---------------------------------------------------------------------------------------

// `heard` is its user: {head(head), data(bytes), end(trailers), reset(code, reason)}, each optional.
class Tunnel {
  constructor(mux, number, heard) {
    this.mux = mux;
    this.number = number;
    this.heard = heard;
    this.window = new ReceiveWindow(TUNNEL_WINDOW, TUNNEL_LIMIT);
    this.permitted = TUNNEL_WINDOW; // what may be sent
    this.queue = []; // what waits for credit: {data, done}
    this.kept = []; // what waits for the reader
    this.waiting = 0; // its bytes
    this.reading = true;
    this.headed = false;
    this.endSent = false;
    this.endSeen = false;
    this.over = false;
    this.resetSeen = false;
  }

  // Settles when the last byte has been handed to the system. `force`: without regard to credit.
  write(data, force = false) {
    if (this.over || this.endSent) return Promise.resolve();
    if (force) return this.mux.data(this, data);
    return new Promise((done) => {
      this.queue.push({ data, done });
      this.mux.pump(this);
    });
  }

  // After what was written.
  end() {
    return this.write(EMPTY).then(() => {
      if (this.over || this.endSent) return;
      this.endSent = true;
      this.mux.post(frame(END, this.number));
      this.settle();
    });
  }

  reset(code, reason = "") {
    if (this.over) return;
    this.mux.post(resetFrame(this.number, code, reason));
    this.forget();
  }

  // Whether the reader takes bytes; while it does not they are kept and no credit is given for them.
  read(on) {
    this.reading = on;
    while (this.reading && this.kept.length) {
      const item = this.kept.shift();
      if (item instanceof Array) this.ended(item);
      else {
        this.waiting -= item.length;
        this.mux.held -= item.length;
        this.deliver(item);
      }
    }
    this.mux.giveBack();
  }

  // ---- from the host

  take(type, payload) {
    if (type === CREDIT) return this.credited(payload);
    if (type === RESET) return this.wasReset(payload);
    if (this.endSeen) return this.wrong("a frame after its END");
    if (type === HEAD) this.head(payload);
    else if (!this.headed) this.wrong("a frame before its HEAD");
    else if (type === DATA) this.data(payload);
    else this.last(payload);
  }

  head(payload) {
    if (this.headed) return this.wrong("a second HEAD");
    const head = parsed(payload);
    if (typeof head?.ok !== "boolean" || !Number.isInteger(head.status)) return this.wrong("a HEAD that cannot be read");
    const interim = head.ok && head.status < 200 && head.status !== 101;
    this.headed = !interim;
    if (!head.ok) this.forget(true);
    this.heard.head?.(head);
  }

  data(payload) {
    if (!payload.length) return this.wrong("DATA without bytes");
    if (!this.window.received(payload.length)) return this.wrong("more DATA than its window", 3);
    if (this.reading && !this.kept.length) return this.deliver(payload);
    this.kept.push(payload);
    this.waiting += payload.length;
    this.mux.held += payload.length;
  }

  deliver(data) {
    this.heard.data?.(data);
    if (this.over || this.endSeen) return;
    const credit = this.window.credit(this.waiting, this.mux.roundTrip);
    if (credit) this.mux.post(creditFrame(this.number, credit));
  }

  last(payload) {
    const trailers = payload.length ? parsed(payload) : [];
    if (!(trailers instanceof Array)) return this.wrong("an END that cannot be read");
    this.endSeen = true;
    if (this.kept.length) this.kept.push(trailers);
    else this.ended(trailers);
  }

  ended(trailers) {
    this.heard.end?.(trailers);
    this.settle();
  }

  wasReset(payload) {
    if (payload.length < 2) return this.wrong("a RESET without a code");
    this.resetSeen = true;
    // A response that is whole is read to its end, whatever became of the request.
    if (this.endSeen && this.kept.length) this.read(true);
    this.forget();
    this.heard.reset?.(payload.readUInt16BE(), payload.subarray(2).toString());
  }

  credited(payload) {
    const size = payload.length === 4 ? payload.readUInt32BE() : 0;
    if (size < 1 || size > MAX_WINDOW) return this.wrong("a CREDIT that cannot be read");
    this.permitted += size;
    if (this.permitted > MAX_WINDOW) return this.mux.fail("a tunnel's window beyond its limit");
    this.mux.pump(this);
  }

  wrong(what, code = 4) {
    this.mux.violation(`tunnel ${this.number}: ${what}`);
    this.reset(code, what);
  }

  settle() {
    if (this.endSent && this.endSeen && !this.kept.length) this.forget();
  }

  forget(byHost = false) {
    this.over = true;
    if (byHost) this.resetSeen = true;
    this.mux.held -= this.waiting;
    this.waiting = 0;
    this.kept.length = 0;
    for (const { done } of this.queue.splice(0)) done();
    this.mux.forget(this);
  }
}

function parsed(payload) {
  try {
    return JSON.parse(payload.toString());
  } catch {
    return undefined;
  }
}

// ---- the link -----------------------------------------------------------------------------------------

export class Mux {
  constructor({ send, close, violation }) {
    this.send = send;
    this.close = close;
    this.violation = violation;
    this.tunnels = new Map();
    this.remembered = new Map(); // number: whether the host itself ended it
    this.highest = 0;
    this.window = new ReceiveWindow(LINK_WINDOW, LINK_LIMIT);
    this.permitted = LINK_WINDOW;
    this.held = 0; // bytes that wait for readers
    this.giving = true; // whether the link's credit is given back
    this.roundTrip = ROUND_TRIP; // milliseconds; whoever owns the socket measures it
    this.counts = { messages: 0, frames: 0, sent: 0, received: 0 };
    this.waiting = new Set(); // tunnels with bytes that lack the link's credit
    this.posted = [];
    this.size = 0;
    this.flushed = null; // settles when what is posted has left
    this.failed = false;
  }

  // `fields` are those of OPEN; `whole`: no body, its END goes with it.
  open(fields, heard, { whole = false, number = this.highest + 1 } = {}) {
    const tunnel = new Tunnel(this, number, heard);
    this.highest = Math.max(this.highest, number);
    this.tunnels.set(number, tunnel);
    this.post(jsonFrame(OPEN, number, fields));
    if (whole) {
      tunnel.endSent = true;
      this.post(frame(END, number));
    }
    return tunnel;
  }

  // A binary message of the host.
  message(message) {
    if (this.failed) return;
    this.counts.messages += 1;
    try {
      for (const [type, number, payload] of frames(message)) {
        this.counts.frames += 1;
        if (type === DATA && !this.arrived(payload.length)) return;
        if (number === 0) this.linkFrame(type, payload);
        else if (type >= HEAD && type <= CREDIT) this.tunnelFrame(type, number, payload);
        else this.violation(`tunnel ${number}: a frame of type ${type}`);
        if (this.failed) return;
      }
    } catch (error) {
      this.fail(error.message);
    }
    this.giveBack();
  }

  arrived(size) {
    this.counts.received += size;
    if (this.window.received(size)) return true;
    this.fail("more DATA than the link's window");
    return false;
  }

  giveBack() {
    if (!this.giving) return;
    const credit = this.window.credit(Math.max(0, this.held - HELD), this.roundTrip);
    if (credit) this.post(creditFrame(0, credit));
  }

  linkFrame(type, payload) {
    const size = type === CREDIT && payload.length === 4 ? payload.readUInt32BE() : 0;
    if (size < 1 || size > MAX_WINDOW) return this.fail(`a frame of type ${type} of the link`);
    this.permitted += size;
    if (this.permitted > MAX_WINDOW) return this.fail("the link's window beyond its limit");
    // A piece of each in turn, as long as there is credit.
    while (this.permitted > 0 && this.waiting.size) {
      const [tunnel] = this.waiting;
      this.waiting.delete(tunnel);
      if (this.piece(tunnel)) this.waiting.add(tunnel);
    }
  }

  tunnelFrame(type, number, payload) {
    const tunnel = this.tunnels.get(number);
    if (tunnel) tunnel.take(type, payload);
    else if (number > this.highest) this.violation(`tunnel ${number} was never opened`);
    // Credit may cross the END that made a tunnel over.
    else if (this.remembered.get(number) && type !== CREDIT) this.violation(`tunnel ${number}: a frame after its end`);
  }

  fail(what) {
    this.violation(what);
    this.failed = true;
    this.close(PROTOCOL_ERROR, what);
  }

  forget(tunnel) {
    this.tunnels.delete(tunnel.number);
    this.waiting.delete(tunnel);
    this.remembered.set(tunnel.number, tunnel.resetSeen);
    if (this.remembered.size > REMEMBERED) this.remembered.delete(this.remembered.keys().next().value);
  }

  // ---- sending

  // Send what a tunnel has credit for.
  pump(tunnel) {
    if (!this.waiting.has(tunnel)) while (this.piece(tunnel));
  }

  // Send one piece of a tunnel; false when nothing of it can be sent now.
  piece(tunnel) {
    const item = tunnel.queue[0];
    if (!item || this.failed) return false;
    const size = Math.max(0, Math.min(item.data.length, PIECE, tunnel.permitted, this.permitted));
    if (item.data.length && !size) {
      if (tunnel.permitted > 0) this.waiting.add(tunnel);
      return false;
    }
    const sent = size ? this.data(tunnel, item.data.subarray(0, size)) : Promise.resolve();
    item.data = item.data.subarray(size);
    if (!item.data.length) {
      tunnel.queue.shift();
      sent.then(item.done);
    }
    return true;
  }

  data(tunnel, data) {
    tunnel.permitted -= data.length;
    this.permitted -= data.length;
    this.counts.sent += data.length;
    return this.post(frame(DATA, tunnel.number, data), true);
  }

  // Whatever is posted in one turn of the event loop leaves in one message, or in few.
  post(bytes, bulk = false) {
    if (this.size && this.size + bytes.length > MESSAGE) this.flush();
    if (!this.flushed) {
      this.flushed = Promise.withResolvers?.() ?? resolvers();
      setImmediate(() => this.flush());
    }
    this.posted.push(bytes);
    this.size += bytes.length;
    this.bulk ||= bulk;
    return this.flushed.promise;
  }

  flush() {
    if (!this.flushed) return;
    const { flushed, posted, bulk } = this;
    this.flushed = null;
    this.posted = [];
    this.size = 0;
    this.bulk = false;
    this.send(posted.length === 1 ? posted[0] : Buffer.concat(posted), bulk).then(flushed.resolve, flushed.resolve);
  }
}

function resolvers() {
  const made = {};
  made.promise = new Promise((resolve) => (made.resolve = resolve));
  return made;
}

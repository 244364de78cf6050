// The frames of mux.1 (docs/protocol.md), written and read. It shares no code with the host.

export const OPEN = 1;
export const HEAD = 2;
export const DATA = 3;
export const END = 4;
export const RESET = 5;
export const CREDIT = 6;

const HEADER = 8;
const MAX_PAYLOAD = 1 << 20;
const MAX_REASON = 512;

export function frame(type, tunnel, payload = Buffer.alloc(0)) {
  if (payload.length > MAX_PAYLOAD) throw new Error(`a payload of ${payload.length} bytes`);
  const bytes = Buffer.allocUnsafe(HEADER + payload.length);
  bytes.writeUInt32BE(((type << 24) | payload.length) >>> 0, 0);
  bytes.writeUInt32BE(tunnel, 4);
  bytes.set(payload, HEADER);
  return bytes;
}

export const jsonFrame = (type, tunnel, value) => frame(type, tunnel, Buffer.from(JSON.stringify(value)));

export function creditFrame(tunnel, size) {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(size);
  return frame(CREDIT, tunnel, payload);
}

export function resetFrame(tunnel, code, reason) {
  const text = Buffer.from(reason).subarray(0, MAX_REASON);
  const payload = Buffer.alloc(2 + text.length);
  payload.writeUInt16BE(code);
  payload.set(text, 2);
  return frame(RESET, tunnel, payload);
}

// Every frame of a message as [type, tunnel, payload]; throws at the first that is cut or too long.
export function* frames(message) {
  if (message.length === 0) throw new Error("an empty message");
  for (let at = 0; at < message.length; ) {
    if (at + HEADER > message.length) throw new Error("a frame's header is cut");
    const type = message[at];
    const length = message.readUIntBE(at + 1, 3);
    const tunnel = message.readUInt32BE(at + 4);
    at += HEADER;
    if (length > MAX_PAYLOAD) throw new Error(`a payload of ${length} bytes`);
    if (at + length > message.length) throw new Error("a frame's payload is cut");
    yield [type, tunnel, message.subarray(at, at + length)];
    at += length;
  }
}

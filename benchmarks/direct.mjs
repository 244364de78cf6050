// The same clients without a bridge: plain HTTP to ports of this machine, which a forwarding program (or
// nothing at all) puts before the servers.
//
//     node direct.mjs NAME=PORT...
//
// Connections are kept and used again, which is the best that a browser does.

import { Agent, request } from "node:http";
import { measures } from "./measures.mjs";
import { obey } from "./orders.mjs";

const ports = Object.fromEntries(process.argv.slice(2).map((word) => word.split("=")));
const agent = new Agent({ keepAlive: true, maxSockets: 4096, noDelay: true });
let read = 0;

function open(name, method, url, headers, upgrade, data, whole = false) {
  const tunnel = {};
  let end;
  tunnel.closed = new Promise((done) => (end = done));
  const to = { host: "127.0.0.1", port: ports[name], path: url, method, headers: headers.flat(), agent };
  const asked = request(to);
  let stream = asked;
  tunnel.acked = new Promise((done, failed) => {
    asked.on("response", (response) => {
      const pairs = response.rawHeaders;
      const names = pairs.flatMap((text, at) => (at % 2 ? [] : [[text, pairs[at + 1]]]));
      response.on("data", take).on("close", end);
      if (response.statusCode < 400) done({ headers: names });
      else failed(new Error(`status ${response.statusCode}`));
    });
    asked.on("upgrade", (_, socket, head) => {
      stream = socket;
      socket.setNoDelay(true);
      socket.on("data", take).on("close", end).on("error", end);
      if (head.length) take(head);
      done({ headers: [] });
    });
    asked.on("error", (error) => {
      failed(error);
      end(error);
    });
  });
  const take = (bytes) => {
    read += bytes.length;
    data(bytes);
  };
  tunnel.write = (bytes) => new Promise((done) => stream.write(bytes, done));
  tunnel.end = () => asked.end();
  tunnel.stop = () => stream.destroy();
  tunnel.acked.catch(() => {});
  if (whole || upgrade) asked.end();
  return tunnel;
}

const link = { open, ready: () => ({}), wire: () => read, lost: new Promise(() => {}) };
obey(measures(link), { ports }, link.lost);

// What stands behind the tunnels: an echo for upgraded connections, a sink for uploads, and the files of a
// folder for when no nginx serves them.
//
//     node upstream.mjs FOLDER

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { basename, join } from "node:path";

const folder = process.argv[2];
const TYPES = {
  js: "application/javascript",
  html: "text/html",
  json: "application/json",
  bin: "application/octet-stream",
  txt: "text/plain",
};

const server = createServer((request, response) => {
  if (request.method === "POST") {
    request.resume().on("end", () => response.writeHead(204).end());
    return;
  }
  const file = join(folder, basename(request.url));
  const headers = { "Content-Type": TYPES[file.split(".").pop()], "Content-Length": statSync(file).size };
  response.writeHead(200, headers);
  createReadStream(file, { highWaterMark: 256 << 10 }).pipe(response);
});

server.on("upgrade", (_, socket) => {
  socket.setNoDelay(true);
  socket.on("error", () => {});
  socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
  socket.pipe(socket);
});

process.stdin.resume().on("close", () => process.exit(0));
server.listen(0, "127.0.0.1", () => process.stdout.write(JSON.stringify({ port: server.address().port }) + "\n"));

// An end that sends every message back as it came, and counts what came on the wire.
//
//     node echo.mjs '{"serverNoContextTakeover": true, ...}'
//
// The argument: perMessageDeflate of `ws`. Prints its port. A text message "wire" is answered with the bytes
// read so far; everything else is sent back, in three frames when its length is odd.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const server = createServer();
const sockets = new WebSocketServer({
  server,
  perMessageDeflate: JSON.parse(process.argv[2]),
  maxPayload: 64 << 20,
});

sockets.on("connection", (ws, request) => {
  ws.on("message", (data, binary) => {
    if (!binary && String(data) === "wire") return ws.send(String(request.socket.bytesRead));
    if (data.length % 2 === 0) return ws.send(data, { binary });
    const third = Math.ceil(data.length / 3);
    for (let at = 0; at < data.length; at += third) {
      ws.send(data.subarray(at, at + third), { binary, fin: at + third >= data.length });
    }
  });
});

// Ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();
server.listen(0, "127.0.0.1", () => process.stdout.write(`${server.address().port}\n`));

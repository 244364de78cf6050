"""A small web app: the files of this folder, and a WebSocket that says everything back (RFC 6455)."""

import base64
import hashlib
import http.server
import os
import struct

PORT = 3000
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/echo" and self.headers.get("Upgrade", "").lower() == "websocket":
            self.echo()
        else:
            super().do_GET()

    def end_headers(self):
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def echo(self):
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + GUID).digest()).decode())
        self.end_headers()
        self.close_connection = True
        while True:
            head = self.rfile.read(2)
            if len(head) < 2:
                return
            opcode, size = head[0] & 15, head[1] & 127
            if size == 126:
                size = struct.unpack(">H", self.rfile.read(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self.rfile.read(8))[0]
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(size)))
            if opcode == 9:
                opcode = 10
            start = bytes([0x80 | opcode])
            if size < 126:
                start += bytes([size])
            elif size < 65536:
                start += b"\x7e" + struct.pack(">H", size)
            else:
                start += b"\x7f" + struct.pack(">Q", size)
            self.wfile.write(start + data)
            if opcode == 8:
                return


os.chdir(os.path.dirname(os.path.abspath(__file__)))
http.server.ThreadingHTTPServer(("0.0.0.0", PORT), Handler).serve_forever()

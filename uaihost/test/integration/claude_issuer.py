"""The services that Claude's program asks when it signs in, behind a proxy of ours.

The program names them itself. Whatever it asks of anybody ends here: it is told to use this proxy, and to
trust its certificate.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from uaihost.test.integration.outside import certificate

# As long as one that the vendor gives: it is wider than a terminal.
TOKEN = "sk-ant-oat01-" + "aZ_9-" * 19
CODE = "code-of-a-test"
HOSTS = ("platform.claude.com", "api.anthropic.com", "console.anthropic.com", "claude.ai", "claude.com")


class ClaudeIssuer:
    """exchanged: what was sent for a token."""

    def __init__(self, host: str, folder: Path) -> None:
        self.exchanged: list[dict[str, Any]] = []
        public, private = certificate(folder, *HOSTS)
        self.authority = public.read_text()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(public, private)
        self._server = socket.create_server((host, 0))
        self.url = f"http://{host}:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """For the program, with its authority in the file that is named."""
        return {
            "AUTHORITY": self.authority,
            "HTTPS_PROXY": self.url,
            "NODE_EXTRA_CA_CERTS": "/dev/shm/authority.pem",
        }

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if path != "/v1/oauth/token":
            return 404, {"error": "there is nothing here"}
        fields = json.loads(body)
        self.exchanged.append(fields)
        if fields.get("code") != CODE:
            return 400, {"error": "invalid_grant", "error_description": "no such code"}
        return 200, {
            "token_type": "Bearer",
            "access_token": TOKEN,
            "refresh_token": "sk-ant-ort01-" + "r" * 95,
            "expires_in": fields.get("expires_in", 3600),
            "scope": "user:inference",
            "account": {"uuid": "account-1", "email_address": "ada@example.com"},
            "organization": {"uuid": "organization-1", "name": "Example"},
        }

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        with contextlib.suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(4096)
                if not piece:
                    return
                head += piece
            # RFC 9110, section 9.3.6: what follows is the tunnel's.
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            issuer = self

            class Bound(_Asked):
                owner = issuer

            with self._context.wrap_socket(connection, server_side=True) as inside:
                Bound(inside, ("", 0), None)  # type: ignore[arg-type]


class _Asked(BaseHTTPRequestHandler):
    owner: ClaudeIssuer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, answer = self.owner.answer(self.path, body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

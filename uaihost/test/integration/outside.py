"""A server that stands for the world outside a task: files over HTTP and HTTPS, and an echo, in threads.

Knows nothing of proxies; what it was asked is kept.
"""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key, as PEM files in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "outside.pem", folder / "outside.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return public, private


class _Files(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        self.server.asked.append(self.requestline)  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Files, directory=str(folder)))
        self.asked: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave as they like."""


class Outside:
    """The files of a folder at `http_port` and `https_port`, an echo at `echo_port`, of 127.0.0.1.

    ca: what clients have to trust; names: those of the certificate. asked: the request lines so far.
    """

    def __init__(self, case: SynchronousTestCase, folder: Path, keys: Path, *names: str) -> None:
        self.ca, key = certificate(keys, *names)
        plain, secure = _Server(folder), _Server(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key)
        secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
        self.asked = secure.asked = plain.asked
        for server in (plain, secure):
            threading.Thread(target=server.serve_forever, daemon=True).start()
            case.addCleanup(server.server_close)
            case.addCleanup(server.shutdown)
        self.http_port, self.https_port = plain.server_port, secure.server_port
        echo = socket.create_server(("127.0.0.1", 0))
        case.addCleanup(echo.close)
        self.echo_port = int(echo.getsockname()[1])
        threading.Thread(target=_echo, args=(echo,), daemon=True).start()


def _echo(listener: socket.socket) -> None:
    """Greets as ssh servers do, before the client says a word; answers in capitals after the client's end."""
    while True:
        try:
            connection = listener.accept()[0]
        except OSError:
            return
        with connection:
            connection.sendall(b"ready\n")
            heard = b""
            while data := connection.recv(65536):
                heard += data
            connection.sendall(heard.upper())

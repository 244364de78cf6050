"""The web server's configuration of docs/operations.md, in a real nginx before a real bridge."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import trustme
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.cli.client import wait_for
from uaihost.test.documents import TOP, blocks
from uaihost.test.integration.engine import docker_host
from uaihost.test.integration.processes import Daemons, free_port
from uaihost.test.support import short_folder

WHOLE = """
daemon off;
pid FOLDER/nginx.pid;
error_log FOLDER/error.log;
events {}
http {
    access_log off;
    client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
    SERVER
}
"""


class ProxyTests(TestCase):
    timeout = 120

    async def test_a_host_comes_in_by_tls_and_nobody_else_does(self) -> None:
        self.folder = short_folder(self)
        self.daemons = Daemons(self.folder, await docker_host(), [])
        self.addCleanup(self.daemons.stop)
        self.port = free_port()
        authority = trustme.CA()
        self.authority = self.folder / "ca.pem"
        authority.cert_pem.write_to_path(self.authority)
        made = authority.issue_cert("localhost")
        made.private_key_pem.write_to_path(self.folder / "privkey.pem")
        made.cert_chain_pems[0].write_to_path(self.folder / "fullchain.pem")
        await deferToThread(self.lives)

    def lives(self) -> None:
        bridge = self.daemons.start_bridge()
        nginx = self.nginx()
        self.addCleanup(nginx.wait, 30)
        self.addCleanup(nginx.terminate)
        wait_for("nginx", lambda: self.status("/") or None, 30)
        self.daemons.env["UAI_CLOUD_URL"] = f"wss://localhost:{self.port}/host"
        self.daemons.env["UAI_CA_FILE"] = str(self.authority)
        self.daemons.start_host()
        self.assertTrue(self.daemons.wait_connected(bridge))
        for path in ("/", "/api/state", "/healthz", "/host/other", "/hosts"):
            self.assertEqual(self.status(path), 404, path)

    def nginx(self) -> subprocess.Popen[bytes]:
        """nginx with what the document shows; only names, ports and files are this machine's."""
        (shown,) = [block for block in blocks(TOP / "docs" / "operations.md") if block.info == "nginx"]
        server = "\n".join(shown.lines)
        for theirs, ours in {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "bridge.example.org;": "localhost;",
            "/etc/letsencrypt/live/bridge.example.org": str(self.folder),
            "127.0.0.1:8789": f"127.0.0.1:{self.daemons.port}",
            "localhost:8789": f"localhost:{self.daemons.port}",
        }.items():
            self.assertIn(theirs, server)
            server = server.replace(theirs, ours)
        path = self.folder / "nginx.conf"
        path.write_text(WHOLE.replace("SERVER", server).replace("FOLDER", str(self.folder)))
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None, "nginx is not installed"
        words = [program, "-p", str(self.folder), "-c", str(path)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=self.log(path))

    def log(self, path: Path) -> int:
        descriptor = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT, 0o600)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def status(self, path: str) -> int:
        """How a page is answered; 0 when nobody answers."""
        trusted = ssl.create_default_context(cafile=str(self.authority))
        try:
            with urlopen(f"https://localhost:{self.port}{path}", context=trusted, timeout=10) as answer:
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

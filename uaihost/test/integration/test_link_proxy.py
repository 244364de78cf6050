"""A host behind a real proxy (tinyproxy) that wants a password, before a bridge with TLS."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from typing import Any

import trustme
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.cli.client import wait_for
from uaihost.credentials.github_http import GitHubClient, Unanswered
from uaihost.test.integration.agents_rig import address
from uaihost.test.integration.engine import docker_host
from uaihost.test.integration.processes import Daemons, free_port
from uaihost.test.support import short_folder

PASSWORD = "a-secret.of_the-proxy"

NGINX = """
daemon off; pid FOLDER/nginx.pid; error_log FOLDER/error.log; events {}
http {
    access_log off;
    client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
    server {
        listen ADDRESS ssl; ssl_certificate FOLDER/chain.pem; ssl_certificate_key FOLDER/key.pem;
        location /host {
            proxy_pass http://127.0.0.1:BRIDGE; proxy_http_version 1.1;
            proxy_set_header Host localhost:BRIDGE;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
        }
        location /user { return 200 '{"login": "me"}'; }
    }
}
"""
TINYPROXY = """
Port PORT
Listen 127.0.0.1
Timeout 600
LogFile "FOLDER/tinyproxy.log"
LogLevel Connect
BasicAuth me PASSWORD
"""


class BehindAProxyTests(TestCase):
    timeout = 180

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = short_folder(self)
        self.daemons = Daemons(self.folder, await docker_host(), [])
        self.addCleanup(self.daemons.stop)
        self.address = f"{address()}:{free_port()}"
        self.port = free_port()
        self.authority = self.folder / "ca.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        made = authority.issue_cert(self.address.rpartition(":")[0])
        made.private_key_pem.write_to_path(self.folder / "key.pem")
        made.cert_chain_pems[0].write_to_path(self.folder / "chain.pem")
        self.daemons.env |= {
            "UAI_CLOUD_URL": f"wss://{self.address}/host",
            "UAI_CA_FILE": str(self.authority),
            "https_proxy": self.url(PASSWORD),
            # A host's other ways to the outside are not looked at here.
            "no_proxy": "",
        }

    def url(self, password: str) -> str:
        return f"http://me:{password}@127.0.0.1:{self.port}"

    def run_(self, program: str, text: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a program with a file of settings; it is ended after the test."""
        path = self.folder / f"{program}.conf"
        values = {"FOLDER": str(self.folder), "ADDRESS": self.address, "PORT": str(self.port)}
        values |= {"BRIDGE": str(self.daemons.port), "PASSWORD": PASSWORD}
        path.write_text(re.sub("|".join(values), lambda found: values[found[0]], text))
        found = shutil.which(program, path="/usr/sbin:/usr/bin")
        assert found is not None, program
        process = subprocess.Popen(
            [found, *words, str(path)], stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.addCleanup(process.wait, 30)
        self.addCleanup(process.terminate)
        return process

    def proxy(self) -> subprocess.Popen[bytes]:
        process = self.run_("tinyproxy", TINYPROXY, "-d", "-c")
        wait_for("the proxy", self.listens, 30)
        return process

    def listens(self) -> bool | None:
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
        except OSError:
            return None
        return True

    def log(self) -> str:
        path = self.folder / "tinyproxy.log"
        return path.read_text(errors="replace")

    def link(self) -> dict[str, Any]:
        """How the host says that its link is."""
        told = json.loads(self.daemons.command("status", "--json").stdout)
        found: dict[str, Any] = told.get("bridge") or {"state": "starting", "reason": ""}
        return found

    def reason(self, words: str) -> None:
        wait_for(words, lambda: words in self.link()["reason"] or None, 60)

    async def test_the_link(self) -> None:
        await deferToThread(self.lives)

    def lives(self) -> None:
        bridge = self.daemons.start_bridge()
        self.run_("nginx", NGINX, "-c")
        proxy = self.proxy()
        self.daemons.start_host()
        self.assertTrue(self.daemons.wait_connected(bridge))
        self.assertIn(f"CONNECT {self.address} HTTP/1.1", self.log())
        self.well()
        proxy.terminate()
        self.assertEqual(proxy.wait(30), 0)
        self.reason(f"the proxy 127.0.0.1:{self.port} of https_proxy cannot be reached")
        self.proxy()
        wait_for("the link", lambda: self.link()["state"] == "connected" or None, 60)
        self.daemons.kill("uaihost")
        self.daemons.env["https_proxy"] = self.url("another")
        self.daemons.start_host()
        self.reason("wants another user and password (")
        said = json.loads(self.daemons.command("doctor", "--json", "--only", "bridge-tcp").stdout)
        (found,) = [each for each in said["checks"] if each["name"] == "bridge-tcp"]
        self.assertIn("opens no way", found["text"])
        for path in (*self.daemons.host_data.rglob("*.log"), *self.folder.glob("*.log")):
            self.assertNotIn(PASSWORD, path.read_text(errors="replace"), path)

    def well(self) -> None:
        """The doctor goes the same way."""
        names = ("proxies", "bridge-name", "bridge-tcp", "bridge-tls", "bridge-websocket", "bridge-token")
        words = [word for name in names for word in ("--only", name)]
        done = self.daemons.command("doctor", "--json", *words)
        checks = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
        self.assertEqual(
            {name: checks[name]["verdict"] for name in names}, dict.fromkeys(names, "ok"), checks
        )
        self.assertIn(f"through the proxy 127.0.0.1:{self.port}", checks["bridge-tcp"]["text"])
        self.assertNotIn("a-secret", done.stdout)

    async def test_github(self) -> None:
        await deferToThread(self.run_, "nginx", NGINX, "-c")
        await deferToThread(self.proxy)
        url = f"https://{self.address}/user"
        self.patch(os, "environ", {**os.environ, "no_proxy": "", "https_proxy": self.url(PASSWORD)})
        answer = await GitHubClient(reactor, self.authority).ask("GET", url)
        self.assertEqual((answer.status, answer.object()), (200, {"login": "me"}))
        self.assertIn(f"CONNECT {self.address} HTTP/1.1", self.log())
        os.environ["https_proxy"] = self.url("another")
        asking = Deferred.fromCoroutine(GitHubClient(reactor, self.authority).ask("GET", url))
        error: Any = await self.assertFailure(asking, Unanswered)
        self.assertIn("wants another user and password (401)", str(error))
        self.assertFalse(error.sent)

"""Servers of repositories as tasks meet them: HTTPS with an authority of its own, and OpenSSH."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.test.integration.git_rig import GitServer

_SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""

_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin"
# sshd wants this folder, which the system otherwise makes when it starts it.
_SEPARATION = Path("/run/sshd")


def secured(server: GitServer, folder: Path) -> Path:
    """Make the server speak TLS as 127.0.0.1, with a certificate of a new authority: its file."""
    authority, key, request, made = (folder / name for name in ("ca.pem", "key.pem", "req.pem", "cert.pem"))
    new = ["openssl", "req", "-nodes", "-newkey", "rsa:2048", "-subj"]
    _run([*new, "/CN=test", "-x509", "-days", "2", "-keyout", str(folder / "ca.key"), "-out", str(authority)])
    _run([*new, "/CN=127.0.0.1", "-keyout", str(key), "-out", str(request)])
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    sign = ["openssl", "x509", "-req", "-days", "2", "-CAcreateserial", "-extfile", str(folder / "ext")]
    signer = ["-CA", str(authority), "-CAkey", str(folder / "ca.key")]
    _run([*sign, *signer, "-in", str(request), "-out", str(made)])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    server.secure(context)
    return authority


class SshServer:
    """An sshd on the loopback interface, with throw-away keys; `user_key` may sign in, `other_key` not."""

    def __init__(self, case: TestCase, folder: Path) -> None:
        self._folder = folder
        if os.geteuid() == 0 and not _SEPARATION.is_dir():
            _SEPARATION.mkdir(mode=0o755)
        for name in ("host_key", "user_key", "other_key"):
            self.new_key(name)
        shutil.copy(folder / "user_key.pub", folder / "authorized")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._start()
        case.addCleanup(self.stop)

    def new_key(self, name: str) -> None:
        for file in (self._folder / name, self._folder / f"{name}.pub"):
            file.unlink(missing_ok=True)
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / name)])

    def _start(self) -> None:
        config = self._folder / "sshd_config"
        config.write_text(_SSHD.format(port=self.port, folder=self._folder))
        sshd = shutil.which("sshd", path=_PATH)
        assert sshd is not None, "apt-get install openssh-server"
        self._sshd = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("sshd does not listen")

    def restart(self) -> None:
        """As after `new_key("host_key")`."""
        self.stop()
        self._start()

    def stop(self) -> None:
        self._sshd.terminate()
        self._sshd.wait()

    def url(self, path: Path) -> str:
        user = subprocess.check_output(["id", "-un"], text=True).strip()
        return f"ssh://{user}@127.0.0.1:{self.port}{path}"


class SshAgent:
    """An ssh-agent with some keys of the folder, which is where an owner's keys are found without a file."""

    def __init__(self, case: TestCase, folder: Path, *keys: str) -> None:
        self.socket = str(folder / f"agent-{'-'.join(keys) or 'empty'}")
        self._agent = subprocess.Popen(["ssh-agent", "-D", "-a", self.socket], stdout=subprocess.DEVNULL)
        case.addCleanup(self.stop)
        self._wait()
        for key in keys:
            _run(["ssh-add", "-q", str(folder / key)], SSH_AUTH_SOCK=self.socket)

    def _wait(self) -> None:
        # The socket has a name before it takes connections.
        for _ in range(200):
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(self.socket) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("ssh-agent does not listen")

    def stop(self) -> None:
        self._agent.terminate()
        self._agent.wait()


def _run(words: list[str], **extra: str) -> None:
    done = subprocess.run(words, env={**os.environ, **extra}, capture_output=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{words[0]}: {done.stderr.decode('utf-8', 'replace')}")

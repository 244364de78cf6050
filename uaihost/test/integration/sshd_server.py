"""A forge that is reached by ssh: OpenSSH's server with throw-away keys, for git's commands."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

_CONFIG = """
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
LogLevel DEBUG1
"""
# Where Debian keeps it, which is not in everybody's PATH.
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin"
# sshd wants this folder, which the system otherwise makes when it starts it.
_SEPARATION = Path("/run/sshd")
# What a key may do: git's commands.
_OPTIONS = 'restrict,command="git-shell -c \\"$SSH_ORIGINAL_COMMAND\\""'


class Forge:
    """Repositories in `folder`, served at `address` until `stop`. user: who signs in."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.folder = folder
        self.address = address
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        with socket.socket() as free:
            free.bind((address, 0))
            self.port = int(free.getsockname()[1])
        folder.mkdir(exist_ok=True)
        if os.geteuid() == 0 and not _SEPARATION.is_dir():
            _SEPARATION.mkdir(mode=0o755)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key"))
        self.let_in()
        config = folder / "sshd_config"
        config.write_text(_CONFIG.format(address=address, port=self.port, folder=folder))
        sshd = shutil.which("sshd", path=_PATH)
        assert sshd is not None, "apt-get install openssh-server"
        with (folder / "log").open("wb") as log:
            self._sshd = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=log)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex((address, self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("sshd does not listen")

    def let_in(self, *keys: str, options: str = _OPTIONS) -> None:
        """These keys, as lines, and no others may sign in. options: what for (sshd(8), AUTHORIZED_KEYS)."""
        text = "".join(f"{options} {key}\n" for key in keys)
        (self.folder / "authorized").write_text(text)

    @property
    def known(self) -> str:
        """Its line of a known_hosts file."""
        kind, key = (self.folder / "host_key.pub").read_text().split()[:2]
        return f"[{self.address}]:{self.port} {kind} {key}\n"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def url(self, name: str) -> str:
        return f"ssh://{self.user}@{self.address}:{self.port}{self.folder / name}"

    def repository(self, name: str, submodule: str | None = None) -> Path:
        """A new bare repository with a commit on `main`. submodule: another's name, in the folder `inner`."""
        path, work = self.folder / name, self.folder / f"{name}.work"
        run("git", "init", "-q", "-b", "main", str(work))
        (work / "README").write_text("one\n")
        if submodule is not None:
            commit = run("git", "-C", str(self.folder / submodule), "rev-parse", "main").strip()
            text = f'[submodule "inner"]\n\tpath = inner\n\turl = ../{submodule}\n'
            (work / ".gitmodules").write_text(text)
            run("git", "-C", str(work), "update-index", "--add", "--cacheinfo", f"160000,{commit},inner")
            run("git", "-C", str(work), "add", ".gitmodules")
        run("git", "-C", str(work), "add", "README")
        run("git", "-C", str(work), "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "one")
        run("git", "clone", "-q", "--bare", str(work), str(path))
        return path

    def stop(self) -> None:
        self._sshd.terminate()
        self._sshd.wait()


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{words[0]}: {done.stderr.decode('utf-8', 'replace')}")
    return done.stdout.decode()

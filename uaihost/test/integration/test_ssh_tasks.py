"""SSH in a task, as people run it: a bridge, a host, a container of the standard image, a forge by sshd."""

from __future__ import annotations

import atexit
import json
import shlex
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from uaihost.credentials.sealing import Sealer
from uaihost.test.integration.agents_rig import AgentsCase, Channel, World, address, restart_host
from uaihost.test.integration.processes import until
from uaihost.test.integration.sshd_server import Forge, run


class ProxiedTests(AgentsCase):
    """Where a task has no network, and ssh leaves through the host's proxy."""

    egress = "deny"
    # One of the task's repository, and another that it can reach.
    forge: Forge
    other: Forge
    task: Channel

    async def shared(self) -> World:
        cls = type(self)
        if "forge" not in vars(cls):
            cls.forge, cls.other = (Forge(_folder(), address()) for _ in range(2))
            for forge in (cls.forge, cls.other):
                atexit.register(forge.stop)
            cls.forge.repository("inner.git")
            cls.forge.repository("shop.git", submodule="inner.git")
            ports = (cls.forge.port, cls.other.port)
            cls.settings = {
                "UAI_EGRESS": cls.egress,
                "UAI_EGRESS_ALLOW": ",".join(f"{address()}:{port}" for port in ports),
            }
        world = await super().shared()
        done = world.daemons.command("ssh-key", "ensure")
        self.assertEqual(done.returncode, 0, done.stderr)
        # No other key opens it: the host's own git clones with this one too.
        cls.forge.let_in(done.stdout.strip())
        if "task" not in vars(cls):
            cls.task = world.task(repoUrl=cls.forge.url("shop.git"))
        return world

    def inside(self, script: str, check: bool = True) -> str:
        """What a shell in the task prints; its work copy is where it runs."""
        words = ["exec", "-w", "/workspace/shop", self.task.container, "bash", "-c"]
        for _ in range(40):
            said = self.task.docker(*words, f"( {script} ) 2>&1 || echo failed with $?")
            # Of another host on this machine that has the packet filter for a moment; nothing was done yet.
            if "Connection refused" not in said:
                break
            time.sleep(0.5)
        if check:
            self.assertNotIn("failed with", said)
        return said

    def audit(self, task_id: str) -> list[dict[str, Any]]:
        """Uses in this task; in none, the host's own."""
        lines = (self.world.daemons.host_data / "audit.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["task"] == task_id]

    def test_clone_commit_and_push(self) -> None:
        self.inside(
            f"git clone -q {shlex.quote(self.forge.url('shop.git'))} /tmp/again && test -f /tmp/again/README"
        )
        self.inside("git checkout -q -b topic && echo x > new && git add new && git commit -qm two")
        self.inside("git push -q origin topic && git checkout -q -")
        self.assertIn(
            "two", self.inside("git ls-remote --heads origin topic && git log -1 --format=%s origin/topic")
        )
        # The host's own clone is the first, in no task.
        (cloned, *_), signed = self.audit(""), until("the audit", lambda: self.audit(self.task.task_id), 5)
        self.assertEqual(cloned["outcome"], "ok")
        self.assertIn("ok", {line["outcome"] for line in signed})
        signed = [cloned, *(line for line in signed if line["outcome"] == "ok")]
        self.assertEqual({line["what"] for line in signed}, {"sign"})
        self.assertEqual({line["host"] for line in signed}, {f"[{address()}]:{self.forge.port}"})
        self.assertEqual({line["user"] for line in signed}, {"owner"})

    def test_a_server_that_is_not_known(self) -> None:
        other = self.other
        other.let_in(self.inside("ssh-add -L").strip())
        said = self.inside(f"ssh -p {other.port} {other.user}@{address()} true", check=False)
        self.assertIn("Host key verification failed", said)
        # Nor does it help to believe it.
        trusting = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        said = self.inside(f"ssh {trusting} -p {other.port} {other.user}@{address()} true", check=False)
        self.assertIn("Permission denied (publickey)", said)
        self.assertNotIn("Accepted publickey", other.log)


class SshTaskTests(ProxiedTests):
    """Where it has one."""

    egress = "open"

    def test_a_submodule_on_the_same_server(self) -> None:
        self.assertEqual(self.inside("cat inner/README"), "one\n")
        self.assertIn("refs/heads/main", self.inside("git -C inner ls-remote origin"))

    def test_the_host_pushes_with_the_same_key(self) -> None:
        # On the task's own branch, which is what it pushes.
        branch = self.inside("git branch --show-current").strip()
        self.inside("echo y > pushed && git add pushed && git commit -qm three")
        before = len(self.audit(""))
        done = self.world.daemons.command("push", self.task.task_id)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(
            run("git", "-C", str(self.forge.folder / "shop.git"), "log", "-1", "--format=%s", branch),
            "three\n",
        )
        until("the audit", lambda: len(self.audit("")) > before, 5)

    def test_the_agent_shows_one_key_and_keeps_it(self) -> None:
        shown = self.inside("ssh-add -L")
        self.assertEqual(shown, self.world.daemons.command("ssh-key", "show").stdout)
        asked = "ssh-add -D; ssh-add -d /tmp/x.pub; SSH_ASKPASS=true SSH_ASKPASS_REQUIRE=force ssh-add -x"
        self.inside(f"ssh-add -L > /tmp/x.pub; {asked}", check=False)
        self.assertEqual(self.inside("ssh-add -L"), shown)

    def test_what_ssh_is_told(self) -> None:
        said = dict(line.split(" ", 1) for line in self.inside("ssh -G git@github.com").splitlines())
        self.assertEqual(said["stricthostkeychecking"], "true")
        for file in said["globalknownhostsfile"].split():
            self.inside(f"test -r {shlex.quote(file)}")
        known = self.inside("ssh-keygen -F github.com -f /etc/ssh/ssh_known_hosts -l")
        self.assertIn("SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU", known)
        self.assertEqual(self.inside("cat /run/host/broker/known_hosts"), self.forge.known)
        self.assertIn("failed", self.inside("echo x >> /run/host/broker/known_hosts", check=False))

    def test_what_an_intruder_asks(self) -> None:
        found = json.loads(self.run_there("ssh_intruder.py"))
        closed = found.pop("more than there may be")
        self.assertEqual((set(found.values()), closed), ({5}, None), found)

    def test_no_private_key_in_the_container(self) -> None:
        """Neither a file of one, nor this user's key in any form that one could be kept in."""
        found = json.loads(self.run_there("ssh_seeker.py", self.private_key().hex()[::-1]))
        self.assertEqual(found, {"read": found["read"], "held": []})
        self.assertGreater(found["read"], 100)
        # It would have been found.
        self.inside(f"echo {self.private_key().hex()} > /tmp/planted")
        held = json.loads(self.run_there("ssh_seeker.py", self.private_key().hex()[::-1]))["held"]
        self.inside("rm /tmp/planted")
        self.assertEqual(held, ["/tmp/planted"])
        self.assertEqual(self.inside("ls /run/host/broker").split(), ["git.sock", "known_hosts", "ssh.sock"])
        self.assertIn("Read-only", self.inside("touch /run/host/broker/x", check=False))

    def private_key(self) -> bytes:
        """What the host keeps of the user's key, opened as whoever has its data folder can."""
        data = self.world.daemons.host_data
        with closing(sqlite3.connect(f"file:{data / 'state.db'}?mode=ro", uri=True)) as db:
            (secret,) = db.execute("SELECT secret FROM ssh_keys").fetchone()
        key = bytes.fromhex((data / "secrets.key").read_text().split()[0])
        return Sealer(key).open("ssh/owner", secret)

    def run_there(self, name: str, *words: str) -> str:
        """Run a program of this folder in the task."""
        self.task.docker("cp", str(Path(__file__).with_name(name)), f"{self.task.container}:/tmp/{name}")
        return self.inside(shlex.join(["python3", f"/tmp/{name}", *words]))

    def test_a_key_that_was_deleted_and_made_anew(self) -> None:
        self.assertEqual(self.world.daemons.command("ssh-key", "delete").returncode, 0)
        self.assertIn("no identities", self.inside("ssh-add -L", check=False))
        self.assertIn("Permission denied (publickey)", self.inside("git ls-remote origin", check=False))
        made = self.world.daemons.command("ssh-key", "ensure").stdout
        self.forge.let_in(made.strip())
        self.assertEqual(self.inside("ssh-add -L"), made)
        self.assertIn("refs/heads/main", self.inside("git ls-remote origin"))

    def test_after_the_host_was_killed(self) -> None:
        before = self.task.container
        restart_host(self.world)
        self.task.until(
            "ssh again", lambda: "refs/heads/main" in self.inside("git ls-remote origin", check=False)
        )
        self.assertEqual(self.task.container, before)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="uai-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder

"""The Debian package's life on a clean machine: installed, used, upgraded, removed, installed again, purged.

The machine is a container with systemd and an engine of its own. Its life is one test, since each part of it
stands on the part before. All files before installing and after purging are compared, as piuparts does
(`scripts/deb --piuparts`; it wants a base system of its own, and takes a minute).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.containers.base import LOCAL, BaseImages
from uaihost.containers.images import Images
from uaihost.test.documents import agrees, commands_of
from uaihost.test.integration.documents_rig import by_page
from uaihost.test.integration.engine import CHECKOUT, ENGINE_FOLDER, docker_host
from uaihost.test.integration.packages import NEWER, built
from uaihost.test.integration.systemd_machine import Failed, SystemdMachine, machine
from uaihost.test.support import short_folder

# Where the machine finds packages and the task image.
EXCHANGE = "/exchange"
# Speaks with the bridge's API from inside the machine, whose loopback it listens on.
ASK = """
import json, sys
from pathlib import Path
from uaihost.cli.client import BridgeClient
method, path, body = json.loads(sys.argv[1])
bridge = BridgeClient(8789, Path("/var/lib/uaihost/bridge.key").read_text().strip())
print(json.dumps(bridge.call(method, path, body, 120)))
"""
SETTINGS = '\ntask_image = "small"\nlocal_repositories = ["/srv"]\n'
REPOSITORY = """
git init -q -b main /srv/shop
cd /srv/shop
echo '<h1>Corner shop</h1>' >index.html
git add .
git -c user.name=Owner -c user.email=owner@example.org commit -qm First
chown -R uaihost:uaihost /srv/shop
"""
# This machine may forget what dpkg wrote if it fails.
QUICKLY = "echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/quickly"
# Everything on the machine's disk that is neither the engine's nor a log, with owner and mode; and what the
# files of accounts hold.
FILES = r"""
find / -xdev \( -path /exchange -o -path /var/lib/docker -o -path /var/lib/containerd -o -path /var/log \
    -o -path /run -o -path /tmp -o -path /var/cache/ldconfig \) -prune -o -printf '%p %u %g %m %y\n' | sort
cat /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/subuid /etc/subgid | sort
"""
# What dpkg and apt keep about their own work.
OWN_BOOKS = re.compile(
    r"/var/(lib/dpkg/(status|available|lock|triggers|diversions|info/format)|cache/apt|lib/apt)"
)
# How many chunks the agent's long turn has, and what each is; at 0.3 s a chunk it outlasts the upgrade.
CHUNKS, CHUNK = 70, "word"


class BuildTests(TestCase):
    timeout = 600

    async def test_who_builds_it_where_makes_no_difference(self) -> None:
        packages = await deferToThread(built)
        first, newer = [await deferToThread(contents, path) for path in (packages.first, packages.newer)]
        self.assertEqual(sorted(first), sorted(newer))
        differ = {name for name in first if first[name] != newer[name]}
        # Where a version stands, and nothing else; byte code names the line that holds it.
        allowed = re.compile(
            r"control/(control|md5sums)"
            r"|data/usr/share/doc/uaihost/changelog\.Debian\.gz"
            r"|data/usr/share/man/man1/uaihost\.1\.gz"
            r"|data/opt/uaihost/lib/python3\.\d+/site-packages/uaihost/(__init__\.py|__pycache__/__init__\..*\.pyc)"
            r"|data/opt/uaihost/lib/python3\.\d+/site-packages/uaihost-VERSION\.dist-info/METADATA"
        )
        self.assertEqual({name for name in differ if not allowed.fullmatch(name)}, set())

    async def test_lintian_has_nothing_to_say(self) -> None:
        packages = await deferToThread(built)
        words = ["/usr/bin/python3", str(CHECKOUT / "scripts" / "deb"), "--lint", str(packages.first)]
        done = await deferToThread(subprocess.run, words, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)


class LifeTests(TestCase):
    # Builds two packages and boots a machine with an engine of its own.
    timeout = 900
    machine: SystemdMachine

    async def test_a_life(self) -> None:
        packages = await deferToThread(built)
        exchange = short_folder(self)
        shutil.copy(packages.first, exchange / "first.deb")
        shutil.copy(packages.newer, exchange / "newer.deb")
        storage = Path(tempfile.mkdtemp(prefix="uai-docker-", dir="/var/tmp"))
        self.addCleanup(deferToThread, shutil.rmtree, storage)
        binds = [f"{exchange}:{EXCHANGE}:ro", f"{storage}:/var/lib/docker"]
        self.machine = await machine(self, binds=binds)
        await deferToThread(self.machine.shell, QUICKLY)
        before = await deferToThread(self.machine.shell, FILES)
        await deferToThread(self.installed)
        numbers = await deferToThread(self.machine.shell, "id -u uaihost; id -g uaihost")
        uid, gid = map(int, numbers.split())
        await task_image(self, exchange / "images.tar", uid, gid)
        await deferToThread(self.live, before)

    def live(self, before: str) -> None:
        self.machine.run("docker", "load", "--quiet", "--input", f"{EXCHANGE}/images.tar")
        task = self.works()
        self.upgraded(task)
        self.refuses_bad_settings()
        self.refuses_a_newer_database()
        self.removed(task)
        self.purged(before)

    def installed(self) -> None:
        machine = self.machine
        self.apt("install", f"{EXCHANGE}/first.deb")
        for unit in ("uaihost", "uaibridge"):
            self.assertEqual(machine.until_active(f"{unit}.service")["User"], "uaihost")
            self.assertEqual(machine.run("systemctl", "is-enabled", unit).strip(), "enabled")
        self.assertEqual(
            machine.shell("stat -c '%U:%G %a' /etc/uaihost/host-token").strip(), "root:uaihost 640"
        )
        self.assertEqual(machine.shell("stat -c '%U:%G %a' /var/lib/uaihost").strip(), "uaihost:uaihost 700")
        self.assertIn("docker", machine.run("id", "-nG", "uaihost").split())
        # What the administrator types, from a folder that the service's user may not see.
        status = json.loads(machine.shell("cd /root && uaihost status --json"))
        machine.until(
            lambda: json.loads(machine.run("uaihost", "status", "--json"))["bridge"]["state"] == "connected",
            "the host is connected",
        )
        self.assertEqual(status["hostId"], machine.shell("cat /var/lib/uaihost/host-id").strip())
        self.assertRegex(machine.shell("curl -sS -i http://127.0.0.1:5876/healthz"), r"^HTTP/1\.1 200 ")
        page = machine.shell(
            f"curl -sS -L -b /run/cookies -c /run/cookies -w '%{{http_code}}' '{status['page']}'"
        )
        self.assertRegex(page, r"(?s)<!doctype html>.*<title>.*200\Z")
        self.assertEqual(machine.shell("find /var/lib/uaihost ! -user uaihost").strip(), "")
        # Nothing of the package was written since: neither byte code nor lists of plugins.
        self.assertEqual(machine.shell("dpkg --verify uaihost").strip(), "")
        self.assertEqual(machine.shell("find /opt/uaihost -newer /var/lib/uaihost/host-id").strip(), "")

    def works(self) -> str:
        machine = self.machine
        machine.shell(REPOSITORY)
        machine.shell(f"cat >>/etc/uaihost/uaihost.toml <<'END'{SETTINGS}END\nsystemctl restart uaihost")
        task = str(self.ask("POST", "/api/tasks", {"repoUrl": "/srv/shop", "name": "Shop"})["id"])
        machine.until(lambda: self.task(task)["status"] in ("running", "failed"), "the task is up", 60)
        self.assertEqual(self.task(task)["status"], "running", self.task(task)["message"])
        self.assertEqual(len(self.containers()), 1)
        return task

    def upgraded(self, task: str) -> None:
        machine = self.machine
        text = f"slow {CHUNKS} {CHUNK}"
        self.ask("POST", f"/api/tasks/{task}/messages", {"text": text})
        machine.until(lambda: self.activity(task)[-1:] == ["thinking"], "the agent works")
        daemon = machine.shown("uaihost.service")["MainPID"]
        containers, agent = self.containers(), self.agents()
        self.assertEqual(len(agent), 1)
        self.apt("install", f"{EXCHANGE}/newer.deb")
        self.assertNotEqual(machine.until_active("uaihost.service")["MainPID"], daemon)
        self.assertIn(NEWER.partition("-")[0], machine.run("uaihost", "--version"))
        self.assertEqual((self.containers(), self.agents()), (containers, agent))
        # It was not all said before the exchange: the turn goes on under the new daemon.
        self.assertEqual(self.said(task, "agent"), [])
        self.assertIn("task_image", machine.shell("tail -n 2 /etc/uaihost/uaihost.toml"))
        machine.until(lambda: self.said(task, "agent"), "the turn ends", 60)
        self.assertEqual(self.said(task, "user"), [text])
        self.assertEqual(self.said(task, "agent"), [" ".join([CHUNK] * CHUNKS)])
        self.assertEqual(self.agents(), agent)
        # A downgrade within the same schema is the same exchange.
        self.apt("install", "--allow-downgrades", f"{EXCHANGE}/first.deb")
        machine.until_active("uaihost.service")
        self.assertEqual(self.containers(), containers)

    def refuses_bad_settings(self) -> None:
        machine = self.machine
        machine.shell(
            "cp /etc/uaihost/uaihost.toml /root/good && echo 'ui_port = 0' >>/etc/uaihost/uaihost.toml"
        )
        machine.shell("systemctl restart uaihost", status=None)
        machine.until(lambda: machine.shown("uaihost.service")["ActiveState"] == "failed", "it gives up")
        shown = machine.shown("uaihost.service")
        self.assertEqual((shown["NRestarts"], shown["ExecMainStatus"]), ("0", "1"))
        self.assertRegex(
            machine.journal("uaihost.service"), r"`ui_port` in /etc/uaihost/uaihost\.toml.*1 to 65535"
        )
        # dpkg does not fail because the service cannot start.
        machine.run("dpkg-reconfigure", "uaihost")
        machine.shell(
            "cat /root/good >/etc/uaihost/uaihost.toml && rm /root/good && systemctl restart uaihost"
        )
        machine.until_active("uaihost.service")

    def refuses_a_newer_database(self) -> None:
        machine = self.machine
        machine.run("systemctl", "stop", "uaihost")
        self.schema(
            "INSERT INTO schema_versions (version, name) "
            "SELECT max(version) + 1, 'later' FROM schema_versions"
        )
        self.schema("UPDATE schema_floor SET version = (SELECT max(version) FROM schema_versions)")
        machine.run("systemctl", "start", "--no-block", "uaihost")
        why = re.compile("written by a newer uaihost.*install the newer version")
        machine.until(lambda: why.search(machine.journal("uaihost.service")), "it says why")
        # And is not tried again before somebody has done something.
        machine.until(lambda: machine.shown("uaihost.service")["ActiveState"] == "failed", "it stays ended")
        # What the doctor says to type brings the newer version back, and takes no database away.
        said = machine.run("uaihost", "doctor", "--only", "database", status=1)
        self.assertRegex(said, r"(?m)^    apt-get install \./uaihost_NEWER\.deb$")
        self.assertNotRegex(said, r"(?m)^    (mv|rm|cp) ")
        self.schema("DELETE FROM schema_versions WHERE name = 'later'")
        self.schema("UPDATE schema_floor SET version = 1")
        machine.run("systemctl", "start", "uaihost")

    def schema(self, statement: str) -> None:
        """Change the database's books, as its owner."""
        program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"
        words = [
            "runuser",
            "-u",
            "uaihost",
            "--",
            "python3",
            "-c",
            program,
            "/var/lib/uaihost/state.db",
            statement,
        ]
        self.machine.run(*words)

    def removed(self, task: str) -> None:
        machine = self.machine
        token = machine.shell("cat /etc/uaihost/host-token")
        self.apt("remove", "uaihost")
        self.assertEqual(machine.shell("pgrep -u uaihost || true").strip(), "")
        self.assertEqual(machine.shell("docker ps --quiet").strip(), "")
        self.assertEqual(machine.status("test", "-s", "/var/lib/uaihost/state.db"), 0)
        self.assertEqual(machine.status("test", "-e", "/opt/uaihost"), 1)
        self.apt("install", f"{EXCHANGE}/newer.deb")
        machine.until_active("uaihost.service")
        self.assertEqual(machine.shell("cat /etc/uaihost/host-token"), token)
        self.assertEqual(machine.shell("find /var/lib/uaihost ! -user uaihost").strip(), "")
        # The task is there, and works again as soon as somebody speaks to it.
        self.ask("POST", f"/api/tasks/{task}/messages", {"text": "say back again"})
        machine.until(lambda: "back again" in self.said(task, "agent"), "the task is taken up", 60)

    def purged(self, before: str) -> None:
        machine = self.machine
        self.apt("purge", "uaihost")
        machine.shell("rm -rf /srv/shop")
        self.assertEqual(machine.shell("docker ps --all --quiet; docker image ls --quiet").strip(), "")
        networks = machine.shell("docker network ls --format '{{.Name}}'").split()
        self.assertEqual(sorted(networks), ["bridge", "host", "none"])
        self.assertNotIn("UAIHOST", machine.shell("iptables-save; ip6tables-save"))
        after = machine.shell(FILES)
        self.assertEqual(strangers(before) ^ strangers(after), set())

    def apt(self, *words: str) -> None:
        command = ["apt-get", words[0], "--yes", "--no-install-recommends", *words[1:]]
        said = self.machine.run(*command, env={"DEBIAN_FRONTEND": "noninteractive"})
        self.assertNotRegex(said, r"(?i)warning(?!: downgrading)|dpkg: error|failed")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """An answer of the bridge's API."""
        words = json.dumps([method, path, body])
        return json.loads(self.machine.run("/opt/uaihost/bin/python3", "-c", ASK, words))

    def task(self, task: str) -> Any:
        return self.ask("GET", f"/api/tasks/{task}")

    def said(self, task: str, kind: str) -> list[str]:
        """Each message of people or agents in the task's channel; one that came twice is there twice."""
        events = self.task(task)["events"]
        return [
            e["text"].strip()
            for e in events
            if e["type"] == "channel.message" and e["author"]["kind"] == kind
        ]

    def activity(self, task: str) -> list[str]:
        return [e["state"] for e in self.task(task)["events"] if e["type"] == "channel.activity"]

    def containers(self) -> list[str]:
        return self.machine.shell("docker ps --quiet --no-trunc").split()

    def agents(self) -> list[str]:
        """Process ids of running agents, and since when each runs."""
        return self.machine.shell(
            "pgrep -f '^python3 /opt/uai/mock.py' | xargs -r ps -o pid=,lstart= -p"
        ).splitlines()


class DocumentsTests(TestCase):
    """What the documents show for Debian, typed by root beside the package."""

    timeout = 900

    async def test_every_command_on_debian(self) -> None:
        packages = await deferToThread(built)
        inside = await machine(self, binds=[f"{packages.first.parent}:{EXCHANGE}:ro"])
        await deferToThread(inside.shell, QUICKLY)
        wrong = await deferToThread(typed, inside, packages.first.name)
        self.assertEqual(wrong, [], "\n".join(wrong))


class BareTests(TestCase):
    """A machine without a service manager, an image of a container for instance."""

    timeout = 900

    async def test_nothing_is_started_and_nothing_fails(self) -> None:
        packages = await deferToThread(built)
        self.machine = await machine(self, binds=[f"{packages.first}:/exchange.deb:ro"])
        await deferToThread(self.live)

    def live(self) -> None:
        machine = self.machine
        # systemd(1) is how dpkg's programs tell: this folder is there while it runs.
        machine.shell("systemctl stop docker docker.socket; mount -t tmpfs none /run/systemd")
        machine.shell(QUICKLY)
        machine.shell("delgroup --quiet docker && apt-get install -y --no-install-recommends /exchange.deb")
        self.assertEqual(machine.shell("pgrep -u uaihost || true").strip(), "")
        self.assertIn("uaihost", machine.run("uaihost", "--version"))
        self.assertIn("no host is running", machine.run("uaihost", "status", status=3))
        self.assertNotIn("docker", machine.run("id", "-nG", "uaihost").split())
        # As dpkg does when an engine is unpacked, after which its package makes the group.
        machine.shell("addgroup --quiet --system docker && dpkg-trigger --by-package=dpkg /usr/sbin/dockerd")
        machine.shell("dpkg --configure --pending")
        self.assertIn("docker", machine.run("id", "-nG", "uaihost").split())
        machine.shell("apt-get purge -y uaihost")
        self.assertEqual(
            machine.shell("ls -d /var/lib/uaihost /etc/uaihost /opt/uaihost 2>/dev/null || true"), ""
        )


def typed(inside: SystemdMachine, package: str) -> list[str]:
    """Type them all, each page on a machine that has the package no more; what was wrong."""
    wrong = []
    for _, found in by_page(commands_of("debian")):
        inside.shell(f"mkdir /root/reader && ln -s {EXCHANGE}/{package} /root/reader/")
        for command in found:
            script = f"cd /root/reader && export DEBIAN_FRONTEND=noninteractive\n{command.text}"
            try:
                printed = inside.shell(script, status=command.status)
            except Failed as failure:
                wrong.append(f"{command}\n{failure}")
                continue
            if command.shown and not agrees(command.shown, printed):
                wrong.append(f"{command}\n{printed}")
        inside.shell("rm -r /root/reader; dpkg --purge uaihost")
    return wrong


async def task_image(case: TestCase, target: Path, uid: int, gid: int) -> None:
    """Save the small task image of a user, and what it is made from, as a tar of `docker save`."""
    address = await docker_host()
    threads = Threads(reactor, "test-package", 1)  # type: ignore[arg-type]
    case.addCleanup(threads.stop)
    base = BaseImages(reactor, threads, address, ENGINE_FOLDER)
    images = Images(
        reactor,
        threads,
        address,
        base,
        image=CHECKOUT / "images" / "small",
        shim=CHECKOUT / "uaihost" / "shim",
        uid=uid,
        gid=gid,
        # The machine has none of its own either.
        certificates=Path("/nonexistent"),
    )
    made = await images.ensure(lambda _: None)
    found = await base.find()
    assert found is not None
    case.assertEqual(found.name, LOCAL)

    words = ["docker", "--host", address, "save", "--output", str(target), LOCAL, made]
    await deferToThread(subprocess.run, words, check=True)


def contents(package: Path) -> dict[str, tuple[str, bytes]]:
    """Each entry of a package: its mode, owner and time, and its bytes. The version in names is VERSION."""
    found: dict[str, tuple[str, bytes]] = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "--raw-extract", str(package), folder], check=True)
        listed = subprocess.run(
            ["dpkg-deb", "--contents", str(package)], check=True, capture_output=True, text=True
        )
        for line in listed.stdout.splitlines():
            mode, owner, _, day, time, name = line.split(None, 5)
            path = Path(folder, name.partition(" -> ")[0])
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            entry = re.sub(
                r"uaihost-\d[\d.]*\.dist-info", "uaihost-VERSION.dist-info", name.removeprefix("./")
            )
            found[f"data/{entry}"] = (f"{mode} {owner} {day} {time}", data)
        for path in sorted(Path(folder, "DEBIAN").iterdir()):
            found[f"control/{path.name}"] = ("", path.read_bytes())
    return found


def strangers(listing: str) -> set[str]:
    """The lines of a listing that are not dpkg's own books."""
    return {line for line in listing.splitlines() if not OWN_BOOKS.match(line)}

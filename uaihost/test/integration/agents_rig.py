"""The product with real agents: a bridge, a host, tasks of the standard image, and a scripted model.

One world serves all tests of a class: its processes are what people run, its tasks are each test's own.
"""

from __future__ import annotations

import atexit
import json
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from uaihost.cli import demo
from uaihost.cli.client import BridgeClient, wait_for
from uaihost.errors import HostError
from uaihost.test.integration.engine import docker_host
from uaihost.test.integration.processes import Daemons
from uaihost.test.model_api.server import Asked, ModelApi

KEY = "sk-ant-api03-scripted"
# As long as one that `claude setup-token` prints.
TOKEN = "sk-ant-oat01-" + "s" * 95
# Seconds for what an agent does; a start of a CLI on a busy machine is most of it.
PATIENCE = 40.0
DELTA = "channel.delta"


class World:
    """A bridge, a host with both accounts signed in, and the model's API on an address of this machine."""

    def __init__(self, engine: str, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="uai-", dir="/tmp"))
        self.engine = engine
        self.api = ModelApi(host=address())
        self.daemons = Daemons(self.folder, engine, [self.folder / "repositories"], image="standard")
        self.daemons.env |= {
            "UAI_CLAUDE_BASE_URL": self.api.url,
            "UAI_CODEX_BASE_URL": f"{self.api.url}/v1",
            **settings,
        }
        self.tasks: list[Channel] = []
        # Tasks that the tests before have left as they found them, by what they are for.
        self.spare: dict[str, Channel] = {}
        self.bridge: BridgeClient

    def start(self) -> None:
        (self.folder / "repositories").mkdir()
        demo.make_sample(self.folder / "repositories" / "shop")
        self.api.start()
        self.bridge = self.daemons.start_bridge()
        self.back()
        self.sign_in("claude", KEY)
        self.sign_in("codex", KEY)

    def back(self) -> None:
        """Start the host and wait until the bridge sees it."""
        self.daemons.start_host()
        self.daemons.wait_connected(self.bridge)

    def sign_in(self, provider: str, secret: str, form: str = "--api-key-file") -> None:
        path = self.folder / "secret"
        path.write_text(secret + "\n")
        done = self.daemons.command("login", provider, form, str(path))
        path.unlink()
        if done.returncode != 0:
            raise AssertionError(f"uaihost login {provider}: {done.stdout}{done.stderr}")
        wait_for(f"{provider} on offer", lambda: provider in self.kinds() or None, PATIENCE)

    def kinds(self) -> list[str]:
        """What the host offers."""
        (host,) = self.bridge.call("GET", "/api/state")["hosts"]
        return [kind["kind"] for kind in host["capabilities"].get("agentKinds", ())]

    def task(self, *agents: dict[str, Any], repository: str = "shop", **more: Any) -> Channel:
        """A task that runs. agents: as in `POST /api/tasks`."""
        new = {"repoUrl": str(self.folder / "repositories" / repository), "agents": list(agents), **more}
        task_id = self.bridge.call("POST", "/api/tasks", new)["id"]
        channel = Channel(self, task_id)
        self.tasks.append(channel)
        wait_for("the task", lambda: demo.running(self.bridge, task_id, lambda text: None), 600)
        return channel

    def stop(self) -> None:
        # First: a host that lives has a container that is gone made again.
        self.daemons.stop()
        for channel in self.tasks:
            for what, words in (("container", ["rm", "-f"]), ("network", ["rm"])):
                found = channel.labelled(what)
                if found:
                    channel.docker(what, *words, *found)
        self.api.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Channel:
    """One task's chat, as its person sees it, and a look into its container."""

    def __init__(self, world: World, task_id: str) -> None:
        self.world = world
        self.task_id = task_id
        self._seen: list[dict[str, Any]] = []

    # ---- what a person does

    def say(self, text: str) -> int:
        """Say it; the number of events that came before, from where an answer can be looked for."""
        before = len(self.events())
        self.world.bridge.call("POST", f"/api/tasks/{self.task_id}/messages", {"text": text})
        return before

    def interrupt(self, agent: str) -> None:
        self.world.bridge.call("POST", f"/api/tasks/{self.task_id}/interrupt", {"agentId": agent})

    def decide(self, asked: dict[str, Any], kind: str = "accept", **more: Any) -> None:
        """The decision on a `permission.requested`. more: `answers` or `scope` of it."""
        args = [self.task_id, asked["agentId"], asked["requestId"], {"kind": kind, **more}]
        body = {"command": "channelResolvePermission", "args": args, "timeout": 30}
        self.world.bridge.call("POST", "/api/command", body)

    # ---- what a person sees

    def events(self) -> list[dict[str, Any]]:
        """All that the bridge has been told of the task, in order."""
        while True:
            after = self._seen[-1]["id"] if self._seen else 0
            path = f"/api/tasks/{self.task_id}/events?after={after}"
            page = self.world.bridge.call("GET", path)
            self._seen += page["events"]
            if not page["more"]:
                return self._seen

    def of(self, kind: str, agent: str | None = None, after: int = 0) -> list[dict[str, Any]]:
        return [
            event
            for event in self.events()[after:]
            if event["type"] == kind and agent in (None, event.get("agentId"))
        ]

    def texts(self, author: str, after: int = 0) -> list[str]:
        """What an agent, `system` or a person has said."""
        said = [event for event in self.events()[after:] if event["type"] == "channel.message"]
        return [e["text"] for e in said if author in (e["author"]["id"], e["author"]["kind"])]

    def state(self, agent: str) -> str | None:
        told = self.of("channel.activity", agent)
        return str(told[-1]["state"]) if told else None

    def states(self, agent: str, after: int = 0) -> list[str]:
        return [str(event["state"]) for event in self.of("channel.activity", agent, after)]

    def until(self, what: str, look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Wait for something true; what the channel said last is told when it does not come."""
        try:
            return wait_for(what, lambda: look() or None, seconds)
        except HostError as error:
            last = [{k: v for k, v in e.items() if k not in ("taskId", "at")} for e in self.events()[-14:]]
            asked = [f"{each.path} {each.text[-80:]!r}" for each in self.world.api.asked[-6:]]
            log = self.world.daemons.log("uaihost")[-1500:]
            raise AssertionError(f"{error.message}\n{json.dumps(last, indent=1)}\n{asked}\n{log}") from None

    def heard(self, author: str, text: str, after: int = 0, seconds: float = PATIENCE) -> str:
        """Wait for a message of `author` that holds `text`."""
        return str(
            self.until(
                f"{text!r} by {author}",
                lambda: next((said for said in self.texts(author, after) if text in said), None),
                seconds,
            )
        )

    def asked(self, agent: str, after: int = 0) -> dict[str, Any]:
        """Wait for a request for permission that is not decided."""

        def look() -> dict[str, Any] | None:
            done = {event["requestId"] for event in self.of("permission.resolved", agent)}
            return next(
                (
                    event
                    for event in self.of("permission.requested", agent, after)
                    if event["requestId"] not in done
                ),
                None,
            )

        return dict(self.until(f"a question of {agent}", look))

    @contextmanager
    def stream(self) -> Iterator[Callable[[], list[str]]]:
        """What agents say while they say it: the pieces so far."""
        bridge, pieces = self.world.bridge, []
        connection = HTTPConnection("127.0.0.1", bridge.port, timeout=PATIENCE)
        headers = {
            "Host": f"localhost:{bridge.port}",
            "Authorization": f"Bearer {bridge.key}",
            "Accept": "text/event-stream",
        }
        connection.request(
            "GET", f"/api/tasks/{self.task_id}/events?after={len(self.events())}", headers=headers
        )
        answer = connection.getresponse()

        def listen() -> None:
            with suppress(OSError, ValueError, HTTPException, AttributeError):
                for line in answer:
                    if line.startswith(b"data:") and (found := json.loads(line[5:]))["type"] == DELTA:
                        pieces.append(str(found["text"]))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield lambda: list(pieces)
        finally:
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
            connection.close()

    def resting(self, agent: str, seconds: float = PATIENCE) -> None:
        """Wait until it is idle."""
        self.until(f"{agent} idle", lambda: self.state(agent) == "idle", seconds)

    def answer(self, agent: str, text: str, wanted: str) -> str:
        """Say `text` to the agent; wait for its answer, which holds `wanted`, and for the end of its turn."""
        before = self.say(f"@{agent} {text}")
        said = self.heard(agent, wanted, before)
        self.resting(agent)
        return said

    # ---- what happens inside

    def docker(self, *words: str) -> str:
        command = ["docker", "-H", self.world.engine, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise AssertionError(f"{words}: {done.stderr}")
        return done.stdout

    def labelled(self, what: str) -> list[str]:
        every = ["-a"] if what == "container" else []
        return self.docker(what, "ls", "-q", *every, "--filter", f"label=uaihost.task={self.task_id}").split()

    @property
    def container(self) -> str:
        (found,) = self.labelled("container")
        return found

    def inside(self, *argv: str) -> str:
        """The output of a command in the container."""
        return self.docker("exec", self.container, *argv)

    def processes(self, word: str) -> list[int]:
        """Processes of the container whose command line holds `word`: ids inside it."""
        lines = self.inside("ps", "-eo", "pid,args").splitlines()[1:]
        split = [line.split(None, 1) for line in lines]
        return [int(pid) for pid, args in split if word in args and "ps -eo" not in args]

    def program(self, agent: str, name: str) -> int:
        """The process of an agent's CLI, which its keeper has started."""
        keeper = self.keeper(agent)
        lines = self.inside("ps", "-o", "pid=,comm=", "--ppid", str(keeper)).splitlines()
        found = [int(line.split()[0]) for line in lines if name in line.split()[1]]
        return found[0]

    def keeper(self, agent: str) -> int:
        (found,) = self.processes(f"agentd.py --dir /run/uai/agents/{agent} ")
        return found

    def kill(self, pid: int) -> None:
        self.inside("kill", "-9", str(pid))

    def read(self, name: str, project: str = "shop") -> str:
        """A file of the work copy; empty while there is none."""
        path = self.world.daemons.host_data / "tasks" / self.task_id / "work" / project / name
        return path.read_text() if path.exists() else ""

    def transcript(self) -> list[dict[str, Any]]:
        path = self.world.daemons.host_data / "transcripts" / f"{self.task_id}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def requests(self, word: str, path: str = "") -> list[Asked]:
        """What the model was asked with `word` in the last text."""
        return [each for each in self.world.api.asked if word in each.text and path in each.path]


_shared: dict[type, World] = {}


class AgentsCase(TestCase):
    """Tests block the reactor, which has nothing to do here. settings: of the host, beside the usual ones."""

    timeout = 900
    settings: dict[str, str] = {}

    async def setUp(self) -> None:  # type: ignore[override]
        self.world = await self.shared()

    async def shared(self) -> World:
        found = _shared.get(type(self))
        if found is None:
            leave()
            found = World(await docker_host(), **self.settings)
            _shared[type(self)] = found
            found.start()
        return found


def leave() -> None:
    """End the world of the tests before."""
    while _shared:
        _shared.popitem()[1].stop()


atexit.register(leave)


def agent(kind: str, id: str = "", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "id": id or kind, "label": (id or kind).title(), **more}


def once(counts: Sequence[str]) -> bool:
    """Whether there is no line twice."""
    return len(counts) == len(set(counts))


def address() -> str:
    """An address of this machine that containers can be let reach: not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # A datagram socket connects without a packet.
        probe.connect(("198.51.100.1", 9))
        return str(probe.getsockname()[0])


def gone(pid: Callable[[], list[int]], seconds: float = 15) -> bool:
    """Whether there is soon no such process."""
    end = time.monotonic() + seconds
    while pid():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def restart_host(world: World) -> None:
    """SIGKILL and a new start."""
    world.daemons.kill("uaihost", signal.SIGKILL)
    world.back()

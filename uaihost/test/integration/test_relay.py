"""Servers on a container's own loopback, reached through the host's tunnels and the container's relay."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.containers.client import connect
from uaihost.containers.images import owner
from uaihost.containers.ports import PortWatch
from uaihost.interfaces import Address, Launch, Mount
from uaihost.test.fakes_tunnels import FakeLink
from uaihost.test.integration import relay_servers
from uaihost.test.integration.engine import docker_host, real_engine, task_image
from uaihost.test.support import short_folder
from uaihost.tunnels.table import TunnelTable
from uaihost.tunnels.targets import PortTable
from uaihost.wire.frames import RequestLine, TunnelAck, TunnelClose, TunnelOpen, TunnelRequestEnd

reactor: Any = global_reactor

BULK = 100_000_000
CROWD = 200


class RelayCase(TestCase):
    timeout = 120

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = short_folder(self)
        self.run_folder = self.shared("run")
        shutil.copy(relay_servers.__file__, self.shared("work") / "servers.py")
        self.targets = PortTable()
        self.table = TunnelTable(reactor, self.targets)
        self.link = FakeLink()
        self.waiter: tuple[Callable[[], bool], Deferred[None]] | None = None
        self.link.left = self._look
        self.table.link_up(self.link, self.link, self.fail)
        self.addCleanup(self._settle)
        self.addCleanup(self.table.stop)
        self.opened = 0

    async def _settle(self) -> None:
        # An aborted connection ends in the reactor's next turns.
        await deferLater(reactor, 0.02)

    def shared(self, name: str) -> Path:
        """A folder that the container writes."""
        path = self.folder / name
        path.mkdir()
        os.chown(path, *owner())
        return path

    def _look(self) -> None:
        if self.waiter is not None and self.waiter[0]():
            _, done = self.waiter
            self.waiter = None
            reactor.callLater(0, done.callback, None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; looked at whenever something leaves."""
        if not condition():
            done: Deferred[None] = Deferred()
            self.waiter = (condition, done)
            await done

    # ---- tunnels

    def point(self, port: int) -> None:
        """The task's preview is the container's `port`, which is not published."""
        relay = str(self.run_folder / "relay.sock")
        self.targets.set_task("t", None, {"web": Address("127.0.0.1", 0, relay, port)})

    def open(self, method: str, url: str, *headers: tuple[str, str]) -> str:
        self.opened += 1
        tunnel_id = f"t{self.opened}"
        line = RequestLine(method, url, [("Host", "t-web.example"), *headers])
        self.table.open(TunnelOpen(tunnel_id, "preview", "t", line, False, "web"))
        return tunnel_id

    def said(self, tunnel_id: str, kind: Any) -> Any:
        for item in self.link.frames():
            if isinstance(item, kind) and item.tunnelId == tunnel_id:
                return item
        return None

    async def answer(self, tunnel_id: str) -> tuple[int, bytes]:
        """The status and the body, or the message of a refusal."""
        await self.until(lambda: self.said(tunnel_id, TunnelClose) or not self._open(tunnel_id))
        ack = self.said(tunnel_id, TunnelAck)
        return ack.status, self.link.data(tunnel_id) if ack.ok else ack.message.encode()

    def _open(self, tunnel_id: str) -> bool:
        ack = self.said(tunnel_id, TunnelAck)
        return ack is None or bool(ack.ok)

    async def get(self, url: str) -> tuple[int, bytes]:
        tunnel_id = self.open("GET", url)
        self.table.request_end(TunnelRequestEnd(tunnel_id))
        return await self.answer(tunnel_id)

    async def reached(self, port: int) -> None:
        """The server at `port` answers, after it had time to start."""
        self.point(port)
        for _ in range(100):
            status, body = await self.get("/hello")
            if status == 200:
                break
            self.assertIn(b"start the server in the task", body)
            await deferLater(reactor, 0.1)
        self.assertEqual(body, b"hello from %d" % port)


class ContainerTests(RelayCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.engine = await real_engine(self)
        mounts = (
            Mount(str(self.folder / "work"), "/workspace"),
            Mount(str(self.run_folder), "/run/uai"),
        )
        launch = Launch("t", await task_image(self), *owner(), mounts, (), network="none")
        await self.engine.launch(launch)
        for _ in range(100):
            if (self.run_folder / "relay.sock").exists():
                break
            await deferLater(reactor, 0.05)

    async def serve(self, port: int, *more: str) -> None:
        words = ["python3", "/workspace/servers.py", "127.0.0.1", str(port), *more]
        await self.engine.start_process("t", words)

    async def end(self, what: str) -> None:
        """Kill the processes whose command line has `what`."""
        await self.engine.execute("t", ["sh", "-c", f"kill -9 $(pgrep -f '{what}')"])

    async def test_a_port_that_opens_is_heard_of_and_reached_and_so_is_its_end(self) -> None:
        told: list[list[int]] = []
        watch = PortWatch(reactor, lambda _: self.run_folder, lambda _, ports: told.append(ports))
        self.addCleanup(watch.stop_all)
        watch.start("t")

        async def hears(expected: list[int]) -> None:
            for _ in range(100):
                if told and told[-1] == expected:
                    return
                await deferLater(reactor, 0.1)
            self.fail(f"{expected} were not told: {told}")

        await hears([])
        await self.serve(5173)
        await hears([5173])
        await self.reached(5173)
        await self.serve(3000)
        await hears([3000, 5173])
        await self.reached(3000)
        await self.end("127.0.0.1 5173")
        await hears([3000])
        self.point(5173)
        status, message = await self.get("/hello")
        self.assertEqual(status, 502)
        self.assertIn(b"cannot connect to port 5173 of the task (Connection refused)", message)
        self.assertEqual(told, [[], [5173], [3000, 5173], [3000]])

    async def test_a_relay_that_is_killed_comes_back(self) -> None:
        await self.serve(5173)
        await self.reached(5173)
        told: list[list[int]] = []
        watch = PortWatch(reactor, lambda _: self.run_folder, lambda _, ports: told.append(ports))
        self.addCleanup(watch.stop_all)
        for _ in range(3):
            await self.end("relay.py")
            while True:
                status, body = await self.get("/hello")
                if status == 200:
                    break
                self.assertIn(b"its relay does not answer", body)
                await deferLater(reactor, 0.05)
        watch.start("t")
        while not told:
            await deferLater(reactor, 0.05)
        self.assertEqual(told, [[5173]])

    async def test_100_megabytes_each_way_with_a_slow_reader(self) -> None:
        await self.serve(5173)
        await self.reached(5173)
        body = await deferToThread(relay_servers.pattern, BULK)
        self.link.block()
        down = self.open("GET", f"/bulk/{BULK}")
        self.table.request_end(TunnelRequestEnd(down))
        for _ in range(20):
            await deferLater(reactor, 0.02)
            self.link.unblock()
            self.link.block()
        self.link.unblock()
        status, got = await self.answer(down)
        self.assertEqual((status, len(got)), (200, BULK))
        self.assertTrue(got == body)
        up = self.open("POST", "/digest", ("Content-Length", str(BULK)))
        for at in range(0, BULK, 65536):
            # As the link does: what is held back is not read.
            while self.link.holds:
                await deferLater(reactor, 0.002)
            self.table.deliver(up, body[at : at + 65536])
        self.table.request_end(TunnelRequestEnd(up))
        status, answer = await self.answer(up)
        self.assertEqual(answer.decode(), f"{BULK} {hashlib.sha256(body).hexdigest()}")
        self.assertTrue([each for each in self.link.history if each[0] == "hold"], "the reader was not slow")

    async def test_200_connections_at_a_time(self) -> None:
        await self.serve(5173, str(CROWD))
        await self.reached(5173)
        opened = [self.open("GET", "/crowd") for _ in range(CROWD)]
        for tunnel_id in opened:
            self.table.request_end(TunnelRequestEnd(tunnel_id))
        for tunnel_id in opened:
            self.assertEqual(await self.answer(tunnel_id), (200, b"all"))

    async def test_a_link_in_place_of_the_relay_leads_nowhere(self) -> None:
        # Nobody puts the relay's own socket back.
        await self.end("init.py")
        engine = (await docker_host()).removeprefix("unix://")
        (self.run_folder / "relay.sock").unlink(missing_ok=True)
        (self.run_folder / "relay.sock").symlink_to(engine)
        self.point(5173)
        status, message = await self.get("/_ping")
        self.assertEqual(status, 502)
        self.assertIn(b"it is not a socket: something in the container replaced it", message)


class VersionSixTests(RelayCase):
    async def test_a_server_on_version_sixs_loopback(self) -> None:
        image = await task_image(self)
        client = await deferToThread(connect, await docker_host())
        self.addCleanup(client.close)
        # As engines that give containers IPv6; without it ::1 is no address there.
        options = client.create_host_config(
            network_mode="none",
            binds=[f"{self.folder}/work:/workspace", f"{self.run_folder}:/run/uai"],
            sysctls={f"net.ipv6.conf.{one}.disable_ipv6": "0" for one in ("all", "lo")},
            cap_drop=["ALL"],
        )

        def start() -> str:
            made = client.create_container(
                image,
                user="{}:{}".format(*owner()),
                host_config=options,
                entrypoint=["sh", "-c"],
                command=["python3 /opt/uai/relay.py & exec python3 /workspace/servers.py ::1 5173"],
            )
            self.addCleanup(deferToThread, client.remove_container, made["Id"], force=True)
            client.start(made["Id"])
            return str(made["Id"])

        await deferToThread(start)
        while not (self.run_folder / "relay.sock").exists():
            await deferLater(reactor, 0.05)
        await self.reached(5173)

"""What the tests with the independent bridge stand on: the bridge, the host's service, servers to reach."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from uaihost.test.integration.peer import Peer
from uaihost.test.integration.service import Service
from uaihost.test.support import short_folder

TASK = "exposed"

reactor: Any = default_reactor


class PeerTestCase(TestCase):
    """A test with a bridge in `peer` and a host in `service`, which `host` starts.

    After it the host is gone, nothing listens, and the bridge saw nothing that the protocol forbids.
    """

    timeout = 180

    # trial waits for coroutines here too; its types do not say so.
    async def setUp(self) -> None:  # type: ignore[override]
        self.data = short_folder(self)
        self.peer = await Peer.start(reactor)
        self.service = Service(reactor, self.peer.url, self.data)

    async def tearDown(self) -> None:  # type: ignore[override]
        await self.service.stop()
        await self.peer.stop()
        self.assertEqual(self.peer.violations(), [])

    def listen(self, factory: Any) -> int:
        """Serve on a free port of 127.0.0.1 until the test ends."""
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def host(self, **ports: int) -> None:
        """Start the host with these previews exposed as the task TASK, and wait until it is connected."""
        if ports:
            await self.service.expose(TASK, list(ports.items()))
        self.service.start()
        await self.peer.ready()

    async def sleep(self, seconds: float) -> None:
        """Let the other processes run: they keep their own time."""
        await deferLater(reactor, seconds)

    async def eventually(self, test: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
        """Wait until `test` holds for something outside this process that reports nothing by itself."""
        end = reactor.seconds() + timeout
        while not test():
            if reactor.seconds() > end:
                self.fail(f"{what}, not within {timeout} s; the service printed: {self.service.output!r}")
            await self.sleep(0.05)

    async def within(self, seconds: float, waiting: Deferred[Any]) -> Any:
        """The result of `waiting`, or a TimeoutError."""
        return await waiting.addTimeout(seconds, reactor)

    async def fails(self, error: type[Exception], call: Awaitable[Any]) -> None:
        """The call ends with this error."""
        try:
            await call
        except error:
            return
        self.fail(f"no {error.__name__}")

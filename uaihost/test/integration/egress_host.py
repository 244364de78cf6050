"""A process with nothing in it but a task's way out, so that its memory is that one's alone.

    python -m uaihost.test.integration.egress_host FOLDER DESTINATION ...

The destinations are all that is permitted. The socket is the task `t1`'s in the data folder FOLDER; a line on
stdout says when it is there. It ends with its stdin.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from uaihost.egress.egress import Egress
from uaihost.egress.policy import Policy
from uaihost.paths import Folders

reactor: Any = global_reactor


class Parent(Protocol):
    """Whoever started us."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        reactor.callLater(0, reactor.stop)


async def main(folder: str, allow: list[str]) -> None:
    egress = Egress(reactor, Folders(Path(folder)), Policy("deny", allow), lambda *_: None)
    await egress.open("t1")
    print("ready", flush=True)
    StandardIO(Parent(), reactor=reactor)


if __name__ == "__main__":
    # As many as the most of a task need, wherever this runs.
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main(sys.argv[1], sys.argv[2:])))
    reactor.run()

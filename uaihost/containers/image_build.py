"""One build of an image: the request to the engine, and what its output means.

Over the reactor, so that a build holds no thread and ends when it is cancelled: the engine stops a build
whose client has gone (Docker Engine API 1.41, `POST /build`: one JSON object a line, `stream` or `error`).
It must not know what the image is for.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import h11
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from uaihost.containers.waiting import Waiting
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing, Say
from uaihost.wire.reasons import Reason

# Seconds without a line from a build; apt-get is silent while it downloads.
SILENCE = 600
# Lines of a failed step that are told.
LAST_LINES = 12
# Bytes of one line of the answer: a failed step's error quotes its whole command.
LINE_LIMIT = 1 << 20
# Characters of a step's text: one line for people.
STEP_TEXT = 100

_STEP = re.compile(r"Step (\d+)/(\d+) : (.*)")
_LAYER = re.compile(r" ---> ([0-9a-f]{12})")
# The builder's own bookkeeping, and its red for standard error.
_NOISE = re.compile(r" ---> |Removing intermediate container ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class BuildLog:
    """A build's output, entry by entry. Pure.

    layers: the short ids of all images that the build made or took from its cache; image: the finished one's.
    """

    def __init__(self) -> None:
        self.layers: set[str] = set()
        self.image: str | None = None
        self._step: deque[str] = deque(maxlen=LAST_LINES)

    def read(self, entry: Mapping[str, Any]) -> Iterator[str | Doing]:
        """What to say about `entry`.

        Raises:
            HostError: `unavailable`, with the last lines of the step that failed.
        """
        for line in _COLOUR.sub("", str(entry.get("stream") or "")).splitlines():
            layer = _LAYER.match(line)
            if layer:
                self.layers.add(layer[1])
            if not line.strip() or _NOISE.match(line):
                continue
            step = _STEP.match(line)
            if step:
                self._step.clear()
                number, count = int(step[1]), int(step[2])
                text = " ".join(step[3].split())[:STEP_TEXT]
                yield Doing(Reason.IMAGE_BUILDING, text, (number - 1) * 100 // count)
            self._step.append(line.rstrip())
            yield line.rstrip()
        if entry.get("aux"):
            self.image = str(entry["aux"].get("ID"))
        if entry.get("error"):
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the task image could not be built: {str(entry['error']).strip()}. Its last lines:\n"
                + "\n".join(self._step),
            )


async def build(
    reactor: Any,
    docker_host: str,
    context: bytes,
    *,
    tag: str,
    args: Mapping[str, str],
    labels: Mapping[str, str],
    cached: bool,
    say: Say,
) -> set[str]:
    """Build `context` (a tar) as `tag`; `BuildLog.layers` of it. Cancelled, it stops in the engine as well.

    cached: layers of earlier builds may be used.

    Raises:
        HostError: `unavailable`; the build failed, or the engine went away.
    """
    query = urlencode(
        {
            "t": tag,
            "buildargs": json.dumps(dict(args)),
            "labels": json.dumps(dict(labels)),
            "nocache": "0" if cached else "1",
            "rm": "1",
            "forcerm": "1",
        }
    )
    request = h11.Request(
        method="POST",
        target=f"/build?{query}",
        headers=[
            ("Host", "docker"),
            ("Content-Type", "application/x-tar"),
            ("Content-Length", str(len(context))),
        ],
    )
    protocol = _Answer(reactor, request, context, say)
    try:
        await Waiting(reactor, docker_host).endpoint().connect(Factory.forProtocol(lambda: protocol))
    except (ConnectError, OSError) as error:
        raise HostError(
            ErrorCode.UNAVAILABLE, "the container engine does not answer; start Docker or check DOCKER_HOST"
        ) from error
    await protocol.done
    return protocol.log.layers


class _Answer(Protocol):
    """The request, and its answer as it comes. done: fires with None when the image is there.

    HTTP/1.1 without `Connection: close`: else the engine does not notice that its client has gone, and the
    build goes on.
    """

    def __init__(self, reactor: Any, request: h11.Request, context: bytes, say: Say) -> None:
        self.log = BuildLog()
        self.done: Deferred[None] = Deferred(lambda _: self._close())
        self._reactor = reactor
        self._request = request
        self._context = context
        self._say = say
        self._http = h11.Connection(h11.CLIENT)
        self._status = 0
        self._line = bytearray()
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        for event in (self._request, h11.Data(data=self._context), h11.EndOfMessage()):
            self.transport.write(self._http.send(event) or b"")
        self._context = b""
        self._timer = self._reactor.callLater(SILENCE, self._silent)

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        assert self._timer is not None
        self._timer.reset(SILENCE)
        try:
            self._http.receive_data(data)
            while not self.done.called:
                event = self._http.next_event()
                if isinstance(event, h11.Response):
                    self._status = event.status_code
                elif isinstance(event, h11.Data):
                    self._text(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._close()
                    self._ended()
                elif not isinstance(event, h11.InformationalResponse):
                    break
        except h11.RemoteProtocolError as error:
            self._fail(HostError(ErrorCode.UNAVAILABLE, f"the container engine does not speak HTTP: {error}"))

    def connectionLost(self, reason: Failure = Failure(ConnectError())) -> None:  # noqa: B008
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if not self.done.called:
            self._ended()

    def _ended(self) -> None:
        if self.log.image is not None:
            self.done.callback(None)
        else:
            said = "the container engine ended the connection while it built an image"
            self.done.errback(HostError(ErrorCode.UNAVAILABLE, said))

    def _text(self, data: bytes) -> None:
        self._line += data
        *lines, rest = self._line.split(b"\n")
        self._line = rest
        for line in lines:
            if line.strip() and not self.done.called:
                self._entry(bytes(line))
        if len(rest) > LINE_LIMIT:
            self._fail(HostError(ErrorCode.UNAVAILABLE, "the container engine sent a line beyond all bounds"))

    def _entry(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if self._status != 200:
                said = str(entry.get("message", "no reason given"))
                raise HostError(ErrorCode.UNAVAILABLE, f"the container engine refused to build: {said}")
            for word in self.log.read(entry):
                self._say(word)
        except (ValueError, AttributeError):
            shown = line[:200].decode("utf-8", "replace")
            self._fail(HostError(ErrorCode.UNAVAILABLE, f"the container engine sent no JSON: {shown}"))
        except HostError as error:
            self._fail(error)

    def _silent(self) -> None:
        said = f"the build of an image said nothing for {SILENCE} s; try again"
        self._fail(HostError(ErrorCode.TIMEOUT, said))

    def _fail(self, error: HostError) -> None:
        self._close()
        if not self.done.called:
            self.done.errback(error)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

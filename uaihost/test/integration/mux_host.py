"""The scripted host by mux.1: the same upstreams, spoken for in frames and by credit; no code of the link.

It keeps to the protocol, and what a bridge does against it is kept in `violations`.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from uaihost.test.integration.bridge_host import ScriptedHost
from uaihost.wire import mux

# Bytes of one DATA frame.
PIECE = 64 << 10


class Lane:
    """One tunnel. opened, ended: what came; out: what waits for credit; last: what follows it."""

    def __init__(self) -> None:
        self.ended = False
        self.over = False
        self.window = mux.TUNNEL_WINDOW
        self.permitted = mux.TUNNEL_WINDOW
        self.out = bytearray()
        self.last = b""
        # Whether credit is given for what comes.
        self.reading = True


class MuxHost(ScriptedHost):
    """One host.

    lanes: every tunnel opened, by number. permitted: the link's credit. sent, received: bytes of DATA.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.violations: list[str] = []
        self.sent = 0
        self.received = 0
        self._begin()

    def _begin(self) -> None:
        self.lanes: dict[int, Lane] = {}
        self.permitted = mux.LINK_WINDOW
        self._window = mux.LINK_WINDOW
        self._due = 0

    async def connect(self) -> None:
        self._begin()
        await super().connect()
        hello = self.heard(lambda frame: frame["kind"] == "bridge.hello")
        self.send(
            kind="host.capabilities",
            capabilities={
                "agentKinds": [{"kind": "mock", "models": ["careful", "free"]}],
                "runtimes": [],
                "features": [mux.FEATURE, "made.up.1"],
            },
        )
        assert (await hello)["features"] == [mux.FEATURE]

    # ---- what upstreams say

    def send(self, **frame: Any) -> None:
        number = frame.get("tunnelId")
        if not isinstance(number, int):
            super().send(**frame)
        elif frame["kind"] == "tunnel.data":
            self._due = number
        elif frame["kind"] == "tunnel.ack":
            fields = {key: value for key, value in frame.items() if key not in ("kind", "tunnelId")}
            self.frames_out(mux.frame(mux.HEAD, number, json.dumps(fields).encode()))
        else:
            self.end(number, frame.get("reason", "upstream ended"))

    def send_bytes(self, data: bytes) -> None:
        self.lanes[self._due].out += data
        self.pump(self._due)

    def end(self, number: int, reason: str = "upstream ended", trailers: Any = ()) -> None:
        """The upstream has no more to say; one that fails, or needs no more of the request, resets."""
        lane = self.lanes[number]
        if lane.over:
            return
        if not reason.startswith("upstream "):
            self.frames_out(mux.reset_frame(number, mux.FAILED, reason))
            lane.over = True
            return
        lane.last = mux.end_frame(number, trailers)
        if not lane.ended and reason == "upstream ended":
            lane.last += mux.reset_frame(number, mux.NOT_NEEDED, "")
        self.pump(number)

    def frames_out(self, *frames: bytes) -> None:
        """One binary message, as it is."""
        if self.is_open():
            self.socket.sendMessage(b"".join(frames), True)

    def pump(self, number: int) -> None:
        """Send what there is credit for."""
        lane = self.lanes[number]
        while lane.out and not lane.over:
            size = min(len(lane.out), lane.permitted, self.permitted, PIECE)
            if not size:
                return
            lane.permitted -= size
            self.permitted -= size
            self.sent += size
            self.frames_out(mux.frame(mux.DATA, number, bytes(lane.out[:size])))
            del lane.out[:size]
        if lane.last and not lane.over:
            self.frames_out(lane.last)
            lane.over = lane.ended or len(lane.last) > mux.HEADER_SIZE + lane.last[3]
            lane.last = b""

    # ---- what the bridge says

    def binary(self, payload: bytes) -> None:
        for kind, number, content in mux.frames(payload):
            if kind == mux.OPEN:
                self._open(number, content)
            elif kind == mux.DATA:
                self._data(number, content)
            elif number == 0:
                self.permitted += mux.read_credit(content)
                for other in list(self.lanes):
                    self.pump(other)
            else:
                self._control(kind, number, content)

    def give(self, number: int, size: int) -> None:
        """Credit for a tunnel."""
        self.lanes[number].window += size
        self.frames_out(mux.credit_frame(number, size))

    def _open(self, number: int, content: bytes) -> None:
        if number <= max(self.lanes, default=0):
            self.violations.append(f"OPEN of {number} after {max(self.lanes)}")
        self.lanes[number] = Lane()
        self.frame({"kind": "tunnel.open", "tunnelId": number, **json.loads(content)})

    def _data(self, number: int, content: bytes) -> None:
        self._window -= len(content)
        if self._window < 0:
            self.violations.append("more DATA than the link's window")
        self._window += len(content)
        self.received += len(content)
        lane = self.lanes[number]
        lane.window -= len(content)
        if lane.window < 0:
            self.violations.append(f"more DATA of {number} than its window")
        if lane.ended:
            self.violations.append(f"DATA of {number} after its END")
        credits = [mux.credit_frame(0, len(content))]
        if lane.reading and not lane.over:
            lane.window += len(content)
            credits.append(mux.credit_frame(number, len(content)))
        self.frames_out(*credits)
        upstream = self.upstreams.get(number)  # type: ignore[call-overload]
        if upstream is not None:
            upstream.data(content)

    def _control(self, kind: int, number: int, content: bytes) -> None:
        lane = self.lanes[number]
        if kind == mux.CREDIT:
            lane.permitted += mux.read_credit(content)
            self.pump(number)
        elif kind == mux.END:
            if lane.ended:
                self.violations.append(f"a second END of {number}")
            lane.ended = True
            self.frame({"kind": "tunnel.requestEnd", "tunnelId": number})
        elif kind == mux.RESET:
            lane.over = True
            lane.out.clear()
            reset = mux.read_reset(content)
            upstream = self.upstreams.pop(number, None)  # type: ignore[call-overload]
            if upstream is not None:
                upstream.lost()
            self.frame(
                {"kind": "tunnel.close", "tunnelId": number, "reason": reset.reason, "code": reset.code}
            )
        else:
            self.violations.append(f"a frame of type {kind} of {number}")


def heard_end(host: ScriptedHost, number: int) -> Deferred[dict[str, Any]]:
    """The bridge ended its half of this tunnel."""
    return host.heard(lambda frame: frame["kind"] == "tunnel.requestEnd" and frame["tunnelId"] == number)

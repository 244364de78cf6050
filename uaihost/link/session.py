"""One connection's conversation with the bridge, from the first frame to the close.

It reads frames and hands each to whoever was given for its kind; a bad frame or a failing handler never ends
the connection. It does not know what commands or tunnels are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.link import compression
from uaihost.link.heartbeat import Heartbeat, Silence
from uaihost.link.outbound import Outbound
from uaihost.link.socket import MessageSocket
from uaihost.wire.codec import BadFrame, encode, from_bridge
from uaihost.wire.frames import (
    Auth,
    BridgeHello,
    Capabilities,
    Frame,
    HostCapabilities,
    Pong,
    TunnelData,
)
from uaihost.wire.mux import FEATURE

log = Logger()

# Close code for messages of mux.1 that cannot be read (docs/protocol.md, "mux.1").
PROTOCOL_BROKEN = 4002


@attrs.frozen
class Greeting:
    """What the host says of itself. capabilities: asked again whenever they are sent."""

    token: str = attrs.field(repr=False)
    host_id: str
    capabilities: Callable[[], Capabilities]


@attrs.frozen
class Inbound:
    """Who takes what arrives.

    frames: by `kind`, all but `pong`, `bridge.hello` and `tunnel.data`, which the session reads itself.
    binary: a tunnel's id and its bytes.
    mux: a message of mux.1; from the `bridge.hello` on that agrees on it.
    bad_command: the id of a command that cannot be read and what is wrong with it; it must be answered.
    """

    frames: Mapping[str, Callable[[Any], None]]
    binary: Callable[[str, bytes], None]
    mux: Callable[[bytes], None]
    bad_command: Callable[[str, str], None]


@attrs.frozen
class Proof:
    """Who follows what the bridge has read: told the `ts` of every ping sent and of every pong."""

    pinged: Callable[[int], None]
    ponged: Callable[[float], None]


class Session:
    """The receiver of one open socket; also its reading side's brake (interfaces.LinkInput).

    outbound: the way out.
    """

    def __init__(
        self,
        clock: IReactorTime,
        socket: MessageSocket,
        greeting: Greeting,
        inbound: Inbound,
        proof: Proof,
    ) -> None:
        self._socket = socket
        self._greeting = greeting
        self._inbound = inbound
        self._ponged = proof.ponged
        self._announced: str | None = None
        self._mux = False
        self._holds: set[object] = set()
        self.outbound = Outbound(socket, clock)
        self.heartbeat = Heartbeat(clock, self.outbound.control, proof.pinged)
        self._silence = Silence(clock, socket)

    def start(self) -> None:
        """Say who we are, without waiting for an answer, and begin to listen (section 1)."""
        self._socket.attach(self)
        self.send(Auth(token=self._greeting.token, hostId=self._greeting.host_id))
        self.advertise()
        self.heartbeat.start()
        self._silence.start()

    def advertise(self) -> None:
        """Send the present capabilities."""
        self.send(HostCapabilities(capabilities=self._greeting.capabilities()))

    def send(self, frame: Frame) -> None:
        """A control frame, before anything of the tunnels."""
        payload = encode(frame)
        self.outbound.control(payload, compression.gains(payload))

    def broken(self, reason: str) -> None:
        """The bridge does not keep to mux.1, and nothing that follows can be trusted: close."""
        log.warn("the bridge broke the protocol, the connection is closed: {why}", why=reason)
        self._socket.close(PROTOCOL_BROKEN, reason)

    # interfaces.LinkInput

    def hold(self, reason: object) -> None:
        """Stop reading until every reason is released; what was read already still arrives."""
        if not self._holds:
            self._socket.pause_reading()
            self._silence.hold(True)
            self.outbound.deaf(True)
        self._holds.add(reason)

    def release(self, reason: object) -> None:
        """Withdraw one reason; one that does not hold is no error."""
        if reason not in self._holds:
            return
        self._holds.remove(reason)
        if not self._holds:
            self._silence.hold(False)
            self.outbound.deaf(False)
            self._socket.resume_reading()

    # link.socket.Receiver

    def text(self, payload: bytes) -> None:
        frame = from_bridge(payload)
        if type(frame) is TunnelData:
            self._announced = frame.tunnelId
        elif type(frame) is Pong:
            self._ponged(frame.ts)
        elif type(frame) is BridgeHello:
            self._mux = FEATURE in frame.features and FEATURE in self._greeting.capabilities().features
        elif type(frame) is BadFrame:
            log.warn("a frame of the bridge was dropped: {why}", why=frame.why)
            if frame.command_id is not None:
                self._call("command", self._inbound.bad_command, frame.command_id, frame.why)
        else:
            kind = str(frame.__struct_config__.tag)
            handler = self._inbound.frames.get(kind)
            if handler is None:
                log.warn("a frame of the bridge was dropped: nobody takes {kind}", kind=kind)
            else:
                self._call(kind, handler, frame)

    def binary(self, payload: bytes) -> None:
        tunnel_id, self._announced = self._announced, None
        if tunnel_id is not None:
            self._call("tunnel.data", self._inbound.binary, tunnel_id, payload)
        elif self._mux:
            self._call("a message of mux.1", self._inbound.mux, payload)
        else:
            log.warn("{size} bytes of the bridge were dropped: no tunnel.data before them", size=len(payload))

    def marked(self, payload: bytes) -> None:
        self.outbound.marked(payload)

    def closed(self, code: int | None, reason: str) -> None:
        self.heartbeat.stop()
        self._silence.stop()
        self._holds.clear()
        self.outbound.lost()

    def _call(self, kind: str, handler: Callable[..., None], *args: object) -> None:
        try:
            handler(*args)
        except Exception:
            log.failure("what takes {kind} failed", kind=kind)

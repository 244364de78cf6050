"""mux.1: the frames of tunnels in binary messages (docs/protocol.md, "mux.1"). Pure.

A message holds one or more whole frames, of any tunnels. A frame is a header of 8 bytes, most significant
byte first, and its payload:

    type: 1 byte | length of the payload: 3 bytes | tunnel: 4 bytes, 0 for the link itself

Knows the layout only: which end sends what, and when, belongs to the two ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeVar

import msgspec

from uaihost.wire.frames import Header, RequestLine

T = TypeVar("T")

# The name in `capabilities.features` and `bridge.hello`.
FEATURE: Final = "mux.1"

OPEN: Final = 1
HEAD: Final = 2
DATA: Final = 3
END: Final = 4
RESET: Final = 5
CREDIT: Final = 6

# Why a tunnel was reset.
NOT_NEEDED: Final = 0  # what is cut off is of no use: the answer is whole, or nobody waits for it
CANCELLED: Final = 1  # whoever was at the sender's end of the tunnel is gone
FAILED: Final = 2  # the upstream failed
WINDOW_EXCEEDED: Final = 3  # more DATA came than was permitted
BAD_FRAME: Final = 4  # a frame of the tunnel could not be read or came out of turn
STALLED: Final = 5  # bytes waited too long for whoever is at the sender's end

# Bytes of one frame's payload. A larger one is refused before anything is kept.
MAX_PAYLOAD: Final = 1 << 20

# Bytes of DATA that may be sent before the first CREDIT, each way: of one tunnel, and of all together.
TUNNEL_WINDOW: Final = 64 << 10
LINK_WINDOW: Final = 1 << 20

# The largest window; more permits nothing that memory could hold.
MAX_WINDOW: Final = (1 << 31) - 1

HEADER_SIZE: Final = 8

# Bytes of a reset's reason; what is longer is cut by the sender.
MAX_REASON: Final = 512

_header = struct.Struct(">II")
_reset = struct.Struct(">H")
_credit = struct.Struct(">I")


class BadMessage(ValueError):
    """A binary message is not a row of whole frames: the two ends no longer agree on what was sent."""


class BadPayload(ValueError):
    """One frame's payload cannot be read; the frames around it can. The text holds none of its content."""


class Open(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a `tunnel.open`, less its id."""

    target: Literal["editor", "preview"]
    taskId: str
    reqLine: RequestLine
    upgrade: bool
    name: str | None = None


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a `tunnel.ack`, less its id. `ok` false is the tunnel's last frame."""

    ok: bool
    status: int
    statusText: str | None = None
    headers: list[Header] | None = None
    message: str | None = None


class Reset(msgspec.Struct, frozen=True):
    code: int
    reason: str


_encoder = msgspec.json.Encoder()
_open_decoder = msgspec.json.Decoder(Open)
_head_decoder = msgspec.json.Decoder(Head)
_trailers_decoder = msgspec.json.Decoder(list[Header])


def frame(kind: int, tunnel: int, payload: bytes = b"") -> bytes:
    """One frame.

    Raises:
        ValueError: the payload is longer than MAX_PAYLOAD.
    """
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(payload)} bytes is longer than {MAX_PAYLOAD}")
    return _header.pack(kind << 24 | len(payload), tunnel) + payload


def data_header(tunnel: int, size: int) -> bytes:
    """The header of a DATA frame whose payload of `size` bytes follows."""
    return _header.pack(DATA << 24 | size, tunnel)


def open_frame(tunnel: int, content: Open) -> bytes:
    return frame(OPEN, tunnel, _encoder.encode(content))


def head_frame(tunnel: int, content: Head) -> bytes:
    return frame(HEAD, tunnel, _encoder.encode(content))


def end_frame(tunnel: int, trailers: Sequence[Header] = ()) -> bytes:
    return frame(END, tunnel, _encoder.encode(trailers) if trailers else b"")


def reset_frame(tunnel: int, code: int, reason: str) -> bytes:
    text = reason.encode("utf-8", "replace")[:MAX_REASON]
    return frame(RESET, tunnel, _reset.pack(code) + text)


def credit_frame(tunnel: int, size: int) -> bytes:
    return frame(CREDIT, tunnel, _credit.pack(size))


def frames(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The (type, tunnel, payload) of every frame of a message, in order; unknown types too.

    Raises:
        BadMessage: at the first frame that is cut or too long; those before it have been given.
    """
    at = 0
    size = len(message)
    if not size:
        raise BadMessage("an empty message")
    while at < size:
        if at + HEADER_SIZE > size:
            raise BadMessage("a frame's header is cut")
        word, tunnel = _header.unpack_from(message, at)
        length = word & 0xFFFFFF
        at += HEADER_SIZE
        if length > MAX_PAYLOAD:
            raise BadMessage(f"a frame's payload of {length} bytes is longer than {MAX_PAYLOAD}")
        if at + length > size:
            raise BadMessage("a frame's payload is cut")
        yield word >> 24, tunnel, message[at : at + length]
        at += length


def read_open(payload: bytes) -> Open:
    """Raises: BadPayload."""
    return _read(_open_decoder, payload)


def read_head(payload: bytes) -> Head:
    """Raises: BadPayload."""
    return _read(_head_decoder, payload)


def read_trailers(payload: bytes) -> list[Header]:
    """Of an END. Raises: BadPayload."""
    return _read(_trailers_decoder, payload) if payload else []


def read_reset(payload: bytes) -> Reset:
    """Raises: BadPayload."""
    if len(payload) < _reset.size:
        raise BadPayload("a RESET without a code")
    (code,) = _reset.unpack_from(payload)
    return Reset(code, payload[_reset.size :][:MAX_REASON].decode("utf-8", "replace"))


def read_credit(payload: bytes) -> int:
    """Bytes, at least 1. Raises: BadPayload."""
    if len(payload) != _credit.size:
        raise BadPayload("a CREDIT that is not 4 bytes")
    (size,) = _credit.unpack(payload)
    if not 1 <= size <= MAX_WINDOW:
        raise BadPayload(f"a CREDIT of {size} bytes")
    return int(size)


def _read(decoder: msgspec.json.Decoder[T], payload: bytes) -> T:
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # msgspec quotes illegal values of enumerations, and a head may hold a cookie.
        raise BadPayload("its JSON is not of the expected shape") from None

"""Bytes to frames and back. A bad frame becomes a `BadFrame` that says what is wrong, never an exception.

The description of a bad frame names kinds, fields and types only: a frame may carry a secret.
"""

from __future__ import annotations

from typing import Any

import msgspec

from uaihost.wire.frames import Command, Frame, FromBridge, FromHost


class BadFrame(msgspec.Struct, frozen=True):
    """A message that is no frame of the protocol.

    why: for the log; free of the frame's values.
    command_id: set for a `command` frame whose own fields are ill-typed but whose id can be answered.
    """

    why: str
    command_id: str | None = None


class _Loose(msgspec.Struct):
    """What can be said of a frame that did not decode."""

    kind: Any = None
    commandId: Any = None


_encoder = msgspec.json.Encoder()
_bridge_decoder: msgspec.json.Decoder[FromBridge] = msgspec.json.Decoder(FromBridge)
_host_decoder: msgspec.json.Decoder[FromHost] = msgspec.json.Decoder(FromHost)
_loose_decoder = msgspec.json.Decoder(_Loose)


def encode(frame: Frame) -> bytes:
    """The frame as UTF-8 JSON, one text message."""
    return _encoder.encode(frame)


def encode_value(value: Any) -> bytes:
    """Any value of the protocol (a result, an event) as UTF-8 JSON."""
    return _encoder.encode(value)


def from_bridge(payload: bytes) -> FromBridge | BadFrame:
    """Read a text message that a bridge sent."""
    try:
        return _bridge_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _bad(payload, error)


def from_host(payload: bytes) -> FromHost | BadFrame:
    """Read a text message that a host sent."""
    try:
        return _host_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _bad(payload, error)


def _bad(payload: bytes, error: Exception) -> BadFrame:
    if not isinstance(error, msgspec.ValidationError):
        return BadFrame("not JSON")
    try:
        loose = _loose_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return BadFrame("not a JSON object")
    kind = loose.kind if isinstance(loose.kind, str) else None
    if kind is None:
        return BadFrame("no kind")
    # msgspec names expected and found types and the field's path; an invalid enum or tag value is quoted,
    # so of those only the part before the value is kept.
    what = str(error).split(" 'kind'")[0]
    if "Invalid" in what:
        what = "unknown kind" if "$.kind" in str(error) else "a field has an illegal value"
    command_id = loose.commandId if kind == Command.__struct_config__.tag else None
    return BadFrame(f"{kind[:40]!r}: {what}", command_id if isinstance(command_id, str) else None)

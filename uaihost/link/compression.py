"""What is compressed on the bridge WebSocket and how: permessage-deflate (RFC 7692), decided per message.

`Deflate` is one connection's compressor and inflater, in place of Autobahn's; `Gain` says of one tunnel
whether its messages are worth it. It knows neither frames nor content types. decisions: docs/adr/0007.
"""

from __future__ import annotations

import zlib
from typing import Any

from autobahn.exception import PayloadCorruptError, PayloadExceededError
from autobahn.websocket.compress import (
    PerMessageDeflate,
    PerMessageDeflateOffer,
    PerMessageDeflateOfferAccept,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)
from isal import isal_zlib

# Bytes. Below, what is saved is a segment or none, which a link takes in less time than deflate.
SMALLEST = 2048

# Bytes, the same on a slow link, where a segment costs time by its length. Below, deflate's own words eat
# what is gained.
SMALLEST_SLOW = 256

# Bytes. Above, one message would keep the reactor for more than some 3 ms.
LARGEST = 1024 * 1024

# Bytes, for zlib on a slow link: what is larger takes the faster compressor.
LARGEST_SLOW = 128 * 1024

# Bytes per second on the wire: a link is slow, or middling, from the time it takes less than the first number
# until it takes more than the second. Each second number is well below what the compressor of that class puts
# on the wire (10 and 45 MB/s of JavaScript), so that it never takes itself for the link.
SLOW = (2_000_000, 4_000_000)
MIDDLING = (15_000_000, 30_000_000)

# Levels. zlib's for slow links: the best ratio. isal's second is the fastest per byte saved (580 MB/s), its
# third (380 MB/s) saves 5 % more, and 10 % where there is much to save.
_SLOW_LEVEL = 6
_QUICK_LEVEL = 2
_DEEP_LEVEL = 3

# Bytes after per byte before: a speaker below the first goes deep, above the second quick again.
_DEEP = (0.22, 0.25)

# A message or a tunnel gains when a tenth is saved.
_GAIN = 0.9

# Bytes of a message that are tried, which takes a few microseconds.
_SAMPLE = 4096

# Bytes that are watched before it is said that they do not gain, and bytes sent as they are before the next
# look: a trial costs nothing beside them.
_WATCHED = 64 * 1024
_BLIND = 4 * 1024 * 1024

# Its type stub calls the class an instance.
_Corrupt: type[Exception] = isal_zlib.error  # type: ignore[assignment]

# What a flush ends with; the sender leaves it out (RFC 7692, section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"


def gains(payload: bytes) -> bool:
    """Whether a frame, which is JSON, is worth compressing; by itself and without a history."""
    return SMALLEST_SLOW <= len(payload) <= LARGEST


def offers() -> list[PerMessageDeflateOffer]:
    """What a client offers."""
    # A server that is told we would do without a history may take us at our word, as `ws` does.
    return [PerMessageDeflateOffer(accept_no_context_takeover=False)]


def accept_response(response: object) -> PerMessageDeflateResponseAccept | None:
    """A client's view of the server's answer."""
    if isinstance(response, PerMessageDeflateResponse):
        return PerMessageDeflateResponseAccept(response)
    return None


def accept_offer(offered: list[object]) -> PerMessageDeflateOfferAccept | None:
    """A server's choice among what the client offers."""
    for offer in offered:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None


class Deflate:
    """Both directions of one connection.

    The other end's inflater sees every compressed message in order. So at most one compressor is alive, its
    history is what it compressed itself, and it is thrown away whenever another one speaks.

    Args:
        agreed: what the handshake agreed on; windows and takeover of each direction are kept to.
    """

    # Autobahn names it in what it says about a peer's errors.
    EXTENSION_NAME = PerMessageDeflate.EXTENSION_NAME

    def __init__(self, agreed: PerMessageDeflate) -> None:
        ours, theirs = (
            (agreed.server_no_context_takeover, agreed.client_no_context_takeover)
            if agreed._is_server
            else (agreed.client_no_context_takeover, agreed.server_no_context_takeover)
        )
        self._keeps_history = not ours
        self._window = agreed.server_max_window_bits if agreed._is_server else agreed.client_max_window_bits
        self._inflates_afresh = theirs
        self._compressor: Any = None
        self._history: object | None = None
        self._inflater: Any = None
        # What chooses the compressor: the link, and how well its speaker's messages shrink.
        self._slow = self._middling = self._deep = False

    # ---- sending --------------------------------------------------------------------------------------

    def set_uplink(self, rate: float | None) -> None:
        """The wire to the other end takes `rate` bytes per second; None, as at first: not known."""
        slow = rate is not None and rate < SLOW[self._slow]
        middling = rate is not None and rate < MIDDLING[self._middling]
        if (slow, middling) != (self._slow, self._middling):
            self._slow, self._middling = slow, middling
            self._forget()

    @property
    def smallest(self) -> int:
        """Bytes of the shortest message that is compressed."""
        return SMALLEST_SLOW if self._slow else SMALLEST

    def compress(self, payload: bytes, history: object | None = None) -> bytes | None:
        """The payload of a message with RSV1 set; None when it is better sent as it is.

        history: who speaks. Only a message that follows one of the same speaker refers to earlier bytes, so
        that no message's length tells anything of another speaker's; None: never.
        """
        size = len(payload)
        if size < self.smallest:
            return None
        if history is None or history is not self._history:
            self._forget()
        compressor = self._compressor or self._new_compressor(size)
        found: bytes = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert found.endswith(_TAIL), "a flush ends with an empty stored block"
        smaller = found[: -len(_TAIL)]
        if len(smaller) >= size:
            # The other end will never see it, so nothing may refer to it.
            self._forget()
            return None
        if history is not None and self._keeps_history:
            self._compressor, self._history = compressor, history
            deep = len(smaller) < _DEEP[self._deep] * size
            if deep != self._deep and not self._slow and not self._middling:
                # The next one is of another level, and refers to nothing before it.
                self._deep = deep
                self._compressor = None
        return smaller

    def _new_compressor(self, size: int) -> Any:
        if self._slow and size <= LARGEST_SLOW:
            return zlib.compressobj(_SLOW_LEVEL, zlib.DEFLATED, -self._window)
        level = _DEEP_LEVEL if self._deep or self._middling else _QUICK_LEVEL
        return isal_zlib.compressobj(level, isal_zlib.DEFLATED, -self._window)

    def _forget(self) -> None:
        self._compressor = self._history = None
        self._deep = False

    # ---- receiving: what Autobahn calls ---------------------------------------------------------------

    def start_decompress_message(self) -> None:
        """A compressed message begins."""
        if self._inflater is None or self._inflates_afresh:
            # The largest window reads what was made with any.
            self._inflater = isal_zlib.decompressobj(-zlib.MAX_WBITS)

    def decompress_message_data(self, data: bytes, max_output_len: int) -> bytes:
        """Inflate some bytes of a message to `max_output_len` bytes at most.

        Raises:
            PayloadExceededError: there is more; no more than a byte above was made.
            PayloadCorruptError: it is no deflate stream, or goes on after its end.
        """
        inflater = self._inflater
        try:
            # A byte more than is allowed, so that nothing stays inside unseen when it is just enough.
            found: bytes = inflater.decompress(data, max(max_output_len, 0) + 1)
        except _Corrupt as error:
            raise PayloadCorruptError(f"invalid permessage-deflate data: {error}") from error
        if len(found) > max_output_len:
            raise PayloadExceededError(f"a message inflates to more than {max_output_len} bytes")
        if len(inflater.unused_data) > 1:
            raise PayloadCorruptError("invalid permessage-deflate data: bytes after its last block")
        return found

    def end_decompress_message(self) -> None:
        """The message is complete.

        Raises:
            PayloadCorruptError: it ends in the middle of something.
        """
        inflater = self._inflater
        if inflater.eof:
            # A last block (RFC 7692, section 7.2.3.4); the next message begins a new stream.
            self._inflater = None
            whole = inflater.unused_data == _TAIL[:1]
        else:
            try:
                whole = not inflater.decompress(_TAIL, 1) and not inflater.unconsumed_tail
            except _Corrupt as error:
                raise PayloadCorruptError(f"invalid permessage-deflate data: {error}") from error
        if not whole:
            raise PayloadCorruptError("invalid permessage-deflate data: it does not end with its message")


class Gain:
    """Whether the messages of one tunnel are worth compressing.

    Args:
        hint: True: by what is known of the content they gain; False: never; None: to be found out.

    ratio: bytes on the wire per byte, of late.
    """

    __slots__ = ("_after", "_before", "_blind", "_hint", "_on", "ratio")

    def __init__(self, hint: bool | None = None) -> None:
        self.hint(hint)

    def hint(self, gains: bool | None) -> None:
        """Begin anew with the bytes that follow."""
        self._hint = gains
        self._on = gains is True
        self._blind = 0
        self._before = self._after = 0
        self.ratio = 1.0

    def worth(self, payload: bytes) -> bool:
        """Whether to try: `payload` is the next message. A short one is never tried, and decides nothing."""
        if self._hint is False or len(payload) < SMALLEST_SLOW:
            return False
        if self._blind > 0:
            self._blind -= len(payload)
            return False
        if not self._on:
            self._on = self._trial(payload)
        return self._on

    def learn(self, before: int, after: int) -> None:
        """A message that was worth it had `before` bytes and took `after` on the wire."""
        if before < SMALLEST:
            return
        self.ratio += (after / before - self.ratio) / 4
        self._before += before
        self._after += after
        if self._before >= _WATCHED:
            if self._after > _GAIN * self._before:
                self._stop()
            self._before = self._after = 0

    def _trial(self, payload: bytes) -> bool:
        sample = payload[:_SAMPLE]
        if len(isal_zlib.compress(sample, 1, -zlib.MAX_WBITS)) <= _GAIN * len(sample):
            return True
        self._stop()
        return False

    def _stop(self) -> None:
        self._on = False
        self._blind = _BLIND
        self.ratio = 1.0

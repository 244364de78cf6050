"""What is compressed on the bridge WebSocket: permessage-deflate (RFC 7692) is offered, and used where it
gains.

Decided per message. Bytes of tunnels are sent as they are; JSON of some length is worth it.
"""

from __future__ import annotations

from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateOfferAccept,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)

# Bytes. Below, a frame fits one TCP segment either way and only costs time.
SMALLEST = 1024

# Bytes. Above, deflate at 40 MB/s would keep the reactor for more than some 3 ms.
LARGEST = 128 * 1024


def gains(payload: bytes) -> bool:
    """Whether a frame, which is JSON, is worth compressing."""
    return SMALLEST <= len(payload) <= LARGEST


def offers() -> list[PerMessageDeflateOffer]:
    """What a client offers."""
    return [PerMessageDeflateOffer()]


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

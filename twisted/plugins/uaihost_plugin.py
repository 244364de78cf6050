"""The two services of twistd: names only, so that listing plugins imports nothing of ours."""

from twisted.application.service import ServiceMaker

uaihost = ServiceMaker(
    "uaihost",
    "uaihost.tap",
    "Run coding agents on this machine, reached through one WebSocket to a bridge.",
    "uaihost",
)

uaibridge = ServiceMaker(
    "uaibridge",
    "uaihost.tap_bridge",
    "Serve a bridge: the other end of uaihost's WebSocket, with a page for people.",
    "uaibridge",
)

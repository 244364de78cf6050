"""What heads say about bodies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from uaihost.tunnels.content import gains

TYPES = {
    True: [
        "text/html; charset=utf-8",
        "text/css",
        "text/event-stream",
        "TEXT/Plain",
        "text/javascript",
        "application/javascript;charset=utf-8",
        "application/json",
        "application/manifest+json",
        "application/problem+json",
        "application/x-ndjson",
        "application/xhtml+xml",
        "application/wasm",
        "image/svg+xml",
        "image/bmp",
        "font/ttf",
        " application/xml ",
    ],
    False: [
        "image/png",
        "image/jpeg",
        "image/webp",
        "image/avif",
        "video/mp4",
        "audio/mpeg",
        "font/woff2",
        "application/zip",
        "application/gzip",
        "application/zstd",
        "application/pdf",
        "application/epub+zip",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "IMAGE/PNG; x=y",
    ],
    None: [
        "application/octet-stream",
        "application/x-something",
        "audio/wav",
        "image/x-icon",
        "multipart/byteranges; boundary=text/html",
        "",
        "text",
        "/",
        "json",
    ],
}


class ContentTests(SynchronousTestCase):
    def test_types(self) -> None:
        for expected, types in TYPES.items():
            found = {media: gains([("Server", "x"), ("Content-Type", media)]) for media in types}
            self.assertEqual(found, dict.fromkeys(types, expected))

    def test_without_a_type_nothing_is_known(self) -> None:
        self.assertIs(gains([]), None)
        self.assertIs(gains([("X-Content-Type", "text/html")]), None)

    def test_what_is_coded_is_small_already(self) -> None:
        for coding in ("gzip", "br", "ZSTD", "identity, gzip", "deflate", "unheard-of"):
            headers = [("content-type", "text/html"), ("CONTENT-ENCODING", coding)]
            self.assertEqual([gains(headers), gains(headers[::-1])], [False, False], coding)

    def test_identity_is_no_coding(self) -> None:
        for coding in ("identity", "", " Identity , identity"):
            self.assertIs(gains([("content-encoding", coding), ("content-type", "text/css")]), True)

    def test_types_that_contradict_say_nothing(self) -> None:
        html, png = ("content-type", "text/html"), ("Content-Type", "image/png")
        self.assertIs(gains([html, png]), None)
        self.assertIs(gains([html, html]), True)

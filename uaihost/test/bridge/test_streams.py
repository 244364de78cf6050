"""mux.1 at the bridge: frames of a host on one side, browsers on the other, and credit between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.bridge import streams, tunnel
from uaihost.bridge.names import Destination
from uaihost.bridge.streams import HELD, STALL_LIMIT, TUNNEL_LIMIT, Streams
from uaihost.bridge.tunnel import BridgeTunnel, Traffic
from uaihost.bridge.tunnels import OPENS_LIMIT, TunnelTable
from uaihost.test.bridge.fakes import FakeInput, FakeStream, FakeWire
from uaihost.test.support import given, strategies
from uaihost.wire import mux
from uaihost.wire.frames import Header, RequestLine
from uaihost.wire.mux import CREDIT, DATA, END, HEAD, LINK_WINDOW, OPEN, RESET, TUNNEL_WINDOW

PLACE = Destination("host-1", "shop", "preview", "web")
LINE = RequestLine("GET", "/x", [("Host", "a")])
OK = mux.Head(True, 200, "OK", [("X", "1")])


class Browser:
    """tunnel.BrowserSide that keeps what it is told; `taken`, the bytes.

    leaves: it closes its tunnel at the first bytes. sips: it pauses it whenever it took some.
    """

    sips = False

    def __init__(self, leaves: bool = False) -> None:
        self.calls: list[Any] = []
        self.taken = 0
        self.leaves = leaves
        self.tunnel: BridgeTunnel

    def informed(self, head: mux.Head) -> None:
        self.calls.append(("informed", head.status))

    def acked(self, head: mux.Head) -> None:
        self.calls.append(("acked", head.status))

    def received(self, data: bytes) -> None:
        self.taken += len(data)
        if self.calls and self.calls[-1][0] == "data":
            self.calls[-1] = ("data", self.calls[-1][1] + data)
        else:
            self.calls.append(("data", data))
        if self.sips:
            self.tunnel.pauseProducing()
        if self.leaves:
            self.tunnel.close("the browser is gone")

    def ended(self, trailers: Sequence[Header]) -> None:
        self.calls.append(("ended", list(trailers)))

    def closed(self, reason: str) -> None:
        self.calls.append(("closed", reason))


class StreamsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = FakeWire()
        self.broken: list[str] = []
        self.streams = Streams(self.wire, self.clock, self.broken.append, Traffic())

    def open(self, upgrade: bool = False, leaves: bool = False) -> Browser:
        browser = Browser(leaves)
        browser.tunnel = self.streams.open(browser, PLACE, LINE, upgrade)
        return browser

    def outlet(self, number: int = 1) -> FakeStream:
        return self.wire.streams[number]

    def hear(self, *frames: bytes) -> None:
        self.streams.message(b"".join(frames))

    def send(self, size: int, number: int = 1) -> None:
        """DATA of `size` bytes, in frames as long as may be."""
        while size:
            piece = min(size, mux.MAX_PAYLOAD)
            self.hear(mux.frame(DATA, number, bytes(piece)))
            size -= piece

    def credited(self, number: int) -> int:
        """The credit given to the host so far."""
        return sum(
            mux.read_credit(payload)
            for kind, tunnel, payload in self.wire.urgents
            if kind == CREDIT and tunnel == number
        )

    def resets(self) -> list[tuple[int, int]]:
        """The (tunnel, code) of every RESET sent."""
        return [
            (tunnel, mux.read_reset(payload).code)
            for kind, tunnel, payload in self.wire.urgents
            if kind == RESET
        ]


class RequestTests(StreamsCase):
    def test_a_host_that_takes_nothing_is_asked_no_more(self) -> None:
        table = TunnelTable(self.wire, FakeInput(), self.clock)
        self.assertIsNotNone(table.open(Browser(False), PLACE, LINE, False))
        self.wire.urgent_waiting = OPENS_LIMIT + 1
        self.assertIsNone(table.open(Browser(False), PLACE, LINE, False))

    def test_a_request_and_its_response(self) -> None:
        browser = self.open()
        ((kind, number, payload),) = self.wire.urgents
        self.assertEqual((kind, number), (OPEN, 1))
        self.assertEqual(mux.read_open(payload), mux.Open("preview", "shop", LINE, False, "web"))
        browser.tunnel.write(b"body")
        browser.tunnel.end_request()
        self.assertEqual(self.outlet().sent, [b"body", (END, b"")])
        self.assertTrue(self.outlet().finished)
        self.hear(mux.head_frame(1, OK), mux.frame(DATA, 1, b"hel"))
        self.hear(mux.frame(DATA, 1, b"lo"), mux.end_frame(1, [("Digest", "x")]))
        self.assertEqual(browser.calls, [("acked", 200), ("data", b"hello"), ("ended", [("Digest", "x")])])
        self.assertEqual(len(self.streams), 0)
        self.assertEqual(self.resets(), [])

    def test_numbers_grow(self) -> None:
        for _ in range(3):
            self.open()
        self.assertEqual([number for _, number, _ in self.wire.urgents], [1, 2, 3])
        self.assertEqual(list(self.wire.streams), [1, 2, 3])

    def test_each_direction_ends_on_its_own(self) -> None:
        for first in ("host", "browser"):
            self.setUp()
            browser = self.open(upgrade=True)
            self.hear(mux.head_frame(1, mux.Head(True, 101, "Switching Protocols", [])))
            if first == "host":
                self.hear(mux.end_frame(1))
                browser.tunnel.write(b"still")
                self.assertEqual((self.outlet().body(), len(self.streams)), (b"still", 1))
                browser.tunnel.end_request()
            else:
                browser.tunnel.end_request()
                self.hear(mux.frame(DATA, 1, b"still"))
                self.assertEqual((browser.taken, len(self.streams)), (5, 1))
                self.hear(mux.end_frame(1))
            self.assertEqual(len(self.streams), 0)
            self.assertEqual(browser.calls[-1], ("ended", []))
            self.assertFalse(self.outlet().discarded)

    def test_a_refusal_is_the_tunnels_last_frame(self) -> None:
        browser = self.open()
        browser.tunnel.write(b"waits")
        self.hear(mux.head_frame(1, mux.Head(False, 503, message="no preview web")))
        self.assertEqual(browser.calls, [("acked", 503)])
        self.assertTrue(self.outlet().discarded)
        browser.tunnel.close("not opened")
        browser.tunnel.write(b"more")
        self.assertEqual((len(self.streams), self.resets()), (0, []))

    def test_interim_answers_come_before_the_one_that_counts(self) -> None:
        browser = self.open()
        for status in (100, 103, 200):
            self.hear(mux.head_frame(1, mux.Head(True, status, "", [])))
        self.assertEqual(browser.calls, [("informed", 100), ("informed", 103), ("acked", 200)])

    def test_a_flood_of_interim_answers_is_not_passed_on(self) -> None:
        browser = self.open()
        large = mux.Head(True, 103, "", [("Link", "x" * streams.INTERIM_SIZE)])
        self.hear(mux.head_frame(1, large))
        self.assertEqual(browser.calls, [])
        for _ in range(100):
            self.hear(mux.head_frame(1, mux.Head(True, 103, "", [])))
        self.assertEqual(len(browser.calls), streams.INTERIMS - 1)

    def test_an_early_response_leaves_the_rest_of_the_upload_away(self) -> None:
        browser = self.open()
        browser.tunnel.write(b"a part")
        self.hear(mux.head_frame(1, mux.Head(True, 413, "", [])), mux.end_frame(1))
        self.assertEqual(browser.calls, [("acked", 413), ("ended", [])])
        self.hear(mux.reset_frame(1, mux.NOT_NEEDED, ""))
        self.assertEqual(browser.calls[-1], ("closed", "reset by the host"))
        self.assertTrue(self.outlet().discarded)
        self.assertEqual((len(self.streams), self.resets()), (0, []))

    def test_a_reset_cuts_the_response_short(self) -> None:
        browser = self.open()
        self.hear(mux.head_frame(1, OK), mux.frame(DATA, 1, b"part"), mux.reset_frame(1, mux.FAILED, "died"))
        self.assertEqual(browser.calls[-2:], [("data", b"part"), ("closed", "died")])
        self.assertEqual((len(self.streams), self.resets()), (0, []))

    def test_a_browser_that_leaves_resets_its_tunnel(self) -> None:
        browser = self.open(leaves=True)
        browser.tunnel.write(b"unsent")
        self.hear(mux.head_frame(1, OK), mux.frame(DATA, 1, b"a"), mux.frame(DATA, 1, b"b"))
        self.assertEqual(self.resets(), [(1, mux.CANCELLED)])
        self.assertTrue(self.outlet().discarded)
        self.hear(mux.end_frame(1), mux.credit_frame(1, 5), mux.reset_frame(1, 9, "late"))
        self.assertEqual(browser.calls, [("acked", 200), ("data", b"a")])
        self.assertEqual(self.credited(1), 0)

    def test_a_lost_link_ends_every_tunnel(self) -> None:
        cut, whole = self.open(), self.open()
        whole.tunnel.pauseProducing()
        self.hear(mux.head_frame(2, OK), mux.frame(DATA, 2, b"all"), mux.end_frame(2))
        self.streams.lost("lost")
        self.assertEqual(cut.calls, [("closed", "lost")])
        whole.tunnel.resumeProducing()
        self.assertEqual(whole.calls[1:], [("data", b"all"), ("ended", []), ("closed", "lost")])
        self.assertEqual(len(self.streams), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CreditTests(StreamsCase):
    def setUp(self) -> None:
        super().setUp()
        self.browser = self.open()
        self.hear(mux.head_frame(1, OK))

    def bound(self, size: int) -> None:
        """Begin again; so many bytes may wait for browsers before the link's credit does."""
        self.patch(streams, "HELD", size)
        self.setUp()

    def test_credit_comes_back_as_the_browser_takes(self) -> None:
        self.send(TUNNEL_WINDOW)
        self.assertGreaterEqual(self.credited(1), TUNNEL_WINDOW)

    def test_a_browser_that_does_not_read_gets_no_credit_and_holds_nobody(self) -> None:
        self.browser.tunnel.pauseProducing()
        self.send(TUNNEL_WINDOW)
        self.assertEqual((self.credited(1), self.browser.taken), (0, 0))
        other = self.open()
        self.hear(mux.head_frame(2, OK))
        for _ in range(100):
            self.send(TUNNEL_WINDOW // 2, 2)
        self.assertEqual(other.taken, 50 * TUNNEL_WINDOW)
        self.assertGreaterEqual(self.credited(0), 50 * TUNNEL_WINDOW - LINK_WINDOW)
        self.assertEqual(self.credited(1), 0)
        self.clock.advance(10 * STALL_LIMIT)
        self.assertEqual(self.resets(), [])
        self.browser.tunnel.resumeProducing()
        self.assertEqual(self.browser.taken, TUNNEL_WINDOW)
        self.assertGreaterEqual(self.credited(1), TUNNEL_WINDOW)

    def test_more_than_its_window_resets_a_tunnel_and_no_other(self) -> None:
        self.browser.tunnel.pauseProducing()
        other = self.open()
        self.send(TUNNEL_WINDOW)
        self.send(1)
        self.assertEqual(self.resets(), [(1, mux.WINDOW_EXCEEDED)])
        self.assertEqual(self.browser.calls[-1][0], "closed")
        self.assertEqual((self.broken, other.calls), ([], []))

    def test_more_than_the_links_window_ends_the_connection(self) -> None:
        # Nothing of the link's credit comes back while browsers do not read.
        self.bound(0)
        for number in range(1, 18):
            browser = self.browser if number == 1 else self.open()
            browser.tunnel.pauseProducing()
            if number > 1:
                self.hear(mux.head_frame(number, OK))
            self.assertEqual(self.broken, [])
            self.send(TUNNEL_WINDOW, number)
        self.assertEqual(len(self.broken), 1)
        self.assertEqual(self.resets(), [])

    def test_what_waits_beyond_the_bound_is_not_given_back_to_the_link_until_it_is_taken(self) -> None:
        self.bound(3 * TUNNEL_WINDOW)
        browsers = [self.browser, *(self.open() for _ in range(4))]
        for number, browser in enumerate(browsers, 1):
            browser.tunnel.pauseProducing()
            if number > 1:
                self.hear(mux.head_frame(number, OK))
        # With a window of 16 units, 5 come; 3 may wait, so 2 are owed.
        for number in range(1, 6):
            self.send(TUNNEL_WINDOW, number)
        self.assertLessEqual(self.credited(0), 3 * TUNNEL_WINDOW)
        for browser in browsers:
            browser.tunnel.resumeProducing()
        # Everything is taken: what is not given back is less than half of the window.
        self.assertEqual(sum(browser.taken for browser in browsers), 5 * TUNNEL_WINDOW)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_browsers_that_hold_too_much_for_too_long_lose_their_tunnels(self) -> None:
        self.bound(TUNNEL_WINDOW // 2)
        self.browser.tunnel.pauseProducing()
        self.send(TUNNEL_WINDOW)
        self.clock.advance(STALL_LIMIT - 1)
        self.assertEqual(self.resets(), [])
        self.clock.advance(1)
        self.assertEqual(self.resets(), [(1, mux.STALLED)])
        self.assertEqual(self.browser.calls[-1], ("closed", "the browser reads too slowly"))
        self.assertEqual((len(self.streams), self.clock.getDelayedCalls()), (0, []))

    def test_of_browsers_that_all_take_a_little_the_one_that_holds_most_goes(self) -> None:
        self.bound(8 << 10)
        self.patch(tunnel, "PIECE", 1 << 10)
        little = self.open()
        self.hear(mux.head_frame(2, OK))
        for number, browser, pieces in ((1, self.browser, 16), (2, little, 4)):
            browser.sips = True
            browser.tunnel.pauseProducing()
            for _ in range(pieces):
                self.send(1 << 10, number)
        for _ in range(2):
            self.clock.advance(STALL_LIMIT / 2)
            little.tunnel.resumeProducing()
            self.browser.tunnel.resumeProducing()
        self.assertEqual(self.resets(), [(1, mux.STALLED)])

    def test_uploads_get_the_hosts_credit(self) -> None:
        self.hear(mux.credit_frame(1, 70_000), mux.credit_frame(0, 5))
        self.assertEqual((self.outlet().permitted, self.wire.permitted), (70_000, 5))

    def test_the_rest_of_an_upload_gets_its_credit_though_the_response_is_whole(self) -> None:
        for last in ("credit", "reset", "loss"):
            self.setUp()
            self.browser.tunnel.write(bytes(TUNNEL_WINDOW + 10))
            self.hear(mux.end_frame(1))
            self.browser.tunnel.end_request()
            self.assertEqual(self.browser.calls, [("acked", 200), ("ended", [])])
            self.hear(mux.credit_frame(1, 9))
            self.assertEqual((self.outlet().permitted, len(self.streams)), (9, 1))
            if last == "credit":
                self.hear(mux.credit_frame(1, 1))
            elif last == "reset":
                self.hear(mux.reset_frame(1, mux.NOT_NEEDED, ""))
            else:
                self.streams.lost("lost")
            self.assertEqual((len(self.streams), self.outlet().discarded), (0, last != "credit"))
            self.assertEqual((self.browser.calls[-1], self.resets()), (("ended", []), []))


class BrokenTests(StreamsCase):
    def test_what_is_no_row_of_frames_ends_the_connection(self) -> None:
        whole = mux.frame(DATA, 1, b"hello")
        for message in (b"", whole[:-1], whole[:5], whole + b"\x03", b"\x03\xff\xff\xff" + bytes(4)):
            self.setUp()
            self.streams.message(message)
            self.assertEqual(len(self.broken), 1, message)
            self.hear(whole)
            self.assertEqual(len(self.broken), 1)

    def test_the_links_own_frames(self) -> None:
        for frame, breaks in (
            (mux.credit_frame(0, mux.MAX_WINDOW), False),
            (mux.frame(200, 0, b"what?"), False),
            (mux.frame(CREDIT, 0, b"abc"), True),
            (mux.frame(CREDIT, 0, bytes(4)), True),
            (mux.credit_frame(0, mux.MAX_WINDOW) + mux.credit_frame(0, 1), True),
            (mux.frame(DATA, 0, b"x"), True),
            (mux.end_frame(0), True),
            (mux.reset_frame(0, 1, ""), True),
        ):
            self.setUp()
            self.hear(frame)
            self.assertEqual(bool(self.broken), breaks, frame)

    def test_a_tunnels_window_beyond_its_largest_size_ends_the_connection(self) -> None:
        self.open()
        self.hear(mux.credit_frame(1, mux.MAX_WINDOW), mux.credit_frame(1, mux.MAX_WINDOW))
        self.assertEqual(len(self.broken), 1)

    def test_a_frame_that_cannot_be_read_or_is_out_of_turn_resets_its_tunnel(self) -> None:
        head = mux.head_frame(1, OK)
        end = mux.end_frame(1)
        for frames in (
            (mux.frame(HEAD, 1, b"{"),),
            (mux.frame(HEAD, 1, b'{"ok": true}'),),
            (head, head),
            (mux.frame(DATA, 1, b"x"),),
            (end,),
            (head, mux.frame(DATA, 1)),
            (head, mux.frame(END, 1, b"{}")),
            (head, end, mux.frame(DATA, 1, b"x")),
            (head, end, end),
            (mux.frame(RESET, 1, b"x"),),
            (mux.frame(CREDIT, 1, b"x"),),
            (mux.frame(OPEN, 1, b"{}"),),
        ):
            self.setUp()
            browser = self.open()
            self.hear(*frames)
            self.assertEqual(self.resets(), [(1, mux.BAD_FRAME)], frames)
            self.assertEqual(browser.calls[-1][0], "closed", frames)
            self.assertEqual((len(self.streams), self.broken), (0, []))

    def test_what_nobody_asked_for_is_dropped(self) -> None:
        self.open()
        self.hear(mux.frame(77, 1, b"x"), mux.frame(DATA, 5, b"x"), mux.head_frame(5, OK), mux.end_frame(5))
        self.assertEqual((self.broken, self.resets()), ([], []))


_numbers = strategies.integers(0, 5)
_payloads = strategies.one_of(
    strategies.binary(max_size=40),
    strategies.sampled_from([mux.head_frame(1, OK)[8:], mux.head_frame(1, mux.Head(True, 100))[8:]]),
    strategies.integers(0, 40_000).map(bytes),
    strategies.integers(0, (1 << 32) - 1).map(lambda size: size.to_bytes(4, "big")),
)
_frames = strategies.builds(mux.frame, strategies.integers(0, 8), _numbers, _payloads)
_steps = strategies.lists(
    strategies.one_of(
        strategies.tuples(strategies.just("hear"), strategies.lists(_frames, max_size=6)),
        strategies.tuples(strategies.just("bytes"), strategies.binary(max_size=30)),
        strategies.tuples(
            strategies.sampled_from(("open", "leaver", "pause", "resume", "end", "write", "close", "wait")),
            _numbers,
        ),
    ),
    max_size=40,
)


class HostileTests(StreamsCase):
    @given(_steps)
    def test_no_host_and_no_browser_raises_leaks_or_takes_more_than_the_windows(
        self, steps: list[Any]
    ) -> None:
        self.setUp()
        browsers: list[Browser] = []
        for step, argument in steps:
            if step == "hear":
                self.hear(*argument)
            elif step == "bytes":
                self.streams.message(argument)
            elif step in ("open", "leaver"):
                browsers.append(self.open(upgrade=argument > 2, leaves=step == "leaver"))
            elif step == "wait":
                self.clock.advance(argument * 10)
            elif argument < len(browsers):
                self.browse(step, browsers[argument].tunnel)
            held = sum(browser.tunnel._size for browser in browsers)
            self.assertEqual(self.streams._window.held, held)
            self.assertLessEqual(held, len(browsers) * TUNNEL_LIMIT)
            self.assertLessEqual(held, HELD + streams.LINK_LIMIT)
        self.streams.lost("over")
        for browser in browsers:
            browser.tunnel.resumeProducing()
            browser.tunnel.close("over")
            # The host's answer or a reason comes first; nothing comes after the last call.
            names = [call[0] for call in browser.calls]
            self.assertNotIn("closed", names[:-1])
            self.assertLessEqual(names.count("acked"), 1)
            self.assertLessEqual(names.count("ended"), 1)
        self.assertEqual((len(self.streams), self.streams._window.held), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def browse(self, step: str, tunnel: BridgeTunnel) -> None:
        if step == "pause":
            tunnel.pauseProducing()
        elif step == "resume":
            tunnel.resumeProducing()
        elif step == "end":
            tunnel.end_request()
        elif step == "write":
            tunnel.write(b"body")
        else:
            tunnel.close("gone")

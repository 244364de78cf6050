"""Rows reach the bridge in order, again after a cut, and leave the table only when they were read."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.link.outbound import Outbound
from uaihost.link.outbox import BATCH_ROWS, LIVE_LIMIT, PINGS_LIMIT, PROVE_ROWS, RETRY_DELAY, Outbox
from uaihost.test.link.ends import MemoryJournal, MemoryStore
from uaihost.test.link.fakes import Pipe
from uaihost.test.support import given, settings, strategies


class OutboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.journal = MemoryJournal(self.store)
        self.outbox = Outbox(self.clock, self.journal, self.store)
        self.outbox.start()
        self.stamp = 0

    def connect(self, capacity: int = 1 << 30) -> Pipe:
        self.pipe = Pipe(capacity)
        self.outbound = Outbound(self.pipe, self.clock)
        self.pings: list[int] = []
        self.outbox.connected(self.outbound, self.ping)
        return self.pipe

    def ping(self) -> None:
        self.stamp += 1
        self.pings.append(self.stamp)
        self.outbox.pinged(self.stamp)

    def lose(self) -> None:
        self.outbound.lost()
        self.outbox.lost()

    def numbers(self, pipe: Pipe) -> list[int]:
        """The rows that were sent, by their number."""
        return [json.loads(text)["event"]["seq"] for text in pipe.texts()]

    def test_an_event_carries_its_number_and_a_result_is_sent_as_it_is(self) -> None:
        self.connect()
        self.journal.add(b'{"type":"task.status"}')
        self.journal.add(b'{"kind":"result","commandId":"c"}', "result")
        self.journal.add(b"{}")
        self.journal.fleeting_now(b'{"type":"channel.delta"}')
        self.assertEqual(
            self.pipe.texts(),
            [
                b'{"kind":"event","event":{"seq":1,"type":"task.status"}}',
                b'{"kind":"result","commandId":"c"}',
                b'{"kind":"event","event":{"seq":3}}',
                b'{"kind":"event","event":{"type":"channel.delta"}}',
            ],
        )

    def test_what_happened_without_a_connection_is_sent_from_the_oldest(self) -> None:
        seqs = [self.journal.add(b"{}") for _ in range(3 * BATCH_ROWS)]
        self.assertEqual(self.numbers(self.connect()), seqs)

    def test_what_is_fleeting_without_a_connection_is_gone(self) -> None:
        self.journal.fleeting_now(b"{}")
        self.assertEqual(self.connect().texts(), [])

    def test_rows_are_sent_again_until_a_pong_proves_that_they_were_read(self) -> None:
        self.connect()
        for _ in range(3):
            self.journal.add(b"{}")
        self.ping()
        self.journal.add(b"{}")
        self.outbox.ponged(self.pings[0])
        self.assertEqual(self.store.depth(), 1)
        self.lose()
        self.assertEqual(self.numbers(self.connect()), [4])

    def test_a_pong_proves_nothing_that_was_written_after_its_ping(self) -> None:
        self.connect()
        self.ping()
        self.journal.add(b"{}")
        self.outbox.ponged(self.pings[0])
        self.assertEqual(self.store.depth(), 1)

    def test_a_pong_that_answers_no_ping_proves_nothing(self) -> None:
        self.connect()
        self.journal.add(b"{}")
        self.ping()
        for ts in (self.pings[0] + 1, -1.0, 0.5):
            self.outbox.ponged(ts)
        self.assertEqual(self.store.depth(), 1)

    def test_a_pong_of_an_earlier_connection_proves_nothing(self) -> None:
        self.connect()
        self.journal.add(b"{}")
        self.ping()
        old = self.pings[0]
        self.lose()
        self.connect()
        self.outbox.ponged(old)
        self.assertEqual(self.store.depth(), 1)

    def test_a_later_pong_proves_what_an_unanswered_ping_would_have(self) -> None:
        self.connect()
        for _ in range(2):
            self.journal.add(b"{}")
            self.ping()
        self.outbox.ponged(self.pings[1])
        self.assertEqual(self.store.depth(), 0)

    def test_a_row_is_proved_within_a_second(self) -> None:
        self.connect()
        self.journal.add(b"{}")
        self.clock.advance(0.5)
        self.journal.add(b"{}")
        self.assertEqual(self.pings, [])
        self.clock.advance(0.5)
        self.assertEqual(len(self.pings), 1)
        self.clock.advance(60)
        self.assertEqual(len(self.pings), 1)

    def test_many_rows_are_proved_at_once_but_a_slow_bridge_is_not_flooded(self) -> None:
        self.connect()
        for _ in range(PROVE_ROWS):
            self.journal.add(b"{}")
        self.assertEqual(len(self.pings), 1)
        for _ in range(PROVE_ROWS * PINGS_LIMIT * 2):
            self.journal.add(b"{}")
        self.assertEqual(len(self.pings), PINGS_LIMIT)
        self.outbox.ponged(self.pings[-1])
        self.clock.advance(1)
        self.outbox.ponged(self.pings[-1])
        self.assertEqual(self.store.depth(), 0)

    def test_a_backlog_waits_for_room_and_live_rows_stay_behind_it(self) -> None:
        for _ in range(10 * BATCH_ROWS):
            self.journal.add(b'{"x":"%b"}' % bytes(b"y" * 1000))
        pipe = self.connect(100_000)
        self.journal.add(b"{}")
        self.journal.fleeting_now(b"{}")
        while pipe.full:
            self.assertLess(self.outbound.control_waiting, 3 * BATCH_ROWS * 1100)
            pipe.drain()
        self.assertEqual(self.numbers(pipe), list(range(1, 10 * BATCH_ROWS + 2)))

    def test_live_rows_wait_in_the_table_while_the_socket_is_full(self) -> None:
        pipe = self.connect(1000)
        payload = b'{"x":"%b"}' % (b"y" * 10_000)
        for _ in range(100):
            self.journal.add(payload)
            self.journal.fleeting_now(payload)
        self.assertLess(self.outbound.control_waiting, LIVE_LIMIT + 2 * len(payload))
        while pipe.full:
            pipe.drain()
        sent = [json.loads(text)["event"].get("seq") for text in pipe.texts()]
        self.assertEqual([seq for seq in sent if seq is not None], list(range(1, 101)))

    def test_a_row_told_while_the_table_is_read_is_sent_once(self) -> None:
        self.store.slow = True
        self.connect()
        self.journal.add(b"{}")
        for _ in range(5):
            self.store.release()
        self.journal.add(b"{}")
        self.assertEqual(self.numbers(self.pipe), [1, 2])

    def test_a_row_told_after_an_empty_table_was_read_is_not_forgotten(self) -> None:
        self.store.late = True
        self.connect()
        self.journal.add(b"{}")
        for _ in range(3):
            self.store.release()
        self.assertEqual(self.numbers(self.pipe), [1])

    def test_a_row_stored_before_and_told_after_it_was_read_is_sent_once(self) -> None:
        entry = self.journal.store(b"{}")
        self.connect()
        self.journal.tell(entry)
        self.assertEqual(self.numbers(self.pipe), [1])

    def test_a_table_that_cannot_be_read_is_tried_again(self) -> None:
        self.journal.add(b"{}")
        self.store.error = OSError("disk full")
        self.connect()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.store.error = None
        self.clock.advance(RETRY_DELAY)
        self.assertEqual(self.numbers(self.pipe), [1])

    def test_a_failed_deletion_is_made_good_by_the_next_pong(self) -> None:
        self.connect()
        self.journal.add(b"{}")
        self.ping()
        self.store.error = OSError("disk full")
        self.outbox.ponged(self.pings[0])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.store.error = None
        self.journal.add(b"{}")
        self.ping()
        self.outbox.ponged(self.pings[1])
        self.assertEqual(self.store.depth(), 0)

    def test_a_connection_lost_while_the_table_is_read_sends_nothing(self) -> None:
        self.journal.add(b"{}")
        self.store.slow = True
        pipe = self.connect()
        self.lose()
        self.store.release()
        self.assertEqual(pipe.texts(), [])

    def test_drained_waits_for_the_last_pong(self) -> None:
        self.connect()
        self.journal.add(b"{}")
        self.ping()
        self.journal.add(b"{}")
        done = self.outbox.drained()
        waiting = Deferred.fromCoroutine(done)
        self.outbox.ponged(self.pings[0])
        self.assertNoResult(waiting)
        self.outbox.ponged(self.pings[1])
        self.assertTrue(self.successResultOf(waiting))

    def test_drained_at_once_when_nothing_waits(self) -> None:
        self.connect()
        self.assertTrue(self.successResultOf(self.outbox.drained()))

    def test_nothing_drains_without_a_connection(self) -> None:
        self.journal.add(b"{}")
        self.assertFalse(self.successResultOf(self.outbox.drained()))

    def test_a_cut_ends_the_wait(self) -> None:
        self.connect()
        self.journal.add(b"{}")
        waiting = Deferred.fromCoroutine(self.outbox.drained())
        self.lose()
        self.assertFalse(self.successResultOf(waiting))

    def test_stopped_it_hears_nothing_and_leaves_no_timer(self) -> None:
        self.connect()
        self.journal.add(b"{}")
        self.outbox.stop()
        self.journal.add(b"{}")
        self.assertEqual(self.numbers(self.pipe), [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])


_step = strategies.sampled_from(["add", "add", "fleeting", "ping", "pong", "cut", "drain", "second"])


class Delivery(SynchronousTestCase):
    @settings(max_examples=150)
    @given(strategies.lists(_step, max_size=80), strategies.sampled_from([1, 200, 1 << 20]))
    def test_every_row_arrives_and_none_is_deleted_unread(self, steps: list[str], capacity: int) -> None:
        clock = Clock()
        store = MemoryStore()
        journal = MemoryJournal(store)
        outbox = Outbox(clock, journal, store)
        outbox.start()
        read: set[int] = set()
        pings: list[tuple[int, Pipe]] = []

        def ping() -> None:
            pings.append((len(pings), pipe))
            outbound.control(b'{"ping":%d}' % (len(pings) - 1))
            outbox.pinged(len(pings) - 1)

        def connect() -> tuple[Pipe, Outbound]:
            pipe = Pipe(capacity)
            return pipe, Outbound(pipe, clock)

        def peer_reads(answer: bool) -> None:
            """The peer reads all that left; it may answer the last ping it saw."""
            last = None
            previous = 0
            for text in pipe.texts():
                message = json.loads(text)
                seq = message.get("event", {}).get("seq")
                last = message.get("ping", last)
                if seq is not None:
                    self.assertGreater(seq, previous)
                    previous = seq
                    read.add(seq)
            if answer and last is not None:
                outbox.ponged(last)
                held = {seq for (seq,) in store.database.execute("SELECT seq FROM outbox")}
                self.assertLessEqual(set(range(1, total + 1)) - held, read)

        total = 0
        pipe, outbound = connect()
        outbox.connected(outbound, ping)
        for step in steps:
            if step == "add":
                total = journal.add(b'{"type":"t"}')
            elif step == "fleeting":
                journal.fleeting_now(b"{}")
            elif step == "ping":
                ping()
            elif step == "pong":
                peer_reads(True)
            elif step == "drain":
                pipe.drain()
            elif step == "second":
                clock.advance(1)
            else:
                peer_reads(False)
                outbound.lost()
                outbox.lost()
                pipe, outbound = connect()
                outbox.connected(outbound, ping)
        waiting = outbox.drained()
        drained = Deferred.fromCoroutine(waiting)
        for _ in range(400):
            if drained.called:
                break
            pipe.drain()
            peer_reads(True)
        self.assertTrue(self.successResultOf(drained))
        self.assertEqual((read, store.depth()), (set(range(1, total + 1)), 0))

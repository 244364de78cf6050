"""What must reach the bridge, in order and across cuts: the rows of the `outbox` table.

A row is deleted only when the bridge is known to have read it. Revision 1 has no acknowledgement, but the
WebSocket is ordered: a pong proves that everything written before its ping was read. After a cut every row
that is not proved is sent again, from the oldest; receivers drop the repeats by `seq` or by `commandId`.

It knows rows, the journal and the outbound order; it does not know what a command or an event means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from uaihost.interfaces import Entry, Journal, Store
from uaihost.link import compression
from uaihost.link.outbound import Outbound
from uaihost.state import outbox as rows

log = Logger()

# Rows read at once, and bytes written of them before the tunnels get their turn.
BATCH_ROWS = 64
BATCH_BYTES = 64 * 1024

# Bytes of control frames that wait for the socket, above which live entries are left in the table.
LIVE_LIMIT = 256 * 1024

# Rows, or seconds, without proof after which a ping is sent early: few rows are repeated after a cut.
PROVE_ROWS = 64
PROVE_DELAY = 1.0

# Pings of ours on their way, above which no early one is added: a slow bridge is not flooded.
PINGS_LIMIT = 16

# Seconds before a failed read of the table is tried again.
RETRY_DELAY = 5.0


class Outbox:
    """Sends rows and live entries through whatever connection there is.

    ponged and pinged are called by the session of the present connection.
    """

    def __init__(self, clock: IReactorTime, journal: Journal, store: Store) -> None:
        self._clock = clock
        self._journal = journal
        self._store = store
        self._passage: _Passage | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Listen to the journal."""
        self._unsubscribe = self._journal.subscribe(self._heard)

    def stop(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self.lost()

    def connected(self, outbound: Outbound, ping: Callable[[], None]) -> None:
        """Send every row from the oldest, then what comes. `ping` sends one now."""
        self.lost()
        self._passage = passage = _Passage(self._clock, self._store, outbound, ping)
        running = Deferred.fromCoroutine(passage.run())
        running.addErrback(lambda failure: log.failure("the outbox stopped", failure))

    def lost(self) -> None:
        """The connection is gone."""
        if self._passage is not None:
            self._passage.end()
            self._passage = None

    def pinged(self, ts: int) -> None:
        """A ping was handed to the socket."""
        if self._passage is not None:
            self._passage.pinged(ts)

    def ponged(self, ts: float) -> None:
        """Its answer came."""
        if self._passage is not None:
            self._passage.ponged(ts)

    async def drained(self) -> bool:
        """Wait until the bridge has read every row; False when there is no connection, or no more."""
        if self._passage is None:
            return False
        return await self._passage.drained()

    def _heard(self, entry: Entry) -> None:
        if self._passage is not None:
            self._passage.heard(entry)


class _Passage:
    """The outbox's work on one connection.

    written: the last row handed to the socket; proved: the last one that the bridge has read;
    unmarked: rows written since the last ping; marks: (ts of a ping, last row before it), oldest first.
    """

    def __init__(
        self, clock: IReactorTime, store: Store, outbound: Outbound, ping: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._store = store
        self._outbound = outbound
        self._ping = ping
        self._over = False
        self._written = 0
        self._proved = 0
        self._unmarked = 0
        self._marks: deque[tuple[int, int]] = deque()
        self._prove: IDelayedCall | None = None
        # Live entries may be sent directly only when the table holds nothing that was not written.
        self._caught_up = False
        self._more = False
        self._wake: Deferred[None] | None = None
        self._drains: list[Deferred[bool]] = []

    async def run(self) -> None:
        """Write the table's rows as there is room, and stay for the connection's life."""
        while not self._over:
            self._more = False
            try:
                entries = await self._store.run(lambda db: rows.pending(db, self._written, BATCH_ROWS))
            except Exception:
                log.failure("the outbox could not be read; trying again")
                await deferLater(self._clock, RETRY_DELAY)
                continue
            await self._write(entries)
            if self._over or entries or self._more:
                continue
            self._caught_up = True
            self._settle()
            self._wake = Deferred()
            await self._wake
            self._caught_up = False
            await self._outbound.room()

    def heard(self, entry: Entry) -> None:
        """A live entry: sent now if nothing is before it; a row that is not is read from the table later."""
        if not self._caught_up:
            self._more = True
        elif self._outbound.control_waiting <= LIVE_LIMIT:
            self._send(entry)
        elif entry.seq is not None:
            self._rouse()

    def pinged(self, ts: int) -> None:
        if self._prove is not None:
            self._prove.cancel()
            self._prove = None
        if self._unmarked:
            self._unmarked = 0
            self._marks.append((ts, self._written))

    def ponged(self, ts: float) -> None:
        """Confirmation is decided here, and nowhere else."""
        if all(mark != ts for mark, _ in self._marks):
            return
        mark, up_to = self._marks.popleft()
        while mark != ts:
            mark, up_to = self._marks.popleft()
        confirming = Deferred.fromCoroutine(self._confirm(up_to))
        confirming.addErrback(lambda failure: log.failure("sent rows could not be deleted", failure))

    def drained(self) -> Deferred[bool]:
        done: Deferred[bool] = Deferred()
        self._drains.append(done)
        self._settle()
        return done

    def end(self) -> None:
        self._over = True
        self._caught_up = False
        if self._prove is not None:
            self._prove.cancel()
            self._prove = None
        self._rouse()
        self._tell_drains(False)

    async def _write(self, entries: list[Entry]) -> None:
        budget = BATCH_BYTES
        for entry in entries:
            if budget <= 0:
                await self._outbound.room()
                budget = BATCH_BYTES
            if self._over:
                return
            self._send(entry)
            budget -= len(entry.payload)
        if entries:
            await self._outbound.room()

    def _send(self, entry: Entry) -> None:
        if entry.seq is not None:
            if entry.seq <= self._written:
                return
            self._written = entry.seq
        payload = _message(entry)
        self._outbound.control(payload, compression.gains(payload))
        if entry.seq is None:
            return
        self._unmarked += 1
        if self._unmarked >= PROVE_ROWS:
            self._hurry()
        elif self._prove is None:
            self._prove = self._clock.callLater(PROVE_DELAY, self._overdue)

    def _overdue(self) -> None:
        self._prove = None
        self._hurry()

    def _hurry(self) -> None:
        if len(self._marks) < PINGS_LIMIT:
            self._ping()

    async def _confirm(self, up_to: int) -> None:
        await self._store.run(lambda db: rows.confirm(db, up_to))
        self._proved = max(self._proved, up_to)
        self._settle()

    def _rouse(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    def _settle(self) -> None:
        """Those who wait for the end of it are told, or the missing proof is asked for."""
        if not self._drains or not self._caught_up:
            return
        if self._proved == self._written:
            self._tell_drains(True)
        elif not self._marks:
            self._ping()

    def _tell_drains(self, empty: bool) -> None:
        drains, self._drains = self._drains, []
        for done in drains:
            done.callback(empty)


def _message(entry: Entry) -> bytes:
    """The frame of an entry. Payloads are encoded once, when they are stored, and only spliced here."""
    if entry.kind == "result":
        return entry.payload
    if entry.seq is None:
        return b'{"kind":"event","event":' + entry.payload + b"}"
    inner = entry.payload[1:] if entry.payload == b"{}" else b"," + entry.payload[1:]
    return b'{"kind":"event","event":{"seq":%d%b}' % (entry.seq, inner)

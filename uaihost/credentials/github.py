"""Users' access to GitHub: proofs.Tokens over the table of connections.

In memory while the host runs, with sealed rows behind it. It alone decides when a token is exchanged, and
stores what came before anybody gets it. It knows no HTTP, and of tasks only that somebody can be told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.credentials.github_connection import Connection, Secrets, check, offer, opened, sealed
from uaihost.credentials.github_exchange import Ended, Exchange, Misconfigured
from uaihost.credentials.github_http import Unanswered
from uaihost.credentials.sealing import Sealer
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Store
from uaihost.state import github as table

log = Logger()

# An access token is renewed so long before its end, seconds: longer than clocks are apart, and than a push.
AHEAD = 300.0
# A token that is refused so soon after it was made is not exchanged again, seconds: it would not help.
FRESH = 60.0
# Seconds until an exchange that failed is tried again: doubled each time, up to a longest, with jitter.
AGAIN, LONGEST_AGAIN = 15.0, 600.0

_LOST = "the refresh token was rotated while the host was killed; connect again"
_LOST_ANSWER = "the refresh token was rotated by an exchange whose answer was lost; connect again"


@attrs.define
class _Renewal:
    """One user's exchanges. waiting: who waits for the one that runs, None when none does; at: when the last
    one was done; failed: how many failed since, until when none is tried, and why; told: the reason that the
    user's tasks know; stale: the access token that a server refused; inherited: an exchange whose answer is
    not known was begun before this daemon was; brought: what came of an exchange and is not stored yet."""

    waiting: list[Deferred[None]] | None = None
    at: float = float("-inf")
    failed: int = 0
    until: float = 0.0
    why: str | None = None
    told: str | None = None
    stale: str | None = attrs.field(default=None, repr=False)
    inherited: bool = False
    brought: Connection | None = None


class GitHubTokens:
    """proofs.Tokens.

    clock: IReactorTime. random: 0 to 1, for jitter. sealer: the key, when it is needed first. host: of the
    GitHub that is asked, say `github.com`. tell: a user's id and a line for that user's running tasks; it
    does not raise.
    """

    def __init__(
        self,
        clock: Any,
        random: Callable[[], float],
        store: Store,
        sealer: Callable[[], Awaitable[Sealer]],
        exchange: Exchange,
        host: str,
        tell: Callable[[str, str], object],
    ) -> None:
        self._clock = clock
        self._random = random
        self._store = store
        self._sealer = sealer
        self._exchange = exchange
        self._host = host
        self._tell = tell
        self._held: dict[str, Connection] = {}
        self._problems: dict[str, str] = {}
        self._renewals: dict[str, _Renewal] = {}
        self._skew = 0.0
        # Grows for as long as the daemon lives, so that no two connections ever share a number.
        self._generation = 0
        # What is said of connections is done in the order in which it was said.
        self._changing = DeferredLock()

    async def load(self) -> None:
        """Read what is stored; what cannot be opened stays as it is and counts as not connected."""
        for row in await self._store.run(table.connections):
            self._generation = max(self._generation, row.generation)
            try:
                self._held[row.user_id] = opened(row, await self._sealer())
            except HostError as error:
                self._problems[row.user_id] = error.message
                log.warn("a connection to GitHub cannot be used: {why}", why=error.message)
                continue
            # What ended before the restart was told before it.
            self._renewals[row.user_id] = _Renewal(told=row.problem, inherited=row.begun is not None)

    # ---- proofs.Tokens

    def login(self, user_id: str) -> str | None:
        held = self._held.get(user_id)
        return held.login if held else None

    def host(self, user_id: str) -> str | None:
        held = self._held.get(user_id)
        return held.host if held else None

    async def access(self, user_id: str, *, renew: bool = False) -> str:
        held, renewal = self._connection(user_id), self._renewal(user_id)
        if renew:
            self.refused(user_id, held.secrets.access or "")
        if renewal.waiting is None:
            if self._lasts(held, renewal):
                return _token(held)
            if held.problem is not None:
                raise self._failed(user_id, held.problem)
            if self._clock.seconds() < renewal.until and renewal.why is not None:
                return self._last_resort(user_id, renewal.why)
        await self._renewed(user_id)
        if renewal.why is not None:
            return self._last_resort(user_id, renewal.why)
        return _token(self._connection(user_id))

    def refused(self, user_id: str, token: str) -> None:
        held = self._held.get(user_id)
        if held is None or held.secrets.access != token:
            return
        renewal = self._renewal(user_id)
        if self._clock.seconds() - renewal.at >= FRESH:
            renewal.stale = token

    # ---- connecting

    async def connect(self, user_id: str, login: str, refresh: str, refresh_ends: float | None) -> None:
        """As `gh.connect.set` says; what was said before changes nothing.

        refresh_ends: seconds since the epoch. Raises:
            HostError: `invalid_args`; `conflict`, GitHub has ended this very connection; `unavailable`.
        """
        check(user_id, login, refresh)
        secrets = Secrets(refresh, refresh_ends=refresh_ends, offered=(offer(refresh),))
        await self._changing.acquire()
        try:
            held = self._held.get(user_id)
            if held is None or not held.secrets.knows(refresh):
                await self._put(Connection(user_id, "app", login, self._host, self._now(), secrets))
            elif held.problem is not None:
                raise HostError(ErrorCode.CONFLICT, held.problem)
        finally:
            self._changing.release()

    async def connect_token(self, user_id: str, token: str) -> str:
        """With a token that the user made; the login that it belongs to.

        Raises:
            HostError: `invalid_args`, GitHub does not take it; `unavailable`, nobody could ask.
        """
        check(user_id, "-", token)
        try:
            login = await self._exchange.whose(token)
        except Ended as error:
            raise HostError(ErrorCode.INVALID_ARGS, f"{error}; nothing was changed") from None
        except Unanswered as error:
            raise HostError(ErrorCode.UNAVAILABLE, f"{error}; nothing was changed, try again") from None
        await self._changing.acquire()
        try:
            await self._put(
                Connection(user_id, "token", login, self._host, self._now(), Secrets(access=token))
            )
        finally:
            self._changing.release()
        self._recovered(self._held.get(user_id))
        return login

    async def clear(self, user_id: str) -> None:
        """Forget both tokens; one that is not connected is no error."""
        await self._changing.acquire()
        try:
            await self._store.run(lambda db: table.remove(db, user_id))
            for known in (self._held, self._problems, self._renewals):
                known.pop(user_id, None)
        finally:
            self._changing.release()

    async def retry(self, user_id: str) -> str:
        """Try at once, whatever failed before; the outcome, for people."""
        held = self._held.get(user_id)
        if held is None:
            return _not_connected(self._problems.get(user_id))
        renewal = self._renewal(user_id)
        if renewal.why is None and held.problem is None and self._lasts(held, renewal):
            return f"Nothing has failed: connected to GitHub as {held.login}."
        await self._renewed(user_id)
        if renewal.why is not None:
            return f"gh authentication expired (reason: {renewal.why})"
        return f"GitHub works again: connected as {held.login}."

    def status(self) -> list[dict[str, Any]]:
        """Each user: how connected, since when, until when, what is wrong. No secret. Times: milliseconds."""
        rows = [
            {
                "userId": held.user_id,
                "form": held.form,
                "login": held.login,
                "host": held.host,
                "since": held.at,
                "expires": None if held.secrets.ends is None else int(held.secrets.ends * 1000),
                "problem": held.problem or self._renewal(held.user_id).why,
            }
            for held in self._held.values()
        ]
        unknown = {"form": "none", "login": None, "host": self._host, "since": None, "expires": None}
        unopened = [{"userId": each, **unknown, "problem": why} for each, why in self._problems.items()]
        return sorted(rows + unopened, key=lambda row: str(row["userId"]))

    # ---- exchanges

    async def _renewed(self, user_id: str) -> None:
        """Wait for the exchange that runs, or for a new one. How it went is in the renewal."""
        renewal = self._renewal(user_id)
        if renewal.waiting is None:
            renewal.waiting = []
            held = self._connection(user_id)
            # Nobody's own: when one who waits is cancelled the others go on, and the new token is stored.
            running = Deferred.fromCoroutine(self._run(held, renewal))
            running.addBoth(self._done, held, renewal)
        if renewal.waiting is not None:
            done: Deferred[None] = Deferred()
            renewal.waiting.append(done)
            await done

    async def _run(self, held: Connection, renewal: _Renewal) -> None:
        if held.form == "token":
            # It cannot be exchanged: all that can be found out is whether it still counts.
            try:
                login = await self._exchange.whose(held.secrets.access or "")
            except Ended as error:
                raise await self._end(held, f"{error}; connect with another one") from None
            await self._keep(held, attrs.evolve(held, login=login, problem=None))
            return
        if renewal.brought is None:
            renewal.brought = await self._exchanged(held, renewal)
        # A disk that is full now may not be later: what came is kept until it is stored, and not asked again.
        await self._keep(held, renewal.brought)
        renewal.brought = None

    async def _exchanged(self, held: Connection, renewal: _Renewal) -> Connection:
        """What a new pair makes of the connection; that one is sent is a row before it is."""
        now = self._now()
        # The key is had before anything is sent, so that nothing but the row's own write can fail afterwards.
        await self._sealer()
        if not await self._store.run(lambda db: table.begin(db, held.user_id, held.generation, now)):
            raise Unanswered("the connection was replaced just now", sent=False)
        try:
            pair = await self._exchange.renew(held.secrets.refresh or "")
        except (Misconfigured, Unanswered) as error:
            if held.begun is None and not getattr(error, "sent", False):
                await self._store.run(lambda db: table.undo(db, held.user_id, held.generation))
            elif self._held.get(held.user_id) is held:
                self._held[held.user_id] = attrs.evolve(held, begun=held.begun or now)
            raise
        except Ended as error:
            lost = _LOST if renewal.inherited else _LOST_ANSWER
            raise await self._end(held, f"{error}; connect again" if held.begun is None else lost) from None
        self._skew = pair.skew
        fresh = attrs.evolve(
            held.secrets,
            access=pair.access,
            ends=pair.ends,
            refresh=pair.refresh or held.secrets.refresh,
            refresh_ends=pair.refresh_ends or held.secrets.refresh_ends,
        )
        return attrs.evolve(held, secrets=fresh, begun=None, problem=None)

    def _done(self, outcome: Failure | None, held: Connection, renewal: _Renewal) -> None:
        now = self._clock.seconds()
        user_id, waiting, renewal.waiting = held.user_id, renewal.waiting or [], None
        if self._renewals.get(user_id) is renewal:
            if isinstance(outcome, Failure):
                self._put_off(outcome, user_id, renewal)
            else:
                renewal.at, renewal.failed, renewal.why, renewal.stale = now, 0, None, None
                renewal.inherited = False
                self._recovered(held)
        for each in waiting:
            if not each.called:
                each.callback(None)

    def _put_off(self, failure: Failure, user_id: str, renewal: _Renewal) -> None:
        error = failure.value
        renewal.failed += 1
        wait = min(AGAIN * 2 ** min(renewal.failed - 1, 16), LONGEST_AGAIN) * (0.75 + self._random() / 2)
        if isinstance(error, Unanswered) and error.wait is not None:
            wait = max(wait, error.wait)
        renewal.until = self._clock.seconds() + wait
        if isinstance(error, Ended | Misconfigured | Unanswered):
            renewal.why = str(error)
        elif isinstance(error, HostError):
            renewal.why = error.message
        else:
            log.failure("a token for GitHub could not be renewed", failure)
            renewal.why = "the token could not be renewed; see the host's log"
        log.warn("a token for GitHub is not renewed: {why}", why=renewal.why)

    async def _end(self, held: Connection, problem: str) -> Ended:
        """GitHub has ended the connection; its row stays, since vendors err too and /retry-gh asks again."""
        await self._store.run(lambda db: table.end(db, held.user_id, held.generation, problem))
        if self._held.get(held.user_id) is held:
            self._held[held.user_id] = attrs.evolve(held, problem=problem)
        return Ended(problem)

    def _recovered(self, held: Connection | None) -> None:
        if held is not None and self._renewal(held.user_id).told is not None:
            self._renewal(held.user_id).told = None
            self._tell(held.user_id, f"GitHub works again: connected as {held.login}.")

    def _last_resort(self, user_id: str, why: str) -> str:
        """No exchange now: the token that is there, while it counts."""
        held, renewal = self._connection(user_id), self._renewal(user_id)
        if self._lasts(held, renewal, 0.0):
            return _token(held)
        raise self._failed(user_id, why)

    def _failed(self, user_id: str, why: str) -> HostError:
        """Told to the user's tasks once, however often it is met."""
        renewal = self._renewal(user_id)
        if renewal.told != why:
            renewal.told = why
            self._tell(user_id, f"gh authentication expired (reason: {why})")
        return HostError(
            ErrorCode.UNAVAILABLE,
            f"gh authentication expired (reason: {why}); when that is put right, /retry-gh in the task's "
            "channel tries at once",
        )

    def _lasts(self, held: Connection, renewal: _Renewal, ahead: float = AHEAD) -> bool:
        secrets = held.secrets
        if secrets.access is None or secrets.access == renewal.stale:
            return False
        now = self._clock.seconds()
        # Some servers give tokens that live shorter than that.
        ahead = 0.0 if now - renewal.at < FRESH else ahead
        return secrets.ends is None or secrets.ends - (now + self._skew) > ahead

    # ---- rows

    async def _put(self, connection: Connection) -> None:
        """A new connection in place of what was there."""
        user_id = connection.user_id
        if user_id in self._problems:
            # It may hold a newer token than this one: it is given up by a person or not at all.
            raise HostError(
                ErrorCode.UNAVAILABLE, f"{self._problems[user_id]}; or disconnect from GitHub first"
            )
        earlier, told = self._held.get(user_id), self._renewal(user_id).told
        secrets = connection.secrets.remembering(earlier.secrets) if earlier else connection.secrets
        made = attrs.evolve(connection, secrets=secrets, generation=self._next())
        row = sealed(made, await self._sealer())
        await self._store.run(lambda db: table.put(db, row))
        self._held[user_id], self._renewals[user_id] = made, _Renewal(told=told)

    async def _keep(self, held: Connection, fresh: Connection) -> None:
        """Store what came of `held` before anybody uses it; nothing, when that was replaced meanwhile."""
        made = attrs.evolve(fresh, generation=self._next())
        row = sealed(made, await self._sealer())
        if await self._store.run(lambda db: table.renew(db, row, held.generation)):
            self._held[held.user_id] = made

    def _connection(self, user_id: str) -> Connection:
        held = self._held.get(user_id)
        if held is None:
            raise HostError(ErrorCode.UNAVAILABLE, _not_connected(self._problems.get(user_id)))
        return held

    def _renewal(self, user_id: str) -> _Renewal:
        return self._renewals.setdefault(user_id, _Renewal())

    def _next(self) -> int:
        self._generation += 1
        return self._generation

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _token(held: Connection) -> str:
    token = held.secrets.access
    if token is None:
        raise HostError(ErrorCode.UNAVAILABLE, "the connection to GitHub was replaced just now; try again")
    return token


def _not_connected(problem: str | None) -> str:
    reason = f" ({problem})" if problem else ""
    return f"not connected to GitHub{reason}; connect it in the app, or type: uaihost github login"

"""The owner's accounts at the vendors of agents: stored sealed, handed out by name.

In memory while the host runs, with rows behind it. It knows no vendor's language: what a login's tokens are
exchanged with is given to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, get_args

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.credentials.formats import check_value
from uaihost.credentials.keys import Keys
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Account, Store
from uaihost.state import accounts as table

log = Logger()

Form = Literal["key", "token", "login"]

# What each provider's programs can be signed in with, the first as shown to people.
FORMS: dict[str, tuple[Form, ...]] = {"claude": ("token", "key"), "codex": ("login", "key")}
# The secrets that each form has. auth: all that the vendor's program keeps of a login, its refresh token too.
NAMES: dict[Form, tuple[str, ...]] = {
    "key": ("key",),
    "token": ("token",),
    "login": ("access", "account_id", "expires_at", "auth"),
}
# A login's access token is renewed so long before its end, seconds: longer than clocks are apart.
AHEAD = 300.0
# Who asks for a fresh token so soon after an exchange was refused the one before it, seconds.
FRESH = 60.0
# Seconds until an exchange that failed is tried again: doubled each time, up to a longest.
AGAIN, LONGEST_AGAIN = 15.0, 600.0


class Exchange(Protocol):
    """Where a login's refresh token is exchanged for a new pair."""

    def read(self, auth: str) -> Mapping[str, str]:
        """The secrets of a login from what its program keeps of it; HostError `invalid_args`."""

    async def renew(self, secrets: Mapping[str, str]) -> Mapping[str, str]:
        """The new secrets of a login. HostError `unavailable` when it cannot be now, `conflict` when the
        vendor has ended the login."""

    async def unstored(self, secrets: Mapping[str, str]) -> Mapping[str, str] | None:
        """What an exchange of these brought that was cut off before it returned; None for nothing."""

    async def settle(self) -> None:
        """What an exchange brought has been stored: clear up after it."""


@attrs.frozen
class _Held:
    form: Form
    at: int
    secrets: Mapping[str, str] = attrs.field(repr=False)

    @property
    def ends(self) -> float:
        """When a login's access token does, seconds since the epoch; 0 when that is not known."""
        try:
            return float(self.secrets.get("expires_at", "0"))
        except ValueError:
            return 0.0


@attrs.define
class _Renewing:
    """One provider's exchanges. waiting: who waits for the one that runs, None when none does; at: when the
    last one was done; failed: exchanges that failed since, and until when none is tried, and why."""

    waiting: list[Deferred[None]] | None = None
    at: float = float("-inf")
    failed: int = 0
    until: float = 0.0
    why: HostError | None = None


class OwnerAccounts:
    """interfaces.Accounts over the table of accounts.

    key: the file of the key that seals. gateways: provider to the address that is asked instead of the
    vendor. exchanges: provider to where its logins are renewed.
    """

    def __init__(
        self,
        clock: Any,
        store: Store,
        keys: Keys,
        gateways: Mapping[str, str | None],
        exchanges: Mapping[str, Exchange] | None = None,
    ) -> None:
        self._clock = clock
        self._store = store
        self._keys = keys
        self._gateways = gateways
        self._exchanges = exchanges or {}
        self._held: dict[str, _Held] = {}
        self._problems: dict[str, str] = {}
        self._renewals: dict[str, _Renewing] = {}
        self._listeners: list[Callable[[str], None]] = []

    async def load(self) -> None:
        """Read what is stored; what cannot be opened stays as it is and counts as not signed in."""
        rows = await self._store.run(table.accounts)
        if not rows:
            return
        try:
            sealer = await self._keys.sealer()
        except HostError as error:
            self._problems = {row.provider: error.message for row in rows}
            log.warn("no account can be used: {why}", why=error.message)
            return
        for row in rows:
            try:
                secrets = json.loads(sealer.open(_place(row.provider), row.secret))
                self._held[row.provider] = _Held(_form(row.form), row.at, secrets)
            except HostError as error:
                self._problems[row.provider] = error.message
                log.warn(
                    "the account {provider} cannot be used: {why}", provider=row.provider, why=error.message
                )

    def account(self, provider: str) -> Account:
        held, gateway = self._held.get(provider), self._gateways.get(provider)
        return Account(held.form if held else "none", gateway)

    async def secret(self, provider: str, name: str, *, renew: bool = False) -> str:
        if name == "access":
            await self._fresh(provider, renew)
        held = self._held.get(provider)
        if held is None:
            raise _signed_out(provider, self._problems.get(provider))
        if name not in held.secrets or name == "auth":
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the account {provider} is signed in by {held.form} and has no {name}; sign in again: "
                f"uaihost login {provider}",
            )
        return held.secrets[name]

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def put(self, provider: str, form: str, secrets: Mapping[str, str]) -> None:
        """Sign in, in place of what was there.

        Raises:
            HostError: `invalid_args` for what cannot be a sign-in; what was there stays.
        """
        if form == "login" and provider in self._exchanges:
            secrets = self._exchanges[provider].read(secrets.get("auth", ""))
        self._check(provider, form, secrets)
        await self._save(provider, _Held(_form(form), self._now(), dict(secrets)))
        self._problems.pop(provider, None)
        self._renewals.pop(provider, None)
        self._tell(provider)

    async def remove(self, provider: str) -> None:
        """Sign out; one that is not signed in is no error."""
        known(provider)
        await self._store.run(lambda db: table.remove(db, provider))
        self._renewals.pop(provider, None)
        gone = (self._problems.pop(provider, None), self._held.pop(provider, None))
        if gone != (None, None):
            self._tell(provider)

    def status(self) -> list[dict[str, Any]]:
        """Each provider: how it is signed in, since when, what is wrong. No secret."""
        return [
            {
                "provider": provider,
                "form": held.form if (held := self._held.get(provider)) else "none",
                "since": held.at if held else None,
                "expires": int(held.ends * 1000) if held and held.form == "login" else None,
                "gateway": self._gateways.get(provider),
                "problem": self._problems.get(provider),
            }
            for provider in FORMS
        ]

    # ---- logins

    async def recover(self) -> None:
        """Store what exchanges brought that a killed daemon did not store; once the engine answers."""
        for provider, exchange in self._exchanges.items():
            held = self._held.get(provider)
            try:
                fresh = await exchange.unstored(held.secrets) if held and held.form == "login" else None
                if held and fresh is not None and self._held.get(provider) is held:
                    await self._save(provider, _Held("login", held.at, {**held.secrets, **fresh}))
                    log.info("stored what the last exchange of {provider} brought", provider=provider)
                await exchange.settle()
            except HostError as error:
                log.warn("what an exchange left is looked for later: {why}", why=error.message)

    async def _fresh(self, provider: str, renew: bool) -> None:
        """The access token is one that can be used; with `renew`, another one than was refused just now."""
        held = self._held.get(provider)
        if held is None or held.form != "login":
            return
        now, renewal = self._clock.seconds(), self._renewals.setdefault(provider, _Renewing())
        if renewal.waiting is None:
            if held.ends - now >= AHEAD and (not renew or now - renewal.at < FRESH):
                return
            if now < renewal.until and renewal.why is not None:
                if held.ends > now and not renew:
                    return
                raise renewal.why
            renewal.waiting = []
            # Nobody's own: when one who waits is cancelled the others go on, and the new token is stored.
            Deferred.fromCoroutine(self._exchange(provider, held)).addBoth(self._exchanged, renewal)
        if renewal.waiting is not None:
            done: Deferred[None] = Deferred()
            renewal.waiting.append(done)
            await done
        if renewal.why is not None and (renew or held.ends <= self._clock.seconds()):
            raise renewal.why

    async def _exchange(self, provider: str, held: _Held) -> None:
        exchange = self._exchanges.get(provider)
        if exchange is None:
            raise _signed_out(provider, "this host cannot renew its login")
        try:
            fresh = await exchange.renew(held.secrets)
        except HostError as error:
            if error.code is ErrorCode.CONFLICT and self._held.get(provider) is held:
                self._problems[provider] = error.message
                del self._held[provider]
                self._tell(provider)
                raise _signed_out(provider, error.message) from None
            raise
        # Signed out, or in anew, meanwhile: these are nobody's any more.
        if self._held.get(provider) is held:
            # The vendor has forgotten the old refresh token: the new one is stored before anything uses it.
            await self._save(provider, _Held("login", held.at, {**held.secrets, **fresh}))
        await exchange.settle()

    def _exchanged(self, outcome: Failure | None, renewal: _Renewing) -> None:
        now = self._clock.seconds()
        renewal.at, renewal.failed, renewal.why = now, 0 if outcome is None else renewal.failed + 1, None
        if isinstance(outcome, Failure):
            renewal.at = float("-inf")
            renewal.until = now + min(AGAIN * 2 ** (renewal.failed - 1), LONGEST_AGAIN)
            renewal.why = _explained(outcome)
            log.warn("a login is not renewed: {why}", why=renewal.why.message)
        waiting, renewal.waiting = renewal.waiting or [], None
        for each in waiting:
            if not each.called:
                each.callback(None)

    # ---- rows

    async def _save(self, provider: str, held: _Held) -> None:
        sealer = await self._keys.sealer()
        sealed = sealer.seal(_place(provider), json.dumps(dict(held.secrets)).encode())
        row = table.AccountRow(provider, held.form, sealed, held.at)
        await self._store.run(lambda db: table.put(db, row))
        self._held[provider] = held

    def _check(self, provider: str, form: str, secrets: Mapping[str, str]) -> None:
        known(provider)
        if form not in FORMS[provider]:
            forms = " or ".join(FORMS[provider])
            raise HostError(
                ErrorCode.INVALID_ARGS, f"{provider} is signed in to by {forms}, not by {form[:40]!r}"
            )
        for name in NAMES[_form(form)]:
            # A gateway has keys of its own making.
            check_value(provider, name, secrets.get(name, ""), strict=self._gateways.get(provider) is None)

    def _tell(self, provider: str) -> None:
        for listener in list(self._listeners):
            listener(provider)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def known(provider: str) -> None:
    """HostError `invalid_args` naming what exists."""
    if provider not in FORMS:
        names = ", ".join(FORMS)
        raise HostError(
            ErrorCode.INVALID_ARGS,
            f"there is no account {provider[:40]!r} to sign in to; choose one of: {names}",
        )


def _form(text: str) -> Form:
    for form in get_args(Form):
        if form == text:
            return form  # type: ignore[no-any-return]
    raise HostError(ErrorCode.UNAVAILABLE, f"an account is stored in a form {text[:40]!r} that is not known")


def _explained(failure: Failure) -> HostError:
    if isinstance(failure.value, HostError):
        return failure.value
    log.failure("a login could not be renewed", failure)
    return HostError(ErrorCode.INTERNAL, "the login could not be renewed; see the host's log")


def _place(provider: str) -> str:
    return f"accounts/{provider}"


def _signed_out(provider: str, why: str | None) -> HostError:
    reason = f" ({why})" if why else ""
    return HostError(
        ErrorCode.UNAVAILABLE, f"nobody is signed in to {provider}{reason}; type: uaihost login {provider}"
    )

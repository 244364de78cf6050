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

from uaihost.credentials.sealing import Sealer
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Account, Store
from uaihost.state import accounts as table

log = Logger()

Form = Literal["key", "token", "login"]

# What each provider's programs can be signed in with, the first as shown to people.
FORMS: dict[str, tuple[Form, ...]] = {"claude": ("token", "key"), "codex": ("login", "key")}
# The secrets that each form has.
NAMES: dict[Form, tuple[str, ...]] = {
    "key": ("key",),
    "token": ("token",),
    "login": ("access", "refresh", "account_id", "expires_at"),
}
# A login's access token is renewed so long before its end, seconds: longer than clocks are apart.
AHEAD = 300.0
LONGEST = 16 << 10


class Exchange(Protocol):
    """Where a login's refresh token is exchanged for a new pair."""

    async def renew(self, secrets: Mapping[str, str]) -> Mapping[str, str]:
        """The new secrets of a login. HostError `unavailable` when it cannot be now, `conflict` when the
        vendor has ended the login."""


@attrs.frozen
class _Held:
    form: Form
    at: int
    secrets: Mapping[str, str] = attrs.field(repr=False)


class OwnerAccounts:
    """interfaces.Accounts over the table of accounts.

    gateways: provider to the address that is asked instead of the vendor. exchanges: provider to where its
    logins are renewed.
    """

    def __init__(
        self,
        clock: Any,
        store: Store,
        sealer: Sealer,
        gateways: Mapping[str, str | None],
        exchanges: Mapping[str, Exchange] | None = None,
    ) -> None:
        self._clock = clock
        self._store = store
        self._sealer = sealer
        self._gateways = gateways
        self._exchanges = exchanges or {}
        self._held: dict[str, _Held] = {}
        self._problems: dict[str, str] = {}
        self._renewing: dict[str, list[Deferred[None]]] = {}
        self._listeners: list[Callable[[str], None]] = []

    async def load(self) -> None:
        """Read what is stored; what cannot be opened stays as it is and counts as not signed in."""
        for row in await self._store.run(table.accounts):
            try:
                secrets = json.loads(self._sealer.open(_place(row.provider), row.secret))
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
        held = self._held.get(provider)
        if held is None:
            raise _signed_out(provider, self._problems.get(provider))
        if held.form == "login" and name == "access":
            if renew or self._ends(held) - self._clock.seconds() < AHEAD:
                await self._renew(provider, held)
            held = self._held.get(provider)
            if held is None:
                raise _signed_out(provider, self._problems.get(provider))
        try:
            return held.secrets[name]
        except KeyError:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the account {provider} is signed in by {held.form} and has no {name}; sign in again: "
                f"uaihost login {provider}",
            ) from None

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def put(self, provider: str, form: str, secrets: Mapping[str, str]) -> None:
        """Sign in, in place of what was there.

        Raises:
            HostError: `invalid_args` for what cannot be a sign-in; what was there stays.
        """
        _check(provider, form, secrets)
        await self._save(provider, _Held(_form(form), self._now(), dict(secrets)))
        self._problems.pop(provider, None)
        self._tell(provider)

    async def remove(self, provider: str) -> None:
        """Sign out; one that is not signed in is no error."""
        known(provider)
        await self._store.run(lambda db: table.remove(db, provider))
        self._problems.pop(provider, None)
        if self._held.pop(provider, None) is not None:
            self._tell(provider)

    def status(self) -> list[dict[str, Any]]:
        """Each provider: how it is signed in, since when, what is wrong. No secret."""
        return [
            {
                "provider": provider,
                "form": held.form if (held := self._held.get(provider)) else "none",
                "since": held.at if held else None,
                "expires": int(self._ends(held) * 1000) if held and held.form == "login" else None,
                "gateway": self._gateways.get(provider),
                "problem": self._problems.get(provider),
            }
            for provider in FORMS
        ]

    # ---- logins

    async def _renew(self, provider: str, held: _Held) -> None:
        """One exchange at a time; whoever asks meanwhile waits for it and takes what it brings."""
        waiting = self._renewing.get(provider)
        if waiting is not None:
            done: Deferred[None] = Deferred()
            waiting.append(done)
            await done
            return
        self._renewing[provider] = []
        try:
            await self._exchange(provider, held)
        finally:
            for each in self._renewing.pop(provider):
                each.callback(None)

    async def _exchange(self, provider: str, held: _Held) -> None:
        exchange = self._exchanges.get(provider)
        if exchange is None:
            raise _signed_out(provider, "this host cannot renew its login")
        try:
            fresh = await exchange.renew(held.secrets)
        except HostError as error:
            if error.code is not ErrorCode.CONFLICT:
                # The vendor may be out of reach for a while; the token that is there may still do.
                if self._ends(held) > self._clock.seconds():
                    log.warn("{provider}'s login is not renewed: {why}", provider=provider, why=error.message)
                    return
                raise
            self._problems[provider] = error.message
            self._held.pop(provider, None)
            self._tell(provider)
            raise _signed_out(provider, error.message) from None
        # The vendor has forgotten the old refresh token: the new one is stored before anything uses it.
        await self._save(provider, _Held("login", held.at, {**held.secrets, **fresh}))

    def _ends(self, held: _Held) -> float:
        try:
            return float(held.secrets.get("expires_at", "0"))
        except ValueError:
            return 0.0

    # ---- rows

    async def _save(self, provider: str, held: _Held) -> None:
        sealed = self._sealer.seal(_place(provider), json.dumps(dict(held.secrets)).encode())
        row = table.AccountRow(provider, held.form, sealed, held.at)
        await self._store.run(lambda db: table.put(db, row))
        self._held[provider] = held

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


def _check(provider: str, form: str, secrets: Mapping[str, str]) -> None:
    known(provider)
    if form not in FORMS[provider]:
        forms = " or ".join(FORMS[provider])
        raise HostError(
            ErrorCode.INVALID_ARGS, f"{provider} is signed in to by {forms}, not by {form[:40]!r}"
        )
    for name in NAMES[_form(form)]:
        value = secrets.get(name, "")
        if not value or len(value) > LONGEST or not value.isprintable() or " " in value:
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"that is no {name} for {provider}: it must be 1 to {LONGEST} characters without spaces",
            )


def _form(text: str) -> Form:
    for form in get_args(Form):
        if form == text:
            return form  # type: ignore[no-any-return]
    raise HostError(ErrorCode.UNAVAILABLE, f"an account is stored in a form {text[:40]!r} that is not known")


def _place(provider: str) -> str:
    return f"accounts/{provider}"


def _signed_out(provider: str, why: str | None) -> HostError:
    reason = f" ({why})" if why else ""
    return HostError(
        ErrorCode.UNAVAILABLE, f"nobody is signed in to {provider}{reason}; type: uaihost login {provider}"
    )

"""What git, gh and ssh prove themselves with: the protocols that the credentials' room provides to others.

Structural (`typing.Protocol`), like those of `interfaces`; they come from a room that holds every secret and
never give away more than what is asked for here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs


@attrs.frozen
class Grant:
    """What credentials may be used for. user_id: whose they are; task_id: where they are used; repositories:
    the addresses of the task's projects, https or ssh, beyond which nothing is proved."""

    user_id: str
    task_id: str
    repositories: tuple[str, ...]


class Tokens(Protocol):
    """Users' access to GitHub (credentials.github)."""

    def login(self, user_id: str) -> str | None:
        """The name that the user is connected by; None when not connected. From memory."""

    def host(self, user_id: str) -> str | None:
        """The host that the user's tokens are for, say `github.com`; None when not connected. From memory."""

    async def access(self, user_id: str, *, renew: bool = False) -> str:
        """An access token that lasts for the next minutes; with `renew`, another than was refused just now.

        One exchange at a time per user, however many ask.

        Raises:
            HostError: `unavailable`, with the reason and what to do.
        """

    def refused(self, user_id: str, token: str) -> None:
        """The server did not take `token`: the next `access` brings another one."""


class SshKeys(Protocol):
    """Users' SSH keys, ed25519 (credentials.ssh_keys)."""

    async def public(self, user_id: str) -> bytes | None:
        """The public key's blob (RFC 8709, section 4); None when the user has no key."""

    async def sign(self, user_id: str, data: bytes) -> bytes:
        """The signature's blob over `data` (RFC 8709, section 6).

        Raises:
            HostError: `not_found`, the user has no key; `unavailable`, it cannot be opened.
        """


class Recovery(Protocol):
    """Another try, when a task's credentials have failed (credentials.proving)."""

    async def retry(self, task_id: str) -> str:
        """Try at once what failed before; the outcome, for the task's channel."""


@attrs.frozen
class PullRequest:
    """url: its page. created: false when one was open already, which stays as it is."""

    number: int
    url: str
    created: bool


class PullRequests(Protocol):
    """Pull requests of a user at the GitHub that the user is connected to (credentials.pull_requests)."""

    async def open(
        self, grant: Grant, address: str, *, head: str, base: str, title: str, body: str, draft: bool
    ) -> PullRequest:
        """As the grant's user, one from the branch `head` into `base` of the repository at `address`; the
        open one if there is.

        Raises:
            HostError: `unavailable` or `conflict`, with what to do.
        """


@attrs.frozen
class Reach:
    """How one run of the host's git proves who it is. settings: further `-c name=value`; env: further
    environment. Neither holds a secret."""

    settings: tuple[str, ...] = ()
    env: Mapping[str, str] = attrs.field(factory=dict)


class Broker(Protocol):
    """Proofs for tasks and for the host's own git (credentials.broker)."""

    def environment(self, own: Collection[str]) -> Mapping[str, str]:
        """Variables for every process in a task's container, without a secret. own: names of the task's."""

    async def open(self, grant: Grant) -> None:
        """The task's sockets, from before its container starts; one that has them gets the new grant."""

    def close(self, task_id: str) -> None:
        """They go; none is no error."""

    def reach(self, user_id: str, url: str) -> AbstractAsyncContextManager[Reach]:
        """For git on the host and this one repository; ends with the block. Empty when the user has nothing
        that would help there."""

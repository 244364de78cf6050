"""What the rooms know of one another: each protocol here is provided by one room and used by others.

Structural (`typing.Protocol`), so that a room can be built and tested with a verified fake of its neighbours.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import attrs
from twisted.internet.interfaces import IPushProducer

from uaihost.wire.events import Event, Fleeting
from uaihost.wire.reasons import Reason

T = TypeVar("T")


# ---- what long work says of itself ------------------------------------------------------------------------


@attrs.frozen
class Doing:
    """What long work is at. text: for people, one line; percent: 0 to 100, None where nobody knows."""

    reason: Reason
    text: str = ""
    percent: int | None = None


# Long work tells its lines, for people, and what it is at. Telling is cheap and never raises.
Say = Callable[[str | Doing], None]


# ---- state and journal ------------------------------------------------------------------------------------


class Store(Protocol):
    """The database (state.database)."""

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` in one transaction, in the database's own thread; calls run in the order they were made."""


@attrs.frozen
class Entry:
    """Something to be sent to the bridge, in order.

    seq: the row's number, growing; None for what is fleeting and has no row.
    kind: what `payload`, a JSON object in UTF-8, is: an event, or a whole `result` frame.
    """

    seq: int | None
    kind: Literal["event", "result"]
    payload: bytes


class Journal(Protocol):
    """Write-ahead: what happened is a row before anybody hears of it (uaihost.events)."""

    async def record(self, *events: Event, write: Callable[[sqlite3.Connection], T]) -> T:
        """In one transaction `write` and a row per event; then, in order, every listener is told.

        Returns what `write` returned. If the transaction fails nothing is stored and nobody is told.
        """

    async def emit(self, *events: Event) -> None:
        """`record` with nothing else to write."""

    def fleeting(self, event: Fleeting) -> None:
        """Tell the listeners now; nothing is stored."""

    def subscribe(self, listener: Callable[[Entry], None]) -> Callable[[], None]:
        """`listener` hears every later entry, in order; the result ends that. It must not wait or raise."""


# ---- link and tunnels -------------------------------------------------------------------------------------


class Outlet(Protocol):
    """One tunnel's ordered way to the other end of the link (link.outbound).

    Frames and data leave in the order they were given, so a close cannot overtake data. The link takes turns
    between outlets; a registered producer is paused while this outlet's share of memory is full.
    """

    def frame(self, payload: bytes) -> None:
        """One text message (an encoded frame)."""

    def write(self, data: bytes) -> None:
        """Bytes of the tunnel: a `tunnel.data` frame and one binary message, never separated."""

    def finish(self, payload: bytes) -> None:
        """The last frame; the outlet is forgotten once it has left."""

    def discard(self) -> None:
        """Throw away what has not left and forget the outlet. Nothing is sent any more."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """`producer` is paused and resumed as room comes and goes."""

    def unregisterProducer(self) -> None:
        """It is not paused or resumed any more."""

    def hint(self, gains: bool | None) -> None:
        """Whether the bytes that follow are worth compressing; None, as at first: to be found out."""

    def credit(self, size: int) -> None:
        """mux.1: the other end takes `size` more bytes of this tunnel."""


class LinkOutput(Protocol):
    """The sending side of the socket, the same at both ends (link.outbound).

    urgent_waiting: bytes of urgent frames that have not left.
    """

    urgent_waiting: int

    @property
    def round_trip(self) -> float | None:
        """Seconds to the other end and back, what waits on the way included, smoothed; None: not known."""

    def control(self, payload: bytes, compress: bool = False) -> None:
        """A text message before anything of the tunnels; in order among its like."""

    def outlet(self, tunnel_id: str) -> Outlet:
        """A tunnel of revision 1: `frame` takes text, `write` puts `tunnel.data` before its bytes."""

    def stream(self, number: int) -> Outlet:
        """A tunnel of mux.1: `frame` and `finish` take frames of wire.mux, `write` makes DATA frames.

        At first wire.mux.TUNNEL_WINDOW bytes may be written out, then what `credit` permits; what has no
        credit waits, and its producer is paused as when the socket is slow.
        """

    def urgent(self, frame: bytes) -> None:
        """A frame of wire.mux before anything that waits in outlets: OPEN, CREDIT and RESET."""

    def credit(self, size: int) -> None:
        """mux.1: the other end takes `size` more bytes of all tunnels together."""


class LinkInput(Protocol):
    """The reading side of the socket to the bridge (link.session)."""

    def hold(self, reason: object) -> None:
        """Stop reading from the socket until every reason is released. Messages already read still arrive."""

    def release(self, reason: object) -> None:
        """Withdraw one reason."""


@attrs.frozen
class Address:
    """Where a tunnel's upstream listens.

    host, port: of this machine; port 0 where none is published. relay: the path of the Unix socket of the
    task's relay (shim/relay.py), which is tried first and asked for `inner`, a port inside the container.
    """

    host: str
    port: int
    relay: str | None = None
    inner: int = 0


class Targets(Protocol):
    """From a task's names to addresses, answered at once from memory (tunnels.targets)."""

    def resolve(self, task_id: str, target: str, name: str | None) -> Address | None:
        """The address of the task's editor or of its preview `name`; None when there is none."""


# ---- containers -------------------------------------------------------------------------------------------


@attrs.frozen
class Mount:
    source: str
    target: str
    read_only: bool = False


@attrs.frozen
class Limits:
    """What one task may use.

    memory, swap: bytes, swap beyond memory; cpus: cores; pids: processes and threads; log: bytes of what its
    first process prints; shm: bytes of /dev/shm, which count as memory; disk: bytes of its work copies, home
    and scratch folder together (watched; the engine's storage drivers mostly have no quota).
    """

    memory: int = 4 << 30
    cpus: float = 2.0
    pids: int = 1024
    swap: int = 0
    log: int = 10 << 20
    shm: int = 256 << 20
    disk: int = 20 << 30


@attrs.frozen
class Launch:
    """What a task's container is made from.

    ports: container ports to publish on 127.0.0.1, each on a host port that the engine chooses.
    env: for every process in it; no secret belongs here, since `docker inspect` shows it.
    network: `own`, one for this task alone; `none`, only loopback: what it reaches goes through sockets.
    read_only: the image's files cannot be changed; what is to be written is mounted.
    """

    task_id: str
    image: str
    uid: int
    gid: int
    mounts: tuple[Mount, ...]
    ports: tuple[int, ...]
    env: Mapping[str, str] = attrs.field(factory=dict)
    limits: Limits = attrs.field(factory=Limits)
    network: Literal["own", "none"] = "own"
    read_only: bool = False


@attrs.frozen
class Container:
    """A task's container as the engine sees it now.

    state: created, running, paused, restarting, exited or dead; ports: container port to host port, only
    while it runs; started_at: milliseconds since the epoch.
    """

    id: str
    task_id: str
    state: str
    ports: Mapping[int, int]
    started_at: int | None = None
    exit_code: int | None = None
    out_of_memory: bool = False


@attrs.frozen
class Usage:
    """memory: bytes without the page cache, as the engine's own tools show it."""

    memory: int
    cpu_percent: float


@attrs.frozen
class Ran:
    """The end of a command that ran in a container."""

    status: int
    out: bytes
    err: bytes


@attrs.frozen
class Step:
    """A step of the set-up in a container, as its first process reports it."""

    step: str
    state: Literal["started", "done", "failed"]
    message: str | None = None
    elapsedMs: int | None = None


class Engine(Protocol):
    """The container engine (containers.daemon). Every call may raise HostError `unavailable`."""

    async def ping(self) -> str:
        """The engine's version."""

    async def launch(self, launch: Launch) -> Container:
        """The task's container, made with its network and started; one that exists is started and returned.

        A failure leaves neither container nor network behind.
        """

    async def find(self, task_id: str) -> Container | None:
        """The task's container, or None."""

    async def all(self) -> list[Container]:
        """Every container of this host's tasks."""

    async def remove(self, task_id: str) -> None:
        """End and remove the task's container and network; what is not there is no error."""

    async def sweep(self, known: set[str]) -> list[str]:
        """Remove containers and networks of this host whose task is not in `known`; the tasks they had.

        A task that is launched meanwhile must be in `known`.
        """

    async def usage(self, task_id: str) -> Usage:
        """What it uses now; HostError `not_found` when it does not run."""

    async def execute(
        self,
        task_id: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Ran:
        """Run a short command in it as its user and wait for its end."""

    async def start_process(
        self,
        task_id: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        """Start a command in it that goes on by itself, detached from the daemon."""

    async def log_tail(self, task_id: str, lines: int) -> str:
        """The last lines that its first process printed."""


# ---- accounts at vendors ----------------------------------------------------------------------------------


@attrs.frozen
class Account:
    """How an agent proves to its vendor who it is, without the proof.

    form: `key`, an API key; `token`, a long-lived token; `login`, short-lived access tokens that the host
    renews; `none`, nobody is signed in. base_url: of a gateway that is asked instead of the vendor.
    """

    form: Literal["key", "token", "login", "none"] = "none"
    base_url: str | None = None


class Accounts(Protocol):
    """The accounts of this host's owner, by provider: claude, codex (credentials.accounts)."""

    def account(self, provider: str) -> Account:
        """Answered at once, from memory."""

    async def secret(self, provider: str, name: str, *, renew: bool = False) -> str:
        """`key`, `token`, `access` or `account_id`. A login's access token is renewed before it ends, or now
        with `renew`: one exchange at a time, however many ask.

        Raises:
            HostError: `unavailable`, with what the owner has to type.
        """

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """`listener` hears the provider whose sign-in has changed; the result ends that."""


# ---- agents and channel -----------------------------------------------------------------------------------


@attrs.frozen
class AgentStatus:
    id: str
    state: str


Json = dict[str, Any]

"""How the bridge is, for whoever runs it: whether it is ready, and its figures for Prometheus.

Figures are made anew at each request; every value of every label is there from the start. They hold numbers
alone: no host's id, no task's, no address. docs/observability.md has the table of FIGURES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request, Site

from uaihost import __version__
from uaihost.bridge import store
from uaihost.bridge.calls import Calls
from uaihost.bridge.feed import Feed
from uaihost.bridge.hosts import FEED_LIMIT, Hosts
from uaihost.counts import LATENESS, Histogram
from uaihost.interfaces import Store
from uaihost.web.lag import ReactorLag
from uaihost.web.metrics import TYPE, Figure

log = Logger()

# Seconds for which an answer of the database counts: who asks without a key causes no more work than this.
FRESH = 5.0

STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")

FIGURES = {
    figure.name: figure
    for figure in (
        Figure("uaibridge_info", "gauge", ("version",), "The running version; always 1."),
        Figure("uaibridge_hosts_connected", "gauge", (), "Hosts that are connected."),
        Figure("uaibridge_hosts_known", "gauge", (), "Hosts that were ever connected."),
        Figure("uaibridge_host_connects_total", "counter", (), "Connections of hosts that were let in."),
        Figure("uaibridge_host_refusals_total", "counter", (),
               "Connections that were refused: an unknown token, or no proper `auth` in time."),
        Figure("uaibridge_host_losses_total", "counter", (), "Connections of hosts that ended."),
        Figure("uaibridge_commands_waiting", "gauge", (), "Commands that hosts have not answered."),
        Figure("uaibridge_events_waiting", "gauge", (), "Items of the event log that are not stored yet."),
        Figure("uaibridge_requests_total", "counter", ("status",),
               "Requests to the app that ended, by class of status; previews are tunnels."),
        Figure("uaibridge_tunnels_open", "gauge", (), "Tunnels in use."),
        Figure("uaibridge_tunnels_opened_total", "counter", (), "Tunnels that a host was asked for."),
        Figure("uaibridge_tunnel_bytes_total", "counter", ("direction",),
               "Bytes in tunnels: `received` from hosts, `sent` to them."),
        Figure("uaibridge_reactor_lag_seconds", "gauge", (),
               "How late a timer of the reactor fired, the worst of the last minute."),
        Figure("uaibridge_reactor_lateness_seconds", "histogram", (),
               "How late the reactor's timers fired, four looks a second."),
    )
}  # fmt: skip


class Wellness:
    """Of one bridge. `start` and `stop` begin and end the look at the reactor."""

    def __init__(self, database: Store, feed: Feed, hosts: Hosts, calls: Calls, clock: IReactorTime) -> None:
        self._database = database
        self._feed = feed
        self._hosts = hosts
        self._calls = calls
        self._clock = clock
        self._lateness = Histogram(LATENESS)
        self._lag = ReactorLag(clock, self._lateness)
        self._requests = dict.fromkeys(STATUSES, 0)
        # Whether the database answered when it was asked last, and when that was.
        self._answers = True
        self._asked = float("-inf")

    def start(self) -> None:
        self._lag.start()

    def stop(self) -> None:
        self._lag.stop()

    def answered(self, status: int) -> None:
        """A request has its answer."""
        self._requests[f"{status // 100}xx"] += 1

    async def ready(self) -> bool:
        """Whether it can take what hosts and people say: the database answers, and the event log keeps up."""
        now = self._clock.seconds()
        if now - self._asked >= FRESH:
            self._asked = now
            try:
                await self._database.run(store.last_event)
                self._answers = True
            except Exception:
                self._answers = False
                log.failure("the bridge's database does not answer")
        return self._answers and len(self._feed) <= FEED_LIMIT

    def exposition(self, request: Request) -> bytes:
        """The figures, as the answer of a request."""
        request.setHeader("Content-Type", TYPE)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(self._values(), self._lateness))
        ProcessCollector(registry=registry)
        return generate_latest(registry)

    def _values(self) -> Mapping[str, Mapping[tuple[str, ...], float]]:
        hosts, traffic = self._hosts, self._hosts.traffic
        return {
            "uaibridge_info": {(__version__,): 1},
            "uaibridge_hosts_connected": {(): len(hosts.connected_ids())},
            "uaibridge_hosts_known": {(): hosts.known},
            "uaibridge_host_connects_total": {(): hosts.connects},
            "uaibridge_host_refusals_total": {(): hosts.refusals},
            "uaibridge_host_losses_total": {(): hosts.losses},
            "uaibridge_commands_waiting": {(): len(self._calls)},
            "uaibridge_events_waiting": {(): len(self._feed)},
            "uaibridge_requests_total": {(status,): count for status, count in self._requests.items()},
            "uaibridge_tunnels_open": {(): hosts.open_tunnels},
            "uaibridge_tunnels_opened_total": {(): traffic.opened},
            "uaibridge_tunnel_bytes_total": {("received",): traffic.received, ("sent",): traffic.sent},
            "uaibridge_reactor_lag_seconds": {(): self._lag.worst},
        }


class CountedSite(Site):
    """A site that counts its answers and writes no log of them. answered: told each one's status."""

    displayTracebacks = False
    noisy = False

    def __init__(self, answered: Callable[[int], object], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answered = answered

    def log(self, request: Any) -> None:
        """It has its answer."""
        self._answered(request.code)


class _Families(Collector):
    def __init__(self, values: Mapping[str, Mapping[tuple[str, ...], float]], lateness: Histogram) -> None:
        self._values = values
        self._lateness = lateness

    def collect(self) -> Iterable[Metric]:
        for name, figure in FIGURES.items():
            family: Any = figure.family()
            if figure.kind == "histogram":
                family.add_metric([], self._lateness.cumulative(), self._lateness.sum)
            for labels, value in self._values.get(name, {}).items():
                family.add_metric(list(labels), value)
            yield family

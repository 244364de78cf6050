"""The figures as a Prometheus server reads them, and the reactor's lag."""

from __future__ import annotations

import inspect
import re
from math import isnan
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost import app, rooms
from uaihost.counts import OUTCOMES, Counts, Tally
from uaihost.credentials import audit
from uaihost.link.link import CODES
from uaihost.tunnels.tunnel import Traffic
from uaihost.web import metrics
from uaihost.web.lag import PERIOD, ReactorLag
from uaihost.web.metrics import _POOLS, FIGURES, exposition
from uaihost.wire.reasons import Reason

WAITING = {"reason": "cloning", "text": "x", "since": 990_000, "percent": 43}
STATUS: dict[str, Any] = {
    "version": "1.2",
    "hostId": "h",
    "bridge": {"url": "ws://b", "state": "connected", "reason": "", "retryAt": None},
    "outbox": 3,
    "commands": 1,
    "tunnels": 2,
    "reactorLag": 0.25,
    "egress": {"allowed": 7, "blocked": 2},
    "disk": {"mirrors": 10, "images": 20},
    "tasks": [
        {
            "id": "one",
            "status": "running",
            "usage": {"memoryBytes": 1024, "cpuPercent": 150.0},
            "steps": [{"step": "clone shop", "elapsedMs": 1500}, {"step": "setup", "elapsedMs": None}],
        },
        {"id": "two", "status": "preparing", "waiting": WAITING},
    ],
}


def read(status: dict[str, Any]) -> dict[tuple[str, ...], float]:
    """Name and sorted label values to the value, as a scraper reads them."""
    found = {}
    for family in text_string_to_metric_families(exposition(status, 1000.0).decode()):
        for sample in family.samples:
            found[(sample.name, *sorted(sample.labels.values()))] = sample.value
    return found


class MetricsTests(SynchronousTestCase):
    def test_every_figure(self) -> None:
        found = read(STATUS)
        for key, value in {
            ("uaihost_info", "1.2"): 1,
            ("uaihost_link_up",): 1,
            ("uaihost_outbox_rows",): 3,
            ("uaihost_tunnels_open",): 2,
            ("uaihost_reactor_lag_seconds",): 0.25,
            ("uaihost_tasks", "running"): 1,
            ("uaihost_tasks", "failed"): 0,
            ("uaihost_task_memory_bytes", "one"): 1024,
            ("uaihost_task_cpu_cores", "one"): 1.5,
            ("uaihost_task_step_seconds", "clone shop", "one"): 1.5,
            ("uaihost_tasks_waiting", "cloning"): 1,
            ("uaihost_tasks_waiting", "memory"): 0,
            ("uaihost_task_waiting_seconds", "cloning", "two"): 10,
            ("uaihost_egress_connections_total", "blocked"): 2,
            ("uaihost_disk_bytes", "images"): 20,
        }.items():
            self.assertEqual(found[key], value, key)
        self.assertNotIn(("uaihost_task_step_seconds", "setup", "one"), found)

    def test_every_reason_is_there_also_when_nothing_waits(self) -> None:
        found = read({**STATUS, "tasks": []})
        self.assertEqual({key[1] for key in found if key[0] == "uaihost_tasks_waiting"}, set(Reason))

    def test_a_host_that_is_offline(self) -> None:
        found = read({**STATUS, "bridge": {**STATUS["bridge"], "state": "waiting"}})
        self.assertEqual(found[("uaihost_link_up",)], 0)

    def test_what_is_not_known_yet_is_left_out(self) -> None:
        bare = {
            name: STATUS[name] for name in ("version", "bridge", "outbox", "commands", "tunnels", "tasks")
        }
        self.assertEqual(read(bare)[("uaihost_egress_connections_total", "blocked")], 0)

    def test_what_began_has_ended_or_runs(self) -> None:
        counts = Counts()
        counts.commands.begin().end("failed")
        counts.commands.begin()
        counts.turns.begin()
        # One more command has come and not begun: `commands` of the status counts it, the figures do not.
        found = read({**STATUS, "commands": 2, "counts": counts.view()})
        for name in ("commands", "turns"):
            ended = {outcome: found[(f"uaihost_{name}_ended_total", outcome)] for outcome in OUTCOMES}
            running = found[(f"uaihost_{name}_running",)]
            self.assertEqual(found[(f"uaihost_{name}_started_total",)], sum(ended.values()) + running)
            self.assertEqual(running, 1)
        self.assertEqual(found[("uaihost_commands_ended_total", "failed")], 1)

    def test_calls_and_lateness_are_histograms(self) -> None:
        counts = Counts()
        counts.pool("engine").begin().end("failed")
        counts.pool("engine").seconds.add(0.3)
        counts.lateness.add(0.002)
        found = read({**STATUS, "counts": counts.view()})
        self.assertEqual(found[("uaihost_blocking_calls_total", "engine", "failed")], 1)
        self.assertEqual(found[("uaihost_blocking_calls_total", "completed", "database")], 0)
        self.assertEqual(found[("uaihost_blocking_seconds_bucket", "0.5", "engine")], 1)
        self.assertEqual(found[("uaihost_blocking_seconds_bucket", "0.1", "engine")], 0)
        self.assertEqual(found[("uaihost_reactor_lateness_seconds_count",)], 1)

    def test_the_oldest_row_and_the_round_trip(self) -> None:
        counted = {**Counts().view(), "roundTrip": 0.04}
        space = {"budget": 50, "free": 7}
        found = read({**STATUS, "outboxOldest": 998_000, "space": space, "counts": counted})
        self.assertEqual(found[("uaihost_outbox_oldest_seconds",)], 2)
        self.assertEqual(found[("uaihost_link_round_trip_seconds",)], 0.04)
        self.assertEqual(found[("uaihost_disk_budget_bytes",)], 50)
        self.assertEqual(found[("uaihost_disk_free_bytes",)], 7)
        self.assertTrue(isnan(read(STATUS)[("uaihost_link_round_trip_seconds",)]))

    def test_a_host_after_work_shows_no_line_that_a_fresh_one_does_not(self) -> None:
        counts = Counts()
        for pool in _POOLS:
            with counts.pool(pool).run():
                counts.pool(pool).seconds.add(0.1)
        link = Tally(CODES)
        for code in (*CODES, "4321"):
            link.add(code)
        worked = {
            **counts.view(),
            "link": {"connects": 9, "failures": 1, "losses": link.values, "connectedAt": 9.0},
            "tunnels": {"opened": 6, "refused": 1, "received": 1, "sent": 1, "ended": dict(Traffic().ended)},
            "builds": counts.turns.view(),
            "renewals": counts.turns.view(),
            "uses": [["git", "refused", 4], ["sign", "ok", 1]],
            "happened": {"wake": 2},
            "queued": 3,
            "roundTrip": 0.1,
        }
        status = {**STATUS, "counts": worked, "disk": {"mirrors": 1, "trash": 2}}
        fresh = read({**STATUS, "tasks": [], "disk": None})
        after = read({**status, "space": {"budget": 1, "free": 2}})
        of_tasks = {name for name, figure in FIGURES.items() if "task" in figure.labels}
        self.assertEqual({key for key in after if key[0] not in of_tasks}, set(fresh))
        for key, value in {
            ("uaihost_credential_uses_total", "git", "refused"): 4,
            ("uaihost_task_changes_total", "wake"): 2,
            ("uaihost_channel_queued",): 3,
            ("uaihost_link_connected_timestamp_seconds",): 9,
            ("uaihost_link_losses_total", "other"): 1,
            ("uaihost_blocking_calls_started_total", "engine"): 1,
        }.items():
            self.assertEqual(after[key], value, key)

    def test_labels_are_those_of_the_rooms(self) -> None:
        self.assertEqual(metrics.CODES, CODES)
        self.assertEqual(metrics.ENDINGS, tuple(Traffic().ended))
        self.assertEqual((metrics.USES, metrics.USED), (audit.KINDS, audit.OUTCOMES))
        made = re.findall(r'threads\("([a-z]+)", ', inspect.getsource(rooms) + inspect.getsource(app))
        self.assertEqual(set(made), set(_POOLS))

    def test_names_and_helps_are_as_prometheus_wants_them(self) -> None:
        families = list(text_string_to_metric_families(exposition(STATUS, 1000.0).decode()))
        names = [family.name for family in families]
        self.assertEqual(len(names), len(set(names)))
        for family in families:
            if not family.name.startswith("uaihost_"):
                continue
            figure = FIGURES.get(family.name) or FIGURES[f"{family.name}_total"]
            self.assertEqual((family.type, family.documentation), (figure.kind, figure.meaning))
            self.assertEqual(figure.name.endswith("_total"), figure.kind == "counter")
            self.assertRegex(figure.name, r"^uaihost_[a-z_]+$")
            self.assertTrue(figure.meaning.endswith("."))
            if figure.kind == "histogram":
                self.assertTrue(figure.name.endswith("_seconds"))
        shown = {family.name for family in families}
        self.assertEqual({name.removesuffix("_total") for name in FIGURES} - shown, set())

    def test_the_process_itself_is_there(self) -> None:
        self.assertGreater(read(STATUS)[("process_resident_memory_bytes",)], 1 << 20)


class LagTests(SynchronousTestCase):
    def test_the_worst_of_the_last_minute(self) -> None:
        clock = Clock()
        lag = ReactorLag(clock)
        lag.start()
        clock.pump([PERIOD] * 8)
        self.assertEqual(lag.worst, 0.0)
        clock.advance(PERIOD + 0.5)
        self.assertAlmostEqual(lag.worst, 0.5)
        clock.pump([PERIOD] * 300)
        self.assertEqual(lag.worst, 0.0)
        lag.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

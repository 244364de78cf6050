"""The dashboard and the alerts name figures that the host has, with their labels, by functions of PromQL."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from click import Context
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli.main import cli
from uaihost.web.metrics import FIGURES

FOLDER = Path(__file__).parents[3] / "dashboards"
DOCUMENT = Path(__file__).parents[3] / "docs" / "observability.md"

# Of prometheus.io/docs/prometheus/latest/querying/functions and /operators: what stands here.
FUNCTIONS = {"rate", "increase", "histogram_quantile", "sum", "label_values"}
WORDS = {"by", "and", "le"}
# What prometheus_client says of any process.
PROCESS = {"process_resident_memory_bytes": (), "process_open_fds": ()}

NAME = re.compile(r"(?<![\w\"$])([a-z][a-z0-9_]*)(\{[^}]*\})?")
LABEL = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")


def labels_of(name: str) -> tuple[str, ...] | None:
    """The labels of a metric as it is queried; None when there is none of that name."""
    bare = name.removesuffix("_bucket")
    if name in PROCESS:
        return PROCESS[name]
    figure = FIGURES.get(bare)
    if figure is None or (bare != name) != (figure.kind == "histogram"):
        return None
    return (*figure.labels, "le") if bare != name else figure.labels


def problems(expression: str) -> list[str]:
    """What is wrong with a query, as far as names go."""
    found = []
    if expression.count("(") != expression.count(")") or expression.count("{") != expression.count("}"):
        found.append("brackets")
    grouped = {
        word for group in re.findall(r"by \(([^)]*)\)", expression) for word in re.split(r",\s*", group)
    }
    text = re.sub(r"by \([^)]*\)|\[\d+[smh]\]|\"[^\"]*\"(?![^{]*\})", " ", expression)
    known = {"job"}
    for match in NAME.finditer(re.sub(r"\d+(?:\.\d+)?(?:e\d+)?", " ", text)):
        name, labels = match[1], match[2] or ""
        if name in FUNCTIONS | WORDS:
            continue
        allowed = labels_of(name)
        if allowed is None:
            found.append(f"no figure {name}")
            continue
        known |= {*allowed}
        found += [
            f"{name} has no {label}" for label in LABEL.findall(labels) if label not in {*allowed, "job"}
        ]
    return found + [f"nothing has {label}" for label in grouped - known]


class DashboardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.dashboard: dict[str, Any] = json.loads((FOLDER / "uaihost.json").read_text(encoding="utf-8"))

    def test_every_query_names_what_is_there(self) -> None:
        for panel in self.dashboard["panels"]:
            self.assertTrue(panel["targets"], panel["title"])
            for target in panel["targets"]:
                self.assertEqual(problems(target["expr"]), [], f"{panel['title']}: {target['expr']}")

    def test_every_figure_is_shown_or_said_to_be_for_queries(self) -> None:
        shown = " ".join(target["expr"] for panel in self.dashboard["panels"] for target in panel["targets"])
        left = {name for name in FIGURES if name not in shown}
        self.assertEqual(
            left,
            {
                "uaihost_info",
                "uaihost_blocking_calls_started_total",
                "uaihost_link_connected_timestamp_seconds",
                "uaihost_link_state",
                "uaihost_outbox_oldest_seconds",
                "uaihost_task_step_seconds",
                "uaihost_task_waiting_seconds",
            },
        )

    def test_no_two_panels_lie_on_one_another(self) -> None:
        taken: set[tuple[int, int]] = set()
        ids = set()
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            taken |= cells
            ids.add(panel["id"])
        self.assertEqual(len(ids), len(self.dashboard["panels"]))

    def test_the_check_itself_finds_mistakes(self) -> None:
        for wrong in (
            "uaihost_nothing",
            "rate(uaihost_tasks{colour='red'}[5m])",
            "uaihost_reactor_lateness_seconds",
            "uaihost_tasks_bucket",
            "sum by (colour) (uaihost_tasks)",
            "rat(uaihost_tasks)",
            "rate(uaihost_tasks",
        ):
            self.assertNotEqual(problems(wrong), [], wrong)


class AlertTests(SynchronousTestCase):
    def test_each_alert_names_what_is_there_and_says_what_to_do(self) -> None:
        [group] = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
        names = [rule["alert"] for rule in group["rules"]]
        self.assertEqual(len(names), len(set(names)))
        for rule in group["rules"]:
            self.assertEqual(problems(rule["expr"]), [], rule["alert"])
            self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
            said = rule["annotations"]["description"]
            self.assertTrue(rule["annotations"]["summary"] and said)
            for verb in re.findall(r"uaihost ([a-z-]+)", said):
                self.assertIsNotNone(cli.get_command(Context(cli), verb), said)


class TableTests(SynchronousTestCase):
    def test_the_document_has_every_figure(self) -> None:
        rows = []
        for figure in FIGURES.values():
            labels = ", ".join(f"`{label}`" for label in figure.labels)
            rows.append(f"| `{figure.name}` | {figure.kind} | {labels} | {figure.meaning} |")
        self.assertIn("\n".join(rows), DOCUMENT.read_text(encoding="utf-8"))

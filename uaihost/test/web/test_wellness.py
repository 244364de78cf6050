"""What the owner should look at; and on an ordinary day, nothing."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import click
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli.main import cli
from uaihost.test.web.sample import GIB, GOOD, NOW, bad, good
from uaihost.web import wellness
from uaihost.web.wellness import warnings


class WellnessTests(SynchronousTestCase):
    def about(self, **changes: Any) -> list[tuple[str, str]]:
        status = copy.deepcopy(GOOD)
        for name, value in changes.items():
            status[name] = {**status[name], **value} if isinstance(value, dict) else value
        found = warnings(status, NOW)
        for one in found:
            self.assertTrue(one["text"] and one["fix"], one)
        return [(one["level"], one["about"]) for one in found]

    def task(self, **changes: Any) -> list[dict[str, Any]]:
        return [{**GOOD["tasks"][0], **changes}]

    def test_an_ordinary_day(self) -> None:
        self.assertEqual(good()["warnings"], [])

    def test_the_worst_comes_first(self) -> None:
        levels = [one["level"] for one in bad()["warnings"]]
        self.assertEqual(levels, ["bad", "bad", "note"])

    def test_the_bridge(self) -> None:
        gone = {"state": "waiting", "reason": "refused"}
        self.assertEqual(self.about(bridge={**gone, "since": NOW - 31}), [("bad", "bridge")])
        self.assertEqual(self.about(bridge={**gone, "since": NOW - 5}), [], "it may be back in a moment")
        fatal = {"state": "fatal", "reason": "unknown token", "since": NOW}
        self.assertEqual(self.about(bridge=fatal), [("bad", "bridge")])
        self.assertEqual(self.about(outbox=5000), [("note", "bridge")])

    def test_the_engine(self) -> None:
        self.assertEqual(self.about(engine={"answers": False}), [("bad", "engine")])
        self.assertEqual(self.about(engine={"answers": None}), [("bad", "engine")])
        early = int((NOW - 3) * 1000)
        self.assertEqual(self.about(engine={"answers": None}, startedAt=early), [], "it was not asked yet")

    def test_the_image(self) -> None:
        self.assertEqual(self.about(image={"state": "failed", "message": "no space"}), [("bad", "image")])
        for state in ("missing", "building", "unknown"):
            self.assertEqual(self.about(image={"state": state}), [], "the first task builds it")

    def test_the_disk(self) -> None:
        self.assertEqual(self.about(space={"low": True}), [("bad", "disk")])
        self.assertEqual(self.about(space={"used": 51 * GIB}), [("note", "disk")])
        self.assertEqual(self.about(space={"used": None}), [])

    def test_accounts_and_kinds(self) -> None:
        ended = [{**GOOD["agents"]["accounts"][0], "problem": "the login has ended"}]
        self.assertEqual(self.about(agents={"accounts": ended}), [("bad", "agents")])
        none = [{"kind": "claude", "title": "Claude Code", "problem": "not signed in"}]
        self.assertEqual(self.about(agents={"kinds": none}), [("bad", "agents")])
        github = [{**GOOD["github"][0], "problem": "the refresh token has ended"}]
        self.assertEqual(self.about(github=github), [("bad", "github")])

    def test_tasks(self) -> None:
        self.assertEqual(self.about(tasks=self.task(status="failed")), [("note", "tasks")])
        since = int((NOW - 1000) * 1000)
        long = {"reason": "memory", "text": "4 GiB free are needed", "since": since}
        self.assertEqual(self.about(tasks=self.task(waiting=long)), [("note", "tasks")])
        self.assertEqual(self.about(tasks=self.task(waiting={**long, "reason": "parked"})), [])
        self.assertEqual(self.about(tasks=self.task(waiting={**long, "since": GOOD["now"]})), [])

    def test_what_to_type_can_be_typed(self) -> None:
        source = inspect.getsource(wellness)
        typed = re.findall(r"`uaihost ([a-z-]+)((?: [a-z-]+)*)", source)
        self.assertGreaterEqual(len(typed), 5)
        for verb, rest in typed:
            command = cli.get_command(click.Context(cli), verb)
            assert command is not None, verb
            options = {option for one in command.params for option in one.opts}
            for word in rest.split():
                known = isinstance(command, click.Group) and command.get_command(click.Context(command), word)
                self.assertTrue(known or word in options or word == "claude", (verb, word))

    def test_the_host_itself(self) -> None:
        self.assertEqual(self.about(reactorLag=2.5), [("note", "host")])
        self.assertEqual(self.about(draining=True), [("note", "host")])

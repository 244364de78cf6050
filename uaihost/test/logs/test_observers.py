"""Where the process's records go, and what is not passed on."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.application import service
from twisted.logger import ILogObserver, Logger, LogPublisher
from twisted.trial.unittest import TestCase

from uaihost.logs.observers import ProcessLog
from uaihost.logs.twistd import Logged, console_log


class ProcessLogTests(TestCase):
    def setUp(self) -> None:
        self.process = ProcessLog("info")
        self.log = Logger("uaihost.room", observer=LogPublisher(self.process))

    def test_lines_for_people_and_for_machines(self) -> None:
        people, machines = io.StringIO(), io.StringIO()
        self.process.to_stream(people, "text")
        self.process.to_stream(machines, "json")
        self.log.info("hello", task="t1")
        self.assertTrue(people.getvalue().endswith(" info  uaihost.room: hello task=t1\n"))
        self.assertEqual(json.loads(machines.getvalue())["task"], "t1")

    def test_what_is_below_the_level_is_not_kept(self) -> None:
        self.log.debug("nothing")
        self.assertEqual(self.process.recent.after(), [])

    def test_a_stream_can_take_less(self) -> None:
        loud = io.StringIO()
        self.process.to_stream(loud, "text", least="error")
        self.log.info("quiet")
        self.log.error("loud")
        self.assertEqual(loud.getvalue().count("\n"), 1)

    def test_the_file_begins_with_what_was_logged_before_it_was_opened(self) -> None:
        path = Path(self.mktemp())
        self.log.info("before")
        self.process.open_file(path)
        self.log.info("after")
        self.process.close()
        self.log.info("too late")
        found = [json.loads(text)["message"] for text in path.read_text().splitlines()]
        self.assertEqual(found, ["before", "after"])

    def test_a_reader_that_logs_hears_only_what_others_say(self) -> None:
        heard: list[Any] = []

        def reader(made: Any) -> None:
            heard.append(made["message"])
            self.log.info("heard it")

        self.process.to(reader)
        self.log.info("said")
        self.assertEqual(heard, ["said"])

    def test_a_stream_that_is_gone_harms_nothing(self) -> None:
        gone = io.StringIO()
        self.process.to_stream(gone, "text")
        gone.close()
        self.log.info("said")
        self.assertEqual(len(self.process.recent.after()), 1)

    def test_a_console_without_these_letters_gets_their_numbers(self) -> None:
        raw = io.BytesIO()
        self.process.to_stream(io.TextIOWrapper(raw, encoding="ascii", write_through=True), "text")
        self.log.info("grün")
        self.assertIn(b"gr\\xfcn\n", raw.getvalue())


class TwistdTests(TestCase):
    """Which way the options of twistd lead."""

    def console(self, **outer: Any) -> ProcessLog:
        options = SimpleNamespace(parent={"nodaemon": True, **outer})
        return console_log(options, SimpleNamespace(log_format="json", log_level="info"))

    def test_the_application_is_told_who_observes(self) -> None:
        application = service.Application("uaihost")
        process = ProcessLog("info")
        inner = service.Service()
        Logged(inner, process).setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), process)
        [outer] = service.IServiceCollection(application)
        self.assertEqual(list(outer), [inner])

    def test_a_file_that_was_asked_for_has_the_format_of_the_settings(self) -> None:
        path = self.mktemp()
        process = self.console(logfile=path)
        Logger("room", observer=LogPublisher(process)).info("said")
        self.assertEqual(json.loads(Path(path).read_text())["message"], "said")

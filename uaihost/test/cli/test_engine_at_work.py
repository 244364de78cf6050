"""Verbs about images and the doctor ask the engine that the running host uses."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import local
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder

OWN = "unix:///var/lib/uaihost/engine/docker.sock"

settings = local.settings


class EngineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wanted = attrs.evolve(settings(), data_dir=short_folder(self), docker_host=None)
        self.patch(local, "settings", lambda: self.wanted)

    def found(self, status: Any) -> str | None:
        def ask(*_: Any) -> Any:
            if isinstance(status, HostError):
                raise status
            return status

        self.patch(local, "ask", ask)
        return local.at_work().docker_host

    def test_the_running_hosts(self) -> None:
        self.assertEqual(self.found({"engine": {"address": OWN}}), OWN)

    def test_without_a_host_that_can_be_asked(self) -> None:
        self.assertIsNone(self.found(None))
        self.assertIsNone(self.found(HostError(ErrorCode.UNAVAILABLE, "another user's")))

    def test_one_that_is_named_comes_first(self) -> None:
        self.wanted = attrs.evolve(self.wanted, docker_host="tcp://10.0.0.1:2375")
        self.assertEqual(self.found({"engine": {"address": OWN}}), "tcp://10.0.0.1:2375")

"""The packet filter's rules and the ports that the host opens to be attacked, with real packets."""

from __future__ import annotations

import json
import os
import shutil
import sys

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from uaihost import children
from uaihost.containers.isolation import Canaries
from uaihost.containers.surroundings import look


class CanaryTests(TestCase):
    async def test_they_answer_where_they_listen_and_no_longer(self) -> None:
        canaries = Canaries(reactor)
        try:
            outside = look().own()[0]
            for address, port, expected in (
                ("127.0.0.1", canaries.wide, True),
                (outside, canaries.wide, True),
                ("127.0.0.1", canaries.loopback, True),
                (outside, canaries.loopback, False),
            ):
                self.assertEqual(await canaries.answers(address, port), expected, (address, port))
        finally:
            canaries.close()
        await deferLater(reactor, 0)
        self.assertFalse(await canaries.answers("127.0.0.1", canaries.wide))


class TablesTests(TestCase):
    """The rules with real packets, with each kind of tables, in a network namespace apart."""

    timeout = 120

    async def played(self, tables: str) -> None:
        program = [sys.executable, "-m", "uaihost.test.integration.own_tables", tables]
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        self.assertIsNotNone(shutil.which(f"{tables}-save", path=path), "install the package iptables")
        ended = await children.run(
            reactor,
            ["unshare", "-n", *program],
            env={"PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=100,
        )
        self.assertEqual(ended.status, 0, ended.err.decode())
        seen = json.loads(ended.out)
        self.assertEqual(set(seen["before"].values()), {"reached"})
        self.assertEqual(seen["states"], ["", ""])
        reached = {name for name, word in seen["after"].items() if word == "reached"}
        self.assertEqual(reached, {"allowed", "names", "names by udp", "public", "public by IPv6"})
        self.assertEqual(seen["after"]["host"], "ConnectionRefusedError")
        self.assertEqual(seen["after"]["another task"], "no way")
        self.assertEqual(seen["host to task"], "hi")
        self.assertEqual(set(seen["the owner's container"].values()), {"reached"})
        self.assertEqual(set(seen["flushed"].values()), {"reached"})
        self.assertNotIn("reached", seen["again"].values())
        self.assertEqual(seen["left"], [])
        self.assertEqual(set(seen["removed"].values()), {"reached"})

    async def test_tables_of_the_newer_kernel_interface(self) -> None:
        await self.played("iptables-nft")

    async def test_tables_of_the_older_kernel_interface(self) -> None:
        await self.played("iptables-legacy")

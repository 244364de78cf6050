"""The page in a real browser on the whole product: real bridge, host, engine, container and git."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.cli import demo
from uaihost.test.browser.browser import Browser
from uaihost.test.browser.tour import Plan, tour
from uaihost.test.integration.engine import docker_host
from uaihost.test.integration.processes import Daemons
from uaihost.test.support import short_folder


class ProductPageTests(TestCase):
    # The first run on a machine makes the base and the task image.
    timeout = 900

    async def test_the_tour(self) -> None:
        folder = short_folder(self)
        repository = folder / "repositories" / "sample-shop"
        repository.parent.mkdir()
        await deferToThread(demo.make_sample, repository)
        daemons = Daemons(folder, await docker_host(), [repository.parent])
        self.addCleanup(deferToThread, daemons.stop)
        bridge = await deferToThread(daemons.start_bridge)
        daemons.start_host()
        await deferToThread(daemons.wait_connected, bridge)
        browser = Browser(reactor, "product")
        self.addCleanup(browser.stop)
        await browser.start()
        seen: list[str] = []
        plan = Plan(
            base=f"http://localhost:{bridge.port}",
            key=bridge.key,
            repository=str(repository),
            question="Hello! What can you do here?",
            answer="",
            edit=f"edit index.html {demo.BEFORE} => {demo.AFTER}",
            edited="edited index.html",
            preview=demo.AFTER,
            diff=demo.AFTER,
            name="Warmer words",
        )
        await tour(browser, plan, seen.append)
        self.assertEqual(seen[-1], "task down")
        self.assertEqual(await browser.do("problems"), [])

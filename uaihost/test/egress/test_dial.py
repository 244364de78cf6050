"""Looked up once, judged, and dialled at the address that was judged."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.egress.dial import CONNECT_TIMEOUT, LOOKUP_TIMEOUT, LOOKUPS, Dialler, Refused, Unreachable
from uaihost.egress.names import Destination
from uaihost.egress.policy import Policy
from uaihost.test.egress.wires import Names, accept, dialled, refuse


class DialTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.names = Names(
            a_example=["2606:4700::1", "8.8.8.8"],
            many_example=["2606::1", "2606::2", "2606::3", "8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.8.1"],
            inside_example=["10.0.0.1", "169.254.169.254"],
            mixed_example=["127.0.0.1", "8.8.4.4"],
            mapped_example=["::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::1", "fe80::1%2"],
        )

    def dial(self, host: str, *allow: str, mode: str = "deny", port: int = 443) -> Deferred[IProtocol]:
        dialler = Dialler(self.reactor, Policy(mode, allow), self.names)
        factory = Factory.forProtocol(StreamProtocol)
        return Deferred.fromCoroutine(dialler.connect(Destination(host, port), factory))

    def test_a_permitted_name(self) -> None:
        connecting = self.dial("a.example", "a.example")
        self.assertEqual(dialled(self.reactor), [("8.8.8.8", 443)])
        accept(self.reactor)
        self.assertIsInstance(self.successResultOf(connecting), StreamProtocol)
        self.assertEqual(self.names.asked, ["a.example"])

    def test_a_name_that_is_not_permitted_is_not_even_looked_up(self) -> None:
        refused = self.failureResultOf(self.dial("secret.a.example", "a.example"), Refused)
        self.assertIn("secret.a.example:443 is blocked", str(refused.value))
        self.assertEqual((self.names.asked, dialled(self.reactor)), ([], []))

    def test_a_name_may_not_lead_inside(self) -> None:
        for name in ("inside.example", "mapped.example"):
            for mode in ("open", "deny"):
                refused = self.failureResultOf(self.dial(name, name, mode=mode), Refused)
                self.assertIn("not public", str(refused.value))
        self.assertEqual(dialled(self.reactor), [])

    def test_of_several_addresses_only_those_permitted_are_dialled(self) -> None:
        connecting = self.dial("mixed.example", "mixed.example")
        self.assertEqual(dialled(self.reactor), [("8.8.4.4", 443)])
        refuse(self.reactor, ConnectionRefusedError())
        self.failureResultOf(connecting, Unreachable)
        self.assertEqual(dialled(self.reactor), [("8.8.4.4", 443)])

    def test_a_listed_network_is_reached_by_a_listed_name(self) -> None:
        self.dial("inside.example", "*.example", "10.0.0.0/8").addErrback(lambda _: None)
        self.assertEqual(dialled(self.reactor), [("10.0.0.1", 443)])

    def test_an_address_is_not_looked_up(self) -> None:
        self.dial("10.0.0.1", "10.0.0.1:443")
        self.failureResultOf(self.dial("10.0.0.1", "10.0.0.1:443", port=80), Refused)
        self.assertEqual((self.names.asked, dialled(self.reactor)), ([], [("10.0.0.1", 443)]))

    def test_the_next_address_is_tried(self) -> None:
        connecting = self.dial("a.example", "a.example")
        refuse(self.reactor, ConnectionRefusedError("no"))
        self.assertEqual(dialled(self.reactor), [("8.8.8.8", 443), ("2606:4700::1", 443)])
        self.assertEqual(self.reactor.tcpClients[1][3], CONNECT_TIMEOUT)
        accept(self.reactor)
        self.successResultOf(connecting)

    def test_not_all_of_many(self) -> None:
        connecting = self.dial("many.example", "many.example")
        for number in range(4):
            refuse(self.reactor, ConnectionRefusedError("no"), number)
        unreachable = self.failureResultOf(connecting, Unreachable)
        self.assertIn("many.example:443 does not answer", str(unreachable.value))
        tried = [host for host, _ in dialled(self.reactor)]
        self.assertEqual(tried, ["8.8.8.1", "8.8.8.2", "2606::1", "2606::2"])

    def test_a_name_without_an_address(self) -> None:
        missing = self.failureResultOf(self.dial("none.example", "none.example"), Unreachable)
        self.assertIn("none.example", str(missing.value))

    def test_this_host_under_its_public_address(self) -> None:
        connecting = self.dial("a.example", "a.example")
        wire = accept(self.reactor, host="8.8.8.8")
        refused = self.failureResultOf(connecting, Refused)
        self.assertIn("is this host", str(refused.value))
        self.assertTrue(wire.aborted)
        self.assertEqual(wire.taken(), b"")

    def test_this_host_where_it_is_listed(self) -> None:
        connecting = self.dial("a.example", "a.example", "8.8.8.8")
        accept(self.reactor, host="8.8.8.8")
        self.successResultOf(connecting)

    def test_who_leaves_is_not_dialled_for_any_more(self) -> None:
        connecting = self.dial("a.example", "a.example")
        connecting.cancel()
        self.failureResultOf(connecting)
        self.assertEqual(dialled(self.reactor), [("8.8.8.8", 443)])
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)

    def test_a_slow_lookup_is_given_up_and_still_counts(self) -> None:
        self.names.wait = True
        dialler = Dialler(self.reactor, Policy("deny", ["*.example"]), self.names)
        factory = Factory.forProtocol(StreamProtocol)
        waiting = [
            Deferred.fromCoroutine(dialler.connect(Destination(f"n{number}.example", 443), factory))
            for number in range(LOOKUPS + 1)
        ]
        self.assertEqual(len(self.names.asked), LOOKUPS)
        self.reactor.advance(LOOKUP_TIMEOUT)
        for deferred in waiting:
            self.failureResultOf(deferred, Unreachable)
        # The resolver's threads are still at it: no further question until one is free.
        late = Deferred.fromCoroutine(dialler.connect(Destination("a.example", 443), factory))
        self.assertEqual(len(self.names.asked), LOOKUPS)
        for name, receiver in list(self.names.slow.items()):
            self.names.answer(receiver, name)
        self.assertIn("a.example", self.names.asked)
        self.names.answer(self.names.slow["a.example"], "a.example")
        self.assertEqual(dialled(self.reactor), [("8.8.8.8", 443)])
        accept(self.reactor)
        self.successResultOf(late)

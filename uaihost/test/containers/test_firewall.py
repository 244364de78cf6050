"""The rules as tables, what is read back, and what becomes of failures."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.children import Finished
from uaihost.containers import firewall
from uaihost.containers.firewall import CHAIN_FORWARD, CHAIN_IN, Firewall, FirewallState
from uaihost.containers.surroundings import Route, Surroundings
from uaihost.test.support import given, short_folder, strategies

KNOWN = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
AROUND = Surroundings((), (Route("eth0", ipaddress.IPv4Network("192.0.2.0/24"), None),), {})
DEFAULT = ["INPUT ACCEPT", "FORWARD DROP", "OUTPUT ACCEPT"]


class Tables:
    """iptables-save and iptables-restore over lists: what Firewall runs. fail: program to what it says."""

    def __init__(self, *chains: str) -> None:
        first: dict[str, dict[str, list[str]]] = {"iptables": {}, "ip6tables": {}}
        self.tables = {name: {chain: list[str]() for chain in (*DEFAULT, *chains)} for name in first}
        self.fail: dict[str, str] = {}
        self.ran: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def run(self, reactor: Any, argv: list[str], **options: Any) -> Finished:
        self.ran.append(argv[0])
        said = self.fail.get(argv[0])
        if said == "missing":
            raise FileNotFoundError
        if said is not None:
            return Finished(4, b"", said.encode(), False, False)
        table, _, verb = argv[0].partition("-")
        if verb == "save":
            return Finished(0, self.saved(table).encode(), b"", False, False)
        self.meanwhile()
        try:
            self.restore(table, options["stdin"].decode())
        except (KeyError, ValueError) as error:
            return Finished(1, b"", f"line failed: {error}".encode(), False, False)
        return Finished(0, b"", b"", False, False)

    def rows(self, chain: str, table: str = "iptables") -> list[str]:
        return next(rows for name, rows in self.tables[table].items() if name.split()[0] == chain)

    def saved(self, table: str = "iptables") -> str:
        chains = self.tables[table]
        heads = [f":{name if ' ' in name else name + ' -'} [0:0]" for name in chains]
        rows = [f"-A {name.split()[0]} {row}" for name, found in chains.items() for row in found]
        return "\n".join(["# made", "*filter", *heads, *rows, "COMMIT", ""])

    def restore(self, table: str, script: str) -> None:
        """All of it or nothing."""
        before = {name: list(rows) for name, rows in self.tables[table].items()}
        try:
            lines = script.splitlines()
            assert lines[0] == "*filter" and lines[-1] == "COMMIT", script
            for line in lines[1:-1]:
                self._line(table, line)
        except Exception:
            self.tables[table] = before
            raise

    def _line(self, table: str, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word.startswith(":"):
            self.tables[table][word[1:]] = []
            return
        chain, _, rule = rest.partition(" ")
        if word == "-A":
            self.rows(chain, table).append(rule)
        elif word == "-I":
            self.rows(chain, table).insert(0, rule.partition(" ")[2])
        elif word == "-D":
            self.rows(chain, table).remove(rule)
        elif word == "-X":
            assert not any(chain in row for rows in self.tables[table].values() for row in rows), chain
            del self.tables[table][chain]
        else:
            raise ValueError(line)


def without(tables: Tables, chain: str) -> dict[str, list[str]]:
    return {name: rows for name, rows in tables.tables["iptables"].items() if name != chain}


class RulesTests(TestCase):
    def test_the_host_itself(self) -> None:
        found = firewall.rules(4, ["10.0.0.53", "fd00::53"])[CHAIN_IN]
        self.assertEqual(
            found,
            [
                KNOWN,
                "-d 10.0.0.53/32 -p udp -m udp --dport 53 -j RETURN",
                "-d 10.0.0.53/32 -p tcp -m tcp --dport 53 -j RETURN",
                "-p tcp -j REJECT --reject-with tcp-reset",
                "-j REJECT --reject-with icmp-port-unreachable",
            ],
        )

    def test_what_is_passed_on(self) -> None:
        found = firewall.rules(4, ["10.0.0.53"], attached=["203.0.113.0/24"])[CHAIN_FORWARD]
        self.assertEqual(found[:2], [KNOWN, "-o uai-+ -j REJECT --reject-with icmp-admin-prohibited"])
        refused = [row.split()[1] for row in found if row.startswith("-d") and "REJECT" in row]
        self.assertEqual(refused, [*firewall.PRIVATE[4], "203.0.113.0/24"])
        self.assertLess(
            found.index("-d 10.0.0.53/32 -p udp -m udp --dport 53 -j RETURN"),
            found.index("-d 10.0.0.0/8 -j REJECT --reject-with icmp-admin-prohibited"),
        )

    def test_ipv6_alike(self) -> None:
        found = firewall.rules(6, ["10.0.0.53", "fd00::53"], firewall.allowed(["[fd00::1]:80", "10.0.0.1"]))
        self.assertIn("-d fd00::1/128 -p tcp -m tcp --dport 80 -j RETURN", found[CHAIN_FORWARD])
        self.assertIn("-d fc00::/7 -j REJECT --reject-with icmp6-adm-prohibited", found[CHAIN_FORWARD])
        self.assertIn("-p ipv6-icmp -m icmp6 --icmpv6-type 135 -j RETURN", found[CHAIN_IN])
        self.assertEqual(found[CHAIN_IN][-1], "-j REJECT --reject-with icmp6-port-unreachable")
        self.assertFalse([row for rows in found.values() for row in rows if "10.0.0" in row])

    def test_what_the_owner_allows(self) -> None:
        allow = firewall.allowed(
            [
                "10.1.2.3:5432",
                "192.168.7.0/24",
                "example.org",
                "*.example.org:443",
                "[fd00::1]:80",
                "10.9.9.9",
            ]
        )
        self.assertEqual(
            [(str(entry.network), entry.port) for entry in allow],
            [("10.1.2.3/32", 5432), ("192.168.7.0/24", 0), ("fd00::1/128", 80), ("10.9.9.9/32", 0)],
        )
        found = firewall.rules(4, [], allow)
        passed = [row for row in found[CHAIN_FORWARD] if row.endswith("RETURN")]
        self.assertEqual(
            passed[1:],
            [
                "-d 10.1.2.3/32 -p tcp -m tcp --dport 5432 -j RETURN",
                "-d 10.1.2.3/32 -p udp -m udp --dport 5432 -j RETURN",
                "-d 192.168.7.0/24 -j RETURN",
                "-d 10.9.9.9/32 -j RETURN",
            ],
        )
        # A network is what is around the host; only an address of its own opens the host itself.
        self.assertFalse([row for row in found[CHAIN_IN] if "192.168.7" in row])
        self.assertIn("-d 10.9.9.9/32 -j RETURN", found[CHAIN_IN])

    def test_other_tasks_stay_out_whatever_is_allowed(self) -> None:
        found = firewall.rules(4, [], firewall.allowed(["0.0.0.0/0"]))[CHAIN_FORWARD]
        self.assertEqual(found[1:3], ["-o uai-+ -j REJECT --reject-with icmp-admin-prohibited", "-j RETURN"])

    def test_what_an_entry_covers(self) -> None:
        [one, whole] = firewall.allowed(["10.1.2.3:80", "fd00::/8"])
        self.assertTrue(one.covers("10.1.2.3", 80))
        self.assertFalse(
            one.covers("10.1.2.3", 81) or one.covers("10.1.2.4", 80) or one.covers("fd00::1", 80)
        )
        self.assertTrue(whole.covers("fd12::1", 9))

    @given(strategies.lists(strategies.text(max_size=30), max_size=5))
    def test_no_entry_becomes_anything_but_an_address(self, entries: list[str]) -> None:
        for family in (4, 6):
            for rows in firewall.rules(family, [], firewall.allowed(entries)).values():
                for row in rows:
                    self.assertRegex(row, r"\A[-+a-zA-Z0-9:./, ]+\Z")

    @given(strategies.ip_addresses(v=4))
    def test_every_address_that_is_not_public_is_refused(self, address: ipaddress.IPv4Address) -> None:
        refused = any(address in ipaddress.ip_network(network) for network in firewall.PRIVATE[4])
        documentation = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15")
        clouds = address in ipaddress.ip_network("192.0.0.0/24") or str(address) == "168.63.129.16"
        if clouds or (address.is_global and not address.is_multicast):
            self.assertEqual(refused, clouds)
        elif not any(address in ipaddress.ip_network(network) for network in documentation):
            self.assertTrue(refused, address)


class ResolversTests(TestCase):
    def files(self, **texts: str) -> Path:
        root = short_folder(self)
        places = {
            "engine": "etc/docker/daemon.json",
            "resolv": "etc/resolv.conf",
            "systemd": "run/systemd/resolve/resolv.conf",
        }
        for name, text in texts.items():
            path = root / places[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root

    def test_those_that_containers_ask(self) -> None:
        for texts, expected in (
            ({}, []),
            ({"resolv": "# x\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\n"}, ["10.0.0.53", "fe80::1"]),
            (
                {"resolv": "nameserver 127.0.0.53", "systemd": "nameserver 10.0.0.1\nnameserver ::1"},
                ["10.0.0.1"],
            ),
            ({"engine": '{"dns": ["10.9.9.9"]}', "resolv": "nameserver 10.9.9.9"}, ["10.9.9.9"]),
            ({"engine": "[]", "resolv": "nameserver nonsense\nnameserver"}, []),
            ({"engine": '{"dns": [3, "10.0.0.2 -j ACCEPT"]}'}, []),
        ):
            self.assertEqual(firewall.machine_resolvers(self.files(**texts)), expected, texts)


class FirewallTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def made(self, tables: Tables, docker_host: str = "unix:///x", **options: Any) -> Firewall:
        return Firewall(
            self.clock,
            Inline(),
            docker_host,
            resolvers=lambda: ["10.0.0.53"],
            look=lambda: AROUND,
            run=tables.run,
            **options,
        )

    def applied(self, tables: Tables, **options: Any) -> FirewallState:
        state: FirewallState = self.successResultOf(self.made(tables, **options).apply())
        return state

    def test_put_before_everything_else_and_then_only_read(self) -> None:
        tables = Tables("DOCKER-USER")
        tables.rows("DOCKER-USER").append("-j RETURN")
        tables.rows("INPUT").append("-p tcp -m tcp --dport 22 -j ACCEPT")
        self.assertEqual(self.applied(tables), FirewallState(True))
        self.assertEqual(tables.rows("DOCKER-USER"), ["-i uai-+ -j UAIHOST-FWD", "-j RETURN"])
        self.assertEqual(
            tables.rows("INPUT"), ["-i uai-+ -j UAIHOST-IN", "-p tcp -m tcp --dport 22 -j ACCEPT"]
        )
        self.assertEqual(tables.rows("FORWARD"), [])
        self.assertIn(
            "-d 192.0.2.0/24 -j REJECT --reject-with icmp-admin-prohibited", tables.rows(CHAIN_FORWARD)
        )
        tables.ran.clear()
        self.assertEqual(self.applied(tables), FirewallState(True))
        self.assertEqual(tables.ran, ["iptables-save", "ip6tables-save"])

    def test_whatever_is_missing_or_changed_comes_back(self) -> None:
        tables = Tables("DOCKER-USER")
        self.applied(tables)
        whole = tables.saved()
        damages: list[Callable[[], Any]] = [
            lambda: tables.rows("INPUT").clear(),
            lambda: tables.rows("DOCKER-USER").clear(),
            lambda: tables.rows("DOCKER-USER").insert(0, "-j ACCEPT"),
            lambda: tables.rows(CHAIN_IN).pop(),
            lambda: tables.rows(CHAIN_FORWARD).insert(1, "-d 10.0.0.1/32 -j RETURN"),
            lambda: tables.rows(CHAIN_FORWARD).reverse(),
            lambda: tables.tables.update(iptables={**without(tables, CHAIN_IN), "INPUT ACCEPT": []}),
        ]
        for number, damage in enumerate(damages):
            damage()
            self.assertNotEqual(tables.saved(), whole, number)
            self.assertTrue(self.applied(tables).applied, number)
            if "-j ACCEPT" in tables.rows("DOCKER-USER"):
                self.assertEqual(tables.rows("DOCKER-USER"), ["-i uai-+ -j UAIHOST-FWD", "-j ACCEPT"])
                tables.rows("DOCKER-USER").remove("-j ACCEPT")
            self.assertEqual(sorted(tables.saved().splitlines()), sorted(whole.splitlines()), number)

    def test_without_the_engine_s_chain_the_kernel_s_own_leads_there_until_it_comes(self) -> None:
        tables = Tables()
        self.assertTrue(self.applied(tables).applied)
        self.assertEqual(tables.rows("FORWARD"), ["-i uai-+ -j UAIHOST-FWD"])
        tables.tables["iptables"]["DOCKER-USER"] = ["-j RETURN"]
        self.assertTrue(self.applied(tables).applied)
        self.assertEqual(tables.rows("FORWARD"), [])
        self.assertEqual(tables.rows("DOCKER-USER"), ["-i uai-+ -j UAIHOST-FWD", "-j RETURN"])

    def test_a_change_in_between_is_met_by_another_try(self) -> None:
        tables = Tables("DOCKER-USER")
        self.applied(tables)
        tables.rows(CHAIN_IN).clear()

        def once() -> None:
            tables.meanwhile = lambda: None
            tables.rows("INPUT").clear()

        tables.meanwhile = once
        self.assertTrue(self.applied(tables).applied)
        self.assertEqual(tables.rows("INPUT"), ["-i uai-+ -j UAIHOST-IN"])

    def test_what_never_holds_is_not_called_applied(self) -> None:
        tables = Tables()
        tables.fail["iptables-restore"] = "iptables-restore: unable to initialize table 'filter'\nmore"
        state = self.applied(tables)
        self.assertFalse(state.applied)
        self.assertIn("unable to initialize table", state.why)
        self.assertNotIn("more", state.why)

    def test_no_right_no_program_or_no_ipv6(self) -> None:
        for program, said, applied, words in (
            ("iptables-save", "Permission denied (you must be root)", False, "run it as root"),
            ("iptables-save", "missing", False, "install the package iptables"),
            ("ip6tables-save", "Address family not supported", True, ""),
            ("ip6tables-save", "missing", True, ""),
        ):
            tables = Tables()
            tables.fail[program] = said
            state = self.applied(tables)
            self.assertEqual((state.applied, bool(state.why)), (applied, bool(words)))
            self.assertIn(words, state.why)

    def test_a_look_changes_nothing(self) -> None:
        tables = Tables("DOCKER-USER")
        seen = self.successResultOf(self.made(tables).seen())
        self.assertEqual((seen, tables.ran), (FirewallState(False), ["iptables-save"]))
        self.applied(tables)
        tables.ran.clear()
        self.assertEqual(self.successResultOf(self.made(tables).seen()), FirewallState(True))
        self.assertEqual(tables.ran, ["iptables-save"])
        tables.fail["iptables-save"] = "Permission denied"
        self.assertIn("run it as root", self.successResultOf(self.made(tables).seen()).why)
        far = self.successResultOf(self.made(tables, "tcp://10.0.0.1:2375").seen())
        self.assertIn("another machine", far.why)

    def test_it_looks_after_the_rules_until_it_is_released(self) -> None:
        tables = Tables("DOCKER-USER")
        made = self.made(tables)
        made.keep()
        self.assertEqual(tables.rows("INPUT"), ["-i uai-+ -j UAIHOST-IN"])
        for _ in range(3):
            tables.rows("INPUT").clear()
            self.clock.advance(firewall.KEEP)
            self.assertEqual(tables.rows("INPUT"), ["-i uai-+ -j UAIHOST-IN"])
        # Neither a defect nor a missing right ends that.
        tables.fail["iptables-save"] = "Permission denied"
        self.clock.advance(firewall.KEEP)
        tables.fail.clear()
        tables.rows("INPUT").clear()
        self.clock.advance(firewall.KEEP)
        self.assertEqual(tables.rows("INPUT"), ["-i uai-+ -j UAIHOST-IN"])
        made.release()
        made.release()
        tables.rows("INPUT").clear()
        self.clock.advance(firewall.KEEP * 3)
        self.assertEqual((tables.rows("INPUT"), self.clock.getDelayedCalls()), ([], []))

    def test_an_engine_elsewhere_is_left_alone(self) -> None:
        tables = Tables()
        state = self.applied(tables, docker_host="tcp://10.0.0.9:2376")
        self.assertFalse(state.applied)
        self.assertIn("another machine", state.why)
        self.assertEqual(tables.ran, [])

    def test_removal_takes_ours_alone_and_repeats(self) -> None:
        tables = Tables("DOCKER-USER")
        tables.rows("DOCKER-USER").append("-j RETURN")
        before = tables.saved()
        made = self.made(tables)
        self.successResultOf(made.remove())
        self.assertEqual(tables.ran, ["iptables-save", "ip6tables-save"])
        self.successResultOf(made.apply())
        self.assertNotEqual(tables.saved(), before)
        self.successResultOf(made.remove())
        self.assertEqual(
            (tables.saved(), tables.saved("ip6tables")),
            (before, before.replace("-A DOCKER-USER -j RETURN\n", "")),
        )
        self.successResultOf(made.remove())
        self.assertEqual(tables.saved(), before)

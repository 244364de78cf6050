"""What the policies permit, and that docs/egress.md says the same."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from uaihost.config import load
from uaihost.egress.names import Destination, host_name
from uaihost.egress.policy import GROUPS, MODES, Policy, Verdict, table
from uaihost.errors import SettingError
from uaihost.test.support import given, strategies

DOCUMENT = Path(__file__).parents[3] / "docs" / "egress.md"
LABEL = strategies.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
EXACT = [(host, group.ports) for group in GROUPS for host in group.hosts if not host.startswith("*")]


class ModeTests(SynchronousTestCase):
    def test_the_modes_are_those_of_the_setting(self) -> None:
        for mode in MODES:
            settings = load({"egress": mode}, {}, home=Path("/nonexistent"), root=False)
            self.assertEqual(Policy(settings.egress).mode, mode)
        with self.assertRaises(SettingError):
            Policy("some")

    def test_open_permits_every_name(self) -> None:
        self.assertTrue(Policy("open").verdict("anything.example", 9999).allowed)

    def test_deny_permits_nothing(self) -> None:
        for host, ports in EXACT:
            for port in ports:
                self.assertFalse(Policy("deny").verdict(host, port).allowed)

    def test_the_table_is_permitted_at_its_ports_and_no_others(self) -> None:
        policy = Policy("registries+git")
        for host, ports in EXACT:
            for port in (22, 80, 443, 8080):
                self.assertEqual(policy.verdict(host, port).allowed, port in ports, f"{host}:{port}")

    def test_the_table_is_published(self) -> None:
        self.assertIn(table(), DOCUMENT.read_text(encoding="utf-8"))

    def test_the_table_names_each_host_once_in_its_own_spelling(self) -> None:
        hosts = [host for group in GROUPS for host in group.hosts]
        self.assertEqual(len(hosts), len(set(hosts)))
        for host in hosts:
            self.assertEqual(host_name(host.removeprefix("*.")), host.removeprefix("*."))

    def test_only_git_hosts_are_reached_by_ssh(self) -> None:
        with_ssh = {group.purpose for group in GROUPS if 22 in group.ports}
        self.assertEqual(with_ssh, {"GitHub", "Other git hosts"})


class NameTests(SynchronousTestCase):
    def test_names_are_never_confused(self) -> None:
        policy = Policy("registries+git")
        for host in ("GitHub.COM", "github.com.", "\uff47\uff49\uff54\uff48\uff55\uff42.com"):
            self.assertTrue(policy.verdict(host, 443).allowed, host)
        for host in (
            "evilgithub.com",
            "github.com.evil.org",
            "github.com.evil",
            "github.comx",
            "x.github.com",
            "github.com@evil.org",
            "evil.org#github.com",
            "evil.org/github.com",
            "evil.org\0.github.com",
            "githúb.com",
            "com",
            "",
        ):
            self.assertFalse(policy.verdict(host, 443).allowed, host)

    def test_a_wildcard_is_all_below_and_not_the_name(self) -> None:
        policy = Policy("deny", ["*.corp.example:443"])
        for host in ("a.corp.example", "a.b.corp.example", "A.Corp.Example."):
            self.assertTrue(policy.verdict(host, 443).allowed, host)
            self.assertFalse(policy.verdict(host, 80).allowed, host)
        for host in ("corp.example", "evilcorp.example", "a.corp.example.org", ".corp.example"):
            self.assertFalse(policy.verdict(host, 443).allowed, host)

    @given(LABEL, LABEL, strategies.sampled_from(EXACT))
    def test_no_name_is_permitted_for_what_it_contains(
        self, before: str, after: str, listed: tuple[str, frozenset[int]]
    ) -> None:
        policy = Policy("registries+git")
        known = {host for host, _ in EXACT}
        host = listed[0]
        for made in (f"{before}{host}", f"{host}.{after}", f"{host}{after}", f"{before}.{host}.{after}"):
            if made not in known and not made.endswith(".archive.ubuntu.com"):
                self.assertFalse(policy.verdict(made, 443).allowed, made)

    @given(strategies.text(max_size=60), strategies.integers(-1, 70000))
    def test_whatever_is_asked_gets_a_verdict(self, host: str, port: int) -> None:
        verdict = Policy("deny").verdict(host, port)
        self.assertFalse(verdict.allowed)
        self.assertTrue(verdict.why)

    def test_a_name_without_a_port_means_every_port(self) -> None:
        policy = Policy("deny", ["git.corp.example", "one.example:8443"])
        self.assertTrue(policy.verdict("git.corp.example", 7999).allowed)
        self.assertTrue(policy.verdict("one.example", 8443).allowed)
        self.assertFalse(policy.verdict("one.example", 443).allowed)


class AddressTests(SynchronousTestCase):
    def reach(self, policy: Policy, host: str, address: str, port: int = 443) -> Verdict:
        return policy.reach(Destination(host, port), ip_address(address))

    def test_an_address_in_any_spelling_is_judged_as_one(self) -> None:
        policy = Policy("open")
        for host in ("127.0.0.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"):
            verdict = policy.verdict(host, 80)
            self.assertFalse(verdict.allowed, host)
            self.assertIn("not public", verdict.why)

    def test_a_listed_address_is_reached_in_any_spelling(self) -> None:
        policy = Policy("deny", ["10.1.2.3:443", "192.168.0.0/16", "fd00::/8", "[fe80::1]:22"])
        for host in ("10.1.2.3", "0xa.1.2.3", "[::ffff:10.1.2.3]", "192.168.7.7", "[fd00::7]"):
            self.assertTrue(policy.verdict(host, 443).allowed, host)
        for host, port in (
            ("10.1.2.3", 80),
            ("10.1.2.4", 443),
            ("[fe80::1]", 443),
            ("[64:ff9b::a01:203]", 443),
        ):
            self.assertFalse(policy.verdict(host, port).allowed, host)
        self.assertTrue(policy.verdict("[fe80::1]", 22).allowed)

    def test_a_public_address_is_permitted_by_open_alone(self) -> None:
        self.assertTrue(Policy("open").verdict("8.8.8.8", 53).allowed)
        for mode in ("registries+git", "deny"):
            self.assertFalse(Policy(mode).verdict("8.8.8.8", 443).allowed)

    def test_a_permitted_name_reaches_public_addresses(self) -> None:
        policy = Policy("deny", ["git.corp.example"])
        self.assertTrue(self.reach(policy, "git.corp.example", "8.8.8.8").allowed)

    def test_a_permitted_name_reaches_no_other_address_unless_listed(self) -> None:
        narrow = Policy("deny", ["git.corp.example"])
        wide = Policy("deny", ["git.corp.example", "10.20.0.0/16"])
        for address in ("10.20.1.1", "::ffff:10.20.1.1"):
            self.assertFalse(self.reach(narrow, "git.corp.example", address).allowed)
            self.assertTrue(self.reach(wide, "git.corp.example", address).allowed)
        self.assertFalse(self.reach(wide, "git.corp.example", "169.254.169.254").allowed)

    def test_a_listed_network_permits_no_name(self) -> None:
        # A name that is not listed must not be looked up.
        self.assertFalse(Policy("deny", ["10.0.0.0/8"]).verdict("inside.corp.example", 443).allowed)

    def test_this_hosts_own_addresses_have_to_be_listed(self) -> None:
        wanted = Destination("git.corp.example", 443)
        own = ip_address("8.8.8.8")
        self.assertFalse(Policy("open").own_address(wanted, own).allowed)
        self.assertTrue(Policy("open", ["8.8.8.8"]).own_address(wanted, own).allowed)


class ListTests(SynchronousTestCase):
    def test_what_the_setting_takes_is_understood(self) -> None:
        text = "a.example,*.b.example:443,10.0.0.1:80,10.0.0.0/8,127.1,fd00::1,fd00::/8,10.0.0.0/8:443"
        settings = load({"egress_allow": text}, {}, home=Path("/nonexistent"), root=False)
        policy = Policy("deny", settings.egress_allow)
        for host, port in (("a.example", 1), ("x.b.example", 443), ("10.0.0.1", 80), ("127.0.0.1", 5)):
            self.assertTrue(policy.verdict(host, port).allowed, host)
        self.assertTrue(policy.verdict("fd00::1", 5).allowed)

    def test_what_is_no_entry(self) -> None:
        for entry in (
            "",
            ":443",
            "*",
            "*.",
            "*.10.0.0.1",
            "a b",
            "a.example:0",
            "a:99999",
            "10.0.0.0/64",
            "a*b",
        ):
            with self.assertRaises(SettingError, msg=entry) as caught:
                Policy("deny", [entry])
            self.assertIn("UAI_EGRESS_ALLOW", caught.exception.message)


class SentenceTests(SynchronousTestCase):
    def test_a_refusal_says_what_and_why_and_what_to_change(self) -> None:
        verdict = Policy("deny").verdict("Evil.example", 443)
        self.assertEqual(
            verdict,
            Verdict(
                False,
                "evil.example:443 is blocked: the egress policy `deny` does not list it. Whoever runs this "
                "host can permit it by adding `evil.example:443` to UAI_EGRESS_ALLOW.",
            ),
        )

    def test_following_the_sentence_helps(self) -> None:
        cases = (
            ("evil.example", "8.8.8.8"),
            ("10.0.0.1", "10.0.0.1"),
            ("8.8.8.8", "8.8.8.8"),
            ("::1", "::1"),
        )
        for host, address in (*cases, ("git.corp.example", "10.0.0.1"), ("git.corp.example", "fd00::1")):
            allow: list[str] = []
            for _ in range(2):
                policy = Policy("deny", allow)
                verdict = policy.verdict(host, 443)
                if verdict.allowed:
                    verdict = policy.reach(Destination(host, 443), ip_address(address))
                if verdict.allowed:
                    break
                allow.append(verdict.why.split("`")[-2])
            final = Policy("deny", allow)
            self.assertTrue(final.verdict(host, 443).allowed, allow)
            self.assertTrue(final.reach(Destination(host, 443), ip_address(address)).allowed, allow)

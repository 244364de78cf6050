"""Known servers: what ssh would take from the same files, and the published keys of forges."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

from twisted.trial.unittest import TestCase

from uaihost.credentials.known_hosts import Destination, destinations, parse, read
from uaihost.credentials.ssh_wire import fingerprint
from uaihost.paths import public_forges
from uaihost.test.credentials.ssh_model import ServerKey
from uaihost.test.support import given, short_folder, strategies

SHIPPED = public_forges().read_text()
# As the forges show them on their pages.
PUBLISHED = {
    "github.com": {
        "+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
        "p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
        "uNiVztksCsDhcc0u9e8BujQXVUpKZIDTMczCvj3tD2s",
    },
    "gitlab.com": {
        "eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
        "HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
        "ROQFvPThGrW4RuWLoL9tq9I9zJ42fK4XywyRtbOz/EQ",
    },
    "bitbucket.org": {
        "ybgmFkzwOSotHTHLJgHO0QN8L0xErw6vd0VhFA9m3SM",
        "FC73VB6C4OQLSCrjEayhMp9UMxS97caD/Yyi2bhW/J0",
    },
    "codeberg.org": {"mIlxA9k46MmM6qdJOdMnAQpzGxF4WIVVL+fj+wZbw0g"},
}
# Until 2023, when others might have got them.
GIVEN_UP = {
    "github.com": "nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8",
    "bitbucket.org": "zzXQOXSRBEiUtuE8AikJYKwbHaxvSc0ojez9YXaGp1A",
}


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{b64encode(salt).decode()}|{b64encode(digest).decode()}"


class ShippedTests(TestCase):
    def test_exactly_the_published_keys(self) -> None:
        known = parse(SHIPPED)
        for host, wanted in PUBLISHED.items():
            found = {fingerprint(key).removeprefix("SHA256:") for key in known.keys(Destination(host))}
            self.assertEqual(found, wanted)
        listed = [entry for entry in known.entries if not entry.revoked]
        self.assertEqual(len(listed), sum(map(len, PUBLISHED.values())))

    def test_their_other_port(self) -> None:
        known = parse(SHIPPED)
        for other, host in (("ssh.github.com", "github.com"), ("altssh.gitlab.com", "gitlab.com")):
            self.assertEqual(known.keys(Destination(other, 443)), known.keys(Destination(host)))
            self.assertEqual(known.keys(Destination(other)), frozenset())


class LookingUpTests(TestCase):
    def keys(self, text: str, host: str, port: int = 22) -> int:
        return len(parse(text).keys(Destination(host, port)))

    def test_plain_names_and_ports(self) -> None:
        line = ServerKey().line
        self.assertEqual(self.keys(f"a.example,B.example {line} me@here", "b.example"), 1)
        self.assertEqual(self.keys(f"a.example {line}", "aa.example"), 0)
        self.assertEqual(self.keys(f"[a.example]:2222 {line}", "a.example", 2222), 1)
        self.assertEqual(self.keys(f"[a.example]:2222 {line}", "a.example"), 0)
        self.assertEqual(self.keys(f"[::1]:2222 {line}", "::1", 2222), 1)

    def test_a_line_without_its_port_serves_when_there_is_none_with_it(self) -> None:
        first, second = ServerKey(), ServerKey()
        text = f"a.example {first.line}\n"
        known = parse(text)
        self.assertEqual(known.keys(Destination("a.example", 2222)), {first.blob})
        known = parse(f"{text}[a.example]:2222 {second.line}")
        self.assertEqual(known.keys(Destination("a.example", 2222)), {second.blob})

    def test_hashed_names(self) -> None:
        line = ServerKey().line
        self.assertEqual(self.keys(f"{hashed('a.example')} {line}", "a.example"), 1)
        self.assertEqual(self.keys(f"{hashed('a.example')} {line}", "b.example"), 0)
        self.assertEqual(self.keys(f"{hashed('[a.example]:99')} {line}", "a.example", 99), 1)
        self.assertEqual(self.keys(f"|1|x|y|z {line}\n|1|$ {line}\n|2|a|b {line}", "a.example"), 0)

    def test_patterns(self) -> None:
        line = ServerKey().line
        text = f"*.example,!bad.example {line}"
        self.assertEqual([self.keys(text, host) for host in ("good.example", "bad.example")], [1, 0])
        self.assertEqual(self.keys(f"a?.example {line}", "ab.example"), 1)
        self.assertEqual(self.keys(f"[a-z].example {line}", "b.example"), 0)

    def test_revoked_by_the_owner(self) -> None:
        key = ServerKey()
        text = f"a.example {key.line}\n@revoked * {key.line}\n"
        self.assertEqual(self.keys(text, "a.example"), 0)

    def test_given_up_by_its_forge(self) -> None:
        revoked = [entry for entry in parse(SHIPPED).entries if entry.revoked]
        found = {fingerprint(entry.key).removeprefix("SHA256:"): entry.key for entry in revoked}
        self.assertEqual(set(found), set(GIVEN_UP.values()))
        for host, given_up in GIVEN_UP.items():
            # As an owner's file of then has it.
            old = f"{host} ssh-rsa {b64encode(found[given_up]).decode()}\n"
            keys = parse(old + SHIPPED, old).keys(Destination(host))
            self.assertEqual({fingerprint(key).removeprefix("SHA256:") for key in keys}, PUBLISHED[host])

    def test_what_was_only_met_counts_last(self) -> None:
        said, met = ServerKey(), ServerKey()
        text = f"github.com {met.line}\na.example {met.line}\n[b.example]:99 {met.line}\n"
        known = parse(f"{SHIPPED}\nb.example {said.line}\n", text)
        self.assertNotIn(met.blob, known.keys(Destination("github.com")))
        self.assertEqual(known.keys(Destination("a.example")), {met.blob})
        self.assertEqual(known.keys(Destination("b.example", 99)), {said.blob})
        revoked = parse(f"@revoked * {met.line}\n", text)
        self.assertEqual(revoked.keys(Destination("a.example")), frozenset())

    def test_what_is_no_line(self) -> None:
        line = ServerKey().line
        kind, key = line.split()
        others = ["", "# a.example " + line, "a.example", f"a.example {kind}", f"a.example {kind} ???"]
        others += [
            f"a.example ssh-rsa {key}",
            f"@cert-authority a.example {line}",
            f"@other a.example {line}",
        ]
        self.assertEqual(parse("\n".join(others)).entries, ())

    @given(strategies.text(max_size=120))
    def test_any_text(self, text: str) -> None:
        parse(f"{text}\n{text} ssh-ed25519 {text}").keys(Destination("a.example"))
        found = parse(f"{text}\na.example {SERVER.line}").keys(Destination("a.example"))
        self.assertIn(SERVER.blob, found)

    def test_what_is_written_says_the_same(self) -> None:
        server = ServerKey("ecdsa-sha2-nistp256")
        to = Destination("a.example", 2222)
        text = parse(f"{hashed('[a.example]:2222')} {server.line}").text([to])
        self.assertIn(f"[a.example]:2222 {server.line}", text.splitlines())
        self.assertEqual(parse(text).keys(to), {server.blob})

    def test_what_is_there_is_read(self) -> None:
        path = short_folder(self) / "known_hosts"
        files, to = [path.parent / "missing", path.parent, path], Destination("a.example")
        self.assertEqual(read(files, path.parent / "met").keys(to), frozenset())
        path.write_bytes(f"a.example {SERVER.line} \xff\n".encode("latin-1"))
        self.assertEqual(read(files, path.parent / "met").keys(to), {SERVER.blob})


class DestinationTests(TestCase):
    def test_each_form_of_address(self) -> None:
        found = destinations(
            [
                "ssh://me@A.example:2222/x.git",
                "ssh://b.example/x",
                "git@c.example:x/y.git",
                "d.example:x",
                "https://e.example:8443/x",
                "git@[fe80::1]:x",
                "https://e.example/y",
            ]
        )
        self.assertEqual(
            found,
            (
                Destination("a.example", 2222, "me"),
                Destination("b.example"),
                Destination("c.example"),
                Destination("d.example"),
                Destination("e.example"),
                Destination("fe80::1"),
            ),
        )

    def test_what_has_no_ssh_server(self) -> None:
        others = ["a b:x", "a.example\nb.example:x", "git@*:x", "ssh://a.example%0a/x"]
        others += ["/srv/x.git", "http://a/x", "file:///x", "ssh:///x", "ssh://a:b/x", "", "https://"]
        self.assertEqual(destinations(others), ())


SERVER = ServerKey()

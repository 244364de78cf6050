"""Known servers as OpenSSH has them: `ssh-keygen -F`, `-H` and `-l` on the same files."""

from __future__ import annotations

import subprocess
from base64 import b64decode
from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.credentials.known_hosts import parse
from uaihost.credentials.ssh_wire import fingerprint
from uaihost.paths import public_forges
from uaihost.test.credentials.ssh_model import ServerKey
from uaihost.test.integration.sshd_server import run
from uaihost.test.support import given, settings, short_folder, strategies

SHIPPED = public_forges().read_text()
KEYS = [ServerKey(), ServerKey(), ServerKey("ecdsa-sha2-nistp256")]
NAMES = [
    "a.example",
    "b.example",
    "ab.example",
    "[a.example]:2222",
    "[b.example]:99",
    "10.0.0.1",
    "::1",
    "[::1]:99",
]
PATTERNS = [
    *NAMES,
    "*",
    "*.example",
    "?.example",
    "[*.example]:2222",
    "[?.example]:*",
    "!a.example",
    "![*]:99",
]
PATTERNS += ["A.Example", "!*", "a*e", "", "[ab].example"]

_LINES = strategies.tuples(
    strategies.sampled_from(["", "@revoked ", "# "]),
    strategies.lists(strategies.sampled_from(PATTERNS), min_size=1, max_size=3).map(",".join),
    strategies.integers(0, len(KEYS) - 1),
)


def told(file: Path, name: str) -> set[bytes]:
    """The keys that ssh-keygen finds for a name."""
    done = subprocess.run(["ssh-keygen", "-F", name, "-f", str(file)], capture_output=True, check=False)
    lines = [line.split() for line in done.stdout.decode().splitlines() if not line.startswith("#")]
    return {b64decode(words[3 if words[0].startswith("@") else 2]) for words in lines}


class FindingTests(TestCase):
    def setUp(self) -> None:
        self.file = short_folder(self) / "known_hosts"

    @settings(max_examples=60)
    @given(strategies.lists(_LINES, max_size=5), strategies.sampled_from(NAMES))
    def test_the_same_lines(self, lines: list[tuple[str, str, int]], name: str) -> None:
        text = "".join(f"{marker}{names} {KEYS[key].line}\n" for marker, names, key in lines)
        self.file.write_text(text)
        ours = {entry.key for entry in parse(text).entries if entry.of(name)}
        self.assertEqual(ours, told(self.file, name), text)

    def test_hashed_by_openssh(self) -> None:
        names = [name for name in NAMES if name != "::1"]
        self.file.write_text("".join(f"{name} {KEYS[0].line}\n" for name in names))
        run("ssh-keygen", "-q", "-H", "-f", str(self.file))
        text = self.file.read_text()
        self.assertNotIn("example", text)
        known = parse(text)
        self.assertEqual(len(known.entries), len(names))
        for name in names:
            self.assertEqual(sum(entry.of(name) for entry in known.entries), 1, name)

    def test_fingerprints(self) -> None:
        for key in (*KEYS, ServerKey("ssh-rsa"), ServerKey("ecdsa-sha2-nistp521")):
            self.file.write_text(f"{key.line}\n")
            self.assertEqual(run("ssh-keygen", "-lf", str(self.file)).split()[1], fingerprint(key.blob))

    def test_what_is_shipped_can_be_read_by_ssh(self) -> None:
        self.file.write_text(SHIPPED)
        for name in ("github.com", "[ssh.github.com]:443", "gitlab.com", "bitbucket.org", "codeberg.org"):
            ours = {entry.key for entry in parse(SHIPPED).entries if entry.of(name)}
            self.assertEqual(ours, told(self.file, name))
            self.assertTrue(ours)

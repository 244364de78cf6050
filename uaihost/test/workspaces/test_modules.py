"""What .gitmodules may ask for: by hand, and with whatever a stranger can write."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from uaihost.test.support import given, strategies
from uaihost.workspaces.modules import Module, Refused, checked, host, parse_modules, resolved, source
from uaihost.workspaces.urls import parse

HTTPS = "https://example.org/team/app.git"
SSH = "git@example.org:team/app.git"
LOOPBACK = "http://127.0.0.1:8000/team/app.git"

PIECES = [
    "..",
    ".",
    "/",
    "a",
    "b.git",
    ".git",
    "\\",
    "-",
    "~",
    "@",
    ":",
    "//",
    "\n",
    "\0",
    "é",
    "CON",
    " ",
    "*",
]
TEXT = strategies.lists(strategies.sampled_from(PIECES), max_size=8).map("".join) | strategies.text(
    max_size=12
)


def listed(*entries: tuple[str, str]) -> bytes:
    return b"".join(f"{key}\n{value}".encode("utf-8", "surrogatepass") + b"\0" for key, value in entries)


def one(name: str = "lib", path: str = "lib", url: str = "../lib.git", update: str = "") -> dict[str, Module]:
    return {path: Module(name, path, url, update)}


class ParseTests(TestCase):
    def test_sections_come_by_their_path(self) -> None:
        found = parse_modules(
            listed(
                ("submodule.a.b.path", "lib/x"),
                ("submodule.a.b.url", "https://example.org/x"),
                ("submodule.a.b.update", "none"),
                ("submodule.a.b.branch", "main"),
                ("core.fsmonitor", "touch /tmp/x"),
            )
        )
        self.assertEqual(found, {"lib/x": Module("a.b", "lib/x", "https://example.org/x", "none")})

    def test_what_is_said_twice_is_said_by_nobody(self) -> None:
        entries = [("submodule.a.path", "x"), ("submodule.a.url", "../1"), ("submodule.a.url", "../2")]
        self.assertEqual(parse_modules(listed(*entries)), {})
        entries = [("submodule.a.path", "x"), ("submodule.b.path", "x"), ("submodule.c.path", "y")]
        self.assertEqual(list(parse_modules(listed(*entries))), ["y"])

    @given(strategies.binary(max_size=200))
    def test_any_bytes_are_read(self, text: bytes) -> None:
        for path, module in parse_modules(text).items():
            self.assertEqual(path, module.path)


class CheckTests(TestCase):
    def refused(self, path: bytes, modules: dict[str, Module]) -> str:
        with self.assertRaises(Refused) as caught:
            checked(path, modules)
        return str(caught.exception)

    def test_plain_names_pass(self) -> None:
        for name in ("lib", "vendor/lib", "a.b", "C++", "my lib"):
            self.assertEqual(checked(b"lib", one(name)).name, name)

    def test_names_that_lead_elsewhere_are_refused(self) -> None:
        for name in (
            "..",
            "a/../b",
            "../x",
            "/x",
            "x/",
            ".git",
            "a/.git",
            "x.git",
            "a.lock",
            "-x",
            "",
            "a\\b",
        ):
            self.assertIn("name", self.refused(b"lib", one(name)), name)

    def test_paths_that_lead_elsewhere_are_refused(self) -> None:
        for path in ("../x", ".git/x", "a/.GIT/x", "-x", "a\\b", "a\nb", "/x", "x" * 600):
            self.assertIn("path", self.refused(path.encode(), one(path=path)), path)
        self.assertIn("UTF-8", self.refused(b"\xff", {}))

    def test_one_submodules_repository_is_never_in_anothers(self) -> None:
        modules = one("a", "x") | one("a/objects", "y") | one("A", "z") | one("b", "w")
        for path in (b"x", b"y", b"z"):
            self.assertIn("folder in another", self.refused(path, modules))
        self.assertEqual(checked(b"w", modules).name, "b")

    def test_updates_that_are_none_or_a_command_are_refused(self) -> None:
        self.assertIn("none", self.refused(b"lib", one(update="none")))
        self.assertIn("command", self.refused(b"lib", one(update="!touch /tmp/x")))
        self.assertEqual(checked(b"lib", one(update="rebase")).update, "rebase")

    def test_what_gitmodules_does_not_name_is_refused(self) -> None:
        self.assertIn(".gitmodules", self.refused(b"other", one()))

    @given(TEXT, TEXT)
    def test_whatever_passes_stays_inside(self, name: str, path: str) -> None:
        try:
            module = checked(path.encode("utf-8", "surrogatepass"), one(name, path))
        except Refused:
            return
        for text in (module.name, module.path):
            parts = text.split("/")
            self.assertFalse({"", ".", "..", ".git"} & {part.lower() for part in parts}, text)
            self.assertFalse(text.startswith("-") or "\n" in text or "\0" in text or "\\" in text, text)


class SourceTests(TestCase):
    def refused(self, url: str, parent: str | None = HTTPS) -> str:
        with self.assertRaises(Refused) as caught:
            source(url, parent)
        return str(caught.exception)

    def test_addresses_of_servers(self) -> None:
        self.assertEqual(source("https://other.org/lib", HTTPS).url, "https://other.org/lib")
        self.assertEqual(source("git@example.org:x/lib.git", SSH).url, "git@example.org:x/lib.git")
        self.assertEqual(source("ssh://git@example.org/lib.git", SSH).kind, "ssh")

    def test_relative_addresses(self) -> None:
        cases = {
            (HTTPS, "../lib.git"): "https://example.org/team/lib.git",
            (HTTPS, "../../other/lib"): "https://example.org/other/lib",
            (HTTPS, "./lib"): "https://example.org/team/app.git/lib",
            (SSH, "../lib.git"): "git@example.org:team/lib.git",
            (SSH, "../../lib.git"): "git@example.org:lib.git",
            ("git@example.org:/srv/app", "../lib"): "git@example.org:/srv/lib",
            ("ssh://git@example.org:2222/a/b", "../c"): "ssh://git@example.org:2222/a/c",
            (LOOPBACK, "../lib.git"): "http://127.0.0.1:8000/team/lib.git",
        }
        for (parent, url), expected in cases.items():
            self.assertEqual(source(url, parent).url, expected)

    def test_none_leads_out_of_the_server(self) -> None:
        for parent in (HTTPS, SSH):
            self.assertIn("out of the server", self.refused("../../../x", parent))
        self.assertIn("names no repository", self.refused("../..", HTTPS))

    def test_no_path_of_this_machine(self) -> None:
        for url in ("/etc", "file:///etc", "~/x", "/srv/../etc", ".", "..", ".x"):
            self.assertIn("path on this machine", self.refused(url), url)

    def test_no_program_and_nothing_odd(self) -> None:
        for url in (
            "ext::sh -c touch% /tmp/x",
            "-u./x",
            "fd::3",
            "git://h/x",
            "",
            "https://u:p@h/x",
            "ftp://h/x",
        ):
            self.refused(url)

    def test_the_owners_key_opens_only_the_server_that_it_opened_before(self) -> None:
        for parent in (HTTPS, "git@other.org:x/y", LOOPBACK, None):
            self.assertIn("SSH key", self.refused("git@example.org:owner/private.git", parent))
        self.assertIn("SSH key", self.refused("ssh://git@example.org:2222/x", SSH))

    def test_nothing_of_this_machine_is_asked_without_encryption(self) -> None:
        for parent in (HTTPS, SSH, "http://127.0.0.1:8001/x", None):
            self.assertIn("not encrypted", self.refused("http://127.0.0.1:8000/secret", parent))

    def test_a_repository_without_an_address_has_no_relative_ones(self) -> None:
        self.assertIn("relative", self.refused("../lib", None))

    @given(TEXT.map("../".__add__), strategies.sampled_from([HTTPS, SSH, LOOPBACK]))
    def test_what_is_relative_stays_on_the_server(self, url: str, parent: str) -> None:
        try:
            found = resolved(url, parent)
        except Refused:
            return
        self.assertNotIn("/../", found.removeprefix("https://"))
        try:
            repository = source(url, parent)
        except Refused:
            return
        self.assertEqual(host(repository), host(parse(parent)))

    @given(TEXT, strategies.sampled_from([HTTPS, SSH, LOOPBACK, None]))
    def test_whatever_passes_is_a_server(self, url: str, parent: str | None) -> None:
        try:
            found = source(url, parent)
        except Refused:
            return
        self.assertIn(found.kind, ("https", "ssh", "http"))
        self.assertFalse(found.url.startswith(("-", "/")))

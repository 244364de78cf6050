"""Addresses of repositories: what is allowed, what is refused and why."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import given, short_folder, strategies
from uaihost.workspaces.urls import parse

ALLOWED = {
    "https://github.com/a/b.git": ("https", "https://github.com/a/b.git"),
    "HTTPS://GitHub.com:443/a/B/": ("https", "https://github.com/a/B"),
    "https://user@dev.example.org/a": ("https", "https://dev.example.org/a"),
    "https://example.org:8443/a": ("https", "https://example.org:8443/a"),
    "https://[::1]/a": ("https", "https://[::1]/a"),
    "http://127.0.0.1:3000/a": ("http", "http://127.0.0.1:3000/a"),
    "http://localhost/a": ("http", "http://localhost/a"),
    "ssh://git@github.com/a/b": ("ssh", "ssh://git@github.com/a/b"),
    "ssh://git@github.com:22/a/b": ("ssh", "ssh://git@github.com/a/b"),
    "ssh://github.com:2222/a": ("ssh", "ssh://github.com:2222/a"),
    "git@github.com:a/b.git": ("ssh", "git@github.com:a/b.git"),
    "git@GitHub.com:a/b.git": ("ssh", "git@github.com:a/b.git"),
    "host:path": ("ssh", "host:path"),
    " https://github.com/a/b ": ("https", "https://github.com/a/b"),
}

REFUSED = {
    "": "empty",
    "  ": "empty",
    "-oProxyCommand=x": "option",
    "--upload-pack=touch /tmp/x": "option",
    "ext::sh -c 'touch /tmp/x'": "run programs",
    "fd::17": "run programs",
    "foo::https://github.com/a/b": "run programs",
    "::x": "run programs",
    "git://github.com/a/b": "neither encrypted nor authenticated",
    "ftp://github.com/a/b": "not supported",
    "ext://x/y": "not supported",
    "http://github.com/a/b": "not encrypted",
    "http://127.0.0.1.example.org/a": "not encrypted",
    "https://": "no usable host",
    "https:///a": "no usable host",
    "https://github.com": "no repository",
    "https://github.com/": "no repository",
    "https://-x.org/a": "no usable host",
    "ssh://-oProxyCommand=x/a": "no usable host",
    "ssh://-u@host/a": "user name",
    "-u@host:a": "option",
    "git@-host:a": "no usable host",
    "git@host:-a": "no repository",
    "https://u:secret@github.com/a": "password",
    "https://:secret@github.com/a": "password",
    "ssh://u:secret@github.com/a": "password",
    "https://github.com/a?private_token=secret": "'?'",
    "https://github.com/a#secret": "'#'",
    "https://github.com:x/a": "cannot be read",
    "https://git\nhub.com/a": "control character",
    "https://github.com/a%0ab": "control character",
    "https://github.com/\x00": "control character",
    "https://github.com/\ud800": "control character",
    "file://host/a": "file:///",
    "file://a": "file:///",
    "/etc": "not in a folder",
    "file:///etc": "not in a folder",
    "relative/path": "not a repository address",
    "./x": "not a repository address",
    "C": "not a repository address",
    "https://github.com/" + "a" * 2048: "longer",
}


class UrlTests(TestCase):
    def test_allowed_addresses(self) -> None:
        found = {text: (parse(text).kind, parse(text).url) for text in ALLOWED}
        self.assertEqual(found, ALLOWED)

    def test_refused_addresses_say_why(self) -> None:
        for text, why in REFUSED.items():
            error = self.assertRaises(HostError, parse, text)
            self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
            self.assertIn(why, error.message, text)

    def test_no_message_repeats_a_secret(self) -> None:
        for text in REFUSED:
            if "secret" in text:
                self.assertNotIn("secret", self.assertRaises(HostError, parse, text).message)

    def test_a_user_name_is_neither_kept_nor_shown(self) -> None:
        found = parse("https://ghp_token@github.com/a/b")
        self.assertNotIn("ghp_token", repr(found))

    def test_spellings_of_one_address_share_a_cache(self) -> None:
        keys = {parse(text).key for text in ("https://h/a", "https://H:443/a/", "https://u@h/a")}
        self.assertEqual(len(keys), 1)
        self.assertNotEqual(parse("https://h/a").key, parse("https://h/A").key)

    def test_http_elsewhere_can_be_allowed(self) -> None:
        self.assertEqual(parse("http://h/a", allow_http=True).protocol, "http")

    def test_local_repositories_are_allowed_in_their_folders_only(self) -> None:
        root = short_folder(self).resolve()
        (root / "code" / "app").mkdir(parents=True)
        (root / "code" / "out").symlink_to("/etc")
        (root / "code2").mkdir()
        roots = (root / "code",)
        for text in (f"{root}/code/app", f"file://{root}/code/app", f"file://localhost{root}/code/./app/"):
            found = parse(text, allowed_roots=roots)
            self.assertEqual((found.kind, found.url), ("local", f"{root}/code/app"))
            self.assertEqual(found.protocol, "file")
        for text in (
            f"{root}/code2",
            f"{root}/code/../code2",
            f"{root}/code/out",
            f"file://{root}/code/out/x",
        ):
            error = self.assertRaises(HostError, parse, text, allowed_roots=roots)
            self.assertIn("not in a folder", error.message)

    def test_a_folder_that_is_a_link_itself_counts_as_what_it_names(self) -> None:
        root = short_folder(self).resolve()
        (root / "real" / "app").mkdir(parents=True)
        (root / "link").symlink_to("real")
        found = parse(f"{root}/link/app", allowed_roots=(root / "link",))
        self.assertEqual(found.url, f"{root}/real/app")

    @given(strategies.text(max_size=60))
    def test_whatever_is_typed_is_taken_or_refused(self, text: str) -> None:
        try:
            found = parse(text, allowed_roots=(Path("/srv/code"),))
        except HostError as error:
            self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
        else:
            self.assertFalse(found.url.startswith("-"))
            self.assertNotIn("::", found.url.split("/")[0])
            self.assertEqual(parse(found.url, allowed_roots=(Path("/srv/code"),)).key, found.key)

"""What is taken of a hostile repository's version files: names of a list and plain versions, nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from uaihost.containers import tool_versions
from uaihost.containers.tool_versions import FILE_LIMIT, SHARED, Request, Wanted, legal_version, parse, read
from uaihost.test.support import given, short_folder, strategies


def requests(*texts: str) -> tuple[Request, ...]:
    return tuple(Request(*text.split("@")) for text in texts)


class ParseTests(SynchronousTestCase):
    def test_tool_versions(self) -> None:
        text = b"""\xef\xbb\xbfnodejs 24.1.0   # ours
            python 3.12 3.11
            # golang 1
            golang\t1.25
            core:ruby prefix:3.4
            java temurin-21.0.5+11.0.LTS
            bun system
            deno
        """
        self.assertEqual(
            parse(".tool-versions", text),
            Wanted(
                requests(
                    "node@24.1.0",
                    "python@3.12",
                    "python@3.11",
                    "go@1.25",
                    "ruby@3.4",
                    "java@temurin-21.0.5+11.0.LTS",
                )
            ),
        )

    def test_mise_toml(self) -> None:
        text = b"""
            [tools]
            node = "lts"
            python = ["3.12", {version = "3.11", virtualenv = ".venv"}]
            go = {version = "1.25", postinstall = "rm -rf /"}
            zig = 1
            deno = 2.1
            [env]
            PATH = "/evil"
        """
        found = parse("mise.toml", text)
        self.assertEqual(
            found.requests, requests("node@lts", "python@3.12", "python@3.11", "go@1.25", "zig@1", "deno@2.1")
        )
        self.assertEqual(found.notes, ())

    def test_what_is_not_taken_is_said(self) -> None:
        for file, text, said in (
            (".tool-versions", "terraform 1.9", "terraform is not installed by the host"),
            ("mise.toml", '[tools]\n"npm:prettier" = "3"', "npm:prettier is not installed by the host"),
            (".tool-versions", "rust 1.80", "`MISE_OFFLINE=0 mise install rust`"),
            (".tool-versions", "node ref:main", "'ref:main' is no version"),
            (".tool-versions", "node path:/opt/x", "is no version"),
            (".tool-versions", "node ../../etc", "is no version"),
            (".tool-versions", "node --help", "is no version"),
            (".tool-versions", "node 1;reboot", "is no version"),
            (".tool-versions", "node " + "1" * 65, "is no version"),
            ("mise.toml", "[tools]\nnode = \"{{exec(command='id')}}\"", "is no version"),
            ("mise.toml", "[tools]\nnode = true", "is no version"),
            ("mise.toml", f"[tools]\nnode = 0x{'f' * 9000}", "is no version"),
            ("mise.toml", "[tools]\nnode = -1", "is no version"),
            ("mise.toml", "[tools]\nnode = nan", "is no version"),
            ("mise.toml", "[tools]\nnode = [[1]]", "is no version"),
            ("mise.toml", "tools = 5", "`tools` is not a table"),
            ("mise.toml", "[tools", "is not read"),
            ("mise.toml", "a = " + "[" * 5000, "is not read"),
        ):
            found = parse(file, text.encode())
            self.assertEqual((found.requests, len(found.notes)), ((), 1), text)
            self.assertIn(said, found.notes[0])
            self.assertLess(len(found.notes[0]), 300)
        self.assertIn("UTF-8", parse("mise.toml", b"\xff").notes[0])
        self.assertIn("larger", parse("mise.toml", b"#" * (FILE_LIMIT + 1)).notes[0])

    def test_there_is_an_end(self) -> None:
        many = "\n".join(f"node {number}" for number in range(5000))
        found = parse(".tool-versions", many.encode())
        self.assertEqual(len(found.requests), tool_versions.REQUEST_LIMIT)
        self.assertIn("the first 24 are taken", found.notes[-1])
        wrong = "\n".join(f"x{number} 1" for number in range(5000))
        self.assertEqual(len(parse(".tool-versions", wrong.encode()).notes), tool_versions.NOTE_LIMIT)

    @given(
        strategies.sampled_from(tool_versions.FILES),
        strategies.binary(max_size=400)
        | strategies.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
        | strategies.text(max_size=60).map(lambda text: f"node {text}\n".encode("utf-8", "replace"))
        | strategies.text(max_size=60).map(lambda text: f"[tools]\nnode={text!r}".encode("utf-8", "replace")),
    )
    def test_whatever_it_holds_only_safe_words_come_out(self, name: str, data: bytes) -> None:
        found = parse(name, data)
        for request in found.requests:
            self.assertIn(request.name, SHARED)
            self.assertRegex(str(request), r"\A[a-z]+@[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z")
            self.assertEqual(os.path.normpath(f"/x/{request.version}"), f"/x/{request.version}")
        for note in found.notes:
            self.assertTrue(note.isprintable() and len(note) < 400)

    def test_versions(self) -> None:
        for text in ("24", "24.1.0", "lts", "latest", "temurin-21.0.5+11.0.LTS", "3.13.0a1", "a" * 64):
            self.assertTrue(legal_version(text), text)
        for text in ("", ".", "..", "-1", "a/b", "a b", "a\n", "1\0", "a@b", "a:b", "$a", "a" * 65, "\u0661"):
            self.assertFalse(legal_version(text), text)


class ReadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)

    def test_what_every_file_says_is_added(self) -> None:
        (self.folder / ".tool-versions").write_text("node 22\n")
        (self.folder / "mise.toml").write_text('[tools]\nnode = ["24", "22"]\n')
        (self.folder / ".mise.toml").write_text("[tools")
        found = read(self.folder)
        self.assertEqual(found.requests, requests("node@22", "node@24"))
        self.assertEqual(len(found.notes), 1)

    def test_nothing_there(self) -> None:
        self.assertEqual(read(self.folder), Wanted())
        self.assertEqual(read(self.folder / "none"), Wanted())

    def test_links_and_pipes_are_not_followed(self) -> None:
        secret = self.folder / "secret"
        secret.write_text("node 24\n")
        copy = self.folder / "copy"
        copy.mkdir()
        (copy / ".tool-versions").symlink_to(secret)
        os.mkfifo(copy / "mise.toml")
        (copy / ".mise.toml").mkdir()
        found = read(copy)
        self.assertEqual((found.requests, len(found.notes)), ((), 3))
        link = self.folder / "link"
        link.symlink_to(copy)
        (copy / ".tool-versions").unlink()
        (copy / ".tool-versions").write_text("node 24\n")
        self.assertEqual(read(link), Wanted())
        self.assertEqual(read(Path(copy)).requests, requests("node@24"))

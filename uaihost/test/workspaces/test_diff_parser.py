"""Reading git's lists and patches."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from uaihost.test.support import given, strategies
from uaihost.workspaces.diff_parser import File, clip, parse, parse_files, parse_patch

A, B = b"a" * 40, b"b" * 40
ZERO = b"0" * 40

HUNK = b"@@ -1 +1,2 @@\n-old\n+new\n+@@ -1 +1 @@\n\\ No newline at end of file\n"


def raw(letter: bytes, *paths: bytes, old: bytes = b"100644", new: bytes = b"100644") -> bytes:
    return b":%s %s %s %s %s\0" % (old, new, A, B, letter) + b"".join(path + b"\0" for path in paths)


def files(*paths: bytes, status: str = "modified") -> list[File]:
    return [File(path, None, status, "100644", "100644", A.decode(), B.decode()) for path in paths]


def section(body: bytes, head: bytes = b"index a..b 100644\n--- a/x\n+++ b/x\n") -> bytes:
    return b"diff --git a/x b/x\n" + head + body


# Lines that look like the structure around them.
LINES = strategies.sampled_from(
    [
        b"",
        b"x",
        b"diff --git a/x b/x",
        b"@@ -1 +1 @@",
        b"--- a/x",
        b"+++ b/x",
        b"\\ No newline",
        b"\xff\xfe\r",
        b"-",
        b"+",
    ]
)
BODIES = strategies.lists(strategies.tuples(strategies.sampled_from(b" -+"), LINES), min_size=1, max_size=8)


def hunk(body: list[tuple[int, bytes]]) -> bytes:
    old = sum(kind in b" -" for kind, _ in body)
    new = sum(kind in b" +" for kind, _ in body)
    head = b"@@ -1,%d +1,%d @@ def f():\n" % (old, new)
    return head + b"".join(bytes([kind]) + line + b"\n" for kind, line in body)


class FileListTests(TestCase):
    def test_every_status_has_its_word_modes_and_counts(self) -> None:
        data = (
            raw(b"A", b"new", old=b"000000")
            + raw(b"D", b"old", new=b"000000")
            + raw(b"M", b"mod", new=b"100755")
        )
        data += raw(b"R087", b"from", b"to") + raw(b"T", b"link", new=b"120000")
        data += b"3\t0\tnew\0" + b"0\t4\told\0" + b"-\t-\tmod\0" + b"1\t2\t\0from\0to\0" + b"1\t1\tlink\0"
        found = parse_files(data)
        self.assertEqual(
            [
                (f.path, f.old_path, f.status, f.old_mode, f.new_mode, f.additions, f.deletions, f.binary)
                for f in found
            ],
            [
                (b"new", None, "added", None, "100644", 3, 0, False),
                (b"old", None, "deleted", "100644", None, 0, 4, False),
                (b"mod", None, "modified", "100644", "100755", 0, 0, True),
                (b"to", b"from", "renamed", "100644", "100644", 1, 2, False),
                (b"link", None, "typechange", "100644", "120000", 1, 1, False),
            ],
        )

    def test_names_may_hold_anything_but_nul(self) -> None:
        name = b':100644 \n\t"\xff'
        found = parse_files(raw(b"M", name) + b"1\t1\t" + name + b"\0")
        self.assertEqual(found[0].path, name)
        self.assertEqual(found[0].as_json()["path"], ':100644 \n\t"\ufffd')

    def test_nothing_changed(self) -> None:
        self.assertEqual(parse_files(b""), [])

    def test_what_does_not_fit_is_refused(self) -> None:
        good = raw(b"M", b"x") + b"1\t1\tx\0"
        for bad in (
            good[:-1],
            raw(b"M", b"x"),
            good + b"1\t1\ty\0",
            raw(b"M", b"x") + b"1\t1\ty\0",
            b":junk\0",
            raw(b"R100", b"x"),
        ):
            self.assertRaises(ValueError, parse_files, bad)

    @given(
        strategies.lists(
            strategies.tuples(
                strategies.sampled_from([b"M", b"A", b"R100", b"C050"]),
                strategies.binary(min_size=1, max_size=6).map(lambda name: name.replace(b"\0", b":")),
                strategies.integers(0, 9),
            ),
            max_size=6,
        )
    )
    def test_what_was_written_is_read(self, entries: list[tuple[bytes, bytes, int]]) -> None:
        data = b""
        counts = b""
        for letter, name, number in entries:
            if letter[:1] in b"RC":
                data += raw(letter, b"was", name)
                counts += b"%d\t0\t\0was\0%s\0" % (number, name)
            else:
                data += raw(letter, name)
                counts += b"%d\t0\t%s\0" % (number, name)
        found = parse_files(data + counts)
        self.assertEqual(
            [(f.path, f.additions) for f in found], [(name, number) for _, name, number in entries]
        )


class PatchTests(TestCase):
    def test_each_file_gets_its_hunks(self) -> None:
        found = files(b"x", b"y", b"z")
        parse_patch(
            section(HUNK) + section(b"", b"old mode 100644\nnew mode 100755\n") + section(HUNK),
            found,
            complete=True,
        )
        self.assertEqual([file.hunks for file in found], [HUNK, None, HUNK])
        self.assertEqual([file.truncated for file in found], [False] * 3)

    def test_a_changed_type_has_two_sections(self) -> None:
        found = files(b"x", status="typechange") + files(b"y")
        parse_patch(section(HUNK) * 3, found, complete=True)
        self.assertEqual([file.hunks for file in found], [HUNK * 2, HUNK])

    def test_a_binary_file_has_none(self) -> None:
        found = files(b"x")
        found[0].binary = True
        parse_patch(section(b"", b"Binary files a/x and b/x differ\n"), found, complete=True)
        self.assertIsNone(found[0].hunks)

    def test_what_incomplete_output_does_not_reach_is_truncated(self) -> None:
        whole = section(HUNK) * 3
        for cut in range(len(whole)):
            found = files(b"x", b"y", b"z")
            parse_patch(whole[:cut], found, complete=False)
            shown = [file.hunks for file in found]
            self.assertEqual(shown, [HUNK] * (3 - shown.count(None)) + [None] * shown.count(None))
            self.assertEqual([file.truncated for file in found], [text is None for text in shown])

    def test_too_few_or_too_many_sections_are_refused(self) -> None:
        self.assertRaises(ValueError, parse_patch, section(HUNK), files(b"x", b"y"), complete=True)
        self.assertRaises(ValueError, parse_patch, section(HUNK) * 2, files(b"x"), complete=True)
        self.assertRaises(ValueError, parse_patch, b"junk\n", files(b"x"), complete=True)

    @given(strategies.lists(strategies.lists(BODIES, max_size=3), min_size=1, max_size=4))
    def test_no_content_passes_for_structure(self, patches: list[list[list[tuple[int, bytes]]]]) -> None:
        texts = [b"".join(hunk(body) for body in bodies) for bodies in patches]
        found = files(*(b"x" for _ in patches))
        parse_patch(b"".join(section(text) for text in texts), found, complete=True)
        self.assertEqual([file.hunks or b"" for file in found], texts)

    @given(strategies.lists(BODIES, min_size=1, max_size=4), strategies.integers(0, 400))
    def test_clipping_keeps_whole_hunks_from_the_start(
        self, bodies: list[list[tuple[int, bytes]]], limit: int
    ) -> None:
        texts = [hunk(body) for body in bodies]
        kept = clip(b"".join(texts), limit) or b""
        self.assertLessEqual(len(kept), limit)
        fitting = [b"".join(texts[:count]) for count in range(len(texts) + 1)]
        self.assertEqual(kept, max((text for text in fitting if len(text) <= limit), key=len))


class WholeTests(TestCase):
    """The list and the patches in one output."""

    def test_more_files_than_are_wanted(self) -> None:
        names = [b"x", b"y", b"z"]
        data = b"".join(raw(b"M", name) for name in names) + b"".join(b"1\t1\t%s\0" % name for name in names)
        data += b"\0" + section(HUNK) * 3
        found, count = parse(data, 2, complete=True)
        self.assertEqual(([file.hunks for file in found], count), ([HUNK] * 2, 3))
        cut, count = parse(data[:-60], 3, complete=False)
        self.assertEqual(([file.why for file in cut], count), ([None, None, "total"], 3))

    def test_nothing_changed(self) -> None:
        self.assertEqual(parse(b"", 10, complete=True), ([], 0))

    @given(
        strategies.lists(strategies.lists(BODIES, max_size=2), max_size=3),
        strategies.lists(
            strategies.tuples(
                strategies.integers(0, 2000), strategies.integers(0, 3), strategies.binary(max_size=3)
            ),
            max_size=4,
        ),
        strategies.booleans(),
    )
    def test_odd_output_is_refused_or_read_and_nothing_else(
        self,
        patches: list[list[list[tuple[int, bytes]]]],
        edits: list[tuple[int, int, bytes]],
        complete: bool,
    ) -> None:
        names = [b"n%d" % number for number in range(len(patches))]
        data = b"".join(raw(b"M", name) for name in names) + b"".join(b"1\t1\t%s\0" % name for name in names)
        data += b"\0" + b"".join(section(b"".join(hunk(body) for body in bodies)) for bodies in patches)
        for at, length, text in edits:
            data = data[: at % (len(data) + 1)] + text + data[at % (len(data) + 1) + length :]
        try:
            found, count = parse(data, 2, complete=complete)
        except ValueError:
            return
        self.assertLessEqual(len(found), min(2, count))
        for file in found:
            self.assertIn(file.hunks or b"", data)
            file.as_json()

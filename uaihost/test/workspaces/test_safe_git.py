"""What is known of git without running it: progress, errors, guards."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from uaihost.children import Finished
from uaihost.errors import ErrorCode
from uaihost.test.support import short_folder
from uaihost.workspaces.safe_git import Git, GitFailed, ProgressLines, clone_error, scrubbed

SAID = {
    "fatal: could not read Username for 'https://h': terminal prompts disabled": "sign-in",
    "fatal: Authentication failed for 'https://u:secret@h/x'": "sign-in",
    "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.": "sign-in",
    "Host key verification failed.\nfatal: Could not read from remote repository.": "host key",
    "fatal: repository 'https://h/x/' not found": "no such repository",
    "ERROR: Repository not found.\nfatal: Could not read from remote repository.": "no such repository",
    "fatal: https://h/x/info/refs not valid: is this a git repository?": "no git repository",
    "fatal: '/x' does not appear to be a git repository": "no git repository",
    "fatal: unable to access 'https://h/': Could not resolve host: h": "cannot be reached",
    "fatal: write error: No space left on device": "disk is full",
    "fatal: unable to access 'https://h/': SSL certificate problem: self-signed certificate": "not secure",
    "fatal: something new": "something new",
}


def failed(text: str) -> GitFailed:
    return GitFailed(("fetch",), Finished(128, b"", text.encode(), False, False))


class SafeGitTests(TestCase):
    def test_progress_comes_as_one_line_a_percent(self) -> None:
        lines: list[str] = []
        progress = ProgressLines(lines.append)
        progress.feed(b"remote: Counting objects:  50% (1/2)\rremote: Coun")
        progress.feed(b"ting objects: 100% (2/2)\rremote: Counting objects: 100% (2/2), done.\n")
        progress.feed(b"remote: \x1b[31mhello\nReceiving objects:   7% (1/14), 1.2 MiB\r")
        self.assertEqual(lines, ["Counting objects: 50%", "Counting objects: 100%", "Receiving objects: 7%"])

    def test_each_error_says_what_to_do(self) -> None:
        for text, why in SAID.items():
            error = clone_error(failed(text), "https://h/x")
            self.assertEqual(error.code, ErrorCode.CLONE_FAILED)
            self.assertIn("https://h/x", error.message)
            self.assertIn(why, error.message, text)

    def test_no_secret_of_an_address_is_repeated(self) -> None:
        self.assertEqual(scrubbed("a https://u:secret@h/x b"), "a https://h/x b")
        for text in ("fatal: odd thing at https://u:secret@h/x", "fatal: x 'https://secret@h'"):
            self.assertNotIn("secret", clone_error(failed(text), "https://h/x").message)
            self.assertNotIn("secret", str(failed(text)))

    async def test_an_operand_that_looks_like_an_option_is_refused_before_anything_runs(self) -> None:
        reactor: Any = None
        git = Git(reactor, short_folder(self), {})
        for operand in ("--upload-pack=touch /tmp/x", "-c", "a\0b"):
            with self.assertRaises(ValueError):
                await git.run("fetch", operands=[operand])

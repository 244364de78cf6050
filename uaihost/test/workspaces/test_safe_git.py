"""What is known of git without running it: progress, errors, guards."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from uaihost.children import Finished
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing
from uaihost.test.support import short_folder
from uaihost.wire.reasons import Reason
from uaihost.workspaces.faults import clone_error, is_unreachable, scrubbed
from uaihost.workspaces.progress import ProgressLines
from uaihost.workspaces.safe_git import Git, GitFailed

SAID = {
    "fatal: could not read Username for 'https://h': terminal prompts disabled": "sign-in",
    "fatal: Authentication failed for 'https://u:secret@h/x'": "sign-in",
    "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.": "SSH_AUTH_SOCK",
    "@@@ REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nHost key verification failed.": "another one",
    "error: cannot run ssh: No such file or directory\nfatal: unable to fork": "openssh-client",
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
        lines: list[str | Doing] = []
        progress = ProgressLines(lines.append)
        progress.feed(b"remote: Counting objects:  50% (1/2)\rremote: Coun")
        progress.feed(b"ting objects: 100% (2/2)\rremote: Counting objects: 100% (2/2), done.\n")
        progress.feed(b"remote: \x1b[31mhello\nReceiving objects:   7% (1/14), 1.2 MiB\r")
        expected = [("Counting objects", 50), ("Counting objects", 100), ("Receiving objects", 7)]
        self.assertEqual(lines, [Doing(Reason.CLONING, text, percent) for text, percent in expected])

    def test_each_error_says_what_to_do(self) -> None:
        for text, why in SAID.items():
            error = clone_error(failed(text), "https://h/x")
            self.assertEqual(error.code, ErrorCode.CLONE_FAILED)
            self.assertIn("https://h/x", error.message)
            self.assertIn(why, error.message, text)

    def test_who_does_not_answer_is_told_from_who_refuses(self) -> None:
        silent = (
            "fatal: unable to access 'https://h/': Could not resolve host: h",
            "ssh: connect to host h port 22: Connection refused\nfatal: Could not read from remote.",
            "ssh: Could not resolve hostname h: Temporary failure in name resolution",
            "fatal: unable to access 'https://h/': The requested URL returned error: 503",
            "fatal: unable to access 'https://h/': Failed to connect to h port 443 after 9 ms",
        )
        for text in silent:
            self.assertTrue(is_unreachable(failed(text)), text)
        for text in SAID:
            self.assertEqual(is_unreachable(failed(text)), "resolve" in text, text)
        self.assertTrue(is_unreachable(HostError(ErrorCode.TIMEOUT, "slow")))
        self.assertFalse(is_unreachable(HostError(ErrorCode.CLONE_FAILED, "empty")))

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

"""A program's own sign-in: the container it runs in, what is taken out of it, and that nothing stays."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Awaitable, Callable, Mapping, Sequence
from io import StringIO
from types import SimpleNamespace
from typing import Any

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from uaihost.blocking import Inline
from uaihost.cli import interactive
from uaihost.cli.interactive import NAME, sign_in, token_in
from uaihost.cli.local import run_now
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Launch, Ran
from uaihost.test.fakes_containers import Call, FakeEngine
from uaihost.test.support import given, short_folder, strategies

TOKEN = "sk-ant-oat01-" + "aZ_9-" * 19
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"


class TokenTests(SynchronousTestCase):
    def test_the_last_one_counts_whatever_colours_it(self) -> None:
        other = TOKEN[:-1] + "x"
        for shown in (
            TOKEN,
            f"Your\x1b[1Ctoken\x1b[1Cis\x1b[1C{TOKEN}\x1b[1Cand\x1b[1Cno\x1b[1Cother",
            f"Your token:\r\r\n\r\n\x1b[33m{TOKEN}\x1b[39m\r\n\r\nStore it well.\r\n",
            f"\x1b]0;title\x07\x1b[2J\x1b[?25l {other}\r\n\x1b[2J {TOKEN}\x1b[?25h\r\n",
        ):
            self.assertEqual(token_in(shown), TOKEN, shown)

    def test_none_is_none(self) -> None:
        for shown in ("", "sk-ant-api03-abc", "sk-ant-oat01", "paste the code here > \x1b[?25h"):
            self.assertIsNone(token_in(shown), shown)

    def test_words_that_follow_are_no_part_of_it(self) -> None:
        self.assertEqual(token_in(f"{TOKEN}\r\n\r\nStore\r\n"), TOKEN)
        self.assertEqual(token_in(f"{TOKEN}\r\nStore this token securely.\r\n"), TOKEN)
        self.assertEqual(token_in(f"{TOKEN} valid for a year"), TOKEN)

    @given(strategies.text(LETTERS, min_size=20, max_size=200), strategies.integers(20, 120))
    def test_however_narrow_the_terminal_is(self, rest: str, columns: int) -> None:
        token = "sk-ant-oat01-" + rest
        lines = textwrap.wrap(token, columns, break_on_hyphens=False)
        shown = "".join(f"\x1b[33m {line}\x1b[39m\r\n" for line in lines)
        self.assertEqual(token_in(f"Your token:\r\n{shown}\r\nStore it well.\r\n"), token)


class SignInTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.engine = FakeEngine(self.answered)
        self.launches: list[Launch] = []
        self.ran: tuple[list[str], dict[str, str]] | None = None
        self.ends: tuple[int, bytes] | HostError = (0, b"")
        self.login = Ran(0, b'{"tokens": 1}', b"")
        wanted = SimpleNamespace(data_dir=short_folder(self))
        images = SimpleNamespace(ensure=self.image)
        self.patch(interactive, "reachable", lambda: wanted)
        self.patch(interactive, "engine_address", lambda settings: "unix:///engine")
        self.patch(interactive, "task_images", lambda *given: images)
        self.patch(interactive, "DockerEngine", self.made)
        self.patch(interactive, "converse", self.converse)
        self.patch(interactive, "run", self.run_here)
        self.patch(interactive, "Threads", lambda reactor, name, limit: Inline())
        # Under a test's runner these may be no files at all.
        self.patch(sys, "stdin", SimpleNamespace(fileno=lambda: 0))
        self.patch(sys, "stdout", SimpleNamespace(fileno=lambda: 1))
        self.patch(interactive, "terminal", lambda *, stderr: Console(file=StringIO()))

    async def image(self, say: Callable[[Any], None]) -> str:
        return "standard:1"

    def made(self, reactor: Any, threads: Any, address: str, host_id: str) -> FakeEngine:
        self.host_id = host_id
        return self.engine

    def run_here(self, work: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            return await work(None, Inline())

        return run_now(whole())

    def answered(self, call: Call) -> Ran:
        return self.login if call.argv[0] == "cat" else Ran(0, b"", b"")

    def converse(
        self,
        address: str,
        container: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        ends: tuple[int, int],
    ) -> tuple[int, bytes]:
        self.launches.append(self.engine.launches[NAME])
        self.ran = list(argv), dict(env)
        if isinstance(self.ends, HostError):
            raise self.ends
        return self.ends

    def refused(self, provider: str) -> HostError:
        error: HostError = self.assertRaises(HostError, sign_in, provider)
        self.assertEqual(self.engine.containers, {}, "what it left is gone")
        return error

    def test_codex_login_is_taken_out_of_memory_and_the_container_is_gone(self) -> None:
        self.assertEqual(sign_in("codex", ["--more"]), ("login", {"auth": '{"tokens": 1}'}))
        assert self.ran is not None
        argv, env = self.ran
        self.assertEqual(argv, ["codex", "login", "--device-auth", "--more"])
        self.assertEqual((env["HOME"], env["CODEX_HOME"]), ("/dev/shm", "/dev/shm/.codex"))
        self.assertEqual(self.engine.calls[-1].argv, ("cat", "/dev/shm/.codex/auth.json"))
        self.assertEqual(self.engine.containers, {})
        (launch,) = self.launches
        self.assertEqual((launch.mounts, launch.read_only, launch.image), ((), True, "standard:1"))

    def test_claude_shows_its_token(self) -> None:
        self.ends = (0, f"\x1b[33m{TOKEN[:60]}\r\n{TOKEN[60:]}\x1b[39m\r\n\r\nbye\r\n".encode())
        self.assertEqual(sign_in("claude"), ("token", {"token": TOKEN}))
        assert self.ran is not None
        self.assertEqual(self.ran[0], ["claude", "setup-token"])
        self.assertEqual(self.engine.containers, {})

    def test_what_was_not_completed_says_what_else_can_be_done(self) -> None:
        self.ends = (1, b"cancelled")
        self.assertIn("it ended with status 1", self.refused("codex").message)
        self.ends = (0, b"bye")
        error = self.refused("claude")
        self.assertIn("it showed no token; nothing was changed", error.message)
        self.assertIn("uaihost login claude --api-key", error.message)
        self.login = Ran(1, b"", b"no such file")
        self.assertIn("it kept no login", self.refused("codex").message)
        self.ends = HostError(ErrorCode.UNAVAILABLE, "the engine is gone")
        self.assertIs(self.refused("codex"), self.ends)

    def test_what_a_killed_sign_in_left_is_swept_and_a_daemons_containers_are_not(self) -> None:
        left = Launch("_login", "old", 1000, 1000, (), ())
        run_now(self.engine.launch(left))
        sign_in("codex")
        self.assertEqual(self.launches[0].image, "standard:1")
        self.assertTrue(self.host_id.startswith("login-"), "no daemon's own")

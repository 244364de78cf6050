"""How a keeper is started: files on disk, the process's environment, secrets nowhere but there."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from twisted.trial.unittest import TestCase

from uaihost.agents.adapter import Start
from uaihost.blocking import Inline
from uaihost.channel.launch import Launcher
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Account
from uaihost.state.channel import AgentRow
from uaihost.test.channel.rig import LocalEngine
from uaihost.test.support import given, short_folder, strategies

SECRET = 'sk-"\\\n{{id}} ü'
ROW = AgentRow(
    task_id="t1",
    agent_id="ada",
    position=0,
    present=True,
    label="Ada",
    kind="claude",
    model="m",
    instructions="Be brief.",
)


@attrs.frozen
class Started:
    task_id: str
    argv: list[str]
    env: Mapping[str, str] | None


class Engine(LocalEngine):
    """Starts nothing, and remembers what it was to start."""

    def __init__(self) -> None:
        self.started_with: list[Started] = []

    async def start_process(
        self,
        task_id: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        self.started_with.append(Started(task_id, list(argv), env))


class Accounts:
    """One provider, `vendor`, with whatever secrets a test gives it."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {"key": SECRET, "access": SECRET, "id": "me"}
        self.asked: list[tuple[str, str, bool]] = []

    def account(self, provider: str) -> Account:
        return Account("key" if provider == "vendor" else "none")

    async def secret(self, provider: str, name: str, *, renew: bool = False) -> str:
        self.asked.append((provider, name, renew))
        if name not in self.secrets:
            raise HostError(ErrorCode.UNAVAILABLE, f"nobody is signed in to {provider}")
        return self.secrets[name]

    def on_change(self, listener: Any) -> Any:
        raise NotImplementedError("the launcher does not listen")


class LaunchCase(TestCase):
    def setUp(self) -> None:
        self.engine = Engine()
        self.accounts = Accounts()
        self.folder = short_folder(self)
        providers = {"claude": "vendor"}
        self.launcher = Launcher(self.engine, Inline(), self.folder, self.accounts, providers.get)
        self.control = self.folder / "t1" / "control" / "agents" / "ada"

    def start(self, start: Start) -> Started:
        self.successResultOf(self.launcher.start("t1", ROW, "/workspace/app", start))
        return self.engine.started_with[-1]


class StartTests(LaunchCase):
    def test_the_keeper_gets_the_agents_folder_its_place_and_its_command(self) -> None:
        started = self.start(Start(("claude", "--verbose")))
        self.assertEqual(started.task_id, "t1")
        keeper = "python3 /opt/uai/agentd.py --dir /run/uai/agents/ada --cwd /workspace/app --"
        self.assertEqual(started.argv, [*keeper.split(), "claude", "--verbose"])
        self.assertIsNone(started.env)

    def test_commits_name_the_agent_where_that_is_wanted(self) -> None:
        for kind, name in (
            ("claude", "Claude <noreply@anthropic.com>"),
            ("goose", "goose <goose@agents.invalid>"),
        ):
            launcher = Launcher(
                self.engine, Inline(), self.folder, self.accounts, lambda kind: None, co_author=True
            )
            row = attrs.evolve(ROW, kind=kind)
            self.successResultOf(launcher.start("t1", row, "/workspace/app", Start(("agent",))))
            self.assertEqual(self.engine.started_with[-1].env, {"UAI_CO_AUTHOR": name})

    def test_an_empty_value_takes_a_variable_of_the_container_away(self) -> None:
        started = self.start(Start(("claude",), {"A": "1", "B": "", "C": ""}))
        self.assertEqual(started.argv[-6:], ["env", "-u", "B", "-u", "C", "claude"])
        self.assertEqual(started.env, {"A": "1"})

    def test_a_variable_that_a_secret_fills_is_not_taken_away(self) -> None:
        started = self.start(Start(("claude",), {"KEY": ""}, {"KEY": "key"}))
        self.assertEqual(started.argv[-1:], ["claude"])
        self.assertNotIn("env", started.argv)
        self.assertEqual(started.env, {"KEY": SECRET})

    def test_secrets_lie_in_the_environment_alone(self) -> None:
        files = {"settings.json": '{"helper": "KEY"}'}
        started = self.start(Start(("claude", "KEY"), {"A": "1"}, {"KEY": "key"}, files))
        self.assertEqual(started.env, {"A": "1", "KEY": SECRET})
        self.assertNotIn(SECRET, " ".join(started.argv))
        written = [path.read_text() for path in self.folder.rglob("*") if path.is_file()]
        self.assertEqual(written, ['{"helper": "KEY"}'])

    def test_nothing_is_started_without_a_secret(self) -> None:
        self.failureResultOf(
            self.launcher.start("t1", ROW, "/w", Start(("claude",), secrets={"T": "none"})), HostError
        )
        self.assertEqual(self.engine.started_with, [])

    def test_settings_name_the_agents_own_places(self) -> None:
        settings = self.launcher.settings(ROW, "/workspace/app")
        self.assertEqual(
            (settings.folder, settings.control, settings.cwd),
            ("/run/uai/agents/ada", "/run/host/agents/ada", "/workspace/app"),
        )
        self.assertEqual(settings.account, Account("key"))
        self.assertEqual(self.launcher.settings(attrs.evolve(ROW, kind="mock"), "/w").account, Account())


class FileTests(LaunchCase):
    def files(self, **files: str) -> dict[str, str]:
        self.start(Start(("x",), files={name.replace("_", "."): text for name, text in files.items()}))
        return {path.name: path.read_text() for path in self.control.iterdir()}

    def test_the_folder_holds_exactly_the_files_of_the_last_start(self) -> None:
        self.assertEqual(self.files(a_json="1", b_md="2"), {"a.json": "1", "b.md": "2"})
        (self.control / "left").mkdir()
        (self.control / "left" / "over").write_text("x")
        outside = self.folder / "outside"
        outside.mkdir()
        (outside / "precious").write_text("x")
        (self.control / "link").symlink_to(outside)
        self.assertEqual(self.files(b_md="3"), {"b.md": "3"})
        self.assertTrue((outside / "precious").exists())

    def test_the_containers_user_reads_them_whatever_the_daemons_umask(self) -> None:
        self.files(a_json="1")
        for path, mode in ((self.control.parent, 0o755), (self.control, 0o755)):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), mode)
        self.assertEqual(stat.S_IMODE((self.control / "a.json").stat().st_mode), 0o644)

    def test_a_link_in_the_place_of_a_file_is_not_written_through(self) -> None:
        self.files(a_json="1")
        target = self.folder / "target"
        target.write_text("untouched")
        (self.control / "a.json").unlink()
        (self.control / "a.json").symlink_to(target)
        self.assertEqual(self.files(a_json="2"), {"a.json": "2"})
        self.assertEqual(target.read_text(), "untouched")

    def test_half_a_letter_is_written_as_something_that_can_be_read(self) -> None:
        self.assertEqual(self.files(a_md="x\ud800y"), {"a.md": "x?y"})


class FillTests(LaunchCase):
    def fill(self, line: bytes, renew: bool = False) -> bytes:
        filled: bytes = self.successResultOf(self.launcher.fill("claude", line, renew))
        return filled

    def test_each_name_is_replaced_by_that_secret_as_json(self) -> None:
        line = b'{"token": "{{access}}", "twice": "{{access}} {{id}}", "not": "{{ id }} {{ID}}"}'
        filled = json.loads(self.fill(line))
        self.assertEqual(filled["token"], SECRET)
        self.assertEqual(filled["not"], "{{ id }} {{ID}}")
        self.assertEqual(self.accounts.asked, [("vendor", "access", False), ("vendor", "id", False)])

    def test_only_the_access_token_is_renewed(self) -> None:
        self.fill(b'"{{access}} {{id}}"', renew=True)
        self.assertEqual(self.accounts.asked, [("vendor", "access", True), ("vendor", "id", False)])

    def test_a_line_without_names_stays_as_it_is(self) -> None:
        self.assertEqual(self.fill(b'{"a": 1}'), b'{"a": 1}')
        self.assertEqual(self.accounts.asked, [])

    @given(strategies.text(max_size=20))
    def test_any_secret_is_one_json_string(self, secret: str) -> None:
        self.accounts.secrets["key"] = secret
        self.assertEqual(json.loads(self.fill(b'["{{key}}"]')), [secret])

    def test_one_that_nobody_has_is_refused(self) -> None:
        self.failureResultOf(self.launcher.fill("claude", b"{{none}}", False), HostError)

"""Records what real agents say, both ways, against the scripted model: the golden transcripts of the tests.

    python3 -m uaihost.test.agents.record IMAGE [ENGINE [PROGRAM ...]]

IMAGE is a task image with the agents, ENGINE an address for `docker -H`. Each scenario becomes
`golden/<program>-<version>/<scenario>.jsonl`, lines {"dir": "in" or "out", "line": TEXT}.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from uaihost.agents.acp_programs import opencode, own
from uaihost.agents.adapter import (
    Adapter,
    AgentSettings,
    Answer,
    PermissionAsked,
    Ready,
    Send,
    TextDelta,
    TurnEnded,
)
from uaihost.agents.claude import ClaudeAdapter
from uaihost.agents.codex import CodexAdapter
from uaihost.interfaces import Account

GOLDEN = Path(__file__).parent / "golden"
MODEL_API = Path(__file__).parents[1] / "model_api"
PORT = 8099
# Those of the standard image.
KINDS = ("claude", "codex", "opencode")
ADAPTER = ("/opt/acp/bin/claude-agent-acp",)
# Seconds after which a scenario has no end.
LATE = 60.0
SETTINGS = AgentSettings("a", None, "/tmp/agent", "Be kind.", "/tmp/control", "/workspace")


@attrs.frozen
class Program:
    make: Callable[[AgentSettings, str], Adapter]
    settings: AgentSettings
    secrets: dict[str, str]
    # Scenarios that come to no end with it.
    without: frozenset[str] = frozenset()
    env: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Scenario:
    """prompts: one turn each. decide: what requests for leave are told. interrupt: after this many pieces."""

    prompts: tuple[str, ...]
    decide: bool = True
    interrupt: int = 0


SCENARIOS = {
    "answer": Scenario(("say:hello from the model", "/cost")),
    "tools": Scenario(("run:touch made ;; write:/workspace/a.txt:hello\\nthere ;; say:both done",)),
    "declined": Scenario(("run:touch never",), decide=False),
    "question": Scenario(("ask:Which colour?|red|blue",)),
    "thought": Scenario(("think:let me see ;; say:seen",)),
    "interrupted": Scenario(("slow:60:100", "say:still here"), interrupt=3),
    "refused-key": Scenario(("fail:401",)),
    "overloaded-once": Scenario(("fail:529:1 ;; say:recovered",)),
    "overloaded": Scenario(("fail:529",)),
    "limit": Scenario(("limit:3600",)),
    "bad-request": Scenario(("fail:400",)),
    "cut": Scenario(("drop:3",)),
}


def programs() -> dict[str, Program]:
    address = f"http://127.0.0.1:{PORT}"
    made = partial(attrs.evolve, SETTINGS)
    return {
        "claude": Program(
            ClaudeAdapter, made(account=Account("token", address)), {"token": "sk-ant-oat01-scripted"}
        ),
        "codex": Program(
            CodexAdapter,
            made(account=Account("key", f"{address}/v1"), model="scripted"),
            {"key": "sk-scripted"},
        ),
        # In no image of ours: record it in one that was made from ours with `npm install`.
        "claude-agent-acp": Program(
            partial(own, "claude-agent-acp", ADAPTER),
            SETTINGS,
            {},
            env={
                "ANTHROPIC_API_KEY": "sk-ant-api03-scripted",
                "ANTHROPIC_BASE_URL": address,
                "CLAUDE_CODE_EXECUTABLE": "/usr/local/bin/claude",
                "CLAUDE_CODE_MAX_RETRIES": "2",
            },
            without=frozenset({"question"}),
        ),
        "opencode": Program(
            opencode,
            made(account=Account("key", address)),
            {"key": "sk-ant-api03-scripted"},
            # It tries again without end and says nothing of it; and it does not ask such questions.
            frozenset({"overloaded", "limit", "cut", "question"}),
        ),
    }


class Recording:
    """One run of a program in a container of its own."""

    def __init__(self, docker: list[str], image: str, program: Program) -> None:
        self.lines: list[dict[str, str]] = []
        self.adapter = program.make(program.settings, "")
        start = self.adapter.start(None)
        secrets = {name: program.secrets[what] for name, what in start.secrets.items()}
        env = [
            word
            for name, value in {**start.env, **secrets, **program.env}.items()
            if value
            for word in ("-e", f"{name}={value}")
        ]
        files = "".join(
            f"cat > /tmp/control/{name} <<'EOF'\n{text}\nEOF\n" for name, text in start.files.items()
        )
        script = (
            f"cd /x && (python3 -m model_api --port {PORT} >/dev/null 2>&1 &)\n"
            f"until (: < /dev/tcp/127.0.0.1/{PORT}) 2>/dev/null; do sleep 0.1; done\n"
            f'mkdir -p /tmp/control /tmp/agent\n{files}cd /workspace\nexec "$@"\n'
        )
        run = [
            "run",
            "-i",
            "--rm",
            *env,
            "-v",
            f"{MODEL_API}:/x/model_api:ro",
        ]
        command = [*docker, *run, "--entrypoint", "bash", image, "-c", script, "bash", *start.argv]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.lines.append({"dir": "in", "line": scrubbed(line)})
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def play(self, scenario: Scenario) -> None:
        late = threading.Timer(LATE, self.process.kill)
        late.start()
        self._play(scenario)
        late.cancel()

    def _play(self, scenario: Scenario) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        prompts, pieces = list(scenario.prompts), 0
        self.say(self.adapter.open(None))
        for line in self.process.stdout:
            self.lines.append({"dir": "out", "line": scrubbed(line.rstrip(b"\n"))})
            for event in self.adapter.feed(line):
                if isinstance(event, Send):
                    self.say(event.line)
                elif isinstance(event, PermissionAsked):
                    answers = {each.text: each.options[0][0] for each in event.questions}
                    self.say(self.adapter.answer(event.request_id, Answer(scenario.decide, answers)))
                elif isinstance(event, TextDelta) and scenario.interrupt:
                    pieces += 1
                    if pieces == scenario.interrupt:
                        for each in self.adapter.interrupt():
                            self.say(each)
                elif isinstance(event, Ready | TurnEnded):
                    if prompts:
                        self.say(self.adapter.prompt(prompts.pop(0)))
                    else:
                        self.process.stdin.close()
        self.process.wait(60)


def scrubbed(line: bytes) -> str:
    """Without what differs between machines: the container's name, and lists of commands and models."""
    try:
        found = json.loads(line)
    except ValueError:
        return line.decode("utf-8", "replace")
    return json.dumps(_short(found), ensure_ascii=False)


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_short(each) for each in value[:6]]
    if isinstance(value, str):
        return re.sub(r"(?<![-0-9a-f.])[0-9a-f]{12}(?![-0-9a-f])", "container", value)[:2000]
    return value


def version(docker: list[str], image: str, program: str) -> str:
    command = [program, image, "--version"]
    if program == "claude-agent-acp":
        command = [
            "cat",
            image,
            "/opt/acp/lib/node_modules/@agentclientprotocol/claude-agent-acp/package.json",
        ]
    said = subprocess.run(
        [*docker, "run", "--rm", "-e", "HOME=/tmp", "--entrypoint", *command],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"(?<!@)\b\d+\.\d+\.\d+", said)
    assert found, said
    return found[0]


def main(argv: list[str]) -> None:
    image, only = argv[0], argv[2:]
    docker = ["docker", *(["-H", argv[1]] if len(argv) > 1 else [])]
    for name, program in programs().items():
        if name not in (only or KINDS):
            continue
        folder = GOLDEN / f"{name}-{version(docker, image, name)}"
        folder.mkdir(parents=True, exist_ok=True)
        for title, scenario in SCENARIOS.items():
            if title in program.without:
                continue
            recording = Recording(docker, image, program)
            recording.play(scenario)
            if recording.process.returncode:
                print(folder.name, title, "came to no end", flush=True)
                continue
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in recording.lines)
            (folder / f"{title}.jsonl").write_text(text, encoding="utf-8")
            print(folder.name, title, len(recording.lines), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

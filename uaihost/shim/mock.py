"""A scripted agent: a real process that speaks JSON lines on its stdio and needs no account.

    python3 mock.py --state FILE [--model careful|free] [--resume SESSION]

A person drives it with words. A message whose first line starts with one of these verbs is a script, one
verb a line or chained by ` ;; `; anything else gets a friendly answer that repeats what was understood.

    say TEXT            think               slow N TEXT          read PATH
    write PATH TEXT     edit PATH OLD => NEW                     run CMD
    ask QUESTION        commit MESSAGE      fail TEXT            crash

`\\n` in TEXT, OLD and NEW is a line break. write, edit, run and commit ask for permission first, unless the
model is `free`. Paths are relative to the working directory. FILE keeps the session and how many
messages it has had, so that a resumed session can be seen to be one.

Lines in: {"type": "start", "session": ID or null, "instructions": TEXT}, {"type": "prompt", "turn": N,
"text": TEXT}, {"type": "answer", "request": ID, "accept": BOOL}, {"type": "cancel"}.
Lines out: `session` {session, resumed, messages}, `delta` {text}, `tool` {id, name, detail, ok, state:
started or ended}, `permission` {request, tool, title, input}, `withdrawn` {request}, `message` {text},
`usage` {input, output}, `end` {turn, error, reason: done, cancelled or failed}.

Standard library only, Python 3.9 and later.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Between two chunks of a streamed answer, seconds: slow enough to be seen as a stream.
PAUSE = 0.03
# The same for `slow`, and how long `think` takes, seconds.
SLOW_PAUSE = 0.3
THOUGHT = 0.5
# What `run` may take, seconds, and how much of its output is shown, characters.
RUN_LIMIT = 300.0
SHOWN = 4000
VERBS = ("say", "think", "slow", "read", "write", "edit", "run", "ask", "commit", "fail", "crash")
SEPARATOR = " ;; "


class Cancelled(Exception):
    """The turn was interrupted."""


class Failed(Exception):
    """The turn cannot go on; the text says why."""


def steps(text: str) -> list[tuple[str, str]] | None:
    """The script in a message as (verb, rest), or None if it is no script.

    >>> steps("say hi ;; crash")
    [('say', 'hi'), ('crash', '')]
    """
    found = []
    for line in text.strip().splitlines():
        for part in line.split(SEPARATOR):
            verb, _, rest = part.strip().partition(" ")
            if verb in VERBS:
                found.append((verb, rest.strip()))
            elif not found:
                return None
            elif part.strip():
                raise Failed("I do not know {!r}; my verbs are: {}".format(verb, ", ".join(VERBS)))
    return found or None


def unescape(text: str) -> str:
    return text.replace("\\n", "\n")


class Wire:
    """JSON lines out; lines in sorted into prompts, answers and the wish to stop."""

    def __init__(self) -> None:
        self.prompts: queue.Queue[tuple[dict[str, Any], threading.Event] | None] = queue.Queue()
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        # Each prompt has its own, so that a cancel neither misses a prompt just read nor hits the next one.
        self.cancel = threading.Event()

    def send(self, kind: str, **fields: Any) -> None:
        sys.stdout.write(json.dumps({"type": kind, **fields}, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def listen(self) -> None:
        latest = threading.Event()
        for line in sys.stdin:
            try:
                message = json.loads(line)
            except ValueError:
                print(f"not JSON: {line:.80}", file=sys.stderr, flush=True)
                continue
            kind = message.get("type")
            if kind == "cancel":
                latest.set()
            elif kind == "answer":
                self.answers.put(message)
            else:
                latest = threading.Event()
                self.prompts.put((message, latest))
        self.prompts.put(None)

    def pause(self, seconds: float) -> None:
        if self.cancel.wait(seconds):
            raise Cancelled

    def consent(self, tool: str, title: str, given: dict[str, Any]) -> bool:
        """Ask, and wait as long as it takes."""
        request = uuid.uuid4().hex[:12]
        self.send("permission", request=request, tool=tool, title=title, input=given)
        while True:
            try:
                answer = self.answers.get(timeout=0.05)
            except queue.Empty:
                if self.cancel.is_set():
                    self.send("withdrawn", request=request)
                    raise Cancelled
                continue
            if answer.get("request") == request:
                return answer.get("accept") is True


class Turn:
    """One prompt and what it makes the agent do; `said` is the whole answer so far."""

    def __init__(self, wire: Wire, free: bool, messages: int) -> None:
        self.wire = wire
        self.free = free
        self.messages = messages
        self.said = ""

    def play(self, text: str) -> None:
        script = steps(without_address(text))
        if script is None:
            self._chat(without_address(text))
            return
        for number, (verb, rest) in enumerate(script):
            if number:
                self._tell("\n")
            getattr(self, "_" + verb)(rest)

    def _chat(self, text: str) -> None:
        shown = " ".join(text.replace("@", "").split())
        shown = shown if len(shown) <= 300 else shown[:300] + "..."
        answer = (
            'I read: "{}". I am the mock agent and this is message {} of our conversation. '
            "Give me a script and I will work; start a line with one of: {}."
        )
        self._stream(answer.format(shown, self.messages, ", ".join(VERBS)), 24, PAUSE)

    def _say(self, rest: str) -> None:
        self._stream(unescape(rest), 24, PAUSE)

    def _think(self, rest: str) -> None:
        self.wire.pause(THOUGHT)
        self._tell("I thought about it.")

    def _slow(self, rest: str) -> None:
        count, _, text = rest.partition(" ")
        if not count.isdigit() or not 1 <= int(count) <= 10000:
            raise Failed("slow needs a number of chunks from 1 to 10000 and a text")
        for _ in range(int(count)):
            self._tell(unescape(text) + " ")
            self.wire.pause(SLOW_PAUSE)

    def _read(self, rest: str) -> None:
        with self._tool("Read", rest), Path(rest).open(encoding="utf-8", errors="replace") as file:
            content = file.read(SHOWN + 1)
        self._tell(f"{rest}:\n{shorten(content)}")

    def _write(self, rest: str) -> None:
        path, _, text = rest.partition(" ")
        text = unescape(text) + "\n"

        def work() -> str:
            self._store(path, text)
            return f"wrote {path} ({len(text.encode())} bytes)"

        self._change("Write", f"Write {path}", {"path": path, "text": text}, work)

    def _edit(self, rest: str) -> None:
        path, _, change = rest.partition(" ")
        old, arrow, new = change.partition(" => ")
        if not arrow or not old:
            raise Failed("edit needs: PATH OLD => NEW")
        old, new = unescape(old), unescape(new)

        def work() -> str:
            with Path(path).open(encoding="utf-8") as file:
                content = file.read()
            if old not in content:
                raise Failed(f"{path} does not hold {old!r}")
            self._store(path, content.replace(old, new))
            return f"edited {path} ({content.count(old)} place(s))"

        self._change("Edit", f"Edit {path}", {"path": path, "old": old, "new": new}, work)

    def _run(self, rest: str) -> None:
        self._change("Run", rest, {"command": rest}, lambda: self._command(["/bin/sh", "-c", rest]))

    def _commit(self, rest: str) -> None:
        def work() -> str:
            self._command(["git", "add", "-A"])
            return self._command(["git", "commit", "-q", "-m", rest]) + f"\ncommitted: {rest}"

        self._change("Commit", f"Commit: {rest}", {"message": rest}, work)

    def _ask(self, rest: str) -> None:
        accepted = self.wire.consent("Question", rest, {"question": rest})
        self._tell("You said {} to: {}".format("yes" if accepted else "no", rest))

    def _fail(self, rest: str) -> None:
        raise Failed(rest or "told to fail")

    def _crash(self, rest: str) -> None:
        print("mock agent: told to crash", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

    def _change(self, tool: str, title: str, given: dict[str, Any], work: Callable[[], str]) -> None:
        if not self.free and not self.wire.consent(tool, title, given):
            self._tell(f"declined: {title}")
            return
        with self._tool(tool, title):
            result = work()
        self._tell(result.strip() or f"done: {title}")

    def _tool(self, name: str, detail: str) -> _Tool:
        return _Tool(self.wire, name, detail)

    def _store(self, path: str, text: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")

    def _command(self, argv: list[str]) -> str:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + RUN_LIMIT
        out = b""
        while True:
            try:
                out, _ = child.communicate(timeout=0.05)
                break
            except subprocess.TimeoutExpired:
                if self.wire.cancel.is_set() or time.monotonic() > deadline:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.communicate()
                    if self.wire.cancel.is_set():
                        raise Cancelled
                    raise Failed(f"ended after {RUN_LIMIT:.0f} s: {argv[-1]}")
        text = shorten(out.decode("utf-8", "replace"))
        if child.returncode:
            raise Failed(f"status {child.returncode} from {argv[-1]}:\n{text}")
        return text

    def _stream(self, text: str, size: int, pause: float) -> None:
        for start in range(0, len(text), size):
            self._tell(text[start : start + size])
            self.wire.pause(pause)

    def _tell(self, text: str) -> None:
        self.said += text
        self.wire.send("delta", text=text)


class _Tool:
    """Brackets a piece of work with its two `tool` lines."""

    def __init__(self, wire: Wire, name: str, detail: str) -> None:
        self.wire = wire
        self.fields = {"id": uuid.uuid4().hex[:12], "name": name, "detail": detail}

    def __enter__(self) -> None:
        self.wire.send("tool", state="started", ok=None, **self.fields)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.wire.send("tool", state="ended", ok=kind is None, **self.fields)


def without_address(text: str) -> str:
    """The message without the `@id` words before it and the line that names its sender."""
    lines = text.strip().splitlines()
    if lines and lines[0].startswith("@") and lines[0].endswith(" says:"):
        lines = lines[1:]
    text = "\n".join(lines).strip()
    while text.startswith("@"):
        text = text.partition(" ")[2].strip()
    return text


def shorten(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "\n... (cut)"


def load(path: str, wanted: str | None) -> tuple[str, int, bool]:
    """Session, messages so far, whether it is the one that was asked for."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            state = json.load(file)
        if wanted and state["session"] == wanted:
            return wanted, int(state["messages"]), True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return uuid.uuid4().hex, 0, False


def save(path: str, session: str, messages: int) -> None:
    beside = Path(path + ".new")
    beside.write_text(json.dumps({"session": session, "messages": messages}), encoding="utf-8")
    beside.replace(path)


def serve(wire: Wire, path: str, free: bool, wanted: str | None) -> None:
    session, messages, resumed = load(path, wanted)
    save(path, session, messages)
    while (given := wire.prompts.get()) is not None:
        message, wire.cancel = given
        if message.get("type") == "start":
            wire.send("session", session=session, resumed=resumed, messages=messages)
            continue
        if message.get("type") != "prompt":
            continue
        text = str(message.get("text", ""))
        messages += 1
        save(path, session, messages)
        turn = Turn(wire, free, messages)
        reason, error = "done", None
        try:
            turn.play(text)
        except Cancelled:
            reason = "cancelled"
        except (Failed, OSError, UnicodeError) as failure:
            reason, error = "failed", str(failure)
        if turn.said.strip():
            wire.send("message", text=turn.said)
        wire.send("usage", input=len(text.split()), output=len(turn.said.split()))
        wire.send("end", turn=message.get("turn"), reason=reason, error=error)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="mock.py", description="A scripted agent.")
    parser.add_argument("--state", required=True)
    parser.add_argument("--model", default="careful")
    parser.add_argument("--resume")
    options = parser.parse_args(argv)
    wire = Wire()
    threading.Thread(target=wire.listen, daemon=True).start()
    serve(wire, options.state, options.model == "free", options.resume)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

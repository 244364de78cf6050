"""A scripted agent: a real process that speaks JSON lines on its stdio and needs no account.

    python3 mock.py --state FILE [--model careful|free] [--resume SESSION]

A person drives it with words. A message whose first line starts with one of these verbs is a script, one
verb a line or chained by ` ;; `; anything else gets a friendly answer that repeats what was understood.

    say TEXT            think               slow N TEXT          read PATH
    write PATH TEXT     edit PATH OLD => NEW                     run CMD
    ask QUESTION        commit MESSAGE      fail TEXT            crash
    choose QUESTION | ANSWER | ANSWER ...   tokens N             retry N
    limit SECONDS TEXT  signout             overload             lose
    odd

`\\n` in TEXT, OLD and NEW is a line break. write, edit, run and commit ask for permission first, unless the
model is `free`. Paths are relative to the working directory. FILE keeps the session and how many
messages it has had, so that a resumed session can be seen to be one, and how far it has come in a script: one
that was cut off by crash, limit, signout or overload, or by the end of the process, goes on where it was when
the same is said again. After lose the session cannot be resumed. tokens are used; retry is told N times; odd
sends a line of a kind that nobody knows.

Lines in: {"type": "start", "session": ID or null, "instructions": TEXT}, {"type": "prompt", "turn": N,
"text": TEXT}, {"type": "answer", "request": ID, "accept": BOOL, "answers": {QUESTION: ANSWER} or missing},
{"type": "cancel"}.
Lines out: `session` {session, resumed, messages}, `lost` {text}, `delta` {text}, `tool` {id, name, detail,
ok, state: started or ended}, `permission` {request, tool, title, input, questions: [{text, options}]},
`withdrawn` {request}, `retry` {text, attempt, most}, `message` {text}, `usage` {input, output}, `end` {turn,
error, fault: quota, signed-out, overloaded or other, resets: milliseconds since the epoch or null, reason:
done, cancelled or failed}.

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
VERBS = (
    *("say", "think", "slow", "read", "write", "edit", "run", "ask", "commit", "fail", "crash"),
    *("choose", "tokens", "retry", "limit", "signout", "overload", "lose", "odd"),
)
# What stands before the words of a turn that has lost its process.
GO_ON, TOLD = "You were stopped", "told was:\n"
# Verbs that end the turn; said again, it goes on after them.
CUTTING = ("crash", "limit", "signout", "overload")
SEPARATOR = " ;; "


class Cancelled(Exception):
    """The turn was interrupted."""


class Failed(Exception):
    """The turn cannot go on; the text says why. resets_at: milliseconds since the epoch, of a quota."""

    def __init__(self, text: str, kind: str = "other", resets_at: int | None = None) -> None:
        super().__init__(text)
        self.kind = kind
        self.resets_at = resets_at


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
        return self.ask(tool, title, given, []).get("accept") is True

    def ask(
        self, tool: str, title: str, given: dict[str, Any], questions: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Ask, and wait for the answer as long as it takes."""
        request = uuid.uuid4().hex[:12]
        self.send("permission", request=request, tool=tool, title=title, input=given, questions=questions)
        while True:
            try:
                answer = self.answers.get(timeout=0.05)
            except queue.Empty:
                if self.cancel.is_set():
                    self.send("withdrawn", request=request)
                    raise Cancelled
                continue
            if answer.get("request") == request:
                return answer


class Memory:
    """What FILE keeps. script, done: of a turn that has not ended, and how many of its steps have."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.session = ""
        self.messages = 0
        self.script = ""
        self.done = 0
        self.lost = False

    def load(self, wanted: str | None) -> bool:
        """Whether the session is the one that was asked for; if not, it is a new one."""
        try:
            with self._path.open(encoding="utf-8") as file:
                state = json.load(file)
            if wanted and state["session"] == wanted:
                vars(self).update(state)
                return True
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self.session = uuid.uuid4().hex
        return False

    def save(self) -> None:
        beside = self._path.with_name(self._path.name + ".new")
        names = ("session", "messages", "script", "done", "lost")
        beside.write_text(json.dumps({name: getattr(self, name) for name in names}), encoding="utf-8")
        beside.replace(self._path)

    def begin(self, script: str) -> int:
        """How many steps of it are done already."""
        if script != self.script:
            self.script, self.done = script, 0
        self.messages += 1
        self.save()
        return self.done

    def step(self, done: int) -> None:
        self.done = done
        self.save()

    def end(self) -> None:
        self.script, self.done = "", 0
        self.save()


class Turn:
    """One prompt and what it makes the agent do; `said` is the whole answer so far."""

    def __init__(self, wire: Wire, free: bool, memory: Memory) -> None:
        self.wire = wire
        self.free = free
        self.memory = memory
        self.tokens = 0
        self.said = ""

    def play(self, text: str) -> None:
        text = without_address(text)
        done = self.memory.begin(text)
        script = steps(text)
        if script is None:
            self._chat(text)
            return
        for number, (verb, rest) in enumerate(script[done:], start=done):
            if self.said:
                self._tell("\n")
            if verb in CUTTING:
                self.memory.step(number + 1)
            getattr(self, "_" + verb)(rest)
            self.memory.step(number + 1)

    def _chat(self, text: str) -> None:
        shown = " ".join(text.replace("@", "").split())
        shown = shown if len(shown) <= 300 else shown[:300] + "..."
        answer = (
            'I read: "{}". I am the mock agent and this is message {} of our conversation. '
            "Give me a script and I will work; start a line with one of: {}."
        )
        self._stream(answer.format(shown, self.memory.messages, ", ".join(VERBS)), 24, PAUSE)

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

    def _choose(self, rest: str) -> None:
        question, *options = (part.strip() for part in rest.split("|"))
        if not question or len(options) < 2:
            raise Failed("choose needs: QUESTION | ANSWER | ANSWER ...")
        asked = [{"text": question, "options": options}]
        answer = self.wire.ask("Question", question, {"question": question, "options": options}, asked)
        chosen = (answer.get("answers") or {}).get(question) if answer.get("accept") is True else None
        self._tell(f"You chose: {chosen}" if chosen else "You chose nothing")

    def _tokens(self, rest: str) -> None:
        if not rest.isdigit():
            raise Failed("tokens needs a number")
        self.tokens += int(rest)

    def _retry(self, rest: str) -> None:
        if not rest.isdigit() or not 1 <= int(rest) <= 100:
            raise Failed("retry needs a number from 1 to 100")
        for attempt in range(1, int(rest) + 1):
            self.wire.send("retry", text="overloaded", attempt=attempt, most=int(rest))
            self.wire.pause(SLOW_PAUSE)

    def _limit(self, rest: str) -> None:
        seconds, _, text = rest.partition(" ")
        if seconds and not seconds.isdigit():
            raise Failed("limit needs a number of seconds, or nothing for an end that is not told")
        resets_at = int((time.time() + int(seconds)) * 1000) if seconds else None
        raise Failed(text or "You have hit your usage limit", "quota", resets_at)

    def _signout(self, rest: str) -> None:
        raise Failed(rest or "Not logged in", "signed-out")

    def _overload(self, rest: str) -> None:
        raise Failed(rest or "Overloaded", "overloaded")

    def _lose(self, rest: str) -> None:
        self.memory.lost = True
        self._tell("I will not remember this.")

    def _odd(self, rest: str) -> None:
        self.wire.send("oddity", note=rest or "nobody knows me")

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
    """The message without what was put before it: that it is said again, who says it, the `@id` words."""
    if text.startswith(GO_ON) and TOLD in text:
        text = text.partition(TOLD)[2]
    lines = text.strip().splitlines()
    if lines and lines[0].startswith("@") and lines[0].endswith(" says:"):
        lines = lines[1:]
    text = "\n".join(lines).strip()
    while text.startswith("@"):
        text = text.partition(" ")[2].strip()
    return text


def shorten(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "\n... (cut)"


def serve(wire: Wire, memory: Memory, free: bool, wanted: str | None) -> None:
    resumed = memory.load(wanted)
    if memory.lost:
        wire.send("lost", text=f"No conversation found with session ID: {wanted}")
        return
    memory.save()
    while (given := wire.prompts.get()) is not None:
        message, wire.cancel = given
        if message.get("type") == "start":
            wire.send("session", session=memory.session, resumed=resumed, messages=memory.messages)
        elif message.get("type") == "prompt":
            play(wire, memory, free, message)


def play(wire: Wire, memory: Memory, free: bool, message: dict[str, Any]) -> None:
    """A whole turn."""
    text = str(message.get("text", ""))
    turn = Turn(wire, free, memory)
    end: dict[str, Any] = {"reason": "done", "error": None, "fault": None, "resets": None}
    try:
        turn.play(text)
    except Cancelled:
        end["reason"] = "cancelled"
    except Failed as failure:
        end.update(reason="failed", error=str(failure), fault=failure.kind, resets=failure.resets_at)
    except (OSError, UnicodeError) as failure:
        end.update(reason="failed", error=str(failure), fault="other")
    if end["fault"] in (None, "other"):
        memory.end()
    if turn.said.strip():
        wire.send("message", text=turn.said)
    wire.send("usage", input=len(text.split()) + turn.tokens, output=len(turn.said.split()))
    wire.send("end", turn=message.get("turn"), **end)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="mock.py", description="A scripted agent.")
    parser.add_argument("--state", required=True)
    parser.add_argument("--model", default="careful")
    parser.add_argument("--resume")
    options = parser.parse_args(argv)
    wire = Wire()
    threading.Thread(target=wire.listen, daemon=True).start()
    serve(wire, Memory(options.state), options.model == "free", options.resume)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

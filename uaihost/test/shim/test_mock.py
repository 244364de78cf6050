"""The scripted agent as a process on its pipes: verbs, consent, interruption, memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from uaihost.agents.course import GO_ON
from uaihost.shim import mock
from uaihost.test.shim.keeper import PATIENCE, SHIM
from uaihost.test.support import short_folder

Lines = list[dict[str, Any]]


class MockCase(TestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.work = self.folder / "work"
        self.work.mkdir()
        self.agent = self.start()

    def start(self, *options: str) -> subprocess.Popen[str]:
        """A fresh agent; the one before it ends, since two would share one session file."""
        if hasattr(self, "agent"):
            self.finish(self.agent)
        agent = subprocess.Popen(
            [sys.executable, str(SHIM / "mock.py"), "--state", str(self.folder / "session.json"), *options],
            cwd=self.work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.addCleanup(self.finish, agent)
        return agent

    def finish(self, agent: subprocess.Popen[str]) -> None:
        agent.kill()
        if agent.stdin is not None and not agent.stdin.closed:
            agent.communicate(timeout=PATIENCE)

    def send(self, kind: str, **fields: Any) -> None:
        assert self.agent.stdin is not None
        self.agent.stdin.write(json.dumps({"type": kind, **fields}) + "\n")
        self.agent.stdin.flush()

    def until(self, kind: str) -> Lines:
        """Every line up to the first of this kind."""
        assert self.agent.stdout is not None
        lines: Lines = []
        while not lines or lines[-1]["type"] != kind:
            lines.append(json.loads(self.agent.stdout.readline()))
        return lines

    def turn(self, text: str, accept: bool = True) -> Lines:
        """A whole turn, with everything accepted or everything declined."""
        self.send("prompt", turn=1, text=text)
        lines: Lines = []
        while not lines or lines[-1]["type"] != "end":
            assert self.agent.stdout is not None
            lines.append(json.loads(self.agent.stdout.readline()))
            if lines[-1]["type"] == "permission":
                self.send("answer", request=lines[-1]["request"], accept=accept)
        return lines


def said(lines: Lines) -> str:
    return "\n".join(line["text"] for line in lines if line["type"] == "message")


class TalkTests(MockCase):
    def test_free_text_is_answered_in_pieces_that_make_up_the_message(self) -> None:
        lines = self.turn("please look at @b's work")
        pieces = [line["text"] for line in lines if line["type"] == "delta"]
        self.assertGreater(len(pieces), 2)
        self.assertEqual("".join(pieces), said(lines))
        # It must not address others by repeating what it was told.
        self.assertIn("please look at b's work", said(lines))
        end = {"type": "end", "turn": 1, "reason": "done", "error": None, "fault": None, "resets": None}
        self.assertEqual(lines[-1], end)

    def test_verbs_are_lines_or_chained(self) -> None:
        self.assertEqual(said(self.turn("@a say one ;; say two\nsay three\\nfour")), "one\ntwo\nthree\nfour")

    def test_the_line_that_names_the_sender_is_no_part_of_the_script(self) -> None:
        self.assertEqual(said(self.turn("@b says:\n@a say hi")), "hi")

    def test_an_unknown_verb_within_a_script_fails_the_turn(self) -> None:
        lines = self.turn("say one\ndance")
        self.assertEqual(lines[-1]["reason"], "failed")
        self.assertIn("'dance'", lines[-1]["error"])

    def test_fail_ends_the_turn_with_its_text(self) -> None:
        self.assertEqual(self.turn("fail no luck")[-1]["error"], "no luck")

    def test_a_question_reports_the_answer(self) -> None:
        self.assertIn("You said yes", said(self.turn("ask shall I?")))
        self.assertIn("You said no", said(self.turn("ask shall I?", accept=False)))

    def test_noise_on_stdin_is_survived(self) -> None:
        assert self.agent.stdin is not None
        self.agent.stdin.write("noise\n")
        self.assertEqual(said(self.turn("say on")), "on")


class WorkTests(MockCase):
    def test_files_are_written_edited_and_read_in_the_working_directory(self) -> None:
        lines = self.turn("write sub/a.txt one\\ntwo ;; edit sub/a.txt two => three ;; read sub/a.txt")
        self.assertEqual((self.work / "sub" / "a.txt").read_text(), "one\nthree\n")
        self.assertIn("sub/a.txt:\none\nthree", said(lines))
        asked = [line["tool"] for line in lines if line["type"] == "permission"]
        self.assertEqual(asked, ["Write", "Edit"])
        states = [(line["name"], line["state"]) for line in lines if line["type"] == "tool"]
        self.assertEqual(states[:2], [("Write", "started"), ("Write", "ended")])

    def test_nothing_happens_when_declined_and_the_script_goes_on(self) -> None:
        lines = self.turn("write a.txt x ;; say after", accept=False)
        self.assertFalse((self.work / "a.txt").exists())
        self.assertEqual(said(lines), "declined: Write a.txt\nafter")

    def test_the_free_model_does_not_ask(self) -> None:
        self.agent = self.start("--model", "free")
        lines = self.turn("run echo made > a.txt; echo told")
        self.assertEqual((self.work / "a.txt").read_text(), "made\n")
        self.assertNotIn("permission", [line["type"] for line in lines])
        self.assertEqual(said(lines), "told")

    def test_commit_records_everything(self) -> None:
        for command in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"]):
            subprocess.run(["git", *command], cwd=self.work, check=True)
        self.turn("write a.txt x ;; commit Add a file")
        log = subprocess.run(
            ["git", "log", "--format=%s", "--stat"], cwd=self.work, check=True, capture_output=True, text=True
        )
        self.assertIn("Add a file", log.stdout)
        self.assertIn("a.txt", log.stdout)

    def test_a_command_that_fails_fails_the_turn_with_its_output(self) -> None:
        lines = self.turn("run echo why; exit 3")
        self.assertIn("status 3", lines[-1]["error"])
        self.assertIn("why", lines[-1]["error"])

    def test_a_missing_file_or_place_is_said(self) -> None:
        self.assertIn("none.txt", self.turn("read none.txt")[-1]["error"])
        (self.work / "a.txt").write_text("x")
        self.assertIn("does not hold 'y'", self.turn("edit a.txt y => z")[-1]["error"])
        self.assertIn("PATH OLD => NEW", self.turn("edit a.txt y")[-1]["error"])


class InterruptionTests(MockCase):
    def test_a_stream_stops_and_keeps_what_was_said(self) -> None:
        self.send("prompt", turn=1, text="slow 1000 word")
        self.until("delta")
        self.send("cancel")
        lines = self.until("end")
        self.assertEqual(lines[-1]["reason"], "cancelled")
        self.assertIn("word", said(lines))

    def test_a_cancel_right_behind_its_prompt_is_not_lost(self) -> None:
        self.send("prompt", turn=1, text="slow 1000 word")
        self.send("cancel")
        self.assertEqual(self.until("end")[-1]["reason"], "cancelled")

    def test_a_cancel_between_turns_does_not_hit_the_next(self) -> None:
        self.turn("say one")
        self.send("cancel")
        self.assertEqual(said(self.turn("say two")), "two")

    def test_a_request_is_withdrawn(self) -> None:
        self.send("prompt", turn=1, text="write a.txt x")
        request = self.until("permission")[-1]["request"]
        self.send("cancel")
        lines = self.until("end")
        self.assertIn({"type": "withdrawn", "request": request}, lines)
        self.assertFalse((self.work / "a.txt").exists())

    def test_a_running_command_ends_with_its_children(self) -> None:
        self.agent = self.start("--model", "free")
        self.send("prompt", turn=1, text="run sleep 1000 & echo $! > pid; wait")
        self.until("tool")
        pid_file = self.work / "pid"
        while not pid_file.exists() or not pid_file.read_text().strip():
            self.assertIsNone(self.agent.poll())
        self.send("cancel")
        self.assertEqual(self.until("end")[-1]["reason"], "cancelled")
        state = Path(f"/proc/{pid_file.read_text().strip()}/stat")
        self.assertTrue(not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z")


class SessionTests(MockCase):
    def test_a_resumed_session_goes_on_counting(self) -> None:
        self.send("start", session=None, instructions="")
        session = self.until("session")[-1]
        self.assertEqual((session["resumed"], session["messages"]), (False, 0))
        self.turn("say one")
        self.agent = self.start("--resume", session["session"])
        self.send("start", session=session["session"], instructions="")
        again = self.until("session")[-1]
        self.assertEqual(again, {**session, "resumed": True, "messages": 1})

    def test_an_unknown_session_is_a_new_one(self) -> None:
        self.agent = self.start("--resume", "nothing")
        self.send("start", session="nothing", instructions="")
        self.assertEqual(self.until("session")[-1]["resumed"], False)

    def test_crash_is_a_real_death(self) -> None:
        self.send("prompt", turn=1, text="crash")
        self.assertEqual(self.agent.wait(PATIENCE), -9)


class ScriptTests(TestCase):
    def test_what_is_a_script(self) -> None:
        self.assertEqual(mock.steps("say hi ;; crash"), [("say", "hi"), ("crash", "")])
        self.assertEqual(mock.steps("read a\n\nthink"), [("read", "a"), ("think", "")])
        for text in ("hello", "saying is easy", "", "   ", "Say hi"):
            self.assertIsNone(mock.steps(text), text)


class FaultTests(MockCase):
    """What real agents meet, without an account."""

    def end(self, text: str) -> dict[str, Any]:
        return self.turn(text)[-1]

    def test_faults_are_told_by_kind(self) -> None:
        for text, kind, error in (
            ("limit 60 too much", "quota", "too much"),
            ("limit", "quota", "You have hit your usage limit"),
            ("signout", "signed-out", "Not logged in"),
            ("overload", "overloaded", "Overloaded"),
            ("fail so", "other", "so"),
        ):
            end = self.end(text)
            self.assertEqual((end["reason"], end["fault"], end["error"]), ("failed", kind, error))
        self.assertIsNone(self.end("limit")["resets"])

    def test_a_limit_tells_its_end(self) -> None:
        before = time.time()
        resets = self.end("limit 60")["resets"] / 1000
        self.assertTrue(before + 59.9 <= resets <= time.time() + 60)

    def test_a_script_that_was_cut_off_goes_on_after_the_cut(self) -> None:
        self.assertEqual(said(self.turn("say one ;; limit 5 ;; say two")), "one\n")
        self.assertEqual(said(self.turn("say one ;; limit 5 ;; say two")), "two")
        self.assertEqual(said(self.turn("say one ;; limit 5 ;; say two")), "one\n")

    def test_one_that_crashed_goes_on_in_the_next_process(self) -> None:
        session = self.begin()
        self.send("prompt", turn=1, text="say one ;; crash ;; say two")
        self.agent.wait(PATIENCE)
        self.agent = self.start("--resume", session)
        self.assertTrue(self.begin(session))
        self.assertEqual(said(self.turn(GO_ON + "say one ;; crash ;; say two")), "two")

    def begin(self, session: str | None = None) -> str:
        self.send("start", session=session, instructions="")
        return str(self.until("session")[-1]["session"])

    def test_a_lost_session_cannot_be_resumed_and_the_next_is_new(self) -> None:
        session = self.begin()
        self.turn("lose")
        self.agent = self.start("--resume", session)
        self.assertIn(session, self.until("lost")[-1]["text"])
        self.agent.wait(PATIENCE)
        self.agent = self.start()
        self.assertNotEqual(self.begin(), session)

    def test_questions_are_answered_by_choosing(self) -> None:
        self.send("prompt", turn=1, text="choose Which? | red | blue")
        asked = self.until("permission")[-1]
        self.assertEqual(asked["questions"], [{"text": "Which?", "options": ["red", "blue"]}])
        self.send("answer", request=asked["request"], accept=True, answers={"Which?": "blue"})
        self.assertEqual(said(self.until("end")), "You chose: blue")
        self.assertEqual(said(self.turn("choose Which? | red | blue", accept=False)), "You chose nothing")

    def test_retries_tokens_and_oddities_are_told(self) -> None:
        lines = self.turn("retry 2 ;; odd ;; tokens 500")
        self.assertEqual([each["attempt"] for each in lines if each["type"] == "retry"], [1, 2])
        self.assertIn("oddity", [each["type"] for each in lines])
        self.assertGreater(next(each["input"] for each in lines if each["type"] == "usage"), 500)

    def test_numbers_that_are_none_are_refused(self) -> None:
        for text in ("retry x", "tokens x", "limit x", "choose Which?"):
            self.assertIn("need", self.end(text)["error"])

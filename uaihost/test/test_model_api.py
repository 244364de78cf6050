"""The scripted model: what its little language says, and what a request is taken for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.model_api import anthropic, openai
from uaihost.test.model_api.script import Step, script, turn


class ScriptTests(SynchronousTestCase):
    def test_the_last_line_that_is_a_script_counts(self) -> None:
        text = "@ada says:\nsay:no\n@ben run:ls ;; say:yes\nattached: a file"
        self.assertEqual(script(text), [Step("run", "ls"), Step("say", "yes")])

    def test_a_text_without_a_script_is_repeated(self) -> None:
        self.assertEqual("".join(turn("good morning", [], {}).pieces), "echo: good morning")
        self.assertEqual("".join(turn("good morning", [], {}, "say:hello").pieces), "hello")

    def test_a_step_that_calls_is_over_when_its_result_has_come(self) -> None:
        text = "say:first ;; run:ls ;; say:then ;; run:pwd"
        made = [turn(text, results, {}) for results in ([], ["a"], ["a", "b"])]
        self.assertEqual(["".join(one.pieces) for one in made], ["first", "then", "done: b"])
        self.assertEqual([one.call for one in made], [Step("run", "ls"), Step("run", "pwd"), None])

    def test_failures_end_after_so_many_requests_whatever_is_said_around_the_script(self) -> None:
        seen: dict[str, int] = {}
        made = [turn(f"{words}\nfail:500:2 ;; say:well", [], seen) for words in ("one", "two", "three")]
        self.assertEqual([one.fail for one in made], [500, 500, 0])

    def test_mentions_can_be_said_by_who_is_told_to_say_them(self) -> None:
        self.assertEqual("".join(turn("say:{at}ben say:{{at}}cleo", [], {}).pieces), "@ben say:{at}cleo")


class ReadTests(SynchronousTestCase):
    def test_results_of_an_interrupted_turn_are_not_the_next_ones(self) -> None:
        result = {"type": "tool_result", "tool_use_id": "t", "content": "interrupted"}
        text = {"type": "text", "text": "say:next"}
        messages = [{"role": "user", "content": [result, text]}]
        self.assertEqual(anthropic.read("/v1/messages", {"messages": messages}), ("say:next", []))
        messages.append({"role": "user", "content": [result]})
        self.assertEqual(anthropic.read("/v1/messages", {"messages": messages})[1], ["interrupted"])

    def test_both_of_openais_languages_are_read(self) -> None:
        said = {"role": "user", "content": [{"type": "input_text", "text": "run:ls"}]}
        output = {"type": "function_call_output", "call_id": "c", "output": "a.txt"}
        self.assertEqual(openai.read("/v1/responses", {"input": [said, output]}), ("run:ls", ["a.txt"]))
        chat = [{"role": "user", "content": "run:ls"}, {"role": "tool", "content": "a.txt"}]
        self.assertEqual(openai.read("/v1/chat/completions", {"messages": chat}), ("run:ls", ["a.txt"]))

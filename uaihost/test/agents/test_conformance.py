"""Every adapter over the transcripts of its program."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import TestCase

from uaihost.agents.acp_programs import opencode, own
from uaihost.agents.adapter import Adapter, PermissionAsked, SessionLost
from uaihost.agents.claude import ClaudeAdapter
from uaihost.agents.codex import CodexAdapter
from uaihost.interfaces import Account
from uaihost.test.agents.conformance import Conformance, TellsLimits
from uaihost.test.agents.record import ADAPTER, SETTINGS


class ClaudeTests(Conformance, TellsLimits, TestCase):
    folder = "claude-2.1.330"

    def make(self, memory: str = "") -> Adapter:
        return ClaudeAdapter(SETTINGS, memory)

    def test_a_question_has_its_choices(self) -> None:
        (asked,) = [e for e in self.events(self.path("question")) if isinstance(e, PermissionAsked)]
        self.assertEqual(asked.questions[0].text, "Which colour?")
        self.assertEqual([label for label, _ in asked.questions[0].options], ["red", "blue"])

    def test_a_conversation_that_is_not_there_is_told(self) -> None:
        adapter = self.make()
        adapter.open("gone")
        line = (
            b'{"type": "result", "is_error": true, "errors": ["No conversation found with session ID: gone"]}'
        )
        self.assertEqual(adapter.feed(line), [SessionLost("No conversation found with session ID: gone")])

    def test_no_settings_of_anybody_are_loaded(self) -> None:
        for form in ("key", "token", "none"):
            account = Account(form, "https://gateway.example")
            start = ClaudeAdapter(attrs.evolve(SETTINGS, account=account)).start("s1")
            words = list(start.argv)
            self.assertEqual(words[words.index("--setting-sources") + 1], "")
            self.assertIn("--strict-mcp-config", words)
            self.assertEqual(words[words.index("--resume") + 1], "s1")
            self.assertEqual(start.env["ANTHROPIC_BASE_URL"], "https://gateway.example")
            self.assertEqual(len(start.secrets), form != "none")
            # What a repository's container has of these does not count.
            self.assertEqual(start.env["ANTHROPIC_AUTH_TOKEN"], "")


class CodexTests(Conformance, TellsLimits, TestCase):
    folder = "codex-0.169.0"
    bad_request = "other"

    def make(self, memory: str = "") -> Adapter:
        return CodexAdapter(attrs.evolve(SETTINGS, account=Account("key")), memory)

    def test_one_that_would_not_ask_never_begins(self) -> None:
        adapter = self.make()
        adapter.open(None)
        adapter.feed(b'{"id": 1, "result": {}}')
        (end,) = adapter.feed(b'{"id": 2, "result": {"approvalPolicy": "never", "thread": {"id": "t"}}}')
        self.assertIn("does not ask before it runs commands", str(end))

    def test_every_folder_above_is_untrusted(self) -> None:
        words = " ".join(CodexAdapter(attrs.evolve(SETTINGS, cwd="/workspace/app")).start(None).argv)
        for folder in ("/workspace/app", "/workspace", "/"):
            self.assertIn(f'"{folder}"={{"trust_level"="untrusted"}}', words)

    def test_a_login_leaves_its_tokens_to_be_filled_in(self) -> None:
        adapter = CodexAdapter(attrs.evolve(SETTINGS, account=Account("login")))
        adapter.open(None)
        _, login = adapter.feed(b'{"id": 1, "result": {}}')
        self.assertIn("{{access}}", str(login))
        self.assertIn("secret=True", str(login))
        (fresh,) = adapter.feed(b'{"id": 0, "method": "account/chatgptAuthTokens/refresh", "params": {}}')
        self.assertIn("renew=True", str(fresh))

    def test_what_is_not_for_people_is_answered_at_once(self) -> None:
        for method in (
            "item/tool/call",
            "attestation/generate",
            "mcpServer/elicitation/request",
            "new/thing",
        ):
            line = f'{{"id": 7, "method": "{method}", "params": {{}}}}'.encode()
            (send,) = self.make().feed(line)
            self.assertIn('"id": 7', str(send))

    def test_a_conversation_that_is_not_there_is_told(self) -> None:
        adapter = self.make()
        adapter.open("gone")
        adapter.feed(b'{"id": 1, "result": {}}')
        line = b'{"id": 2, "error": {"code": -32600, "message": "no rollout found for thread id gone"}}'
        self.assertEqual(adapter.feed(line), [SessionLost("no rollout found for thread id gone")])


class OpencodeTests(Conformance, TestCase):
    folder = "opencode-1.18.33"
    bad_request = "other"
    without = frozenset({"overloaded", "limit", "cut", "question"})

    def make(self, memory: str = "") -> Adapter:
        return opencode(SETTINGS, memory)

    def test_it_works_above_the_projects(self) -> None:
        adapter = self.make()
        adapter.open(None)
        (send,) = adapter.feed(b'{"jsonrpc": "2.0", "id": 1, "result": {"agentCapabilities": {}}}')
        self.assertIn('"cwd": "/workspace"', str(send))


class AgentAcpTests(Conformance, TestCase):
    """Another that speaks the protocol, as an owner would name it: it begins in a mode that asks nothing."""

    folder = "claude-agent-acp-0.101.0"
    without = frozenset({"question"})
    bad_request = "other"

    def make(self, memory: str = "") -> Adapter:
        return own("claude-agent-acp", ADAPTER, SETTINGS, memory)

    def test_it_is_told_to_ask(self) -> None:
        said = [text for direction, text in self.lines(self.path("answer")) if direction == "in"]
        self.assertTrue([text for text in said if "session/set_mode" in text and '"default"' in text], said)

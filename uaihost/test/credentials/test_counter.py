"""The counter of one task: git's questions, gh's requests, and the bounds of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.blocking import Inline
from uaihost.credentials import counter as module
from uaihost.credentials.api_forward import AT_ONCE, LONGEST_ANSWER, ApiForward
from uaihost.credentials.api_rules import Api
from uaihost.credentials.counter import BURST, CONNECTIONS, IDLE, KNOWN, LONGEST, Counter, TaskDesk
from uaihost.proofs import Grant
from uaihost.test.credentials.github_stub import Answer, Client, StubGitHub, StubTokens, answer

P = ParamSpec("P")
T = TypeVar("T")

REPOSITORY = '{ repository(owner: "o", name: "r") { id pullRequest(number: 1) { id title } } }'
URL = "https://api.github.com"


class Reading(Inline):
    """Holds what it is asked for while `hold` is set."""

    def __init__(self) -> None:
        self.hold = False
        self.held: list[Deferred[None]] = []

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self.hold:
            waiting: Deferred[None] = Deferred()
            self.held.append(waiting)
            await waiting
        return function(*args, **kwargs)


class CounterCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reading = Reading()
        self.clock = Clock()
        self.tokens = StubTokens()
        self.github = StubGitHub()
        self.noted: list[tuple[str, str, str, str]] = []
        self.desk = TaskDesk(
            self.clock,
            Grant("ada", "t1", ("https://github.com/o/r.git",)),
            lambda: self.tokens.host(self.desk.grant.user_id),
            lambda *words: self.noted.append(words),
        )
        agent: Any = self.github
        api = Api("https://github.com", URL)
        forward = ApiForward(self.clock, self.reading, agent, self.tokens, api)
        self.counter = Counter(self.clock, self.desk, self.tokens, forward)
        self.client = Client(self.counter)

    def said(self, code: int) -> dict[str, Any]:
        """The JSON of an answer with this status."""
        status, _, body = self.client.said()
        self.assertEqual(status, code, body)
        found: dict[str, Any] = json.loads(body)
        return found

    def refused(self, method: str, target: str, body: bytes = b"", **more: str) -> str:
        """Why; nothing was asked of GitHub."""
        self.client = Client(self.counter)
        self.client.ask(method, target, body, **more)
        self.assertEqual(self.github.asked, [])
        return str(self.said(403)["message"])

    def graphql(self, query: str, client: Client | None = None) -> None:
        (client or self.client).ask("POST", "/graphql", json.dumps({"query": query}).encode())


class CredentialTests(CounterCase):
    def question(self, action: str = "get", **changed: str) -> tuple[int, bytes]:
        fields = {"protocol": "https", "host": "github.com", "path": "o/r.git", **changed}
        self.client = Client(self.counter)
        text = "".join(f"{name}={value}\n" for name, value in fields.items())
        self.client.ask("POST", f"/credential/{action}", text.encode())
        status, _, body = self.client.said()
        return status, body

    def test_a_token_for_a_repository_of_the_task(self) -> None:
        self.assertEqual(self.question(), (200, b"username=x-access-token\npassword=ada-1\n"))
        self.assertEqual(self.noted, [("git", "github.com", "o/r.git", "ok")])

    def test_another_repository(self) -> None:
        status, body = self.question(path="o/other.git")
        self.assertEqual(status, 403)
        self.assertIn("o/other.git is not a repository of this task", json.loads(body)["message"])
        self.assertEqual(self.noted, [("git", "github.com", "o/other.git", "not a repository of the task")])

    def test_another_server_is_none_of_ours(self) -> None:
        for changed in ({"host": "gitlab.com"}, {"protocol": "http"}, {"host": "github.com:8443"}):
            self.assertEqual(self.question(**changed), (200, b""))

    def test_nobody_is_connected(self) -> None:
        self.tokens.numbers.clear()
        status, body = self.question()
        self.assertEqual(status, 403)
        self.assertIn("not connected", json.loads(body)["message"])

    def test_a_refused_token_is_renewed(self) -> None:
        self.question("erase", username="x-access-token", password="ada-1")
        self.assertIn(b"password=ada-2", self.question()[1])
        # Whoever does not hold the token cannot have it renewed.
        self.question("erase", username="x-access-token", password="guessed")
        self.assertIn(b"password=ada-2", self.question()[1])

    def test_store_keeps_nothing(self) -> None:
        self.assertEqual(self.question("store", password="theirs"), (200, b""))
        self.assertNotIn("theirs", repr(self.noted))

    def test_what_cannot_be_read(self) -> None:
        for method, target, body in (
            ("POST", "/credential/get", b"nonsense"),
            ("POST", "/credential/get", b"host=\xff\n"),
            ("GET", "/credential/get", b""),
            ("POST", "/credential/other", b""),
        ):
            self.client = Client(self.counter)
            self.client.ask(method, target, body)
            self.said(400)

    def test_a_new_grant_counts_at_once(self) -> None:
        self.desk.grant = Grant("ada", "t1", ("https://github.com/o/new",))
        self.assertEqual(self.question()[0], 403)
        self.assertEqual(self.question(path="o/new")[0], 200)

    def test_the_hosts_own_git_has_no_api(self) -> None:
        client = Client(Counter(self.clock, self.desk, self.tokens, None))
        client.ask("GET", "/user")
        self.assertEqual(client.said()[0], 404)


class ApiTests(CounterCase):
    def test_the_token_is_added_and_the_clients_is_dropped(self) -> None:
        self.github.answers.append(answer({"login": "ada"}, content_type="application/json", set_cookie="x"))
        self.client.ask(
            "GET", "/user?a=b", Authorization="token theirs", Cookie="x", Accept="a/b", X_Evil="1"
        )
        (asked,) = self.github.asked
        self.assertEqual((asked.method, asked.url, asked.body), ("GET", f"{URL}/user?a=b", b""))
        self.assertEqual(
            asked.headers,
            {"authorization": ["Bearer ada-1"], "user-agent": ["uaihost"], "accept": ["a/b"]},
        )
        self.assertEqual(self.said(200), {"login": "ada"})
        self.assertNotIn("set-cookie", self.client.said()[1])
        self.assertEqual(self.noted, [("api", "api.github.com", "GET /user", "ok")])

    def test_another_host_or_repository(self) -> None:
        self.assertIn("is not the GitHub", self.refused("GET", "/user", host="evil.example"))
        self.assertIn("o/x is not", self.refused("GET", "/repos/o/x"))
        self.assertIn("left to people", self.refused("DELETE", "/repos/o/r"))
        self.assertIn("no path", self.refused("GET", "http://evil.example/user"))
        outcomes = {outcome.partition(":")[0] for _, _, _, outcome in self.noted}
        self.assertEqual((outcomes, len(self.noted)), ({"refused"}, 4))

    def test_a_token_that_ended_is_renewed_once(self) -> None:
        self.github.answers += [answer(code=401), answer({"ok": 1})]
        self.client.ask("GET", "/repos/o/r")
        self.assertEqual(self.said(200), {"ok": 1})
        self.assertEqual(
            [asked.headers["authorization"] for asked in self.github.asked],
            [["Bearer ada-1"], ["Bearer ada-2"]],
        )
        self.client = Client(self.counter)
        self.github.answers += [answer(code=401), answer({"message": "Bad credentials"}, 401)]
        self.client.ask("GET", "/repos/o/r")
        self.said(401)

    def test_nobody_is_connected(self) -> None:
        self.tokens.numbers.clear()
        self.client.ask("GET", "/user")
        self.assertIn("not connected", self.said(503)["message"])

    def test_github_is_away(self) -> None:
        self.github.answers.append(ConnectionLost())
        self.client.ask("GET", "/user")
        self.assertIn("could not be reached", self.said(502)["message"])

    def test_github_never_answers(self) -> None:
        self.client.ask("GET", "/user")
        self.clock.pump([10.0] * 7)
        self.said(502)

    def test_graphql_is_asked_anew_and_what_it_showed_may_be_named(self) -> None:
        close = 'mutation { closePullRequest(input: {pullRequestId: "PR_1"}) { clientMutationId } }'
        self.client.ask("POST", "/graphql", json.dumps({"query": close}).encode())
        self.assertIn("names nothing", self.said(403)["message"])
        data = {"repository": {"id": "R_1", "pullRequest": {"id": "PR_1", "title": "PR_2"}}}
        self.github.answers += [answer({"data": data}), answer({"data": {}})]
        self.client = Client(self.counter)
        self.graphql(REPOSITORY)
        self.assertEqual(self.said(200), {"data": data})
        self.assertEqual(self.desk.known, {"R_1", "PR_1"})
        self.assertEqual(self.github.asked[0].url, f"{URL}/graphql")
        self.client = Client(self.counter)
        self.graphql(close)
        self.said(200)
        self.client = Client(self.counter)
        self.graphql(close.replace("PR_1", "PR_2"))
        self.said(403)

    def test_graphql_answers_are_bounded(self) -> None:
        found = Answer(200, {})
        self.github.answers.append(found)
        self.graphql(REPOSITORY)
        found.send(b"x" * (LONGEST_ANSWER + 1))
        self.assertTrue(found.transport.disconnecting)
        found.end(ConnectionLost())
        self.assertIn("too long", self.said(403)["message"])

    def test_long_answers_are_passed_on_as_they_come_and_as_fast_as_they_are_read(self) -> None:
        found = Answer(200, {})
        self.github.answers.append(found)
        self.client.ask("GET", "/repos/o/r/contents/big")
        found.send(b"first ")
        self.assertIn(b"first ", self.client.transport.value())
        producer = self.client.transport.producer
        assert producer is not None
        producer.pauseProducing()
        self.assertEqual(found.transport.producerState, "paused")
        producer.resumeProducing()
        found.send(b"second")
        found.end()
        self.assertEqual(self.client.said()[2], b"first second")

    def test_a_client_that_leaves_ends_its_request(self) -> None:
        found = Answer(200, {})
        self.github.answers.append(found)
        self.client.ask("GET", "/repos/o/r/contents/big")
        self.client.leave()
        self.assertTrue(found.transport.disconnecting)
        found.send(b"late")
        found.end(ConnectionLost())
        self.assertEqual(len(self.desk.turns.waiting), 0)
        self.assertEqual(self.desk.turns.tokens, AT_ONCE)

    def test_logs_lie_elsewhere_and_no_token_goes_there(self) -> None:
        self.github.answers += [answer(code=302, location="https://store.example/x?sig=1"), answer(b"zip")]
        self.client.ask("GET", "/repos/o/r/actions/runs/1/logs")
        self.assertEqual(self.client.said()[2], b"zip")
        self.assertEqual(self.github.asked[1].url, "https://store.example/x?sig=1")
        self.assertNotIn("authorization", self.github.asked[1].headers)
        self.client, self.github.answers = (
            Client(self.counter),
            [answer(code=302, location="http://x.example/")],
        )
        self.client.ask("GET", "/repos/o/r/actions/runs/1/logs")
        self.said(403)

    def test_a_redirect_is_the_clients_to_follow(self) -> None:
        self.github.answers.append(answer({}, code=301, location="https://evil.example/"))
        self.client.ask("GET", "/repos/o/r")
        self.assertEqual(self.client.said()[0], 301)
        self.assertEqual(len(self.github.asked), 1)


class BoundTests(CounterCase):
    def test_a_body_that_is_too_long_is_not_kept(self) -> None:
        self.client.ask("POST", "/graphql", b"x" * (LONGEST + 1))
        self.assertIn(str(LONGEST), self.said(413)["message"])

    def test_connections(self) -> None:
        clients = [self.client, *(Client(self.counter) for _ in range(CONNECTIONS - 1))]
        self.assertIsNone(Client(self.counter).protocol)
        clients[3].leave()
        self.assertIsNotNone(Client(self.counter).protocol)

    def test_a_connection_that_says_nothing_ends(self) -> None:
        self.clock.advance(IDLE + 1)
        self.assertTrue(self.client.transport.disconnecting)

    def test_uses_are_bounded_and_come_back(self) -> None:
        self.assertEqual([self.desk.allowed() for _ in range(int(BURST) + 1)][-2:], [True, False])
        self.client.ask("GET", "/user")
        self.assertIn("too many requests", self.said(429)["message"])
        self.assertEqual((self.noted, self.github.asked), ([], []))
        self.clock.advance(1)
        self.assertTrue(self.desk.allowed())

    def test_github_works_on_few_requests_of_a_task_at_once(self) -> None:
        clients = [Client(self.counter) for _ in range(AT_ONCE + 2)]
        for client in clients:
            client.ask("GET", "/user")
        self.assertEqual(len(self.github.waiting), AT_ONCE)
        self.github.waiting[0].callback(answer({}))
        self.assertEqual(len(self.github.waiting), AT_ONCE + 1)
        self.assertEqual(clients[0].said()[0], 200)

    def test_requests_are_read_elsewhere_and_few_of_a_task_at_once(self) -> None:
        clients = [Client(self.counter) for _ in range(AT_ONCE + 1)]
        self.reading.hold = True
        for client in clients:
            self.graphql(REPOSITORY, client)
        self.assertEqual((len(self.reading.held), self.github.asked), (AT_ONCE, []))
        self.reading.hold = False
        self.github.answers.append(answer({"data": {}}))
        self.reading.held[0].callback(None)
        self.assertEqual(clients[0].said()[0], 200)
        self.assertEqual(len(self.github.asked), 2)

    def test_the_oldest_identifiers_are_forgotten(self) -> None:
        self.patch(module, "KNOWN", 3)
        self.desk.learn("abc")
        self.desk.learn("ad")
        self.assertEqual(self.desk.known, {"c", "a", "d"})
        self.assertGreater(KNOWN, 3)

    def test_closing_ends_what_is_open(self) -> None:
        self.counter.close()
        self.assertTrue(self.client.transport.disconnecting)

    def test_nothing_that_is_said_reaches_the_hosts_log(self) -> None:
        self.github.answers.append(answer({}))
        self.client.ask("GET", "/user?secret=1")
        self.assertEqual(self.flushLoggedErrors(), [])

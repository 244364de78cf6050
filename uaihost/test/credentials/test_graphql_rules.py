"""GraphQL requests that keep to a task's repositories, and those that do not."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from uaihost.credentials.graphql_rules import Refused, Request, check
from uaihost.credentials.graphql_types import TYPES
from uaihost.test.support import given, strategies

GRANTED = frozenset({("o", "r"), ("o", "second")})


def asked(query: str, known: frozenset[str] = frozenset(), /, **variables: Any) -> Request:
    body = json.dumps({"query": query, "variables": variables}).encode()
    return check(body, GRANTED, known)


def learnt(request: Request, data: Any) -> set[str]:
    return request.learn(json.dumps({"data": data}).encode())


class Case(SynchronousTestCase):
    def refused(self, query: str, known: frozenset[str] = frozenset(), /, **variables: Any) -> str:
        error = self.assertRaises(Refused, asked, query, known, **variables)
        return str(error)


class QueryTests(Case):
    def test_a_repository_of_the_task_is_read_by_words_and_by_variables(self) -> None:
        self.assertFalse(asked('{ repository(owner: "o", name: "r") { id } }').writes)
        query = "query A($owner: String!, $name: String!) { repository(owner: $owner, name: $name) { id } }"
        sent = json.loads(asked(query, owner="O", name="R").body)
        self.assertEqual(sent["variables"], {"owner": "O", "name": "R"})
        self.assertEqual(sent["operationName"], "A")
        asked('query ($n: String = "second") { repository(owner: "o", name: $n) { id } }')

    def test_another_repository_is_refused_however_it_is_named(self) -> None:
        self.assertIn("o/x is not", self.refused('{ repository(owner: "o", name: "x") { id } }'))
        query = 'query ($n: String = "r") { repository(owner: "o", name: $n) { id } }'
        self.assertIn("o/x is not", self.refused(query, n="x"))
        self.assertIn("needs", self.refused(query, n=None))
        self.assertIn("needs", self.refused('{ repository(owner: "o") { id } }'))
        self.assertIn("needs", self.refused("query ($n: String) { repository(owner: $n, name: $n) { id } }"))
        both = '{ a: repository(owner: "o", name: "r") { id } b: repository(owner: "p", name: "r") { id } }'
        self.assertIn("p/r is not", self.refused(both))
        self.assertIn(
            "stands twice", self.refused('{ repository(owner: "x", owner: "o", name: "r") { id } }')
        )

    def test_no_way_leads_from_a_repository_to_another(self) -> None:
        for inner in (
            "owner { repositories(first: 9) { nodes { name } } }",
            'owner { ... on User { repository(name: "x") { id } } }',
            "parent { pullRequests(first: 9) { nodes { title } } }",
            "parent { ... on Repository { issues(first: 1) { totalCount } } }",
            "forks(first: 9) { nodes { name } }",
            'object(expression: "main:secret") { id }',
            "collaborators { nodes { login } }",
            "pullRequest(number: 1) { headRepository { issues { totalCount } } }",
            "pullRequest(number: 1) { closingIssuesReferences(first: 1) { nodes { title } } }",
            "pullRequest(number: 1) { timelineItems(first: 1) { nodes { id } } }",
            "pullRequests(first: 1) { nodes { baseRepository { id } } }",
            "pullRequests(first: 1) { edges { node { title } other { id } } }",
            "pullRequests(first: 1) { ... on PullRequestConnection { nodes { id } } }",
            "issue(number: 1) { ... on Node { id } }",
            "deployKeys { totalCount }",
        ):
            self.refused(f'{{ repository(owner: "o", name: "r") {{ {inner} }} }}')
        for query in (
            "{ viewer { repositories(first: 1) { nodes { name } } } }",
            "{ viewer { login email } }",
            '{ organization(login: "o") { id } }',
            '{ user(login: "o") { id } }',
            '{ resource(url: "https://github.com/x/y") { id } }',
            '{ nodes(ids: ["a"]) { id } }',
            "subscription { a }",
            "type A { a: Int }",
            "{ viewer { login } } query B { viewer { login } }",
            "query A @x { viewer { login } }",
            "{ viewer @include(if: true) { login } }",
            "{ viewer }",
            "{ viewer { login { x } } }",
            "{ ...A }",
            "",
        ):
            self.refused(query)

    def test_what_would_take_long_to_read(self) -> None:
        self.assertIn("is longer than", self.refused('"' + "x" * 100_000))
        self.assertIn("more than", self.refused("{ viewer { " + "id " * 5000 + "} }"))
        used = "".join(f"p{number}: pullRequest(number: {number}) {{ ...a }} " for number in range(90))
        many = "fragment a on PullRequest { " + "title " * 200 + "}"
        self.assertIn(
            "too large", self.refused(f'{{ repository(owner: "o", name: "r") {{ {used} }} }} {many}')
        )

    def test_fragments_count_where_they_are_used(self) -> None:
        query = '{ repository(owner: "o", name: "r") { ...f parent { ...f } } } fragment f on Repository '
        asked(query + "{ id name }")
        self.assertIn("of Foreign", self.refused(query + "{ labels(first: 1) { totalCount } }"))

    def test_what_cannot_be_understood_is_refused_and_ends(self) -> None:
        for body in (
            b"",
            b"[]",
            b"{}",
            b'{"query": 1}',
            b'{"query": "{a}", "variables": []}',
            b"\xff",
            b"[" * 9999,
        ):
            self.assertRaises(Refused, check, body, GRANTED, frozenset())
        self.refused("{" * 3000)
        doubling = "".join(f"fragment f{n} on User {{ ...f{n + 1} ...f{n + 1} }} " for n in range(20))
        inside = '{ repository(owner: "o", name: "r") { owner { ...f0 } } } fragment f20 on User { login } '
        self.assertIn("too large", self.refused(inside + doubling))
        self.assertIn(
            "deeply",
            self.refused('{ node(id: "k") { ...f } } fragment f on PullRequest { ...f }', frozenset({"k"})),
        )

    def test_a_name_that_stands_twice_cannot_be_read_otherwise_there(self) -> None:
        body = b'{"query": "{ viewer { email } }", "query": "{ viewer { login } }"}'
        self.assertNotIn(b"email", check(body, GRANTED, frozenset()).body)


class SearchTests(Case):
    def search(self, text: str) -> None:
        asked(
            "query ($q: String!, $t: SearchType = ISSUE)"
            "{ search(query: $q, type: $t, first: 9) { issueCount nodes { ...p } } }"
            "fragment p on PullRequest { id }",
            q=text,
        )

    def test_searching_in_one_repository(self) -> None:
        for more in ("", " state:open is:pr author:@me", ' label:"good first" fix "two words"', " -label:x"):
            self.search("repo:o/r" + more)

    def test_nothing_widens_it(self) -> None:
        for text in (
            "",
            "is:pr",
            "repo:x/y",
            "repo:o/r repo:x/y",
            "repo:o/r repo:o/second",
            "repo:o/r user:x",
            "repo:o/r org:x",
            "repo:o/r OR repo:x/y",
            "repo:o/r (x)",
            "repo:o/r REPO:x/y",
            "repo:o/r\u200brepo:x/y",
            "repo:o/r \u2028repo:x/y",
            'repo:o/r "repo:x/y"',
            'repo:o/r label:"x" "',
            "-repo:o/r",
        ):
            self.assertRaises(Refused, self.search, text)
        self.refused('{ search(query: "repo:o/r", type: REPOSITORY, first: 1) { issueCount } }')
        self.refused(
            '{ search(query: "repo:o/r", type: ISSUE, first: 1) { nodes { ... on Repository { labels } } } }'
        )

    @given(strategies.text(alphabet='repo:/ x"-()OR\t\n\u200b', max_size=30))
    def test_whatever_follows_names_no_second_repository(self, more: str) -> None:
        try:
            self.search("repo:o/r " + more)
        except Refused:
            return
        self.assertNotIn("repo:", more.replace('"', ""))


class LearningTests(Case):
    def test_identifiers_are_learnt_where_they_belong_to_the_repository(self) -> None:
        request = asked(
            '{ r: repository(owner: "o", name: "r") { key: id owner { id } parent { id } '
            "pullRequests(first: 2) "
            "{ nodes { id headRepository { id } comments { edges { node { id } } } } } "
            "found: issueOrPullRequest(number: 1) { __typename ... on Issue { id title } } } }"
        )
        data = {
            "r": {
                "key": "R1",
                "owner": {"id": "U1"},
                "parent": {"id": "R2"},
                "pullRequests": {
                    "nodes": [
                        {
                            "id": "P1",
                            "headRepository": {"id": "R3"},
                            "comments": {"edges": [{"node": {"id": "C1"}}]},
                        },
                        None,
                    ]
                },
                "found": {"__typename": "Issue", "id": "I1", "title": "T"},
            }
        }
        self.assertEqual(learnt(request, data), {"R1", "P1", "C1", "I1"})

    def test_a_text_that_is_called_id_is_not_one(self) -> None:
        request = asked(
            '{ repository(owner: "o", name: "r") { id: name pullRequest(number: 1) { id: title } } }'
        )
        self.assertEqual(learnt(request, {"repository": {"id": "X", "pullRequest": {"id": "Y"}}}), set())

    def test_answers_of_any_form_are_read(self) -> None:
        request = asked('{ repository(owner: "o", name: "r") { id issues(first: 1) { nodes { id } } } }')
        answers: list[Any] = [
            None,
            [],
            {"repository": None},
            {"repository": {"id": 1, "issues": {"nodes": 3}}},
        ]
        for data in answers:
            self.assertEqual(learnt(request, data), set())
        self.assertEqual(request.learn(b"no json"), set())
        self.assertEqual(request.learn(b"[]"), set())


class MutationTests(Case):
    def test_a_pull_request_in_a_known_repository(self) -> None:
        query = (
            "mutation M($input: CreatePullRequestInput!) "
            "{ createPullRequest(input: $input) { pullRequest { id url } } }"
        )
        given = {"repositoryId": "R1", "title": "t", "headRefName": "b", "baseRefName": "main"}
        request = asked(query, frozenset({"R1"}), input=given)
        self.assertTrue(request.writes)
        self.assertEqual(
            learnt(request, {"createPullRequest": {"pullRequest": {"id": "P1", "url": "u"}}}), {"P1"}
        )
        self.assertIn("names nothing", self.refused(query, frozenset({"R2"}), input=given))
        other = {**given, "headRepositoryId": "R9"}
        self.assertIn("headRepositoryId", self.refused(query, frozenset({"R1"}), input=other))

    def test_a_pull_request_is_of_the_repositorys_own_branch(self) -> None:
        query = (
            "mutation A($input: CreatePullRequestInput!) { createPullRequest(input: $input) { __typename } }"
        )
        given = {"repositoryId": "R1", "title": "t", "headRefName": "x:b", "baseRefName": "main"}
        self.assertIn("own repository", self.refused(query, frozenset({"R1"}), input=given))
        given = {**given, "headRefName": "b", "headRepositoryId": "R2"}
        self.assertIn("names nothing", self.refused(query, frozenset({"R1"}), input=given))

    def test_what_is_left_to_people(self) -> None:
        known = frozenset({"P1"})
        for name, rest in (
            ("mergePullRequest", ""),
            ("enablePullRequestAutoMerge", ""),
            ("deleteRef", ""),
            ("addPullRequestReview", ', event: APPROVE, body: "ok"'),
            ("addPullRequestReview", ""),
            ("closePullRequest", ', other: "x"'),
        ):
            given = f'input: {{pullRequestId: "P1"{rest}}}'
            self.refused(f"mutation {{ {name}({given}) {{ clientMutationId }} }}", known)
        asked('mutation { closePullRequest(input: {pullRequestId: "P1"}) { clientMutationId } }', known)
        asked(
            'mutation { addPullRequestReview(input: {pullRequestId: "P1", event: COMMENT, body: "b"}) '
            "{ clientMutationId } }",
            known,
        )

    def test_every_one_of_several_is_looked_at(self) -> None:
        one = '%s: closePullRequest(input: {pullRequestId: "%s"}) { clientMutationId } '
        query = "mutation { " + one % ("a", "P1") + one % ("b", "P2") + "}"
        self.assertIn("names nothing", self.refused(query, frozenset({"P1"})))
        self.refused("mutation { ...f } fragment f on Mutation { mergePullRequest(input: {}) { x } }")
        self.refused("mutation { closePullRequest { clientMutationId } }")
        self.refused(
            "mutation ($i: X) { closePullRequest(input: $i) { clientMutationId } }", frozenset({"P1"})
        )

    def test_the_table_names_types_that_are_there(self) -> None:
        for name, kind in TYPES.items():
            for to in (*kind.objects.values(), *kind.narrows.values()):
                self.assertIn(to.strip("[]"), TYPES, name)

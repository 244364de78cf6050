"""REST requests that keep to a task's repositories, and those that do not."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from uaihost.credentials.api_rules import Api, Route
from uaihost.credentials.graphql_rules import Refused
from uaihost.test.support import given, strategies

GRANTED = frozenset({("o", "r")})
GITHUB = Api("https://github.com", "https://api.github.com")
ENTERPRISE = Api("https://ghe.example:8443", "https://ghe.example:8443/api/v3")


def routed(method: str, target: str, body: bytes = b"", api: Api = GITHUB) -> object:
    return api.route(method, api.host, target, body, GRANTED)


class RouteTests(SynchronousTestCase):
    def test_what_is_read(self) -> None:
        for path in (
            "/repos/o/r",
            "/repos/O/R/pulls",
            "/repos/o/r/pulls/7/files",
            "/repos/o/r/contents/a/b%20c.txt",
            "/repos/o/r/branches/feature%2Fx",
            "/repos/o/r/actions/runs/5/jobs",
            "/repos/o/r/commits/abc/check-runs",
            "/repos/o/r/compare/main...topic",
        ):
            route = routed("GET", path + "?page=2")
            assert isinstance(route, Route)
            self.assertEqual((route.path, route.writes), (path + "?page=2", False))
            self.assertEqual(route.repository.lower(), "o/r")

    def test_what_belongs_to_no_repository(self) -> None:
        for path in ("/", "/user", "/rate_limit"):
            self.assertEqual(routed("GET", path), Route(path, "", False))
            self.assertRaises(Refused, routed, "PATCH", path)

    def test_what_is_changed(self) -> None:
        for method, path in (
            ("POST", "/repos/o/r/pulls"),
            ("PATCH", "/repos/o/r/pulls/1"),
            ("POST", "/repos/o/r/issues/1/comments"),
            ("DELETE", "/repos/o/r/issues/1/labels/bug"),
            ("POST", "/repos/o/r/actions/runs/1/rerun"),
        ):
            self.assertEqual(routed(method, path), Route(path, "o/r", True))

    def test_logs_are_kept_elsewhere(self) -> None:
        for path in (
            "/actions/runs/1/logs",
            "/actions/runs/1/attempts/2/logs",
            "/actions/jobs/1/logs",
            "/actions/artifacts/1/zip",
        ):
            route = routed("GET", f"/repos/o/r{path}")
            assert isinstance(route, Route)
            self.assertTrue(route.stored)
            self.assertRaises(Refused, routed, "DELETE", f"/repos/o/r{path}")

    def test_a_pull_request_is_of_the_repositorys_own_branch(self) -> None:
        routed("POST", "/repos/o/r/pulls", b'{"head": "topic", "base": "main", "title": "T"}')
        for body in (
            b'{"head": "x:topic"}',
            b'{"head": "topic", "head_repo": "x/y"}',
            b'{"head": "x:t", "head": "t"}',
            b"[]",
            b'"head"',
            b"head=x:topic",
        ):
            self.assertRaises(Refused, routed, "POST", "/repos/o/r/pulls", body)

    def test_what_is_refused(self) -> None:
        for method, path in (
            ("GET", "/repos/o/other"),
            ("GET", "/repos/x/r/pulls"),
            ("GET", "/user/repos"),
            ("GET", "/user/keys"),
            ("GET", "/users/o"),
            ("GET", "/orgs/o/repos"),
            ("GET", "/search/code?q=x"),
            ("GET", "/gists"),
            ("GET", "/repositories/1"),
            ("GET", "/repos/o/r/keys"),
            ("GET", "/repos/o/r/hooks"),
            ("GET", "/repos/o/r/actions/secrets"),
            ("GET", "/repos/o/r/actions/variables"),
            ("GET", "/repos/o/r/collaborators"),
            ("GET", "/repos/o/r/zipball/main"),
            ("GET", "/repos/o/r/compare/main...x:topic"),
            ("GET", "/repos/o/r/compare/main...x%3Atopic"),
            ("DELETE", "/repos/o/r/actions/artifacts/1"),
            ("POST", "/user/repos"),
            ("POST", "/repos/o/r/forks"),
            ("POST", "/repos/o/r/keys"),
            ("POST", "/repos/o/r/hooks"),
            ("POST", "/repos/o/r/merges"),
            ("POST", "/repos/o/r/dispatches"),
            ("POST", "/repos/o/r/transfer"),
            ("POST", "/repos/o/r/git/refs"),
            ("PUT", "/repos/o/r/pulls/1/merge"),
            ("PUT", "/repos/o/r/contents/a"),
            ("PUT", "/repos/o/r/branches/main/protection"),
            ("PATCH", "/repos/o/r"),
            ("DELETE", "/repos/o/r"),
            ("DELETE", "/repos/o/r/git/refs/heads/main"),
            ("GET", "/repos/o/r/../x/pulls"),
            ("GET", "/repos/o/r/contents/%2e%2e/%2e%2e/x"),
            ("GET", "/repos/o/r/contents/%252e%252e%252fx"),
            ("GET", "/repos/o/r/contents/a%5c..%5cb"),
            ("GET", "/repos/o/r/contents/a%0d%0ab"),
            ("GET", "/repos/../r"),
            ("GET", "/repos/o/r/pulls\n"),
            ("GET", "https://api.github.com/repos/o/r"),
            ("GET", "//evil/repos/o/r"),
            ("GET", ""),
            ("GET", "/graphql"),
            ("OPTIONS", "/repos/o/r"),
        ):
            self.assertRaises(Refused, routed, method, path)

    def test_only_its_own_host(self) -> None:
        for host in (
            "",
            "github.com",
            "uploads.github.com",
            "api.github.com.evil.example",
            "api.github.com:444",
        ):
            self.assertRaises(Refused, GITHUB.route, "GET", host, "/repos/o/r", b"", GRANTED)

    def test_people_approve(self) -> None:
        path = "/repos/o/r/pulls/1/reviews"
        self.assertEqual(routed("POST", path, b'{"event": "COMMENT"}'), Route(path, "o/r", True))
        for body in (
            b'{"event": "APPROVE"}',
            b'{"event": "approve"}',
            b'{"event": "APPROVE", "event": "COMMENT"}',
            b"[]",
            b"{",
        ):
            self.assertRaises(Refused, routed, "POST", path, body)

    def test_a_server_of_ones_own_answers_below_its_address(self) -> None:
        self.assertEqual(ENTERPRISE.graphql_url, "https://ghe.example:8443/api/graphql")
        self.assertEqual(GITHUB.graphql_url, "https://api.github.com/graphql")
        route = routed("GET", "/api/v3/repos/o/r", api=ENTERPRISE)
        self.assertEqual(route, Route("/repos/o/r", "o/r", False))
        self.assertEqual(routed("POST", "/api/graphql", api=ENTERPRISE), "graphql")
        self.assertEqual(routed("POST", "/graphql"), "graphql")
        self.assertRaises(Refused, routed, "GET", "/repos/o/r", b"", ENTERPRISE)

    @given(strategies.text(alphabet="/.%2e5cfrox?", max_size=30))
    def test_no_path_leads_out_of_the_repository(self, rest: str) -> None:
        try:
            route = routed("GET", "/repos/o/r" + rest)
        except Refused:
            return
        assert isinstance(route, Route)
        path = route.path.partition("?")[0]
        self.assertTrue(path.startswith("/repos/o/r"))
        self.assertTrue(path in ("/repos/o/r",) or path[len("/repos/o/r")] == "/")
        self.assertNotIn("..", path.replace("%2e", ".").replace("%2E", ".").split("/"))

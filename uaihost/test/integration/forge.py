"""A forge: GitHubApi with repositories, by git http-backend, and as much of GitHub's API as gh asks for.

Everybody's right to a repository is told by the token that they come with. What is seen of tokens is kept.
"""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphql import parse
from graphql.language import ast
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from uaihost.test.credentials.github_model import GitHubModel
from uaihost.test.integration.github_api import GitHubApi

Json = dict[str, Any]

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    **{
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Forge"), ("EMAIL", "forge@example.com"))
    },
}


class Forge(GitHubApi):
    """members: who may do anything with a repository, `owner/name`. seen: each request that came with a
    token: that, the method and the path. asked_graphql: bodies. refuse: so many requests of git are refused
    as if their token had ended. data: what there is to be asked for, by repository.
    """

    def __init__(self, case: TestCase, folder: Path) -> None:
        super().__init__(case, folder, GitHubModel())
        self.folder = folder / "forge"
        self.members: dict[str, set[str]] = {}
        self.seen: list[tuple[str, str, str]] = []
        self.asked_graphql: list[Json] = []
        self.refuse = 0
        self.data: dict[str, Json] = {}
        api = self.root.children[b"api"]
        api.putChild(b"graphql", _GraphQL(self))
        api.children[b"v3"].putChild(b"repos", _Rest(self))
        api.children[b"v3"].putChild(b"meta", _Rest(self))

    def repository(self, name: str, *members: str) -> str:
        """Make a repository with one commit; its address."""
        bare, work = self.folder / f"{name}.git", self.folder / "work" / name
        work.mkdir(parents=True)
        (work / "README").write_text(f"{name}\n")
        for words in (
            ["init", "-q", "-b", "main", str(work)],
            ["-C", str(work), "add", "."],
            ["-C", str(work), "commit", "-qm", "one"],
            ["clone", "-q", "--bare", str(work), str(bare)],
            ["-C", str(bare), "config", "http.receivepack", "true"],
        ):
            subprocess.run(["git", *words], env=_ENVIRONMENT, check=True)
        self.members[name.lower()] = set(members)
        self.data[name.lower()] = _repository(name, self.url)
        owner = name.partition("/")[0].encode()
        self.root.putChild(owner, _Git(self))
        return f"{self.url}/{name}.git"

    def branches(self, name: str) -> list[str]:
        words = ["git", "-C", str(self.folder / f"{name}.git"), "branch", "--format=%(refname:short)"]
        return subprocess.run(
            words, env=_ENVIRONMENT, check=True, capture_output=True, text=True
        ).stdout.split()

    def login(self, request: Request) -> str | None:
        """Who asks; notes their token."""
        kind, _, proof = (request.getHeader("authorization") or "").partition(" ")
        if kind == "Basic":
            name, _, proof = b64decode(proof).decode().partition(":")
            if name != "x-access-token":
                return None
        if proof:
            self.seen.append((proof, request.method.decode(), request.path.decode()))
        return self.model.accesses.get(proof)


class _Page(Resource):
    isLeaf = True

    def __init__(self, forge: Forge) -> None:
        super().__init__()
        self.forge = forge


class _Git(_Page):
    def render(self, request: Request) -> Any:
        login, path = self.forge.login(request), request.path.decode()
        name = "/".join(path.strip("/").split("/")[:2]).lower().removesuffix(".git")
        if login is None or self.forge.refuse > 0:
            self.forge.refuse -= login is not None
            request.setResponseCode(401)
            request.setHeader("www-authenticate", 'Basic realm="GitHub"')
            return b""
        if login not in self.forge.members.get(name, ()):
            request.setResponseCode(404)
            return b"Repository not found."
        assert request.content is not None
        env = {
            **_ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self.forge.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": request.uri.decode().partition("?")[2],
            "REQUEST_METHOD": request.method.decode(),
            "REMOTE_USER": login,
            "CONTENT_TYPE": request.getHeader("content-type") or "",
            "HTTP_CONTENT_ENCODING": request.getHeader("content-encoding") or "",
            "GIT_PROTOCOL": request.getHeader("git-protocol") or "",
        }
        asking = deferToThread(
            subprocess.run,
            ["git", "http-backend"],
            input=request.content.read(),
            env=env,
            capture_output=True,
        )

        def answer(done: Any) -> None:
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
            request.setResponseCode(int(headers.pop("Status", "200").split()[0]))
            for key, value in headers.items():
                request.setHeader(key, value)
            request.write(content)
            request.finish()

        asking.addCallback(answer)
        return NOT_DONE_YET


class _Rest(_Page):
    def render(self, request: Request) -> Any:
        request.setHeader("content-type", "application/json; charset=utf-8")
        login = self.forge.login(request)
        if login is None:
            request.setResponseCode(401)
            return b'{"message": "Bad credentials"}'
        path = request.path.decode().removeprefix("/api/v3")
        if path == "/meta":
            return b'{"installed_version": "3.9.0"}'
        parts = path.strip("/").split("/")
        found = self.forge.data.get("/".join(parts[1:3]).lower())
        if found is None:
            request.setResponseCode(404)
            return b'{"message": "Not Found"}'
        below = "/".join(parts[3:])
        if below == "pulls":
            return self._pulls(request, "/".join(parts[1:3]), found, login)
        if below == "contents/elsewhere":
            # As for a repository that was renamed.
            request.setResponseCode(301)
            request.setHeader("location", f"{self.forge.api_url}/repos/o/other")
            return b"{}"
        return json.dumps(found["rest"].get(below, {})).encode()

    def _pulls(self, request: Request, name: str, found: Json, login: str) -> bytes:
        """docs.github.com/rest/pulls: list by head, and create."""
        if login not in self.forge.members[name]:
            request.setResponseCode(404)
            return b'{"message": "Not Found"}'
        pulls = found["lists"][1]
        if request.method == b"GET":
            assert request.args is not None
            head = request.args[b"head"][0].decode().partition(":")[2]
            return json.dumps([_shown(one) for one in pulls if one["headRefName"] == head]).encode()
        assert request.content is not None
        given = json.loads(request.content.read())
        if given["head"] not in self.forge.branches(name):
            request.setResponseCode(422)
            invalid = {"resource": "PullRequest", "field": "head", "code": "invalid"}
            return json.dumps(
                {"message": "Validation Failed", "errors": [invalid, "head is unknown"]}
            ).encode()
        new = _work(name, self.forge.url, len(pulls) + len(found["lists"][0]) + 1, "PullRequest")
        new |= {"title": given["title"], "body": given["body"], "headRefName": given["head"]}
        pulls.append(new)
        request.setResponseCode(201)
        return json.dumps(_shown(new)).encode()


def _shown(pull: Json) -> Json:
    return {"number": pull["number"], "html_url": pull["url"], "title": pull["title"]}


class _GraphQL(_Page):
    def render(self, request: Request) -> Any:
        request.setHeader("content-type", "application/json; charset=utf-8")
        login = self.forge.login(request)
        if login is None:
            request.setResponseCode(401)
            return b'{"message": "Bad credentials"}'
        assert request.content is not None
        asked = json.load(request.content)
        self.forge.asked_graphql.append(asked)
        found = _Answer(asked).of(_root(self.forge, login))
        return json.dumps({"data": found}).encode()


class _Answer:
    """What a request selects of plain data; a function there takes its field's arguments."""

    def __init__(self, asked: Json) -> None:
        document = parse(asked["query"])
        self._variables: Mapping[str, Any] = asked.get("variables") or {}
        self._operation: Any = document.definitions[0]
        self._fragments: dict[str, Any] = {}
        for one in document.definitions:
            if isinstance(one, ast.FragmentDefinitionNode):
                self._fragments[one.name.value] = one
            elif isinstance(one, ast.OperationDefinitionNode):
                self._operation = one

    def of(self, root: Json) -> Any:
        return self._part(self._operation.selection_set, root)

    def _part(self, selected: Any, value: Any) -> Any:
        if isinstance(value, list):
            return [self._part(selected, one) for one in value]
        if selected is None or value is None:
            return value
        found: Json = {}
        for one in selected.selections:
            if isinstance(one, ast.FieldNode):
                here = value.get(one.name.value)
                if callable(here):
                    here = here({each.name.value: self._value(each.value) for each in one.arguments or ()})
                key = one.alias.value if one.alias else one.name.value
                found[key] = self._part(one.selection_set, here)
                continue
            fragment = self._fragments[one.name.value] if isinstance(one, ast.FragmentSpreadNode) else one
            if fragment.type_condition.name.value in (value.get("__typename"), "Repository", "Actor"):
                found |= self._part(fragment.selection_set, value)
        return found

    def _value(self, node: Any) -> Any:
        if isinstance(node, ast.VariableNode):
            return self._variables.get(node.name.value)
        if isinstance(node, ast.ObjectValueNode):
            return {field.name.value: self._value(field.value) for field in node.fields}
        return getattr(node, "value", None)


def _list(*items: Json) -> Json:
    page = {"hasNextPage": False, "endCursor": "x"}
    return {
        "nodes": list(items),
        "edges": [{"node": item} for item in items],
        "totalCount": len(items),
        "issueCount": len(items),
        "pageInfo": page,
    }


def _work(name: str, url: str, number: int, kind: str) -> Json:
    where = "pull" if kind == "PullRequest" else "issues"
    empty = ("labels", "assignees", "comments", "projectCards", "reviews", "latestReviews", "reviewRequests")
    check = {
        "__typename": "CheckRun",
        "name": "tests",
        "status": "COMPLETED",
        "conclusion": "SUCCESS",
        "startedAt": "2026-01-01T00:00:00Z",
        "completedAt": "2026-01-01T00:01:00Z",
        "detailsUrl": f"{url}/{name}/runs/1",
        "checkSuite": {"workflowRun": {"workflow": {"name": "ci"}}},
    }
    rollup = {"contexts": _list(check), "state": "SUCCESS"}
    return {
        "__typename": kind,
        "id": f"{kind}_{name}_{number}",
        "number": number,
        "title": f"{kind} {number} of {name}",
        "body": "words",
        "state": "OPEN",
        "url": f"{url}/{name}/{where}/{number}",
        "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-01T00:00:00Z",
        "author": {"login": "ada", "id": "U_ada"},
        "headRefName": "topic",
        "baseRefName": "main",
        "isCrossRepository": False,
        "isDraft": False,
        "reactionGroups": [],
        "headRepositoryOwner": {"login": name.partition("/")[0]},
        "commits": _list({"commit": {"oid": "0" * 40, "statusCheckRollup": rollup}}),
        "statusCheckRollup": _list({"commit": {"statusCheckRollup": rollup}}),
        **{each: _list() for each in empty},
    }


def _repository(name: str, url: str) -> Json:
    owner, _, short = name.partition("/")
    issues, pulls = [_work(name, url, 1, "Issue")], [_work(name, url, 2, "PullRequest")]

    def one(arguments: Json) -> Json | None:
        return next((each for each in issues + pulls if each["number"] == arguments["number"]), None)

    run = {
        "id": 7,
        "name": "ci",
        "display_title": "one",
        "status": "completed",
        "conclusion": "success",
        "event": "push",
        "head_branch": "main",
        "workflow_id": 3,
        "run_started_at": "2026-01-01T00:00:00Z",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:01:00Z",
    }
    return {
        "__typename": "Repository",
        "id": f"R_{name}",
        "name": short,
        "nameWithOwner": name,
        "description": f"all of {name}",
        "url": f"{url}/{name}",
        "owner": {"id": "U_o", "login": owner},
        "defaultBranchRef": {"name": "main"},
        "viewerPermission": "WRITE",
        "hasIssuesEnabled": True,
        "isPrivate": True,
        "issue": one,
        "pullRequest": one,
        "issueOrPullRequest": one,
        "issues": lambda arguments: _list(*issues),
        "pullRequests": lambda arguments: _list(
            *(each for each in pulls if arguments.get("headRefName") in (None, each["headRefName"]))
        ),
        "issueTemplates": [],
        "pullRequestTemplates": [],
        "rest": {
            "": {"full_name": name},
            "actions/runs": {"total_count": 1, "workflow_runs": [run]},
            "actions/runs/7": run,
            "actions/runs/7/jobs": {"total_count": 0, "jobs": []},
            "pulls/2": {},
            "actions/workflows": {
                "total_count": 1,
                "workflows": [{"id": 3, "name": "ci", "state": "active"}],
            },
            "actions/workflows/3": {"id": 3, "name": "ci", "state": "active"},
        },
        "lists": (issues, pulls),
    }


def _root(forge: Forge, login: str) -> Json:
    def repository(arguments: Json) -> Json | None:
        name = f"{arguments['owner']}/{arguments['name']}".lower()
        return forge.data[name] if login in forge.members.get(name, ()) else None

    def named(identifier: str) -> Json:
        return next(one for one in forge.data.values() if one["id"] == identifier)

    def create(kind: str, key: str) -> Any:
        def made(arguments: Json) -> Json:
            given = arguments["input"]
            found = named(given["repositoryId"])
            issues, pulls = found["lists"]
            new = _work(found["nameWithOwner"], forge.url, len(issues) + len(pulls) + 1, kind)
            new |= {"title": given["title"], "body": given.get("body", "")}
            new |= {"headRefName": given.get("headRefName", "")}
            (pulls if kind == "PullRequest" else issues).append(new)
            return {key: new}

        return made

    def comment(arguments: Json) -> Json:
        made = {"id": "C_1", "url": f"{forge.url}/comment/1", "body": arguments["input"]["body"]}
        return {"commentEdge": {"node": made}}

    def node(arguments: Json) -> Json | None:
        work = [one for found in forge.data.values() for some in found["lists"] for one in some]
        return next((one for one in work if one["id"] == arguments["id"]), None)

    def changed(arguments: Json) -> Json:
        given = arguments["input"]
        targets = {given.get(key) for key in ("pullRequestId", "issueId", "id")}
        work = [one for found in forge.data.values() for some in found["lists"] for one in some]
        (target,) = (one for one in work if one["id"] in targets)
        target |= {key: given[key] for key in ("title", "body", "state") if given.get(key)}
        return {"pullRequest": target, "issue": target, "clientMutationId": None}

    changes = ("closePullRequest", "reopenPullRequest", "updatePullRequest", "addPullRequestReview")
    changes += ("markPullRequestReadyForReview", "closeIssue", "reopenIssue", "updateIssue")
    return {
        **dict.fromkeys(changes, changed),
        "node": node,
        "viewer": {"login": login, "id": f"U_{login}"},
        "repository": repository,
        "createPullRequest": create("PullRequest", "pullRequest"),
        "createIssue": create("Issue", "issue"),
        "addComment": comment,
        "search": lambda arguments: _list(),
        "__type": lambda arguments: {"fields": [], "enumValues": []},
    }

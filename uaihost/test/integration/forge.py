"""A forge: GitHubApi with repositories, by git http-backend, and as much of GitHub's API as gh asks for.

Everybody's right to a repository is told by the token that they come with. What is seen of tokens is kept.
"""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from uaihost.test.credentials.github_model import GitHubModel
from uaihost.test.integration import forge_data
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
    token: that, the method and the path. asked_graphql: bodies. data: what there is to be asked for, by
    repository.
    """

    def __init__(self, case: TestCase, folder: Path) -> None:
        super().__init__(case, folder, GitHubModel())
        self.folder = folder / "forge"
        self.members: dict[str, set[str]] = {}
        self.seen: list[tuple[str, str, str]] = []
        self.asked_graphql: list[Json] = []
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
        self.data[name.lower()] = forge_data.repository(name, self.url)
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
        if login is None:
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
        new = forge_data.work(name, self.forge.url, len(pulls) + len(found["lists"][0]) + 1, "PullRequest")
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
        found = forge_data.Answer(asked).of(
            forge_data.root(self.forge.data, self.forge.members, login, self.forge.url)
        )
        return json.dumps({"data": found}).encode()

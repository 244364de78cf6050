"""Which requests to GitHub's REST API keep to a task's repositories (docs.github.com/rest).

A table of what is let through; everything else is refused: keys, tokens, secrets, hooks, collaborators,
settings, protected branches, merging, approving, deleting and moving repositories, and whatever is new. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from typing import Literal
from urllib.parse import unquote_to_bytes, urlsplit

import attrs

from uaihost.credentials.graphql_rules import Refused, Repository

# Without a repository: who one is, what is left of the hour's requests, what the server is.
_GENERAL = frozenset({"/", "/user", "/rate_limit", "/meta", "/versions"})

# Below /repos/OWNER/NAME, what may be read. A colon in a comparison would name another one's fork.
_READ = re.compile(
    r"(|/assignees|/branches(/[^/]+)?|/check-(runs|suites)/\d+(/(annotations|check-runs))?|"
    r"/commits(/[^/]+(/(status|statuses|check-runs|check-suites|comments|pulls|branches-where-head))?)?|"
    r"/compare/((?!%3[aA])[^/:])+|/contents(/.*)?|/contributors|/git/(refs|ref|matching-refs|trees|blobs|commits|tags)(/.*)?|"
    r"/issues(/comments)?(/\d+(/(comments|events|labels|timeline))?)?|/labels(/[^/]+)?|/languages|/license|"
    r"/milestones(/\d+)?|/pulls(/comments)?(/\d+(/(commits|files|comments|reviews(/\d+(/comments)?)?|"
    r"requested_reviewers))?)?|/readme|/releases(/(\d+|latest|tags/[^/]+))?|/tags|/topics|"
    r"/actions/(runs|workflows)(/[^/]+(/(jobs|runs|timing|artifacts|attempts/\d+(/jobs)?))?)?|"
    r"/actions/jobs/\d+|/actions/artifacts(/\d+)?)\Z"
)
# Below it as well, what may be changed, by method.
_WRITE = {
    "POST": re.compile(
        r"(/issues|/issues/\d+/(comments|labels|assignees)|/pulls|/pulls/\d+/(comments|comments/\d+/replies|"
        r"requested_reviewers|reviews)|/actions/runs/\d+/(rerun|rerun-failed-jobs|cancel))\Z"
    ),
    "PATCH": re.compile(r"(/issues/\d+|/issues/comments/\d+|/pulls/\d+|/pulls/comments/\d+)\Z"),
    "DELETE": re.compile(
        r"(/issues/\d+/(labels/[^/]+|assignees)|/pulls/\d+/requested_reviewers)\Z",
    ),
}
# Logs and artefacts, which lie in a store for large things.
_STORED = re.compile(r"/actions/((runs/\d+(/attempts/\d+)?|jobs/\d+)/logs|artifacts/\d+/zip)\Z")
_REVIEW = re.compile(r"/pulls/\d+/reviews\Z")
_REPOSITORY = re.compile(r"/repos/([A-Za-z0-9_.-]{1,100})/([A-Za-z0-9_.-]{1,100})(/.*)?\Z")
# What a path may hold as it stands on the wire (RFC 3986, section 3.3).
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*\Z")


@attrs.frozen
class Route:
    """Where a request is to go. path: with its query, below the API's address. repository: `owner/name` as it
    was asked for, empty for what belongs to none."""

    path: str
    repository: str
    writes: bool
    # GitHub may answer with where it is kept.
    stored: bool = False


@attrs.frozen
class Api:
    """One GitHub's API. github: the GitHub's own address, say `https://github.com`; url: of its REST API, say
    `https://api.github.com` or `https://ghe.example/api/v3`."""

    github: str
    url: str

    @property
    def host(self) -> str:
        """How gh calls its host: it knows no other place than these two, and no port (its `http_unix_socket`
        setting makes it send to a socket what it would send there)."""
        return "api.github.com" if self._public else urlsplit(self.github).hostname or ""

    @property
    def prefix(self) -> str:
        """What gh's REST paths begin with."""
        return "" if self._public else "/api/v3"

    @property
    def graphql_path(self) -> str:
        return "/graphql" if self._public else "/api/graphql"

    @property
    def graphql_url(self) -> str:
        return self.url.removesuffix("/v3") + "/graphql"

    @property
    def _public(self) -> bool:
        return urlsplit(self.github).netloc.lower() == "github.com"

    def route(
        self, method: str, host: str, target: str, body: bytes, granted: Container[Repository]
    ) -> Route | Literal["graphql"]:
        """Where the request goes.

        Raises:
            Refused: nowhere.
        """
        if host.lower() not in (
            self.host,
            self.host if self._public else urlsplit(self.github).netloc.lower(),
        ):
            raise Refused(f"{host[:100] or 'no host'} is not the GitHub of this host, {self.host}")
        path, _, query = target.partition("?")
        if path == self.graphql_path:
            if method != "POST":
                raise Refused("GraphQL is asked with POST")
            return "graphql"
        if not path.startswith(self.prefix) or not _PATH.match(path) or not query.isprintable():
            raise Refused("it is no path of GitHub's API")
        below = path.removeprefix(self.prefix) or "/"
        _no_way_up(below)
        wire = below + (f"?{query}" if query else "")
        reads = method in ("GET", "HEAD")
        if reads and below in _GENERAL:
            return Route(wire, "", False)
        found = _REPOSITORY.match(below)
        if found is None:
            raise Refused(f"{method} {below[:100]} is not among what a task may ask for")
        owner, name, rest = found[1], found[2], found[3] or ""
        if (owner.lower(), name.lower()) not in granted:
            raise Refused(f"{owner}/{name} is not a repository of this task")
        if reads and _STORED.match(rest):
            return Route(wire, f"{owner}/{name}", False, stored=True)
        if reads and _READ.match(rest):
            return Route(wire, f"{owner}/{name}", False)
        allowed = _WRITE.get(method)
        if allowed is None or not allowed.match(rest):
            raise Refused(f"{method} {rest[:100] or '/'} of a repository is left to people")
        if _REVIEW.match(rest):
            _no_approval(body)
        elif method == "POST" and rest == "/pulls":
            _from_here(body)
        return Route(wire, f"{owner}/{name}", True)


def _no_way_up(path: str) -> None:
    """Neither as it stands nor once decoded, even twice, may a part lead up or end the path."""
    once = unquote_to_bytes(path)
    for text in (path.encode(), once, unquote_to_bytes(once)):
        parts = re.split(rb"[/\\]", text)
        if b"." in parts or b".." in parts or b"\\" in text or any(byte < 32 or byte == 127 for byte in text):
            raise Refused("its path leads elsewhere")


def _no_approval(body: bytes) -> None:
    if _fields(body).get("event") not in (None, "COMMENT", "REQUEST_CHANGES"):
        raise Refused("approving is left to people; COMMENT and REQUEST_CHANGES are not")


def _from_here(body: bytes) -> None:
    """Else a branch of another repository, which the owner can read, would be shown in this one."""
    fields = _fields(body)
    if "head_repo" in fields or ":" in str(fields.get("head")):
        raise Refused("a task's pull request is of a branch of its own repository")


def _fields(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body or b"{}", object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        raise Refused("its body is no JSON") from None
    if not isinstance(found, dict):
        raise Refused("its body is no object")
    return found


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A name that stands twice is read one way here and another way there."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found

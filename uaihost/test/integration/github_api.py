"""A GitHub on the loopback interface, over TLS with an authority of its own: token endpoint and API.

What it does with tokens is the model of the unit tests; here are its words, as GitHub documents them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trustme
from twisted.internet import reactor
from twisted.internet.ssl import PrivateCertificate
from twisted.trial.unittest import TestCase
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from uaihost.test.credentials.github_model import REFRESH_LASTS, GitHubModel

CLIENT_ID, CLIENT_SECRET = "Iv1.0123456789abcdef", "s3cret"


class GitHubApi:
    """Started with the test and ended with it. url, api_url: as in the settings; ca_file: its authority.

    asked: the requests, without secrets. date: what its clock says, None for the real one. silent: it takes
    requests and never answers. root: of its pages.
    """

    def __init__(self, case: TestCase, folder: Path, model: GitHubModel) -> None:
        self.model = model
        self.asked: list[str] = []
        self.date: str | None = None
        self.silent = False
        authority = trustme.CA()
        self.ca_file = folder / "github-ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        made = authority.issue_cert("localhost")
        pem = made.private_key_pem.bytes() + made.cert_chain_pems[0].bytes()
        options = PrivateCertificate.loadPEM(pem).options()
        root = self.root = Resource()
        root.putChild(b"login", _below(b"oauth", _below(b"access_token", _Exchange(self))))
        root.putChild(b"api", _below(b"v3", _below(b"user", _User(self))))
        # typed as a module
        self._listening: Any = reactor.listenSSL(0, Site(root), options, interface="127.0.0.1")  # type: ignore[attr-defined]
        case.addCleanup(self._listening.stopListening)
        self.url = f"https://localhost:{self._listening.getHost().port}"
        self.api_url = f"{self.url}/api/v3"

    async def stop(self) -> None:
        """Nobody answers from now on."""
        await self._listening.stopListening()


def _below(name: bytes, child: Resource) -> Resource:
    made = Resource()
    made.putChild(name, child)
    return made


class _Page(Resource):
    isLeaf = True

    def __init__(self, api: GitHubApi) -> None:
        super().__init__()
        self.api = api

    def render(self, request: Request) -> Any:
        self.api.asked.append(f"{request.method.decode()} {request.path.decode()}")
        if self.api.date is not None:
            request.setHeader("date", self.api.date)
        if self.api.silent:
            return NOT_DONE_YET
        match self.api.model.trouble:
            case "outage":
                request.setResponseCode(502)
                return b"<html>Unicorn!</html>"
            case "garbage":
                return b"<html>{not json"
            case "limited":
                request.setResponseCode(429)
                request.setHeader("retry-after", "120")
                return _said(request, {"message": "You have exceeded a secondary rate limit"})
        return self.answer(request)

    def answer(self, request: Request) -> Any:
        raise NotImplementedError


class _Exchange(_Page):
    def answer(self, request: Request) -> Any:
        given = {name.decode(): values[0].decode() for name, values in (request.args or {}).items()}
        client = (given.get("client_id"), given.get("client_secret"))
        if request.method != b"POST" or given.get("grant_type") != "refresh_token":
            return _said(request, {"error": "unsupported_grant_type"})
        if client != (CLIENT_ID, CLIENT_SECRET) or self.api.model.trouble == "client":
            return _said(request, {"error": "incorrect_client_credentials"})
        pair = self.api.model.exchange(given.get("refresh_token", ""))
        if pair is None:
            return _said(request, {"error": "bad_refresh_token", "error_description": "incorrect or expired"})
        if self.api.model.trouble == "lost":
            request.transport.abortConnection()  # type: ignore[union-attr]
            return NOT_DONE_YET
        said: dict[str, Any] = {"access_token": pair[0], "refresh_token": pair[1], "token_type": "bearer"}
        said["refresh_token_expires_in"] = REFRESH_LASTS
        if self.api.model.lasts is not None:
            said["expires_in"] = self.api.model.lasts
        return _said(request, said)


class _User(_Page):
    def answer(self, request: Request) -> Any:
        given = (request.getHeader("authorization") or "").removeprefix("Bearer ")
        login = self.api.model.accesses.get(given)
        if login is None:
            request.setResponseCode(401)
            return _said(request, {"message": "Bad credentials"})
        return _said(request, {"login": login, "id": 1})


def _said(request: Request, what: dict[str, Any]) -> bytes:
    request.setHeader("content-type", "application/json; charset=utf-8")
    return json.dumps(what).encode()

"""Pull requests of users: proofs.PullRequests over GitHub's REST API (docs.github.com/rest/pulls)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from uaihost.credentials.git_credentials import granted
from uaihost.credentials.github_http import Answer, GitHubClient, Unanswered
from uaihost.errors import ErrorCode, HostError
from uaihost.proofs import Grant, PullRequest, Tokens


class GitHubPullRequests:
    """api_url: of the REST API, without a closing slash. audit: told of each use (credentials.audit)."""

    def __init__(self, client: GitHubClient, tokens: Tokens, api_url: str, audit: Any) -> None:
        self._client = client
        self._tokens = tokens
        self._api_url = api_url
        self._audit = audit

    async def open(
        self, grant: Grant, address: str, *, head: str, base: str, title: str, body: str, draft: bool
    ) -> PullRequest:
        host = self._tokens.host(grant.user_id)
        if host is None:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                "the branch is pushed, but the task's owner is not connected to GitHub; connect (`uaihost "
                "github login`) or open the pull request at the forge",
            )
        found = granted([address], host)
        if not found:
            raise HostError(
                ErrorCode.CONFLICT,
                f"the branch is pushed, but not to {host}: open the pull request where it is",
            )
        ((owner, name),) = found
        path = f"/repos/{owner}/{name}/pulls"
        query = f"?state=open&head={quote(f'{owner}:{head}', safe='')}&base={quote(base, safe='')}"
        answer = await self._ask(grant, host, "GET", path, query)
        there = answer.objects() if answer.status == 200 else []
        if there:
            return _made(answer, there[0], created=False)
        wanted = {"title": title, "body": body, "head": head, "base": base, "draft": draft}
        answer = await self._ask(grant, host, "POST", path, json=wanted)
        if answer.status != 201:
            raise _refused(answer)
        return _made(answer, answer.object(), created=True)

    async def _ask(
        self, grant: Grant, host: str, method: str, path: str, query: str = "", **kwargs: Any
    ) -> Answer:
        token = await self._tokens.access(grant.user_id)
        try:
            answer = await self._send(token, method, path + query, kwargs)
            if answer.status == 401:
                self._tokens.refused(grant.user_id, token)
                answer = await self._send(
                    await self._tokens.access(grant.user_id), method, path + query, kwargs
                )
        except Unanswered as error:
            raise HostError(ErrorCode.UNAVAILABLE, f"the branch is pushed, but {error}; try again") from None
        outcome = "ok" if answer.status < 400 else f"GitHub answered {answer.status}"
        self._audit(
            user=grant.user_id,
            task=grant.task_id,
            what="api",
            host=host,
            path=f"{method} {path}",
            outcome=outcome,
        )
        return answer

    async def _send(self, token: str, method: str, path: str, kwargs: dict[str, Any]) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
        return await self._client.ask(method, self._api_url + path, headers=headers, **kwargs)


def _made(answer: Answer, found: dict[str, Any], *, created: bool) -> PullRequest:
    number, url = found.get("number"), found.get("html_url")
    if type(number) is not int or not isinstance(url, str):
        raise HostError(ErrorCode.UNAVAILABLE, f"the branch is pushed, but {answer.unexpected()}")
    return PullRequest(number, url, created)


def _refused(answer: Answer) -> HostError:
    """GitHub's own words: they name what is wrong with the branch, the base or the rights."""
    try:
        said = answer.object()
    except Unanswered as error:
        return HostError(ErrorCode.UNAVAILABLE, f"the branch is pushed, but {error}; try again")
    errors = said.get("errors")
    texts = [str(said.get("message", ""))]
    for one in errors if isinstance(errors, list) else []:
        texts.append(str(one.get("message", "")) if isinstance(one, dict) else str(one))
    why = "; ".join(text for text in texts if text)[:500] or f"status {answer.status}"
    return HostError(ErrorCode.CONFLICT, f"the branch is pushed, but GitHub refused the pull request: {why}")

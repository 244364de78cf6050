"""Who may connect users to GitHub: the bridge by its frames, the owner by the command line."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.logger import Logger

from uaihost.credentials.github import GitHubTokens
from uaihost.errors import ErrorCode, HostError
from uaihost.wire import frames

log = Logger()

Verb = Callable[[dict[str, Any]], Coroutine[Any, Any, dict[str, Any]]]

# Times of a bridge are milliseconds since the epoch, as JavaScript has them; GitHub itself counts seconds. No
# token ends before 1973 or after 5138.
_MILLISECONDS = 1e11


class GitHubDoor:
    """The two ways in; errors are told to whoever asked, and nothing is changed by what failed."""

    def __init__(self, tokens: GitHubTokens) -> None:
        self._tokens = tokens

    async def answer(self, frame: frames.GhConnectSet | frames.GhConnectClear) -> frames.GhConnectAck:
        """What the bridge hears (docs/protocol.md, section 3)."""
        try:
            if isinstance(frame, frames.GhConnectSet):
                ends = frame.refreshTokenExpiresAt
                if ends is not None and ends > _MILLISECONDS:
                    ends /= 1000
                await self._tokens.connect(frame.userId, frame.githubLogin, frame.refreshToken, ends)
            else:
                await self._tokens.clear(frame.userId)
        except HostError as error:
            return frames.GhConnectAck(frame.userId, False, f"{error.code.value}: {error.message}")
        except Exception:
            log.failure("a connection to GitHub could not be changed")
            return frames.GhConnectAck(frame.userId, False, "internal: see the host's log")
        return frames.GhConnectAck(frame.userId, True)

    def verbs(self) -> dict[str, Verb]:
        """What the owner's command line may ask for; JSON objects in and out."""

        async def status(words: dict[str, Any]) -> dict[str, Any]:
            return {"connections": self._tokens.status()}

        async def connect(words: dict[str, Any]) -> dict[str, Any]:
            return {"login": await self._tokens.connect_token(_text(words, "user"), _text(words, "token"))}

        async def clear(words: dict[str, Any]) -> dict[str, Any]:
            await self._tokens.clear(_text(words, "user"))
            return {}

        async def retry(words: dict[str, Any]) -> dict[str, Any]:
            return {"said": await self._tokens.retry(_text(words, "user"))}

        return {
            "github.status": status,
            "github.connect": connect,
            "github.clear": clear,
            "github.retry": retry,
        }


def _text(words: dict[str, Any], name: str) -> str:
    value = words.get(name)
    if isinstance(value, str) and value:
        return value
    raise HostError(ErrorCode.INVALID_ARGS, f"expected {name!r} as a text")

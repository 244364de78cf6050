"""A client of a bridge's JSON API and of the previews behind it, for the command line and for tests.

Blocking, standard library only: the command line has nothing else to do while it waits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any, TypeVar

import attrs

from uaihost.errors import ErrorCode, HostError

T = TypeVar("T")

# Seconds between two looks at something that is waited for.
_LOOK = 0.1


@attrs.frozen
class BridgeClient:
    """One bridge on this machine: its port on 127.0.0.1 and the key of its API."""

    port: int
    key: str = attrs.field(repr=False)

    def call(self, method: str, path: str, body: Any = None, timeout: float = 60) -> Any:
        """The API's JSON answer.

        Raises:
            HostError: the bridge answered with an error, or not at all.
        """
        headers = {"Authorization": f"Bearer {self.key}"}
        payload = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            payload = json.dumps(body)
        status, text = self._request("localhost", method, path, payload, headers, timeout)
        answer = json.loads(text or b"{}")
        if status >= 400:
            error = answer.get("error", {})
            code = error.get("code", "internal")
            raise HostError(
                ErrorCode(code) if code in set(ErrorCode) else ErrorCode.INTERNAL,
                error.get("message", f"{method} {path}: status {status}"),
            )
        return answer

    def alive(self) -> bool:
        """Whether a bridge answers there."""
        try:
            return self._request("localhost", "GET", "/healthz", None, {}, 2)[0] == 200
        except HostError:
            return False

    def preview(self, task_id: str, name: str, path: str = "/") -> tuple[int, str]:
        """Status and text of a page of a task's preview, through the tunnel."""
        return self._page(f"{task_id}-{name}.preview.localhost", path)

    def editor(self, task_id: str, path: str = "/") -> tuple[int, str]:
        """Status and text of a page of a task's editor, through the tunnel."""
        return self._page(f"{task_id}.editor.localhost", path)

    def _page(self, host: str, path: str) -> tuple[int, str]:
        status, text = self._request(host, "GET", path, None, {}, 30)
        return status, text.decode(errors="replace")

    def _request(
        self, host: str, method: str, path: str, body: str | None, headers: dict[str, str], timeout: float
    ) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Host": f"{host}:{self.port}", **headers})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException) as error:
            raise HostError(
                ErrorCode.UNAVAILABLE, f"no answer from the bridge on port {self.port}: {error}"
            ) from None
        finally:
            connection.close()


def wait_for(what: str, look: Callable[[], T | None], seconds: float) -> T:
    """The first result of `look` that is not None.

    Raises:
        HostError: `timeout`, naming `what`, when there was none in time.
    """
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > end:
            raise HostError(ErrorCode.TIMEOUT, f"{what}: not seen within {seconds:.0f} s")
        time.sleep(_LOOK)

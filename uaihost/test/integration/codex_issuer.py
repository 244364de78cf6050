"""The sign-in service that Codex asks, as far as its program asks it: device codes, tokens, exchanges.

In threads of its own. It rotates refresh tokens and takes none twice (RFC 6749, section 6), so that an
exchange that is made twice, or whose outcome is lost, is seen at once.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

ACCOUNT = "account-of-a-test"
USER_CODE = "ABCD-12345"


class CodexIssuer:
    """refusal: the status and error code that every exchange gets. lasts: of an access token, seconds.

    asked: the path of each request. approved: whether the person has typed the device's code.
    """

    def __init__(self, host: str) -> None:
        self.asked: list[str] = []
        self.approved = threading.Event()
        self.refusal: tuple[int, str] | None = None
        self.lasts = 3600
        self.issued = 0
        self._valid: set[str] = set()
        self._lock = threading.Lock()
        issuer = self

        class Bound(_Asked):
            owner = issuer

        self._server = ThreadingHTTPServer((host, 0), Bound)
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def exchanges(self) -> int:
        """Refresh tokens that were sent."""
        return self.asked.count("refresh")

    def login(self, lasts: int | None = None) -> str:
        """What Codex keeps (auth.json) after a sign-in, without one. lasts: of its access token, seconds."""
        with self._lock:
            tokens = self._tokens(self.lasts if lasts is None else lasts)
        kept = {
            "auth_mode": "chatgpt",
            "OPENAI_API_KEY": None,
            "tokens": {**tokens, "account_id": ACCOUNT},
            "last_refresh": "2026-01-01T00:00:00Z",
        }
        return json.dumps(kept)

    def answer(self, path: str, fields: dict[str, str]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if path.endswith("/deviceauth/usercode"):
                self.asked.append("code")
                return 200, {"device_auth_id": "device-1", "user_code": USER_CODE, "interval": "1"}
            if path.endswith("/deviceauth/token"):
                self.asked.append("poll")
                if not self.approved.is_set() or fields.get("device_auth_id") != "device-1":
                    return 403, {"error": {"code": "deviceauth_authorization_pending"}}
                return 200, {
                    "authorization_code": "code-1",
                    "code_challenge": "challenge-1",
                    "code_verifier": "verifier-1",
                }
            if not path.endswith("/oauth/token"):
                self.asked.append(path)
                return 404, {"error": "there is nothing here"}
            if fields.get("grant_type") == "refresh_token":
                return self._exchange(fields)
            self.asked.append(fields.get("grant_type", ""))
            if (fields.get("code"), fields.get("code_verifier")) != ("code-1", "verifier-1"):
                return 400, {"error": "invalid_grant"}
            return 200, self._tokens(self.lasts)

    def _exchange(self, fields: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.asked.append("refresh")
        if self.refusal is not None:
            status, code = self.refusal
            return status, {"error": {"code": code, "message": code}}
        token = fields.get("refresh_token", "")
        if token not in self._valid:
            return 401, {"error": {"code": "refresh_token_reused", "message": "it was used before"}}
        self._valid.remove(token)
        return 200, self._tokens(self.lasts)

    def _tokens(self, lasts: int) -> dict[str, str]:
        self.issued += 1
        now = int(time.time())
        refresh = f"refresh-{self.issued}-of-a-test"
        self._valid.add(refresh)
        about = {"chatgpt_account_id": ACCOUNT, "chatgpt_plan_type": "pro", "chatgpt_user_id": "user-1"}
        claims = {"https://api.openai.com/auth": about, "email": "ada@example.com", "iat": now}
        return {
            "id_token": _signed({**claims, "exp": now + 3600}),
            "access_token": _signed({**claims, "exp": now + lasts, "jti": str(self.issued)}),
            "refresh_token": refresh,
        }


def _signed(claims: dict[str, Any]) -> str:
    """A token of that form (RFC 7519); nobody but the issuer looks at its signature."""
    parts = (json.dumps({"alg": "RS256", "typ": "JWT"}).encode(), json.dumps(claims).encode(), b"signature")
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class _Asked(BaseHTTPRequestHandler):
    owner: CodexIssuer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        if self.headers.get("Content-Type", "").startswith("application/json"):
            fields = json.loads(body)
        else:
            fields = {name: values[0] for name, values in parse_qs(body).items()}
        self._send(*self.owner.answer(self.path, fields))

    def do_GET(self) -> None:
        self._send(*self.owner.answer(self.path, {}))

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

"""Has Codex renew its login, in a container that sees nothing else: no repository, no other agent.

Variables: CODEX_HOME, a folder in memory; UAI_LOGIN, what Codex keeps of its login (auth.json). With the
argument `look` nothing is renewed. One JSON object on standard output:

    {"outcome": "renewed" | "ended" | "failed" | "none", "login": auth.json's text, "said": its last words}

What Codex writes stays in the folder, beside a digest of what it began with, until the container is removed:
a host that was killed in between finds it there. Standard library only, Python 3.9 and later.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

# Seconds for Codex to start and to ask its vendor, with the tries it makes by itself.
PATIENCE = 60.0
COMMAND = ("codex", "app-server", "--disable", "plugins", "--disable", "apps")
FIRST, READ = 1, 2
SAID_LIMIT = 400


def digest(login: str) -> str:
    """Of the refresh token in a login: what an exchange uses up."""
    return hashlib.sha256(json.loads(login)["tokens"]["refresh_token"].encode()).hexdigest()


def over(login: str) -> bool:
    """Whether its access token has ended (RFC 7519, `exp`)."""
    try:
        payload = json.loads(login)["tokens"]["access_token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return bool(claims["exp"] <= time.time())
    except (ValueError, IndexError, KeyError, TypeError):
        return False


def ask(environment: dict[str, str], force: bool) -> tuple[dict[str, Any], str]:
    """Codex' answer to `account/read`, {} when none came, and what it printed as errors."""
    process = subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdin and process.stdout and process.stderr
    errors: list[bytes] = []
    reading = threading.Thread(target=errors.extend, args=(process.stderr,), daemon=True)
    reading.start()
    limit = threading.Timer(PATIENCE, process.kill)
    limit.start()
    client = {"name": "uaihost", "title": "uaihost", "version": "1"}
    lines = (
        {"method": "initialize", "id": FIRST, "params": {"clientInfo": client, "capabilities": None}},
        {"method": "initialized"},
        {"method": "account/read", "id": READ, "params": {"refreshToken": force}},
    )
    answer: dict[str, Any] = {}
    try:
        process.stdin.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        process.stdin.flush()
        for line in process.stdout:
            found = json.loads(line)
            if found.get("id") == READ and "method" not in found:
                answer = found
                break
    except (OSError, ValueError):
        # It ended, or said what is no answer: what it kept tells the rest.
        pass
    finally:
        # The end of its input ends it at once, with what it keeps written.
        process.stdin.close()
        process.wait()
        limit.cancel()
        reading.join(5)
    return answer, b"".join(errors).decode("utf-8", "replace")


def renew(folder: Path, login: str) -> dict[str, Any]:
    """Renew it; the report."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept, begun = folder / "auth.json", folder / "begun"
    begun.write_text(digest(login))
    kept.write_text(login)
    environment = {name: value for name, value in os.environ.items() if name != "UAI_LOGIN"}
    # One that is over it renews by itself, and would renew once more when told to.
    for force in (False, True) if over(login) else (True,):
        answer, errors = ask(environment, force)
        now = kept.read_text()
        if json.loads(now)["tokens"]["access_token"] != json.loads(login)["tokens"]["access_token"]:
            return {"outcome": "renewed", "login": now, "said": ""}
    # It has no account any more only when the vendor has refused the token; without an answer it keeps it.
    ended = "result" in answer and answer["result"].get("account") is None
    return {"outcome": "ended" if ended else "failed", "login": now, "said": last_words(errors, answer)}


def look(folder: Path, login: str) -> dict[str, Any]:
    """What an earlier run made of this login."""
    try:
        now = (folder / "auth.json").read_text()
        other = (folder / "begun").read_text() != digest(login)
        if other or json.loads(now)["tokens"] == json.loads(login)["tokens"]:
            return {"outcome": "none", "login": "", "said": ""}
        return {"outcome": "renewed", "login": now, "said": ""}
    except (OSError, ValueError, KeyError, TypeError):
        return {"outcome": "none", "login": "", "said": ""}


def last_words(errors: str, answer: dict[str, Any]) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", errors).splitlines()
    words = [line.partition("auth::manager: ")[2] for line in plain if "auth::manager: " in line]
    said = words[-1] if words else str((answer.get("error") or {}).get("message", "it gave no answer"))
    return said.strip()[:SAID_LIMIT]


def main() -> int:
    os.umask(0o077)
    folder, login = Path(os.environ["CODEX_HOME"]), os.environ["UAI_LOGIN"]
    print(json.dumps(look(folder, login) if sys.argv[1:] == ["look"] else renew(folder, login)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What is stored of secrets: does the key open it, who is signed in, until when. No secret leaves here."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from typing import Any
from urllib.parse import urlsplit

import attrs

from uaihost.agents import kinds
from uaihost.containers.image_inputs import read_versions
from uaihost.credentials.accounts import FORMS
from uaihost.credentials.key_sources import source
from uaihost.credentials.sealing import Sealer
from uaihost.doctor.data import opened
from uaihost.doctor.model import Finding, fail, ok, skipped, together, warn
from uaihost.doctor.patient import Patient, readable
from uaihost.errors import HostError
from uaihost.interfaces import Account
from uaihost.paths import data_files
from uaihost.state import accounts, github, sealed, ssh_keys

# Seconds for GitHub to take a connection.
PATIENCE = 4.0


async def secrets(patient: Patient) -> Finding:
    """Whether the key that is there opens what is sealed."""
    if patient.lives:
        status = await patient.blocking.call(patient.ask, "POST", "/api/verbs/secrets.status", {})
    else:
        status = await patient.blocking.call(_sealed, patient)
    facts = {"sealed": status["sealed"], "others": status["others"]}
    if status["problem"]:
        return fail(str(status["problem"]), *_key_fix(patient, str(status["problem"])), **facts)
    if status["others"]:
        name = readable(patient.folders.secrets_key)
        # The key that is there may have sealed others: it is kept.
        kept = f"[ ! -e {name} ] || cp -p {name} {name}.other; "
        return fail(
            f"{status['others']} stored secrets are not opened by the key in {status['where']}",
            f"{kept}cp BACKUP/secrets.key {name}   # the key that sealed them",
            "uaihost secrets forget   # or give those up, and sign in again",
            **facts,
        )
    if not status["sealed"]:
        return ok("nothing is sealed yet", **facts)
    return ok(f"{status['sealed']} secrets, all opened by the key in {status['where']}", **facts)


def _sealed(patient: Patient) -> dict[str, Any]:
    """As the daemon's verb, and nothing is written."""
    try:
        connection = opened(patient.folders.database)
    except FileNotFoundError:
        return {"where": "", "sealed": 0, "others": 0, "problem": None}
    try:
        rows = sealed.secrets(connection)
    except sqlite3.OperationalError:
        rows = []  # A database of an older schema, without these tables.
    finally:
        connection.close()
    if not rows:
        return {"where": "", "sealed": 0, "others": 0, "problem": None}
    try:
        where, keys = _keys(patient)
    except HostError as error:
        return {"where": "", "sealed": 0, "others": len(rows), "problem": error.message}
    if not keys:
        return {
            "where": where,
            "sealed": 0,
            "others": len(rows),
            "problem": f"{where}, the key of {len(rows)} stored secrets, is missing",
        }
    mine = sum(any(key.opens(place, secret) for key in keys) for place, secret in rows)
    return {"where": where, "sealed": mine, "others": len(rows) - mine, "problem": None}


def opened_secrets(patient: Patient) -> list[bytes]:
    """Everything that is sealed here and opens: for whoever takes it out of what is shown. Blocks."""
    try:
        _, keys = _keys(patient)
        connection = opened(patient.folders.database)
    except (HostError, OSError, sqlite3.Error):
        return []
    try:
        rows = sealed.secrets(connection)
    except sqlite3.Error:
        return []
    finally:
        connection.close()
    return [key.open(place, secret) for place, secret in rows for key in keys if key.opens(place, secret)]


def _keys(patient: Patient) -> tuple[str, list[Sealer]]:
    found = source(patient.settings.secrets_source, patient.folders.secrets_key, patient.environ)
    return found.where, [Sealer(key) for key in found.read() if key is not None]


def _key_fix(patient: Patient, problem: str) -> list[str]:
    name = readable(patient.folders.secrets_key)
    if "read by others" in problem:
        return [f"chmod 600 {name}"]
    if "keyring" in problem or "systemd" in problem:
        return ["unset UAI_SECRETS_KEY   # then the key is a file in the data folder"]
    return [
        f"cp BACKUP/secrets.key {name} && chmod 600 {name}",
        "uaihost secrets forget   # or give up what it sealed, and sign in again",
    ]


@attrs.frozen
class _SignedIn:
    """interfaces.Accounts, as far as the table of kinds asks."""

    forms: dict[str, str]

    def account(self, provider: str) -> Account:
        form: Any = self.forms.get(provider, "none")
        return Account(form, None)


async def agents(patient: Patient) -> Finding:
    """Which agents could start now, and which sign-in they lack."""
    if patient.lives:
        answer = await patient.blocking.call(patient.ask, "GET", "/api/accounts", None)
        rows = list(answer["accounts"])
    else:
        rows = await patient.blocking.call(_accounts, patient)
    return judged_accounts(rows, patient, time.time())


def judged_accounts(rows: list[dict[str, Any]], patient: Patient, now: float) -> Finding:
    """rows: as OwnerAccounts.status gives them. now: seconds since the epoch."""
    forms = {row["provider"]: row["form"] for row in rows if not row.get("problem")}
    programs = read_versions(data_files("images") / patient.settings.task_image).agents
    table = kinds.table(patient.settings.acp_agents)
    missing = kinds.why_not(table, programs, _SignedIn(forms))  # type: ignore[arg-type]
    ready = [kind.name for kind in table if kind.name not in missing]
    real = [name for name in ready if name != "mock"]
    facts = {"ready": ready, "accounts": {row["provider"]: row["form"] for row in rows}}
    findings = []
    for row in rows:
        provider = row["provider"]
        if row.get("problem"):
            findings.append(fail(f"{provider}: {row['problem']}", f"uaihost login {provider}"))
        ends = row.get("expires")
        if row["form"] == "login" and ends and ends / 1000 < now:
            findings.append(
                warn(
                    f"{provider}: its access ended {_ago(now - ends / 1000)} ago; an agent that needs it "
                    "renews it, and if that fails you have to sign in again",
                    f"uaihost login {provider}",
                )
            )
    if not real:
        why = "; ".join(f"{name}: {said}" for name, said in missing.items() if name in FORMS)
        findings.append(
            warn(
                f"no agent but the scripted `mock` can start: {why or 'none is in the image'}",
                "uaihost login claude"
                if patient.settings.task_image == "standard"
                else "unset UAI_TASK_IMAGE",
            )
        )
    return together([*findings, ok(f"ready: {', '.join(ready)}", **facts)])


def _accounts(patient: Patient) -> list[dict[str, Any]]:
    """As OwnerAccounts.status, from the database alone."""
    none = [{"provider": provider, "form": "none"} for provider in FORMS]
    try:
        connection = opened(patient.folders.database)
    except FileNotFoundError:
        return none
    try:
        rows = {row.provider: row for row in accounts.accounts(connection)}
    except sqlite3.OperationalError:
        return none
    finally:
        connection.close()
    try:
        _, keys = _keys(patient) if rows else ("", [])
    except HostError:
        keys = []
    found = []
    for provider in FORMS:
        row = rows.get(provider)
        shown: dict[str, Any] = {"provider": provider, "form": row.form if row else "none"}
        if row is not None:
            place = f"accounts/{provider}"
            key = next((key for key in keys if key.opens(place, row.secret)), None)
            if key is None:
                shown |= {"problem": "what is stored of its sign-in cannot be opened"}
            else:
                ends = float(json.loads(key.open(place, row.secret)).get("expires_at") or 0)
                shown |= {"expires": int(ends * 1000) or None}
        found.append(shown)
    return found


async def users(patient: Patient) -> Finding:
    """How the people of the bridge are connected to GitHub, their SSH keys, and whether GitHub is reached."""
    found = await patient.blocking.call(look_at_users, patient)
    if not found.facts.get("github"):
        return found
    return together([found, await patient.blocking.call(reached, patient.settings.github_api_url)])


def reached(url: str) -> Finding:
    """Whether something listens at an address of GitHub's. Blocks."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    try:
        socket.create_connection((host, port), PATIENCE).close()
    except OSError as error:
        return warn(
            f"{host}, which tasks' tokens come from, is not reached: {error.strerror or error}",
            f"curl -sI https://{host}:{port}",
            reached=False,
        )
    return ok("", reached=True)


def look_at_users(patient: Patient) -> Finding:
    """Blocks."""
    try:
        connection = opened(patient.folders.database)
    except FileNotFoundError:
        return skipped("nobody has connected yet")
    try:
        hubs = github.connections(connection)
        keys = ssh_keys.keys(connection)
    except sqlite3.OperationalError:
        return skipped("the database is of an older version without them")
    finally:
        connection.close()
    facts = {"github": len(hubs), "ssh": len(keys)}
    ended = [row for row in hubs if row.problem]
    if ended:
        names = ", ".join(row.login for row in ended[:4])
        return warn(
            f"GitHub has ended the connection of {len(ended)} of {len(hubs)} users ({names}): "
            f"{ended[0].problem}",
            "uaihost github   # shows each; they connect again at the bridge, then /retry-gh in a task",
            **facts,
        )
    if not hubs and not keys:
        return ok(
            "nobody is connected to GitHub and nobody has an SSH key; public repositories work", **facts
        )
    return ok(f"{len(hubs)} connected to GitHub, {len(keys)} with an SSH key", **facts)


def _ago(seconds: float) -> str:
    return f"{seconds / 3600:.0f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} d"

"""The legal values of settings: text in, value out. Each raises ValueError for what is not legal."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit


def port(text: str) -> int:
    value = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    if not 1 <= value <= 65535:
        raise ValueError
    return value


def url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.username or parts.fragment:
        raise ValueError
    if parts.port == 0:
        raise ValueError
    return text


def token(text: str) -> str:
    if not text or not text.isprintable() or " " in text:
        raise ValueError
    return text


def host_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", text):
        raise ValueError
    return text


def folder(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_absolute() or "\0" in text:
        raise ValueError
    return path


def file(text: str) -> Path:
    path = folder(text)
    if not path.is_file():
        raise ValueError
    return path


def folders(text: str) -> tuple[Path, ...]:
    return tuple(folder(part) for part in text.split(os.pathsep) if part)


def engine(text: str) -> str:
    if not re.match(r"(unix|tcp|http|https)://.", text):
        raise ValueError
    return text


def image(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}", text):
        raise ValueError
    return text


def bytes(text: str) -> int:
    value = amount(text)
    if value < 64 << 20:
        raise ValueError
    return value


def amount(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})([KMG]?)", text)
    if not match:
        raise ValueError
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def disk(text: str) -> int:
    value = amount(text)
    if value < 1 << 30:
        raise ValueError
    return value


def task_image(text: str) -> str:
    if text not in ("standard", "small"):
        raise ValueError
    return text


def egress(text: str) -> str:
    if text not in ("open", "registries+git", "deny"):
        raise ValueError
    return text


def destinations(text: str) -> tuple[str, ...]:
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for part in found:
        host, _, number = part.partition(":") if part.count(":") == 1 else (part, "", "")
        if number:
            port(number)
        try:
            ipaddress.ip_network(host, strict=False)
        except ValueError:
            if not re.fullmatch(r"(\*\.)?[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", host):
                raise ValueError from None
    return found


def cpus(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 1024:
        raise ValueError
    return value


def pids(text: str) -> int:
    value = int(text)
    if not 16 <= value <= 1 << 20:
        raise ValueError
    return value


def gateway(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.fragment:
        raise ValueError
    if parts.port == 0:
        raise ValueError
    return text.rstrip("/")


def agents(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """`name=command` pairs; a command is split as a shell splits it, and no shell runs it."""
    found: dict[str, tuple[str, ...]] = {}
    for part in text.split(";"):
        if not part.strip():
            continue
        name, _, command = part.strip().partition("=")
        name, words = name.strip(), tuple(shlex.split(command))
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name) or not words or name in found:
            raise ValueError
        found[name] = words
    return tuple(found.items())


def count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise ValueError
    return int(text)


def hours(text: str) -> float:
    """Seconds of so many hours."""
    value = float(text)
    if not 0.01 <= value <= 24 * 366:
        raise ValueError
    return value * 3600


def origin(text: str) -> str:
    """An https address without path."""
    if urlsplit(text).path not in ("", "/"):
        raise ValueError
    return api(text)


def api(text: str) -> str:
    """An https address, without a slash at its end."""
    parts = urlsplit(text)
    plain = parts.scheme == "https" and parts.hostname and not parts.username and not parts.password
    if not plain or parts.query or parts.fragment or parts.port == 0 or not text.isprintable() or " " in text:
        raise ValueError
    return text.rstrip("/")


def client_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", text):
        raise ValueError
    return text


def secrets_source(text: str) -> str:
    if text not in ("auto", "file", "keyring", "systemd"):
        raise ValueError
    return text


def log_format(text: str) -> str:
    if text not in ("text", "json"):
        raise ValueError
    return text


def log_level(text: str) -> str:
    if text not in ("debug", "info", "warn", "error"):
        raise ValueError
    return text


def switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError
    return text == "on"

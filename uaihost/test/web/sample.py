"""What a host says of itself on an ordinary day, and on a bad one: the shape of daemon.Daemon.status."""

from __future__ import annotations

import copy
from typing import Any

from uaihost.web.wellness import warnings

NOW = 1_790_000_000.0
GIB = 1 << 30

GOOD: dict[str, Any] = {
    "version": "0.1.0",
    "hostId": "h-4f1c20d7",
    "startedAt": int((NOW - 277_000) * 1000),
    "now": int(NOW * 1000),
    "dataFolder": "/var/lib/uaihost",
    "bridge": {
        "url": "wss://bridge.example/host",
        "state": "connected",
        "reason": "",
        "since": NOW - 9000,
        "retryAt": None,
    },
    "engine": {"answers": True, "address": "unix:///var/run/docker.sock"},
    "image": {
        "state": "present",
        "reference": "uaihost/standard:6f2d91c0b7a4",
        "message": None,
        "doing": None,
        "percent": None,
        "since": None,
        "lines": [],
    },
    "outbox": 0,
    "draining": False,
    "commands": 0,
    "tunnels": 3,
    "tasks": [
        {
            "id": "fix-checkout",
            "slug": "fix-checkout",
            "branch": "fix/checkout-total",
            "status": "running",
            "message": None,
            "waiting": None,
            "steps": [
                {"step": "image", "state": "done", "message": None, "startedAt": 0, "elapsedMs": 140},
                {"step": "clone shop", "state": "done", "message": None, "startedAt": 0, "elapsedMs": 2380},
                {"step": "container", "state": "done", "message": None, "startedAt": 0, "elapsedMs": 910},
            ],
            "report": None,
            "ended": None,
            "codeServerPort": 49153,
            "previewPorts": [
                {"name": "web", "containerPort": 3000, "hostPort": 49154},
                {"name": "port-9229", "containerPort": 9229, "hostPort": 0},
            ],
            "memoryLimit": 4 * GIB,
            "updatedAt": int((NOW - 3600) * 1000),
            "agents": [{"id": "ada", "state": "working"}, {"id": "max", "state": "idle"}],
            "usage": {"memoryBytes": 1_610_612_736, "cpuPercent": 43.0},
        },
        {
            "id": "spring-menu",
            "slug": "spring-menu",
            "branch": "spring-menu",
            "status": "starting",
            "message": None,
            "waiting": {
                "reason": "editor",
                "text": "the editor is starting",
                "since": int((NOW - 4) * 1000),
            },
            "steps": [
                {"step": "image", "state": "done", "message": None, "startedAt": 0, "elapsedMs": 90},
                {"step": "editor", "state": "running", "message": None, "startedAt": 0, "elapsedMs": None},
            ],
            "report": None,
            "ended": None,
            "codeServerPort": None,
            "previewPorts": [],
            "memoryLimit": 4 * GIB,
            "updatedAt": int((NOW - 20) * 1000),
            "agents": [],
        },
    ],
    "egress": {"mode": "open", "allowed": 812, "blocked": 0},
    "disk": {"mirrors": 3 * GIB, "images": 5 * GIB, "work": 2 * GIB, "saved": GIB, "database": 4_000_000},
    "space": {"free": 180 * GIB, "total": 400 * GIB, "used": 10 * GIB, "budget": 50 * GIB, "low": False},
    "agents": {
        "accounts": [
            {
                "provider": "claude",
                "form": "login",
                "since": 1,
                "expires": None,
                "gateway": None,
                "problem": None,
            },
            {
                "provider": "codex",
                "form": "none",
                "since": None,
                "expires": None,
                "gateway": None,
                "problem": None,
            },
        ],
        "kinds": [
            {"kind": "claude", "title": "Claude Code", "problem": None},
            {"kind": "codex", "title": "Codex", "problem": "not signed in: `uaihost login codex`"},
        ],
    },
    "github": [
        {
            "userId": "u1",
            "form": "app",
            "login": "octavia",
            "host": "github.com",
            "since": 1,
            "expires": int((NOW - 60) * 1000),
            "problem": None,
        }
    ],
    "reactorLag": 0.004,
}


def good() -> dict[str, Any]:
    """All is well."""
    return seen(GOOD)


def bad() -> dict[str, Any]:
    """The bridge is away, an account has ended, a build runs, a task failed."""
    status = copy.deepcopy(GOOD)
    status["bridge"] |= {
        "state": "waiting",
        "reason": "connection refused by bridge.example:443",
        "since": NOW - 90,
        "retryAt": NOW + 12,
    }
    status["image"] |= {
        "state": "building",
        "reference": None,
        "doing": "step 7 of 12: RUN apt-get install",
        "percent": 58,
        "since": int((NOW - 60) * 1000),
        "lines": ["Get:41 libnss3 amd64 [1,318 kB]", "Unpacking libnss3:amd64 ..."],
    }
    status["agents"]["accounts"][0]["problem"] = "the login has ended; sign in again"
    status["tasks"][1] |= {
        "status": "failed",
        "waiting": None,
        "message": "clone shop: the repository asks for a password",
    }
    status["outbox"] = 14
    return seen(status)


def seen(status: dict[str, Any]) -> dict[str, Any]:
    """With its warnings."""
    found = copy.deepcopy(status)
    return {**found, "warnings": warnings(found, found["now"] / 1000)}

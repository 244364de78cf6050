"""Every check, in the order in which people read them: docs/doctor.md has the same table."""

from __future__ import annotations

from uaihost.doctor import bridge, container, data, engine, host, machine, stored
from uaihost.doctor.daemon import daemon
from uaihost.doctor.model import Check
from uaihost.doctor.service import service

CHECKS = (
    Check("settings", "settings", host.settings),
    Check("versions", "versions", host.python),
    Check("accelerations", "compiled parts", host.accelerations),
    Check("daemon", "running host", daemon),
    Check("service", "service", service, limit=10),
    Check("data-folder", "data folder", data.folder),
    Check("disk", "disk", data.disk),
    Check("memory", "memory", host.memory),
    Check("descriptors", "open files", host.descriptors),
    Check("database", "database", data.database, ("data-folder",), limit=20),
    Check("secrets", "stored secrets", stored.secrets, ("database",)),
    Check("log", "log", machine.log),
    Check("ports", "local ports", machine.ports),
    Check("proxies", "proxies", host.proxies),
    Check("bridge-name", "bridge: name", bridge.name, limit=12),
    Check("bridge-tcp", "bridge: connection", bridge.tcp, ("bridge-name",), limit=12),
    Check("clock", "clock", bridge.clock, ("bridge-tcp",), limit=12),
    Check("bridge-tls", "bridge: certificate", bridge.tls, ("bridge-tcp",), limit=20),
    Check("bridge-websocket", "bridge: WebSocket", bridge.websocket, ("bridge-tls",), limit=12),
    Check("bridge-token", "bridge: token", bridge.token, ("bridge-name",), limit=22),
    Check("git", "git", machine.git, limit=20),
    Check("agents", "agents", stored.agents, ("database",)),
    Check("users", "GitHub and SSH", stored.users, ("database",), limit=10),
    Check("engine", "container engine", engine.engine, limit=12),
    Check("engines", "one engine", engine.engines, ("engine",), limit=15),
    Check("packet-filter", "packet filter", engine.packet_filter, ("engine",), limit=15),
    Check("image", "task image", engine.image, ("engine",), limit=15),
    Check("container", "a container", container.run, ("engine", "image", "data-folder"), 45, container=True),
)

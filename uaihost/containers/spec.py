"""From a launch to the engine's parameters, and from the engine's answers to records. Pure.

Shapes are those of the Docker Engine API 1.41 (docs.docker.com/engine/api/v1.41). It must not know the SDK.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from uaihost.interfaces import Container, Launch, Usage

# Raised when containers made by an older daemon would no longer fit what the daemon expects of them.
SPEC_VERSION = "3"

LABEL_HOST = "uaihost.host"
LABEL_TASK = "uaihost.task"
LABEL_SPEC = "uaihost.spec"

# Of the log that the engine keeps of the first process: one is written, the others are older.
LOG_FILES = 2

# When the machine is out of memory the kernel ends what a task runs before the daemon and the owner's own
# programs (proc(5), oom_score_adj: -1000 to 1000).
OOM_SCORE = 500

# What programs expect to be able to write and what is gone with the container.
TMPFS = {"/run": "rw,nosuid,nodev,noexec,size=16m,mode=0755"}
# The first process' own folder, where nothing of the host is mounted for it.
OWN_RUN = "/run/uai"

# Addresses of tasks' networks. The engine's own pools hold about 30 networks; this one holds 4096. It lies
# in the private 10.0.0.0/8 (RFC 1918), away from its ends, where companies and VPNs begin to number.
POOL = "10.213.0.0/16"
# 13 usable addresses: a task has one container.
SUBNET_PREFIX = 28

# How the interface of a task's network begins on the host, by which firewall rules know it.
BRIDGE_PREFIX = "uai-"

# hostname(7): 64 bytes; shown in every shell's prompt, so short.
HOSTNAME_LIMIT = 32


def container_name(host_id: str, task_id: str) -> str:
    """The name of the task's container and of its network.

    The host's part keeps two daemons on one engine apart. A task id that cannot stand in a name, or is too
    long to be read there, is replaced by its digest.
    """
    plain = re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", task_id)
    return f"uai-{_digest(host_id)}-{task_id if plain else _digest(task_id, 32)}"


def bridge_name(host_id: str, task_id: str) -> str:
    """The host's interface of the task's network: 12 of the 15 bytes that a name may have (netdevice(7))."""
    return BRIDGE_PREFIX + _digest(f"{host_id}/{task_id}")


def labels(host_id: str, task_id: str) -> dict[str, str]:
    """What says later to whom a container or a network belongs."""
    return {LABEL_HOST: host_id, LABEL_TASK: task_id, LABEL_SPEC: SPEC_VERSION}


def filters(host_id: str) -> dict[str, list[str]]:
    """The engine's filter for everything of this host."""
    return {"label": [f"{LABEL_HOST}={host_id}"]}


def container_config(launch: Launch, host_id: str) -> dict[str, Any]:
    """The body of `POST /containers/create`.

    Its label LABEL_SPEC is also a digest of all of it, by which a later launch knows whether it still fits.
    No ulimits: an engine without CAP_SYS_RESOURCE refuses them. `Mounts`, not `Binds`: a missing source is
    refused instead of made by root.
    """
    # Without a network nothing can be published.
    reachable = launch.ports if launch.network == "own" else ()
    ports = {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}] for port in reachable}
    limits = launch.limits
    config: dict[str, Any] = {
        "Image": launch.image,
        "Hostname": hostname(launch.task_id),
        "User": f"{launch.uid}:{launch.gid}",
        "Env": [f"{name}={value}" for name, value in sorted(launch.env.items())],
        "Labels": labels(host_id, launch.task_id),
        "ExposedPorts": {port: {} for port in ports},
        "HostConfig": {
            "NetworkMode": container_name(host_id, launch.task_id) if launch.network == "own" else "none",
            "PortBindings": ports,
            "ReadonlyRootfs": launch.read_only,
            "Tmpfs": _tmpfs(launch) if launch.read_only else {},
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": mount.source,
                    "Target": mount.target,
                    "ReadOnly": mount.read_only,
                    "BindOptions": {"Propagation": "rprivate"},
                }
                for mount in launch.mounts
            ],
            "Init": True,
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "IpcMode": "private",
            "Memory": limits.memory,
            "MemorySwap": limits.memory + limits.swap,
            "ShmSize": limits.shm,
            "NanoCpus": round(limits.cpus * 1_000_000_000),
            "PidsLimit": limits.pids,
            "OomScoreAdj": OOM_SCORE,
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": str(limits.log // LOG_FILES), "max-file": str(LOG_FILES)},
            },
            "RestartPolicy": {"Name": "no"},
        },
    }
    config["Labels"][LABEL_SPEC] += "-" + _digest(json.dumps(config, sort_keys=True))
    return config


def _tmpfs(launch: Launch) -> dict[str, str]:
    if any(mount.target == OWN_RUN for mount in launch.mounts):
        return TMPFS
    mine = f"rw,nosuid,nodev,noexec,size=16m,mode=0700,uid={launch.uid},gid={launch.gid}"
    return {**TMPFS, OWN_RUN: mine}


def network_ipam(subnet: str) -> dict[str, Any]:
    """The `IPAM` part of `POST /networks/create`."""
    return {"Driver": "default", "Config": [{"Subnet": subnet}]}


def network_options(host_id: str, task_id: str) -> dict[str, str]:
    """The `Options` part of `POST /networks/create`, for the driver `bridge`."""
    return {"com.docker.network.bridge.name": bridge_name(host_id, task_id)}


def hostname(task_id: str) -> str:
    """What programs in the container see as the machine's name (RFC 1123: letters, digits, hyphens)."""
    return re.sub(r"[^a-z0-9]+", "-", task_id.lower())[:HOSTNAME_LIMIT].strip("-") or "task"


def free_subnet(task_id: str, taken: Collection[str], pool: str = POOL) -> str | None:
    """A subnet of `pool` that overlaps none of `taken`; None when the pool is used up.

    The search starts at a place that the task decides, so that two daemons rarely want the same.
    """
    whole = ipaddress.ip_network(pool)
    used = [ipaddress.ip_network(text, strict=False) for text in taken]
    near = [network for network in used if network.version == whole.version and network.overlaps(whole)]
    size = 1 << (whole.max_prefixlen - SUBNET_PREFIX)
    count = whole.num_addresses // size
    start = int(_digest(task_id), 16) % count
    for step in range(count):
        first = whole.network_address + ((start + step) % count) * size
        subnet = ipaddress.ip_network((first, SUBNET_PREFIX))
        if not any(subnet.overlaps(network) for network in near):
            return str(subnet)
    return None


def subnets(networks: list[dict[str, Any]]) -> list[str]:
    """The subnets in an answer of `GET /networks`."""
    found = []
    for network in networks:
        for entry in (network.get("IPAM") or {}).get("Config") or []:
            if entry.get("Subnet"):
                found.append(entry["Subnet"])
    return found


def fits(inspected: Mapping[str, Any], launch: Launch, host_id: str) -> bool:
    """Whether the container was made as this daemon would make it for `launch`."""
    wanted = container_config(launch, host_id)["Labels"][LABEL_SPEC]
    return bool(inspected["Config"]["Labels"].get(LABEL_SPEC) == wanted)


def container(inspected: Mapping[str, Any]) -> Container:
    """The record in an answer of `GET /containers/{id}/json`."""
    state = inspected["State"]
    running = state["Status"] in ("running", "paused")
    return Container(
        id=inspected["Id"],
        task_id=inspected["Config"]["Labels"][LABEL_TASK],
        state=state["Status"],
        ports=published(inspected["NetworkSettings"].get("Ports") or {}) if running else {},
        started_at=milliseconds(state.get("StartedAt") or ""),
        exit_code=None if running or state["Status"] == "created" else state["ExitCode"],
        out_of_memory=bool(state.get("OOMKilled")),
    )


def published(ports: Mapping[str, list[dict[str, str]] | None]) -> dict[int, int]:
    """Container port to host port, from the engine's `{"80/tcp": [{"HostIp", "HostPort"}]}`."""
    found = {}
    for name, bindings in ports.items():
        number, _, protocol = name.partition("/")
        if protocol == "tcp" and bindings and bindings[0].get("HostPort"):
            found[int(number)] = int(bindings[0]["HostPort"])
    return found


def milliseconds(stamp: str) -> int | None:
    """The engine's time (RFC 3339 with up to nine decimals) since the epoch; None for its year 1."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", stamp)
    if match is None or match[1].startswith("0001"):
        return None
    whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    return round(whole.timestamp() * 1000) + int(float(match[2] or 0) * 1000)


def usage(stats: Mapping[str, Any]) -> Usage:
    """What `GET /containers/{id}/stats?stream=false` says, as `docker stats` computes it.

    Memory is without the inactive page cache: `total_inactive_file` on cgroup v1, `inactive_file` on v2.
    Percent are of one core: two busy cores are 200.
    """
    memory = stats.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    used = memory.get("usage", 0)
    now, before = stats.get("cpu_stats") or {}, stats.get("precpu_stats") or {}
    busy = _nested(now) - _nested(before)
    total = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    cores = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or []) or 1
    percent = busy / total * cores * 100 if busy > 0 and total > 0 else 0.0
    return Usage(memory=used - cache if cache < used else used, cpu_percent=round(percent, 1))


def _nested(cpu: Mapping[str, Any]) -> int:
    return int((cpu.get("cpu_usage") or {}).get("total_usage", 0))


def _digest(text: str, length: int = 8) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]

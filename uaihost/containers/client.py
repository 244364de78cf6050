"""The Docker SDK's client and what its errors mean to people.

Every call of an `APIClient` blocks: only code behind `blocking.Blocking` may use one.
"""

from __future__ import annotations

import re

import docker
import docker.errors
import requests.exceptions

from uaihost.errors import ErrorCode, HostError

SYSTEM_SOCKET = "unix:///var/run/docker.sock"

# Seconds without a byte from the engine. Its slowest single answer (removal of a big container on a busy
# disk) took seconds; builds and pulls stream.
CALL_TIMEOUT = 60

# Connections kept open: one per thread of the engine's pool.
CONNECTIONS = 8


def connect(docker_host: str, timeout: float = CALL_TIMEOUT) -> docker.APIClient:
    """A client for the engine at `docker_host`. Blocks for one round trip: the API's version is agreed upon.

    Raises:
        HostError: `invalid_args` when the address is none, `unavailable` when no engine answers.
    """
    if not re.match(r"(unix|tcp|http|https)://.", docker_host):
        raise HostError(
            ErrorCode.INVALID_ARGS,
            f"DOCKER_HOST {docker_host!r} is not supported: give a unix:// or a tcp:// address",
        )
    try:
        return docker.APIClient(
            base_url=docker_host, version="auto", timeout=int(timeout), num_pools=CONNECTIONS
        )
    except Exception as error:
        raise explained(error, "reach the engine") from error


def answers(docker_host: str, timeout: float = 3) -> bool:
    """Whether an engine answers there. Blocks for at most about `timeout` seconds."""
    try:
        connect(docker_host, timeout).close()
    except HostError:
        return False
    return True


def explained(error: Exception, doing: str) -> HostError:
    """The engine's error as one for people. `doing`: what failed, as in "cannot <doing>"."""
    if isinstance(error, HostError):
        return error
    if isinstance(error, docker.errors.APIError):
        said = str(error.explanation or error)
        status = error.status_code
        if isinstance(error, docker.errors.NotFound):
            return HostError(ErrorCode.NOT_FOUND, f"cannot {doing}: {said}")
        if status == 409:
            return HostError(ErrorCode.CONFLICT, f"cannot {doing}: {said}")
        if status == 400:
            return HostError(ErrorCode.INVALID_ARGS, f"cannot {doing}: the engine refused it: {said}")
        return HostError(ErrorCode.UNAVAILABLE, f"cannot {doing}: the container engine failed: {said}")
    if isinstance(error, requests.exceptions.ReadTimeout):
        return HostError(
            ErrorCode.UNAVAILABLE,
            f"cannot {doing}: the container engine did not answer in time; see its log, or restart it",
        )
    if isinstance(error, (docker.errors.DockerException, requests.exceptions.RequestException, OSError)):
        return HostError(
            ErrorCode.UNAVAILABLE,
            f"cannot {doing}: the container engine does not answer; start Docker or check DOCKER_HOST",
        )
    raise error

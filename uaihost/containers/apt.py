"""Debian packages that the engine's set-up needs, installed with apt-get (root only)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uaihost import children
from uaihost.errors import ErrorCode, HostError

# Seconds for one run of apt-get: 66 MB to download and 5 s to unpack.
INSTALL_LIMIT = 600.0
# What a child needs of our environment: the way to the network and to programs.
_PASSED_ON = ("PATH", "HOME", "LANG", "http_proxy", "https_proxy", "no_proxy")


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a system program that we start."""
    env = {name: value for name, value in environ.items() if name in _PASSED_ON or name.lower() in _PASSED_ON}
    # Debian's daemons call iptables and modprobe, which lie in sbin; users' paths often lack it.
    return env | {"PATH": f"{environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


async def install(
    reactor: Any, packages: Sequence[str], progress: Callable[[str], None], environ: Mapping[str, str]
) -> None:
    """Install `packages` without their recommendations; the lists are read only when they are too old.

    Raises:
        HostError: `unavailable`, with what apt-get said.
    """
    env = environment(environ) | {"DEBIAN_FRONTEND": "noninteractive"}

    async def run(*words: str) -> children.Finished:
        return await children.run(reactor, ["apt-get", "-qq", *words], env=env, timeout=INSTALL_LIMIT)

    words = ("install", "-y", "--no-install-recommends", *packages)
    progress(f"installing {' '.join(packages)}")
    done = await run(*words)
    if done.status != 0:
        progress("reading the package lists")
        await run("update")
        done = await run(*words)
    if done.status != 0:
        said = done.err.decode("utf-8", "replace").strip().splitlines()[-6:]
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"`apt-get install {' '.join(packages)}` failed; install by hand. It said:\n" + "\n".join(said),
        )

"""How many files and sockets this process may hold."""

from __future__ import annotations

import resource

# Each connection of a task through a tunnel or the proxy takes two; more than this is no host's normal day.
WANTED = 65_536


def raise_limit() -> int:
    """Raise the soft limit (getrlimit(2)) as far as is wanted and permitted; the limit then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted

"""What an earlier container of the task left where something of ours belongs: the run folder outlives it.

Anything may lie there: a socket, a pipe, a link, a folder full of things that cannot be deleted. Standard
library only, Python 3.9 and later.
"""

from __future__ import annotations

import os
from pathlib import Path


def put_aside(path: Path) -> None:
    """Nothing is at `path` any more; no link is followed. OSError: the folder around it cannot be written."""
    try:
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError:
        # A folder: within the same folder it moves, whatever is in it and whatever its mode.
        path.rename(path.with_name(f".{path.name}-{os.urandom(4).hex()}"))

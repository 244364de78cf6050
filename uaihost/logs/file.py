"""The log's file: a record of JSON a line, in files of bounded size, readable by the daemon's user alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.python.logfile import LogFile

# Bytes of a file, and how many older ones (uaihost.log.1 is the newest of them) are kept beside it: what a
# task makes the daemon say fills no disk.
LIMIT = 16 << 20
OLDER = 3


class RecordFile:
    """Appends records. A full disk loses records and nothing else."""

    def __init__(self, path: Path, limit: int = LIMIT, older: int = OLDER) -> None:
        before = os.umask(0o077)
        try:
            self._file = LogFile.fromFullPath(
                str(path), rotateLength=limit, maxRotatedFiles=older, defaultMode=0o600
            )
        finally:
            os.umask(before)

    def add(self, record: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError:
            # There is nowhere to say it: this is where things are said.
            pass

    def close(self) -> None:
        self._file.close()

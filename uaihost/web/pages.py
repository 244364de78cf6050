"""The page's own files, read once; they hold nothing of this installation. Nothing else is ever served."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import Logger

log = Logger()

STATIC = Path(__file__).parent / "static"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Pages:
    """folder: of the files, without folders in it. One that cannot be read has no files."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._files: dict[str, tuple[str, bytes]] = {}
        try:
            for path in sorted(folder.iterdir()):
                if path.suffix in TYPES:
                    self._files[path.name] = (TYPES[path.suffix], path.read_bytes())
        except OSError as error:
            log.warn("the local page's files cannot be read: {why}", why=str(error))

    def get(self, name: str) -> tuple[str, bytes] | None:
        """The media type and the bytes of a file."""
        return self._files.get(name)

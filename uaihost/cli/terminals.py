"""Rich consoles that show text of others as it is, and obey nothing that is in it (`uaihost.shown`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from uaihost.shown import harmless


def terminal(**words: Any) -> Console:
    """A rich console. words: as for it."""
    return _Careful(**words)


class _Careful(Console):
    """Here everything that is shown comes by, in pieces: rich's own sequences apart from the text between."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)

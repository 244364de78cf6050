"""Text that others wrote, before a person's terminal gets it.

A task's name, a branch, a line of a build, an engine's message: what an agent or a repository chose can hold
sequences by which a terminal writes the clipboard, answers as if keys were struck, or shows other text than
is there (CWE-150), and marks that turn the order of what is read (CVE-2021-42574).
"""

from __future__ import annotations

import json
import re
from typing import Any

# Control characters but tab and line feed (C0, DEL, C1: ECMA-48), marks of direction (Unicode TR 9, section
# 2) and separators that some programs take for the end of a line.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]"
)


def harmless(text: str) -> str:
    """The text with U+FFFD in place of each character that does more than be seen."""
    return _HARMFUL.sub("\ufffd", text)


def json_text(value: Any, **form: Any) -> str:
    """JSON of the value, in which such characters are escapes: the same value for programs. form: as of
    `json.dumps`."""
    text = json.dumps(value, ensure_ascii=False, **form)
    return _HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

"""Text that an agent chose, so that people see all of it: nothing hides or changes direction. Pure."""

from __future__ import annotations

import unicodedata

# Letters that change the direction of what follows or stand for nothing (UAX 9; the tag block hides text).
_HIDDEN = frozenset({"Cf", "Cc", "Co", "Cs", "Cn", "Zl", "Zp"})


def shown(text: str) -> str:
    """`text` in one line, with what cannot be seen written as `\\\\u{...}`."""
    return "".join(_letter(letter) for letter in text)


def _letter(letter: str) -> str:
    if letter in "\n\t":
        return " "
    if unicodedata.category(letter) in _HIDDEN:
        return f"\\u{{{ord(letter):x}}}"
    return letter

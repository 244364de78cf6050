"""Takes secrets out of what is logged: those that this process holds, and what looks like one. Pure.

It knows nothing of where text comes from or goes. What is taken out is replaced by `[secret]`, so that a
reader sees that something was there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MARK = "[secret]"

# Characters that a learnt secret has at least: a shorter one is a word that stands in honest lines too.
SHORTEST = 8
# Of those that are stored among other values: tokens and keys have more, names of people and accounts less.
SHORTEST_STORED = 16
# Learnt values that are kept, the newest: tokens are renewed every few hours for weeks.
REMEMBERED = 4096
# Levels of a structure that are looked into; what lies deeper is left out.
DEPTH = 8

# What vendors' tokens look like, each by the prefix that its vendor documents so that scanners find it.
_TOKENS = (
    r"gh[oprsu]_[A-Za-z0-9]{20,255}",
    r"github_pat_[A-Za-z0-9_]{20,255}",
    r"glpat-[A-Za-z0-9_.-]{16,255}",
    r"sk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{16,512}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,255}",
    r"npm_[A-Za-z0-9]{30,255}",
    r"pypi-[A-Za-z0-9_-]{30,512}",
    r"AIza[A-Za-z0-9_-]{30,64}",
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",
    # JSON Web Token (RFC 7519): a header that begins with `{"`, and two further parts.
    r"eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{4,8192}\.[A-Za-z0-9_-]{4,1024}",
)
_SHAPES = re.compile(r"(?<![A-Za-z0-9])(?:" + "|".join(_TOKENS) + r")")
# RFC 7468; what was cut off before its end counts as well.
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
# The value of a header that carries one (RFC 9110, section 11.6.2; RFC 6265), to the end of line or quote.
_HEADERS = re.compile(
    r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|x-api-key|private-token)"
    r"([\"']?\s*[:=]\s*[\"']?)([^\r\n\"']+)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{8,}")
# RFC 3986, section 3.2.1: what stands before the host of an address.
_USERINFO = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,31}://)[^\s/@\"'<>]{1,512}@")
# A name that says that what follows is a secret: of a query, a form, a setting, JSON, the environment.
_NAME = (
    r"[A-Za-z0-9_.-]{0,64}(?:password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key"
    r"|credential|authorization|cookie)"
)
_NAMED = re.compile(rf"(?i)([?&;\s\"'{{,(]|\A)({_NAME}[\"']?\s*[=:]\s*[\"']?)([^\s\"'&;,)}}\]]{{6,}})")
_QUERY = re.compile(r"(?i)([?&](?:key|code|state|sig|signature)=)([^\s&\"'#]{6,})")
# What to look for, how to replace it, and words in small letters, of which one stands in all that is found:
# a line is searched for words many times as fast as for patterns.
_RULES: tuple[tuple[re.Pattern[str], str, tuple[str, ...]], ...] = (
    (_PEM, MARK, ("-----begin ",)),
    (
        _SHAPES,
        MARK,
        (
            *("gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "glpat-", "sk-", "xox", "npm_", "pypi-"),
            *("aiza", "akia", "asia", "eyj"),
        ),
    ),
    (_HEADERS, rf"\1\2{MARK}", ("authorization", "cookie", "x-api-key", "private-token")),
    (_BEARER, rf"\1\2{MARK}", ("bearer", "basic")),
    (_USERINFO, rf"\1{MARK}@", ("@",)),
    (
        _NAMED,
        rf"\1\2{MARK}",
        ("passw", "passphrase", "secret", "token", "key", "credential", "authorization", "cookie"),
    ),
    (_QUERY, rf"\1{MARK}", ("?", "&")),
)
# Names of fields whose value is never shown, whatever it is.
_FIELD = re.compile(rf"(?i){_NAME}\Z")


class Redactor:
    """What this process knows to be secret, and what looks so."""

    def __init__(self) -> None:
        # In the order of their learning, which a dict keeps.
        self._known: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None

    def learn(self, secret: str) -> None:
        """Take this value out of everything from now on. One of under 8 characters is not taken."""
        # A secret of several lines is logged line by line as often as whole.
        for part in {secret, *secret.splitlines()}:
            if len(part) >= SHORTEST:
                self._known.pop(part, None)
                self._known[part] = None
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        self._pattern = None

    def learn_stored(self, secret: bytes) -> None:
        """Learn what the host keeps sealed: a secret itself, or JSON with secrets among its values."""
        try:
            text = secret.decode("utf-8")
        except UnicodeDecodeError:
            return  # Raw bytes of a key, which no line of a log can hold.
        try:
            values = list(_strings(json.loads(text)))
        except ValueError:
            values = [text]
        for value in values:
            # An account's name or an address beside them is what people look for in a log.
            if len(value) >= SHORTEST_STORED and not value.startswith(("http:", "https:")):
                self.learn(value)

    def text(self, text: str) -> str:
        """`text` without secrets."""
        if self._known:
            text = self._learnt().sub(MARK, text)
        # Patterns that pass over case also find some letters beyond ASCII, like the long s: no word does.
        plain, small = text.isascii(), text.lower()
        for pattern, shown, words in _RULES:
            if plain:
                for word in words:
                    if word in small:
                        break
                else:
                    continue
            text = pattern.sub(shown, text)
        return text

    def value(self, value: Any, depth: int = DEPTH) -> Any:
        """A JSON-able value without secrets; text in keys too."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if depth == 0:
            return "..."
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): MARK
                if _FIELD.match(str(key)) and isinstance(held, str)
                else self.value(held, depth - 1)
                for key, held in value.items()
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.value(held, depth - 1) for held in value]
        return self.text(str(value))

    def knows(self, text: str) -> bool:
        """Whether a learnt secret stands in it."""
        return bool(self._known) and self._learnt().search(text) is not None

    def _learnt(self) -> re.Pattern[str]:
        if self._pattern is None:
            # The longest first: one secret may begin with another.
            longest = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest)))
        return self._pattern


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for held in value.values():
            yield from _strings(held)
    elif isinstance(value, list):
        for held in value:
            yield from _strings(held)

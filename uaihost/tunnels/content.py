"""What a response's head says about its body: whether deflate would make it smaller. Pure.

It knows content types and codings and nothing else. Where the head does not tell, the link tries
(`link.compression.Gain`).
"""

from __future__ import annotations

from collections.abc import Iterable

from uaihost.wire.frames import Header

# Types whose bytes are text or as loose as text (WebAssembly and the older fonts shrink by half).
_LOOSE = frozenset(
    {
        "application/ecmascript",
        "application/graphql",
        "application/javascript",
        "application/json",
        "application/jsonl",
        "application/ndjson",
        "application/rtf",
        "application/sql",
        "application/toml",
        "application/typescript",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/x-javascript",
        "application/x-ndjson",
        "application/x-sh",
        "application/x-www-form-urlencoded",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
        "font/otf",
        "font/sfnt",
        "font/ttf",
        "image/bmp",
        "image/svg+xml",
        "image/x-ms-bmp",
    }
)
_LOOSE_KINDS = frozenset({"text"})
_LOOSE_SUFFIXES = ("+json", "+xml", "+yaml")

# Types whose formats compress what is in them.
_DENSE = frozenset(
    {
        "application/epub+zip",
        "application/font-woff",
        "application/gzip",
        "application/java-archive",
        "application/ogg",
        "application/pdf",
        "application/vnd.android.package-archive",
        "application/vnd.rar",
        "application/x-7z-compressed",
        "application/x-brotli",
        "application/x-bzip2",
        "application/x-compress",
        "application/x-font-woff",
        "application/x-gzip",
        "application/x-rar-compressed",
        "application/x-xz",
        "application/zip",
        "application/zlib",
        "application/zstd",
        "font/woff",
        "font/woff2",
    }
)
_DENSE_KINDS = frozenset({"audio", "image", "video"})
_DENSE_SUFFIXES = ("+gzip", "+zip", "+zstd")
_DENSE_FAMILIES = ("application/vnd.openxmlformats-officedocument.", "application/vnd.oasis.opendocument.")

# Of the kinds above, types that may be plain or packed inside, or are samples as they came.
_OPEN = frozenset(
    {
        "audio/l16",
        "audio/wav",
        "audio/x-wav",
        "image/tiff",
        "image/vnd.microsoft.icon",
        "image/x-icon",
    }
)


def gains(headers: Iterable[Header]) -> bool | None:
    """Whether a body with these headers is worth compressing on its way; None: they do not say."""
    types = set()
    for name, value in headers:
        match name.lower():
            case "content-encoding" if _coded(value):
                return False
            case "content-type":
                types.add(value.partition(";")[0].strip().lower())
    # Two that differ say nothing.
    return _of_type(types.pop()) if len(types) == 1 else None


def _coded(value: str) -> bool:
    """Whether a Content-Encoding names any coding (RFC 9110, section 8.4)."""
    return any(coding.strip().lower() not in ("", "identity") for coding in value.split(","))


def _of_type(media: str) -> bool | None:
    kind, slash, _ = media.partition("/")
    if not slash or media in _OPEN:
        return None
    if media in _LOOSE or kind in _LOOSE_KINDS or media.endswith(_LOOSE_SUFFIXES):
        return True
    if (
        media in _DENSE
        or kind in _DENSE_KINDS
        or media.endswith(_DENSE_SUFFIXES)
        or media.startswith(_DENSE_FAMILIES)
    ):
        return False
    return None

"""Whole HTTP answers made without a framework: the errors of front and tunnels. Pure.

A browser gets a small page, every other program plain text; both say what failed and what to do.
"""

from __future__ import annotations

from html import escape
from http import HTTPStatus

# Nothing may be loaded or run by such a page; the style is part of it.
_HEADERS = (
    "Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
)

# Seconds until a browser asks again by itself: a server that starts, or a task that is woken, takes a few.
AGAIN = 3

_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.6 system-ui,sans-serif;margin:0;display:grid;"
    "min-height:100vh;place-items:center;background:Canvas;color:CanvasText}main{max-width:34rem;"
    "padding:2rem}p{margin:.6rem 0}h1{font-size:1.35rem;margin:0 0 .6rem}"
    ".code{font:13px ui-monospace,monospace;opacity:.65}"
)


def error(status: int, message: str, advice: str, *, html: bool) -> bytes:
    """A complete HTTP/1.1 response that ends its connection.

    Args:
        status: 400 to 599.
        message: what failed; advice: what to do. Both are text and are escaped here.
        html: whether the client reads pages.
    """
    phrase = reason(status)
    kind = "text/html" if html else "text/plain"
    text = page(phrase, status, message, advice) if html else f"{status} {phrase}: {message}\n{advice}\n"
    body = text.encode("utf-8")
    again = f"Refresh: {AGAIN}\r\n" if html and status in (502, 503) else ""
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {kind}; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{again}{_HEADERS}\r\n"
    )
    return head.encode("ascii") + body


def page(title: str, status: int, message: str, advice: str) -> str:
    """The HTML of an error."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style><main><h1>{escape(message)}</h1><p>{escape(advice)}</p>"
        f'<p class="code">{status} {escape(title)}</p></main></html>\n'
    )


def reason(status: int) -> str:
    """The phrase of a status; a general one for those that have none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def reads_pages(accept: str) -> bool:
    """Whether a client with this Accept header shows pages."""
    return "text/html" in accept.lower()


def sentence(text: str) -> str:
    """A host's message as a sentence of a page; of a bounded length."""
    text = text[:500].strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def advice(status: int) -> str:
    """What a person may do about a tunnel that failed with `status`."""
    if status == 503:
        return "A task that is started again is here in a moment: this page asks again by itself."
    if status == 502:
        return "Is the server in the task running on its port? This page asks again by itself."
    return "Reload this page; if that does not help, look at the task's page."

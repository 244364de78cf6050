"""Inputs made from valid ones: cut, doubled, joined, with what parsers stumble over put in."""

from __future__ import annotations

from random import Random

# What ends, folds, hides or counts in heads, chunks, frames and JSON.
MORSELS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"\r\n ", b"\r\n\t", b"\0", b" ", b"\t", b"\x0b", b"\x0c",
    b":", b": ",     b",", b";", b"=", b"+", b"-", b"0x", b"_", b"0", b"00", b"5", b"f",
    b"ffffffffffffffff", b"99999999999999999999",     b"chunked", b"identity",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: 6\r\n",     b"Connection: close\r\n", b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n",     b"\x80", b"\xff", b"\xc3",
    b"\xed\xa0\x80", b"\\u0000", b'"', b"{", b"[", b"]", b"}", b"null", b"1e999",
    b"[" * 600,     b"\x03\0\0\0\0\0\0\x01", b"\0\0\0\0", b"\xff\xff\xff\xff", b" " * 70, b"a" * 300,
]  # fmt: skip


def mutated(random: Random, seed: bytes, others: list[bytes]) -> bytes:
    """One to six changes to `seed`; parts may come of `others`."""
    data = bytearray(seed)
    for _ in range(random.randint(1, 6)):
        at = random.randint(0, len(data))
        end = min(len(data), at + random.choice((0, 1, 1, 2, 4, 16)))
        kind = random.randrange(7)
        if kind == 0:
            data[at:at] = random.choice(MORSELS)
        elif kind == 1:
            data[at:end] = random.choice(MORSELS)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end] * random.choice((1, 1, 2, 20))
        elif kind == 4 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif kind == 5:
            other = random.choice(others)
            begin = random.randint(0, len(other))
            data[at:end] = other[begin : begin + random.randint(0, 40)]
        else:
            del data[at:]
            data += random.choice(others)[-random.randint(1, 60) :]
    return bytes(data)


def pieces(random: Random, data: bytes) -> list[bytes]:
    """`data` cut anywhere, sometimes into single bytes."""
    found: list[bytes] = []
    at = 0
    most = random.choice((1, 3, 10, 100))
    while at < len(data):
        size = random.randint(1, most)
        found.append(data[at : at + size])
        at += size
    return found

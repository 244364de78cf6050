"""What is too large, too deep, too many, damaged, or never ends."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import zlib
from collections.abc import Iterator

from uaihost.test.integration.hostile.cases import Case, Rig

_GIB = 1 << 30


def sparse_file(rig: Rig) -> None:
    # Saving reads all of it: four times what git may hold is as much as a hundred times.
    with rig.write("gigantic", b"x").open("r+b") as file:
        file.truncate(2 * _GIB)


def sparse_git_files(rig: Rig) -> None:
    for name in ("HEAD.lock", "MERGE_HEAD", "config", "info/exclude", "logs/HEAD", "index"):
        path = rig.git / name
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            file.truncate(10 * _GIB)


def sparse_packed_refs(rig: Rig) -> None:
    with (rig.git / "packed-refs").open("ab") as file:
        file.truncate(10 * _GIB)


def sparse_rules(rig: Rig) -> None:
    for name in ("sub/.gitignore", "sub/.gitattributes", ".gitmodules"):
        with rig.write(name, b"#").open("r+b") as file:
            file.truncate(10 * _GIB)


def sparse_pack(rig: Rig) -> None:
    folder = rig.git / "objects/pack"
    folder.mkdir(exist_ok=True)
    for ending in ("pack", "idx"):
        with (folder / f"pack-{'a' * 40}.{ending}").open("wb") as file:
            file.truncate(10 * _GIB)


def _zeros(size: int) -> Iterator[bytes]:
    for _ in range(size >> 20):
        yield bytes(1 << 20)


def bomb(rig: Rig) -> None:
    """2 GiB of zeros in 9 MB; a loose object, as `git add` would write it."""
    size = 2 * _GIB
    head = f"blob {size}".encode() + b"\0"
    digest, packer = hashlib.sha1(head), zlib.compressobj(1)
    data = [packer.compress(head)]
    for part in _zeros(size):
        digest.update(part)
        data.append(packer.compress(part))
    oid = rig.put(digest.hexdigest(), b"".join([*data, packer.flush()]))
    rig.commit(rig.tree([*rig.top(), ("100644", b"zeros", oid)]))


def lying_size(rig: Rig) -> None:
    data = b"blob 1099511627776\0tiny"
    oid = rig.put(hashlib.sha1(data).hexdigest(), zlib.compress(data))
    rig.commit(rig.tree([*rig.top(), ("100644", b"zz", oid)]))


def git_bomb(rig: Rig) -> None:
    """Ten trees, each with ten times the one before: ten thousand million files."""
    oid, mode = rig.blob(), "100644"
    for _ in range(10):
        oid = rig.tree([(mode, b"f%d" % number, oid) for number in range(10)])
        mode = "40000"
    rig.commit(rig.tree([*rig.top(), ("40000", b"zz", oid)]))


def deep_tree(rig: Rig) -> None:
    oid, mode = rig.blob(), "100644"
    for _ in range(5000):
        oid = rig.tree([(mode, b"d", oid)])
        mode = "40000"
    rig.commit(rig.tree([*rig.top(), ("40000", b"zz", oid)]))


def deep_folders(rig: Rig) -> None:
    """5,000 levels: further than a path can say (PATH_MAX)."""
    (rig.copy / "down").mkdir()
    here = os.open(rig.copy / "down", os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


def wide_tree(rig: Rig) -> None:
    blob = rig.blob()
    rig.commit(
        rig.tree(
            [*rig.top(), ("40000", b"zz", rig.tree([("100644", b"f%06d" % n, blob) for n in range(50_000)]))]
        )
    )


def _number(kind: int, size: int) -> bytes:
    """The head of an object in a pack (gitformat-pack(5))."""
    first, size = kind << 4 | size & 15, size >> 4
    out = []
    while size:
        out.append(first | 128)
        first, size = size & 127, size >> 7
    return bytes([*out, first])


def _varint(value: int) -> bytes:
    out = []
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def delta_bomb(rig: Rig) -> None:
    """A delta that copies 16 MiB 500 times; its name is none that it has."""
    unit = 0xFFFFFF
    base = b"blob %d\0" % unit + bytes(unit)
    base_oid = hashlib.sha1(base).digest()
    copy = bytes([0x80 | 0x70, 0xFF, 0xFF, 0xFF])
    delta = _varint(unit) + _varint(unit * 500) + copy * 500
    pack = b"PACK" + struct.pack(">2L", 2, 2)
    first = len(pack)
    pack += _number(3, unit) + zlib.compress(bytes(unit), 1)
    second = len(pack)
    pack += _number(7, len(delta)) + base_oid + zlib.compress(delta)
    pack += hashlib.sha1(pack).digest()
    lied = b"\xbb" * 20
    _write_pack(rig, pack, sorted([(base_oid, first), (lied, second)]))
    rig.commit(rig.tree([*rig.top(), ("100644", b"zz", lied.hex())]))


def delta_ring(rig: Rig) -> None:
    """Two deltas, each on the other."""
    one, two = b"\xaa" * 20, b"\xbb" * 20
    delta = zlib.compress(_varint(10) + _varint(10) + b"\x90\x0a")
    pack = b"PACK" + struct.pack(">2L", 2, 2)
    first = len(pack)
    pack += _number(7, 4) + two + delta
    second = len(pack)
    pack += _number(7, 4) + one + delta
    pack += hashlib.sha1(pack).digest()
    _write_pack(rig, pack, [(one, first), (two, second)])
    rig.commit(rig.tree([*rig.top(), ("100644", b"zz", one.hex())]))


def _write_pack(rig: Rig, pack: bytes, entries: list[tuple[bytes, int]]) -> None:
    """With an index of version 2 over (object, offset), in their order."""
    fan = b"".join(struct.pack(">L", sum(oid[0] <= byte for oid, _ in entries)) for byte in range(256))
    ends = [*sorted(offset for _, offset in entries)[1:], len(pack) - 20]
    sums = {
        offset: zlib.crc32(pack[offset:end])
        for offset, end in zip(sorted(o for _, o in entries), ends, strict=True)
    }
    index = b"\xfftOc" + struct.pack(">L", 2) + fan + b"".join(oid for oid, _ in entries)
    index += b"".join(struct.pack(">L", sums[offset]) for _, offset in entries)
    index += b"".join(struct.pack(">L", offset) for _, offset in entries) + pack[-20:]
    index += hashlib.sha1(index).digest()
    folder = rig.git / "objects/pack"
    folder.mkdir(exist_ok=True)
    (folder / f"pack-{pack[-20:].hex()}.pack").write_bytes(pack)
    (folder / f"pack-{pack[-20:].hex()}.idx").write_bytes(index)


def corrupt_packs(rig: Rig) -> None:
    folder = rig.git / "objects/pack"
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(
        (b"", b"PACK", b"PACK\0\0\0\2\xff\xff\xff\xff" + bytes(100), b"\xff" * 5000)
    ):
        (folder / f"pack-{number:040x}.pack").write_bytes(data)
        (folder / f"pack-{number:040x}.idx").write_bytes(b"\xfftOc\0\0\0\2" + b"\xff" * 1024 + data)


def torn_object(rig: Rig) -> None:
    oid = rig.blob("committed.txt")
    path = rig.git / "objects" / oid[:2] / oid[2:]
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])


def swapped_object(rig: Rig) -> None:
    """A file under the name of another one: what it holds is not what it is called."""
    oid = rig.blob("committed.txt")
    path = rig.git / "objects" / oid[:2] / oid[2:]
    path.unlink()
    path.write_bytes(zlib.compress(b"blob 5\0other"))


def pipes(rig: Rig) -> None:
    os.mkfifo(rig.copy / "pipe")
    (rig.copy / "sub").mkdir()
    for name in ("sub/.gitignore", "sub/.gitattributes", ".gitmodules"):
        os.mkfifo(rig.copy / name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(rig.copy / "socket"))


def pipes_in_git(rig: Rig) -> None:
    (rig.git / "objects/pack").mkdir(exist_ok=True)
    for name in (
        "MERGE_HEAD", "config", "index", "refs/heads/pipe", "logs/HEAD", "info/exclude", "shallow",
        f"objects/pack/pack-{'c' * 40}.pack", f"objects/pack/pack-{'c' * 40}.idx", f"objects/aa/{'c' * 38}",
    ):  # fmt: skip
        path = rig.git / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path)


def head_pipe(rig: Rig) -> None:
    (rig.git / "HEAD").unlink()
    os.mkfifo(rig.git / "HEAD")


def packed_refs_bomb(rig: Rig) -> None:
    head = rig.head
    (rig.git / "packed-refs").write_text("".join(f"{head} refs/heads/b{n}\n" for n in range(20_000)))


def slow_patterns(rig: Rig) -> None:
    rig.write("sub/.gitignore", ("*a" * 40 + "b\n") * 20 + ("**/" * 40 + "x\n") * 20)
    for number in range(20):
        rig.write(f"sub/{'a' * 200}{number}", "x\n")


def similar_files(rig: Rig) -> None:
    """600 files away and 600 similar ones there: each pair could be a rename."""
    old = [rig.loose("blob", b"%d\n" % n + b"line\n" * 400) for n in range(600)]
    new = [rig.loose("blob", b"line\n" * 400 + b"%d\n" % n) for n in range(600)]
    first = rig.commit(
        rig.tree(
            [*rig.top(), ("40000", b"zz", rig.tree([("100644", b"o%03d" % n, o) for n, o in enumerate(old)]))]
        )
    )
    rig.commit(
        rig.tree(
            [
                *(one for one in rig.top() if one[1] != b"zz"),
                ("40000", b"zz", rig.tree([("100644", b"p%03d" % n, o) for n, o in enumerate(new)])),
            ]
        ),
        first,
    )


def many_parents(rig: Rig) -> None:
    head = rig.head
    rig.commit(rig.run("rev-parse", "HEAD^{tree}"), *[head] * 50_000)


def long_line(rig: Rig) -> None:
    rig.write("one-line", b"a" * 900_000)
    rig.write("many-lines", b"\n" * 900_000)


def many_repositories(rig: Rig) -> None:
    for number in range(300):
        for name in ("refs", "objects"):
            (rig.copy / "many" / str(number) / ".git" / name).mkdir(parents=True)
        rig.write(f"many/{number}/.git/HEAD", "ref: refs/heads/main\n")
        rig.write(f"many/{number}/x", "x\n")


def loose_many(rig: Rig) -> None:
    folder = rig.git / "objects/ab"
    folder.mkdir(exist_ok=True)
    for number in range(20_000):
        (folder / f"{number:038x}").touch()


CASES = (
    Case(sparse_file, seconds=120.0),
    Case(sparse_git_files),
    Case(sparse_packed_refs, refused="packed-refs", head=False),
    Case(sparse_rules, refused="Out of memory", changed=True),
    Case(sparse_pack),
    Case(bomb, seconds=120.0),
    Case(lying_size, refused="", head=False),
    Case(git_bomb, refused=""),
    Case(deep_tree, refused=""),
    Case(deep_folders),
    Case(wide_tree),
    Case(delta_bomb, refused="", head=False),
    Case(delta_ring, refused="", head=False),
    Case(corrupt_packs),
    Case(torn_object, refused="", head=False),
    Case(swapped_object, refused="", head=False),
    Case(pipes, refused="named pipe", changed=True),
    Case(pipes_in_git),
    Case(head_pipe, head=False),
    Case(packed_refs_bomb, refused="more than", head=False),
    Case(slow_patterns, refused="patterns"),
    Case(similar_files),
    Case(many_parents),
    Case(long_line),
    Case(many_repositories, seconds=200.0),
    Case(loose_many),
)

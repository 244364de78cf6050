"""What git-fast-import(1) is told to make the tree of a work copy: a commit's, or that of the last look, with
what differs. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import attrs

from uaihost.workspaces.file_marks import Found, Mark


@attrs.frozen
class Entry:
    """A file as it was recorded. mark: None when it has to be read again."""

    mode: bytes
    oid: bytes
    mark: Mark | None

    def equals(self, other: Entry | None) -> bool:
        """Whether both are the same in a tree."""
        return other is not None and (self.mode, self.oid) == (other.mode, other.oid)


@attrs.frozen
class Recording:
    """What a look found. names: of files that are not as the index says, of which `gone` are not there;
    links, large: as in `Found` and `SeenTrees.look`; entries: what was recorded."""

    names: set[bytes] = attrs.field(factory=set)
    gone: set[bytes] = attrs.field(factory=set)
    links: dict[bytes, str] = attrs.field(factory=dict)
    large: dict[bytes, int] = attrs.field(factory=dict)
    entries: dict[bytes, Entry] = attrs.field(factory=dict)

    def follows(self, last: Recording) -> bool:
        """Whether no file went back to what the commit has, which is not known here."""
        return (
            last.names <= self.names
            and last.links.keys() <= self.links.keys()
            and last.large.keys() == self.large.keys()
        )


def write_script(
    form: str,
    start: str | None,
    last: Recording,
    again: bool,
    look: Recording,
    found: Found,
    converted: Mapping[bytes, tuple[bytes, bytes]],
) -> tuple[bytes, frozenset[bytes] | None]:
    """What git-fast-import(1) is told, and the names that it changes in the last tree, where it starts from
    that.

    form: of objects. start: the commit to start from, None for nothing; again: whether the tree of `last` is
    there to start from. look: what was found; its entries are filled in. converted: mode and object of files
    whose content is already there.
    """
    for name in found.same:
        look.entries[name] = last.entries[name]
    for name, one in found.read.items():
        mode, oid = converted.get(name) or (one.mode, _oid(one.data, form))
        look.entries[name] = Entry(mode, oid, one.mark)
    for name, (mode, oid) in converted.items():
        look.entries.setdefault(name, Entry(mode, oid, None))
    lines = [b"commit refs/looks/last\ncommitter a <a> 0 +0000\ndata 0\n"]
    gone, wanted = look.gone, look.entries
    changed: frozenset[bytes] | None = None
    if again and look.follows(last):
        lines.append(b"from refs/looks/last^0\n")
        # A name that was gone before may be a folder by now.
        gone = gone - last.gone | last.entries.keys() - look.entries.keys()
        wanted = {name: one for name, one in wanted.items() if not one.equals(last.entries.get(name))}
        moved = {name for name, oid in look.links.items() if last.links.get(name) != oid}
        changed = frozenset(gone.union(wanted, moved))
    elif start is not None:
        lines.append(b"from %s\n" % start.encode("ascii"))
    # Removals first: a link can stand where a folder of removed files was.
    lines += [b"D %s\n" % _quoted(name) for name in sorted(gone)]
    for name, entry in wanted.items():
        if name in found.read and name not in converted:
            data = found.read[name].data
            lines.append(b"M %s inline %s\ndata %d\n%s\n" % (entry.mode, _quoted(name), len(data), data))
        else:
            lines.append(b"M %s %s %s\n" % (entry.mode, entry.oid, _quoted(name)))
    lines += [b"M 160000 %s %s\n" % (oid.encode("ascii"), _quoted(name)) for name, oid in look.links.items()]
    lines.append(b'ls ""\ndone\n')
    return b"".join(lines), changed


def _oid(data: bytes, form: str) -> bytes:
    return hashlib.new(form, b"blob %d\0" % len(data) + data).hexdigest().encode("ascii")


def _quoted(name: bytes) -> bytes:
    """A path as git-fast-import(1) reads it."""
    return b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'

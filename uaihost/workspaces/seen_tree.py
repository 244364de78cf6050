"""The files of a work copy as a tree, for looking at them again and again: only what changed since the last
look is read.

What is kept between two looks is an index of the commit that is checked out, which tells git the files that
are as committed, and in memory the marks of the others (workspaces.file_marks). Either may be lost at any
time: then more is read. The trees lie in a repository of their own that borrows from the one that is saved
from, so that no look leaves anything there; it is thrown away when it has grown.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import attrs
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.workspaces.checkouts import all_of
from uaihost.workspaces.file_marks import (
    LINK_MODE,
    PROGRAM_MODE,
    YOUNG,
    Content,
    Found,
    drift,
    moment,
    read_files,
    young,
)
from uaihost.workspaces.indexes import entries
from uaihost.workspaces.places import Places
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.tree_script import Recording, write_script
from uaihost.workspaces.untrusted import stage_files
from uaihost.workspaces.working_tree import READ, add_converted, list_untracked, too_many

log = Logger()

# Files that git takes for changed and nobody has read yet: with more it is quicker to let git compare them
# all. The same for files that are as committed, but so young that git could miss their next change.
_MANY = 2000
# Work copies, and files of one, whose marks are kept: some 300 bytes a file.
_COPIES = 64
_FILES = 50_000
# Looks whose objects are kept; each that finds a change leaves a pack.
_LOOKS = 40
# Seconds that a clock may seem to go back by while it is read.
_BACK = 0.5
# What is thrown away anyway need not be on the disk, nor small.
_PASSING = ("fastimport.unpackLimit=1", "core.fsync=none", "core.compression=0", "pack.compression=0")
_ATTRIBUTES = b".gitattributes"
_TREE = re.compile(rb"040000 tree ([0-9a-f]+)\t")


@attrs.frozen
class Seen:
    """tree: its object; large: changed files that were left out for their size, with whether they are in the
    commit; since: the tree of the last time, and the files that are not as there, where that is known."""

    tree: str
    large: dict[bytes, bool]
    since: tuple[str, frozenset[bytes]] | None


@attrs.define
class _Memory:
    """What is known of a work copy.

    form: of its objects; head: the commit that was looked at; start: the commit whose files the index holds,
    None where no index can hold them; index: by what the index file is
    known again; drift: of the clock when the index was made; young: files whose change the index could miss;
    attributes: whether any file says how git is to convert content; said: what they say, where it is not as
    committed; last: what the last look found, and tree, what came of it, empty when that is no longer right.
    """

    form: str
    head: str | None
    start: str | None
    index: tuple[int, int, int]
    drift: float
    young: set[bytes]
    attributes: bool
    said: dict[bytes, tuple[bytes, bytes]] = attrs.field(factory=dict)
    last: Recording = attrs.field(factory=Recording)
    tree: str = ""
    looks: int = 0


class SeenTrees:
    """Records working trees; who calls holds the lock of the work copy.

    drift: see `file_marks.drift`.
    """

    def __init__(
        self, git: Git, trash: Trash, blocking: Blocking, drift: Callable[[], float] = drift
    ) -> None:
        self._git = git
        self._trash = trash
        self._blocking = blocking
        self._drift = drift
        self._memories: OrderedDict[Path, _Memory] = OrderedDict()

    def forget(self, place: Path) -> None:
        """What lies below the folder `place` is gone or was changed by others."""
        for own in [own for own in self._memories if own.is_relative_to(place)]:
            del self._memories[own]

    async def look(
        self, places: Places, head: str | None, staged: Iterable[bytes],
        links: Mapping[bytes, str], largest: int,
    ) -> Seen:  # fmt: skip
        """The files as they are now, ignored ones left out.

        staged: names in the copy's own index that `head` does not have; they may be ignored.
        links: the commits that repositories inside the copy are on, by their path. largest: bytes; larger
        changed files are named and not read.

        Raises:
            GitFailed: git cannot record them.
            HostError: `too_large`, too many files changed.
        """
        memory = self._memories.pop(places.own, None)
        try:
            found, memory = await self._look(places, head, staged, links, largest, memory)
        except GitFailed as failed:
            # Objects can be gone that this repository borrowed: all that it holds is made again.
            log.debug("a look at {path} begins anew: {why}", path=places.copy.name, why=failed.last_line)
            await self._blocking.call(self._trash.remove, places.seen)
            found, memory = await self._look(places, head, staged, links, largest, None)
        if len(memory.last.entries) <= _FILES:
            self._memories[places.own] = memory
            while len(self._memories) > _COPIES:
                self._memories.popitem(last=False)
        return found

    async def _look(
        self, places: Places, head: str | None, staged: Iterable[bytes],
        links: Mapping[bytes, str], largest: int, memory: _Memory | None,
    ) -> tuple[Seen, _Memory]:  # fmt: skip
        memory = await self._ready(places, head, memory)
        dirty, untracked = await self._listed(places)
        if len(dirty - memory.last.entries.keys()) > _MANY:
            memory = await self._anew(places, head)
            dirty, untracked = await self._listed(places)
        tracked = dirty | memory.young
        names = _outside(tracked.union(untracked, staged), links)
        tracked &= names
        now = await self._blocking.call(moment, places.own)
        said = await self._said(places, memory, names, now)
        marks = {name: entry.mark for name, entry in memory.last.entries.items() if entry.mark is not None}
        found = await self._blocking.call(
            read_files, places.tree, names.difference(said), marks, largest, now
        )
        unchanged = (
            not found.read
            and not found.left
            and found.same.union(said) == memory.last.entries.keys()
            and (names, found.large, links) == (memory.last.names, memory.last.large, memory.last.links)
        )
        before, since = memory.tree, None
        if not (unchanged and memory.tree):
            found.read.update(said)
            changed = await self._record(places, memory, names, tracked, links, found)
            since = None if changed is None else (before, changed)
        large = {name: name in tracked for name in found.large}
        return Seen(memory.tree, large, since), memory

    async def _said(
        self, places: Places, memory: _Memory, names: set[bytes], now: int
    ) -> dict[bytes, Content]:
        """The files that say how others are converted. They are always read; when one says something new,
        so are the others.
        """
        asked = {name for name in names if name.endswith(_ATTRIBUTES)}
        if not asked and not memory.said:
            return {}
        memory.attributes = True
        read = (await self._blocking.call(read_files, places.tree, asked, {}, None, now)).read
        said = {name: (one.mode, one.data) for name, one in read.items()}
        if said != memory.said:
            memory.last, memory.tree, memory.said = Recording(), "", said
        return read

    # ---- the index -------------------------------------------------------------------------------------

    async def _ready(self, places: Places, head: str | None, memory: _Memory | None) -> _Memory:
        index = places.seen / "index"
        if (
            memory is None
            or memory.index != _identity(index)
            or self._drift() < memory.drift - _BACK
            or len(memory.young) > _MANY
            or memory.looks > _LOOKS
        ):
            return await self._anew(places, head)
        if memory.head != head:
            try:
                await self._start(places, head, reset=True)
            except GitFailed:
                return await self._anew(places, head)
            memory.head, memory.start, memory.tree = head, head, ""
            memory.index = _identity(index)
            if not memory.attributes and await self._has_attributes(places):
                memory.attributes = True
            if memory.attributes:
                memory.last = Recording()
        return memory

    async def _anew(self, places: Places, head: str | None) -> _Memory:
        """Let git compare every file with `head`."""
        await self._blocking.call(self._trash.remove, places.seen)
        form = await self._git.line("rev-parse", "--show-object-format", git_dir=places.repo)
        await self._git.run(
            "init", "--quiet", "--bare", "--template=", f"--object-format={form}", "--",
            operands=[str(places.seen)],
        )  # fmt: skip
        (places.seen / "objects" / "info").mkdir(exist_ok=True)
        (places.seen / "objects" / "info" / "alternates").write_bytes(
            os.fsencode(places.repo / "objects") + b"\n"
        )
        clock = self._drift()
        now = await self._blocking.call(moment, places.own)
        try:
            await self._start(places, head, reset=False)
            start = head
        except GitFailed:
            # Names that no index can hold: then all is read.
            await self._start(places, None, reset=False)
            start = None
        await self._git.run(
            "update-index", "-q", "--refresh", "--ignore-submodules",
            git_dir=places.seen, work_tree=places.tree, fine=(0, 1),
        )  # fmt: skip
        index = places.seen / "index"
        listed = await self._git.run("ls-files", "--cached", "-z", git_dir=places.seen)
        names = listed.out.split(b"\0")[:-1]
        recent = await self._blocking.call(young, places.tree, names, now - YOUNG)
        # git reads again what is as young as the index.
        os.utime(index, ns=(now, now))
        return _Memory(form, head, start, _identity(index), clock, recent, _attributes(names))

    async def _start(self, places: Places, head: str | None, *, reset: bool) -> None:
        index = places.seen / "index"
        time = index.stat().st_mtime_ns if reset else None
        if head is None:
            await self._git.run("read-tree", "--empty", git_dir=places.seen)
        else:
            words = ("--reset", "-i") if reset else ()
            await self._git.run("read-tree", *words, git_dir=places.seen, operands=[head])
        if time is not None:
            os.utime(index, ns=(time, time))

    async def _has_attributes(self, places: Places) -> bool:
        listed = await self._git.run("ls-files", "--cached", "-z", git_dir=places.seen)
        return _attributes(listed.out.split(b"\0"))

    async def _listed(self, places: Places) -> tuple[set[bytes], set[bytes]]:
        """Names that differ from the index, without reading them; and those that are not in it."""
        dirty, others = await all_of(
            self._git.run(
                "diff-files", "--name-only", "-z", "--ignore-submodules=all", "--no-ext-diff",
                "--no-textconv", git_dir=places.seen, work_tree=places.tree,
            ),
            list_untracked(self._git, places.seen, places.tree, places.seen / "index"),
        )  # fmt: skip
        if dirty.truncated:
            raise too_many()
        return {name for name in dirty.out.split(b"\0") if name}, set(others)

    # ---- recording -------------------------------------------------------------------------------------

    async def _record(
        self, places: Places, memory: _Memory, names: set[bytes], tracked: set[bytes],
        links: Mapping[bytes, str], found: Found,
    ) -> frozenset[bytes] | None:  # fmt: skip
        """Make the tree: the commit's, with what differs. Returns the files that are not as in the last tree,
        where that is known.
        """
        gone = tracked.difference(found.here)
        converted: dict[bytes, tuple[bytes, bytes]] = {}
        if memory.attributes or found.left:
            converted = await self._converted(places, found, gone)
        look = Recording(names, gone, dict(links), found.large)
        again = bool(memory.tree)
        script, changed = await self._blocking.call(
            write_script, memory.form, memory.start, memory.last, again, look, found, converted
        )
        finished = await self._git.run(
            "fast-import", "--quiet", "--done", "--force", "--depth=0", git_dir=places.seen, stdin=script,
            settings=_PASSING, timeout=READ,
        )  # fmt: skip
        tree = _TREE.match(finished.out)
        if tree is None:
            raise GitFailed(("fast-import",), finished)
        memory.tree, memory.last = tree[1].decode("ascii"), look
        memory.looks += 1
        return changed

    async def _converted(
        self, places: Places, found: Found, gone: set[bytes]
    ) -> dict[bytes, tuple[bytes, bytes]]:
        """Mode and object of what git itself has to read, as attributes may say how."""
        above = os.fsencode(places.inside) + b"/" if places.inside else b""
        places.stage.mkdir(mode=0o700)
        stage = places.stage / places.inside
        index = places.seen / "index.look"
        try:
            linked = await self._blocking.call(
                stage_files, places.copy, [above + name for name in found.left], places.stage, None
            )
            await self._blocking.call(_stage, stage, found.read)
            await self._blocking.call(shutil.copyfile, places.seen / "index", index)
            names = [*found.read, *(name[len(above) :] for name in linked.names)]
            await add_converted(self._git, places.seen, stage, index, gone, names)
            listed = await self._git.run("ls-files", "--stage", "-z", git_dir=places.seen, index=index)
        finally:
            await self._blocking.call(self._trash.remove, places.stage)
            index.unlink(missing_ok=True)
        wanted = set(names)
        return {one.name: (one.mode, one.oid) for one in entries(listed.out) if one.name in wanted}


def _stage(stage: Path, files: Mapping[bytes, Content]) -> None:
    top = os.fsencode(stage)
    for name, one in files.items():
        path = top + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 (names are bytes)
        if one.mode == LINK_MODE:
            os.symlink(one.data, path)  # noqa: PTH211 (names are bytes)
            continue
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(one.data)
            os.fchmod(descriptor, 0o700 if one.mode == PROGRAM_MODE else 0o600)


def _identity(index: Path) -> tuple[int, int, int]:
    """Of an index that nobody else wrote since."""
    try:
        found = index.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_ctime_ns


def _attributes(names: Iterable[bytes]) -> bool:
    return any(name.endswith(_ATTRIBUTES) for name in names)


def _outside(names: set[bytes], links: Collection[bytes]) -> set[bytes]:
    """Those that are neither a repository of `links` nor in one."""
    if not links:
        return names
    inside = tuple(link + b"/" for link in links)
    return {name for name in names if name not in links and not name.startswith(inside)}

"""Writing a repository's `.git` without running git: a clone's files are few and simple, a process for each
setting is what takes time.

Blocking. Everything is given to the container's user; nobody else can see or change the folder yet.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import attrs

_OBJECT = re.compile(r"[0-9a-f]{38,62}\Z|pack-[0-9a-f]{40,64}\.(?:pack|idx|rev)\Z")
_ORIGIN = "refs/remotes/origin/"
# Characters of an object's name in repositories of the kind that git makes unless told otherwise.
_SHA1 = 40
# Repositories of ours lend to one another in three steps at most; a ring of them must come to an end.
_LENDERS = 100


@attrs.frozen
class Owner:
    """The container's user."""

    uid: int
    gid: int

    def give(self, path: Path | str) -> None:
        if os.geteuid() == 0:
            os.lchown(path, self.uid, self.gid)

    def give_all(self, top: Path) -> None:
        """`top` and everything in it."""
        if os.geteuid() != 0:
            return
        self.give(top)
        for directory, folders, files in os.walk(top):
            for name in (*folders, *files):
                self.give(f"{directory}/{name}")


@attrs.frozen
class Contents:
    """What a repository is to hold beside its objects.

    refs: names to objects. branch: the one that is checked out, None for a detached HEAD; commit: the one
    that is checked out. default: the remote's default branch. settings: `user.name` or
    `branch.<any>.remote` to value. url: for the log of what HEAD was.
    """

    refs: Mapping[str, str]
    branch: str | None
    commit: str
    default: str
    settings: Mapping[str, str]
    url: str
    who: str


def write(git_dir: Path, contents: Contents) -> None:
    """Make `git_dir` a repository without objects."""
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags", _ORIGIN, "info", "logs"):
        (git_dir / name).mkdir(parents=True)
    refs = dict(contents.refs)
    head = contents.commit
    moved = f"{'0' * len(head)} {head} {contents.who} {int(time.time())} +0000\tclone: from {contents.url}\n"
    logs = ["HEAD"]
    if contents.branch is not None:
        refs[f"refs/heads/{contents.branch}"] = head
        logs.append(f"refs/heads/{contents.branch}")
        head = f"ref: refs/heads/{contents.branch}"
    for name in logs:
        file = git_dir / "logs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_bytes(moved))
    (git_dir / "HEAD").write_bytes(_bytes(f"{head}\n"))
    (git_dir / _ORIGIN / "HEAD").write_bytes(_bytes(f"ref: {_ORIGIN}{contents.default}\n"))
    lines = sorted((_bytes(name), _bytes(oid)) for name, oid in refs.items())
    (git_dir / "packed-refs").write_bytes(
        b"# pack-refs with: sorted \n" + b"".join(oid + b" " + name + b"\n" for name, oid in lines)
    )
    (git_dir / "config").write_text("", encoding="ascii")
    core = {"core.repositoryformatversion": "0", "core.filemode": "true", "core.bare": "false"}
    if len(contents.commit) != _SHA1:
        core |= {"core.repositoryformatversion": "1", "extensions.objectformat": "sha256"}
    if (git_dir / "CoNfIg").exists():
        core["core.ignorecase"] = "true"
    configure(git_dir, {**core, "core.logallrefupdates": "true", **contents.settings})


def configure(git_dir: Path, settings: Mapping[str, str]) -> None:
    """Add settings. A name is `section.key` or `section.any text.key`, as git writes them."""
    with (git_dir / "config").open("ab") as file:
        last = ""
        for name, value in settings.items():
            head = _section(name)
            if head != last:
                file.write(_bytes(f"[{head}]\n"))
                last = head
            file.write(_bytes(f"\t{name.rpartition('.')[2]} = {_quoted(value)}\n"))


def copy_objects(source: Path, target: Path, owner: Owner) -> None:
    """A second file for every object file of the repository `source`, in the repository `target`."""
    for last in (False, True):
        try:
            for folder in sorted(_object_folders(source)):
                # An index goes after its pack.
                for file in sorted(folder.iterdir(), key=lambda found: found.suffix, reverse=True):
                    if _OBJECT.match(file.name):
                        _copy_into(file, target / "objects" / folder.name, owner)
            return
        except FileNotFoundError:
            # A repack that was told to give way may still be putting packs together.
            if last:
                raise


def _object_folders(repository: Path) -> list[Path]:
    found = (repository / "objects").iterdir()
    return [entry for entry in found if entry.name != "info" and entry.is_dir()]


def _copy_into(file: Path, folder: Path, owner: Owner) -> None:
    if not folder.exists():
        folder.mkdir()
        owner.give(folder)
    if not (folder / file.name).exists():
        _duplicate(file, folder / file.name)
        owner.give(folder / file.name)


def _duplicate(source: Path, target: Path) -> None:
    """A second file with the same content; on file systems that can, blocks are shared until written."""
    with source.open("rb") as file:
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        with os.fdopen(made, "wb") as copy:
            left = os.fstat(file.fileno()).st_size
            try:
                while left and (sent := os.copy_file_range(file.fileno(), made, left)):
                    left -= sent
            except (OSError, AttributeError):
                file.seek(0)
                copy.truncate(0)
                copy.seek(0)
                shutil.copyfileobj(file, copy, 1 << 20)


def alternates(*folders: Path) -> str:
    """GIT_ALTERNATE_OBJECT_DIRECTORIES for the objects of the repositories `folders`."""
    return ":".join(_quoted(str(folder / "objects")) for folder in folders)


def named_alternates(value: str) -> list[Path]:
    """The object folders that `alternates` named."""
    return [Path(re.sub(r"\\(.)", r"\1", found)) for found in re.findall(r'"((?:[^"\\]|\\.)*)"', value)]


def lenders(objects: Path) -> list[Path]:
    """The object folders that `objects`, of a repository of ours, borrows from, and those of these."""
    found: dict[Path, None] = {}
    asked = [objects]
    for folder in asked:
        try:
            lines = (folder / "info" / "alternates").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            continue
        for line in lines.split("\n"):
            lent = folder / line
            if line and lent not in found and len(found) < _LENDERS:
                found[lent] = None
                asked.append(lent)
    return list(found)


def _section(name: str) -> str:
    section, _, rest = name.partition(".")
    middle = rest.rpartition(".")[0]
    return f"{section} {_quoted(middle)}" if middle else section


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

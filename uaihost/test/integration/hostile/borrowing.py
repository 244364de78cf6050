"""Repositories and links that lead out of the work copy."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

from uaihost.test.integration.git_rig import git
from uaihost.test.integration.hostile.cases import Case, Rig


def git_link(rig: Rig) -> None:
    shutil.rmtree(rig.git)
    rig.git.symlink_to(rig.secret / "repo" / ".git")


def git_file(rig: Rig) -> None:
    shutil.rmtree(rig.git)
    rig.git.write_text(f"gitdir: {rig.secret}/repo/.git\n")


def git_missing(rig: Rig) -> None:
    shutil.rmtree(rig.git)


def common_dir(rig: Rig) -> None:
    (rig.git / "commondir").write_text(f"{rig.secret}/repo/.git\n")


def alternates(rig: Rig) -> None:
    (rig.git / "objects/info").mkdir(exist_ok=True)
    (rig.git / "objects/info/alternates").write_text(f"{rig.secret}/repo/.git/objects\n")
    _steal(rig)


def http_alternates(rig: Rig) -> None:
    (rig.git / "objects/info").mkdir(exist_ok=True)
    (rig.git / "objects/info/http-alternates").write_text(f"{rig.secret}/repo/.git/objects\n")
    _steal(rig)


def _steal(rig: Rig) -> None:
    (rig.git / "refs/heads/stolen").write_text(_stolen(rig) + "\n")


def _stolen(rig: Rig) -> str:
    return git(rig.secret / "repo", "rev-parse", "HEAD")


def refs_link(rig: Rig) -> None:
    (rig.git / "refs/heads/far").symlink_to(rig.secret / "repo/.git/refs/heads")
    (rig.git / "refs/heads/file").symlink_to(rig.secret / "file")


def objects_link(rig: Rig) -> None:
    _steal(rig)
    for folder in (rig.secret / "repo/.git/objects").iterdir():
        mine = rig.git / "objects" / folder.name
        if not mine.exists():
            mine.symlink_to(folder)


def object_links(rig: Rig) -> None:
    _steal(rig)
    for file in (rig.secret / "repo/.git/objects").glob("??/*"):
        mine = rig.git / "objects" / file.parent.name / file.name
        mine.parent.mkdir(exist_ok=True)
        if not mine.exists():
            mine.symlink_to(file)


def pack_link(rig: Rig) -> None:
    git(rig.secret / "repo", "repack", "-adq")
    _steal(rig)
    (rig.git / "objects/pack").mkdir(exist_ok=True)
    for file in (rig.secret / "repo/.git/objects/pack").iterdir():
        (rig.git / "objects/pack" / file.name).symlink_to(file)


def grafts(rig: Rig) -> None:
    (rig.git / "info").mkdir(exist_ok=True)
    (rig.git / "info/grafts").write_text(f"{rig.head}\n")


def replace_refs(rig: Rig) -> None:
    evil = rig.loose("blob", b"replaced\n")
    folder = rig.git / "refs/replace"
    folder.mkdir()
    (folder / rig.blob()).write_text(f"{evil}\n")
    (folder / rig.head).write_text(f"{rig.run('rev-parse', 'HEAD^')}\n")


def shallow(rig: Rig) -> None:
    (rig.git / "shallow").write_text(f"{rig.head}\n{'1' * 40}\n")


def core_worktree(rig: Rig) -> None:
    rig.set("[core]", " worktree = {secret}")


def core_bare(rig: Rig) -> None:
    rig.set("[core]", " bare = true")


def future_format(rig: Rig) -> None:
    rig.set(
        "[core]",
        " repositoryFormatVersion = 99",
        "[extensions]",
        " objectFormat = sha256",
        " refStorage = reftable",
    )


def index_link(rig: Rig) -> None:
    (rig.git / "index").unlink()
    (rig.git / "index").symlink_to(rig.secret / "repo/.git/index")


def head_link(rig: Rig) -> None:
    (rig.git / "HEAD").unlink()
    (rig.git / "HEAD").symlink_to(rig.secret / "repo/.git/HEAD")


def packed_refs_link(rig: Rig) -> None:
    git(rig.secret / "repo", "pack-refs", "--all")
    (rig.git / "packed-refs").unlink(missing_ok=True)
    (rig.git / "packed-refs").symlink_to(rig.secret / "repo/.git/packed-refs")


def state_links(rig: Rig) -> None:
    for name in ("MERGE_HEAD", "ORIG_HEAD", "logs/HEAD", "logs/refs/stash", "rebase-merge/orig-head"):
        path = rig.git / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(rig.secret / "file")


def index_outside(rig: Rig) -> None:
    outside = os.fsencode(rig.secret / "file")
    rig.index([(b"../../../../../secret/file", 0o100644), (b".git/config", 0o100644), (outside, 0o100644)])


def split_index(rig: Rig) -> None:
    rig.run("update-index", "--split-index")
    (shared,) = rig.git.glob("sharedindex.*")
    shared.unlink()
    shared.symlink_to(rig.secret / "repo/.git/index")


def sparse_index(rig: Rig) -> None:
    extension = b"sdir" + struct.pack(">L", 0)
    rig.index([(b"a.txt", 0o100644), (b"d/", 0o040000)], extension)


def unknown_extension(rig: Rig) -> None:
    rig.index([(b"a.txt", 0o100644)], b"zzzz" + struct.pack(">L", 4) + b"must")


def head_cycle(rig: Rig) -> None:
    (rig.git / "HEAD").write_text("ref: refs/heads/loop\n")
    (rig.git / "refs/heads/loop").write_text("ref: refs/heads/pool\n")
    (rig.git / "refs/heads/pool").write_text("ref: refs/heads/loop\n")


def _module(rig: Rig, url: str, name: str = "s", path: str = "s") -> None:
    inner = rig.copy / "s"
    inner.mkdir()
    git(inner, "init", "-q")
    git(inner, "commit", "-q", "--allow-empty", "-m", "inner")
    oid = git(inner, "rev-parse", "HEAD")
    shutil.rmtree(inner / ".git")
    text = f'[submodule "{name}"]\n\tpath = {path}\n\turl = {url}\n\tupdate = !{rig.trap}\n\tignore = none\n'
    rig.write(".gitmodules", text)
    rig.set(f'[submodule "{name}"]', f" url = {url}", " active = true", " update = !{trap}")
    rig.run("-c", "core.hooksPath=/dev/null", "update-index", "--add", "--cacheinfo", f"160000,{oid},s")
    rig.run("-c", "core.hooksPath=/dev/null", "add", ".gitmodules")


def module_ext(rig: Rig) -> None:
    _module(rig, f"ext::{rig.trap} %S")


def module_option(rig: Rig) -> None:
    _module(rig, f"-u{rig.trap}")


def module_ssh_option(rig: Rig) -> None:
    _module(rig, f"ssh://-oProxyCommand={rig.trap}/x")


def module_absolute(rig: Rig) -> None:
    _module(rig, str(rig.secret / "repo"))


def module_name(rig: Rig) -> None:
    _module(rig, "./x", name="../../hooks")
    (rig.git / "modules").mkdir(exist_ok=True)


def module_carriage_return(rig: Rig) -> None:
    _module(rig, "./x", path='"s\r"')


def modules_link(rig: Rig) -> None:
    (rig.copy / "m").symlink_to(rig.secret / "file")
    (rig.copy / ".gitmodules").symlink_to("m")


def modules_folder_link(rig: Rig) -> None:
    _module(rig, "./x")
    (rig.git / "modules").mkdir(exist_ok=True)
    (rig.git / "modules/s").symlink_to(rig.secret / "repo/.git")
    rig.write("s/.git", "gitdir: ../.git/modules/s\n")


def worktree_out(rig: Rig) -> None:
    folder = rig.git / "worktrees/w"
    folder.mkdir(parents=True)
    (folder / "gitdir").write_text(f"{rig.secret}/repo/.git\n")
    (folder / "commondir").write_text(f"{rig.secret}/repo/.git\n")
    (folder / "HEAD").symlink_to(rig.secret / "repo/.git/refs/heads/main")
    _linked(rig.git / "worktrees/x", rig.secret / "repo/.git")


def _linked(at: Path, to: Path) -> None:
    at.symlink_to(to)


def tree_links(rig: Rig) -> None:
    _linked(rig.copy / "file", rig.secret / "file")
    _linked(rig.copy / "folder", rig.secret)
    _linked(rig.copy / "up", Path("../../../../../secret"))
    _linked(rig.copy / "loop", Path("loop"))
    _linked(rig.copy / "procfs", Path("/proc/self/environ"))
    shutil.rmtree(rig.copy / "d")
    _linked(rig.copy / "d", rig.secret)


def rule_links(rig: Rig) -> None:
    for name in (".gitignore", ".gitattributes", ".mailmap", "sub/.gitignore"):
        path = rig.copy / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(rig.secret / "file")
    (rig.git / "info").mkdir(exist_ok=True)
    (rig.git / "info/exclude").unlink(missing_ok=True)
    _linked(rig.git / "info/exclude", rig.secret / "file")


def hard_links(rig: Rig) -> None:
    os.link(rig.copy / "new.txt", rig.copy / "second-name")
    os.link(rig.git / "config", rig.copy / "config-of-git")


CASES = (
    Case(git_link, refused="not a plain folder", head=False),
    Case(git_file, refused="not a plain folder", head=False),
    Case(git_missing, refused="missing", head=False),
    Case(common_dir, refused="borrows", head=False),
    Case(alternates, refused="borrows", head=False),
    Case(http_alternates, refused="not our ref"),
    Case(refs_link),
    Case(objects_link, refused="not our ref"),
    Case(object_links, refused="not our ref"),
    Case(pack_link, refused="not our ref"),
    Case(grafts),
    Case(replace_refs),
    Case(shallow),
    Case(core_worktree),
    Case(core_bare),
    Case(future_format),
    Case(index_link),
    Case(head_link, head=False),
    Case(packed_refs_link, refused="packed-refs", head=False),
    Case(state_links),
    Case(index_outside),
    Case(split_index),
    Case(sparse_index),
    Case(unknown_extension),
    Case(head_cycle, head=False),
    Case(module_ext),
    Case(module_option),
    Case(module_ssh_option),
    Case(module_absolute),
    Case(module_name),
    Case(module_carriage_return),
    Case(modules_link),
    Case(modules_folder_link),
    Case(worktree_out),
    Case(tree_links),
    Case(rule_links),
    Case(hard_links),
)

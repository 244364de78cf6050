"""Programs that a repository can have git run."""

from __future__ import annotations

import shutil

from uaihost.test.integration.git_rig import commit, git
from uaihost.test.integration.hostile.cases import Case, Rig

HOOKS = [
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "pre-commit",
    "pre-merge-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "pre-rebase",
    "post-checkout",
    "post-merge",
    "pre-push",
    "pre-receive",
    "update",
    "proc-receive",
    "post-receive",
    "post-update",
    "reference-transaction",
    "push-to-checkout",
    "pre-auto-gc",
    "post-rewrite",
    "fsmonitor-watchman",
    "post-index-change",
    "sendemail-validate",
]


def hooks(rig: Rig) -> None:
    (rig.git / "hooks").mkdir(exist_ok=True)
    for name in HOOKS:
        shutil.copy(rig.trap, rig.git / "hooks" / name)


def hooks_path(rig: Rig) -> None:
    for name in HOOKS:
        rig.write(f".husky/{name}", rig.trap.read_bytes()).chmod(0o755)
    rig.set("[core]", f" hooksPath = {rig.copy}/.husky")


def fsmonitor(rig: Rig) -> None:
    rig.set("[core]", " fsmonitor = {trap}", " fsmonitorHookVersion = 2", " untrackedCache = true")


def fsmonitor_index(rig: Rig) -> None:
    rig.run("update-index", "--fsmonitor")
    rig.set("[core]", " fsmonitor = {trap}")


def ssh_command(rig: Rig) -> None:
    rig.set(
        "[core]",
        " sshCommand = {trap}",
        '[remote "origin"]',
        " url = ssh://localhost/x",
        "[ssh]",
        " variant = simple",
    )


def git_proxy(rig: Rig) -> None:
    rig.set("[core]", " gitProxy = {trap}", '[remote "origin"]', " url = git://localhost/x")


def _filter(rig: Rig, *lines: str) -> None:
    rig.write(".gitattributes", "* filter=trap\n")
    (rig.git / "info").mkdir(exist_ok=True)
    (rig.git / "info" / "attributes").write_text("* filter=trap\n")
    rig.set('[filter "trap"]', *lines)


def filter_clean(rig: Rig) -> None:
    _filter(rig, " clean = {trap} %f", " required = true")


def filter_smudge(rig: Rig) -> None:
    _filter(rig, " smudge = {trap} %f", " required = true")


def filter_process(rig: Rig) -> None:
    _filter(rig, " process = {trap}", " required = true")


def _driver(rig: Rig, *lines: str) -> None:
    rig.write(".gitattributes", "* diff=trap merge=trap\n")
    rig.set(*lines)


def diff_external(rig: Rig) -> None:
    _driver(rig, "[diff]", " external = {trap}")


def diff_command(rig: Rig) -> None:
    _driver(rig, '[diff "trap"]', " command = {trap}")


def textconv(rig: Rig) -> None:
    _driver(rig, '[diff "trap"]', " textconv = {trap}", " cachetextconv = true", " binary = true")


def merge_driver(rig: Rig) -> None:
    _driver(rig, '[merge "trap"]', " driver = {trap} %O %A %B", "[merge]", " default = trap")


def aliases(rig: Rig) -> None:
    words = ("diff-tree", "fetch", "update-index", "ls-files", "read-tree", "rev-parse", "cat-file", "add")
    rig.set("[alias]", *(f" {word} = !{{trap}}" for word in words))


def include(rig: Rig) -> None:
    rig.write("evil.config", f"[core]\n fsmonitor = {rig.trap}\n sshCommand = {rig.trap}\n")
    rig.set("[include]", f" path = {rig.copy}/evil.config", " path = {secret}/file")


def include_if(rig: Rig) -> None:
    rig.write("evil.config", f"[core]\n fsmonitor = {rig.trap}\n")
    rig.set(
        *(
            line
            for where in ("gitdir:/", "gitdir:**", "onbranch:**", "hasconfig:remote.*.url:**")
            for line in (f'[includeIf "{where}"]', f" path = {rig.copy}/evil.config")
        )
    )


def pager(rig: Rig) -> None:
    rig.set(
        "[core]", " pager = {trap}", "[pager]", " diff-tree = {trap}", " log = true", " cat-file = {trap}"
    )


def editor(rig: Rig) -> None:
    rig.set("[core]", " editor = {trap}", " askPass = {trap}", "[sequence]", " editor = {trap}")


def gpg(rig: Rig) -> None:
    rig.set("[gpg]", " program = {trap}", '[gpg "ssh"]', " program = {trap}", " defaultKeyCommand = {trap}")
    rig.set("[commit]", " gpgSign = true", "[log]", " showSignature = true", "[tag]", " gpgSign = true")


def credential_helper(rig: Rig) -> None:
    rig.set(
        "[credential]",
        " helper = {trap}",
        ' helper = "!{trap}"',
        '[remote "origin"]',
        " url = https://localhost:1/x",
    )


def instead_of(rig: Rig) -> None:
    rig.set(
        '[url "ext::{trap} "]',
        " insteadOf = /",
        ' insteadOf = "file://"',
        " pushInsteadOf = /",
        "[protocol]",
        " allow = always",
    )


def ext_remote(rig: Rig) -> None:
    rig.set(
        '[protocol "ext"]', " allow = always", '[remote "origin"]', " url = ext::{trap} %S", " vcs = trap"
    )


def upload_pack(rig: Rig) -> None:
    rig.set(
        '[remote "origin"]',
        " uploadpack = {trap}",
        " receivepack = {trap}",
        ' [remote "."]',
        " uploadpack = {trap}",
    )


def pack_objects_hook(rig: Rig) -> None:
    rig.set("[uploadpack]", " packObjectsHook = {trap}", " allowFilter = true")


def alternate_refs_command(rig: Rig) -> None:
    rig.set("[core]", " alternateRefsCommand = {trap}")


def promisor(rig: Rig) -> None:
    oid = rig.blob("committed.txt")
    (rig.git / "objects" / oid[:2] / oid[2:]).unlink()
    rig.set(
        '[remote "origin"]',
        " url = ext::{trap} %S",
        " promisor = true",
        " partialCloneFilter = blob:none",
        "[extensions]",
        " partialClone = origin",
        "[core]",
        " repositoryFormatVersion = 1",
        "[protocol]",
        " allow = always",
    )


def promisor_pack(rig: Rig) -> None:
    promisor(rig)
    (rig.git / "objects" / "pack").mkdir(exist_ok=True)
    for file in (rig.git / "objects" / "pack").glob("*.pack"):
        file.with_suffix(".promisor").touch()


def worktree_config(rig: Rig) -> None:
    (rig.git / "config.worktree").write_text(
        f"[core]\n fsmonitor = {rig.trap}\n hooksPath = {rig.trap.parent}\n"
    )
    rig.set("[extensions]", " worktreeConfig = true", "[core]", " repositoryFormatVersion = 1")


def bundle_uri(rig: Rig) -> None:
    rig.set(
        "[fetch]",
        " bundleURI = file://{secret}/file",
        "[transfer]",
        " bundleURI = true",
        '[bundle "x"]',
        " uri = ext::{trap}",
    )


def other_commands(rig: Rig) -> None:
    rig.set(
        '[trailer "x"]',
        " command = {trap}",
        " cmd = {trap}",
        "[interactive]",
        " diffFilter = {trap}",
        '[difftool "x"]',
        " cmd = {trap}",
        '[mergetool "x"]',
        " cmd = {trap}",
        '[browser "x"]',
        " cmd = {trap}",
        "[sendemail]",
        " sendmailCmd = {trap}",
        '[guitool "x"]',
        " cmd = {trap}",
        "[help]",
        " autoCorrect = immediate",
        "[gc]",
        " auto = 1",
        " recentObjectsHook = {trap}",
        '[maintenance "x"]',
        " enabled = true",
        "[imap]",
        " tunnel = {trap}",
        "[man]",
        " viewer = x",
        '[man "x"]',
        " cmd = {trap}",
    )


def programs_in_the_copy(rig: Rig) -> None:
    for name in (
        "git",
        "ssh",
        "sh",
        "less",
        "gpg",
        "git-remote-file",
        "git-upload-pack",
        "git-diff-tree",
        "bin/git",
    ):
        rig.write(name, rig.trap.read_bytes()).chmod(0o755)
    rig.run("add", "-A")


def nested(rig: Rig) -> None:
    for name in ("nested", "nested/deeper"):
        inner = rig.copy / name
        inner.mkdir()
        git(inner, "init", "-q")
        commit(inner, "inner", in_txt=name)
        within = Rig(inner, rig.trap, rig.secret, rig.remote)
        for plant in (hooks, fsmonitor, filter_clean, diff_external, textconv, ssh_command, upload_pack):
            plant(within)
        within.write("in.txt", "changed\n")


def bare_inside(rig: Rig) -> None:
    inner = rig.copy / "bare"
    git(rig.copy, "init", "-q", "--bare", str(inner))
    with (inner / "config").open("a") as file:
        file.write(f"[core]\n fsmonitor = {rig.trap}\n worktree = {rig.copy}\n bare = false\n")
    shutil.copy(rig.trap, inner / "hooks" / "post-index-change")


CASES = (
    Case(hooks),
    Case(hooks_path),
    Case(fsmonitor),
    Case(fsmonitor_index),
    Case(ssh_command),
    Case(git_proxy),
    Case(filter_clean),
    Case(filter_smudge),
    Case(filter_process),
    Case(diff_external),
    Case(diff_command),
    Case(textconv),
    Case(merge_driver),
    Case(aliases),
    Case(include),
    Case(include_if),
    Case(pager),
    Case(editor),
    Case(gpg),
    Case(credential_helper),
    Case(instead_of),
    Case(ext_remote),
    Case(upload_pack),
    Case(pack_objects_hook),
    Case(alternate_refs_command),
    Case(promisor, refused="", head=False),
    Case(promisor_pack, refused="", head=False),
    Case(worktree_config),
    Case(bundle_uri),
    Case(other_commands),
    Case(programs_in_the_copy),
    Case(nested),
    Case(bare_inside),
)

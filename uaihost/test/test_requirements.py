"""What the package asks for, what the lock is made of and what the decision justifies is one list."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

TOP = Path(__file__).parents[2]


def wanted() -> set[str]:
    lines = (TOP / "requirements" / "runtime.in").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def installed() -> set[str]:
    """The names in setup.py's install_requires."""
    for node in ast.walk(ast.parse((TOP / "setup.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            return {re.split(r"[<>=]", text)[0] for text in ast.literal_eval(node.value)}
    raise AssertionError("setup.py has no install_requires")


def locked() -> set[str]:
    text = (TOP / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z0-9-]+(?:\[[a-z,]+\])?)==", text, re.M))


def imported() -> set[str]:
    """Top modules that the package's own code imports and that are neither its own nor Python's."""
    found = set()
    for path in (TOP / "uaihost").rglob("*.py"):
        if "test" in path.relative_to(TOP).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.append(node.module)
            found |= {name.partition(".")[0] for name in names}
    return found - set(sys.stdlib_module_names) - {"uaihost"}


# What brings a module, where that is not its name; the last ones are part of what they come with.
_MODULES = {
    "attr": "attrs",
    "zope": "zope.interface",
    "ulid": "python-ulid",
    "graphql": "graphql-core",
    "prometheus_client": "prometheus-client",
    "OpenSSL": "twisted",
    "service_identity": "twisted",
    "werkzeug": "klein",
    "requests": "docker",
}


class RequirementsTests(SynchronousTestCase):
    def test_the_package_asks_for_what_the_lock_is_made_of(self) -> None:
        self.assertEqual(installed(), wanted())

    def test_all_of_it_is_locked(self) -> None:
        plain = {name.partition("[")[0].replace(".", "-") for name in wanted()}
        self.assertEqual(plain - locked(), set())

    def test_all_of_it_is_justified(self) -> None:
        decision = (TOP / "docs" / "adr" / "0002-dependencies.md").read_text(encoding="utf-8")
        rows = {name for row in re.findall(r"^\| ([^|]+) \|", decision, re.M) for name in row.split(", ")}
        self.assertEqual(wanted() - rows, set())

    def test_what_is_imported_is_asked_for(self) -> None:
        names = {name.partition("[")[0] for name in wanted()}
        # An extra, imported only by those who chose it.
        names.add("keyring")
        self.assertEqual({_MODULES.get(name, name) for name in imported()} - names, set())

"""The catalogue of hostile work copies names the cases that are tried; one place alone runs git."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import TestCase

import uaihost
from uaihost.test.integration.hostile import CASES

ROOM = Path(uaihost.__file__).parent
CATALOGUE = ROOM.parent / "docs" / "hostile-git.md"
# Beside the one place: what makes an example for people, of files of our own. Programs of the container are
# not looked at.
ALLOWED = {"cli/demo.py"}
_STARTS = {"run", "Popen", "check_output", "check_call", "call", "system", "spawnProcess", "execvp", "execve"}


def starts_git(source: str) -> bool:
    """Whether a program has a call of what starts processes with git as its first word."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.List | ast.Tuple) and node.elts:
            first = node.elts[0]
            if (
                isinstance(first, ast.Constant)
                and first.value in ("git", "/usr/bin/git")
                and len(node.elts) > 1
            ):
                return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            words = [word.value for word in node.args if isinstance(word, ast.Constant)]
            if name in _STARTS and any(
                isinstance(word, str) and re.match(r"(/\S*/)?git(\s|\Z)", word) for word in words
            ):
                return True
    return False


class CatalogueTests(TestCase):
    def test_every_case_is_in_the_catalogue_and_every_line_is_a_case(self) -> None:
        listed = re.findall(r"^\| `(\w+)` \|", CATALOGUE.read_text(encoding="utf-8"), re.MULTILINE)
        self.assertEqual(listed, [case.name for case in CASES])
        self.assertEqual(len(listed), len(set(listed)))
        self.assertGreaterEqual(len(listed), 40)


class OnePlaceTests(TestCase):
    def test_the_scan_sees_what_it_looks_for(self) -> None:
        for text in ("run(['git', 'x'])", "subprocess.run('git x')", "argv = ('git', *words)"):
            self.assertTrue(starts_git(text), text)
        for text in ("git.run('fetch')", "x = 'git'", "run(['ssh', 'git'])", "say('git fetch')"):
            self.assertFalse(starts_git(text), text)

    def test_git_is_started_in_one_place(self) -> None:
        found = {
            str(path.relative_to(ROOM))
            for path in ROOM.rglob("*.py")
            if not {"test", "shim"} & set(path.relative_to(ROOM).parts)
            and starts_git(path.read_text(encoding="utf-8"))
        }
        self.assertEqual(found, ALLOWED)
        self.assertIn('"git"', (ROOM / "workspaces" / "safe_git.py").read_text(encoding="utf-8"))

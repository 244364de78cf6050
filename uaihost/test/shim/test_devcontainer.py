"""What uai-init takes of a devcontainer.json, and what it says of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from uaihost.shim import devcontainer
from uaihost.test.support import given, short_folder, strategies


class ReadTests(SynchronousTestCase):
    def read(self, text: str | bytes, name: str = ".devcontainer/devcontainer.json") -> dict[str, Any]:
        path = short_folder(self) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return devcontainer.read(path.parents[len(Path(name).parts) - 1])

    def test_comments_and_trailing_commas(self) -> None:
        text = """\ufeff{ // a "comment"
            "image": "http://x/*y*/", /* two
            lines, "quoted" */ "list": [1, 2, ],
            "postCreateCommand": "echo \\"a,]\\" // b",
        }"""
        self.assertEqual(
            self.read(text),
            {"image": "http://x/*y*/", "list": [1, 2], "postCreateCommand": 'echo "a,]" // b'},
        )

    def test_the_other_place(self) -> None:
        self.assertEqual(self.read("{}", ".devcontainer.json"), {})
        self.assertEqual(self.read('{"a": 1}', ".devcontainer.json"), {"a": 1})
        self.assertEqual(devcontainer.read(short_folder(self)), {})

    def test_what_is_no_settings_file_names_itself(self) -> None:
        for text in ("", "[]", "{", '{"a": "', "/*", b"\xff\xfe", "[" * 100000, " " * (1 << 20) + "{}"):
            error = self.assertRaises(ValueError, self.read, text)
            self.assertIn("devcontainer.json cannot be read", str(error))

    @given(
        strategies.recursive(
            strategies.none() | strategies.booleans() | strategies.text(),
            lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
        )
    )
    def test_plain_json_is_read_as_it_is(self, value: Any) -> None:
        self.assertEqual(self.read(json.dumps({"x": value})), {"x": value})

    def test_commands(self) -> None:
        for value, expected in (
            ("make all", [["sh", "-c", "make all"]]),
            (["make", "all"], [["make", "all"]]),
            ({"a": "one", "b": ["two", "2"]}, [["sh", "-c", "one"], ["two", "2"]]),
            ({}, []),
        ):
            self.assertEqual(devcontainer.commands(value), expected)
        for wrong in (None, 5, [], [1], {"a": 1}, {"a": {"b": "c"}}):
            self.assertRaises(ValueError, devcontainer.commands, wrong)


class SettingsTests(SynchronousTestCase):
    def settings(self, **values: Any) -> devcontainer.Devcontainer:
        return devcontainer.Devcontainer(values, Path("/workspace/web"), {"PATH": "/bin", "EMPTY": ""})

    def test_variables(self) -> None:
        found = self.settings(
            containerEnv={"A": "1", "B": "${containerEnv:PATH}:/x", "C": "${containerEnv:NO:else}"},
            remoteEnv={
                "A": "2",
                "D": None,
                "E": "${containerWorkspaceFolder} ${localWorkspaceFolderBasename}",
            },
        )
        self.assertEqual(
            found.variables, {"A": "2", "B": "/bin:/x", "C": "else", "D": None, "E": "/workspace/web web"}
        )
        self.assertEqual(found.told, [])

    def test_what_is_the_hosts_is_empty_and_told(self) -> None:
        found = self.settings(
            remoteEnv={
                "A": "x${localEnv:SECRET}y",
                "B": "${localEnv:HOME:/h}",
                "C": "${localWorkspaceFolder}",
            },
            postCreateCommand="echo ${localEnv:USER} ${HOME} ${containerEnv:PATH}",
        )
        self.assertEqual(found.variables, {"A": "xy", "B": "/h", "C": ""})
        self.assertEqual(found.commands("postCreateCommand"), [["sh", "-c", "echo  ${HOME} /bin"]])
        (told,) = found.told
        self.assertIn("localEnv:SECRET, localEnv:HOME, localWorkspaceFolder, localEnv:USER", told)

    def test_what_is_no_variable_is_told(self) -> None:
        for wrong in ({"A-B": "1"}, {"A": 1}, {"A": "\0"}, {"": ""}, {"A": "x" * 40000}, [1], "x"):
            found = self.settings(containerEnv=wrong)
            self.assertEqual((found.variables, len(found.told)), ({}, 1), wrong)

    def test_ports(self) -> None:
        found = self.settings(
            forwardPorts=[
                3000,
                "localhost:5432",
                "127.0.0.1:80",
                3000,
                "db:5432",
                0,
                70000,
                True,
                None,
                "8\u0661",
            ],
            portsAttributes={"3000": {"label": "Web: App!"}, "5432": {"label": "..."}, "80": 5},
        )
        self.assertEqual(
            found.ports,
            [
                {"port": 3000, "name": "web-app"},
                {"port": 5432, "name": "port-5432"},
                {"port": 80, "name": "port-80"},
            ],
        )
        self.assertEqual(len(found.told), 6)
        self.assertEqual(self.settings(forwardPorts={"a": 1}).ports, [])
        self.assertEqual(len(self.settings(forwardPorts=list(range(1, 100))).ports), devcontainer.PORT_LIMIT)

    def test_what_is_not_supported_is_named(self) -> None:
        found = self.settings(
            image="x", features={}, mounts=[], privileged=True, name="n", postStartCommand="x"
        )
        self.assertEqual(
            found.told, ["not supported in a task and left out: features, image, mounts, privileged"]
        )
        (told,) = self.settings(**{f"key{number}": 1 for number in range(100)}).told
        self.assertTrue(told.endswith("and 80 more"))

    def test_commands_are_taken_as_they_are_named(self) -> None:
        found = self.settings(onCreateCommand=["a", "${containerWorkspaceFolder}/b"], postStartCommand=5)
        self.assertTrue(found.has("onCreateCommand"))
        self.assertFalse(found.has("postCreateCommand"))
        self.assertEqual(found.commands("onCreateCommand"), [["a", "/workspace/web/b"]])
        self.assertRaises(ValueError, found.commands, "postStartCommand")

    @given(
        strategies.dictionaries(
            strategies.sampled_from(
                ["containerEnv", "remoteEnv", "forwardPorts", "portsAttributes", "onCreateCommand", "x"]
            ),
            strategies.recursive(
                strategies.none()
                | strategies.booleans()
                | strategies.integers()
                | strategies.text(max_size=9),
                lambda inner: (
                    strategies.lists(inner, max_size=4)
                    | strategies.dictionaries(strategies.text(max_size=9), inner, max_size=4)
                ),
                max_leaves=12,
            ),
        )
    )
    def test_whatever_it_holds_the_result_can_be_used(self, values: dict[str, Any]) -> None:
        found = self.settings(**values)
        json.dumps(found.ports)
        self.assertEqual([port for port in found.ports if not 1 <= port["port"] <= 65535], [])
        for name, value in found.variables.items():
            self.assertTrue(name.isidentifier() and name.isascii())
            self.assertTrue(value is None or "\0" not in value)
        self.assertEqual([line for line in found.told if not isinstance(line, str)], [])

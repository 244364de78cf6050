"""What images are made from: the digest, the build context, the pinned versions."""

from __future__ import annotations

import io
import re
import tarfile

from twisted.trial.unittest import TestCase

from uaihost.containers.image_inputs import Inputs, Versions, gather, read_versions
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import data_files
from uaihost.test.support import given, short_folder, strategies
from uaihost.wire.frames import Runtime

INPUTS = Inputs({"Dockerfile": (b"FROM x", False), "uai/init.py": (b"pass", False)}, {"DEV_UID": "1000"})

some = strategies.builds(
    Inputs,
    strategies.dictionaries(
        strategies.sampled_from(["Dockerfile", "uai/init.py", "certs/a.crt"]),
        strategies.tuples(strategies.binary(max_size=3), strategies.booleans()),
    ),
    strategies.dictionaries(strategies.sampled_from(["A", "B"]), strategies.text("01=", max_size=2)),
)


class InputsTests(TestCase):
    def test_every_input_changes_the_digest(self) -> None:
        files = dict(INPUTS.files)
        others = [
            INPUTS.digest("other base"),
            Inputs(files, {"DEV_UID": "1001"}).digest("base"),
            Inputs(files | {"Dockerfile": (b"FROM y", False)}, INPUTS.args).digest("base"),
            Inputs(files | {"Dockerfile": (b"FROM x", True)}, INPUTS.args).digest("base"),
            Inputs(files | {"certs/a.crt": (b"", False)}, INPUTS.args).digest("base"),
            Inputs({"Dockerfile": (b"FROM x", False)}, INPUTS.args).digest("base"),
        ]
        self.assertEqual(len({INPUTS.digest("base"), *others}), len(others) + 1)
        again = Inputs(dict(reversed(files.items())), INPUTS.args)
        self.assertEqual(INPUTS.digest("base"), again.digest("base"))

    @given(some, some, strategies.sampled_from(["x", "y"]), strategies.sampled_from(["x", "y"]))
    def test_digests_are_equal_when_all_inputs_are(self, one: Inputs, other: Inputs, a: str, b: str) -> None:
        self.assertEqual(one.digest(a) == other.digest(b), (one, a) == (other, b))

    def test_the_context_is_the_same_bytes_and_holds_the_files(self) -> None:
        again = Inputs(dict(reversed(list(INPUTS.files.items()))), INPUTS.args)
        self.assertEqual(INPUTS.context(), again.context())
        with tarfile.open(fileobj=io.BytesIO(INPUTS.context())) as tar:
            self.assertEqual(tar.getnames(), ["certs", "uai", "Dockerfile", "uai/init.py"])
            entry = tar.extractfile("Dockerfile")
            assert entry is not None
            self.assertEqual(entry.read(), b"FROM x")
            self.assertEqual({(m.mtime, m.uid, m.gid) for m in tar.getmembers()}, {(0, 0, 0)})

    def test_gather_reads_image_shim_and_authorities(self) -> None:
        root = short_folder(self)
        for name in (
            "image/Dockerfile",
            "image/README.md",
            "image/sub/run",
            "shim/init.py",
            "ca/co/a.crt",
            "image/versions.toml",
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("" if name.endswith("toml") else name)
        (root / "shim/notes.txt").write_text("not for the image")
        (root / "image/sub/run").chmod(0o755)
        found = gather(root / "image", root / "shim", root / "ca", 5, 6)
        self.assertEqual(set(found.files), {"Dockerfile", "sub/run", "uai/init.py", "certs/co-a.crt"})
        self.assertEqual(found.files["sub/run"], (b"image/sub/run", True))
        self.assertEqual(found.args, {"DEV_UID": "5", "DEV_GID": "6"})


class VersionsTests(TestCase):
    def read(self, text: str) -> Versions:
        root = short_folder(self)
        (root / "versions.toml").write_text(text)
        return read_versions(root)

    def test_tables_become_arguments_and_what_is_advertised(self) -> None:
        found = self.read(
            '[runtimes]\nnode = "24.1"\ncode-server = "4.1"\n[agents]\ncodex = "1"\n[debian]\npython = "3.11"'
        )
        self.assertEqual(
            found.args(), {"NODE_VERSION": "24.1", "CODE_SERVER_VERSION": "4.1", "CODEX_VERSION": "1"}
        )
        both = [Runtime("code-server", "4.1"), Runtime("node", "24.1")]
        self.assertEqual(found.advertised(default_base=False), both)
        self.assertEqual(found.advertised(default_base=True), [*both, Runtime("python", "3.11")])

    def test_no_file_pins_nothing(self) -> None:
        self.assertEqual(read_versions(short_folder(self)), Versions())

    def test_what_is_wrong_is_named(self) -> None:
        for text, named in (
            ("[runtimes", "TOML"),
            ('[tools]\nx = "1"', "'tools'"),
            ("[runtimes]\nnode = 24", "'node'"),
            ('[runtimes]\nnode = "24; rm"', "'node'"),
            ('[agents]\nCodex = "1"', "'Codex'"),
        ):
            error = self.assertRaises(HostError, self.read, text)
            self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
            self.assertIn(named, error.message)

    def test_the_shipped_ones_are_what_the_dockerfiles_ask_for(self) -> None:
        for kind in ("standard", "small"):
            folder = data_files("images") / kind
            asked = set(re.findall(r"^ARG (\w+_VERSION)$", (folder / "Dockerfile").read_text(), re.M))
            self.assertEqual(asked, set(read_versions(folder).args()))
            self.assertEqual(read_versions(folder).debian, {"python": "3.11"})

    def test_the_dockerfiles_are_for_both_builders(self) -> None:
        for kind in ("standard", "small"):
            text = (data_files("images") / kind / "Dockerfile").read_text()
            self.assertNotRegex(text, r"(?m)^RUN --|^COPY --chmod|^#\s*syntax|<<[A-Z'\"-]")

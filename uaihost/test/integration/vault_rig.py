"""A host whose work copies are saved, and looks into what was kept."""

from __future__ import annotations

import tarfile
from typing import Any

from uaihost.test.integration.git_rig import WorkspacesCase, git
from uaihost.workspaces.saving import Saved


class VaultCase(WorkspacesCase):
    async def save(self, task: str = "t1") -> Saved:
        (saved, *_) = await self.workspaces.save(task, ["app"])
        return saved

    def ref(self, name: str) -> str:
        return git(self.vault(), "rev-parse", "--verify", "--quiet", name, check=False)

    def show(self, spec: str) -> str:
        return git(self.vault(), "show", spec)

    def refs(self, below: str) -> dict[str, str]:
        listed = git(self.vault(), "for-each-ref", "--format=%(refname) %(objectname)", below)
        return dict(line.split(" ") for line in listed.splitlines())

    def beside(self, saved: Saved) -> dict[str, bytes | None]:
        """The files of the tar file with their content, folders with None."""
        assert saved.extra is not None
        with tarfile.open(saved.extra, errors="surrogateescape") as tar:
            found = {}
            for entry in tar:
                file = tar.extractfile(entry) if entry.isreg() else None
                found[entry.name] = None if file is None else file.read()
        return found

    def part(self, saved: Saved, path: str | None = None) -> dict[str, Any]:
        (found,) = [part for part in saved.parts if part["path"] == path]
        return found

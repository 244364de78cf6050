"""Who a commit says that made it, with the git of the task image: the owner, and the agent beside."""

from __future__ import annotations

import os

from uaihost.agents.co_authors import VARIABLE, co_author
from uaihost.containers.images import owner
from uaihost.interfaces import Launch, Mount
from uaihost.test.integration.engine import real_engine, standard_image
from uaihost.test.integration.git_rig import ANN, WorkspacesCase

CLAUDE = co_author("claude")
HOOKS = ("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit")


class CoAuthorTests(WorkspacesCase):
    timeout = 300

    uid, gid = owner()

    async def up(self, nobody: bool = False) -> None:
        """A task's container with a work copy in it."""
        work = self.tasks / "t1" / "work"
        work.mkdir(parents=True, exist_ok=True)
        work.chmod(0o755 if os.geteuid() == 0 else 0o555)
        mounts = (Mount(str(work), "/workspace"),)
        self.engine = await real_engine(self)
        image = await standard_image(self)
        await self.engine.launch(Launch("t1", image, self.uid, self.gid, mounts, (), network="none"))
        who = None if nobody else ANN
        await self.workspaces.prepare("t1", "app", str(self.remote), "fix/x", who, self.lines.append)

    async def typed(self, script: str, agent: str = "", status: int = 0) -> str:
        """What the script prints, typed by a person or by an agent."""
        argv = ["env", f"{VARIABLE}={agent}"] if agent else []
        ran = await self.engine.execute(
            "t1", [*argv, "bash", "-lc", f"set -e\n{script}"], cwd="/workspace/app"
        )
        self.assertEqual(ran.status, status, (script, ran.out, ran.err))
        return ran.out.decode().rstrip("\n")

    async def co_authors(self, of: str = "HEAD") -> list[str]:
        found = await self.typed(f"git log -1 --format='%(trailers:key=co-authored-by,valueonly)' {of}")
        return found.split("\n") if found else []

    async def test_an_agents_commits_name_it_once_and_peoples_do_not(self) -> None:
        await self.up()
        await self.typed("git commit -q --allow-empty -m one", CLAUDE)
        self.assertEqual(
            await self.typed("git log -1 --format='%an <%ae> %cn'"), f"{ANN.name} <{ANN.email}> {ANN.name}"
        )
        self.assertEqual(await self.co_authors(), [CLAUDE])
        for again in ("--amend --no-edit", "--amend -m other", "-n --amend --no-edit"):
            await self.typed(f"git commit -q --allow-empty {again}", CLAUDE)
            self.assertEqual(await self.co_authors(), [CLAUDE], again)
        own = "Claude Opus <noreply@anthropic.com>"
        await self.typed(f"git commit -q --allow-empty -m two -m 'Co-Authored-By: {own}'", CLAUDE)
        self.assertEqual(await self.co_authors(), [own])
        await self.typed("git commit -q --allow-empty -m three")
        self.assertEqual(await self.co_authors(), [])

    async def test_merges_aliases_and_editors_are_commits_too_and_moving_is_none(self) -> None:
        await self.up()
        await self.typed(
            "git checkout -qb side; echo s > s; git add s; git commit -qm side; git checkout -q fix/x"
        )
        await self.typed(
            "echo m > m; git add m; git commit -qm mine; git merge -q --no-ff -m merged side", CLAUDE
        )
        self.assertEqual(await self.typed("git log -1 --format=%s"), "merged")
        self.assertEqual(await self.co_authors(), [CLAUDE])
        await self.typed("git config alias.ci commit; git ci -q --allow-empty -m alias", CLAUDE)
        self.assertEqual(await self.co_authors(), [CLAUDE])
        await self.typed("EDITOR='sh -c \"echo edited > $1\" -' git commit -q --allow-empty", CLAUDE)
        self.assertEqual(await self.co_authors(), [CLAUDE])
        await self.typed("git commit -q --allow-empty", CLAUDE, status=1)
        await self.typed("git checkout -q side; echo t > t; git add t; git commit -qm person")
        await self.typed("git rebase -q fix/x", CLAUDE)
        moved = (await self.typed("git log -2 --format=%s"), await self.co_authors())
        self.assertEqual(moved, ("person\nedited", []))
        await self.typed("git checkout -qb third fix/x~1; git cherry-pick side", CLAUDE)
        self.assertEqual(
            (await self.typed("git log -1 --format=%s"), await self.co_authors()), ("person", [])
        )

    async def test_the_repositorys_own_hooks_go_on_working(self) -> None:
        await self.up()
        hook = "printf '#!/bin/sh\\necho %s >> ran\\n' $h > $at/$h; chmod +x $at/$h"
        write = f"for h in {' '.join(HOOKS)}; do {hook}; done"
        for at, settle in ((".git/hooks", "true"), (".husky", "git config core.hooksPath .husky")):
            await self.typed(f"at={at}; mkdir -p $at; {write}; {settle}")
            await self.typed(f"rm -f ran; git commit -q --allow-empty -m {at}", CLAUDE)
            self.assertEqual((await self.typed("cat ran")).split(), list(HOOKS))
            self.assertEqual(await self.co_authors(), [CLAUDE])
        self.assertEqual(await self.typed("git config core.hooksPath", CLAUDE), ".husky")
        await self.typed("printf '#!/bin/sh\\nexit 3\\n' > .husky/pre-commit")
        await self.typed("git commit -q --allow-empty -m refused", CLAUDE, status=1)
        self.assertEqual(await self.typed("git log -1 --format=%s"), ".husky")

    async def test_a_task_of_nobody_can_commit(self) -> None:
        await self.up(nobody=True)
        await self.typed("git commit -q --allow-empty -m one", CLAUDE)
        self.assertEqual(await self.typed("git log -1 --format='%an <%ae>'"), "uaihost <uaihost@localhost>")
        self.assertEqual(await self.co_authors(), [CLAUDE])

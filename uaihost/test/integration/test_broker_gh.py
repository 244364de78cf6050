"""Real gh in a real container: its own work goes by way of the host, and nobody else's does."""

from __future__ import annotations

import json

from uaihost.test.integration.test_broker import BrokerCase

# What agents ask for, and what stands in the answer.
WORK = (
    ("pr create --title T --body B", "/o/shop/pull/3"),
    ("pr view 3", "B"),
    ("pr view 2 --comments", ""),
    ("pr list", "PullRequest 2 of o/shop"),
    ("pr status", "Relevant pull requests in o/shop"),
    ("pr checks 2", "tests\tpass"),
    ("pr view 2 --json title,state,headRefName,statusCheckRollup", '"state":"OPEN"'),
    ("pr comment 2 --body hello", "/comment/1"),
    ("pr edit 2 --title Better", "/o/shop/pull/2"),
    ("pr review 2 --comment --body hm", ""),
    ("pr review 2 --request-changes --body no", ""),
    ("pr diff 2", ""),
    ("pr close 2", ""),
    ("issue close 1", ""),
    ("issue list", "Issue 1 of o/shop"),
    ("issue view 1", "words"),
    ("issue create --title I --body B", "/o/shop/issues/"),
    ("issue comment 1 --body hello", "/comment/1"),
    ("repo view", "all of o/shop"),
    ("run list", "ci"),
    ("run view 7", "ci"),
    ("api user", '"login": "ada"'),
    ("api repos/o/shop", "full_name"),
)


class GhTests(BrokerCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        await self.connect("ada")
        await self.task("t1", "ada", self.shop)
        await self.prints(f"git clone -q {self.shop} shop")
        # Where gh finds the other repository.
        self.elsewhere = "-R localhost/o/other"

    async def gh(self, words: str) -> str:
        return await self.prints(f"cd shop && gh {words}")

    async def no_gh(self, words: str) -> str:
        return await self.refused(f"cd shop && gh {words}")

    async def test_what_agents_do(self) -> None:
        await self.prints(
            "cd shop && git checkout -qb fix && git commit -qm two --allow-empty && git push -q -u origin fix"
        )
        for words, expected in WORK:
            self.assertIn(expected, await self.gh(words), words)
        pulls = self.forge.data["o/shop"]["lists"][1]
        self.assertEqual([one["title"] for one in pulls], ["Better", "T"])

    async def test_whatever_gh_can_show_of_the_repository(self) -> None:
        refused, asked = [], 0
        for kind in ("pr view 2", "issue view 1", "pr list", "issue list", "repo view"):
            # Without names gh lists those that there are.
            fields = (await self.no_gh(f"{kind} --json")).split("`--json`:")[1].split()
            each = f'for f in {" ".join(fields)}; do echo "{kind} $f: $(gh {kind} --json $f 2>&1)"; done'
            lines = (await self.prints(f"cd shop && {each}")).splitlines()
            refused += [line for line in lines if "may see" in line and line.startswith(kind)]
            asked += len(fields)
        # Every address of theirs, for whatever they do elsewhere.
        self.assertEqual({line.split()[2] for line in refused}, {"viewerPossibleCommitEmails:"})
        self.assertGreater(asked, 100)

    async def test_what_no_agent_does(self) -> None:
        await self.gh("pr view 2")
        for words in (
            f"pr view 2 {self.elsewhere}",
            f"pr list {self.elsewhere}",
            f"issue create {self.elsewhere} --title I --body B",
            f"repo view {self.elsewhere.removeprefix('-R ')}",
            "api repos/o/other",
            "api user/keys",
            "api repos/o/shop/keys",
            "api repos/o/shop/hooks",
            "api repos/o/shop/actions/secrets",
            "api -X DELETE repos/o/shop",
            "api -X PATCH repos/o/shop -f private=false",
            "api repos/o/shop/../other",
            "api -X PUT repos/o/shop/collaborators/eve",
            "api -X PUT repos/o/shop/pulls/2/merge",
            "repo delete o/shop --yes",
            "repo create mine --public",
            "secret list",
            "ssh-key list",
            "gist list",
            "pr merge 2 --merge",
            "pr review 2 --approve",
        ):
            said = await self.no_gh(words)
            self.assertNotIn("ghu_", said)
        asked = {path for _, _, path in self.forge.seen if path.startswith("/api/v3")}
        self.assertEqual(asked, set())
        bodies = json.dumps(self.forge.asked_graphql)
        self.assertNotIn("other", bodies)
        self.assertNotIn("mergePullRequest", bodies)
        refused = [line for line in await self.audit() if line["outcome"].startswith("refused")]
        self.assertGreater(len(refused), 10)

    async def test_a_redirect_does_not_lead_the_token_away(self) -> None:
        await self.no_gh("api repos/o/shop/contents/elsewhere")
        paths = {path for _, _, path in self.forge.seen if path.startswith("/api")}
        self.assertEqual(paths, {"/api/v3/repos/o/shop/contents/elsewhere"})

    async def test_tokens_are_not_in_the_process(self) -> None:
        shown = await self.prints("cd shop && GH_DEBUG=api gh api user 2>&1")
        self.assertIn('"login": "ada"', shown)
        self.assertNotIn("ghu_", shown)
        self.assertEqual(await self.gh("auth token"), "of-the-host\n")


class PublicTests(BrokerCase):
    """As at github.com, whose API has another place and of which gh asks more. Here the forge plays it."""

    github = "https://github.com"

    async def test_what_agents_do(self) -> None:
        run = self.forge.data["o/shop"]["rest"]["actions/runs/7"]
        run["jobs_url"] = "https://api.github.com/repos/o/shop/actions/runs/7/jobs"
        await self.proofs.tokens.connect_token("ada", self.forge.model.personal("ada"))
        await self.task("t1", "ada", "git@github.com:o/shop.git")
        await self.prints("git init -q -b fix shop && cd shop && git commit -qm one --allow-empty")
        await self.prints("cd shop && git remote add origin https://github.com/o/shop.git")
        for words, expected in WORK:
            words = words.replace("pr create", "pr create --head fix")
            self.assertIn(expected, await self.prints(f"cd shop && gh {words}"), words)
        self.assertIn("o/other is not a repository", await self.refused("gh pr list -R o/other"))
        paths = {path for _, _, path in self.forge.seen}
        self.assertEqual({path for path in paths if not path.startswith("/api/")}, set())

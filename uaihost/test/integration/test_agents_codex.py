"""Codex, the real program in a real container, against the scripted model."""

from __future__ import annotations

from uaihost.test.integration import agents_proofs
from uaihost.test.integration.agents_rig import agent
from uaihost.test.integration.test_agents_claude import hostile


class CodexTests(agents_proofs.Proofs):
    kind = "codex"

    def test_a_repositorys_own_settings_run_nothing(self) -> None:
        hostile(self.world)
        chat = self.world.task(agent("codex"), repository="hostile")
        self.nothing_ran(chat, "hostile")
        self.assertNotIn("planted", {each.model for each in self.world.api.asked})

"""Work copies that name programs: none of them runs on the host."""

from __future__ import annotations

from uaihost.test.integration.hostile.programs import CASES
from uaihost.test.integration.hostile.trial import HostileCase, holding


@holding(CASES)
class ProgramsTests(HostileCase):
    """One test for each case."""

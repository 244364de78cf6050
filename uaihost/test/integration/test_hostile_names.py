"""Work copies with names and contents that mislead: they are kept as they are and lead nowhere."""

from __future__ import annotations

from uaihost.test.integration.hostile.names import CASES
from uaihost.test.integration.hostile.trial import HostileCase, holding


@holding(CASES)
class NamesTests(HostileCase):
    """One test for each case."""

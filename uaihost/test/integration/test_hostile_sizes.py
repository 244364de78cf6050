"""Work copies that are too large, damaged or endless: the host stays up, in time and in memory."""

from __future__ import annotations

from uaihost.test.integration.hostile.sizes import CASES
from uaihost.test.integration.hostile.trial import HostileCase, holding


@holding(CASES)
class SizesTests(HostileCase):
    """One test for each case."""

"""Work copies that point elsewhere: nothing from there comes in."""

from __future__ import annotations

from uaihost.test.integration.hostile.borrowing import CASES
from uaihost.test.integration.hostile.trial import HostileCase, holding


@holding(CASES)
class BorrowingTests(HostileCase):
    """One test for each case."""

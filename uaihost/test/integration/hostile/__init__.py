"""What an agent can write into its work copy to hurt who reads it: one function plants each case.

`CASES` holds them all; docs/hostile-git.md says of each what it abuses, where that is documented and what the
host does. What is to hold of each is in hostile.trial.
"""

from __future__ import annotations

from uaihost.test.integration.hostile import borrowing, names, programs, sizes
from uaihost.test.integration.hostile.cases import Case, Rig

__all__ = ["CASES", "Case", "Rig"]

CASES: tuple[Case, ...] = (*programs.CASES, *borrowing.CASES, *names.CASES, *sizes.CASES)

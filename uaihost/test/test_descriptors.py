"""Raising the limit of open files."""

from __future__ import annotations

import json
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

# In a process of its own: a limit that was lowered cannot always be raised again.
PROGRAM = """
import json, resource, sys
from uaihost.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
print(json.dumps([raise_limit(), raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""


class DescriptorTests(SynchronousTestCase):
    def limits(self, soft: int, hard: int) -> list[int]:
        words = [sys.executable, "-c", PROGRAM, str(soft), str(hard)]
        done = subprocess.run(words, capture_output=True, check=True, text=True)
        found: list[int] = json.loads(done.stdout)
        return found

    def test_as_far_as_is_permitted(self) -> None:
        self.assertEqual(self.limits(256, 4096), [4096, 4096, 4096, 4096])

    def test_one_that_is_high_already_stays(self) -> None:
        self.assertEqual(self.limits(512, 512), [512, 512, 512, 512])

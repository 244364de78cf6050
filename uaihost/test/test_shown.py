"""Text of others does nothing to a terminal, and stays the same value for programs."""

from __future__ import annotations

import json
import unicodedata

from twisted.trial.unittest import SynchronousTestCase

from uaihost.shown import harmless, json_text
from uaihost.test.support import given, strategies

# Writes the clipboard; a title; answers as if typed; the same in one character of C1; bidi overrides.
ATTACKS = (
    "\x1b]52;c;cm0gLXJmIH4=\x07",
    "\x1b]0;title\x1b\\",
    "\x1b[6n",
    "\x9b2J",
    "ok\r\x1b[Kall is well",
    "if \u202e} \u2066// admin\u2069",
    "a\u2028b",
)


class ShownTests(SynchronousTestCase):
    def test_attacks(self) -> None:
        for attack in ATTACKS:
            for made in (harmless(attack), json_text({"name": attack})):
                bad = [one for one in made if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp")]
                self.assertEqual(bad, [], made)
            self.assertEqual(json.loads(json_text({"name": attack})), {"name": attack})

    def test_what_people_write_stays(self) -> None:
        # With a joiner, a variation selector, a soft tab, right-to-left letters and a no-break space.
        for text in ("Zürich", "a\tb\nc", "👩\u200d💻 ❤\ufe0f", "עברית", "1\u00a0000", "日本語"):
            self.assertEqual(harmless(text), text)
            self.assertIn(text.replace("\t", "\\t").replace("\n", "\\n"), json_text([text]))

    @given(strategies.text())
    def test_any_text(self, text: str) -> None:
        made = harmless(text)
        self.assertEqual(len(made), len(text))
        self.assertNotIn("\x1b", made)
        self.assertEqual(json.loads(json_text(text)), text)

"""What the page reads from texts and makes of numbers, in a real browser, beside the host's own reading."""

from __future__ import annotations

import json
from typing import Any

from uaihost.channel import routing
from uaihost.test.browser.browser import Browser
from uaihost.test.browser.test_crew_page import CrewCase

# Texts whose readers page and host must find alike.
TEXTS = (
    "@writer and @critic, look",
    "mail a@writer.org, x/@critic, (@critic)",
    "`@writer` says @critic",
    "```\n@writer\n``` @critic",
    "``` @writer",
    "@writer2 @Writer @critic-x",
    "\u00e9@writer @critic\u00e9 @nobody",
    "@critic @writer @critic",
    "nobody",
)


# Controls, spaces that are none, turns of direction, letters without ink.
HIDDEN = "\r\x00\x1b\x7f\x85\xa0\xad\u061c\u115f\u200b\u200d" + (
    "\u2028\u202e\u2066\u2800\u3000\u3164\ufeff\ufe0f\U000e0041"
)


class WordsTests(CrewCase):
    """The page reads texts as the host does; what it computes alone is checked where it runs."""

    async def words(self, browser: Browser, expression: str) -> Any:
        return await browser.do("run", f"import('/static/words.js').then((words) => {expression})")

    async def test_who_hears_is_what_the_host_says(self) -> None:
        browser = await self.crew("words")
        crew = ["writer", "critic"]
        for text in TEXTS:
            for partner in ("", "critic", "gone"):
                args = f"{json.dumps(text)}, {json.dumps(crew)}, {json.dumps(partner)}"
                found = await self.words(browser, f"words.hearers({args})")
                self.assertEqual(found, routing.route(text, crew, partner or None), (text, partner))
        verbs = await self.words(browser, "words.ORDERS.map(([verb]) => verb)")
        self.assertEqual(set(verbs) - set(routing.VERBS), set())
        self.assertEqual(await self.words(browser, "words.order('/status now')"), "status")
        self.assertEqual(await self.words(browser, "words.order('/usr/bin')"), "")

    async def test_nothing_hides_in_what_will_run(self) -> None:
        browser = await self.crew("hidden")
        for letter in HIDDEN:
            found = await self.words(browser, f"words.exactParts({json.dumps('a' + letter + 'b')})")
            self.assertEqual(found, [["a", False], [f"U+{ord(letter):04X}", True], ["b", False]])
        plain = "rm -rf '\u00e9\u4e2d' \t# \U0001f600\n"
        self.assertEqual(
            await self.words(browser, f"words.exactParts({json.dumps(plain)})"), [[plain, False]]
        )
        self.assertEqual(await self.words(browser, "words.exactParts('\\ud800')"), [["U+D800", True]])

    async def test_times_and_numbers(self) -> None:
        browser = await self.crew("numbers")
        found = await self.words(browser, "[40, 720, 10800, 518400, -5].map((s) => words.ahead(s * 1000, 0))")
        self.assertEqual(found, ["in 40 s", "in 12 min", "in 3 h", "in 6 days", "in 0 s"])
        found = await self.words(browser, "[999, 1000, 9999, 999499, 999500].map(words.tokens)")
        self.assertEqual(found, ["999", "1.0k", "10k", "999k", "1.0M"])
        found = await self.words(browser, "[0, 0.001, 1.5].map(words.dollars)")
        self.assertEqual(found, ["$0.00", "<$0.01", "$1.50"])

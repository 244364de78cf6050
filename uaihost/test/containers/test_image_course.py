"""How it stands with the image: what is said of it while it is built, found, or not."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.containers.image_course import LINES, ImageCourse
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing
from uaihost.wire.reasons import Reason


class CourseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(50)
        self.course = ImageCourse(self.clock)
        self.told: list[str | Doing] = []
        self.say = self.course.hearing(self.told.append)

    def building(self, percent: int | None = 10) -> None:
        self.say(Doing(Reason.IMAGE_BUILDING, "step 1 of 9", percent))

    def test_a_build_from_its_first_line_to_its_end(self) -> None:
        self.assertEqual(self.course.json()["state"], "unknown")
        self.building()
        self.say("Get:1 a package")
        self.clock.advance(5)
        self.building(40)
        found = self.course.json()
        self.assertEqual((found["state"], found["percent"], found["since"]), ("building", 40, 50_000))
        self.assertEqual((found["doing"], found["lines"]), ("step 1 of 9", ["Get:1 a package"]))
        self.assertEqual(len(self.told), 3, "who asked hears it too")
        self.course.made("uaihost/small:1")
        found = self.course.json()
        self.assertEqual(
            (found["state"], found["reference"], found["lines"]), ("present", "uaihost/small:1", [])
        )
        self.assertIsNone(found["doing"])

    def test_a_failure_keeps_the_last_lines(self) -> None:
        self.building()
        for number in range(LINES + 5):
            self.say(f"line {number}")
        self.course.failed(HostError(ErrorCode.UNAVAILABLE, "no space left"))
        found = self.course.json()
        self.assertEqual((found["state"], found["message"]), ("failed", "no space left"))
        self.assertEqual((len(found["lines"]), found["lines"][-1]), (LINES, f"line {LINES + 4}"))
        self.course.failed(ValueError("inner words"))
        self.assertNotIn("inner words", str(self.course.json()))

    def test_the_next_build_begins_with_no_lines(self) -> None:
        self.building()
        self.say("old")
        self.course.failed(HostError(ErrorCode.UNAVAILABLE, "x"))
        self.building()
        self.assertEqual(self.course.json()["lines"], [])

    def test_a_build_that_nobody_wants_any_more_is_no_failure(self) -> None:
        self.building()
        self.course.failed(CancelledError())
        self.assertEqual(self.course.json()["state"], "missing")
        self.course.made("a")
        self.course.failed(CancelledError())
        self.assertEqual(self.course.json()["state"], "present")

    def test_what_the_engine_has(self) -> None:
        self.course.seen(None)
        self.assertEqual(self.course.json()["state"], "missing")
        self.course.seen("a")
        self.assertEqual(self.course.json()["state"], "present")
        self.building()
        self.course.seen(None)
        self.assertEqual(self.course.json()["state"], "building", "a look does not end a build")
        self.course.failed(HostError(ErrorCode.UNAVAILABLE, "x"))
        self.course.seen(None)
        self.assertEqual(self.course.json()["state"], "failed", "that it is missing is known; why counts")

"""A run over one subject: inputs from its seeds, and from those that took a new way through it."""

from __future__ import annotations

from random import Random

from uaihost.test.fuzz.mutation import mutated, pieces
from uaihost.test.fuzz.subjects import Subject

# Bytes of an input that is mutated further; longer ones find nothing more and take their time.
LONGEST = 4096


class Finding(Exception):
    """An input on which something does not hold."""


def run(subject: Subject, inputs: int, seed: int) -> dict[str, int]:
    """How many inputs took which way.

    Raises:
        Finding: at the first input that made the subject raise.
    """
    random = Random(f"{subject.name} {seed}")
    corpus = list(subject.seeds)
    ways: dict[str, int] = {}
    for number in range(inputs):
        data = (
            corpus[number] if number < len(subject.seeds) else mutated(random, random.choice(corpus), corpus)
        )
        cut = pieces(random, data)
        try:
            way = subject.check(data, cut)
        except Exception as error:
            raise Finding(f"{subject.name}, input {number}: {error!r}\n{data!r}\nin {cut!r}") from error
        if way not in ways and len(data) <= LONGEST:
            corpus.append(data)
        ways[way] = ways.get(way, 0) + 1
    return ways

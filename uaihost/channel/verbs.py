"""What becomes of a message that is an order: what the channel says at once, and what it then does.

The words are channel.orders'; which messages are orders is channel.routing's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from uaihost.agents.session import Session
from uaihost.channel import orders
from uaihost.channel.books import Books, Requests
from uaihost.channel.routing import Slash
from uaihost.channel.transcript import Transcripts
from uaihost.errors import HostError
from uaihost.interfaces import Store
from uaihost.proofs import Recovery
from uaihost.state import channel as table

log = Logger()


@attrs.define
class Verbs:
    """One task's. crew: the ids of those who are here, in order; recovery: None where there is none."""

    task_id: str
    store: Store
    transcripts: Transcripts
    requests: Requests
    books: Books
    sessions: Mapping[str, Session]
    crew: Callable[[], Sequence[str]]
    recovery: Recovery | None

    async def replies(self, order: Slash) -> list[str]:
        """What the channel says at once."""
        unknown = [f"@{name}" for name in order.agents if name not in self.sessions]
        match order.verb:
            case "help":
                return [orders.HELP]
            case "status":
                return [await self._status()]
            case "rules":
                return [orders.rules(list(self.requests.rows.rules.values()))]
            case "ask":
                return await self._ask_again(order.agents)
            case "retry-gh" if self.recovery is None:
                return ["There is nothing to try again: this host keeps no connections to GitHub."]
            case "restart" | "retry" if not order.agents:
                return [f"Say whom: /{order.verb} @id"]
        return [f"No such agent here: {', '.join(unknown)}"] if unknown else []

    async def obey(self, order: Slash) -> None:
        """Do it, once the order is stored; what cannot be done is said."""
        if order.verb == "retry-gh" and self.recovery is not None:
            # It may take a minute, and nobody's word waits for it.
            trying = Deferred.fromCoroutine(self._recover(self.recovery))
            trying.addErrback(lambda failure: log.failure("GitHub was not tried again", failure))
        named = [self.sessions[name] for name in order.agents if name in self.sessions]
        if order.verb == "interrupt":
            for session in named if order.agents else list(self.sessions.values()):
                await session.interrupt()
        elif order.verb == "restart":
            for session in named:
                await session.restart()
        elif order.verb == "retry":
            for session in named:
                try:
                    await session.retry()
                except HostError as error:
                    await self.transcripts.note(self.task_id, error.message)

    async def _recover(self, recovery: Recovery) -> None:
        await self.transcripts.note(self.task_id, await recovery.retry(self.task_id))

    async def _status(self) -> str:
        waiting, used = await self.store.run(
            lambda db: (table.queue_lengths(db, self.task_id), table.usage(db, self.task_id))
        )
        crew = [(self.sessions[name].row, self.sessions[name].activity) for name in self.crew()]
        by_agent = {row.agent_id: row for row in used}
        return orders.status(crew, waiting, by_agent, self.books.spent, self.books.budgets)

    async def _ask_again(self, words: Sequence[str]) -> list[str]:
        tool, rules = " ".join(words), self.requests.rows.rules
        if tool not in rules:
            return [orders.rules(list(rules.values()))]
        await self.store.run(lambda db: table.remove_rule(db, self.task_id, tool))
        del rules[tool]
        return [f"From now on agents ask again before they use {tool}."]

"""Commands that wait for their result: sent again with the same id until the host has answered.

The host answers a repeated id from its record, so at-least-once here is once there (protocol, section 4).
A command is a row before it is sent, so it survives a restart of the bridge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.bridge import store
from uaihost.bridge.store import Pending
from uaihost.errors import ErrorCode, HostError
from uaihost.ids import new_id
from uaihost.interfaces import Store
from uaihost.wire import codec
from uaihost.wire.frames import Command

log = Logger()

Send = Callable[[bytes], None]


@attrs.define(eq=False)
class _Call:
    pending: Pending
    done: Deferred[Any] = attrs.field(factory=Deferred)
    # Somebody waits for `done`; nobody does for what an earlier run of the bridge asked.
    awaited: bool = False
    timer: IDelayedCall | None = None


class Calls:
    """Every command without a result, of all hosts.

    clock: for time-outs and the rows' times.
    """

    def __init__(self, database: Store, clock: IReactorTime) -> None:
        self._database = database
        self._clock = clock
        self._calls: dict[str, _Call] = {}
        self._senders: dict[str, Send] = {}

    async def load(self) -> None:
        """Take up what was pending when the bridge last ended."""
        for pending in await self._database.run(store.commands):
            self._calls[pending.id] = _Call(pending)

    def __len__(self) -> int:
        """How many have no result yet."""
        return len(self._calls)

    async def command(
        self,
        host_id: str,
        name: str,
        args: list[Any],
        timeout: float | None,
        task_id: str | None = None,
    ) -> Any:
        """Run a command on a host; its value.

        timeout: seconds; None waits for ever, over reconnects and, with `resume`, restarts.
        task_id: for which task `resume` finds it.

        Raises:
            HostError: the host's failure, or `timeout`.
        """
        at = int(self._clock.seconds() * 1000)
        pending = Pending(new_id(), host_id, name, args, task_id, at)
        await self._database.run(lambda db: store.add_command(db, pending))
        call = self._calls[pending.id] = _Call(pending)
        if host_id in self._senders:
            self._send(call)
        return await self._result(call, timeout)

    def resume(self, task_id: str, name: str) -> Deferred[Any] | None:
        """The value of a pending command that an earlier run of the bridge sent; None if there is none."""
        for call in self._calls.values():
            if call.pending.task_id == task_id and call.pending.name == name:
                return Deferred.fromCoroutine(self._result(call, None))
        return None

    def connected(self, host_id: str, send: Send) -> None:
        """A host is there: whatever it has not answered is sent again, oldest first."""
        self._senders[host_id] = send
        for call in list(self._calls.values()):
            if call.pending.host_id == host_id:
                self._send(call)

    def disconnected(self, host_id: str) -> None:
        """It is gone; its commands wait."""
        self._senders.pop(host_id, None)

    async def answered(self, host_id: str, command_id: str, result: Any) -> None:
        """A result arrived. A repeat, and the result of another host's command, are dropped."""
        call = self._calls.get(command_id)
        if call is None or call.pending.host_id != host_id:
            return
        await self._forget(call)
        if call.done.called:
            return
        if isinstance(result, dict) and result.get("ok") is True:
            call.done.callback(result.get("value"))
        elif not call.awaited:
            log.warn("{name} failed after a restart: {error}", name=call.pending.name, error=_failure(result))
        else:
            call.done.errback(_failure(result))

    async def _result(self, call: _Call, timeout: float | None) -> Any:
        call.awaited = True
        if timeout is not None:
            call.timer = self._clock.callLater(timeout, self._expired, call, timeout)
        try:
            return await call.done
        finally:
            if call.timer is not None and call.timer.active():
                call.timer.cancel()
            call.timer = None

    def _expired(self, call: _Call, timeout: float) -> None:
        if call.done.called:
            return
        gone = "" if call.pending.host_id in self._senders else "; the host is not connected"
        message = f"the host did not answer {call.pending.name} within {timeout:g} s{gone}; try again"
        call.done.errback(HostError(ErrorCode.TIMEOUT, message))
        Deferred.fromCoroutine(self._forget(call)).addErrback(_log, call.pending.name)

    async def _forget(self, call: _Call) -> None:
        if self._calls.pop(call.pending.id, None) is not None:
            await self._database.run(lambda db: store.remove_command(db, call.pending.id))

    def _send(self, call: _Call) -> None:
        pending = call.pending
        frame = Command(commandId=pending.id, command=pending.name, args=pending.args)
        self._senders[pending.host_id](codec.encode(frame))


# What `within` gives when time is up.
LATE = object()


async def within(
    clock: IReactorTime, work: Deferred[Any], seconds: float, failed: Callable[[HostError], None]
) -> Any:
    """The result of `work`, or LATE when it takes longer; it is not cancelled, and `failed` is told then."""
    gate: Deferred[Any] = Deferred()

    def done(result: Any) -> None:
        if not gate.called:
            gate.callback(result)
        elif isinstance(result, Failure):
            if isinstance(result.value, HostError):
                failed(result.value)
            else:
                log.failure("what nobody waits for any more failed", result)

    def late() -> None:
        if not gate.called:
            gate.callback(LATE)

    work.addBoth(done)
    timer = clock.callLater(seconds, late)
    try:
        return await gate
    finally:
        if timer.active():
            timer.cancel()


def object_of(value: Any) -> dict[str, Any]:
    """A command's value, which the protocol says is an object."""
    if not isinstance(value, dict):
        raise HostError(ErrorCode.INTERNAL, "the host answered with something that is no object")
    return value


def _failure(result: Any) -> HostError:
    """A failed result as an error; a result that is none counts as `internal`."""
    if not isinstance(result, dict):
        return HostError(ErrorCode.INTERNAL, "the host sent a result that is none")
    message = result.get("message")
    try:
        code = ErrorCode(str(result.get("code")))
    except ValueError:
        code = ErrorCode.INTERNAL
    return HostError(code, message if isinstance(message, str) and message else f"the host failed: {code}")


def _log(failure: Any, name: str) -> None:
    log.failure("the record of {name} could not be removed", failure, name=name)

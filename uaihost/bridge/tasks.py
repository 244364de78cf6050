"""The bridge's tasks: what is known of each, and the way of each from a wish to a task with a channel.

A task's `phase` is a row, so a restarted bridge goes on where it was: `up` (taskUp is out) -> `channel`
(channelEnsure) -> `prompt` (the first message) -> `ready`; `down` -> `gone`; `failed` can be tried again.
`exposed` tasks were made on their host and only shown here. It knows no HTTP.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.bridge import store
from uaihost.bridge.calls import LATE, Calls, object_of, within
from uaihost.bridge.feed import Feed, News
from uaihost.bridge.hosts import Hosts, spawn
from uaihost.bridge.names import KnownTask, editor_host, preview_host
from uaihost.bridge.new_task import NewTask, channel_of, task_up
from uaihost.bridge.store import Phase, TaskRecord
from uaihost.errors import ErrorCode, HostError
from uaihost.ids import new_id
from uaihost.interfaces import Store
from uaihost.wire.inputs import Decision
from uaihost.wire.reasons import Reason

log = Logger()

# Seconds that somebody who sends a word or takes a task down waits for the host; after it, it goes on alone.
MESSAGE_PATIENCE = 10.0
DOWN_PATIENCE = 110.0

# Seconds for what only reads, and for a decision or an interrupt.
READ_TIMEOUT = 60.0
ACT_TIMEOUT = 20.0

_WAY_UP: tuple[Phase, ...] = ("up", "channel", "prompt")


class Tasks:
    """Every task, in memory; each change is stored first.

    port: of the bridge, for the addresses of editors and previews.
    """

    def __init__(
        self, database: Store, feed: Feed, hosts: Hosts, calls: Calls, clock: IReactorTime, port: int
    ) -> None:
        self._database = database
        self._feed = feed
        self._hosts = hosts
        self._calls = calls
        self._clock = clock
        self._tasks: dict[str, TaskRecord] = {}
        self._labels: dict[str, str] = {}
        self._port = port

    async def load(self) -> None:
        """Take up what earlier runs left, and go on with it."""
        for record in await self._database.run(store.tasks):
            self._keep(record)
        for record in list(self._tasks.values()):
            if record.phase in _WAY_UP:
                spawn(self._bring_up(record.id), "a task could not be brought up")
            elif record.phase == "down":
                spawn(self._resume_down(record.id), "a task could not be taken down")

    # ---- what is known

    def get(self, task_id: str) -> TaskRecord:
        """
        Raises:
            HostError: `not_found`.
        """
        record = self._tasks.get(task_id)
        if record is None:
            message = f"there is no task {task_id[:64]!r}; it may be another bridge's"
            raise HostError(ErrorCode.NOT_FOUND, message)
        return record

    def by_label(self, label: str) -> KnownTask | None:
        """names.KnownTasks."""
        record = self._tasks.get(self._labels.get(label, ""))
        if record is None or record.phase == "gone":
            return None
        previews = frozenset(str(port.get("name")) for port in record.previews)
        return KnownTask(record.id, record.host_id, previews)

    def view(self) -> list[dict[str, Any]]:
        """Every task as the API shows it, newest first."""
        records = sorted(self._tasks.values(), key=lambda record: (record.created_at, record.id))
        return [self.view_of(record) for record in reversed(records)]

    def view_of(self, record: TaskRecord) -> dict[str, Any]:
        """One task as the API shows it."""
        task = (record.spec or {}).get("task", {})
        projects = (record.spec or {}).get("projects", [])
        # A parked task starts when its page is opened.
        parked = (record.waiting or {}).get("reason") == Reason.PARKED
        open_now = record.phase != "gone" and (record.status == "running" or parked)
        previews = [
            {**port, "url": f"http://{preview_host(record.id, str(port['name']), self._port)}/"}
            for port in record.previews
            if open_now and isinstance(port.get("name"), str)
        ]
        editor = f"http://{editor_host(record.id, self._port)}/" if record.has_editor and open_now else None
        return {
            "id": record.id,
            "hostId": record.host_id,
            "name": record.name,
            "status": record.status,
            "message": record.message,
            "waiting": record.waiting,
            "phase": record.phase,
            "ready": record.phase == "ready",
            "exposed": record.spec is None,
            "branch": task.get("branch"),
            "repoUrl": projects[0]["repoUrl"] if projects else None,
            "agents": [
                {key: agent.get(key) for key in ("id", "label", "kind", "model")}
                for agent in task.get("agents", [])
            ],
            "reviewerOrder": task.get("reviewerOrder", []),
            "previews": previews,
            "editorUrl": editor,
            "createdAt": record.created_at,
        }

    def changed(self, record: TaskRecord) -> None:
        """An event changed this record; it is stored already."""
        new = record.id not in self._tasks
        self._keep(record)
        if new and record.phase == "exposed":
            spawn(self._look_at(record), "an exposed task could not be looked at")

    # ---- what is asked for

    async def create(self, new: NewTask) -> TaskRecord:
        """Store the task and begin to bring it up; it is there whatever happens to it.

        Raises:
            HostError: `invalid_args`; `unavailable` when no host is connected.
        """
        host_id = self.choose_host(new.hostId)
        kinds = self._hosts.capabilities(host_id).get("agentKinds", [])
        task_id = new_id()
        up = task_up(new, task_id, host_id, [kind["kind"] for kind in kinds])
        record = TaskRecord(
            id=task_id,
            host_id=host_id,
            name=up.task.name,
            status="pending",
            message=None,
            phase="up",
            spec=msgspec.to_builtins(up),
            prompt=new.prompt.strip() or None,
            previews=[],
            has_editor=False,
            created_at=self._now(),
        )
        await self._database.run(lambda db: store.add_task(db, record))
        self._keep(record)
        spawn(self._bring_up(task_id), "a task could not be brought up")
        return record

    async def retry(self, task_id: str) -> TaskRecord:
        """Try a failed task again.

        Raises:
            HostError: `not_found`, or `conflict` when it did not fail.
        """
        record = self.get(task_id)
        if record.phase != "failed" or record.spec is None:
            raise HostError(ErrorCode.CONFLICT, "only a task that failed can be tried again")
        record = await self._change(task_id, phase="up", status="pending", message=None)
        spawn(self._bring_up(task_id), "a task could not be brought up")
        return record

    async def deliver(self, task_id: str, author: str, text: str) -> dict[str, Any]:
        """Say something in the task's channel: `{messageId, routedTo}`, or `{queued: true}` when the host did
        not answer yet; it will get the word once, and a failure then is said in the channel.

        Raises:
            HostError: the host's refusal.
        """
        record = self._with_channel(task_id)
        sent = Deferred.fromCoroutine(
            self._calls.command(record.host_id, "channelDeliver", [task_id, author, text], None, task_id)
        )
        patience = MESSAGE_PATIENCE if self._hosts.connected(record.host_id) else 0
        value = await within(self._clock, sent, patience, lambda error: self._not_delivered(record, error))
        return {"queued": True} if value is LATE else object_of(value)

    async def decide(self, task_id: str, agent_id: str, request_id: str, decision: Decision) -> None:
        """Answer an agent's request for permission, or its questions."""
        args = [task_id, agent_id, request_id, msgspec.to_builtins(decision)]
        await self.ask(self._with_channel(task_id), "channelResolvePermission", args, ACT_TIMEOUT)

    async def interrupt(self, task_id: str, agent_id: str) -> None:
        """End an agent's turn."""
        await self.ask(self._with_channel(task_id), "channelInterrupt", [task_id, agent_id], ACT_TIMEOUT)

    async def attach(self, task_id: str, filename: str, data: str) -> dict[str, Any]:
        """Write a file, given in base64, for the agents: `{path, bytes}`."""
        record = self._with_channel(task_id)
        args = [{"taskId": task_id, "filename": filename, "dataBase64": data}]
        return object_of(await self.ask(record, "attachmentWrite", args, READ_TIMEOUT))

    async def diff(self, task_id: str) -> dict[str, Any]:
        """What the task changed: the value of taskDiff."""
        record = self._with_channel(task_id)
        assert record.spec is not None
        projects = [{"id": project["id"], "slug": project["slug"]} for project in record.spec["projects"]]
        body = {"taskId": task_id, "projects": projects}
        return object_of(await self.ask(record, "taskDiff", [body], READ_TIMEOUT))

    async def down(self, task_id: str) -> dict[str, Any]:
        """Take the task down: the value of taskDown, or `{status: "stopping"}` while the host did not answer.

        Raises:
            HostError: the host's refusal; the task stays as it was.
        """
        record = self.get(task_id)
        if record.spec is None:
            raise HostError(
                ErrorCode.CONFLICT,
                f"this task was exposed on its host; end it there: uaihost unexpose {task_id}",
            )
        if record.phase == "gone":
            raise HostError(ErrorCode.CONFLICT, "the task is down already")
        taking = Deferred.fromCoroutine(self._take_down(record))
        patience = DOWN_PATIENCE if self._hosts.connected(record.host_id) else 0
        value = await within(self._clock, taking, patience, lambda error: self._not_down(task_id, error))
        return {"status": "stopping"} if value is LATE else object_of(value)

    async def ask(self, record: TaskRecord, name: str, args: list[Any], timeout: float) -> Any:
        """A command that is of use only now: refused at once when the host is not connected."""
        if not self._hosts.connected(record.host_id):
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the host {record.host_id} is not connected; start the host service there and try again",
            )
        return await self._calls.command(record.host_id, name, args, timeout)

    # ---- the way up

    async def _bring_up(self, task_id: str) -> None:
        try:
            if self._at(task_id, "up"):
                await self._up(task_id)
            if self._at(task_id, "channel"):
                record = self.get(task_id)
                assert record.spec is not None
                await self._step(task_id, "channelEnsure", [channel_of(record.spec, record.status)])
                await self._move(task_id, "channel", "prompt")
            if self._at(task_id, "prompt"):
                prompt = self.get(task_id).prompt
                if prompt is not None:
                    await self._step(task_id, "channelDeliver", [task_id, "user", prompt])
                await self._move(task_id, "prompt", "ready")
        except HostError as error:
            if self.get(task_id).phase in _WAY_UP:
                await self._change(
                    task_id, phase="failed", status="failed", message=error.message, waiting=None
                )

    async def _up(self, task_id: str) -> None:
        value = object_of(await self._step(task_id, "taskUp", [self.get(task_id).spec]))
        previews = value.get("previewPorts")
        await self._move(
            task_id,
            "up",
            "channel",
            status=str(value.get("status", "running")),
            previews=[p for p in previews if isinstance(p, dict)] if isinstance(previews, list) else [],
            has_editor=isinstance(value.get("codeServerPort"), int),
        )

    async def _step(self, task_id: str, name: str, args: list[Any]) -> Any:
        """A command of the way: the one that an earlier run of the bridge sent, or a new one."""
        pending = self._calls.resume(task_id, name)
        if pending is not None:
            return await pending
        return await self._calls.command(self.get(task_id).host_id, name, args, None, task_id)

    def _at(self, task_id: str, phase: Phase) -> bool:
        return self.get(task_id).phase == phase

    async def _move(self, task_id: str, before: Phase, after: Phase, **columns: Any) -> None:
        """Unless somebody took it down meanwhile."""
        if self._at(task_id, before):
            await self._change(task_id, phase=after, **columns)

    # ---- the way down

    async def _take_down(self, record: TaskRecord) -> Any:
        assert record.spec is not None
        if record.phase != "down":
            await self._change(record.id, phase="down")
        before: Phase = record.phase if record.phase in ("ready", "failed") else "failed"
        body = {"taskId": record.id, "task": record.spec["task"], "projects": record.spec["projects"]}
        try:
            value = await self._step(record.id, "taskDown", [body])
        except HostError as error:
            await self._change(record.id, phase=before, message=error.message)
            raise
        empty: dict[str, Any] = {"message": None, "waiting": None, "previews": [], "has_editor": False}
        await self._change(record.id, phase="gone", status="stopped", **empty)
        return value

    async def _resume_down(self, task_id: str) -> None:
        try:
            await self._take_down(self.get(task_id))
        except HostError as error:
            self._not_down(task_id, error)

    # ---- what is told later

    def _not_delivered(self, record: TaskRecord, error: HostError) -> None:
        self._note(record, f"A message was not delivered: {error.message}")

    def _not_down(self, task_id: str, error: HostError) -> None:
        self._note(self.get(task_id), f"The task could not be taken down: {error.message}")

    def _note(self, record: TaskRecord, text: str) -> None:
        """A system note of the bridge's own in the task's channel."""
        body = {
            "type": "channel.message",
            "taskId": record.id,
            "at": self._now(),
            "messageId": new_id(),
            "author": {"kind": "system", "id": "bridge", "label": "bridge"},
            "text": text,
        }
        self._feed.arrived(record.host_id, body)

    async def _look_at(self, record: TaskRecord) -> None:
        """Whether an exposed task has an editor is in no event."""
        try:
            value = object_of(
                await self._calls.command(record.host_id, "taskStatus", [record.id], ACT_TIMEOUT)
            )
        except HostError as error:
            log.debug("the exposed task {id} was not looked at: {error}", id=record.id, error=error.message)
            return
        await self._change(record.id, has_editor=isinstance(value.get("codeServerPort"), int))

    # ---- the records

    def choose_host(self, wanted: str) -> str:
        """The host to ask: the wanted one, or the only one that is connected.

        Raises:
            HostError: there is none, or which one is not clear.
        """
        connected = self._hosts.connected_ids()
        if wanted:
            if wanted not in connected:
                raise HostError(
                    ErrorCode.UNAVAILABLE,
                    f"the host {wanted[:64]!r} is not connected; start the service there",
                )
            return wanted
        if not connected:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                "no host is connected; start one with `uaihost up`, or `twistd uaihost` with this bridge's "
                "token",
            )
        if len(connected) > 1:
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"hostId: several hosts are connected ({', '.join(connected)}); say which one",
            )
        return connected[0]

    def _with_channel(self, task_id: str) -> TaskRecord:
        record = self.get(task_id)
        if record.spec is None:
            raise HostError(ErrorCode.CONFLICT, "an exposed task has ports only: no channel and no diff")
        if record.phase == "gone":
            raise HostError(ErrorCode.CONFLICT, "the task is down; its branch has its work")
        return record

    async def _change(self, task_id: str, **columns: Any) -> TaskRecord:
        record = await self._database.run(lambda db: store.change_task(db, task_id, **columns))
        self._keep(record)
        return record

    def _keep(self, record: TaskRecord) -> None:
        self._tasks[record.id] = record
        self._labels[record.id.lower()] = record.id
        self._feed.tell(News("task", None, record.id, json.dumps(self.view_of(record))))

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)

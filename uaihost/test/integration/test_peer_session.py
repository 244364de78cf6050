"""The host's service against the independent bridge: connection, commands, bad frames, shutdown.

Sections 1 to 4 of docs/protocol.md. Both ends are processes of their own and share no code.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from uaihost.test.integration.peer import Report
from uaihost.test.integration.rig import TASK, PeerTestCase, reactor
from uaihost.test.integration.service import TOKEN, Service
from uaihost.test.integration.upstreams import Web

SECRET = "a-refresh-token-nobody-may-see"

REQUEST = {"method": "GET", "url": "/", "headers": []}
OPEN = {
    "kind": "tunnel.open",
    "tunnelId": "bad",
    "target": "preview",
    "taskId": TASK,
    "reqLine": REQUEST,
    "upgrade": False,
}
GITHUB = {
    "kind": "gh.connect.set",
    "userId": "u",
    "installationId": 1,
    "githubLogin": "octo",
    "targetType": "User",
    "refreshToken": SECRET,
}

# Section 2: not JSON, not an object, no or an unknown kind, and for every kind a field missing or ill-typed.
BAD_FRAMES: list[object] = [
    [],
    None,
    7,
    "text",
    {},
    {"kind": 5},
    {"kind": "no.such.kind"},
    {"kind": "auth", "token": "t", "hostId": "h"},
    {"kind": "pong"},
    {"kind": "pong", "ts": "soon"},
    {"kind": "command"},
    {"kind": "command", "commandId": 7, "command": "taskStatus", "args": []},
    {"kind": "tunnel.open"},
    OPEN | {"tunnelId": None},
    OPEN | {"target": "elsewhere"},
    OPEN | {"taskId": 9},
    OPEN | {"upgrade": "no"},
    OPEN | {"reqLine": "GET /"},
    OPEN | {"reqLine": REQUEST | {"method": 1}},
    OPEN | {"reqLine": {"method": "GET", "headers": []}},
    OPEN | {"reqLine": REQUEST | {"headers": {"Host": "x"}}},
    OPEN | {"reqLine": REQUEST | {"headers": [["Host"]]}},
    OPEN | {"reqLine": REQUEST | {"headers": [["Host", 5]]}},
    {"kind": "tunnel.data"},
    {"kind": "tunnel.data", "tunnelId": 1},
    {"kind": "tunnel.requestEnd"},
    {"kind": "tunnel.requestEnd", "tunnelId": []},
    {"kind": "tunnel.close"},
    {"kind": "tunnel.close", "tunnelId": False},
    GITHUB | {"installationId": "one"},
    GITHUB | {"targetType": "Robot"},
    GITHUB | {"userId": None},
    GITHUB | {"refreshToken": [SECRET]},
    {"kind": "gh.connect.clear"},
    {"kind": "ssh.key.get", "userId": 1},
    {"kind": "ssh.key.ensure"},
    {"kind": "ssh.key.delete", "userId": {}},
]
BAD_TEXTS = ["", "{", "not json", "\u0000", "[" * 5000, '{"kind":"pong","ts":1}{}', "{'kind':'pong'}"]


class Connection(PeerTestCase):
    async def test_first_frames(self) -> None:
        """`auth` with token and host id, then `host.capabilities`, at once and in this order."""
        self.service.start()
        connected = await self.peer.expect("connected")
        auth = await self.peer.frame("auth")
        capabilities = (await self.peer.frame("host.capabilities"))["capabilities"]
        self.assertEqual(connected["url"], "/host")
        self.assertEqual(auth["token"], TOKEN)
        self.assertEqual(auth["hostId"], (self.data / "host-id").read_text().strip())
        self.assertEqual((self.data / "host-id").stat().st_mode & 0o777, 0o600)
        for agent in capabilities["agentKinds"]:
            self.assertIsInstance(agent["kind"], str)
            self.assertTrue(all(isinstance(model, str) for model in agent["models"]))
        for runtime in capabilities["runtimes"]:
            self.assertEqual(set(runtime), {"name", "version"})
        self.assertIn("permessage-deflate", connected["extensions"])

    async def test_host_id_stays(self) -> None:
        await self.host()
        first = (self.data / "host-id").read_text()
        self.service.signal()
        await self.service.exit()
        self.service.start()
        await self.peer.expect("connected", link=2)
        await self.peer.frame("auth", hostId=first.strip())

    async def test_reconnect(self) -> None:
        """A cut connection is made again after about a second, with its first two frames."""
        await self.host()
        await self.peer.call("cut", reset=True)
        lost = await self.peer.expect("disconnected")
        again = await self.peer.ready()
        self.assertEqual(again["link"], 2)
        self.assertGreater(again["seen"] - lost["seen"], 0.7)
        self.assertLess(again["seen"] - lost["seen"], 3.0)

    async def test_back_off(self) -> None:
        """Refused attempts are repeated after 1, 2, 4 s; a connection that opens starts at 1 s again."""
        await self.peer.call("policy", handshake="refuse")
        self.service.start()
        tries = [(await self.peer.expect("handshake"))["seen"] for _ in range(3)]
        await self.peer.call("policy", handshake="accept")
        connected = (await self.peer.ready())["seen"]
        gaps = [b - a for a, b in zip(tries, [*tries[1:], connected], strict=True)]
        for gap, delay in zip(gaps, (1, 2, 4), strict=True):
            self.assertGreater(gap, delay * 0.8 - 0.1)
            self.assertLess(gap, delay * 1.2 + 1.5)
        await self.peer.call("cut")
        again = await self.peer.ready()
        self.assertLess(again["seen"] - connected, 3.5)

    async def test_rejected(self) -> None:
        """Close 4001 ends the service with status 1 and says why; the token is not shown."""
        await self.peer.call("policy", reject={"code": 4001, "reason": "token revoked"})
        self.service.start()
        self.assertEqual(await self.service.exit(), 1)
        self.assertIn(b"token revoked", self.service.output)
        self.assertNotIn(TOKEN.encode(), self.service.output)
        self.assertEqual([report["event"] for report in self.peer.reports].count("handshake"), 1)

    async def test_other_close_is_not_fatal(self) -> None:
        await self.host()
        await self.peer.call("shut", code=4002, reason="moved")
        await self.peer.expect("disconnected", link=1)
        self.assertEqual((await self.peer.ready())["link"], 2)

    async def test_terminated(self) -> None:
        """SIGTERM closes with 1001 and exits 0."""
        await self.host()
        self.service.signal(signal.SIGTERM)
        await self.peer.expect("disconnected", code=1001, reason="host shutting down")
        self.assertEqual(await self.service.exit(), 0)

    async def test_interrupted_while_disconnected(self) -> None:
        await self.peer.call("policy", handshake="ignore")
        self.service.start()
        await self.peer.expect("handshake")
        self.service.signal(signal.SIGINT)
        self.assertEqual(await self.service.exit(15), 0)

    async def test_silence(self) -> None:
        """Pings every 15 s; with nothing coming back, close 4000 after 45 s, checked every 5 s."""
        await self.peer.call("policy", pongs=False)
        self.service.start()
        opened = (await self.peer.ready())["seen"]
        for number in (1, 2):
            ping = await self.peer.expect("frame", lambda r: r["frame"]["kind"] == "ping")
            self.assertApproximates(ping["seen"] - opened, 15 * number, 3)
            self.assertApproximates(ping["frame"]["ts"] / 1000, time.time(), 5)
        lost = await self.peer.expect("disconnected", timeout=60)
        self.assertEqual((lost["code"], lost["reason"]), (4000, "heartbeat timeout"))
        self.assertGreater(lost["seen"] - opened, 44)
        self.assertLess(lost["seen"] - opened, 55)
        await self.peer.ready()


class Commands(PeerTestCase):
    async def test_status_of_an_exposed_task(self) -> None:
        port = self.listen(Web())
        await self.host(web=port)
        result = await self.peer.command("c1", "taskStatus", TASK)
        self.assertTrue(result["ok"], result)
        self.assertEqual(result["value"]["status"], "running")
        [preview] = result["value"]["previewPorts"]
        self.assertEqual((preview["name"], preview["hostPort"]), ("web", port))

    async def test_refusals(self) -> None:
        """Exactly one failed result, with its code, for what cannot be done."""
        await self.host()
        cases: list[tuple[str, list[object], str]] = [
            ("noSuchCommand", [], "unknown_command"),
            ("__init__", [], "unknown_command"),
            ("taskStatus", [], "invalid_args"),
            ("taskStatus", [7], "invalid_args"),
            ("taskUp", [{"task": 1}], "invalid_args"),
            ("taskDiff", [{"taskId": "t", "projects": "all"}], "invalid_args"),
            ("channelDeliver", ["t", "author"], "invalid_args"),
            ("channelResolvePermission", ["t", "a", "r", {"kind": "perhaps"}], "invalid_args"),
            ("attachmentWrite", [{"taskId": "t", "filename": "f"}], "invalid_args"),
            ("cloneRepo", [{"url": 1, "projectId": "p"}], "invalid_args"),
            ("taskStatus", ["no-such-task"], "not_found"),
            ("channelDeliver", ["no-such-task", "author", "text"], "not_found"),
        ]
        for number, (name, args, code) in enumerate(cases):
            result = await self.peer.command(f"c{number}", name, *args)
            self.assertEqual((name, result["ok"], result.get("code")), (name, False, code))
            self.assertTrue(result["message"])
            self.assertNotIn("Traceback", result["message"])
        results = [r for r in self.peer.reports if r.get("frame", {}).get("kind") == "result"]
        self.assertEqual(len(results), len(cases))

    async def test_no_engine(self) -> None:
        """Without a container engine a task waits and says so; it can be given up, and the host goes on."""
        await self.host()
        texts = ("id", "ownerUserId", "hostId", "name", "slug", "branch", "status")
        task: dict[str, object] = {**dict.fromkeys(texts, "t"), "agents": []}
        up = {"task": task, "projects": []}
        await self.peer.call(
            "frame", frame={"kind": "command", "commandId": "up", "command": "taskUp", "args": [up]}
        )
        while True:
            event = (await self.peer.frame("event"))["event"]
            if event["type"] == "task.status" and event.get("waiting"):
                break
        self.assertEqual(event["waiting"]["reason"], "engine-unreachable")
        self.assertGreater(event["waiting"]["deadline"], event["at"])
        down = await self.peer.command("down", "taskDown", {"taskId": "t", **up})
        self.assertEqual((await self.peer.result("up"))["code"], "cancelled")
        # What it would have to remove cannot be looked at.
        self.assertEqual((down["ok"], down["code"]), (False, "unavailable"))
        self.assertIn("engine", down["message"])
        self.assertEqual((await self.peer.command("again", "taskStatus", "nobody"))["code"], "not_found")

    async def test_ill_typed_command_is_answered(self) -> None:
        """A command whose id can be read gets a result, whatever else is wrong with it."""
        await self.host()
        cases: list[Report] = [
            {"kind": "command", "commandId": "a", "command": 7, "args": []},
            {"kind": "command", "commandId": "b", "command": "taskStatus", "args": {}},
            {"kind": "command", "commandId": "c", "args": []},
            {"kind": "command", "commandId": "d", "command": "taskStatus"},
        ]
        for frame in cases:
            await self.peer.call("frame", frame=frame)
            result = await self.peer.result(frame["commandId"])
            self.assertEqual((result["ok"], result["code"]), (False, "invalid_args"))

    async def test_keys_and_connections_are_acknowledged(self) -> None:
        """The frames about credentials get their acks, for the user they name."""
        await self.host()
        await self.peer.call("frame", frame=GITHUB)
        self.assertEqual((await self.peer.frame("gh.connect.ack"))["userId"], "u")
        for kind in ("ssh.key.get", "ssh.key.ensure", "ssh.key.delete"):
            await self.peer.call("frame", frame={"kind": kind, "userId": "v"})
            ack = await self.peer.frame("ssh.key.ack", userId="v")
            self.assertTrue("publicKey" in ack if ack["ok"] else ack["error"])
        self.assertNotIn(SECRET.encode(), self.service.output)

    async def test_bad_frames(self) -> None:
        """Every bad frame of section 2 is dropped with a warning and the connection stays up."""
        await self.host()
        texts = [json.dumps(frame) for frame in BAD_FRAMES] + BAD_TEXTS
        for text in texts:
            await self.peer.call("text", text=text)
        await self.peer.call("binary", base64="AAEC")
        await self.peer.call("frame", frame={"kind": "tunnel.data", "tunnelId": "nobody's"})
        await self.peer.call("binary", base64="AAEC", fragments=3)
        await self.peer.call("frame", frame={"kind": "pong", "ts": 1, "unknown": "ignored"})
        result = await self.peer.command("c", "taskStatus", "nobody")
        self.assertEqual(result["code"], "not_found")
        self.assertNotIn("disconnected", [report["event"] for report in self.peer.reports])
        answers = [r["frame"]["kind"] for r in self.peer.reports if r["event"] == "frame"]
        self.assertEqual(answers, ["auth", "host.capabilities", "result"])
        self.assertGreaterEqual(self.service.output.lower().count(b"dropp"), len(texts))
        self.assertNotIn(SECRET.encode(), self.service.output)
        self.assertNotIn(b"Traceback", self.service.output)


class Durability(PeerTestCase):
    """Commands and results survive cuts, shutdown and a kill. A clone that waits on a gate takes its time."""

    async def start_clone(self) -> None:
        self.web = Web()
        port = self.listen(self.web)
        await self.host()
        arrived = self.web.gate.arrived
        self.command: Report = {
            "kind": "command",
            "commandId": "slow",
            "command": "cloneRepo",
            "args": [{"url": f"http://127.0.0.1:{port}/gate/repository.git", "projectId": "p"}],
        }
        await self.peer.call("frame", frame=self.command)
        await self.within(20, arrived)

    def gits(self) -> list[str]:
        """The process ids of every `git` that works for the clone; its transports are other programs."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else [b""]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if words[0] == b"git" and self.command["args"][0]["url"].encode() in words:
                found.append(folder.name)
        return found

    async def test_result_after_a_cut(self) -> None:
        """A result that could not be sent is sent after the next connect."""
        await self.start_clone()
        await self.peer.call("cut")
        await self.peer.expect("disconnected")
        self.web.gate.release()
        await self.peer.ready()
        result = await self.peer.result("slow")
        self.assertEqual((result["ok"], result["code"]), (False, "clone_failed"))

    async def test_repeated_command(self) -> None:
        """A repeated id joins the command that runs and is answered from the record afterwards."""
        await self.start_clone()
        await self.peer.call("frame", frame=self.command)
        requests = self.web.gate.requests
        self.web.gate.release()
        first = await self.peer.result("slow")
        self.assertEqual(self.web.gate.requests, requests)
        again = await self.peer.command("slow", "cloneRepo", *self.command["args"])
        self.assertEqual(again, first)
        self.assertEqual(self.web.gate.requests, requests)

    async def test_repeated_after_a_kill(self) -> None:
        """The record outlives the process."""
        await self.start_clone()
        self.web.gate.release()
        first = await self.peer.result("slow")
        requests = self.web.gate.requests
        self.service.signal(signal.SIGKILL)
        await self.service.exit()
        self.service.start()
        await self.peer.ready()
        await self.peer.call("frame", frame=self.command)
        self.assertEqual(await self.peer.result("slow"), first)
        self.assertEqual(self.web.gate.requests, requests)

    async def test_kill_during_a_command(self) -> None:
        """A command without a result runs again after a crash, unasked, and is answered once."""
        await self.start_clone()
        self.assertTrue(self.gits())
        self.service.signal(signal.SIGKILL)
        await self.service.exit()
        await self.eventually(lambda: not self.gits(), "git works on")
        again = self.web.gate.arrived
        self.service.start()
        await self.peer.ready()
        await self.within(20, again)
        self.web.gate.release()
        self.assertEqual((await self.peer.result("slow"))["code"], "clone_failed")
        await self.peer.command("after", "taskStatus", "nobody")
        answered = [r["frame"]["commandId"] for r in self.peer.reports if "commandId" in r.get("frame", {})]
        self.assertEqual(answered, ["slow", "after"])

    async def test_command_in_flight_at_shutdown(self) -> None:
        """SIGTERM lets it end, sends its result, and only then closes."""
        await self.start_clone()
        self.service.signal()
        await self.sleep(1)
        self.assertNotIn("disconnected", [report["event"] for report in self.peer.reports])
        self.web.gate.release()
        result = await self.peer.result("slow")
        self.assertEqual(result["code"], "clone_failed")
        await self.peer.expect("disconnected", code=1001)
        self.assertEqual(await self.service.exit(), 0)

    async def test_second_signal(self) -> None:
        """Ends the service at once, whatever still runs; nothing that it started is left."""
        await self.start_clone()
        self.service.signal()
        await self.sleep(1)
        began = reactor.seconds()
        self.service.signal()
        await self.service.exit()
        self.assertLess(reactor.seconds() - began, 5)
        await self.eventually(lambda: not self.web.gate.held, "git still waits")

    async def test_one_host_per_data_folder(self) -> None:
        """A second service on the same folder refuses to start and says so."""
        await self.host()
        self.assertTrue((self.data / "lock").exists())
        second = Service(reactor, self.peer.url, self.data)
        second.start()
        self.assertNotEqual(await second.exit(), 0)
        self.assertIn(os.fsencode(self.data), second.output)

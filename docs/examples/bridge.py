"""A bridge in a hundred lines: takes one host, reads a page of one task's preview through the link, and ends.

usage: bridge.py PORT TOKEN TASK NAME

It keeps to revision 1 of docs/protocol.md: hosts sign in, pings are answered, a command is asked, a tunnel is
opened. What a bridge for people needs besides is what sections 4 to 6 describe: it keeps events by their
`seq`, asks commands under ids that it can repeat, and never mistakes one task's page for another's.
"""

import hmac
import json
import sys
import uuid

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor

# Close code of section 1: the host gives up for good.
REFUSED = 4001


class Host(WebSocketServerProtocol):
    """The other end of one WebSocket."""

    def onOpen(self):
        self.known = False
        self.page = b""
        # The tunnel whose bytes the next binary message holds.
        self.announced = None

    def onMessage(self, payload, isBinary):
        if isBinary:
            if self.announced == self.tunnel:
                self.page += payload
            self.announced = None
            return
        frame = json.loads(payload)
        if not self.known and frame["kind"] != "auth":
            self.sendClose(REFUSED, "sign in first")
            return
        handler = getattr(self, "on_" + frame["kind"].replace(".", "_"), None)
        if handler is not None:
            handler(frame)

    def on_auth(self, frame):
        if not hmac.compare_digest(frame["token"].encode(), self.factory.token.encode()):
            self.sendClose(REFUSED, "this token is not known")
            return
        self.known = True
        print(f"host {frame['hostId']} has signed in", flush=True)

    def on_host_capabilities(self, frame):
        if hasattr(self, "command"):
            return  # They changed; it was greeted before.
        kinds = [each["kind"] for each in frame["capabilities"]["agentKinds"]]
        print(f"its agents: {', '.join(kinds) or 'none'}", flush=True)
        self.command = uuid.uuid4().hex
        self.say(kind="command", commandId=self.command, command="taskStatus", args=[self.factory.task])

    def on_ping(self, frame):
        # The host counts what it sent before its ping as read now.
        self.say(kind="pong", ts=frame["ts"])

    def on_event(self, frame):
        print(f"event {frame['event']['type']} of {frame['event']['taskId']}", flush=True)

    def on_result(self, frame):
        if frame["commandId"] != self.command:
            return
        if not frame["result"]["ok"]:
            self.end(f"taskStatus: {frame['result']['message']}")
            return
        print(f"the task is {frame['result']['value']['status']}", flush=True)
        self.tunnel = uuid.uuid4().hex
        self.say(
            kind="tunnel.open",
            tunnelId=self.tunnel,
            taskId=self.factory.task,
            target="preview",
            name=self.factory.name,
            reqLine={"method": "GET", "url": "/", "headers": []},
            upgrade=False,
        )
        self.say(kind="tunnel.requestEnd", tunnelId=self.tunnel)

    def on_tunnel_ack(self, frame):
        print(f"the page answers {frame['status']}", flush=True)
        if not frame["ok"]:
            self.end(frame["message"])

    def on_tunnel_data(self, frame):
        self.announced = frame["tunnelId"]

    def on_tunnel_close(self, frame):
        if frame["tunnelId"] == self.tunnel:
            self.end(f"it has {len(self.page)} bytes, and the tunnel is closed")

    def say(self, **frame):
        self.sendMessage(json.dumps(frame).encode())

    def end(self, why):
        print(why, flush=True)
        # Time for what was said to leave.
        reactor.callLater(0.5, reactor.stop)


def main(port, token, task, name):
    factory = WebSocketServerFactory()
    factory.protocol = Host
    factory.token, factory.task, factory.name = token, task, name
    reactor.listenTCP(int(port), factory, interface="127.0.0.1")
    print(f"waiting for a host at ws://127.0.0.1:{port}/host", flush=True)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])

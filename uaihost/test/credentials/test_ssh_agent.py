"""A task's SSH agent: one key shown, sign-ins at the task's forges signed, the rest refused and noted."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import TestCase

from uaihost.credentials import ssh_agent
from uaihost.credentials.known_hosts import Destination, parse
from uaihost.credentials.ssh_agent import AgentConnection, AgentFactory, agent_factory
from uaihost.credentials.ssh_wire import LONGEST, Reader, string
from uaihost.errors import ErrorCode, HostError
from uaihost.proofs import Grant
from uaihost.test.credentials.ssh_model import (
    SESSION,
    OneKey,
    ServerKey,
    binding,
    identities,
    sign_in,
    sign_request,
)
from uaihost.test.support import given, strategies

FAILURE, SUCCESS = b"\x05", b"\x06"
LIST = b"\x0b"
GRANT = Grant("ada", "t1", ("git@forge.example:x/y.git", "ssh://me@other.example:2222/z"))


class Line(StringTransport):
    """A connection that says how it ended."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class AgentCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.forge, self.other, self.strange = ServerKey(), ServerKey("ecdsa-sha2-nistp256"), ServerKey()
        self.keys = OneKey(ada=ServerKey())
        self.mine = self.keys.keys["ada"].blob
        self.noted: list[dict[str, str]] = []
        known = f"forge.example {self.forge.line}\n[other.example]:2222 {self.other.line}\n"
        self.known = parse(f"{known}elsewhere.example {self.strange.line}\n")
        self.factory = self.made()

    def made(self, grant: Grant = GRANT) -> AgentFactory:
        async def hosts(key: bytes, to: Sequence[Destination]) -> tuple[Destination, ...]:
            return tuple(one for one in to if key in self.known.keys(one))

        return agent_factory(self.clock, self.keys, grant, hosts, lambda **line: self.noted.append(line))

    def connect(self) -> tuple[AgentConnection, Line]:
        connection = self.factory.buildProtocol(None)
        assert isinstance(connection, AgentConnection)
        line = Line()
        connection.makeConnection(line)
        self.addCleanup(connection.setTimeout, None)
        return connection, line

    def say(self, *messages: bytes) -> list[bytes]:
        """Each message's answer on a connection of its own."""
        connection, line = self.connect()
        for message in messages:
            connection.dataReceived(string(message))
        connection.connectionLost()
        return answers(line)

    def outcomes(self) -> list[str]:
        return [line["outcome"] for line in self.noted]


def answers(line: Line) -> list[bytes]:
    reader, found, size = Reader(line.value()), [], len(line.value())
    while size:
        found.append(reader.string())
        size -= 4 + len(found[-1])
    return found


class SigningTests(AgentCase):
    def test_a_sign_in_at_a_forge_of_the_task(self) -> None:
        data = sign_in(self.mine, host_key=self.forge.blob)
        bound, listed, signed = self.say(binding(self.forge), LIST, sign_request(self.mine, data))
        self.assertEqual(bound, SUCCESS)
        self.assertEqual(identities(listed), [(self.mine, b"uaihost")])
        reader = Reader(signed)
        self.assertEqual(reader.byte(), 14)
        signature = Reader(reader.string())
        self.assertEqual(signature.string(), b"ssh-ed25519")
        self.keys.keys["ada"]._key.public_key().verify(signature.string(), data)
        where = {"user": "ada", "task": "t1", "host": "forge.example", "path": ""}
        self.assertEqual(self.noted, [{**where, "what": "sign", "outcome": "ok"}])

    def test_the_older_method_and_the_users_own_name_there(self) -> None:
        data = sign_in(self.mine, user=b"me")
        answer = self.say(binding(self.other), sign_request(self.mine, data))[-1]
        self.assertEqual(answer[:1], b"\x0e")
        self.assertEqual(self.noted[0]["host"], "[other.example]:2222")

    def refused(self, why: str, *messages: bytes) -> None:
        self.noted.clear()
        self.assertEqual(self.say(*messages)[-1], FAILURE, why)
        self.assertEqual(self.keys.signed, [])
        self.assertIn(why, self.outcomes()[-1])

    def test_what_is_not_signed(self) -> None:
        ask, bind = sign_request(self.mine, sign_in(self.mine)), binding(self.forge)
        other = ServerKey().blob
        signed = b"SSHSIG" + string(b"git") + string(b"") + string(b"sha512") + string(b"h" * 64)
        self.refused("for which server", ask)
        self.refused("no sign-in", bind, sign_request(self.mine, b"anything"))
        self.refused("no sign-in", bind, sign_request(self.mine, signed))
        self.refused("no sign-in", bind, ask + b"x")
        self.refused("another key", bind, sign_request(other, sign_in(other)))
        self.refused("another key", bind, sign_request(self.mine, sign_in(other)))
        self.refused("another connection", bind, sign_request(self.mine, sign_in(self.mine, b"t" * 32)))
        wrong = sign_in(self.mine, host_key=self.strange.blob)
        self.refused("another server", bind, sign_request(self.mine, wrong))
        self.refused("as 'root'", bind, sign_request(self.mine, sign_in(self.mine, user=b"root")))
        self.refused("as 'git'", binding(self.other), ask)
        self.refused("as 'me'", bind, sign_request(self.mine, sign_in(self.mine, user=b"me")))

    def test_servers_that_are_not_bound_to(self) -> None:
        forged = binding(self.forge).replace(self.forge.sign(SESSION), self.strange.sign(SESSION))
        for why, message in (
            ("not the known key", binding(self.strange)),
            ("not the known key", binding(ServerKey())),
            ("did not sign", forged),
            ("passed on", binding(self.forge, forwarding=True)),
        ):
            self.noted.clear()
            ask = sign_request(self.mine, sign_in(self.mine))
            found = self.say(message, LIST, ask, binding(self.forge), LIST, ask)
            listed = [identities(found[1]), identities(found[4])]
            self.assertEqual(([found[0], found[2], found[3], found[5]], listed), ([FAILURE] * 4, [[], []]))
            self.assertIn(why, self.outcomes()[0])
        self.assertEqual(self.keys.signed, [])

    def test_a_second_binding_ends_the_first(self) -> None:
        ask = sign_request(self.mine, sign_in(self.mine))
        found = self.say(binding(self.forge), binding(self.other), ask, binding(self.forge), ask)
        self.assertEqual(found, [SUCCESS] + [FAILURE] * 4)

    def test_a_grant_that_was_replaced(self) -> None:
        connection, line = self.connect()
        connection.dataReceived(string(binding(self.forge)))
        self.factory.grant = attrs.evolve(GRANT, repositories=("git@other.example:x",))
        connection.dataReceived(string(sign_request(self.mine, sign_in(self.mine))))
        self.assertEqual(answers(line), [SUCCESS, FAILURE])

    def test_a_key_that_is_gone(self) -> None:
        self.keys.keys.clear()
        found = self.say(binding(self.forge), LIST, sign_request(self.mine, sign_in(self.mine)))
        self.assertEqual((identities(found[1]), found[2]), ([], FAILURE))

    def test_a_key_that_cannot_be_opened(self) -> None:
        async def sign(user_id: str, data: bytes) -> bytes:
            raise HostError(ErrorCode.UNAVAILABLE, "its seal is broken")

        self.patch(self.keys, "sign", sign)
        found = self.say(binding(self.forge), sign_request(self.mine, sign_in(self.mine)))
        self.assertEqual((found[-1], self.outcomes()), (FAILURE, ["failed: its seal is broken"]))

    def test_nobody_elses_key(self) -> None:
        bob = self.keys.keys["bob"] = ServerKey()
        self.assertEqual(identities(self.say(LIST)[0]), [(self.mine, b"uaihost")])
        answer = self.say(binding(self.forge), sign_request(bob.blob, sign_in(bob.blob)))[-1]
        self.assertEqual(answer, FAILURE)


class ProtocolTests(AgentCase):
    def test_every_other_message_fails(self) -> None:
        for number in range(256):
            if number not in (11, 13, 27):
                self.assertEqual(self.say(bytes([number]) + string(b"x")), [FAILURE], number)
        self.assertEqual(self.say(b"\x1b" + string(b"query")), [FAILURE])
        self.assertEqual(self.say(LIST + b"x"), [FAILURE])
        self.assertEqual(identities(self.say(LIST)[0]), [(self.mine, b"uaihost")])

    def test_in_pieces_and_at_once(self) -> None:
        ask = sign_request(self.mine, sign_in(self.mine))
        whole = b"".join(map(string, (binding(self.forge), LIST, ask)))
        pieces, at_once = self.connect(), self.connect()
        for at in range(len(whole)):
            pieces[0].dataReceived(whole[at : at + 1])
        at_once[0].dataReceived(whole)
        self.assertEqual(answers(pieces[1]), answers(at_once[1]))
        self.assertEqual(len(answers(pieces[1])), 3)

    def test_one_message_at_a_time(self) -> None:
        self.keys.wait = Deferred()
        connection, line = self.connect()
        connection.dataReceived(string(LIST) + string(b"\xff"))
        self.assertEqual((line.value(), line.producerState), (b"", "paused"))
        self.keys.wait.callback(None)
        found = answers(line)
        self.assertEqual((identities(found[0])[0][0], found[1]), (self.mine, FAILURE))
        self.assertEqual(line.producerState, "producing")

    def test_a_client_that_leaves_before_its_answer(self) -> None:
        self.keys.wait = Deferred()
        connection, line = self.connect()
        connection.dataReceived(string(LIST))
        connection.connectionLost()
        self.keys.wait.callback(None)
        self.assertEqual((line.value(), self.factory.connections), (b"", set()))

    def test_lengths_out_of_bounds(self) -> None:
        for length in (0, LONGEST + 1, 2**32 - 1):
            connection, line = self.connect()
            connection.dataReceived(length.to_bytes(4, "big"))
            self.assertEqual((line.aborted, line.value()), (True, b""))

    def test_more_messages_than_a_client_has(self) -> None:
        connection, line = self.connect()
        connection.dataReceived(string(b"\xff") * (ssh_agent.MESSAGES + 1))
        self.assertEqual((len(answers(line)), line.aborted), (ssh_agent.MESSAGES, True))

    def test_more_connections_than_a_task_has(self) -> None:
        held = [self.connect() for _ in range(ssh_agent.CONNECTIONS)]
        self.assertIsNone(self.factory.buildProtocol(None))
        held[0][0].connectionLost()
        self.connect()

    def test_one_that_says_nothing_ends(self) -> None:
        connection, line = self.connect()
        self.clock.advance(ssh_agent.IDLE - 1)
        connection.dataReceived(string(LIST))
        self.clock.advance(ssh_agent.IDLE - 1)
        self.assertFalse(line.aborted)
        self.clock.advance(1)
        self.assertTrue(line.aborted)

    def test_all_end_with_their_socket(self) -> None:
        lines = [self.connect()[1] for _ in range(3)]
        self.factory.close()
        self.assertEqual([line.aborted for line in lines], [True] * 3)

    def test_what_is_noted_is_bounded(self) -> None:
        ask = sign_request(self.mine, sign_in(self.mine))
        for _ in range(40):
            self.say(binding(self.forge), *[ask] * 9)
        self.assertLess(len(self.noted), ssh_agent.BURST)
        self.clock.advance(1 / ssh_agent.RATE * 2)
        before = len(self.noted)
        self.assertEqual(self.say(binding(self.forge), ask)[-1][:1], b"\x0e")
        self.assertEqual(len(self.noted), before + 1)

    def test_a_defect_is_a_failure_to_the_client(self) -> None:
        async def hosts(key: bytes, to: Sequence[Destination]) -> tuple[Destination, ...]:
            raise OSError("a defect")

        self.factory.hosts = hosts
        self.assertEqual(self.say(binding(self.forge), LIST)[0], FAILURE)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    @given(
        strategies.lists(strategies.binary(min_size=1, max_size=120), max_size=8), strategies.integers(0, 3)
    )
    def test_any_messages_at_all(self, messages: list[bytes], kind: int) -> None:
        first = (b"\x0b", b"\x0d", b"\x1b", b"")[kind]
        self.setUp()
        found = self.say(binding(self.forge), *(first + message for message in messages))
        self.assertEqual(len(found), len(messages) + 1)
        self.assertEqual(self.keys.signed, [])

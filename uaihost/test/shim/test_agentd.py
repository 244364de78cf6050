"""The keeper of an agent's process: every byte of output, every line of input once, the status kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

from uaihost.shim import agentd, kept
from uaihost.shim.outlog import SEGMENT
from uaihost.test.shim.keeper import PATIENCE, SHIM, Client, KeeperCase
from uaihost.test.support import given, settings, short_folder, strategies

# Answers every line with `got LINE`.
ECHO = "import sys\nfor line in sys.stdin: print('got', line.strip(), flush=True)"


class OutputTests(KeeperCase):
    def test_everything_since_the_start_is_streamed_and_then_live(self) -> None:
        self.start_python("print('first', flush=True)\n" + ECHO)
        client = self.client()
        client.attach()
        client.until_out(b"first\n")
        client.send(stdin=0, line="x")
        self.assertEqual(client.until_out(b"got x\n"), b"first\ngot x\n")

    def test_a_later_client_starts_at_its_own_offset(self) -> None:
        self.start_python(ECHO)
        first = self.client()
        first.attach()
        first.send(stdin=0, line="one")
        first.until_out(b"got one\n")
        first.close()
        second = self.client()
        self.assertEqual(second.hello["out_end"], 8)
        second.attach(4)
        self.assertEqual(second.until_out(b"one\n"), b"one\n")

    def test_much_output_arrives_whole_though_nobody_was_there(self) -> None:
        self.start_python("import sys\nfor n in range(200000): sys.stdout.write(f'{n}\\n')")
        client = self.client()
        client.attach()
        status = client.until("exited")
        self.assertEqual(status["exited"], 0)
        self.assertEqual(client.out, b"".join(b"%d\n" % n for n in range(200000)))

    def test_an_offset_beyond_the_log_is_refused(self) -> None:
        self.start_python(ECHO)
        client = self.client()
        client.send(attach=99)
        self.assertIn("holds bytes 0 to 0", client.until("error")["error"])

    def test_the_next_process_begins_on_a_line_of_its_own(self) -> None:
        first = self.start_python("print('half', end='', flush=True)")
        client = self.client()
        client.attach()
        client.until("exited")
        client.send(quit=True)
        first.wait(PATIENCE)
        self.start_python("print('whole')")
        second = self.client()
        self.assertEqual(second.hello["start"], 5)
        self.assertNotEqual(second.hello["run"], client.hello["run"])
        second.attach()
        self.assertEqual(second.until_out(b"whole\n"), b"half\nwhole\n")


class InputTests(KeeperCase):
    def test_a_repeated_number_is_acknowledged_and_not_applied(self) -> None:
        self.start_python(ECHO)
        client = self.client()
        client.attach()
        for line in ("one", "again", "more"):
            client.send(stdin=0, line=line)
            self.assertEqual(client.until("stdin"), {"stdin": 0})
        client.send(stdin=1, line="two")
        self.assertEqual(client.until_out(b"got two\n"), b"got one\ngot two\n")

    def test_the_number_outlives_keeper_and_agent(self) -> None:
        keeper = self.start_python(ECHO)
        client = self.client()
        client.attach()
        client.send(stdin=7, line="one")
        client.until_out(b"got one\n")
        keeper.kill()
        keeper.wait()
        self.assertTrue(self.gone(client.hello["pid"]))
        self.start_python(ECHO)
        second = self.client()
        self.assertEqual(second.hello["stdin_next"], 8)
        second.attach(8)
        second.send(stdin=7, line="one")
        second.send(stdin=8, line="two")
        self.assertEqual(second.until_out(b"got two\n"), b"got two\n")

    def test_only_the_attached_connection_writes(self) -> None:
        self.start_python(ECHO)
        first, second = self.client(), self.client()
        second.send(stdin=0, line="no")
        self.assertIn("attach first", second.until("error")["error"])
        first.attach()
        second.attach()
        self.assertEqual(first.until("detached"), {"detached": True})
        first.send(stdin=0, line="no")
        self.assertIn("attach first", first.until("error")["error"])
        second.send(stdin=0, line="yes")
        self.assertEqual(second.until_out(b"yes\n"), b"got yes\n")

    def test_a_line_of_many_megabytes_passes_both_ways(self) -> None:
        self.start_python(ECHO)
        client = self.client()
        client.attach()
        client.send(stdin=0, line="ü" * 3_000_000)
        client.until_out(b"\n")
        self.assertEqual(client.out.decode(), "got " + "ü" * 3_000_000 + "\n")

    def test_nonsense_is_answered_and_harms_nobody(self) -> None:
        self.start_python(ECHO)
        client = self.client()
        for text in (
            b"nonsense",
            b"[]",
            b"5",
            b"null",
            b"{}",
            b'{"signal": "HUP"}',
            b'{"attach": "x"}',
            b"\xff",
        ):
            client.peer.sendall(text + b"\n")
            self.assertIn("error", client.read())
        client.attach()
        client.send(stdin=0, line="x")
        self.assertEqual(client.until_out(b"got x\n"), b"got x\n")


class EndTests(KeeperCase):
    def test_the_status_and_the_last_of_stderr_are_kept_until_asked(self) -> None:
        self.start_python("import sys; sys.stderr.write('no account'); sys.exit(3)")
        self.client().close()
        client = self.client()
        client.attach()
        ended = client.until("exited")
        self.assertEqual((ended["exited"], ended["err"]), (3, "no account"))
        again = self.client()
        self.assertEqual(again.hello["exited"], 3)
        again.attach()
        again.send(stdin=0, line="x")
        self.assertEqual(again.until("error")["error"], "the agent has ended")

    def test_a_program_that_is_missing_is_an_end_with_a_reason(self) -> None:
        self.start("/nonexistent/agent")
        client = self.client()
        client.attach()
        ended = client.until("exited")
        self.assertEqual(ended["exited"], 127)
        self.assertIn("cannot start /nonexistent/agent", ended["err"])

    def test_a_signal_reaches_the_whole_group(self) -> None:
        self.start("/bin/sh", "-c", "sleep 1000 & echo $!; wait")
        client = self.client()
        client.attach()
        child = int(client.until_out(b"\n"))
        client.send(signal="KILL")
        self.assertEqual(client.until("exited")["exited"], -signal.SIGKILL)
        self.assertTrue(self.gone(child))

    def test_stop_kills_what_ignores_the_request(self) -> None:
        self.start_python(
            "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('on')\ntime.sleep(1000)"
        )
        client = self.client()
        client.attach()
        client.until_out(b"on\n")
        client.send(stop=0.1)
        self.assertEqual(client.until("exited")["exited"], -signal.SIGKILL)

    def test_quit_ends_agent_keeper_and_socket(self) -> None:
        keeper = self.start_python(ECHO)
        client = self.client()
        client.send(quit=True)
        self.assertEqual(keeper.wait(PATIENCE), 0)
        self.assertTrue(self.gone(client.hello["pid"]))
        self.assertFalse((self.folder / "ctl.sock").exists())

    def test_a_second_start_ends_at_once_and_changes_nothing(self) -> None:
        self.start_python(ECHO)
        run = self.client().hello["run"]
        self.assertEqual(self.start_python("print('second')").wait(PATIENCE), 0)
        self.assertEqual(self.client().hello["run"], run)
        self.assertEqual(b"".join(path.read_bytes() for path in self.folder.glob("out.*")), b"")

    def test_the_error_log_stays_small(self) -> None:
        self.start_python(
            "import sys\nfor n in range(20000): sys.stderr.write(f'line {n:06}' + 40 * '.' + '\\n')"
        )
        client = self.client()
        client.attach()
        self.assertIn("line 019999", client.until("exited")["err"])
        size = (self.folder / "err.log").stat().st_size
        self.assertLessEqual(size, kept.ERR_LIMIT)

    def test_the_socket_is_for_its_owner_only(self) -> None:
        self.start_python(ECHO)
        self.client()
        self.assertEqual((self.folder / "ctl.sock").stat().st_mode & 0o777, 0o600)


class FamilyTests(KeeperCase):
    """What an agent has started ends with it, however it was detached."""

    # A command in a session of its own, as agents start them, whose number is told.
    DETACHED = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
    )

    def detached(self, then: str) -> tuple[subprocess.Popen[bytes], Client, int]:
        keeper = self.start_python(self.DETACHED + then)
        client = self.client()
        client.attach()
        return keeper, client, int(client.until_out(b"\n"))

    def test_when_it_ends_by_itself(self) -> None:
        _, client, command = self.detached("sys.exit(3)")
        self.assertEqual(client.until("exited")["exited"], 3)
        self.assertTrue(self.gone(command))

    def test_when_it_alone_is_killed(self) -> None:
        _, client, command = self.detached("time.sleep(1000)")
        os.kill(client.hello["pid"], signal.SIGKILL)
        self.assertEqual(client.until("exited")["exited"], -signal.SIGKILL)
        self.assertTrue(self.gone(command))

    def test_when_the_host_kills_it(self) -> None:
        _, client, command = self.detached("time.sleep(1000)")
        client.send(signal="KILL")
        self.assertEqual(client.until("exited")["exited"], -signal.SIGKILL)
        self.assertTrue(self.gone(command))

    def test_when_the_keeper_quits(self) -> None:
        keeper, client, command = self.detached("time.sleep(1000)")
        client.send(quit=True)
        self.assertEqual(keeper.wait(PATIENCE), 0)
        self.assertTrue(self.gone(command))

    def test_when_the_keeper_was_killed_the_next_one_ends_it(self) -> None:
        keeper, client, command = self.detached("time.sleep(1000)")
        keeper.kill()
        keeper.wait()
        self.assertTrue(self.gone(client.hello["pid"]))
        self.start_python(ECHO)
        self.client()
        self.assertTrue(self.gone(command))

    def test_others_are_left_alone(self) -> None:
        other = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        _, client, _ = self.detached("sys.exit(0)")
        client.until("exited")
        self.assertIsNone(other.poll())


class SecretTests(KeeperCase):
    def test_the_agent_has_them_and_its_keeper_forgets_them(self) -> None:
        self.environment = {"UAI_TEST_SECRET": "sesame", "UAI_TEST_EMPTY": ""}
        keeper = self.start_python(
            "import os\nprint(os.environ['UAI_TEST_SECRET'], 'UAI_TEST_EMPTY' in os.environ, flush=True)\n"
        )
        client = self.client()
        client.attach()
        self.assertEqual(client.until_out(b"\n"), b"sesame False\n")
        # Nobody but root may look at what the keeper was started with.
        self.assertEqual(Path(f"/proc/{keeper.pid}/environ").stat().st_uid, 0)


class BoundTests(KeeperCase):
    def test_what_is_acknowledged_is_dropped_and_offsets_go_on(self) -> None:
        keeper = self.start_python(
            f"import sys\nfor n in range({3 * SEGMENT // 1000}): sys.stdout.write('x' * 999 + '\\n')\n"
        )
        client = self.client()
        client.attach()
        client.until("exited")
        size = len(client.out)
        client.send(ack=size - 1)
        client.send(quit=True)
        keeper.wait(PATIENCE)
        self.start_python(ECHO)
        second = self.client()
        self.assertEqual(second.hello["start"], size)
        self.assertGreater(second.hello["base"], size - 2 * SEGMENT)
        second.send(attach=0)
        self.assertIn("holds bytes", second.until("error")["error"])
        second.attach(size)
        second.send(stdin=0, line="x")
        self.assertEqual(second.until_out(b"got x\n"), b"got x\n")


class RequestFramingTests(KeeperCase):
    @given(strategies.lists(strategies.text(max_size=20), max_size=8), strategies.integers(1, 7))
    @settings(max_examples=50)
    def test_requests_are_read_alike_however_they_are_cut(self, lines: list[str], size: int) -> None:
        stream = b"".join(json.dumps({"line": line}).encode() + b"\n" for line in lines)
        connection = agentd.Connection.__new__(agentd.Connection)
        connection.requests, connection.searched = bytearray(), 0
        found = []
        for start in range(0, len(stream), size):
            connection.requests += stream[start : start + size]
            while (request := connection.next_request()) is not None:
                found.append(json.loads(request)["line"])
        self.assertEqual(found, lines)

    def test_the_language_is_that_of_python_3_9(self) -> None:
        import ast

        for name in ("family.py", "kept.py", "outlog.py"):
            ast.parse((SHIM / name).read_text(encoding="utf-8"), feature_version=(3, 9))
        for name in ("agentd.py", "mock.py"):
            ast.parse((SHIM / name).read_text(encoding="utf-8"), feature_version=(3, 9))
            self.assertTrue(
                Path(SHIM / name).read_text(encoding="utf-8").endswith("sys.exit(main(sys.argv[1:]))\n")
            )


class ClaimTests(KeeperCase):
    def test_one_folder_has_one_keeper(self) -> None:
        folder = short_folder(self)
        held = agentd.claim(folder)
        assert held is not None
        self.addCleanup(os.close, held)
        (folder / "ctl.sock").touch()
        self.assertIsNone(agentd.claim(folder))

    def test_a_keeper_that_is_just_quitting_is_waited_for(self) -> None:
        folder = short_folder(self)
        held = agentd.claim(folder)
        assert held is not None
        quitting = threading.Timer(0.1, os.close, [held])
        quitting.start()
        self.addCleanup(quitting.join)
        claimed = agentd.claim(folder)
        assert claimed is not None
        self.addCleanup(os.close, claimed)
        self.assertNotEqual(claimed, held)

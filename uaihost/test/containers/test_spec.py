"""The engine's parameters and answers, as tables."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import attrs
from twisted.trial.unittest import TestCase

from uaihost.containers import spec
from uaihost.interfaces import Launch, Limits, Mount, Usage
from uaihost.test.support import given, strategies

LAUNCH = Launch(
    task_id="01jz",
    image="uaihost/small:abc",
    uid=1000,
    gid=1001,
    mounts=(Mount("/data/work/web", "/workspace/web"), Mount("/data/files", "/attachments", read_only=True)),
    ports=(8100, 3000),
    env={"B": "2", "A": "1"},
    limits=Limits(memory=512 << 20, cpus=1.5, pids=99),
)


class ConfigTests(TestCase):
    def test_every_change_of_the_launch_changes_the_fingerprint(self) -> None:
        changes: list[dict[str, Any]] = [
            {},
            {"network": "none"},
            {"read_only": True},
            {"env": {"A": "1"}},
            {"mounts": ()},
            {"image": "uaihost/small:abd"},
            {"limits": Limits()},
        ]
        found = {
            spec.container_config(attrs.evolve(LAUNCH, **change), "host")["Labels"]["uaihost.spec"]
            for change in changes
        }
        self.assertEqual(len(found), len(changes))
        made = {"Config": spec.container_config(LAUNCH, "host")}
        self.assertTrue(spec.fits(made, attrs.evolve(LAUNCH, ports=(3000, 8100)), "host"))
        self.assertFalse(spec.fits(made, attrs.evolve(LAUNCH, ports=(3000,)), "host"))

    def test_a_bridge_s_name_fits_and_tells_tasks_and_hosts_apart(self) -> None:
        names = {
            spec.bridge_name(host, task) for host in ("a", "b" * 128) for task in ("one", "two", "x" * 64)
        }
        self.assertEqual(len(names), 6)
        for name in names:
            self.assertRegex(name, r"\Auai-[0-9a-f]{8}\Z")

    def test_the_whole_body(self) -> None:
        name = spec.container_name("host", "01jz")
        config = spec.container_config(LAUNCH, "host")
        fingerprint = config["Labels"].pop("uaihost.spec")
        self.assertRegex(fingerprint, rf"\A{spec.SPEC_VERSION}-[0-9a-f]{{8}}\Z")
        self.assertEqual(
            config,
            {
                "Image": "uaihost/small:abc",
                "Hostname": "01jz",
                "User": "1000:1001",
                "Env": ["A=1", "B=2"],
                "Labels": {"uaihost.host": "host", "uaihost.task": "01jz"},
                "ExposedPorts": {"8100/tcp": {}, "3000/tcp": {}},
                "HostConfig": {
                    "NetworkMode": name,
                    "PortBindings": {
                        "8100/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
                        "3000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
                    },
                    "Mounts": [
                        {
                            "Type": "bind",
                            "Source": "/data/work/web",
                            "Target": "/workspace/web",
                            "ReadOnly": False,
                            "BindOptions": {"Propagation": "rprivate"},
                        },
                        {
                            "Type": "bind",
                            "Source": "/data/files",
                            "Target": "/attachments",
                            "ReadOnly": True,
                            "BindOptions": {"Propagation": "rprivate"},
                        },
                    ],
                    "Init": True,
                    "Privileged": False,
                    "CapDrop": ["ALL"],
                    "SecurityOpt": ["no-new-privileges"],
                    "IpcMode": "private",
                    "Memory": 512 << 20,
                    "MemorySwap": 512 << 20,
                    "NanoCpus": 1_500_000_000,
                    "PidsLimit": 99,
                    "OomScoreAdj": 500,
                    "ShmSize": 256 << 20,
                    "ReadonlyRootfs": False,
                    "Tmpfs": {},
                    "LogConfig": {
                        "Type": "json-file",
                        "Config": {"max-size": str(5 << 20), "max-file": "2"},
                    },
                    "RestartPolicy": {"Name": "no"},
                },
            },
        )

    def test_swap_counts_beyond_the_memory(self) -> None:
        limits = Limits(memory=512 << 20, swap=128 << 20)
        config = spec.container_config(attrs.evolve(LAUNCH, limits=limits), "host")
        self.assertEqual(config["HostConfig"]["MemorySwap"], 640 << 20)

    def test_without_a_network_nothing_is_published(self) -> None:
        config = spec.container_config(attrs.evolve(LAUNCH, network="none"), "host")
        self.assertEqual(config["ExposedPorts"], {})
        self.assertEqual(config["HostConfig"]["PortBindings"], {})
        self.assertEqual(config["HostConfig"]["NetworkMode"], "none")

    def test_a_read_only_image_gets_a_folder_for_sockets_and_locks(self) -> None:
        config = spec.container_config(attrs.evolve(LAUNCH, read_only=True), "host")
        self.assertTrue(config["HostConfig"]["ReadonlyRootfs"])
        self.assertEqual(list(config["HostConfig"]["Tmpfs"]), ["/run", "/run/uai"])
        self.assertIn(f"uid={LAUNCH.uid},gid={LAUNCH.gid}", config["HostConfig"]["Tmpfs"]["/run/uai"])
        mounted = attrs.evolve(LAUNCH, read_only=True, mounts=(Mount("/data/run", "/run/uai"),))
        config = spec.container_config(mounted, "host")
        self.assertEqual(list(config["HostConfig"]["Tmpfs"]), ["/run"])

    def test_names_tell_hosts_and_tasks_apart(self) -> None:
        pairs = [("a", "b"), ("ab", ""), ("a", "c"), ("b", "b"), ("a", "B"), ("a", "é"), ("a", "x" * 65)]
        names = [spec.container_name(*pair) for pair in pairs]
        self.assertEqual(len(set(names)), len(pairs))
        self.assertTrue(names[0].endswith("-b"), names[0])

    @given(strategies.text(min_size=1), strategies.text(min_size=1))
    def test_every_name_is_legal(self, host_id: str, task_id: str) -> None:
        self.assertRegex(spec.container_name(host_id, task_id), r"\A[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}\Z")
        self.assertRegex(spec.hostname(task_id), r"\A[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\Z")


class SubnetTests(TestCase):
    def test_the_first_choice_is_the_task_s_own(self) -> None:
        self.assertEqual(
            spec.free_subnet("one", []), spec.free_subnet("one", ["192.168.0.0/24", "fd00::/64"])
        )
        self.assertNotEqual(spec.free_subnet("one", []), spec.free_subnet("two", []))

    def test_taken_ones_are_avoided_until_none_is_left(self) -> None:
        taken: list[str] = []
        for _ in range(16):
            found = spec.free_subnet("one", taken, "10.9.9.0/24")
            assert found is not None
            taken.append(found)
        nets = [ipaddress.ip_network(text) for text in taken]
        self.assertEqual(len(set(nets)), 16)
        self.assertTrue(all(net.prefixlen == 28 for net in nets))
        self.assertIsNone(spec.free_subnet("one", taken, "10.9.9.0/24"))

    def test_a_wider_network_takes_all_of_it(self) -> None:
        self.assertIsNone(spec.free_subnet("one", ["10.0.0.0/8"], "10.9.9.0/24"))

    def test_subnets_of_an_answer(self) -> None:
        answer: list[dict[str, Any]] = [
            {"IPAM": {"Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}, {}]}},
            {"IPAM": {"Config": None}},
            {"IPAM": None},
            {},
        ]
        self.assertEqual(spec.subnets(answer), ["172.17.0.0/16"])


INSPECTED = {
    "Id": "abc",
    "Config": {"Labels": {"uaihost.task": "01jz"}},
    "State": {
        "Status": "running",
        "ExitCode": 0,
        "OOMKilled": False,
        "StartedAt": "2024-01-02T03:04:05.678901234Z",
    },
    "NetworkSettings": {
        "Ports": {
            "8100/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}],
            "9/udp": [{"HostIp": "127.0.0.1", "HostPort": "1"}],
            "3000/tcp": None,
        }
    },
}


class AnswerTests(TestCase):
    def test_a_running_container(self) -> None:
        found = spec.container(INSPECTED)
        self.assertEqual(
            attrs.asdict(found),
            {
                "id": "abc",
                "task_id": "01jz",
                "state": "running",
                "ports": {8100: 49153},
                "started_at": 1704164645678,
                "exit_code": None,
                "out_of_memory": False,
            },
        )

    def test_states(self) -> None:
        for status, ports, code in (
            ("created", {}, None),
            ("paused", {8100: 49153}, None),
            ("exited", {}, 137),
            ("dead", {}, 137),
        ):
            state = {
                "Status": status,
                "ExitCode": 137,
                "OOMKilled": True,
                "StartedAt": "0001-01-01T00:00:00Z",
            }
            found = spec.container(INSPECTED | {"State": state})
            self.assertEqual((found.ports, found.exit_code), (ports, code), status)
            self.assertEqual((found.out_of_memory, found.started_at), (True, None), status)

    def test_times(self) -> None:
        for stamp, expected in (
            ("2024-01-02T03:04:05Z", 1704164645000),
            ("2024-01-02T03:04:05.5Z", 1704164645500),
            ("2024-01-02T05:04:05.999999999+02:00", 1704164645999),
            ("0001-01-01T00:00:00Z", None),
            ("", None),
        ):
            self.assertEqual(spec.milliseconds(stamp), expected, stamp)

    def test_usage(self) -> None:
        cpu = {
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 4},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
        }
        for memory, expected in (
            ({"usage": 100, "stats": {"total_inactive_file": 30, "inactive_file": 5}}, 70),  # cgroup v1
            ({"usage": 100, "stats": {"inactive_file": 30}}, 70),  # cgroup v2
            ({"usage": 100, "stats": {"inactive_file": 130}}, 100),
            ({"usage": 100}, 100),
            ({}, 0),
        ):
            self.assertEqual(spec.usage({"memory_stats": memory, **cpu}), Usage(expected, 80.0), memory)
        self.assertEqual(spec.usage({}), Usage(0, 0.0))


class LabelTests(TestCase):
    def test_the_filter_finds_the_label(self) -> None:
        (wanted,) = spec.filters("host")["label"]
        name, _, value = wanted.partition("=")
        self.assertEqual(spec.labels("host", "task")[name], value)
        self.assertTrue(re.fullmatch(r"uaihost\.\w+", name))

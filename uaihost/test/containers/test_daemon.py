"""What the real engine does rarely: networks that overlap, failures in the middle, a container that ends."""

from __future__ import annotations

from typing import Any

import attrs
import docker.errors
import requests
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.containers import spec
from uaihost.containers.daemon import NETWORK_TRIES, DockerEngine
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Launch

NAME = spec.container_name("host", "one")
LAUNCH = Launch("one", "small", 1000, 1000, (), (8000,))


def refusal(status: int, text: str) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    kind = docker.errors.NotFound if status == 404 else docker.errors.APIError
    return kind("x", response=response, explanation=text)


class Client:
    """The SDK's client over dicts. problems: method name to errors that its next calls raise."""

    def __init__(self, **problems: list[docker.errors.APIError]) -> None:
        self.problems = problems
        self.made: dict[str, dict[str, Any]] = {}
        self.nets: list[dict[str, Any]] = []
        self.tried: list[str] = []
        self.started_state = "running"

    def __call__(self, docker_host: str) -> Any:
        return self

    def _fail(self, method: str) -> None:
        if self.problems.get(method):
            raise self.problems[method].pop(0)

    def networks(self, names: list[str] | None = None, filters: Any = None) -> list[dict[str, Any]]:
        return [net for net in self.nets if names is None or any(name in net["Name"] for name in names)]

    def create_network(self, name: str, ipam: dict[str, Any], **rest: Any) -> None:
        self.tried.append(ipam["Config"][0]["Subnet"])
        self._fail("create_network")
        net = {"Name": name, "Id": f"net-{len(self.tried)}", "IPAM": ipam}
        self.nets.append({**net, "Labels": rest["labels"], "Options": rest["options"]})

    def containers(self, all: bool, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        return [{"Labels": made["Config"]["Labels"]} for made in self.made.values()]

    def remove_network(self, identity: str) -> None:
        self._fail("remove_network")
        self.nets = [net for net in self.nets if net["Id"] != identity]

    def create_container_from_config(self, config: dict[str, Any], name: str) -> dict[str, str]:
        self._fail("create")
        self.made[name] = {
            "Id": name,
            "Config": config,
            "State": {"Status": "created", "ExitCode": 0},
            "NetworkSettings": {"Ports": {}},
        }
        return {"Id": name}

    def start(self, name: str) -> None:
        self._fail("start")
        self.made[name]["State"]["Status"] = self.started_state

    def unpause(self, name: str) -> None:
        self.made[name]["State"]["Status"] = "running"

    def inspect_container(self, name: str) -> dict[str, Any]:
        if name not in self.made:
            raise refusal(404, "no such container")
        return self.made[name]

    def remove_container(self, name: str, force: bool, v: bool) -> None:
        self._fail("remove_container")
        if self.made.pop(name, None) is None:
            raise refusal(404, "no such container")

    def logs(self, name: str, tail: int) -> bytes:
        return b"its last words\n"


class LaunchTests(TestCase):
    def engine(self, client: Client) -> DockerEngine:
        return DockerEngine(Clock(), Inline(), "unix:///x", "host", connect=client)

    def launched(self, client: Client) -> str:
        return str(self.successResultOf(self.engine(client).launch(LAUNCH)).state)

    def refused(self, client: Client) -> HostError:
        error = self.failureResultOf(self.engine(client).launch(LAUNCH), HostError).value
        assert isinstance(error, HostError)
        return error

    def test_an_overlap_is_answered_with_other_addresses(self) -> None:
        overlap = "Pool overlaps with other one on this address space"
        client = Client(create_network=[refusal(403, overlap), refusal(500, overlap)])
        self.assertEqual(self.launched(client), "running")
        self.assertEqual(len(set(client.tried)), 3)
        self.assertEqual([net["Name"] for net in client.nets], [NAME])

    def test_overlaps_without_end_are_given_up(self) -> None:
        client = Client(create_network=[refusal(403, "Pool overlaps") for _ in range(99)])
        error = self.refused(client)
        self.assertEqual((error.code, len(client.tried)), (ErrorCode.UNAVAILABLE, NETWORK_TRIES))
        self.assertIn("docker network prune", error.message)

    def test_another_refusal_is_not_tried_again(self) -> None:
        client = Client(create_network=[refusal(500, "iptables failed")])
        self.assertIn("iptables failed", self.refused(client).message)
        self.assertEqual(len(client.tried), 1)

    def test_whatever_fails_nothing_stays(self) -> None:
        for method in ("create", "start"):
            client = Client(**{method: [refusal(500, "no space left")]})
            self.assertIn("no space left", self.refused(client).message)
            self.assertEqual((client.made, client.nets), ({}, []), method)

    def test_a_failed_clean_up_does_not_hide_the_failure(self) -> None:
        client = Client(start=[refusal(500, "first")], remove_container=[refusal(500, "second")])
        self.assertIn("first", self.refused(client).message)

    def test_one_that_ended_at_once_is_an_error_with_its_words(self) -> None:
        client = Client()
        client.started_state = "exited"
        error = self.refused(client)
        self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
        self.assertIn("its last words", error.message)
        self.assertEqual((client.made, client.nets), ({}, []))

    def test_one_that_cannot_be_started_again_is_made_anew(self) -> None:
        client = Client()
        self.launched(client)
        client.made[NAME]["State"]["Status"] = "exited"
        client.problems["start"] = [refusal(404, "network not found")]
        self.assertEqual(self.launched(client), "running")
        self.assertEqual([net["Name"] for net in client.nets], [NAME])

    def test_one_that_has_to_be_started_must_fit_the_launch(self) -> None:
        client = Client()
        self.launched(client)
        before = client.made[NAME]
        other = attrs.evolve(LAUNCH, network="none")
        self.successResultOf(self.engine(client).launch(other))
        self.assertIs(client.made[NAME], before, "one that runs is kept")
        before["State"]["Status"] = "exited"
        self.successResultOf(self.engine(client).launch(LAUNCH))
        self.assertIs(client.made[NAME], before, "one that fits is started")
        before["State"]["Status"] = "exited"
        self.successResultOf(self.engine(client).launch(other))
        self.assertEqual(client.made[NAME]["Config"]["HostConfig"]["NetworkMode"], "none")
        self.assertEqual(client.nets, [])

    def test_one_of_an_older_version_is_made_anew_when_it_must_be_started(self) -> None:
        client = Client()
        self.launched(client)
        old = client.made[NAME]
        old["Config"]["Labels"][spec.LABEL_SPEC] = "2"
        self.assertEqual(self.launched(client), "running")
        self.assertIs(client.made[NAME], old)
        old["State"]["Status"] = "exited"
        self.assertEqual(self.launched(client), "running")
        self.assertIsNot(client.made[NAME], old)
        self.assertEqual(len(client.nets), 1)

    def test_a_network_that_was_left_is_replaced_and_its_interface_is_named(self) -> None:
        client = Client()
        left = {"Name": NAME, "Id": "left", "IPAM": {}, "Labels": spec.labels("host", "one")}
        client.nets.append(left)
        self.launched(client)
        [net] = client.nets
        self.assertNotEqual(net["Id"], "left")
        name = net["Options"]["com.docker.network.bridge.name"]
        self.assertRegex(name, r"\Auai-[0-9a-f]{8}\Z")

    def test_sweep_removes_containers_and_lone_networks(self) -> None:
        client = Client()
        for task_id in ("one", "two"):
            self.successResultOf(self.engine(client).launch(attrs.evolve(LAUNCH, task_id=task_id)))
        lone = {"Name": spec.container_name("host", "three"), "Id": "lone", "IPAM": {}}
        client.nets.append({**lone, "Labels": spec.labels("host", "three")})
        self.assertEqual(self.successResultOf(self.engine(client).sweep({"one"})), ["three", "two"])
        self.assertEqual((list(client.made), [net["Name"] for net in client.nets]), ([NAME], [NAME]))

    def test_a_paused_one_goes_on(self) -> None:
        client = Client()
        self.launched(client)
        client.made[NAME]["State"]["Status"] = "paused"
        self.assertEqual(self.launched(client), "running")

    def test_a_left_over_network_is_replaced_and_namesakes_stay(self) -> None:
        client = Client()
        client.nets = [
            {"Name": NAME, "Id": "old", "IPAM": {}},
            {"Name": NAME + "-other", "Id": "other", "IPAM": {}},
        ]
        self.launched(client)
        self.assertEqual(sorted(net["Id"] for net in client.nets), ["net-1", "other"])

    def test_removal_waits_for_the_engine(self) -> None:
        client = Client()
        self.launched(client)
        client.problems = {
            "remove_container": [refusal(409, "removal is already in progress")],
            "remove_network": [refusal(403, "has active endpoints")],
        }
        self.successResultOf(self.engine(client).remove("one"))
        self.assertEqual((client.made, client.nets), ({}, []))

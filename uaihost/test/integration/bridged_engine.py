"""An engine whose containers reach this machine by the engine's first network, which no rules of ours filter.

Hosts on one machine share the rules for tasks' networks: a test that opened one there would have it open for
all of them.
"""

from __future__ import annotations

import docker

from uaihost.containers.client import connect
from uaihost.containers.daemon import DockerEngine
from uaihost.interfaces import Container, Launch

NETWORK = "bridge"


def gateway(address: str) -> str:
    """The address of this machine in that network."""
    client = connect(address)
    try:
        return str(client.inspect_network(NETWORK)["IPAM"]["Config"][0]["Gateway"])
    finally:
        client.close()


class BridgedEngine(DockerEngine):
    """As any engine; its containers are in that network too."""

    def _launch(self, client: docker.APIClient, launch: Launch) -> Container:
        made = super()._launch(client, launch)
        client.connect_container_to_network(made.id, NETWORK)
        return made

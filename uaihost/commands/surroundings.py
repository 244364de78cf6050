"""The neighbours of the life cycle, and what every container of this host is given."""

from __future__ import annotations

import attrs

from uaihost.commands.neighbours import (
    Admission,
    Channels,
    Egress,
    Images,
    Isolation,
    Ports,
    PortWatch,
    Readiness,
    Tools,
    Workspaces,
)
from uaihost.interfaces import Engine, Limits
from uaihost.paths import Folders
from uaihost.proofs import Broker


@attrs.frozen
class Surroundings:
    """uid, gid: the container's user; editor_port: where the image's editor listens in the container, None
    when it has none. A neighbour that is None is not there: nothing is asked of it.
    """

    workspaces: Workspaces
    engine: Engine
    images: Images
    readiness: Readiness
    channels: Channels
    ports: Ports
    folders: Folders
    uid: int
    gid: int
    limits: Limits = attrs.field(factory=Limits)
    editor_port: int | None = None
    admission: Admission | None = None
    isolation: Isolation | None = None
    egress: Egress | None = None
    tools: Tools | None = None
    watch: PortWatch | None = None
    broker: Broker | None = None

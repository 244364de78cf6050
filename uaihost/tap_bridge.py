"""`twistd uaibridge`: a bridge for hosts, with its page, API and previews on one port."""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import IService
from twisted.internet import reactor as _reactor
from twisted.python import usage

from uaihost.bridge.service import bridge_settings, make_bridge
from uaihost.errors import HostError
from uaihost.exits import Exits
from uaihost.logs.twistd import Logged, console_log
from uaihost.supervision import supervised
from uaihost.tap import SettingOptions, settle

reactor: Any = _reactor


class Options(SettingOptions):
    synopsis = "[options]"
    longdesc = "Serve a bridge: the other end of uaihost's WebSocket, with a page for people."

    def postOptions(self) -> None:
        try:
            self.settings().require_token()
        except HostError as error:
            raise usage.UsageError(error.message) from None


def makeService(options: Options) -> IService:
    """The bridge as a service."""
    settings = options.settings()
    exits = Exits(reactor)
    exits.watch_signals()
    reactor.callWhenRunning(settle)
    wanted = bridge_settings(settings.data_dir, settings.bridge_port, settings.require_token())
    process_log = console_log(options, settings)
    for secret in (settings.require_token(), wanted.key):
        process_log.redactor.learn(secret)
    bridge = make_bridge(reactor, wanted, on_fatal=exits.fail, on_refused=exits.refuse)
    return Logged(supervised(reactor, bridge, os.environ), process_log)

"""code-server as a tool of tests: installed from npm without a compiler, started on loopback.

Its packages' install scripts do not run: they would compile a dozen modules for two minutes. Those that the
editor needs on Linux come built (argon2, node-pty, the file watcher). Without spdlog the editor's server
keeps no log files and says so once; nothing else is missing here.
"""

from __future__ import annotations

import json
from pathlib import Path

from uaihost.test.browser.reals import Program
from uaihost.test.integration.node import installed, node, run_npm
from uaihost.test.integration.processes import free_port

SOURCE = Path(__file__).parent / "editor"

# No chat pane with a process of its own, nothing that asks or fetches.
SETTINGS = {
    "chat.disableAIFeatures": True,
    "extensions.autoCheckUpdates": False,
    "extensions.autoUpdate": False,
    "files.autoSave": "off",
    "git.enabled": False,
    # What stands in the terminal is text of the page then.
    "terminal.integrated.gpuAcceleration": "off",
    "telemetry.telemetryLevel": "off",
    "workbench.enableExperiments": False,
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "workbench.startupEditor": "none",
}

FLAGS = (
    "--auth=none",
    "--disable-telemetry",
    "--disable-update-check",
    "--disable-workspace-trust",
    "--disable-getting-started-override",
    "--disable-proxy",
)


def packages() -> Path:
    """The folder of the package `code-server`; the first call installs it, which takes some 20 s."""
    return installed(SOURCE, "--ignore-scripts", finish=_install_editor) / "node_modules" / "code-server"


def _install_editor(fresh: Path) -> None:
    # Its own install script would do this, and then compile.
    editor = fresh / "node_modules" / "code-server" / "lib" / "vscode"
    run_npm(editor, "install", "--omit=dev", "--ignore-scripts", "--no-save")


class CodeServer:
    """A running editor; `port` of 127.0.0.1 is where.

    Args:
        folder: its home, settings and log.
        grace: seconds for which a page that went leaves its extension host behind.
    """

    def __init__(self, folder: Path, grace: int = 60) -> None:
        self.port = free_port()
        data = folder / "editor-data"
        (data / "User").mkdir(parents=True)
        (data / "User" / "settings.json").write_text(json.dumps(SETTINGS))
        words = [
            node(),
            str(packages() / "out" / "node" / "entry.js"),
            *FLAGS,
            f"--reconnection-grace-time={grace}",
            f"--bind-addr=127.0.0.1:{self.port}",
            f"--user-data-dir={data}",
            f"--extensions-dir={folder / 'extensions'}",
            f"--config={folder / 'editor.yaml'}",
        ]
        # A gallery without an address: the page looks for no extensions.
        env = {"HOME": str(folder), "SHELL": "/bin/sh", "EXTENSIONS_GALLERY": "{}"}
        self._program = Program(words, folder, folder / "editor.log", env)

    @property
    def pid(self) -> int:
        return self._program.pid

    def wait_ready(self) -> None:
        self._program.wait_printed("HTTP server listening")

    def stop(self) -> None:
        self._program.stop()

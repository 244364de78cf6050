"""How long the editor of a task takes to answer, beside code-server started alone in the same image.

    python -m benchmarks.editor_start [--rounds N] [--out FILE]

Both lanes are containers of the standard image as tasks have them: no capability, a read-only root file
system, no network, an empty home. In one the first process is code-server itself; in the other it is
`uai-init`, with a work copy and the gate open. A round takes both, A B A B; the first round warms the page
cache and does not count. Time is counted inside from the first process' begin to the first answers of
/healthz and of `GET /`; what counts is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from uaihost.cli.local import settings
from uaihost.containers.client import connect
from uaihost.containers.images import owner
from uaihost.rooms import engine_address

ROOT = Path(__file__).resolve().parent.parent
# What issue and documents promise: the task's editor within this of code-server's own start.
TARGET = 1.2
LABEL = "uaihost.benchmark"
# Seconds for one start; a machine that is busy with other work takes a few.
PATIENCE = 60
CODE_SERVER = "/opt/node/bin/node /opt/code-server/out/node/entry.js --auth=none --bind-addr=127.0.0.1:8100"
LANES: dict[str, list[str]] = {
    "code-server alone": [
        *CODE_SERVER.split(),
        "--disable-telemetry",
        "--disable-update-check",
        "/workspace",
    ],
    # The image's own.
    "task": [],
}
MEASURES = ("healthz", "page")

# Begins the clock, leaves a child behind that asks, and becomes the lane's first process.
ENTRY = """
import http.client, os, sys, time
begun = time.monotonic()
def ask(path):
    while time.monotonic() - begun < float(sys.argv[1]):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", 8100, timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                return time.monotonic() - begun
        except OSError:
            time.sleep(0.005)
    return -1
if os.fork() == 0:
    found = "%f %f" % (ask("/healthz"), ask("/?folder=/workspace"))
    with open("/run/uai/new", "w") as file:
        file.write(found)
    os.rename("/run/uai/new", "/run/uai/answered")
else:
    os.execv(sys.argv[2], sys.argv[2:])
"""


def image() -> tuple[str, str]:
    """The engine's address and the standard image, built if it is missing."""
    words = [sys.executable, "-m", "uaihost.cli", "image", "build", "--kind", "standard", "--json"]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return engine_address(settings()), str(json.loads(done.stdout)["reference"])


def start(client: Any, reference: str, words: list[str]) -> dict[str, float]:
    """Seconds of one start, by measure."""
    folder = Path(tempfile.mkdtemp(prefix="uai-", dir="/tmp"))
    uid, gid = owner()
    mounts = {"home": "/home/dev", "run": "/run/uai", "tmp": "/tmp", "work": "/workspace"}
    for name in (*mounts, "control"):
        (folder / name).mkdir()
        os.chown(folder / name, uid, gid)
    (folder / "work" / "project").mkdir()
    (folder / "control" / "go").touch()
    binds: list[dict[str, Any]] = [
        {"Type": "bind", "Source": str(folder / name), "Target": target} for name, target in mounts.items()
    ]
    binds.append({"Type": "bind", "Source": str(folder / "control"), "Target": "/run/host", "ReadOnly": True})
    made = client.create_container(
        reference,
        [str(PATIENCE), *words],
        entrypoint=["/usr/bin/python3", "-c", ENTRY],
        user=f"{uid}:{gid}",
        labels={LABEL: "1"},
        host_config={
            **client.create_host_config(
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                init=True,
                tmpfs={"/run": "mode=0755"},
                mem_limit="4g",
            ),
            "Mounts": binds,
        },
    )
    try:
        client.start(made)
        deadline = time.monotonic() + PATIENCE + 10
        answered = folder / "run" / "answered"
        while not answered.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"no answer: {client.logs(made, tail=20).decode()}")
            time.sleep(0.05)
        found = [float(word) for word in answered.read_text().split()]
        if min(found) < 0:
            raise RuntimeError(f"no answer in {PATIENCE} s: {client.logs(made, tail=20).decode()}")
        return dict(zip(MEASURES, found, strict=True))
    finally:
        client.remove_container(made, force=True)
        shutil.rmtree(folder, ignore_errors=True)


def measure(rounds: int) -> dict[str, Any]:
    """All samples: `{lane: {measure: [seconds]}}`, with the image's reference."""
    address, reference = image()
    client = connect(address)
    samples: dict[str, dict[str, list[float]]] = {lane: {name: [] for name in MEASURES} for lane in LANES}
    try:
        own = client.inspect_image(reference)["Config"]["Entrypoint"]
        for number in range(rounds + 1):
            for lane, words in LANES.items():
                took = start(client, reference, words or own)
                for name in MEASURES if number else ():
                    samples[lane][name].append(took[name])
    finally:
        client.close()
    return {"image": reference, "rounds": rounds, "samples": samples}


def report(found: dict[str, Any]) -> str:
    """The medians and their ratio, as a Markdown table."""
    lines = ["| first answer of | code-server alone, s | task, s | ratio | target |", "|---|---|---|---|---|"]
    for name, title in zip(MEASURES, ("/healthz", "`GET /` after it"), strict=True):
        alone, task = (statistics.median(found["samples"][lane][name]) for lane in LANES)
        lines.append(f"| {title} | {alone:.2f} | {task:.2f} | {task / alone:.2f} | {TARGET} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.editor_start", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write all samples there as JSON")
    given = parser.parse_args()
    found = measure(given.rounds)
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

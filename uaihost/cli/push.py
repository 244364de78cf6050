"""The verb that pushes a task's branches and opens pull requests."""

from __future__ import annotations

from typing import Any

import click

from uaihost.cli.local import verb
from uaihost.cli.said import echo, echo_json
from uaihost.cli.task_id import TaskId

# Seconds: a first push of a large repository is as slow as the network.
PATIENCE = 3600.0


@click.command()
@click.argument("task_id", metavar="ID", type=TaskId())
@click.option("--pr", is_flag=True, help="Open a pull request; one that is open stays as it is.")
@click.option("--title", help="Its title; the task's name when left out.")
@click.option("--body", help="Its text; made of the task's transcript and commits when left out.")
@click.option("--base", help="The branch it is to go into; the repository's default branch when left out.")
@click.option("--draft", is_flag=True, help="Open it as a draft.")
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is.")
def push(
    task_id: str, pr: bool, title: str | None, body: str | None, base: str | None, draft: bool, as_json: bool
) -> None:
    """Push what a task has committed, as its owner and never by force."""
    given = {"title": title, "body": body, "base": base}
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if draft:
        wanted["draft"] = True
    asked: dict[str, Any] = {"taskId": task_id}
    if pr or wanted:
        asked["pullRequest"] = wanted
    answer = verb("task.push", asked, patience=PATIENCE)
    if as_json:
        echo_json(answer, indent=2)
    else:
        for project in answer["projects"]:
            for line in lines(project):
                echo(line)
    if any("error" in project for project in answer["projects"]):
        raise SystemExit(1)


def lines(project: dict[str, Any]) -> list[str]:
    """One project's outcome for people."""
    slug = project["slug"]
    found = []
    if project["pushed"]:
        found.append(f"{slug}: {project['branch']} is at {project['remote']}")
    if "message" in project:
        found.append(f"{slug}: {project['message']}")
    pull = project.get("pullRequest")
    if pull is not None:
        found.append(f"{slug}: pull request {'opened' if pull['created'] else 'is open'}: {pull['url']}")
    elif "url" in project:
        found.append(f"{slug}: open a pull request at {project['url']}")
    if "error" in project:
        found.append(f"{slug}: {project['error']['message']}")
    return found

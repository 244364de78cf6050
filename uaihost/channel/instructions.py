"""An agent's standing instructions, put together from what the task says. Pure."""

from __future__ import annotations

from uaihost.wire.inputs import Agent, ChannelEnsure


def workspace(given: ChannelEnsure) -> str:
    """Where agents work, inside the container: the first project's folder."""
    return f"/workspace/{given.projects[0].slug}" if given.projects else "/workspace"


def standing(given: ChannelEnsure, agent: Agent) -> str:
    """Task, projects, own part, crew; parts that are empty are left out."""
    parts = [given.globalContext or ""]
    for project in given.projects:
        if project.defaultPrompt.strip():
            parts.append(f"Project {project.slug} (/workspace/{project.slug}):\n{project.defaultPrompt}")
    parts.append(agent.defaultPrompt or "")
    parts.append(f"You work on branch {given.branch} in {workspace(given)}.")
    others = [other for other in given.agents if other.id != agent.id]
    if others:
        names = ", ".join(f"@{other.id} ({other.label}, {other.kind})" for other in others)
        parts.append(
            f"You are @{agent.id} ({agent.label}). Also in this task: {names}. "
            "What you say in an answer with @id is delivered to that agent."
        )
    else:
        parts.append(f"You are @{agent.id} ({agent.label}).")
    return "\n\n".join(part.strip() for part in parts if part.strip())

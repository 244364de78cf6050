"""What a forge's GraphQL has to tell, as plain data, and how a request selects of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphql import parse
from graphql.language import ast

Json = dict[str, Any]

# Mutations that answer with what they changed.
_CHANGES = (
    "closePullRequest",
    "reopenPullRequest",
    "updatePullRequest",
    "addPullRequestReview",
    "markPullRequestReadyForReview",
    "closeIssue",
    "reopenIssue",
    "updateIssue",
)


class Answer:
    """What a request selects of plain data; a function there takes its field's arguments."""

    def __init__(self, asked: Json) -> None:
        document = parse(asked["query"])
        self._variables: Mapping[str, Any] = asked.get("variables") or {}
        self._operation: Any = document.definitions[0]
        self._fragments: dict[str, Any] = {}
        for one in document.definitions:
            if isinstance(one, ast.FragmentDefinitionNode):
                self._fragments[one.name.value] = one
            elif isinstance(one, ast.OperationDefinitionNode):
                self._operation = one

    def of(self, root: Json) -> Any:
        return self._part(self._operation.selection_set, root)

    def _part(self, selected: Any, value: Any) -> Any:
        if isinstance(value, list):
            return [self._part(selected, one) for one in value]
        if selected is None or value is None:
            return value
        found: Json = {}
        for one in selected.selections:
            if isinstance(one, ast.FieldNode):
                here = value.get(one.name.value)
                if callable(here):
                    here = here({each.name.value: self._value(each.value) for each in one.arguments or ()})
                key = one.alias.value if one.alias else one.name.value
                found[key] = self._part(one.selection_set, here)
                continue
            fragment = self._fragments[one.name.value] if isinstance(one, ast.FragmentSpreadNode) else one
            if fragment.type_condition.name.value in (value.get("__typename"), "Repository", "Actor"):
                found |= self._part(fragment.selection_set, value)
        return found

    def _value(self, node: Any) -> Any:
        if isinstance(node, ast.VariableNode):
            return self._variables.get(node.name.value)
        if isinstance(node, ast.ObjectValueNode):
            return {field.name.value: self._value(field.value) for field in node.fields}
        return getattr(node, "value", None)


def _list(*items: Json) -> Json:
    page = {"hasNextPage": False, "endCursor": "x"}
    return {
        "nodes": list(items),
        "edges": [{"node": item} for item in items],
        "totalCount": len(items),
        "issueCount": len(items),
        "pageInfo": page,
    }


def work(name: str, url: str, number: int, kind: str) -> Json:
    where = "pull" if kind == "PullRequest" else "issues"
    empty = ("labels", "assignees", "comments", "projectCards", "reviews", "latestReviews", "reviewRequests")
    check = {
        "__typename": "CheckRun",
        "name": "tests",
        "status": "COMPLETED",
        "conclusion": "SUCCESS",
        "startedAt": "2026-01-01T00:00:00Z",
        "completedAt": "2026-01-01T00:01:00Z",
        "detailsUrl": f"{url}/{name}/runs/1",
        "checkSuite": {"workflowRun": {"workflow": {"name": "ci"}}},
    }
    rollup = {"contexts": _list(check), "state": "SUCCESS"}
    return {
        "__typename": kind,
        "id": f"{kind}_{name}_{number}",
        "number": number,
        "title": f"{kind} {number} of {name}",
        "body": "words",
        "state": "OPEN",
        "url": f"{url}/{name}/{where}/{number}",
        "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-01T00:00:00Z",
        "author": {"login": "ada", "id": "U_ada"},
        "headRefName": "topic",
        "baseRefName": "main",
        "isCrossRepository": False,
        "isDraft": False,
        "reactionGroups": [],
        "headRepositoryOwner": {"login": name.partition("/")[0]},
        "commits": _list({"commit": {"oid": "0" * 40, "statusCheckRollup": rollup}}),
        "statusCheckRollup": _list({"commit": {"statusCheckRollup": rollup}}),
        **{each: _list() for each in empty},
    }


def repository(name: str, url: str) -> Json:
    owner, _, short = name.partition("/")
    issues, pulls = [work(name, url, 1, "Issue")], [work(name, url, 2, "PullRequest")]

    def one(arguments: Json) -> Json | None:
        return next((each for each in issues + pulls if each["number"] == arguments["number"]), None)

    run = {
        "id": 7,
        "name": "ci",
        "display_title": "one",
        "status": "completed",
        "conclusion": "success",
        "event": "push",
        "head_branch": "main",
        "workflow_id": 3,
        "jobs_url": f"{url}/api/v3/repos/{name}/actions/runs/7/jobs",
        "run_started_at": "2026-01-01T00:00:00Z",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:01:00Z",
    }
    return {
        "__typename": "Repository",
        "id": f"R_{name}",
        "name": short,
        "nameWithOwner": name,
        "description": f"all of {name}",
        "url": f"{url}/{name}",
        "owner": {"id": "U_o", "login": owner},
        "defaultBranchRef": {"name": "main"},
        "viewerPermission": "WRITE",
        "hasIssuesEnabled": True,
        "isPrivate": True,
        "issue": one,
        "pullRequest": one,
        "issueOrPullRequest": one,
        "issues": lambda arguments: _list(*issues),
        "pullRequests": lambda arguments: _list(
            *(each for each in pulls if arguments.get("headRefName") in (None, each["headRefName"]))
        ),
        "issueTemplates": [],
        "pullRequestTemplates": [],
        "rest": {
            "": {"full_name": name},
            "actions/runs": {"total_count": 1, "workflow_runs": [run]},
            "actions/runs/7": run,
            "actions/runs/7/artifacts": {"total_count": 0, "artifacts": []},
            "actions/runs/7/jobs": {"total_count": 0, "jobs": []},
            "pulls/2": {},
            "actions/workflows": {
                "total_count": 1,
                "workflows": [{"id": 3, "name": "ci", "state": "active"}],
            },
            "actions/workflows/3": {"id": 3, "name": "ci", "state": "active"},
        },
        "lists": (issues, pulls),
    }


def root(data: Mapping[str, Json], members: Mapping[str, set[str]], login: str, url: str) -> Json:
    """All that this user can ask for. data: repositories; members: who may see each; url: of the forge."""

    def found(arguments: Json) -> Json | None:
        name = f"{arguments['owner']}/{arguments['name']}".lower()
        return data[name] if login in members.get(name, ()) else None

    def named(identifier: str) -> Json:
        return next(one for one in data.values() if one["id"] == identifier)

    def create(kind: str, key: str) -> Any:
        def made(arguments: Json) -> Json:
            given = arguments["input"]
            found = named(given["repositoryId"])
            issues, pulls = found["lists"]
            new = work(found["nameWithOwner"], url, len(issues) + len(pulls) + 1, kind)
            new |= {"title": given["title"], "body": given.get("body", "")}
            new |= {"headRefName": given.get("headRefName", "")}
            (pulls if kind == "PullRequest" else issues).append(new)
            return {key: new}

        return made

    def comment(arguments: Json) -> Json:
        made = {"id": "C_1", "url": f"{url}/comment/1", "body": arguments["input"]["body"]}
        return {"commentEdge": {"node": made}}

    def node(arguments: Json) -> Json | None:
        work = [one for found in data.values() for some in found["lists"] for one in some]
        return next((one for one in work if one["id"] == arguments["id"]), None)

    def changed(arguments: Json) -> Json:
        given = arguments["input"]
        targets = {given.get(key) for key in ("pullRequestId", "issueId", "id")}
        work = [one for found in data.values() for some in found["lists"] for one in some]
        (target,) = (one for one in work if one["id"] in targets)
        target |= {key: given[key] for key in ("title", "body", "state") if given.get(key)}
        return {"pullRequest": target, "issue": target, "clientMutationId": None}

    return {
        **dict.fromkeys(_CHANGES, changed),
        "node": node,
        "viewer": {"login": login, "id": f"U_{login}"},
        "repository": found,
        "createPullRequest": create("PullRequest", "pullRequest"),
        "createIssue": create("Issue", "issue"),
        "addComment": comment,
        "search": lambda arguments: _list(),
        "__type": lambda arguments: {"fields": [], "enumValues": []},
    }

"""Whether a GraphQL request keeps to a task's repositories, and what its answer says of them.

A request is read whole and written anew from what was understood, so that GitHub cannot read it otherwise.
Pure: it knows the rules of graphql_types (and spec.graphql.org), and nothing of HTTP, tokens or tasks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from typing import Any

import attrs
from graphql import GraphQLError, parse, print_ast
from graphql.language import ast

from uaihost.credentials.graphql_types import MUTATIONS, PAGE, TYPES, Type

# A repository: its owner and its name, both in small letters, because GitHub does not tell them apart.
Repository = tuple[str, str]

# gh's longest query has some hundred words in 4 KiB; long texts are variables. Depth is bounded by the table,
# and for fragments by this.
MAX_LENGTH = 64 << 10
MAX_TOKENS = 2500
MAX_DEPTH = 40
# Fields with all fragments written out: a fragment that is used twice in one that is used twice grows fast.
MAX_FIELDS = 10_000
# Identifiers that are read out of one answer.
MAX_LEARNT = 10_000

# What a search may hold beside `repo:`: what narrows it. `user:` and `org:` would add to what is searched.
_QUALIFIER = re.compile(
    r"-?(assignee|author|base|commenter|created|draft|head|in|involves|is|label|linked|mentions|milestone|no|"
    r'reason|review|review-requested|reviewed-by|sort|state|status|type|updated):("[^"]*"|[^\s":()]+)\Z'
)
_WORD = re.compile(r'[^\s":()]+\Z|"[^":]*"\Z')
_EDGE_FIELDS = frozenset({"cursor", "permission", "size"})
_COUNTS = frozenset({"totalCount", "issueCount"})


class Refused(Exception):
    """The request asks for more than the task may; the text says what, in a sentence's end."""


@attrs.frozen
class Request:
    """body: what to send instead of what came. writes: whether it changes something."""

    body: bytes
    writes: bool
    _document: ast.DocumentNode = attrs.field(repr=False)
    _operation: ast.OperationDefinitionNode = attrs.field(repr=False)

    @property
    def name(self) -> str:
        """What the request calls itself, or what it does."""
        named = self._operation.name
        return named.value if named is not None else self._operation.operation.value

    def learn(self, answer: bytes) -> set[str]:
        """The identifiers in an answer that belong to the task's repositories: they may be named now."""
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            return set()
        learnt: set[str] = set()
        data = found.get("data") if isinstance(found, dict) else None
        reader = _Reader(_fragments(self._document), learnt)
        for field in reader.fields(self._operation.selection_set, None):
            kind = "Changed" if self.writes else TYPES["Query"].objects.get(field.name.value)
            if kind is not None and isinstance(data, dict):
                reader.read(field, kind, data.get(_key(field)))
        return learnt


def check(body: bytes, granted: Container[Repository], known: Container[str]) -> Request:
    """The request, when it keeps to the `granted` repositories; `known`: identifiers learnt before.

    Raises:
        Refused: it does not, or cannot be understood.
    """
    try:
        found = json.loads(body)
        query = found["query"]
        variables = found.get("variables") or {}
        if not isinstance(query, str) or not isinstance(variables, dict):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Refused("it is no GraphQL request in JSON") from None
    try:
        if len(query) > MAX_LENGTH:
            raise Refused(
                f"its query is longer than {MAX_LENGTH} characters; long texts belong into variables"
            )
        document = parse(query, no_location=True, max_tokens=MAX_TOKENS)
        operation = _operation(document)
        _Walk(_fragments(document), _values(operation, variables), granted, known).operation(operation)
        text = print_ast(document)
    except GraphQLError as error:
        raise Refused(f"its query cannot be read: {error.message}") from None
    except RecursionError:
        raise Refused("its query is nested too deeply") from None
    sent: dict[str, Any] = {"query": text, "variables": variables}
    if operation.name is not None:
        sent["operationName"] = operation.name.value
    writes = operation.operation.value == "mutation"
    return Request(json.dumps(sent).encode(), writes, document, operation)


def _operation(document: ast.DocumentNode) -> ast.OperationDefinitionNode:
    found = [one for one in document.definitions if isinstance(one, ast.OperationDefinitionNode)]
    others = [
        one
        for one in document.definitions
        if not isinstance(one, (ast.OperationDefinitionNode, ast.FragmentDefinitionNode))
    ]
    if len(found) != 1 or others or found[0].operation.value not in ("query", "mutation"):
        raise Refused("it must hold one query or one mutation")
    return found[0]


def _fragments(document: ast.DocumentNode) -> dict[str, ast.FragmentDefinitionNode]:
    found = [one for one in document.definitions if isinstance(one, ast.FragmentDefinitionNode)]
    return {one.name.value: one for one in found}


def _values(operation: ast.OperationDefinitionNode, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every variable's value as GitHub will see it; what has neither a value nor a default is not there."""
    found: dict[str, Any] = {}
    for definition in operation.variable_definitions or ():
        name = definition.variable.name.value
        if name in given:
            found[name] = given[name]
        elif definition.default_value is not None:
            found[name] = _plain(definition.default_value, {})
    return found


def _plain(node: ast.ValueNode, variables: Mapping[str, Any]) -> Any:
    """A value of the query as far as rules look at it: texts and what holds them; None for others."""
    if isinstance(node, ast.VariableNode):
        return variables.get(node.name.value)
    if isinstance(node, ast.ObjectValueNode):
        return {field.name.value: _plain(field.value, variables) for field in node.fields}
    if isinstance(node, ast.ListValueNode):
        return [_plain(one, variables) for one in node.values]
    # No rule asks for a number or for true and false.
    return node.value if isinstance(node, (ast.StringValueNode, ast.EnumValueNode)) else None


@attrs.frozen
class _Walk:
    """The way through a request, from type to type."""

    fragments: Mapping[str, ast.FragmentDefinitionNode]
    variables: Mapping[str, Any]
    granted: Container[Repository]
    known: Container[str]
    seen: list[None] = attrs.field(factory=list)

    def operation(self, operation: ast.OperationDefinitionNode) -> None:
        for one in (operation, *(operation.variable_definitions or ()), *self.fragments.values()):
            _no_directives(one)
        if operation.operation.value == "query":
            self._selection(operation.selection_set, "Query", 0)
            return
        for field in operation.selection_set.selections:
            if not isinstance(field, ast.FieldNode):
                raise Refused("a mutation must name what it does without fragments")
            self._mutation(field)

    def _mutation(self, field: ast.FieldNode) -> None:
        name = field.name.value
        rule = MUTATIONS.get(name)
        if rule is None:
            raise Refused(f"`{name}` is left to people")
        arguments = self._arguments(field)
        given = arguments.get("input")
        if set(arguments) != {"input"} or not isinstance(given, dict):
            raise Refused(f"`{name}` takes one `input`")
        for key in sorted({*given} - {rule.target} - rule.others):
            raise Refused(f"`{name}` may not set `{key}`")
        for key in (rule.target, *sorted(rule.named & {*given})):
            self._known(given.get(key), f"`{key}` of `{name}`")
        # Else a branch of another repository, which the owner can read, would be shown in this one.
        if ":" in str(given.get("headRefName")):
            raise Refused("a task's pull request is of a branch of its own repository")
        for key, allowed in rule.values.items():
            if given.get(key) not in allowed:
                raise Refused(f"`{key}` of `{name}` must be one of {', '.join(sorted(allowed))}")
        _no_directives(field)
        self._selection(field.selection_set, "Changed", 1)

    def _selection(self, selections: ast.SelectionSetNode | None, kind: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Refused("its query is nested too deeply")
        rule = TYPES[kind]
        for one in selections.selections if selections else ():
            self.seen.append(None)
            if len(self.seen) > MAX_FIELDS:
                raise Refused("its query is too large")
            _no_directives(one)
            if isinstance(one, ast.FieldNode):
                self._field(one, kind, rule, depth)
            else:
                below, narrowed = _fragment(one, self.fragments)
                self._selection(below, _narrowed(kind, narrowed), depth + 1)

    def _field(self, field: ast.FieldNode, kind: str, rule: Type, depth: int) -> None:
        name = field.name.value
        if name == "__typename" or name in rule.plain:
            if field.selection_set is not None:
                raise Refused(f"`{name}` of {kind} has no parts")
            return
        to = rule.objects.get(name)
        if to is None:
            raise Refused(f"`{name}` of {kind} is not among what a task may see")
        if field.selection_set is None:
            raise Refused(f"`{name}` of {kind} needs a selection")
        if kind == "Query":
            self._entry(field, name)
        if to.startswith("["):
            self._connection(field.selection_set, to[1:-1], depth + 1)
        else:
            self._selection(field.selection_set, to, depth + 1)

    def _connection(self, selections: ast.SelectionSetNode, item: str, depth: int) -> None:
        for one in selections.selections:
            _no_directives(one)
            if not isinstance(one, ast.FieldNode):
                raise Refused("a list must be asked for without fragments")
            name = one.name.value
            if name == "nodes":
                self._selection(one.selection_set, item, depth + 1)
            elif name == "edges":
                for inner in one.selection_set.selections if one.selection_set else ():
                    if not isinstance(inner, ast.FieldNode):
                        raise Refused("a list must be asked for without fragments")
                    _no_directives(inner)
                    if inner.name.value == "node":
                        self._selection(inner.selection_set, item, depth + 2)
                    elif inner.name.value not in _EDGE_FIELDS:
                        raise Refused(f"`{inner.name.value}` of a list is not among what a task may see")
            elif name == "pageInfo":
                for inner in one.selection_set.selections if one.selection_set else ():
                    if not isinstance(inner, ast.FieldNode) or inner.name.value not in PAGE.plain:
                        raise Refused("`pageInfo` has other parts")
            elif name not in _COUNTS and name != "__typename":
                raise Refused(f"`{name}` of a list is not among what a task may see")

    def _entry(self, field: ast.FieldNode, name: str) -> None:
        """What leads into GitHub's data must lead to a repository of the task."""
        arguments = self._arguments(field)
        if name == "repository":
            owner, repository = arguments.get("owner"), arguments.get("name")
            if not isinstance(owner, str) or not isinstance(repository, str):
                raise Refused("`repository` needs `owner` and `name`")
            if (owner.lower(), repository.lower()) not in self.granted:
                raise Refused(f"{owner[:40]}/{repository[:100]} is not a repository of this task")
        elif name == "node":
            self._known(arguments.get("id"), "the `id` of `node`")
        elif name == "search":
            self._search(arguments)

    def _search(self, arguments: Mapping[str, Any]) -> None:
        text, kind = arguments.get("query"), arguments.get("type")
        if kind != "ISSUE" or not isinstance(text, str) or not text.isprintable():
            raise Refused("a task may search for issues and pull requests only")
        repositories = 0
        for word in re.findall(r'(?:[^\s"]|"[^"]*")+|"', text):
            if word.startswith("repo:"):
                owner, _, name = word.removeprefix("repo:").strip('"').lower().partition("/")
                if (owner, name) not in self.granted:
                    raise Refused(f"{word[:100]} is not a repository of this task")
                repositories += 1
            elif word in ("OR", "AND", "NOT") or not (_QUALIFIER.match(word) or _WORD.match(word)):
                raise Refused(f"a task's search may not hold {word[:40]!r}")
        if repositories != 1:
            raise Refused("a task's search must name one of its repositories, as repo:OWNER/NAME")

    def _known(self, value: Any, what: str) -> None:
        if not isinstance(value, str) or value not in self.known:
            raise Refused(
                f"{what} names nothing that this task was shown of its repositories; ask for the pull "
                "request, issue or repository by its number or name first"
            )

    def _arguments(self, field: ast.FieldNode) -> dict[str, Any]:
        found = {one.name.value: _plain(one.value, self.variables) for one in field.arguments or ()}
        if len(found) != len(field.arguments or ()):
            raise Refused("an argument stands twice")
        return found


@attrs.frozen
class _Reader:
    """The way through an answer, along the request that it answers."""

    fragments: Mapping[str, ast.FragmentDefinitionNode]
    learnt: set[str]

    def fields(self, selections: ast.SelectionSetNode | None, kind: str | None) -> list[ast.FieldNode]:
        """All fields of a selection, with those of its fragments."""
        found: list[ast.FieldNode] = []
        for one in selections.selections if selections else ():
            if isinstance(one, ast.FieldNode):
                found.append(one)
            else:
                found += self.fields(_fragment(one, self.fragments)[0], kind)
        return found

    def read(self, field: ast.FieldNode, kind: str, value: Any) -> None:
        if kind.startswith("["):
            item = kind[1:-1]
            if isinstance(value, dict):
                for one in self.fields(field.selection_set, None):
                    self._items(one, item, value.get(_key(one)))
            return
        if isinstance(value, list):
            for one in value:
                self.read(field, kind, one)
        elif isinstance(value, dict):
            self._object(field.selection_set, kind, value)

    def _items(self, field: ast.FieldNode, item: str, value: Any) -> None:
        for one in value if isinstance(value, list) else ():
            if not isinstance(one, dict):
                continue
            if field.name.value == "nodes":
                self._object(field.selection_set, item, one)
            elif field.name.value == "edges":
                for inner in self.fields(field.selection_set, None):
                    node = one.get(_key(inner))
                    if inner.name.value == "node" and isinstance(node, dict):
                        self._object(inner.selection_set, item, node)

    def _object(self, selections: ast.SelectionSetNode | None, kind: str, value: Mapping[str, Any]) -> None:
        for one in selections.selections if selections else ():
            if not isinstance(one, ast.FieldNode):
                below, narrowed = _fragment(one, self.fragments)
                self._object(below, _narrowed(kind, narrowed), value)
                continue
            name, found = one.name.value, value.get(_key(one))
            if name == "id" and TYPES[kind].identified:
                if isinstance(found, str) and len(self.learnt) < MAX_LEARNT:
                    self.learnt.add(found)
            elif name in TYPES[kind].objects:
                self.read(one, TYPES[kind].objects[name], found)


def _fragment(
    one: ast.SelectionNode, fragments: Mapping[str, ast.FragmentDefinitionNode]
) -> tuple[ast.SelectionSetNode | None, str | None]:
    """What a fragment selects, and on which type."""
    if isinstance(one, ast.InlineFragmentNode):
        return one.selection_set, one.type_condition.name.value if one.type_condition else None
    assert isinstance(one, ast.FragmentSpreadNode)
    found = fragments.get(one.name.value)
    if found is None:
        raise Refused(f"the fragment {one.name.value[:40]} is not there")
    return found.selection_set, found.type_condition.name.value


def _narrowed(kind: str, to: str | None) -> str:
    if to is None:
        return kind
    found = TYPES[kind].narrows.get(to)
    if found is None:
        raise Refused(f"{kind} is no {to[:40]} here")
    return found


def _no_directives(node: Any) -> None:
    if getattr(node, "directives", None):
        raise Refused("a task's query may hold no directives")


def _key(field: ast.FieldNode) -> str:
    """What the field is called in the answer."""
    return (field.alias or field.name).value

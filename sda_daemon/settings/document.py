"""YAML with the positions of its keys. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from sda_daemon.errors import ConfigError, Problem
from sda_daemon.settings.structure import Where, dotted


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was given: a file with line and column from 1, or (line 0) an environment variable."""

    source: str
    line: int = 0
    column: int = 0


@dataclass(slots=True)
class Document:
    """A YAML mapping: its plain values, and where each of them stands."""

    source: str
    data: dict[str, Any]
    origins: dict[Where, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def origin(self, where: Where) -> Origin:
        """Return where a value, or else what it is inside of, was given."""
        for length in range(len(where), -1, -1):
            found = self.origins.get(where[:length])
            if found is not None:
                return found
        return Origin(self.source)

    def complain(self, where: Where, message: str) -> None:
        """Add a problem."""
        origin = self.origin(where)
        self.problems.append(Problem(origin.source, origin.line, origin.column, dotted(where), message))


class _NoAliasLoader(yaml.SafeLoader):
    """For files of which nothing is expected but a few plain lines."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not possible here", mark)
        return super().compose_node(parent, index)


def parse_document(text: str, source: str, *, aliases: bool = True, empty_hint: str = "") -> Document:
    """Parse YAML with the safe loader; keys that are given twice are problems.

    Args:
        text: YAML.
        source: the file's name, for messages.
        aliases: whether anchors may be referred to.
        empty_hint: what to say about an empty file.

    Raises:
        ConfigError: not YAML, or not a mapping.
    """
    try:
        loader = (yaml.SafeLoader if aliases else _NoAliasLoader)(text)
        try:
            node = loader.get_single_node()
            # The walk comes first: constructing resolves merge keys (<<) in the nodes themselves.
            document = Document(source, {}, {(): Origin(source, 1, 1)})
            _walk(document, node, (), set())
            data = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = "this is not YAML: " + _explain(error, text.splitlines()[line - 1 : line])
        raise ConfigError(problems=[Problem(source, line, column, "", message)]) from error
    except yaml.reader.ReaderError as error:
        message = f"this is not YAML: there is a character that is not text (#x{error.character:04x})"
        raise ConfigError(problems=[Problem(source, 0, 0, "", message)]) from error
    except RecursionError as error:
        raise ConfigError(problems=[Problem(source, 0, 0, "", "it is nested too deeply")]) from error
    except (yaml.YAMLError, ValueError) as error:
        # Python's own words for a number of more than 4,300 digits advise a programmer.
        reason = "a number in it has more digits than can be read" if "int_max_str_digits" in str(error) else error
        raise ConfigError(problems=[Problem(source, 0, 0, "", f"this is not YAML: {reason}")]) from error
    if data is None:
        message = "the file is empty" + (f"; {empty_hint}" if empty_hint else "")
        raise ConfigError(problems=[Problem(source, 0, 0, "", message)])
    if not isinstance(data, dict):
        kind = {"list": "a list", "str": "text"}.get(type(data).__name__, f"a {type(data).__name__}")
        raise ConfigError(problems=[Problem(source, 1, 1, "", f"it must hold keys and values, but it is {kind}")])
    document.data = data
    return document


def _explain(error: yaml.MarkedYAMLError, lines: list[str]) -> str:
    problem = error.problem or ""
    if not problem or problem.startswith("but "):
        problem = f"{error.context}, {problem}"
    if "\\t" in problem:
        return f"{problem}; indent with spaces, not with tabs"
    if any("{{" in line or "{%" in line for line in lines):
        return f'{problem}; a template needs quotes around it: "{{{{ run }}}}"'
    if "constructor for the tag" in problem:
        return f"{problem}; only plain values are possible"
    return problem


def _walk(document: Document, node: yaml.Node | None, where: Where, seen: set[int]) -> None:
    """Note where everything stands; what an alias repeats is not walked again, it may contain itself."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            place = (*where, name)
            if name in lines and name != "<<":
                message = f"this key is given twice, already in line {lines[name]}; keep one of them"
                mark = key.start_mark
                problem = Problem(document.source, mark.line + 1, mark.column + 1, dotted(place), message)
                document.problems.append(problem)
            lines[name] = key.start_mark.line + 1
            document.origins[place] = Origin(document.source, lines[name], key.start_mark.column + 1)
            _walk(document, value, place, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            place = (*where, index)
            document.origins[place] = Origin(document.source, value.start_mark.line + 1, value.start_mark.column + 1)
            _walk(document, value, place, seen)


def scalars_of(data: Any, where: Where = ()) -> Mapping[Where, Any]:
    """Return every single value below a plain value by its place."""
    if isinstance(data, dict):
        parts = [scalars_of(value, (*where, str(key))) for key, value in data.items()]
    elif isinstance(data, list | tuple):
        parts = [scalars_of(value, (*where, index)) for index, value in enumerate(data)]
    else:
        return {where: data}
    return {place: value for part in parts for place, value in part.items()}

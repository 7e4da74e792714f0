"""Renders templates, and tries them on made-up checkpoints before they are believed. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateSyntaxError
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import SandboxedEnvironment

from sda_daemon.errors import TemplateError
from sda_daemon.templates.budget import Budget, OverBudgetError, cpu_limit, current
from sda_daemon.templates.facts import DEEP_PARTS, EXAMPLES, OPEN_FACTS
from sda_daemon.templates.sandbox import BoundedEnvironment, suggest

MAX_SOURCE_CHARS = 4_000
MAX_RENDERED_CHARS = 10_000


@lru_cache(maxsize=1)
def _environment() -> SandboxedEnvironment:
    return BoundedEnvironment()


@lru_cache(maxsize=256)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


@lru_cache(maxsize=256)
def _compiled_condition(source: str) -> Callable[[Mapping[str, Any]], Any]:
    return _environment().compile_expression(source, undefined_to_none=False)


class ShallowPathError(TemplateError):
    """A template asks for a folder of `parts` that is not there; in a tree that is deeper, it may be."""


class _MissingInOpenFactError(TemplateError):
    """A key that the examples of a trainer's dict lack, and that is not like one of them either."""


def _run(source: str, facts: Mapping[str, Any], what: Callable[[], Any]) -> Any:
    """Compile and run within the limits; say what is wrong in words that a config's author understands."""
    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateError(f"it is longer than {MAX_SOURCE_CHARS} characters")
    budget = Budget(facts)
    token = current.set(budget)
    try:
        with cpu_limit():
            return what()
    except TemplateSyntaxError as error:
        raise TemplateError(_explain_syntax(error)) from error
    except UndefinedError as error:
        raise _missing(budget, facts, str(error.message)) from error
    except SecurityError as error:
        raise TemplateError(f"it is not allowed: {error}") from error
    except OverBudgetError as error:
        raise TemplateError(f"it does too much: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise TemplateError("it is nested too deeply") from error
    except Exception as error:
        raise TemplateError(f"it fails: {error}") from error
    finally:
        current.reset(token)


def _explain_syntax(error: TemplateSyntaxError) -> str:
    message = (error.message or "").rstrip(".")
    for kind, known in (("filter", _environment().filters), ("test", _environment().tests)):
        start = f"No {kind} named '"
        if message.startswith(start):
            name = message.removeprefix(start).rstrip("'")
            names = [key for key in known if key[0].isalpha()]
            return f"there is no {kind} {name!r}; {suggest(name, names, many=60)}"
    return f"it is no template: {message}"


def _missing(budget: Budget, facts: Mapping[str, Any], message: str) -> TemplateError:
    owner, name = budget.missing or (None, "")
    if owner is not None and owner is facts.get("parts"):
        return ShallowPathError(message)
    is_open = isinstance(owner, dict) and any(owner is facts.get(key) for key in OPEN_FACTS)
    if isinstance(owner, dict) and is_open and "did you mean" not in suggest(name, map(str, owner)):
        return _MissingInOpenFactError(message)
    return TemplateError(message)


def render_text(source: str, facts: Mapping[str, Any], *, keep_lines: bool = False) -> str:
    """Render one template.

    Args:
        source: the template.
        facts: see `checkpoint_facts`.
        keep_lines: whether line breaks stay; otherwise all white space becomes single spaces.

    Raises:
        TemplateError: it does not compile, names an unknown fact, leaves the sandbox, does too much or fails.
    """
    text: str = _run(source, facts, lambda: _compiled(source).render(facts))
    if len(text) > MAX_RENDERED_CHARS:
        raise TemplateError(f"it gives {len(text)} characters, more than anyone would read")
    return text.strip() if keep_lines else " ".join(text.split())


def render_number(source: str, facts: Mapping[str, Any], wanted: type[int] | type[float]) -> int | float:
    """Render a template that gives a number; one that gives nothing is 0.

    Raises:
        TemplateError: as for `render_text`, or it gives no finite number that is 0 or more.
    """
    text = render_text(source, facts)
    try:
        number = float(text or 0)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise TemplateError(f"it gives {text!r}, which is no number from 0 on")
    return wanted(number)


def holds(source: str, facts: Mapping[str, Any]) -> bool:
    """Tell whether a condition, a Jinja2 expression such as `epoch >= 100`, holds.

    Raises:
        TemplateError: as for `render_text`.
    """
    return bool(_run(source, facts, lambda: bool(_compiled_condition(source)(facts))))


# --- before they are believed ---------------------------------------------------------------------


def try_text(source: str) -> None:
    """Compile a template and try it on the made-up checkpoints.

    Raises:
        ShallowPathError: it asks for a folder of `parts` that only a very deep tree has.
        TemplateError: it fails; the message says what would be right and for which checkpoints it fails.
    """
    _try(_names_in(source), lambda facts: render_text(source, facts))


def try_number(source: str) -> None:
    """Try a template that is to give a number; see `try_text`."""
    _try(_names_in(source), lambda facts: render_number(source, facts, float))


def try_condition(source: str) -> None:
    """Try a condition; see `try_text`."""
    _try(_names_in(f"{{{{ {source} }}}}"), lambda facts: holds(source, facts))


def _names_in(template: str) -> set[str]:
    """Return the names that a template asks for, in branches too that the examples do not come to."""
    try:
        return find_undeclared_variables(_environment().parse(template))
    except (TemplateSyntaxError, RecursionError):
        return set()  # the trial says what is wrong


def _try(names: set[str], run: Callable[[Mapping[str, Any]], object]) -> None:
    for name in sorted(names):
        if name not in EXAMPLES[0].facts and name not in _environment().globals:
            raise TemplateError(f"there is no fact {name!r}; {suggest(name, EXAMPLES[0].facts)}")
    for index, example in enumerate(EXAMPLES):
        try:
            run(example.facts)
        except _MissingInOpenFactError:
            continue  # the trainer may write what the examples do not have
        except ShallowPathError as error:
            try:
                run({**example.facts, "parts": DEEP_PARTS})
            except ShallowPathError:
                raise error from None
        except TemplateError as error:
            if index == 0:
                raise
            raise TemplateError(f"{error.what}; this is so for {example.what}") from error

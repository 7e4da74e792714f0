"""The Jinja2 environment of metadata templates: it can compute and format, and nothing else.

On top of Jinja2's own sandbox: only the statements, filters and kinds of values that a line of text needs;
attributes only of plain values; and every loop, call, filter and operator spends from a budget.
"""

from __future__ import annotations

import difflib
import functools
import re
import string
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import _PassArg, missing
from jinja2.visitor import NodeTransformer

from sda_daemon.templates.budget import MAX_BITS, MAX_WEIGHT, MAX_WORK, OverBudgetError, current, magnitude, weighed
from sda_daemon.templates.filters import FILTERS

_STATEMENTS = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Assign)
_FORBIDDEN_EXPRESSIONS = (
    nodes.EnvironmentAttribute,
    nodes.ExtensionAttribute,
    nodes.ImportedName,
    nodes.InternalName,
    nodes.ContextReference,
    nodes.DerivedContextReference,
    nodes.NSRef,
    nodes.MarkSafe,
    nodes.MarkSafeIfAutoescape,
)
_FILTERS_OF_JINJA = """
    abs capitalize count d default dictsort filesizeformat first float format int items join last length list
    lower map max min reject rejectattr replace reverse round select selectattr sort string sum title trim
    truncate unique upper wordcount
"""
_TESTS_OF_JINJA = """
    boolean defined divisibleby eq equalto even false float ge greaterthan gt in integer iterable le lessthan lower
    lt mapping ne none number odd sequence string true undefined upper == != > >= < <=
"""
_PLAIN = (str, int, float, bool, list, tuple, dict, datetime, date, time, timedelta, range)
_LONG_DIGITS = re.compile(r"\d{4,}")
_PERCENT_STAR = re.compile(r"%[^a-zA-Z%]*\*")
_MEMBER = re.compile(r"[.\[]")


class StrictFact(StrictUndefined):
    """A fact that does not exist; it is an error to do anything with it."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return str(self._undefined_hint)
        budget = current.get()
        name = str(self._undefined_name)
        owner = self._undefined_obj
        is_fact = owner is missing
        budget.missing = (None if is_fact else owner, name)
        if is_fact:
            return f"there is no fact {name!r}; {suggest(name, budget.facts)}"
        where = next((key for key, value in budget.facts.items() if value is owner), "")
        if owner is None:
            empty = ", ".join(key for key, value in budget.facts.items() if value is None) or "something"
            return f"{name!r} is asked of what is none ({empty}); guard it: {{{{ ... if {empty} }}}}"
        if isinstance(owner, dict):
            return f"there is no {name!r} in {where or 'this dict'}; {suggest(name, map(str, owner))}"
        if isinstance(owner, list | tuple):
            return f"{where or 'the list'} has only {len(owner)} items, there is no number {name}"
        return f"{where or repr(owner)} ({type(owner).__name__}) has no {name!r}"


def suggest(name: str, known: Iterable[str], many: int = 30) -> str:
    """Return `did you mean …?`, or else what is known."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    listed = ", ".join(names[:many]) + (", ..." if len(names) > many else "")
    return f"known: {listed}" if names else "it is empty"


class _Instrument(NodeTransformer):
    """Refuses what is not needed and lets loops and literals spend from the budget."""

    def __init__(self, environment: ImmutableSandboxedEnvironment) -> None:
        self._environment = environment

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        allowed = isinstance(node, _STATEMENTS) or not isinstance(node, nodes.Stmt)
        if not allowed or isinstance(node, _FORBIDDEN_EXPRESSIONS) or getattr(node, "recursive", False):
            what = type(node).__name__.lower()
            raise TemplateSyntaxError(f"{what!r} is more than a metadata template may use", node.lineno)
        for kind, known in ((nodes.Filter, self._environment.filters), (nodes.Test, self._environment.tests)):
            # Jinja2 itself looks only when it comes there, if it stands inside an `if`.
            if isinstance(node, kind) and node.name not in known:
                raise TemplateSyntaxError(f"No {kind.__name__.lower()} named {node.name!r}.", node.lineno)
        super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.For):
            node.iter = self._through("_each", node.iter)
        if isinstance(node, nodes.Concat | nodes.List | nodes.Dict) or (
            isinstance(node, nodes.Tuple) and node.ctx == "load"
        ):
            return self._through("_weighed", node)
        return node

    @staticmethod
    def _through(name: str, node: Any) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _each(value: Any) -> Any:
    """Spend for every turn of a loop before it begins."""
    items = weighed(value)
    budget = current.get()
    budget.spend(len(items) + 1)
    return items


def _bounded_range(*limits: int) -> range:
    """`range`, but short."""
    made = range(*limits)
    if len(made) > MAX_WEIGHT:
        raise OverBudgetError(f"range{limits} is longer than {MAX_WEIGHT}")
    return made


def _guarded(function: Callable[..., Any], skipped: int) -> Callable[..., Any]:
    """Wrap a filter or test; `skipped` is 1 where Jinja2 passes its context first."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        current.get().spend()
        value, *others = args[skipped:]
        _check_work(value, [*others, *kwargs.values()])
        if function.__name__ == "do_format":
            _check_percent_format(str(value))
        if function.__name__ in ("date", "time_of_day"):
            _check_digits(" ".join(map(str, [*others, *kwargs.values()])))
        return weighed(function(*args, **kwargs))

    return guarded


def _check_work(value: Any, arguments: list[Any]) -> None:
    largest = max(map(magnitude, arguments), default=1) if isinstance(value, str | bytes | list | tuple) else 1
    size = magnitude(value) if isinstance(value, str | bytes | list | tuple) else 1
    if size * largest > MAX_WORK:
        raise OverBudgetError("it would make a very long text")


def _check_percent_format(text: str) -> None:
    if _PERCENT_STAR.search(text):
        raise OverBudgetError("a width of * is not possible here")
    _check_digits(text)


def _check_digits(text: str) -> None:
    if match := _LONG_DIGITS.search(text):
        raise OverBudgetError(f"a width of {match[0]} is too large")


def _bounded_format(text: str) -> Callable[..., str]:
    """`str.format` without widths beyond reason, attributes, items and nested fields."""

    def bounded_format(*args: Any, **kwargs: Any) -> str:
        for _, field, spec, _conversion in string.Formatter().parse(text):
            if "{" in (spec or ""):
                raise SecurityError("a format inside a format is not possible here")
            if _MEMBER.search(field or ""):
                raise SecurityError(f"{{{field}}} reaches into a value; write it before the format")
            _check_digits(spec or "")
        return text.format(*args, **kwargs)

    return bounded_format


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """See the module."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        # `optimized` and a `finalize` that needs the context: nothing is computed when a template is compiled.
        super().__init__(undefined=StrictFact, autoescape=False, optimized=False, finalize=_finalize, cache_size=0)
        self.globals = {"range": _bounded_range}
        own = {name: _guarded(function, 0) for name, function in FILTERS.items()}
        filters = {name: _guarded_jinja(self.filters[name]) for name in _FILTERS_OF_JINJA.split()}
        self.filters = {**filters, **own, "_each": _each, "_weighed": weighed}
        self.tests = {name: _guarded_jinja(self.tests[name]) for name in _TESTS_OF_JINJA.split()}

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        _Instrument(self).visit(source)
        return super()._generate(source, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only what does not begin with `_`, of plain values."""
        return isinstance(obj, (*_PLAIN, LoopContext)) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Replace `str.format`; `format_map` is not possible."""
        if super().wrap_str_format(value) is None:
            return None
        if value.__name__ == "format_map":
            raise SecurityError("format_map is not possible here; use format")
        return _bounded_format(value.__self__)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method of a plain value, or `range`."""
        current.get().spend()
        if isinstance(__obj, StrictUndefined):
            __obj._fail_with_undefined_error()
        owner = getattr(__obj, "__self__", None)
        is_format = getattr(__obj, "__name__", "") == "bounded_format"
        if not (isinstance(owner, (*_PLAIN, LoopContext)) or __obj is _bounded_range or is_format):
            raise SecurityError(f"{getattr(__obj, '__name__', type(__obj).__name__)} cannot be called here")
        if getattr(__obj, "__name__", "") in ("strftime", "__format__"):
            _check_digits(" ".join(map(str, args)))
        arguments = [*args, *kwargs.values()]
        if isinstance(owner, int) and max(map(magnitude, arguments), default=0) > MAX_WEIGHT:
            raise OverBudgetError("a number is too large")
        _check_work(owner, arguments)
        return weighed(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right`, if that is small."""
        current.get().spend()
        if operator == "*":
            for text, count in ((left, right), (right, left)):
                if isinstance(text, str | bytes | list | tuple) and isinstance(count, int):
                    _check_work(text, [count])
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > MAX_BITS:
                raise OverBudgetError(f"{left} ** {right} is too large a number")
        elif operator == "%" and isinstance(left, str):
            _check_percent_format(left)
        return weighed(super().call_binop(context, operator, left, right))


def _guarded_jinja(function: Any) -> Callable[..., Any]:
    return _guarded(function, int(_PassArg.from_obj(function) is not None))


@pass_context
def _finalize(_context: Context, value: Any) -> Any:
    """Spend for what is written out; a missing value is written as nothing."""
    current.get().spend()
    if value is None:
        return ""
    if not isinstance(value, (*_PLAIN, StrictUndefined)) and not hasattr(value, "__iter__"):
        name = getattr(value, "__name__", type(value).__name__)
        raise SecurityError(f"{name} is no value; a function is called with ()")
    return weighed(value)

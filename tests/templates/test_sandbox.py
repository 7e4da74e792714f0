"""Templates can compute and format, and do nothing else: no way out, no endless work, no large values."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.errors import TemplateError
from sda_daemon.templates import EXAMPLES, holds, render_text, try_condition, try_number, try_text
from sda_daemon.templates.budget import OverBudgetError, cpu_limit

FACTS = EXAMPLES[0].facts
NESTED = "{{% set a = {start} %}}" + "{{% set a = {step} %}}" * 60 + "{{{{ a }}}}"

WAYS_OUT = [
    "{{ ''.__class__.__mro__ }}",
    "{{ run['__class__'] }}",
    "{{ ().__class__.__bases__[0].__subclasses__() }}",
    "{{ run | attr('__class__') }}",
    "{{ [run] | map(attribute='__class__') | list }}",
    "{{ [run] | map('attr', '__class__') | list }}",
    "{{ training | dictsort | map(attribute='0.__class__') | list }}",
    "{{ '{0.__class__}'.format(run) }}",
    "{{ '{0[__class__]}'.format(run) }}",
    "{{ '{a.__init__.__globals__}'.format(a=run) }}",
    "{{ '{:{}}'.format(run, run.__class__) }}",
    "{{ run.format_map(training) }}",
    "{{ ('{0.__cl' ~ 'ass__}').format(run) }}",
    "{{ ['{0.__class__}'] | map('format', run) | first.x }}",
    "{{ self }}",
    "{{ self._TemplateReference__context }}",
    "{{ self.__init__.__globals__ }}",
    "{{ range.__globals__ }}",
    "{{ range.__call__(3) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner }}",
    "{{ lipsum.__globals__ }}",
    "{{ namespace(a=1) }}",
    "{{ dict(a=1) }}",
    "{{ loop }}",
    "{% for a in run %}{{ loop.__class__ }}{% endfor %}",
    "{% for a in run %}{{ loop._iterator }}{% endfor %}",
    "{{ training.__init__ }}",
    "{{ training.update({'a': 1}) }}",
    "{{ training.pop('preset') }}",
    "{{ parts.append('x') }}",
    "{{ mtime.now() }}",
    "{{ mtime.fromtimestamp(0) }}",
    "{{ mtime.tzinfo.utc }}",
    "{{ run.upper }}",
    "{{ run() }}",
    "{{ [range][0].__self__ }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as a %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% block x %}{% endblock %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% call run() %}{% endcall %}",
    "{% filter upper %}x{% endfilter %}",
    "{% autoescape true %}x{% endautoescape %}",
    "{% set training.preset = 'x' %}",
    "{% do run %}",
    "{% debug %}",
]

TOO_MUCH = [
    "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "{% for a in run %}" * 12 + "{% endfor %}" * 12,
    "{% for a in range(9999) %}{{ 'a' * 9000 }}{% endfor %}",
    "{{ range(10 ** 9) | list }}",
    "{{ range(10 ** 18) }}",
    "{{ range(9999) | map('string') | map('upper') | map('lower') | join }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ 2 ** -999999999 }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ 10 ** 10 * 'a' }}",
    "{{ [1] * 10 ** 9 }}",
    "{{ (1, 2) * 10 ** 9 }}",
    "{{ 'x'.ljust(10 ** 9) }}",
    "{{ 'x'.rjust(10 ** 9) }}",
    "{{ 'x'.center(10 ** 9) }}",
    "{{ 'x'.zfill(10 ** 9) }}",
    "{{ ('\\t' * 9000).expandtabs(9000) }}",
    "{{ ('ab' * 900).replace('', 'x' * 9000) }}",
    "{{ ('a' * 9000).join(range(9000) | map('string')) }}",
    "{{ range(9000) | join(',' * 2000) }}",
    "{{ ('a' * 900) | replace('a', 'b' * 9000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%.1000000000f' % 1 }}",
    "{{ '%*d' % (10 ** 9, 1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:.1000000000f}'.format(1.0) }}",
    "{{ '{:{}}'.format(1, 10 ** 9) }}",
    "{{ mtime.strftime('%999999999Y') }}",
    "{{ mtime | date('%999999999Y') }}",
    "{{ (1).to_bytes(10 ** 9, 'big') }}",
    NESTED.format(start="['x']", step="[a, a]"),
    NESTED.format(start="{'k': 'x'}", step="{'k': a, 'l': a}"),
    NESTED.format(start="('x', 'y')", step="(a, a)"),
    NESTED.format(start="'x'", step="a ~ a"),
    NESTED.format(start="'x'", step="a + a"),
    NESTED.format(start="2", step="a * a * a * a * a * a"),
    "{% for x in [[1]] recursive %}{{ loop(x) }}{% endfor %}",
    "{{ " + "(" * 700 + "1" + ")" * 700 + " }}",
    "{{ " + "[" * 500 + "]" * 500 + " }}",
    "{{ " + "-" * 3000 + "1 }}",
    "{{ " + "not " * 900 + "1 }}",
    "{{ run" + " ~ run" * 2000 + " }}",
    "x" * 4001,
]


@pytest.mark.parametrize("template", WAYS_OUT)
def test_no_way_leads_out_of_the_sandbox(template: str) -> None:
    """Refused when the config is loaded, and when a checkpoint is converted all the same."""
    with pytest.raises(TemplateError):
        try_text(template)
    with pytest.raises(TemplateError):
        render_text(template, FACTS)


@pytest.mark.parametrize("template", TOO_MUCH, ids=lambda template: template[:40])
def test_what_would_take_for_ever_is_cut_off(template: str) -> None:
    """By counting, not by the clock: the time limit is only the backstop."""
    with pytest.raises(TemplateError, match=r"does too much|not allowed|nested too deeply|longer than|may use"):
        try_text(template)
    with pytest.raises(TemplateError, match=r"does too much|not allowed|nested too deeply|longer than|may use"):
        render_text(template, FACTS)


def test_conditions_are_held_to_the_same() -> None:
    """They are expressions in the same sandbox."""
    for condition in (
        "''.__class__",
        "range(9999) | map('upper') | list",
        "10 ** 10 ** 10",
        "epoch > 3 }}{{ x",
        "nosuch",
    ):
        with pytest.raises(TemplateError):
            try_condition(condition)


def test_nothing_is_computed_when_a_template_is_compiled() -> None:
    """Jinja2 folds constants when it compiles, which would be outside of any budget."""
    from sda_daemon.templates.sandbox import BoundedEnvironment

    source = BoundedEnvironment().compile("{{ 10 ** 3 }} {{ 'x' | upper }} {{ ('a' * 7).ljust(9) }}", raw=True)
    assert "1000" not in source
    assert "'X'" not in source
    assert "aaaaaaa" not in source


def test_the_facts_stay_as_they_are() -> None:
    """Templates get the very dicts of a checkpoint, and cannot change them."""
    before = repr(FACTS)
    for template in WAYS_OUT:
        with pytest.raises(TemplateError):
            render_text(template, FACTS)
    assert repr(FACTS) == before


def test_the_backstop_cuts_off_what_nobody_thought_of() -> None:
    """Processor time is limited too; afterwards the signal does what it did before."""
    import signal

    before = signal.getsignal(signal.SIGVTALRM)

    def busy() -> None:
        while True:
            pass

    with pytest.raises(OverBudgetError, match=r"it takes more than 0\.05 s"), cpu_limit(0.05):
        busy()
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_rendering_works_in_other_threads() -> None:
    """Signals only reach the main thread; elsewhere the budget alone holds."""
    results: list[str] = []

    def render() -> None:
        results.append(render_text("{{ run }}", FACTS))
        with pytest.raises(TemplateError, match="does too much"):
            render_text(TOO_MUCH[0], FACTS)

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert results == ["field-recordings"]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ run }} epoch {{ epoch }}", "field-recordings epoch 190"),
        ("{{ '%.3f' | format(val_loss) }} {{ '%.1f' % train_loss }}", "0.350 0.3"),
        ("{{ '{:.2f} {:,}'.format(val_loss, size_bytes) }}", "0.35 18,873,246"),
        ("{{ val_loss | round(1) }} {{ (epoch + 1) / 2 }} {{ 2 ** 10 }}", "0.3 95.5 1024"),
        ("{{ training.preset | upper }} {{ training['batch_size'] }}", "BALANCED 16"),
        ("{{ training.regularization.dropout }}", "0.2"),
        ("{{ analysis.labels | join(', ') if analysis }}", "brightness"),
        ("{% for part in parts %}{{ loop.index }}{{ part }}{{ '/' if not loop.last }}{% endfor %}",
         "1field-recordings/2checkpoints"),
        ("{% set n = epoch + 1 %}{% if n > 100 %}late{% else %}early{% endif %} {{ n }}", "late 191"),
        ("{% for k, v in spectrogram.items() if v %}{{ k }} {% endfor %}", "sample_rate n_fft hop_length n_mels power"),
        ("{{ run.replace('-', ' ').title() }} {{ run[:5] }}", "Field Recordings field"),
        ("{{ run.split('-')[-1] }}", "recordings"),
        ("{{ mtime.year }}-{{ mtime.strftime('%m') }} {{ mtime.isoformat() }}", "2026-02 2026-02-02T02:40:00+00:00"),
        ("{{ (now - mtime) | duration }}", "1 d 1 h"),
        ("{{ 'yes' if 'field' in run and epoch is even else 'no' }}", "yes"),
        ("{{ sidecar.operator | default('unknown') }} {{ none }}|", "unknown |"),
        ("{{ range(3) | list }} {{ [3, 1, 2] | sort | last }} {{ {'a': 1}.a }}", "[0, 1, 2] 3 1"),
        ("  two\n  words ", "two words"),
        ("{# a comment #}{% raw %}{{ }}{% endraw %}", "{{ }}"),
    ],
)  # fmt: skip
def test_what_people_write_works(template: str, text: str) -> None:
    """The sandbox leaves all of Jinja2 that a line of text needs."""
    assert render_text(template, FACTS) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ epcoh }}", "there is no fact 'epcoh'; did you mean 'epoch'?"),
        ("{{ epcoh if epoch == 7 }}", "there is no fact 'epcoh'; did you mean 'epoch'?"),
        ("{{ training.batchsize }}", "there is no 'batchsize' in training; did you mean 'batch_size'?"),
        ("{{ spectrogram.colour }}", "there is no 'colour' in spectrogram; known: sample_rate, n_fft, hop_length, "
         "n_mels, f_min, f_max, power"),
        ("{{ parts[7] }}", "parts has only 2 items, there is no number 7"),
        ("{{ run.uper() }}", "run (str) has no 'uper'"),
        ("{{ [epcoh] }}", "there is no fact 'epcoh'; did you mean 'epoch'?"),
    ],
)  # fmt: skip
def test_what_is_misspelt_is_found_when_it_is_loaded(template: str, message: str) -> None:
    """With the nearest that there is, also in branches that the examples do not come to."""
    with pytest.raises(TemplateError) as caught:
        try_text(template)
    assert str(caught.value) == message


def test_what_only_the_trainer_knows_is_believed() -> None:
    """A key of training or sidecar that is like none of the known ones may be there; without it, it is an error."""
    try_text("{{ sidecar.operator }} {{ training.seed }}")
    with pytest.raises(TemplateError, match="there is no 'operator' in sidecar"):
        render_text("{{ sidecar.operator }}", FACTS)
    assert render_text("{{ sidecar.operator }}", {**FACTS, "sidecar": {"operator": "Ada"}}) == "Ada"


def test_the_examples_are_those_that_templates_fail_on() -> None:
    """No analysis, an infinite loss: the message says for which checkpoints it fails."""
    with pytest.raises(TemplateError, match=r"if analysis.*a checkpoint without analysis"):
        try_text("{{ analysis.n_active_components }}")
    with pytest.raises(TemplateError, match="cancelled within an epoch"):
        try_text("{{ val_loss | int }}")


def test_numbers_must_be_numbers() -> None:
    """For every example, finite, and not below zero."""
    try_number("{{ epoch * 2 }}")
    try_number("{{ sidecar.files | default(0) }}")
    for template in ("{{ run }}", "{{ val_loss }}", "-1", "nan"):
        with pytest.raises(TemplateError, match="no number from 0 on"):
            try_number(template)


@pytest.mark.parametrize(("condition", "result"), [("epoch >= 100 and training.preset == 'balanced'", True),
                                                   ("epoch < 100", False), ("'field' in run", True), ("true", True),
                                                   ("parts | length > 5", False)])  # fmt: skip
def test_a_condition_holds_or_not(condition: str, result: bool) -> None:
    """It is a Jinja2 expression."""
    assert holds(condition, FACTS) is result


@given(st.text(st.sampled_from("{}%ab()[]'\"|.,*+~ 0159=<>_runepoch"), max_size=60))
def test_whatever_stands_in_a_template(source: str) -> None:
    """It renders, or a TemplateError says why not."""
    try:
        assert isinstance(render_text("{{ " + source + " }}", FACTS), str)
    except TemplateError as error:
        assert str(error)  # noqa: PT017 - both are right

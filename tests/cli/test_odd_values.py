"""Odd values in an index, in model files, in paths and in the ledger.

Every command shows them, or something in their place, and is never kept from showing the others.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sda_daemon.cli.inspection import _print, document
from sda_daemon.cli.library import entry_document
from sda_daemon.cli.models.details import print_sliders
from sda_daemon.cli.models.listing import COLUMNS, KEYS, _raw
from sda_daemon.cli.output import fitting_table, human_count, human_date, human_duration, human_number, human_size
from sda_daemon.cli.schemas import SCHEMAS
from sda_daemon.library import ModelEntry, ModelLibrary
from sda_daemon.library.entry import entry_from_dict, is_bare_model_name
from sda_daemon.library.lookup import short_ids
from sda_daemon.models.inspection import Inspection, KeyOutline
from sda_daemon.plain_json import json_bytes
from sda_daemon.torchfile.globals import NameKind
from sda_daemon.torchfile.outlines import TensorOutline
from tests.cli.console import COMMAND, check_golden, environment, run
from tests.cli.odd_library import HUGE, ODD, OUTSIDE, add_odd_entries
from tests.library.model_files import write_payload
from tests.odd_texts import ODD_TEXTS

M = ("--models-dir", "models")
COMMANDS: dict[str, tuple[str, ...]] = {
    "list": ("models", "list"),
    "list --sort epochs": ("models", "list", "--sort", "epochs"),
    "list --sort val_loss": ("models", "list", "--sort", "val_loss", "--reverse"),
    "list --sort tags": ("models", "list", "--sort", "tags"),
    "list --format": (
        "models",
        "list",
        "--format",
        ",".join(key for key in KEYS if key not in ("file", "description")),
    ),
    "list --tag": ("models", "list", "--tag", "a"),
    "search": ("models", "search", "odd"),
    "verify": ("models", "verify"),
    "repair": ("models", "repair", "--dry-run"),
    "delete": ("models", "delete", *(key for key in ODD if key.isascii())),
}
STREAMS = {
    "pipe": {},
    "narrow": {"COLUMNS": "30"},
    "ASCII": {"PYTHONIOENCODING": "ascii:strict", "COLUMNS": "80"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1:strict"},
}


@pytest.fixture
def odd(library: Path) -> Path:
    """The library of three sound models, and beside them as many odd entries as there are kinds of oddness."""
    add_odd_entries(library / "models")
    return library


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_entry_spoils_a_list(command: str, stream: str, odd: Path) -> None:
    """No traceback, no control character, the sound models beside the odd ones; and never as long as the odd texts."""
    printed = subprocess.run(
        [COMMAND, *COMMANDS[command], *M],
        cwd=odd,
        env=environment(odd, TZ="America/New_York", **STREAMS[stream]),
        capture_output=True,
        check=False,
    )
    shown = printed.stdout + printed.stderr
    assert b"Traceback" not in shown
    assert b"\x1b" not in shown
    assert b"\x9b31m" not in shown.replace("\ufffd".encode(), b"")
    assert printed.returncode in (0, 1, 65), shown
    if "list" in command and "tag" not in command:
        assert b"Rain on tin" in printed.stdout or stream == "narrow"
        assert len(printed.stdout.splitlines()) == 3 + len(ODD) - len(OUTSIDE) + ("--format" not in command)
    if "--format" not in command:
        assert len(shown) < 100_000


@pytest.mark.parametrize("command", ["list", "search odd", "verify", "repair --dry-run"])
@pytest.mark.parametrize("stream", ["pipe", "ASCII", "Latin-1"])
def test_json_is_always_valid(command: str, stream: str, odd: Path) -> None:
    """Strict UTF-8, no NaN and no Infinity, of the documented types, and complete."""
    name, *arguments = command.split()
    printed = subprocess.run(
        [COMMAND, "models", name, *arguments, *M, "--json"],
        cwd=odd,
        env=environment(odd, **STREAMS[stream]),
        capture_output=True,
        check=False,
    )
    text = printed.stdout.decode("utf-8", "strict")
    document = json.loads(text, parse_constant=refuse)
    SCHEMAS[f"models {name}"].model_validate_json(text, strict=True)
    if name in ("list", "verify"):
        assert len(document) == 3 + len(ODD) - len(OUTSIDE)
    if name == "list":
        by_id = {entry["model_id"]: entry for entry in document}
        assert by_id["surrogates"]["name"] == "R\ufffdin \ufffd"
        assert by_id["i\ufffdd"]["name"] == "Odd"
        assert by_id["huge"]["final_val_loss"] is None
        assert by_id["huge"]["dataset_file_count"] is None
        assert by_id["nothing"]["name"] is None
        assert by_id["fractions"]["training_epochs"] == 7.25
        assert by_id["long"]["name"] == "n" * 10**6
        assert by_id["control"]["name"] == "\x1b[2Jevil\x07"


def refuse(constant: str) -> Any:
    """Python's json reads what no other program does, unless it is told not to."""
    raise ValueError(constant)


def test_words_of_an_odd_library(odd: Path) -> None:
    """What a person reads of it."""
    check_golden("odd-list-100", run("models", "list", "--sort", "id", *M, cwd=odd, COLUMNS="100"))
    for model_id in ("year-1", "surrogates", "control", "huge", "no-numbers", "nothing", "long"):
        printed = run("models", "show", model_id, *M, cwd=odd, COLUMNS="80")
        assert printed.code == 0
        check_golden(f"odd-show-{model_id}-80", printed)
        shown = run("models", "show", model_id, *M, "--json", cwd=odd)
        SCHEMAS["models show"].model_validate_json(shown.stdout, strict=True)
    for model_id in OUTSIDE:
        printed = run("models", "show", model_id, *M, cwd=odd, COLUMNS="80")
        assert printed.code == 1
        check_golden(f"odd-show-{model_id}-80", printed)


ANALYSES: dict[str, Any] = {
    "huge": {"n_active_components": 2, "explained_variance_ratio": [HUGE, 10**5000], "safe_min": [-HUGE, 0],
             "safe_max": [HUGE, 1], "step_size": [5e-324, 10**5000], "n_steps": 10**5000,
             "component_labels": [10**5000, "\x1b\ud800"], "feature_correlations": {"a\ud800": [HUGE, math.nan]}},
    "no numbers": {"n_active_components": 3, "explained_variance_ratio": [math.nan, math.inf, -math.inf],
                   "safe_min": [math.inf] * 3, "safe_max": [math.nan] * 3, "step_size": [math.nan, 0.0, -1.0]},
    "of other kinds": {"n_active_components": "many", "explained_variance_ratio": {"a": 1}, "safe_min": "x",
                       "component_labels": [None, {}, []], "feature_correlations": [1]},
    "very many": {"n_active_components": 10_000, "explained_variance_ratio": [0.1] * 10_000},
    "odd keys": {10**5000: 1, None: 2, b"x": 3, ("a",): 4, "n_active_components": 1},
    "empty": {},
}  # fmt: skip


@pytest.mark.parametrize("name", ANALYSES)
def test_an_odd_analysis_is_shown(name: str, library: Path) -> None:
    """By `show` and `inspect`, in words and as JSON, with a thousand values and texts without end beside it."""
    path = library / "models" / "sliders.sda"
    metadata = {"model_id": "sliders", "name": "Sliders", "description": "", "tags": []}
    config = {f"key {number}": HUGE for number in range(1000)}
    payload = {"format": "sda_model", "version": 1, "metadata": metadata, "latent_analysis": ANALYSES[name],
               "training_config": {**config, "x": math.nan, "y\ud800": "\x1b", "z": [[1] * 10_000]},
               "provenance": {"tool": "\ud800", "source_file": "x" * 100_000}, "latent_dim": 10**5000}  # fmt: skip
    write_payload(path, payload)
    assert run("models", "repair", "--yes", *M, cwd=library).code == 0
    printed = run("models", "show", "sliders", *M, cwd=library, COLUMNS="80")
    assert printed.code == 0, printed.stderr
    assert "\x1b" not in printed.stdout
    assert "Sliders (" in printed.stdout
    assert len(printed.stdout.splitlines()) < 200
    as_json = run("models", "show", "sliders", *M, "--json", cwd=library)
    SCHEMAS["models show"].model_validate_json(as_json.stdout, strict=True)
    printed = run("inspect", "--no-check", "models/sliders.sda", cwd=library, COLUMNS="80")
    assert (printed.code, printed.stderr) == (0, "")
    assert "Sliders (" in printed.stdout
    assert len(printed.stdout.splitlines()) < 200
    as_json = run("inspect", "--no-check", "models/sliders.sda", "--json", cwd=library)
    SCHEMAS["inspect"].model_validate_json(as_json.stdout, strict=True)


def test_paths_that_are_no_text(library: Path) -> None:
    """Undecodable bytes in the names of folders, checkpoints and models: in words, as JSON, and byte for byte."""
    folder = library / os.fsdecode(b"r\xffn")
    shutil.copytree(library / "runs" / "take1", folder)
    name = os.fsdecode(b"\xfe\x1b[2J.sda")
    (library / "models" / "rain_on_tin.sda").rename(library / "models" / name)
    assert run("models", "repair", "--yes", *M, cwd=library).code == 0
    source = folder / "checkpoints" / "checkpoint_epoch0007.pt"
    for arguments in (
        ("inspect", str(source)),
        ("convert", str(folder), "--models-dir", "other", "--name", "{{ run }}"),
        ("convert", str(folder), str(library / os.fsdecode(b"\xfd.pt")), "--models-dir", "third", "--dry-run"),
        ("config", "render", str(source), "--config", "sda-daemon.yaml", "--facts"),
        ("models", "show", "1a2f", *M),
        ("models", "verify", *M),
        ("models", "trash", *M),
    ):
        printed = run(*arguments, cwd=library)
        assert "Traceback" not in printed.stderr, printed.stderr
        assert "\x1b" not in printed.stdout + printed.stderr
        if arguments[:2] != ("config", "render"):
            json.loads(run(*arguments, "--json", cwd=library).stdout, parse_constant=refuse)
    path = subprocess.run(
        [COMMAND, "models", "path", "1a2f", *M], cwd=library, env=environment(library), capture_output=True, check=True
    )
    assert path.stdout == b"models/\xfe\x1b[2J.sda\n"
    (library / "out").mkdir()
    exported = subprocess.run(
        [COMMAND, "models", "export", "1a2f", "--to", "out", *M],
        cwd=library,
        env=environment(library, PYTHONIOENCODING="ascii"),
        capture_output=True,
        check=True,
    )
    assert exported.stdout == b"out/\xfe\x1b[2J.sda\n"


def test_notes_and_sidecars_with_odd_values(library: Path) -> None:
    """`config render` says which notes are not used and why, and shows every fact."""
    folder = library / "runs" / "take0" / "checkpoints"
    sidecar = {"epoch": HUGE, "title": "\ud800\x1b[2J", "text": "x" * 100_000, "loss": math.nan}
    text = json.dumps(sidecar).replace('"epoch"', f'"digits": {"7" * 5000}, "epoch"')
    (folder / "checkpoint_epoch0007.pt.meta.json").write_text(text)
    for number, notes in enumerate((b"name: \xff", b"tags: [2026-13-45]", b"dataset_file_count: " + b"9" * 5000,
                                    b"name: '{{ sidecar.title }}'", b"dataset_total_duration_s: .nan")):  # fmt: skip
        (folder / "sda.yaml").write_bytes(notes)
        printed = run("config", "render", str(folder / "checkpoint_epoch0007.pt"), "--facts",
                      "--config", "sda-daemon.yaml", cwd=library, COLUMNS="100")  # fmt: skip
        assert (printed.code, printed.stderr) == (0, "")
        assert "\x1b" not in printed.stdout
        assert ("is ignored: " in printed.stdout) == (number != 3), printed.stdout[:300]
        assert "7777777" in printed.stdout
        assert len(printed.stdout) < 40_000


def test_status_of_an_odd_ledger(library: Path) -> None:
    """Dates that no calendar has, paths of other programs, texts of megabytes: each row is shown or passed over."""
    run("run", "--once", "--config", "sda-daemon.yaml", cwd=library, SDA_DAEMON__WORKERS="1")
    (ledger,) = (library / ".local" / "state" / "sda-daemon").glob("models-*/ledger.sqlite3")
    bad = str(library / "runs" / "bad.pt")
    with sqlite3.connect(ledger) as database:
        for number, (status, reason, try_at, at) in enumerate(
            [("failed", "x" * 10**6, 1e300, 1e300), ("refused", "\x1b[2J\nb", -1e300, -1e300),
             ("given_up", "c", 0, 1e11), ("of another version", "d", 0, 0), ("failed", "", math.inf, math.inf)]
        ):  # fmt: skip
            path = bad.replace("/runs/", f"/{'./' * (number + 1)}runs/")
            database.execute(
                "INSERT INTO checkpoints VALUES (?, '', 1, 1, 1, ?, 1, 'broken', ?, '', '', '', ?, ?)",
                (path, status, reason, try_at, at),
            )
        database.execute("INSERT OR REPLACE INTO report VALUES ('watches', '[['), ('daemon', '5'), ('incomplete', '7')")
    database.close()
    printed = run("status", "--all", "--config", "sda-daemon.yaml", cwd=library)
    assert printed.code == 1, printed.stderr
    assert "\x1b" not in printed.stdout
    assert len(printed.stdout) < 10_000
    assert printed.stdout.count("1 attempt") == 5
    as_json = run("status", "--json", "--config", "sda-daemon.yaml", cwd=library)
    SCHEMAS["status"].model_validate_json(as_json.stdout, strict=True)
    assert len(as_json.json()["failed"]) == 5


# --- any value at all -----------------------------------------------------------------------------

NUMBER = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from([HUGE, -HUGE, 10**4299]))
ENTRIES = st.fixed_dictionaries({
    **dict.fromkeys(("name", "description", "dataset_name", "training_date", "save_date"), st.none() | ODD_TEXTS),
    **dict.fromkeys(("file_size_bytes", "dataset_file_count", "dataset_total_duration_s", "training_epochs",
                     "final_train_loss", "final_val_loss", "n_active_components", "has_analysis"), NUMBER),
    "tags": st.none() | st.lists(ODD_TEXTS, max_size=3),
    "model_id": ODD_TEXTS,
    "file_path": ODD_TEXTS.map(lambda text: f"x{text}.sda").filter(is_bare_model_name),
})  # fmt: skip
LIBRARIES = st.lists(ENTRIES, max_size=8, unique_by=lambda values: str(values["model_id"]))


def entries_of(found: list[dict[str, Any]]) -> list[ModelEntry]:
    """Take raw entries in as the index does."""
    return [entry_from_dict(values["model_id"], values)[0] for values in found]


@given(LIBRARIES, st.sampled_from([field.name for field in dataclasses.fields(ModelEntry)]), st.booleans(), ODD_TEXTS)
def test_any_entries_can_be_kept_sorted_and_searched(
    tmp_path_factory: pytest.TempPathFactory, found: list[dict[str, Any]], field: str, reverse: bool, query: str
) -> None:
    """Through the file and back: nothing lost, nothing changed, in an order, and found by what it holds."""
    folder = tmp_path_factory.mktemp("library")
    models = {values["model_id"]: values for values in found}
    (folder / "model_library.json").write_text(json.dumps({"version": 1, "models": models}))
    library = ModelLibrary(folder)
    listed = library.list_all(field, reverse)
    assert sorted(entry.model_id for entry in listed) == sorted(models)
    assert {entry.model_id for entry in library.search(query, sort_by=field)} == {
        key
        for key, values in models.items()
        if not query
        or (
            "\0" not in query
            and any(query.casefold() in (values[name] or "").casefold() for name in ("name", "description"))
        )
    }
    values = [getattr(entry, field) for entry in listed]
    present = [value for value in values if value is not None and value != "" and value == value]  # noqa: PLR0124
    assert values[: len(present)] == present, "what is missing comes last"
    library.remove("none like it")
    with library.transaction():
        library._index._changes.entries["none like it"] = None
    again = ModelLibrary(folder)
    assert repr([entry.to_dict() for entry in again.list_all(field, reverse)]) == repr(
        [entry.to_dict() for entry in listed]
    )


@settings(max_examples=100)
@given(LIBRARIES, st.integers(1, 150))
@example(
    [{**dict.fromkeys(field.name for field in dataclasses.fields(ModelEntry)), "model_id": "x", "file_path": "x"}], 1
)
def test_any_entries_can_be_shown(found: list[dict[str, Any]], width: int) -> None:
    """In a table of any width, for scripts, and as JSON that is valid and says what the entry says."""
    entries = entries_of(found)
    short = short_ids(entries)
    rows = [[*(show(entry) for _, show in COLUMNS), short[entry.model_id]] for entry in entries]
    table = fitting_table([column for column, _ in COLUMNS] + [COLUMNS[0][0]], rows, width).plain
    assert len(table.split("\n")) == 1 + len(entries)
    table.encode("utf-8", "strict")
    for entry in entries:
        for key in KEYS.values():
            text = _raw(entry, key.field)
            text.encode("utf-8", "strict")
            assert not set(text) & {"\t", "\n", "\x1b"}
    raw = json_bytes([entry_document(entry) for entry in entries])
    documents = json.loads(raw.decode("utf-8", "strict"), parse_constant=refuse)
    SCHEMAS["models list"].model_validate_json(raw, strict=True)
    for entry, shown in zip(entries, documents, strict=True):
        for name, value in entry.to_dict().items():
            if isinstance(value, int | float) and not isinstance(value, bool) and name != "has_analysis":
                assert shown[name] in (None, value)


@given(st.one_of(NUMBER, ODD_TEXTS, st.datetimes().map(str), st.lists(NUMBER)))
@example(math.nan)
@example("0001-01-01T00:00:00+14:00")
@example("9999-12-31T23:59:59-14:00")
@example(10**5000)
def test_any_value_has_a_short_human_form(value: Any) -> None:
    """One line, valid UTF-8, no longer than a cell."""
    for shown in (human_size, human_number, human_date, human_duration, human_count):
        text = shown(value)
        assert text
        assert len(text) <= 300
        assert "\n" not in text
        text.encode("utf-8", "strict")


VALUES = st.recursive(
    st.one_of(NUMBER, ODD_TEXTS, st.integers(4301, 6000).map(lambda digits: 10**digits)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ODD_TEXTS, inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("n_active_components", "explained_variance_ratio", "safe_min", "safe_max", "step_size", "n_steps",
          "component_labels", "suggested_labels", "feature_correlations")  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS) | ODD_TEXTS, VALUES, max_size=9))
def test_any_analysis_can_be_shown(analysis: dict[str, Any]) -> None:
    """Whatever stands in place of arrays."""
    from rich.console import Console

    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    print_sliders(console, analysis)
    assert len(console.export_text().splitlines()) <= 23
    console.file.close()
    json.loads(json_bytes(analysis).decode("utf-8", "strict"), parse_constant=refuse)


LOSSES = st.floats(allow_nan=False, allow_infinity=False)
INSPECTIONS = st.builds(
    Inspection,
    path=ODD_TEXTS,
    size_bytes=st.integers(0, 2**70),
    container=ODD_TEXTS,
    version=st.none() | st.integers(),
    parts=st.integers(0, 2**70),
    names=st.dictionaries(ODD_TEXTS, st.sampled_from(NameKind), max_size=40),
    keys=st.lists(st.builds(KeyOutline, ODD_TEXTS, ODD_TEXTS, st.integers(0, 2**2000)), max_size=70),
    weights=st.dictionaries(
        ODD_TEXTS,
        st.builds(TensorOutline, ODD_TEXTS, st.lists(st.integers(0, 2**70)).map(tuple), st.integers(0, 2**2000)),
        max_size=5,
    ),
    numbers=st.dictionaries(ODD_TEXTS, st.integers() | st.floats() | st.sampled_from([HUGE, -HUGE]), max_size=5),
    training_config=st.dictionaries(ODD_TEXTS, VALUES, max_size=70),
    metadata=st.dictionaries(ODD_TEXTS | st.just("save_date"), VALUES, max_size=4),
    analysis=st.none() | st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    curves=st.dictionaries(
        ODD_TEXTS,
        st.lists(st.tuples(st.floats(), st.floats(allow_nan=False, allow_infinity=False)), max_size=4),
        max_size=2,
    ),
    problems=st.lists(ODD_TEXTS, max_size=30),
)


@given(INSPECTIONS, st.integers(10, 120))
def test_any_inspection_can_be_shown(found: Inspection, width: int) -> None:
    """Whatever was found in a file: bounded words and valid JSON."""
    from rich.console import Console

    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(width=width, record=True, file=nowhere)
        _print(console, found, None)
        shown = console.export_text()
    assert "\x1b" not in shown
    assert len(shown) < 200_000
    json.loads(json_bytes(document(found, None)).decode("utf-8", "strict"), parse_constant=refuse)

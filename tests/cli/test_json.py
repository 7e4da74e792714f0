"""What every command prints for programs, checked against its schema."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sda_daemon.cli.schemas import SCHEMAS
from tests.cli.console import Printed, run

M = ("--models-dir", "models")
CASES: dict[str, list[tuple[str, ...]]] = {
    "convert": [
        ("runs", *M),
        ("runs", "--dry-run", "--jobs", "1", "--models-dir", "other"),
        ("nothing.pt", *M),
        ("runs", "--format", "auto", "--models-dir", "third"),
    ],
    "inspect": [
        ("runs/take0/checkpoints/checkpoint_epoch0007.pt",),
        ("runs/bad.pt",),
        ("models/rain_on_tin.sda", "--no-check"),
    ],
    "models list": [M, ("--tag", "nothing like it", *M)],
    "models search": [("rain", *M)],
    "models show": [("Rain on tin", *M), ("9c0d41", *M)],
    "models export": [("1a2f", "9c0d41", "--to", ".", *M), ("1a2f", "--format", "distill", "--to", ".", *M)],
    "models edit": [("1a2f", "9c0d41", "--tag", "new", *M)],
    "models delete": [("1a2f", "--yes", *M), ("9c0d41", "--purge", "--yes", *M)],
    "models trash": [M, ("--empty", "--yes", *M)],
    "models restore": [("9c0d41", *M)],
    "models repair": [("--dry-run", *M), ("--yes", *M), M],
    "models verify": [M],
    "events": [(), ("library",)],
    "status": [("--config", "sda-daemon.yaml")],
}


def prepare(command: str, library: Path) -> None:
    """Bring the library into a state in which the command has something to say."""
    if command == "status":
        run("run", "--once", "--config", "sda-daemon.yaml", cwd=library, SDA_DAEMON__WORKERS="1")
    if command in ("models trash", "models restore"):
        run("models", "delete", "9c0d41", "--yes", *M, cwd=library)
    if command == "models repair" and not (library / "models" / "junk.sda").exists():
        (library / "models" / "rain_on_tin.sda").rename(library / "models" / "moved.sda")
        (library / "models" / "junk.sda").write_bytes(b"junk")


@pytest.mark.parametrize("command", CASES)
def test_json_fits_its_schema(command: str, library: Path) -> None:
    """Every key is documented, of its type, and nothing but JSON is on stdout."""
    for arguments in CASES[command]:
        prepare(command, library)
        printed = run(*command.split(), *arguments, "--json", cwd=library)
        SCHEMAS[command].model_validate_json(printed.stdout, strict=True)


def test_every_command_with_json_has_a_schema() -> None:
    """A command that offers --json is documented in `docs/json.md`, and its output is checked above."""
    from tools.reference import command_helps

    offering = {path.removeprefix("sda-daemon ") for path, text in command_helps() if "--json  " in text}
    assert offering == set(SCHEMAS)
    assert set(CASES) <= offering


def test_json_values(library: Path) -> None:
    """The values are the model's: whole ids, bytes, losses as numbers, arrays as lists."""
    (first, *_) = run("models", "list", *M, "--json", cwd=library).json()
    assert first["model_id"] == "1a2ff958-0000-5000-8000-000000000001"
    assert first["file_size_bytes"] == (library / "models" / first["file_path"]).stat().st_size
    shown: dict[str, Any] = run("models", "show", "1a2f", *M, "--json", cwd=library).json()
    assert shown["analysis"]["n_active_components"] == 3
    assert len(shown["analysis"]["pca_components"][0]) == shown["latent_dim"] == 8
    assert shown["training_config"]["preset"] == "balanced"
    assert shown["provenance"]["source_file"] == "checkpoint_epoch0007.pt"
    assert sum(math.prod(tensor["shape"]) * 4 for tensor in shown["weights"] if tensor["dtype"] == "float32") > 3e6


def test_inspect_tells_what_a_conversion_would_say(library: Path) -> None:
    """A good checkpoint would convert, a good model opens as recorded, a bad file is refused for its cause."""
    good = run("inspect", "runs/take0/checkpoints/checkpoint_epoch0007.pt", "--json", cwd=library)
    assert (good.code, good.json()["verdict"]["result"], good.stderr) == (0, "ok", "")
    model = run("inspect", "models/rain_on_tin.sda", "--json", cwd=library)
    assert (model.code, model.json()["verdict"]["result"]) == (0, "ok")
    bad = run("inspect", "runs/bad.pt", "--json", cwd=library)
    assert (bad.code, bad.json()["verdict"]["cause"]) == (65, "broken")


def test_numbers_that_json_has_not_are_null(library: Path) -> None:
    """A training that was cancelled in mid-epoch has an infinite loss."""
    index = library / "models" / "model_library.json"
    index.write_text(index.read_text().replace('"final_val_loss": 0.6', '"final_val_loss": Infinity', 1))
    printed = run("models", "list", *M, "--json", cwd=library)
    SCHEMAS["models list"].model_validate_json(printed.stdout, strict=True)
    assert None in [entry["final_val_loss"] for entry in printed.json()]
    assert " inf " in run("models", "list", *M, cwd=library).stdout


def test_convert_reports_each_checkpoint(library: Path) -> None:
    """The summary adds up, and what failed says why."""
    printed: Printed = run("convert", "runs", "--models-dir", "fresh", "--json", cwd=library)
    document = printed.json()
    assert document["summary"] == {"added": 3, "updated": 0, "duplicate": 0, "failed": 1}
    (failed,) = [result for result in document["results"] if result["action"] == "failed"]
    assert failed["cause"] == "broken"
    assert failed["path"] == str(library / "runs" / "bad.pt")
    assert printed.code == 1


def test_b31_foreign_entries_in_json(library: Path) -> None:
    """The plan of a repair names them, whatever they stand under, and says that they are left alone."""
    index = library / "models" / "model_library.json"
    theirs = '"half \\ud83d": {"file_path": "x.vqvae"}, "evil": {"file_path": "/etc/passwd"}, '
    index.write_text(index.read_text().replace('"models": {', '"models": {' + theirs))
    printed = run("models", "repair", "--dry-run", *M, "--json", cwd=library)
    SCHEMAS["models repair"].model_validate_json(printed.stdout, strict=True)
    found = [(item["kind"], item["old_model_id"], item["action"]) for item in json.loads(printed.stdout)["findings"]]
    assert found == [("outside", "evil", "remove"), ("foreign", "half \N{REPLACEMENT CHARACTER}", "none")]

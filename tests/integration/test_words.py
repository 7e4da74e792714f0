"""What is wrong with a file is told in the same words by everything that a person may ask: commands and the daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sda_daemon.demo.checkpoints import checkpoint_dict, small_model
from tests.daemon_process import DaemonProcess
from tests.models.test_kinds import FILES, WholeModule, compressed, torch_bytes
from tests.torchfile.hostile import text, write_pickle
from tests.torchfile.test_pickles import COSTLY_KEYS

UNSAFE = "it wants to call posix.system; nothing of it was run. Do not trust where this file came from"
WORDS = {
    "lfs": "it is a Git LFS pointer, not the file itself. Fetch the file itself with: git lfs pull",
    "html": "it is a web page (HTML), not the file itself. A download went wrong: open the page in a browser, "
    "perhaps it asks you to sign in",
    "script": "it is a TorchScript program, not a checkpoint. Load it where it was made and save its state dict with "
    "torch.save",
    "packed": "it is a compressed zip ('data.pkl' is); torch never writes such. Unpack it and pack it again without "
    "compression (zip -0 -r), or take the original",
    "gadget": UNSAFE,
    "called": UNSAFE.replace("posix", "os"),
    "half": "it is truncated or damaged: it has no directory at its end. Copy it again from where it was written",
    "names": "it is too costly to read: it names more than 10,000 classes and functions. Save it again with less "
    "beside its weights, such as without its metrics history and optimizer",
    "empty": "it is empty. Copy it again from where it was written",
}
"""Of files that are no torch files, or none that can be trusted: the same for checkpoints and for models."""
OTHERS = {
    "module": "it is a whole pickled module (tests.models.test_kinds.WholeModule), not its weights. Load it where it "
    "was made and save its state dict: torch.save(model.state_dict(), path)",
    "vq": "it is of the application's vq-vae branch, another network than ConvVAE. Only checkpoints of a ConvVAE can "
    "be converted",
}
"""Of sound files that are other things than checkpoints."""


def write_all(folder: Path, ending: str) -> dict[str, Path]:
    """Write a file of each kind; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}{ending}" for name in WORDS}
    whole = torch_bytes(checkpoint_dict(small_model().state_dict()))
    for name, case in (("lfs", "git-lfs"), ("html", "html"), ("script", "torchscript")):
        paths[name].write_bytes(FILES[case][0])
    paths["packed"].write_bytes(compressed(torch_bytes({"model_state_dict": {}})))
    paths["half"].write_bytes(whole[: len(whole) // 2])
    paths["empty"].touch()
    write_pickle(paths["gadget"], b"\x80\x02cposix\nsystem\n" + text(b"touch went-off") + b"\x85R.")
    write_pickle(paths["called"], b"\x80\x04}" + text(b"x") + text(b"os") + text(b"system") + b"\x93" + b")Rs.")
    write_pickle(paths["names"], b"\x80\x02](" + b"cm\nC\n" * 20_000 + b"e.")
    return paths


def it(reason: str, path: Path) -> str:
    return reason.replace(f"{path} ", "it ", 1)


@pytest.fixture
def wrong(daemon: DaemonProcess) -> dict[str, Path]:
    """Files of all kinds in the drop folder."""
    paths = write_all(daemon.drop, ".pt")
    torch.save(WholeModule(), daemon.drop / "module.pt")
    torch.save({**checkpoint_dict(small_model().state_dict()), "model_type": "vqvae"}, daemon.drop / "vq.pt")
    return {**paths, "module": daemon.drop / "module.pt", "vq": daemon.drop / "vq.pt"}


def as_json(*arguments: str) -> Any:
    command = [sys.executable, "-m", "sda_daemon", *arguments, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_of_checkpoints(daemon: DaemonProcess, wrong: dict[str, Path]) -> None:
    """`convert`, `inspect`, the daemon's events and `status`; a good one beside them converts."""
    torch.save(checkpoint_dict(small_model().state_dict()), daemon.drop / "good.pt")
    daemon.write_config()
    words = {**WORDS, **OTHERS}

    told = as_json("convert", str(daemon.drop), "--models-dir", str(daemon.base / "others"))
    reasons = {
        Path(item["path"]).stem: it(item["reason"], Path(item["path"])) for item in told["results"] if item["reason"]
    }
    assert reasons == words
    assert told["summary"] == {"added": 1, "updated": 0, "duplicate": 0, "failed": len(words)}

    for name in ("lfs", "gadget", "names", "module", "vq"):
        found = as_json("inspect", str(wrong[name]))
        assert it(found["verdict"]["reason"], wrong[name]) == words[name]
        if name == "gadget":
            assert found["names"] == {"posix.system": "refused"}
        else:
            assert found["problems"] == [words[name]]

    daemon.start()
    daemon.wait_for_models(1)
    left = {name for name in words if name not in ("half", "empty")}  # those may still be completed
    failed = daemon.wait_for("conversion.failed", count=len(left))
    told_of = {Path(event["path"]): event["reason"] for event in failed}
    assert {path.stem: it(reason, path) for path, reason in told_of.items()} == {name: words[name] for name in left}
    assert all(event["permanent"] for event in failed)
    listed = as_json("status", "--config", str(daemon.config))["failed"]
    assert {Path(item["path"]).stem: it(item["reason"], Path(item["path"])) for item in listed} == {
        name: words[name] for name in left
    }
    assert not (daemon.base / "went-off").exists()


def test_of_models(daemon: DaemonProcess) -> None:
    """`models repair`, `verify`, and the daemon that would adopt them; what it has said it does not say again."""
    paths = write_all(daemon.models_dir, ".sda")
    entry = {"model_id": "x", "name": "x", "file_path": "gadget.sda", "file_size_bytes": 1}
    daemon.models_dir.joinpath("model_library.json").write_text(json.dumps({"version": 1, "models": {"x": entry}}))
    (daemon.models_dir / "model_library.json").touch()

    models = ("--models-dir", str(daemon.models_dir))
    plan = as_json("models", "repair", "--dry-run", *models)
    told = {item["file"]: item["reason"] for item in plan["findings"] if item["kind"] == "invalid"}
    assert {name: it(told[path.name], path) for name, path in paths.items()} == WORDS

    (verdict,) = as_json("models", "verify", "x", *models)
    assert (verdict["result"], it(verdict["reason"], paths["gadget"])) == ("broken", UNSAFE)

    daemon.start()
    events = daemon.wait_for("library.file_invalid", count=len(WORDS))
    assert {Path(event["file"]).stem: it(event["reason"], paths[Path(event["file"]).stem]) for event in events} == WORDS
    daemon.stop()
    before = len(daemon.events())
    daemon.start()
    assert not daemon.events("library.file_invalid", after=before)


def test_a_costly_model_does_not_hold_up_the_daemon(daemon: DaemonProcess) -> None:
    """Small and large ones: they are refused or adopted as what they are, and checkpoints convert meanwhile."""
    daemon.models_dir.mkdir()
    for number, case in enumerate(COSTLY_KEYS):
        write_pickle(daemon.models_dir / f"costly{number:02}.sda", b"\x80\x04" + COSTLY_KEYS[case] + b".")
    many_tags = {"format": "sda_model", "version": 1, "metadata": {"name": "x", "tags": ["t" * 900] * 95_000}}
    torch.save(many_tags, daemon.models_dir / "tags.sda")
    daemon.start()
    torch.save(checkpoint_dict(small_model().state_dict()), daemon.drop / "good.pt")
    daemon.wait_for_models(1)
    events = daemon.wait_for("library.file_invalid", count=len(COSTLY_KEYS) + 1)
    (tags,) = [event for event in events if event["file"] == "tags.sda"]
    assert "95000 tags" in tags["reason"] or "more in its metadata than is read" in tags["reason"]

"""Honest files are read and others named by everything alike: commands, the daemon, the library, `load_model`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sda_daemon.demo.checkpoints import checkpoint_dict, small_model
from sda_daemon.errors import ModelFileError
from sda_daemon.library import ModelLibrary
from sda_daemon.models import load_model
from sda_daemon.models.inspection import inspect_file
from tests.daemon_process import DaemonProcess
from tests.models.test_honest import PREFIXES, REPACKED, THINGS, repacked, views
from tests.models.test_kinds import FILES, OTHERS, WholeModule
from tests.torchfile.hostile import text, write_pickle

ONLY_CONVVAE = ". Only checkpoints of a ConvVAE can be converted"
UNSAFE = "it wants to call posix.system; nothing of it was run. Do not trust where this file came from"
MODULE = (
    "it is a whole pickled module (tests.models.test_kinds.WholeModule), not its weights. Load it where it was made "
    "and save its state dict: torch.save(model.state_dict(), path)"
)
UNFINISHED = ("half", "nothing", "zeros")
"""What may still be written: the daemon waits for the rest of it."""


def stem(kind: str, name: str) -> str:
    return f"{kind} {name}".replace("/", " ")


def write_honest(folder: Path) -> set[str]:
    """Write checkpoints of all sorts, each with weights of its own, and return their names."""
    seeds = iter(range(1000))

    def weights() -> dict[str, torch.Tensor]:
        return small_model(next(seeds)).state_dict()

    def save(name: str, content: Any, **options: Any) -> Path:
        path = folder / f"{name}.pt"
        torch.save(content, path, **options)
        return path

    for name, thing in THINGS.items():
        content = checkpoint_dict(weights())
        config = {**content["training_config"], "thing": thing}
        save(stem("beside", name), {**content, "training_config": config, "hyper_parameters": {"thing": thing}})
    for name in PREFIXES:
        save(stem("wrapped", name), checkpoint_dict({name + key: value for key, value in weights().items()}))
    for name in views(torch.ones(1, 2)):
        state = {key: views(value).get(name, value) if value.dim() else value for key, value in weights().items()}
        save(stem("view", name), checkpoint_dict(state))
    for protocol in range(6):
        for is_new in (True, False):
            save(
                f"protocol {protocol} {is_new}",
                checkpoint_dict(weights()),
                pickle_protocol=protocol,
                _use_new_zipfile_serialization=is_new,
            )
    averaged = torch.optim.swa_utils.AveragedModel(small_model(next(seeds)))
    save("averaged", checkpoint_dict(averaged.state_dict()))
    losses = {"train_loss": torch.tensor(0.5).numpy(), "val_loss": torch.tensor(0.5)}
    save("losses", {**checkpoint_dict(weights()), **losses})
    for name, (rename, more) in REPACKED.items():
        packed = repacked(save("packed", checkpoint_dict(weights())), rename, *more)
        packed.rename(folder / f"{stem('packed', name)}.pt")
        (folder / "packed.pt").unlink()
    return {path.stem for path in folder.glob("*.pt")}


def write_others(folder: Path) -> dict[str, str]:
    """Write what cannot be used; return what is said of each, or how that begins."""
    words = {name: f"it {what}. {hint}".rstrip(". ") for name, (_, what, hint) in FILES.items()}
    for name, (content, _, _) in FILES.items():
        (folder / f"{name}.pt").write_bytes(content)
    for name, (value, what) in OTHERS.items():
        words[name] = what + ONLY_CONVVAE
        torch.save(value, folder / f"{name}.pt")
    torch.save(WholeModule(), folder / "module.pt")
    write_pickle(folder / "gadget.pt", b"\x80\x02cposix\nsystem\n" + text(b"touch went-off") + b"\x85R.")
    return {**words, "module": MODULE, "gadget": UNSAFE}


def it(reason: str, path: Path) -> str:
    return reason.replace(f"{path} ", "it ", 1)


def assert_words(told: dict[str, str], words: dict[str, str]) -> None:
    assert told.keys() == words.keys()
    assert {name: reason for name, reason in told.items() if not reason.startswith(words[name])} == {}


def as_json(*arguments: str) -> Any:
    command = [sys.executable, "-m", "sda_daemon", *arguments, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_of_checkpoints(daemon: DaemonProcess) -> None:
    """`convert`, `inspect` and the daemon: all honest ones become models, all others are named in the same words."""
    honest = write_honest(daemon.drop)
    words = write_others(daemon.drop)
    for path in sorted(daemon.drop.glob("*.pt")):
        problems = inspect_file(path).problems
        if path.stem in honest:
            assert problems == [], path
        else:
            assert problems[0].startswith(words[path.stem]), path

    told = as_json("convert", str(daemon.drop), "--models-dir", str(daemon.base / "others"))
    refused = {Path(item["path"]): item["reason"] for item in told["results"] if item["reason"]}
    assert_words({path.stem: it(reason, path) for path, reason in refused.items()}, words)
    assert told["summary"] == {"added": len(honest), "updated": 0, "duplicate": 0, "failed": len(words)}

    daemon.write_config()
    daemon.start("--once")
    daemon.wait()
    failed = {Path(event["path"]): event["reason"] for event in daemon.events("conversion.failed")}
    left = {name: said for name, said in words.items() if name not in UNFINISHED}
    assert_words({path.stem: it(said, path) for path, said in failed.items() if path.stem not in UNFINISHED}, left)
    assert len(daemon.models()) == len(honest)
    assert not (daemon.base / "went-off").exists()


def honest_models(folder: Path) -> Iterator[Path]:
    """Write models of all sorts, as somebody else may have, who keeps more beside the weights."""
    for number, (name, thing) in enumerate(THINGS.items()):
        content = checkpoint_dict(small_model(number).state_dict())
        used = ("model_state_dict", "spectrogram_config", "latent_analysis", "training_config")
        model = {key: content[key] for key in used} | {"format": "sda_model", "version": 1, "latent_dim": 64}
        model["training_config"] = {**model["training_config"], "thing": thing}
        path = folder / f"m{number}.sda"
        torch.save({**model, "metadata": {"name": name}, "provenance": {"thing": thing}, "more": [thing]}, path)
        yield path


def test_of_models(tmp_path: Path) -> None:
    """Adoption, `verify` and `load_model` take what others keep in a model; what is none is named for what it is."""
    paths = list(honest_models(tmp_path))
    words = {name: said for name, said in write_others(tmp_path).items() if name not in OTHERS and name != "module"}
    for path in tmp_path.glob("*.pt"):
        path.rename(path.with_suffix(".sda")) if path.stem in words else path.unlink()
    models = ("--models-dir", str(tmp_path))
    plan = as_json("models", "repair", "--yes", *models)
    told = {item["file"]: item["reason"] for item in plan["findings"] if item["kind"] == "invalid"}
    assert_words({Path(name).stem: it(reason, tmp_path / name) for name, reason in told.items()}, words)
    assert sorted(entry.file_path for entry in ModelLibrary(tmp_path).list_all()) == sorted(path.name for path in paths)
    assert {verdict["result"] for verdict in as_json("models", "verify", *models)} == {"unrecorded"}
    for path, name in zip(paths, THINGS, strict=True):
        assert load_model(path).metadata.name == name
    for name, said in words.items():
        with pytest.raises(ModelFileError) as refused:
            load_model(tmp_path / f"{name}.sda")
        assert it(str(refused.value), tmp_path / f"{name}.sda").startswith(said)

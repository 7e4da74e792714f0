"""Honest checkpoints of all sorts: what real programs put into them, and how they write it. All of them convert."""

from __future__ import annotations

import argparse
import array
import collections
import configparser
import contextlib
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import inspect
import io
import ipaddress
import itertools
import json
import logging
import math
import operator
import os
import pathlib
import queue
import random
import re
import shutil
import socket
import statistics
import string
import subprocess
import sys
import time
import types
import typing
import uuid
import zipfile
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sda_daemon.demo.checkpoints import checkpoint_dict, made_up_analysis, small_model
from sda_daemon.errors import NewerCheckpointError
from sda_daemon.models import ModelMetadata, load_model, save_model_from_checkpoint
from sda_daemon.models.checkpoint import Checkpoint, read_checkpoint
from sda_daemon.models.digest import weights_digest
from sda_daemon.models.inspection import inspect_file
from sda_daemon.torchfile.globals import NameKind, kind_of_name
from sda_daemon.torchfile.reader import read_contents

PROTOCOLS = (2, 3, 4, 5)
WEIGHTS = small_model().state_dict()
FULL = small_model(n_mels=128).state_dict()
"""Weights that go with the default config, which stands for a missing one."""


class Preset(enum.Enum):
    """Pickles the way Python 3.11.2 pickles each member of an enum."""

    CALM = "calm"

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return getattr, (type(self), self.name)


class Outer:
    """Has a class within, and an enum within that."""

    class Inner:
        """Foreign, and within something foreign."""

        class Deep(enum.Enum):
            """Deeper still."""

            LOW = "low"

            def __reduce_ex__(self, _protocol: Any) -> Any:
                return getattr, (type(self), self.name)

        def __init__(self) -> None:
            self.x = 1

    def step(self) -> None: ...

    @classmethod
    def make(cls) -> None: ...


@dataclasses.dataclass
class Config:
    batch: int = 16
    kl_weight_max: float = 0.01


@dataclasses.dataclass(slots=True)
class SlottedConfig:
    batch: int = 16


class ForeignDict(dict[str, Any]): ...


class ForeignList(list[Any]): ...


class ForeignTensor(torch.Tensor): ...


Pair = collections.namedtuple("Pair", "a b")

_optimizer = torch.optim.Adam(small_model().parameters())
_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(_optimizer, 10)
_tensor_with_attribute = torch.nn.Parameter(torch.ones(2))
_tensor_with_attribute.tag = "x"  # type: ignore[attr-defined]
THINGS: dict[str, Any] = {
    "an enum member of 3.11.2": Preset.CALM,
    "an enum in a class in a class": Outer.Inner.Deep.LOW,
    "an object of a class in a class": Outer.Inner(),
    "a class in a class": Outer.Inner,
    "a bound method": Outer().step,
    "a class method": Outer.make,
    "a scheduler": _scheduler,
    "a bound method of a scheduler": _scheduler.step,
    "an optimizer": _optimizer,
    "a scheduler with functions": torch.optim.lr_scheduler.LambdaLR(_optimizer, functools.partial(min, 1.0)),
    "a time zone": zoneinfo.ZoneInfo("UTC"),
    "a pattern": re.compile("a.*", re.IGNORECASE),
    "a partial of something foreign": functools.partial(Pair, 1),
    "a partial of a partial": functools.partial(functools.partial(Outer), x=functools.partial(int, base=2)),
    "a defaultdict": collections.defaultdict(list, {"a": [1]}),
    "sets": [{1}, frozenset({2}), set()],
    "a range and a slice": [range(3), slice(1, 2)],
    "a bytearray": bytearray(b"abc"),
    "types": [int, float, str, dict, np.float32, type(None), torch.float16],
    "namespaces": [types.SimpleNamespace(a=1), argparse.Namespace(b=2)],
    "a mapping proxy's twin": collections.ChainMap({"a": 1}),
    "a logger": [logging.getLogger("x.y"), logging.getLogger()],
    "counters and queues": [collections.Counter("abca"), collections.deque([1, 2], maxlen=3)],
    "numbers": [decimal.Decimal("1.5"), fractions.Fraction(1, 3), 1 + 2j, 2**70],
    "names of things": [uuid.UUID(int=5), ipaddress.ip_address("1.2.3.4"), Path("/a/b"),
    pathlib.PureWindowsPath("c:/x")],
    "times": [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(1), datetime.date(2026, 1, 1),
              time.localtime(0)],
    "random states": [random.Random(1), random.getstate(), np.random.RandomState(1), np.random.default_rng(1),
                      np.random.get_state(), torch.get_rng_state(), torch.Generator()],
    "numpy's numbers": [np.complex64(1), np.datetime64("2020-01-01"), np.str_("x"), np.float16(1), np.bool_(True)],
    "numpy's arrays": [np.array([{}, None], dtype=object), np.zeros(2, dtype=[("a", "f4")]), np.array(["ab"]),
                       np.ma.array([1, 2]), np.array(1.5), np.zeros((2, 0)), np.asfortranarray(np.ones((2, 3)))],
    "an exception": [ValueError("x"), KeyboardInterrupt()],
    "only one of its kind": [..., NotImplemented],
    "torch's values": [torch.Size([1]), torch.device("cuda:0"), torch.bfloat16, torch.__version__],
    "layers and losses": [torch.nn.Linear(2, 2), torch.nn.MSELoss(), torch.nn.functional.relu, torch.tanh],
    "a gradient scaler": torch.amp.GradScaler("cpu"),
    "a distribution": torch.distributions.Normal(0.0, 1.0),
    "special tensors": [torch.eye(3).to_sparse(), torch.empty(3, device="meta"), torch.ones(2).to(torch.float8_e4m3fn),
                        torch.ones(2, dtype=torch.uint16), torch.ones(2).as_subclass(ForeignTensor),
                        torch._neg_view(torch.ones(2)), torch.ones(2, dtype=torch.complex64).conj(),
                        _tensor_with_attribute],
    "storages": torch.ones(2).untyped_storage(),
    "a named tuple": Pair(1, 2),
    "data classes": [Config(), SlottedConfig()],
    "foreign containers": [ForeignDict(a=1), ForeignList([1]), collections.OrderedDict(a=1)],
    "type hints": [typing.Optional, typing.Callable[[], int], list[int], int | str],
    "what only computes": [math.sqrt, operator.add, itertools.count(3), array.array("d", [1.0]), len],
    "odds and ends": [inspect.signature(math.gcd), string.Template("$a"), statistics.NormalDist()],
    "odd keys": {(1, 2): 3, frozenset({1}): 2, 2**70: 1, None: 1, True: 2, 1.5: 3, b"x": 4},
}  # fmt: skip


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def assert_same_weights(checkpoint: Checkpoint, weights: dict[str, torch.Tensor] = WEIGHTS) -> None:
    assert checkpoint.state_dict.keys() == weights.keys()
    assert all(torch.equal(checkpoint.state_dict[name].float(), weights[name].float()) for name in weights)


@pytest.mark.parametrize("thing", THINGS)
def test_what_real_programs_save_beside_converts(thing: str, tmp_path: Path) -> None:
    """In parts that are kept and in parts that are not, in every protocol; nothing of it is called an attack."""
    content = checkpoint_dict(WEIGHTS)
    for protocol in PROTOCOLS:
        for extra in (
            {"extra": {"thing": THINGS[thing]}},
            {"training_config": {**content["training_config"], "thing": THINGS[thing]}},
        ):
            path = saved(tmp_path / "x.pt", {**content, **extra}, pickle_protocol=protocol)
            checkpoint = read_checkpoint(path)
            assert_same_weights(checkpoint)
            assert checkpoint.training_config["latent_dim"] == content["training_config"]["latent_dim"]
            found = inspect_file(path)
            assert (found.problems, found.names_of(NameKind.REFUSED)) == ([], [])


def test_values_of_kept_parts(tmp_path: Path) -> None:
    """What plain files can hold is kept as what it was; the rest goes, and is told of."""
    config = {
        "preset": Preset.CALM, "deep": Outer.Inner.Deep.LOW, "set": {3}, "deque": collections.deque([1]),
        "default": collections.defaultdict(int, a=1), "names": types.SimpleNamespace(a=1), "path": Path("/a"),
        "n": np.int64(5), "array": np.array([1.5, 2.5]), "one": np.array([2.5]), "text": np.str_("x"), "when":
        np.bool_(True),
        "kind": Outer, "tensor": torch.ones(1), "kl_weight_max": 0.5,
    }  # fmt: skip
    checkpoint = read_checkpoint(saved(tmp_path / "x.pt", {**checkpoint_dict(WEIGHTS), "training_config": config}))
    assert checkpoint.training_config == {
        "preset": "CALM", "deep": "LOW", "set": [3], "deque": [1], "default": {"a": 1}, "names": {"a": 1}, "path": "/a",
        "n": 5, "one": 2.5, "text": "x", "when": True, "kl_weight_max": 0.5,
    }  # fmt: skip
    assert [where for where, _ in checkpoint.dropped] == [
        f"training_config.{name}" for name in ("array", "kind", "tensor")
    ]


@pytest.mark.parametrize(
    "config", [Config(), types.SimpleNamespace(batch=16, kl_weight_max=0.01), argparse.Namespace(batch=16,
    kl_weight_max=0.01),
               collections.OrderedDict(batch=16, kl_weight_max=0.01), ForeignDict(batch=16, kl_weight_max=0.01)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_configs_of_other_types_are_read(config: Any, tmp_path: Path) -> None:
    """A dataclass, a namespace, a dict of another class: the fields are what counts, and the activation follows."""
    checkpoint = read_checkpoint(saved(tmp_path / "x.pt", {**checkpoint_dict(WEIGHTS), "training_config": config}))
    assert checkpoint.training_config == {"batch": 16, "kl_weight_max": 0.01}
    assert checkpoint.decoder_activation == "softplus"


def test_a_config_of_omegaconf_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made as the library pickles it: containers of nodes that hold a value."""

    def kind(module: str, name: str) -> Any:
        made = type(name, (), {"__module__": module})
        monkeypatch.setitem(sys.modules, module, sys.modules.get(module) or types.ModuleType(module))
        setattr(sys.modules[module], name, made)
        return made

    def holding(cls: Any, **state: Any) -> Any:
        made = cls()
        made.__dict__.update(state)
        return made

    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    any_node, a_dict = kind("omegaconf.nodes", "AnyNode"), kind("omegaconf.dictconfig", "DictConfig")
    a_list, meta = kind("omegaconf.listconfig", "ListConfig"), kind("omegaconf.base", "ContainerMetadata")
    rates = holding(a_list, _metadata=meta(), _content=[holding(any_node, _val=0.1, _metadata=meta())])
    nested = holding(a_dict, _metadata=meta(), _content={"rates": rates})
    config = holding(
        a_dict, _metadata=meta(), _content={"batch": holding(any_node, _val=16, _metadata=meta()), "nested": nested}
    )
    checkpoint = read_checkpoint(saved(tmp_path / "x.pt", {**checkpoint_dict(WEIGHTS), "training_config": config}))
    assert checkpoint.training_config == {"batch": 16, "nested": {"rates": [0.1]}}


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.array(0.5), np.array([[0.5]]),
torch.tensor(0.5),
                                    torch.tensor([0.5], dtype=torch.bfloat16), torch.nn.Parameter(torch.tensor(0.5))],
                         ids=lambda value: f"{type(value).__name__} {getattr(value, 'shape', '')}")  # fmt: skip
def test_losses_of_other_types_are_numbers(number: Any, tmp_path: Path) -> None:
    """Numpy's own, arrays and tensors of one element."""
    content = {**checkpoint_dict(WEIGHTS), "train_loss": number, "val_loss": number, "kl_weight": number}
    content |= {"epoch": np.int64(7), "step": torch.tensor(9), "version": np.int32(1)}
    checkpoint = read_checkpoint(saved(tmp_path / "x.pt", content))
    assert (checkpoint.train_loss, checkpoint.val_loss, checkpoint.kl_weight) == (0.5, 0.5, 0.5)
    assert (checkpoint.epoch, checkpoint.step) == (7, 9)
    assert type(checkpoint.train_loss) is float
    assert type(checkpoint.epoch) is int


# --- names of weights -------------------------------------------------------------------------------

PREFIXES = ["module.", "_orig_mod.", "model.", "ema.", "ema_model.", "module._orig_mod.", "_orig_mod.module.",
            "model.module._orig_mod.", "net.generator.vae.", "averaged_model.module.", "shadow_params.0."]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_wrappers_in_any_order_and_number(prefix: str, tmp_path: Path) -> None:
    """In a checkpoint and as bare weights; the model's id does not depend on it."""
    state = {prefix + name: tensor for name, tensor in FULL.items()}
    for content in ({"epoch": 3, "model_state_dict": state}, state):
        path = saved(tmp_path / "x.pt", content)
        assert_same_weights(read_checkpoint(path), FULL)
        found = inspect_file(path)
        assert found.problems == []
        assert list(found.weights) == list(FULL)


def test_companions_of_an_average_are_left_out(tmp_path: Path) -> None:
    """`torch.optim.swa_utils.AveragedModel` counts; others keep flags and steps beside."""
    averaged = torch.optim.swa_utils.AveragedModel(small_model(n_mels=128))
    averaged.update_parameters(small_model(n_mels=128))
    state = {**averaged.state_dict(), "initted": torch.tensor(True), "step": torch.tensor([3]), "decay": 0.99}
    for content in ({"epoch": 3, "model_state_dict": state}, state):
        checkpoint = read_checkpoint(saved(tmp_path / "x.pt", content))
        assert_same_weights(checkpoint, FULL)
        assert ("model_state_dict.n_averaged", "not a weight") in checkpoint.dropped


def test_of_two_copies_the_average_is_taken(tmp_path: Path) -> None:
    """An average of the weights is there to be used; the other copy is told of."""
    other = small_model(1).state_dict()
    state = {f"online_model.{name}": tensor for name, tensor in other.items()}
    state |= {f"ema_model.{name}": tensor for name, tensor in WEIGHTS.items()}
    checkpoint = read_checkpoint(saved(tmp_path / "x.pt", {**checkpoint_dict(WEIGHTS), "model_state_dict": state}))
    assert_same_weights(checkpoint)
    assert checkpoint.dropped == (("model_state_dict.online_model.*", "another copy of the weights"),)


def test_a_lightning_checkpoint_of_this_model_converts(tmp_path: Path) -> None:
    """Its weights stand under `state_dict`, with `model.` before each name; what else it has is not needed."""
    content = {
        "epoch": 12, "global_step": 3400, "pytorch-lightning_version": "2.4.0",
        "state_dict": collections.OrderedDict((f"model.{name}", tensor) for name, tensor in FULL.items()),
        "loops": {"fit_loop": {}}, "callbacks": {}, "optimizer_states": [_optimizer.state_dict()], "lr_schedulers": [],
        "hparams_name": "kwargs", "hyper_parameters": ForeignDict(lr=0.1),
    }  # fmt: skip
    checkpoint = read_checkpoint(saved(tmp_path / "x.ckpt", content))
    assert_same_weights(checkpoint, FULL)
    assert (checkpoint.epoch, checkpoint.step, checkpoint.is_bare) == (12, 3400, False)
    assert inspect_file(tmp_path / "x.ckpt").problems == []


def test_state_dicts_of_other_classes(tmp_path: Path) -> None:
    """Of an OrderedDict with torch's own attributes, of a class that is not installed, with parameters in it."""
    parameters = {
        name: torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor for name, tensor in WEIGHTS.items()
    }
    for state in (small_model().state_dict(), ForeignDict(WEIGHTS), parameters, collections.defaultdict(None, WEIGHTS)):
        content = {**checkpoint_dict(WEIGHTS), "model_state_dict": state}
        assert_same_weights(read_checkpoint(saved(tmp_path / "x.pt", content)))


# --- how tensors are written ------------------------------------------------------------------------


def views(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same values, in other clothes."""
    odd = torch.as_strided(tensor.reshape(1, -1), (1, tensor.numel()), (97, 1)).reshape(tensor.shape)
    found = {
        "odd strides of size one": torch.as_strided(tensor.clone(), tensor.shape, [
            stride if size > 1 else 12345 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]),
        "transposed": tensor.clone().transpose(0, -1).contiguous().transpose(0, -1) if tensor.dim() > 1 else tensor,
        "a part of a larger one": torch.cat([torch.zeros(3), tensor.reshape(-1),
        torch.zeros(3)])[3:-3].reshape(tensor.shape),
        "reshaped": odd,
    }  # fmt: skip
    if tensor.is_floating_point():
        found["negative"] = torch._neg_view(-tensor)
        found["the imaginary part of a conjugate"] = torch.complex(tensor * 0, -tensor).conj().imag
        found["with an attribute"] = torch.nn.Parameter(tensor.clone())
    return found


@pytest.mark.parametrize("view", views(torch.ones(1, 2)))
@pytest.mark.parametrize("old", [False, True])
def test_views_of_all_sorts_convert(view: str, old: bool, tmp_path: Path) -> None:
    """Also in the format from before torch 1.6."""
    state = {name: views(tensor).get(view, tensor) if tensor.dim() else tensor for name, tensor in WEIGHTS.items()}
    path = saved(
        tmp_path / "x.pt",
        {**checkpoint_dict(WEIGHTS), "model_state_dict": state},
        _use_new_zipfile_serialization=not old,
    )
    assert_same_weights(read_checkpoint(path))


def test_expanded_weights_convert(tmp_path: Path) -> None:
    """One number that stands for many."""
    state = {
        name: torch.zeros(1).expand(t.shape) if t.dim() and t.is_floating_point() else t for name, t in WEIGHTS.items()
    }
    checkpoint = read_checkpoint(saved(tmp_path / "x.pt", {**checkpoint_dict(WEIGHTS), "model_state_dict": state}))
    assert {name: t.shape for name, t in checkpoint.state_dict.items()} == {
        name: t.shape for name, t in WEIGHTS.items()
    }


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_in_both_formats(protocol: int, old: bool, tmp_path: Path) -> None:
    """With sliders, and with a long text; protocol 0 writes names of storages as text, which torch cannot read."""
    content = {**checkpoint_dict(WEIGHTS, analysis=made_up_analysis()), "epoch": 7}
    content["training_config"] |= {"notes": "x" * 10_000, "bytes": b"\xff\x00", "text": "ä\n\t\\u0041"}
    path = saved(tmp_path / "x.pt", content, pickle_protocol=protocol, _use_new_zipfile_serialization=not old)
    checkpoint = read_checkpoint(path)
    assert_same_weights(checkpoint)
    assert checkpoint.analysis is not None
    assert np.array_equal(checkpoint.analysis.pca_components, made_up_analysis().pca_components)
    assert checkpoint.training_config["notes"] == "x" * 10_000
    assert checkpoint.training_config["text"] == "ä\n\t\\u0041"
    assert inspect_file(path).problems == []


# --- how archives are written -----------------------------------------------------------------------


def repacked(path: Path, rename: Callable[[str], str], *more: tuple[str, bytes], first: bool = False) -> Path:
    """Pack a file again, without compression, with other names for its parts and some more beside."""
    target = path.with_name("y.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        extra = [(name, content) for name, content in more]
        parts = [(rename(entry.filename), old.read(entry)) for entry in old.infolist()]
        for name, content in [*extra, *parts] if first else [*parts, *extra]:
            new.writestr(name, content)
    return target


REPACKED: dict[str, tuple[Callable[[str], str], tuple[tuple[str, bytes], ...]]] = {
    "without a folder": (lambda name: name.partition("/")[2], ()),
    "in two folders": (lambda name: f"a/b/{name.partition('/')[2]}", ()),
    "in this folder": (lambda name: f"./{name}", ()),
    "by a Mac": (lambda name: name, (("__MACOSX/x/._data.pkl", b"\0\5\x16\7"), ("x/.DS_Store", b"\0"))),
    "with a note": (lambda name: name, (("read me.txt", b"hello"),)),
    "with folders": (lambda name: name, (("x/", b""), ("x/data/", b""))),
}


@pytest.mark.parametrize("case", REPACKED)
@pytest.mark.parametrize("first", [False, True])
def test_packed_again_without_compression(case: str, first: bool, tmp_path: Path) -> None:
    """By other programs, which rename the folder, or add their own parts."""
    rename, more = REPACKED[case]
    path = repacked(saved(tmp_path / "x.pt", checkpoint_dict(WEIGHTS)), rename, *more, first=first)
    assert_same_weights(read_checkpoint(path))
    assert inspect_file(path).problems == []


@pytest.mark.skipif(shutil.which("zip") is None, reason="zip is not installed")
def test_packed_again_by_zip(tmp_path: Path) -> None:
    """As the advice for compressed archives says: `zip -0 -r`."""
    with zipfile.ZipFile(saved(tmp_path / "x.pt", checkpoint_dict(WEIGHTS))) as archive:
        archive.extractall(tmp_path / "unpacked")
    subprocess.run(["zip", "-q", "-0", "-r", "../y.pt", "."], cwd=tmp_path / "unpacked", check=True)
    assert_same_weights(read_checkpoint(tmp_path / "y.pt"))


# --- the pickles of Debian's Python -----------------------------------------------------------------

OTHER_PYTHON = r"""
import enum, pickle, sys, types, zipfile, struct
sys.modules["torch"] = torch = types.ModuleType("torch")
sys.modules["torch._utils"] = torch._utils = types.ModuleType("torch._utils")
class FloatStorage: pass
FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"
torch.FloatStorage = FloatStorage
class OverfittingPreset(enum.Enum):
    CONSERVATIVE = "conservative"
for name in ("small_dataset_audio", "small_dataset_audio.training", "small_dataset_audio.training.config"):
    sys.modules[name] = types.ModuleType(name)
OverfittingPreset.__module__ = "small_dataset_audio.training.config"
sys.modules[OverfittingPreset.__module__].OverfittingPreset = OverfittingPreset
class Storage:
    pass
class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return ("storage", FloatStorage, "0", "cpu", 3) if isinstance(value, Storage) else None
def _rebuild_tensor_v2(*args): pass
_rebuild_tensor_v2.__module__ = "torch._utils"
torch._utils._rebuild_tensor_v2 = _rebuild_tensor_v2
class Tensor:
    def __reduce__(self):
        return _rebuild_tensor_v2, (Storage(), 0, (3,), (1,), False, {})
import io
out = io.BytesIO()
Pickler(out, 2).dump({"model_state_dict": {"w": Tensor()}, "training_config": {"preset":
OverfittingPreset.CONSERVATIVE}})
with zipfile.ZipFile(sys.argv[1], "w") as archive:
    archive.writestr("x/data.pkl", out.getvalue())
    archive.writestr("x/data/0", struct.pack("<3f", 1, 2, 3))
    archive.writestr("x/version", "3\n")
"""


def other_pythons() -> list[str]:
    names = ("/usr/bin/python3", "python3.11", "python3.12", "python3.13", "python3.14")
    return [path for name in names if (path := shutil.which(name)) is not None]


@pytest.mark.parametrize("python", other_pythons() or [sys.executable])
def test_pickles_of_other_pythons(python: str, tmp_path: Path) -> None:
    """Those that this machine has, Debian's own among them: its version writes an enum member as `getattr`."""
    path = tmp_path / "x.pt"
    done = subprocess.run([python, "-c", OTHER_PYTHON, path], check=False, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"{python} cannot write it: {done.stderr.splitlines()[-1:]}")
    with path.open("rb") as file:
        content = read_contents(file, path.stat().st_size).content
    from sda_daemon.torchfile.plain import plain_value

    assert plain_value(content["training_config"], lambda *_: None) == {"preset": "conservative"}
    assert inspect_file(path).names_of(NameKind.REFUSED) == []


def test_the_application_s_enum_as_python_3_11_2_writes_it(tmp_path: Path) -> None:
    """Byte by byte: the member's name, which in lower case is the value."""
    pickled = (
        b"\x80\x02}X\x06\x00\x00\x00presetc__builtin__\ngetattr\n"
        b"csmall_dataset_audio.training.config\nOverfittingPreset\nX\x0c\x00\x00\x00CONSERVATIVE\x86Rs."
    )
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickled)
    found = inspect_file(tmp_path / "x.pt")
    assert found.names == {
        "__builtin__.getattr": NameKind.FOREIGN,
        "small_dataset_audio.training.config.OverfittingPreset": NameKind.FOREIGN,
    }
    assert "has no 'model_state_dict', but 'preset'" in found.problems[0]


@pytest.mark.parametrize("stride", [0, 2, 12345, 2**40])
def test_odd_strides_of_single_elements_convert(stride: int, tmp_path: Path) -> None:
    """They are the same weights, also to whoever computes their digest."""
    weights = small_model().state_dict()
    odd = {}
    for name, value in weights.items():
        strides = [stride if size == 1 else value.stride(index) for index, size in enumerate(value.shape)]
        odd[name] = value.clone().as_strided(value.shape, strides)
    torch.save(checkpoint_dict(odd), tmp_path / "x.pt")
    saved = save_model_from_checkpoint(tmp_path / "x.pt", ModelMetadata(name="Rain"), tmp_path / "models")
    assert load_model(saved).metadata.name == "Rain"
    assert weights_digest(read_checkpoint(tmp_path / "x.pt").state_dict) == weights_digest(weights)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: re.sub("^(encoder|decoder)", r"\1.module", name),
        lambda name: re.sub("^encoder", "encoder._orig_mod", name),
        lambda name: "model." + re.sub("^(encoder|decoder)", r"\1._fsdp_wrapped_module", name),
        lambda name: re.sub(r"convs\.", "convs._checkpoint_wrapped_module.", name),
    ],
    ids=["each part", "one part", "both", "deeper"],
)  # fmt: skip
def test_wrappers_around_a_part_convert(wrap: Callable[[str], str], tmp_path: Path) -> None:
    """DataParallel(model.encoder), torch.compile(model.encoder) and the like."""
    weights = small_model().state_dict()
    torch.save(checkpoint_dict({wrap(name): value for name, value in weights.items()}), tmp_path / "x.pt")
    assert set(read_checkpoint(tmp_path / "x.pt").state_dict) == set(weights)


def test_weights_of_another_module_are_left_out(tmp_path: Path) -> None:
    """Lightning keeps those of a loss beside those of the model."""
    weights = {f"model.{name}": value for name, value in small_model().state_dict().items()}
    torch.save(checkpoint_dict({**weights, "loss_fn.w": torch.ones(100)}), tmp_path / "x.pt")
    found = read_checkpoint(tmp_path / "x.pt")
    assert set(found.state_dict) == set(small_model().state_dict())
    assert ("model_state_dict.loss_fn.w", "not a weight of this model") in found.dropped


HARMLESS: list[Any] = [
    iter([1, 2]), zip([1], [2], strict=False), json.JSONDecodeError("x", "y", 0), queue.Empty(),
    np.linalg.LinAlgError("x"), io.BytesIO(b"x"), decimal.getcontext(), os.uname(), socket.AF_INET, time.time,
    subprocess.CompletedProcess(["git"], 0), configparser.ConfigParser(), contextlib.nullcontext(), np.power,
    torch.max(torch.ones(2, 2), 0), torch.utils.data.DataLoader([1, 2]),  # type: ignore[arg-type]
    collections.abc.Callable[[int], str],
]  # fmt: skip


@pytest.mark.parametrize("thing", HARMLESS, ids=[type(thing).__name__ + str(n) for n, thing in enumerate(HARMLESS)])
def test_harmless_things_in_parts_that_are_not_kept(thing: Any, tmp_path: Path) -> None:
    """What only holds values is no reason to distrust a file."""
    torch.save({**checkpoint_dict(small_model().state_dict()), "extra": [thing]}, tmp_path / "x.pt")
    read_checkpoint(tmp_path / "x.pt")


def test_a_version_of_thousands_of_digits(tmp_path: Path) -> None:
    """Is told in a few words."""
    torch.save({**checkpoint_dict(small_model().state_dict()), "version": 10**5000}, tmp_path / "x.pt")
    with pytest.raises(NewerCheckpointError) as raised:
        read_checkpoint(tmp_path / "x.pt")
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("name", ["socket.AF_INET", "signal.SIGTERM", "re.IGNORECASE", "ssl.PROTOCOL_TLS"])
def test_members_of_enums_as_names(name: str) -> None:
    """Some versions of Python pickle them so; what is beside them in their modules still acts."""
    assert kind_of_name(name) is not NameKind.REFUSED
    for acts in ("socket.create_connection", "signal.alarm", "ssl.get_server_certificate"):
        assert kind_of_name(acts) is NameKind.REFUSED

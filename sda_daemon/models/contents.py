"""Tells what the dict of a torch file is: a checkpoint, bare weights, or something else, and then what. Pure.

Also finds the weights under the names that wrappers of a model put before its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sda_daemon.models.formats import VOCODER_KEY, format_of_marker
from sda_daemon.models.metadata import METADATA_FIELDS
from sda_daemon.torchfile.faults import Fault, OtherKind
from sda_daemon.torchfile.outlines import tensor_outline
from sda_daemon.torchfile.plain import describe_foreign
from sda_daemon.torchfile.stand_ins import StandIn
from sda_daemon.torchfile.values import array_values, as_bytes, fields_of, mapping_of
from sda_daemon.wording import quoted

WEIGHTS_KEY = "model_state_dict"
KIND_KEYS = ("format", "model_type", "normalization_stats")
"""They tell what else than a checkpoint of a ConvVAE a dict with weights is."""
METADATA_KEY = "metadata"
LIGHTNING_KEY = "pytorch-lightning_version"
_TRAINING_KEYS = frozenset(
    {
        "train_loss",
        "val_loss",
        "optimizer",
        "optimizer_state_dict",
        "optimizer_states",
        "scheduler_state_dict",
        "metrics_history",
        LIGHTNING_KEY,
    }
)
"""A training that can go on has some of them, a finished model none. An epoch alone proves nothing."""
_FEW_FIELDS, _MANY_FIELDS = 3, 5
"""So many of the fields that describe a model tell one, in a dict without and with the state of a training."""
_STATE_DICT_KEY = "state_dict"
_USED_KEYS = frozenset(
    {
        "format",
        "version",
        "model_state_dict",
        "training_config",
        "spectrogram_config",
        "latent_analysis",
        "epoch",
        "step",
        "train_loss",
        "val_loss",
        "kl_weight",
        *KIND_KEYS,
    }
)
_ONLY_CONVVAE = "Only checkpoints of a ConvVAE can be converted"
_SAVE_STATE_DICT = "Load it where it was made and save its state dict: torch.save(model.state_dict(), path)"
_WRAPPERS = r"(?:\.(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module))*"
_WEIGHT = re.compile(
    rf"(?:(.*)\.)?((?:encoder{_WRAPPERS}\.(?:convs|fc_mu|fc_logvar)|decoder{_WRAPPERS}\.(?:deconvs|fc))\.[^/]+)",
    re.DOTALL,
)
"""A weight of a ConvVAE, and what wrappers put before its name; they may be around a part of it, too."""
_INNER = re.compile(_WRAPPERS.removesuffix("*") + r"(?=\.)")
_AVERAGES = re.compile(r"ema|avg|average|shadow|swa", re.IGNORECASE)


class FileKind(StrEnum):
    """What a file is."""

    CHECKPOINT = "training checkpoint"
    MODEL = "saved model"
    STATE_DICT = "bare weights"
    TORCH = "torch file of another kind"
    TORCHSCRIPT = "TorchScript program"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Names:
    """Which of a state dict's names are weights of a ConvVAE, and what they are called in it.

    Attributes:
        weights: name in the file to the model's own name.
        prefix: what was before each of these, such as `module.`; empty for nothing.
        companions: what else there is, such as `n_averaged`.
        other_copies: prefixes of further copies of the same weights, which are left alone.
    """

    weights: dict[str, str]
    prefix: str = ""
    companions: tuple[str, ...] = ()
    other_copies: tuple[str, ...] = ()


def plain_names(names: Iterable[Any]) -> Names:
    """Sort the names of a state dict, whatever DataParallel, torch.compile, Lightning or an average put before them.

    Where there are several copies under several prefixes, the average of the weights is taken, which is made to be
    used, else the first.
    """
    groups: dict[str, dict[str, str]] = {}
    companions: list[str] = []
    for name in names:
        found = _WEIGHT.fullmatch(name) if isinstance(name, str) else None
        if found is None:
            companions.append(name if isinstance(name, str) else quoted(name))
        else:
            groups.setdefault(f"{found[1]}." if found[1] else "", {})[name] = _INNER.sub("", found[2])
    if not groups:
        return Names({}, "", tuple(companions))
    averages = [prefix for prefix in groups if _AVERAGES.search(prefix)]
    prefix = averages[0] if averages else next(iter(groups))
    others = tuple(other for other in groups if other != prefix)
    return Names(groups[prefix], prefix, tuple(companions), others)


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A checkpoint's dict as this program knows it, and whether it was only weights."""

    content: dict[Any, Any]
    is_bare: bool


def unwrap_checkpoint(content: Any) -> Wrapped | None:
    """Return a checkpoint's dict; that of Lightning, or bare weights, as if it were one. None for anything else."""
    top = mapping_of(content)
    if top is None:
        return None
    if WEIGHTS_KEY in top:
        return Wrapped(top, is_bare=False)
    weights = mapping_of(top.get(_STATE_DICT_KEY))
    if weights is not None and plain_names(weights).weights:
        renamed = {WEIGHTS_KEY: weights, "epoch": top.get("epoch"), "step": top.get("global_step")}
        known = ("training_config", "spectrogram_config", "latent_analysis", "train_loss", "val_loss", "kl_weight")
        return Wrapped({**renamed, **{key: top[key] for key in known if key in top}}, is_bare=False)
    names = plain_names(top)
    if names.weights and all(_is_small(top.get(name)) for name in names.companions):
        return Wrapped({WEIGHTS_KEY: top}, is_bare=True)
    return None


def _is_small(value: Any) -> bool:
    """Tell whether something beside weights is no more than a number: how many of them an average is of, say."""
    outline = tensor_outline(value)
    if outline is not None:
        return all(size == 1 for size in outline.shape)
    return value is None or isinstance(value, bool | int | float) or getattr(value, "numel", lambda: 2)() == 1


def unused_keys(content: Mapping[Any, Any]) -> list[Any]:
    """Return what need not be read: the optimizer, averages of the weights, the history; of bare weights, nothing."""
    used = _USED_KEYS
    if describes_model(content.get(METADATA_KEY)):  # it may be no checkpoint at all
        used |= {METADATA_KEY}
    if WEIGHTS_KEY in content:
        return [key for key in content if key not in used]
    if mapping_of(content.get(_STATE_DICT_KEY)) is not None:  # a Lightning checkpoint
        return [key for key in content if key not in used | {_STATE_DICT_KEY, "global_step", LIGHTNING_KEY}]
    return []


def kind_of_content(content: Any) -> Fault | None:
    """Tell what a sound torch file is that is no checkpoint of this kind; None if it may be one.

    Args:
        content: what the file holds, with stand-ins for what is foreign and, if they were not read, for tensors.
    """
    if isinstance(content, StandIn) and tensor_outline(content) is None and mapping_of(content) is None:
        return _kind_of_object(content)
    top = mapping_of(content)
    if top is None:
        return OtherKind(f"holds {_described(content)}, not a checkpoint's dict", _ONLY_CONVVAE)
    fault = _kind_of_application(top)
    if fault is not None or unwrap_checkpoint(top) is not None:
        return fault
    for key, value in top.items():
        if isinstance(value, StandIn) and _is_module(value):
            return OtherKind(
                f"holds a whole pickled module ({value.foreign_name}) under {_short(key)}", _SAVE_STATE_DICT
            )
    weights = mapping_of(top.get(_STATE_DICT_KEY))
    if LIGHTNING_KEY in top or weights is not None:
        what = "a Lightning checkpoint" if LIGHTNING_KEY in top else "a checkpoint"
        first = f" (its weights begin with {_short(next(iter(weights), ''))})" if weights else ""
        return OtherKind(f"is {what} of another model{first}", _ONLY_CONVVAE)
    if top and all(_is_tensor(value) for value in top.values()):
        return OtherKind(
            f"holds the weights of another model (they begin with {_short(next(iter(top)))})", _ONLY_CONVVAE
        )
    keys = ", ".join(_short(key) for key in list(top)[:8]) or "nothing"
    return OtherKind(f"is not a checkpoint of this kind: it has no {WEIGHTS_KEY!r}, but {keys}", _ONLY_CONVVAE)


def _kind_of_object(content: StandIn) -> Fault:
    if _is_module(content):
        return OtherKind(f"is a whole pickled module ({content.foreign_name}), not its weights", _SAVE_STATE_DICT)
    return OtherKind(f"holds a {describe_foreign(content)}, not a checkpoint's dict", _ONLY_CONVVAE)


def _is_module(value: StandIn) -> bool:
    """Tell whether something foreign is a module of torch: what all of them keep is in its state."""
    return isinstance(value.state, dict) and {"_parameters", "_modules"} <= value.state.keys()


def _kind_of_application(top: Mapping[Any, Any]) -> Fault | None:
    """Tell what else the training application writes: finished models, and checkpoints of its other branches."""
    if format_of_marker(top.get("format")) is not None:
        return OtherKind(
            f"is a finished model ({top['format']}), not a checkpoint",
            "To have it in the library, copy it into the models folder under the ending of its kind",
        )
    return branch_of(top) or unknown_model_of(top)


def unknown_model_of(top: Mapping[Any, Any]) -> Fault | None:
    """Tell that a dict is a finished model of a format that this program does not know; None for all else.

    The next generation of the application will write another marker, and some program none at all: what they have
    saved is no more a source than the models that are known.
    """
    marker = top.get("format")
    if format_of_marker(marker) is not None:
        return None
    is_training = not _TRAINING_KEYS.isdisjoint(top)
    text = _text_of(marker)
    is_model = text is not None and text.casefold().rstrip().endswith("model")
    is_model = is_model or describes_model(top.get(METADATA_KEY), is_training=is_training)
    if not is_training and (WEIGHTS_KEY in top or _STATE_DICT_KEY in top):
        is_model = is_model or marker is not None or VOCODER_KEY in top
    if not is_model:
        return None
    told = f"format {_short(marker if text is None else text)}" if marker is not None else "it has no format marker"
    return OtherKind(
        f"is a finished model of another program or a later version ({told})",
        "It is left alone; if the training application has been updated, update sda-daemon, too",
    )


def describes_model(metadata: Any, *, is_training: bool = False) -> bool:
    """Tell whether something is what a finished model says of itself.

    Args:
        metadata: what stands under that key.
        is_training: whether the state of a training is beside it, as no model has: then more is asked for.
    """
    fields = fields_of(metadata)
    if not fields:
        return False
    known = sum(name in fields for name in METADATA_FIELDS)
    if is_training:
        return "model_id" in fields and known >= _MANY_FIELDS
    return "model_id" in fields or known >= _FEW_FIELDS


def _text_of(value: Any) -> str | None:
    """Return a text, also one that numpy or a program of Python 2 has written; None for anything else."""
    if isinstance(value, str):
        return value
    raw = as_bytes(value)
    if raw is not None:
        return raw.decode("utf-8", "replace")
    found = array_values(value)
    return found if isinstance(found, str) else None


def branch_of(top: Mapping[Any, Any]) -> Fault | None:
    """Tell which of the application's branches with another network has made a checkpoint or a model; None for none."""
    kind = top.get("model_type")
    if isinstance(kind, str) and kind.lower().replace("-", "").replace("_", "") == "vqvae":
        return OtherKind("is of the application's vq-vae branch, another network than ConvVAE", _ONLY_CONVVAE)
    if "normalization_stats" in top:
        return OtherKind(
            "is of the application's complex-spectrogram branch, another network than ConvVAE", _ONLY_CONVVAE
        )
    if isinstance(kind, str) and kind.lower() not in ("", "convvae", "conv_vae", "vae"):
        return OtherKind(f"is of another kind of model ({_short(kind)})", _ONLY_CONVVAE)
    return None


def _is_tensor(value: Any) -> bool:
    return tensor_outline(value) is not None or hasattr(value, "numel")


def _short(key: Any) -> str:
    return quoted(key) if isinstance(key, str | int | float | bytes | None) else describe_foreign(key)


def _described(content: Any) -> str:
    outline = tensor_outline(content)
    if outline is not None or hasattr(content, "numel"):
        return "a single tensor"
    if isinstance(content, list | tuple):
        return f"a {'list' if isinstance(content, list) else 'tuple'} of {len(content)}"
    return "nothing" if content is None else f"a {describe_foreign(content)}"


def kind_of(content: Any) -> FileKind:
    """Tell in a word what the dict of a torch file is."""
    top = mapping_of(content)
    if top is None:
        return FileKind.TORCH
    if format_of_marker(top.get("format")) is not None:
        return FileKind.MODEL
    if branch_of(top) is not None:
        return FileKind.TORCH
    if unknown_model_of(top) is not None:
        return FileKind.MODEL
    wrapped = unwrap_checkpoint(top)
    if wrapped is None:
        return FileKind.TORCH
    return FileKind.STATE_DICT if wrapped.is_bare else FileKind.CHECKPOINT

"""Judges the names that a pickle would import: which are harmless, which get a stand-in, which are refused. Pure."""

from __future__ import annotations

import _compat_pickle
import sys
from enum import StrEnum

EMPTY_BYTES = "builtins.bytes"
"""What pickles of protocol 2 call, without arguments, for no bytes: every array without elements has some."""
# Allowed by torch itself, or known to do nothing but build values.
SAFE_NAMES = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "_codecs.encode",
        "builtins.set",
        "builtins.complex",
        EMPTY_BYTES,
    }
)
# Classes of the standard library that only hold values; they become stand-ins.
_VALUE_MODULES = ("pathlib", "datetime", "decimal", "fractions", "uuid", "enum", "ipaddress", "zoneinfo")
_VALUE_NAMES = frozenset(
    {
        "collections.defaultdict",
        "collections.deque",
        "argparse.Namespace",
        "types.SimpleNamespace",
        "torch.torch_version.TorchVersion",
    }
)
NUMPY_NAMES = ("_reconstruct", "scalar", "ndarray", "dtype")


class Judgement(StrEnum):
    """What becomes of a name."""

    SAFE = "safe"
    """It only builds values."""
    TORCH = "torch"
    """Of torch: its own reader allows it, or refuses it."""
    NUMPY = "numpy"
    """Of numpy, and builds arrays or numbers."""
    FOREIGN = "foreign"
    """Not installed, or only holding values: an inert stand-in takes its place."""
    REFUSED = "refused"
    """It can do something; a file that names it is not read."""


def judge_name(name: str) -> Judgement:
    """Tell what becomes of a name such as `posix.system` or `collections.OrderedDict`, as it is called today."""
    return _judge(modern_name(name))


def modern_name(name: str) -> str:
    """The name that a pickle of protocol 2 means: it may be written as in Python 2 (`commands` for `subprocess`)."""
    module, _, attribute = name.rpartition(".")
    if (module, attribute) in _compat_pickle.NAME_MAPPING:
        module, attribute = _compat_pickle.NAME_MAPPING[module, attribute]
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{attribute}"


def _judge(name: str) -> Judgement:
    module, _, attribute = name.rpartition(".")
    root = module.partition(".")[0]
    if name in SAFE_NAMES:
        return Judgement.SAFE
    if root == "torch" and name not in _VALUE_NAMES:
        return Judgement.TORCH
    if root == "numpy":
        is_dtype = name.startswith("numpy.dtypes.") and attribute.endswith("DType")
        return Judgement.NUMPY if is_dtype or attribute in NUMPY_NAMES else Judgement.REFUSED
    if name in _VALUE_NAMES or root in _VALUE_MODULES or not _is_standard(root):
        return Judgement.FOREIGN
    return Judgement.REFUSED


def _is_standard(root: str) -> bool:
    return root in sys.stdlib_module_names or root in ("nt", "pip", "setuptools")

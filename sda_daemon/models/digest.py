"""The identity of a model: a digest of its weights, and the id that follows from it.

Imported where torch must not be: it is loaded when a digest is computed.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "sda-daemon:weights")


def weights_digest(state_dict: Mapping[str, Tensor]) -> str:
    """Return `sha256:…` over names, dtypes, shapes and bytes of all weights, in order of their names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{dtype}\0{','.join(map(str, tensor.shape))}\0".encode())
        # A single element counts as contiguous whatever its stride is.
        flat = tensor.reshape(-1).as_strided((tensor.numel(),), (1,))
        digest.update(flat.view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"


@lru_cache(maxsize=2**16)
def model_id_of(digest: str) -> str:
    """Return the id of the model with these weights: a UUIDv5, the same on every machine and every time."""
    return str(uuid.uuid5(_NAMESPACE, digest))

"""Which weights the model files of a folder hold, told by a digest that is learned once for each content of a file.

The digests live in a small hidden file beside the index. It is a cache: without it the files are read again. With it
a model that the training application has saved under an id of its own is recognised as what it is.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sda_daemon.files import write_atomic
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.index import index_signature
from sda_daemon.models.digest import model_id_of
from sda_daemon.signature import FileSignature
from sda_daemon.small_files import read_small_file

if TYPE_CHECKING:
    from sda_daemon.library.catalog import ModelLibrary

WEIGHTS_FILE_NAME = ".model_library.weights.json"
_VERSION = 2
_MAX_BYTES = 2**28
_VERSION_OF_IDS = 5


@dataclass(frozen=True, slots=True)
class Weights:
    """What is known of the weights in one content of a file.

    Attributes:
        file: the name that it had when it was last seen.
        signature: of the content.
        digest: of the weights; empty if it cannot be known.
        is_own: whether this program has written the file, and the digest into it.
        reason: why the digest cannot be known.
        is_lasting: whether it is so until the file changes; else it is forgotten with the process.
    """

    file: str
    signature: FileSignature
    digest: str = ""
    is_own: bool = False
    reason: str = ""
    is_lasting: bool = True

    @property
    def is_others(self) -> bool:
        """Whether the model is known, and another program has saved it."""
        return bool(self.digest) and not self.is_own


class KnownWeights:
    """The digests of one folder. Used by one thread; other processes may learn others meanwhile.

    Args:
        folder: the models folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / WEIGHTS_FILE_NAME
        self._items: dict[FileSignature, Weights] = {}
        self._by_digest: dict[str, list[Weights]] = {}
        self._read: object = None
        self._unsaved: set[FileSignature] = set()

    @property
    def is_saved(self) -> bool:
        """Whether other processes can know all that is known here."""
        return not self._unsaved

    def of_content(self, signature: FileSignature) -> Weights | None:
        """Return what is known of a content."""
        self._refresh()
        return self._items.get(signature)

    def of_digest(self, digest: str) -> list[Weights]:
        """Return the contents that hold these weights, as far as they are known."""
        self._refresh()
        return self._by_digest.get(digest, [])

    def of_others(self) -> dict[str, list[Weights]]:
        """Return, by digest, the contents that other programs have saved."""
        self._refresh()
        found = {digest: [item for item in items if item.is_others] for digest, items in self._by_digest.items()}
        return {digest: items for digest, items in found.items() if items}

    def unknown(self, files: Mapping[str, FileSignature], entries: Iterable[ModelEntry]) -> list[str]:
        """Return the files whose weights are not known yet; first those with ids that this program has not made.

        Args:
            files: what is in the folder.
            entries: the models; other files are left out.
        """
        self._refresh()
        wanted: list[tuple[bool, str]] = []
        for entry in entries:
            signature = files.get(entry.file_path)
            if signature is None:
                continue
            known = self._items.get(signature)
            if known is None:
                wanted.append((_is_made_of_weights(entry.model_id), entry.file_path))
            elif known.file != entry.file_path:
                self.learn(replace(known, file=entry.file_path))
        return [file for _, file in sorted(wanted)]

    def learn(self, weights: Weights) -> None:
        """Take something in; it is kept by `save`."""
        self.learn_all([weights])

    def learn_all(self, items: Iterable[Weights]) -> None:
        """Take several in; see `learn`."""
        for weights in items:
            before = self._items.get(weights.signature)
            if before is not None and before.digest:
                self._by_digest[before.digest].remove(before)
            self._items[weights.signature] = weights
            if weights.digest:
                self._by_digest.setdefault(weights.digest, []).append(weights)
            if weights.is_lasting:
                self._unsaved.add(weights.signature)

    def save(self) -> None:
        """Write what is known of contents that are still there, together with what others have learned.

        Not durably, and not at all where it cannot be written: it is a cache.
        """
        if self.is_saved:
            return
        self._refresh()
        self._items = {key: item for key, item in self._items.items() if _content_of(self._file(item)) == key}
        files = [
            [item.file, key.size_bytes, key.mtime_ns, key.inode, item.digest, item.is_own, item.reason]
            for key, item in self._items.items()
            if item.is_lasting
        ]
        with contextlib.suppress(OSError):
            write_atomic(self.path, [json.dumps({"version": _VERSION, "files": files}).encode()], durable=False)
            self._unsaved.clear()
            self._read = index_signature(self.path)
        self._index()

    def holds(self, weights: Weights) -> bool:
        """Tell whether a content is still what its file holds."""
        return _content_of(self._file(weights)) == weights.signature

    def _file(self, weights: Weights) -> Path:
        return self.path.with_name(weights.file)

    def _refresh(self) -> None:
        """Read the file again if another process has written it."""
        now = index_signature(self.path)
        if now == self._read:
            return
        self._read = now
        mine = {key: item for key, item in self._items.items() if key in self._unsaved or not item.is_lasting}
        self._items = {**_load(self.path), **mine}
        self._index()

    def _index(self) -> None:
        self._by_digest = {}
        for item in self._items.values():
            if item.digest:
                self._by_digest.setdefault(item.digest, []).append(item)


class Described(Protocol):
    """What tells whether a model has sliders: its metadata, or its entry."""

    @property
    def has_analysis(self) -> bool:
        """Whether it has."""


def brings_sliders(new: Described, known: Described) -> bool:
    """Tell whether a model brings anything new to another one of the same weights: the sliders that this one lacks."""
    return bool(new.has_analysis) and not known.has_analysis


def find_twin(library: ModelLibrary, digest: str) -> ModelEntry | None:
    """Return the model of these weights that another program has saved under an id of its own, None if there is none.

    Of several, one with sliders goes first, then the oldest.
    """
    files = {item.file: item for item in library.weights.of_digest(digest) if item.is_others}
    if not files:
        return None
    own_id = model_id_of(digest)
    found = [
        entry
        for entry in library.entries()
        if (known := files.get(entry.file_path)) is not None
        and entry.model_id != own_id
        and library.weights.holds(known)
    ]
    return min(found, key=lambda entry: (not entry.has_analysis, entry.save_date or "", entry.model_id), default=None)


def _is_made_of_weights(model_id: str) -> bool:
    """Tell whether an id may be one that this program makes of weights: such a UUID, and no random one."""
    try:
        return uuid.UUID(model_id).version == _VERSION_OF_IDS
    except ValueError:
        return False


def _content_of(path: Path) -> FileSignature | None:
    try:
        return FileSignature.of(path.lstat())
    except OSError:
        return None


def _load(path: Path) -> dict[FileSignature, Weights]:
    """Read the cache; an unreadable one is as good as none."""
    try:
        raw = json.loads(read_small_file(path, _MAX_BYTES))
        if raw["version"] != _VERSION:
            return {}
        items = [
            Weights(str(file), FileSignature(int(size), int(mtime), int(inode)), str(digest), bool(is_own), str(reason))
            for file, size, mtime, inode, digest, is_own, reason in raw["files"]
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {item.signature: item for item in items if "/" not in item.file and item.file not in ("", ".", "..")}

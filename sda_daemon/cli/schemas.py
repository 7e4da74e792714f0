"""What each command prints with `--json`: the schemas that the documents show and the tests hold the output to.

Only the documents and the tests import this module; a command need not wait for it. Keys are only ever
added; one that goes or changes its meaning means a new major version.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Text = str | None
Number = int | float | None
"""The index is shared with other programs: a text may be missing, a count may be none, or no whole number."""


class Entry(_Document):
    """One model of the index: its 16 fields, dates in ISO 8601; null where another program has left one empty."""

    model_id: str
    name: Text
    description: Text
    file_path: str = Field(description="Bare file name in the models folder.")
    file_size_bytes: Number
    dataset_name: Text
    dataset_file_count: Number
    dataset_total_duration_s: Number
    training_date: Text
    save_date: Text
    training_epochs: Number
    final_train_loss: Number = Field(description="null also if it is infinite or not a number.")
    final_val_loss: Number = Field(description="null also if it is infinite or not a number.")
    has_analysis: bool
    n_active_components: Number
    tags: list[str]


class Tensor(_Document):
    """Name, type, shape and size of a tensor; its values are not read."""

    name: str
    dtype: str
    shape: list[int]
    size_bytes: int


class Details(Entry):
    """One model with what its file says; these keys are null if the file cannot be read."""

    path: str
    problem: str | None = Field(description="Why the file cannot be read.")
    latent_dim: int | None
    decoder_activation: str | None
    spectrogram_config: dict[str, Any] | None
    training_config: dict[str, Any] | None
    analysis: dict[str, Any] | None = Field(description="The latent analysis, arrays as lists.")
    provenance: dict[str, Any] | None = Field(description="Where it came from; empty for files of other programs.")
    weights: list[Tensor]


class Exported(_Document):
    """A copied model file."""

    model_id: str
    name: Text
    path: str
    warnings: list[str] = Field(description="What the application that opens the copy will not play right.")


class Deleted(_Document):
    """A deleted model."""

    model_id: str
    name: Text
    file_path: str
    trashed: bool = Field(description="Whether `restore` can bring it back.")


class Trashed(Entry):
    """A model in the trash: its entry as it was."""

    path: str
    deleted_at: str


class FindingDocument(_Document):
    """One disagreement between index and folder."""

    kind: Literal[
        "missing",
        "outside",
        "shared",
        "orphan",
        "copy",
        "moved",
        "changed",
        "replaced",
        "invalid",
        "lost",
        "left_out",
        "foreign",
    ]
    file: str = Field(description="Empty where an entry of another program names none.")
    reason: str
    action: Literal["add", "remove", "update", "put_back", "none", "forget"]
    old_model_id: str | None
    new_model_id: str | None


class Repair(_Document):
    """The plan of a repair, and whether it was carried out."""

    applied: bool
    entries: int = Field(description="Entries of the index when the plan was made.")
    findings: list[FindingDocument]


class Verified(_Document):
    """The check of one model."""

    model_id: str
    name: Text
    file_path: str
    result: Literal["ok", "unrecorded", "changed", "broken", "unreadable", "missing"]
    reason: str
    recorded_digest: str | None
    weights_digest: str | None


class ConvertSummary(_Document):
    """How many checkpoints became what."""

    added: int
    updated: int
    duplicate: int
    failed: int


class ConvertResult(_Document):
    """What became of one checkpoint, or would have in a dry run."""

    path: str
    action: Literal["added", "updated", "duplicate", "failed"]
    model_id: str | None
    name: Text
    file_path: str | None
    cause: str | None = Field(description="Static name of why it failed.")
    reason: str | None
    duration_s: float
    warnings: list[str] = Field(
        description="Which notes or sidecar could not be used; what the application that opens the model will not play "
        "right."
    )


class Convert(_Document):
    """A run of `convert`."""

    dry_run: bool
    duration_s: float
    summary: ConvertSummary
    results: list[ConvertResult]


class InspectKey(_Document):
    """One key of the file's dict."""

    key: str
    what: str
    size_bytes: int = Field(description="Bytes of the tensors in it.")


class InspectVerdict(_Document):
    """Whether the file would convert or open."""

    result: Literal["ok", "unrecorded", "changed", "broken", "unreadable", "missing"]
    cause: str | None
    reason: str | None
    weights_digest: str | None


class Inspect(_Document):
    """All that was found out about a file."""

    path: str
    size_bytes: int
    kind: str
    container: str
    version: int | None
    parts: int
    verdict: InspectVerdict | None = Field(description="null with --no-check.")
    problems: list[str]
    left_out: list[str] = Field(description="What is not shown, although nothing is wrong with it.")
    names: dict[str, Literal["safe", "torch", "numpy", "foreign", "refused"]]
    keys: list[InspectKey]
    weights: list[Tensor]
    numbers: dict[str, Number]
    training_config: dict[str, Any]
    spectrogram_config: dict[str, Any]
    metadata: dict[str, Any]
    provenance: dict[str, Any]
    analysis: dict[str, Any] | None
    curves: dict[str, list[list[float | None]]] = Field(description="Lists of [epoch, loss] by name.")


class EventDocument(_Document):
    """One kind of event."""

    name: str
    level: Literal["debug", "info", "warning", "error"]
    when: str
    fields: list[str]


class StatusPaths(_Document):
    """How many checkpoints, and the first of them."""

    count: int
    paths: list[str]


class StatusFailure(_Document):
    """A checkpoint that could not be converted."""

    path: str
    status: Literal["failed", "refused", "given_up"]
    kind: str
    reason: str
    attempts: int
    failed_at: str
    next_try_in_s: float | None


class StatusKept(_Document):
    """A checkpoint that was to be deleted or moved after its conversion, and could not be."""

    path: str
    reason: str
    since: str


class StatusToday(_Document):
    """What was done since midnight."""

    converted: int
    duplicates: int
    failed: int


class Status(_Document):
    """What the daemon is doing; the daemon's own part is empty while it does not run."""

    running: bool
    daemon: dict[str, Any] | None = Field(
        description="`pid`, `version`, `started_at`, `config`, `models_dir` and more."
    )
    config_state: dict[str, Any] | None = Field(description="When the config was last read, and what was refused.")
    library: dict[str, Any] | None = Field(
        description="`models`, `foreign_entries` (of other programs), and the `problem` if the models folder is lost."
    )
    watches: list[dict[str, Any]] = Field(description="`path`, `observer`, `problem`.")
    settling: StatusPaths
    waiting: StatusPaths
    converting: list[str]
    incomplete: list[dict[str, Any]] = Field(description="The first of them: `path`, `reason`.")
    incomplete_count: int = Field(description="How many there are.")
    failed: list[StatusFailure]
    kept: list[StatusKept]
    today: StatusToday


class _Entries(RootModel[list[Entry]]):
    pass


class _Exports(RootModel[list[Exported]]):
    pass


class _Deletions(RootModel[list[Deleted]]):
    pass


class _Trash(RootModel[list[Trashed]]):
    pass


class _Verifications(RootModel[list[Verified]]):
    pass


class _Events(RootModel[list[EventDocument]]):
    pass


SCHEMAS: dict[str, type[BaseModel]] = {
    "convert": Convert,
    "inspect": Inspect,
    "status": Status,
    "models list": _Entries,
    "models search": _Entries,
    "models show": Details,
    "models export": _Exports,
    "models edit": _Entries,
    "models delete": _Deletions,
    "models trash": _Trash,
    "models restore": _Entries,
    "models repair": Repair,
    "models verify": _Verifications,
    "events": _Events,
}
"""The schema of each command's `--json`."""

"""Every kind of mistake in a config file, with the exact message that it gives."""
# ruff: noqa: E501 - messages are compared as they are printed, each on one line

from __future__ import annotations

from pathlib import Path

import pytest

from sda_daemon.errors import ConfigError
from sda_daemon.settings import Settings, WatchSettings
from sda_daemon.settings.loading import parse_config
from sda_daemon.settings.own_output import taken_endings

GOOD = "models_dir: m\nwatch:\n  - path: runs\n"

BROKEN: list[tuple[str, str | bytes, str]] = [
    (
        "an empty file",
        "",
        "FILE: the file is empty; it needs at least models_dir and one watch path; see sda-daemon config init",
    ),
    (
        "a number without end",
        f"{GOOD}workers: {'9' * 5000}\n",
        "FILE: this is not YAML: a number in it has more digits than can be read",
    ),
    (
        "a path that no file can have",
        'models_dir: "m\\ud800"\nwatch:\n  - path: runs\n',
        "FILE:1:1: models_dir: 'm\\ud800': no file can have this name: a part of it is not a character",
    ),
    (
        "only comments",
        "# nothing yet\n",
        "FILE: the file is empty; it needs at least models_dir and one watch path; see sda-daemon config init",
    ),
    (
        "a list",
        "- path: runs\n",
        "FILE:1:1: it must hold keys and values, but it is a list",
    ),
    (
        "plain text",
        "hello\n",
        "FILE:1:1: it must hold keys and values, but it is text",
    ),
    (
        "an open bracket",
        "models_dir: [m\nwatch: 1\n",
        "FILE:2:6: this is not YAML: expected ',' or ']', but got ':'",
    ),
    (
        "a tab",
        GOOD + "logging:\n\tlevel: debug\n",
        "FILE:5:1: this is not YAML: found character '\\t' that cannot start any token; indent with spaces, not with tabs",
    ),
    (
        "two documents",
        GOOD + "---\na: 1\n",
        "FILE:4:1: this is not YAML: expected a single document in the stream, but found another document",
    ),
    (
        "a control character",
        "models_dir: m\u0001\n",
        "FILE: this is not YAML: there is a character that is not text (#x0001)",
    ),
    (
        "not UTF-8",
        b"models_dir: m\nwatch: \xff\n",
        "FILE:2:1: this is not UTF-8 text: invalid start byte; save it as UTF-8",
    ),
    (
        "deep nesting",
        "[" * 3000,
        "FILE: it is nested too deeply",
    ),
    (
        "a mapping that is a key",
        "{{ run }}: 1\n",
        'FILE:1:1: this is not YAML: found unhashable key; a template needs quotes around it: "{{ run }}"',
    ),
    (
        "a Python object",
        "models_dir: !!python/object/apply:os.system [ls]\n",
        "FILE:1:13: this is not YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'; only plain values are possible",
    ),
    (
        "a misspelt key",
        GOOD + "workerz: 4\n",
        "FILE:4:1: workerz: there is no such key (with the value 4); did you mean 'workers'?",
    ),
    (
        "an unknown key",
        GOOD + "colour: blue\n",
        "FILE:4:1: colour: there is no such key (with the value 'blue'); known keys: KEYS-OF-CONFIG",
    ),
    (
        "a misspelt key deep down",
        GOOD + "conversion:\n  max_atempts: 3\n",
        "FILE:5:3: conversion.max_atempts: there is no such key (with the value 3); did you mean 'max_attempts'?",
    ),
    (
        "a misspelt key in a list",
        GOOD + "    setle_s: 3s\n",
        "FILE:4:5: watch[0].setle_s: there is no such key (with the value '3s'); did you mean 'settle_s'?",
    ),
    (
        "a number as key",
        GOOD + "1: 2\n",
        "FILE:4:1: 1: 1 is no key; keys are text",
    ),
    (
        "a key twice",
        GOOD + "workers: 1\nworkers: 2\n",
        "FILE:5:1: workers: this key is given twice, already in line 4; keep one of them",
    ),
    (
        "no models_dir",
        "watch:\n  - path: runs\n",
        "FILE:1:1: models_dir: it is missing; write for example models_dir: ~/Music/models",
    ),
    (
        "no watch",
        "models_dir: m\n",
        "FILE:1:1: watch: it is missing; write for example watch: [{path: ~/training/runs}]",
    ),
    (
        "an empty watch list",
        "models_dir: m\nwatch: []\n",
        "FILE:2:1: watch: [] must have at least one item",
    ),
    (
        "watch is no list",
        "models_dir: m\nwatch: runs\n",
        "FILE:2:1: watch: 'runs' must be a list; begin each item with - path:",
    ),
    (
        "watch holds text",
        "models_dir: m\nwatch:\n  - runs\n",
        "FILE:3:5: watch[0]: 'runs' must be a mapping with keys: KEYS-OF-WATCH",
    ),
    (
        "a watch without path",
        "models_dir: m\nwatch:\n  - settle_s: 2s\n",
        "FILE:3:5: watch[0].path: it is missing; write for example path: ~/training/runs",
    ),
    (
        "an empty path",
        "models_dir: ''\nwatch: [{path: runs}]\n",
        "FILE:1:1: models_dir: '': a path is needed, this one is empty",
    ),
    (
        "a path that is a number",
        "models_dir: 5\nwatch: [{path: runs}]\n",
        "FILE:1:1: models_dir: 5 must be the path of a folder",
    ),
    (
        "a variable that is not set",
        "models_dir: ${SDA_NOWHERE}/m\nwatch: [{path: runs}]\n",
        "FILE:1:1: models_dir: '${SDA_NOWHERE}/m': the environment variable SDA_NOWHERE is not set; set it or write ${SDA_NOWHERE:-default}",
    ),
    (
        "a folder watched twice",
        GOOD + "  - path: ./runs\n",
        "FILE:4:5: watch[1].path: '/etc/sda/runs' is watched by watch[0] already; keep one of them; rules say what differs inside it",
    ),
    (
        "a folder watched twice, by way of others",
        GOOD + "  - path: other/../../sda/runs/\n",
        "FILE:4:5: watch[1].path: '/etc/sda/runs' is watched by watch[0] already; keep one of them; rules say what differs inside it",
    ),
    (
        "a folder watched twice, from home",
        "models_dir: m\nwatch:\n  - path: /home/anna/runs\n  - path: ~/runs/\n  - path: ${HOME}/runs\n",
        (
            "FILE:4:5: watch[1].path: '/home/anna/runs' is watched by watch[0] already; keep one of them; rules say what differs inside it\n"
            "FILE:5:5: watch[2].path: '/home/anna/runs' is watched by watch[0] already; keep one of them; rules say what differs inside it"
        ),
    ),
    (
        "two empty paths",
        "models_dir: m\nwatch:\n  - path: ''\n  - path: ''\n",
        (
            "FILE:3:5: watch[0].path: '': a path is needed, this one is empty\n"
            "FILE:4:5: watch[1].path: '': a path is needed, this one is empty"
        ),
    ),
    (
        "workers in words",
        GOOD + "workers: many\n",
        "FILE:4:1: workers: 'many' must be a whole number",
    ),
    (
        "no workers",
        GOOD + "workers: 0\n",
        "FILE:4:1: workers: 0 must be at least 1",
    ),
    (
        "too many workers",
        GOOD + "workers: 65\n",
        "FILE:4:1: workers: 65 must be at most 64",
    ),
    (
        "workers are true",
        GOOD + "workers: yes\n",
        "FILE:4:1: workers: true: must be a whole number",
    ),
    (
        "half a worker",
        GOOD + "workers: 1.5\n",
        "FILE:4:1: workers: 1.5 must be a whole number",
    ),
    (
        "workers are null",
        GOOD + "workers: null\n",
        "FILE:4:1: workers: null must be a whole number",
    ),
    (
        "a duration in fortnights",
        GOOD + "    settle_s: 2 fortnights\n",
        "FILE:4:5: watch[0].settle_s: '2 fortnights': write a duration such as 2s, 500ms, 5m, 1h or a number of seconds",
    ),
    (
        "a negative duration",
        GOOD + "    settle_s: -1\n",
        "FILE:4:5: watch[0].settle_s: -1 must be at least 0s",
    ),
    (
        "no time at all",
        GOOD + "rescan_interval_s: 0s\n",
        "FILE:4:1: rescan_interval_s: '0s' must be more than 0s",
    ),
    (
        "an endless duration",
        GOOD + "stop_grace_s: .inf\n",
        "FILE:4:1: stop_grace_s: .inf: write a duration such as 2s, 500ms, 5m, 1h or a number of seconds",
    ),
    (
        "a size in fathoms",
        GOOD + "conversion:\n  memory_limit: 3 fathoms\n",
        "FILE:5:3: conversion.memory_limit: '3 fathoms': write a size such as 500MB, 2GiB or a number of bytes",
    ),
    (
        "a size that is too small",
        GOOD + "conversion: {memory_limit: 500MB}\n",
        "FILE:4:14: conversion.memory_limit: '500MB' must be at least 1GiB",
    ),
    (
        "an unknown level",
        GOOD + "logging:\n  level: loud\n",
        "FILE:5:3: logging.level: 'loud' must be one of debug, info, warning, error",
    ),
    (
        "an unknown observer",
        GOOD + "    observer: psychic\n",
        "FILE:4:5: watch[0].observer: 'psychic' must be one of auto, native, polling",
    ),
    (
        "a section that is text",
        GOOD + "logging: loud\n",
        "FILE:4:1: logging: 'loud' must be a mapping with keys: level, format",
    ),
    (
        "patterns that are no list",
        GOOD + "    patterns: '*.pt'\n",
        "FILE:4:5: watch[0].patterns: '*.pt' must be a list; write ['*.pt']",
    ),
    (
        "an empty pattern",
        GOOD + "    patterns: ['']\n",
        "FILE:4:16: watch[0].patterns[0]: '' must not be empty",
    ),
    (
        "move without a place",
        GOOD + "    after: move\n",
        "FILE:3:5: watch[0]: {'after': 'move', 'path': '/etc/sda/runs'}: `after: move` and `move_to` need each other",
    ),
    (
        "moving onto itself",
        GOOD + "    after: move\n    move_to: runs\n",
        "FILE:5:5: watch[0].move_to: '/etc/sda/runs' is the watched folder itself: what is moved there could be found and moved again; choose a folder beside the watched one, or one inside it, such as '/etc/sda/runs/done'",
    ),
    (
        "moving to above",
        GOOD + "    after: move\n    move_to: .\n",
        "FILE:5:5: watch[0].move_to: '/etc/sda' lies above the watched folder '/etc/sda/runs': what is moved there could be found and moved again; choose a folder beside the watched one, or one inside it, such as '/etc/sda/runs/done'",
    ),
    (
        "moving to what another watches",
        GOOD + "    after: move\n    move_to: done\n  - path: done\n",
        "FILE:6:5: watch[1].path: '/etc/sda/done' is the folder that watch[0] moves its checkpoints to, which is never looked into; watch another folder, or give watch[0] another move_to",
    ),
    (
        "watching inside of what another moves to",
        "models_dir: m\nwatch: [{path: done/old}, {path: runs, after: move, move_to: done}]\n",
        "FILE:2:10: watch[0].path: '/etc/sda/done/old' lies in the folder that watch[1] moves its checkpoints to, which is never looked into; watch another folder, or give watch[1] another move_to",
    ),
    (
        "watching the models for everything",
        "models_dir: m\nwatch:\n  - path: m\n    patterns: ['*.pt', '*']\n",
        'FILE:4:5: watch[0].patterns: \'*\' also takes model files such as \'x.sda\', and this folder is or lies in models_dir; give only the endings of checkpoints: patterns: ["*.pt", "*.pth", "*.ckpt"]',
    ),
    (
        "watching a folder among the models for another generation's",
        "models_dir: m\nwatch:\n  - path: m/train_20260101_120000\n    patterns: ['*.d*']\n",
        'FILE:4:5: watch[0].patterns: \'*.d*\' also takes model files such as \'x.distill\', and this folder is or lies in models_dir; give only the endings of checkpoints: patterns: ["*.pt", "*.pth", "*.ckpt"]',
    ),
    (
        "watching the trash",
        "models_dir: m\nwatch: [{path: m/.trash}]\n",
        "FILE:2:10: watch[0].path: '/etc/sda/m/.trash' is the trash of models_dir, which is never looked into; watch another folder",
    ),
    (
        "a misspelt fact",
        GOOD + "metadata:\n  name: '{{ runn }} {{ epoch }}'\n",
        "FILE:5:3: metadata.name: '{{ runn }} {{ epoch }}': there is no fact 'runn'; did you mean 'run'?",
    ),
    (
        "a fact that is not there",
        GOOD + "metadata:\n  name: '{{ colour }}'\n",
        "FILE:5:3: metadata.name: '{{ colour }}': there is no fact 'colour'; known: path, relpath, file, stem, folder, parts, run, size_bytes, mtime, now, host, epoch, step, train_loss, val_loss, kl_weight, latent_dim, training, spectrogram, analysis, sidecar",
    ),
    (
        "a misspelt key of a dict",
        GOOD + "metadata:\n  name: '{{ training.batchsize }}'\n",
        "FILE:5:3: metadata.name: '{{ training.batchsize }}': there is no 'batchsize' in training; did you mean 'batch_size'?",
    ),
    (
        "a misspelt filter",
        GOOD + "metadata:\n  tags: ['{{ run | slgu }}']\n",
        "FILE:5:10: metadata.tags[0]: '{{ run | slgu }}': there is no filter 'slgu'; did you mean 'slug'?",
    ),
    (
        "a misspelt test",
        GOOD + "metadata:\n  name: '{{ run if epoch is oddd }}'\n",
        "FILE:5:3: metadata.name: '{{ run if epoch is oddd }}': there is no test 'oddd'; did you mean 'odd'?",
    ),
    (
        "a template that does not compile",
        GOOD + "metadata:\n  name: '{{ run'\n",
        "FILE:5:3: metadata.name: '{{ run': it is no template: unexpected end of template, expected 'end of print statement'",
    ),
    (
        "a template without quotes",
        GOOD + "metadata:\n  name: {{ run }}\n",
        'FILE:5:10: this is not YAML: found unhashable key; a template needs quotes around it: "{{ run }}"',
    ),
    (
        "a template without quotes, and more",
        GOOD + "metadata:\n  name: {{ run }} epoch {{ epoch }}\n",
        "FILE:5:19: this is not YAML: expected <block end>, but found '<scalar>'; a template needs quotes around it: \"{{ run }}\"",
    ),
    (
        "a misspelt fact where the examples never come",
        GOOD + "metadata:\n  name: '{{ epcoh if epoch == 77 else run }}'\n",
        "FILE:5:3: metadata.name: '{{ epcoh if epoch == 77 else run }}': there is no fact 'epcoh'; did you mean 'epoch'?",
    ),
    (
        "a misspelt filter where the examples never come",
        GOOD + "metadata:\n  name: '{{ (run | slgu) if epoch == 77 else run }}'\n",
        "FILE:5:3: metadata.name: '{{ (run | slgu) if epoch == 77 else run }}': there is no filter 'slgu'; did you mean 'slug'?",
    ),
    (
        "several at once",
        GOOD + "workers: 0\nmetadata:\n  name: '{{ runn }}'\nloging: {level: debug}\n",
        (
            "FILE:4:1: workers: 0 must be at least 1\n"
            "FILE:6:3: metadata.name: '{{ runn }}': there is no fact 'runn'; did you mean 'run'?\n"
            "FILE:7:1: loging: there is no such key (with the value {'level': 'debug'}); did you mean 'logging'?"
        ),
    ),
    (
        "a tag that is not closed",
        GOOD + "metadata:\n  name: '{% if epoch %}x'\n",
        "FILE:5:3: metadata.name: '{% if epoch %}x': it is no template: Unexpected end of template. Jinja was looking for the following tags: 'elif' or 'else' or 'endif'. The innermost block that needs to be closed is 'if'",
    ),
    (
        "analysis is not always there",
        GOOD + "metadata:\n  description: '{{ analysis.n_active_components }} sliders'\n",
        "FILE:5:3: metadata.description: '{{ analysis.n_active_components }} sliders': 'n_active_components' is asked of what is none (analysis); guard it: {{ ... if analysis }}; this is so for a checkpoint without analysis (no sliders)",
    ),
    (
        "a loss that is infinite",
        GOOD + "metadata:\n  name: '{{ val_loss | int }}'\n",
        "FILE:5:3: metadata.name: '{{ val_loss | int }}': it fails: cannot convert float infinity to integer; this is so for a training that was cancelled within an epoch (val_loss is inf)",
    ),
    (
        "a template that gives no number",
        GOOD + "metadata:\n  dataset_file_count: '{{ run }}'\n",
        "FILE:5:3: metadata.dataset_file_count: '{{ run }}': it gives 'field-recordings', which is no number from 0 on",
    ),
    (
        "a number below zero",
        GOOD + "metadata:\n  dataset_total_duration_s: -3\n",
        'FILE:5:3: metadata.dataset_total_duration_s: -3: must be a number from 0 on, or a template such as "{{ sidecar.files }}"',
    ),
    (
        "half a file",
        GOOD + "metadata:\n  dataset_file_count: 1.5\n",
        'FILE:5:3: metadata.dataset_file_count: 1.5: must be a whole number, or a template such as "{{ sidecar.files }}"',
    ),
    (
        "a name that is a number",
        GOOD + "metadata:\n  name: 2024\n",
        'FILE:5:3: metadata.name: 2024 must be text; put it in quotes: "2024"',
    ),
    (
        "a tag that is a date",
        GOOD + "metadata:\n  tags: [2024-01-01]\n",
        'FILE:5:10: metadata.tags[0]: 2024-01-01 must be text; put it in quotes: "2024-01-01"',
    ),
    (
        "tags that are text",
        GOOD + "metadata:\n  tags: field\n",
        "FILE:5:3: metadata.tags: 'field' must be a list; write ['field']",
    ),
    (
        "an endless loop",
        GOOD + "metadata:\n  name: '{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}'\n",
        "FILE:5:3: metadata.name: '{% for a in range(9999) %}{% for...(9999) %}{% endfor %}{% endfor %}': it does too much: it takes more than 10000 steps",
    ),
    (
        "a way out of the sandbox",
        GOOD + "metadata:\n  name: \"{{ ''.__class__.__mro__ }}\"\n",
        "FILE:5:3: metadata.name: \"{{ ''.__class__.__mro__ }}\": it is not allowed: access to attribute '__class__' of 'str' object is unsafe.",
    ),
    (
        "a rule that matches nothing",
        GOOD + "rules:\n  - skip: true\n",
        'FILE:5:5: rules[0].match: it is missing; write for example match: "field-*/*"',
    ),
    (
        "a rule that does nothing",
        GOOD + "rules:\n  - match: 'a/*'\n",
        "FILE:5:5: rules[0]: {'match': 'a/*'}: this rule changes nothing; give it metadata, skip: true or settle_s",
    ),
    (
        "a rule that skips perhaps",
        GOOD + "rules:\n  - match: 'a/*'\n    skip: perhaps\n",
        "FILE:6:5: rules[0].skip: 'perhaps' must be true or false",
    ),
    (
        "a condition that does not compile",
        GOOD + "rules:\n  - match: 'a/*'\n    when: epoch >\n    skip: true\n",
        "FILE:6:5: rules[0].when: 'epoch >': it is no template: unexpected 'end of template'",
    ),
    (
        "a condition with a misspelt fact",
        GOOD + "rules:\n  - match: 'a/*'\n    when: epoh > 3\n    skip: true\n",
        "FILE:6:5: rules[0].when: 'epoh > 3': there is no fact 'epoh'; did you mean 'epoch'?",
    ),
    (
        "a condition for what the path decides",
        GOOD + "rules:\n  - match: 'a/*'\n    when: epoch > 3\n    settle_s: 9s\n",
        "FILE:5:5: rules[0]: {'match': 'a/*', 'settle_s': '9s', 'when': 'epoch > 3'}: settle_s does not go with `when`: it is decided by the path alone, before the checkpoint is read; give it in a rule that has only `match`",
    ),
    (
        "a rule's misspelt metadata",
        GOOD + "rules:\n  - match: 'a/*'\n    metadata: {nmae: x}\n",
        "FILE:6:16: rules[0].metadata.nmae: there is no such key (with the value 'x'); did you mean 'name'?",
    ),
]


@pytest.mark.parametrize(("text", "message"), [pytest.param(*row[1:], id=row[0]) for row in BROKEN])
def test_a_broken_config_gives_exactly_this_message(text: str | bytes, message: str) -> None:
    """File, line, column, key, value, and what would be right; exit code 78."""
    raw = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, Path("/etc/sda/c.yaml"), {"HOME": "/home/anna"})
    expected = message.replace("FILE", "/etc/sda/c.yaml")
    for mark, section in (("KEYS-OF-CONFIG", Settings), ("KEYS-OF-WATCH", WatchSettings)):
        expected = expected.replace(mark, ", ".join(section.model_fields))
    assert str(caught.value) == expected
    assert caught.value.exit_code.value == 78


def test_a_folder_watched_by_two_names_is_refused(tmp_path: Path) -> None:
    """A symbolic link to a watched folder is that folder; one that leads elsewhere is not, nor is a folder in it."""
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "latest").symlink_to("runs")
    (tmp_path / "other").symlink_to("elsewhere")
    config = tmp_path / "c.yaml"
    fine = b"models_dir: m\nwatch: [{path: runs}, {path: other}, {path: runs/old}]\n"
    assert len(parse_config(fine, config, {}).settings.watch) == 3
    with pytest.raises(ConfigError) as caught:
        parse_config(b"models_dir: m\nwatch:\n  - path: runs\n  - path: latest\n", config, {})
    assert str(caught.value) == (
        f"{config}:4:5: watch[1].path: '{tmp_path}/latest' leads to '{tmp_path}/runs', which is watched by watch[0] "
        "already; keep one of them; rules say what differs inside it"
    )


def test_own_output_is_known_by_what_it_is(tmp_path: Path) -> None:
    """Through links, not by how it is written; what only sounds like it is fine."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "link").symlink_to("runs")
    config = tmp_path / "c.yaml"
    for text in (
        "models_dir: m\nwatch: [{path: runs, after: move, move_to: link}]\n",
        "models_dir: link\nwatch: [{path: runs, patterns: ['*']}]\n",
        "models_dir: m\nwatch: [{path: link/a, after: move, move_to: runs}]\n",
        "models_dir: m\nwatch: [{path: runs, after: move, move_to: ../NAME/runs/.}]\n".replace("NAME", tmp_path.name),
    ):
        with pytest.raises(ConfigError):
            parse_config(text.encode(), config, {})
    for text in (
        "models_dir: m\nwatch: [{path: m}]\n",
        "models_dir: m\nwatch: [{path: m/train_20260101_120000, patterns: ['checkpoint*.pt', '[a-z]*.p*']}]\n",
        "models_dir: m\nwatch: [{path: m, patterns: ['*'], ignore: ['*.sda', '*.distill*']}]\n",
        "models_dir: runs/m\nwatch: [{path: runs, patterns: ['*']}]\n",
        "models_dir: m\nwatch: [{path: runs, after: move, move_to: runs/done}]\n",
        "models_dir: m\nwatch: [{path: runs, after: move, move_to: runs2}]\n",
        "models_dir: m\nstate_dir: m\nwatch: [{path: m}]\n",
    ):
        assert parse_config(text.encode(), config, {}).settings.watch


@pytest.mark.parametrize(
    ("pattern", "endings"),
    [
        ("*", [".sda", ".distill", ".distillgan"]),
        ("*.sda", [".sda"]),
        ("warm*", [".sda", ".distill", ".distillgan"]),
        ("?.???", [".sda"]),
        ("*.[dp]*", [".distill", ".distillgan"]),
        ("*.p*", []),
        ("*.pt", []),
        ("a.sd[abc]", [".sda"]),
        ("[!.]*n", [".distillgan"]),
    ],
)
def test_patterns_that_take_model_files(pattern: str, endings: list[str]) -> None:
    """A glob takes model files if some name with their ending fits it."""
    assert taken_endings(pattern) == endings

"""Metadata templates: Jinja2 over the facts of a checkpoint, in a sandbox with a budget. Pure."""

from sda_daemon.templates.facts import EXAMPLES, FACTS, checkpoint_facts, run_name
from sda_daemon.templates.rendering import (
    ShallowPathError,
    holds,
    render_text,
    try_condition,
    try_number,
    try_text,
)

__all__ = [
    "EXAMPLES",
    "FACTS",
    "ShallowPathError",
    "checkpoint_facts",
    "holds",
    "render_text",
    "run_name",
    "try_condition",
    "try_number",
    "try_text",
]

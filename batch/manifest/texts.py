"""Read the texts of a job: its prompts, its tags, and the path of its rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from batch.manifest.cells import is_empty_mark
from batch.manifest.findings import Findings, shown
from batch.manifest.ids import locale_fault
from batch.manifest.limits import Limits
from batch.manifest.nodes import Entries, Mapping, Node, Place, Scalar, kind
from batch.paths import expand_path

# No editor keeps \r. Surrogates are refused before.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def read_text(node: Node, name: str, findings: Findings) -> str | None:
    """Return the text of a scalar as written; None after a fault."""
    if isinstance(node, Scalar):
        return node.text
    advice = "put a text with braces or brackets in quotes"
    findings.fault(node, f"{name} must be a text, but this is {kind(node)}", advice)
    return None


def read_path(node: Node, name: str, findings: Findings) -> Path | None:
    """Return a path with `~` and variables expanded; None after a fault."""
    text = read_text(node, name, findings)
    if text is None:
        return None
    if fault := locale_fault(text):
        findings.fault(node, f"{name} {shown(text)} has {fault}")
        return None
    try:
        return expand_path(text)
    except ValueError as exc:
        findings.fault(node, f"{name}: {exc}")
        return None


class TextReader:
    """Reads prompts and tags.

    Args:
        findings: receives the faults.
        limits: how long prompts may be.
    """

    def __init__(self, findings: Findings, limits: Limits) -> None:
        self._findings = findings
        self._limits = limits
        self._tags: dict[tuple[str, ...], tuple[str, ...]] = {}

    def prompt(self, place: Place, merged: Entries, body: dict[str, Any] | None) -> str | None:
        """Return the prompt; None if it is not given, or not a text.

        *body* is the request so far, None if an option is not valid.
        """
        entry = merged.get("prompt")
        if entry is None:
            # Kling ignores the prompt of a multi-shot request.
            if body is None or body.get("multi_shot") is not True:
                self._findings.fault(place, "a job needs a prompt", "add prompt:")
            return None
        prompt = self._checked(entry[1], "prompt", self._limits.max_prompt_chars)
        if prompt is not None and not prompt.strip():
            self._findings.fault(entry[1], "the prompt is empty", "say what the video shows")
        elif prompt is not None and is_empty_mark(prompt):
            message = f"the prompt is {shown(prompt)}: perhaps the mark of an empty cell"
            self._findings.warn(entry[1], message, "a video of it will be paid for")
        return prompt

    def negative_prompt(self, merged: Entries) -> str | None:
        """Return the negative prompt; None if it is not given, or not a text."""
        entry = merged.get("negative_prompt")
        if entry is None:
            return None
        most = self._limits.max_negative_prompt_chars
        return self._checked(entry[1], "negative_prompt", most)

    def _checked(self, node: Node, name: str, most: int) -> str | None:
        text = read_text(node, name, self._findings)
        if text is None:
            return None
        text = text.replace("\r\n", "\n")  # the line ends of a cell, where Windows wrote it
        if len(text) > most:
            message = f"{name} has {len(text)} characters, more than {most}"
            advice = f"shorten it, or raise limits.max_{name}_chars"
            self._findings.fault(node, message, advice)
        if not text.isprintable() and (found := _CONTROL.search(text)):
            message = f"{name} contains a control character (U+{ord(found.group()):04X})"
            self._findings.fault(node, message, "remove it")
        return text

    def tags(self, merged: Entries) -> tuple[str, ...]:
        """Return the tags of a list of texts, or of one text with semicolons between them."""
        entry = merged.get("tags")
        if entry is None:
            return ()
        node = entry[1]
        if isinstance(node, Mapping):
            self._findings.fault(node, "tags must be a list of texts")
            return ()
        if isinstance(node, Scalar):
            texts = tuple(part for part in map(str.strip, node.text.split(";")) if part)
        else:
            texts = tuple([item.text for item in node.items if isinstance(item, Scalar)])
            if len(texts) != len(node.items):
                self._findings.fault(node, "tags must be a list of texts")
        known = self._tags.get(texts)
        if known is not None:
            return known
        for text in texts:
            if not text.isprintable() or not text.strip() or ";" in text or len(text) > 100:
                self._findings.fault(node, f"{shown(text)} is not a valid tag", "use a short word")
                return ()
        return self._tags.setdefault(texts, tuple(dict.fromkeys(texts)))

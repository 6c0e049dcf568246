"""The output folder: lock, state, results.jsonl, and videos that appear whole or not at all."""

from __future__ import annotations

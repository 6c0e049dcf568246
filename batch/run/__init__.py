"""A plan is carried out: one coroutine per job, from its slot to its line in results.jsonl."""

from __future__ import annotations

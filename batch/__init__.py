"""Runs a manifest of text-to-video prompts through Kling: paid once, collected always.

The command is `kling-batch`. From Python (see `batch.api`):

    load_manifest(path) → Manifest
    plan_run(manifest, …) → Plan
    open_run(manifest, …) → async context manager of a Run, an async iterator over result rows
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported on access: `kling-batch --help` needs none of it.
_HOMES = {
    "BatchError": "errors",
    "ExitCode": "errors",
    "Job": "job",
    "LockedError": "errors",
    "Manifest": "manifest.model",
    "ManifestError": "errors",
    "Plan": "plan",
    "Rate": "manifest.limits",
    "Row": "rows",
    "Run": "api",
    "StateError": "errors",
    "Summary": "run.summary",
    "UsageError": "errors",
    "load_manifest": "api",
    "open_run": "api",
    "plan_run": "api",
}

__all__ = [
    "BatchError",
    "ExitCode",
    "Job",
    "LockedError",
    "Manifest",
    "ManifestError",
    "Plan",
    "Rate",
    "Row",
    "Run",
    "StateError",
    "Summary",
    "UsageError",
    "__version__",
    "load_manifest",
    "open_run",
    "plan_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'batch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"batch.{_HOMES[name]}"), name)

"""What several unit tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batch.manifest.model import Manifest
from batch.manifest.reader import load


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Manifest]:
    """Give a function that writes a file of rows, and reads a manifest that names it."""

    def read(rows: str | bytes, *, name: str = "rows.csv", entry: str = "") -> Manifest:
        data = rows if isinstance(rows, bytes) else rows.encode()
        (tmp_path / name).write_bytes(data)
        path = tmp_path / "m.yaml"
        path.write_text(f"version: 1\njobs:\n  - from: {name}\n    {entry}\n", encoding="utf-8")
        return load(path)

    return read

"""One command per file; each has a `command`."""

from __future__ import annotations

"""The command line: parse, call, exit code."""

from __future__ import annotations

"""Runs a manifest of text-to-video prompts through Kling: paid once, collected always."""

from __future__ import annotations

__version__ = "0.1.0"

"""A YAML file becomes jobs, or every fault in it with its place."""

from __future__ import annotations

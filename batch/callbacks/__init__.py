"""Callbacks as hints: what one may change, and the server that receives them."""

from __future__ import annotations

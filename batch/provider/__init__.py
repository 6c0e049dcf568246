"""Kling by way of CometAPI: the protocol, the wire contract without I/O, and the aiohttp client."""

from __future__ import annotations

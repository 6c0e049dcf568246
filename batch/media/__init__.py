"""What a video file says of itself, and whether all of it is there."""

from __future__ import annotations

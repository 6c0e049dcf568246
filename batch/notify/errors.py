"""What keeps a message from being delivered."""

from __future__ import annotations


class NotDeliveredError(Exception):
    """A message was not delivered, or may not have been; the text says why, without an address."""

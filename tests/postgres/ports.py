"""Ports of servers that are told theirs before they listen, or must have it again after a stop."""

from __future__ import annotations

import random
import socket

# Below those that systems give to whoever asks for any port: every connection of another test does.
NEVER_GIVEN = range(20_000, 32_000)
_RANDOM = random.SystemRandom()  # Hypothesis gives each worker the same seed


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on, nor is given by the system in the meantime."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = _RANDOM.choice(NEVER_GIVEN)
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port

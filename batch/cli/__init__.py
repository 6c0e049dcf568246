"""The command line: parses, prints, exits.

`main` calls a command of `commands/`, which reads its options (`flags`), calls `run` or a reader of
the state, and prints the result to stdout. Logs (`logs`) and the bar (`progress`) go to stderr.
"""

from __future__ import annotations

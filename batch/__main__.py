"""`python -m batch`, the same thing as `kling-batch`."""

from __future__ import annotations

import sys

from batch import cli


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    sys.exit(cli.main())


if __name__ == "__main__":
    main()

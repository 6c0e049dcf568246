"""The end of a settled run, in a library in Postgres: its files, and its record."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from batch.clock import Clock
from batch.engines.conclude import conclude, summary_of
from batch.engines.terms import Terms
from batch.errors import AwayError, ExitCode
from batch.key import Secret
from batch.library.derived import Listing, derive
from batch.library.uploading import settle
from batch.output.fleet import OpenRun, Outcome
from batch.output.folder import OutputFolder
from batch.output.layout import Layout
from batch.output.postgres.libraries import hold_to_end
from batch.output.results import ResultsFile
from batch.output.uploaded import Found
from batch.run.last_call import LastCall


class Ending:
    """Ends runs of libraries in the Postgres at *engine*."""

    def __init__(self, engine: Secret, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def write(
        self, run: OpenRun, terms: Terms, outcome: Outcome, last_call: LastCall | None = None
    ) -> tuple[ExitCode, str]:
        """Write the files of a run; return how it ended, and its record. Blocks.

        Args:
            run: as it was handed over, with the reason why it was stopped, if it was.
            terms: of the run.
            outcome: what it has come to.
            last_call: tells what was too late to be submitted, where a worker has the run open.

        Raises:
            AwayError: another worker is at it.
            StateError: the state or a file cannot be used.
        """
        layout = Layout(Path(run.root))
        with hold_to_end(self._engine, run.library, layout) as database:
            if database is None:
                raise AwayError(f"another process is ending the run {run.run_id}")
            results = ResultsFile(layout.results)
            results.repair(database)
            folder = OutputFolder(layout, database, results, run.library)
            found = conclude(run, terms, outcome, last_call)
            more: dict[str, Any] = {"warnings": self._derive(folder, run, terms)}
            exit_code = found.exit_code
            if terms.target is not None:
                uploads = Found(terms.target.url)
                asyncio.run(settle(folder, terms.target, self._clock, uploads))
                more["warnings"] = [*more["warnings"], *uploads.warnings()]
                more["uploads"] = uploads.to_json()
                exit_code = uploads.exit_code(exit_code)
            summary = summary_of(run, terms, outcome, found, database.known())
        for parts in layout.parts.glob(f"{run.run_id}-*"):
            shutil.rmtree(parts, ignore_errors=True)
        return exit_code, summary.to_record(terms.planned_cost_usd, terms.limits, **more)

    def _derive(self, folder: OutputFolder, run: OpenRun, terms: Terms) -> list[str]:
        if not terms.derived:
            return []
        listing = Listing(terms.name, run.run_id, terms.listed, terms.target)
        return derive(folder, terms.derived, listing)

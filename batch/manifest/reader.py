"""Read a manifest: YAML in, jobs out, and every fault with its place.

One pass over the file's events. Each job is built as its lines are read and its nodes are dropped,
so that a hundred thousand jobs need little memory. `defaults:` and `limits:` usually stand above
the jobs; if one stands below, the file is read a second time, and so it is to say which of many jobs
share an id.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batch.errors import ManifestError, Problem
from batch.manifest.findings import Findings, Unreadable, is_typing_error, nearest, shown
from batch.manifest.head import (
    read_base_url,
    read_callback,
    read_limits,
    read_line,
    read_output_dir,
    read_prices,
    read_section,
)
from batch.manifest.ids import component_fault
from batch.manifest.jobs import JobReader
from batch.manifest.limits import DEFAULT_LIMITS
from batch.manifest.model import Manifest
from batch.manifest.nodes import Items, Node, Scalar, Spot, is_null
from batch.manifest.notify_section import read_notify
from batch.manifest.output_section import read_keep, read_output, read_target
from batch.manifest.schema import ROOT_KEYS, VERSION
from batch.manifest.text_files import file_label, join_surrogates, read_file
from batch.manifest.yaml_events import FAST_PARSER, YamlReader, warn_of_cut_texts


def load(path: Path) -> Manifest:
    """Return the checked manifest at *path*. Sends and writes nothing.

    Raises:
        ManifestError: the manifest is not valid; carries every fault, sorted by place.
    """
    with _collector_paused():
        return _Reading(path).manifest()


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the garbage collector, whose walks over all jobs take half the time of a load."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


SPREADSHEETS = ("xlsx", "xls", "ods", "numbers")
_Heads = dict[str, tuple[Scalar, Node | Items]]
_INHERITED = frozenset({"defaults", "limits"})


class _Reading:
    """One reading of one manifest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = file_label(path)
        self._findings = Findings()
        self._jobs: JobReader | None = None
        self._limits = DEFAULT_LIMITS
        self._unknown: list[Scalar] = []
        self._again: set[int] = set()

    def manifest(self) -> Manifest:
        manifest = end = None
        try:
            data = join_surrogates(read_file(self._path, self._file, Spot(self._file)))
            heads = self._passes(data)
            warn_of_cut_texts(data, self._file, self._findings)
            manifest = self._assemble(heads)
        except Unreadable as exc:
            end = self._as_table(exc.problem)
        faults = self._findings.faults(end)
        if faults or manifest is None:
            raise ManifestError(faults)
        return manifest

    def _as_table(self, problem: Problem) -> Problem:
        """Return *problem*; of a table that stands in a manifest's place, what to do with that."""
        from batch.manifest.rows import TABLES  # noqa: PLC0415 - only for what cannot be read

        name, kind = self._path.name, self._path.suffix.lower().removeprefix(".")
        if kind not in {*TABLES, *SPREADSHEETS} or not self._path.is_file():
            return problem
        saved = "" if kind in TABLES else "save it as .csv, with commas, and "
        source = name if kind in TABLES else f"{self._path.stem}.csv"
        advice = f"{saved}name it in a manifest: jobs: [{{from: {source}}}]"
        return Problem(self._file, 1, 1, "a table is not a manifest", advice=advice)

    def _passes(self, data: bytes) -> _Heads:
        """Read the file, once if that is enough, and return the root's values."""
        heads: _Heads = {}
        try:
            heads = self._pass(data, heads)
            if self._is_late(heads):
                heads = self._pass(data, heads)
        except Unreadable:
            if not self._twice:
                raise
        while (
            twice := self._twice
        ):  # also where the file ends in a fault; rows may change meanwhile
            self._again |= twice
            heads = self._pass(data, heads)
        return heads

    @property
    def _twice(self) -> set[int]:
        return set() if self._jobs is None else set(self._jobs.twice)

    def _pass(self, data: bytes, known: _Heads) -> _Heads:
        """Read the file once and return the root's values; jobs are built on the way."""
        self._findings, self._jobs = Findings(), None
        heads = dict(known)
        self._unknown, seen = [], set[str]()
        for key, value in YamlReader(data, self._file, self._findings).root("jobs"):
            name = self._name_of(key)
            if name == "jobs" and name not in seen:
                self._jobs = self._begin(heads)
                self._jobs.read(value)
            heads.setdefault(name, (key, value))
            seen.add(name)
        return heads

    def _name_of(self, key: Scalar) -> str:
        """Return the key, or the one of which it is a typing error."""
        if key.text in ROOT_KEYS or key.text.startswith("x-"):
            return key.text
        self._unknown.append(key)
        name = nearest(key.text, ROOT_KEYS)
        return name if name is not None and is_typing_error(key.text, name) else key.text

    def _is_late(self, heads: _Heads) -> bool:
        """Return whether a section that jobs inherit stands below them."""
        names = list(heads)
        late = names[names.index("jobs") :] if "jobs" in heads else []
        return not _INHERITED.isdisjoint(late)

    def _begin(self, heads: _Heads) -> JobReader:
        defaults = None
        if "limits" in heads:
            self._limits = read_limits(heads["limits"][1], self._findings)
        if "defaults" in heads:
            defaults = read_section(heads["defaults"][1], "defaults", self._findings)
        return JobReader(
            self._findings, self._path.parent, self._limits, defaults, again=self._again
        )

    def _assemble(self, heads: _Heads) -> Manifest:
        findings = self._findings
        findings.job = None
        for key in self._unknown:
            findings.unknown_key(key, ROOT_KEYS, "the manifest")
        nodes = {
            name: node
            for name, (_, node) in heads.items()
            if not isinstance(node, Items) and not is_null(node)
        }
        jobs = self._jobs or self._begin(heads)
        if "jobs" not in heads:
            findings.fault(Spot(self._file), "there are no jobs", "add jobs: with a list")
        self._version(nodes.get("version"))
        return Manifest(
            path=self._path,
            name=self._name(nodes.get("name")),
            jobs=jobs.jobs,
            limits=self._limits,
            callback=read_callback(nodes.get("callback"), findings),
            output_dir=read_output_dir(nodes.get("output_dir"), findings),
            base_url=read_base_url(nodes.get("base_url"), findings),
            proxy=read_line(nodes.get("proxy"), "proxy", findings),
            prices=read_prices(nodes.get("prices"), findings),
            notify=read_notify(nodes.get("notify"), findings),
            derived=read_output(nodes.get("output"), findings),
            keep=read_keep(nodes.get("output"), findings),
            target=read_target(nodes.get("output"), findings),
            warnings=self._warnings(),
        )

    def _warnings(self) -> tuple[Problem, ...]:
        if FAST_PARSER is None:
            message = "PyYAML was built without libyaml: reading takes about ten times as long"
            self._findings.warn(Spot(self._file), message)
        return self._findings.warnings()

    def _version(self, node: Node | None) -> None:
        if node is None:
            message = "the manifest has no version"
            self._findings.warn(Spot(self._file), message, f"add the line version: {VERSION}")
        elif not isinstance(node, Scalar) or node.text != str(VERSION):
            self._findings.fault(node, f"version must be {VERSION}, the only one supported")

    def _name(self, node: Node | None) -> str:
        name = self._path.stem if node is None else read_line(node, "name", self._findings)
        if name is None:
            return ""
        message = component_fault(name)
        if message is not None:
            advice = "add name:, which names the output folder" if node is None else None
            what = f"the name {shown(name)} cannot name a folder: {message}"
            self._findings.fault(node or Spot(self._file), what, advice)
        return name

"""Turn the entries of `jobs:` into jobs.

For each entry: check its keys; inherit the values that it does not set; fill the placeholders of
its matrix, once per combination; read its options and compare them with what the model takes (once
per distinct set of options: most jobs differ in the prompt alone); check its id against all others,
or make one of the request.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from batch.job import Job, Jobs, fingerprint
from batch.manifest.cells import report_broken
from batch.manifest.findings import Findings, Unreadable
from batch.manifest.ids import JobIds, variant_id
from batch.manifest.limits import Limits
from batch.manifest.matrix import Templates, read_axes, read_count
from batch.manifest.models import Remark, check_options
from batch.manifest.nodes import (
    Entries,
    Items,
    Mapping,
    Node,
    Place,
    Scalar,
    Sequence,
    is_null,
    kind,
)
from batch.manifest.options import OPTIONS, REFUSED_KEYS, read_options, request_body
from batch.manifest.requests import RequestForm
from batch.manifest.schema import DEFAULTS_KEYS, JOB_KEYS
from batch.manifest.text_files import file_label
from batch.manifest.texts import TextReader, read_path, read_text

MAX_JOBS = 1_000_000
_MAX_REMEMBERED = 4_096


class _Inherited:
    """The entries that jobs inherit, and the options already read on top of them."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.options: dict[tuple[Any, ...], tuple[RequestForm, tuple[Remark, ...]]] = {}


class JobReader:
    """Turns the items of `jobs:` into `jobs`.

    Args:
        findings: receives the faults and warnings.
        folder: the base of the paths in `from:`.
        limits: how long prompts may be.
        defaults: the section that every job inherits.
        again: see `JobIds`.
    """

    def __init__(
        self,
        findings: Findings,
        folder: Path,
        limits: Limits,
        defaults: Mapping | None,
        again: Collection[int] = (),
    ) -> None:
        self.jobs = Jobs()
        self._findings = findings
        self._folder = folder
        self._count = 0
        self._ids = JobIds(findings, again)
        self._texts = TextReader(findings, limits)
        entries: Entries = {}
        if defaults is not None:
            entries = self._entries(defaults, "defaults", DEFAULTS_KEYS, are_shared=True)
        self._defaults = self._inherit({}, entries)

    @property
    def twice(self) -> Collection[int]:
        """The hashes of ids that came twice, by which one has to read *again* to say whose they are."""
        return self._ids.twice

    def read(self, items: Node | Items) -> None:
        """Read all jobs."""
        if isinstance(items, (Scalar, Mapping)):
            message = f"jobs must be a list, but this is {kind(items)}"
            self._findings.fault(items, message, "begin each job with a hyphen: - prompt: …")
            return
        is_empty = True
        for node in items.items:
            is_empty = False
            self._item(node)
            self._findings.job = None  # the next item may fail before its id is known
        if is_empty:
            self._findings.fault(items, "there are no jobs", "add at least one")
        self._ids.check_folders()
        self._findings.job = None

    def _item(self, node: Node) -> None:
        if not isinstance(node, Mapping):
            advice = "for example - {id: beach, prompt: A beach}"
            self._findings.fault(node, f"a job is a mapping, but this is {kind(node)}", advice)
            return
        entries = self._entries(node, "a job", JOB_KEYS)
        if "from" in entries:
            self._rows(entries)
        else:
            self._expand(node, entries, self._defaults)

    def _entries(
        self, node: Mapping, where: str, known: dict[str, str], *, are_shared: bool = False
    ) -> Entries:
        """Return the entries of *node* whose keys are known; `model_name` becomes `model`.

        With *are_shared*, a wrong key is reported without a job: it stands in a header, say.
        """
        entries = node.entries
        report_broken(entries, self._findings)
        if entries.keys() <= known.keys():
            return entries
        kept: Entries = {}
        label = entries.get("id")
        if label is not None and isinstance(label[1], Scalar) and not are_shared:
            self._findings.job = label[1].text
        for name, entry in entries.items():
            if name in known:
                kept[name] = entry
            elif name == "model_name" and "model" in entries:
                self._findings.fault(entry[0], "model_name and model are the same", "keep one")
            elif name == "model_name" and "model" in known:
                kept["model"] = entry
            elif name in REFUSED_KEYS:
                self._findings.fault(entry[0], f"{name} is not for {where}", REFUSED_KEYS[name])
            elif name in JOB_KEYS:
                self._findings.fault(entry[0], f"{name} cannot stand in {where}")
            else:
                names = (name for name in (*JOB_KEYS, "model_name") if name in known)
                meant = self._findings.unknown_key(entry[0], names, where)
                meant = "model" if meant == "model_name" else meant
                if meant is not None and meant not in entries:
                    kept[meant] = entry
        return kept

    def _inherit(self, base: Entries, own: Entries) -> _Inherited:
        """Return *own* laid over *base*; report wrong values here, once, without a job."""
        self._findings.job = None
        read_options(_given(own), self._findings)
        return _Inherited(_given({**base, **own}))

    def _expand(self, node: Mapping, own: Entries, inherited: _Inherited) -> None:
        """Add the jobs of one entry: one, or one per combination and variant."""
        merged = {**inherited.entries, **own}
        for _, value in own.values():
            if type(value) is Scalar and value.plain and is_null(value):  # a call less for most
                merged = _given(merged)
                break
        place: Place = node
        id_ = None  # made of the request, once that is known
        if "id" in merged:
            place = label = merged["id"][1]
            id_ = read_text(label, "id", self._findings)
            if id_ is None:
                return
        self._findings.job = id_
        if "matrix" in merged or "count" in merged:
            self._expand_many(id_, place, merged, inherited)
        elif self._is_room(node, 1):
            self._make(id_, place, merged, own=own, inherited=inherited)

    def _expand_many(
        self, id_: str | None, place: Place, merged: Entries, inherited: _Inherited
    ) -> None:
        counted = merged.pop("count", None)
        count = 0 if counted is None else read_count(counted[1], self._findings)
        matrix = merged.pop("matrix", None)
        axes = {} if matrix is None else read_axes(matrix[1], self._findings)
        if count is None or axes is None:
            return
        total = max(count, 1)
        for values in axes.values():
            total *= len(values)
        if not self._is_room(place, total):
            return
        templates = None
        if matrix is not None:
            templates = Templates(id_, place, merged, axes, self._findings)
            if templates.are_faulty:
                return
        for combination in itertools.product(*axes.values()):
            filled, filled_id = merged, id_
            if templates is not None:
                filled_id, filled = templates.fill(combination)
            for variant in range(1, count + 1) if count else (None,):
                name = None if filled_id is None else variant_id(filled_id, variant)
                self._findings.job = name
                self._make(name, place, filled, own=filled, inherited=inherited, variant=variant)

    def _make(
        self,
        id_: str | None,
        place: Place,
        merged: Entries,
        *,
        own: Entries,
        inherited: _Inherited,
        variant: int | None = None,
    ) -> None:
        """Add one job, or report why not."""
        is_good = id_ is None or self._ids.add(id_, place)
        before = self._findings.fault_count
        form = self._options(place, merged, own, inherited)
        prompt = self._texts.prompt(place, merged, None if form is None else form.body)
        negative = self._texts.negative_prompt(merged)
        tags = self._texts.tags(merged)
        if not is_good or form is None or self._findings.fault_count != before:
            return
        request = form.fill(prompt, negative)
        if id_ is None:
            id_ = self._ids.make(prompt or "", request, variant, place)
        if id_ is None:
            return
        self.jobs.append(
            Job(
                id_,
                request,
                fingerprint(request, variant),
                tags,
                variant,
                place.file,
                place.line,
            )
        )

    def _options(
        self, place: Place, merged: Entries, own: Entries, inherited: _Inherited
    ) -> RequestForm | None:
        """Return the request without its prompts; None after a fault. Equal options are read once."""
        key: tuple[Any, ...] = ()
        if not own.keys().isdisjoint(OPTIONS):
            key = tuple([(name, _frozen(own[name][1])) for name in own if name in OPTIONS])
        known = inherited.options.get(key)
        if known is None:
            before = self._findings.fault_count
            values = read_options(merged, self._findings)
            remarks = tuple(check_options(values))
            if self._findings.fault_count != before or values.keys() != merged.keys() & OPTIONS:
                # The options can only be judged if the model itself is valid.
                if ("model" in values) == ("model" in merged):
                    self._tell(place, merged, (r for r in remarks if r.is_fault))
                return None
            known = (RequestForm(request_body(values)), remarks)
            if len(inherited.options) < _MAX_REMEMBERED:
                inherited.options[key] = known
        form, remarks = known
        self._tell(place, merged, remarks)
        return form

    def _tell(self, place: Place, merged: Entries, remarks: Iterable[Remark]) -> None:
        for remark in remarks:
            at = merged[remark.option][1] if remark.option in merged else place
            report = self._findings.fault if remark.is_fault else self._findings.warn
            report(at, remark.message, remark.advice)

    def _is_room(self, at: Place, more: int) -> bool:
        """Count *more* jobs; return False after a fault: the manifest has too many."""
        self._count += more
        if self._count <= MAX_JOBS:
            return True
        self._count -= more
        self._findings.fault(at, f"this makes more than {MAX_JOBS:,} jobs", "split the manifest")
        return False

    def _rows(self, entries: Entries) -> None:
        """Add the jobs of another file; the other keys of the entry are their defaults."""
        from batch.manifest.rows import has_header, read_rows  # noqa: PLC0415 - most need no CSV

        findings = self._findings
        _, node = entries["from"]
        own = dict(entries)
        del own["from"]
        for name in ("id", "matrix"):
            if name in own:
                message = f"{name} cannot stand beside from"
                findings.fault(own.pop(name)[0], message, "give it in the rows of the file")
        inherited = self._inherit(self._defaults.entries, own)
        named = read_path(node, "from", findings)
        if named is None:
            return
        path = self._folder / named
        file = file_label(path)
        known = {name: about for name, about in JOB_KEYS.items() if name != "from"}
        are_shared = has_header(path)
        try:
            for row in read_rows(path, file, node, {*known, "model_name"}, findings):
                entries = self._entries(row, "a row", known, are_shared=are_shared)
                self._expand(row, entries, inherited)
                findings.job = None  # the next row may fail before its id is known
        except Unreadable as exc:
            findings.add(exc.problem)


def _given(entries: Entries) -> Entries:
    """Return *entries* without nulls: null means "not given", even over an inherited value."""
    return {name: entry for name, entry in entries.items() if not is_null(entry[1])}


def _frozen(node: Node) -> Any:
    """Return a hashable value that is the same for equal nodes."""
    if isinstance(node, Scalar):
        return node.text, node.plain
    if isinstance(node, Sequence):
        return tuple([_frozen(item) for item in node.items])
    return tuple([(name, _frozen(value)) for name, (_, value) in node.entries.items()])

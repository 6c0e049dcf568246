"""Reads a manifest: YAML in, jobs out, and every fault with its place.

One pass over the file's events. Jobs are made as their lines go by and nothing else is kept of
them, so that a hundred thousand jobs fit into little memory. What jobs inherit (`defaults:`,
`limits:`) usually stands above them; where it stands below, the file is read a second time.

A job is made in these steps: its keys are checked; it inherits what it does not say itself; a
matrix fills its placeholders, once per combination; its options are read and compared with what
the model takes (once per distinct set of options: most jobs differ in the prompt alone); its id is
checked against all others.
"""

from __future__ import annotations

import csv
import gc
import io
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from batch.errors import ManifestError, Problem
from batch.job import Job, canonical_request, fingerprint
from batch.options import (
    OPTIONS,
    REFUSED_KEYS,
    Remark,
    check_options,
    read_options,
    request_body,
)
from batch.prices import ANY_MODE, PRICED_MODES, Overrides, Tariff, parse_money, parse_tariff
from batch.schema import (
    CALLBACK_KEYS,
    DEFAULT_LIMITS,
    DEFAULTS_KEYS,
    JOB_KEYS,
    KLING_PROMPT_CHARS,
    LIMIT_KEYS,
    ROOT_KEYS,
    VERSION,
    Limits,
    Rate,
    manifest_schema,
    parse_duration,
    parse_rate,
)
from batch.yaml_events import (
    FAST_PARSER,
    MAX_DEPTH,
    Entries,
    Findings,
    Items,
    Mapping,
    Node,
    Place,
    Scalar,
    Sequence,
    Spot,
    Unreadable,
    YamlReader,
    is_null,
    kind,
    printable,
    read_file,
    shown,
)

__all__ = [
    "DEFAULT_LIMITS",
    "Callback",
    "Limits",
    "Manifest",
    "ManifestError",
    "Rate",
    "load",
    "manifest_schema",
    "parse_duration",
    "parse_money",
    "parse_rate",
]

MAX_JOBS = 1_000_000
MAX_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Callback:
    """The receiver: the public *url* that the provider calls, and HOST:PORT to *listen* on."""

    url: str | None = None
    listen: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that has been checked in full.

    *output_dir* is as written; whoever uses it takes it relative to the manifest. *warnings* are doubts: possible,
    but hardly meant.
    """

    path: Path
    name: str
    jobs: tuple[Job, ...]
    limits: Limits = DEFAULT_LIMITS
    callback: Callback | None = None
    output_dir: Path | None = None
    base_url: str | None = None
    prices: Overrides = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()


def load(path: Path) -> Manifest:
    """Read and check the manifest at *path*. Sends nothing, writes nothing.

    Raises:
        ManifestError: the manifest cannot be used; carries every fault found, sorted by place.
    """
    with _collector_paused():
        return _Reading(path).manifest()


def _label(path: Path) -> str:
    """Return how messages call a file, whatever bytes its name is made of."""
    return printable(str(path).encode(errors="replace").decode())


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking all jobs again and again: half the time of a load."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# -- the root --------------------------------------------------------------------------------


class _Reading:
    """One reading of one manifest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _label(path)
        self._findings = Findings()
        self._jobs: _Jobs | None = None

    def manifest(self) -> Manifest:
        try:
            data = read_file(self._path, self._file, Spot(self._file))
            heads = self._pass(data, {})
            if self._is_late(heads):
                self._findings = Findings()
                self._jobs = None
                heads = self._pass(data, heads)
            manifest = self._assemble(heads)
        except Unreadable as exc:
            self._findings.job = None
            self._findings.add(exc.problem)
            manifest = None
        if faults := self._findings.faults():
            raise ManifestError(faults)
        assert manifest is not None
        return manifest

    def _pass(self, data: bytes, known: dict[str, tuple[Scalar, Node | Items]]) -> Any:
        """Go through the file once. Returns the root's values; jobs are made on the way."""
        heads = dict(known)
        for key, value in YamlReader(data, self._file, self._findings).root("jobs"):
            if key.text == "jobs":
                self._jobs = self._begin(heads)
                self._jobs.read(value)
            heads.setdefault(key.text, (key, value))
        return heads

    def _is_late(self, heads: dict[str, tuple[Scalar, Node | Items]]) -> bool:
        """Tell whether something that jobs inherit stands below them."""
        names = list(heads)
        late = names[names.index("jobs") :] if "jobs" in heads else []
        return "defaults" in late or "limits" in late

    def _begin(self, heads: dict[str, tuple[Scalar, Node | Items]]) -> _Jobs:
        limits, defaults = DEFAULT_LIMITS, None
        if "limits" in heads:
            limits = self._limits(heads["limits"][1])
        if "defaults" in heads:
            defaults = self._section("defaults", heads["defaults"][1])
        return _Jobs(self._findings, self._path.parent, limits, defaults)

    def _assemble(self, heads: dict[str, tuple[Scalar, Node | Items]]) -> Manifest:
        findings = self._findings
        findings.job = None
        for name, (key, _) in heads.items():
            if name not in ROOT_KEYS and not name.startswith("x-"):
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
        output_dir = self._scalar(nodes.get("output_dir"), "output_dir")
        return Manifest(
            path=self._path,
            name=self._name(nodes.get("name")),
            jobs=tuple(jobs.jobs),
            limits=jobs.limits,
            callback=self._callback(nodes.get("callback")),
            output_dir=None if output_dir is None else Path(output_dir),
            base_url=self._base_url(nodes.get("base_url")),
            prices=_read_prices(nodes.get("prices"), findings),
            warnings=self._warnings(),
        )

    def _warnings(self) -> tuple[Problem, ...]:
        if FAST_PARSER is None:
            message = "PyYAML was built without libyaml: reading takes about ten times as long"
            self._findings.doubt(Spot(self._file), message)
        return self._findings.doubts()

    def _section(self, name: str, node: Node | Items) -> Mapping | None:
        if isinstance(node, Mapping):
            return node
        if not is_null(node):
            self._findings.fault(node, f"{name} must be a mapping, but this is {kind(node)}")
        return None

    def _scalar(self, node: Node | None, name: str) -> str | None:
        if node is None:
            return None
        if isinstance(node, Scalar) and node.text.strip() and node.text.isprintable():
            return node.text
        self._findings.fault(node, f"{name} must be a text on one line")
        return None

    def _version(self, node: Node | None) -> None:
        if node is None:
            message = "the manifest does not say its version"
            self._findings.doubt(Spot(self._file), message, f"add the line version: {VERSION}")
        elif not isinstance(node, Scalar) or node.text != str(VERSION):
            self._findings.fault(node, f"version must be {VERSION}: no other is known here")

    def _name(self, node: Node | None) -> str:
        name = self._path.stem if node is None else self._scalar(node, "name")
        if name is None:
            return ""
        message = component_fault(name)
        if message is not None:
            advice = "add name:, it names the output folder" if node is None else None
            what = f"the name {shown(name)} cannot name a folder: {message}"
            self._findings.fault(node or Spot(self._file), what, advice)
        return name

    def _limits(self, node: Node | Items) -> Limits:
        values: dict[str, Any] = {}
        section = self._section("limits", node)
        for name, (key, value) in section.entries.items() if section else ():
            known = LIMIT_KEYS.get(name)
            if known is None:
                self._findings.unknown_key(key, LIMIT_KEYS, "limits")
            elif not is_null(value):
                parsed = _parsed(value, f"limits.{name}", known.parse, self._findings)
                if parsed is not None:
                    values[known.field] = parsed
                if name.endswith("_chars") and (parsed or 0) > KLING_PROMPT_CHARS:
                    message = f"{name} is {parsed}; newer Kling takes {KLING_PROMPT_CHARS}"
                    self._findings.doubt(value, message)
        return DEFAULT_LIMITS.with_given(**values)

    def _callback(self, node: Node | None) -> Callback | None:
        section = None if node is None else self._section("callback", node)
        if section is None:
            return None
        values: dict[str, str] = {}
        for name, (key, value) in section.entries.items():
            if name not in CALLBACK_KEYS:
                self._findings.unknown_key(key, CALLBACK_KEYS, "callback")
            elif not is_null(value):
                parse = _parse_url if name == "url" else _parse_listen
                parsed = _parsed(value, f"callback.{name}", parse, self._findings)
                if parsed is not None:
                    values[name] = parsed
        return Callback(**values)

    def _base_url(self, node: Node | None) -> str | None:
        if node is None:
            return None
        url: str | None = _parsed(node, "base_url", _parse_url, self._findings)
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.query:
            self._findings.fault(node, "base_url has a query", "remove what follows the ?")
        host = parts.hostname or ""
        is_local = host in ("localhost", "::1") or host.startswith("127.")
        if parts.scheme == "http" and not is_local:
            message = "base_url would send the API key unencrypted"
            self._findings.fault(node, message, "use https://; http:// is for this machine only")
        return url.rstrip("/")


def _parsed(node: Node, name: str, parse: Any, findings: Findings) -> Any:
    """Apply *parse* to a text; None after a fault."""
    if not isinstance(node, Scalar):
        findings.fault(node, f"{name} must be one value, but this is {kind(node)}")
        return None
    try:
        return parse(node.text)
    except ValueError as exc:
        findings.fault(node, f"{name}: {exc}")
        return None


def _parse_url(text: str) -> str:
    complaint = f"{shown(text)} is no address; write it like https://host/path"
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as exc:
        raise ValueError(complaint) from exc
    if not is_good or not text.isprintable() or " " in text:
        raise ValueError(complaint)
    if parts.username or parts.password:
        raise ValueError("an address must not hold a name or a password")
    if parts.fragment:
        raise ValueError("an address must not have a fragment (#…)")
    return text


def _parse_listen(text: str) -> str:
    found = re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", text, re.ASCII)
    if found is None or int(found[2]) > 65_535:
        raise ValueError(f"{shown(text)} is no HOST:PORT; write it like 127.0.0.1:8090")
    return text


def _read_prices(node: Node | None, findings: Findings) -> Overrides:
    if node is None:
        return {}
    if not isinstance(node, Mapping):
        findings.fault(node, f"prices must be a mapping of models, but this is {kind(node)}")
        return {}
    prices: dict[str, dict[str, Tariff]] = {}
    for model, (_, modes) in node.entries.items():
        if not isinstance(modes, Mapping):
            tariff = _parsed(modes, f"prices.{model}", parse_tariff, findings)
            prices[model] = {ANY_MODE: tariff} if tariff else {}
            continue
        prices[model] = {}
        for mode, (key, value) in modes.entries.items():
            if mode not in PRICED_MODES:
                findings.unknown_key(key, PRICED_MODES, f"prices.{model}")
            elif tariff := _tariff(value, f"prices.{model}.{mode}", findings):
                prices[model][mode] = tariff
    return prices


def _tariff(node: Node, name: str, findings: Findings) -> Tariff | None:
    if not isinstance(node, Mapping):
        tariff: Tariff | None = _parsed(node, name, parse_tariff, findings)
        return tariff
    clips = []
    for seconds, (key, value) in node.entries.items():
        usd = _parsed(value, f"{name}.{seconds}", parse_money, findings)
        if not re.fullmatch(r"[1-9][0-9]?", seconds, re.ASCII):
            findings.fault(key, f"{shown(seconds)} is no duration in whole seconds")
        elif usd is not None:
            clips.append((int(seconds), usd))
    return Tariff(clips=tuple(clips)) if clips else None


# -- jobs ------------------------------------------------------------------------------------


class _Inherited:
    """What jobs inherit, and the options already read on top of it."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.options: dict[tuple[Any, ...], tuple[dict[str, Any], tuple[Remark, ...]]] = {}


_MAX_REMEMBERED = 4_096
# \r would survive in no editor; the rest has no place in a text. Surrogates never get this far.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Jobs:
    """Makes jobs out of the items of `jobs:`."""

    def __init__(
        self, findings: Findings, folder: Path, limits: Limits, defaults: Mapping | None
    ) -> None:
        self.jobs: list[Job] = []
        self.limits = limits
        self._findings = findings
        self._folder = folder
        self._count = 0
        self._ids = _Ids(findings)
        self._tags: dict[tuple[str, ...], tuple[str, ...]] = {}
        entries = {} if defaults is None else self._entries(defaults, "defaults", DEFAULTS_KEYS)
        self._defaults = self._inherit({}, entries)

    def read(self, items: Node | Items) -> None:
        """Read all jobs."""
        if isinstance(items, (Scalar, Mapping)):
            message = f"jobs must be a list, but this is {kind(items)}"
            self._findings.fault(items, message, "begin each job with a hyphen: - id: …")
            return
        is_empty = True
        for node in items.items:
            is_empty = False
            self._item(node)
        if is_empty:
            self._findings.fault(items, "there are no jobs", "add at least one")
        self._ids.check_folders()
        self._findings.job = None

    def _item(self, node: Node) -> None:
        self._findings.job = None
        if not isinstance(node, Mapping):
            advice = "for example - {id: beach, prompt: A beach}"
            self._findings.fault(node, f"a job is a mapping, but this is {kind(node)}", advice)
            return
        entries = self._entries(node, "a job", JOB_KEYS)
        if "from" in entries:
            self._rows(entries)
        else:
            self._expand(node, entries, self._defaults)

    def _entries(self, node: Mapping, where: str, known: dict[str, str]) -> Entries:
        """Return the entries of *node* whose keys are known; `model_name` becomes `model`."""
        entries = node.entries
        if entries.keys() <= known.keys():
            return entries
        kept: Entries = {}
        label = entries.get("id")
        if label is not None and isinstance(label[1], Scalar):
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
                self._findings.unknown_key(entry[0], names, where)
        return kept

    def _inherit(self, base: Entries, own: Entries) -> _Inherited:
        """Lay *own* over *base*; values that are wrong are told here, once, without a job."""
        read_options(_given(own), self._findings)
        return _Inherited(_given({**base, **own}))

    def _expand(
        self, node: Mapping, own: Entries, inherited: _Inherited, fallback: str | None = None
    ) -> None:
        """Make the jobs of one entry: one, or one per combination and variant."""
        merged = {**inherited.entries, **own}
        for _, value in own.values():
            if is_null(value):
                merged = _given(merged)
                break
        label = merged.get("id")
        if label is None and fallback is None:
            self._findings.fault(node, "a job needs an id", "add id: it names the video's file")
            return
        place: Place = node if label is None else label[1]
        id_ = fallback if label is None else self._text(label[1], "id")
        if id_ is None:
            return
        self._findings.job = id_
        if "matrix" not in merged and "count" not in merged:
            if self._is_room(node, 1):
                self._make(id_, place, merged, own=own, inherited=inherited)
            return
        self._expand_many(id_, place, merged, inherited)

    def _expand_many(self, id_: str, place: Place, merged: Entries, inherited: _Inherited) -> None:
        count = self._variants(merged)
        matrix = merged.pop("matrix", None)
        axes = {} if matrix is None else self._axes(matrix[1])
        if count is None or axes is None:
            return
        total = max(count, 1)
        for values in axes.values():
            total *= len(values)
        if not self._is_room(place, total):
            return
        templates = None
        if matrix is not None:
            templates = _Templates(id_, place, merged, axes, self._findings)
            if templates.are_faulty:
                return
        for combination in itertools.product(*axes.values()):
            filled, filled_id = merged, id_
            if templates is not None:
                filled_id, filled = templates.fill(combination)
            for variant in range(1, count + 1) if count else (None,):
                name = filled_id if variant is None else f"{filled_id}-{variant}"
                self._findings.job = name
                self._make(name, place, filled, own=filled, inherited=inherited, variant=variant)

    def _make(
        self,
        id_: str,
        place: Place,
        merged: Entries,
        *,
        own: Entries,
        inherited: _Inherited,
        variant: int | None = None,
    ) -> None:
        """Make one job and keep it; or note why not."""
        is_good = self._ids.add(id_, place)
        before = self._findings.fault_count
        base = self._options(place, merged, own, inherited)
        prompt = self._prompt(place, merged, base)
        negative = self._optional_text(merged, "negative_prompt")
        tags = self._read_tags(merged)
        if not is_good or base is None or self._findings.fault_count != before:
            return
        body = dict(base)
        if prompt is not None:
            body["prompt"] = prompt
        if negative:
            body["negative_prompt"] = negative
        request = canonical_request(body)
        self.jobs.append(
            Job(
                id=id_,
                request=request,
                fingerprint=fingerprint(request, variant),
                tags=tags,
                variant=variant,
                file=place.file,
                line=place.line,
            )
        )

    def _options(
        self, place: Place, merged: Entries, own: Entries, inherited: _Inherited
    ) -> dict[str, Any] | None:
        """Read the options, or remember them: what was right once is right again."""
        key = tuple([(name, _frozen(own[name][1])) for name in own if name in OPTIONS])
        known = inherited.options.get(key)
        if known is None:
            before = self._findings.fault_count
            values = read_options(merged, self._findings)
            remarks = tuple(check_options(values))
            if self._findings.fault_count != before or values.keys() != merged.keys() & OPTIONS:
                # What the model takes can only be judged where the model itself could be read.
                if ("model" in values) == ("model" in merged):
                    self._tell(place, merged, (r for r in remarks if r.is_fault))
                return None
            known = (request_body(values), remarks)
            if len(inherited.options) < _MAX_REMEMBERED:
                inherited.options[key] = known
        body, remarks = known
        self._tell(place, merged, remarks)
        return body

    def _tell(self, place: Place, merged: Entries, remarks: Iterable[Remark]) -> None:
        for remark in remarks:
            at = merged[remark.option][1] if remark.option in merged else place
            tell = self._findings.fault if remark.is_fault else self._findings.doubt
            tell(at, remark.message, remark.advice)

    def _prompt(self, place: Place, merged: Entries, body: dict[str, Any] | None) -> str | None:
        entry = merged.get("prompt")
        if entry is None:
            # Kling ignores the prompt of a request with several shots of its own.
            if body is None or body.get("multi_shot") is not True:
                self._findings.fault(place, "a job needs a prompt", "add prompt:")
            return None
        prompt = self._checked_text(entry[1], "prompt", self.limits.max_prompt_chars)
        if prompt is not None and not prompt.strip():
            self._findings.fault(entry[1], "the prompt is empty", "say what the video shows")
        return prompt

    def _optional_text(self, merged: Entries, name: str) -> str | None:
        entry = merged.get(name)
        if entry is None:
            return None
        return self._checked_text(entry[1], name, self.limits.max_negative_prompt_chars)

    def _checked_text(self, node: Node, name: str, most: int) -> str | None:
        text = self._text(node, name)
        if text is None:
            return None
        if len(text) > most:
            message = f"{name} has {len(text)} characters, more than {most}"
            self._findings.fault(node, message, f"shorten it, or raise limits.max_{name}_chars")
        if not text.isprintable() and (found := _CONTROL.search(text)):
            message = f"{name} holds a control character (U+{ord(found.group()):04X})"
            self._findings.fault(node, message, "remove it")
        return text

    def _text(self, node: Node, name: str) -> str | None:
        if isinstance(node, Scalar):
            return node.text
        advice = "put it in quotes, since braces and brackets mean something in YAML"
        self._findings.fault(node, f"{name} must be a text, but this is {kind(node)}", advice)
        return None

    def _read_tags(self, merged: Entries) -> tuple[str, ...]:
        """Read tags: a list of texts, or one text with semicolons between them."""
        entry = merged.get("tags")
        if entry is None:
            return ()
        node = entry[1]
        if isinstance(node, Mapping):
            self._findings.fault(node, "tags must be a list of texts")
            return ()
        if isinstance(node, Scalar):
            texts = tuple(part for part in map(str.strip, node.text.split(";")) if part)
        else:
            texts = tuple(item.text for item in node.items if isinstance(item, Scalar))
            if len(texts) != len(node.items):
                self._findings.fault(node, "tags must be a list of texts")
        known = self._tags.get(texts)
        if known is not None:
            return known
        for text in texts:
            if not text.isprintable() or not text.strip() or ";" in text or len(text) > 100:
                self._findings.fault(node, f"{shown(text)} cannot be a tag", "use a short word")
                return ()
        return self._tags.setdefault(texts, tuple(dict.fromkeys(texts)))

    def _variants(self, merged: Entries) -> int | None:
        """Return the job's count; 0 if it has none; None after a fault."""
        entry = merged.pop("count", None)
        if entry is None:
            return 0
        node = entry[1]
        text = node.text if isinstance(node, Scalar) else ""
        if re.fullmatch(r"[0-9]{1,7}", text, re.ASCII) and int(text) > 0:
            return int(text)
        self._findings.fault(node, f"count is {shown(text)}; it must be a whole number from 1")
        return None

    def _axes(self, node: Node) -> dict[str, list[str]] | None:
        """Read a matrix: each axis with its values; None after a fault."""
        if not isinstance(node, Mapping) or not node.entries:
            advice = "for example {animal: [fox, deer]}"
            self._findings.fault(node, "matrix must be a mapping of axes to lists", advice)
            return None
        before = self._findings.fault_count
        axes: dict[str, list[str]] = {}
        for name, (key, values) in node.entries.items():
            if not re.fullmatch(r"[^\W\d][\w-]{0,99}", name):
                self._findings.fault(key, f"{shown(name)} cannot name an axis", "use a word")
            if not isinstance(values, Sequence) or not values.items:
                self._findings.fault(values, f"the axis {shown(name)} needs a list of values")
                continue
            seen: dict[str, None] = {}
            for value in values.items:
                if not isinstance(value, Scalar):
                    self._findings.fault(value, "a value of a matrix must be a text")
                elif value.text in seen:
                    message = f"the axis {shown(name)} has {shown(value.text)} twice"
                    self._findings.fault(value, message, "keep one")
                else:
                    seen[value.text] = None
            axes[name] = list(seen)
        return axes if self._findings.fault_count == before else None

    def _is_room(self, at: Place, more: int) -> bool:
        """Count *more* jobs; False, and a fault, if that is beyond what one manifest may hold."""
        self._count += more
        if self._count <= MAX_JOBS:
            return True
        self._count -= more
        self._findings.fault(at, f"this makes more than {MAX_JOBS:,} jobs", "split the manifest")
        return False

    def _rows(self, entries: Entries) -> None:
        """Read the jobs of another file; the other keys of the entry are their defaults."""
        findings = self._findings
        _, node = entries["from"]
        own = dict(entries)
        del own["from"]
        for name in ("id", "matrix"):
            if name in own:
                message = f"{name} cannot stand beside from"
                findings.fault(own.pop(name)[0], message, "give it in the rows of the file")
        inherited = self._inherit(self._defaults.entries, own)
        text = self._text(node, "from")
        if text is None:
            return
        path = self._folder / text
        file = _label(path)
        known = {name: about for name, about in JOB_KEYS.items() if name != "from"}
        try:
            for number, row in _read_rows(path, file, node, findings):
                findings.job = None
                entries = self._entries(row, "a row", known)
                self._expand(row, entries, inherited, f"{path.stem}-{number}")
        except Unreadable as exc:
            findings.add(exc.problem)


def _given(entries: Entries) -> Entries:
    """Leave out what is null: it means "not given", also where something would be inherited."""
    return {name: entry for name, entry in entries.items() if not is_null(entry[1])}


def _frozen(node: Node) -> Any:
    """Return what makes two nodes equal, as something hashable."""
    if isinstance(node, Scalar):
        return node.text, node.plain
    if isinstance(node, Sequence):
        return tuple([_frozen(item) for item in node.items])
    return tuple([(name, _frozen(value)) for name, (_, value) in node.entries.items()])


# -- the matrix ------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_FILLED = frozenset(JOB_KEYS) - {"id", "matrix", "count", "from", "camera_control", "extra"}


class _Templates:
    """The texts of a job that has a matrix, ready to be filled.

    Texts are filled, lists of tags too; `camera_control` and `extra` are passed on as they are.
    """

    def __init__(
        self,
        id_: str,
        place: Place,
        merged: Entries,
        axes: dict[str, list[str]],
        findings: Findings,
    ) -> None:
        before = findings.fault_count
        self._axes = axes
        self._findings = findings
        self._merged = merged
        self._id = self._compiled(id_, place)
        self._texts: dict[str, list[str | int]] = {}
        self._tags: list[tuple[Scalar, list[str | int]]] | None = None
        for name, (_, node) in merged.items():
            if name in _FILLED and isinstance(node, Scalar):
                self._texts[name] = self._compiled(node.text, node)
            elif name == "tags" and isinstance(node, Sequence):
                tags = [item for item in node.items if isinstance(item, Scalar)]
                self._tags = [(tag, self._compiled(tag.text, tag)) for tag in tags]
        self._check_id(place)
        self.are_faulty = findings.fault_count != before

    def fill(self, values: tuple[str, ...]) -> tuple[str, Entries]:
        """Return the id and the entries of one combination."""
        filled = dict(self._merged)
        for name, parts in self._texts.items():
            key, node = filled[name]
            assert isinstance(node, Scalar)
            text = _joined(parts, values)
            # What a matrix has filled is a text: a value `~` is no "not given".
            filled[name] = (key, Scalar(text, plain=False, **_where(node)))
        if self._tags is not None:
            key, node = filled["tags"]
            items: list[Node] = [
                Scalar(_joined(parts, values), plain=False, **_where(tag))
                for tag, parts in self._tags
            ]
            filled["tags"] = (key, Sequence(items, node.size, **_where(node)))
        return _joined(self._id, values), filled

    def _compiled(self, text: str, place: Place) -> list[str | int]:
        """Split *text* into literal parts and the numbers of axes."""
        names = list(self._axes)
        parts: list[str | int] = []
        end = 0
        for found in _PLACEHOLDER.finditer(text):
            parts.append(text[end : found.start()])
            end = found.end()
            token, name = found.group(), found[1]
            if token in ("{{", "}}"):
                parts.append(token[0])
            elif name in self._axes:
                parts.append(names.index(name))
            else:
                advice = f"axes: {', '.join(names)}; a brace that is text is doubled"
                message = f"{shown(token)} names no axis of the matrix"
                self._findings.fault(place, message, advice)
        parts.append(text[end:])
        return [part for part in parts if part != ""]

    def _check_id(self, place: Place) -> None:
        for number, (name, values) in enumerate(self._axes.items()):
            if number not in self._id and len(values) > 1:
                message = f"the id does not use the axis {name}: several jobs would share one id"
                self._findings.fault(place, message, f"add {{{name}}} to the id")


def _joined(parts: list[str | int], values: tuple[str, ...]) -> str:
    return "".join([values[part] if isinstance(part, int) else part for part in parts])


def _where(at: Place) -> dict[str, Any]:
    return {"file": at.file, "line": at.line, "column": at.column}


# -- ids -------------------------------------------------------------------------------------

_SIMPLE_ID = re.compile(r"[a-z0-9_-]{5,200}", re.ASCII)  # too long for a reserved name
_FORBIDDEN = re.compile(r'[<>:"|?*\\]')
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{device}{number}" for device in ("com", "lpt") for number in "0123456789¹²³"}
)
_MAX_COMPONENT_BYTES = 200
_MAX_ID_BYTES = 1_000


def component_fault(name: str) -> str | None:
    """Say why *name* cannot be a file or a folder on every system; None if it can."""
    if not name:
        return "an empty part"
    if name in (".", ".."):
        return f"the part {name}, which names no file in the folder"
    if not name.isprintable():
        return "a character that cannot be seen"
    if found := _FORBIDDEN.search(name):
        return f"the character {found.group()}"
    if "/" in name:
        return "a slash"
    if name[0] == " " or name[-1] in " .":
        return "a space at its start, or a space or a dot at its end"
    if name.partition(".")[0].rstrip().casefold() in _RESERVED:
        return "a name that Windows keeps for itself"
    if len(name.encode(errors="replace")) > _MAX_COMPONENT_BYTES:
        return f"a part of more than {_MAX_COMPONENT_BYTES} bytes"
    return None


def id_fault(id_: str) -> str | None:
    """Say why *id_* cannot be a job's id; None if it can."""
    if id_.startswith("/"):
        return "a slash at its start"
    if len(id_.encode(errors="replace")) > _MAX_ID_BYTES:
        return f"more than {_MAX_ID_BYTES} bytes"
    return next(filter(None, map(component_fault, id_.split("/"))), None)


def _folded(id_: str) -> str:
    """Return what two ids share that are one file on some file system."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", id_).casefold())
    return id_ if folded == id_ else folded


class _Ids:
    """All ids so far, to find those that would share a file."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._seen: dict[str, tuple[str, Place]] = {}
        self._nested: list[str] = []  # folded ids below a folder named like a video

    def add(self, id_: str, place: Place) -> bool:
        """Note an id; False, and a fault, if it is wrong or taken."""
        key = id_
        if not _SIMPLE_ID.fullmatch(id_):
            message = id_fault(id_)
            if message is not None:
                advice = "an id names the file videos/<id>.mp4"
                self._findings.fault(place, f"the id {shown(id_)} has {message}", advice)
                return False
            key = _folded(id_)
            if ".mp4/" in key:
                self._nested.append(key)
        first, at = self._seen.setdefault(key, (id_, place))
        if at is place and first is id_:
            return True
        where = f"line {at.line}" if at.file == place.file else f"{at.file}:{at.line}"
        message = f"the id {shown(id_)} is taken by the job in {where}"
        if first != id_:
            message = f"the id {shown(id_)} differs only by case from {shown(first)} in {where}"
        self._findings.fault(place, message, "each job needs an id of its own")
        return False

    def check_folders(self) -> None:
        """Find ids whose video would have to be a folder for another id."""
        for key in self._nested:
            id_, place = self._seen[key]
            self._findings.job = id_
            parts = key.split("/")
            for length in range(1, len(parts)):
                parent = "/".join(parts[:length])
                other = self._seen.get(parent.removesuffix(".mp4"))
                if other is not None and parent.endswith(".mp4"):
                    message = (
                        f"the id {shown(id_)} needs a folder where {shown(other[0])} has its file"
                    )
                    self._findings.fault(place, message, "rename one of the two")


# -- rows of other files ---------------------------------------------------------------------


def _read_rows(
    path: Path, file: str, at: Place, findings: Findings
) -> Iterator[tuple[int, Mapping]]:
    """Yield the rows of a .csv or .jsonl file with their numbers, from 1.

    Raises:
        Unreadable: the file cannot be read, or its kind is not known.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl"):
        message = f"from takes a .csv or a .jsonl file, not {shown(path.name)}"
        raise Unreadable(at, message)
    data = read_file(path, file, at)
    rows = _csv_rows if suffix == ".csv" else _json_rows
    number = 0
    for number, row in enumerate(rows(data, file, findings), 1):
        yield number, row
    if number == 0:
        findings.fault(at, f"{shown(file)} has no rows")


def _csv_rows(data: bytes, file: str, findings: Findings) -> Iterator[Mapping]:
    """Read CSV: commas, a line of keys, an empty cell is a key not given."""
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
    reader = csv.reader(text, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        keys = _csv_keys(header, file, findings)
        line = reader.line_num + 1
        for cells in reader:
            if any(cells):
                yield _csv_row(keys, cells, Spot(file, line), findings)
            line = reader.line_num + 1
    except csv.Error as exc:
        raise Unreadable(Spot(file, max(reader.line_num, 1)), f"not valid CSV: {exc}") from exc


def _csv_keys(header: list[str], file: str, findings: Findings) -> list[Scalar]:
    if len(header) > MAX_COLUMNS:
        raise Unreadable(Spot(file), f"the file has more than {MAX_COLUMNS} columns")
    keys = [Scalar(name, plain=False, file=file, line=1, column=1) for name in header]
    if len(header) == 1 and re.search("[;\t]", header[0]):
        raise Unreadable(Spot(file), "the columns are not separated by commas", "use commas")
    for number, name in enumerate(header, 1):
        if not name:
            findings.fault(keys[number - 1], f"column {number} has no name")
        elif name in header[: number - 1]:
            findings.fault(keys[number - 1], f"the column {shown(name)} is there twice")
    return keys


def _csv_row(keys: list[Scalar], cells: list[str], at: Spot, findings: Findings) -> Mapping:
    if len(cells) > len(keys):
        message = f"the row has {len(cells)} cells, but there are {len(keys)} columns"
        findings.fault(at, message, "a text that holds a comma must stand in quotes")
    entries: Entries = {}
    for key, cell in zip(keys, cells, strict=False):
        if not cell or not key.text:
            continue
        node: Node = Scalar(cell, plain=False, file=at.file, line=at.line, column=1)
        if key.text in ("camera_control", "extra", "matrix"):
            node = _json_node(cell, at, f"the cell {key.text} is not JSON", findings)
        entries[key.text] = (key, node)
    return Mapping(entries, len(entries), at.file, at.line, at.column)


def _json_rows(data: bytes, file: str, findings: Findings) -> Iterator[Mapping]:
    """Read JSON Lines: one object per line, empty lines are skipped."""
    for number, line in enumerate(io.BytesIO(data), 1):
        text = line.decode().strip()
        if not text:
            continue
        at = Spot(file, number)
        node = _json_node(text, at, "the line is not JSON", findings)
        if isinstance(node, Mapping):
            yield node
        elif not is_null(node):
            findings.fault(at, "a line must be an object in braces")


class _Literal(str):
    """A JSON value that stands unquoted: a number, true, false or null."""

    __slots__ = ()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def _json_node(text: str, at: Spot, complaint: str, findings: Findings) -> Node:
    """Parse JSON into nodes that all stand at *at*; a null after a fault."""
    null = Scalar("null", plain=True, file=at.file, line=at.line, column=at.column)
    try:
        value = json.loads(
            text,
            object_pairs_hook=tuple,
            parse_int=_Literal,
            parse_float=_Literal,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as exc:
        spot = Spot(at.file, at.line, exc.colno)
        findings.fault(spot, f"{complaint}: {exc.msg}")
    except RecursionError:
        findings.fault(at, f"{complaint}: nested more than {MAX_DEPTH} levels deep")
    except ValueError as exc:
        findings.fault(at, f"{complaint}: {exc}")
    else:
        return _as_node(value, at, findings, 1)
    return null


def _as_node(value: Any, at: Spot, findings: Findings, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise Unreadable(at, f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, list):
        items = [_as_node(item, at, findings, depth + 1) for item in value]
        return Sequence(items, len(items), at.file, at.line, at.column)
    if isinstance(value, tuple):
        entries: Entries = {}
        for name, item in value:
            key = Scalar(_whole_text(name, at), plain=False, **_where(at))
            if name in entries:
                findings.fault(at, f"the key {shown(name)} stands here twice", "keep one")
            entries[name] = (key, _as_node(item, at, findings, depth + 1))
        return Mapping(entries, len(entries), at.file, at.line, at.column)
    plain = not isinstance(value, str) or isinstance(value, _Literal)
    text = value if isinstance(value, str) else json.dumps(value)
    return Scalar(str(_whole_text(text, at)), plain, at.file, at.line, at.column)


def _whole_text(text: str, at: Spot) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        message = "a text holds half of a character (a lone surrogate)"
        raise Unreadable(at, message, r"write both halves, like \ud83e\udd8a") from exc
    return text

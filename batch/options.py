"""What text2video takes: the options, their values, and which model takes which.

Two kinds of rules. A value outside what is documented is a fault. What is possible but doubtful (a
model known to be retired, an option that this model is known to ignore) is a doubt, since the
provider changes faster than this file. Sources: CometAPI's page of `POST
/kling/v1/videos/text2video` and its 2026 guide, Kling's API reference and capability map, read in
November 2026.

`OPTIONS` is the one table: the reader of each option, its JSON Schema, and its sentence of help.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batch.yaml_events import Entries, Findings, Node, Scalar, Sequence, is_null, kind, meant, shown
from batch.yaml_events import Mapping as MappingNode

Json = Any
JsonSchema = dict[str, Any]

DEFAULT_MODEL = "kling-v2-6"
DEFAULT_MODE = "std"
DEFAULT_DURATION = "5"
DEFAULT_ASPECT_RATIO = "16:9"

ASPECT_RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3")
CURRENT_ASPECT_RATIOS = frozenset({"16:9", "9:16", "1:1"})  # CometAPI's 2026 guide lists these
MODES = ("std", "pro", "4k")
SECONDS = range(3, 16)
CAMERA_TYPES = (
    "simple",
    "down_back",
    "forward_up",
    "right_turn_forward",
    "left_turn_forward",
)
CAMERA_MOVES = ("horizontal", "vertical", "pan", "tilt", "roll", "zoom")
CAMERA_MOST = 10


# -- models ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Model:
    """What a model is known to do in text2video (Kling's capability map)."""

    modes: tuple[str, ...] = ("std", "pro")  # empty: the model knows no modes
    seconds: tuple[int, ...] = (5, 10)
    sound_modes: tuple[str, ...] = ()
    takes_cfg_scale: bool = True
    takes_camera: bool = False
    is_retired: bool = False
    is_text2video: bool = True


# Kling announced the end of the v1 and v2.0/v2.1 models for 2026-09-15.
RETIRED_ON = "2026-09-15"
MODELS: dict[str, Model] = {
    "kling-v1": Model(takes_camera=True, is_retired=True),
    "kling-v1-5": Model(is_retired=True, is_text2video=False),
    "kling-v1-6": Model(is_retired=True),
    "kling-v2-master": Model(modes=(), takes_cfg_scale=False, is_retired=True),
    "kling-v2-1": Model(takes_cfg_scale=False, is_retired=True, is_text2video=False),
    "kling-v2-1-master": Model(modes=(), takes_cfg_scale=False, is_retired=True),
    "kling-v2-5-turbo": Model(takes_cfg_scale=False),
    "kling-v2-6": Model(sound_modes=("pro",), takes_cfg_scale=False),
    "kling-v3": Model(
        modes=("std", "pro", "4k"), seconds=tuple(SECONDS), sound_modes=("std", "pro", "4k")
    ),
}
CURRENT_MODELS = tuple(n for n, m in MODELS.items() if m.is_text2video and not m.is_retired)


# -- one value at a time ---------------------------------------------------------------------


class _Fault(ValueError):  # noqa: N818 - it ends as a finding
    """A value that cannot be; becomes a finding at the value's place."""

    def __init__(self, message: str, advice: str | None = None) -> None:
        self.advice = advice
        super().__init__(message)


def text_of(node: Node, name: str) -> str:
    """Return the text of a scalar, whatever YAML would take it for.

    Raises:
        ValueError: the node is a list or a mapping.
    """
    if not isinstance(node, Scalar):
        advice = "a text that holds braces or brackets must stand in quotes"
        raise _Fault(f"{name} must be a text, but this is {kind(node)}", advice)
    return node.text


def choice(text: str, name: str, choices: tuple[str, ...]) -> str:
    """Return *text* if it is one of *choices*.

    Raises:
        ValueError: it is none of them; says which one was probably meant.
    """
    if text in choices:
        return text
    advice = meant(text, choices)
    raise _Fault(f"{name} is {shown(text)}; it must be one of {', '.join(choices)}", advice)


def _model(node: Node, _: Findings) -> Json:
    text = text_of(node, "model")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}", text):
        raise _Fault(f"{shown(text)} is no model name", f"for example {DEFAULT_MODEL}")
    return text


def _mode(node: Node, _: Findings) -> Json:
    return choice(text_of(node, "mode"), "mode", MODES)


def _duration(node: Node, _: Findings) -> Json:
    text = text_of(node, "duration")
    if re.fullmatch(r"0{0,2}[0-9]{1,3}(\.0{1,3})?", text) and int(float(text)) in SECONDS:
        return str(int(float(text)))
    advice = f"write {text[:-1].strip()}" if re.fullmatch(r"[0-9]{1,2} ?s", text) else None
    message = f"duration is {shown(text)}; it must be whole seconds, 5 or 10 (kling-v3: 3 to 15)"
    raise _Fault(message, advice)


# What YAML 1.1 makes of a ratio (sixties), in files that a program has rewritten.
_SEXAGESIMAL = {
    str(int(wide) * 60 + int(high)): f"{wide}:{high}"
    for wide, high in (ratio.split(":") for ratio in ASPECT_RATIOS)
}


def _aspect_ratio(node: Node, _: Findings) -> Json:
    text = text_of(node, "aspect_ratio")
    if text in _SEXAGESIMAL:
        ratio = _SEXAGESIMAL[text]
        message = f"aspect_ratio is {text}, which is what YAML 1.1 reads where {ratio} is written"
        raise _Fault(message, f"write '{ratio}' in quotes")
    return choice(text, "aspect_ratio", ASPECT_RATIOS)


def _cfg_scale(node: Node, _: Findings) -> Json:
    value = number(text_of(node, "cfg_scale"))
    if value is None or not 0 <= value <= 1:
        shape = node.text if isinstance(node, Scalar) else ""
        raise _Fault(f"cfg_scale is {shown(shape)}; it must be a number from 0 to 1")
    return plain_number(value)


_ON = frozenset({"on", "true", "yes"})
_OFF = frozenset({"off", "false", "no"})


def _sound(node: Node, _: Findings) -> Json:
    text = text_of(node, "sound")
    if text.lower() in _ON:
        return "on"
    if text.lower() in _OFF:
        return "off"
    raise _Fault(f"sound is {shown(text)}; it must be on or off")


def _camera_control(node: Node, findings: Findings) -> Json:
    """Read a camera: a preset's type alone, or `simple` with exactly one move that is not 0."""
    if not isinstance(node, MappingNode):
        advice = "for example {type: simple, config: {zoom: 5}}"
        raise _Fault(f"camera_control must be a mapping, but this is {kind(node)}", advice)
    before = findings.fault_count
    entries = {name: entry for name, entry in node.entries.items() if not is_null(entry[1])}
    for key in [key for name, (key, _) in entries.items() if name not in ("type", "config")]:
        findings.unknown_key(key, ("type", "config"), "camera_control")
    if "type" not in entries:
        raise _Fault("camera_control has no type", f"one of {', '.join(CAMERA_TYPES)}")
    camera = {"type": _camera_type(entries["type"][1], findings)}
    config = entries.get("config")
    if camera["type"] == "simple":
        if config is None:
            raise _Fault("a simple camera needs config", f"one of {', '.join(CAMERA_MOVES)}")
        camera["config"] = _camera_config(config[1], findings)
    elif camera["type"] is None and config is not None:
        _camera_config(config[1], findings)
    elif config is not None:
        findings.fault(config[0], f"the camera {camera['type']} takes no config", "remove it")
    return camera if findings.fault_count == before else None


def _camera_type(node: Node, findings: Findings) -> Json:
    try:
        return choice(text_of(node, "type"), "camera_control.type", CAMERA_TYPES)
    except _Fault as fault:
        findings.fault(node, str(fault), fault.advice)
        return None


def _camera_config(node: Node, findings: Findings) -> Json:
    if not isinstance(node, MappingNode):
        findings.fault(node, f"camera_control.config must be a mapping, but this is {kind(node)}")
        return None
    config: dict[str, Any] = {}
    before = findings.fault_count
    for name, (key, value) in node.entries.items():
        if name not in CAMERA_MOVES:
            findings.unknown_key(key, CAMERA_MOVES, "camera_control.config")
            continue
        parsed = number(value.text) if isinstance(value, Scalar) and value.plain else None
        if parsed is None or not -CAMERA_MOST <= parsed <= CAMERA_MOST:
            message = f"{name} must be a number from -{CAMERA_MOST} to {CAMERA_MOST}"
            findings.fault(value, message, "without quotes")
            continue
        config[name] = plain_number(parsed)
    moving = [name for name, value in config.items() if value != 0]
    if findings.fault_count == before and len(moving) != 1:
        told = f"these are set: {', '.join(moving)}" if moving else "none is"
        message = f"a simple camera needs exactly one value that is not 0; {told}"
        findings.fault(node, message, f"set one of {', '.join(CAMERA_MOVES)}")
    return config


def _extra(node: Node, findings: Findings) -> Json:
    if not isinstance(node, MappingNode):
        raise _Fault(f"extra must be a mapping, but this is {kind(node)}")
    before = findings.fault_count
    fields = {}
    for name, (key, value) in node.entries.items():
        if name in _NOT_EXTRA:
            findings.fault(key, f"{name} cannot be given under extra", _NOT_EXTRA[name])
        elif not name:
            findings.fault(key, "a field under extra has no name")
        else:
            fields[name] = to_json(value, findings)
    return fields if findings.fault_count == before else None


# -- numbers and JSON ------------------------------------------------------------------------


_INT = re.compile(r"[-+]?[0-9]+", re.ASCII)
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_MAX_DIGITS = 300


def number(text: str) -> int | float | None:
    """Read a finite number as YAML 1.2's core schema has it; None if *text* is none."""
    if len(text) > _MAX_DIGITS:
        return None
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else None
    return int(text, 0) if _BASED.fullmatch(text) else None


def plain_number(value: float) -> int | float:
    """Give a whole number one form only: 1 and 1.0 must not be two fingerprints."""
    return int(value) if value == int(value) else value


def to_json(node: Node, findings: Findings) -> Json:
    """Turn a node into JSON: plain scalars by YAML 1.2's core schema, quoted ones stay text."""
    if isinstance(node, Sequence):
        return [to_json(item, findings) for item in node.items]
    if isinstance(node, MappingNode):
        return {name: to_json(value, findings) for name, (_, value) in node.entries.items()}
    if not node.plain:
        return node.text
    if is_null(node):
        return None
    if node.text in _TRUE or node.text in _FALSE:
        return node.text in _TRUE
    value = number(node.text)
    if value is None and (_FLOAT.fullmatch(node.text) or _NOT_FINITE.fullmatch(node.text)):
        findings.fault(node, f"JSON has no number {shown(node.text)}", "quote it if it is a text")
    return node.text if value is None else value


# -- the table -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a job: what it is for, what editors see of it, and its reader.

    *read* returns the value as it is sent, or None after it has noted a fault.
    """

    about: str
    shape: JsonSchema
    read: Callable[[Node, Findings], Json]


_CAMERA_VALUE: JsonSchema = {"type": "number", "minimum": -CAMERA_MOST, "maximum": CAMERA_MOST}
# "Exactly one" by hand: for each move, it is set and not 0, and no other is.
_ONE_MOVE: list[JsonSchema] = [
    {
        "required": [move],
        "properties": {
            other: {"not": {"const": 0}} if other == move else {"const": 0}
            for other in CAMERA_MOVES
        },
    }
    for move in CAMERA_MOVES
]
_CAMERA_SHAPE: JsonSchema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["type"],
    "properties": {
        "type": {"enum": list(CAMERA_TYPES)},
        "config": {
            "type": ["object", "null"],
            "additionalProperties": False,
            "properties": {move: {**_CAMERA_VALUE} for move in CAMERA_MOVES},
        },
    },
    "if": {"properties": {"type": {"const": "simple"}}},
    "then": {
        "required": ["config"],
        "properties": {"config": {"type": "object", "oneOf": _ONE_MOVE}},
    },
    "else": {"properties": {"config": {"type": "null"}}},
}

OPTIONS: dict[str, Option] = {
    "model": Option(
        f"The model, sent as model_name. Current: {', '.join(CURRENT_MODELS)}.",
        {"type": "string", "examples": list(CURRENT_MODELS), "default": DEFAULT_MODEL},
        _model,
    ),
    "mode": Option(
        "std is 720p, pro is 1080p; 4k is known to kling-v3 only.",
        {"enum": list(MODES), "default": DEFAULT_MODE},
        _mode,
    ),
    "duration": Option(
        "Seconds: 5 or 10; kling-v3 takes 3 to 15. Sent as a string.",
        {
            "enum": [*SECONDS, *(str(seconds) for seconds in SECONDS)],
            "default": int(DEFAULT_DURATION),
        },
        _duration,
    ),
    "aspect_ratio": Option(
        "Width to height. The newest documents list 16:9, 9:16 and 1:1 only.",
        # The numbers are what an editor that speaks YAML 1.1 sees of an unquoted ratio.
        {
            "enum": [*ASPECT_RATIOS, *(int(text) for text in _SEXAGESIMAL)],
            "default": DEFAULT_ASPECT_RATIO,
        },
        _aspect_ratio,
    ),
    "cfg_scale": Option(
        "How closely the prompt is followed, 0 to 1. The v2 models do not take it.",
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^(0|1|[01]?\.[0-9]+)$"},
            ]
        },
        _cfg_scale,
    ),
    "sound": Option(
        "on or off. kling-v3, and kling-v2-6 in mode pro.",
        {"enum": ["on", "off", True, False, "yes", "no", "true", "false"]},
        _sound,
    ),
    "camera_control": Option(
        "A camera move: a preset's type, or type simple with exactly one value in config.",
        _CAMERA_SHAPE,
        _camera_control,
    ),
    "extra": Option(
        "Fields that a newer API takes, passed through untouched.",
        {"type": "object"},
        _extra,
    ),
}

_OURS = "it is made by the runner"
REFUSED_KEYS: dict[str, str] = {
    "external_task_id": f"remove it: {_OURS}",
    "callback_url": "remove it: set url under callback: at the top of the manifest",
    "image": "remove it: this runner makes videos from text only",
}
_NOT_EXTRA: dict[str, str] = REFUSED_KEYS | {
    name: f"write {name} as a key of the job"
    for name in ("prompt", "negative_prompt", "model_name", *OPTIONS)
}


def read_options(entries: Entries, findings: Findings) -> dict[str, Json]:
    """Read the options among *entries*, each for itself. Leaves out what is at fault."""
    values = {}
    for name, (_, node) in entries.items():
        option = OPTIONS.get(name)
        if option is None:
            continue
        try:
            value = option.read(node, findings)
        except _Fault as fault:
            findings.fault(node, str(fault), fault.advice)
            continue
        if value is not None:
            values[name] = value
    return values


# -- options together ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Remark:
    """What is wrong (*is_fault*) or doubtful about *option*, given the other options."""

    option: str
    message: str
    advice: str | None = None
    is_fault: bool = False


def check_options(values: Mapping[str, Json]) -> Iterator[Remark]:
    """Compare what is asked for with what the model is known to do."""
    name = values.get("model", DEFAULT_MODEL)
    model = MODELS.get(name)
    ratio = values.get("aspect_ratio", DEFAULT_ASPECT_RATIO)
    if ratio not in CURRENT_ASPECT_RATIOS:
        message = f"the newest documents do not list the aspect ratio {ratio}"
        yield Remark("aspect_ratio", message, "16:9, 9:16 and 1:1 are safe")
    if model is None:
        advice = meant(name, MODELS) or f"known: {', '.join(CURRENT_MODELS)}"
        yield Remark("model", f"the model {shown(name)} is not known here", advice)
        return
    yield from _check_model(name, model)
    yield from _check_mode(name, model, values)
    seconds = int(values.get("duration", DEFAULT_DURATION))
    if seconds not in model.seconds:
        takes = " or ".join(map(str, model.seconds))
        yield Remark("duration", f"{name} makes {takes} seconds, not {seconds}", is_fault=True)
    yield from _check_ignored(name, model, values, seconds)


def _check_model(name: str, model: Model) -> Iterator[Remark]:
    current = f"current: {', '.join(CURRENT_MODELS)}"
    if model.is_retired:
        yield Remark("model", f"Kling has announced the end of {name} for {RETIRED_ON}", current)
    if not model.is_text2video:
        yield Remark("model", f"{name} makes videos from images only", current)


def _check_mode(name: str, model: Model, values: Mapping[str, Json]) -> Iterator[Remark]:
    mode = values.get("mode")
    if mode is not None and not model.modes:
        yield Remark("mode", f"{name} knows no modes and ignores {mode}", "remove it")
    elif mode is not None and mode not in model.modes:
        takes = " or ".join(model.modes)
        yield Remark("mode", f"{name} takes the mode {takes}, not {mode}", is_fault=True)
    elif mode == "4k":
        yield Remark("mode", "CometAPI does not document the mode 4k")
    if name == "kling-v2-5-turbo" and mode in (None, "std"):
        message = f"CometAPI lists {name} in mode pro only"
        yield Remark("mode" if mode else "model", message, "mode: pro is safe")


def _check_ignored(
    name: str, model: Model, values: Mapping[str, Json], seconds: int
) -> Iterator[Remark]:
    mode = values.get("mode", DEFAULT_MODE)
    if values.get("sound") == "on" and mode not in model.sound_modes:
        modes = " or ".join(model.sound_modes)
        message = f"{name} makes sound in mode {modes} only" if modes else f"{name} makes no sound"
        yield Remark("sound", message, "it is likely to be ignored or refused")
    if "cfg_scale" in values and not model.takes_cfg_scale:
        yield Remark("cfg_scale", f"{name} does not take cfg_scale", "remove it")
    if "camera_control" in values and not (model.takes_camera and mode == "std" and seconds == 5):
        message = f"{name} is not known to take camera_control here"
        yield Remark("camera_control", message, "only kling-v1 does, in mode std with 5 seconds")


def request_body(values: Mapping[str, Json]) -> dict[str, Json]:
    """Build the request without its prompts, defaults written out.

    Defaults are always sent, so that a change of the provider's defaults changes nothing here.
    `mode` is left out by itself only where the model knows no modes.
    """
    name = values.get("model", DEFAULT_MODEL)
    body: dict[str, Json] = {
        **values.get("extra", {}),
        "model_name": name,
        "duration": values.get("duration", DEFAULT_DURATION),
        "aspect_ratio": values.get("aspect_ratio", DEFAULT_ASPECT_RATIO),
    }
    knows_modes = name not in MODELS or bool(MODELS[name].modes)
    if "mode" in values or knows_modes:
        body["mode"] = values.get("mode", DEFAULT_MODE)
    for option in ("cfg_scale", "sound", "camera_control"):
        if option in values:
            body[option] = values[option]
    return body

"""Read the options of text2video and build the request.

An undocumented value is a fault; `batch.manifest.models` compares the valid ones with the model.
Sources: CometAPI's page of `POST /kling/v1/videos/text2video` and its 2026 guide, Kling's API
reference, read in November 2026.

`OPTIONS` is the one table: the reader of each option, its JSON Schema, and its help text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from batch.manifest.camera import CAMERA_SHAPE, read_camera
from batch.manifest.findings import Findings, shown
from batch.manifest.models import (
    ASPECT_RATIOS,
    CURRENT_MODELS,
    DEFAULT_ASPECT_RATIO,
    DEFAULT_DURATION,
    DEFAULT_MODE,
    DEFAULT_MODEL,
    MODELS,
    MODES,
    SECONDS,
)
from batch.manifest.nodes import Entries, Node, Scalar, kind
from batch.manifest.nodes import Mapping as MappingNode
from batch.manifest.values import (
    Json,
    JsonSchema,
    ValueFault,
    choice,
    number,
    plain_number,
    text_of,
    to_json,
)

# -- one value at a time ---------------------------------------------------------------------


def _model(node: Node, _: Findings) -> Json:
    text = text_of(node, "model")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}", text):
        raise ValueFault(f"{shown(text)} is not a valid model name", f"for example {DEFAULT_MODEL}")
    return text


def _mode(node: Node, _: Findings) -> Json:
    return choice(text_of(node, "mode"), "mode", MODES)


def _duration(node: Node, _: Findings) -> Json:
    text = text_of(node, "duration")
    if re.fullmatch(r"0{0,2}[0-9]{1,3}(\.0{1,3})?", text) and int(float(text)) in SECONDS:
        return str(int(float(text)))
    advice = f"write {text[:-1].strip()}" if re.fullmatch(r"[0-9]{1,2} ?s", text) else None
    message = f"duration is {shown(text)}; it must be whole seconds, 5 or 10 (kling-v3: 3 to 15)"
    raise ValueFault(message, advice)


# YAML 1.1 reads a ratio as a number in base 60; programs that rewrite a file leave that number.
_SEXAGESIMAL = {
    str(int(wide) * 60 + int(high)): f"{wide}:{high}"
    for wide, high in (ratio.split(":") for ratio in ASPECT_RATIOS)
}


def _aspect_ratio(node: Node, _: Findings) -> Json:
    text = text_of(node, "aspect_ratio")
    if text in _SEXAGESIMAL:
        ratio = _SEXAGESIMAL[text]
        message = f"aspect_ratio is {text}: YAML 1.1 reads {ratio} as that number"
        raise ValueFault(message, f"write '{ratio}' in quotes")
    return choice(text, "aspect_ratio", ASPECT_RATIOS)


def _cfg_scale(node: Node, _: Findings) -> Json:
    value = number(text_of(node, "cfg_scale"))
    if value is None or not 0 <= value <= 1:
        shape = node.text if isinstance(node, Scalar) else ""
        raise ValueFault(f"cfg_scale is {shown(shape)}; it must be a number from 0 to 1")
    return plain_number(value)


_ON = frozenset({"on", "true", "yes"})
_OFF = frozenset({"off", "false", "no"})


def _sound(node: Node, _: Findings) -> Json:
    text = text_of(node, "sound")
    if text.lower() in _ON:
        return "on"
    if text.lower() in _OFF:
        return "off"
    raise ValueFault(f"sound is {shown(text)}; it must be on or off")


def _extra(node: Node, findings: Findings) -> Json:
    if not isinstance(node, MappingNode):
        raise ValueFault(f"extra must be a mapping, but this is {kind(node)}")
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


# -- the table -------------------------------------------------------------------------------


class Option(NamedTuple):
    """One option of a job: its help text, its JSON Schema, and its reader.

    `read` returns the value as it is sent, or None after a fault.
    """

    about: str
    shape: JsonSchema
    read: Callable[[Node, Findings], Json]


OPTIONS: dict[str, Option] = {
    "model": Option(
        f"The model, sent as model_name. Current: {', '.join(CURRENT_MODELS)}.",
        {"type": "string", "examples": list(CURRENT_MODELS), "default": DEFAULT_MODEL},
        _model,
    ),
    "mode": Option(
        "std is 720p, pro is 1080p; 4k is for kling-v3 only.",
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
        # An editor that speaks YAML 1.1 sees an unquoted ratio as one of these numbers.
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
        CAMERA_SHAPE,
        read_camera,
    ),
    "extra": Option("Fields of a newer API, sent unchanged.", {"type": "object"}, _extra),
}

REFUSED_KEYS: dict[str, str] = {
    "external_task_id": "remove it: the run sets it",
    "callback_url": "remove it: set url under callback: at the top of the manifest",
    "image": "remove it: only text to video is supported",
}
_NOT_EXTRA: dict[str, str] = REFUSED_KEYS | {
    name: f"write {name} as a key of the job"
    for name in ("prompt", "negative_prompt", "model_name", *OPTIONS)
}


def read_options(entries: Entries, findings: Findings) -> dict[str, Json]:
    """Return the valid options among *entries*, each read by itself."""
    values = {}
    for name, (_, node) in entries.items():
        option = OPTIONS.get(name)
        if option is None:
            continue
        try:
            value = option.read(node, findings)
        except ValueFault as fault:
            findings.fault(node, str(fault), fault.advice)
            continue
        if value is not None:
            values[name] = value
    return values


def request_body(values: Mapping[str, Json]) -> dict[str, Json]:
    """Return the request without its prompts.

    It includes all defaults, so that a change of the provider's defaults changes no video; only a
    model without modes gets no default `mode`.
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

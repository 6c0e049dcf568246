"""Read `camera_control`: a preset's type alone, or `simple` with exactly one move.

Source: Kling's API reference, read in November 2026.
"""

from __future__ import annotations

from typing import Any

from batch.manifest.findings import Findings
from batch.manifest.nodes import Mapping, Node, Scalar, is_null, kind
from batch.manifest.values import (
    Json,
    JsonSchema,
    ValueFault,
    choice,
    number,
    plain_number,
    text_of,
)

CAMERA_TYPES = ("simple", "down_back", "forward_up", "right_turn_forward", "left_turn_forward")
CAMERA_MOVES = ("horizontal", "vertical", "pan", "tilt", "roll", "zoom")
CAMERA_MOST = 10


def read_camera(node: Node, findings: Findings) -> Json:
    """Return the camera: a preset's type alone, or `simple` with exactly one move that is not 0."""
    if not isinstance(node, Mapping):
        advice = "for example {type: simple, config: {zoom: 5}}"
        raise ValueFault(f"camera_control must be a mapping, but this is {kind(node)}", advice)
    before = findings.fault_count
    entries = {name: entry for name, entry in node.entries.items() if not is_null(entry[1])}
    for key in [key for name, (key, _) in entries.items() if name not in ("type", "config")]:
        findings.unknown_key(key, ("type", "config"), "camera_control")
    if "type" not in entries:
        raise ValueFault("camera_control has no type", f"one of {', '.join(CAMERA_TYPES)}")
    camera = {"type": _camera_type(entries["type"][1], findings)}
    config = entries.get("config")
    if camera["type"] == "simple":
        if config is None:
            raise ValueFault("a simple camera needs config", f"one of {', '.join(CAMERA_MOVES)}")
        camera["config"] = _camera_config(config[1], findings)
    elif camera["type"] is None and config is not None:
        _camera_config(config[1], findings)
    elif config is not None:
        findings.fault(config[0], f"the camera {camera['type']} takes no config", "remove it")
    return camera if findings.fault_count == before else None


def _camera_type(node: Node, findings: Findings) -> Json:
    try:
        return choice(text_of(node, "type"), "camera_control.type", CAMERA_TYPES)
    except ValueFault as fault:
        findings.fault(node, str(fault), fault.advice)
        return None


def _camera_config(node: Node, findings: Findings) -> Json:
    if not isinstance(node, Mapping):
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


_CAMERA_VALUE: JsonSchema = {"type": "number", "minimum": -CAMERA_MOST, "maximum": CAMERA_MOST}
# Exactly one move is not 0: for each move, it is set and not 0, and all others are 0.
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
CAMERA_SHAPE: JsonSchema = {
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

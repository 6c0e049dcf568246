"""Which options each model takes in text2video.

A request that is possible but unlikely to be meant (a retired model, an option that the model
ignores) gets a warning only, since the provider changes faster than this file. Sources: CometAPI's
page of `POST /kling/v1/videos/text2video` and its 2026 guide, Kling's API reference and capability
map, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from batch.manifest.findings import meant, shown
from batch.manifest.values import Json

DEFAULT_MODEL = "kling-v2-6"
DEFAULT_MODE = "std"
DEFAULT_DURATION = "5"
DEFAULT_ASPECT_RATIO = "16:9"

ASPECT_RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3")
CURRENT_ASPECT_RATIOS = frozenset({"16:9", "9:16", "1:1"})  # CometAPI's 2026 guide lists these
MODES = ("std", "pro", "4k")
SECONDS = range(3, 16)


class Model(NamedTuple):
    """The options of a model in text2video (Kling's capability map)."""

    modes: tuple[str, ...] = ("std", "pro")  # empty: the model has no modes
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


class Remark(NamedTuple):
    """A fault (`is_fault`) or a warning about `option`, given the other options."""

    option: str
    message: str
    advice: str | None = None
    is_fault: bool = False


def check_options(values: Mapping[str, Json]) -> Iterator[Remark]:
    """Yield a remark for each option that the model is not known to take."""
    name = values.get("model", DEFAULT_MODEL)
    model = MODELS.get(name)
    ratio = values.get("aspect_ratio", DEFAULT_ASPECT_RATIO)
    if ratio not in CURRENT_ASPECT_RATIOS:
        message = f"the newest documents do not list the aspect ratio {ratio}"
        yield Remark("aspect_ratio", message, "16:9, 9:16 and 1:1 are safe")
    if model is None:
        advice = meant(name, MODELS) or f"known: {', '.join(CURRENT_MODELS)}"
        yield Remark("model", f"unknown model {shown(name)}", advice)
        return
    yield from _check_model(name, model)
    yield from _check_mode(name, model, values)
    seconds = int(values.get("duration", DEFAULT_DURATION))
    if seconds not in model.seconds:
        takes = " or ".join(map(str, model.seconds))
        yield Remark(
            "duration", f"duration is {seconds}; {name} makes {takes} seconds", is_fault=True
        )
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
        yield Remark("mode", f"{name} has no modes and ignores {mode}", "remove it")
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
        yield Remark("sound", message, "the provider is likely to ignore or refuse it")
    if "cfg_scale" in values and not model.takes_cfg_scale:
        yield Remark("cfg_scale", f"{name} does not take cfg_scale", "remove it")
    if "camera_control" in values and not (model.takes_camera and mode == "std" and seconds == 5):
        message = f"{name} is not known to take camera_control here"
        yield Remark("camera_control", message, "only kling-v1 does, in mode std with 5 seconds")

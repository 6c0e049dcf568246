"""The manifests of the benchmarks."""

from __future__ import annotations

from pathlib import Path

LIMITS = {"submit_rate": "100/s", "max_in_flight": "10000", "poll_interval": "500ms"}
HEAD = """\
version: 1
name: bench
defaults:
  model: kling-v2-6
  mode: std
  duration: 5
  aspect_ratio: 16:9
limits:
{limits}
jobs:
"""
PROMPT = "A small scene number {number} of a river in the morning light"
JOB = f"""\
- id: scene-{{number:06}}
  prompt: {PROMPT}
"""
ROW = f'{{{{"id": "scene-{{number:06}}", "prompt": "{PROMPT}"}}}}\n'
LONG_JOB = """\
- id: scene-{number:06}
  prompt: "Scene {number}: a river in the morning light, mist over the water, a heron that waits\
 between the reeds, slow camera from left to right, soft colours, no people"
  negative_prompt: text, watermark, blurry
  tags: [river, morning]
"""


def write(path: Path, jobs: int, *, job: str = JOB, **limits: str) -> Path:
    """Write a manifest of that many jobs to *path*; *limits* override `LIMITS`."""
    said = "\n".join(f"  {name}: {value}" for name, value in (LIMITS | limits).items())
    with path.open("w", encoding="utf-8") as file:
        file.write(HEAD.format(limits=said))
        file.writelines(job.format(number=number) for number in range(jobs))
    return path


def write_rows(folder: Path, jobs: int, **limits: str) -> Path:
    """Write the same manifest with its jobs as the lines of a .jsonl file; return its path."""
    folder.mkdir()
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(ROW.format(number=number) for number in range(jobs))
    return write(folder / "jobs.yaml", 1, job="- from: rows.jsonl\n", **limits)

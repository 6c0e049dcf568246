"""A backlog that two workers carry out: jobs a second, transactions a job, memory of a worker.

    python tests/benchmarks/fleet.py [JOBS]

Everything is on this machine: Postgres (synchronous_commit off), the sandbox, two workers and the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "postgres"))

import psycopg
from cluster import binaries, running

JOBS = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
CAP, TASK_S, PORT = 400, 1.0, 18099
ADDRESS = f"http://127.0.0.1:{PORT}"
COMMAND = [sys.executable, "-m", "batch"]


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def transactions(url: str) -> int:
    with psycopg.connect(url) as connection:
        query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def main() -> None:
    found = binaries()
    assert found is not None, "needs Postgres"
    with running(found) as cluster, tempfile.TemporaryDirectory() as folder:
        cluster.execute("CREATE DATABASE kling")
        url = cluster.url("kling")
        env = {**os.environ, "KLING_BATCH_ENGINE": url, "COMETAPI_KEY": "sk-benchmark"}
        subprocess.run([*COMMAND, "engine", "init"], env=env, check=True)
        manifest = Path(folder) / "backlog.yaml"
        limits = {"submit_rate": "2000/s", "max_in_flight": CAP, "poll_interval": "1s"}
        jobs = [{"id": f"job-{n:06}", "prompt": f"fox number {n}"} for n in range(JOBS)]
        manifest.write_text(json.dumps({"version": 1, "limits": limits, "jobs": jobs}))
        sandbox = (
            "sandbox",
            "--port",
            str(PORT),
            "--median",
            str(TASK_S),
            "--sigma",
            "0",
            "--clip",
            "tiny",
        )
        started = [subprocess.Popen([*COMMAND, *sandbox], env=env, stderr=subprocess.DEVNULL)]
        time.sleep(2)
        workers = [
            subprocess.Popen(
                [*COMMAND, "worker", "--name", f"w{n}", "--base-url", ADDRESS],
                env=env,
                stderr=subprocess.DEVNULL,
            )
            for n in range(2)
        ]
        time.sleep(6)
        begun, before = time.monotonic(), transactions(url)
        run = [*COMMAND, "run", str(manifest), "--new", "--base-url", ADDRESS, "--quiet"]
        done = subprocess.run([*run, "--output-dir", f"{folder}/out"], env=env, check=False)
        seconds = time.monotonic() - begun
        megabytes = [memory_mb(worker.pid) for worker in workers]
        with urllib.request.urlopen(f"{ADDRESS}/sandbox/stats") as answer:
            created = json.load(answer)["created"]
        time.sleep(1.5)  # Postgres counts with a delay
        tx = (transactions(url) - before) / JOBS
        for process in (*workers, *started):
            process.terminate()
        for process in (*workers, *started):
            process.wait()
        figures = {
            "jobs": JOBS,
            "created": created,
            "exit_code": done.returncode,
            "seconds": round(seconds, 1),
            "jobs_per_s": round(JOBS / seconds, 1),
            "transactions_per_job": round(tx, 1),
            "worker_mb": [round(value) for value in megabytes],
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

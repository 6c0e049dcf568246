"""A backlog that two workers carry out: jobs a second, and what a job costs in CPU time and in Postgres.

    python tests/benchmarks/fleet.py [JOBS [STATEMENTS]]

Everything is on this machine: Postgres (no fsync), the sandbox, two workers and the run. With
STATEMENTS, so many of those that Postgres spends most time on are listed: calls and ms a job.
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
from cluster import SETTINGS, Cluster, binaries, running

JOBS = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
STATEMENTS = int(sys.argv[2]) if len(sys.argv) > 2 else 0
CAP, TASK_S, PORT = 400, 1.0, 18099
ADDRESS = f"http://127.0.0.1:{PORT}"
COMMAND = [sys.executable, "-m", "batch"]
# As an operator has it: dead rows are removed.
WITH_VACUUM = SETTINGS.replace("autovacuum = off", "autovacuum_naptime = 10s")
WITH_COUNTS = "shared_preload_libraries = 'pg_stat_statements'\npg_stat_statements.track = all\n"
TICKS = os.sysconf("SC_CLK_TCK")


def status_of(pid: int, name: str) -> int:
    """Return what the system says of a process: memory in kB, threads."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process, of those it started, and of those it has waited for."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = int(path.parent.name), path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has just ended
            continue
        if number == pid:
            total += sum(map(int, rest[11:15]))
        elif int(rest[1]) == pid:
            total += int(rest[11]) + int(rest[12])
    return total / TICKS


def postmaster(cluster: Cluster) -> int:
    return int((cluster.folder / "data" / "postmaster.pid").read_text().split()[0])


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def transactions(url: str) -> int:
    query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    return int(str(ask(url, query)[0][0]))


def list_statements(url: str) -> None:
    """Print what Postgres has spent its time on."""
    query = (
        "SELECT toplevel, calls, total_exec_time, shared_blks_hit, regexp_replace(query, E'\\\\s+', ' ', 'g')"
        " FROM pg_stat_statements ORDER BY toplevel DESC, total_exec_time DESC"
    )
    rows = ask(url, query)
    for is_top in (True, False):
        chosen = [row for row in rows if row[0] is is_top][:STATEMENTS]
        print("top level" if is_top else "within functions")
        for _, calls, ms, hits, text in chosen:
            print(
                f"{calls / JOBS:7.2f} calls {ms / JOBS:7.3f} ms {hits / JOBS:8.1f} blocks  {text[:150]}"
            )


def main() -> None:
    found = binaries()
    assert found is not None, "needs Postgres"
    settings = WITH_VACUUM + (WITH_COUNTS if STATEMENTS else "")
    with running(found, settings) as cluster, tempfile.TemporaryDirectory() as folder:
        cluster.execute("CREATE DATABASE kling")
        url = cluster.url("kling")
        if STATEMENTS:
            cluster.execute("CREATE EXTENSION pg_stat_statements", "kling")
        env = {**os.environ, "KLING_BATCH_ENGINE": url, "COMETAPI_KEY": "sk-benchmark"}
        subprocess.run([*COMMAND, "engine", "init"], env=env, check=True)
        manifest = Path(folder) / "backlog.yaml"
        limits = {"submit_rate": "2000/s", "max_in_flight": CAP, "poll_interval": "1s"}
        jobs = [{"id": f"job-{n:06}", "prompt": f"fox number {n}"} for n in range(JOBS)]
        manifest.write_text(json.dumps({"version": 1, "limits": limits, "jobs": jobs}))
        tasks = ("--median", str(TASK_S), "--sigma", "0", "--clip", "tiny")
        sandbox = subprocess.Popen(
            [*COMMAND, "sandbox", "--port", str(PORT), *tasks], env=env, stderr=subprocess.DEVNULL
        )
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
        pids = [postmaster(cluster), *(worker.pid for worker in workers), sandbox.pid]
        begun, before, cpu = time.monotonic(), transactions(url), [cpu_s(pid) for pid in pids]
        run = [*COMMAND, "run", str(manifest), "--new", "--base-url", ADDRESS, "--quiet"]
        follower = subprocess.Popen([*run, "--output-dir", f"{folder}/out"], env=env)
        _, status, used = os.wait4(follower.pid, 0)
        seconds = time.monotonic() - begun
        spent = [cpu_s(pid) - was for pid, was in zip(pids, cpu, strict=True)]
        megabytes = [status_of(worker.pid, "VmRSS") / 1024 for worker in workers]
        threads = [status_of(worker.pid, "Threads") for worker in workers]
        with urllib.request.urlopen(f"{ADDRESS}/sandbox/stats") as answer:
            created = json.load(answer)["created"]
        time.sleep(1.5)  # Postgres counts with a delay
        tx = (transactions(url) - before) / JOBS
        if STATEMENTS:
            list_statements(url)
        for process in (*workers, sandbox):
            process.terminate()
        for process in (*workers, sandbox):
            process.wait()
        figures = {
            "jobs": JOBS,
            "created": created,
            "exit_code": os.waitstatus_to_exitcode(status),
            "seconds": round(seconds, 1),
            "jobs_per_s": round(JOBS / seconds, 1),
            "transactions_per_job": round(tx, 1),
            "worker_mb": [round(value) for value in megabytes],
            "worker_threads": threads,
            "cpu_ms_per_job": {
                "postgres": round(spent[0] / JOBS * 1000, 2),
                "workers": round(sum(spent[1:3]) / JOBS * 1000, 2),
                "sandbox": round(spent[3] / JOBS * 1000, 2),
                "run": round((used.ru_utime + used.ru_stime) / JOBS * 1000, 2),
            },
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

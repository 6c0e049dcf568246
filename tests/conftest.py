"""Fences: no test sees the person's environment, home or folder, and none leaves this machine."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, binaries, running
from hypothesis import HealthCheck, settings
from s3 import Server, s3_server

from batch.key import Secret
from batch.output.stores import use_engine

# pytest-asyncio asks for "the current loop" before its first test, which makes one that nobody ever
# closes; said to be none, none is made.
asyncio.set_event_loop(None)

# How long an example takes depends on what else the machine does.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")

FOREIGN = (
    *("COMETAPI_", "XDG_STATE_HOME", "KLING_BATCH_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
    *("AWS_", "GOOGLE_", "AZURE_"),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Return how many workers `-n auto` means: tests wait about half of their time.

    For a process, a poll, a server. What the variable of pytest-xdist says has precedence.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return 2 * (os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what a shell may have set; home, folder and engine are the test's own."""
    for name in list(os.environ):
        if name.upper().startswith(FOREIGN):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    use_engine(None)  # a run that a test called may have used another


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that is not to this machine."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _check(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _check(self, address)
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)


def _check(sock: socket.socket, address: Any) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        host = str(address[0])
        if host not in {"localhost", "::1"} and not host.startswith("127."):
            raise AssertionError(f"a test tried to reach {host}")


# -- Postgres: one cluster for each worker of pytest-xdist, a fresh database for each test


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Run a Postgres of this session's own."""
    pytest.importorskip("psycopg", reason="the extra [fleet] is not installed")
    found = binaries()
    if found is None:
        pytest.skip("no Postgres is installed (Debian: apt-get install postgresql)")
    with running(found) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> str:
    """Return the name of a database that has our tables."""
    from batch.output.postgres.connection import init  # noqa: PLC0415 - needs psycopg

    cluster.execute("CREATE DATABASE ours")
    init(Secret(cluster.url("ours")))
    return "ours"


@pytest.fixture
def engine_url(cluster: Cluster, template: str) -> str:
    """Return the address of a fresh database with our tables."""
    return cluster.create(template)


@pytest.fixture(scope="session")
def shared_url(cluster: Cluster, template: str) -> str:
    """Return the address of the database of `emptied_url`."""
    return cluster.create(template)


@pytest.fixture
def emptied_url(cluster: Cluster, shared_url: str) -> str:
    """Return the address of a database with our tables, empty: for tests that leave no connection."""
    cluster.empty(shared_url)
    return shared_url


@pytest.fixture(scope="session")
def fleet_template(cluster: Cluster, template: str) -> str:
    """Return the name of a database that has our tables, and those of the engine."""
    pytest.importorskip("dbos", reason="the extra [fleet] is not installed")
    from batch.engines.dbos import migrate  # noqa: PLC0415 - needs DBOS

    cluster.execute(f"CREATE DATABASE fleet TEMPLATE {template}")
    migrate(Secret(cluster.url("fleet")))
    return "fleet"


@pytest.fixture
def fleet_url(cluster: Cluster, fleet_template: str) -> str:
    """Return the address of a fresh database for workers."""
    return cluster.create(fleet_template)


# -- S3: one server for each worker, a bucket for each test


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    """Serve S3, once for all tests of a process."""
    with s3_server() as server:
        yield server

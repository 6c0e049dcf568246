"""A throw-away Postgres: a cluster in a temporary folder, and a fresh database for each test.

Everything that keeps data through a power cut is off; a commit outlives the death of Postgres. Each
worker of pytest-xdist has a cluster of its own: making one takes a second, and no test waits for
another worker's.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ports import free_port

USER = "kling"
NOBODY = ("postgres", "nobody")  # Postgres does not run as root
SETTINGS = """
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = 32MB
fsync = off
full_page_writes = off
autovacuum = off
"""
# For what asks the same few statements of small tables a million times.
FAST = f"""{SETTINGS}
synchronous_commit = off
wal_level = minimal
max_wal_senders = 0
jit = off
plan_cache_mode = force_generic_plan
"""


def binaries() -> Path | None:
    """Return the folder of Postgres's programs; None where it is not installed."""
    found = [Path(path) for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    folders = [path.resolve().parent for path in found]
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


class Cluster:
    """A Postgres of the tests. `stop` and `start` are for tests of an outage: the port stays."""

    def __init__(self, folder: Path, binaries: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self._data, self._binaries = folder / "data", binaries
        self._numbers = itertools.count(1)
        self._as: dict[str, Any] = {}
        if sys.platform != "win32" and os.getuid() == 0:
            self._as = {"user": _ordinary_user(), "extra_groups": []}

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def near(self, database: str) -> str:
        """Return the address of a database by the socket of this machine, which is faster."""
        return f"postgresql://{USER}@{quote(str(self.folder), safe='')}:{self.port}/{database}"

    def create(self, template: str = "template0") -> str:
        """Return the address of a fresh database, a copy of the database *template*."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        if template != "template0":  # it has not taken the place of another
            self.execute("UPDATE kling.meta SET timeline = kling.timeline()", name)
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement, outside of a transaction."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def lock_out(self, role: str) -> None:
        """Have a role that is made for it need a password, which nobody knows."""
        import psycopg

        self.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'known to nobody'")
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {role} all scram-sha-256\n{rules.read_text()}")
        self.execute("SELECT pg_reload_conf()")
        with suppress(psycopg.OperationalError):  # as soon as the server has read that
            while True:
                psycopg.connect(self.url().replace(USER, role)).close()

    def empty(self, url: str) -> None:
        """Empty our tables in a database that no other test uses at the moment: 10 times as fast."""
        import psycopg

        tables = (
            "SELECT tablename FROM pg_tables WHERE schemaname = 'kling' AND tablename <> 'meta'"
        )
        with psycopg.connect(url) as connection:
            names = [name for (name,) in connection.execute(tables)]
            deletes = "".join(f"DELETE FROM kling.{name};" for name in names)
            connection.execute(f"SET session_replication_role TO replica; {deletes}".encode())

    def dump(self, url: str) -> str:
        """Return a backup of a database, as SQL."""
        command = [self._binaries / "pg_dump", url]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def restore(self, url: str, dump: str) -> None:
        """Bring a backup back."""
        command = [self._binaries / "psql", "--quiet", "--set=ON_ERROR_STOP=1", url]
        subprocess.run(command, check=True, input=dump, stdout=subprocess.DEVNULL, text=True)

    def make(self, settings: str = SETTINGS) -> None:
        """Make the cluster's files."""
        if self._as:
            shutil.chown(self.folder, self._as["user"])
        made = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", f"--username={USER}")
        self._run("initdb", f"--pgdata={self._data}", *made)
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"{settings}port = {self.port}\nunix_socket_directories = '{self.folder}'\n")

    def start(self) -> None:
        """Start the server; return when it answers."""
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-t", "60", "-l", log, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server; *immediate* is as a crash."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", mode, "stop")

    def copy(self) -> Path:
        """Copy the cluster's files as they are now, for a standby that hears of nothing after it."""
        self.stop()
        copy = self.folder / "standby"
        subprocess.run(["cp", "-a", self._data, copy], check=True)
        self.start()
        return copy

    def fail_over(self, copy: Path) -> None:
        """Have a standby take the server's place."""
        self.stop()
        shutil.rmtree(self._data)
        copy.rename(self._data)
        (self._data / "standby.signal").touch()
        self.start()
        self._run("pg_ctl", "-D", str(self._data), "-w", "promote")

    def _run(self, program: str, *args: str) -> None:
        subprocess.run(
            [self._binaries / program, *args],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            **self._as,
        )


def _ordinary_user() -> str:
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in NOBODY if name in known)


@contextmanager
def ordinary_folder() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Make a folder of an ordinary user; yield it, and how a process becomes that user's."""
    folder = Path(tempfile.mkdtemp(prefix="kling-user-"))
    user: dict[str, Any] = {}
    if sys.platform != "win32" and os.getuid() == 0:
        user = {"user": _ordinary_user(), "extra_groups": []}
        shutil.chown(folder, user["user"])
    try:
        yield folder, user
    finally:
        shutil.rmtree(folder)


@contextmanager
def running(binaries: Path, settings: str = SETTINGS) -> Iterator[Cluster]:
    """Make and start a cluster, and remove it at the end."""
    # Not below pytest's folder: that belongs to root alone, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="kling-pg-"))
    cluster = Cluster(folder, binaries, free_port())
    try:
        cluster.make(settings)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

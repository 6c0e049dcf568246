"""The tables in Postgres: made by one call, of one release, and never with the password in an error."""

from __future__ import annotations

import psycopg
import pytest
from cluster import Cluster

from batch.errors import BatchError, StateError, UsageError
from batch.key import Secret
from batch.output.postgres.connection import connect, init
from batch.output.postgres.schema import MIGRATIONS


def test_init_makes_the_tables_once(cluster: Cluster) -> None:
    engine = Secret(cluster.create())
    with pytest.raises(
        StateError, match=r"no tables of kling-batch; run `kling-batch engine init`"
    ):
        connect(engine)
    assert init(engine) == 0
    assert init(engine) == len(MIGRATIONS)
    connect(engine).close()


def test_newer_tables_are_refused(engine_url: str) -> None:
    with psycopg.connect(engine_url) as connection:
        connection.execute("UPDATE kling.meta SET version = version + 1")
    for use in (connect, init):
        with pytest.raises(StateError, match="install the newer kling-batch"):
            use(Secret(engine_url))


def test_other_encoding_is_refused(cluster: Cluster) -> None:
    cluster.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StateError, match="create one in UTF8"):
        init(Secret(cluster.url("latin")))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "postgresql://kling:geheim1@127.0.0.1:9/kling",
            "the database kling on 127.0.0.1 does not",
        ),
        ("postgresql://kling:geheim1@127.0.0.1:nine/kling", "does not answer|not a valid address"),
        ("postgresql://kling:gehe%im1@127.0.0.1/kling", "not a valid address of Postgres"),
        ("geheim1", "not a valid address of Postgres"),
        ("", "not a valid address of Postgres"),
    ],
)
def test_error_does_not_show_the_password(url: str, says: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(BatchError, match=says) as caught:
        connect(Secret(url))
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "geheim1" not in str(chain)
        assert "gehe%im1" not in str(chain)
        chain = None if chain.__suppress_context__ else chain.__cause__ or chain.__context__
    assert isinstance(caught.value, StateError | UsageError)

"""The tables in Postgres: made by one call, of one release, and never with the password in an error."""

from __future__ import annotations

import hashlib

import psycopg
import pytest
from cluster import Cluster

from batch.errors import BatchError, StateError, UsageError
from batch.key import Secret
from batch.output.postgres.connection import connect, init
from batch.output.postgres.schema import FLEET_FUNCTIONS, FUNCTIONS, MIGRATIONS

# What databases out there were made with. If one of these digests is new to a test, append a migration
# instead (an empty one where only functions change): nothing else has older ones ask for an upgrade.
MADE_WITH = ("4f57ed07406d", "c6878d77effb")
FUNCTIONS_OF_THE_LATEST = "5c6378187bf3"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def test_what_has_made_databases_is_never_edited() -> None:
    assert tuple(map(digest, MIGRATIONS)) == MADE_WITH
    assert digest(FUNCTIONS + FLEET_FUNCTIONS) == FUNCTIONS_OF_THE_LATEST


def test_init_makes_the_tables_once(cluster: Cluster) -> None:
    engine = Secret(cluster.create())
    with pytest.raises(
        StateError, match=r"no tables of kling-batch; run `kling-batch engine init`"
    ):
        connect(engine)
    assert init(engine) == 0
    assert init(engine) == len(MIGRATIONS)
    connect(engine).close()


# What a database has, apart from its data and from the order of its columns.
MADE = """
    SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default)
        FROM information_schema.columns WHERE table_schema = 'kling'
    UNION SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'kling'::regnamespace
    UNION SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION SELECT indexdef FROM pg_indexes WHERE schemaname = 'kling'
"""
# Back to version 1: a column and a function fewer, another with other arguments, a shorter timeline.
TO_VERSION_1 = """
    ALTER TABLE workers DROP COLUMN accounts;
    DROP FUNCTION progress_of;
    DROP FUNCTION severity CASCADE;
    CREATE FUNCTION severity(reason text, more text) RETURNS text LANGUAGE sql AS 'SELECT reason';
    UPDATE meta SET version = 1,
        timeline = split_part(timeline, '/', 1) || '/' || split_part(timeline, '/', 2);
"""


def test_tables_of_an_older_release_come_up_to_date(cluster: Cluster) -> None:
    fresh, older = Secret(cluster.create()), Secret(cluster.create())
    init(fresh)
    init(older)
    with connect(older) as connection:
        timeline = connection.execute("SELECT timeline FROM meta").fetchall()
        connection.execute(TO_VERSION_1)
    with pytest.raises(StateError, match=r"of an older release; run `kling-batch engine init`"):
        connect(older)
    assert init(older) == 1
    with connect(fresh) as one, connect(older) as other:
        assert set(other.execute(MADE)) == set(one.execute(MADE))
        assert other.execute("SELECT timeline FROM meta").fetchall() == timeline


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

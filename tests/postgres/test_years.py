"""Years of nights whose library is in Postgres; many more by `nights.py --years --state postgres`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from cluster import Cluster

if TYPE_CHECKING:
    from virtual_postgres import VirtualPostgres


@pytest.fixture(scope="module")
def postgres(cluster: Cluster) -> Iterator[VirtualPostgres]:
    """Return a database whose clock is the simulation's."""
    from virtual_postgres import VirtualPostgres

    found = VirtualPostgres(cluster, cluster.create())
    yield found
    found.close()


def test_year_in_postgres_pays_each_request_once(postgres: VirtualPostgres) -> None:
    """This one has two manifests and a death."""
    import fleet_year

    assert fleet_year.play(4, postgres=postgres).violations == []

"""Webhook and pings over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yarl

from batch.notify.errors import NotDeliveredError
from batch.provider.network import network_failure

WAITS_S = (0.3, 1.0, 2.0)  # before each further try


async def post(
    url: str, data: bytes, headers: Mapping[str, str], *, timeout_s: float, repeatable: bool
) -> None:
    """Send *data*; try again where that cannot deliver it twice, or is *repeatable*.

    A server that could not be reached has seen nothing, and a 5xx took nothing. A silent one may have
    taken it.

    Raises:
        NotDeliveredError: it was not accepted within *timeout_s*, or the answer is not 2xx.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + timeout_s
    waits_s = iter(WAITS_S)
    async with aiohttp.ClientSession(
        headers={"User-Agent": "kling-batch", **headers},
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        while True:
            reason, may_repeat = await _send(session, url, data, ends_at - loop.time())
            if reason is None:
                return
            wait_s = next(waits_s, None)
            if wait_s is None or not (may_repeat or repeatable) or loop.time() + wait_s >= ends_at:
                raise NotDeliveredError(reason)
            await asyncio.sleep(wait_s)


async def _send(
    session: aiohttp.ClientSession, url: str, data: bytes, timeout_s: float
) -> tuple[str | None, bool]:
    """Return why *data* was not accepted, if so, and whether it surely was not."""
    try:
        async with (
            asyncio.timeout(max(timeout_s, 0.0)),
            session.post(
                yarl.URL(url, encoded=True),  # as it was given: it may be signed
                data=data,
                proxy=_proxy_for(url),
                allow_redirects=False,  # a POST would become a GET, and the secret path be passed on
            ) as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, OSError) as error:
        has_seen_nothing = isinstance(error, aiohttp.ClientConnectorError)
        return network_failure(error, "").message, has_seen_nothing
    except (ValueError, RuntimeError):  # letters that no address has; no thread for the name
        return "the address cannot be used", False
    if 200 <= status < 300:
        return None, False
    return f"it answered HTTP {status}", status >= 500


def _proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names, as for curl: no key of ours goes this way."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)

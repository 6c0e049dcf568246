"""Addresses of the API, of a proxy and of callbacks, as a person writes them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from batch.errors import UsageError

DEFAULT_BASE_URL = "https://api.cometapi.com"
ENDPOINT = "/kling/v1/videos/text2video"  # what a request adds to the base URL


def check_base_url(base_url: str) -> str:
    """Return *base_url* without blanks around it and without a slash at its end.

    Raises:
        UsageError: it is not an http(s) address, holds a part of the endpoint, or would send the key
            unencrypted.
    """
    base_url = base_url.strip()
    try:
        parts = urlsplit(base_url)
        host, _port = parts.hostname, parts.port
        if not base_url.isprintable() or " " in base_url:
            raise ValueError  # noqa: TRY301 - urlsplit would drop a line end in silence
    except ValueError:
        raise UsageError(f"the base URL {base_url!r} is not a valid address") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError("the base URL must not hold a user name, a query or a fragment")
    if parts.scheme not in {"http", "https"} or not host:
        raise UsageError(f"the base URL {base_url!r} must begin with https:// and name a host")
    if parts.scheme == "http" and not _is_loopback(host):
        raise UsageError(
            f"the base URL {base_url!r} would send the API key unencrypted; use https://"
            " (http:// is for this machine only)"
        )
    path = parts.path.rstrip("/")
    right = _without_endpoint(path)
    if right != path:
        right_url = parts._replace(path=right).geturl()
        raise UsageError(f"the base URL {base_url!r} must end before {ENDPOINT}; use {right_url}")
    return parts._replace(path=path).geturl()


def check_proxy(proxy: str) -> str:
    """Return *proxy*, which is `env` or a URL.

    Raises:
        UsageError: it is neither; the message does not show it, since it may hold a password.
    """
    if proxy != "env" and not _is_url(proxy):
        raise UsageError(
            "the proxy is not a valid address; for example http://proxy.example:3128, or env for the"
            " one that HTTPS_PROXY names"
        )
    return proxy


def check_callback_url(url: str) -> str:
    """Return *url*, the address that the provider calls.

    Raises:
        UsageError: it is not an http(s) address.
    """
    if not _is_url(url):
        raise UsageError(
            f"{url!r} is not a valid http(s) address; for example https://studio.example/kling"
        )
    return url


def check_listen(listen: str) -> str:
    """Return *listen*, where callbacks arrive.

    Raises:
        UsageError: it is not HOST:PORT.
    """
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise UsageError(f"{listen!r} is not a valid HOST:PORT; for example 127.0.0.1:8090")
    return listen


def is_address(text: str) -> bool:
    """Return whether *text* is an http(s) URL, and nothing else."""
    try:
        is_good = _is_url(text) and urlsplit(text).port != 0
    except ValueError:
        return False
    return is_good and text.isprintable() and " " not in text


def _without_endpoint(path: str) -> str:
    """Return *path* without the endpoint, or any part of it, that was pasted along."""
    kling_v1 = "/".join(ENDPOINT.split("/")[:3])
    before, found, _ = f"{path}/".partition(f"{kling_v1}/")
    if found:
        return before
    return "" if f"{path}/" in f"{ENDPOINT}/" else path


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

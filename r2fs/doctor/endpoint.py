"""Checks of the network path to a bucket: name, connection, TLS and this host's clock. Without credentials."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from r2fs.doctor.findings import Finding, Level, failed, of_error, ok, warning
from r2fs.model import amounts
from r2fs.model.errors import BadCredentials, ClockSkewed, R2fsError
from r2fs.model.settings import Bucket
from r2fs.model.settings.loading import R2_DOMAIN

if TYPE_CHECKING:
    from r2fs.store.s3.reach import Endpoint

REFUSED_S: Final = 900.0  # R2 and AWS refuse signatures that are further off
NOTICED_S: Final = 60.0
FAR_S: Final = 0.3  # of a connection: each small file pays it
ACCOUNT: Final = re.compile(r"[0-9a-f]{32}")
JURISDICTIONS: Final = ("", "eu", "fedramp", "us")  # "": none


def checks(endpoint: Endpoint) -> Iterator[Finding]:
    """Findings in the order of the steps; the first step that fails is the last finding."""
    if (wrong := account(endpoint.host)) is not None:
        yield wrong
    if endpoint.proxied:
        yield ok("network", f"requests to {endpoint.host} go through a proxy, which resolves and connects")
        return
    try:
        found = endpoint.addresses()
        yield ok("dns", f"{endpoint.host}: {', '.join(found[:3])}{' …' if len(found) > 3 else ''}")
    except R2fsError as error:
        yield of_error("dns", error)
        return
    try:
        took_s = endpoint.connect_s()
    except R2fsError as error:
        yield of_error("connection", error)
        return
    far = f"port {endpoint.port} connects in {took_s * 1000:.0f} ms"
    if took_s > FAR_S:
        yield warning("connection", far, "use a nearer endpoint or network: each small file pays this time")
    else:
        yield ok("connection", far)
    secured = _tls(endpoint)
    yield secured
    if secured.level is not Level.FAILED:
        yield _clock(endpoint)


def account(host: str) -> Finding | None:
    """The failed check of an endpoint of R2 with a malformed account id; None otherwise."""
    if not host.endswith("." + R2_DOMAIN):
        return None
    labels = host.removesuffix("." + R2_DOMAIN).split(".")
    if ACCOUNT.fullmatch(labels[0]):
        return None
    return failed(
        "account",
        f"{labels[0]} is no account id of Cloudflare, which has 32 hexadecimal digits",
        "copy account_id from the overview page of R2 in Cloudflare's dashboard",
        BadCredentials.exit_code,
    )


def _tls(endpoint: Endpoint) -> Finding:
    if endpoint.scheme != "https":
        text = f"{endpoint.url} is not encrypted"
        if endpoint.host in ("localhost", "127.0.0.1", "::1"):
            return ok("tls", f"{text}: it is this host")
        return warning("tls", text, "use https")
    try:
        version, ends = endpoint.tls()
    except R2fsError as error:
        remedy = (
            "on R2, check the account id: an unknown one is refused here; else the proxy, the clock and the trusted "
            "certificates (AWS_CA_BUNDLE)"
        )
        return failed("tls", str(error), remedy, error.exit_code)
    return ok("tls", f"{version}, certificate valid until {ends}")


def _clock(endpoint: Endpoint) -> Finding:
    try:
        answer = endpoint.ask(endpoint.url)
    except R2fsError as error:
        return of_error("clock", error)
    return clock(answer.date, time.time() - answer.took_s / 2)


def clock(date: str | None, now_s: float) -> Finding:
    """Compare an answer's Date header, which has whole seconds, with this host's time."""
    try:
        off_s = now_s - parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return warning("clock", "the server's answer has no date to compare with", "check the clock by NTP")
    side = "ahead of" if off_s > 0 else "behind"
    text = f"this host's clock is {amounts.seconds(abs(off_s))} {side} the server's"
    remedy = "set the clock, and let an NTP service keep it right (timedatectl set-ntp true)"
    if abs(off_s) > REFUSED_S:
        return failed("clock", f"{text}: every request is refused", remedy, ClockSkewed.exit_code)
    if abs(off_s) > NOTICED_S:
        return warning("clock", f"{text}; from 15 minutes on, every request is refused", remedy)
    return ok("clock", "agrees with the server's")


def siblings(bucket: Bucket) -> list[tuple[str, Bucket]]:
    """The same bucket at the account's endpoints of the other jurisdictions of R2; none for another service."""
    host = (bucket.endpoint_url or "").removeprefix("https://").rstrip("/")
    if not host.endswith("." + R2_DOMAIN):
        return []
    own, *rest = host.removesuffix("." + R2_DOMAIN).split(".")
    now = rest[0] if rest else ""
    return [
        (name, replace(bucket, endpoint_url=f"https://{own}{'.' + name if name else ''}.{R2_DOMAIN}"))
        for name in JURISDICTIONS
        if name != now
    ]

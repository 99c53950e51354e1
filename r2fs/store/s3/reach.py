"""Diagnosis of an endpoint without credentials, in steps: host name, connection, TLS, clock.

Never:   signs a request; changes anything.
Fails:   Unavailable, naming the step.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from r2fs.model.errors import Unavailable
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.answers import server_text
from r2fs.store.counting import RequestCounter
from r2fs.store.s3.client import make_client
from r2fs.store.s3.route import PORTS, is_proxied, tls_context, trusted_by

TIMEOUT_S: Final = 5.0
READ_BYTES: Final = 1 << 16  # of an answer's body at most


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    date: str | None  # the header
    took_s: float


class Endpoint:
    """The server of a bucket. `proxied`: requests go through a proxy, which resolves and connects."""

    def __init__(self, bucket: Bucket) -> None:
        # constant
        client = make_client(
            replace(bucket, credentials=Credentials(anonymous=True)), RequestCounter(), TIMEOUT_S, TIMEOUT_S
        )
        self.url: str = client.meta.endpoint_url
        self._context = tls_context(trusted_by(client))
        client.close()
        parts = urlsplit(self.url)
        self.scheme, self.host = parts.scheme, parts.hostname or ""
        self.port = parts.port or PORTS.get(parts.scheme, 443)
        self.proxied = is_proxied(self.url)

    def addresses(self) -> list[str]:
        """The addresses of the host's name, in the resolver's order."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unavailable(
                f"{self.host} has no address ({error.strerror}): check the name and the resolver"
            ) from None
        return list(dict.fromkeys(str(each[4][0]) for each in found))

    def connect_s(self) -> float:
        """Seconds until a connection stands."""
        begun = time.monotonic()
        try:
            socket.create_connection((self.host, self.port), TIMEOUT_S).close()
        except OSError as error:
            raise Unavailable(
                f"{self.host} takes no connection on port {self.port} ({error.strerror or error})"
            ) from None
        return time.monotonic() - begun

    def tls(self) -> tuple[str, str]:
        """TLS version, and the day on which the certificate ends."""
        if self._context is None:
            raise Unavailable("the certificates to trust cannot be read (AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE)")
        try:
            with (
                socket.create_connection((self.host, self.port), TIMEOUT_S) as plain,
                self._context.wrap_socket(plain, server_hostname=self.host) as secured,
            ):
                certificate = secured.getpeercert() or {}
                return secured.version() or "", str(certificate.get("notAfter", ""))
        except OSError as error:
            raise Unavailable(f"no TLS connection to {self.host}: {server_text(str(error))}") from None

    def ask(self, url: str, method: str = "HEAD", headers: Mapping[str, str] | None = None) -> Answered:
        """Send one request without a signature of its own. `url`: an own one, or a presigned one."""
        parts = urlsplit(url)
        target = parts._replace(scheme="", netloc="").geturl() or "/"
        begun = time.monotonic()
        with self._connection(parts.hostname or "", parts.port or PORTS[parts.scheme]) as connection:
            connection.request(method, target, headers=dict(headers or {}))
            answer = connection.getresponse()
            answer.read(READ_BYTES)
            return Answered(answer.status, answer.getheader("Date"), time.monotonic() - begun)

    @contextmanager
    def _connection(self, host: str, port: int) -> Iterator[http.client.HTTPConnection]:
        connection = (
            http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=self._context)
            if self.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        )
        try:
            yield connection
        except (OSError, http.client.HTTPException, ssl.SSLError) as error:
            raise Unavailable(f"{host} does not answer: {server_text(str(error))}") from None
        finally:
            connection.close()

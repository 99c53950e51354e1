"""A page's server in this process, over daemons that answer from a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from r2fs.daemon import client
from r2fs.ui.mounts import Mounts
from r2fs.ui.server import PageServer
from tests.unit.cli.conftest import daemon, home  # noqa: F401  # fixtures of this folder, too


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Page:
    """The server, and requests as a browser sends them."""

    def __init__(self, server: PageServer) -> None:
        self.server = server
        parts = urlsplit(server.url)
        self.host, self.port = parts.netloc, parts.port or 0
        self.root = parts.path
        self.token = server.guard.token

    def ask(self, route: str, method: str = "GET", body: object = None, **headers: str | None) -> Answer:
        """`route` without a slash at its head is below the token. A header that is None is not sent."""
        sent: dict[str, str | None] = {"Host": self.host}
        data = None
        if method == "POST":
            sent |= {"Origin": f"http://{self.host}", "Content-Type": "application/json"}
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            path = route if route.startswith("/") else self.root + route
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            if data is not None:
                connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers.items()), answer.read())
        finally:
            connection.close()


@pytest.fixture
def page(home: Any) -> Iterator[Page]:  # noqa: F811
    mounts = Mounts(lambda: client.daemons({}), list, lambda answer: [("warning", "<b>much</b>")])
    server = PageServer(mounts)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield Page(server)
    server.shutdown()
    thread.join(20)
    server.server_close()


@pytest.fixture
def ping() -> Callable[[object], dict[str, object]]:
    return lambda request: {"pid": 1, "version": "0.1.0"}

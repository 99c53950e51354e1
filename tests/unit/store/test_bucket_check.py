"""What the check of a bucket leaves behind: its connection for the first request, and little memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from r2fs.model.ports import SystemClock
from r2fs.model.records import ListPage
from r2fs.model.settings import Credentials
from r2fs.store.s3 import check
from r2fs.store.s3.listing import Asked, page_of
from r2fs.store.s3.requests import Requests
from r2fs.store.s3.session import open_session
from r2fs.store.s3.store import connect
from r2fs.store.s3.xml import Document, Malformed
from tests.support.generated import Generated, GeneratedServer


def test_the_first_request_finds_the_connection_of_the_check() -> None:
    accepted = Counter[str]()
    with GeneratedServer(Generated((3,))) as server:
        take = server._server.get_request
        server._server.get_request = lambda: (accepted.update(["connections"]), take())[1]  # type: ignore[method-assign]
        store = connect(server.endpoint.settings(), SystemClock())
        store.check()
        assert len(store.list_page("").objects) == 3
        store.close()
    assert accepted == {"connections": 1}
    assert server.generated.requests == {"LIST": 2}


def test_the_check_returns_the_names_that_it_was_to_list() -> None:
    with GeneratedServer(Generated((4, 2), added={"top.wav": 7})) as server:
        store = connect(server.endpoint.settings(), SystemClock())
        page = store.check(names=1000)
        store.close()
    assert page is not None and page.token is None
    assert page.prefixes == ("d0/", "d1/", "d2/", "d3/")
    assert [(info.key, info.size) for info in page.objects] == [("top.wav", 7)]
    assert server.generated.requests == {"LIST": 1}


def test_a_name_that_cannot_be_understood_makes_no_bucket_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(document: Document, asked: Asked) -> ListPage:
        if len(document.rows) > 1:
            raise Malformed("no Size of an object")
        return page_of(document, asked)

    monkeypatch.setattr(check, "page_of", refusing)
    with GeneratedServer(Generated((4, 2))) as server:
        store = connect(server.endpoint.settings(), SystemClock())
        assert store.check(names=1000) is None
        store.close()


def test_a_server_that_lists_slowly_is_asked_for_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Requests.send

    def slow(
        requests: Requests, operation: str, asked: Mapping[str, Any], limit_s: float | None = None
    ) -> Any:
        if asked["MaxKeys"] > 1:
            raise ReadTimeoutError(endpoint_url="http://127.0.0.1")
        return send(requests, operation, asked, limit_s)

    monkeypatch.setattr(Requests, "send", slow)
    with GeneratedServer(Generated((4, 2))) as server:
        store = connect(server.endpoint.settings(), SystemClock())
        assert store.check(names=1000) is None
        store.close()
    assert server.generated.requests == {"LIST": 1}


def test_a_session_keeps_no_endpoints_of_other_services() -> None:
    """All of AWS's take 7 MB."""
    session = open_session(Credentials("key", "secret"))
    client = session.client("s3", region_name="eu-west-1")
    assert client.meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"
    resolver: Any = session._session._get_internal_component("endpoint_resolver")
    services = {name for one in resolver._endpoint_data["partitions"] for name in one["services"]}
    client.close()
    assert "s3" in services
    assert len(services) < 10

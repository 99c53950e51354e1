"""What the check of a bucket leaves behind: its connection for the first request, and little memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

from r2fs.model.ports import SystemClock
from r2fs.model.settings import Credentials
from r2fs.store.s3.session import open_session
from r2fs.store.s3.store import connect
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

"""Several buckets as one ObjectStore: which bucket a request goes to, and what none gets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from r2fs.model.addresses import UrlRequest
from r2fs.model.errors import (
    BucketMissing,
    NotImplementedThere,
    ObjectMissing,
    PermissionRefused,
    Refused,
    StoreError,
    Unavailable,
)
from r2fs.model.ports import Limits
from r2fs.model.records import ListPage, ObjectMeta, Version
from r2fs.model.settings import Bucket
from r2fs.store.buckets import Buckets, together
from r2fs.store.counting import RequestCounter
from r2fs.store.health import HealthView
from r2fs.store.retry import RetryingStore
from tests.support.bodies import BytesBody
from tests.support.clocks import ManualClock
from tests.support.memory_store import MemoryStore

NAMES = ("a", "a-b", "c")


class Account:
    """MemoryStores by bucket, and one store for all."""

    def __init__(self, names: Sequence[str] = NAMES, every: bool = False, **endpoints: str) -> None:
        self.inner = {name: MemoryStore(page=2) for name in names}
        self.listed = list(names)
        self.clock = ManualClock()
        members = tuple(Bucket("s3", name, endpoint_url=endpoints.get(name)) for name in names)
        bucket = Bucket("s3", "", given="r2://", members=() if every else members, every=every)
        self.store = Buckets(bucket, RequestCounter(), self._open, lambda: self.listed)

    def _open(self, bucket: Bucket) -> RetryingStore:
        store = RetryingStore(self.inner[bucket.name], self.clock)
        store.uniform = lambda: 0.0
        return store

    def fail(self, name: str, error: Callable[[], StoreError]) -> None:
        def refuse(verb: str, key: str) -> None:
            raise error()

        self.inner[name].before = refuse


def listed(account: Account, prefix: str = "", **asked: Any) -> list[str]:
    found, token, pages = [], None, 0
    while token is not None or not pages:
        page: ListPage = account.store.list_page(prefix, token=token, **asked)
        found += [*(info.key for info in page.objects), *page.prefixes]
        token, pages = page.token, pages + 1
    return found


@pytest.fixture
def account() -> Account:
    made = Account()
    for name in ("a", "c"):
        for key in ("1", "2", "d/3", "e"):
            made.inner[name].set(key, name.encode())
    return made


def test_the_buckets_are_listed_without_a_request(account: Account) -> None:
    assert listed(account, delimiter="/") == ["a-b/", "a/", "c/"]  # the order of keys: `-` is before `/`
    assert listed(account, "a", delimiter="/") == ["a-b/", "a/"]
    assert listed(account, delimiter="/", start_after="a/") == ["c/"]
    assert not any(store.calls for store in account.inner.values())


def test_all_keys_are_those_of_one_bucket_after_the_other(account: Account) -> None:
    whole = [f"{name}/{key}" for name in ("a", "c") for key in ("1", "2", "d/3", "e")]
    assert listed(account) == whole
    assert listed(account, start_after="a/2") == whole[2:]
    assert listed(account, start_after="b") == whole[4:]
    assert listed(account, "c/") == whole[4:]
    assert listed(account, "c/", start_after="a/2") == whole[4:]
    assert listed(account, "a/", start_after="b") == []
    assert listed(account, "a/", delimiter="/") == ["a/1", "a/2", "a/e", "a/d/"]


def test_no_object_stands_for_a_bucket(account: Account) -> None:
    for call in (
        lambda: account.store.put("a/", BytesBody(b""), ObjectMeta()),
        lambda: account.store.put("a", BytesBody(b""), ObjectMeta()),
        lambda: account.store.delete("a/"),
        lambda: account.store.create_upload("a/", ObjectMeta()),
        lambda: account.store.presign("a/", UrlRequest(60)),
    ):
        with pytest.raises(Refused):
            call()
    for look in (account.store.head, account.store.get):
        with pytest.raises(ObjectMissing):
            look("a/")
    assert not any(store.calls for store in account.inner.values())


def test_a_bucket_that_is_not_one_of_them_holds_and_takes_nothing(account: Account) -> None:
    with pytest.raises(ObjectMissing):
        account.store.head("other/key")
    assert listed(account, "other/") == []
    with pytest.raises(BucketMissing):
        account.store.put("other/key", BytesBody(b""), ObjectMeta())


def test_a_copy_stays_in_its_bucket(account: Account) -> None:
    found = account.store.head("a/1")
    account.store.copy(found.version, "a/copy")
    assert account.inner["a"].data("copy") == b"a"
    with pytest.raises(NotImplementedThere):
        account.store.copy(Version("a/1", found.etag, 1), "c/copy")
    with pytest.raises(ObjectMissing):
        account.store.head("c/copy")


def test_deletes_of_several_buckets(account: Account) -> None:
    account.fail("c", lambda: PermissionRefused("no"))
    failed = account.store.delete_many(["a/1", "c/1", "a/2", "c/2"])
    assert set(failed) == {"c/1", "c/2"}
    assert all(isinstance(error, PermissionRefused) for error in failed.values())
    assert sorted(account.inner["a"].keys()) == ["d/3", "e"]
    with pytest.raises(PermissionRefused):
        account.store.delete_many(["c/1", "c/2"])


@pytest.mark.expect_warnings("cannot be used now")
def test_the_check_is_of_each_and_fails_if_none_can_be_used(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    account.fail("a", lambda: BucketMissing("there is no such bucket"))
    with caplog.at_level(logging.WARNING):
        account.store.check()
    assert "a cannot be used now" in caplog.text
    health = account.store.health.view()
    assert (health.answers, list(health.buckets)) == (False, ["a"]), "status shows it at once"
    account.inner["a"].before = lambda verb, key: None
    account.store.check()
    assert account.store.health.view().answers
    account.fail("a", lambda: BucketMissing("there is no such bucket"))
    caplog.clear()
    for name in ("a-b", "c"):
        account.fail(name, lambda: BucketMissing("there is no such bucket"))
    with pytest.raises(BucketMissing):
        account.store.check()


@pytest.mark.expect_warnings("cannot be used now")
def test_a_server_that_is_silent_is_not_asked_for_each_of_its_buckets() -> None:
    account = Account(c="https://elsewhere.example.com")
    for name in ("a", "a-b"):
        account.fail(name, lambda: Unavailable("no answer"))
    account.store.check()  # the third bucket is elsewhere
    assert account.inner["a"].calls
    assert not account.inner["a-b"].calls
    account.fail("c", lambda: PermissionRefused("no"))
    with pytest.raises(Unavailable):  # may end: a mount with a journal goes on
        account.store.check()


def test_all_buckets_are_those_that_the_service_lists() -> None:
    account = Account(every=True)
    account.listed.remove("c")
    assert listed(account, delimiter="/") == ["a-b/", "a/"]
    assert account.store.names == ("a", "a-b")
    account.listed.append("c")
    assert listed(account, delimiter="/") == ["a-b/", "a/", "c/"]
    account.store.put("c/x", BytesBody(b"x"), ObjectMeta())
    assert account.inner["c"].data("x") == b"x"


def test_health_is_of_each_bucket(account: Account) -> None:
    told: list[tuple[str, bool]] = []

    def tell(view: HealthView, name: str) -> None:
        told.append((name, view.answers))

    account.store.listen(tell)
    account.fail("a", lambda: PermissionRefused("no"))
    for _ in range(3):
        with pytest.raises(PermissionRefused):
            account.store.head("a/1")
        account.store.head("c/1")
    assert told == [("a", False)]
    view = account.store.health.view()
    assert (view.answers, list(view.buckets)) == (False, ["a"])
    assert view.reason == "a: no"
    account.inner["a"].before = lambda verb, key: None
    account.store.head("a/1")
    assert account.store.health.view().answers
    assert told[-1] == ("a", True)


def test_the_limits_are_those_of_every_bucket() -> None:
    r2 = Limits(r2_copies=True, conditional_complete=True)
    other = Limits(
        delete_batch=1, part_copies=False, conditional_put=False, key_write_interval_s=0.0, min_part=6 << 20
    )
    found = together([r2, other])
    assert (found.delete_batch, found.min_part, found.key_write_interval_s) == (
        1,
        6 << 20,
        r2.key_write_interval_s,
    )
    assert not (found.r2_copies or found.conditional_complete or found.conditional_put or found.part_copies)
    assert together([r2, r2]) == r2
    bucket = Bucket("s3", "", given="s3://", every=True)
    assert (
        Buckets(
            bucket, RequestCounter(), lambda one: RetryingStore(MemoryStore(), ManualClock()), list, other
        ).limits
        == other
    )


def test_connections_are_opened_for_the_keys_bucket(account: Account) -> None:
    account.store.connect_ahead("a/d/3", 5)
    account.store.connect_ahead("none/d", 5)
    account.store.connect_ahead("", 2)
    assert [account.inner[name].expected for name in NAMES] == [[("d/3", 5), ("", 2)], [("", 2)], [("", 2)]]

"""Services known by their endpoint: what each lacks is never requested."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from r2fs.model.errors import PreconditionFailed
from r2fs.model.ports import Limits, SystemClock
from r2fs.model.records import Condition, ObjectMeta
from r2fs.model.settings.loading import load
from r2fs.store.s3 import store as s3
from r2fs.store.s3.services import AWS, service_of
from tests.support.bodies import BytesBody
from tests.support.servers import Endpoint, Moto


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (None, "Amazon S3"),
        ("https://s3.eu-central-1.amazonaws.com", "Amazon S3"),
        ("https://abc.eu.r2.cloudflarestorage.com", "Cloudflare R2"),
        ("https://storage.googleapis.com", "Google Cloud Storage"),
        ("https://bucket.storage.googleapis.com", "Google Cloud Storage"),
        ("https://fra1.digitaloceanspaces.com", "DigitalOcean Spaces"),
        ("https://minio.example.com:9000", "S3"),
        ("https://amazonaws.com.example.com", "S3"),
    ],
)
def test_m1_a_service_is_known_by_its_host(url: str | None, name: str):
    assert service_of(url).name == name


def test_m1_the_variables_of_each_service_make_a_bucket():
    """M1: any of them by STORAGE_ENDPOINT_URL; the region is the service's word for it."""
    for endpoint, region in (
        ("https://storage.googleapis.com", "auto"),
        ("https://fra1.digitaloceanspaces.com", "fra1"),
    ):
        variables = {
            "STORAGE_ENDPOINT_URL": endpoint,
            "STORAGE_REGION": region,
            "STORAGE_BUCKET_NAME": "music",
        }
        keys = {"STORAGE_ACCESS_KEY_ID": "id", "STORAGE_SECRET_ACCESS_KEY": "secret"}
        bucket = load(environ={"HOME": "/nowhere", **variables, **keys}).bucket
        assert (bucket.endpoint_url, bucket.region, bucket.url) == (endpoint, region, "s3://music")


def test_what_is_known_of_each():
    google = service_of("https://storage.googleapis.com").limits
    spaces = service_of("https://ams3.digitaloceanspaces.com").limits
    assert (google.delete_batch, google.part_copies, google.conditional_put) == (1, False, False)
    assert (spaces.delete_batch, spaces.part_copies, spaces.conditional_put) == (1000, True, False)
    assert AWS.limits.conditional_complete
    assert not AWS.limits.r2_copies
    assert service_of("http://127.0.0.1:9000").limits == Limits()


@pytest.fixture(scope="module")
def moto() -> Iterator[Endpoint]:
    server = Moto()
    yield server.endpoint
    server.stop()


@pytest.fixture
def google(moto: Endpoint) -> Iterator[Any]:
    """A server behind Google's limits; its requests are counted."""
    limits = service_of("https://storage.googleapis.com").limits
    store = s3.connect(moto.settings(), SystemClock(), limits)
    yield store
    store.close()


def test_a_condition_that_may_be_ignored_is_looked_at_first(google: Any):
    etag = google.put("a", BytesBody(b"1"), ObjectMeta())
    before = google.requests().by_verb["PutObject"]
    for condition in (Condition.absent(), Condition.matches("0" * 32)):
        with pytest.raises(PreconditionFailed):
            google.put("a", BytesBody(b"2"), ObjectMeta(), condition=condition)
    assert google.requests().by_verb["PutObject"] == before, "no body was sent"
    google.put("a", BytesBody(b"2"), ObjectMeta(), condition=Condition.matches(etag))


def test_deletes_go_one_by_one_where_there_is_no_delete_objects(google: Any):
    google.put("b", BytesBody(b"1"), ObjectMeta())
    assert google.delete_many(["b"]) == {}
    assert google.requests().by_verb["DeleteObject"] == 1
    assert "DeleteObjects" not in google.requests().by_verb

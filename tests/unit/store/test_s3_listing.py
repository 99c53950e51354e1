"""What a LIST's answer must say of each object."""

from __future__ import annotations

import pytest

from r2fs.store.s3.listing import Asked, page_of
from r2fs.store.s3.xml import FORMS, Malformed, read_document

ASKED = Asked("bucket", "takes/")


def listing(key: str, size: int, etag: str) -> bytes:
    return (
        "<ListBucketResult><Name>bucket</Name><Prefix>takes/</Prefix><IsTruncated>false</IsTruncated>"
        f"<Contents><Key>{key}</Key><LastModified>2026-11-29T00:00:00.000Z</LastModified>{etag}"
        f"<Size>{size}</Size></Contents></ListBucketResult>"
    ).encode()


@pytest.mark.parametrize("etag", ["", "<ETag/>", "<ETag>&quot;&quot;</ETag>"])
@pytest.mark.parametrize(("key", "size"), [("takes/live/", 0), ("takes/07.wav", 7)])
def test_an_object_without_an_etag_leaves_the_others_true(key: str, size: int, etag: str) -> None:
    """SeaweedFS lists directories that files have made so: one of them does not make the whole listing none."""
    (found,) = page_of(read_document(listing(key, size, etag), FORMS["ListObjectsV2"]), ASKED).objects
    assert (found.key, found.size, found.etag) == (key, size, "")


def test_an_etag_that_is_none_is_no_answer() -> None:
    with pytest.raises(Malformed, match=r"an ETag that is none of takes/07\.wav"):
        page_of(read_document(listing("takes/07.wav", 7, "<ETag>a b</ETag>"), FORMS["ListObjectsV2"]), ASKED)

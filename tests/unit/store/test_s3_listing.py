"""What a LIST's answer must say of each object."""

from __future__ import annotations

import pytest

from r2fs.store.s3_listing import Asked, page_of
from r2fs.store.s3_xml import FORMS, Malformed, read_document

ASKED = Asked("bucket", "takes/")


def listing(key: str, size: int, etag: str) -> bytes:
    return (
        "<ListBucketResult><Name>bucket</Name><Prefix>takes/</Prefix><IsTruncated>false</IsTruncated>"
        f"<Contents><Key>{key}</Key><LastModified>2026-11-29T00:00:00.000Z</LastModified>{etag}"
        f"<Size>{size}</Size></Contents></ListBucketResult>"
    ).encode()


@pytest.mark.parametrize("etag", ["", "<ETag/>", "<ETag>&quot;&quot;</ETag>"])
def test_a_directory_that_files_have_made_may_have_no_etag(etag: str) -> None:
    """SeaweedFS lists those: one of them does not make the whole listing none."""
    (found,) = page_of(read_document(listing("takes/live/", 0, etag), FORMS["ListObjectsV2"]), ASKED).objects
    assert (found.key, found.size, found.etag) == ("takes/live/", 0, "")


@pytest.mark.parametrize(("key", "size"), [("takes/07.wav", 0), ("takes/live/", 7)])
def test_what_has_bytes_or_is_a_file_has_one(key: str, size: int) -> None:
    with pytest.raises(Malformed, match="no ETag of takes/"):
        page_of(read_document(listing(key, size, ""), FORMS["ListObjectsV2"]), ASKED)

"""What a LIST's answer must say of each object."""

from __future__ import annotations

from random import Random

import pytest

from r2fs.model.records import ListPage
from r2fs.store.s3 import xml
from r2fs.store.s3.listing import Asked, page_of
from r2fs.store.s3.xml import FORMS, Malformed, read_document
from tests.support.hostile_answers import answer_to

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


# ------------------------------------------------------------------ many rows at once
def outcome(body: bytes, prefix: str = "takes/") -> object:
    """The page, or why it is none."""
    try:
        document = read_document(body, FORMS["ListObjectsV2"])
        if document.root != "ListBucketResult":
            return document.root
        return page_of(document, Asked("bucket", prefix))
    except Malformed as error:
        return str(error)


ROW = (
    "<Contents><Key>takes/{0}</Key><LastModified>2026-11-29T00:00:0{1}.000Z</LastModified>"
    "<ETag>&quot;{0}{1}&quot;</ETag><Size>{1}</Size><StorageClass>STANDARD</StorageClass></Contents>"
)
TWO = ROW.format("a", 1) + ROW.format("b%2Cc+d", 2)
START = (
    "<ListBucketResult><Name>bucket</Name><Prefix>takes/</Prefix><EncodingType>url</EncodingType>"
    "<IsTruncated>false</IsTruncated>"
)
END = "<CommonPrefixes><Prefix>takes/x/</Prefix></CommonPrefixes></ListBucketResult>"
CHANGES = {
    "alike": lambda rows: rows,
    "in a comment": lambda rows: f"<!--{rows}-->",
    "one in a comment": lambda rows: f"<!--{ROW.format('c', 3)}-->{rows}",
    "as text": lambda rows: f"<Other><![CDATA[{rows}]]></Other>",
    "deeper": lambda rows: f"<Other>{rows}</Other>",
    "in a row": lambda rows: f"<Contents>{rows}</Contents>",
    "behind a prefix": lambda rows: f"<CommonPrefixes><Prefix>takes/y/</Prefix></CommonPrefixes>{rows}",
    "around a prefix": lambda rows: f"{rows}<CommonPrefixes><Prefix>takes/y/</Prefix></CommonPrefixes>{rows}",
    "text between": lambda rows: f"{rows}x{rows}",
    "lines": lambda rows: rows.replace("><", ">\n<"),
    "other order": lambda rows: rows + rows.replace("<Size>1</Size>", "").replace("<Key>", "<Size>1</Size><Key>"),
    "a field more": lambda rows: rows.replace("<ETag>", "<ChecksumType>FULL</ChecksumType><ETag>", 1),
    "a field twice": lambda rows: rows.replace("<ETag>", "<Size>1</Size><ETag>"),
    "no field": lambda rows: rows.replace("<Size>1</Size>", "").replace("<Size>2</Size>", ""),
    "an entity": lambda rows: rows.replace("takes/a", "takes/a&amp;b"),
    "another character": lambda rows: rows.replace("takes/a", "takes/ä"),
    "a control character": lambda rows: rows.replace("takes/a", "takes/a\x01"),
    "an end of text": lambda rows: rows.replace("takes/a", "takes/a]]>"),
    "another prefix": lambda rows: rows.replace("takes/a", "books/a"),
    "no size": lambda rows: rows.replace("<Size>1</Size>", "<Size>-1</Size>"),
    "too large": lambda rows: rows.replace("<Size>1</Size>", f"<Size>{2**63}</Size>"),
    "largest": lambda rows: rows.replace("<Size>1</Size>", f"<Size>{2**63 - 1}</Size>"),
    "no ETag": lambda rows: rows.replace("&quot;a1&quot;", ""),
    "a bare ETag": lambda rows: rows.replace("&quot;", ""),
    "a weak ETag": lambda rows: rows.replace("&quot;a1", "W/&quot;a1"),
    "no ETag at all": lambda rows: rows.replace("&quot;a1&quot;", "a 1"),
    "another time": lambda rows: rows.replace("2026-11-29T00:00:01.000Z", "Sun, 29 Nov 2026 00:00:01 GMT"),
    "year 1": lambda rows: rows.replace("2026-11-29T00:00:01.000Z", "0001-01-01T00:00:00Z"),
    "no time": lambda rows: rows.replace("2026-11-29", "2026-13-29"),
    "a long text": lambda rows: rows.replace("takes/a", "takes/" + "a" * (70 << 10)),
    "attributes": lambda rows: rows.replace("<Key>", "<Key a='b'>", 1),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_rows_found_at_once_say_the_same(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (START + CHANGES[change](TWO) + END).encode()
    at_once = outcome(body)
    monkeypatch.setattr(xml, "_taken_out", lambda *given: None)
    assert at_once == outcome(body)


def test_so_do_answers_of_broken_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [answer_to(Random(seed), "list").body for seed in range(1500)]
    at_once = [outcome(body) for body in bodies]
    monkeypatch.setattr(xml, "_taken_out", lambda *given: None)
    assert at_once == [outcome(body) for body in bodies]


def test_a_page_as_r2_writes_it_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(
        f"<Contents><Key>takes/{n:04}.wav</Key><Size>{n}</Size><LastModified>2026-11-29T00:00:00.123Z</LastModified>"
        f"<ETag>&quot;{n:032x}&quot;</ETag><StorageClass>STANDARD</StorageClass></Contents>"
        for n in range(1000)
    )
    read = list[object]()
    plain = xml._Reader._start
    monkeypatch.setattr(xml._Reader, "_start", lambda *given: (read.append(given[1]), plain(*given))[1])
    page = outcome((START + rows + END).encode())
    assert isinstance(page, ListPage)
    assert [(info.key, info.size) for info in page.objects][998:] == [
        ("takes/0998.wav", 998),
        ("takes/0999.wav", 999),
    ]
    assert page.objects[1].etag == f"{1:032x}"
    assert page.prefixes == ("takes/x/",)
    assert len(read) < 20, "elements that were read one by one"

"""What no S3 server answers: it is told as what it is, and nothing that it says is believed.

The requests go through all of the store, by boto3 and its parser, and without it; only the HTTP session is ours
(`tests/support/hostile.py`).
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from r2fs.model.errors import (
    MalformedAnswer,
    ObjectMissing,
    PermissionRefused,
    PreconditionFailed,
    Refused,
    StoreError,
    Throttled,
    Unavailable,
)
from r2fs.model.ports import SystemClock
from r2fs.model.records import Condition, ObjectMeta
from r2fs.model.settings import Bucket, Credentials
from r2fs.store.answers import StoredDamaged
from r2fs.store.retry import RetryingStore
from r2fs.store.s3 import wire
from r2fs.store.s3.store import S3Store
from tests.support.bodies import BytesBody
from tests.support.clocks import ManualClock
from tests.support.hostile import (
    DATA,
    ENTRIES,
    KEY,
    MD5,
    META,
    NS,
    OBJECT,
    PAGE,
    PARTS,
    VERBS,
    WHOLE,
    Answering,
    Answers,
    Raw,
    RawServer,
    all_good,
    answered_by,
    but,
    document,
    entry,
    error,
    listing,
    store_of,
    verb_of,
)
from tests.support.servers import Endpoint

OTHER = hashlib.md5(b"other bytes").hexdigest()
XML_VERBS = ("list", "create", "copy_part", "complete", "copy", "delete_many")
NO_DOCUMENT = {
    "page": PAGE,
    "xhtml": b"<?xml version='1.0'?><html><body/></html>",
    "html5": b"<!DOCTYPE html><html></html>",
    "empty": b"",
    "blank": b" \r\n ",
    "json": b'{"Contents": [], "IsTruncated": false}',
    "other root": document("ListAllMyBucketsResult", ""),
    "truncated": listing(ENTRIES)[:-30],
    "two roots": listing() + listing(),
    "garbage": bytes(range(256)),
}


@pytest.fixture(scope="module", params=["auto", "boto3"])
def hostile(request: pytest.FixtureRequest) -> Iterator[tuple[S3Store, Answers]]:
    store, session = store_of(all_good, transport=request.param)
    yield store, session
    store.close()


@pytest.fixture
def store(hostile: tuple[S3Store, Answers]) -> S3Store:
    return hostile[0]


@pytest.fixture
def answers(hostile: tuple[S3Store, Answers]) -> Callable[[Answering], Answers]:
    def by(answering: Answering) -> Answers:
        hostile[1].answering = answering
        hostile[1].sent.clear()
        return hostile[1]

    by(all_good)
    return by


def malformed(store: S3Store, verb: str, what: str = "") -> MalformedAnswer:
    with pytest.raises(
        MalformedAnswer, match=r"the server's answer cannot be understood|is not known"
    ) as caught:
        VERBS[verb].call(store)
    assert what in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    return caught.value


@pytest.mark.parametrize("verb", VERBS)
def test_a_right_answer_is_believed(store: S3Store, answers: Any, verb: str):
    session = answers(all_good)
    assert VERBS[verb].call(store) == VERBS[verb].believed
    assert len(session.sent) <= 1, "no request more than there was"


# ------------------------------------------------------------------ believed, and not true
@pytest.mark.parametrize("body", NO_DOCUMENT.values(), ids=NO_DOCUMENT.keys())
@pytest.mark.parametrize("verb", XML_VERBS)
def test_a_200_that_is_no_answer_is_an_error(store: S3Store, answers: Any, verb: str, body: bytes):
    answers(but(verb, Raw(200, (), body)))
    name = "s3://bucket" if verb in ("list", "delete_many") else KEY
    assert name in str(malformed(store, verb))


@pytest.mark.parametrize("verb", VERBS)
def test_a_captive_portal_is_believed_in_nothing(store: S3Store, answers: Any, verb: str):
    """It answers everything by 200 and its page."""
    answers(lambda request: Raw(200, (("Content-Type", "text/html"),), PAGE))
    malformed(store, verb)


NOT_THIS_LISTING = {
    "another bucket": (listing(ENTRIES, name="others"), "another bucket (others)"),
    "another prefix": (listing(prefix="books/"), "another prefix (books/)"),
    "the root": (listing(prefix=""), "another prefix"),
    "keys of elsewhere": (listing([entry("books/a.wav")]), "books/a.wav, which does not begin with takes/"),
    "directories of elsewhere": (listing(prefixes=["books/"]), "books/, which does not begin with takes/"),
    "no end": (listing().replace(b"<IsTruncated>false</IsTruncated>", b""), "no IsTruncated"),
    "odd end": (listing().replace(b">false<", b">no<"), "IsTruncated"),
    "cut, no token": (listing().replace(b">false<", b">true<"), "no NextContinuationToken"),
    "cut, empty token": (listing(token=""), "no NextContinuationToken"),
    "counted keys": (listing().replace(b"<MaxKeys>", b"<KeyCount>5</KeyCount><MaxKeys>"), "the 5 keys"),
}


@pytest.mark.parametrize(("body", "what"), NOT_THIS_LISTING.values(), ids=NOT_THIS_LISTING.keys())
def test_a_listing_of_something_else_is_an_error(store: S3Store, answers: Any, body: bytes, what: str):
    answers(but("list", Raw(200, (), body)))
    malformed(store, "list", what)


def test_a_put_without_an_etag_is_looked_at(store: S3Store, answers: Any):
    session = answers(but("put", Raw(200)))
    assert VERBS["put"].call(store) == MD5
    assert [method for method, _ in session.sent] == ["PUT", "HEAD"]


@pytest.mark.parametrize("put", [Raw(200), Raw(200, (("ETag", '"opaque-1"'),))], ids=["none", "opaque"])
@pytest.mark.parametrize(
    "found",
    [
        Raw(404),
        OBJECT.having(etag=f'"{OTHER}"', x_amz_meta_r2fs_attempt="theirs"),
        OBJECT.having(content_length="3"),
        OBJECT.having(etag=None),
        Raw(503),
        Raw(403),
    ],
    ids=["nothing", "another", "shorter", "no etag", "away", "refused"],
)
def test_a_put_that_nothing_proves_is_not_stored(store: S3Store, answers: Any, put: Raw, found: Raw):
    answers(but("put", put, but("head", found)))
    malformed(store, "put")


def test_a_put_of_a_server_with_other_etags_is_believed(store: S3Store, answers: Any):
    tagged = (("ETag", '"opaque-1"'),)
    answers(but("put", Raw(200, tagged), but("head", OBJECT.having(etag='"opaque-1"'))))
    assert VERBS["put"].call(store) == "opaque-1"
    answers(but("put", replace(VERBS["put"].good, headers=(("ETag", f'"{OTHER}"'),))))
    with pytest.raises(StoredDamaged):
        VERBS["put"].call(store)


@pytest.mark.parametrize("verb", ["put", "part"])
@pytest.mark.parametrize("etag", ['""', "", "a b", '"a", "b"', "x" * 5000, "\x01", "é"])
def test_an_etag_that_is_none(store: S3Store, answers: Any, verb: str, etag: str):
    tagged = Raw(200, (("ETag", etag),) if etag else ())
    answers(but(verb, tagged, but("head", Raw(404))))
    malformed(store, verb)


def test_a_complete_that_nothing_proves(store: S3Store, answers: Any):
    other = Raw(body=document("CompleteMultipartUploadResult", "<ETag>odd-1</ETag>"))
    for found in (Raw(404), OBJECT, OBJECT.having(etag='"odd-1"', content_length="3")):
        answers(but("complete", other, but("head", found)))
        malformed(store, "complete")
    session = answers(but("complete", other, but("head", OBJECT.having(etag='"odd-1"'))))
    assert VERBS["complete"].call(store) == "odd-1"
    assert [method for method, _ in session.sent] == ["POST", "HEAD"]


def test_a_copy_that_nothing_proves(store: S3Store, answers: Any):
    other = Raw(body=document("CopyObjectResult", f"<ETag>{OTHER}</ETag>"))
    answers(but("copy", other))
    malformed(store, "copy", "holds another object")


@pytest.mark.parametrize("verb", [*XML_VERBS, "put", "part", "delete", "abort"])
@pytest.mark.parametrize(
    ("code", "kind"),
    [("AccessDenied", PermissionRefused), ("SlowDown", Throttled), ("InternalError", Unavailable)],
)
@pytest.mark.parametrize("prefix", ["", "s3:"])
def test_an_error_in_a_200_is_that_error(
    store: S3Store, answers: Any, verb: str, code: str, kind: type[StoreError], prefix: str
):
    body = (
        error(code).replace(b"<", b"<" + prefix.encode()).replace(b"<s3:/", b"</s3:").replace(b"<s3:?", b"<?")
    )
    answers(but(verb, Raw(200, (), body)))
    with pytest.raises(kind, match=code):
        VERBS[verb].call(store)


def test_a_delete_is_believed_without_a_page_alone(store: S3Store, answers: Any):
    for verb in ("delete", "abort"):
        answers(but(verb, Raw(200)))
        VERBS[verb].call(store)
        answers(but(verb, Raw(202)))
        malformed(store, verb, "status 202")
        answers(but(verb, Raw(200, (), PAGE)))
        malformed(store, verb, "a web page")


def deleted(inner: str) -> Raw:
    return Raw(body=document("DeleteResult", inner))


@pytest.mark.parametrize(
    "inner",
    [
        "<Error><Key>books/a</Key><Code>AccessDenied</Code></Error>",
        "<Error><Code>AccessDenied</Code></Error>",
        "<Error/>",
        "<Deleted><Key>books/a</Key></Deleted>",
        f"<Deleted><Key>{KEY}</Key></Deleted>",  # and the other one?
        "<Deleted/>",
    ],
)
def test_deletes_that_name_other_keys_are_none(store: S3Store, answers: Any, inner: str):
    answers(but("delete_many", deleted(inner)))
    malformed(store, "delete_many")


def test_deletes_in_part(store: S3Store, answers: Any):
    refused = f"<Error><Key>{KEY}</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
    for others in ("", "<Deleted><Key>takes/08.wav</Key></Deleted>"):
        answers(but("delete_many", deleted(refused + others)))
        failed: Any = VERBS["delete_many"].call(store)
        assert set(failed) == {KEY}
        assert isinstance(failed[KEY], PermissionRefused)


# ------------------------------------------------------------------ fields
VALUES = {
    "missing": None,
    "empty": "",
    "blank": "  ",
    "negative": "-1",
    "huge": "9" * 40,
    "not a number": "NaN",
    "exponent": "1e3",
    "underscore": "1_0",
    "other digits": "١٢",
    "element": "<b>1</b>",
    "mixed": "1<b/>2",
    "float": "1.5",
}
FIELDS = {
    ("list", "Size"): str(len(DATA)),
    ("list", "LastModified"): "2026-11-28T10:00:00.000Z",
    ("list", "ETag"): f"&quot;{MD5}&quot;",
    ("list", "IsTruncated"): "false",
    ("create", "UploadId"): "up-1",
    ("complete", "ETag"): f"&quot;{WHOLE}&quot;",
    ("copy", "ETag"): f"&quot;{MD5}&quot;",
    ("copy_part", "ETag"): f"&quot;{MD5}&quot;",
}
ODD = {"negative", "huge", "not a number", "exponent", "underscore", "float"}
STRANGE_BUT_FINE = {"UploadId": ODD | {"other digits", "blank"}}  # whatever it is, it is the server's


@pytest.mark.parametrize("value", [*VALUES, "twice"])
@pytest.mark.parametrize(("verb", "field"), FIELDS)
def test_a_field_that_makes_no_sense(store: S3Store, answers: Any, verb: str, field: str, value: str):
    good = VERBS[verb].good
    element = f"<{field}>{FIELDS[verb, field]}</{field}>"
    made = element * 2 if value == "twice" else ""
    if value != "twice" and VALUES[value] is not None:
        made = f"<{field}>{VALUES[value]}</{field}>"
    assert element.encode() in good.body
    changed = replace(good, body=good.body.replace(element.encode(), made.encode(), 1))
    missing = but("head", Raw(404))
    answers(but(verb, changed, lambda request: (all_good if "source" in request.url else missing)(request)))
    # hidden by the engine
    no_etag = (verb, field) == ("list", "ETag") and value in (
        "missing",
        "empty",
        "blank",
    )
    if (
        no_etag
        or value in STRANGE_BUT_FINE.get(field, ())
        or ((verb, field) in (("list", "ETag"), ("copy_part", "ETag"), ("copy", "ETag")) and value in ODD)
    ):
        VERBS[verb].call(store)
        return
    said = str(malformed(store, verb))
    if value == "missing":
        assert f"no {field}" in said
    if verb == "list" and field != "IsTruncated" and value in ("missing", "empty"):
        assert f"no {field} of takes/07.wav" in said


@pytest.mark.parametrize(
    "value", [None, "", "soon", "99999999999999999999", "Sat, 99 Nov 2026 10:00:00 GMT", "-1e400"]
)
@pytest.mark.parametrize("verb", ["head", "get"])
def test_a_time_that_is_none(store: S3Store, answers: Any, verb: str, value: str | None):
    answers(but(verb, VERBS[verb].good.having(last_modified=value)))
    malformed(store, verb)


@pytest.mark.parametrize("value", [None, "", '""', "a b", '"a", "b"'])
@pytest.mark.parametrize("verb", ["head", "get"])
def test_an_object_without_an_etag(store: S3Store, answers: Any, verb: str, value: str | None):
    answers(but(verb, VERBS[verb].good.having(etag=value)))
    malformed(store, verb, "no ETag" if not value or value == '""' else "an ETag that is none")


@pytest.mark.parametrize("name", ["x-amz-missing-meta", "x-amz-mp-parts-count", "x-amz-tagging-count"])
def test_garbage_in_what_nobody_reads_is_no_matter(store: S3Store, answers: Any, name: str):
    answers(but("head", replace(OBJECT, headers=(*OBJECT.headers, (name, "many"), (name, "-1")))))
    assert store.head(KEY).etag == MD5


# ------------------------------------------------------------------ statuses
STATUSES = (
    100,
    101,
    103,
    199,
    202,
    203,
    205,
    206,
    226,
    300,
    304,
    305,
    402,
    404,
    407,
    409,
    412,
    418,
    451,
    511,
    599,
    999,
)


@pytest.mark.parametrize("verb", VERBS)
def test_every_status_has_a_meaning(store: S3Store, answers: Any, verb: str):
    """With no body, a page, and an error of S3: none of these is a success, but what is gone is deleted."""
    for status, body in itertools.product(STATUSES, (b"", PAGE, error("Odd"))):
        answers(but(verb, Raw(status, (), body), but("head", Raw(404)) if verb == "put" else all_good))
        if verb == "delete" and status == 404 and body != PAGE:
            VERBS[verb].call(store)
            continue
        with pytest.raises(StoreError) as caught:
            VERBS[verb].call(store)
        assert str(caught.value).isprintable()
        assert status >= 300 or b"Odd" in body or isinstance(caught.value, MalformedAnswer)


@pytest.mark.parametrize("verb", ["list", "get", "put", "create", "delete_many", "copy"])
def test_a_404_that_is_a_page_is_no_missing_object(store: S3Store, answers: Any, verb: str):
    answers(but(verb, Raw(404, (), PAGE)))
    malformed(store, verb, "status 404 with a body that is no S3 error")
    answers(but(verb, Raw(404, (), error("NoSuchKey"))))
    with pytest.raises((ObjectMissing, Refused)):
        VERBS[verb].call(store)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("verb", VERBS)
def test_a_redirect_is_no_refusal_of_a_file(store: S3Store, answers: Any, verb: str, status: int):
    """A captive portal's, as a rule: what is to be sent waits, and is not set aside."""
    answers(lambda request: Raw(status, (("Location", "http://login.example.com/?from=x\x1b"),), b""))
    malformed(store, verb, "(to http://login.example.com), which is not followed")


# ------------------------------------------------------------------ XML
def changed(*pairs: tuple[bytes, bytes]) -> Callable[[bytes], bytes]:
    def change(body: bytes) -> bytes:
        for old, new in pairs:
            body = body.replace(old, new)
        return body

    return change


LEGAL: dict[str, Callable[[bytes], bytes]] = {
    "no declaration": lambda b: b.split(b"?>", 1)[1],
    "BOM": lambda b: b"\xef\xbb\xbf" + b,
    "white space before": lambda b: b" \r\n\t" * 1000 + b,
    "white space": changed((b"><", b">\n\t <")),
    "no namespace": changed((f" {NS}".encode(), b"")),
    "another namespace": changed((NS.encode(), b'xmlns="urn:other"')),
    "prefix": lambda b: (
        b.replace(b"</", b"\0").replace(b"<?", b"\1").replace(b"<", b"<s3:").replace(b"\0", b"</s3:")
        .replace(b"\1", b"<?").replace(NS.encode(), NS.replace("xmlns", "xmlns:s3").encode())
    ),
    "comments": changed((b"><", b"><!-- a <Key>b</Key> --><")),
    "comments in texts": changed((b"</", b"<!-- x --></")),
    "instructions": changed((b"><", b"><?php echo 1 ?><")),
    "attributes": changed((b"<ETag>", b'<ETag a="1" b="&lt;ETag&gt;">'), (b"<Key>", b'<Key xml:space="preserve">')),
    "unknown elements": changed((b"</ETag>", b"</ETag><Owner><ID>x</ID><Key>no</Key></Owner><Odd/>")),
    "character references": changed((b"takes/07", b"takes&#x2F;0&#55;"), (b"up-1", b"&#117;p-1")),
    "single quotes": changed((b'"1.0"', b"'1.0'"), (b'encoding="UTF-8"', b"encoding='utf-8'")),
    "standalone": changed((b'"UTF-8"?', b'"UTF-8" standalone="yes"?')),
    "after the end": lambda b: b + b"\n<!-- bye -->\n",
}  # fmt: skip


@pytest.mark.parametrize("change", LEGAL.values(), ids=LEGAL.keys())
@pytest.mark.parametrize("verb", XML_VERBS)
def test_xml_that_is_legal_is_read(store: S3Store, answers: Any, verb: str, change: Callable[[bytes], bytes]):
    good = VERBS[verb].good
    answers(but(verb, replace(good, body=change(good.body))))
    assert VERBS[verb].call(store) == VERBS[verb].believed


def test_cdata_and_order(store: S3Store, answers: Any):
    body = (
        b'<ListBucketResult><Contents><ETag><![CDATA["' + MD5.encode() + b'"]]></ETag><Size>1</Size>'
        b"<LastModified>2026-11-28T10:00:00+01:00</LastModified><Key>takes/<![CDATA[<a>&]]>b</Key></Contents>"
        b"<IsTruncated>false</IsTruncated><CommonPrefixes><Prefix>takes/x/</Prefix></CommonPrefixes>"
        b"<Contents><Key>takes/c</Key><Size> 2 </Size><ETag>e</ETag>"
        b"<LastModified>Sat, 28 Nov 2026 10:00:00 GMT</LastModified></Contents></ListBucketResult>"
    )
    answers(but("list", Raw(200, (), body)))
    page = store.list_page("takes/")
    assert [(o.key, o.size, o.etag) for o in page.objects] == [("takes/<a>&b", 1, MD5), ("takes/c", 2, "e")]
    assert page.objects[1].modified_ns - page.objects[0].modified_ns == 3600 * 10**9
    assert page.prefixes == ("takes/x/",)


BILLION = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "' + b"x" * 1000 + b'">'
    + b"".join(b'<!ENTITY %c "%b">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(6))
    + b"]><ListBucketResult><Name>&g;</Name></ListBucketResult>"
)  # fmt: skip
REFUSED_XML = {
    "entities": (BILLION, "a document type"),
    "external": (
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><ListBucketResult/>',
        "a document type",
    ),
    "unknown entity": (listing([entry("takes/&nbsp;a")]), "undefined entity"),
    "deep": (
        b"<ListBucketResult>" + b"<a>" * 500_000 + b"</a>" * 500_000 + b"</ListBucketResult>",
        "too deep",
    ),
    "latin": (listing(ENTRIES).replace(b"UTF-8", b"ISO-8859-1"), "not UTF-8"),
    "control characters": (listing([entry("takes/&#1;")]), "invalid character"),
    "surrogates": (listing([entry("takes/&#xD800;")]), "invalid character"),
    "not UTF-8": (listing([entry("takes/a")]).replace(b"takes/a", b"takes/\xff"), "no ListBucketResult"),
    "a long tag": (b"<ListBucketResult " + b'a="' + b"x" * 200_000 + b'"/>', "more than 64 KiB"),
    "many attributes": (
        b"<ListBucketResult " + b" ".join(b'a%d=">"' % n for n in range(300_000)) + b"/>",
        "more than 64 KiB",
    ),
    "a long text": (listing([entry("takes/" + "a" * 5_000_000)]), "more than 64 KiB"),
    "many rows": (listing([entry(f"takes/{n:05d}") for n in range(10_001)]), "more than"),
    "large": (listing() + b"<!-- " + b"x" * (7 << 20), "more than 6291456 bytes"),
}


@pytest.mark.parametrize(("body", "what"), REFUSED_XML.values(), ids=REFUSED_XML.keys())
def test_xml_that_is_refused_takes_little_memory(store: S3Store, answers: Any, body: bytes, what: str):
    answers(but("list", Raw(200, (), body)))
    malformed(store, "list")  # what is imported at the first error is there by now
    tracemalloc.start()
    try:
        assert what in str(malformed(store, "list"))
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("verb", ["put", "delete", "head", "copy", "complete"])
@pytest.mark.parametrize("status", [200, 403, 404, 500])
def test_other_answers_are_bounded(store: S3Store, answers: Any, verb: str, status: int):
    class Endless:
        """Ten gigabytes, which nobody must read."""

        left = 10 << 30

        def read(self, size: int = -1) -> bytes:
            assert self.left > (10 << 30) - (4 << 20), "nobody needs so much of it"
            self.left -= size
            return b"<" + b"x" * (size - 1)

    class Sending(Answers):
        def send(self, request: Any, limit_s: float | None = None) -> Any:
            answer = super().send(request)
            if verb_of(request).name == verb and request.method != "HEAD":
                answer.raw = SimpleRaw(Endless())
            return answer

    class SimpleRaw:
        def __init__(self, source: Endless) -> None:
            self.read1 = source.read

        def close(self) -> None:
            pass

    answered_by(store, Sending(but(verb, Raw(status, length=False))))
    try:
        with pytest.raises(StoreError):
            VERBS[verb].call(store)
    finally:
        answered_by(store, answers(all_good))


def test_a_body_that_ends_early_is_no_answer(store: S3Store, answers: Any):
    for verb in ("put", "create", "list"):
        good = VERBS[verb].good
        answers(but(verb, good.having(content_length=str(len(good.body) + 10))))
        malformed(store, verb, "bytes in place of")


# ------------------------------------------------------------------ with retries
def test_a_bucket_in_another_region_is_asked_there():
    """AWS names the region in the error's body alone, and boto3 goes there, once."""
    credentials = Credentials(access_key_id="id", secret_access_key="secret")
    bucket = Bucket("s3", "bucket", "", region="us-east-1", addressing="virtual", credentials=credentials)
    store = S3Store(bucket, clock=ManualClock())
    wrong = error("AuthorizationHeaderMalformed").replace(b"</Error>", b"<Region>eu-west-1</Region></Error>")
    session = Answers(lambda r: VERBS["list"].good if "eu-west-1" in r.url else Raw(400, (), wrong))
    answered_by(store, session)
    assert VERBS["list"].call(store) == VERBS["list"].believed
    assert len(session.sent) == 3  # the first without boto3
    store.close()


@pytest.mark.parametrize("verb", ["complete", "copy", "copy_part"])
def test_a_server_at_work_is_waited_for(monkeypatch: pytest.MonkeyPatch, verb: str):
    """It sends white space meanwhile, for longer than any other answer may take."""
    good = VERBS[verb].good
    passed = itertools.count(0, 50.0)
    store, _ = store_of(but(verb, replace(good, body=b" " * 10 + good.body)))
    monkeypatch.setattr(wire, "READ", 1)
    monkeypatch.setattr(wire, "AT_WORK_S", 50.0 * 1000)
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=lambda: next(passed)))
    assert VERBS[verb].call(store) == VERBS[verb].believed
    monkeypatch.setattr(wire, "AT_WORK_S", 50.0 * 5)
    with pytest.raises(Unavailable, match="does not answer"):
        VERBS[verb].call(store)
    store.close()


def patient(answering: Answering) -> tuple[RetryingStore, Answers]:
    clock = ManualClock()
    store, session = store_of(answering, clock)
    retrying = RetryingStore(store, clock)
    retrying.uniform = lambda: 1.0
    return retrying, session


def test_a_put_to_a_portal_may_have_been_stored(answers: Any):
    """After the portal's page the server has another object there: by whom is asked."""
    store, session = patient(lambda request: Raw(200, (), PAGE))
    with pytest.raises(MalformedAnswer):
        store.put(KEY, BytesBody(DATA), META, condition=Condition.absent())
    assert len([1 for method, _ in session.sent if method == "PUT"]) == 6
    pages = iter([Raw(200, (), PAGE), Raw(412, (), error("PreconditionFailed"))])
    session.answering = lambda request: next(pages) if request.method == "PUT" else OBJECT
    assert store.put(KEY, BytesBody(DATA), META, condition=Condition.absent()) == MD5
    pages = iter([Raw(200, (), PAGE), Raw(412, (), error("PreconditionFailed"))])
    theirs = ObjectMeta("audio/wav", {"r2fs-attempt": "another"})
    with pytest.raises(PreconditionFailed):
        store.put(KEY, BytesBody(DATA), theirs, condition=Condition.absent())
    store.close()


def test_a_complete_whose_answer_was_a_page_is_found(answers: Any):
    pages = iter([Raw(200, (), b""), Raw(404, (), error("NoSuchUpload"))])
    store, _ = patient(
        lambda request: next(pages) if request.method == "POST" else OBJECT.having(etag=f'"{WHOLE}"')
    )
    assert store.complete_upload(KEY, "up-1", PARTS) == WHOLE
    store.close()


def test_a_portal_is_told_as_an_outage():
    store, session = patient(lambda request: Raw(200, (), PAGE))
    with pytest.raises(MalformedAnswer):
        store.list_page("takes/")
    view = store.health.view()
    assert not view.answers
    assert "the server's answer cannot be understood: html in place of ListBucketResult" in (
        view.reason or ""
    )
    session.answering = all_good
    store.list_page("takes/")
    assert store.health.view().answers
    store.close()


# ------------------------------------------------------------------ redirects, by sockets
def told(raw: Raw, line: str) -> Iterable[bytes]:
    head = "".join(f"{name}: {value}\r\n" for name, value in raw.headers)
    yield f"HTTP/1.1 {raw.status} Odd\r\n{head}Content-Length: {len(raw.body)}\r\nConnection: close\r\n\r\n".encode()
    yield raw.body


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_request_and_no_secret_goes_to_another_host(status: int):
    body = error("TemporaryRedirect").replace(b"</Error>", b"<Endpoint>127.0.0.1</Endpoint></Error>")
    with RawServer(lambda line: []) as other:
        elsewhere = (("Location", f"{other.url}/bucket/a"), ("x-amz-bucket-region", "eu-west-1"))
        for headers, content in ((elsewhere[:1], b""), (elsewhere, b""), (elsewhere, body)):
            with RawServer(partial(told, Raw(status, headers, content))) as server:
                store = S3Store(Endpoint(server.url).settings(), clock=SystemClock())
                for verb in ("list", "head", "put", "copy"):
                    with pytest.raises((MalformedAnswer, Refused)):
                        VERBS[verb].call(store)
                store.close()
                assert server.requests
        assert other.requests == []


# what comes before a status line, between headers, in chunks: http.client's part, bounded by it
WIRE: dict[str, bytes] = {
    "no status": b"hello\r\n\r\n",
    "HTTP/0.9": listing(ENTRIES),
    "status 99": b"HTTP/1.1 99 Odd\r\n\r\n",
    "status abc": b"HTTP/1.1 abc Odd\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "long line": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000 + b"\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + PAGE,
    "odd length": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + PAGE,
    "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "endless chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 1_000_000,
    "negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello",
    "a chunk that ends early": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5000\r\nhello",
    "a header that is none": b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nETag: \0\r\nLast-Modified: \0\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("raw", WIRE.values(), ids=WIRE.keys())
# urllib3 leaves a socket to the garbage collector where Content-Length comes twice or the chunks are none.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_http_that_is_none(raw: bytes):
    with RawServer(lambda line: [raw]) as server:
        store = S3Store(replace(Endpoint(server.url).settings(), request_timeout_s=5.0), clock=SystemClock())
        for verb in ("list", "head", "put", "get"):
            with pytest.raises(Unavailable) as caught:
                VERBS[verb].call(store)
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 1000
        store.close()
    del caught
    gc.collect()  # here, and not in a test that expects no warning

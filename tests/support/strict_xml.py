"""The XML of the strict double: answers as R2 writes them, and requests as it reads them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from r2fs.model.records import ListPage

HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def error(code: str, message: str) -> bytes:
    return f"{HEAD}<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>".encode()


def listing(
    bucket: str, query: Mapping[str, str], page: ListPage, next_token: str | None, url: bool
) -> bytes:
    def text(value: str) -> str:
        return quote(value) if url else escape(value)

    lines = [HEAD, f'<ListBucketResult xmlns="{SPACE}">', f"<Name>{bucket}</Name>"]
    lines += [f"<Prefix>{text(query.get('prefix', ''))}</Prefix>", "<EncodingType>url</EncodingType>" * url]
    lines.append(f"<KeyCount>{len(page.objects) + len(page.prefixes)}</KeyCount><MaxKeys>1000</MaxKeys>")
    lines.append(f"<IsTruncated>{'true' if next_token else 'false'}</IsTruncated>")
    if next_token is not None:
        lines.append(f"<NextContinuationToken>{escape(next_token)}</NextContinuationToken>")
    for info in page.objects:
        seconds, rest = divmod(info.modified_ns, 1_000_000_000)
        date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1_000_000:03d}Z"
        lines.append(
            f"<Contents><Key>{text(info.key)}</Key><LastModified>{date}</LastModified>"
            f"<ETag>&quot;{info.etag}&quot;</ETag><Size>{info.size}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )
    lines += [f"<CommonPrefixes><Prefix>{text(p)}</Prefix></CommonPrefixes>" for p in page.prefixes]
    return "".join([*lines, "</ListBucketResult>"]).encode()


def copied(tag: str, etag: str) -> bytes:
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    return (
        f'{HEAD}<{tag} xmlns="{SPACE}"><LastModified>{now}</LastModified>'
        f"<ETag>&quot;{etag}&quot;</ETag></{tag}>"
    ).encode()


def upload_begun(bucket: str, key: str, upload_id: str) -> bytes:
    tag = "InitiateMultipartUploadResult"
    return (
        f'{HEAD}<{tag} xmlns="{SPACE}"><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>'
        f"<UploadId>{upload_id}</UploadId></{tag}>"
    ).encode()


def completed(bucket: str, key: str, etag: str) -> bytes:
    tag = "CompleteMultipartUploadResult"
    return (
        f'{HEAD}<{tag} xmlns="{SPACE}"><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>'
        f"<ETag>&quot;{etag}&quot;</ETag></{tag}>"
    ).encode()


def deleted(refused: Iterable[str]) -> bytes:
    """A quiet answer: it names those alone that are there still."""
    errors = (
        f"<Error><Key>{escape(key)}</Key><Code>ObjectLockedByBucketPolicy</Code><Message>It is locked.</Message></Error>"
        for key in refused
    )
    return f'{HEAD}<DeleteResult xmlns="{SPACE}">{"".join(errors)}</DeleteResult>'.encode()


def keys_to_delete(body: bytes) -> list[str] | None:
    """None: that is no XML."""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return None
    return [found.text or "" for found in root.iter() if found.tag.endswith("Key")]


def parts_to_complete(body: bytes) -> list[tuple[int, str]]:
    parts = []
    for part in (found for found in ElementTree.fromstring(body).iter() if found.tag.endswith("}Part")):
        values = {child.tag.rpartition("}")[2]: child.text or "" for child in part}
        parts.append((int(values["PartNumber"]), values["ETag"].strip('"')))
    return parts

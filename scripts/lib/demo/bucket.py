"""The bucket as any other S3 client sees it: an ordinary boto3 client that shares no code with r2fs.

Owns:  where the bucket is (SeaweedFS started for the demo, or R2 as R2_* variables say), and
       what is put there, compared and deleted by that client.
Never: touches an object outside `prefix`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.handlers import add_expect_header

from tests.support.servers import SeaweedFS

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CHUNK = 1 << 20

# What another program may expect to be told of a file with this extension.
TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "json": "application/json",
    "txt": "text/plain",
}


class DemoFailed(Exception):
    """Something is not as it has to be. The message says what."""


@dataclass(frozen=True)
class Bucket:
    name: str
    prefix: str  # empty, or ends with /
    endpoint_url: str
    region: str
    access_key_id: str
    secret_access_key: str
    real: bool

    @property
    def url(self) -> str:
        return f"{'r2' if self.real else 's3'}://{self.name}/{self.prefix}"

    @property
    def client(self) -> S3Client:
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            aws_session_token=os.environ.get("R2_SESSION_TOKEN") if self.real else None,
            # R2 refuses the checksums that boto3 adds by itself
            config=Config(
                request_checksum_calculation="when_required", response_checksum_validation="when_required"
            ),
        )
        # Each PUT would wait a second for an answer to "Expect" that R2 does not give
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client

    # ------------------------------------------------------------------ what the client does
    def put(self, name: str, body: bytes, content_type: str) -> None:
        self.client.put_object(Bucket=self.name, Key=self.prefix + name, Body=body, ContentType=content_type)

    def sizes(self) -> dict[str, int]:
        """Every object below the prefix, by its name without it. Directory markers are no files."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix)
        return {
            entry["Key"].removeprefix(self.prefix): entry["Size"]
            for page in pages
            for entry in page.get("Contents", [])
            if not entry["Key"].endswith("/")
        }

    def compare(self, expected: Mapping[str, Path]) -> int:
        """Every object is byte for byte the file, with the right type, and there is no other. The bytes."""
        found = self.sizes()
        wrong = [f"{name}: not in the bucket" for name in sorted(expected.keys() - found.keys())]
        wrong += [f"{name}: nobody made this" for name in sorted(found.keys() - expected.keys())]
        client = self.client
        for name in sorted(found.keys() & expected.keys()):
            answer = client.get_object(Bucket=self.name, Key=self.prefix + name)
            if not same_bytes(answer["Body"].iter_chunks(CHUNK), expected[name]):
                wrong.append(f"{name}: other bytes than {expected[name]}")
            if answer["ContentType"].partition(";")[0] != TYPES[name.rpartition(".")[2]]:
                wrong.append(f"{name}: Content-Type {answer['ContentType']}")
        if wrong:
            raise DemoFailed("the bucket is not as it should be:\n  " + "\n  ".join(wrong))
        return sum(found.values())

    def delete_all(self) -> int:
        """What was made below the prefix, directory markers too."""
        if not self.prefix:
            raise DemoFailed("a whole bucket is never emptied")
        client, count = self.client, 0
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix)
        for page in pages:
            keys = [entry["Key"] for entry in page.get("Contents", [])]
            if keys:
                client.delete_objects(Bucket=self.name, Delete={"Objects": [{"Key": key} for key in keys]})
            count += len(keys)
        return count


def same_bytes(chunks: Iterator[bytes], path: Path) -> bool:
    with path.open("rb") as file:
        return all(file.read(len(chunk)) == chunk for chunk in chunks) and not file.read(1)


# ------------------------------------------------------------------ where the bucket is
def real_bucket() -> Bucket | None:
    """The bucket that R2_* variables name, with a prefix of its own for this run; None without them."""
    env = os.environ
    name = env.get("R2_BUCKET") or env.get("R2_BUCKET_NAME")
    if not name and not env.get("R2_ACCESS_KEY_ID"):
        return None
    endpoint = env.get("R2_ENDPOINT")
    if not endpoint and (account := env.get("R2_ACCOUNT_ID")):
        jurisdiction = f".{env['R2_JURISDICTION']}" if env.get("R2_JURISDICTION") else ""
        endpoint = f"https://{account}{jurisdiction}.r2.cloudflarestorage.com"
    key, secret = env.get("R2_ACCESS_KEY_ID"), env.get("R2_SECRET_ACCESS_KEY")
    if not (name and endpoint and key and secret):
        raise DemoFailed(
            "for a real bucket set R2_BUCKET, R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY and R2_ACCOUNT_ID (or "
            "R2_ENDPOINT); for the embedded server set none of them"
        )
    prefix = time.strftime("r2fs-demo-%Y%m%d-%H%M%S/")
    return Bucket(name, prefix, endpoint, env.get("R2_REGION", "auto"), key, secret, real=True)


@contextmanager
def some_bucket(directory: Path) -> Iterator[Bucket]:
    """The real one, or one on a SeaweedFS of our own; afterwards as if we had never been there."""
    bucket = real_bucket()
    if bucket is not None:
        try:
            yield bucket
        finally:
            bucket.delete_all()
        return
    server = SeaweedFS(directory, bucket="studio")
    try:
        at = server.endpoint
        yield Bucket(at.bucket, "", at.url, at.region, at.access_key, at.secret_key, real=False)
    finally:
        server.process.kill()  # its data goes too, so it need not be tidy, which takes it up to 15 s
        server.stop()

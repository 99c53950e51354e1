"""The server that all systems share: SeaweedFS on loopback, near or at a distance, and what it was asked.

Near is plain HTTP; far is TLS through the proxy of far.py, as R2 is.

Owns:  the processes of server and proxy, the buckets, what lies in them before a case begins, and the
       counts of requests, which are SeaweedFS's own: the same for every system, and free of charge.
Never: asks a bucket by S3 while a system is measured: what is there is seen through the filer.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from scripts.lib.bench.far import Distance, proxy
from scripts.lib.bench.tls import make_certificate
from scripts.lib.bench.work import CHUNK, content
from tests.support.servers import SeaweedFS, free_ports

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PART = 32 * CHUNK
SEEDERS = 4
DRAIN_S = 240.0  # s3fs sends a file at a distance in a third of a second
DIRECTORY = 1 << 31  # in the filer's modes
READS = "reads"  # the bucket that every system reads
TOTAL = re.compile(r'^SeaweedFS_s3_request_total\{bucket="([^"]+)",code="\d+",type="(\w+)"\} (\S+)', re.M)
SENT = re.compile(  # GETs that sent a body: SeaweedFS counts a HEAD as a GET
    r'^SeaweedFS_s3_time_to_first_byte_millisecond_count\{bucket="([^"]+)",type="GET"\} (\S+)', re.M
)
Requests = Counter[str]


class TooSlow(Exception):
    """A system has not done within the time limit what it owes the bucket."""


class Server:
    """SeaweedFS with a bucket for reading and one for each system to write."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        certificate = make_certificate(directory / "tls")
        self._tls_port = free_ports(1)[0]
        self.ca_file = str(certificate.authority)
        self._weed = SeaweedFS(
            directory,
            bucket=READS,
            options=[*certificate.server_options, f"-s3.port.https={self._tls_port}"],
        )
        endpoint = self._weed.endpoint
        self.url = endpoint.url
        self.access_key, self.secret_key, self.region = (
            endpoint.access_key,
            endpoint.secret_key,
            endpoint.region,
        )
        self._client = self._at(self.url)

    @property
    def pid(self) -> int:
        return self._weed.process.pid

    def stop(self) -> None:
        self._weed.stop()

    @contextmanager
    def far(self, distance: Distance, tls: bool = True) -> Iterator[str]:
        """A URL at which the same server is so far away."""
        port = self._tls_port if tls else int(self.url.rpartition(":")[2])
        with proxy(port, distance) as front:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{front}"

    def signed(self, keys: list[str], url: str | None = None) -> list[str]:
        """URLs of these keys of READS that need no signature, at `url` or near."""
        client = self._client if url is None else self._at(url)
        return [
            client.generate_presigned_url("get_object", Params={"Bucket": READS, "Key": key}) for key in keys
        ]

    def _at(self, url: str) -> S3Client:
        return boto3.client(
            "s3",
            endpoint_url=url,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(request_checksum_calculation="when_required", s3={"addressing_style": "path"}),
        )

    # ------------------------------------------------------------------ what lies there
    def make_buckets(self, names: list[str]) -> None:
        for name in names:
            self._client.create_bucket(Bucket=name)

    def seed_file(self, key: str, size: int) -> None:
        upload = self._client.create_multipart_upload(Bucket=READS, Key=key)["UploadId"]

        def send(number: int, body: bytes) -> Any:
            sent = self._client.upload_part(
                Bucket=READS, Key=key, UploadId=upload, PartNumber=number, Body=body
            )
            return {"PartNumber": number, "ETag": sent["ETag"]}

        parts: list[Any] = []
        held: list[bytes] = []
        for chunk in content(size):
            held.append(chunk)
            if len(held) * CHUNK == PART:
                parts.append(send(len(parts) + 1, b"".join(held)))
                held.clear()
        if held:
            parts.append(send(len(parts) + 1, b"".join(held)))
        self._client.complete_multipart_upload(
            Bucket=READS, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    def seed_files(self, keys: list[str], size: int) -> None:
        """Through the filer, which takes six times as many in a second as the S3 gateway."""
        body = b"".join(content(size))
        filer = urllib.parse.urlsplit(self._weed.filer_url).netloc

        def put(some: list[str]) -> None:
            with closing(http.client.HTTPConnection(filer, timeout=60)) as connection:
                for key in some:
                    connection.request("PUT", f"/buckets/{READS}/{key}", body)
                    with connection.getresponse() as answer:
                        answer.read()
                    if answer.status != 201:
                        raise OSError(f"SeaweedFS's filer answered {answer.status} to PUT {key}")

        with ThreadPoolExecutor(SEEDERS) as pool:
            list(pool.map(put, [keys[at::SEEDERS] for at in range(SEEDERS)]))

    def sizes(self, bucket: str, directory: str) -> dict[str, int]:
        """Name → size of the files in a directory of a bucket; without an S3 request."""
        names = {entry["FullPath"].rpartition("/")[2]: entry for entry in self._entries(bucket, directory)}
        return {name: entry["FileSize"] for name, entry in names.items() if not entry["Mode"] & DIRECTORY}

    def _entries(self, bucket: str, directory: str) -> list[dict[str, Any]]:
        request = urllib.request.Request(
            f"{self._weed.filer_url}/buckets/{bucket}/{directory}/?limit=100000",
            headers={"Accept": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                entries: list[dict[str, Any]] = json.load(answer)["Entries"] or []
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        return entries

    def files_below(self, bucket: str, directory: str) -> int:
        """Number of files in a directory of a bucket and below it; without an S3 request."""
        entries = self._entries(bucket, directory)
        below = [entry["FullPath"].rpartition("/")[2] for entry in entries if entry["Mode"] & DIRECTORY]
        return (
            len(entries) - len(below) + sum(self.files_below(bucket, f"{directory}/{name}") for name in below)
        )

    # ------------------------------------------------------------------ what it was asked
    def requests(self, bucket: str) -> Requests:
        """How many so far, by verb. HEAD also holds GETs without a body (404, 412)."""
        with urllib.request.urlopen(self._weed.metrics_url, timeout=30) as answer:
            text = answer.read().decode()
        found = Requests()
        for name, verb, count in TOTAL.findall(text):
            found[verb] += int(float(count)) if name == bucket else 0
        sent = sum(int(float(count)) for name, count in SENT.findall(text) if name == bucket)
        found["HEAD"], found["GET"] = found["GET"] - sent, sent
        return +found

    def quiet(self, bucket: str, quiet_s: float = 0.5, timeout_s: float = 60.0) -> Requests:
        """The requests so far, once none has come for `quiet_s`."""
        before, since = self.requests(bucket), time.monotonic()
        end = since + timeout_s
        while time.monotonic() - since < quiet_s:
            if time.monotonic() > end:
                raise TooSlow(f"requests for bucket {bucket} do not end within {timeout_s:.0f} s")
            time.sleep(0.05)
            now = self.requests(bucket)
            if now != before:
                before, since = now, time.monotonic()
        return before

    def until(self, bucket: str, directory: str, holds: Callable[[dict[str, int]], bool]) -> float:
        """Waits until what lies in `directory` is as `holds` wants it; the time then, CLOCK_MONOTONIC."""
        return self._wait(lambda: holds(self.sizes(bucket, directory)), f"{bucket}/{directory}")

    def until_count(self, bucket: str, directory: str, files: int) -> float:
        """Waits until `files` files lie in `directory` and below; the time then, CLOCK_MONOTONIC."""
        return self._wait(lambda: self.files_below(bucket, directory) == files, f"{bucket}/{directory}")

    def _wait(self, holds: Callable[[], bool], where: str) -> float:
        end = time.monotonic() + DRAIN_S
        while not holds():
            if time.monotonic() > end:
                raise TooSlow(f"{where} is not as it should be after {DRAIN_S:.0f} s")
            time.sleep(0.05)
        return time.monotonic()

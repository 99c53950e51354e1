"""Buckets as another client than r2fs sees them: a directory by its files, a server by boto3.

Owns:  how objects are read as files, directories and links.
Never: uses r2fs to look.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.crash.manifest import DIRECTORY, FILE, LINK, View
from tests.support.servers import Endpoint

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SUFFIX = ".rclonelink"


class Folder:
    """A `file://` bucket."""

    small_parts = True
    directories = True

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir()

    def settings(self) -> dict[str, Any]:
        return {"scheme": "file", "name": str(self._root)}

    def put(self, name: str, data: bytes) -> None:
        temporary = self._root / ".r2fs" / "another client's"
        temporary.write_bytes(data)
        (self._root / name).parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(self._root / name)

    def view(self, area: str) -> View:
        found: View = {}
        for directory, names, files in os.walk(self._root / area):
            base = os.path.relpath(directory, self._root / area)
            for name in names:
                if self._is_object(Path(directory) / name):
                    found[os.path.normpath(f"{base}/{name}")] = (DIRECTORY, b"", 0)
            for name in files:
                path = os.path.normpath(f"{base}/{name}")
                data = (Path(directory) / name).read_bytes()
                _object(found, path, data)
        return found

    def _is_object(self, directory: Path) -> bool:
        """An empty directory is one only with a side file, which is named by the key."""
        key = f"{directory.relative_to(self._root)}/"
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        marker = self._root / ".r2fs" / "meta" / name[:2] / f"{name}-dir.json"
        return marker.exists() or any(
            not path.is_dir() or self._is_object(path) for path in directory.iterdir()
        )


class Server:
    """A bucket behind S3."""

    small_parts = False
    # SeaweedFS takes a folder that it has made for a file as that folder's marker: HEAD finds it, a conditional
    # PUT of the marker is refused, and with its last file the folder goes. R2 has no folders.
    directories = False

    def __init__(self, endpoint: Endpoint, prefix: str) -> None:
        import boto3

        self._endpoint = endpoint
        self._prefix = prefix
        self._s3: S3Client = boto3.client(
            "s3",
            endpoint_url=endpoint.url,
            region_name=endpoint.region,
            aws_access_key_id=endpoint.access_key,
            aws_secret_access_key=endpoint.secret_key,
        )

    def settings(self) -> dict[str, Any]:
        endpoint = self._endpoint
        return {
            "scheme": "s3",
            "name": endpoint.bucket,
            "prefix": self._prefix,
            "endpoint_url": endpoint.url,
            "region": endpoint.region,
            "credentials": {
                "access_key_id": endpoint.access_key,
                "secret_access_key": endpoint.secret_key,
            },
        }

    def put(self, name: str, data: bytes) -> None:
        self._s3.put_object(Bucket=self._endpoint.bucket, Key=self._prefix + name, Body=data)

    def view(self, area: str) -> View:
        found: View = {}
        top, bucket = f"{self._prefix}{area}/", self._endpoint.bucket
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=top):
            for each in page.get("Contents", []):
                path = each["Key"][len(top) :]
                above = path.rstrip("/").split("/")[: None if path.endswith("/") else -1]
                for count in range(1, len(above) + 1):
                    found["/".join(above[:count])] = (DIRECTORY, b"", 0)
                if path and not path.endswith("/"):
                    body = self._s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()
                    _object(found, path, body)
        return found


def _object(found: View, path: str, data: bytes) -> None:
    if path.endswith(SUFFIX):
        found[path.removesuffix(SUFFIX)] = (LINK, data, 0)
    else:
        found[path] = (FILE, data, 0)

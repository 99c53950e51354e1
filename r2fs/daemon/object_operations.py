"""Control operations on named objects, of a mount and a mirror: locate, paths, url, verify."""

from __future__ import annotations

import time
from dataclasses import asdict

from r2fs.daemon.control import Request
from r2fs.daemon.parts import MirrorParts, Parts
from r2fs.daemon.protocol import SIGNED_URL
from r2fs.model.addresses import LONGEST_URL_S, UrlRequest, path_below, public_url
from r2fs.model.errors import InvalidArgument, IsADirectory, NotFound, SettingsError
from r2fs.model.keys import SYMLINK_SUFFIX, printable
from r2fs.model.views import LocatedView

LOCAL = "local"  # the state of a file of `local_patterns`


class ObjectOperations:
    def __init__(self, parts: Parts | MirrorParts) -> None:
        self._engine = parts.engine
        self._receipts = parts.engine.receipts
        self._store = parts.store

    def locate(self, request: Request) -> dict[str, object]:
        """The object of `path`, without a request to the bucket."""
        return self._located(self._receipts.locate(request.text("path")))

    def _located(self, view: LocatedView) -> dict[str, object]:
        bucket = self._engine.settings.bucket
        name, key = bucket.split(view.key)
        where = {"bucket": name, "prefix": bucket.prefix, "several": bucket.several}
        return {**asdict(view), "key": key, **where}

    def paths(self, request: Request) -> dict[str, object]:
        """The paths, relative to the mount, that the object `key` may have, for each bucket in which it may be.

        `bucket`: the only one that is meant.
        """
        bucket, wanted = self._engine.settings.bucket, request.message.get("bucket")
        names = self._store.names if bucket.several else (bucket.name,)
        found = []
        for name in names if wanted is None else {wanted} & set(names):
            key = f"{name}/{request.text('key')}" if bucket.several else request.text("key")
            path = path_below(key, bucket.prefix)
            if path is not None:
                target = path.removesuffix(SYMLINK_SUFFIX)
                found.append({"bucket": name, "paths": [path] if target == path else [target, path]})
        return {"found": found, "several": bucket.several}

    def url(self, request: Request) -> dict[str, object]:
        """A URL of `path`: presigned for `expires_s`, or `public`. No request is sent."""
        view = self._receipts.locate(request.text("path"))
        put = request.flag("put")
        _check_has_url(view, request.text("path"), put)
        if request.flag("public"):
            return {**self._located(view), SIGNED_URL: self._public(view.key), "public": True}
        expires_s = request.number("expires_s", 3600) or 0
        if not 1 <= expires_s <= LONGEST_URL_S:
            raise InvalidArgument(f"a presigned URL lives from 1 s to {LONGEST_URL_S} s (7 days)")
        name = request.message.get("download")
        wish = UrlRequest(int(expires_s), put, name if isinstance(name, str) else None)
        signed = self._store.presign(view.key, wish)
        ends_s = time.time() + wish.expires_s
        return {
            **self._located(view),
            SIGNED_URL: signed.url,
            "public": False,
            "ends_s": ends_s if signed.ends_s is None else min(ends_s, signed.ends_s),
            "temporary": signed.temporary,
            "credentials_end_s": signed.ends_s,
        }

    def _public(self, key: str) -> str:
        """Below the bucket's own public address; else, with the bucket's name before the key, below the mount's."""
        bucket = self._engine.settings.bucket
        name, within = bucket.split(key)
        own = bucket.member(name).public_url if bucket.several else None
        if own is not None:
            return public_url(own, within)
        if self._engine.settings.public_url is not None:
            return public_url(self._engine.settings.public_url, key)
        where = f" in [buckets.{name}] of the settings file" if bucket.several else " (R2_PUBLIC_URL)"
        raise SettingsError(
            f"{name if bucket.several else bucket.url}: no public address is known: set public_url{where} to the "
            "r2.dev subdomain or the custom domain of the bucket, if it has one"
        )

    def verify(self, request: Request) -> dict[str, object]:
        """Compare files at and below `paths` with the bucket."""
        return asdict(self._receipts.check(request.paths()))


def _check_has_url(view: LocatedView, path: str, put: bool) -> None:
    name = printable(path or "/")
    if view.is_dir or view.key.endswith("/") or not view.key:
        raise IsADirectory(f"{name} is a directory: a URL is for a file")
    if view.state == LOCAL:
        raise InvalidArgument(f"{name} stays on this host (local_patterns): it has no object, and no URL")
    if not view.known and not put:
        raise NotFound(f"{name}: no such file in the mount (--put makes a URL to upload a new one)")

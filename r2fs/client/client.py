"""Client: the calls of r2fs.client, over a mount or a store in a process of its own.

Owns:    the choice between the two, files of the caller, and downloads under a name of their own until they are whole.
Threads: a client may be used by any number of threads.
Fails:   client.errors.Error; OSError of the caller's own files.
"""

from __future__ import annotations

import io
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self, overload

from r2fs.client import errors
from r2fs.client.backend import Backend, UrlWish
from r2fs.client.mounted import Mounted
from r2fs.client.process import StoreClient
from r2fs.client.targets import Source, Target, path_of
from r2fs.daemon import client as daemons
from r2fs.daemon.client import Daemon
from r2fs.model import identity
from r2fs.model.settings import Settings, places
from r2fs.model.settings.loading import settings_of
from r2fs.model.settings.sources import gather

HOUR_S = 3600.0


class Client:
    """A bucket. Objects are named by keys ("segments/7.wav", "r2://BUCKET/KEY") or by paths in the mount."""

    def __init__(self, where: Target | None = None, *, environ: Mapping[str, str] | None = None) -> None:
        """Use the mount at or above the path `where`, or the bucket of a URL or of a name in the settings file.

        Without `where` the bucket is that of the settings (R2FS_URL, R2_BUCKET, STORAGE_BUCKET_NAME …). A running
        mount of the bucket is used; without one, a store in a process of its own.
        """
        self._environ = dict(os.environ if environ is None else environ)
        with errors.translated():
            self._backend = _backend(where, self._environ)

    @property
    def is_mounted(self) -> bool:
        return isinstance(self._backend, Mounted)

    def upload(self, source: Source, target: Target, *, content_type: str | None = None) -> str:
        """Store a file, bytes, or the rest of a binary file; returns the key.

        On a mount it returns when the bytes are on this host's disk and in the journal; `wait` confirms the upload.
        Without a mount it returns when they are in the bucket.
        """
        with _opened(source) as file:
            return self._backend.upload(file, target, content_type)

    @overload
    def download(self, target: Target) -> bytes: ...
    @overload
    def download(self, target: Target, destination: str | os.PathLike[str]) -> Path: ...
    def download(self, target: Target, destination: str | os.PathLike[str] | None = None) -> bytes | Path:
        """Return the object's bytes; with `destination`, write them to that file, which is replaced when they are whole."""
        if destination is None:
            with tempfile.TemporaryFile() as file:
                self._backend.download(target, file)
                file.seek(0)
                return file.read()
        path = Path(destination)
        part = path.with_name(f".r2fs-{secrets.token_hex(8)}.part")
        try:
            with part.open("xb") as file:
                self._backend.download(target, file)
            os.replace(part, path)
        except BaseException:
            with suppress(FileNotFoundError):
                part.unlink()
            raise
        return path

    def url(
        self,
        target: Target,
        *,
        expires_s: float = HOUR_S,
        public: bool = False,
        put: bool = False,
        download: str | None = None,
    ) -> str:
        """A URL of the object, made at once and without a request, also while its upload is on its way.

        Presigned, for `expires_s` (1 s to 7 days); `put`: to upload to; `download`: the name under which browsers save
        it; `public`: below the setting `public_url`, without an end.
        """
        return self._backend.url(target, UrlWish(expires_s, public, put, download))

    def delete(self, target: Target) -> None:
        """Delete the object. No error for one that is not there."""
        self._backend.delete(target)

    def exists(self, target: Target) -> bool:
        return self._backend.exists(target)

    def wait(self, *targets: Target, timeout_s: float | None = None) -> None:
        """Return when the bucket holds exactly what was uploaded to each target, and not what was deleted.

        NotConfirmed when time is up, Replaced for another writer's version, Refused for what will not be stored.
        """
        if targets:
            self._backend.wait(list(targets), timeout_s)

    def close(self) -> None:
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _backend(where: Target | None, environ: Mapping[str, str]) -> Backend:
    path = None if where is None else path_of(where)
    if path is not None:
        daemon = daemons.owner_of(path, daemons.daemons(environ))
        if daemon is None:
            raise errors.InvalidTarget(f"{path} is in no mount of r2fs whose daemon answers")
        return Mounted(daemon)
    target = None if where is None else os.fspath(where)
    settings = settings_of(gather(target, environ=environ, warn=False))
    daemon = _mount_of(settings, environ)
    if daemon is not None:
        return Mounted(daemon)
    if settings.bucket.several:
        raise errors.InvalidTarget(
            f"{settings.bucket.url} is several buckets: without a mount of them, name one"
        )
    return StoreClient(settings.bucket, target, environ)


def _mount_of(settings: Settings, environ: Mapping[str, str]) -> Daemon | None:
    """The daemon of a running mount of this bucket and prefix, by the name of its socket."""
    slugs = {places.slug(settings.bucket), *map(places.slug, identity.spellings(settings.bucket))}
    for daemon in daemons.daemons(environ, settings.run_dir):
        if daemon.socket.stem.rpartition("-")[0] in slugs:
            return daemon
    return None


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            yield file
    else:
        yield source

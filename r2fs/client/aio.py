"""The calls of Client for asyncio: each runs in a thread of the loop's executor.

A cancelled call stops waiting; the work that it began is carried out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self, overload

from r2fs.client.client import HOUR_S, Client
from r2fs.client.targets import Source, Target


class AsyncClient:
    """A Client for asyncio."""

    def __init__(self, where: Target | None = None, *, environ: Mapping[str, str] | None = None) -> None:
        self._client = Client(where, environ=environ)

    async def upload(self, source: Source, target: Target, *, content_type: str | None = None) -> str:
        return await asyncio.to_thread(self._client.upload, source, target, content_type=content_type)

    @overload
    async def download(self, target: Target) -> bytes: ...
    @overload
    async def download(self, target: Target, destination: str | os.PathLike[str]) -> Path: ...
    async def download(
        self, target: Target, destination: str | os.PathLike[str] | None = None
    ) -> bytes | Path:
        if destination is None:
            return await asyncio.to_thread(self._client.download, target)
        return await asyncio.to_thread(self._client.download, target, destination)

    async def url(
        self,
        target: Target,
        *,
        expires_s: float = HOUR_S,
        public: bool = False,
        put: bool = False,
        download: str | None = None,
    ) -> str:
        return await asyncio.to_thread(
            self._client.url, target, expires_s=expires_s, public=public, put=put, download=download
        )

    async def delete(self, target: Target) -> None:
        await asyncio.to_thread(self._client.delete, target)

    async def exists(self, target: Target) -> bool:
        return await asyncio.to_thread(self._client.exists, target)

    async def wait(self, *targets: Target, timeout_s: float | None = None) -> None:
        await asyncio.to_thread(self._client.wait, *targets, timeout_s=timeout_s)

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

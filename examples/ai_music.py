"""AI Music Generator: a worker writes {job_id}.wav, an API elsewhere sends the browser to it.

The bucket is that of STORAGE_ENDPOINT_URL, STORAGE_BUCKET_NAME and their like, whether it is mounted here or not;
R2FS_URL=file:///srv/music keeps the files on this host. Neither side imports boto3.
"""

from typing import Any

from r2fs.client import AsyncClient, Client, Error, NotFound


class Worker:
    def __init__(self, client: Client) -> None:
        self.client = client

    def finish(self, job_id: str, wav: bytes) -> dict[str, Any]:
        """What the job's record keeps. An upload that is not confirmed raises: the job has failed."""
        key = self.client.upload(wav, f"{job_id}.wav", content_type="audio/wav")
        self.client.wait(key, timeout_s=120)
        return {"status": "completed", "storage_key": key, "storage_type": "s3"}


class Api:
    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def redirect(self, record: dict[str, Any]) -> tuple[int, str]:
        """Status and Location of the answer; who may have the URL is checked before."""
        key = record.get("storage_key")
        try:
            if not key or not await self.client.exists(key):
                raise NotFound(f"{key}: no such result")
            return 307, await self.client.url(key, expires_s=3600)
        except NotFound as error:
            return 404, str(error)
        except Error as error:
            return 500, str(error)

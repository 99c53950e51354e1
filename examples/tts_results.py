"""TTS job results: one object for each job, whose key is the job's id; its type is kept beside the bytes."""

import base64
import logging
from pathlib import Path
from typing import Any

from r2fs import client

log = logging.getLogger(__name__)
Answer = tuple[int, dict[str, Any]]


class Results:
    def __init__(self, mount: Path, status: dict[str, Any]) -> None:
        self.mount = mount
        self.status = status

    def store(self, job: str, audio_base64: str, mime_type: str) -> Answer:
        """The object first, then the status: a job is completed when the bucket has its result."""
        try:
            client.upload(base64.b64decode(audio_base64), self.mount / job, content_type=mime_type)
            client.wait(self.mount / job, timeout_s=60)
        except client.Error as error:
            log.error("job %s: %s: %s", job, type(error).__name__, error)
            return 500, {"error": "the result could not be stored"}
        self.status[job] = {"status": "completed", "mimeType": mime_type}
        return 200, self.status[job]

    def load(self, job: str) -> Answer:
        try:
            audio = client.download(self.mount / job)
        except client.NotFound:
            return 404, {"error": "Audio result not found"}
        except client.Error as error:
            log.error("job %s: %s: %s", job, type(error).__name__, error)
            return 500, {"error": type(error).__name__}
        return 200, {"audio": base64.b64encode(audio).decode(), "mimeType": self.status[job]["mimeType"]}

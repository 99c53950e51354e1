"""Auto Shorts: users/USER/projects/PROJECT/…, the deletion of a project with its report, and old keys moved."""

import json
import subprocess
from pathlib import Path
from typing import Any

from r2fs import client

FOLDERS = {"audio", "image", "video"}


class Storage:
    def __init__(self, mount: Path) -> None:
        self.mount = mount

    def project(self, user: str | None, project: str) -> Path:
        return self.mount / "users" / (user or "default") / "projects" / project

    def upload_scene(self, source: Path, folder: Path, scene: str, kind: str = "image") -> str:
        """Store media of a scene; returns the key. A path always ends with the file's name."""
        if kind not in FOLDERS:
            raise ValueError(f"{kind} is none of {FOLDERS}")
        return client.upload(source, folder / "scenes" / scene / kind / source.name)

    def upload_output(self, source: Path, folder: Path) -> str:
        return client.upload(source, folder / "output" / source.name)

    def delete(self, folder: Path) -> dict[str, Any]:
        """Delete a project or a scene: deleted_count, failed_count, total_bytes and the first errors."""
        return dict(_report("rm", "-r", str(folder)))

    def migrate(self, url: str, old_to_new: Path) -> list[dict[str, Any]]:
        """Move old keys by a CSV; returns the rows that failed. The database follows the results file alone."""
        return list(_report("migrate", url, "--map", str(old_to_new))["failed"])


def _report(*words: str) -> Any:
    done = subprocess.run(["r2fs", *words, "--json"], capture_output=True, text=True, check=False)
    return json.loads(done.stdout)

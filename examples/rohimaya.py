"""Rohimaya: manuscripts and audiobooks: r2fs mount r2:// ROOT --bucket manuscripts --bucket audiobooks

The database has `audiobooks/USER/JOB/FILE`: the bucket, then the key, which is the path below ROOT.
"""

import shutil
from pathlib import Path

from r2fs import client

CLICK_S, MAIL_S = 3600, 7 * 86400


class Library:
    def __init__(self, root: Path) -> None:
        self.root = root

    def upload(self, source: Path, bucket: str, user: str, job: str) -> str:
        """Store a manuscript or a finished book; returns what the database keeps, when the bucket has the file."""
        kept = f"{bucket}/{user}/{job}/{source.name}"
        client.upload(source, self.root / kept)
        client.wait(self.root / kept)
        return kept

    def link(self, kept: str, expires_s: int = CLICK_S, save_as: str | None = None) -> str:
        return client.url(self.root / kept, expires_s=expires_s, download=save_as)

    def public_link(self, kept: str) -> str:
        return client.url(self.root / kept, public=True)

    def delete_user(self, user: str) -> None:
        for bucket in ("manuscripts", "audiobooks"):
            if (self.root / bucket / user).exists():
                shutil.rmtree(self.root / bucket / user)
                client.wait(self.root / bucket)

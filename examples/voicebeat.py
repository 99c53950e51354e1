"""VoiceBeat: segments, layers and the catalogue, in a mount of the bucket `voicebeat-audio`.

Cache, downloads, uploads in the background and their repetition are the mount's. For development, and to roll back:
the same class on `r2fs mount file:///srv/voicebeat DIR`.
"""

import json
import shutil
from pathlib import Path

from pydub import AudioSegment

from r2fs.client import Client


class Storage:
    def __init__(self, mount: Path) -> None:
        self.root = mount
        self.client = Client(mount)

    def catalog(self) -> dict[str, dict[str, str]]:
        return dict(json.loads((self.root / "catalog/samples.json").read_text()))

    def sample(self, sample_id: str) -> Path:
        return self.root / self.catalog()[sample_id]["r2_key"]

    def put_file(self, source: Path, key: str, background: bool = True) -> str:
        """A presigned URL for an hour: at once, or with background=False when the bucket has the file."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, path)
        if not background:
            self.client.wait(path)
        return self.client.url(path)

    def layer(self, layer_id: str, segments: list[str], scratch: Path) -> str:
        parts = [AudioSegment.from_file(self.root / f"segments/{each}.wav") for each in segments]
        made = scratch / f"{layer_id}.wav"
        sum(parts, AudioSegment.empty()).export(made, format="wav").close()
        return self.put_file(made, f"layers/{layer_id}.wav")

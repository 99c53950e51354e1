"""Build hook: a wheel that is built from a clone says from which commit. Writes nothing into the clone."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]  # generic only in newer releases
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or not (Path(self.root) / ".git").exists():
            return
        try:
            done = subprocess.run(
                ["git", "-C", self.root, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True
            )
        except OSError:
            return  # no git here: the version says no commit
        if done.returncode == 0:
            self._directory = tempfile.TemporaryDirectory()
            path = Path(self._directory.name) / "_commit"
            path.write_text(done.stdout)
            build_data["force_include"][str(path)] = "r2fs/_commit"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_directory"):
            self._directory.cleanup()

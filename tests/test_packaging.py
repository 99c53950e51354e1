"""What an installation holds: exactly the modules of the clone, from a clone that nobody may write to."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from r2fs import __version__

PACKAGED = (
    "pyproject.toml",
    "README.md",
    "SEMANTICS.md",
    "CHANGELOG.md",
    "LICENSE",
    "r2fs",
    "hatch_build.py",
)


@pytest.fixture(scope="module")
def wheel(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """Built without a network, from a read-only copy that holds what an older build left in it."""
    base = tmp_path_factory.mktemp("packaging")
    clone = base / "clone"
    clone.mkdir()
    for name in PACKAGED:
        source = repo_root / name
        if source.is_dir():
            shutil.copytree(source, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, clone / name)
    stale = clone / "build" / "lib" / "r2fs"
    stale.mkdir(parents=True)
    (stale / "removed_long_ago.py").write_text("")
    before = {path: path.stat().st_mtime_ns for path in clone.rglob("*")}
    for path in (clone, *before):
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*_as_somebody_else(clone), *command, "--no-cache-dir", "--wheel-dir", base / "out", clone],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in clone.rglob("*")} == before
    (built,) = (base / "out").glob("*.whl")
    return zipfile.Path(built)


def _as_somebody_else(clone: Path) -> list[str]:
    """Root may write anywhere: without that right, it is as others are."""
    if os.geteuid() != 0:
        return []
    capabilities = "-dac_override,-dac_read_search,-fowner"
    return ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}", "--no-new-privs"]


def names(wheel: zipfile.Path) -> set[str]:
    return {name for name in wheel.root.namelist() if not name.endswith("/")}


def test_the_wheel_holds_exactly_the_modules_of_the_clone(wheel, repo_root):
    package = {
        path.relative_to(repo_root).as_posix()
        for path in (repo_root / "r2fs").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in names(wheel) if ".dist-info/" not in name}
    assert held == package
    assert "r2fs/py.typed" in held


def test_the_wheel_says_version_licence_and_command(wheel):
    (info,) = (path for path in wheel.iterdir() if path.name.endswith(".dist-info"))
    metadata = (info / "METADATA").read_text()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert "r2fs = r2fs.cli.main:main" in (info / "entry_points.txt").read_text()
    assert any(re.search(r"licenses/LICENSE$", name) for name in names(wheel))


def test_a_clone_is_built_where_git_is_not_installed(repo_root, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("hatch_build", repo_root / "hatch_build.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    hook = module.CommitHook(str(tmp_path), {}, None, None, str(tmp_path), "wheel")
    data: dict[str, dict[str, str]] = {"force_include": {}}
    hook.initialize("standard", data)
    hook.finalize("standard", data, "")
    assert data == {"force_include": {}}

"""A Debian package of r2fs, from this clone and the Python packages that are installed beside it.

    python -m scripts.lib.deb DIRECTORY [--fast]     prints the package's path; --fast: not compressed

Asks no registry: the packages are copied from the environment, in the versions that the tests ran with.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from click.shell_completion import ShellComplete, get_completion_class

from r2fs import __version__
from r2fs.cli.completion import VARIABLE
from r2fs.cli.main import cli
from r2fs.cli.version import commit
from r2fs.daemon import installation
from scripts.lib import man
from scripts.lib.licences import required

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "usr/lib/r2fs"  # apart from Debian's own Python packages, which may be older
# rich loads the first three for source code and Markdown, which r2fs prints none of.
UNUSED = ("pygments", "markdown_it", "mdurl", "boto3/examples", "boto3/data")
# Of botocore's descriptions of AWS's services: S3, and where a profile's credentials come from.
SERVICES = frozenset({"s3", "sts", "sso", "sso-oidc", "signin"})
PROGRAM = f"""#!/usr/bin/python3
import sys

sys.path.insert(0, "/{LIBRARY}")
from r2fs.cli.main import main

main()
"""
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/r2fs",
    "zsh": "usr/share/zsh/vendor-completions/_r2fs",
    "fish": "usr/share/fish/vendor_completions.d/r2fs.fish",
}
SCRIPTS = {
    "postinst": f"""#!/bin/sh
set -e
python3 -m compileall -q /{LIBRARY} || true
[ ! -d /run/systemd/system ] || systemctl daemon-reload
""",
    "prerm": f"""#!/bin/sh
set -e
find /{LIBRARY} -name __pycache__ -type d -prune -exec rm -rf {{}} +
""",
}


def build(target: Path, fast: bool) -> Path:
    """Build the package in the directory `target`; return its path."""
    architecture = _said("dpkg", "--print-architecture")
    name = f"r2fs_{__version__}_{architecture}.deb"
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        _fill(tree)
        _control(tree, architecture)
        compression = ["-Znone"] if fast else ["-Zxz"]
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", *compression, "--build", tree, target / name],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return target / name


def fill_library(library: Path) -> None:
    """Copy r2fs and what it needs of the packages that it imports, in the versions of this environment."""
    shutil.copytree(ROOT / "r2fs", library / "r2fs", ignore=shutil.ignore_patterns("__pycache__"))
    if (found := commit()) is not None:
        (library / "r2fs" / "_commit").write_text(found + "\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for distribution in required([text.split(">=")[0] for text in project["dependencies"]]):
        _copy(distribution, library)
    remove(library / name for name in UNUSED)
    remove(
        entry
        for entry in (library / "botocore/data").iterdir()
        if entry.is_dir() and entry.name not in SERVICES
    )


def _fill(tree: Path) -> None:
    fill_library(tree / LIBRARY)
    _write(tree / "usr/bin/r2fs", PROGRAM, 0o755)
    helper = tree / "usr/sbin/mount.r2fs"
    helper.parent.mkdir(parents=True)
    helper.symlink_to("../bin/r2fs")
    for place, for_user in (("system", False), ("user", True)):
        _write(tree / "usr/lib/systemd" / place / installation.UNIT, _unit(for_user))
    for page, text in man.pages().items():
        folder = tree / "usr/share/man" / f"man{page[-1]}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{page}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    for shell, path in COMPLETIONS.items():
        kind = get_completion_class(shell)
        assert kind is not None
        _write(tree / path, ShellComplete.source(kind(cli, {}, "r2fs", VARIABLE)))
    documents = tree / "usr/share/doc/r2fs"
    for document in ("README.md", "SEMANTICS.md", "CHANGELOG.md", "SECURITY.md"):
        _write(documents / document, (ROOT / document).read_text())
    _write(documents / "copyright", (ROOT / "LICENSE").read_text())
    for example in examples(ROOT / "contrib"):
        _write(documents / "examples" / example.name, example.read_text())


def examples(contrib: Path) -> list[Path]:
    """Files to show, without the keys and variables that a user of the compose file keeps beside it."""
    return sorted(path for path in contrib.glob("[!.]*") if path.is_file())


def _unit(for_user: bool) -> str:
    """The unit without the mark of `r2fs service install`, which must not remove a file of the package."""
    return installation.unit_text(for_user, [installation.PACKAGED_PROGRAM]).removeprefix(installation.MARK)


def _copy(distribution: metadata.Distribution, library: Path) -> None:
    """Copy the files of an installed package, but for its programs and bytecode."""
    for file in distribution.files or ():
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        source = Path(str(distribution.locate_file(file)))
        if source.is_file():
            target = library / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def remove(paths: Iterable[Path]) -> None:
    """Remove files and whole directories, those that are there."""
    for path in list(paths):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _control(tree: Path, architecture: str) -> None:
    size = sum(path.stat().st_size for path in _files(tree)) >> 10
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    fields = {
        "Package": "r2fs",
        "Version": __version__,
        "Architecture": architecture,
        "Maintainer": "r2fs contributors <r2fs@example.org>",
        "Installed-Size": str(size),
        "Depends": f"python3 (>= {version}), fuse3",
        "Section": "net",
        "Priority": "optional",
        "Description": "Cloudflare R2 (or any S3) bucket as a local directory\n"
        " Mounts a bucket by FUSE. Programs read and write plain files; uploads run in the\n"
        " background, from a journal on the local disk.",
    }
    _write(tree / "DEBIAN/control", "".join(f"{name}: {value}\n" for name, value in fields.items()))
    for name, text in SCRIPTS.items():
        _write(tree / "DEBIAN" / name, text, 0o755)


def _files(tree: Path) -> Iterator[Path]:
    return (path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _said(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    words = [word for word in sys.argv[1:] if word != "--fast"]
    if len(words) != 1:
        print("usage: scripts/deb [DIRECTORY]", file=sys.stderr)
        return 2
    if not Path(words[0]).is_dir():
        print(f"scripts/deb: {words[0]} is no directory: make it, or name another", file=sys.stderr)
        return 2
    print(build(Path(words[0]), "--fast" in sys.argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())

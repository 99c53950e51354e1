"""Root directory of the container image: an interpreter, r2fs, the packages that it needs, and no more.

    python -m scripts.lib.image DIRECTORY      fills it, and prints its size

contrib/Containerfile runs it in its first stage. Asks no registry: everything is copied from the system and the
environment that it runs in. There is no shell, no package manager and no set-user-id program in the image: root
mounts by mount(2) alone.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from scripts.lib import deb

# Of the standard library: what neither r2fs nor its packages import.
UNUSED_MODULES = (
    "__phello__", "config-*", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages",
    "test", "tkinter", "turtledemo", "unittest", "venv", "LICENSE.txt", "_sysconfigdata*",
)  # fmt: skip
UNUSED_EXTENSIONS = ("_codecs_*", "_crypt*", "_dbm*", "_curses*", "_gdbm*", "_test*", "_tkinter*", "_xxtest*", "audioop*",
                     "nis*", "ossaudiodev*", "readline*", "xx*")  # fmt: skip
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
DIRECTORIES = {
    "dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "usr/sbin": 0o755, "tmp": 0o1777, "var/lib/r2fs": 0o700,
}  # fmt: skip
GRANTS = "/run/grants/credentials.json"  # written by the signing side-car: r2fs grant --renew
FILES = {
    "etc/passwd": "root:x:0:0:root:/var/lib/r2fs:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/r2fs/aws-config": f"[profile grants]\ncredential_process = /usr/bin/cat {GRANTS}\n",
}


def build(root: Path) -> None:
    """Fill the empty directory `root`."""
    for link, target in LINKS.items():
        (root / link).symlink_to(target)
    for name, mode in DIRECTORIES.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    for name, text in FILES.items():
        _write(root / name, text)
    _write(root / "usr/bin/r2fs", deb.PROGRAM, 0o755)
    python = Path(os.path.realpath(sys.executable))
    programs = {
        Path("/usr/bin/python3"): python,
        Path("/usr/bin/cat"): Path(shutil.which("cat") or "/bin/cat"),
    }
    for place, program in programs.items():
        _copy(program, root / place.relative_to("/"))
    standard = Path(sysconfig.get_path("stdlib"))
    modules = root / standard.relative_to("/")
    shutil.copytree(
        standard, modules, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", *UNUSED_MODULES)
    )
    deb.remove(found for pattern in UNUSED_EXTENSIONS for found in (modules / "lib-dynload").glob(pattern))
    library = root / deb.LIBRARY
    deb.fill_library(library)
    libraries = _libraries([*programs.values(), *root.rglob("*.so")])
    # glibc loads it when a thread is ended at the exit of the process, and aborts without it
    unwinders = {each.with_name("libgcc_s.so.1") for each in libraries if each.name == "libc.so.6"}
    for library_file in sorted(libraries | unwinders):
        _copy(library_file, root / library_file.parent.resolve().relative_to("/") / library_file.name)
    _compile(modules, standard, sourceless=True)
    _compile(library, Path("/", deb.LIBRARY))


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    """Shared libraries that they need, and the loader, by the names under which it looks for them."""
    said = subprocess.run(["ldd", *binaries], check=True, capture_output=True, text=True).stdout
    return {Path(name) for name in re.findall(r"^\t(?:\S+ => )?(/\S+) \(0x", said, re.MULTILINE)}


def _compile(directory: Path, place: Path, sourceless: bool = False) -> None:
    """Bytecode that is used as it is: the image is read-only, and without it each command would compile anew.

    `sourceless`: the sources are removed, and tracebacks lack their lines.
    """
    compileall.compile_dir(
        directory,
        quiet=1,
        legacy=sourceless,
        stripdir=str(directory),
        prependdir=str(place),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if sourceless:
        deb.remove(directory.rglob("*.py"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def size(root: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in files(root))


def main() -> int:
    if len(sys.argv) != 2 or (Path(sys.argv[1]).exists() and any(Path(sys.argv[1]).iterdir())):
        print("usage: python -m scripts.lib.image EMPTY-DIRECTORY", file=sys.stderr)
        return 2
    root = Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    build(root)
    print(f"{root}: {size(root) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

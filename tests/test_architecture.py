"""The floors and the "only" column, read from the sources: what no reviewer should have to watch.

Imports only go down; each foreign package has one door; threads start in one place; no
file names a machine, a registry or a download.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "r2fs"

FLOOR = {
    "mirror": 2,
    "model": 0,
    "store": 1,
    "disk": 1,
    "engine": 2,
    "bulk": 2,
    "drivers": 3,
    "daemon": 3,
    "doctor": 3,
    "cli": 4,
    "client": 4,
    "ui": 4,
}

# The rooms of the engine: each imports from those before it; then the verbs, and the module that builds them.
ROOMS = ("inodes", "pending", "content", "writeback", "files", "namespace", "recovery")
ON_TOP = ("fs", "build")
BESIDE = {
    "namespace": "files",
    "recovery": "namespace",
}  # a room, and the one in this order that it needs not

# Beside each other on one floor, or below and yet not for all: (importer, imported) → why it is so.
FORBIDDEN = {
    ("mirror", "store"): "a mirror sees the port ObjectStore",
    ("mirror", "engine"): "a mirror needs no mount",
    ("engine", "mirror"): "a mount needs no mirror",
    ("mirror", "bulk"): "a mirror has passes of its own",
    ("bulk", "mirror"): "bulk work needs no directory",
    ("store", "disk"): "a bucket knows no local disk",
    ("disk", "store"): "the local disk knows no bucket",
    ("drivers", "daemon"): "a driver is handed the verbs",
    ("drivers", "doctor"): "a diagnosis looks at the others, and nothing needs it",
    ("daemon", "doctor"): "a diagnosis looks at the others, and nothing needs it",
    ("engine", "store"): "the engine sees the port ObjectStore",
    ("bulk", "store"): "bulk work sees the port ObjectStore",
    ("bulk", "engine"): "bulk work needs no mount",
    ("engine", "bulk"): "bulk work needs no mount",
    ("client", "store"): "a program has no boto3 of ours in its process",
    ("client", "bulk"): "a program has no boto3 of ours in its process",
    ("client", "engine"): "a program has no mount in its process",
    ("client", "cli"): "a program has no click of ours in its process",
    ("cli", "client"): "commands use daemon/client.py",
    ("ui", "cli"): "the page is given what the command knows",
    ("ui", "engine"): "the page asks a daemon",
    ("ui", "store"): "the page asks a daemon",
    ("client", "ui"): "a program has no page in its process",
}
DRIVERS_ROOMS = ("kernel", "libfuse")  # each is a driver by itself; the modules above are for both

# Package → the only modules (a folder ends with /) that may import it.
ONLY = {
    "boto3": ("store/s3/session.py",),
    "botocore": ("store/s3/",),
    "s3transfer": ("store/s3/",),
    "urllib3": ("store/s3/client.py",),
    "diskcache": ("disk/cache/table.py",),
    "sqlite3": ("disk/journal/", "disk/database.py", "disk/database_file.py", "disk/check.py"),
    "click": ("cli/",),
    "rich": ("cli/",),
    "mfusepy": ("drivers/libfuse/libfuse_driver.py",),
    "fuse": ("drivers/libfuse/libfuse_driver.py",),
    "watchdog": ("disk/watch.py",),
    "prometheus_client": ("daemon/exposition.py",),
}

# importlib.import_module with a variable: which of the two depends on the libfuse that is there.
LOADED_BY_NAME = {"drivers/libfuse/libfuse_driver.py": [(0, "mfusepy"), (0, "fuse")]}

THREADS_START = ("mirror/upload.py", "daemon/threads.py", "drivers/", "bulk/", "store/s3/connections.py")
STARTERS = {"Thread", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor", "start_new_thread", "Process"}

# Never: what would run, or turn into objects, bytes that come from a bucket or a cache.
BANNED = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}

MAX_LINES = 600  # a module; 400 is the aim

MODULES = sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every imported module with its line, those inside functions and under TYPE_CHECKING too."""
    yield from LOADED_BY_NAME.get(name(path), ())
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides the floor"
            assert node.module
            yield node.lineno, node.module
            if node.module == "r2fs":
                for alias in node.names:
                    yield node.lineno, f"r2fs.{alias.name}"


def package_of(module: str) -> str | None:
    """`r2fs.disk.cache.cache` → `disk`; None for what is not ours or stands on no floor (`__init__`)."""
    parts = module.split(".")
    return parts[1] if parts[0] == "r2fs" and len(parts) > 1 and parts[1] in FLOOR else None


def test_every_package_stands_on_a_floor():
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages == set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_only_go_down(path):
    own = name(path).split("/")[0]
    if own not in FLOOR:
        assert name(path) in ("__init__.py", "__main__.py")
        return
    for line, module in imports(path):
        other = package_of(module)
        if other is None or other == own:
            continue
        assert FLOOR[other] <= FLOOR[own], f"{name(path)}:{line} imports {module}, which is above it"
        reason = FORBIDDEN.get((own, other))
        assert reason is None, f"{name(path)}:{line} imports {module}: {reason}"


def engine_floor(module: str) -> int:
    """Return a room's place in the order, or that of a module above all rooms."""
    return (*ROOMS, *ON_TOP).index(module.removeprefix("r2fs.engine.").split(".")[0])


@pytest.mark.parametrize("path", [path for path in MODULES if name(path).startswith("engine/")], ids=name)
def test_rooms_of_the_engine_import_only_those_below(path):
    if name(path) == "engine/__init__.py":
        return
    own = engine_floor("r2fs." + name(path).removesuffix(".py").replace("/", "."))
    for line, module in imports(path):
        if module.startswith("r2fs.engine."):
            assert engine_floor(module) <= own, f"{name(path)}:{line} imports {module}, which is above it"
            beside = BESIDE.get(name(path).split("/")[1])
            assert module.split(".")[2] != beside, f"{name(path)}:{line} imports {module}, which is beside it"


def test_every_room_of_the_engine_has_its_floor():
    rooms = {
        path.name for path in (PACKAGE / "engine").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert rooms == set(ROOMS)


def test_no_driver_imports_another():
    for own in DRIVERS_ROOMS:
        others = tuple(f"r2fs.drivers.{other}" for other in DRIVERS_ROOMS if other != own)
        for path in (PACKAGE / "drivers" / own).glob("*.py"):
            for line, module in imports(path):
                assert not module.startswith(others), f"{name(path)}:{line} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_foreign_packages_have_one_door(path):
    for line, module in imports(path):
        top = module.split(".")[0]
        assert top not in BANNED, f"{name(path)}:{line}: nothing is unpickled"
        assert top not in ONLY or name(path).startswith(ONLY[top]), (
            f"{name(path)}:{line} imports {top}: only {', '.join(ONLY[top])} may"
        )


def test_every_dependency_is_used_and_every_use_is_declared():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w-]", text)[0] for text in project["dependencies"]}
    distribution = {
        "prometheus_client": "prometheus-client",
        "fuse": "fusepy",
        "botocore": "boto3",
        "s3transfer": "boto3",
    }
    used = {
        distribution.get(top, top)
        for path in MODULES
        for _, module in imports(path)
        if (top := module.split(".")[0]) not in sys.stdlib_module_names
        and top != "r2fs"
        and not top.startswith("mypy_")  # types alone, for the checker
    }
    assert used == declared


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_threads_start_in_one_place(path):
    if name(path).startswith(THREADS_START):
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in STARTERS, (
                f"{name(path)}:{node.lineno} starts {called}: only {', '.join(THREADS_START)} do"
            )


STAGING = "disk/staging.py"
STAGING_DIRECTORIES = {"data_dir", "open_dir", "orphan_dir"}
STAGING_NAMES = {"data", "open", "orphans"}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_paths_in_staging_are_made_in_one_place(path):
    if name(path) == STAGING:
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in STAGING_DIRECTORIES, (
                f"{name(path)}:{node.lineno}: only {STAGING} builds paths there"
            )
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Div)
            and isinstance(node.right, ast.Constant)
        ):
            assert node.right.value not in STAGING_NAMES, (
                f"{name(path)}:{node.lineno}: only {STAGING} builds paths there"
            )


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_exception_is_swallowed(path):
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type else "everything"
        broad = node.type is None or caught in ("Exception", "BaseException")
        silent = all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
        assert not (broad and silent), f"{name(path)}:{node.lineno} catches {caught} and says nothing"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_are_short_and_say_what_they_own(path):
    lines = path.read_text().count("\n")
    assert lines <= MAX_LINES, f"{name(path)} has {lines} lines"
    assert ast.get_docstring(tree(path)) or lines == 0, f"{name(path)} does not say what it owns"


def imported(program: str) -> set[str]:
    """The modules in the process after `program`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print('\\n' + ' '.join(sys.modules))"],
        cwd=ROOT,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def parts(modules: set[str]) -> set[str]:
    """Packages, and those of r2fs with their room: `boto3`, `r2fs.mirror`."""
    return {".".join(module.split(".")[: 2 if module.startswith("r2fs.") else 1]) for module in modules}


# A command waits for each module that it imports, and a mount for its daemon's. Where a bound is in the way: does
# the command need what has come to it?
HEAVY = {
    "boto3",
    "botocore",
    "urllib3",
    "diskcache",
    "mfusepy",
    "fuse",
    "rich",
    "watchdog",
    "prometheus_client",
}
ROOMS_NOT_ASKED = {f"r2fs.{room}" for room in ("engine", "mirror", "bulk", "doctor", "ui", "client", "store")}
COMMANDS = [("--version", 155), ("--help", 155), ("status", 210)]  # and at most so many modules


@pytest.mark.parametrize(("words", "most"), COMMANDS)
def test_a_command_imports_what_it_needs(words, most, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    modules = imported(f"import r2fs.cli.main; r2fs.cli.main.run('r2fs', {words.split()})")
    assert parts(modules) & (HEAVY | ROOMS_NOT_ASKED) == set()
    assert len(modules) <= most


MOUNTING = (
    "import r2fs.cli.main, r2fs.cli.mount, r2fs.daemon.background, r2fs.daemon.reload, r2fs.daemon.service"
)
NOT_FOR_A_MOUNT = {
    "rich",
    "prometheus_client",
    "r2fs.mirror",
    "r2fs.bulk",
    "r2fs.doctor",
    "r2fs.ui",
    "r2fs.client",
}


def test_a_mount_imports_what_it_needs():
    local = imported(f"{MOUNTING}, r2fs.store.local.store")
    assert parts(local) & {"boto3", "botocore", "urllib3", *NOT_FOR_A_MOUNT} == set()
    assert len(local) <= 475
    remote = imported(f"{MOUNTING}, r2fs.store.s3.store")
    assert parts(remote) & {"boto3", "urllib3", *NOT_FOR_A_MOUNT} == set()  # boto3: once it is needed
    assert len(remote) <= 530


CLIENT = """
import sys
before = set(sys.modules)
import r2fs.client
foreign = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
assert foreign == {"r2fs"}, foreign
"""


def test_m4_the_client_imports_only_the_standard_library():
    subprocess.run([sys.executable, "-c", CLIENT], cwd=ROOT, check=True, timeout=60)


# ------------------------------------------------------------------ the engine's inside, and its tests
# those that may have an engine
ENGINE_TESTS = (
    "unit/engine/",
    "model/",
    "contract/",
    "crash/",
    "mount/",
    "power/",
)

# (file of tests/, attribute) → why it is not asked of tests/support/probes.py.
REACHES = {
    ("unit/engine/test_jobs.py", "_running"): "a test of DownloadQueue itself, without an engine",
    ("unit/engine/test_jobs.py", "_taken"): "a test of DownloadQueue itself, without an engine",
}


def private(word: object) -> bool:
    return isinstance(word, str) and word.startswith("_") and not word.startswith("__")


@cache
def inside_the_engine() -> frozenset[str]:
    """Private attributes and methods of the engine and of the disk's classes that it is made of."""
    found = set[str]()
    for path in MODULES:
        if not name(path).startswith(("engine/", "disk/")):
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                found.update(each.name for each in node.body if isinstance(each, ast.FunctionDef))
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return frozenset(filter(private, found))


def reaches(path: Path) -> Iterator[tuple[int, str]]:
    """Private names that a module of tests asks of anything but itself, those in setattr and patch.object too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            if ast.unparse(node.value) not in ("self", "cls", "super()"):
                yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            yield node.lineno, str(node.args[1].value)


def test_tests_ask_the_engine_through_its_probes():
    """What a test needs to see of its inside has a name in tests/support/probes.py, and there alone a path."""
    found = {
        (path.relative_to(ROOT / "tests").as_posix(), line, attribute)
        for folder in ENGINE_TESTS
        for path in (ROOT / "tests" / folder).rglob("*.py")
        for line, attribute in reaches(path)
        if attribute in inside_the_engine()
    }
    odd = sorted(f"{path}:{line}: {word}" for path, line, word in found if (path, word) not in REACHES)
    assert not odd, "\n".join(odd)
    assert set(REACHES) <= {(path, word) for path, _, word in found}, "an exception that nothing needs"


# ------------------------------------------------------------------ every file of the repository
IGNORED = {".git", ".venv", "node_modules", "__pycache__", "build", "dist"}
IGNORED |= {".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "r2fs.egg-info"}

# The hosts that a text of ours may name: R2's own, those of services that the store knows, this machine, made-up ones,
# and that in the name of SVG, of which nothing is fetched.
HOSTS = re.compile(
    r"""(^|\.)( (r2\.cloudflarestorage|cloudflare|amazonaws|storage\.googleapis|digitaloceanspaces|example)\.com | amazonaws\.com\.cn | r2\.dev | www\.w3\.org | example\.(org|net) | invalid | test )$
      | ^( … | localhost | 127\.\d+\.\d+\.\d+ | \[::1\] | 0\.0\.0\.0 | [A-Z<{$%].* | endpoint | host | proxy )$""",
    re.VERBOSE,
)
URL = re.compile(r"\bhttps?://([^\s/'\"`)>:\\,]+|\[[^]]*\])")
BARE_HOST = re.compile(r"(?<![\w./@{}-])((?:[a-z0-9-]+\.)+(?:org|com|io|net))(?![\w(.-])")
# Written so that this file does not hold what it looks for.
OTHER_MACHINE = re.compile(
    r"/[t]mp/setup|/[w]ork/|\.\./[s]hared|/[r]oot/\.|[p]yenv"
    r"|\b([R]2|[D]ESIGN|[S]TYLE|[K]ERNEL|[P]EERS|[S]YSTEMS)\.md"  # papers that a clone does not hold
)


def files() -> Iterator[Path]:
    waiting = [ROOT]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path.name in IGNORED or path.is_symlink():
                continue
            if path.is_dir():
                waiting.append(path)
            else:
                yield path


def texts() -> Iterator[tuple[str, int, str]]:
    for path in files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield path.relative_to(ROOT).as_posix(), number, line


def test_no_file_names_a_foreign_host():
    """Packages come from whatever registry the machine is set up for; tests stay on loopback."""
    found = [
        f"{path}:{number}: {host}"
        for path, number, line in texts()
        for host in [*URL.findall(line), *BARE_HOST.findall(line)]
        if not HOSTS.search(host)
    ]
    assert not found, "\n".join(found)


def test_no_file_knows_another_machine():
    found = [f"{path}:{number}: {line}" for path, number, line in texts() if OTHER_MACHINE.search(line)]
    assert not found, "\n".join(found)


def test_every_setting_does_something():
    """A setting that nothing reads is a promise that nobody keeps."""
    from dataclasses import fields

    from r2fs.model.settings import Bucket, Credentials, Settings

    read = "\n".join(path.read_text() for path in MODULES if not name(path).startswith("model/"))
    names = [field.name for kind in (Settings, Bucket, Credentials) for field in fields(kind)]
    names.remove("given")  # behind Bucket.url
    names.remove("label")  # behind identity
    assert [n for n in names if not re.search(rf"\.{n}\b", read)] == []

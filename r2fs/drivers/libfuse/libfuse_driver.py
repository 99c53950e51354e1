"""The portable driver: libfuse 3 through mfusepy, or libfuse 2 through fusepy.

Owns:    finding the library, the mount's options, the translation of errors to errnos, the loop.
Never:   translates an operation (callbacks.py) or resolves a path (paths.py).
Threads: serve() blocks its caller; libfuse starts threads of its own, which run the callbacks.
         unmount() may be called by any other thread.
Fails:   FuseMissing and MountError before the mount exists; Busy from unmount.

mfusepy and fusepy supply the C structures, the table of operations and fuse_main. Their own
wrappers around callbacks are replaced, because they lose what a file system needs: the
handle of ftruncate and futimens, rename's flags, names that are not UTF-8, and the errno of any
exception that is not an OSError; and they copy each read and write once more.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from r2fs.drivers import kmount
from r2fs.drivers.libfuse.callbacks import Callbacks
from r2fs.drivers.libfuse.cshapes import Config, Connection, Pointer
from r2fs.drivers.libfuse.paths import PathTable
from r2fs.drivers.mount_path import absolute, check_fuse, check_mount_point, set_readahead
from r2fs.model import causes
from r2fs.model.errors import FuseMissing, MountError, R2fsError
from r2fs.model.ports import Caller
from r2fs.model.settings import Settings
from r2fs.model.verbs import Verbs

log = logging.getLogger(__name__)

TTL_S = 1.0  # libfuse has one validity for all names: cached attributes may be older by so much
MAX_IO = 1 << 20  # bytes of one read or write: the kernel's limit of 256 pages (libfuse 2 stays at 128 KiB)
MAX_BACKGROUND = 64  # background requests in flight at once (RELEASE, large O_DIRECT reads)
MAX_THREADS = 256  # a reader that waits for the network holds one: enough remain for stat

# Capabilities that libfuse 3 requests by default (fuse_common.h), and that are switched off:
_ASYNC_READ = 1 << 0  # reads ahead would fill MAX_BACKGROUND where a few files are stuck, and stop all others
_SPLICE_READ = 1 << 9  # requests through a pipe: one more copy for writes from memory
_AUTO_INVAL_DATA = 1 << 12  # drops a file's pages when its mtime changes: we compare versions at open
_READDIRPLUS_AUTO = 1 << 14  # without this flag a listing always includes the attributes
_HANDLE_KILLPRIV = 1 << 20  # the kernel is to take set-user-id bits away on a write, not we
_UNWANTED = _ASYNC_READ | _SPLICE_READ | _AUTO_INVAL_DATA | _READDIRPLUS_AUTO | _HANDLE_KILLPRIV


class _Context(ctypes.Structure):
    """struct fuse_context, since 2.8."""

    _fields_ = [
        ("fuse", ctypes.c_void_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("pid", ctypes.c_int32),
        ("private_data", ctypes.c_void_p),
        ("umask", ctypes.c_uint32),
    ]


class _Connection2(ctypes.Structure):
    """struct fuse_conn_info of libfuse 2.9, which fusepy leaves out."""

    _fields_ = [
        ("proto_major", ctypes.c_uint),
        ("proto_minor", ctypes.c_uint),
        ("async_read", ctypes.c_uint),
        ("max_write", ctypes.c_uint),
        ("max_readahead", ctypes.c_uint),
        ("capable", ctypes.c_uint),
        ("want", ctypes.c_uint),
        ("max_background", ctypes.c_uint),
        ("congestion_threshold", ctypes.c_uint),
    ]


class _Arguments(ctypes.Structure):
    """struct fuse_args."""

    _fields_ = [
        ("argc", ctypes.c_int),
        ("argv", ctypes.POINTER(ctypes.c_char_p)),
        ("allocated", ctypes.c_int),
    ]


class _Interrupted(threading.Event):
    """Interruption of the calling thread's request: true once INTERRUPT arrived. One object serves all callers."""

    def __init__(self, interrupted: Callable[[], int]) -> None:
        super().__init__()
        self._interrupted = interrupted

    def is_set(self) -> bool:
        return bool(self._interrupted())


class Library:
    """mfusepy or fusepy, with the libfuse library that it has loaded."""

    def __init__(self, module: ModuleType, version: tuple[int, int]) -> None:
        self.module = module
        self.version = version
        self._c = module._libfuse
        self._get_context = ctypes.CFUNCTYPE(ctypes.POINTER(_Context))(("fuse_get_context", self._c))
        self._interrupted = _Interrupted(self._c.fuse_interrupted)

    def __str__(self) -> str:
        return f"libfuse {self.version[0]}.{self.version[1]} through {self.module.__name__}"

    def caller(self) -> Caller:
        """The caller of the request that this thread carries out."""
        now = self._get_context().contents
        caller = Caller(now.uid, now.gid, now.pid, now.umask, True, self._interrupted)
        causes.serve(caller)
        return caller

    def connection(self, pointer: int) -> Connection:
        """struct fuse_conn_info, from the argument of init."""
        kind = getattr(self.module, "fuse_conn_info", _Connection2)
        found: Pointer[Connection] = ctypes.cast(pointer, ctypes.POINTER(kind))
        return found.contents

    @cached_property
    def operations(self) -> type[ctypes.Structure]:
        """struct fuse_operations. fusepy's lacks the newest member of libfuse 2.9, fallocate."""
        known: type[ctypes.Structure] = self.module.fuse_operations
        if self.version < (2, 9) or any(name == "fallocate" for name, *_ in known._fields_):
            return known
        c = self.module
        file_info = ctypes.POINTER(c.fuse_file_info)
        fallocate = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_char_p, ctypes.c_int, c.c_off_t, c.c_off_t, file_info
        )
        between = [(name, ctypes.c_void_p) for name in ("poll", "write_buf", "read_buf", "flock")]
        fields = [*known._fields_, *between, ("fallocate", fallocate)]
        return type("fuse_operations", (ctypes.Structure,), {"_fields_": fields})

    @cached_property
    def main(self) -> Callable[..., int]:
        """fuse_main, with MAX_THREADS.

        libfuse 3.12 to 3.14.0 read `-o max_threads` and then leave it at 10: for these the same
        steps are taken one by one.
        """
        if (3, 12) <= self.version < (3, 15):
            return self._main_by_steps
        found: Callable[..., int] = self._c.fuse_main_real
        return found

    def _main_by_steps(
        self, argc: int, argv: ctypes.Array[ctypes.c_char_p], operations: object, size: int, data: None
    ) -> int:
        c = self._c
        c.fuse_new_31.restype = c.fuse_loop_cfg_create.restype = ctypes.c_void_p
        words = [argv[i] or b"" for i in range(argc)]
        at = words.index(b"-o")
        kept = (ctypes.c_char_p * 3)(words[0], b"-o", words[at + 1])
        arguments = _Arguments(3, kept, 0)
        fuse = ctypes.c_void_p(c.fuse_new_31(ctypes.byref(arguments), operations, size, data))
        try:
            if fuse.value is None:
                return 3
            return self._loop(fuse, words[-1])
        finally:
            c.fuse_opt_free_args(ctypes.byref(arguments))

    def _loop(self, fuse: ctypes.c_void_p, mountpoint: bytes) -> int:
        c = self._c
        config = ctypes.c_void_p(c.fuse_loop_cfg_create())
        c.fuse_loop_cfg_set_max_threads(config, MAX_THREADS)
        try:
            if c.fuse_mount(fuse, mountpoint) != 0:
                return 4
            try:
                return 8 if c.fuse_loop_mt_312(fuse, config) else 0
            finally:
                c.fuse_unmount(fuse)
        finally:
            c.fuse_destroy(fuse)
            c.fuse_loop_cfg_destroy(config)


def load(major: int) -> Library:
    """libfuse 3 by mfusepy or libfuse 2 by fusepy. FuseMissing says what to install."""
    name, soname, package = _LIBRARIES[major]
    if ctypes.util.find_library(soname) is None:
        raise FuseMissing(f"libfuse {major} is not installed: install the package {package}")
    with _environment("FUSE_LIBRARY_NAME", soname):  # mfusepy would prefer libfuse 2
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError, AttributeError) as error:
            raise FuseMissing(f"the Python package {name} cannot be used: {error}") from error
    version = module._libfuse.fuse_version()
    library = Library(module, (version // 10, version % 10) if version < 100 else divmod(version, 100))
    if library.version[0] != major:
        raise FuseMissing(f"{library} was loaded where libfuse {major} was wanted")
    return library


_LIBRARIES = {3: ("mfusepy", "fuse3", "fuse3"), 2: ("fuse", "fuse", "libfuse2")}


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class LibfuseDriver:
    """Mounts by libfuse 3."""

    major: ClassVar[int] = 3
    helper: ClassVar[str] = "fusermount3"

    def __init__(self, fs: Verbs, settings: Settings, mountpoint: Path) -> None:
        # constant
        self._fs = fs
        self._settings = settings
        self._mountpoint = mountpoint
        # At most a tenth above the validity in the settings, and 0 where they allow 0.
        self._ttl_s = min(TTL_S, settings.freshness_s / 10)
        # changed by serve() alone
        self._target = ""
        self._mounted = False

    def serve(self) -> None:
        """Mount, and answer until the mount has ended, whatever ends it."""
        check_mount_point(self._mountpoint)
        check_fuse(self._settings.allow_other, self.helper)
        self._target = absolute(self._mountpoint)
        library = load(self.major)
        log.debug("mounting %s by %s", self._target, library)
        names = PathTable(self._fs, self._ttl_s)
        self._fs.set_kernel_cache(names)
        callbacks = Callbacks(self._fs, names, library.caller, library.module.c_stat, self._started(library))
        try:
            _session(library, callbacks)(callbacks, self._target, foreground=True, **self._options(library))
        except RuntimeError as error:  # fuse_main's exit status
            if not self._mounted:
                raise MountError(
                    f"{self._settings.bucket.url} could not be mounted on {self._mountpoint}: {library} "
                    f"gave up with status {error}, and has said why on the standard error output"
                ) from error
            log.warning("%s: %s ended with status %s", self._target, library, error)
        finally:
            self._mounted = False

    def unmount(self, lazy: bool = False) -> None:
        """Unmount, from any thread; serve() then returns. No mount is no error; Busy if a file is open in it."""
        if self._target and kmount.mounted_at(self._target) is not None:
            kmount.unmount(self._target, lazy)

    def _options(self, library: Library) -> dict[str, Any]:
        """Options in fusepy's form: True is a word, other values make a pair."""
        settings = self._settings
        asks = settings.consistency == "close-to-open"  # the kernel learns a new size by a request alone
        options: dict[str, Any] = {
            "fsname": settings.bucket.url.replace("\\", "\\\\").replace(",", "\\,"),
            "subtype": kmount.SUBTYPE,
            "default_permissions": True,
            "nosuid": True,
            "nodev": True,
            "noexec": settings.noexec,
            "ro": settings.read_only,
            "allow_other": settings.allow_other,
            "entry_timeout": self._ttl_s,
            "attr_timeout": 0.0 if asks else self._ttl_s,
            "negative_timeout": 0.0 if asks else self._ttl_s,
        }
        if library.version[0] == 2:
            options |= {
                "use_ino": True,
                "big_writes": True,
                "sync_read": True,
                "atomic_o_trunc": True,
                "nonempty": True,
            }
        elif library.version >= (3, 15):
            options |= {"max_threads": MAX_THREADS}
        return options

    def _started(self, library: Library) -> Callable[[int, Pointer[Config] | None], None]:
        def started(pointer: int, config: Pointer[Config] | None) -> None:
            """Set the sizes and caches of the connection, while INIT is being answered."""
            connection = library.connection(pointer)
            connection.want &= ~_UNWANTED
            connection.max_background = MAX_BACKGROUND
            connection.congestion_threshold = MAX_BACKGROUND * 3 // 4
            if set_readahead(self._target, MAX_IO):
                connection.max_readahead = MAX_IO
            if config:
                config.contents.use_ino = 1
                config.contents.nullpath_ok = 1
            self._mounted = True

        return started


class Libfuse2Driver(LibfuseDriver):
    """Mounts by libfuse 2.9: requests of at most 128 KiB, no rename flags, no attributes in listings."""

    major = 2
    helper = "fusermount"


def _session(library: Library, callbacks: Callbacks) -> type[Any]:
    """The library's FUSE class with our callbacks for its wrappers, and our door for its own.

    Both libraries find a callback's wrapper by the operation's name; mfusepy by the name with
    the suffix `_fuse_2` or `_fuse_3` where libfuse's signatures differ.
    """
    base, suffix = library.module.FUSE, f"_fuse_{library.version[0]}"
    members: dict[str, Any] = {"_wrapper": staticmethod(_door)}
    for name, *_ in library.operations._fields_:
        callback = getattr(callbacks, name, None)
        if callable(callback):
            members[name + suffix if hasattr(base, name + suffix) else name] = staticmethod(callback)
    if hasattr(library.module, "fuse_main_real"):
        vars(library.module)["fuse_main_real"] = library.main
    vars(library.module)["fuse_operations"] = library.operations
    return type("Session", (base,), members)


def _door(callback: Callable[..., int | None], *args: object) -> int:
    """Turn every error into an errno. An exception must not reach libfuse."""
    try:
        return callback(*args) or 0
    except R2fsError as error:
        if error.errno == errno.EIO:
            log.warning("%s: %s", callback.__name__, error)
        return -error.errno
    except OSError as error:  # a local file's
        log.warning("%s: %s", callback.__name__, error)
        return -(error.errno or errno.EIO)
    except BaseException:
        log.exception("%s failed", callback.__name__)
        return -errno.EIO

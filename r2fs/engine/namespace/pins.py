"""Pins: paths of files to keep on this host: downloaded, not evicted, and followed as the bucket changes.

A pin is of a key. A new version is fetched when a listing has shown it: of a program, or the one that `follow` makes
every RELOOK_S. Nothing is downloaded beyond the limit.

Threads: every public method is thread-safe; `follow` is the main function of a thread.
Locks:   `_changing` (around a change of the pins, before Core.lock); takes Core.lock; none during a request.
Fails:   NoSpace past the limit; NotFound; ReadFailed where a directory cannot be listed; the journal's errors.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Lock

from r2fs.engine.inodes.inode import Node
from r2fs.engine.namespace.freshness import Listed
from r2fs.engine.namespace.local_copies import LocalCopies, is_file
from r2fs.engine.namespace.named_paths import known_node
from r2fs.engine.pending.records import Records
from r2fs.model import amounts
from r2fs.model.errors import Interrupted, NoSpace, NotADirectory, NotFound, R2fsError, ReadFailed
from r2fs.model.keys import nfc, printable
from r2fs.model.ports import Caller
from r2fs.model.records import Pin, Version
from r2fs.model.views import PinsView, PinView, WarmView

log = logging.getLogger(__name__)

SHARE = 0.8  # of cache_size: the rest is for files in daily use
RELOOK_S = (
    600.0  # between two listings of all pins, if no program lists them: a LIST for each thousand objects
)
RETRY_S = 60.0  # after a failure

File = tuple[Node, str]  # and its path


class Pins:
    def __init__(self, records: Records, copies: LocalCopies, listed: Listed) -> None:
        self._core = records.core
        self._tree = records.tree
        self._rows = records.core.journal.pins
        self._copies = copies
        self._listed = listed
        self._changing = Lock()
        # guarded by: _changing
        self._pins: list[Pin] = []
        # of the thread of `follow` alone
        self._here: dict[str, Version] = {}  # complete pinned files, by key
        self._latest: dict[str, Version] = {}  # likewise, of all times
        self._said = ""  # the last warning
        self._here_bytes = 0  # of `_here`; read by any thread
        self._apply(self._rows.all())

    # ---- commands
    def pin(self, paths: Sequence[str], session: str | None, caller: Caller) -> None:
        """Pin files and directories, for themselves or as references of the file `session`.

        Raises NoSpace, with numbers, if the pinned files were then more than SHARE of the cache.
        """
        tops = self._copies.tops(paths)
        origin = "" if session is None else self._key_of(session)
        now_s = self._core.clock.time()
        with self._core.lock:
            keys = [self._tree.key(top) for top in tops]
        new = [Pin(key, "" if key == origin else origin, now_s) for key in keys]
        self._check(tops, caller)
        with self._changing:
            self._rows.put(new)
            self._apply(self._rows.all())
        self._core.journal.barrier()

    def unpin(self, paths: Sequence[str]) -> int:
        """Remove the pins at and below the paths, with the references of sessions among these; return their number.

        Raises NotFound for a path without a pin, with the pin above it.
        """
        with self._changing:
            gone: set[Pin] = set()
            for path in paths:
                key = self._key_of(path).rstrip("/")
                found = [pin for pin in self._pins if _is_at_or_below(pin, key)]
                if not found:
                    above = [
                        pin.key
                        for pin in self._pins
                        if f"{nfc(key)}/".startswith(nfc(pin.key)) and pin.is_tree
                    ]
                    hint = f": it is pinned by {printable(above[0] or '/')}" if above else ""
                    raise NotFound(f"{printable(path or '/')} is not pinned itself{hint}")
                gone.update(found)
            self._rows.drop(gone)
            self._apply(self._rows.all())
        self._core.journal.barrier()
        return len(gone)

    def summary(self) -> PinsView:
        """Return the figures of all pins, without a look at their files."""
        with self._changing:
            sessions = [pin.session for pin in self._pins if pin.session]
            own = [pin.key for pin in self._pins if not pin.session]
        named = set(sessions)
        session_files = len(sessions) + sum(key in named for key in own)
        return PinsView(
            len(own) - (session_files - len(sessions)),
            len(named),
            session_files,
            self._here_bytes,
            self._limit(),
        )

    def view(self) -> tuple[int, list[PinView]]:
        """Return the limit in bytes; and the pins, with their files as far as their directories are known.
        No request."""
        with self._changing:
            pins = list(self._pins)
        prefix = self._core.settings.bucket.prefix
        views = []
        for pin in pins:
            files = self._copies.known(self._known(pin))
            session = pin.session[len(prefix) :] if pin.session else None
            views.append(PinView(pin.key[len(prefix) :], session, pin.since_s, *files))
        return self._limit(), views

    def _key_of(self, path: str) -> str:
        below = "/".join(part for part in path.split("/") if part not in ("", "."))
        return self._core.settings.bucket.prefix + below

    def _check(self, tops: Sequence[Node], caller: Caller) -> None:
        """Raise NoSpace if all pins, with new ones of `tops`, were more than SHARE of the cache."""
        with self._changing:
            nodes = [node for pin in self._pins for node in self._known(pin)]
        files = self._copies.files([*nodes, *tops], caller, [])  # what cannot be listed is limited later
        size, limit = sum(self._copies.size_of(node) for node, _ in files), self._limit()
        if size > limit:
            raise NoSpace(
                f"pinned files would be {amounts.size(size)}; at most {amounts.size(limit)} can be pinned, "
                f"{SHARE:.0%} of cache_size ({amounts.size(self._core.settings.cache_size)}): "
                "pin less, unpin some, or raise cache_size"
            )

    def _limit(self) -> int:
        return int(self._core.settings.cache_size * SHARE)

    def _known(self, pin: Pin) -> list[Node]:
        """Return the node of a pin, if known."""
        with self._core.lock:
            try:
                return [known_node(self._tree, pin.key[len(self._core.settings.bucket.prefix) :])]
            except (NotFound, NotADirectory):
                return []

    def _apply(self, pins: list[Pin]) -> None:
        """Replace the pins in memory and in the cache. With `_changing` held, or from the constructor."""
        self._pins = pins
        keys = {pin.key for pin in pins}
        below = tuple(key for key in keys if not key or key.endswith("/"))
        self._core.cache.set_pinned(keys, below)
        directories = {key.rpartition("/")[0] + "/" if "/" in key else "" for key in keys if key not in below}

        def is_watched(directory: Node) -> bool:
            key = self._tree.key(directory)
            return key in directories or key.startswith(below)

        with self._core.lock:
            self._listed.watch_locked(is_watched)
            self._listed.changed.set()

    # ---- following the bucket
    def follow(self) -> None:
        """Main function of a thread: download missing pinned files."""
        due_s = 0.0
        seen: list[Pin] | None = None
        while not self._core.stopping:
            now_s = self._core.clock.monotonic()
            with self._changing:
                pins = self._pins
            try:
                if self._core.frugal:
                    due_s = now_s + RELOOK_S  # new versions wait: a reader fetches what it needs
                elif pins and (pins is not seen or now_s >= due_s):
                    self._follow_all(pins)
                    due_s = self._core.clock.monotonic() + RELOOK_S
                elif pins:
                    self._follow_listed()
                seen = pins
                self._here_bytes = sum(version.size for version in self._here.values())
            except Interrupted:
                return
            except R2fsError as error:
                log.info("pinned files could not be looked after: %s", error)
                seen, due_s = pins, self._core.clock.monotonic() + RETRY_S
            self._listed.changed.wait(max(0.0, due_s - self._core.clock.monotonic()) if pins else None)
            self._listed.changed.clear()

    def stop(self) -> None:
        """Make `follow` return; after Core.ended is set."""
        self._listed.changed.set()

    def _follow_all(self, pins: Sequence[Pin]) -> None:
        """List all pins, download missing files, and drop outdated versions.

        A bucket that cannot be listed delays the pins of no other. Raises its ReadFailed at the end.
        """
        self._here.clear()
        found: dict[tuple[Node, str], None] = {}
        failure: ReadFailed | None = None
        unlisted: list[tuple[str, str]] = []
        for pin in pins:
            try:
                tops = self._copies.tops([pin.key[len(self._core.settings.bucket.prefix) :]])
                files = self._copies.files(tops, Caller(cancelled=self._core.ended), unlisted)
                found |= dict.fromkeys(files)
            except NotFound:
                continue  # removed in the bucket: the pin waits for a file of the name
            except ReadFailed as error:
                failure = error
        self._download(list(found))
        if unlisted and failure is None:
            failure = ReadFailed(unlisted[0][1])
        if failure is not None:
            raise failure
        current = {(base.key, base.etag) for node, _ in found if (base := node.base) is not None}
        cache, is_away = self._core.cache, self._copies.is_away
        cache.drop_where(
            lambda key, etag: cache.is_pinned(key) and (key, etag) not in current and not is_away(key)
        )

    def _follow_listed(self) -> None:
        """Download missing files of pinned directories listed since the last call."""
        with self._core.lock:
            nodes = [self._tree.find(ino) for ino in self._listed.take_locked()]
            children = [
                (child, self._tree.path(child))
                for node in nodes
                if node is not None and node.is_dir
                for child in node.children().values()
            ]
        # Outside of the lock: a directory may have a hundred thousand names.
        news = [
            (child, path)
            for child, path in children
            if is_file(child)
            and (base := child.base) is not None
            and self._here.get(base.key) != base
            and self._core.cache.is_pinned(base.key)
        ]
        if news and self._download(sorted(news, key=lambda one: one[1])):
            here = self._here
            self._core.cache.drop_where(lambda key, etag: key in here and here[key].etag != etag)

    def _download(self, files: Sequence[File]) -> bool:
        """Download files within the limit; True after a download."""
        if not files:
            return False
        room = self._limit() - sum(version.size for version in self._here.values())
        chosen: list[File] = []
        for node, path in files:
            before = self._here.get(node.base.key) if node.base is not None else None
            room -= self._copies.size_of(node) - (0 if before is None else before.size)
            if room < 0:
                self._warn(f"pinned files are more than {SHARE:.0%} of cache_size: {path} is not kept here")
                break
            chosen.append((node, path))
        view = self._copies.download_files(chosen, Caller(cancelled=self._core.ended), _no_report)
        if view.failures or view.stopped not in (None, "stop"):  # at a stop, the next mount goes on
            reason = (
                f"{view.failed[0][0]}: {view.failed[0][1]}"
                if view.failed
                else f"the {view.stopped} is {'used up' if view.stopped == 'budget' else 'full'}"
            )
            self._warn(f"a pinned file is not here: {reason}")
        for node, _ in chosen:
            if (base := node.base) is not None and self._copies.is_whole(node):
                before = self._latest.get(base.key, base)
                if before != base:
                    self._core.cache.supersede(before, base)
                self._here[base.key] = self._latest[base.key] = base
        return view.fetched > 0

    def _warn(self, text: str) -> None:
        """Log a sentence once."""
        if text != self._said:
            log.warning("%s", text)
        self._said = text


def _is_at_or_below(pin: Pin, key: str) -> bool:
    """True for a pin at or below the key of a path, without a final slash, and for references of a session at the key."""
    at, wanted = nfc(pin.key.rstrip("/")), nfc(key)
    session = nfc(pin.session)
    return at == wanted or at.startswith(f"{wanted}/") or not wanted or wanted == session


def _no_report(view: WarmView) -> None:
    """Ignore the progress of a download in the background."""

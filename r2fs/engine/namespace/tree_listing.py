"""Tree listing: LISTs without a delimiter, each a thousand keys of however many directories.

A program walks a tree if a directory is listed just after the sibling before, or the first directory just after the
one above. Such a LIST then reads on from there; the next page follows when the walk has come to the end of the
last. A directory is shown once every key of the directory was read: a walk sends at most one LIST more than one for
each directory.

Threads: every public method is thread-safe; two programs in a walk may send the same LISTs.
Locks:   takes Core.lock; none during a request.
Fails:   StoreError.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from r2fs.engine.inodes.inode import Node, Refresh, listing_of
from r2fs.engine.inodes.listing_merge import merge_listing, merge_prefix
from r2fs.engine.inodes.listing_pages import pages_of
from r2fs.engine.inodes.protected import is_bucket_root
from r2fs.engine.pending.records import Records
from r2fs.model.keys import is_name, nfc
from r2fs.model.records import ListPage, ObjectInfo

log = logging.getLogger(__name__)

WALK_S = 10.0  # limit between two steps of a walk
LAST = "\U0010ffff"  # the last character: `PREFIX + LAST` sorts after all keys below PREFIX
STEPS = 1000  # steps kept; beyond, those older than WALK_S are dropped, with their references to directories
WALKS = 8  # kept between two pages
PAGE = 1000  # keys in a page
OWN_PAGES = 10  # of a walk for one directory, at most: then a LIST of that directory alone
FEW = 2  # directories with a request each
BEFORE = PAGE // 10  # files of which a walk lists the names twice

ClearSuspects = Callable[[Iterable[ObjectInfo]], None]


class TreeListing:
    def __init__(
        self,
        records: Records,
        clear_suspects: ClearSuspects,
        is_fresh: Callable[[Node], bool],
        listed: Callable[[Node], None],
    ) -> None:
        # constant
        self._core = records.core
        self._tree = records.tree
        self._pending = records.pending
        self._clear_suspects = clear_suspects
        self._is_fresh = is_fresh
        self._listed = listed  # called with each directory of which all is known
        # guarded by: Core.lock
        self._steps: dict[int, tuple[Node, float]] = {}  # by parent: the directory listed last, and when
        self._walks: list[FlatListing] = []  # between two pages
        self._usable = True

    # ------------------------------------------------------------------ walks
    def step_locked(self, directory: Node) -> None:
        """Note a program's listing of the directory."""
        self._core.assert_held()
        if directory.parent is not None:
            now_s = self._core.clock.monotonic()
            self._steps[directory.parent.ino] = directory, now_s
            if len(self._steps) > STEPS:
                self._steps = {ino: one for ino, one in self._steps.items() if now_s - one[1] <= WALK_S}

    def walk_locked(self, directory: Node, whole: bool) -> FlatListing | None:
        """Return the LIST of a walk that comes to the directory next, for `read_on`; None: no walk.

        `whole`: all of the directory is needed, not a name in it.
        """
        self._core.assert_held()
        top = directory.parent
        # No request reads on from one bucket into another.
        if top is None or not self._usable or is_bucket_root(self._core, directory):
            return None
        key, now_s = self._tree.key(directory), self._core.clock.monotonic()
        previous = self._previous_locked(directory, top, now_s)
        from_key = self._tree.key(previous) if previous is not None else None
        self._walks = [walk for walk in self._walks if now_s - walk.paused_s <= WALK_S]
        for walk in self._walks:
            if walk.is_next(key, from_key):
                self._walks.remove(walk)  # for one thread at a time
                return walk
        if from_key is not None:
            return self._flat(top, from_key + LAST)
        if whole and self._is_first_locked(directory, top, now_s):
            # From the begin, if little lies before. Else from a dot on, which sorts just before the slash: a server that
            # sorts by names begins behind the directory then.
            return self._flat(top, "" if self._begins_locked(directory, top) else f"{key[:-1]}.{LAST}")
        return None

    def _previous_locked(self, directory: Node, parent: Node, now_s: float) -> Node | None:
        """Return the sibling that a program listed before; None: no walk."""
        self._core.assert_held()
        sibling, when_s = self._steps.get(parent.ino, (directory, now_s))
        if sibling is directory or sibling.parent is not parent or now_s - when_s > WALK_S:
            return None
        return sibling if self._follows_locked(directory, parent, sibling.name.encode()) else None

    def _is_first_locked(self, directory: Node, parent: Node, now_s: float) -> bool:
        """True for the first directory of one that was just listed."""
        self._core.assert_held()
        just_listed = now_s - listing_of(parent).listed_at_s <= WALK_S and parent.ino not in self._steps
        return just_listed and self._follows_locked(directory, parent, b"")

    def _follows_locked(self, directory: Node, parent: Node, before: bytes) -> bool:
        """True if the directory comes after the name `before`, with no other between that is not fresh."""
        self._core.assert_held()
        name = directory.name.encode()
        return before < name and all(
            self._is_fresh(child)
            for child in parent.children().nodes()
            if child.is_dir and before < child.name.encode() < name
        )

    def _begins_locked(self, directory: Node, parent: Node) -> bool:
        """True if no directory and a few files at most come before the directory."""
        self._core.assert_held()
        children, name = parent.children(), directory.name.encode()
        before = sum(one.encode() < name for one in children)
        return before <= BEFORE and not any(
            one.is_dir and one.name.encode() < name for one in children.nodes()
        )

    def _flat(self, top: Node, after: str = "") -> FlatListing:
        prefix = self._tree.key(top)
        return FlatListing(pages_of(self._core.store, prefix, start_after=after), top, prefix, after)

    # ------------------------------------------------------------------ requests
    def read_on(self, refresh: Refresh, walk: FlatListing, directory: Node, whole: bool) -> bool:
        """Read one page or a few of the walk; True if all of `directory` is known then."""
        with self._core.lock:
            wanted = self._tree.key(directory)
        read, complete = 0, set[Node]()
        while self._page(refresh, walk, complete):
            read += 1
            # Pages that hold mostly its own files are no waste: a LIST of the directory takes as many.
            own = walk.own(wanted)
            if directory in complete or not whole or own < read * PAGE // 2 or read == OWN_PAGES:
                with self._core.lock:
                    walk.pause(self._core.clock.monotonic())
                    self._walks = [*self._walks[1 - WALKS :], walk]
                break
        return directory in complete

    def load(self, refresh: Refresh, top: Node) -> set[Node]:
        """List `top` and all directories below; return the complete ones."""
        complete: set[Node] = set()
        with self._core.lock:
            if not self._usable:
                return complete
            flat, began = self._flat(top), self._tree.tick
        sent_at_s = self._core.clock.monotonic()
        while self._page(refresh, flat, complete):
            pass
        with self._core.lock:
            if top.deleted or self._tree.key(top) != flat.prefix or not self._usable:
                return set()
            # A directory without a key is empty in the bucket. Keys in another spelling were not in the answer.
            for one in list(self._tree.walk_nodes(top)):
                if one.is_dir and one not in complete and self._tree.key(one).isascii():
                    self._merge(one, Found(self._tree.key(one), began, sent_at_s), complete)
        return complete

    def living(self, refresh: Refresh, prefix: str, doubtful: Sequence[str]) -> set[str]:
        """Return the `doubtful` directories in `prefix` with a visible key.

        Pages of hidden keys are read to their end: all of these keys are deleted soon, or were just deleted.
        """
        left = set(doubtful)
        if len(left) > FEW:  # one by one is cheaper than more pages than directories
            if self._look_for(refresh, prefix, prefix, left, range(len(doubtful))):
                return set(doubtful) - left
        for one in list(left):
            alone = {one}
            self._look_for(refresh, one, prefix, alone, count())
            left -= {one} - alone
        return set(doubtful) - left

    def _look_for(
        self, refresh: Refresh, where: str, prefix: str, left: set[str], tries: Iterable[int]
    ) -> bool:
        """LIST `where`, and drop the directories with a visible key from `left`; False: there are further pages."""
        pages = pages_of(self._core.store, where)
        for _ in tries:
            with self._core.lock:
                began = self._tree.tick
            page = next(pages)
            refresh.heard_s = self._core.clock.monotonic()
            self._clear_suspects(page.objects)
            with self._core.lock:
                for info in page.objects:
                    below = info.key[: info.key.find("/", len(prefix)) + 1]
                    if below in left and not self._pending.deletes.hides(info.key, info.etag, began):
                        left.discard(below)
            if page.token is None or not left:
                return True
        return False

    def _page(self, refresh: Refresh, flat: FlatListing, complete: set[Node]) -> bool:
        """Send one LIST, and merge the completed directories; False: there is no further page of use."""
        with self._core.lock:
            began = self._tree.tick
        sent_at_s = self._core.clock.monotonic()
        page = next(flat.pages)
        refresh.heard_s = self._core.clock.monotonic()
        self._clear_suspects(page.objects)
        ended = list(flat.feed(page, began, sent_at_s))
        with self._core.lock:
            if not flat.in_runs:
                if self._usable:
                    log.info(
                        "%s lists in an order of its own: no walks by flat listings", self._core.store.url
                    )
                self._usable = False
                return False
            if flat.top.deleted or self._tree.key(flat.top) != flat.prefix:  # renamed meanwhile
                return False
            for found in ended:
                node = self._node(flat.top, flat.prefix, found)
                if node is not None:
                    self._merge(node, found, complete)
                found.shown = node is not None or self._shows(found)
                found.objects, found.below = [], {}  # a long walk keeps no keys
        return page.token is not None

    # ------------------------------------------------------------------ merge, with Core.lock held
    def _node(self, top: Node, prefix: str, found: Found) -> Node | None:
        """Return the directory's node, made if missing; None if the mount does not show the directory."""
        node, shows = top, None
        for part in found.prefix[len(prefix) :].split("/")[:-1]:
            if not is_name(part):
                return None
            name = nfc(part)
            child = node.children().get(name)
            if child is None or not child.is_dir:
                shows = self._shows(found) if shows is None else shows
                if not shows:
                    return None
                merge_prefix(self._tree, node, part, found.began)
                child = node.children().get(name)
            if child is None or not child.is_dir:
                return None
            node = child
        return node if self._tree.key(node) == found.prefix else None

    def _merge(self, node: Node, found: Found, complete: set[Node]) -> None:
        listing = listing_of(node)
        if max(listing.listed_at_s, *listing.probed.values(), found.sent_at_s) > found.sent_at_s:
            return  # a newer listing is known
        prefixes = []
        for below in found.below.values():
            child = node.children().get(nfc(below.prefix[len(found.prefix) : -1]))
            if (child is not None and child.is_dir) or below.shown:
                prefixes.append(below.prefix)
        merge_listing(self._tree, node, found.objects, prefixes, found.began)
        listing.listed(found.sent_at_s)
        self._listed(node)
        complete.add(node)

    def _shows(self, found: Found) -> bool:
        """True if a key at or below the directory has no delete, pending or done since."""
        if not self._pending.deletes.any_below(found.prefix, found.began):
            return True
        shown = any(
            not self._pending.deletes.hides(info.key, info.etag, found.began) for info in found.objects
        )
        return shown or any(below.shown for below in found.below.values())


# ---- keys in the order of a listing become directories
@dataclass(slots=True)
class Found:
    """A directory in a flat listing; complete once `FlatListing` yields it."""

    prefix: str  # its key, with the slash at the end
    began: int  # Tree.tick before the request for the page with its first key
    sent_at_s: float  # Clock.monotonic() then
    objects: list[ObjectInfo] = field(default_factory=list)  # its own marker among them
    below: dict[str, Found] = field(default_factory=dict)  # its directories, by key
    shown: bool = False  # by the mount; known once complete


class FlatListing:
    """A LIST of everything below `prefix`, the key of `top`, after the key `after`. Not thread-safe.

    The keys of one directory and of all below it are consecutive, whether a server sorts by bytes or by names.
    """

    def __init__(self, pages: Iterator[ListPage], top: Node, prefix: str, after: str) -> None:
        self.pages = pages
        self.top = top
        self.prefix = prefix
        self.paused_s = 0.0  # Clock.monotonic() after the last page
        self.in_runs = True  # False: the server sorts otherwise, and the yielded directories are incomplete
        self._after = after.encode()
        self._last = self._after  # key
        self._open: list[Found] = []

    def pause(self, now_s: float) -> None:
        self.paused_s = now_s

    def is_next(self, key: str, previous: str | None) -> bool:
        """True if the next page holds further keys of the directory `key`; or begins with it, after `previous`."""
        if any(found.prefix == key for found in self._open[1:]):
            return True
        return previous is not None and previous.encode() <= self._last < key.encode()

    def feed(self, page: ListPage, began: int, sent_at_s: float) -> Iterator[Found]:
        """Yield the directories completed by the page, children before their parents."""
        if not self._open:
            self._open.append(Found(self.prefix, began, sent_at_s))
        for info in page.objects:
            directory = info.key[: info.key.rfind("/") + 1]
            while not directory.startswith(self._open[-1].prefix) and len(self._open) > 1:
                yield from self._close()
            self._enter(directory, began, sent_at_s)
            self._open[-1].objects.append(info)
        if page.objects:
            self._last = page.objects[-1].key.encode()
        if page.token is None:
            while len(self._open) > 1:
                yield from self._close()
            if not self._after:
                yield self._open[0]

    def own(self, prefix: str) -> int:
        """Return the number of objects so far of this directory alone; 0 once complete."""
        return sum(len(found.objects) for found in self._open if found.prefix == prefix)

    def _enter(self, directory: str, began: int, sent_at_s: float) -> None:
        while (above := self._open[-1]).prefix != directory:
            end = directory.index("/", len(above.prefix)) + 1
            found = Found(directory[:end], began, sent_at_s)
            self.in_runs = self.in_runs and found.prefix not in above.below
            above.below[found.prefix] = found
            self._open.append(found)

    def _close(self) -> Iterator[Found]:
        found = self._open.pop()
        if found.prefix.encode() > self._after:  # else keys before `after` are missing
            yield found

"""Walks: a program that goes through a tree gets it by listings that cross directories.

Owns:    how a walk is recognised: a directory is wanted whose last sibling was looked at a moment
         ago. From there on one LIST without a delimiter tells of a thousand keys, of however many
         directories; and the whole of a tree, for a rename.
Never:   sends more LISTs than directories one by one would need, but for one that was in vain; shows
         a directory of which not every key was read.
Threads: every public method is thread-safe; two programs that walk may ask for the same twice.
Locks:   takes Core.lock; none while a request is on its way.
Fails:   StoreError.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from r2fs.engine.inodes.inode import Node, Refresh, listing_of
from r2fs.engine.inodes.listing_merge import merge_listing, merge_prefix
from r2fs.engine.inodes.listing_pages import LARGEST, Pages
from r2fs.engine.pending.records import Records
from r2fs.model.keys import is_name, nfc
from r2fs.model.records import ListPage, ObjectInfo

log = logging.getLogger(__name__)

WALK_S = 10.0  # a walk whose last step is longer ago is over
LAST = "\U0010ffff"  # after every other character: `PREFIX + LAST` comes after all keys below PREFIX
STEPS = (
    1000  # beyond that those are forgotten from which no walk goes on, with the directories that they keep
)
PAGE = 1000  # keys in a page
FEW = 2  # directories that are asked for one by one

ClearSuspects = Callable[[Iterable[ObjectInfo]], None]


@dataclass(slots=True)
class _Step:
    """The directory that was looked at last below one parent."""

    directory: Node
    when_s: float


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
        self._listed = listed  # told of each directory of which all is known
        # guarded by: Core.lock
        self._steps: dict[int, _Step] = {}  # by the parent's inode number
        self._usable = True

    # ------------------------------------------------------------------ recognising
    def step_locked(self, directory: Node) -> None:
        """Note that a program looks at what is in the directory."""
        self._core.assert_held()
        if directory.parent is not None:
            self._steps[directory.parent.ino] = _Step(directory, self._core.clock.monotonic())
            if len(self._steps) > STEPS:
                since = self._core.clock.monotonic() - WALK_S
                self._steps = {ino: one for ino, one in self._steps.items() if one.when_s >= since}

    def came_from_locked(self, directory: Node) -> Node | None:
        """Return the sibling from which a walk comes to this directory; None: it is no walk."""
        self._core.assert_held()
        parent = directory.parent
        step = self._steps.get(parent.ino) if parent is not None and self._usable else None
        if (
            parent is None
            or step is None
            or step.directory is directory
            or step.directory.parent is not parent
        ):
            return None
        if self._core.clock.monotonic() - step.when_s > WALK_S:
            return None
        first, last = step.directory.name.encode(), directory.name.encode()
        if first > last:
            return None
        for name, child in parent.children().items():
            if child.is_dir and first < name.encode() < last and not self._is_fresh(child):
                return None  # passed over: it picks here and there
        return step.directory

    # ------------------------------------------------------------------ reading
    def read_on(self, refresh: Refresh, directory: Node, previous: Node, whole: bool) -> bool:
        """One page or a few from `previous` on; is all of `directory` known now?"""
        with self._core.lock:
            top = directory.parent
            if top is None or previous.parent is not top:
                return False
            prefix, wanted = self._tree.key(top), self._tree.key(directory)
            after = self._tree.key(previous) + LAST
        flat, pages, token, told = FlatListing(prefix, after), 0, None, set[Node]()
        while True:
            token = self._page(refresh, top, prefix, flat, after, token, told)
            pages += 1
            if directory in told:
                return True
            # More pages are no waste where they are full of its own files: it would need as many by itself.
            if token is None or not whole or flat.own(wanted) < pages * PAGE // 2:
                return False

    def load(self, refresh: Refresh, top: Node) -> set[Node]:
        """Everything at and below `top`: the directories of which all is known now."""
        told: set[Node] = set()
        with self._core.lock:
            if not self._usable:
                return told
            prefix, began = self._tree.key(top), self._tree.tick
        asked_at = self._core.clock.monotonic()
        flat, token = FlatListing(prefix), None
        while (token := self._page(refresh, top, prefix, flat, "", token, told)) is not None:
            pass
        with self._core.lock:
            if top.deleted or self._tree.key(top) != prefix or not self._usable:
                return set()
            # What has no key in the bucket is empty there. Keys in another spelling were not told of.
            for one in list(self._tree.walk(top)):
                if one.is_dir and one not in told and self._tree.key(one).isascii():
                    self._merge(one, Found(self._tree.key(one), began, asked_at), told)
        return told

    def living(self, refresh: Refresh, prefix: str, doubtful: Sequence[str]) -> set[str]:
        """Those of the `doubtful` directories in `prefix` that hold what is shown.

        Pages of what is hidden are read to their end: all of it is deleted soon, or was a moment ago.
        """
        living: set[str] = set()
        left = set(doubtful)
        if len(left) > FEW:
            token, pages = None, self._pages(prefix)
            for _ in doubtful:  # else one by one is cheaper
                token = self._look_for(refresh, prefix, token, prefix, left, living, pages)
                if token is None or not left:
                    return living
        for one in list(left):
            pages = self._pages(one)
            token = self._look_for(refresh, one, None, prefix, left, living, pages)
            while token is not None and one in left:
                token = self._look_for(refresh, one, token, prefix, left, living, pages)
        return living

    def _look_for(
        self,
        refresh: Refresh,
        where: str,
        token: str | None,
        prefix: str,
        left: set[str],
        living: set[str],
        pages: Pages,
    ) -> str | None:
        """One LIST: what it shows of `left` is `living`; the token of the next."""
        with self._core.lock:
            began = self._tree.tick
        page = self._core.store.list_page(where, token=token)
        following = pages.turn(page)
        refresh.heard_s = self._core.clock.monotonic()
        self._clear_suspects(page.objects)
        with self._core.lock:
            for info in page.objects:
                below = info.key[: info.key.find("/", len(prefix)) + 1]
                if below in left and not self._pending.hides(info.key, info.etag, began):
                    left.discard(below)
                    living.add(below)
        return following

    def _pages(self, prefix: str) -> Pages:
        return Pages(prefix or self._core.store.url)

    def _page(
        self,
        refresh: Refresh,
        top: Node,
        prefix: str,
        flat: FlatListing,
        after: str,
        token: str | None,
        told: set[Node],
    ) -> str | None:
        """One LIST, and what it tells into the tree; the token of the next page."""
        with self._core.lock:
            began = self._tree.tick
        asked_at = self._core.clock.monotonic()
        page = self._core.store.list_page(prefix, start_after="" if token else after, token=token)
        following = flat.pages.turn(page)
        refresh.heard_s = self._core.clock.monotonic()
        self._clear_suspects(page.objects)
        ended = list(flat.feed(page, began, asked_at))
        with self._core.lock:
            if not flat.in_runs:
                if self._usable:
                    log.info(
                        "%s lists in an order of its own: no walks by flat listings", self._core.store.url
                    )
                self._usable = False
                return None
            if top.deleted or self._tree.key(top) != prefix:  # renamed meanwhile
                return None
            for found in ended:
                node = self._node(top, prefix, found)
                if node is not None:
                    self._merge(node, found, told)
        return following

    # ------------------------------------------------------------------ into the tree, with Core.lock held
    def _node(self, top: Node, prefix: str, found: Found) -> Node | None:
        """The directory's node, made on the way; None where it cannot be shown, or is not to be."""
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

    def _merge(self, node: Node, found: Found, told: set[Node]) -> None:
        listing = listing_of(node)
        if max(listing.listed_at_s, *listing.probed.values(), found.asked_at_s) > found.asked_at_s:
            return  # newer is known
        prefixes = []
        for below in found.below:
            child = node.children().get(nfc(below.prefix[len(found.prefix) : -1]))
            if (child is not None and child.is_dir) or self._shows(below):
                prefixes.append(below.prefix)
        merge_listing(self._tree, node, found.objects, prefixes, found.began)
        listing.listed_at_s, listing.whole = found.asked_at_s, True
        listing.probed.clear()
        self._listed(node)
        told.add(node)

    def _shows(self, found: Found) -> bool:
        """Is there anything at or below it whose delete is neither pending nor done since?"""
        if not self._pending.deletes_below(found.prefix, found.began):
            return True
        shown = any(not self._pending.hides(info.key, info.etag, found.began) for info in found.objects)
        return shown or any(self._shows(below) for below in found.below)


# ---- keys in the order of a listing become directories
@dataclass(slots=True)
class Found:
    """A directory as a flat listing shows it; it is whole once `FlatListing` yields it."""

    prefix: str  # its key, with the slash at the end
    began: int  # Tree.tick before the page in which its first key came was asked for
    asked_at_s: float  # Clock.monotonic() then
    objects: list[ObjectInfo] = field(default_factory=list)  # its own marker among them
    below: list[Found] = field(default_factory=list)  # its directories


class FlatListing:
    """Of everything below `prefix` that comes after the key `after`. Not thread-safe."""

    def __init__(self, prefix: str, after: str = "") -> None:
        self.pages = Pages(prefix or "the bucket", LARGEST)
        self._after = after.encode()
        self._open: list[Found] = []
        self._top = prefix
        self._closed: set[str] = set()
        self.in_runs = True  # False: the server's order is another; nothing that it yields is whole

    def feed(self, page: ListPage, began: int, asked_at_s: float) -> Iterator[Found]:
        """The directories that the page has ended, children before their parents."""
        if not self._open:
            self._open.append(Found(self._top, began, asked_at_s))
        for info in page.objects:
            directory = info.key[: info.key.rfind("/") + 1]
            while not directory.startswith(self._open[-1].prefix) and len(self._open) > 1:
                yield from self._close()
            self._enter(directory, began, asked_at_s)
            self._open[-1].objects.append(info)
        if page.token is None:
            while len(self._open) > 1:
                yield from self._close()
            if not self._after:
                yield self._open[0]

    def own(self, prefix: str) -> int:
        """How many objects of this directory alone came so far, if it is not ended yet."""
        return sum(len(found.objects) for found in self._open if found.prefix == prefix)

    def _enter(self, directory: str, began: int, asked_at_s: float) -> None:
        while (above := self._open[-1]).prefix != directory:
            end = directory.index("/", len(above.prefix)) + 1
            found = Found(directory[:end], began, asked_at_s)
            self.in_runs = self.in_runs and found.prefix not in self._closed
            above.below.append(found)
            self._open.append(found)

    def _close(self) -> Iterator[Found]:
        found = self._open.pop()
        self._closed.add(found.prefix)
        if found.prefix.encode() > self._after:  # else what came before `after` is not in it
            yield found

"""Tree listing: LISTs without a delimiter, which return a thousand keys of however many directories.

Owns:    the detection of a walk through a tree (a directory is listed just after the sibling before it), for which such
         a LIST reads on from there; and the listing of a whole tree, for a rename.
Never:   sends more than one LIST beyond those of directory by directory; shows a directory before every key of it was
         read.
Threads: every public method is thread-safe; two programs that walk may ask for the same twice.
Locks:   takes Core.lock; none while a request is on its way.
Fails:   StoreError.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from r2fs.engine.inodes.inode import Node, Refresh, listing_of
from r2fs.engine.inodes.listing_merge import merge_listing, merge_prefix
from r2fs.engine.inodes.listing_pages import Pages
from r2fs.engine.inodes.protected import is_bucket_root
from r2fs.engine.pending.records import Records
from r2fs.model.keys import is_name, nfc
from r2fs.model.records import ListPage, ObjectInfo
from r2fs.model.values import dataclass, field

log = logging.getLogger(__name__)

WALK_S = 10.0  # limit between two steps of a walk
LAST = "\U0010ffff"  # the last character: `PREFIX + LAST` sorts after all keys below PREFIX
STEPS = 1000  # steps kept; beyond, those older than WALK_S are dropped, with their references to directories
PAGE = 1000  # keys in a page
FEW = 2  # directories with a request each

ClearSuspects = Callable[[Iterable[ObjectInfo]], None]


@dataclass(slots=True)
class _Step:
    """The directory listed last below a parent."""

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
        self._listed = listed  # called with each directory of which all is known
        # guarded by: Core.lock
        self._steps: dict[int, _Step] = {}  # by the parent's inode number
        self._usable = True

    # ------------------------------------------------------------------ walks
    def step_locked(self, directory: Node) -> None:
        """Note a program's listing of the directory."""
        self._core.assert_held()
        if directory.parent is not None:
            self._steps[directory.parent.ino] = _Step(directory, self._core.clock.monotonic())
            if len(self._steps) > STEPS:
                since = self._core.clock.monotonic() - WALK_S
                self._steps = {ino: one for ino, one in self._steps.items() if one.when_s >= since}

    def came_from_locked(self, directory: Node) -> Node | None:
        """Return the previous sibling of a walk; None: no walk."""
        self._core.assert_held()
        parent = directory.parent
        step = self._steps.get(parent.ino) if parent is not None and self._usable else None
        if (
            parent is None
            or step is None
            or step.directory is directory
            or step.directory.parent is not parent
            or is_bucket_root(self._core, directory)  # no request reads on from one bucket into another
        ):
            return None
        if self._core.clock.monotonic() - step.when_s > WALK_S:
            return None
        first, last = step.directory.name.encode(), directory.name.encode()
        if first > last:
            return None
        for child in parent.children().nodes():
            if child.is_dir and first < child.name.encode() < last and not self._is_fresh(child):
                return None  # passed over: no walk
        return step.directory

    # ------------------------------------------------------------------ requests
    def read_on(self, refresh: Refresh, directory: Node, previous: Node, whole: bool) -> bool:
        """Read one page or a few from `previous` on; True if all of `directory` is known then."""
        with self._core.lock:
            top = directory.parent
            if top is None or previous.parent is not top:
                return False
            prefix, wanted = self._tree.key(top), self._tree.key(directory)
            after = self._tree.key(previous) + LAST
        flat, pages, token, complete = FlatListing(prefix, after), 0, None, set[Node]()
        while True:
            token = self._page(refresh, top, prefix, flat, after, token, complete)
            pages += 1
            if directory in complete:
                return True
            # Pages that hold mostly its own files are no waste: a LIST of the directory takes as many.
            if token is None or not whole or flat.own(wanted) < pages * PAGE // 2:
                return False

    def load(self, refresh: Refresh, top: Node) -> set[Node]:
        """List `top` and all directories below; return the complete ones."""
        complete: set[Node] = set()
        with self._core.lock:
            if not self._usable:
                return complete
            prefix, began = self._tree.key(top), self._tree.tick
        sent_at_s = self._core.clock.monotonic()
        flat, token = FlatListing(prefix), None
        while (token := self._page(refresh, top, prefix, flat, "", token, complete)) is not None:
            pass
        with self._core.lock:
            if top.deleted or self._tree.key(top) != prefix or not self._usable:
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
        living: set[str] = set()
        left = set(doubtful)
        if len(left) > FEW:
            token, pages = None, self._pages(prefix)
            for _ in doubtful:  # more pages than directories: one by one is cheaper
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
        """Send one LIST, and move the visible directories from `left` to `living`; return the token of the next page."""
        with self._core.lock:
            began = self._tree.tick
        page = self._core.store.list_page(where, token=token)
        following = pages.turn(page)
        refresh.heard_s = self._core.clock.monotonic()
        self._clear_suspects(page.objects)
        with self._core.lock:
            for info in page.objects:
                below = info.key[: info.key.find("/", len(prefix)) + 1]
                if below in left and not self._pending.deletes.hides(info.key, info.etag, began):
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
        complete: set[Node],
    ) -> str | None:
        """Send one LIST, and merge the completed directories; return the token of the next page."""
        with self._core.lock:
            began = self._tree.tick
        sent_at_s = self._core.clock.monotonic()
        page = self._core.store.list_page(prefix, start_after="" if token else after, token=token)
        following = flat.pages.turn(page)
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
                return None
            if top.deleted or self._tree.key(top) != prefix:  # renamed meanwhile
                return None
            for found in ended:
                node = self._node(top, prefix, found)
                if node is not None:
                    self._merge(node, found, complete)
        return following

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
        for below in found.below:
            child = node.children().get(nfc(below.prefix[len(found.prefix) : -1]))
            if (child is not None and child.is_dir) or self._shows(below):
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
        return shown or any(self._shows(below) for below in found.below)


# ---- keys in the order of a listing become directories
@dataclass(slots=True)
class Found:
    """A directory in a flat listing; complete once `FlatListing` yields it."""

    prefix: str  # its key, with the slash at the end
    began: int  # Tree.tick before the request for the page with its first key
    sent_at_s: float  # Clock.monotonic() then
    objects: list[ObjectInfo] = field(default_factory=list)  # its own marker among them
    below: list[Found] = field(default_factory=list)  # its directories


class FlatListing:
    """Directories of a LIST of everything below `prefix`, after the key `after`. Not thread-safe.

    The keys of one directory and of all below it are consecutive, whether a server sorts by bytes or by names.
    """

    def __init__(self, prefix: str, after: str = "") -> None:
        self.pages = Pages(prefix or "the bucket", kept=True)
        self._after = after.encode()
        self._open: list[Found] = []
        self._top = prefix
        self._closed: set[str] = set()
        self.in_runs = True  # False: the server sorts otherwise, and the yielded directories are incomplete

    def feed(self, page: ListPage, began: int, sent_at_s: float) -> Iterator[Found]:
        """Yield the directories completed by the page, children before their parents."""
        if not self._open:
            self._open.append(Found(self._top, began, sent_at_s))
        for info in page.objects:
            directory = info.key[: info.key.rfind("/") + 1]
            while not directory.startswith(self._open[-1].prefix) and len(self._open) > 1:
                yield from self._close()
            self._enter(directory, began, sent_at_s)
            self._open[-1].objects.append(info)
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
            self.in_runs = self.in_runs and found.prefix not in self._closed
            above.below.append(found)
            self._open.append(found)

    def _close(self) -> Iterator[Found]:
        found = self._open.pop()
        self._closed.add(found.prefix)
        if found.prefix.encode() > self._after:  # else keys before `after` are missing
            yield found

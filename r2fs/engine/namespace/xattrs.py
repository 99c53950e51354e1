"""Extended attributes: those of programs, the Content-Type, and the state of the file in the bucket.

    user.r2fs.*     headers of the object (those of model/header_change.py can be set); read-only: further headers,
                    the state in the bucket, key and URL. Not listed, so that copying programs do not set them
    user.mime_type  the object's Content-Type; listed if it differs from the type by the name's suffix
    user.*          user metadata of the object (model/xattrs.py)

`Names.learn` has read the version's metadata before. Locks: every method is called with Core.lock held.
Fails: NoAttribute, NotPermitted, NotSupported, Exists, InvalidArgument; NoSpace past R2's limit on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from r2fs.engine.content.presence import bytes_here_locked
from r2fs.engine.inodes.inode import Node
from r2fs.engine.inodes.protected import is_bucket_root
from r2fs.engine.namespace.setattr import SetAttr
from r2fs.engine.pending.records import Records
from r2fs.engine.pending.store import InodeChange
from r2fs.engine.writeback.queue import UploadQueue
from r2fs.model import xattrs
from r2fs.model.errors import (
    Exists,
    FileError,
    InvalidArgument,
    NoAttribute,
    NoSpace,
    NotPermitted,
    NotSupported,
)
from r2fs.model.header_change import SETTABLE, HeaderChange, check_header, check_type
from r2fs.model.metadata import HEADERS, content_type, headers_of, with_headers
from r2fs.model.records import Kind
from r2fs.model.views import LocatedView

OWN, TYPE = "user.r2fs.", "user.mime_type"
LOCAL = "local"  # the state of a local-only file (`local_patterns`)
CREATE, REPLACE = 1, 2  # setxattr(2)
RESERVED = 512  # bytes of the limit for r2fs's own metadata: times, owner, attempt


def is_stored(name: str) -> bool:
    """True if the attribute is in the object's metadata, which have to be known first."""
    return name.startswith(xattrs.PREFIX) and (not name.startswith(OWN) or name.removeprefix(OWN) in HEADERS)


def not_ours(name: str) -> FileError:
    """Return the error of a read of an attribute outside the namespace `user.`: no inode has one."""
    if name.startswith("security."):
        return NoAttribute(f"{name}: no file of a mount has this attribute")
    return NotSupported(f"{name}: only the namespace `user.` is supported")


def _settable(name: str) -> str | None:
    """Return the header set by the attribute; None: another attribute."""
    header = name.removeprefix(OWN)
    return header if name.startswith(OWN) and header in SETTABLE else None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


class ExtendedAttributes:
    def __init__(self, records: Records, changes: SetAttr, queue: UploadQueue) -> None:
        self._core = records.core
        self._tree = records.tree
        self._set_attr = changes
        self._queue = queue

    # ------------------------------------------------------------------ reading
    def names(self, node: Node) -> list[str]:
        names = sorted(xattrs.attributes(node.extra))
        own_type = node.content_type not in (None, content_type(node.name))
        return [TYPE, *names] if node.kind is Kind.FILE and own_type else names

    def get(self, node: Node, name: str) -> bytes:
        """Return the value of an attribute of the namespace `user.`."""
        value = self._value(node, name)
        if value is None:
            raise NoAttribute(f"{self._tree.path(node)} has no attribute {name}")
        return value

    def _value(self, node: Node, name: str) -> bytes | None:
        if name.startswith(OWN):
            value = self._own_values(node).get(name.removeprefix(OWN))
            return None if value is None else value.encode("utf-8", "surrogateescape")
        if name == TYPE:
            return self._type(node).encode() if node.kind is Kind.FILE else None
        return xattrs.attributes(node.extra).get(name)

    def _type(self, node: Node) -> str:
        return node.content_type or content_type(node.name)

    # ------------------------------------------------------------------ changing
    def set(self, node: Node, name: str, value: bytes, flags: int) -> None:
        self._check_name(node, name)
        header = _settable(name)
        there = header in headers_of(node.extra) if header else name in self.names(node)
        if flags & CREATE and there:
            raise Exists(f"{self._tree.path(node)} has {name} already")
        if flags & REPLACE and not there:
            raise NoAttribute(f"{self._tree.path(node)} has no attribute {name}")
        if name == TYPE:
            self._set_attr.store_locked(node, {"content_type": check_type(_text(value))})
            return
        if header is not None:
            changed = headers_of(node.extra) | {header: check_header(name, _text(value))}
            self._set_attr.store_locked(node, {"extra": with_headers(node.extra, changed)})
            return
        extra = xattrs.with_attribute(node.extra, name, value)
        self._check_room(node, extra)
        self._set_attr.store_locked(node, {"extra": extra})

    def remove(self, node: Node, name: str) -> None:
        self._check_name(node, name)
        header = _settable(name)
        headers = headers_of(node.extra)
        if name not in self.names(node) and header not in headers:
            raise NoAttribute(f"{self._tree.path(node)} has no attribute {name}")
        if header is not None:
            del headers[header]
            self._set_attr.store_locked(node, {"extra": with_headers(node.extra, headers)})
        elif name == TYPE:
            self._set_attr.store_locked(node, {"content_type": content_type(node.name)})
        else:
            self._set_attr.store_locked(node, {"extra": xattrs.without(node.extra, name)})

    def change_headers(self, node: Node, change: HeaderChange, head: bytes, dry_run: bool) -> bool:
        """Change type and headers of a file with known metadata and the first bytes `head`. False: no change."""
        fields: InodeChange = {}
        kind = change.type_for(node.name, node.content_type, head)
        if kind is not None:
            fields["content_type"] = kind
        headers = headers_of(node.extra)
        if (wanted := change.headers_for(headers)) != headers:
            fields["extra"] = with_headers(node.extra, wanted)
        if fields and not dry_run:
            self._set_attr.store_locked(node, fields)
        return bool(fields)

    def _check_name(self, node: Node, name: str) -> None:
        if _settable(name) is not None and node.kind is Kind.FILE:
            return
        if name.startswith(OWN):
            raise NotPermitted(f"{name} is r2fs's own: it can only be read")
        if is_bucket_root(self._core, node) and self._core.settings.bucket.several:
            raise NotPermitted(f"{name}: the directory of a bucket has no object to keep it")
        if not name.startswith(xattrs.PREFIX) or node is self._tree.root:
            raise NotSupported(f"{name}: only `user.` attributes of what is in the mount are supported")
        if name == xattrs.PREFIX:
            raise InvalidArgument("an attribute's name is empty")
        if name == TYPE and node.kind is not Kind.FILE:
            raise NotSupported(f"{TYPE}: only files have a type")

    def _check_room(self, node: Node, extra: Mapping[str, str]) -> None:
        limit = self._core.store.limits.max_metadata
        if xattrs.size(extra) > limit - RESERVED:
            raise NoSpace(f"{self._tree.path(node)}: an object has room for {limit} bytes of these")

    # ------------------------------------------------------------------ the object of an inode
    def is_local(self, node: Node) -> bool:
        """True for a file of `local_patterns`, which has no object."""
        return self._queue.is_local_only_locked(node)

    def located(self, node: Node) -> LocatedView:
        pending = node.pending
        return LocatedView(
            key=pending.key if pending else self._tree.key(node),
            state=LOCAL if self.is_local(node) else node.state.value,
            is_dir=node.is_dir,
            etag=node.base.etag if node.base is not None and node.base.etag else None,
            reason=pending.reason if pending else None,
        )

    # ------------------------------------------------------------------ user.r2fs.*
    def _own_values(self, node: Node) -> dict[str, str]:
        located = self.located(node)
        bucket = self._core.settings.bucket
        values = {
            **headers_of(node.extra),
            "state": located.state,
            "key": bucket.split(located.key)[1],
            "url": bucket.object_url(located.key),
        }
        if located.etag:
            values["etag"] = located.etag
        if not node.is_dir:
            values["cached"] = str(bytes_here_locked(self._core, node))
        if located.reason:
            values["reason"] = located.reason
        return values

"""Sessions: the media files that a session file of an audio or video program, or a playlist, refers to.

A reference is one or more places of the same file, the likeliest first: session files often have both a path relative
to themselves and an absolute one.

    .rpp            Reaper: text; `FILE "path"` inside a SOURCE block
    .als            Ableton Live: XML in gzip; FileRef inside SampleRef, in the form of Live 11 or of earlier versions
    .aup3           Audacity: an SQLite database that contains its audio, so without references
    .m3u .m3u8      a path or URL a line; `#` begins a comment
    .xspf           XML; `location` elements with URLs (XSPF version 1)
    .edl            CMX 3600: FROM CLIP NAME, TO CLIP NAME and SOURCE FILE comments

Never:   opens a referenced file; expands an entity; unpacks more than LARGEST bytes.
Fails:   BadSession for a file of another format, a damaged or a too large one.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit
from xml.parsers import expat

from r2fs.model.errors import InvalidArgument

LARGEST: Final = 256 << 20  # bytes, unpacked: sessions of a few thousand clips have some ten
CHUNK: Final = 1 << 16
DEEPEST: Final = 1000  # elements in each other
MOST: Final = 100_000  # references

Reference = tuple[str, ...]  # candidates: POSIX paths, absolute or relative to the session's directory


class BadSession(InvalidArgument):
    """A session file that cannot be read."""


def is_session(name: str) -> bool:
    """True for a name with the suffix of a session file."""
    return PurePosixPath(name).suffix.lower() in _FORMATS


def references(name: str, file: BinaryIO) -> list[Reference]:
    """Return what the session file refers to, each once, in its order. Raises BadSession."""
    read = _FORMATS[PurePosixPath(name).suffix.lower()]
    found: dict[Reference, None] = {}
    try:
        for reference in read(file):
            found[reference] = None
            if len(found) > MOST:
                raise BadSession(f"more than {MOST} references")
    except BadSession as error:
        raise BadSession(f"{name}: {error}") from None
    except (OSError, EOFError, zlib.error, expat.ExpatError, ValueError, RecursionError) as error:
        raise BadSession(f"{name}: cannot be read as a session file: {error}") from None
    return list(found)


# ------------------------------------------------------------------ paths
def posix(path: str) -> str:
    """Return a path with the separators of this system: programs of Windows write backslashes."""
    return path.replace("\\", "/") if "\\" in path and "/" not in path else path


def _of_url(text: str) -> str | None:
    """Return the path of a file URL, of a relative URL or of a plain path; None: another scheme."""
    parts = urlsplit(text)
    if parts.scheme == "file":
        return unquote(parts.path) if parts.netloc in ("", "localhost") else None
    if len(parts.scheme) > 1:  # one letter is a drive of Windows
        return None
    return unquote(parts.path)


# ------------------------------------------------------------------ text
def _text(file: BinaryIO) -> str:
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise BadSession(f"more than {LARGEST} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


_BLOCK = re.compile(r"\s*<(\w+)(?:\s|$)")
_FILE = re.compile(r"""\s*FILE\s+(?:"([^"]*)"|'([^']*)'|`([^`]*)`|(\S+))""")


def _reaper(file: BinaryIO) -> Iterator[Reference]:
    text = _text(file)
    if not text.lstrip().startswith("<REAPER_PROJECT"):
        raise BadSession("not a Reaper project: it does not begin with <REAPER_PROJECT")
    blocks: list[str] = []
    for line in text.splitlines():
        block = _BLOCK.match(line)
        if block:
            blocks.append(block[1])
        elif line.strip() == ">":
            del blocks[-1:]
        elif blocks and blocks[-1] == "SOURCE" and (named := _FILE.match(line)):
            path = next(group for group in named.groups() if group is not None)
            if path:
                yield (posix(path),)


def _playlist(file: BinaryIO) -> Iterator[Reference]:
    for line in _text(file).splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if "://" in line or line.startswith("file:"):
            path = _of_url(line)
        else:
            path = posix(line)
        if path:
            yield (path,)


_COMMENT = re.compile(
    r"\*\s*(FROM CLIP NAME|TO CLIP NAME|SOURCE FILE|SOURCE FILE NAME)\s*:\s*(.*\S)", re.IGNORECASE
)
_EVENT = re.compile(r"\d{3,}\s+\S+\s")


def _edit_list(file: BinaryIO) -> Iterator[Reference]:
    """Yield the file of each event: its SOURCE FILE where one is named, else its clips' names."""
    names: list[str] = []
    sources: list[str] = []

    def event() -> Iterator[Reference]:
        yield from ((posix(path),) for path in sources or names)
        names.clear()
        sources.clear()

    for line in _text(file).splitlines():
        if _EVENT.match(line):
            yield from event()
        elif comment := _COMMENT.match(line.strip()):
            (sources if comment[1].upper().startswith("SOURCE") else names).append(comment[2])
    yield from event()


def _audacity(file: BinaryIO) -> Iterator[Reference]:
    if file.read(16) != b"SQLite format 3\0":
        raise BadSession("not an Audacity 3 project: it is no SQLite database")
    yield from ()


# ------------------------------------------------------------------ XML
Start = Callable[[list[str], dict[str, str]], None]  # the path of elements, this one last; and its attributes
End = Callable[[list[str], str], None]  # the path of elements, and the text of the last one


def _parse(file: BinaryIO, start: Start, end: End) -> None:
    """Parse XML without document types, and so without entities, in bounded memory."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    path: list[str] = []
    text: list[str] = []

    def refuse(*declaration: object) -> None:
        raise BadSession("it declares a document type, which no session file has")

    def on_start(name: str, attributes: dict[str, str]) -> None:
        path.append(name.rpartition(":")[2])
        if len(path) > DEEPEST:
            raise BadSession(f"more than {DEEPEST} elements in each other")
        text.clear()
        start(path, attributes)

    def on_end(name: str) -> None:
        end(path, "".join(text))
        path.pop()
        text.clear()

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = on_start
    parser.EndElementHandler = on_end
    parser.CharacterDataHandler = text.append
    size = 0
    while chunk := file.read(CHUNK):
        size += len(chunk)
        if size > LARGEST:
            raise BadSession(f"more than {LARGEST} bytes, unpacked")
        parser.Parse(chunk, False)
    parser.Parse(b"", True)


def _xspf(file: BinaryIO) -> Iterator[Reference]:
    found: list[Reference] = []

    def end(path: list[str], text: str) -> None:
        if path[-2:] == ["track", "location"] and (place := _of_url(text.strip())):
            found.append((place,))

    _parse(file, lambda path, attributes: None, end)
    yield from found


class _FileRef:
    """A FileRef of Ableton Live under construction."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.directories: list[str] = []

    def reference(self) -> Reference:
        relative = self.values.get("RelativePath", "")
        if self.directories or (not relative and self.values.get("HasRelativePath") == "true"):
            relative = "/".join([*self.directories, self.values.get("Name", "")])
        places = [relative, self.values.get("Path", "")]
        return tuple(dict.fromkeys(posix(place) for place in places if place))


def _ableton(file: BinaryIO) -> Iterator[Reference]:
    found: list[Reference] = []
    current: list[_FileRef] = []

    def start(path: list[str], attributes: dict[str, str]) -> None:
        if path[-1] == "FileRef" and "SampleRef" in path:
            current.append(_FileRef())
        elif current and path[-1] == "RelativePathElement":
            current[-1].directories.append(attributes.get("Dir") or "..")
        elif current and path[-2:-1] == ["FileRef"] and "Value" in attributes:
            current[-1].values[path[-1]] = attributes["Value"]

    def end(path: list[str], text: str) -> None:
        if current and path[-1] == "FileRef":
            reference = current.pop().reference()
            if reference:
                found.append(reference)

    if file.read(2) != b"\x1f\x8b":
        raise BadSession("not an Ableton set: it is not packed by gzip")
    file.seek(0)
    with gzip.GzipFile(fileobj=file) as unpacked:
        _parse(unpacked, start, end)  # type: ignore[arg-type]  # it reads as any binary file does
    yield from found


_FORMATS: Final[dict[str, Callable[[BinaryIO], Iterator[Reference]]]] = {
    ".rpp": _reaper,
    ".als": _ableton,
    ".aup3": _audacity,
    ".m3u": _playlist,
    ".m3u8": _playlist,
    ".xspf": _xspf,
    ".edl": _edit_list,
}

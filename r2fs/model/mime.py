"""Content-Type of a file: from its name, else from its first bytes.

The table is fixed, so that every host stores the same type for the same name, whatever its /etc/mime.types.
"""

from __future__ import annotations

DEFAULT = "application/octet-stream"
SNIFF_BYTES = 32

BY_EXTENSION = {
    # audio
    "wav": "audio/wav", "wave": "audio/wav", "rf64": "audio/wav", "bwf": "audio/wav", "w64": "audio/x-w64",
    "aif": "audio/aiff", "aiff": "audio/aiff", "aifc": "audio/aiff", "flac": "audio/flac", "mp3": "audio/mpeg",
    "mp2": "audio/mpeg", "m4a": "audio/mp4", "m4b": "audio/mp4", "m4r": "audio/mp4", "aac": "audio/aac",
    "ogg": "audio/ogg", "oga": "audio/ogg", "opus": "audio/ogg", "spx": "audio/ogg", "mka": "audio/x-matroska",
    "caf": "audio/x-caf", "au": "audio/basic", "snd": "audio/basic", "amr": "audio/amr", "ac3": "audio/ac3",
    "dts": "audio/vnd.dts", "wma": "audio/x-ms-wma", "wv": "audio/x-wavpack", "ape": "audio/x-ape",
    "mid": "audio/midi", "midi": "audio/midi", "m3u": "audio/x-mpegurl", "m3u8": "application/vnd.apple.mpegurl",
    "pls": "audio/x-scpls",
    # video
    "mp4": "video/mp4", "m4v": "video/mp4", "mov": "video/quicktime", "mkv": "video/x-matroska",
    "webm": "video/webm", "avi": "video/x-msvideo", "mpg": "video/mpeg", "mpeg": "video/mpeg", "ts": "video/mp2t",
    # pictures
    "jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "gif": "image/gif", "webp": "image/webp",
    "svg": "image/svg+xml", "tif": "image/tiff", "tiff": "image/tiff", "bmp": "image/bmp", "ico": "image/x-icon",
    # text and documents
    "txt": "text/plain", "log": "text/plain", "md": "text/markdown", "csv": "text/csv", "tsv": "text/tab-separated-values",
    "html": "text/html", "htm": "text/html", "css": "text/css", "js": "text/javascript", "json": "application/json",
    "xml": "application/xml", "yaml": "application/yaml", "yml": "application/yaml", "toml": "application/toml",
    "cue": "application/x-cue", "srt": "application/x-subrip", "vtt": "text/vtt", "pdf": "application/pdf",
    "doc": "application/msword", "epub": "application/epub+zip", "rtf": "application/rtf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    # archives and data
    "zip": "application/zip", "gz": "application/gzip", "tgz": "application/gzip", "bz2": "application/x-bzip2",
    "xz": "application/x-xz", "zst": "application/zstd", "tar": "application/x-tar", "7z": "application/x-7z-compressed",
    "sqlite": "application/vnd.sqlite3", "sqlite3": "application/vnd.sqlite3", "db": "application/vnd.sqlite3",
}  # fmt: skip

# (offset, bytes, type): the first match counts
MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WAVE", "audio/wav"),
    (8, b"AIFF", "audio/aiff"),
    (8, b"AIFC", "audio/aiff"),
    (8, b"WEBP", "image/webp"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"\xff\xf1", "audio/aac"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftypM4B", "audio/mp4"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/x-matroska"),
    (0, b"%PDF", "application/pdf"),
    (0, b"\x89PNG", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"SQLite format 3\0", "application/vnd.sqlite3"),
)


_PLACES = tuple((offset, offset + len(magic), magic, kind) for offset, magic, kind in MAGIC)


def content_type(name: str, head: bytes = b"") -> str:
    """Type of a file with the name `name` and the first bytes `head`.

    >>> content_type("take.WAV")
    'audio/wav'
    """
    _, dot, extension = name.rpartition(".")
    by_name = BY_EXTENSION.get(extension.lower()) if dot else None
    if by_name is not None:
        return by_name
    if not head:
        return DEFAULT
    for start, stop, magic, kind in _PLACES:
        if head[start:stop] == magic:
            return kind
    return "text/plain" if _is_text(head) else DEFAULT


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)

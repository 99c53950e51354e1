"""The journal's schema: the authoritative description of every column."""

from __future__ import annotations

VERSION = 3  # raised with each change of a table: a journal of another version is refused

SCHEMA = """
-- Facts about the journal itself.
CREATE TABLE IF NOT EXISTS fact (
    name  TEXT PRIMARY KEY,   -- 'schema': VERSION; 'epoch': how often this journal was opened, for inode numbers;
                              -- 'begun_ns': when it was first used, the time of directories that tell none
    value TEXT NOT NULL
) WITHOUT ROWID;

-- An inode of which the bucket lacks something: bytes, a name, metadata. No row: it owes nothing (CLEAN), or is GONE.
CREATE TABLE IF NOT EXISTS inode (
    ino          INTEGER PRIMARY KEY, -- the node's number; stays over restarts while the row does
    key          TEXT NOT NULL,       -- the object it is to become; a directory's ends with '/'
    kind         TEXT NOT NULL,       -- model.records.Kind
    state        TEXT NOT NULL,       -- model.pending.State
    before       TEXT,                -- the state that OPEN_WRITE left; NULL: not open for writing
    seq          INTEGER NOT NULL,    -- order among rows of both tables that share a key; shared counter
    mode         INTEGER,             -- permission bits; NULL: the mount's default
    uid          INTEGER,             -- NULL: the mount's default
    gid          INTEGER,             -- NULL: the mount's default
    mtime_ns     INTEGER,             -- ns since 1970; NULL: that of the staged file, or not known (a copy keeps the object's)
    extra        TEXT NOT NULL,       -- JSON object: further user metadata to keep with the object
    content_type TEXT,                -- '': guessed from name and first bytes when it is sent; NULL: so, too, where the base's
                                      --   metadata do not say, which nobody has asked for yet
    base_key     TEXT,                -- the version its bytes began as, or are still (changed = 0);
    base_etag    TEXT,                --   NULL, all three: it began empty
    base_size    INTEGER,
    expected_etag TEXT,               -- ETag that this host last knew at `key`; NULL: no object there
    changed      INTEGER NOT NULL,    -- 1: the bytes are those of `staged`; 0: those of the base (rename, metadata)
    staged       TEXT,                -- file name in staging/data; NULL: no bytes of its own are here
    size         INTEGER NOT NULL,    -- bytes, when the row was written (the staged file's own size rules)
    own          TEXT,                -- JSON [[start, stop], …] written here while the rest is still to be fetched from the
                                      --   base; NULL: the staged file is complete
    base_limit   INTEGER NOT NULL,    -- bytes of the base at and past it are void (it was truncated to here once)
    proof        TEXT,                -- JSON [size, mtime_ns, ctime_ns] of the staged file at OPEN_WRITE; NULL: changed for sure
    closed_at_s  REAL,                -- seconds since 1970 when the last writer closed; NULL: has not
    boot         TEXT NOT NULL,       -- the kernel's boot id at the last OPEN_WRITE or close
    synced       INTEGER NOT NULL,    -- 1: closed, and the bytes were fsynced after their last change. On the disk it is 0
                                      --   again before they change; while it is open for writing (DIRTY) it says nothing
    reason       TEXT,                -- why it is PARKED, or what the last attempt met; NULL: nothing
    conflict_of  TEXT,                -- the key it was meant for before it took a conflict name; NULL: none
    target       TEXT,                -- a symbolic link's target, a BLOB where it is not UTF-8; NULL: not one
    st_ino       INTEGER,             -- the number that stat shows; NULL: `ino`
    stored       TEXT                 -- JSON object, as model.metadata.remembered makes it: the metadata of the object at
                                      --   `key` when they were last seen. What another host makes of them until the upload
                                      --   is merged with what is set here; NULL: not known, nothing is merged
);

-- What stat shows of an object that this host stored, and a listing does not tell: with it an empty cache shows the same.
-- Written with the commit that ends the upload. Losing a row costs a HEAD, and perhaps a program's second look at the file.
CREATE TABLE IF NOT EXISTS attributes (
    seq         INTEGER PRIMARY KEY, -- order in which rows were stored last: beyond the bound the lowest go
    parent      TEXT NOT NULL,       -- the key up to its last part, in NFC: '' or ends with '/'
    name        TEXT NOT NULL,       -- the last part; a directory's ends with '/'; '': the root of a mount without a prefix
    etag        TEXT NOT NULL,       -- the version that `metadata` is of; '': a directory without an object of its own
    size        INTEGER NOT NULL,    -- bytes of that version
    st_ino      INTEGER NOT NULL,    -- the number that stat shows
    metadata    TEXT NOT NULL,       -- JSON object, as model.metadata.remembered makes it
    ctime_ns    INTEGER,             -- ns since 1970
    shown_ns    INTEGER,             -- a directory's mtime, which moves without its object; NULL: not a directory
    target      TEXT,                -- as inode.target
    modified_ns INTEGER,             -- LastModified of that version, once a listing told it; NULL: none has yet
    stored_s    REAL NOT NULL,       -- seconds since 1970, by this host's clock, when the version was stored; 0: it was not
    UNIQUE (parent, name)
);

-- A file of staging/data whose inode row a commit deleted: to be removed once that commit is on the disk.
CREATE TABLE IF NOT EXISTS staging_garbage (
    staged TEXT PRIMARY KEY        -- file name, as inode.staged was
) WITHOUT ROWID;

-- An object to be deleted from the bucket.
CREATE TABLE IF NOT EXISTS pending_delete (
    seq           INTEGER PRIMARY KEY, -- order, as inode.seq
    key           TEXT NOT NULL,
    etag          TEXT,                -- only this version goes; NULL: only what an attempt of this host made
    after_ino     INTEGER,             -- waits until that inode owes nothing (a rename's second half); NULL: for nothing
    watch_until_s REAL                 -- an attempt whose end nobody saw is looked for until then; NULL: none
);

-- An upload attempt, written before it is sent; its id is in the object's metadata. Removed when its outcome is known.
CREATE TABLE IF NOT EXISTS attempt (
    id        TEXT PRIMARY KEY,
    ino       INTEGER NOT NULL,
    key       TEXT NOT NULL,
    started_s REAL NOT NULL,       -- seconds since 1970
    unknown   INTEGER NOT NULL     -- 1: it ended without an answer: the object may appear
) WITHOUT ROWID;

-- A key whose content stays on this host (r2fs pin).
CREATE TABLE IF NOT EXISTS pin (
    key     TEXT NOT NULL,         -- of a file; or of a directory, with all below: ends with '/', or is ''
    session TEXT NOT NULL,         -- key of the session file that refers to it; '': pinned for itself
    since_s REAL NOT NULL,         -- seconds since 1970
    PRIMARY KEY (key, session)
) WITHOUT ROWID;

-- A multipart upload, to go on with after a restart.
CREATE TABLE IF NOT EXISTS multipart (
    ino       INTEGER PRIMARY KEY,
    upload_id TEXT NOT NULL,
    key       TEXT NOT NULL,
    attempt   TEXT NOT NULL,       -- attempt.id whose metadata the upload was created with; '': those of the file have
                                   --   changed since, so that it is to be given up
    part_size INTEGER NOT NULL,    -- bytes of every part but the last
    proof     TEXT NOT NULL        -- of the staged file: another one makes the parts worthless
);
CREATE TABLE IF NOT EXISTS part (
    ino    INTEGER NOT NULL,
    number INTEGER NOT NULL,       -- from 1
    etag   TEXT NOT NULL,
    size   INTEGER NOT NULL,
    PRIMARY KEY (ino, number)
) WITHOUT ROWID;
"""

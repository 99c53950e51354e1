"""The Linux FUSE protocol as data: structures, opcodes and flags, named after <linux/fuse.h>.

Owns:  the layout of every message that r2fs reads or writes, protocol 7.31 and later.
Never: executes; knows r2fs.

A request is `fuse_in_header` and a body; its answer is `fuse_out_header` with the same
`unique` and a body, in one write(2). All numbers are in the host's byte order, names end with
NUL, and every structure is padded to 8 bytes so that 32-bit programs can talk to a 64-bit
kernel. A notification, a message without a request, has `unique` 0 and its code in place of the
error.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct

KERNEL_VERSION = 7  # major: must be equal
KERNEL_MINOR_VERSION = 45  # the newest version described in this file; either side may be older
ROOT_ID = 1  # node id of the mount's root
UNKNOWN_INO = 0xFFFFFFFF  # a directory entry with an unknown inode number
MIN_READ_BUFFER = 8192  # read(2) of the device with less is EINVAL
UNIQUE_RESEND = 1 << 63  # in `unique`: sent a second time, because the first reader died; echoed unchanged
MAX_ERRNO = 511  # larger numbers are the kernel's own: such a reply is EINVAL, and the caller hangs

# ------------------------------------------------------------------ headers
IN_HEADER = Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen (8 bytes each) padding
OUT_HEADER = Struct("=IiQ")  # len -errno unique
HEADER_SIZE = IN_HEADER.size  # where every request's body starts
OUT_SIZE = OUT_HEADER.size


# ------------------------------------------------------------------ requests
class Op(IntEnum):
    """Opcodes. (in) is the body of the request, (out) the body of its answer."""

    LOOKUP = 1  # in: name. out: ENTRY_OUT; counts one reference on the node
    FORGET = 2  # in: FORGET_IN. No answer
    GETATTR = 3  # in: GETATTR_IN. out: ATTR_OUT
    SETATTR = 4  # in: SETATTR_IN. out: ATTR_OUT
    READLINK = 5  # out: the target, without NUL
    SYMLINK = 6  # in: name, target. out: ENTRY_OUT
    MKNOD = 8  # in: MKNOD_IN, name. out: ENTRY_OUT
    MKDIR = 9  # in: MKDIR_IN, name. out: ENTRY_OUT
    UNLINK = 10  # in: name
    RMDIR = 11  # in: name
    RENAME = 12  # in: RENAME_IN, old name, new name
    LINK = 13  # in: nodeid, name. out: ENTRY_OUT
    OPEN = 14  # in: OPEN_IN. out: OPEN_OUT
    READ = 15  # in: READ_IN. out: the bytes; fewer than requested at the end of the file
    WRITE = 16  # in: WRITE_IN, the bytes. out: WRITE_OUT
    STATFS = 17  # out: STATFS_OUT
    RELEASE = 18  # in: RELEASE_IN. The last descriptor is closed; no program waits for the answer
    FSYNC = 20  # in: FSYNC_IN
    SETXATTR = 21  # in: SETXATTR_IN, name, value
    GETXATTR = 22  # in: GETXATTR_IN, name. out: the value, or GETXATTR_OUT where size was 0
    LISTXATTR = 23  # in: GETXATTR_IN. out: names, each with its NUL, or GETXATTR_OUT
    REMOVEXATTR = 24  # in: name
    FLUSH = 25  # in: FLUSH_IN. A descriptor is closed; close(2) waits. ENOSYS: never again on this mount
    INIT = 26  # in: INIT_IN. out: INIT_OUT. The first request of a session
    OPENDIR = 27  # out: OPEN_OUT, or ENOSYS: never again, and listings are cached (NO_OPENDIR_SUPPORT)
    READDIR = 28  # in: READ_IN. out: DIRENTs
    RELEASEDIR = 29  # in: RELEASE_IN
    FSYNCDIR = 30  # in: FSYNC_IN
    GETLK = 31  # locks: only with POSIX_LOCKS or FLOCK_LOCKS
    SETLK = 32
    SETLKW = 33
    ACCESS = 34  # not with the mount option default_permissions
    CREATE = 35  # in: CREATE_IN, name. out: ENTRY_OUT and OPEN_OUT
    INTERRUPT = 36  # in: the unique of a request that was read. No answer is needed
    BMAP = 37
    DESTROY = 38  # the session's last, for block devices
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41  # the data of NOTIFY_RETRIEVE. No answer
    BATCH_FORGET = 42  # in: count, padding, FORGET_ONEs. No answer
    FALLOCATE = 43  # in: FALLOCATE_IN
    READDIRPLUS = 44  # in: READ_IN. out: pairs of ENTRY_OUT and DIRENT; each counts like LOOKUP
    RENAME2 = 45  # in: RENAME2_IN, old name, new name
    LSEEK = 46  # in: LSEEK_IN. out: LSEEK_OUT. SEEK_DATA and SEEK_HOLE only
    COPY_FILE_RANGE = (
        47  # in: COPY_FILE_RANGE_IN. EOPNOTSUPP, or ENOSYS for good: the kernel copies by itself
    )
    SETUPMAPPING = 48  # DAX
    REMOVEMAPPING = 49
    SYNCFS = 50  # virtiofs only
    TMPFILE = 51  # ENOSYS: O_TMPFILE is EOPNOTSUPP from then on
    STATX = 52  # ENOSYS: GETATTR is used from then on
    COPY_FILE_RANGE_64 = 53  # sent before COPY_FILE_RANGE (7.45)


NO_REPLY = frozenset({Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.NOTIFY_REPLY})

FORGET_IN = Struct("=Q")  # references given back
FORGET_ONE = Struct("=QQ")  # nodeid references
BATCH_FORGET_IN = Struct("=II")  # count padding
GETATTR_IN = Struct("=IIQ")  # GETATTR_* padding fh
SETATTR_IN = Struct("=IIQQQQQQIIIIIIII")
# valid(FATTR_*) padding fh size lock_owner atime mtime ctime atime_ns mtime_ns ctime_ns mode unused uid gid unused
MKNOD_IN = Struct("=IIII")  # mode rdev umask padding
MKDIR_IN = Struct("=II")  # mode umask
RENAME_IN = Struct("=Q")  # new parent
RENAME2_IN = Struct("=QII")  # new parent, RENAME_* of renameat2(2), padding
LINK_IN = Struct("=Q")  # nodeid
OPEN_IN = Struct("=II")  # O_* OPEN_*
CREATE_IN = Struct("=IIII")  # O_* mode umask OPEN_*
READ_IN = Struct("=QQIIQII")  # fh offset size flags lock_owner O_* padding
WRITE_IN = Struct("=QQIIQII")  # fh offset size WRITE_* lock_owner O_* padding
RELEASE_IN = Struct("=QIIQ")  # fh O_* flags lock_owner
FLUSH_IN = Struct("=QIIQ")  # fh unused padding lock_owner
FSYNC_IN = Struct("=QII")  # fh FSYNC_* padding
SETXATTR_IN = Struct("=II")  # size XATTR_* of setxattr(2) (without SETXATTR_EXT)
GETXATTR_IN = Struct("=II")  # size of the caller's buffer, padding
FALLOCATE_IN = Struct("=QQQII")  # fh offset length FALLOC_FL_* padding
LSEEK_IN = Struct("=QQII")  # fh offset whence padding
COPY_FILE_RANGE_IN = Struct("=QQQQQQQ")  # fh offset, nodeid fh offset of the target, length flags
INTERRUPT_IN = Struct("=Q")  # unique
INIT_IN = Struct("=IIIII")  # major minor max_readahead flags flags2 (11 more, unused)
INIT_IN_OLD = Struct("=IIII")  # before 7.36: without flags2

GETATTR_FH = 1 << 0  # fh is valid: fstat(2)
FSYNC_FDATASYNC = 1 << 0
OPEN_KILL_SUIDGID = 1 << 0  # OPEN and CREATE with O_TRUNC: take set-user-id and set-group-id away
WRITE_CACHE = 1 << 0  # written back from the page cache: fh is a guess
WRITE_KILL_SUIDGID = 1 << 2

FATTR_MODE, FATTR_UID, FATTR_GID, FATTR_SIZE = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FATTR_ATIME, FATTR_MTIME = 1 << 4, 1 << 5  # with their _NOW below: the field holds the kernel's "now"
FATTR_FH = 1 << 6  # fh is valid: ftruncate(2)
FATTR_ATIME_NOW, FATTR_MTIME_NOW, FATTR_LOCKOWNER = 1 << 7, 1 << 8, 1 << 9
FATTR_CTIME, FATTR_KILL_SUIDGID = 1 << 10, 1 << 11

# ------------------------------------------------------------------ answers
_ATTR = "QQQQQQIIIIIIIIII"
# ino size blocks(512) atime mtime ctime atime_ns mtime_ns ctime_ns mode nlink uid gid rdev blksize flags
ATTR_FIELDS = 16
ENTRY_OUT = Struct("=QQQQII" + _ATTR)  # nodeid generation entry_valid attr_valid entry_ns attr_ns attr
ATTR_OUT = Struct("=QII" + _ATTR)  # valid valid_ns padding attr
OPEN_OUT = Struct("=QIi")  # fh FOPEN_* backing_id
CREATE_OUT = Struct("=QQQQII" + _ATTR + "QIi")  # ENTRY_OUT OPEN_OUT
WRITE_OUT = Struct("=II")  # size padding
STATFS_OUT = Struct("=QQQQQIIII24x")  # blocks bfree bavail files ffree bsize namelen frsize padding
GETXATTR_OUT = Struct("=II")  # size padding
LSEEK_OUT = Struct("=Q")  # offset
COPY_FILE_RANGE_OUT = Struct("=Q")  # bytes copied (COPY_FILE_RANGE_64; the older one has WRITE_OUT)
DIRENT = Struct("=QQII")  # ino, offset of the next entry, name length, DT_*; then the name, padded to 8 bytes
INIT_OUT = Struct("=IIIIHHIIHHIIH22x")
# major minor max_readahead flags max_background congestion_threshold max_write time_gran(ns)
# max_pages map_alignment flags2 max_stack_depth request_timeout(s)

# Answers with their header in front, for the most frequent requests: one pack, one object.
ENTRY_REPLY = Struct("=IiQQQQQII" + _ATTR)
ATTR_REPLY = Struct("=IiQQII" + _ATTR)
OPEN_REPLY = Struct("=IiQQIi")
CREATE_REPLY = Struct("=IiQQQQQII" + _ATTR + "QIi")
WRITE_REPLY = Struct("=IiQII")

DT_DIR, DT_REG, DT_LNK = 4, 8, 10  # a directory entry's type: the mode's S_IFMT >> 12

FOPEN_DIRECT_IO = 1 << 0  # past the page cache
FOPEN_KEEP_CACHE = 1 << 1  # the pages of an earlier open are still good
FOPEN_NONSEEKABLE = 1 << 2
FOPEN_CACHE_DIR = 1 << 3  # the kernel may keep the listing
FOPEN_STREAM = 1 << 4
FOPEN_NOFLUSH = 1 << 5  # close(2) sends no FLUSH
FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6
FOPEN_PASSTHROUGH = 1 << 7  # read, write and map the file registered as backing_id; never with KEEP_CACHE


# ------------------------------------------------------------------ capabilities of both sides
class Init(IntFlag):
    """Flags of INIT: the kernel offers, the daemon answers with its choice."""

    ASYNC_READ = 1 << 0  # several READs of a file at once
    POSIX_LOCKS = 1 << 1  # the daemon handles fcntl(2) locks; else the kernel does
    ATOMIC_O_TRUNC = 1 << 3  # OPEN carries O_TRUNC; else a SETATTR follows
    EXPORT_SUPPORT = 1 << 4  # LOOKUP of "." and ".." (NFS)
    BIG_WRITES = 1 << 5  # WRITE of more than a page
    DONT_MASK = 1 << 6  # the daemon applies the umask
    FLOCK_LOCKS = 1 << 10  # the daemon handles flock(2) locks
    AUTO_INVAL_DATA = 1 << 12  # a new mtime drops a file's pages
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14  # READDIRPLUS only where the kernel guesses that stat(2) follows
    ASYNC_DIO = 1 << 15  # parts of an O_DIRECT request at once; its caller can then not be killed
    WRITEBACK_CACHE = 1 << 16  # the kernel collects writes; excludes PASSTHROUGH
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18  # several LOOKUPs and READDIRs of a directory at once
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21  # reading the device after an abort is ECONNABORTED, not ENODEV
    MAX_PAGES = 1 << 22  # INIT_OUT.max_pages is meant
    CACHE_SYMLINKS = 1 << 23  # READLINK's answer is kept like a page
    NO_OPENDIR_SUPPORT = 1 << 24  # ENOSYS to OPENDIR is for good, and the kernel keeps listings
    EXPLICIT_INVAL_DATA = 1 << 25  # notifications drop pages, not a new mtime or size
    HANDLE_KILLPRIV_V2 = 1 << 28  # a flag of the request drops set-id bits: no GETXATTR
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30  # flags2 (here: bits 32 and up) is meant
    SECURITY_CTX = 1 << 32
    HAS_EXPIRE_ONLY = 1 << 35  # INVAL_ENTRY knows EXPIRE_ONLY
    DIRECT_IO_ALLOW_MMAP = 1 << 36  # shared mappings of FOPEN_DIRECT_IO files
    PASSTHROUGH = 1 << 37  # FOPEN_PASSTHROUGH; wants a max_stack_depth of 1 or 2
    HAS_RESEND = 1 << 39  # NOTIFY_RESEND


# ------------------------------------------------------------------ notifications
class Notify(IntEnum):
    """Notifications, sent without a request. Written inside a handler they deadlock."""

    POLL = 1
    INVAL_INODE = 2  # INVAL_INODE_OUT: forget attributes, and pages or the listing
    INVAL_ENTRY = 3  # INVAL_ENTRY_OUT, name: forget a name, negative ones too
    STORE = 4  # STORE_OUT, data: fill pages
    RETRIEVE = 5
    DELETE = 6  # DELETE_OUT, name: like INVAL_ENTRY if the child is that node, with an inotify event
    RESEND = 7  # repeat the requests that were read and never answered (after a take-over)
    INC_EPOCH = 8  # look up every name again at its next use
    PRUNE = 9  # PRUNE_OUT, node ids: give back unused inodes


INVAL_INODE_OUT = Struct("=Qqq")  # nodeid offset length; length 0: to the end; offset -1: attributes only
INVAL_ENTRY_OUT = Struct("=QII")  # parent, name length, EXPIRE_ONLY
STORE_OUT = Struct("=QQII")  # nodeid offset size padding
DELETE_OUT = Struct("=QQII")  # parent child, name length, padding
PRUNE_OUT = Struct("=IIQ")  # count padding spare
EXPIRE_ONLY = 1 << 0

# ------------------------------------------------------------------ ioctl(2) of the device
DEV_IOC_CLONE = 0x8004E500  # u32 descriptor: another queue of the same session
DEV_IOC_BACKING_OPEN = 0x4010E501  # BACKING_MAP; returns a backing id
DEV_IOC_BACKING_CLOSE = 0x4004E502  # BACKING_ID
BACKING_MAP = Struct("=iIQ")  # descriptor flags padding
BACKING_ID = Struct("=I")

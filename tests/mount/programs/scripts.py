"""Recipes of databases, of Python's own ways with files, and of system calls that scripts make through it."""

from __future__ import annotations

from tests.mount.programs.recipe import SAME_KIND, Recipe

DATABASES = [
    Recipe(
        "sqlite3 in rollback mode, two processes and their locks",
        """
import sqlite3, subprocess, sys
other = [sys.executable, "-c", '''
import sqlite3, sys
database = sqlite3.connect("library.db", timeout=float(sys.argv[1]), isolation_level=None)
try:
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO takes VALUES ('from the other')")
    database.execute("COMMIT")
    print("committed")
except sqlite3.OperationalError as error:
    print(error)
''']
database = sqlite3.connect("library.db", isolation_level=None)
database.execute("CREATE TABLE takes (name TEXT)")
for mode in ("DELETE", "TRUNCATE", "PERSIST"):
    print(database.execute(f"PRAGMA journal_mode={mode}").fetchone())
    database.execute("BEGIN IMMEDIATE")
    database.executemany("INSERT INTO takes VALUES (?)", [(f"take {n}",) for n in range(500)])
    print(subprocess.run([*other, "0"], capture_output=True, text=True).stdout)
    database.execute("COMMIT")
    waiting = subprocess.Popen([*other, "30"], stdout=subprocess.PIPE, text=True)
    database.execute("BEGIN IMMEDIATE")
    database.execute("DELETE FROM takes WHERE name = 'take 7'")
    database.execute("ROLLBACK")
    print(waiting.communicate()[0], database.execute("SELECT count(*) FROM takes").fetchone())
database.execute("PRAGMA journal_mode=DELETE")
database.execute("DELETE FROM takes WHERE rowid % 3 = 0")
database.execute("VACUUM")
print(database.execute("PRAGMA integrity_check").fetchone())
database.close()
""",
        python=True,
    ),
    Recipe(
        "sqlite3 in WAL mode, two processes",
        """
import os, sqlite3, subprocess, sys
database = sqlite3.connect("session.db", isolation_level=None)
print(database.execute("PRAGMA journal_mode=WAL").fetchone())
database.execute("CREATE TABLE peaks (n INTEGER PRIMARY KEY, peak REAL)")
writer = subprocess.Popen([sys.executable, "-c", '''
import sqlite3
database = sqlite3.connect("session.db", timeout=30, isolation_level=None)
for n in range(200):
    database.execute("INSERT INTO peaks VALUES (?, ?)", (n, n / 7))
print("done", database.execute("SELECT count(*) FROM peaks WHERE n < 1000").fetchone())
'''], stdout=subprocess.PIPE, text=True)
seen = 0
while writer.poll() is None:
    now = database.execute("SELECT count(*) FROM peaks").fetchone()[0]
    assert now >= seen, (now, seen)
    seen = now
print(writer.communicate()[0], database.execute("SELECT count(*), max(n) FROM peaks").fetchone())
print(sorted(os.listdir()))
database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
database.execute("INSERT INTO peaks VALUES (1001, 0)")
print(database.execute("PRAGMA integrity_check").fetchone())
database.close()
print(sorted(os.listdir()))
""",
        python=True,
    ),
    Recipe(
        "sqlite3's shell: dump, backup, restore",
        """
        sqlite3 a.db 'CREATE TABLE t (n, s); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000)
            INSERT INTO t SELECT n, hex(n * 7919) FROM c; CREATE INDEX i ON t (s);'
        sqlite3 a.db .dump | tee dump.sql | md5sum; sqlite3 b.db < dump.sql; sqlite3 a.db '.backup c.db' 'PRAGMA integrity_check'
        sqlite3 c.db 'UPDATE t SET s = n; VACUUM; SELECT sum(s) FROM t'; sqlite3 b.db 'DROP TABLE t; VACUUM'; ls
        sqlite3 a.db "ATTACH 'c.db' AS c; SELECT count(*) FROM t JOIN c.t AS u USING (n)"
        """,
    ),
    Recipe(
        "dbm and shelve",
        """
import dbm.dumb, shelve
with dbm.dumb.open("peaks", "c") as table:
    for n in range(200):
        table[f"take {n}"] = bytes([n]) * n
    for n in range(0, 200, 3):
        del table[f"take {n}"]
    table["take 1"] = b"longer than before"
print(len(dbm.dumb.open("peaks")), dbm.dumb.open("peaks")["take 1"])
for turn in range(3):
    with shelve.Shelf(dbm.dumb.open("shelf", "c")) as shelf:
        shelf[str(turn)] = list(range(turn * 100))
print(sorted(shelve.Shelf(dbm.dumb.open("shelf", "r"))))
""",
        python=True,
    ),
]

SAVING = [
    Recipe(
        "the atomic save, with every fsync",
        """
import json, os
for turn in range(5):
    catalogue = json.load(open("catalog.json"))
    catalogue["version"] = turn
    descriptor = os.open(".catalog.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    os.write(descriptor, json.dumps(catalogue).encode())
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename(".catalog.tmp", "catalog.json")
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
print(json.load(open("catalog.json"))["version"], os.listdir())
""",
        needs=("catalog.json",),
        python=True,
    ),
    Recipe(
        "tempfile and os.replace",
        """
import os, tempfile
for n in range(3):
    with tempfile.NamedTemporaryFile("w", dir=".", prefix="tmp", suffix=".part", delete=False) as file:
        file.write("turn %d\\n" % n * 1000)
    os.replace(file.name, "result.txt")
with tempfile.NamedTemporaryFile(dir=".") as file:
    file.write(b"x" * 100_000)
    file.flush()
    print(os.path.getsize(file.name), os.stat(file.name).st_mode & 0o777 == 0o600)
with tempfile.TemporaryFile(dir=".") as file:
    file.write(b"nameless" * 1000)
    file.seek(-8, 2)
    print(file.read(), os.fstat(file.fileno()).st_size)
with tempfile.SpooledTemporaryFile(100, dir=".") as file:
    file.write(b"y" * 5000)
    file.seek(0)
    print(len(file.read()))
with tempfile.TemporaryDirectory(dir=".") as directory:
    open(directory + "/f", "w").write("z")
descriptor, path = tempfile.mkstemp(dir=".")
os.close(descriptor)
os.unlink(path)
print(os.listdir())
""",
        python=True,
    ),
    Recipe(
        "json and csv edits",
        """
import csv, json, os
with open("catalog.json", "r+") as file:
    catalogue = json.load(file)
    catalogue["samples"] = catalogue["samples"][:20]
    file.seek(0)
    json.dump(catalogue, file)
    file.truncate()
with open("takes.csv", newline="") as file:
    rows = list(csv.DictReader(file))
with open("takes.csv", "a", newline="") as file:
    csv.writer(file).writerow(["take 200", "1.5", 3])
with open("best.csv", "w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(row for row in rows if row["rating"] == "4")
for n in range(50):
    with open("log.jsonl", "a") as file:
        print(json.dumps({"n": n}), file=file)
print(len(json.load(open("catalog.json"))["samples"]), len(open("takes.csv").readlines()), os.path.getsize("log.jsonl"))
""",
        needs=("catalog.json", "takes.csv"),
        python=True,
    ),
    Recipe(
        "logging with rotating files",
        """
import logging, logging.handlers, os
log = logging.getLogger("take")
rotating = logging.handlers.RotatingFileHandler("session.log", maxBytes=2000, backupCount=3)
watched = logging.handlers.WatchedFileHandler("watched.log")
log.addHandler(rotating)
log.addHandler(watched)
for n in range(200):
    log.warning("line %d of the session", n)
    if n == 100:
        os.rename("watched.log", "watched.old")
logging.shutdown()
print({name: os.path.getsize(name) for name in sorted(os.listdir())})
""",
        python=True,
    ),
    Recipe(
        "pathlib",
        """
from pathlib import Path
base = Path("takes")
(base / "day 1" / "mic").mkdir(parents=True)
for n in range(10):
    (base / "day 1" / f"{n}.wav").write_bytes(bytes([n]) * n * 1000)
(base / "note.txt").write_text("größer\\n", encoding="utf-8")
(base / "day 1" / "3.wav").rename(base / "three.wav")
(base / "day 1" / "4.wav").replace(base / "three.wav")
(base / "link.wav").symlink_to("three.wav")
(base / "day 1" / "5.wav").unlink()
(base / "day 1" / "none").unlink(missing_ok=True)
(base / "touched").touch(mode=0o600)
(base / "day 1" / "mic").rmdir()
(base / "day 1").rename(base / "day one")
(base / "note.txt").chmod(0o640)
print(sorted(str(p) for p in base.rglob("*.wav")), [p.stat().st_size for p in sorted(base.glob("*/*"))])
print((base / "link.wav").resolve().name, (base / "link.wav").is_symlink(), base.joinpath("none").exists())
try:
    base.rmdir()
except OSError as error:
    print(error.strerror)
try:
    (base / "touched" / "below").write_text("x")
except OSError as error:
    print(error.strerror)
try:
    (base / "day one").write_text("x")
except OSError as error:
    print(error.strerror)
""",
        python=True,
    ),
]

SYSTEM_CALLS = [
    Recipe(
        "mmap: a mapping and descriptors of one file",
        """
import mmap, os
descriptor = os.open("long.wav", os.O_RDWR)
other = os.open("long.wav", os.O_RDWR)
mapping = mmap.mmap(descriptor, 0)
print(mapping[:4], mapping.find(b"data"), len(mapping))
mapping[1_000_000:1_000_010] = b"0123456789"
print(os.pread(other, 10, 1_000_000))
os.pwrite(other, b"abc", 2_000_000)
print(mapping[2_000_000:2_000_003])
mapping.move(100, 1_000_000, 10)
mapping.flush()
os.close(descriptor)
os.close(other)
mapping[-4:] = b"last"  # after the last close
mapping.close()
with open("long.wav", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as private:
    private[0:4] = b"mine"
    print(file.read(4), private[-4:])
os.truncate("long.wav", 1_500_001)
with open("long.wav", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
    mapping.resize(1_600_000)
    mapping[-1:] = b"!"
    print(len(mapping), os.path.getsize("long.wav"))
""",
        needs=("long.wav",),
        python=True,
    ),
    Recipe(
        "several writers and readers of one file",
        """
import os
one, two = os.open("f", os.O_RDWR | os.O_CREAT), os.open("f", os.O_RDWR)
append, read = os.open("f", os.O_WRONLY | os.O_APPEND), os.open("f", os.O_RDONLY)
os.write(one, b"first")
os.write(append, b" second")
os.pwrite(two, b"F", 0)
print(os.read(read, 100), os.lseek(append, 0, os.SEEK_CUR))
os.ftruncate(two, 3)
os.write(append, b"!")
os.write(one, b"hole")
print(os.pread(read, 100, 0), os.fstat(read).st_size)
os.pwritev(two, [b"ab", b"cd"], 6)
print(os.preadv(read, [bytearray(4), bytearray(9)], 2), os.path.getsize("f"))
os.truncate("f", 0)
os.write(one, b"far")
print(os.pread(two, 100, 0))
try:
    os.write(read, b"x")
except OSError as error:
    print(error.strerror)
try:
    os.open("f", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
except OSError as error:
    print(error.strerror)
os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
print(os.fstat(one).st_size)
os.set_blocking(one, True)
with open("f", "a+b") as file:
    file.write(b"tail")
    file.seek(0)
    print(file.read())
""",
        python=True,
    ),
    Recipe(
        "sparse files, holes and copies inside the kernel",
        """
import os
with open("sparse", "wb") as file:
    file.seek(1 << 20)
    file.write(b"middle")
    file.truncate(3 << 20)
descriptor = os.open("sparse", os.O_RDWR)
data = os.lseek(descriptor, 0, os.SEEK_DATA)
print(data <= 1 << 20, os.lseek(descriptor, 0, os.SEEK_END), os.pread(descriptor, 6, 1 << 20))
try:
    os.lseek(descriptor, 4 << 20, os.SEEK_DATA)
except OSError as error:
    print(error.strerror)
os.posix_fallocate(descriptor, 0, 4 << 20)
print(os.fstat(descriptor).st_size)
with open("copied", "wb") as copy:
    done = 0
    while done < 4 << 20 and (n := os.copy_file_range(descriptor, copy.fileno(), (4 << 20) - done, done)):
        done += n
    print(done)
with open("sent", "wb") as copy:
    done = 0
    while n := os.sendfile(copy.fileno(), descriptor, done, 1 << 22):
        done += n
    print(done)
os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
print(os.pread(descriptor, 8, (1 << 20) - 1), os.statvfs(".").f_namemax)
""",
        python=True,
    ),
    Recipe(
        "locks between processes: flock, lockf, ranges",
        """
import fcntl, os, subprocess, sys
other = '''
import fcntl, os, sys
file = open("lock", "r+b")
try:
    if sys.argv[1] == "flock":
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, int(sys.argv[2]))
    print("got it")
except OSError as error:
    print(error.strerror)
'''
def ask(*words):
    return subprocess.run([sys.executable, "-c", other, *words], capture_output=True, text=True).stdout.strip()
with open("lock", "w+b") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print(ask("flock"))
    fcntl.flock(file, fcntl.LOCK_SH)
    print(ask("flock"))
    fcntl.flock(file, fcntl.LOCK_UN)
    print(ask("flock"))
    fcntl.lockf(file, fcntl.LOCK_EX, 10, 100)
    print(ask("range", "105"), ask("range", "110"), ask("range", "90"))
    fcntl.lockf(file, fcntl.LOCK_SH, 10, 100)
    print(ask("range", "100"))
print(ask("range", "100"))
""",
        python=True,
    ),
    Recipe(
        "inotify tells of local changes",
        """
import ctypes, os, select, struct, subprocess
libc = ctypes.CDLL(None, use_errno=True)
os.mkdir("watched")
inotify = libc.inotify_init1(os.O_NONBLOCK)
mask = 0x3FF & ~0x21  # all but accesses and openings
assert libc.inotify_add_watch(inotify, b"watched", mask) > 0
def told(what):
    names = {0x2: "modify", 0x4: "attributes", 0x8: "close after writing", 0x10: "close", 0x40: "moved from",
             0x80: "moved to", 0x100: "create", 0x200: "delete"}
    seen = []
    while select.select([inotify], [], [], 0.1)[0]:
        events = os.read(inotify, 65536)
        while events:
            _, bits, cookie, length = struct.unpack_from("iIII", events)
            name, events = events[16 : 16 + length].rstrip(b"\\0").decode(), events[16 + length :]
            said = f"{names.get(bits & 0xFFF, hex(bits))} {name}"
            if not seen or seen[-1] != said:
                seen.append(said)
    print(what, seen)
subprocess.run("echo one > watched/a; echo two >> watched/a", shell=True)
told("written")
subprocess.run("mv watched/a watched/b; mkdir watched/d; mv watched/b watched/d/; rm watched/d/b; rmdir watched/d", shell=True)
told("moved")
open("outside", "w").write("x")
os.rename("outside", "watched/in")
os.chmod("watched/in", 0o600)
os.symlink("in", "watched/link")
os.unlink("watched/in")
told("changed")
""",
        python=True,
    ),
    Recipe(
        "threads and processes write side by side",
        """
import concurrent.futures, multiprocessing, os
def piece(n):
    with open(f"piece-{n}", "wb") as file:
        for m in range(20):
            file.write(bytes([n]) * 1000)
    with open("shared", "r+b") as file:
        file.seek(n * 1000)
        file.write(bytes([n]) * 1000)
    with open("log", "a") as file:
        file.write(f"piece {n}\\n")
    os.rename(f"piece-{n}", f"done-{n}")
    return n
open("shared", "wb").truncate(24_000)
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(piece, range(12))))
with multiprocessing.get_context("fork").Pool(4) as pool:
    print(sum(pool.map(piece, range(12, 24))))
lines = sorted(open("log"))
open("log", "w").writelines(lines)
print(len(lines), len(os.listdir()))
""",
        python=True,
    ),
    Recipe(
        "python runs modules from there and keeps their bytecode",
        """
        mkdir package; echo 'VALUE = 42' > package/__init__.py; echo 'from package import VALUE; print(VALUE)' > main.py
        "$PYTHON" main.py; "$PYTHON" -m compileall -q package; ls package; "$PYTHON" main.py
        "$PYTHON" -m zipapp package -m package:x -o app.pyz 2>/dev/null || true; PYTHONPATH=. "$PYTHON" -c 'import package'
        """,
        loose={"*.pyc": SAME_KIND, "app.pyz": SAME_KIND},
    ),
    Recipe(
        "a directory is listed while it changes",
        """
import os
for n in range(300):
    open(f"f{n:03}", "w").close()
seen = []
with os.scandir(".") as entries:
    for entry in entries:
        seen.append(entry.name)
        if entry.name.endswith("7"):
            os.unlink(entry.name)
        if entry.name.endswith("00"):
            os.rename(entry.name, "renamed-" + entry.name)
print(len([name for name in set(seen) if name.startswith("f")]), len(os.listdir()))
directory = os.open(".", os.O_RDONLY)
print(len(os.listdir(directory)), os.stat("f001", dir_fd=directory).st_size)
for name in os.listdir("."):
    if int(name[-2:]) % 4:
        os.remove(name)
print(len(os.listdir(directory)))
os.close(directory)
""",
        python=True,
    ),
]

RECIPES = [*DATABASES, *SAVING, *SYSTEM_CALLS]

"""Real programs on a mounted bucket; what they made is then read by another S3 client."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import wave
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def serving(mount):
    return mount


@pytest.fixture
def in_the_bucket(mount, place, s3, seaweed, tmp_path):
    """`in_the_bucket(name)`: the object, fetched by another client into an ordinary file."""
    mount.allowed.append(r"$^")

    def fetch(name: str) -> Path:
        mount.flush(60)
        target = tmp_path / name
        s3.download_file(seaweed.endpoint.bucket, f"{mount.prefix}{place.name}/{name}", str(target))
        return target

    return fetch


def run(*words: str | Path, cwd: Path | None = None) -> str:
    for program in words[:1]:
        assert shutil.which(program), f"{program} is not installed"
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def sine(path: Path, seconds: float = 2.0, rate: int = 44100) -> None:
    run("sox", "-n", "-r", str(rate), "-b", "16", "-c", "2", path, "synth", str(seconds), "sine", "440")


def probe(path: Path) -> dict:
    return json.loads(run("ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", path))


def test_sox_makes_a_wave_file(place, in_the_bucket):
    """It writes the header first, and once more at the end."""
    sine(place / "tone.wav", 3)
    with wave.open(str(in_the_bucket("tone.wav"))) as heard:
        assert heard.getnframes() == 3 * 44100
    run("sox", place / "tone.wav", place / "slow.flac", "tempo", "0.5")
    assert abs(float(probe(in_the_bucket("slow.flac"))["format"]["duration"]) - 6) < 0.1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tone.mp3", ["-b:a", "128k"]),
        ("tone.flac", []),
        ("tone.m4a", ["-c:a", "aac", "-movflags", "+faststart"]),
        ("tone.ogg", ["-c:a", "flac"]),
    ],
)
def test_ffmpeg_transcodes(place, in_the_bucket, name, options):
    sine(place / "tone.wav")
    run("ffmpeg", "-v", "error", "-y", "-i", place / "tone.wav", *options, place / name)
    fetched = in_the_bucket(name)
    assert abs(float(probe(fetched)["format"]["duration"]) - 2) < 0.15
    assert fetched.read_bytes() == (place / name).read_bytes()


def test_faststart_puts_the_index_first(place, in_the_bucket):
    """ffmpeg reads the whole file back and writes it again, shifted."""
    sine(place / "long.wav", 20)
    run(
        "ffmpeg",
        "-v",
        "error",
        "-i",
        place / "long.wav",
        "-c:a",
        "aac",
        "-movflags",
        "+faststart",
        place / "x.m4a",
    )
    content = in_the_bucket("x.m4a").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    run("ffmpeg", "-v", "error", "-xerror", "-i", place / "x.m4a", "-f", "null", "-")


PATCH = """
import sys, numpy, soundfile
with soundfile.SoundFile(sys.argv[1], "r+") as file:
    half = file.read(1000)
    file.seek(0)
    file.write(numpy.zeros_like(half))
    file.seek(0, soundfile.SEEK_END)
    file.write(half)
data, rate = soundfile.read(sys.argv[1])
assert (data[:1000] == 0).all() and len(data) == 2 * rate + 1000, len(data)
soundfile.write(sys.argv[2], data[rate:], rate, subtype="PCM_24")
"""


def test_soundfile_in_place(place, in_the_bucket):
    pytest.importorskip("numpy")
    sine(place / "tone.wav")
    run(sys.executable, "-c", PATCH, place / "tone.wav", place / "cut.flac")
    with wave.open(str(in_the_bucket("tone.wav"))) as heard:
        assert heard.getnframes() == 2 * 44100 + 1000
        assert heard.readframes(1000) == bytes(4000)
    assert probe(in_the_bucket("cut.flac"))["streams"][0]["codec_name"] == "flac"


TAG = """
import sys, mutagen
from mutagen.easyid3 import EasyID3
file = mutagen.File(sys.argv[1], easy=True)
if file.tags is None:
    file.add_tags()
file["title"], file["artist"] = "Ein Lied " * int(sys.argv[2]), "Jürgen"
file.save()
"""


@pytest.mark.parametrize("name", ["song.mp3", "song.flac", "song.m4a"])
def test_mutagen_tags_in_place(place, in_the_bucket, name):
    """Short tags fit in the padding; long ones move the whole file."""
    sine(place / "tone.wav")
    run("ffmpeg", "-v", "error", "-i", place / "tone.wav", place / name)
    for times in (1, 2000):
        run(sys.executable, "-c", TAG, place / name, str(times))
        shown = probe(in_the_bucket(name))["format"]["tags"]
        assert shown.get("artist", shown.get("ARTIST")) == "Jürgen"
        assert shown.get("title", shown.get("TITLE", "")).strip() == ("Ein Lied " * times).strip()
    run("ffmpeg", "-v", "error", "-xerror", "-i", place / name, "-f", "null", "-")


JOIN = """
import sys, warnings
warnings.simplefilter("ignore")
from pydub import AudioSegment
tone = AudioSegment.from_file(sys.argv[1])
pieces = [tone[start:start + 250] for start in range(0, 2000, 500)]
(pieces[0] + pieces[1] + pieces[2] + pieces[3]).export(sys.argv[2], format="mp3").close()
"""


def test_pydub_cuts_and_joins(place, in_the_bucket):
    sine(place / "tone.wav")
    run(sys.executable, "-c", JOIN, place / "tone.wav", place / "joined.mp3")
    assert abs(float(probe(in_the_bucket("joined.mp3"))["format"]["duration"]) - 1) < 0.1


def test_copying_a_tree(place, in_the_bucket, tmp_path):
    source = tmp_path / "source"
    for number in range(20):
        file = source / f"album {number % 3}" / f"{number}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(20_000 + number))
    run("cp", "-a", source, place / "copy")
    run("diff", "-r", source, place / "copy")
    assert sums(place / "copy") == sums(source)
    run("tar", "-cf", place / "all.tar", "-C", place, "copy")
    run("tar", "-xf", in_the_bucket("all.tar"), "-C", tmp_path)
    assert sums(tmp_path / "copy") == sums(source)


def sums(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_sqlite(place, in_the_bucket):
    with sqlite3.connect(place / "library.db") as database:
        database.execute("CREATE TABLE takes (name TEXT)")
        database.executemany("INSERT INTO takes VALUES (?)", [(f"take {n}",) for n in range(1000)])
    database.close()
    with sqlite3.connect(in_the_bucket("library.db")) as fetched:
        assert fetched.execute("SELECT count(*) FROM takes").fetchone() == (1000,)
    fetched.close()


def test_git(place, in_the_bucket):
    run("git", "init", "-q", place / "repository")
    (place / "repository" / "song.txt").write_text("verse\n")
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    for message in ("one", "two"):
        with (place / "repository" / "song.txt").open("a") as file:
            file.write(message + "\n")
        run("git", "-C", place / "repository", "add", "-A")
        run("git", "-C", place / "repository", *identity, "commit", "-q", "-m", message)
    assert run("git", "-C", place / "repository", "log", "--format=%s").split() == ["two", "one"]
    run("git", "-C", place / "repository", "fsck", "--strict")


def test_editors_that_save_atomically(place, in_the_bucket):
    path = place / "notes.txt"
    path.write_text("one\n")
    run("sed", "-i", "s/one/two/", path)
    assert in_the_bucket("notes.txt").read_text() == "two\n"
    run("sh", "-c", "echo three >> notes.txt", cwd=place)
    run("install", "-m", "600", path, place / "copy.txt")
    assert in_the_bucket("copy.txt").read_text() == "two\nthree\n"

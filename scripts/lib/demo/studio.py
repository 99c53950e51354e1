"""A small studio's work on a folder: sox, ffmpeg, soundfile, pydub and mutagen on plain paths.

    python -m scripts.lib.demo.studio FOLDER MINUTES

Owns:  what is made there; the same bytes at every run, wherever the folder is.
Never: knows of buckets, mounts or r2fs.

Prints one line of JSON for each step: {step, files, bytes, seconds}, bytes read and written.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import soundfile
from mutagen.flac import FLAC
from mutagen.id3 import ID3, TALB, TIT2, TPE1
from mutagen.mp4 import MP4

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Python 3.11 deprecates audioop, which pydub imports
    from pydub import AudioSegment

RATE = 44_100
NOTES = {"bass": "sine 55", "lead": "triangle 440", "pad": "sawtooth 220-330", "hiss": "pinknoise"}
TAKE_S = 20


def run(*argv: object) -> None:
    subprocess.run([str(part) for part in argv], check=True, stdin=subprocess.DEVNULL)


def ffmpeg(source: Path, target: Path, *options: str) -> Path:
    # bitexact: no version and no date in the file, so that two runs can be compared
    exact = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact")
    run("ffmpeg", "-nostdin", "-loglevel", "error", "-y", "-i", source, *exact, *options, target)
    return target


# ------------------------------------------------------------------ the steps: each returns what it touched
def record(folder: Path) -> list[Path]:
    """sox writes WAV files: the sizes in the header are patched at the end, by a seek back to 0."""
    takes = folder / "takes"
    takes.mkdir()
    made = []
    for name, note in NOTES.items():
        made.append(takes / f"{name}.wav")
        run("sox", "-R", "-n", "-r", RATE, "-c", 2, "-b", 16, made[-1], "synth", TAKE_S, *note.split())
    return made


def mix(folder: Path, minutes: float) -> list[Path]:
    """sox reads the takes and writes one long mix."""
    target = folder / "mixes" / "session.wav"
    target.parent.mkdir()
    takes = [folder / "takes" / f"{name}.wav" for name in NOTES]
    repeat = max(0, round(minutes * 60 / TAKE_S) - 1)
    run("sox", "-R", "-m", *takes, target, "norm", -3, "repeat", repeat)
    return [*takes, target]


def transcode(folder: Path) -> list[Path]:
    """ffmpeg writes MP3, FLAC and M4A; +faststart rewrites the whole file to move its index to the front."""
    exports = folder / "exports"
    exports.mkdir()
    lead, pad = folder / "takes" / "lead.wav", folder / "takes" / "pad.wav"
    return [
        lead,
        pad,
        ffmpeg(lead, exports / "lead.mp3", "-b:a", "192k"),
        ffmpeg(lead, exports / "lead.flac"),
        ffmpeg(pad, exports / "pad.m4a", "-c:a", "aac", "-b:a", "160k", "-movflags", "+faststart"),
        ffmpeg(exports / "lead.mp3", exports / "lead-from-mp3.wav"),
    ]


def cut(folder: Path) -> list[Path]:
    """soundfile seeks in the long mix and writes segments."""
    segments = folder / "segments"
    segments.mkdir()
    made = []
    with soundfile.SoundFile(folder / "mixes" / "session.wav") as source:
        for number in range(24):
            source.seek(number * source.frames // 24)
            samples = source.read(RATE, dtype="int16")
            made.append(segments / f"{number:03}.wav")
            soundfile.write(made[-1], samples, RATE, subtype="PCM_16")
    return made


def join(folder: Path) -> list[Path]:
    """pydub joins segments with a cross-fade; the file is written under another name, then renamed."""
    songs = folder / "songs"
    songs.mkdir()
    parts = sorted((folder / "segments").iterdir())
    song = AudioSegment.from_file(parts[0], format="wav")
    for part in parts[1:]:
        song = song.append(AudioSegment.from_file(part, format="wav"), crossfade=50)
    unfinished = songs / ".song.wav.part"
    song.export(unfinished, format="wav").close()
    unfinished.rename(songs / "song.wav")
    song.fade_out(500).export(
        songs / "song.flac", format="flac", parameters=["-fflags", "+bitexact", "-flags:a", "+bitexact"]
    ).close()
    return [*parts, songs / "song.wav", songs / "song.flac"]


def tag(folder: Path) -> list[Path]:
    """mutagen writes tags into the files where they are: bytes are moved and overwritten in place."""
    mp3, flac, m4a = (folder / "exports" / name for name in ("lead.mp3", "lead.flac", "pad.m4a"))
    id3 = ID3()
    for frame in (TIT2, TPE1, TALB):
        id3.add(frame(encoding=3, text=["Léad 音"]))
    id3.save(mp3)
    tagged = FLAC(flac)
    tagged.update({"title": ["Léad 音"], "artist": ["r2fs"]})
    tagged.save()
    movie = MP4(m4a)
    movie["\xa9nam"] = ["Päd"]
    movie.save()
    return [mp3, flac, m4a]


def tidy(folder: Path) -> list[Path]:
    """mv, cp, append and rm, as a shell would."""
    released = folder / "released"
    released.mkdir()
    (folder / "exports" / "pad.m4a").rename(released / "Päd – final.m4a")
    shutil.copy(folder / "exports" / "lead.mp3", released / "lead.mp3")
    (folder / "exports" / "lead-from-mp3.wav").unlink()
    log = folder / "log.txt"
    for line in ("recorded", "mixed", "released"):
        with log.open("a") as out:
            out.write(f"{line}\n")
    return [released / "Päd – final.m4a", released / "lead.mp3", log]


def steps(folder: Path, minutes: float) -> Iterable[tuple[str, Callable[[], list[Path]]]]:
    yield "sox records takes (WAV)", lambda: record(folder)
    yield "sox mixes them", lambda: mix(folder, minutes)
    yield "ffmpeg → MP3, FLAC, M4A +faststart", lambda: transcode(folder)
    yield "soundfile cuts segments", lambda: cut(folder)
    yield "pydub joins them", lambda: join(folder)
    yield "mutagen tags in place", lambda: tag(folder)
    yield "mv, cp, append, rm", lambda: tidy(folder)


def main(folder: Path, minutes: float) -> None:
    for step, work in steps(folder, minutes):
        begun = time.monotonic()
        touched = work()
        seconds = time.monotonic() - begun
        size = sum(path.stat().st_size for path in touched)
        print(
            json.dumps({"step": step, "files": len(touched), "bytes": size, "seconds": seconds}), flush=True
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))

"""Inputs of the recipes: a few seconds of sound in every format, and the texts beside them."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

TIME_NS = 1_700_000_000_500_000_000  # when all of them were modified


def make(directory: Path) -> None:
    """Every input, in an order in which later ones may use earlier ones."""
    for name, maker in MAKERS.items():
        maker(directory / name)
        assert (directory / name).stat().st_size, name
        os.utime(directory / name, ns=(TIME_NS, TIME_NS))


def _program(*words: str) -> Callable[[Path], None]:
    def maker(path: Path) -> None:
        subprocess.run([*words, path.name], cwd=path.parent, check=True, capture_output=True, timeout=100)

    return maker


def _sine(seconds: str, rate: str, channels: str, *frequencies: str) -> Callable[[Path], None]:
    voices = [word for frequency in frequencies for word in ("sine", frequency)]

    def maker(path: Path) -> None:
        words = [
            "sox",
            "-R",
            "-n",
            "-r",
            rate,
            "-b",
            "16",
            "-c",
            channels,
            path.name,
            "synth",
            seconds,
            *voices,
        ]
        subprocess.run(words, cwd=path.parent, check=True, timeout=100)

    return maker


def _encoded(*options: str) -> Callable[[Path], None]:
    tags = ("-metadata", "title=A tone", "-metadata", "artist=Anna")
    return _program("ffmpeg", "-v", "error", "-y", "-i", "tone.wav", "-bitexact", *tags, *options)


def _text(make_text: Callable[[], str]) -> Callable[[Path], None]:
    def maker(path: Path) -> None:
        path.write_text(make_text())

    return maker


def _catalogue() -> str:
    """As VoiceBeat's catalog/samples.json."""
    samples = [
        {"id": f"s{n:04}", "path": f"segments/s{n:04}.wav", "bpm": 80 + n % 90, "tags": ["drum", "loop"]}
        for n in range(500)
    ]
    return json.dumps({"version": 1, "samples": samples}, indent=1) + "\n"


def _takes() -> str:
    rows = [f"take {n},{n * 0.37:.2f},{n % 5}\n" for n in range(200)]
    return "take,length_s,rating\n" + "".join(rows)


def _words() -> str:
    chance = random.Random(7)
    return "".join(
        f"{chance.choice(['verse', 'chorus', 'bridge'])} {chance.randrange(10000)}\n" for _ in range(3000)
    )


MAKERS: dict[str, Callable[[Path], None]] = {
    "tone.wav": _sine("1.5", "44100", "2", "440", "554"),
    "voice.wav": _sine("1", "16000", "1", "220"),
    "long.wav": _sine("20", "44100", "2", "110", "165"),  # 3.5 MB: comes in pieces, not whole
    "song.mp3": _encoded("-b:a", "128k"),
    "song.flac": _encoded(),
    "song.m4a": _encoded("-c:a", "aac"),
    "song.ogg": _encoded("-c:a", "libvorbis"),
    "catalog.json": _text(_catalogue),
    "takes.csv": _text(_takes),
    "words.txt": _text(_words),
}

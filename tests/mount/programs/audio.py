"""Recipes of audio programs: sox, ffmpeg, flac, lame, soundfile, pydub, mutagen, wave."""

from __future__ import annotations

from tests.mount.programs.recipe import SAME_AUDIO, Recipe

SOX = [
    Recipe(
        "sox makes a wave file", "sox -R -n -r 44100 -b 16 -c 2 t.wav synth 1 sine 440; soxi -s -r -c t.wav"
    ),
    Recipe(
        "sox cuts segments",
        """
        mkdir -p segments
        for n in 0 1 2 3; do sox -R tone.wav segments/$n.wav trim 0.$n 0.25 fade 0.01; done
        soxi -s segments/*.wav
        """,
        needs=("tone.wav",),
    ),
    Recipe(
        "sox changes rate and format",
        """
        sox -R tone.wav -r 16000 -c 1 low.wav rate -v
        sox -R tone.wav -b 24 t.flac
        sox -R tone.wav t.aiff
        sox -R tone.wav -C 128 t.mp3
        sox -R tone.wav t.w64
        for f in low.wav t.flac t.aiff t.w64; do soxi -s -b $f; done
        """,
        needs=("tone.wav",),
    ),
    Recipe(
        "sox joins, mixes and replaces",
        """
        sox -R tone.wav tone.wav -n stat 2>&1 | grep -c :
        sox -R tone.wav tone.wav joined.wav
        sox -R -m tone.wav joined.wav mix.wav norm -3
        sox -R mix.wav mix.tmp.wav reverse && mv mix.tmp.wav mix.wav
        soxi -s *.wav
        """,
        needs=("tone.wav",),
    ),
    Recipe(
        "sox writes what a pipe brings, and patches the header at the end",
        """
        sox -R tone.wav -t raw - | sox -R -t raw -r 44100 -e signed -b 16 -c 2 - -t wav - > unpatched.wav
        sox -R tone.wav -t raw - | sox -R -t raw -r 44100 -e signed -b 16 -c 2 - patched.wav
        soxi -s patched.wav
        """,
        needs=("tone.wav",),
    ),
]

FFMPEG = [
    Recipe(
        "ffmpeg transcodes",
        """
        for t in "mp3 -b:a 128k" "flac" "m4a -c:a aac" "ogg -c:a libvorbis" "opus -c:a libopus" "caf" "aiff"; do
            set -- $t; suffix=$1; shift
            ffmpeg -v error -nostdin -i tone.wav -bitexact "$@" tone.$suffix
            ffprobe -v error -show_entries stream=codec_name,sample_rate -of csv=p=0 tone.$suffix
        done
        """,
        needs=("tone.wav",),
    ),
    Recipe(
        "ffmpeg faststart: the file is read back and written again, shifted",
        """
        ffmpeg -v error -nostdin -i long.wav -bitexact -c:a aac -movflags +faststart fast.m4a
        ffmpeg -v error -nostdin -i long.wav -bitexact -c:a aac slow.m4a
        for f in fast slow; do grep -aobE 'moov|mdat' $f.m4a | head -2; done
        ffmpeg -v error -xerror -i fast.m4a -f null -
        """,
        needs=("long.wav",),
    ),
    Recipe(
        "ffmpeg segments and lists them",
        """
        ffmpeg -v error -nostdin -i long.wav -bitexact -f segment -segment_time 2.5 -segment_list all.csv part%03d.wav
        cat all.csv; ls
        """,
        needs=("long.wav",),
    ),
    Recipe(
        "ffmpeg concatenates by a list and by a pipe",
        """
        for n in 1 2 3; do cp song.mp3 "chapter $n.mp3"; echo "file 'chapter $n.mp3'"; done > list.txt
        ffmpeg -v error -nostdin -f concat -safe 0 -i list.txt -c copy -bitexact all.mp3
        cat chapter*.mp3 | ffmpeg -v error -f mp3 -i - -c copy -bitexact -id3v2_version 0 piped.mp3
        ffprobe -v error -show_entries format=duration -of csv=p=0 all.mp3
        """,
        needs=("song.mp3",),
    ),
    Recipe(
        "ffmpeg writes RF64",
        """
        ffmpeg -v error -nostdin -i tone.wav -bitexact -rf64 always always.wav
        ffmpeg -v error -nostdin -i tone.wav -bitexact -rf64 auto auto.wav
        head -c 16 always.wav | xxd; head -c 16 auto.wav | xxd
        ffmpeg -v error -nostdin -i always.wav -bitexact -c copy again.wav; cmp tone.wav again.wav || echo differ
        sox -R always.wav -n stat 2>&1 | grep Length
        """,
        needs=("tone.wav",),
    ),
    Recipe(
        "ffmpeg streams into a growing file that another one follows",
        """
        (for n in 1 2 3 4 5; do head -c $((n * 30000)) long.wav; sleep 0.02; done) |
            ffmpeg -v error -f s16le -ar 44100 -ac 2 -i - -bitexact -f adts -flush_packets 1 -c:a aac live.aac &
        writer=$!
        until [ -s live.aac ]; do sleep 0.01; done
        tail -c +1 -s 0.05 -f --pid=$writer live.aac > followed.aac
        wait $writer
        cmp live.aac followed.aac && echo followed
        """,
        needs=("long.wav",),
    ),
    Recipe(
        "ffmpeg writes an HLS playlist, by temporary files that are renamed",
        """
        ffmpeg -v error -nostdin -i long.wav -bitexact -c:a aac -f hls -hls_time 4 -hls_list_size 0 \\
            -hls_flags temp_file -hls_segment_filename 's%d.ts' live.m3u8
        cat live.m3u8
        ffprobe -v error -show_entries format=duration -of csv=p=0 live.m3u8
        """,
        needs=("long.wav",),
    ),
    Recipe(
        "ffmpeg makes an audiobook with chapters",
        """
        ffmpeg -v error -nostdin -i song.m4a -f ffmetadata meta.txt
        for n in 0 1; do printf '[CHAPTER]\\nTIMEBASE=1/1000\\nSTART=%d\\nEND=%d\\ntitle=Chapter %d\\n' \\
            $((n * 700)) $((n * 700 + 700)) $n; done >> meta.txt
        ffmpeg -v error -nostdin -i song.m4a -i meta.txt -map_metadata 1 -map_chapters 1 -c copy -bitexact \\
            -movflags +faststart book.m4b
        ffprobe -v error -show_chapters -of csv=p=0 book.m4b
        ffmpeg -v error -nostdin -i song.m4a -c copy -bitexact -movflags frag_keyframe+empty_moov frag.m4a
        ffmpeg -v error -xerror -i frag.m4a -f null -
        """,
        needs=("song.m4a",),
    ),
    Recipe(
        "ffmpeg overwrites, and is told not to",
        """
        ffmpeg -v error -nostdin -y -i voice.wav -bitexact tone.wav
        ffmpeg -v quiet -nostdin -n -i voice.wav -bitexact tone.wav || echo refused
        ffprobe -v error -show_entries stream=sample_rate,channels -of csv=p=0 tone.wav
        """,
        needs=("tone.wav", "voice.wav"),
    ),
    Recipe(
        "ffprobe reads every format where it lies",
        """
        for f in tone.wav song.*; do
            ffprobe -v error -show_format -show_streams -of json $f | grep -v filename
            ffmpeg -v error -xerror -i $f -f md5 -
        done
        """,
        needs=("tone.wav", "song.mp3", "song.flac", "song.m4a", "song.ogg"),
    ),
    Recipe(
        "a batch of four at a time",
        """
        mkdir in out
        for n in $(seq 12); do sox -R tone.wav in/$n.wav trim 0.0$n 0.3; done
        find in -name '*.wav' -print0 | xargs -0 -P4 -I{} sh -c \\
            'sox -R "$1" "out/$(basename "$1" .wav).flac" && flac -s -t "out/$(basename "$1" .wav).flac"' _ {}
        ls in out | wc -l
        """,
        needs=("tone.wav",),
    ),
]

FLAC_AND_LAME = [
    Recipe(
        "flac encodes, verifies and decodes",
        """
        flac -s --verify -8 -S 10x tone.wav -o t.flac
        flac -s -t t.flac
        flac -s -d t.flac -o back.wav
        cmp tone.wav back.wav
        cp back.wav gone.wav; flac -s --delete-input-file gone.wav; ls
        flac -s --keep-foreign-metadata back.wav -o foreign.flac
        """,
        needs=("tone.wav",),
    ),
    Recipe(
        "metaflac edits in the padding, and beyond it",
        """
        metaflac --set-tag='TITLE=Take one' song.flac
        head -c 3000000 long.wav > big.bin
        metaflac --add-padding=40000 song.flac
        metaflac --set-tag-from-file='COMMENT=words.txt' song.flac
        metaflac --preserve-modtime --remove-all-tags song.flac
        touch -d '2020-02-03 04:05:06.789' song.flac
        metaflac --preserve-modtime --set-tag=ARTIST=Anna song.flac
        metaflac --list --block-type=VORBIS_COMMENT,PADDING song.flac
        flac -s -t song.flac
        """,
        needs=("song.flac", "words.txt", "long.wav"),
    ),
    Recipe(
        "lame writes its header last",
        """
        lame --quiet -V 2 --tt Title --ta Anna --ty 2026 tone.wav vbr.mp3
        lame --quiet -b 96 voice.wav cbr.mp3
        lame --quiet --decode vbr.mp3 back.wav
        xxd -l 64 vbr.mp3; soxi -s back.wav
        """,
        needs=("tone.wav", "voice.wav"),
    ),
]

SOUNDFILE = [
    Recipe(
        "soundfile r+ writes at both ends",
        """
import numpy, soundfile
with soundfile.SoundFile("tone.wav", "r+") as file:
    head = file.read(1000, dtype="int16")
    file.seek(0)
    file.write(numpy.zeros_like(head))
    file.seek(0, soundfile.SEEK_END)
    file.write(head)
print(soundfile.info("tone.wav").frames, soundfile.read("tone.wav")[0][:1000].any())
""",
        needs=("tone.wav",),
        python=True,
    ),
    Recipe(
        "soundfile appends block by block",
        """
import numpy, soundfile
block = (numpy.sin(numpy.arange(4410) / 7) * 9000).astype("int16")
with soundfile.SoundFile("take.wav", "w", 44100, 1) as file:
    for n in range(20):
        file.write(block + n)
        file.flush()
        assert soundfile.info("take.wav").frames == (n + 1) * 4410
for n in range(3):
    with soundfile.SoundFile("take.wav", "r+") as file:
        file.seek(0, soundfile.SEEK_END)
        file.write(block)
    print(soundfile.info("take.wav").frames)
soundfile.write("float.w64", block / 9000, 44100, subtype="FLOAT", format="W64")
soundfile.write("rf64.wav", block, 44100, format="RF64")
soundfile.write("take.aiff", block, 44100, subtype="PCM_24")
""",
        python=True,
    ),
    Recipe(
        "soundfile cuts segments out of a long file",
        """
import os, soundfile
os.mkdir("segments")
with soundfile.SoundFile("long.wav") as file:
    for n in (9, 3, 14, 0):
        file.seek(n * 44100)
        soundfile.write(f"segments/{n:04}.wav", file.read(22050, dtype="int16"), file.samplerate)
    print(file.frames)
""",
        needs=("long.wav",),
        python=True,
    ),
    Recipe(
        "pydub joins layers",
        """
import os, warnings
warnings.simplefilter("ignore")
from pydub import AudioSegment
tone, voice = AudioSegment.from_file("tone.wav"), AudioSegment.from_file("song.mp3")
os.makedirs("layers")
layer = tone[:500] + voice[200:900].fade_in(50) + tone[-300:]
layer.overlay(voice, gain_during_overlay=-6).export("layers/mixed.wav", format="wav").close()
layer.export("layers/mixed.flac", format="flac").close()
print(len(layer), AudioSegment.from_file("layers/mixed.flac").rms)
""",
        needs=("tone.wav", "song.mp3"),
        python=True,
        loose={"layers/mixed.flac": SAME_AUDIO},
    ),
    Recipe(
        "the wave module patches its header, and copies in frames",
        """
import struct, wave
with wave.open("made.wav", "wb") as file:
    file.setparams((2, 2, 8000, 0, "NONE", ""))
    for n in range(50):
        file.writeframes(struct.pack("<hh", n * 100, -n * 100) * 100)
with wave.open("long.wav") as there, wave.open("copy.wav", "wb") as copy:
    copy.setparams(there.getparams())
    there.setpos(there.getnframes() // 2)
    while frames := there.readframes(10_000):
        copy.writeframes(frames)
print(wave.open("made.wav").getnframes(), wave.open("copy.wav").getnframes())
with open("made.wav", "r+b") as file:  # by hand, as a recorder does it
    file.seek(0, 2)
    file.write(bytes(4000))
    size = file.tell()
    file.seek(4)
    file.write(struct.pack("<I", size - 8))
    file.seek(40)
    file.write(struct.pack("<I", size - 44))
print(wave.open("made.wav").getnframes())
""",
        needs=("long.wav",),
        python=True,
    ),
    Recipe(
        "numpy maps peaks and samples",
        """
import numpy
samples = numpy.memmap("long.wav", dtype="<i2", mode="r", offset=44).reshape(-1, 2)
peaks = numpy.lib.format.open_memmap("long.peaks.npy", "w+", "int16", (len(samples) // 512, 2))
for n in range(len(peaks)):
    peaks[n] = abs(samples[n * 512 : n * 512 + 512]).max(0)
peaks.flush()
print(peaks.max(), int(peaks.sum()))
edit = numpy.memmap("tone.wav", dtype="<i2", mode="r+", offset=44)
edit[1000:2000] = 0
edit[-500:] //= 2
edit.flush()
del edit
again = numpy.load("long.peaks.npy", mmap_mode="r")
print((again == peaks).all())
raw = numpy.memmap("raw.i16", dtype="<i2", mode="w+", shape=30_000)
raw[::3] = 7
del raw
""",
        needs=("long.wav", "tone.wav"),
        python=True,
    ),
]

_TAG = """
import mutagen
for name in NAMES:
    for title, artist in (("Take one", "Anna"), ("Ein Lied " * 4000, "Jürgen"), ("short again", "Çelik")):
        file = mutagen.File(name, easy=True)
        if file.tags is None:
            file.add_tags()
        file["title"], file["artist"] = title, artist
        file.save()
    again = mutagen.File(name, easy=True)
    print(name, again["title"], again["artist"], round(again.info.length, 3))
"""

MUTAGEN = [
    Recipe(
        "mutagen: ID3 grows the header, in place",
        _TAG.replace("NAMES", "['song.mp3']"),
        ("song.mp3",),
        python=True,
    ),
    Recipe(
        "mutagen: ID3 at both ends, pictures, and gone again",
        """
from mutagen.id3 import APIC, COMM, ID3, TIT2
from mutagen.mp3 import MP3
tags = ID3("song.mp3")
tags.add(APIC(3, "image/png", 3, "cover", bytes(range(256)) * 800))
tags.add(COMM(3, "eng", "", "a comment"))
tags.save(v1=2)
print(sorted(MP3("song.mp3").tags), open("song.mp3", "rb").read()[-128:][:3])
ID3("song.mp3").delete("song.mp3")
print(MP3("song.mp3").tags)
tags = ID3()
tags.add(TIT2(3, "new"))
tags.save("song.mp3", v2_version=3, padding=lambda info: 10_000)
""",
        needs=("song.mp3",),
        python=True,
    ),
    Recipe(
        "mutagen: FLAC padding, Vorbis comments, MP4 atoms",
        _TAG.replace("NAMES", "['song.flac', 'song.ogg', 'song.m4a']")
        + """
from mutagen.flac import FLAC, Picture
flac, picture = FLAC("song.flac"), Picture()
picture.data, picture.type, picture.mime = bytes(300_000), 3, "image/png"
flac.add_picture(picture)
flac.save()
flac.clear_pictures()
flac.save(deleteid3=True)
print(len(open("song.flac", "rb").read()))
""",
        needs=("song.flac", "song.ogg", "song.m4a"),
        python=True,
    ),
    Recipe(
        "mutagen: tags of a large wave file, at its end",
        """
import wave
from mutagen.wave import WAVE
from mutagen.id3 import TIT2
for title in ("one", "two" * 3000, "three"):
    file = WAVE("long.wav")
    if file.tags is None:
        file.add_tags()
    file.tags.add(TIT2(3, title))
    file.save()
print(WAVE("long.wav").tags["TIT2"], wave.open("long.wav").getnframes())
""",
        needs=("long.wav",),
        python=True,
    ),
]

RECIPES = [*SOX, *FFMPEG, *FLAC_AND_LAME, *SOUNDFILE, *MUTAGEN]

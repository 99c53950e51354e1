"""Session files and playlists: what they refer to, from files as the programs write them."""

from __future__ import annotations

import gzip
import io
import zlib

import pytest

from r2fs.model import sessions
from r2fs.model.sessions import BadSession, Reference, is_session, references


def read(name: str, data: bytes | str) -> list[Reference]:
    return references(name, io.BytesIO(data.encode() if isinstance(data, str) else data))


REAPER = """<REAPER_PROJECT 0.1 "6.80/linux-x86_64" 1690000000
  RIPPLE 0
  RENDER_FILE "mix.wav"
  <RECORD_CFG
    ZXZhdw==
  >
  <TRACK {11111111-2222-3333-4444-555555555555}
    NAME "Drums"
    <ITEM
      POSITION 0
      <SOURCE WAVE
        FILE "Media/kick 01.wav"
      >
      <SOURCE SECTION
        LENGTH 2
        <SOURCE MP3
          FILE '/srv/loops/say "hi".mp3' 1
        >
      >
    >
    <ITEM
      <SOURCE WAVE
        FILE Media\\snare.wav
      >
      <SOURCE MIDI
        HASDATA 1 960 QN
      >
      <SOURCE WAVE
        FILE "Media/kick 01.wav"
      >
    >
  >
>
"""


def test_reaper_names_the_files_of_its_sources() -> None:
    assert read("song.RPP", REAPER) == [
        ("Media/kick 01.wav",),
        ('/srv/loops/say "hi".mp3',),
        ("Media/snare.wav",),
    ]
    with pytest.raises(BadSession, match=r"song.rpp: not a Reaper project"):
        read("song.rpp", "RIFF")


ABLETON = """<?xml version="1.0" encoding="UTF-8"?>
<Ableton MajorVersion="5" MinorVersion="11.0_433" Creator="Ableton Live 11.2">
 <LiveSet>
  <AudioClip><SampleRef>
   <FileRef>
    <RelativePathType Value="3" />
    <RelativePath Value="Samples/Recorded/1-Audio &amp; 2.wav" />
    <Path Value="/Users/anna/Song Project/Samples/Recorded/1-Audio &amp; 2.wav" />
    <Type Value="1" />
   </FileRef>
   <SourceContext><SourceContext><OriginalFileRef><FileRef>
    <RelativePath Value="" /><Path Value="/Users/anna/kick.wav" />
   </FileRef></OriginalFileRef></SourceContext></SourceContext>
  </SampleRef></AudioClip>
  <MultiSamplePart><SampleRef><FileRef>
   <HasRelativePath Value="true" />
   <RelativePath>
    <RelativePathElement Id="0" Dir="" />
    <RelativePathElement Id="1" Dir="Library" />
   </RelativePath>
   <Name Value="snare.aif" />
  </FileRef></SampleRef></MultiSamplePart>
  <PluginDevice><FileRef><Path Value="/Library/VST3/x.vst3" /></FileRef></PluginDevice>
 </LiveSet>
</Ableton>
"""


def test_ableton_names_samples_in_the_form_of_either_version() -> None:
    assert read("song.als", gzip.compress(ABLETON.encode())) == [
        ("Samples/Recorded/1-Audio & 2.wav", "/Users/anna/Song Project/Samples/Recorded/1-Audio & 2.wav"),
        ("/Users/anna/kick.wav",),
        ("../Library/snare.aif",),
    ]


def test_ableton_s_file_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(ABLETON.encode())
    monkeypatch.setattr(sessions, "LARGEST", 1 << 20)
    for data, says in (
        (ABLETON.encode(), "not packed by gzip"),
        (packed[: len(packed) // 2], "cannot be read"),
        (packed[:-40] + bytes(40), "cannot be read"),
        (gzip.compress(b"<a>" + b" " * (2 << 20) + b"</a>"), "more than 1048576 bytes, unpacked"),
        (gzip.compress(b"<a>" * 2000), "more than 1000 elements"),
        (gzip.compress(b"<a><b></a>"), "cannot be read"),
    ):
        with pytest.raises(BadSession, match=says):
            read("song.als", data)


@pytest.mark.parametrize("name", ["list.xspf", "song.als"])
def test_entities_are_refused(name: str) -> None:
    bomb = (
        b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;">'
        b'<!ENTITY x SYSTEM "file:///etc/passwd">]><playlist><track><location>&b;&x;</location></track></playlist>'
    )
    with pytest.raises(BadSession, match="declares a document type"):
        read(name, gzip.compress(bomb) if name.endswith("als") else bomb)


def test_a_bomb_takes_bounded_memory_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LARGEST", 16 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(b"<a>")
    for _ in range(300):
        bomb += packer.compress(b" " * (1 << 20))
    bomb += packer.flush()
    assert len(bomb) < 1 << 20
    with pytest.raises(BadSession, match="unpacked"):
        read("song.als", bomb)


def test_playlists() -> None:
    text = "\ufeff#EXTM3U\r\n#EXTINF:1,x\r\nintro.mp3\r\n\r\nsub dir/Ünï.flac\r\nsub\\two.mp3\r\n"
    text += "file:///srv/a%20b.wav\r\nhttps://radio.example.com/live.mp3\r\n/srv/c.wav\r\n"
    assert read("list.m3u8", text) == [
        ("intro.mp3",),
        ("sub dir/Ünï.flac",),
        ("sub/two.mp3",),
        ("/srv/a b.wav",),
        ("/srv/c.wav",),
    ]
    assert read("list.m3u", "Ünï.mp3".encode("latin-1")) == [("Ünï.mp3",)]


def test_xspf() -> None:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><playlist version="1" xmlns="http://xspf.example.org/ns/0/">'
        "<title>x</title><location>not-this</location><trackList>"
        "<track><location>file:///srv/a%20b.wav</location><title>a</title></track>"
        "<track><location> takes/%C3%9Cn%C3%AF.flac </location></track>"
        "<track><location>https://h.example.com/x.mp3</location></track>"
        "</trackList></playlist>"
    )
    assert read("list.xspf", text) == [("/srv/a b.wav",), ("takes/Ünï.flac",)]


def test_edit_decision_lists() -> None:
    text = """TITLE: Reel 1
FCM: NON-DROP FRAME
001  AX       V     C        01:00:00:00 01:00:04:00 00:00:00:00 00:00:04:00
* FROM CLIP NAME: A001_C002.mov
002  AX       V     D    024 01:00:00:00 01:00:04:00 00:00:04:00 00:00:08:00
* FROM CLIP NAME: A001_C002.mov
* TO CLIP NAME: B003.mov
003  AX       AA    C        01:00:00:00 01:00:04:00 00:00:08:00 00:00:12:00
* FROM CLIP NAME: interview
* SOURCE FILE: audio/interview 1.wav
"""
    assert read("cut.edl", text) == [("A001_C002.mov",), ("B003.mov",), ("audio/interview 1.wav",)]


def test_an_audacity_project_has_its_audio_inside() -> None:
    assert read("song.aup3", b"SQLite format 3\0" + bytes(100)) == []
    with pytest.raises(BadSession, match="no SQLite database"):
        read("song.aup3", b"PK")


def test_by_suffix() -> None:
    assert (
        is_session("a/SONG.RPP") and is_session("x.m3u") and not is_session("x.wav") and not is_session("rpp")
    )


def test_a_text_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LARGEST", 100)
    with pytest.raises(BadSession, match="more than 100 bytes"):
        read("list.m3u", "x" * 101)
    monkeypatch.setattr(sessions, "MOST", 2)
    with pytest.raises(BadSession, match="more than 2 references"):
        read("list.m3u", "1\n2\n3\n")

"""Tests of pcl_jax.library.audio_tags."""

import io
import os

import av
import mutagen
from mutagen import apev2
from mutagen import asf
from mutagen import id3
from mutagen import mp4
from mutagen import wave
import numpy as np
import pytest
import soundfile

from pcl_jax.library import audio_tags
from tests.support.tiny import tiny_library

LONG = "A Long Artist Name That Is Cut By The Old Tag"


def test_the_writer_of_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "a.mp3")
  tags = audio_tags.read_tags(tmp_path / "a.mp3")
  assert tags == audio_tags.Tags(unreadable="it is no regular file")


def test_tags_of_wav_files_are_read(tmp_path):
  path = tiny_library.write_song(tmp_path / "a.wav")
  file = wave.WAVE(path)
  file.add_tags()
  file.tags.add(id3.TPE1(encoding=3, text=["One", "Two"]))
  file.tags.add(id3.TCON(encoding=3, text=["(17)"]))
  file.save()
  tags = audio_tags.read_tags(path)
  assert (tags.artists, tags.genres) == (("One", "Two"), ("Rock",))
  with soundfile.SoundFile(tmp_path / "b.wav", "w", 16_000, 1) as file:
    file.artist = "Three"
    file.write(np.ones(100))
  assert audio_tags.read_tags(tmp_path / "b.wav").artists == ("Three",)


def test_tags_of_wma_and_ape_files_have_the_common_names(monkeypatch, tmp_path):
  windows = asf.ASFTags()
  windows["Author"] = ["One", "Two"]
  windows["WM/AlbumTitle"] = ["Album"]
  windows["WM/Genre"] = ["Rock"]
  windows["WM/Year"] = ["1999"]
  windows["WM/Picture"] = [asf.ASFByteArrayAttribute(b"picture")]
  ape = apev2.APEv2()
  ape["Artist"] = ["One", "Two"]
  ape["Album"], ape["Genre"], ape["Year"] = "Album", "Rock", "1999"
  ape["Cover Art (Front)"] = apev2.APEValue(b"picture", apev2.BINARY)

  for tags in (windows, ape):
    monkeypatch.setattr(
      audio_tags.mutagen,
      "File",
      lambda *_, tags=tags, **__: type("File", (), {"tags": tags})(),
    )
    (tmp_path / "a.wma").touch()
    found = audio_tags.read_tags(tmp_path / "a.wma")
    assert found == audio_tags.Tags(
      artists=("One", "Two"),
      albums=("Album",),
      genres=("Rock",),
      dates=("1999",),
    )


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
  """Untagged files: suffix -> bytes."""
  folder = tmp_path_factory.mktemp("sounds")
  paths = [
    tiny_library.write_song(folder / f"a.{suffix}")
    for suffix in ("mp3", "flac", "ogg")
  ]
  return {path.suffix: path.read_bytes() for path in paths}


def _id3(*frames, v2_version=4):
  tags, file = id3.ID3(), io.BytesIO()
  for frame in frames:
    tags.add(frame)
  separator = "/" if v2_version == 3 else None
  tags.save(file, v2_version=v2_version, v23_sep=separator)
  return file.getvalue()


def _id3v1(artist, genre=255):
  name = artist.encode("latin-1")[:30].ljust(30, b"\0")
  return b"TAG" + b"t".ljust(30, b"\0") + name + bytes(64) + bytes([genre])


def _ape(path, **values):
  tags = apev2.APEv2()
  tags.update(values)
  tags.save(path)


def _artists(path):
  return list(audio_tags.read_tags(path).artists)


@pytest.mark.parametrize("version", [3, 4])
def test_apev2_in_mp3_counts_where_id3v2_is_silent(tmp_path, sounds, version):
  path = tmp_path / "a.mp3"
  path.write_bytes(sounds[".mp3"])
  _ape(path, Artist=["One", "Two"], Genre="Rock", Album="Album")
  assert _artists(path) == ["One", "Two"]
  front = _id3(id3.TPE1(3, ["Three"]), v2_version=version)
  path.write_bytes(front + path.read_bytes())
  tags = audio_tags.read_tags(path)
  assert (tags.artists, tags.genres) == (("Three",), ("Rock",))
  assert tags.albums == ("Album",)


def test_a_name_that_id3v1_cuts_is_taken_in_full_from_apev2(tmp_path, sounds):
  path = tmp_path / "a.mp3"
  path.write_bytes(sounds[".mp3"])
  _ape(path, Artist=LONG)
  path.write_bytes(path.read_bytes() + _id3v1(LONG))
  assert _artists(path) == [LONG]
  # ID3v2 with a genre alone, and the artist in ID3v1.
  path.write_bytes(_id3(id3.TCON(3, ["House"])) + path.read_bytes())
  tags = audio_tags.read_tags(path)
  assert (tags.artists, tags.genres) == ((LONG,), ("House",))


def test_gain_in_apev2_hides_no_artist(tmp_path, sounds):
  path = tmp_path / "a.mp3"
  path.write_bytes(_id3(id3.TPE1(3, ["One"])) + sounds[".mp3"])
  _ape(path, REPLAYGAIN_TRACK_GAIN="-3 dB")
  assert _artists(path) == ["One"]


def test_id3v1_alone_and_beside_id3v2_is_read(tmp_path, sounds):
  path = tmp_path / "a.mp3"
  path.write_bytes(sounds[".mp3"] + _id3v1("One", genre=17))
  tags = audio_tags.read_tags(path)
  assert (tags.artists, tags.genres) == (("One",), ("Rock",))
  path.write_bytes(_id3(id3.TCON(3, ["(17)(18)"])) + path.read_bytes())
  tags = audio_tags.read_tags(path)
  assert (tags.artists, tags.genres) == (("One",), ("Rock", "Techno"))


@pytest.mark.parametrize("version", [3, 4])
def test_the_tag_artists_of_id3_is_read(tmp_path, sounds, version):
  path = tmp_path / "a.mp3"
  frames = (
    id3.TPE1(3, ["One feat. Two"]),
    id3.TXXX(3, "Artists", ["One", "Two"]),
    id3.TPE2(3, ["Three"]),
  )
  path.write_bytes(_id3(*frames, v2_version=version) + sounds[".mp3"])
  tags = audio_tags.read_tags(path)
  assert tags.artists == ("One feat. Two",) and tags.album_artists == ("Three",)
  assert tags.artist_list == (("One", "Two") if version == 4 else ("One/Two",))


@pytest.mark.parametrize("suffix", [".flac", ".ogg"])
def test_the_tag_artists_of_vorbis_comments_is_read(tmp_path, sounds, suffix):
  path = tmp_path / f"a{suffix}"
  path.write_bytes(sounds[suffix])
  file = mutagen.File(path)
  file["ARTISTS"], file["Artist"] = ["One", "Two"], "One & Two"
  file["ALBUM ARTIST"] = "Three"
  file.save()
  tags = audio_tags.read_tags(path)
  assert tags.artist_list == ("One", "Two") and tags.artists == ("One & Two",)
  assert tags.album_artists == ("Three",)


def test_id3_in_front_of_flac_counts_where_vorbis_comments_are_silent(
  tmp_path, sounds
):
  path = tmp_path / "a.flac"
  front = _id3(id3.TPE1(3, ["Front"]), id3.TCON(3, ["Rock"]))
  path.write_bytes(front + sounds[".flac"])
  assert _artists(path) == ["Front"]
  path.write_bytes(sounds[".flac"])
  file = mutagen.File(path)
  file["artist"] = "Vorbis"
  file.save()
  path.write_bytes(front + path.read_bytes())
  tags = audio_tags.read_tags(path)
  assert (tags.artists, tags.genres) == (("Vorbis",), ("Rock",))


def test_a_value_that_is_no_name_is_cut(tmp_path, sounds):
  path = tmp_path / "a.flac"
  path.write_bytes(sounds[".flac"])
  file = mutagen.File(path)
  file["artist"] = ["," * 200_000, "One"]
  file.save()
  first, second = _artists(path)
  assert (first, second) == ("," * 1000, "One")


def test_tags_of_matroska_files_are_read(tmp_path):
  path = tmp_path / "a.mka"
  with av.open(os.fspath(path), "w", format="matroska") as file:
    file.metadata.update({"ARTIST": "One", "GENRE": "Rock", "ARTISTS": "A;B"})
    stream = file.add_stream("pcm_s16le", rate=16_000, layout="mono")
    frame = av.AudioFrame.from_ndarray(
      np.ones((1, 1600), np.int16), format="s16", layout="mono"
    )
    frame.sample_rate, frame.pts = 16_000, 0
    file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
  tags = audio_tags.read_tags(path)
  assert (tags.artists, tags.genres) == (("One",), ("Rock",))
  assert tags.artist_list == ("A;B",)


def test_tags_of_mp4_files_have_the_common_names(monkeypatch, tmp_path):
  tags = mp4.MP4Tags()
  tags["\xa9ART"], tags["aART"] = ["One feat. Two"], ["Three"]
  tags["\xa9alb"], tags["\xa9gen"] = ["Album"], ["Rock"]
  tags["\xa9nam"], tags["\xa9day"] = ["Title"], ["1999-01-02"]
  tags["----:com.apple.iTunes:ARTISTS"] = [b"One", b"Two"]
  tags["covr"] = [mp4.MP4Cover(b"picture")]
  path = tmp_path / "a.m4a"
  path.touch()
  monkeypatch.setattr(
    audio_tags.mutagen,
    "File",
    lambda *_, **__: type("File", (), {"tags": tags})(),
  )
  assert audio_tags.read_tags(path) == audio_tags.Tags(
    titles=("Title",),
    artists=("One feat. Two",),
    artist_list=("One", "Two"),
    albums=("Album",),
    album_artists=("Three",),
    genres=("Rock",),
    dates=("1999-01-02",),
  )

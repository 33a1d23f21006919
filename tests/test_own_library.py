"""Tests of preprocessing.own_library, library_meta, m3u and audio_tags."""

import json
import pathlib
import shutil

import lmdb
import mutagen
from mutagen import id3
from mutagen import wave
import numpy as np
import pytest
import soundfile

from pcl_jax import audio_file
from pcl_jax import errors
from pcl_jax.data import catalogue
from pcl_jax.data import song_store
from preprocessing import audio_tags
from preprocessing import library_meta
from preprocessing import m3u
from preprocessing import own_library
from preprocessing import playlist_vectors
from tests import real_library

SMALL = {
  "threads": 2,
  "dims": 4,
  "genre_dims": 4,
  "test_share": 0.2,
  "validation_share": 0.2,
}


def _song(path, hz=440.0, *, seconds=0.4, rate_hz=16_000, **tags):
  path.parent.mkdir(parents=True, exist_ok=True)
  time_s = np.arange(round(seconds * rate_hz)) / rate_hz
  soundfile.write(path, 0.5 * np.sin(2 * np.pi * hz * time_s), rate_hz)
  if tags:
    file = mutagen.File(path, easy=True)
    file.update(tags)
    file.save()
  return path


def _library(folder, *, artists=4, songs=5):
  """A library without tags and playlists: one folder for each artist."""
  for artist in range(artists):
    for song in range(songs):
      number = artist * songs + song
      _song(folder / f"Artist {artist}" / f"{song}.wav", 200.0 + 40 * number)
  return folder


def _records(store):
  """All keys and values of a song store."""
  copy = shutil.copytree(store, store.with_name("copy"))  # LMDB opens it once.
  with lmdb.open(str(copy), readonly=True, lock=False) as env:
    with env.begin() as txn:
      return dict(txn.cursor())


def _meta(data_dir, name):
  return library_meta.read_json(data_dir / "kakao_meta" / name)


def test_a_folder_of_audio_becomes_a_data_set(tmp_path):
  audio, data = _library(tmp_path / "music"), tmp_path / "data"
  report = own_library.build_library(audio, data, **SMALL)
  assert (report["songs"], report["left_out"], report["artists"]) == (20, 0, 4)
  store = song_store.SongStore(data / "songs.lmdb")
  ids = library_meta.read_json(data / "song_ids.json")["ids"]
  assert list(ids) == sorted(ids) and list(ids.values()) == list(range(20))
  for path, song_id in ids.items():
    expected = audio_file.read_feature(audio / path)
    np.testing.assert_array_equal(store.read_song(song_id), expected)
  made = catalogue.load(data)
  assert np.bincount(made.split).tolist() == [12, 4, 4]
  assert made.artists.transposed(4).lengths.tolist() == [5, 5, 5, 5]


def test_what_the_library_lacks_is_said_by_strategy(tmp_path):
  audio, data = _library(tmp_path / "music"), tmp_path / "data"
  report = own_library.build_library(audio, data, **SMALL)
  assert report["unavailable"].keys() == {
    "CM and Hybrid with cf",
    "CM and Hybrid with genre_w2v",
    "A-IM and Hybrid with Playlist pairs",
    "A-IM and Hybrid with Genre pairs",
  }
  assert not list(data.glob("*_vectors.npy"))
  assert "cf (the library lacks playlists)" in own_library.summary(report, data)


def test_vectors_are_made_where_there_are_playlists_and_genres(tmp_path):
  audio, data = tmp_path / "music", tmp_path / "data"
  for i in range(20):
    genre = ["Rock; Folk", "Jazz"][i % 2]
    _song(
      audio / f"{i:02d}.flac", 200.0 + 40 * i, genre=genre, artist=f"{i % 5}"
    )
  for i in range(4):
    names = [f"{j:02d}.flac" for j in range(20) if j % 4 == i]
    (audio / f"{i}.m3u").write_text("\n".join(["#EXTM3U", *names]))
  report = own_library.build_library(audio, data, **SMALL)
  assert report["unavailable"] == {}
  assert np.load(data / "playlist_vectors.npy").shape == (20, 5)
  assert np.load(data / "genre_vectors.npy").shape == (7, 4)
  made = catalogue.load(data)
  expected = ["GN0100", "GN0101", "GN0200", "GN0201", "GN0300", "GN0301"]
  assert made.genre_codes.tolist() == expected
  assert [one.tolist() for one in made.playlists] == [
    list(range(i, 20, 4)) for i in range(4)
  ]
  names = _meta(data, "genre_gn_all.json")
  assert [names[code] for code in expected[::2]] == ["Folk", "Jazz", "Rock"]
  first = _meta(data, "song_meta.json")[0]
  assert first["song_gn_gnr_basket"] == ["GN0300", "GN0100"]
  assert first["song_gn_dtl_gnr_basket"] == ["GN0301", "GN0101"]


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_tags_are_read_and_split(tmp_path, suffix):
  path = _song(
    tmp_path / f"a.{suffix}",
    title="Title",
    artist=["One; Two", "one", " Three "],
    album="Album",
    albumartist="Various",
    genre=["Rock", "Jazz;Blues"],
    date="2013-05-06",
  )
  tags = audio_tags.read_tags(path)
  assert tags.artists == ("One", "Two", "Three")
  assert tags.genres == ("Rock", "Jazz", "Blues")
  assert (tags.titles, tags.albums) == (("Title",), ("Album",))
  assert tags.album_artists == ("Various",)
  ids = {"Folder/" + path.name: 7}
  (tmp_path / "Folder").mkdir()
  path.rename(tmp_path / "Folder" / path.name)
  library_meta.write_meta(tmp_path, tmp_path / "meta", ids, {7})
  (song,) = library_meta.read_json(tmp_path / "meta" / "song_meta.json")
  assert song["id"] == 7 and song["issue_date"] == "20130506"
  assert song["artist_name_basket"] == ["One", "Two", "Three"]
  assert song["artist_id_basket"] == [0, 1, 2]


def test_tags_of_wav_files_are_read(tmp_path):
  path = _song(tmp_path / "a.wav")
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


def test_unreadable_tags_are_reported_and_stop_nothing(tmp_path):
  path = tmp_path / "Folder" / "a.flac"
  path.parent.mkdir()
  path.write_bytes(b"no such thing" * 100)
  assert audio_tags.read_tags(path).unreadable
  ids = {"Folder/a.flac": 0}
  found = library_meta.write_meta(tmp_path, tmp_path / "meta", ids, {0})
  assert found["tags_unreadable"].keys() == ids.keys()
  (song,) = library_meta.read_json(tmp_path / "meta" / "song_meta.json")
  assert song["artist_name_basket"] == ["Folder"]


def test_a_file_beside_no_folder_and_tag_has_no_artist(tmp_path):
  _song(tmp_path / "a.flac")
  found = library_meta.write_meta(tmp_path, tmp_path / "m", {"a.flac": 0}, {0})
  assert (found["artists"], found["songs_without_artist"]) == (0, 1)


@pytest.mark.parametrize(
  "encoding, found",
  [
    ("utf-8", "utf-8-sig"),
    ("utf-8-sig", "utf-8-sig"),
    ("utf-16", "utf-16"),
    ("latin-1", "latin-1"),
  ],
)
def test_playlists_are_read_in_their_encoding(tmp_path, encoding, found):
  path = tmp_path / "a.m3u"
  text = "#EXTM3U\r\n#EXTINF:1,é\r\n\r\nCafé/Ça.mp3 \r\nb\x85.mp3\rc.mp3"
  path.write_bytes(text.encode(encoding))
  assert m3u.read_entries(path) == (
    ["Café/Ça.mp3", "b\x85.mp3", "c.mp3"],
    found,
  )


def test_entries_are_found_however_they_are_spelled(tmp_path):
  music = tmp_path / "music"
  (music / "lists").mkdir(parents=True)
  ids = {"A/x y.mp3": 0, "A/100%.mp3": 1, "Caf\u00e9/b#c.mp3": 2, "d.mp3": 3}
  (tmp_path / "link").symlink_to(music)
  finder = m3u.SongFinder(music, ids)
  entries = {
    "../A/x y.mp3": 0,
    "..\\A\\x y.mp3": 0,
    "..\\A\\x%20y.mp3": 0,
    "A/x y.mp3": 0,
    "../a/X Y.MP3": 0,
    "../lists/../A//x%20y.mp3": 0,
    "../A/100%.mp3": 1,
    "../A/100%25.mp3": 1,
    "../Cafe\u0301/b#c.mp3": 2,
    (music / "d.mp3").as_posix(): 3,
    (tmp_path / "link" / "d.mp3").as_posix(): 3,
    (music / "d.mp3").as_uri(): 3,
    (music / "A" / "x y.mp3").as_uri(): 0,
    "../../music/d.mp3": 3,
    "../absent.mp3": None,
    "http://example.org/d.mp3": None,
    "/d.mp3": None,
    "C:\\Music\\d.mp3": None,
    "../A": None,
    "\0": None,
  }
  found = {entry: finder.find(music / "lists", entry) for entry in entries}
  assert found == entries


def test_songs_that_differ_in_case_alone_need_their_exact_name(tmp_path):
  finder = m3u.SongFinder(tmp_path, {"a.mp3": 0, "A.mp3": 1, "b.mp3": 2})
  found = [finder.find(tmp_path, name) for name in ("A.mp3", "a.MP3", "B.mp3")]
  assert found == [1, None, 2]


def test_every_entry_of_a_playlist_is_accounted_for(tmp_path, monkeypatch):
  monkeypatch.setattr(
    playlist_vectors, "make_playlist_vectors", lambda *_, **__: None
  )
  audio, data = _library(tmp_path / "music"), tmp_path / "data"
  (audio / "Artist 2" / "junk.mp3").write_bytes(b"junk" * 100)
  entries = ["0.wav", "1.wav", "0.wav", "gone.wav", "junk.mp3"]
  (audio / "Artist 2" / "mix.m3u").write_text("\n".join(entries))
  (audio / "nothing.M3U").write_text("# nothing\n")
  report = own_library.build_library(audio, data, **SMALL)
  nothing, mix = sorted(report["playlist_files"], key=lambda one: one["songs"])
  assert mix["file"] == "Artist 2/mix.m3u" and mix["entries"] == 5
  assert (mix["songs"], mix["repeated"]) == (2, 1)
  assert (mix["not_found"], mix["left_out"]) == (["gone.wav"], ["junk.mp3"])
  assert nothing["entries"] == 0 and report["playlists"] == 1
  assert _meta(data, "train.json")[0]["plylst_title"] == "mix"
  assert "no song was found for: 1" in own_library.summary(report, data)


def test_files_that_cannot_be_used_are_left_out_with_their_reasons(tmp_path):
  audio, data = _library(tmp_path / "music"), tmp_path / "data"
  (audio / "empty.mp3").touch()
  (audio / "song.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(1000))
  (audio / ".hidden.mp3").write_bytes(b"not a song")
  (audio / "cover.jpg").write_bytes(b"not a song")
  soundfile.write(audio / "silent.wav", np.zeros(16_000), 16_000)
  report = own_library.build_library(audio, data, **SMALL)
  assert (report["songs"], report["left_out"]) == (20, 3)
  skipped = library_meta.read_json(data / "skipped.json")
  assert [one["id"] for one in skipped] == [20, 21, 22]
  reasons = {one["file"]: one["reason"] for one in skipped}
  assert reasons.keys() == {"empty.mp3", "silent.wav", "song.m4a"}
  assert "0 bytes" in reasons["empty.mp3"]
  assert "silent" in reasons["silent.wav"]
  assert "cannot be opened" in reasons["song.m4a"]


def test_a_library_without_anything_usable_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="not a folder"):
    own_library.build_library(tmp_path / "absent", tmp_path / "data")
  (tmp_path / "music").mkdir()
  with pytest.raises(errors.InputError, match="no audio file"):
    own_library.build_library(tmp_path / "music", tmp_path / "data")
  (tmp_path / "music" / "junk.mp3").write_bytes(b"junk" * 100)
  with pytest.raises(errors.InputError, match=r"junk\.mp3.*cannot be opened"):
    own_library.build_library(tmp_path / "music", tmp_path / "data")
  assert not (tmp_path / "data" / "songs.lmdb").exists()


def test_an_interrupted_build_goes_on_to_the_same_store(tmp_path, monkeypatch):
  audio = _library(tmp_path / "music")
  (audio / "Artist 1" / "junk.mp3").write_bytes(b"junk" * 100)
  monkeypatch.setattr(own_library, "_COMMIT_SONGS", 4)
  own_library.build_library(audio, tmp_path / "whole", **SMALL)

  calls, read = [], audio_file.read_feature

  def interrupted(path):
    calls.append(path)
    if len(calls) == 11:
      raise KeyboardInterrupt
    return read(path)

  monkeypatch.setattr(audio_file, "read_feature", interrupted)
  with pytest.raises(KeyboardInterrupt):
    own_library.build_library(audio, tmp_path / "parts", **SMALL)
  assert not (tmp_path / "parts" / "songs.lmdb").exists()
  own_library.build_library(audio, tmp_path / "parts", **SMALL)
  assert len(set(calls)) == 21 and 21 < len(calls) < 11 + 21
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  assert _records(parts / "songs.lmdb") == _records(whole / "songs.lmdb")
  for name in ("skipped.json", "library.json", "catalogue.npz"):
    assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_another_folder_does_not_go_on_with_what_was_begun(
  tmp_path, monkeypatch
):
  one, other = _library(tmp_path / "one"), _library(tmp_path / "other")
  data = tmp_path / "data"
  with monkeypatch.context() as patch:
    patch.setattr(song_store.SongWriter, "finish", _interrupt)
    with pytest.raises(KeyboardInterrupt):
      own_library.build_library(one, data, **SMALL)
  with pytest.raises(errors.InputError, match="begun from the folder"):
    own_library.build_library(other, data, **SMALL)
  assert own_library.build_library(one, data, **SMALL)["songs"] == 20


def _interrupt(*_):
  raise KeyboardInterrupt


def test_a_data_set_of_another_kind_is_left_alone(tmp_path):
  audio, data = _library(tmp_path / "music"), tmp_path / "data"
  writer = song_store.SongWriter(data / "songs.lmdb")
  writer.add([(0, np.zeros((4, 48), np.float16))])
  writer.finish({})
  with pytest.raises(errors.InputError, match="not made of audio files"):
    own_library.build_library(audio, data, force=True, **SMALL)


def test_a_finished_data_set_is_made_anew_by_force_only_and_keeps_its_ids(
  tmp_path, capsys
):
  audio, data = _library(tmp_path / "music"), tmp_path / "data"
  flags = ["--dims=4", "--genre_dims=4", "--test_share=0.2"]
  flags += ["--validation_share=0.2", f"--audio={audio}", f"--out={data}"]
  own_library.main(flags)
  before = library_meta.read_json(data / "song_ids.json")["ids"]
  _song(audio / "A new artist" / "0.wav", 333.0)
  own_library.main(flags)
  assert "nothing to do" in capsys.readouterr().out
  assert library_meta.read_json(data / "library.json")["songs"] == 20

  (audio / "Artist 3" / "4.wav").unlink()
  own_library.main([*flags, "--force"])
  after = library_meta.read_json(data / "song_ids.json")["ids"]
  assert after == before | {"A new artist/0.wav": 20}
  assert library_meta.read_json(data / "library.json")["songs"] == 20
  (gone,) = library_meta.read_json(data / "skipped.json")
  assert (gone["id"], gone["file"]) == (19, "Artist 3/4.wav")
  assert catalogue.load(data).song_ids.tolist() == [*range(19), 20]


def test_links_are_followed_and_a_circle_ends(tmp_path):
  audio = _library(tmp_path / "music", artists=1, songs=2)
  _song(tmp_path / "elsewhere" / "z.wav")
  (audio / "link").symlink_to(tmp_path / "elsewhere")
  (audio / "Artist 0" / "circle").symlink_to(audio)
  found = library_meta.find_files(audio, [".wav"])
  assert found == ["Artist 0/0.wav", "Artist 0/1.wav", "link/z.wav"]


def test_file_names_that_are_not_utf_8_are_kept(tmp_path):
  name = b"\xe9t\xe9.wav".decode("utf-8", "surrogateescape")
  library_meta.write_json(tmp_path / "a.json", {name: "é"})
  assert library_meta.read_json(tmp_path / "a.json") == {name: "é"}
  json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))


def test_a_library_of_real_recordings_is_built(shared_dir, tmp_path):
  audio, data = tmp_path / "music", tmp_path / "data"
  pieces = real_library.cut_recordings(shared_dir / "audio", audio)
  report = own_library.build_library(audio, data, **SMALL)
  assert pieces == 3 + 8 + 1 + 1 + 14 + 6
  assert (report["songs"], report["left_out"]) == (pieces, 0)
  songs = _meta(data, "song_meta.json")
  counts = {}
  for song in songs:
    (artist,) = song["artist_name_basket"]
    counts[artist] = counts.get(artist, 0) + 1
    assert artist == pathlib.PurePosixPath(song["path"]).parent.name
  assert counts == {
    "drum_bass": 3,
    "ragtime": 8,
    "robin": 1,
    "solo_trumpet": 1,
    "sugar_plum_fairy": 14,
    "sweet_waltz": 6,
  }
  frames = song_store.SongStore(data / "songs.lmdb").frames
  assert np.bincount(frames)[501] == pieces - 2  # The two shorter ones.

"""Tests of own_library's rules: windows, short tracks, albums, artists."""

import shutil

import numpy as np
import pytest
import soundfile

from pcl_jax.audio import decode
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import song_store
from preprocessing import own_library
from preprocessing.library import library_build
from preprocessing.library import library_report
from preprocessing.library import library_settings
from preprocessing.library import library_store
from preprocessing.vectors import playlist_factors
from tests.support.tiny import tiny_library


@pytest.fixture
def decoded(monkeypatch):
  """Names of the files decoded so far."""
  names, read = [], decode.read_feature

  def noting(path, *part):
    names.append(path.name)
    return read(path, *part)

  monkeypatch.setattr(decode, "read_feature", noting)
  return names


def test_a_window_is_taken_of_every_track_and_short_ones_are_left_out(tmp_path):
  audio, data = tmp_path / "music", tmp_path / "data"
  for i in range(8):
    seconds = 0.5 if i == 7 else 2.0 + 0.5 * i
    tiny_library.write_song(audio / f"{i}.flac", 200 + 50 * i, seconds=seconds)
  report = library_build.build_library(
    audio, data, from_s=1.0, to_s=3.0, **tiny_library.SMALL
  )
  assert (report["songs"], report["left_out"]) == (7, 1)
  (short,) = tiny_library.read_json(data / "skipped.json")
  assert short["file"] == "7.flac"
  assert "ends at 0.50 s" in short["reason"] and "from_s" in short["reason"]
  store = song_store.SongStore(data / "songs.lmdb")
  assert store.frames.tolist() == [64, 95, 126, 126, 126, 126, 126]
  assert store.meta["source"]["from_s"] == 1.0
  assert store.meta["source"]["to_s"] == 3.0


@pytest.mark.parametrize(
  "window",
  [(-1.0, None), (1.0, 1.0), (0.0, float("nan")), (float("inf"), None)],
)
def test_a_window_without_anything_in_it_is_refused(tmp_path, window):
  audio = tiny_library.make(tmp_path / "music", artists=1, songs=1)
  with pytest.raises(errors.InputError, match="--(from|to)_s is"):
    library_build.build_library(
      audio, tmp_path / "data", from_s=window[0], to_s=window[1]
    )
  assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
  "asked, said",
  [
    ({"test_share": 2.0}, "test_share is 2 and"),
    ({"validation_share": float("nan")}, "validation_share is nan"),
    ({"seed": -1}, "seed is -1"),
    ({"dims": 0}, "--dims=0, which"),
    ({"genre_dims": -1}, "--genre_dims=-1, which"),
  ],
)
def test_values_for_the_last_steps_are_checked_before_the_first(
  tmp_path, decoded, asked, said
):
  audio = tiny_library.make(tmp_path / "music", artists=1, songs=1)
  with pytest.raises(errors.InputError, match=said):
    library_build.build_library(
      audio, tmp_path / "data", **tiny_library.SMALL | asked
    )
  assert not decoded and not (tmp_path / "data" / "songs.lmdb").exists()


def test_short_tracks_are_left_out_said_and_counted(tmp_path):
  audio, data = tmp_path / "music", tmp_path / "data"
  # Clips of 30 s are often a little shorter.
  lengths_s = [29.6, 30.0, 31.0, 32.0, 33.0, 29.4, 5.0]
  for i, seconds in enumerate(lengths_s):
    tiny_library.write_song(audio / f"{i}.wav", 300 + 50 * i, seconds=seconds)
  settings = {k: v for k, v in tiny_library.SMALL.items() if k != "min_s"}
  report = library_build.build_library(audio, data, **settings)
  assert (report["songs"], report["too_short"]) == (5, 2)
  assert report["settings"]["min_s"] == 30.0
  first, _ = tiny_library.read_json(data / "skipped.json")
  assert first["file"] == "5.wav" and "--min_s=30" in first["reason"]
  assert "2 shorter than 30 s" in library_report.summary(report, data)
  with pytest.raises(errors.InputError, match="7 are too short: give a small"):
    library_build.build_library(
      audio, tmp_path / "none", **settings, min_s=60.0
    )
  # What reaches the end of the part that is wanted is long enough.
  report = library_build.build_library(
    audio, tmp_path / "part", **settings, from_s=1.0, to_s=10.0
  )
  assert (report["songs"], report["too_short"]) == (6, 1)


def test_albums_become_playlists_where_that_is_wanted(tmp_path, monkeypatch):
  monkeypatch.setattr(
    playlist_factors, "make_playlist_vectors", lambda *_, **__: None
  )
  audio, data = tmp_path / "music", tmp_path / "data"
  for i in range(10):
    tags = {"album": f"Album {i // 4}", "artist": f"{i}"} if i < 9 else {}
    tiny_library.write_song(audio / "a" / f"{i}.flac", 200 + 50 * i, **tags)
  (audio / "list.m3u").write_text("a/0.flac\na/9.flac")
  report = library_build.build_library(
    audio, data, **tiny_library.SMALL, albums_as_playlists=True
  )
  made = tiny_library.read_json(data / "kakao_meta" / "train.json")
  lists = {one["plylst_title"]: one["songs"] for one in made}
  assert lists == {
    "list": [0, 9], "Album 0": [0, 1, 2, 3], "Album 1": [4, 5, 6, 7]
  }  # fmt: skip
  assert (report["playlists"], report["albums_as_playlists"]) == (3, 2)
  assert "3 playlists (2 of them albums)" in library_report.summary(
    report, data
  )
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  assert report["albums_as_playlists"] == 2  # As before.
  report = library_build.build_library(
    audio, data, **tiny_library.SMALL, albums_as_playlists=False
  )
  assert (report["playlists"], report["albums_as_playlists"]) == (1, 0)


def test_artists_are_shown_before_the_work_and_after_it(tmp_path, capsys):
  audio, data = tmp_path / "music", tmp_path / "data"
  artists = [
    "Unknown Artist",
    "caf\u00e9",
    "CAFE\u0301",
    "A feat. B",
    "A",
    "B & A",
  ]
  for i, artist in enumerate(artists):
    tiny_library.write_song(audio / f"{i}.flac", 200 + 50 * i, artist=artist)
  for i in range(4):
    tiny_library.write_song(audio / "Queen" / "CD1" / f"{i}.wav", 700 + 50 * i)
  own_library.main([f"--audio={audio}", f"--out={data}", *tiny_library.FLAGS])
  before, after = capsys.readouterr().out.split("songs, ", 1)
  assert "taken from folders: 1 artists (4 songs without a tag" in before
  assert "e.g. Queen of Queen/CD1/0.wav (4 songs)" in before
  for text in (before, after):
    assert "not taken for artists: 1 names, e.g. Unknown Artist (1" in text
    assert "B & A = B + A" in text
    assert "CAF\u00c9 = caf\u00e9" in text
  assert "artists with most songs: Queen 4, A 3, B 2, CAF\u00c9 2" in after
  assert "4 artists (1 songs without)" in after
  report = tiny_library.read_json(data / "library.json")
  assert report["settings"]["no_artists"] == "+"


def test_another_shortest_length_decodes_only_what_was_left_out(
  tmp_path, decoded
):
  audio = tiny_library.make(tmp_path / "music", artists=3, songs=3)
  data = tmp_path / "data"
  for i in range(10):
    tiny_library.write_song(audio / f"long {i}.wav", 900 + 50 * i, seconds=2.0)
  for name in ("long 0", "Artist 1/1"):
    shutil.copyfile(audio / f"{name}.wav", audio / f"{name} again.wav")
  library_build.build_library(audio, data, **tiny_library.SMALL)
  before = tiny_library.read_records(data / "songs.lmdb")
  decoded.clear()
  report = library_build.build_library(
    audio, data, **{**tiny_library.SMALL, "min_s": 1.0}
  )
  assert (report["songs"], report["too_short"]) == (10, 10)
  assert report["duplicates"] == {"long 0.wav": "long 0 again.wav"}
  assert not decoded and len(song_store.SongStore(data / "songs.lmdb")) == 10
  settings = {
    key: value for key, value in tiny_library.SMALL.items() if key != "min_s"
  }
  library_build.build_library(audio, data, **settings)  # As before.
  assert not decoded
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  assert (report["songs"], report["too_short"]) == (19, 0)
  assert len(decoded) == 10 and "long 0.wav" not in decoded
  after = tiny_library.read_records(data / "songs.lmdb")
  ids = [key for key in before if len(key) == 4]
  assert len(ids) == 19 and all(after[key] == before[key] for key in ids)


def test_a_data_set_of_an_earlier_version_is_described_and_kept(
  tmp_path, decoded, capsys, monkeypatch
):
  monkeypatch.setattr(
    playlist_factors, "make_playlist_vectors", lambda *_, **__: None
  )
  audio = tiny_library.make(tmp_path / "music", artists=3, songs=3)
  (audio / "list.m3u").write_text("Artist 0/0.wav\ngone.wav")
  data = tmp_path / "data"
  flags = [f"--audio={audio}", f"--out={data}", "--force", *tiny_library.FLAGS]
  own_library.main(flags)
  report = tiny_library.read_json(data / "library.json")
  new = "names passed_over too_short albums albums_as_playlists".split()
  for key in new:
    del report[key]
  for key in library_settings.LIGHT:
    del report["settings"][key]
  for one in report["playlist_files"]:
    for key in one.keys() - {"file", "encoding", "playlists", "entries"}:
      if key not in ("songs", "repeated", "left_out", "not_found"):
        del one[key]
  storage.write_json(data / "library.json", report)
  decoded.clear()
  own_library.main([f"--audio={audio}", f"--out={data}"])
  assert "nothing to do" in capsys.readouterr().out and not decoded
  # Songs shorter than the length that is asked for by now stay.
  tiny_library.write_song(audio / "new.wav", 900.0)
  own_library.main([f"--audio={audio}", f"--out={data}"])
  assert decoded == ["new.wav"]
  assert len(song_store.SongStore(data / "songs.lmdb")) == 10


def test_other_rules_for_names_need_no_decoding(tmp_path, decoded):
  audio = tiny_library.make(tmp_path / "music", artists=3, songs=3)
  data = tmp_path / "data"
  library_build.build_library(audio, data, **tiny_library.SMALL)
  decoded.clear()
  for rule, artists in (("none", 0), ("parent", 3)):
    report = library_build.build_library(
      audio, data, artist_folder=rule, **tiny_library.SMALL
    )
    assert report["artists"] == artists
  assert not decoded


def test_of_channels_that_cancel_one_is_taken_where_that_is_asked_for(
  tmp_path, decoded, capsys
):
  audio = tiny_library.make(tmp_path / "music", artists=3, songs=3)
  data = tmp_path / "data"
  sound, _ = soundfile.read(audio / "Artist 0" / "0.wav")
  for name, gains in (
    ("cancels", [-0.25, 0.25]),
    ("right", [0.0, 0.5]),
    ("silent", [0.0, 0.0]),
  ):
    soundfile.write(audio / f"{name}.flac", np.outer(sound, gains), 16_000)
  flags = [f"--audio={audio}", f"--out={data}", *tiny_library.FLAGS]
  own_library.main(flags)
  out = capsys.readouterr().out
  assert "2 songs left out (1 silent, 1 silent but for their loudest" in out
  assert "--channels=loudest --force" in out
  reasons = [
    one["reason"] for one in tiny_library.read_json(data / "skipped.json")
  ]
  assert "channels cancel each other out; --channels=loudest" in reasons[0]
  assert reasons[1] == "it is silent from beginning to end"
  # As before this could be chosen, the mean is not named.
  report = tiny_library.read_json(data / "library.json")
  assert report["settings"].pop("channels") == "mean"
  storage.write_json(data / "library.json", report)
  store = song_store.SongStore(data / "songs.lmdb")
  assert store.meta["feature"] == melspectrogram.SETTINGS.as_dict()
  assert "channels" not in store.meta["source"]
  decoded.clear()
  own_library.main(flags)
  with pytest.raises(errors.InputError, match="'mean', here 'loudest'"):
    own_library.main([*flags, "--channels=loudest"])
  assert not decoded
  for channels, songs in (("left", 10), ("loudest", 11)):
    own_library.main([*flags, f"--channels={channels}", "--force"])
    own_library.main(flags)  # As before.
    assert "nothing to do" in capsys.readouterr().out
    store = song_store.SongStore(data / "songs.lmdb")
    assert store.meta["feature"]["channels"] == channels
    number = tiny_library.ids_of(data)["cancels.flac"]
    song = store.read_song(store.song_ids.tolist().index(number))
    part = audio / "cancels.flac", 0.0, None, print, channels
    expected = decode.read_feature(*part)
    np.testing.assert_array_equal(song, expected)
    assert tiny_library.read_json(data / "library.json")["songs"] == songs


def test_an_update_keeps_the_channels_and_an_interrupted_run_is_held_to_them(
  tmp_path, monkeypatch
):
  audio = tiny_library.make(tmp_path / "music", artists=3, songs=3)
  data = tmp_path / "data"
  monkeypatch.setattr(library_store, "_COMMIT_SONGS", 3)
  left = {**tiny_library.SMALL, "threads": 1, "channels": "left"}
  with monkeypatch.context() as patch:
    read = decode.read_feature

    def interrupted(path, *part):
      if path.name == "2.wav" and path.parent.name == "Artist 2":
        raise KeyboardInterrupt
      return read(path, *part)

    patch.setattr(decode, "read_feature", interrupted)
    with pytest.raises(KeyboardInterrupt):
      library_build.build_library(audio, data, **left)
  with pytest.raises(errors.InputError, match="channels: there 'left', here"):
    library_build.build_library(audio, data, **tiny_library.SMALL)
  library_build.build_library(audio, data, **left)
  tiny_library.write_song(audio / "new.wav", 900.0)
  library_build.build_library(audio, data, **tiny_library.SMALL)
  store = song_store.SongStore(data / "songs.lmdb")
  assert store.meta["feature"]["channels"] == "left" and len(store) == 10
  with pytest.raises(errors.InputError, match="channels is 'right'"):
    library_build.build_library(audio, data, channels="right")

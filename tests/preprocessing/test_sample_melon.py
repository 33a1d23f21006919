"""Tests of preprocessing.sample_melon and of what it is made of."""

import collections
import hashlib
import json
import os
import pathlib
import signal

import numpy as np
import pytest

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from preprocessing import sample_melon
from preprocessing.melon import melon_meta
from preprocessing.melon import melon_source
from preprocessing.sample import sample_maker
from preprocessing.sample import sample_playlists
from preprocessing.sample import sample_score
from preprocessing.sample import sample_styles
from preprocessing.sample import sample_world

TINY = {"songs": 16, "playlists": 12, "artists": 10, "seconds": 1.5}
SONG_FIELDS = {
  "id",
  "album_id",
  "album_name",
  "artist_id_basket",
  "artist_name_basket",
  "song_name",
  "song_gn_gnr_basket",
  "song_gn_dtl_gnr_basket",
  "issue_date",
}
PLAYLIST_FIELDS = {
  "id",
  "plylst_title",
  "tags",
  "songs",
  "like_cnt",
  "updt_date",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> pathlib.Path:
  out = tmp_path_factory.mktemp("sample") / "melon"
  sample_maker.make_sample(out, processes=1, **TINY)
  return out


@pytest.fixture(scope="module")
def world():
  artists = sample_world.draw_artists(60, 0)
  return artists, sample_world.draw_songs(artists, 600, 0)


def _write_one_and_die(task):
  """Stands for a process that the system ends where memory runs out."""
  if task.path.parent.exists():
    os.kill(os.getpid(), signal.SIGKILL)
  task.path.parent.mkdir(parents=True)
  task.path.write_bytes(b"")


def test_a_killed_process_is_told_and_what_was_written_is_kept(
  tmp_path, monkeypatch
):
  settings = TINY | {"songs": 12}
  with monkeypatch.context() as patch:
    patch.setattr(sample_maker, "_write_song", _write_one_and_die)
    with pytest.raises(errors.RunError, match="was ended.*--processes=1"):
      sample_maker.make_sample(tmp_path, processes=2, **settings)
  assert list(tmp_path.glob("arena_mel/*/*.npy"))
  assert not (tmp_path / sample_maker.MARKER_FILE).exists()


def _digests(folder: pathlib.Path) -> dict[str, str]:
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def _json(folder: pathlib.Path, name: str):
  return json.loads((folder / "kakao_meta" / name).read_text())


def _marker(folder: pathlib.Path) -> dict:
  return json.loads((folder / sample_maker.MARKER_FILE).read_text())


def _copy(folder: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
  for path in folder.rglob("*"):
    if path.is_file():
      target = to / path.relative_to(folder)
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(path.read_bytes())
  return to


def test_records_have_the_fields_of_melon(tiny):
  songs = _json(tiny, "song_meta.json")
  assert len(songs) == TINY["songs"]
  assert all(set(song) == SONG_FIELDS for song in songs)
  lists = [_json(tiny, name) for name in melon_meta.PLAYLIST_FILES]
  assert sum(map(len, lists)) == TINY["playlists"]
  assert all(set(one) == PLAYLIST_FIELDS for part in lists for one in part)


def test_the_reader_of_melon_metadata_accepts_the_sample(tiny):
  songs = melon_meta.read_songs(tiny / "kakao_meta")
  playlists = melon_meta.read_playlists(tiny / "kakao_meta", songs)
  names = _json(tiny, melon_meta.GENRE_FILE)
  assert len(songs.ids) == TINY["songs"] and playlists.num_unknown == 0
  assert set(songs.codes) <= set(names)


def test_good_files_hold_spectrograms_in_the_decibels_of_melon(tiny):
  bad = {i for ids in _marker(tiny)["faults"].values() for i in ids}
  good = [s["id"] for s in _json(tiny, "song_meta.json") if s["id"] not in bad]
  assert good
  for song_id in good:
    db = np.load(tiny / melon_source.song_file(song_id))
    assert db.dtype == np.float32 and db.flags.c_contiguous
    assert db.shape[0] == 48 and 75 <= db.shape[1] <= 114
    assert np.isfinite(db).all() and db.min() >= -200.0
    feature = melspectrogram.db_to_feature(db)
    assert feature.std() > 0.1 and feature.mean() > -2.0


def test_the_faults_on_file_are_those_in_the_folder(tiny):
  faults = _marker(tiny)["faults"]
  assert list(faults) == list(sample_maker.FAULTS)
  assert all(faults.values())
  ids = [i for ones in faults.values() for i in ones]
  assert len(ids) == len(set(ids))
  paths = {
    fault: [tiny / melon_source.song_file(i) for i in ones]
    for fault, ones in faults.items()
  }
  assert not any(path.exists() for path in paths["missing"])
  for path in paths["truncated"]:
    with pytest.raises(ValueError):
      np.load(path)
  assert not any(np.load(path).any() for path in paths["all_zero"])
  assert all(np.load(p).shape[1] < 256 for p in paths["short"])
  assert all(np.isneginf(np.load(p)).any() for p in paths["minus_infinity"])
  assert all(np.isposinf(np.load(p)).any() for p in paths["plus_infinity"])


def test_the_same_seed_gives_the_same_bytes_in_any_number_of_processes(
  tiny, tmp_path
):
  sample_maker.make_sample(tmp_path / "two", processes=2, **TINY)
  assert _digests(tmp_path / "two") == _digests(tiny)


def test_another_seed_gives_other_music_and_a_fault_share_of_zero_no_fault(
  tiny, tmp_path
):
  settings = TINY | {"songs": 8, "artists": 8, "seconds": 1.0}
  for seed in (0, 1):
    marker = sample_maker.make_sample(
      tmp_path / str(seed),
      processes=1,
      seed=seed,
      fault_share=0.0,
      **settings,
    )
    assert not any(marker["faults"].values()) and marker["files"] == 8
  zero, one = _digests(tmp_path / "0"), _digests(tmp_path / "1")
  same = {key for key in zero.keys() & one.keys() if zero[key] == one[key]}
  assert same <= {"kakao_meta/genre_gn_all.json"}


def test_a_finished_sample_is_left_alone(tiny, capsys):
  before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}
  flags = [f"--{key}={value}" for key, value in TINY.items()]
  sample_melon.main([f"--out={tiny}", *flags])
  assert "is there already" in capsys.readouterr().out
  assert before == {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}


def test_an_interrupted_sample_is_completed_to_the_same_bytes(tiny, tmp_path):
  out = _copy(tiny, tmp_path / "again")
  marker = _marker(out)
  (out / sample_maker.MARKER_FILE).unlink()
  (out / "sample_melon.started.json").write_text(
    json.dumps({"settings": marker["settings"], "finished": False})
  )
  files = sorted(out.glob("arena_mel/*/*.npy"))
  kept = files[0].stat().st_mtime_ns
  for path in files[1::2]:
    path.unlink()
  (out / "kakao_meta" / "test.json").unlink()
  sample_maker.make_sample(out, processes=1, **TINY)
  assert _digests(out) == _digests(tiny)
  assert files[0].stat().st_mtime_ns == kept


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_in_the_same_folder_are_refused(
  tiny, tmp_path, finished
):
  out = _copy(tiny, tmp_path / "other")
  if not finished:
    marker = out / sample_maker.MARKER_FILE
    marker.rename(out / "sample_melon.started.json")
  before = _digests(out)
  with pytest.raises(errors.InputError, match="songs: there 16, here 30"):
    sample_maker.make_sample(out, processes=1, **(TINY | {"songs": 30}))
  assert _digests(out) == before


def test_a_sample_of_an_older_version_is_refused_with_the_remedy(
  tiny, tmp_path
):
  out = _copy(tiny, tmp_path / "older")
  marker = _marker(out)
  marker["settings"]["version"] -= 1
  (out / sample_maker.MARKER_FILE).write_text(json.dumps(marker))
  before = _digests(out)
  with pytest.raises(errors.InputError, match=f"Delete {out}, and the same"):
    sample_maker.make_sample(out, processes=1, **TINY)
  assert _digests(out) == before


def test_a_folder_of_another_origin_is_refused(tmp_path):
  (tmp_path / "kakao_meta").mkdir()
  with pytest.raises(errors.InputError, match="was not made by"):
    sample_maker.make_sample(tmp_path, processes=1, **TINY)


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("songs", 7),
    ("playlists", 0),
    ("artists", 17),
    ("seconds", 0.5),
    ("seed", -1),
    ("noise", 1.5),
    ("eq_db", -1.0),
    ("fault_share", 0.2),
    ("processes", 0),
  ],
)
def test_a_setting_out_of_range_is_named_with_its_value(tmp_path, name, value):
  with pytest.raises(errors.InputError, match=f"--{name} is {value}"):
    sample_maker.make_sample(tmp_path / "x", **(TINY | {name: value}))
  assert not (tmp_path / "x").exists()


def test_sub_genres_belong_to_three_genres_by_their_codes(world):
  names = sample_world.genre_names()
  genres = {code for code in names if code.endswith("00")}
  assert len(genres) == 3 and len(names) == 3 + 8
  artists, songs = world
  for song in songs:
    record = sample_world.song_record(song, artists)
    subs = record["song_gn_dtl_gnr_basket"]
    parents = {code[:4] + "00" for code in subs}
    assert parents == set(record["song_gn_gnr_basket"]) <= genres
    assert len(subs) == len(set(subs))


def test_some_songs_have_several_artists_and_several_genres(world):
  artists, songs = world
  records = [sample_world.song_record(song, artists) for song in songs]
  for field in (
    "artist_id_basket",
    "song_gn_dtl_gnr_basket",
    "song_gn_gnr_basket",
  ):
    several = sum(len(record[field]) > 1 for record in records)
    assert 0 < several < 0.3 * len(records), field
  assert {a for song in songs for a in song.artists} == set(range(60))


def test_an_album_belongs_to_one_artist_and_has_one_date(world):
  _, songs = world
  owners = collections.defaultdict(set)
  for song in songs:
    owners[song.album[0]].add((song.artists[0], song.album))
  assert all(len(one) == 1 for one in owners.values())
  assert len(owners) < len(songs) / 2


def test_song_ids_are_ascending_and_fill_several_folders(world):
  ids = [song.song_id for song in world[1]]
  assert ids == sorted(set(ids))
  assert len({song_id // 1000 for song_id in ids}) >= 5


def test_every_style_has_patterns_of_one_length():
  for style in sample_styles.STYLES:
    for name in ("kick", "snare", "hat", "bass", "chords"):
      patterns = getattr(style, name)
      assert {len(one) for one in patterns} == {style.steps}, (style.name, name)
      assert set("".join(patterns)) <= {".", *sample_styles.ACCENTS}


def test_playlists_follow_their_theme_but_for_the_noise(world):
  artists, songs = world
  by_id = {song.song_id: song for song in songs}
  moods = [mood.name for mood in sample_styles.MOODS]
  shares = {}
  for noise in (0.0, 0.5):
    made = sample_playlists.draw_playlists(songs, artists, 200, noise, 0)
    fits = [
      moods[by_id[song_id].mood] == one["tags"][0]
      for one in made
      if one["plylst_title"].endswith("hours")
      for song_id in one["songs"]
    ]
    shares[noise] = np.mean(fits)
  assert shares[0.0] == 1.0
  assert 0.5 < shares[0.5] < 0.75


def test_playlists_repeat_no_song_and_popularity_has_a_long_tail(world):
  artists, songs = world
  made = sample_playlists.draw_playlists(songs, artists, 400, 0.15, 0)
  assert all(len(one["songs"]) == len(set(one["songs"])) for one in made)
  assert min(len(one["songs"]) for one in made) >= 3
  counts = collections.Counter(i for one in made for i in one["songs"])
  ranked = np.sort([counts[song.song_id] for song in songs])[::-1]
  assert ranked[:60].sum() > 0.25 * ranked.sum()  # A tenth of the songs.
  assert np.median(ranked) < 0.9 * ranked.mean()


def test_only_playlists_of_val_and_test_are_masked(world):
  artists, songs = world
  made = sample_playlists.draw_playlists(songs, artists, 400, 0.15, 0)
  files = sample_playlists.split_playlists(made, 0)
  whole = {one["id"]: one for one in made}
  assert [len(files[name]) for name in ("train", "val", "test")] == [
    308,
    64,
    28,
  ]
  assert all(one == whole[one["id"]] for one in files["train"])
  lengths = []
  for one in files["val"] + files["test"]:
    full = whole[one["id"]]
    assert one != full
    assert one["songs"] in ([], full["songs"][: len(full["songs"]) // 2])
    assert one["plylst_title"] in ("", full["plylst_title"])
    lengths.append(len(one["songs"]))
  assert 5 <= np.median(lengths) <= 9


def test_every_sub_genre_and_mood_can_be_played_and_stays_in_range(world):
  artists, _ = world
  for style in range(len(sample_styles.STYLES)):
    mood = style % len(sample_styles.MOODS)
    song = sample_world.Song(
      style, "", (style, -1 - mood), (style, mood), mood, (0, "", ""), 1.0
    )
    sheet = sample_score.Sheet.of(song, artists, 0, 24_000, 4.0)
    audio = sample_score.play(sheet)
    assert audio.shape == (24_000,) and audio.dtype == np.float32
    assert np.isfinite(audio).all() and np.abs(audio).max() <= 1.0
    assert np.sqrt(np.mean(audio**2)) > 0.05

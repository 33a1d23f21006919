"""Tests of pcl_jax.evaluation.audit: leakage and provenance."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import ragged
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.data import strategies
from pcl_jax.data import vector_sources
from pcl_jax.data.splits import learned_songs
from pcl_jax.data.splits import song_groups
from pcl_jax.evaluation.audit import leakage
from pcl_jax.evaluation.audit import provenance
from preprocessing.vectors import genre_words
from tests.support.tiny import tiny_data
from tests.support.tiny import tiny_run

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _meta(data, **changes):
  """What a checkpoint of a run by playlists on a data set says."""
  config = json.loads(
    tiny_run.small_config(
      data.directory,
      contrast_combos=(),
      audio_contrast_params__pair_generation_method="Playlist",
      data__batch_size=4,
    ).to_json()
  )
  return {
    "config": config,
    "architecture": {"audio": {}},
    "data": {"fingerprint": data.fingerprint()},
    "progress": {"step": 3},
    "versions": {},
  } | changes


def _data(path, catalogue=None, copied=None):
  """Writes a data set; `copied` maps a row to the row whose feature it has."""
  path.mkdir()
  catalogue = catalogue or tiny_data.tiny_catalogue()
  store = tiny_data.tiny_store(path / "first.lmdb", catalogue, (260, 300))
  if copied:
    writer = song_writer.SongWriter(path / song_store.FILE_NAME)
    rows = [copied.get(row, row) for row in range(len(catalogue))]
    writer.add(
      zip(catalogue.song_ids.tolist(), map(store.read_song, rows), strict=True)
    )
    writer.finish({"kind": "features of a test"})
  else:
    shutil.copytree(path / "first.lmdb", path / song_store.FILE_NAME)
  catalogue.save(path)
  return dataset.DataSet(path)


def _found(meta, data) -> dict[str, leakage.Check]:
  return {one.name: one for one in leakage.check(meta, data)}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
  return _data(tmp_path_factory.mktemp("leakage") / "data")


def test_a_clean_data_set_passes_every_check_that_can_be_made(clean):
  found = _found(_meta(clean), clean)
  shared = [found.pop(name) for name in ("artists", "albums")]
  assert list(found) == [
    "copies",
    "near duplicates",
    "training",
    "validation",
    "validation pairs",
  ]
  assert all(one.passed for one in found.values())
  lines = leakage.format_checks(
    [dataclasses.asdict(one) for one in (*found.values(), *shared)]
  )
  assert lines[0] == (
    "Checked that no test song took part in training: copies, near "
    "duplicates, training, validation, validation pairs"
  )
  assert [line.split(":")[0] for line in lines[1:]] == [
    "SHARED, artists",
    "SHARED, albums",
  ]


def test_artists_and_albums_of_test_songs_are_counted_and_named(tmp_path):
  catalogue = tiny_data.tiny_catalogue()
  tests = catalogue.rows_of(catalogues.TEST).tolist()
  train = catalogue.rows_of(catalogues.TRAIN).tolist()
  artists = [[i] for i in range(60)]
  artists[tests[0]] = [train[3], 70]
  artists[tests[2]] = [train[4]]
  artists[tests[5]] = artists[tests[4]]  # Both are test songs.
  albums = np.full(60, -1, np.int32)
  albums[[tests[1], catalogue.rows_of(catalogues.VALIDATION)[0]]] = 5
  made = dataclasses.replace(
    catalogue, artists=ragged.Ragged.from_lists(artists), albums=albums
  )
  data = _data(tmp_path / "data", made)
  named = {
    "artists": [tests[0], tests[2]],
    "albums": [tests[1]],
  }
  for split_by in (None, "song", "artist_album", "artist"):
    if split_by:
      settings = {"test_share": 0.2, "split_by": split_by}
      path = data.directory / song_groups.SETTINGS_FILE
      storage.write_json(path, {"settings": settings})
    found = {one.name: one for one in leakage.check_vectors("x", data)}
    for name, songs in named.items():
      check = found[name]
      assert check.passed is False
      assert check.songs == tuple(catalogue.song_ids[songs].tolist())
      assert check.found.startswith(f"{len(songs)} of {len(tests)} test songs")
      torn = split_by == "artist_album" or f"{split_by}s" == name
      assert check.expected == (not torn)
  lines = leakage.format_checks(
    [dataclasses.asdict(one) for one in found.values()]
  )
  assert any(line.startswith("LEAK, artists: 2 of") for line in lines)
  assert any(line.startswith("SHARED, albums: 1 of") for line in lines)


def test_a_copy_of_a_test_song_in_training_is_found_and_named(tmp_path):
  catalogue = tiny_data.tiny_catalogue()
  tests = catalogue.rows_of(catalogues.TEST).tolist()
  train = catalogue.rows_of(catalogues.TRAIN).tolist()
  validation = catalogue.rows_of(catalogues.VALIDATION).tolist()
  copied = {train[0]: tests[3], validation[1]: tests[5], tests[0]: tests[1]}
  data = _data(tmp_path / "data", catalogue, copied)
  check = _found(_meta(data), data)["copies"]
  assert check.passed is False
  assert check.found.startswith(f"2 of {len(tests)} test songs")
  assert check.songs == tuple(catalogue.song_ids[[tests[3], tests[5]]].tolist())
  (line,) = leakage.format_checks([dataclasses.asdict(check)])
  assert line.startswith("LEAK, copies: 2 of")
  assert str(check.songs[0]) in line


def test_equal_checksums_and_lengths_are_no_copy_where_the_bytes_differ(clean):
  songs = np.arange(len(clean.store))
  tests, others = songs[:20], songs[20:]
  store = dataset.DataSet(clean.directory).store
  store.checksums = np.zeros_like(store.checksums)
  store.read_song = clean.store.read_song
  assert len(leakage.copies(store, tests, store, others)) == 0
  itself = leakage.copies(store, tests, store, songs)
  np.testing.assert_array_equal(itself[:, 0], itself[:, 1])


def test_a_test_song_in_the_validation_pairs_is_found(tmp_path):
  catalogue = tiny_data.tiny_catalogue()
  test = int(catalogue.rows_of(catalogues.TEST)[0])
  pairs = {m: p.copy() for m, p in catalogue.validation_pairs.items()}
  pairs["Playlist"][0, 1] = test
  catalogue = dataclasses.replace(catalogue, validation_pairs=pairs)
  data = _data(tmp_path / "data", catalogue)
  check = _found(_meta(data), data)["validation pairs"]
  assert check.passed is False
  assert check.songs == (int(catalogue.song_ids[test]),)


def test_tables_made_under_another_split_are_found(tmp_path, capsys):
  data = _data(tmp_path / "data")
  storage.write_json(
    data.directory / "playlist_vectors.json",
    {"settings": vector_sources.of_playlist_vectors(data.catalogue)},
  )
  genre_words.make_genre_vectors(data.directory, dims=2, epochs=1)
  both = {"architecture": {"audio": {}, "cf": {}, "genre_w2v": {}}}
  found = _found(_meta(data, **both), data)
  assert found["mode P"].passed and found["mode G"].passed
  # The split changes, the vectors stay: they have seen its test songs.
  other = dataclasses.replace(
    data.catalogue, split=np.roll(data.catalogue.split, 7)
  )
  other.save(data.directory)
  data = dataset.DataSet(data.directory)
  found = _found(_meta(data, **both), data)
  assert found["mode P"].passed is False
  assert found["mode G"].passed is False
  (data.directory / "playlist_vectors.json").unlink()
  found = _found(_meta(data, **both), data)
  assert found["mode P"].passed is None
  (line,) = leakage.format_checks([dataclasses.asdict(found["mode P"])])
  assert line.startswith("NOT CHECKED, mode P")


def test_vectors_that_a_run_learned_from_belong_to_its_data(tmp_path):
  data = dataset.DataSet(tiny_run.make_data_set(tmp_path / "data"))
  strategy = strategies.parse([["audio", "cf"]], "")
  config = tiny_run.small_config(
    data.directory, contrast_combos=(("audio", "cf"),)
  )
  meta = {
    "config": json.loads(config.to_json()),
    "data": {"fingerprint": data.fingerprint(strategy)},
  }
  assert leakage.is_training_data(meta, data)
  path = data.directory / dataset.PLAYLIST_VECTORS
  np.save(path, np.load(path) + 1)
  assert not leakage.is_training_data(meta, data)
  path.unlink()
  assert not leakage.is_training_data(meta, data)


def test_a_data_set_that_changed_since_training_is_not_vouched_for(clean):
  meta = _meta(clean) | {"data": {"fingerprint": "of another"}}
  (check,) = leakage.check(meta, clean)
  assert check.passed is None
  assert "changed since" in check.found


def test_songs_on_file_are_checked_where_the_training_data_has_changed(
  tmp_path,
):
  data = _data(tmp_path / "data")
  learned_songs.record(tmp_path, data)
  learned = learned_songs.read(tmp_path)
  meta = _meta(data) | {"data": {"fingerprint": "as it was"}}

  def checks():
    found = leakage.check(meta, data, learned)
    return {one.name: one for one in found}

  found = checks()
  assert found["training data"].passed is None
  assert found["songs on file"].passed and found["copies on file"].passed
  tests = data.catalogue.rows_of(catalogues.TEST)
  split = data.catalogue.split.copy()
  trained = int(data.catalogue.rows_of(catalogues.TRAIN)[2])
  split[trained] = catalogues.TEST
  data.catalogue = dataclasses.replace(data.catalogue, split=split)
  data.store.frames[tests[0]] = data.store.frames[trained]
  data.store.checksums[tests[0]] = data.store.checksums[trained]
  found = checks()
  ids = data.catalogue.song_ids
  assert found["songs on file"].songs == (int(ids[trained]),)
  expected = {int(ids[trained]), int(ids[tests[0]])}
  assert set(found["copies on file"].songs) == expected
  assert found["copies on file"].passed is False


def test_test_songs_of_another_data_set_are_looked_for_in_the_training_one(
  tmp_path,
):
  trained_on = _data(tmp_path / "trained")
  catalogue = trained_on.catalogue
  # The same songs with the split turned: test songs that were trained on.
  other = dataclasses.replace(catalogue, split=2 - catalogue.split)
  data = _data(tmp_path / "other", other)
  check = _found(_meta(trained_on), data)["copies"]
  assert check.passed is False
  expected = len(catalogue.rows_of(catalogues.TRAIN))
  assert check.found.startswith(f"{expected} of {expected} test songs")


def test_the_hash_of_the_sources_changes_with_a_text_or_a_name(tmp_path):
  (tmp_path / "pcl_jax").mkdir()
  file = tmp_path / "pcl_jax" / "a.py"
  file.write_text("x = 1\n")
  first = provenance.sources_sha256(tmp_path)
  file.write_text("x = 2\n")
  second = provenance.sources_sha256(tmp_path)
  file.rename(file.with_name("b.py"))
  assert len({first, second, provenance.sources_sha256(tmp_path)}) == 3
  assert provenance.code(tmp_path)["git_commit"] is None

"""Tests of pcl_jax.data.verify: damage is named."""

import os
import pathlib
import shutil
import tempfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.data import verify
from tests.support.tiny import tiny_data
from tests.support.tiny import tiny_run


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tiny_run.make_data_set(tmp_path_factory.mktemp("verify") / "data")


def _copy(data_dir, tmp_path):
  return shutil.copytree(data_dir, tmp_path / "data")


def test_a_whole_data_set_has_no_problem(data_dir, capsys):
  assert verify.main([str(data_dir)]) == 0
  assert "no problems" in capsys.readouterr().out


def test_an_absent_data_set_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="nothing to verify"):
    verify.verify(tmp_path)


def test_damaged_songs_are_named_all_and_alone(data_dir, tmp_path, capsys):
  spoiled = _copy(data_dir, tmp_path)
  store = song_store.SongStore(data_dir / "songs.lmdb")
  damaged = [3, 17, 40]
  path = spoiled / "songs.lmdb" / "data.mdb"
  content = bytearray(path.read_bytes())
  for song in damaged:
    record = store.read_song(song).tobytes()
    assert content.count(record) == 1
    content[content.index(record) + len(record) // 2] ^= 0x10
  path.write_bytes(content)
  assert verify.main([str(spoiled)]) == errors.EXIT_FAILED
  lines = capsys.readouterr().err.strip().splitlines()
  named = [line for line in lines if line.startswith("song ")]
  assert len(named) == len(damaged)
  for song, line in zip(damaged, named, strict=True):
    assert line.startswith(f"song {store.song_ids[song]} of {spoiled}")


@pytest.mark.parametrize(
  "kept", [0.99, pytest.param(0.0, marks=pytest.mark.long)]
)
def test_a_truncated_store_is_named(data_dir, tmp_path, kept):
  spoiled = _copy(data_dir, tmp_path)
  path = spoiled / "songs.lmdb" / "data.mdb"
  os.truncate(path, int(path.stat().st_size * kept))
  problems = verify.verify(spoiled)
  assert len(problems) == 1 and str(path) in problems[0]


def _flipped(content: bytes, seed: int) -> bytes:
  """Flips a byte in most pages that hold no song's inside, and some others."""
  rng = np.random.default_rng(seed)
  spoiled = bytearray(content)
  for place in rng.integers(0, len(content), 4):
    spoiled[place] ^= int(rng.integers(1, 256))
  page = 4096 * int(rng.integers(0, len(content) // 4096))
  spoiled[page + int(rng.integers(0, 64))] ^= int(rng.integers(1, 256))
  return bytes(spoiled)


@pytest.mark.parametrize(
  "seed",
  [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))],
)
def test_flipped_bytes_are_reported_or_change_nothing(data_dir, tmp_path, seed):
  content = (data_dir / "songs.lmdb" / "data.mdb").read_bytes()
  _assert_reported_or_same(data_dir, tmp_path, _flipped(content, seed))


def _assert_reported_or_same(data_dir, folder, content) -> None:
  """Checks a store of some content, which may end a process but not this."""
  whole = song_store.SongStore(data_dir / "songs.lmdb")
  path = folder / "songs.lmdb"
  path.mkdir()
  (path / "data.mdb").write_bytes(content)
  if verify._check_store(path):
    return
  store = song_store.SongStore(path)
  assert np.array_equal(store.song_ids, whole.song_ids)
  for song in range(len(whole)):
    assert np.array_equal(store.read_song(song), whole.read_song(song))


# A page, a place in it (in most cases in its header or its pointers), a byte.
_EDIT = st.tuples(
  st.integers(0, 9999),
  st.integers(0, 63) | st.integers(0, 4095),
  st.integers(1, 255),
)


@pytest.mark.long
@hypothesis.given(
  edits=st.lists(_EDIT, max_size=6),
  cut=st.none() | st.integers(0, 10**7),
)
@hypothesis.settings(
  deadline=None,
  max_examples=40,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_any_damage_of_a_store_is_reported_or_changes_nothing(
  data_dir, edits, cut
):
  whole = (data_dir / "songs.lmdb" / "data.mdb").read_bytes()
  content = bytearray(whole)
  for page, place, flip in edits:
    content[(4096 * page + place) % len(whole)] ^= flip
  with tempfile.TemporaryDirectory() as folder:
    end = None if cut is None else cut % len(whole)
    _assert_reported_or_same(data_dir, pathlib.Path(folder), content[:end])


def test_a_reader_that_dies_is_reported(tmp_path, monkeypatch):
  monkeypatch.setattr(verify, "_read_store", os.abort)
  problems = verify._check_store(tmp_path)
  assert len(problems) == 1 and "exit code 1 after 0 songs" in problems[0]


def test_a_song_that_was_written_not_finite_is_named(tmp_path):
  largest = np.full((300, 48), np.finfo(np.float16).max)
  largest[::2] *= -1
  songs = [(4, largest)]
  for song_id, value in ((7, np.nan), (8, np.inf), (9, -np.inf)):
    spoiled = largest.copy()
    spoiled[299, 47] = value
    songs.append((song_id, spoiled))
  writer = song_writer.SongWriter(tmp_path / "songs.lmdb")
  writer.add(songs)
  writer.finish({})
  problems = verify._check_store(tmp_path / "songs.lmdb")
  assert len(problems) == 3
  for song_id, problem in zip((7, 8, 9), problems, strict=True):
    assert problem.startswith(f"song {song_id} of")
    assert "not finite" in problem


@pytest.mark.parametrize(
  "changes, said",
  [
    ({"split": np.full(60, 7, np.int8)}, "split has other values"),
    ({"albums": np.zeros(3, np.int32)}, "albums has not one entry a song"),
    ({"song_ids": np.zeros(60, np.uint32)}, "song_ids are not ascending"),
    (
      {"playlists": ragged.Ragged.from_lists([[0, 60]] * 30)},
      "playlists: 30 numbers are not in 0..59",
    ),
    (
      {"playlists": ragged.Ragged.from_lists([[5, 5]] + [[]] * 29)},
      "playlists: 1 repetitions within a list",
    ),
    (
      {"genres": ragged.Ragged.from_lists([[0]] * 60)},
      "genres: 60 numbers are not in 1..",
    ),
    (
      {"artists": ragged.Ragged.from_lists([[0]] * 59)},
      "artists: their offsets do not fit 60 lists",
    ),
    (
      {"validation_pairs": {"Genre": np.array([[0, 60]], np.int32)}},
      "validation pairs of Genre are not pairs of rows",
    ),
  ],
)
def test_what_is_wrong_in_a_catalogue_is_said(changes, said):
  made = tiny_data.tiny_catalogue(songs=60)
  for name, value in changes.items():  # Past the checks of its constructor.
    object.__setattr__(made, name, value)
  assert any(said in problem for problem in verify._check_catalogue(made))


def test_validation_pairs_of_training_songs_are_said():
  made = tiny_data.tiny_catalogue(songs=60)
  train = made.rows_of(catalogues.TRAIN)
  made.validation_pairs["Artist"] = train[:4].reshape(2, 2)
  assert list(verify._check_catalogue(made)) == [
    "validation pairs of Artist hold songs of another split"
  ]


def test_a_tiny_catalogue_is_right():
  assert not list(verify._check_catalogue(tiny_data.tiny_catalogue()))


def test_files_that_do_not_belong_together_are_said(data_dir, tmp_path):
  spoiled = _copy(data_dir, tmp_path)
  vectors = np.load(spoiled / "playlist_vectors.npy")
  vectors[3, 5] = np.inf
  np.save(spoiled / "playlist_vectors.npy", vectors)
  np.save(spoiled / "genre_vectors.npy", np.zeros((2, 128), np.float32))
  problems = verify.verify(spoiled)
  assert len(problems) == 2
  assert "playlist_vectors.npy: 1 of" in problems[0]
  assert "genre_vectors.npy has shape (2, 128)" in problems[1]
  (spoiled / "genre_vectors.npy").write_bytes(b"")
  assert "genre_vectors.npy cannot be read" in verify.verify(spoiled)[1]
  (spoiled / "catalogue.npz").write_bytes(b"PK")
  assert "catalogue.npz cannot be read" in verify.verify(spoiled)[0]
  (spoiled / "catalogue.npz").unlink()
  assert "does not exist" in verify.verify(spoiled)[0]


def test_a_catalogue_of_another_store_is_said(data_dir, tmp_path):
  spoiled = _copy(data_dir, tmp_path)
  tiny_data.tiny_catalogue(songs=50).save(spoiled)
  assert "not those of the song store" in verify.verify(spoiled)[0]

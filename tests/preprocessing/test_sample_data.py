"""Tests of preprocessing.sample_data."""

import json

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from preprocessing import sample_data
from preprocessing.sample import sample_maker
from preprocessing.vectors import genre_words


def _files(folder):
  return {
    path: path.stat().st_mtime_ns
    for path in folder.rglob("*")
    if path.is_file()
  }


@pytest.fixture
def made(monkeypatch):
  """Collects what would be made, without making it."""
  calls = []
  monkeypatch.setattr(
    sample_data, "make", lambda path, **how: calls.append((path, how))
  )
  return calls


def test_the_sample_is_ready_for_every_strategy(smoke_sample):
  data = dataset.DataSet(smoke_sample)
  made = data.catalogue
  assert 80 <= len(made) <= 96 and len(made.playlists) == 96
  assert set(made.split) == {0, 1, 2}
  # Albums have few songs: this small a sample has no validation pair of one.
  for method in set(catalogues.PAIR_METHODS) - {"Album"}:
    assert len(made.validation_pairs[method]) > 0
  for vectors, rows in (
    (dataset.PLAYLIST_VECTORS, len(made)),
    (dataset.GENRE_VECTORS, len(made.genre_codes) + 1),
  ):
    table = np.load(smoke_sample / vectors)
    assert len(table) == rows
    assert np.isfinite(table).all() and np.ptp(table, axis=0).max() > 0


def test_a_finished_sample_is_not_made_again(smoke_sample, capsys):
  before = _files(smoke_sample)
  sample_data.make_where_absent(smoke_sample, songs=96, seconds=6.0)
  assert _files(smoke_sample) == before
  assert capsys.readouterr().out == ""


def test_the_command_finds_each_step_of_a_finished_sample_done(
  smoke_sample, capsys
):
  store = (smoke_sample / "songs.lmdb" / "data.mdb").stat().st_mtime_ns
  sample_data.main([f"--out={smoke_sample}", "--songs=96", "--seconds=6"])
  assert (smoke_sample / "songs.lmdb" / "data.mdb").stat().st_mtime_ns == store
  last = capsys.readouterr().out.splitlines()[-1]
  assert last.startswith(f"{smoke_sample} is ready. Next: python launch.py")


def test_a_finished_sample_of_other_settings_is_refused(smoke_sample):
  before = _files(smoke_sample)
  with pytest.raises(errors.InputError, match="seed: there 0, here 1"):
    sample_data.make(smoke_sample, songs=96, seconds=6.0, seed=1)
  assert _files(smoke_sample) == before


def test_an_absent_folder_is_made_and_said_so(tmp_path, made, capsys):
  path = tmp_path / "a" / "b"
  sample_data.make_where_absent(path, songs=48, seconds=5.0)
  assert made == [(path, {"songs": 48, "seconds": 5.0})]
  assert f"{path} is not there: making a sample of 48 songs" in (
    capsys.readouterr().out
  )


def test_a_sample_that_was_begun_is_gone_on_with(tmp_path, made, capsys):
  (tmp_path / sample_data.MELON_FOLDER).mkdir()
  sample_data.make_where_absent(tmp_path, songs=48, seconds=5.0)
  assert len(made) == 1
  assert "is not finished" in capsys.readouterr().out


def test_a_folder_of_something_else_is_left_alone(tmp_path, made):
  (tmp_path / "songs.lmdb").mkdir()
  sample_data.make_where_absent(tmp_path, songs=48, seconds=5.0)
  assert not made and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["sample_melon", "sample_melon.started"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_sample_of_another_version_is_refused_and_kept(
  name, finished, tmp_path
):
  melon = tmp_path / sample_data.MELON_FOLDER
  melon.mkdir()
  version = {"version": 2} if finished else {}
  (melon / f"{name}.json").write_text(json.dumps({"settings": version}))
  if finished:
    (tmp_path / genre_words.FILE_NAME).write_bytes(b"")
  before = _files(tmp_path)
  for make in (sample_data.make_where_absent, sample_data.make):
    with pytest.raises(errors.InputError, match=f"Delete {tmp_path}, and the"):
      make(tmp_path, songs=48, seconds=5.0)
  assert before.items() <= _files(tmp_path).items()
  assert not (tmp_path / song_store.FILE_NAME).exists()


def test_songs_of_an_unknown_version_are_not_mixed_with_new_ones(tmp_path):
  (tmp_path / song_store.FILE_NAME).mkdir()
  with pytest.raises(errors.InputError, match="which version of the sample"):
    sample_data.make(tmp_path, songs=48, seconds=5.0)
  assert not (tmp_path / sample_data.MELON_FOLDER).exists()


def test_a_config_without_a_sample_makes_none(tmp_path, made):
  sample_data.make_where_absent(tmp_path / "none", songs=0, seconds=5.0)
  assert not made and not (tmp_path / "none").exists()


def test_a_melon_folder_that_was_not_synthesised_is_refused(tmp_path):
  mine = tmp_path / sample_data.MELON_FOLDER / "kakao_meta" / "song_meta.json"
  mine.parent.mkdir(parents=True)
  mine.write_text("[]")
  with pytest.raises(errors.InputError, match="was not made by"):
    sample_data.make_where_absent(tmp_path, songs=48, seconds=5.0)
  assert mine.read_text() == "[]"
  assert not (mine.parents[1] / sample_maker.MARKER_FILE).exists()

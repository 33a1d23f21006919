"""Tests of benchmarks.real_music.real_data: folds, and folds with less."""

import dataclasses
import shutil

import numpy as np
import pytest

from benchmarks.real_music import real_data
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data.splits import song_groups
from pcl_jax.evaluation import folds as fold_folders
from preprocessing.free_packages import music_tree
from preprocessing.scores import rendering
from preprocessing.scores import score_choice
from tests.support.tiny import tiny_data


@pytest.fixture
def own_folds(folds, tmp_path):
  """A copy of the folds, beside which others can be made."""
  return shutil.copytree(folds[0].directory.parent, tmp_path / "folds")


def _frames(data, part):
  return int(data.store.frames[data.catalogue.rows_of(part)].sum())


def test_folds_with_less_are_whole_after_an_interruption(
  own_folds, monkeypatch
):
  save, saved = catalogues.Catalogue.save, []

  def stop(catalogue, folder):
    if saved:
      raise KeyboardInterrupt
    saved.append(folder)
    save(catalogue, folder)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(catalogues.Catalogue, "save", stop)
    real_data.thin(own_folds, 0.5)
  out = real_data.thin(own_folds, 0.5)
  before, after = (
    [dataset.DataSet(one) for one in fold_folders.find(place)]
    for place in (own_folds, out)
  )
  assert len(after) == len(before) == 2
  for whole, less in zip(before, after, strict=True):
    for part in (catalogues.VALIDATION, catalogues.TEST):
      rows = whole.catalogue.rows_of(part)
      np.testing.assert_array_equal(less.catalogue.rows_of(part), rows)
    split_by = song_groups.read_split_by(less.directory)
    assert split_by == song_groups.ARTIST_ALBUM
    hours = [_frames(one, catalogues.TRAIN) for one in (whole, less)]
    assert 0 < hours[1] <= hours[0] / 2
  assert {one.name for one in own_folds.parent.iterdir()} == {
    "folds", "folds-0.5"
  }  # fmt: skip


def test_folds_of_other_songs_are_refused(
  folds, own_folds, tmp_path, monkeypatch
):
  monkeypatch.setattr(real_data, "FOLDS", 2)
  data = shutil.copytree(folds[0].directory, tmp_path / "data")
  assert real_data.make_folds(tmp_path) == own_folds
  real_data.thin(own_folds, 0.5)
  assert real_data.thin(own_folds, 0.5).exists()
  with monkeypatch.context() as patch:
    patch.setattr(real_data, "FOLDS", 3)
    with pytest.raises(errors.InputError, match="folds is not whole"):
      real_data.make_folds(tmp_path)
  other = tiny_data.tiny_catalogue(81)
  shutil.rmtree(data)
  tiny_data.tiny_store(data / "songs.lmdb", other)
  other.save(data)
  with pytest.raises(errors.InputError, match="folds .*other songs"):
    real_data.make_folds(tmp_path)
  shutil.rmtree(own_folds / "1")
  shutil.move(data, own_folds / "1")
  with pytest.raises(errors.InputError, match="folds-0.5 .*other songs"):
    real_data.thin(own_folds, 0.5)


@pytest.fixture
def sources(tmp_path, monkeypatch):
  """Puts empty folders in place of what is downloaded and rendered."""

  def make(*given, **_):
    (given[2] / "audio").mkdir(parents=True, exist_ok=True)
    return {}

  monkeypatch.setattr(music_tree, "gather", make)
  monkeypatch.setattr(score_choice, "corpus_folder", lambda: tmp_path)
  monkeypatch.setattr(score_choice, "choose", lambda *_, **__: [])
  monkeypatch.setattr(rendering, "find_soundfont", lambda path: path)
  monkeypatch.setattr(rendering, "render_all", make)


def test_without_scores_those_of_an_earlier_call_are_left_out(
  tmp_path, sources
):
  audio = tmp_path / "audio"
  real_data._gather(tmp_path, 3, 1)
  assert {one.name for one in audio.iterdir()} == {"games", "scores"}
  real_data._gather(tmp_path, 0, 1)
  assert {one.name for one in audio.iterdir()} == {"games"}


def test_the_library_of_both_sources_can_be_moved(tmp_path, sources):
  first, then = tmp_path / "first", tmp_path / "then"
  first.mkdir()
  real_data._gather(first, 3, 1)
  first.rename(then)
  for name, place in (("games", "free_music"), ("scores", "scores")):
    assert (then / "audio" / name).samefile(then / place / "audio")
  # A link to where the folder was is replaced.
  (then / "audio/games").unlink()
  (then / "audio/games").symlink_to(first / "free_music/audio")
  real_data._gather(then, 3, 1)
  assert (then / "audio/games").samefile(then / "free_music/audio")


@pytest.mark.parametrize(
  "absent", [(score_choice, "corpus_folder"), (rendering, "find_soundfont")]
)
def test_what_renders_scores_is_looked_for_before_the_download(
  tmp_path, monkeypatch, absent
):
  def refuse(*_):
    raise errors.InputError("is not installed")

  downloads = []
  monkeypatch.setattr(score_choice, "corpus_folder", lambda: tmp_path)
  monkeypatch.setattr(rendering, "find_soundfont", lambda _: tmp_path)
  monkeypatch.setattr(*absent, refuse)
  monkeypatch.setattr(music_tree, "gather", lambda *_: downloads.append(1))
  with pytest.raises(errors.InputError, match="is not installed"):
    real_data.make(tmp_path / "made", scores=3, threads=1)
  assert not downloads


def test_folds_with_less_of_another_split_are_refused(own_folds):
  out = real_data.thin(own_folds, 0.5)
  assert real_data.thin(own_folds, 0.5) == out
  for place in fold_folders.find(own_folds):
    found = catalogues.load(place)
    parts = (catalogues.TRAIN, catalogues.VALIDATION)
    swap = {parts[0]: parts[1], parts[1]: parts[0]}
    split = [swap.get(one, one) for one in found.split.tolist()]
    dataclasses.replace(found, split=np.array(split, found.split.dtype)).save(
      place
    )
  with pytest.raises(errors.InputError, match="folds-0.5/0 has another split"):
    real_data.thin(own_folds, 0.5)


def test_a_large_group_does_not_end_the_hours_that_are_kept():
  hours = np.array([1, 1, 60, 1, 2, 1, 34])
  for seed in range(20):
    order = np.random.default_rng(seed).permutation(len(hours))
    kept = real_data._fitting(hours[order], 50)
    assert hours[order][kept].sum() >= 34
    assert hours[order][kept].sum() <= 50

"""Tests of benchmarks.real_music.real_data: folds, and folds with less."""

import shutil

import numpy as np
import pytest

from benchmarks.real_music import real_data
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.evaluation import folds as fold_folders


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
    hours = [_frames(one, catalogues.TRAIN) for one in (whole, less)]
    assert 0 < hours[1] <= hours[0] / 2
  assert {one.name for one in own_folds.parent.iterdir()} == {
    "folds", "folds-0.5"
  }  # fmt: skip

"""Tests of benchmarks.melon_size on some hundred songs."""

import numpy as np
import pytest

from benchmarks.melon_size import __main__ as melon_size
from benchmarks.melon_size import made_melon
from benchmarks.melon_size import stage_process
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import song_store

SIZES = made_melon.Sizes(
  songs=600,
  frames=20,
  dims=16,
  batch=16,
  share=0.5,
  warp_epochs=1,
  long_songs=3,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """Returns the folder of a made-up data set, with its split and vectors."""
  folder = tmp_path_factory.mktemp("melon_size")
  melon_size.make(folder, SIZES)
  stage_process.run_here("split", folder, SIZES)
  made_melon.write_vectors(folder, SIZES.dims)
  return folder


def test_the_made_up_data_set_has_melons_proportions(made):
  data = dataset.DataSet(made)
  tests = len(data.catalogue.rows_of(catalogues.TEST))
  assert len(data.store) == len(data.catalogue) == 600
  assert tests == pytest.approx(60, abs=10)
  assert len(data.catalogue.playlists) == 137
  assert 20 < data.catalogue.playlists.lengths.mean() < 50
  assert all(len(pairs) for pairs in data.catalogue.validation_pairs.values())


def test_no_two_made_up_songs_are_one_recording():
  songs = np.array([0, 1, 211, 223])
  made = [one for _, one in made_melon.features(songs, 400)]
  courses = [(one - one.mean(axis=0)).ravel() for one in made]
  assert np.corrcoef(courses)[np.triu_indices(4, 1)].max() < 0.9


def test_a_stage_tells_its_time_and_what_it_did(made):
  found = stage_process.run_here("plan an epoch, A-IM Playlist", made, SIZES)
  assert found["wall_s"] > 0
  assert "steps of 32 patches" in found["note"]
  measured = {"a": stage_process.Measured(90.0, 5400.0, 2 * 10**9, "b", True)}
  row = melon_size.table(measured).splitlines()[-1]
  assert row == "| a | about 1.5 min | 1.5 h | 2.0 GB | b |"


def test_an_unknown_stage_is_refused():
  with pytest.raises(errors.InputError, match="--stages names sing; it is any"):
    melon_size.main(["--stages=split;sing"])


@pytest.mark.long
@pytest.mark.parametrize("name", stage_process.STAGES)
def test_every_stage_runs(made, name):
  found = stage_process.run_here(name, made, SIZES)
  assert found["wall_s"] >= 0
  assert found["note"]


@pytest.mark.long
def test_stages_go_on_in_processes_of_their_own(made, capsys):
  flags = [f"--{k}={v}" for k, v in vars(SIZES).items()]
  flags += [f"--folder={made}", "--stages=open the data set;collapse"]
  melon_size.main(flags)
  first = capsys.readouterr().out
  assert "open the data set ..." in first
  assert "| collapse | " in first
  assert (made / song_store.FILE_NAME).exists()
  melon_size.main(flags)
  again = capsys.readouterr().out
  assert "..." not in again
  assert again.splitlines()[1:] == first.splitlines()[-4:]

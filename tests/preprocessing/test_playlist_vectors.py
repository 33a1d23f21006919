"""Tests of vectors.playlist_factors: entries, files, restarts, messages."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from preprocessing import playlist_vectors
from preprocessing.vectors import playlist_factors
from preprocessing.vectors import warp
from tests.support.tiny import tiny_data

pytestmark = pytest.mark.usefixtures("quick_compilation")

DIMS = 6
QUICK = {"dims": DIMS, "epochs": 3}
# Kills itself, as kill -9 does, within the third epoch.
_KILLED = """
import os, signal, sys
from preprocessing import playlist_vectors
from preprocessing.vectors import playlist_factors
from preprocessing.vectors import warp
run_epoch = warp.Trainer.run_epoch
def killed(self, tables, epoch, report):
  if epoch == 2:
    os.kill(os.getpid(), signal.SIGKILL)
  return run_epoch(self, tables, epoch, report)
warp.Trainer.run_epoch = killed
playlist_vectors.main(sys.argv[1:])
"""


def saved(folder, catalogue=None):
  folder.mkdir(exist_ok=True)
  (catalogue or tiny_data.tiny_catalogue()).save(folder)
  return folder


def made(folder, **options):
  path = playlist_factors.make_playlist_vectors(folder, **QUICK | options)
  return np.load(path)


@pytest.fixture(scope="module")
def vectors(quick_compilation, tmp_path_factory):
  return made(saved(tmp_path_factory.mktemp("vectors")))


def in_training_playlists(catalogue):
  """Returns whether each song stands in a playlist of train.json."""
  found = np.zeros(len(catalogue), bool)
  for i in np.flatnonzero(catalogue.playlist_files == 0).tolist():
    found[catalogue.playlists[i]] = True
  return found


def test_songs_in_no_training_playlist_keep_initial_factors(vectors):
  catalogue = tiny_data.tiny_catalogue()
  used = in_training_playlists(catalogue)
  used &= catalogue.split != catalogues.TEST
  initial = warp.random_factors(len(catalogue), DIMS, [0, 0])
  assert vectors.shape == (len(catalogue), DIMS + 1)
  assert vectors.dtype == np.float32
  same = (vectors[:, :-1] == initial).all(1) & (vectors[:, -1] == 0)
  np.testing.assert_array_equal(same, ~used)


def test_test_songs_and_other_playlists_have_no_influence(tmp_path, vectors):
  catalogue = tiny_data.tiny_catalogue()
  is_test = catalogue.split == catalogues.TEST
  lists = [
    [int(i) for i in catalogue.playlists[p] if not is_test[i]]
    for p in np.flatnonzero(catalogue.playlist_files == 0).tolist()
  ]
  kept = dataclasses.replace(
    catalogue,
    playlists=ragged.Ragged.from_lists(lists),
    playlist_files=np.zeros(len(lists), np.int8),
  )
  got = made(saved(tmp_path / "kept", kept))
  np.testing.assert_array_equal(got, vectors)


def test_the_report_counts_every_song(tmp_path, monkeypatch, capsys):
  catalogue = tiny_data.tiny_catalogue(playlists=9)
  monkeypatch.setattr(warp.Trainer, "run_epoch", lambda _, one, *__: (one, 1.0))
  made(saved(tmp_path, catalogue))
  report = json.loads((tmp_path / "playlist_vectors.json").read_text())
  used = in_training_playlists(catalogue)
  is_test = catalogue.split == catalogues.TEST
  counts = report["counts"]
  assert counts["songs"] == len(catalogue)
  assert counts["test_songs"] == is_test.sum()
  assert counts["songs_factorised"] == (used & ~is_test).sum()
  lacking = int((~used & ~is_test).sum())
  assert counts["other_songs_without_playlist"] == lacking > 0
  assert len(report["loss_per_epoch"]) == QUICK["epochs"]
  out = capsys.readouterr().out
  assert f"{lacking} training or validation songs" in out
  assert "wrote" in out.splitlines()[-1]
  assert sorted(one.name for one in tmp_path.iterdir()) == [
    "catalogue.npz",
    "playlist_vectors.json",
    "playlist_vectors.npy",
  ]


def _check_goes_on(folder, flags, vectors, capsys):
  assert not (folder / "playlist_vectors.npy").exists()
  playlist_vectors.main(flags)
  assert "going on after epoch 2 of 3" in capsys.readouterr().out
  got = np.load(folder / "playlist_vectors.npy")
  np.testing.assert_array_equal(got, vectors)
  assert not (folder / playlist_factors.STATE_NAME).exists()


def _flags(folder):
  return [
    f"--data={folder}", f"--dims={DIMS}", "--epochs=3", "--save_every_s=0"
  ]  # fmt: skip


def test_an_interrupted_run_goes_on_to_the_same_bits(
  tmp_path, vectors, monkeypatch, capsys
):
  folder, run_epoch = saved(tmp_path), warp.Trainer.run_epoch

  def interrupted(self, tables, epoch, report):
    if epoch == 2:
      raise KeyboardInterrupt
    return run_epoch(self, tables, epoch, report)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(warp.Trainer, "run_epoch", interrupted)
    playlist_vectors.main(_flags(folder))
  _check_goes_on(folder, _flags(folder), vectors, capsys)


@pytest.mark.long
def test_a_killed_process_is_gone_on_with_by_another_to_the_same_bits(
  tmp_path, vectors, capsys
):
  folder = saved(tmp_path)
  flags = _flags(folder)
  killed = subprocess.run(
    [sys.executable, "-c", _KILLED, *flags],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    check=False,
    env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  _check_goes_on(folder, flags, vectors, capsys)


def test_finished_vectors_are_kept_and_others_refused(tmp_path, capsys):
  folder = saved(tmp_path)
  first = made(folder)
  (folder / "playlist_vectors.json").touch()
  before = (folder / "playlist_vectors.npy").stat().st_mtime_ns
  np.testing.assert_array_equal(made(folder), first)
  assert "nothing to do" in capsys.readouterr().out
  assert (folder / "playlist_vectors.npy").stat().st_mtime_ns == before
  with pytest.raises(errors.InputError, match="seed: there 0, here 1.*--force"):
    made(folder, seed=1)
  assert (made(folder, seed=1, force=True) != first).any()
  tiny_data.tiny_catalogue(seed=1).save(folder)
  with pytest.raises(errors.InputError, match="entries_sha256"):
    made(folder, seed=1)
  (folder / "playlist_vectors.json").unlink()
  with pytest.raises(errors.InputError, match="does not say which"):
    made(folder)


@pytest.mark.parametrize("kept", [[], [1, 2]])
def test_a_library_without_training_playlists_is_told_what_needs_them(
  tmp_path, kept
):
  catalogue = tiny_data.tiny_catalogue()
  rows = np.flatnonzero(np.isin(catalogue.playlist_files, kept))
  lists = [catalogue.playlists[i].tolist() for i in rows.tolist()]
  without = dataclasses.replace(
    catalogue,
    playlists=ragged.Ragged.from_lists(lists),
    playlist_files=catalogue.playlist_files[rows],
  )
  with pytest.raises(errors.InputError, match="`cf` in contrast_combos"):
    made(saved(tmp_path, without))


@pytest.mark.parametrize(
  "options, message",
  [
    ({"dims": 0}, "--dims=0"),
    ({"epochs": 0}, "--epochs=0"),
    ({"max_negatives": 0}, "--max_negatives=0"),
    ({"rate": 0.0}, "--rate=0.0"),
    ({"rate": float("nan")}, "--rate=nan"),
    ({"seed": -1}, "--seed=-1"),
    ({"rate": 1e30}, "rate=1e.30 is too high"),
  ],
)
def test_bad_options_are_named(tmp_path, options, message):
  with pytest.raises(errors.InputError, match=message):
    made(saved(tmp_path), **options)
  assert not (tmp_path / "playlist_vectors.npy").exists()


def test_the_command_passes_its_flags_on(tmp_path, monkeypatch):
  folder = saved(tmp_path)
  monkeypatch.setattr(warp.Trainer, "run_epoch", lambda _, one, *__: (one, 1.0))
  playlist_vectors.main(
    [f"--data={folder}", "--dims=4", "--epochs=2", "--max_negatives=3",
     "--rate=0.1", "--seed=5"]
  )  # fmt: skip
  report = json.loads((folder / "playlist_vectors.json").read_text())
  flags = ("dims", "epochs", "max_negatives", "rate", "seed")
  assert [report["settings"][flag] for flag in flags] == [4, 2, 3, 0.1, 5]
  assert np.load(folder / "playlist_vectors.npy").shape[1] == 5

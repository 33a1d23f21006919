"""The data of the encoder in the box: free recordings and rendered scores.

    FOLDER/free_music, FOLDER/scores  what the two sources made
    FOLDER/audio                      links to both: one library
    FOLDER/data                       the data set, split once
    FOLDER/folds                      the same songs in folds
    FOLDER/folds-0.5, -0.25           folds with fewer hours to train on

No artist and no album is torn by a split.
"""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
import shutil

import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data.splits import song_groups
from pcl_jax.evaluation import folds
from preprocessing import data_folds
from preprocessing.free_packages import music_tree
from preprocessing.free_packages import package_list
from preprocessing.free_packages import package_source
from preprocessing.library import library_build
from preprocessing.library import library_report
from preprocessing.library import library_settings
from preprocessing.scores import rendering
from preprocessing.scores import score_choice

REAL, RENDERED = "games", "scores"  # Folders of the library.
TO_S = 180.0  # Of each track; the rest of long ones adds hours, not songs.
FOLDS = 4
SHARES = (0.5, 0.25)  # Of the training hours.
_SHARES = {"test_share": 0.08, "validation_share": 0.06}
_FOLD_VALIDATION = 0.06


def _gather(folder: pathlib.Path, scores: int, processes: int) -> None:
  """Downloads and renders what is absent, and links it into one library."""
  if scores:  # Before the download, which takes minutes.
    corpus = score_choice.corpus_folder()
    soundfont = rendering.find_soundfont(None)
  source = package_source.Source(None, None)
  packages = package_list.read(package_list.DEFAULT)
  music_tree.gather(packages, source, folder / "free_music")
  places = {REAL: folder / "free_music" / music_tree.AUDIO}
  if scores:
    made = rendering.render_all(
      score_choice.choose(corpus, scores, seed=0),
      corpus,
      folder / "scores",
      soundfont,
      seed=0,
      processes=processes,
    )
    print(rendering.summary(made, folder / "scores" / rendering.RECORD))
    places[RENDERED] = folder / "scores" / rendering.AUDIO
  library = folder / "audio"
  library.mkdir(exist_ok=True)
  if not scores and (library / RENDERED).is_symlink():  # Of an earlier call.
    (library / RENDERED).unlink()
  for name, place in places.items():
    if not (library / name).exists():  # Or its folder was moved.
      (library / name).unlink(missing_ok=True)
      (library / name).symlink_to(os.path.relpath(place, library))


def make(folder: pathlib.Path, *, scores: int, threads: int) -> pathlib.Path:
  """Makes the data set, or goes on with it.

  Args:
    folder: where all of it is made.
    scores: how many scores are rendered; 0 for recordings alone.
    threads: files decoded, and scores rendered, at once.

  Returns:
    The data set's folder.

  Raises:
    InputError: packages, music21, fluidsynth or a soundfont cannot be had.
  """
  library_settings.check_packages()
  folder.mkdir(parents=True, exist_ok=True)
  with locks.hold(folder, "benchmarks.pretrained"):
    _gather(folder, scores, threads)
    report = library_build.build_library(
      folder / "audio",
      folder / "data",
      to_s=TO_S,
      threads=threads,
      artist_folder="none",
      album_folder="2",
      albums_as_playlists=True,
      split_by=song_groups.ARTIST_ALBUM,
      **_SHARES,
    )
  print(library_report.summary(report, folder / "data"))
  return folder / "data"


def _songs(place: pathlib.Path) -> list[tuple[int, int]]:
  """Returns the id and the checksum of each song of a data set."""
  store = dataset.DataSet(place).store
  return list(
    zip(store.song_ids.tolist(), store.checksums.tolist(), strict=True)
  )


def _check_folds(out: pathlib.Path, places: Sequence[pathlib.Path]) -> None:
  """Refuses folds that are not one of the songs of each place."""
  if [_songs(one) for one in folds.find(out)] != list(map(_songs, places)):
    raise errors.InputError(
      f"{out} is not whole, or has other songs than {places[0].parent} has "
      f"now: give another --out, or remove {out} to have it made again."
    )


def make_folds(folder: pathlib.Path) -> pathlib.Path:
  """Divides the data set of `make` into folds; returns their folder.

  Raises:
    InputError: there are folds of other songs.
  """
  out = folder / "folds"
  if out.exists():
    _check_folds(out, [folder / "data"] * FOLDS)
  else:
    data_folds.make(
      folder / "data",
      out,
      folds=FOLDS,
      split_by=song_groups.ARTIST_ALBUM,
      validation_share=_FOLD_VALIDATION,
    )
  return out


def _check_split(out: pathlib.Path, places: Sequence[pathlib.Path]) -> None:
  """Refuses folds with less that are not a part of folds as they are now."""
  for less, whole in zip(folds.find(out), places, strict=True):
    split, now = catalogues.load(less).split, catalogues.load(whole).split
    absent = split == catalogues.NO_SPLIT
    if not np.array_equal(np.where(absent, catalogues.TRAIN, split), now):
      raise errors.InputError(
        f"{less} has another split than {whole} has now: remove {out} to have "
        "it made again."
      )


def _fitting(sizes: Sequence[int], most: float) -> list[int]:
  """Returns which of some groups, in their order, fit into so much."""
  kept, total = [], 0
  for i, size in enumerate(sizes):
    if total + size <= most:
      kept.append(i)
      total += size
  return kept


def thin(folds_dir: pathlib.Path, share: float) -> pathlib.Path:
  """Makes folds with fewer hours to train on; returns their folder.

  Whole groups of training songs are left out, by chance; validation and test
  songs stay. Raises InputError where there are such folds of other songs, or of
  another split.
  """
  out = folds_dir.with_name(f"{folds_dir.name}-{share:g}")
  if out.exists():
    _check_folds(out, folds.find(folds_dir))
    _check_split(out, folds.find(folds_dir))
    return out
  unfinished = out.with_name(f"{out.name}.unfinished")
  shutil.rmtree(unfinished, ignore_errors=True)
  for place in folds.find(folds_dir):
    data, folder = dataset.DataSet(place), unfinished / place.name
    data_folds.link_songs(data, folder)
    split = data.catalogue.split.copy()
    train = split == catalogues.TRAIN
    groups = song_groups.of_songs(data.catalogue, song_groups.ARTIST_ALBUM)
    names = np.unique(groups[train])
    order = np.random.default_rng(0).permutation(names)
    frames = np.bincount(groups[train], data.store.frames[train])[order]
    fitting = _fitting(frames, share * frames.sum())
    kept, part = order[fitting], frames[fitting].sum() / frames.sum()
    print(f"{out.name}/{place.name}: {part:.3f} of the hours to train on")
    split[train & ~np.isin(groups, kept)] = catalogues.NO_SPLIT
    dataclasses.replace(data.catalogue, split=split).save(folder)
    shutil.copyfile(
      place / song_groups.SETTINGS_FILE, folder / song_groups.SETTINGS_FILE
    )
  unfinished.rename(out)
  return out

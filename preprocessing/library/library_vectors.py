"""Makes the vectors of an own library, and tells what its strategies lack."""

import pathlib
from typing import Any

import numpy as np

from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from preprocessing.library import library_report
from preprocessing.vectors import genre_words
from preprocessing.vectors import playlist_factors
from preprocessing.vectors import vector_files


def make(
  data_dir: pathlib.Path,
  made: catalogues.Catalogue,
  settings: dict[str, Any],
) -> dict[str, str]:
  """Makes the vectors there is data for; returns strategy -> what it lacks."""
  lacking, how = {}, {"seed": settings["seed"], "force": True}
  # The quick vectors first; the others go on from an interrupted run's state.
  # Finished vectors are made again: nothing was trained with them.
  try:
    dims = settings["genre_dims"]
    genre_words.make_genre_vectors(data_dir, dims=dims, **how)
  except vector_files.NothingToLearn:
    lacking["CM and Hybrid with genre_w2v"] = "genre tags"
  try:
    dims = settings["dims"]
    playlist_factors.make_playlist_vectors(data_dir, dims=dims, **how)
  except vector_files.NothingToLearn:
    lacking["CM and Hybrid with cf"] = "playlists"
  if min(np.bincount(made.split[made.split >= 0], minlength=3)[:2]) < 2:
    lacking[library_report.ANY] = (
      "two songs for training and two for validation: add songs, or give a "
      "larger --validation_share with --force"
    )
  in_training = made.split == catalogues.TRAIN
  for method in catalogues.PAIR_METHODS:
    lists = made.pair_lists(method)
    songs = lists.list_index()[in_training[lists.values]]
    if (np.bincount(songs, minlength=1) > 1).sum() < 2:
      lacking[library_report.of_pairs(method)] = (
        f"two {dataset.NEEDS[method][0]} with two training songs or more each"
      )
  return lacking

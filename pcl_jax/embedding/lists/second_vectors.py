"""Vectors of another kind for songs of a table: those of playlists, mode P."""

from collections.abc import Iterable
import os
import pathlib
from typing import NamedTuple

from jaxtyping import Float
import numpy as np

from pcl_jax.common import errors
from pcl_jax.data import dataset
from pcl_jax.data import vector_sources
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_table
from pcl_jax.library import song_names


class SecondVectors(NamedTuple):
  """Vectors of another kind for songs of a table.

  Attributes:
    unit: vector of each song, of length one; zeros where there is none.
    share: of their score in the whole, from 0 to 1.
  """

  unit: Float[np.ndarray, "songs d"]
  share: float

  def count(self) -> int:
    """Returns how many songs have such a vector."""
    return int(self.unit.any(axis=1).sum())


def _real_paths(paths: Iterable[str], roots: Iterable[str]) -> list[str]:
  """Returns absolute paths without links on the way to the songs' folders."""
  real = {
    os.path.join(root, ""): os.path.join(os.path.realpath(root), "")
    for root in map(os.path.abspath, roots)
  }

  def follow(path: str) -> str:
    root = next(filter(path.startswith, real), "")
    return real.get(root, "") + path[len(root) :]

  return list(map(follow, paths))


def _place_of(path: str, roots: Iterable[str]) -> str:
  """Returns where in the folder of its library a song lies; empty if nowhere.

  A table without paths has none.
  """
  for root in roots:
    if path.startswith(os.path.join(root, "")):
      return os.path.relpath(path, root)
  return ""


def of_playlists(
  table: song_table.Table, folder: pathlib.Path, share: float
) -> SecondVectors:
  """Reads the mode P vectors of a data set for the songs of a table.

  A song of the table is that of the data set with its path, where a folder that
  is a link counts as the one it leads to; or, where the table was made of the
  data set, with its id (and its place in a folder that has moved). Songs that
  no playlist was learned from have no vector.

  Raises:
    InputError: the share is none, or the data set has no such vectors, or none
      of the songs.
  """
  if not 0 <= share <= 1:
    raise errors.InputError(f"blend is {share:g}: give a number from 0 to 1.")
  if not (folder / dataset.PLAYLIST_VECTORS).exists():
    raise errors.InputError(
      f"{folder} has no {dataset.PLAYLIST_VECTORS}, which is to be blended: "
      f"make it with python -m preprocessing.playlist_vectors --data={folder}, "
      "or give another --data."
    )
  data = dataset.DataSet(folder)
  catalogue = data.catalogue
  factors = data.vectors("cf", "of the list")[:, :-1]  # The last is the bias.
  _, learned = vector_sources.learned_entries(catalogue)
  learned = np.unique(learned)
  numbers = catalogue.song_ids[learned].tolist()
  rows = dict(zip(numbers, learned.tolist(), strict=True))
  paths, roots = song_names.audio_paths(folder)
  numbers = [number for number in numbers if number in paths]
  theirs = [os.path.abspath(paths[number]) for number in numbers]
  by_path = {
    path: rows[number]
    for path, number in zip(_real_paths(theirs, roots), numbers, strict=True)
  }
  # Own libraries all count from 0, so in another folder, where a library may
  # have moved to, songs of an id must have the same place as well.
  folders = (
    set(map(os.path.realpath, x)) for x in (roots, table.about["roots"])
  )
  is_same = not roots or bool(set.intersection(*folders))

  def key(name: str, path: str, of: Iterable[str]) -> tuple[str, str]:
    return name, "" if is_same else _place_of(path, of)

  by_id = {
    key(str(number), paths.get(number, ""), roots): row
    for number, row in rows.items()
  }
  ours = _real_paths(table.paths, table.about["roots"])
  keys = [
    key(name, path, table.about["roots"])
    for name, path in zip(table.ids, table.paths, strict=True)
  ]
  unit = np.zeros((len(table.ids), factors.shape[1]), np.float32)
  found = [
    by_path.get(path, by_id.get(one))
    for path, one in zip(ours, keys, strict=True)
  ]
  known = np.flatnonzero([one is not None for one in found])
  if not len(known):
    raise errors.InputError(
      f"{folder} has playlist vectors of none of the songs of {table.path}: "
      "give the data set of this library as --data."
    )
  unit[known] = search.unit(factors[[found[row] for row in known]])
  return SecondVectors(unit, share)

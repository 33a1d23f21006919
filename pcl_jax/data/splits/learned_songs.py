"""The songs that a run has learned from, as its workdir keeps them.

WORKDIR/learned_songs.npz holds the array `songs` with a row for each training
and validation song of each data set that the run was trained on:

    data_set   number of the data set in the array `directories`
    song_id    id in the data set
    part       0 for training, 1 for validation
    frames     length of its feature
    checksum   CRC-32 of its feature
"""

import dataclasses
import os
import pathlib
import zipfile

from jaxtyping import Int8
import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import dataset

FILE_NAME = "learned_songs.npz"
_ROW = np.dtype(
  [
    ("data_set", "<i4"),
    ("song_id", "<u4"),
    ("part", "i1"),
    ("frames", "<i8"),
    ("checksum", "<u4"),
  ]
)


@dataclasses.dataclass(frozen=True)
class LearnedSongs:
  """What learned_songs.npz holds."""

  directories: tuple[str, ...] = ()  # The absolute path of each data set.
  songs: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros(0, _ROW)
  )

  def _of(self, number: int, data: dataset.DataSet) -> np.ndarray:
    """Returns the rows of a data set that mean songs of `data`."""
    songs = self.songs[self.songs["data_set"] == number]
    rows = catalogues.find_rows(data.catalogue.song_ids, songs["song_id"])
    songs, rows = songs[rows >= 0], rows[rows >= 0]
    same = songs["frames"] == data.store.frames[rows]
    same &= songs["checksum"] == data.store.checksums[rows]
    # In the data set itself an id is always the same song, however it sounds
    # now; in another one most songs must agree before ids count.
    if self.directories[number] == os.path.abspath(data.directory):
      return songs
    return songs if 2 * same.sum() > len(same) else songs[same]

  def split_of(self, data: dataset.DataSet) -> Int8[np.ndarray, " songs"]:
    """Returns the split of a data set as this run may be evaluated on it.

    A song that the run trained on is a training song, and one that it validated
    on is no test song.
    """
    split = data.catalogue.split.copy()
    for number in range(len(self.directories)):
      songs = self._of(number, data)
      rows = catalogues.find_rows(data.catalogue.song_ids, songs["song_id"])
      np.minimum.at(split, rows, songs["part"])
    return split

  def joined(self, other: "LearnedSongs") -> "LearnedSongs":
    """Returns the songs of both, each data set and song once."""
    directories = list(dict.fromkeys(self.directories + other.directories))
    songs = other.songs.copy()
    numbers = [directories.index(one) for one in other.directories]
    songs["data_set"] = np.array(numbers, "<i4")[songs["data_set"]]
    songs = np.unique(np.concatenate([self.songs, songs]))
    return LearnedSongs(tuple(directories), songs)


def record(
  workdir: pathlib.Path,
  data: dataset.DataSet,
  earlier: LearnedSongs | None = None,
) -> None:
  """Adds the songs that a data set trains and validates on to those on file.

  Args:
    workdir: folder of the run.
    data: the data set.
    earlier: songs that the weights which the run began with have learned from.

  Raises:
    InputError: the file that is there cannot be read.
    OSError: the file cannot be written.
  """
  there = read(workdir) or LearnedSongs()
  rows = np.flatnonzero(data.catalogue.learned)
  songs = np.zeros(len(rows), _ROW)
  songs["song_id"] = data.catalogue.song_ids[rows]
  songs["part"] = data.catalogue.split[rows]
  songs["frames"] = data.store.frames[rows]
  songs["checksum"] = data.store.checksums[rows]
  own = LearnedSongs((os.path.abspath(data.directory),), songs)
  known = there.joined(earlier or LearnedSongs()).joined(own)
  if len(known.songs) == len(there.songs):
    return
  with (
    storage.write_aside(workdir / FILE_NAME) as partial,
    open(partial, "wb") as file,
  ):
    np.savez(file, songs=known.songs, directories=np.array(known.directories))


def read(workdir: str | os.PathLike[str]) -> LearnedSongs | None:
  """Reads learned_songs.npz; None where a run of an earlier version has none.

  Raises:
    InputError: it cannot be read.
  """
  path = file_names.path(workdir) / FILE_NAME
  if not path.exists():
    return None
  try:
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
      songs = file["songs"]
      return LearnedSongs(
        tuple(file["directories"].tolist()), songs.astype(_ROW, casting="no")
      )
  except (
    OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile
  ) as error:  # fmt: skip
    raise errors.InputError(
      f"{path} cannot be read ({error}), and evaluation would ask for songs "
      "that the run learned from. Copy it again; or delete it, and the same "
      "command line of launch.py writes it for the data set as it is now."
    ) from error

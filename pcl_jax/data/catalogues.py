"""The catalogue: songs, artists, genres, playlists and split, as arrays.

Songs are numbered by their row in the catalogue, which holds the songs of the
song store in the same order; everything else refers to rows.
"""

import dataclasses
import itertools
import os
import pathlib
import zipfile

from jaxtyping import Bool, Int, Integer, UInt32
import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import ragged

FORMAT_VERSION = 1
FILE_NAME = "catalogue.npz"
TRAIN, VALIDATION, TEST = 0, 1, 2
NO_SPLIT = -1  # Songs that an imported split does not name; nobody uses them.
SPLIT_NAMES = ("train", "validation", "test")
TRAIN_FILE = 0  # A number of `Catalogue.playlist_files`.
PAIR_METHODS = ("Playlist", "Artist", "Genre", "Album")
_ARRAYS = ("song_ids", "split", "albums", "playlist_files", "genre_codes")
_LISTS = ("artists", "genres", "playlists")


def find_rows(
  song_ids: Integer[np.ndarray, " songs"],
  wanted: Integer[np.ndarray, "*shape"],
) -> Integer[np.ndarray, "*shape"]:
  """Returns the row of each wanted id in ascending ids, -1 where absent."""
  if not len(song_ids):
    return np.full(wanted.shape, -1, np.int64)
  rows = np.minimum(np.searchsorted(song_ids, wanted), len(song_ids) - 1)
  return np.where(song_ids[rows] == wanted, rows, -1)


@dataclasses.dataclass(frozen=True)
class Catalogue:
  """Everything known about the songs of a data set except their audio."""

  song_ids: UInt32[np.ndarray, " songs"]  # Ascending, as in the song store.
  split: Int[np.ndarray, " songs"]  # TRAIN, VALIDATION, TEST or NO_SPLIT, int8.
  artists: ragged.Ragged  # Of each song, numbered from 0.
  # Codes of each song, 1..len(genre_codes), sub-genres first; 0 is padding.
  genres: ragged.Ragged
  albums: Int[np.ndarray, " songs"]  # Of each song, int32, -1 where unknown.
  playlists: ragged.Ragged  # Songs of each, without repetition.
  # Where each stood, int8: 0 train.json, 1 val.json, 2 test.json. Pairs come
  # from all, mode P from train.json.
  playlist_files: Int[np.ndarray, " playlists"]
  genre_codes: np.ndarray  # Name of code i + 1, [codes].
  # Pair method -> fixed pairs of songs, int32 [pairs, 2].
  validation_pairs: dict[str, np.ndarray]

  def __len__(self) -> int:
    return len(self.song_ids)

  def rows_of(self, split: int) -> Int[np.ndarray, " rows"]:
    """Returns the rows of the songs of a split, ascending."""
    return np.flatnonzero(self.split == split).astype(np.int32)

  @property
  def learned(self) -> Bool[np.ndarray, " songs"]:
    """Which songs vectors may be learned from: training and validation."""
    return np.isin(self.split, (TRAIN, VALIDATION))

  def album_lists(self) -> ragged.Ragged:
    """Returns the album of each song as a list of one or none.

    The albums are numbered from 0: their ids may be any large numbers.
    """
    known = self.albums >= 0
    numbers = np.unique(self.albums[known], return_inverse=True)[1]
    return ragged.Ragged.from_lengths(
      numbers.astype(np.int32), known.astype(int)
    )

  def pair_lists(self, method: str) -> ragged.Ragged:
    """Returns the lists of songs that a pair method draws its pairs from."""
    if method == "Playlist":
      return self.playlists
    if method == "Artist":
      return self.artists.transposed()
    if method == "Genre":
      return self.genres.transposed(len(self.genre_codes) + 1)
    if method == "Album":
      return self.album_lists().transposed()
    raise errors.InputError(
      f"pair_generation_method is {method!r}; it is one of "
      f"{', '.join(PAIR_METHODS)}, or empty for none."
    )

  def tags(self, max_num_tags: int) -> Int[np.ndarray, "songs tags"]:
    """Returns each song's first genre codes, int32, padded with 0."""
    out = np.zeros((len(self), max_num_tags), np.int32)
    column = self.genres.places()
    kept = column < max_num_tags
    out[self.genres.list_index()[kept], column[kept]] = self.genres.values[kept]
    return out

  def as_arrays(self) -> dict[str, np.ndarray]:
    """Returns all of it by the names it has in catalogue.npz."""
    arrays = {"format_version": np.int64(FORMAT_VERSION)}
    arrays |= {name: getattr(self, name) for name in _ARRAYS}
    arrays["genre_codes"] = self.genre_codes.astype(np.str_)
    for name in _LISTS:
      arrays[f"{name}/values"] = getattr(self, name).values
      arrays[f"{name}/offsets"] = getattr(self, name).offsets
    for method, pairs in sorted(self.validation_pairs.items()):
      arrays[f"validation_pairs/{method}"] = pairs
    return {name: np.asarray(array) for name, array in arrays.items()}

  def save(self, data_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes catalogue.npz into a data set's folder; returns its path."""
    path = pathlib.Path(data_dir) / FILE_NAME
    with storage.write_aside(path) as partial, open(partial, "wb") as file:
      np.savez(file, **self.as_arrays())
    return path


def load(data_dir: str | os.PathLike[str]) -> Catalogue:
  """Reads the catalogue of a data set's folder.

  Raises:
    InputError: it is absent, unreadable, damaged or of another format version.
  """
  path = pathlib.Path(data_dir) / FILE_NAME
  remedy = "Make it again with python -m preprocessing.data_split."
  if not path.exists():
    raise errors.InputError(
      f"{path} does not exist: the data set has no split yet. Make it with "
      f"python -m preprocessing.data_split --data={data_dir} --melon_dir=..."
    )
  try:
    # np.load leaves a file that it opened and could not read open.
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    raise errors.InputError(
      f"{path} cannot be read ({error}). {remedy}"
    ) from error
  version = int(arrays.get("format_version", -1))
  if version != FORMAT_VERSION:
    raise errors.InputError(
      f"{path} has format version {version}, this version of pcl_jax reads "
      f"{FORMAT_VERSION}. {remedy}"
    )
  parts = {name: (f"{name}/values", f"{name}/offsets") for name in _LISTS}
  needed = itertools.chain(_ARRAYS, *parts.values())
  if absent := [name for name in needed if name not in arrays]:
    raise errors.InputError(
      f"{path} lacks {', '.join(absent)}: it is damaged. {remedy}"
    )
  fields = {name: arrays[name] for name in _ARRAYS}
  for name, keys in parts.items():
    fields[name] = ragged.Ragged(*(arrays[key] for key in keys))
  pairs = {
    name: arrays.get(f"validation_pairs/{name}") for name in PAIR_METHODS
  }
  pairs = {name: drawn for name, drawn in pairs.items() if drawn is not None}
  return Catalogue(**fields, validation_pairs=pairs)

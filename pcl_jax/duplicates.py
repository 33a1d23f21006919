"""Finds songs of a library that are one recording.

  python -m pcl_jax.duplicates --embeddings=music.parquet
  python -m pcl_jax.duplicates --data=data/mine --json=copies.json

Found are other encodings, levels and equalisers of a recording, and copies with
a cut beginning or end (up to 20 s, and half of the shorter one), not only files
of equal bytes. Pairs of songs with near vectors (--embeddings) or near spectra
(--data) are laid over each other: those whose features correlate by at least
--min_correlation are one recording. Two takes of a piece are not, unless a
machine plays both with the same instruments and nearly the same times.

With --embeddings the songs' files are read where the table says they lie, or in
--audio if their folder has moved, or the one that holds all of their folders;
of a data set, its song store. --json writes groups of ids, which python -m
preprocessing.data_split --copies keeps in one part.
"""

import argparse
from collections.abc import Sequence
import csv
import os
import pathlib
from typing import Any

from absl import logging
import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.audio import decode
from pcl_jax.audio import melspectrogram
from pcl_jax.common import command_line
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.common import storage
from pcl_jax.data import song_store
from pcl_jax.embedding import duplicate_songs
from pcl_jax.embedding.lists import list_files
from pcl_jax.embedding.tables import song_table
from pcl_jax.evaluation.audit import near_duplicates
from pcl_jax.library import song_names

_COLUMNS = ("group", "id", "path", "correlation", "with", "begins_s")
_SHOWN = 20  # Songs that could not be read.
_NEIGHBOURS = 8
_LEAST_COSINE = 0.8
_FRAME_S = (
  melspectrogram.SETTINGS.hop_samples / melspectrogram.SETTINGS.sample_rate_hz
)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command_line.parser("pcl_jax.duplicates", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  text = "a table that pcl_jax.embed wrote"
  add("--embeddings", **path, help=text)
  text = "a prepared data set, in place of a table or of a table's files"
  add("--data", **path, help=text)
  text = (
    "where the folder of the table's songs, or of all their folders, is now"
  )
  add("--audio", **path, help=text)
  text = "neighbours of each song that are compared (%(default)s)"
  add("--neighbours", type=command_line.count, default=_NEIGHBOURS, help=text)
  text = f"least cosine of vectors that are compared ({_LEAST_COSINE})"
  add("--min_cosine", type=float, help=text)
  text = "least correlation of one recording (%(default)s)"
  least = duplicate_songs.CORRELATION
  add("--min_correlation", type=float, default=least, help=text)
  add("--csv", **path, help="also write the songs as a table")
  add("--json", **path, help="also write the groups, lists of ids")
  flags = parser.parse_args(argv)
  if flags.embeddings is None and flags.data is None:
    parser.error("give --embeddings, --data, or both")
  if flags.embeddings is None and flags.min_cosine is not None:
    parser.error("--min_cosine goes with --embeddings, which has the vectors")
  if flags.min_cosine is None:
    flags.min_cosine = _LEAST_COSINE
  for name in ("min_cosine", "min_correlation"):
    value = getattr(flags, name)
    if not -1 <= value <= 1:
      parser.error(f"--{name} is {value:g}; it is a number from -1 to 1")
  if flags.data is not None and flags.audio is not None:
    parser.error("--audio does nothing with --data, which has the features")
  return flags


class _Library:
  """The songs, their candidates, and how their features are read."""

  def __init__(self, flags: argparse.Namespace):
    self._flags, self._store = flags, None
    self.ids, self.paths = [], []
    if flags.data is not None:
      self._store = song_store.SongStore(flags.data / song_store.FILE_NAME)
      numbers = self._store.song_ids.tolist()
      known, _ = song_names.audio_paths(flags.data)
      self.ids = list(map(str, numbers))
      self.paths = [known.get(number, "") for number in numbers]
      self._positions = {one: i for i, one in enumerate(self.ids)}
    if flags.embeddings is not None:
      self._table = song_table.read_table(flags.embeddings)
      self.ids, self.paths = self._table.ids, self._table.paths

  def candidates(self) -> np.ndarray:
    """Returns pairs of rows that may be one recording."""
    flags = self._flags
    if flags.embeddings is None:
      return near_duplicates.candidates(self._store, flags.neighbours)
    unit = np.array(self._table.rows.unit)
    unit[list(self._table.silent)] = 0
    return duplicate_songs.candidates(unit, flags.neighbours, flags.min_cosine)

  def feature(self, row: int) -> np.ndarray:
    """Reads the feature of a song, [frames, bands]."""
    if self._store is not None:
      if self.ids[row] not in self._positions:
        raise errors.InputError(f"{self._flags.data} has no such song")
      return self._store.read_song(self._positions[self.ids[row]])
    if not self.paths[row] and self._flags.audio is None:
      raise errors.InputError("the table has no path; give --data or --audio")
    channels = channel_mix.of(self._table.about["feature"])
    return decode.read_feature(self._place(row), channels=channels)

  def _place(self, row: int) -> pathlib.Path:
    """Returns where the file of a song lies now."""
    path, audio = pathlib.Path(self.paths[row]), self._flags.audio
    if audio is None:
      return path
    roots = self._table.about["roots"]
    folder = os.path.commonpath(roots) if roots else ""
    if folder and path.is_relative_to(folder):
      return audio / path.relative_to(folder)
    return audio / self.ids[row]


def _rows(
  library: _Library,
  found: list[duplicate_songs.Duplicate],
  groups: list[np.ndarray],
) -> list[dict[str, Any]]:
  """Returns a row for each song of a group."""
  best: dict[int, duplicate_songs.Duplicate] = {}
  for one in found:
    for song in (one.first, one.second):
      if song not in best or one.correlation > best[song].correlation:
        best[song] = one
  rows = []
  for number, members in enumerate(groups, 1):
    for song in members.tolist():
      one = best[song]
      other = one.first + one.second - song
      later = one.shift if song == one.second else -one.shift
      values = (
        number,
        library.ids[song],
        library.paths[song],
        f"{one.correlation:.4f}",
        library.ids[other],
        f"{later * _FRAME_S:+.2f}",
      )
      rows.append(dict(zip(_COLUMNS, values, strict=True)))
  return rows


def _grid(rows: list[dict[str, Any]]) -> list[str]:
  """Returns lines for the screen, without paths that ids are the ends of."""
  without = "path" if list_files.ids_repeat_paths(rows) else None
  names = [one for one in _COLUMNS if one != without]
  cells = [[file_names.shown(str(row[one])) for one in names] for row in rows]
  texts = [one for one in names if one in ("id", "path", "with")]
  return console.grid(names, cells, shorten=texts)


def _write_csv(out: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  with (
    storage.write_aside(out) as partial,
    open(partial, "w", encoding="utf-8", newline="") as file,
  ):
    writer = csv.DictWriter(file, _COLUMNS)
    writer.writeheader()
    for row in rows:
      writer.writerow(
        {k: file_names.to_text(str(v))[0] for k, v in row.items()}
      )


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and prints the groups."""
  flags = _arguments(argv)
  for name in ("csv", "json"):
    if getattr(flags, name) is not None:
      storage.check_writable(getattr(flags, name), f"give another --{name}")
  jax_setup.start()
  library = _Library(flags)
  pairs = library.candidates()
  found, unread = duplicate_songs.confirm(
    pairs, library.feature, least=flags.min_correlation
  )
  edges = np.array([one[:2] for one in found], np.int64).reshape(-1, 2)
  groups = duplicate_songs.groups(edges, len(library.ids))
  print(
    f"{len(library.ids)} songs, {len(pairs)} pairs compared, "
    f"{sum(map(len, groups))} songs in {len(groups)} groups of one recording"
  )
  if unread:
    print(f"{len(unread)} songs cannot be read, and were not compared:")
    for row, reason in list(unread.items())[:_SHOWN]:
      name = library.paths[row] or library.ids[row]
      print(f"  {file_names.shown(f'{name}: {reason}')}")
  if unread and len(unread) == len(np.unique(pairs)):
    raise errors.RunError(
      f"not one of the {len(unread)} songs that were to be compared can be "
      "read: if they have moved, give the folder that holds them, or all of "
      "their folders, as --audio."
    )
  rows = _rows(library, found, groups)
  if rows:
    print("", *_grid(rows), sep="\n")
  if flags.csv is not None:
    _write_csv(flags.csv, rows)
    print(f"\nwritten to {flags.csv}")
  if flags.json is not None:
    ids = [[library.ids[song] for song in one.tolist()] for one in groups]
    storage.write_json(flags.json, {"groups": ids})
    print(f"\nwritten to {flags.json}")


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)
  errors.run_command(main)

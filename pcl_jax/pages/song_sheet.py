"""What a page says of each song of a data set, and where it can be heard."""

import collections
import dataclasses
import itertools
import os
import pathlib
from urllib import parse

from jaxtyping import Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.evaluation.retrieval import relevance
from pcl_jax.library import song_names


@dataclasses.dataclass(frozen=True)
class SongSheet:
  """What is known of the songs, each in the order of the catalogue.

  Attributes:
    ids: number of each song.
    names: artist and title, or the file, or the number.
    artists: the artists of each song; those of one name have their number.
    genres: names of the sub-genres of each song.
    splits: part of the split of each song.
    playlists: numbers of the playlists that hold each song.
    playlist_names: title of each playlist, or its number.
  """

  ids: list[int]
  names: list[str]
  artists: list[list[str]]
  genres: list[list[str]]
  splits: list[str]
  playlists: list[list[int]]
  playlist_names: list[str]

  def __len__(self) -> int:
    return len(self.ids)

  def select(self, rows: Int[np.ndarray, " some"]) -> "SongSheet":
    """Returns some of the songs, by their rows."""
    return SongSheet(
      *(
        [getattr(self, field.name)[row] for row in rows.tolist()]
        for field in dataclasses.fields(self)[:-1]
      ),
      self.playlist_names,
    )


def _artists(
  made: catalogues.Catalogue, records: dict[int, dict]
) -> list[list[str]]:
  """Returns the artists of each song, one text for each of their numbers."""
  songs = made.song_ids.tolist()
  lists = [made.artists[row].tolist() for row in range(len(songs))]
  names: dict[int, str] = {}
  for song, numbers in zip(songs, lists, strict=True):
    named = song_names.artists(records.get(song, {}))
    if len(named) == len(numbers):  # Else it is not known whose they are.
      for number, name in zip(numbers, named, strict=True):
        names.setdefault(number, name)
  for number in itertools.chain(*lists):
    names[number] = names.get(number) or f"artist {number}"
  alike = collections.Counter(names.values())
  return [
    [
      f"{names[number]} (artist {number})"
      if alike[names[number]] > 1
      else names[number]
      for number in numbers
    ]
    for numbers in lists
  ]


def _names(data: dataset.DataSet, records: dict[int, dict]) -> list[str]:
  paths, _ = song_names.audio_paths(data.directory)
  found = []
  for number in data.catalogue.song_ids.tolist():
    title = song_names.title(records.get(number, {}))
    file = file_names.shown(os.path.basename(paths.get(number, "")))
    found.append(title or file or f"song {number}")
  return found


def read(data: dataset.DataSet) -> SongSheet:
  """Reads what is known of the songs of a data set.

  Raises:
    InputError: its metadata cannot be read.
  """
  made, home = data.catalogue, song_names.home(data.directory)
  records = {one.get("id"): one for one in song_names.records(home)}
  codes = ["", *map(str, made.genre_codes)]
  known = song_names.genre_names(home)
  sub_genres = relevance.sub_genres(made)
  titles = song_names.playlist_titles(home)
  if len(titles) != len(made.playlists):
    titles = [""] * len(made.playlists)
  parts = {i: name for i, name in enumerate(catalogues.SPLIT_NAMES)}
  lists = made.playlists.transposed(len(made))
  return SongSheet(
    ids=made.song_ids.tolist(),
    names=_names(data, records),
    artists=_artists(made, records),
    genres=[
      [
        file_names.shown(str(known.get(codes[c], codes[c])))
        for c in sub_genres[i]
      ]
      for i in range(len(made))
    ],
    splits=[parts.get(part, "unused") for part in made.split.tolist()],
    playlists=[lists[i].tolist() for i in range(len(made))],
    playlist_names=[title or f"playlist {i}" for i, title in enumerate(titles)],
  )


def tag_names(data: dataset.DataSet) -> dict[str, str]:
  """Returns the names of the data set's genre codes, as people read them."""
  names = song_names.genre_names(song_names.home(data.directory))
  return {code: file_names.shown(str(name)) for code, name in names.items()}


def _files_by_id(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  return {one.stem: one for one in sorted(folder.rglob("*")) if one.is_file()}


def _find(
  data: dataset.DataSet, audio: pathlib.Path | None
) -> dict[int, pathlib.Path]:
  """Returns the audio file of each song that has one, by the song's number."""
  numbers = data.catalogue.song_ids.tolist()
  paths, roots = song_names.audio_paths(data.directory)
  if audio is not None and not audio.is_dir():
    raise errors.InputError(
      f"--audio={audio} is not a folder: give the one of your music, or one of "
      "files that are named by the songs' ids, such as 123.ogg."
    )
  if paths:
    base = audio or pathlib.Path(roots[0])
    inside = {n: os.path.relpath(path, roots[0]) for n, path in paths.items()}
    found = {n: base / inside[n] for n in numbers if n in inside}
    return {n: path for n, path in found.items() if path.is_file()}
  folder = audio or song_names.home(data.directory) / song_names.CLIPS
  by_id = _files_by_id(folder) if folder.is_dir() else {}
  return {n: by_id[str(n)] for n in numbers if str(n) in by_id}


def audio_links(
  data: dataset.DataSet, audio: pathlib.Path | None, page: pathlib.Path
) -> list[str]:
  """Returns the address of each song's audio, relative to a page.

  Args:
    data: the data set.
    audio: the folder of an own library, or of files that are named by the ids
      of songs; None for where the data set has its audio.
    page: the page's file.

  Returns:
    An address for each song; empty where there is no file.

  Raises:
    InputError: `audio` is not a folder.
  """
  found = _find(data, audio)
  start = os.path.abspath(page.parent)
  links = []
  for number in data.catalogue.song_ids.tolist():
    path = found.get(number)
    if path is None:
      links.append("")
    else:
      relative = os.path.relpath(os.path.abspath(path), start)
      links.append(parse.quote(os.fsencode(relative)))
  return links

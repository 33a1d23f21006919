"""Queries as people write them: ids, paths, audio files and playlist files."""

from collections.abc import Sequence
import difflib
import os
import pathlib
from typing import NamedTuple
import unicodedata

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import hub_downloads
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_table
from pcl_jax.embedding.tables import table_names
from pcl_jax.library import playlist_files
from pcl_jax.library import song_finder
from pcl_jax.library import song_labels

SHOWN = 20  # Names in a message or a list.
_CLOSE = 5  # Names that are offered.
_MOST_CHARS = 300  # Of a query in a message.
_COMPARED = 20_000  # Names that are compared letter by letter.


def find_row(
  table: song_table.Table, query: str, *, home: bool = True
) -> int | None:
  """Returns the row of an id or of a path; None if the table has neither.

  An id may also be written as it is shown. With `home`, the `~` of a path is
  the user's folder.
  """
  path = os.path.abspath(file_names.path(query) if home else query)
  for wanted, names in ((path, table.paths), (query, table.ids)):
    row = table_names.find(names, wanted)
    if row is not None:
      return row
  shown = map(file_names.shown, table.ids)
  return next((row for row, one in enumerate(shown) if one == query), None)


def _folded(text: str) -> str:
  return unicodedata.normalize("NFC", text).casefold()


def find_name(table: song_table.Table, query: str) -> int | None:
  """Returns the row of the song that the end of a path or a name means.

  A query is the end of a path, with or without the suffix, or a name: the
  title, or artist and title. None if there is no such song.

  Raises:
    InputError: there are several.
  """
  wanted = _folded(query.replace(os.sep, "/")).lstrip("/")
  ends = f"/{wanted}", f" - {wanted}"
  paths = [f"/{_folded(one)}" for one in table.paths]
  stems = [os.path.splitext(one)[0] for one in paths]
  names = [f" - {_folded(one)}" for one in table.names]
  for texts, end in ((paths, ends[0]), (stems, ends[0]), (names, ends[1])):
    found = [row for row, text in enumerate(texts) if text.endswith(end)]
    if len(found) > 1:
      shown = ", ".join(label(table, row) for row in found[:_CLOSE])
      raise errors.InputError(
        f"{query} may mean any of {len(found)} songs of {table.path}: {shown}"
        f"{', ...' * (len(found) > _CLOSE)}. Give more of the path, or the id."
      )
    if found:
      return found[0]
  return None


def label(table: song_table.Table, row: int) -> str:
  """Returns an id, and what people know the song of a data set by."""
  known = table.names[row] if table.names else "", table.paths[row]
  about = ", ".join(filter(None, known))
  is_number = table.ids[row].isdecimal()
  label = table.ids[row] + f" ({about})" * bool(about and is_number)
  return file_names.shown(label)


def _close_names(table: song_table.Table, query: str) -> list[str]:
  """Returns a few names that a query may mean."""
  labels = [one for one in table.ids if not one.isdecimal()]
  labels = labels or [one for one in table.paths if one]  # Of a data set.
  labels += filter(None, table.names)
  words = pathlib.Path(query).stem.casefold().split()
  near = [one for one in labels if any(w in one.casefold() for w in words)]
  known = {
    os.path.basename(one): one for one in (near or labels)[:_COMPARED][::-1]
  }
  name = os.path.basename(query)
  close = difflib.get_close_matches(name, known, _CLOSE, cutoff=0.5)
  return [known[one] for one in close] or near[:_CLOSE]


class Query(NamedTuple):
  """What a song is to sound like.

  Attributes:
    vector: of the table's encoder and layer.
    row: of the song in the table; NONE for another file.
    labels: of another file.
  """

  vector: Float[np.ndarray, " features"]
  row: int = search.NONE
  labels: song_labels.Labels = song_labels.Labels()


def load_encoder(
  table: song_table.Table, workdir: str | None = None
) -> song_encoder.SongEncoder:
  """Loads the encoder that a table was made with.

  Raises:
    InputError: the run in `workdir` (by default the one that the table names)
      is not there, or has another encoder.
  """
  about = table.about
  workdir = workdir or about["workdir"]
  named = hub_downloads.is_address(workdir)
  named |= workdir == encoder_loading.PRETRAINED
  if not named and not file_names.path(workdir).is_dir():
    raise errors.InputError(
      f"{workdir} does not exist, and a file has to be embedded with the "
      f"encoder of that run, as {table.path} was: give its folder as --workdir."
    )
  encoder = encoder_loading.load(
    workdir, about["checkpoint"], batch_patches=about["batch_patches"]
  )
  embedding_table.check_same_encoder(
    about,
    str(table.path),
    encoder.about,
    f"the {about['checkpoint']} checkpoint now",
  )
  return encoder


def embed_file(
  encoder: song_encoder.SongEncoder,
  table: song_table.Table,
  path: pathlib.Path,
  *,
  refuse_silence: bool = False,
) -> Query:
  """Embeds an audio file as the songs of a table were, by their encoder.

  Raises:
    InputError: the file cannot be read, or is silent and silence refused.
  """
  about = table.about
  vector = encoder.embed(
    path,
    channels=channel_mix.of(about["feature"]),
    layer=about["layer"],
    batch_patches=about["batch_patches"],
    refuse_silence=refuse_silence,
  )
  return Query(vector, labels=song_labels.of_file(path))


def find_song(
  table: song_table.Table, query: str, *, files: bool = True
) -> int | None:
  """Returns the row that an id, a path or a name means; None for other files.

  Args:
    table: the table.
    query: the id, path or name.
    files: whether it may be a file that is not of the table, and a path begin
      with `~`.

  Raises:
    InputError: it is none of these, or the song is silent.
  """
  row = find_row(table, query, home=files)
  # However long it is.
  there = files and os.path.isfile(file_names.path(query))
  if row is None and not there:
    row = find_name(table, query)
  if row in table.silent:
    raise errors.InputError(
      f"{label(table, row)} is silent, or its channels cancel each other out "
      "(column silent): no song sounds like it. Give another --query, or "
      "--keep_silent."
    )
  if row is None and not there:
    query = query if len(query) <= _MOST_CHARS else f"{query[:_MOST_CHARS]}..."
    close = _close_names(table, query)
    near = f" Similar names are: {', '.join(close)}." if close else ""
    kinds = "neither a file nor an" if files else "no"
    raise errors.InputError(
      f"{query} is {kinds} id, a path or a name in {table.path}.{near}"
    )
  return row


def look_up(
  table: song_table.Table,
  queries: Sequence[str],
  k: int,
  workdir: str | None = None,
  *,
  keep_silent: bool = False,
) -> tuple[list[Query], list[str]]:
  """Finds out what queries mean: songs of the table, or other audio files.

  Args:
    table: the table.
    queries: ids, paths or names of its songs, or files.
    k: how many songs are asked for.
    workdir: where the encoder is; by default where the table says.
    keep_silent: whether a silent file is a query as others are.

  Returns:
    The queries, and a line for each that says what it was taken for.

  Raises:
    InputError: a query is neither, or cannot be compared, or there are fewer
      than k other songs.
  """
  rows = [find_song(table, query) for query in queries]
  known = {*table.silent, *rows} - {None}
  table.check_k(k, len(table.ids) - len(known))
  others = [
    file_names.path(query)
    for query, row in zip(queries, rows, strict=True)
    if row is None
  ]
  encoder = load_encoder(table, workdir) if others else None
  paths, found, lines = iter(others), [], []
  for row in rows:
    if row is None:
      path = next(paths)
      refuse = not keep_silent
      found.append(embed_file(encoder, table, path, refuse_silence=refuse))
      name = file_names.shown(path)
      lines.append(f"query: {name}, embedded as the table's songs were")
    else:
      found.append(Query(table.rows.unit[row], row))
      lines.append(f"query: {label(table, row)}, in the table")
  return found, lines


def _read_playlists(
  table: song_table.Table, path: pathlib.Path
) -> list[playlist_files.Playlist]:
  """Returns the playlists of a file, each entry in them."""
  if path.suffix.lower() not in playlist_files.SUFFIXES:
    raise errors.InputError(
      f"{path} has none of the suffixes of playlists that are read: "
      f"{', '.join(playlist_files.SUFFIXES)}."
    )
  roots = [pathlib.Path(root) for root in table.about["roots"]]
  try:
    playlists, _ = playlist_files.read_playlists(path, roots)
  except playlist_files.UnreadablePlaylist as error:
    raise errors.InputError(
      f"{path} cannot be read: {error}. Give a playlist file."
    ) from error
  return playlists


def _read_playlist(
  table: song_table.Table, path: pathlib.Path, title: str | None
) -> playlist_files.Playlist:
  """Returns the one playlist of a file, or the one with a title."""
  playlists = _read_playlists(table, path)
  chosen = [one for one in playlists if title in (None, one.title)]
  if len(chosen) != 1:
    titles = ", ".join(repr(one.title) for one in playlists[:SHOWN])
    raise errors.InputError(
      f"{path} holds {len(chosen)} playlists"
      + (f" with the title {title!r}" if title else "")
      + f" ({titles}): name one with --title."
    )
  return chosen[0]


def find_members(
  table: song_table.Table,
  playlist: playlist_files.Playlist,
  folder: pathlib.Path,
) -> tuple[Int[np.ndarray, " members"], list[str]]:
  """Returns the rows of a playlist's songs, and the entries without one.

  Its entries are ids of the table, or paths: absolute, or relative to the
  playlist's folder or to a folder that the table was made of; or such that the
  path of one song has the same ending.
  """
  rows = {name: row for row, name in enumerate(table.ids)}
  finders = []
  for root in (*table.about["roots"], os.path.abspath(os.sep)):
    inside = {
      os.path.relpath(path, root): row
      for row, path in enumerate(table.paths)
      if path.startswith(os.path.join(root, ""))
    }
    finders.append(song_finder.SongFinder(pathlib.Path(root), inside))
  members, missing = {}, []
  for entry in playlist.entries:
    found = [rows.get(place) for place in entry.places]
    found += [
      finder.find(folder, place) for place in entry.places for finder in finders
    ]
    if all(one is None for one in found):
      found = [song_finder.only_one(finders, place) for place in entry.places]
    row = next((one for one in found if one is not None), None)
    if row is None:
      missing.append(entry.shown)
    else:
      members[row] = None
  return np.array(list(members), np.int64), missing


def _lines_on(
  playlist: playlist_files.Playlist,
  members: Int[np.ndarray, " members"],
  missing: list[str],
) -> list[str]:
  """Says which entries of a playlist are songs of a table."""
  lines = [
    f"playlist: {file_names.shown(playlist.title)}, "
    f"{len(playlist.entries)} entries, {len(members)} songs of the table"
  ]
  if missing:
    lines.append(f"not in the table: {len(missing)}")
    lines += [f"  {file_names.shown(one)}" for one in missing[:SHOWN]]
  if len(missing) > SHOWN:
    lines.append(f"  and {len(missing) - SHOWN} more")
  return lines


def songs_in(
  table: song_table.Table, path: pathlib.Path
) -> tuple[Int[np.ndarray, " members"], list[str]]:
  """Returns the rows of a file's songs, of whatever playlist, and lines on it.

  There may be none.

  Raises:
    InputError: the file cannot be read.
  """
  playlists = _read_playlists(table, path)
  title = playlists[0].title if len(playlists) == 1 else path.stem
  entries = tuple(entry for one in playlists for entry in one.entries)
  whole = playlist_files.Playlist(title, entries)
  members, missing = find_members(table, whole, path.parent)
  return members, _lines_on(whole, members, missing)


def members_of(
  table: song_table.Table, path: pathlib.Path, title: str | None
) -> tuple[Int[np.ndarray, " members"], list[str]]:
  """Returns the rows of a playlist's songs, without the silent ones.

  Args:
    table: the table.
    path: file of the playlist.
    title: of the playlist in a file that holds several.

  Returns:
    The rows, and some lines that say which entries the table has.

  Raises:
    InputError: the file cannot be read, or the table has none of its songs.
  """
  playlist = _read_playlist(table, path, title)
  members, missing = find_members(table, playlist, path.parent)
  if not len(members):
    raise errors.InputError(
      f"no song of {path} is in {table.path}; it names {missing[:_CLOSE]}: "
      "embed its songs first."
    )
  lines = _lines_on(playlist, members, missing)
  silent = np.isin(members, list(table.silent))
  if silent.any():
    lines.append(f"silent, and left out: {silent.sum()}")
  if silent.all():
    raise errors.InputError(
      f"all songs of {path} that are in {table.path} are silent: no song goes "
      "with them. Give another --playlist, or --keep_silent."
    )
  return members[~silent], lines

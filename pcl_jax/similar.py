"""Looks up what sounds alike, or what goes with a playlist.

  python -m pcl_jax.similar --embeddings=music.parquet --query=song.mp3 -k 10
  python -m pcl_jax.similar --embeddings=music.parquet --playlist=mine.m3u -k 10

The table is one that python -m pcl_jax.embed wrote. The query is an id or a
path of the table, or any other audio file, which is then embedded with the
table's encoder: that of the run it was made from, or of --workdir, if its
weights are still the same (embeddings of different encoders cannot be
compared). What is found is ranked by cosine.

A playlist (M3U, PLS, CSV, XSPF, JSPF) is continued as in the paper's
evaluation: each of its songs lists its 100 nearest songs that are not in the
playlist, and a song ranks by how many lists hold it, then by its mean cosine to
the playlist.
"""

import argparse
from collections.abc import Sequence
import csv
import dataclasses
import difflib
import os
import pathlib
from typing import Any

from absl import logging
from jaxtyping import Float, Int
import numpy as np

from pcl_jax.checkpoint import restore
from pcl_jax.common import errors
from pcl_jax.embedding import embedding_table
from pcl_jax.embedding import search
from pcl_jax.embedding import song_encoder
from pcl_jax.library import playlist_files
from pcl_jax.library import song_finder

NEIGHBOURS = 100  # That each song of a playlist lists.
_SHOWN = 20
_CLOSE = 5  # Names that are offered.
_COMPARED = 20_000  # Names that are compared letter by letter.


@dataclasses.dataclass(frozen=True)
class Found:
  """Songs of a table, best first.

  Attributes:
    rows: in the table.
    scores: cosine with the query, or mean cosine with the playlist's songs.
    lists: how many of the playlist's songs list each; None for a query.
  """

  rows: Int[np.ndarray, " found"]
  scores: Float[np.ndarray, " found"]
  lists: Int[np.ndarray, " found"] | None = None


def _check_k(k: int, others: int, table: embedding_table.Table) -> None:
  if k > others:
    raise errors.InputError(
      f"-k is {k}, and {table.path} has {others} songs to find: give at most "
      f"-k {others}."
    )


def find_similar(
  table: embedding_table.Table,
  vector: Float[np.ndarray, " features"],
  k: int,
  *,
  without: int = search.NONE,
) -> Found:
  """Finds the songs nearest to a vector.

  Args:
    table: of the songs.
    vector: of the same encoder and layer.
    k: how many.
    without: row that may not be found: the query's own.

  Raises:
    InputError: the table has fewer than `k` songs to find.
  """
  _check_k(k, len(table.ids) - (without != search.NONE), table)
  rows, scores = search.top_k(
    vector[None], table.vectors, k, excluded=np.array([without], np.int32)
  )
  return Found(rows[0], scores[0])


def continue_playlist(
  table: embedding_table.Table, members: Int[np.ndarray, " members"], k: int
) -> Found:
  """Finds the songs that go best with a playlist, by the paper's rule.

  Args:
    table: of the songs.
    members: rows of the playlist's songs, all different.
    k: how many; fewer are found where the lists hold fewer.

  Raises:
    InputError: the table has fewer than `k` songs beside the members.
  """
  others = len(table.ids) - len(members)
  _check_k(k, others, table)
  length = min(max(NEIGHBOURS, k), others)
  # As many more as may be members themselves: the table is not copied.
  rows, _ = search.top_k(
    table.vectors[members], table.vectors, length + len(members)
  )
  lists = [row[~np.isin(row, members)][:length] for row in rows]
  found, counts = np.unique(np.concatenate(lists), return_counts=True)

  def unit(vectors):
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-8)

  centre = unit(table.vectors[members]).mean(axis=0)
  cosines = (unit(table.vectors[found]) @ centre).astype(np.float32)
  order = np.lexsort((found, -cosines, -counts))[:k]
  return Found(found[order], cosines[order], counts[order])


def find_row(table: embedding_table.Table, query: str) -> int | None:
  """Returns the row of a path or an id; None if the table has neither.

  Args:
    table: of the songs.
    query: an id, or a path, absolute or from here.
  """
  for wanted, names in (
    (os.path.abspath(os.path.expanduser(query)), table.paths),
    (query, table.ids),
  ):
    try:
      return names.index(wanted)
    except ValueError:
      continue
  return None


def _close_names(table: embedding_table.Table, query: str) -> list[str]:
  """Returns a few ids that a query may mean."""
  words = [one.casefold() for one in pathlib.Path(query).stem.split()]
  near = [
    name for name in table.ids if any(word in name.casefold() for word in words)
  ]
  compared = {
    pathlib.Path(name).name: name
    for name in (near or table.ids)[:_COMPARED][::-1]
  }
  close = difflib.get_close_matches(
    pathlib.Path(query).name, compared, _CLOSE, cutoff=0.5
  )
  return [compared[name] for name in close] or near[:_CLOSE]


def embed_query(
  table: embedding_table.Table, path: pathlib.Path, workdir: str | None
) -> Float[np.ndarray, " features"]:
  """Embeds an audio file with the encoder of a table.

  Args:
    table: says which encoder, and how it was used.
    path: of the file.
    workdir: of the run; by default the one the table was made from.

  Raises:
    InputError: the file cannot be read, or the encoder is another one.
  """
  about = table.about
  workdir = workdir or about["workdir"]
  if not pathlib.Path(workdir).is_dir():
    raise errors.InputError(
      f"{workdir} is not there, and with the encoder of that run {path} would "
      "have to be embedded: give its folder as --workdir."
    )
  encoder, meta = restore.load_encoder(workdir, about["checkpoint"])
  ours = embedding_table.provenance(encoder, meta, workdir)
  embedding_table.check_same_encoder(
    about, str(table.path), ours, f"the {about['checkpoint']} checkpoint now"
  )
  return song_encoder.embed_file(
    song_encoder.make_embedder(encoder, about["layer"]),
    path,
    about["batch_patches"],
  )


def _look_up(
  table: embedding_table.Table, query: str, k: int, workdir: str | None
) -> Found:
  """Finds what is near to a query and says what it was taken for."""
  row = find_row(table, query)
  if row is not None:
    print(f"query: {table.ids[row]}, in the table\n")
    return find_similar(table, table.vectors[row], k, without=row)
  path = pathlib.Path(query).expanduser()
  if not path.exists():
    close = _close_names(table, query)
    near = f" Near to it are: {', '.join(close)}." if close else ""
    raise errors.InputError(
      f"{query} is neither a file nor an id or a path in {table.path}.{near}"
    )
  _check_k(k, len(table.ids), table)
  vector = embed_query(table, path, workdir)
  print(f"query: {path}, embedded as the table's songs were\n")
  return find_similar(table, vector, k)


def _read_playlist(path: pathlib.Path, title: str | None):
  """Returns the one playlist of a file, or the one of a title."""
  if path.suffix.lower() not in playlist_files.SUFFIXES:
    raise errors.InputError(
      f"{path} has none of the suffixes of playlists that are read: "
      f"{', '.join(playlist_files.SUFFIXES)}."
    )
  try:
    playlists, _ = playlist_files.read_playlists(path)
  except playlist_files.UnreadablePlaylist as error:
    raise errors.InputError(
      f"{path} cannot be read: {error}. Give a playlist file."
    ) from error
  titles = [one.title for one in playlists]
  chosen = [one for one in playlists if title in (None, one.title)]
  if len(chosen) != 1:
    raise errors.InputError(
      f"{path} holds {len(chosen)} playlists"
      + (f" with the title {title!r}" if title else "")
      + f" ({', '.join(map(repr, titles[:_SHOWN]))}): name one with --title."
    )
  return chosen[0]


def find_members(
  table: embedding_table.Table,
  playlist: playlist_files.Playlist,
  folder: pathlib.Path,
) -> tuple[Int[np.ndarray, " members"], list[str]]:
  """Returns the rows of a playlist's songs, and the entries without one.

  Args:
    table: of the songs.
    playlist: its entries are ids of the table, or paths: absolute, or relative
      to the playlist or to a folder that the table was made of.
    folder: where the playlist's file lies.
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
    row = next((one for one in found if one is not None), None)
    if row is None:
      missing.append(entry.shown)
    else:
      members[row] = None
  return np.array(list(members), np.int64), missing


def _complete(
  table: embedding_table.Table, path: pathlib.Path, title: str | None, k: int
) -> Found:
  """Continues a playlist and says which of its songs are known."""
  playlist = _read_playlist(path, title)
  members, missing = find_members(table, playlist, path.parent)
  print(
    f"playlist: {playlist.title}, {len(playlist.entries)} entries, "
    f"{len(members)} songs of the table"
  )
  if missing:
    print(f"not in the table: {len(missing)}")
    for one in missing[:_SHOWN]:
      print(f"  {one}")
    if len(missing) > _SHOWN:
      print(f"  and {len(missing) - _SHOWN} more")
  if not len(members):
    raise errors.InputError(
      f"no song of {path} is in {table.path}: embed its songs first."
    )
  print()
  return continue_playlist(table, members, k)


def _rows_of(
  table: embedding_table.Table, found: Found
) -> list[dict[str, Any]]:
  rows = []
  for i, row in enumerate(found.rows.tolist()):
    one: dict[str, Any] = {"rank": i + 1, "score": f"{found.scores[i]:.4f}"}
    if found.lists is not None:
      one["lists"] = int(found.lists[i])
    rows.append(one | {"id": table.ids[row], "path": table.paths[row]})
  return rows


def _in_words(rows: list[dict[str, Any]]) -> str:
  """Returns the table that people read."""
  lines = []
  names = list(rows[0])
  cells = [dict(zip(names, names, strict=True)), *rows]
  widths = {name: max(len(str(row[name])) for row in cells) for name in names}
  for row in cells:
    parts = [
      str(row[name]).rjust(widths[name])
      if name in ("rank", "score", "lists")
      else str(row[name]).ljust(widths[name])
      for name in names
    ]
    lines.append("  ".join(parts).rstrip())
  return "\n".join(lines)


def _write_csv(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  partial = path.with_name(f"{path.name}.partial")
  with open(partial, "w", encoding="utf-8", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
  partial.replace(path)


def _write_m3u(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  if not all(row["path"] for row in rows):
    raise errors.InputError(
      "--m3u needs the paths of songs, and the table has none: it was made of "
      "a data set. Use --csv."
    )
  partial = path.with_name(f"{path.name}.partial")
  lines = ["#EXTM3U", *(row["path"] for row in rows), ""]
  partial.write_text("\n".join(lines), encoding="utf-8")
  partial.replace(path)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m pcl_jax.similar",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--embeddings", required=True, help="a table of pcl_jax.embed")
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument("--query", help="an id or path of the table, or a file")
  what.add_argument("--playlist", help="a playlist file to continue")
  add("--title", help="which playlist, in a file that holds several")
  add("-k", type=int, default=10, help="how many to find (%(default)s)")
  add("--workdir", help="the run of the table's encoder, if it was moved")
  add("--csv", help="also write what is found as a table")
  add("--m3u", help="also write what is found as a playlist")
  flags = parser.parse_args(argv)
  if flags.k < 1:
    parser.error(f"-k is {flags.k}; it is at least 1")
  return flags


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and prints what is found."""
  flags = _arguments(argv)
  table = embedding_table.read(pathlib.Path(flags.embeddings).expanduser())
  if flags.query is not None:
    found = _look_up(table, flags.query, flags.k, flags.workdir)
  else:
    path = pathlib.Path(flags.playlist).expanduser()
    found = _complete(table, path, flags.title, flags.k)
  rows = _rows_of(table, found)
  print(_in_words(rows))
  for write, path in ((_write_csv, flags.csv), (_write_m3u, flags.m3u)):
    if path is not None:
      write(pathlib.Path(path).expanduser(), rows)
      print(f"\nwritten to {path}")


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns of reading only.
  errors.run_command(main)

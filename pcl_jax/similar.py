"""Makes lists of songs: those that sound alike, a path, a playlist's rest.

  python -m pcl_jax.similar --embeddings=music.parquet --query=song.mp3 -k 10
  python -m pcl_jax.similar --embeddings=music.parquet --playlist=mine.m3u -k 10

The table is one that python -m pcl_jax.embed wrote. There are four kinds:

--query, or --like A B and --unlike C: songs that sound like some songs and
unlike others, ranked by the cosine with the mean of the ones minus the mean of
the others. A query is an id of the table, a path or its end (Album/song.mp3, or
song), a name (a title, or Artist - Title) where the table knows them, or any
other audio file. Such a file is embedded with the table's encoder, from the run
that the table was made with or from --workdir, if its weights are still the
same: embeddings of different encoders cannot be compared.

--playlist: songs that continue a playlist (M3U, PLS, CSV, XSPF, JSPF) as in the
paper's evaluation: each of its songs lists its 100 nearest songs that are not
in the playlist. A song ranks by how many lists hold it, then by its mean cosine
with the playlist.

--from A --to B: a path of k songs from one song of the table to another. The
score is the cosine with the song before.

--reorder: the songs of a playlist in an order of small steps. The score is the
cosine with the song before.

Songs that are silent, as the table says, are neither found nor continued;
--keep_silent takes them as all others.

The screen has shortened names and paths where lines would be longer than it is
wide, and no ids that only repeat the end of the path; the files that --csv and
--json write have all.
"""

import argparse
from collections.abc import Iterable, Sequence
import dataclasses
import pathlib

from absl import logging
import numpy as np

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.embedding import song_queries
from pcl_jax.embedding.lists import list_files
from pcl_jax.embedding.lists import list_wishes
from pcl_jax.embedding.lists import second_vectors
from pcl_jax.embedding.lists import song_lists
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_table


def _words(text: str) -> list[str]:
  return [one.strip() for one in text.split(",")]


def _add_wishes(parser: argparse.ArgumentParser) -> None:
  """Adds what a list may be like."""
  add = parser.add_argument_group("what the list is like").add_argument
  text = "leave out songs of the same artist, album or artist,album as a query"
  add("--exclude_same", type=_words, default=[], help=text)
  text = "at most so many songs of one artist"
  add("--per_artist", type=command_line.count, help=text)
  add("--min_score", type=float, help="the least score, from -1 to 1")
  add("--max_minutes", type=float, help="how long the songs last together")
  text = "leave out the songs of these playlist files"
  path = {"type": command_line.path}
  add("--not_in", **path, nargs="+", default=[], help=text)
  add("--folder", default="", help="songs of this folder only")
  add("--genre", default="", help="songs of this genre only")
  text = "from 0, the best songs (%(default)s), to 1, as different as can be"
  add("--diversity", type=float, default=0.0, help=text)
  text = "put the songs that are found in an order of small steps"
  add("--order", action="store_true", help=text)
  text = "share of the playlists' vectors (of --data) in the score, 0 to 1"
  add("--blend", type=float, help=text)
  text = "the data set of the library, for --blend"
  add("--data", **path, help=text)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command_line.parser("pcl_jax.similar", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  text = "a table that pcl_jax.embed wrote"
  add("--embeddings", **path, required=True, help=text)
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument("--query", help="an id or path of the table, or a file")
  what.add_argument("--like", nargs="+", help="several of these")
  what.add_argument("--playlist", **path, help="a playlist file to continue")
  what.add_argument("--from", dest="first", help="the song a path begins with")
  what.add_argument("--reorder", **path, help="a playlist file to order")
  add("--unlike", nargs="+", default=[], help="what songs are to differ from")
  add("--to", dest="last", help="the song a path ends with")
  add("--title", help="which playlist of a file that holds several")
  text = (
    "how many to find (10, or all of a small table; with --max_minutes, as "
  )
  text += "many as fit); of a path, with both ends"
  add("-k", type=command_line.count, help=text)
  add(
    "--workdir", help="the run or bundle of the table's encoder, if not there"
  )
  text = "find silent songs, too (column silent of the table)"
  add("--keep_silent", action="store_true", help=text)
  _add_wishes(parser)
  for kind, text in (
    ("csv", "a table"),
    ("m3u", "a playlist (m3u or m3u8, in UTF-8)"),
    ("json", "json"),
    ("xspf", "an XSPF playlist"),
  ):
    add(f"--{kind}", **path, help=f"also write the songs as {text}")
  text = "paths in these files: absolute, or as seen from the file's folder"
  add(
    "--paths", choices=("absolute", "relative"), default="absolute", help=text
  )
  flags = parser.parse_args(argv)
  if flags.query is not None:
    flags.like = [flags.query]
  if (flags.first is None) != (flags.last is None):
    parser.error("--from and --to go together")
  if (flags.unlike or flags.blend is not None) and not flags.like:
    parser.error("--unlike and --blend go with --query or --like")
  if (flags.blend is None) != (flags.data is None):
    parser.error("--blend and --data go together")
  return flags


def _read_table(flags: argparse.Namespace) -> song_table.Table:
  table = song_table.read_table(flags.embeddings)
  if flags.keep_silent:
    return dataclasses.replace(table, silent=frozenset())
  if table.silent:
    print(
      f"{len(table.silent)} silent songs of the table are left out; "
      "--keep_silent keeps them"
    )
  return table


def _set_usual_k(
  flags: argparse.Namespace, table: song_table.Table, known: Iterable[int]
) -> None:
  """Sets how many songs to find besides the known rows, if it is not given."""
  if flags.k is None and flags.max_minutes is None:
    others = len(table.ids) - len({*table.silent, *known} - {search.NONE})
    flags.k = min(10, max(others, 1))


def _wishes(
  table: song_table.Table, flags: argparse.Namespace
) -> tuple[list_wishes.Wishes, list[str]]:
  """Returns what the list is to be like, and what there is to say of it."""
  excluded, lines = [np.zeros(0, np.int64)], []
  for path in flags.not_in:
    rows, said = song_queries.songs_in(table, path)
    excluded.append(rows)
    lines += [f"left out, {said[0]}", *said[1:]]
  wishes = list_wishes.Wishes(
    tuple(flags.exclude_same),
    tuple(np.concatenate(excluded).tolist()),
    flags.folder,
    flags.genre,
    flags.min_score,
    flags.per_artist,
    flags.max_minutes,
    flags.diversity,
    flags.order,
  )
  wishes.check()
  return wishes, lines


def _alike(
  table: song_table.Table,
  flags: argparse.Namespace,
  wishes: list_wishes.Wishes,
) -> tuple[search.Found, list[str]]:
  """Finds songs that are like some and unlike others."""
  queries, lines = song_queries.look_up(
    table,
    [*flags.like, *flags.unlike],
    flags.k or 1,
    flags.workdir,
    keep_silent=flags.keep_silent,
  )
  _set_usual_k(flags, table, (one.row for one in queries))
  count = len(flags.like)
  lines[count:] = [f"unlike {line}" for line in lines[count:]]
  second = None
  if flags.blend is not None:
    second = second_vectors.of_playlists(table, flags.data, flags.blend)
    lines.append(
      f"vectors of playlists: {second.count()} of {len(table.ids)} songs; the "
      "others have the score of their sound"
    )
  found = song_lists.similar(
    table,
    queries[:count],
    flags.k or len(table.ids),
    unwanted=queries[count:],
    wishes=wishes,
    second=second,
  )
  return found, lines


def _find(
  table: song_table.Table, flags: argparse.Namespace
) -> tuple[search.Found, list[str]]:
  """Returns the songs, and lines that say what was looked for."""
  wishes, lines = _wishes(table, flags)
  if flags.like:
    found, said = _alike(table, flags, wishes)
  elif flags.first is not None:
    ends = [_in_table(table, one) for one in (flags.first, flags.last)]
    _set_usual_k(flags, table, ())
    found = song_lists.between(table, *ends, flags.k or 10, wishes)
    labels = [song_queries.label(table, row) for row in ends]
    said = [f"a path from {labels[0]} to {labels[1]}"]
  else:
    path = flags.playlist or flags.reorder
    members, said = song_queries.members_of(table, path, flags.title)
    if flags.playlist:
      _set_usual_k(flags, table, members.tolist())
      found = song_lists.continued(
        table, members, flags.k or search.NEIGHBOURS, wishes
      )
    elif wishes != list_wishes.Wishes():
      raise errors.InputError(
        "--reorder takes the songs of a playlist as they are: leave out what "
        "the list is to be like."
      )
    else:
      found = song_lists.reordered(table, members)
  k = None if flags.reorder else flags.k
  return found, [*said, *lines, *song_lists.remarks(table, found, k, wishes)]


def _in_table(table: song_table.Table, query: str) -> int:
  """Returns the row of a song that has to be in the table."""
  row = song_queries.find_song(table, query)
  if row is None:
    raise errors.InputError(
      f"{query} is not in {table.path}, and a path leads from one of its songs "
      "to another: embed it first."
    )
  return row


def _write(flags: argparse.Namespace, rows: list[list_files.Row]) -> None:
  for kind in list_files.KINDS:
    path: pathlib.Path | None = getattr(flags, kind)
    if path is not None:
      list_files.write(kind, path, rows, relative=flags.paths == "relative")
      print(f"\nwritten to {path}")


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and prints the songs."""
  flags = _arguments(argv)
  jax_setup.start()
  table = _read_table(flags)
  found, lines = _find(table, flags)
  rows = list_files.rows_of(table, found)
  print(*lines, "", *list_files.grid(rows), sep="\n")
  _write(flags, rows)


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns of reading only.
  errors.run_command(main)

"""Finds the songs that sound like a song, or that go with a playlist.

  python -m pcl_jax.similar --embeddings=music.parquet --query=song.mp3 -k 10
  python -m pcl_jax.similar --embeddings=music.parquet --playlist=mine.m3u -k 10

The table is one that python -m pcl_jax.embed wrote. The query is an id of the
table, a path or its end (Album/song.mp3, or song), a name where the table was
made of a data set that knows them (a title, or Artist - Title), or any other
audio file. Such a file is embedded with the
table's encoder, from the run that the table was made with or from --workdir, if
its weights are still the same: embeddings of different encoders cannot be
compared. Songs are ranked by cosine.

A playlist (M3U, PLS, CSV, XSPF, JSPF) is continued as in the paper's
evaluation: each of its songs lists its 100 nearest songs that are not in the
playlist. A song ranks by how many lists hold it, then by its mean cosine with
the playlist.

Songs that are silent, as the table says, are neither found nor continued;
--keep_silent takes them as all others.
"""

import argparse
from collections.abc import Sequence
import dataclasses

from absl import logging

from pcl_jax.common import command_line
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.embedding import embedding_table
from pcl_jax.embedding import song_queries


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command_line.parser("pcl_jax.similar", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  text = "a table that pcl_jax.embed wrote"
  add("--embeddings", **path, required=True, help=text)
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument("--query", help="an id or path of the table, or a file")
  what.add_argument("--playlist", **path, help="a playlist file to continue")
  add("--title", help="which playlist of a file that holds several")
  text = "how many to find (%(default)s)"
  add("-k", type=command_line.count, default=10, help=text)
  add(
    "--workdir", help="the run or bundle of the table's encoder, if not there"
  )
  text = "find silent songs, too (column silent of the table)"
  add("--keep_silent", action="store_true", help=text)
  add("--csv", **path, help="also write the songs as a table")
  add("--m3u", **path, help="also write the songs as a playlist")
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and prints the songs."""
  flags = _arguments(argv)
  jax_setup.start()
  table = embedding_table.read_table(flags.embeddings)
  if flags.keep_silent:
    table = dataclasses.replace(table, silent=frozenset())
  elif table.silent:
    print(
      f"{len(table.silent)} silent songs of the table are left out; "
      "--keep_silent keeps them"
    )
  if flags.query is not None:
    found, about = song_queries.look_up(
      table, flags.query, flags.k, flags.workdir
    )
  else:
    found, about = song_queries.complete(
      table, flags.playlist, flags.k, flags.title
    )
  rows = song_queries.rows_of(table, found)
  cells = [[file_names.shown(str(one)) for one in r.values()] for r in rows]
  print(about, "", *console.grid(list(rows[0]), cells), sep="\n")
  for write, path in (
    (song_queries.write_csv, flags.csv),
    (song_queries.write_m3u, flags.m3u),
  ):
    if path is not None:
      write(path, rows)
      print(f"\nwritten to {path}")


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns of reading only.
  errors.run_command(main)

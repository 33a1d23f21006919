"""Makes searching a large table quick.

  python -m pcl_jax.index --embeddings=music.parquet
  python -m pcl_jax.index --embeddings=music.parquet --graph

Writes TABLE.index, a folder beside the table: the vectors with length one,
which every later search maps into memory in place of reading and computing
them. It takes as much of the disk as the vectors. With --graph also a graph of
neighbours, for programs that search a million songs many times a second
(approximate=True in Python): it finds most of the best songs, not all, and
needs the package usearch.

An index is of one state of the table: where that has changed, it is not used,
and the same command makes it again.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import usable_cores
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.embedding.tables import row_index
from pcl_jax.embedding.tables import song_table


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command_line.parser("pcl_jax.index", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  text = "a table that pcl_jax.embed wrote"
  add("--embeddings", **path, required=True, help=text)
  add("--graph", action="store_true", help="also make a graph of neighbours")
  text = "rows added to the graph at once (%(default)s)"
  cores = usable_cores.count()
  add("--threads", type=command_line.count, default=cores, help=text)
  add("--force", action="store_true", help="make it again")
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and writes the index."""
  flags = _arguments(argv)
  file = embedding_table.TableFile(flags.embeddings)
  made = [row_index.write_rows(file, force=flags.force)]
  if flags.graph:
    table = song_table.read_table(flags.embeddings)
    sounding = np.setdiff1d(np.arange(len(table.ids)), list(table.silent))
    made.append(
      row_index.write_graph(
        file,
        table.rows.unit,
        sounding,
        threads=flags.threads,
        force=flags.force,
      )
    )
  for path in made:
    if path is None:
      print("nothing to do: the index is of this table; --force makes it again")
    else:
      size = path.stat().st_size
      print(f"{file.shape[0]} songs, {size / 1e6:.1f} MB, written to {path}")


if __name__ == "__main__":
  errors.run_command(main)

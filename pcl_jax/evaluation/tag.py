"""Tags music with a probe: trains one on Melon-50, or applies one to a table.

python -m pcl_jax.evaluation.tag --workdir=runs/h --probe_out=probe.npz
python -m pcl_jax.embed --workdir=runs/h --audio=~/music --out=music.parquet
python -m pcl_jax.evaluation.tag --probe=probe.npz --embeddings=music.parquet
  --out=tags.parquet    (on one line)

A probe belongs to one encoder and knows its tags by name. The table of tags has
a column for each tag, with the probability that a song has it.
"""

import argparse
from collections.abc import Sequence

from absl import logging
import numpy as np

from pcl_jax.common import command_line
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.common import storage
from pcl_jax.evaluation.tagging import probe_training
from pcl_jax.evaluation.tagging import song_tags

_SHOWN_SONGS = 20
_KIND = "mlp"
# Flags of the one mode, which do nothing in the other.
_OF_TRAINING, _OF_A_TABLE = ("workdir", "data", "kind"), ("embeddings", "out")


def _format(
  ids: Sequence[str], tags: Sequence[str], probabilities: np.ndarray, k: int
) -> str:
  """Returns the likeliest tags of the first songs, as lines."""
  rows = []
  for song, row in zip(ids[:_SHOWN_SONGS], probabilities, strict=False):
    best = np.argsort(-row, kind="stable")[:k]
    song = file_names.shown(song)
    rows.append([song, ", ".join(f"{tags[i]} {row[i]:.2f}" for i in best)])
  lines = console.grid(["song", "tags"], rows)
  if len(ids) > _SHOWN_SONGS:
    lines.append(f"... and {len(ids) - _SHOWN_SONGS} more songs")
  return "\n".join(lines)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command_line.parser("pcl_jax.evaluation.tag", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  what = parser.add_mutually_exclusive_group(required=True)
  text = "train a probe and write it to this file"
  what.add_argument("--probe_out", **path, help=text)
  text = "apply the trained probe in this file"
  what.add_argument("--probe", **path, help=text)
  add("--workdir", **path, help="the run, or a bundle, with --probe_out")
  add("--data", help="data set (default: the one the run trained on)")
  add(
    "--kind",
    choices=probe_training.KINDS,
    help=f"kind of the probe to train (default {_KIND})",
  )
  add("--embeddings", **path, help="table of pcl_jax.embed, with --probe")
  add("--out", **path, help="write the probabilities to this table")
  text = "tags to print per song (default 5)"
  add("-k", type=command_line.count, default=5, help=text)
  flags = parser.parse_args(argv)
  if flags.probe_out and not flags.workdir:
    parser.error("--probe_out needs --workdir")
  if flags.probe and not flags.embeddings:
    parser.error("--probe needs --embeddings")
  others = _OF_A_TABLE if flags.probe_out else _OF_TRAINING
  unused = [name for name in others if getattr(flags, name) is not None]
  if unused:
    mode = "--probe_out, which trains" if flags.probe_out else "--probe"
    parser.error(f"--{unused[0]} does nothing with {mode}: leave it out")
  return flags


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line; trains or applies a probe."""
  flags = _parse(argv)
  jax_setup.start()
  if flags.probe_out:
    storage.check_writable(flags.probe_out, "give another --probe_out")
    how = flags.workdir, flags.data, flags.kind or _KIND
    result = song_tags.train(*how, flags.probe_out)
    for name, metric in result.metrics.items():
      print(
        f"{name} {metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}], "
        f"mean over {metric.items} tags"
      )
    print(f"written to {flags.probe_out}")
    return
  if flags.out:
    storage.check_writable(flags.out, "give another --out")
  table, probe, found = song_tags.apply(flags.probe, flags.embeddings)
  if flags.out:
    song_tags.write(flags.out, table, probe.tags, found)
  print(_format(table.ids, probe.tags, found, flags.k))
  if flags.out:
    print(f"\nwritten to {flags.out}")


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns of reading only.
  errors.run_command(main)

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
import dataclasses
import pathlib

from absl import logging
import numpy as np
import pyarrow
from pyarrow import parquet

from pcl_jax.checkpoint import restore
from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import dataset
from pcl_jax.embedding import embedding_table
from pcl_jax.embedding import song_encoder
from pcl_jax.evaluation import report
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import melon_50
from pcl_jax.evaluation.tagging import probe_file
from pcl_jax.evaluation.tagging import probe_training
from pcl_jax.evaluation.tagging import probes

_SHOWN_SONGS = 20


def train(
  workdir: pathlib.Path, data_dir: str | None, kind: str, out: pathlib.Path
) -> task_base.Result:
  """Trains a probe on Melon-50 for a run's best encoder and writes it.

  Args:
    workdir: folder of the run.
    data_dir: data set; None for the one the run trained on.
    kind: kind of the probe, `linear` or `mlp`.
    out: file to write; it gets the seed's probe that is best on validation.

  Returns:
    What the probes of all seeds score.

  Raises:
    InputError: there is no checkpoint or data set, or it has too few songs.
  """
  encoder, meta = restore.load_encoder(workdir)
  data = dataset.DataSet(data_dir or meta["config"]["data"]["dir"])
  labelled, rows = melon_50.melon_50(data.catalogue)
  features = song_encoder.embed_songs(encoder, data.store, rows)
  result, trained = probes.train_probe(features, labelled, kind=kind)
  about = {
    "weights_sha256": embedding_table.weights_digest(encoder),
    "step": meta["progress"]["step"],
    "workdir": str(workdir.absolute()),
  }
  settings = trained.settings | {"encoder": about}
  dataclasses.replace(trained, settings=settings).save(out)
  return result


def apply(
  probe: pathlib.Path, embeddings: pathlib.Path
) -> tuple[embedding_table.Table, probe_file.TrainedProbe, np.ndarray]:
  """Computes the probabilities of the tags of embedded songs.

  Args:
    probe: file of a probe.
    embeddings: table of songs that the probe's encoder embedded.

  Returns:
    The table, the probe, and the probabilities, float32 [songs, tags].

  Raises:
    InputError: a file cannot be read, or the encoders differ.
  """
  trained = probe_file.load(probe)
  table = embedding_table.read_table(embeddings)
  ours = trained.settings.get("encoder")
  if ours is not None:
    embedding_table.check_same_encoder(
      ours, str(probe), table.about, str(embeddings)
    )
  return table, trained, trained.probabilities(table.vectors)


def write(
  out: pathlib.Path,
  table: embedding_table.Table,
  tags: Sequence[str],
  probabilities: np.ndarray,
) -> None:
  """Writes a table of songs with a column for each tag."""
  columns = {"id": table.ids, "path": table.paths}
  columns |= {f"tag {tag}": probabilities[:, i] for i, tag in enumerate(tags)}
  with storage.write_aside(out) as partial:
    parquet.write_table(pyarrow.table(columns), partial)


def format_tags(
  ids: Sequence[str], tags: Sequence[str], probabilities: np.ndarray, k: int
) -> str:
  """Returns the likeliest tags of the first songs, as lines."""
  rows = []
  for song, row in zip(ids[:_SHOWN_SONGS], probabilities, strict=False):
    best = np.argsort(-row, kind="stable")[:k]
    rows.append([song, ", ".join(f"{tags[i]} {row[i]:.2f}" for i in best)])
  lines = report.grid(["song", "tags"], rows)
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
  add("--workdir", **path, help="folder of the run, with --probe_out")
  add("--data", help="data set (default: the one the run trained on)")
  add(
    "--kind",
    choices=probe_training.KINDS,
    default="mlp",
    help="kind of the probe (default %(default)s)",
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
  return flags


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line; trains or applies a probe."""
  flags = _parse(argv)
  if flags.probe_out:
    result = train(flags.workdir, flags.data, flags.kind, flags.probe_out)
    for name, metric in result.metrics.items():
      print(
        f"{name} {metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}], "
        f"mean over {metric.items} tags"
      )
    print(f"written to {flags.probe_out}")
    return
  table, probe, found = apply(flags.probe, flags.embeddings)
  if flags.out:
    write(flags.out, table, probe.tags, found)
  print(format_tags(table.ids, probe.tags, found, flags.k))
  if flags.out:
    print(f"\nwritten to {flags.out}")


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns of reading only.
  errors.run_command(main)

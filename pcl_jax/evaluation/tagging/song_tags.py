"""Probes as taggers: trained on Melon-50, applied to a table of embeddings."""

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np
import pyarrow
from pyarrow import parquet

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data.splits import learned_songs
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.embedding.tables import song_table
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import melon_50
from pcl_jax.evaluation.tagging import probe_file
from pcl_jax.evaluation.tagging import probes

_LAYER = "features"  # Of the encoder, that probes are trained on.


def train(
  workdir: pathlib.Path, data_dir: str | None, kind: str, out: pathlib.Path
) -> task_base.Result:
  """Trains a probe on Melon-50 for a run's best encoder and writes it.

  Args:
    workdir: folder of the run, or of a bundle.
    data_dir: data set; None for the one the run trained on.
    kind: kind of the probe, `linear` or `mlp`.
    out: file to write; it gets the seed's probe that is best on validation.

  Returns:
    What the probes of all seeds score.

  Raises:
    InputError: there is no checkpoint or data set, or it has too few songs.
  """
  encoder, meta = encoder_loading.load_network(workdir)
  data = task_base.open_data(workdir, meta, data_dir)
  catalogue = data.catalogue
  learned = learned_songs.read(workdir)
  if learned is not None:  # The data set may have been split again.
    catalogue = dataclasses.replace(catalogue, split=learned.split_of(data))
  labelled, rows = melon_50.melon_50(catalogue)
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
) -> tuple[song_table.Table, probe_file.TrainedProbe, np.ndarray]:
  """Computes the probabilities of the tags of embedded songs.

  Args:
    probe: file of a probe.
    embeddings: table of songs that the probe's encoder embedded.

  Returns:
    The table, the probe, and the probabilities, float32 [songs, tags].

  Raises:
    InputError: a file cannot be read, or the encoders or layers differ.
  """
  trained = probe_file.load(probe)
  table = song_table.read_table(embeddings)
  ours, layer = trained.settings.get("encoder"), table.about.get("layer")
  if layer not in (None, _LAYER):
    raise errors.InputError(
      f"{embeddings} has the layer {layer}, and probes are trained on the "
      f"layer {_LAYER}: embed the songs with --layer={_LAYER}."
    )
  if ours is not None:
    embedding_table.check_same_encoder(
      ours, str(probe), table.about, str(embeddings)
    )
  return table, trained, trained.probabilities(table.vectors)


def write(
  out: pathlib.Path,
  table: song_table.Table,
  tags: Sequence[str],
  probabilities: np.ndarray,
) -> None:
  """Writes a table of songs with a column for each tag."""
  columns = embedding_table.name_columns({"id": table.ids, "path": table.paths})
  columns |= {f"tag {tag}": probabilities[:, i] for i, tag in enumerate(tags)}
  with storage.write_aside(out) as partial:
    with open(partial, "wb") as file:  # Whose name may be no text.
      parquet.write_table(pyarrow.table(columns), file)

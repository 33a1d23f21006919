"""Measures how much of its space an encoder uses: collapse diagnostics."""

import math

import jax
import numpy as np

from pcl_jax.audio import song_patches
from pcl_jax.data import catalogues
from pcl_jax.embedding.tables import search
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import task_base
from pcl_jax.losses import collapse
from pcl_jax.models import compiled_encoder

_MOST_SONGS = 2048  # All their pairs are compared.
_MOST_PAIRS = 512
_BATCH = 64
_alignments = jax.jit(collapse.alignments)
_diagnostics = jax.jit(collapse.diagnostics)


def _two_patches(context: task_base.Context, songs: np.ndarray) -> np.ndarray:
  """Returns the features of the first two patches of songs, [2, songs, d]."""
  features = compiled_encoder.make_embedder(context.encoder)
  rows = np.tile(songs, 2)
  starts = np.repeat([0, song_patches.FRAMES], len(songs)).astype(np.int32)
  batches = song_patches.read_batches(
    context.data.store.read_patches, rows, starts, _BATCH
  )
  found = [out for _, out in song_patches.encoded(features, batches)]
  return np.concatenate(found).reshape(2, len(songs), -1)


def _alignment_of_patches(context: task_base.Context) -> np.ndarray:
  """Returns the alignment of two patches, for some songs."""
  if context.encoder is None:
    return np.zeros(0)
  songs = context.queries
  songs = songs[context.data.store.frames[songs] >= 2 * song_patches.FRAMES]
  rng = np.random.default_rng(context.seed)
  songs = np.sort(rng.permutation(songs)[:_MOST_PAIRS])
  if not len(songs):
    return np.zeros(0)
  return np.asarray(_alignments(*_two_patches(context, songs)))


def _alignment_of_pairs(context: task_base.Context) -> np.ndarray:
  """Returns the alignment of the validation songs that share a playlist."""
  pairs = context.catalogue.validation_pairs.get("Playlist", ())
  if not len(pairs):
    return np.zeros(0)
  rng = np.random.default_rng(context.seed)
  pairs = pairs[rng.permutation(len(pairs))[:_MOST_PAIRS]]
  first, second = context.embeddings[pairs.T].astype(np.float32)
  return np.asarray(_alignments(first, second))


class Collapse(task_base.Task):
  """Measures how many directions the embeddings of songs use."""

  title = (
    "How much of its space the encoder uses (effective rank up to the number "
    "of dimensions)"
  )

  def run(self, context: task_base.Context) -> task_base.Result:
    """Measures a representation."""
    songs = context.queries
    if len(songs) < 2:
      raise task_base.NotAvailable(
        f"there are fewer than two {context.split_name} songs"
      )
    rng = np.random.default_rng(context.seed)
    songs = np.sort(rng.permutation(songs)[:_MOST_SONGS])
    rows = context.embeddings[songs].astype(np.float32)
    found = _diagnostics(rows)
    # A resample contains songs twice: an interval of these would mislead.
    metrics = {
      name: task_base.Metric(float(value), math.nan, math.nan, len(songs))
      for name, value in found.items()
    }
    aligned = {
      "alignment_of_patches": _alignment_of_patches(context),
      "alignment_of_playlist_pairs": _alignment_of_pairs(context),
    }
    for name, values in aligned.items():
      column = {name: values.astype(np.float64)}
      metrics |= bootstrap.mean_metrics(column, seed=context.seed)
    unit = search.unit(rows)
    others = (unit @ unit.sum(axis=0) - (unit**2).sum(axis=1)) / (len(unit) - 1)
    return task_base.Result(
      metrics=metrics,
      per_item={
        "song_id": context.catalogue.song_ids[songs],
        "mean_cosine": others.astype(np.float64),
      },
      settings={
        "songs": context.split_name,
        "at_most": _MOST_SONGS,
        "pairs": catalogues.SPLIT_NAMES[catalogues.VALIDATION],
      },
    )


TASKS = {"collapse": Collapse()}

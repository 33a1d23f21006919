"""The representations of songs in the table: the run's own, and baselines."""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import nnx
import numpy as np

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.embedding import song_encoder
from pcl_jax.evaluation import mel_baselines
from pcl_jax.evaluation import task_base
from pcl_jax.models import audio_encoder

TRAINED = "trained"
UNTRAINED = "untrained"
MEAN_MEL = "mean mel"
MEAN_STD_MEL = "mean and std mel"
MODE_P = "mode P vectors"
POPULARITY = "popularity"
CHANCE = "chance"
BASELINES = (UNTRAINED, MEAN_MEL, MEAN_STD_MEL, MODE_P, POPULARITY, CHANCE)


@dataclasses.dataclass(frozen=True)
class Representation:
  """A way to turn every song of a data set into a vector.

  Attributes:
    name: name of its row in the table.
    embed: computes the vectors of all songs, [songs, d].
    encoder: the encoder that does so; None where none does.
    in_precision: whether it has a row in the table of precision at 5.
  """

  name: str
  embed: Callable[[], task_base.Embeddings]
  encoder: audio_encoder.AudioEncoder | None = None
  in_precision: bool = True


def representations(
  encoder: audio_encoder.AudioEncoder,
  meta: dict[str, Any],
  data: dataset.DataSet,
) -> list[Representation]:
  """Returns the run's encoder and, after it, what it is compared with.

  Args:
    encoder: the encoder of the run.
    meta: the metadata of its checkpoint.
    data: the data set.
  """
  untrained = audio_encoder.AudioEncoder(
    **meta["architecture"]["audio"], rngs=nnx.Rngs(meta["config"]["seed"])
  )
  store, songs = data.store, np.arange(len(data.store), dtype=np.int32)
  return [
    Representation(
      f"{TRAINED} ({meta['strategy']})",
      lambda: song_encoder.embed_songs(encoder, store, songs),
      encoder,
    ),
    Representation(
      UNTRAINED,
      lambda: song_encoder.embed_songs(untrained, store, songs),
      untrained,
    ),
    *_statistics(data),
  ]


def of_vectors(
  name: str, vectors: task_base.Embeddings, data: dataset.DataSet
) -> list[Representation]:
  """Returns vectors of all songs and, after them, what they are compared with.

  Args:
    name: name of their row.
    vectors: vectors of all songs, [songs, d].
    data: the data set.

  Raises:
    InputError: the name is empty, or that of a baseline.
  """
  if not name.strip() or name in BASELINES:
    raise errors.InputError(
      f"--name={name}: it must not be empty, nor the name of a baseline "
      f"({', '.join(BASELINES)})."
    )
  return [Representation(name, lambda: vectors), *_statistics(data)]


def _statistics(data: dataset.DataSet) -> list[Representation]:
  store, songs = data.store, np.arange(len(data.store), dtype=np.int32)
  return [
    Representation(MEAN_MEL, lambda: mel_baselines.mean_mel(store, songs)),
    Representation(
      MEAN_STD_MEL,
      lambda: mel_baselines.mean_std_mel(store, songs),
      in_precision=False,
    ),
  ]


def mode_p(data: dataset.DataSet, split: int) -> task_base.Embeddings:
  """Returns the playlist vectors of all songs.

  Args:
    data: the data set.
    split: the split of the queries.

  Raises:
    NotAvailable: there are none that say something about the queries.
  """
  path = data.directory / dataset.PLAYLIST_VECTORS
  if split == catalogues.TEST:
    raise task_base.NotAvailable(
      "they are learned from training and validation songs and say nothing of "
      "test songs; with --split=validation they stand in the table as an upper "
      "line"
    )
  if not path.exists():
    raise task_base.NotAvailable(
      f"{path} does not exist; make it with python -m "
      f"preprocessing.playlist_vectors --data={data.directory}"
    )
  try:
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise task_base.NotAvailable(f"{path} cannot be read ({error})") from error
  if vectors.ndim != 2 or len(vectors) != len(data.catalogue):
    raise task_base.NotAvailable(
      f"{path} has shape {vectors.shape} and belongs to another catalogue"
    )
  # The last column, the bias, says how popular a song is.
  return np.asarray(vectors[:, :-1], np.float32)


def checked(
  name: str, embeddings: task_base.Embeddings, song_ids: np.ndarray
) -> task_base.Embeddings:
  """Returns embeddings in which every song has finite numbers.

  Args:
    name: name of the representation.
    embeddings: vectors of all songs.
    song_ids: ids of the songs.

  Raises:
    InputError: a song has a number that is not finite; names the first.
  """
  bad = ~np.isfinite(embeddings).all(axis=1)
  if bad.any():
    raise errors.InputError(
      f"{name}: the embeddings of {int(bad.sum())} of {len(bad)} songs are not "
      f"finite, the first of song {int(song_ids[np.argmax(bad)])}. Nothing can "
      "be measured with them: the checkpoint is of a run that went astray (see "
      "its metrics.jsonl), or the song store is damaged (python -m "
      "pcl_jax.data.verify)."
    )
  return embeddings

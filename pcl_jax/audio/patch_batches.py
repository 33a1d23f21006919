"""Songs to whole patches, and patches of many songs to batches of one shape."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from jaxtyping import Float, Float16, Int
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.data import plans

FRAMES = plans.PATCH_FRAMES
BANDS = melspectrogram.SETTINGS.mel_bands
SECONDS = (  # From the beginning of a patch to that of the next.
  FRAMES
  * melspectrogram.SETTINGS.hop_samples
  / melspectrogram.SETTINGS.sample_rate_hz
)


class Piece(NamedTuple):
  """Some patches of a song, one after another.

  Attributes:
    patches: float16 [n, 256, 48].
    padded: whether silence was added, which makes n 1.
  """

  patches: Float16[np.ndarray, "n frames bands"]
  padded: bool = False


class Batch(NamedTuple):
  """Patches of several songs.

  Attributes:
    owners: number of the song of each, [n].
    patches: float16 [size, 256, 48]; behind the n-th there is silence.
  """

  owners: Int[np.ndarray, " n"]
  patches: Float16[np.ndarray, "size frames bands"]


def whole_patches(
  blocks: Iterable[Float16[np.ndarray, "_ bands"]],
) -> Iterator[Piece]:
  """Cuts a song into whole patches, end to end; a short song has one.

  Args:
    blocks: the song's feature, some frames at a time.

  Yields:
    Its patches. What is left behind the last whole one is not used, so that
    silence is padded in a song shorter than a patch alone.
  """
  held, found = np.zeros((0, BANDS), np.float16), False
  for block in blocks:
    held = np.concatenate([held, block])
    count = len(held) // FRAMES
    if count:
      found = True
      yield Piece(held[: count * FRAMES].reshape(count, FRAMES, BANDS))
      held = held[count * FRAMES :]
  if not found:
    patch = np.full((1, FRAMES, BANDS), melspectrogram.SILENCE, np.float16)
    patch[0, : len(held)] = held
    yield Piece(patch, padded=True)


def gathered(
  pieces: Iterable[tuple[int, Float16[np.ndarray, "_ frames bands"]]],
  size: int,
) -> Iterator[Batch]:
  """Gathers patches of many songs into batches of one shape.

  Args:
    pieces: number of a song, and some patches of it.
    size: patches of a batch; the last batch may have fewer of its own.
  """
  owners: list[int] = []
  batch = None
  for owner, patches in pieces:
    while len(patches):
      if batch is None:  # A new one each time: the last is still on its way.
        shape = (size, FRAMES, BANDS)
        batch = np.full(shape, melspectrogram.SILENCE, np.float16)
      begin = len(owners)
      taken = patches[: size - begin]
      batch[begin : begin + len(taken)] = taken
      owners += [owner] * len(taken)
      patches = patches[len(taken) :]
      if len(owners) == size:
        yield Batch(np.array(owners, np.int64), batch)
        owners, batch = [], None
  if owners:
    yield Batch(np.array(owners, np.int64), batch)


def encoded(
  embedder: Callable, batches: Iterable[Batch]
) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n features"]]]:
  """Encodes batches; the next is gathered while one is on the device.

  Args:
    embedder: patches [size, 256, 48] to vectors [size, features].
    batches: of one size.

  Yields:
    The songs of the patches of each batch, and their vectors.
  """
  waiting = None
  for batch in batches:
    begun = batch.owners, embedder(batch.patches)
    if waiting is not None:
      yield waiting[0], np.asarray(waiting[1])[: len(waiting[0])]
    waiting = begun
  if waiting is not None:
    yield waiting[0], np.asarray(waiting[1])[: len(waiting[0])]

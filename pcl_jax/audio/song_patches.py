"""Songs to whole patches, and patches of many songs to batches of one shape."""

from collections.abc import Callable, Iterable, Iterator
import itertools
from typing import NamedTuple

from jaxtyping import Float, Float16, Int
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.common import prefetch

FRAMES = 256
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
    song_index: number of the song of each patch, [n].
    patches: float16 [size, 256, 48]; the rows after the n-th are filled up.
  """

  song_index: Int[np.ndarray, " n"]
  patches: Float16[np.ndarray, "size frames bands"]


def patch_grid(
  frames: Int[np.ndarray, " songs"],
) -> tuple[Int[np.ndarray, " patches"], Int[np.ndarray, " patches"]]:
  """Lays whole patches over songs, end to end; a short song has one.

  Returns:
    The song of each patch (its place in `frames`), and its first frame, int32.
  """
  counts = np.maximum(frames // FRAMES, 1).astype(np.int64)
  song_index = np.repeat(np.arange(len(frames)), counts)
  first = np.repeat(np.cumsum(counts) - counts, counts)
  starts = (np.arange(len(song_index)) - first) * FRAMES
  return song_index.astype(np.int32), starts.astype(np.int32)


def whole_patches(
  blocks: Iterable[Float16[np.ndarray, "_ bands"]],
) -> Iterator[Piece]:
  """Cuts a song, given some frames at a time, into whole patches.

  Yields:
    Its patches, end to end. The frames after the last whole patch are not
    used; a song shorter than one patch is padded with silence.
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


def cut(feature: Float16[np.ndarray, "_ bands"]) -> Piece:
  """Cuts a whole song, as `whole_patches` does."""
  return next(whole_patches([feature]))


def gathered(
  pieces: Iterable[tuple[int, Float16[np.ndarray, "_ frames bands"]]],
  size: int,
) -> Iterator[Batch]:
  """Gathers pieces of numbered songs into batches of `size` patches.

  The last batch is filled up with silence.
  """
  song_index: list[int] = []
  batch = None
  for song, patches in pieces:
    while len(patches):
      if batch is None:  # The last one may not be on the device yet.
        shape = (size, FRAMES, BANDS)
        batch = np.full(shape, melspectrogram.SILENCE, np.float16)
      begin = len(song_index)
      taken = patches[: size - begin]
      batch[begin : begin + len(taken)] = taken
      song_index += [song] * len(taken)
      patches = patches[len(taken) :]
      if len(song_index) == size:
        yield Batch(np.array(song_index, np.int64), batch)
        song_index, batch = [], None
  if song_index:
    yield Batch(np.array(song_index, np.int64), batch)


def read_batches(
  read: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
  song_index: Int[np.ndarray, " patches"],
  starts: Int[np.ndarray, " patches"],
  size: int,
) -> Iterator[Batch]:
  """Reads patches of a song store in batches of one shape.

  Args:
    read: (songs, starts, out) -> None; fills `out`, [n, 256, 48].
    song_index: the song of each patch.
    starts: its first frame.
    size: patches of a batch; the last one is filled up with zeros.
  """
  for begin in range(0, len(song_index), size):
    some = song_index[begin : begin + size]
    patches = np.zeros((size, FRAMES, BANDS), np.float16)
    read(some, starts[begin : begin + size], patches[: len(some)])
    yield Batch(some, patches)


def _together(
  group: list[Batch], count: int, piece: int | None
) -> Float16[np.ndarray, "..."]:
  """Returns the patches of some batches, filled up to those of `count`.

  The pieces of a single one that are filler alone are left out.
  """
  if count == 1:
    songs, patches = group[0]
    return patches[: len(songs) + -len(songs) % piece] if piece else patches
  lacking = count - len(group)
  filler = [np.zeros_like(group[0].patches)] * lacking
  return np.concatenate([*(one.patches for one in group), *filler])


def encoded(
  embedder: Callable, batches: Iterable[Batch]
) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n features"]]]:
  """Encodes batches; the next are gathered while some are on the devices.

  Args:
    embedder: patches [size, 256, 48] to vectors [size, features]. If it has an
      attribute `at_once`, it is given so many batches, one after another in one
      array; if it has a method `begin`, that is called, which need not wait. If
      its attribute `piece` is a number, a last batch may be shorter, by pieces
      of so many.
    batches: patches of one size.

  Yields:
    The songs of the patches of each batch, and their vectors.
  """
  count, batches = getattr(embedder, "at_once", 1), iter(batches)
  groups = iter(lambda: list(itertools.islice(batches, count)), [])
  begin = getattr(embedder, "begin", embedder)
  piece = getattr(embedder, "piece", None)
  begun = ((group, begin(_together(group, count, piece))) for group in groups)
  for group, vectors in prefetch.keep_ahead(begun, 1):
    of_batches = np.split(np.asarray(vectors), count)
    for batch, found in zip(group, of_batches, strict=False):
      yield batch.song_index, found[: len(batch.song_index)]


def mean_vectors(
  found: Iterable[tuple[np.ndarray, np.ndarray]], songs: int
) -> tuple[Float[np.ndarray, "songs features"], Int[np.ndarray, " songs"]]:
  """Returns the mean over the patches of each song, as `encoded` yields them.

  Returns:
    The means, float32 [songs, features], and how many patches each is over. A
    song without patches has zeros; without any patch there are no features.
  """
  sums, counts = np.zeros((songs, 0)), np.zeros(songs, np.int64)
  for song_index, vectors in found:
    if not counts.any():
      sums = np.zeros((songs, vectors.shape[1]))
    np.add.at(sums, song_index, vectors)
    np.add.at(counts, song_index, 1)
  means = sums / np.maximum(counts, 1)[:, None]
  return means.astype(np.float32), counts

"""How large a run on an own library is: batch, width, steps, learning rate.

The rule, for a library of so many training songs and hours:

- A batch has the largest power of two of items (songs or pairs) that is no more
  than a quarter of the songs that can be drawn, from 2 to 64; to 256 on an
  accelerator.
- The encoder's first layer has 16 channels, a quarter of the paper's; on an
  accelerator the paper's 64.
- The steps take ten times as many patches as lie in the training songs side by
  side, but are 300 to 2,000; to 20,000 on an accelerator.
- The learning rate rises to 1e-3 in a twelfth of the steps and falls to 0 along
  a cosine. There are twenty rounds, each followed by a validation.
"""

import dataclasses
import importlib.util
import math
import os

import numpy as np

from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import catalogues
from pcl_jax.data import song_store

_MOST_ITEMS = {False: 64, True: 256}  # By whether there is an accelerator.
_WIDTHS = {False: 16, True: 64}
_MOST_STEPS = {False: 2_000, True: 20_000}
_LEAST_STEPS = 300
_TIMES_HEARD = 10
_ROUNDS = 20
_WARMUP_SHARE = 12
RATE = 1e-3  # The highest.
# Seconds of one core for a patch of a training step, ResNet-18 of `_WIDTHS`.
_CORE_S = 0.012
_MOST_CORES = 8  # More were not tried.
# What JAX needs for an accelerator, and what the system shows of it.
_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin")
_PLUGINS += ("jax_rocm7_plugin", "libtpu")
_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")


@dataclasses.dataclass(frozen=True)
class Library:
  """What a rule needs to know of a data set, for one strategy."""

  songs: int  # Training songs that can be drawn.
  patches: int  # Of 4.1 s, that lie side by side in the training songs.


@dataclasses.dataclass(frozen=True)
class RunSizes:
  """What the rule has chosen."""

  batch_size: int  # Songs or pairs.
  width: int
  steps: int

  def estimate_s(self, cores: int) -> float:
    """Estimates the time of a run on so many cores, with two patches an item.

    The time of a patch was measured; it is taken to fall with the cores.
    """
    patches = 2 * self.batch_size * self.steps
    return patches * _CORE_S / min(cores, _MOST_CORES)


def choose(library: Library, accelerated: bool) -> RunSizes:
  """Chooses the sizes of a run by the rule of this module."""
  most = min(library.songs // 4, _MOST_ITEMS[accelerated])
  batch_size = 1 << max(most.bit_length() - 1, 1)
  wanted = math.ceil(_TIMES_HEARD * library.patches / (2 * batch_size))
  steps = min(max(wanted, _LEAST_STEPS), _MOST_STEPS[accelerated])
  return RunSizes(batch_size, _WIDTHS[accelerated], steps)


def round_of(steps: int) -> int:
  """Returns after how many steps a run of so many is validated."""
  return min(max(steps // _ROUNDS, 1), steps)


def warmup_of(steps: int) -> int:
  """Returns in how many steps the learning rate of a run rises."""
  return steps // _WARMUP_SHARE


def library_of(data_dir: str | os.PathLike[str], pair_method: str) -> Library:
  """Reads what the rule needs; nothing is there where it cannot be read.

  Args:
    data_dir: the data set's folder.
    pair_method: one of `catalogues.PAIR_METHODS`, or empty for all songs.
  """
  folder = file_names.path(data_dir)
  try:
    store = song_store.SongStore(folder / song_store.FILE_NAME)
    made = catalogues.load(folder)
  except (errors.InputError, OSError):  # Whoever opens it says what is wrong.
    return Library(0, 0)
  if not np.array_equal(made.song_ids, store.song_ids):
    return Library(0, 0)
  drawn = train = made.split == catalogues.TRAIN
  if pair_method:
    lists = made.pair_lists(pair_method)
    lists = lists.keep(train[lists.values])
    drawn = np.isin(
      np.arange(len(made)),
      lists.values[np.repeat(lists.lengths > 1, lists.lengths)],
    )
  frames = store.frames[train].sum(dtype=np.int64)
  return Library(int(drawn.sum()), int(frames) // song_patches.FRAMES)


def is_accelerated() -> bool:
  """Guesses whether JAX computes on a GPU or TPU, without starting it."""
  platforms = os.environ.get("JAX_PLATFORMS", "")
  return (
    platforms.partition(",")[0] != "cpu"
    and any(importlib.util.find_spec(name) for name in _PLUGINS)
    and any(map(os.path.exists, _NODES))
  )

"""An audio encoder, compiled: patches to vectors, on all devices."""

import atexit
from collections.abc import Callable, Sequence
from concurrent import futures
import functools
import os

from flax import nnx
import jax
from jaxtyping import Array, Float
import numpy as np

from pcl_jax.common import jax_setup
from pcl_jax.common import prefetch
from pcl_jax.common import usable_cores
from pcl_jax.models import audio_encoder

LAYERS = ("features", "projection")
_AXIS = "patches"
# A CPU encodes so many patches in one call, and a call for each of its cores at
# once. What one call leaves idle others use, and activations stay in the cache.
PIECE = 16


def own_devices() -> list[jax.Device]:
  """Returns the devices of this process that encode at once.

  These are all its accelerators; of several devices that are one CPU, the
  first, since they share its cores.
  """
  devices = jax.local_devices()
  return devices[:1] if devices[0].platform == "cpu" else devices


@functools.lru_cache(maxsize=8)
def _compiled(
  graphdef: nnx.GraphDef, output: int, mesh: jax.sharding.Mesh | None
) -> Callable:
  """Compiles networks of one architecture once, whatever their weights."""

  def embed(variables, patches):
    return nnx.merge(graphdef, *variables)(patches, False)[output]

  if mesh is None:
    return jax.jit(embed)
  split = jax.P(_AXIS)
  return jax.jit(
    jax.shard_map(embed, mesh=mesh, in_specs=(jax.P(), split), out_specs=split)
  )


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> prefetch.Threads:
  """Returns threads that wait for the pieces; others after a fork."""
  del process
  threads = prefetch.Threads(usable_cores.count(), "encoder")
  # Python aborts if a daemon thread comes back from XLA while it ends: it drops
  # the pieces that have not begun, and waits for the others.
  atexit.register(threads.close)
  return threads


class Embedder:
  """Patches to vectors of one layer.

  Attributes:
    at_once: how many devices there are. Each has its part of the patches, so a
      call with as many batches as devices takes as long as one with one.
    piece: how many patches are encoded in a call, None for all of them.
  """

  def __init__(
    self,
    encoder: audio_encoder.AudioEncoder,
    layer: str,
    devices: Sequence[jax.Device],
  ):
    """Takes the weights as they are now to the devices."""
    graphdef, *variables = nnx.split(encoder, nnx.Param, nnx.BatchStat)
    self.at_once, mesh = len(devices), None
    if self.at_once > 1:
      mesh = jax.sharding.Mesh(np.array(devices), (_AXIS,))
      everywhere = jax.sharding.NamedSharding(mesh, jax.P())
      variables = jax.device_put(variables, everywhere)
    self._variables = tuple(variables)
    compiled = _compiled(graphdef, LAYERS.index(layer), mesh)
    # Whatever thread calls it.
    self._embed = jax_setup.in_own_types(compiled)
    on_cpu = mesh is None and devices[0].platform == "cpu"
    self.piece = PIECE if on_cpu else None

  def __call__(
    self, patches: Float[np.ndarray, "n frames bands"]
  ) -> Float[np.ndarray, "n features"]:
    """Encodes patches of any number; a multiple of `at_once` is not padded."""
    return np.asarray(self.begin(patches))

  def begin(
    self, patches: Float[np.ndarray, "n frames bands"]
  ) -> "Array | _Pieces":
    """Begins with it; `numpy.asarray` of what it returns waits."""
    if self.piece and len(patches) > self.piece:
      pool = _pool(os.getpid())
      whole = _padded(patches, self.piece)
      pieces = whole.reshape(-1, self.piece, *patches.shape[1:])
      begun = [pool.submit(self._encode, piece) for piece in pieces]
      return _Pieces(begun, len(patches))
    found = self._embed(self._variables, _padded(patches, self.at_once))
    return found if len(found) == len(patches) else found[: len(patches)]

  def _encode(self, piece: np.ndarray) -> np.ndarray:
    return np.asarray(self._embed(self._variables, piece))


class _Pieces:
  """Vectors of pieces that threads encode; an array once it is asked for."""

  def __init__(self, begun: Sequence[futures.Future[np.ndarray]], size: int):
    self._begun, self._size = begun, size

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    found = np.concatenate([one.result() for one in self._begun])
    return np.asarray(found[: self._size], dtype)


def _padded(patches: np.ndarray, multiple: int) -> np.ndarray:
  """Fills up with patches of zeros to a multiple of so many."""
  rest = -len(patches) % multiple
  return np.pad(patches, ((0, rest), (0, 0), (0, 0))) if rest else patches


def make_embedder(
  encoder: audio_encoder.AudioEncoder,
  layer: str = "features",
  devices: Sequence[jax.Device] | None = None,
) -> Embedder:
  """Compiles an encoder: patches [n, 256, 48] to vectors of one of `LAYERS`.

  `devices` are those of `own_devices` if they are not given.
  """
  return Embedder(encoder, layer, devices or own_devices())

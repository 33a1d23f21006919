"""An audio encoder, compiled: patches to vectors, on all devices."""

from collections.abc import Callable, Sequence
import functools

from flax import nnx
import jax
from jaxtyping import Array, Float
import numpy as np

from pcl_jax.models import audio_encoder

LAYERS = ("features", "projection")
_AXIS = "patches"


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


class Embedder:
  """Patches to vectors of one layer.

  Attributes:
    at_once: how many devices there are. Each has its part of the patches, so a
      call with as many batches as devices takes as long as one with one.
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
    self._embed = _compiled(graphdef, LAYERS.index(layer), mesh)

  def __call__(
    self, patches: Float[np.ndarray, "n frames bands"]
  ) -> Float[Array, "n features"]:
    """Encodes patches of any number; a multiple of `at_once` is not padded."""
    rest = -len(patches) % self.at_once
    if not rest:
      return self._embed(self._variables, patches)
    patches = np.pad(patches, ((0, rest), (0, 0), (0, 0)))
    return self._embed(self._variables, patches)[:-rest]


def make_embedder(
  encoder: audio_encoder.AudioEncoder,
  layer: str = "features",
  devices: Sequence[jax.Device] | None = None,
) -> Embedder:
  """Compiles an encoder: patches [n, 256, 48] to vectors of one of `LAYERS`.

  `devices` are those of `own_devices` if they are not given.
  """
  return Embedder(encoder, layer, devices or own_devices())

"""PyTorch's names and layouts for the networks of this project.

A PyTorch image is [channels, mel, time] and its kernels are [out, in, mel,
time]; here they are [time, mel, channels] and [time, mel, in, out]. So every
kernel, of a linear layer too, is the transpose of PyTorch's; only the genre
table is not.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from flax import nnx
import jax.numpy as jnp
import numpy as np

from pcl_jax.common import errors
from pcl_jax.models import audio_encoder
from pcl_jax.models import genre_encoder
from pcl_jax.models import layers
from pcl_jax.models import playlist_encoder
from pcl_jax.models import resnet
from pcl_jax.models import short_chunk_cnn

_PREFIXES = {
  "resnet": "audio_encoder.resnet_model.",
  "sc_cnn": "audio_encoder.audio_backbone.",
}
_FIRST_CONVOLUTION = {"resnet": "conv1.weight", "sc_cnn": "1.conv.weight"}
_PROJECTION = "fc_audio.fc."
_TABLE = "embeddings.weight"
_COUNTER = "num_batches_tracked"  # Used only without momentum, so never here.


def architecture_of(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Tells backbone, width and the projection's sizes from names and shapes.

  Returns:
    Arguments of an AudioEncoder; those that no array tells are the default's.

  Raises:
    InputError: the names are of no known backbone.
  """
  backbone = _backbone_type(state_dict)
  first = _PREFIXES[backbone] + _FIRST_CONVOLUTION[backbone]
  return {
    "backbone_type": backbone,
    "width": _rows(state_dict, first),
    "fc_hidden_dim": _rows(state_dict, _PROJECTION + "0.weight") or 128,
    "fc_output_dim": _rows(state_dict, _PROJECTION + "3.weight") or 128,
  }


def load_encoder(
  state_dict: Mapping[str, np.ndarray],
  *,
  fc_dropout: float = 0.0,
  compute_dtype: Any = jnp.float32,
) -> audio_encoder.AudioEncoder:
  """Makes an audio encoder with PyTorch weights.

  Names and shapes give the backbone, its width and the projection's sizes.

  Args:
    state_dict: arrays by PyTorch names.
    fc_dropout: dropout rate of the projection, for further training.
    compute_dtype: type of the convolutions.

  Returns:
    The encoder with these weights.

  Raises:
    InputError: the names are of no known backbone; or it lists every missing
      and unknown name and every wrong shape.
  """
  built = architecture_of(state_dict)
  # Only the shapes: all values are replaced.
  encoder = nnx.eval_shape(
    lambda: audio_encoder.AudioEncoder(
      **built,
      fc_dropout=fc_dropout,
      compute_dtype=compute_dtype,
      rngs=nnx.Rngs(0),
    )
  )
  load_into(encoder, state_dict)
  return encoder


def load_into(module: nnx.Module, state_dict: Mapping[str, np.ndarray]) -> None:
  """Replaces all weights and statistics of an encoder by PyTorch's.

  Args:
    module: an AudioEncoder, PlaylistEncoder or GenreEncoder.
    state_dict: arrays by PyTorch names, relative to that encoder.

  Raises:
    InputError: it lists every missing and unknown name and every wrong shape;
      the module is then unchanged.
  """
  variables = dict(_variables(module))
  _check(variables, state_dict)
  for name, variable in variables.items():
    value = np.asarray(state_dict[name], np.float32)
    variable.set_value(jnp.asarray(value if name == _TABLE else value.T))


def state_dict(module: nnx.Module) -> dict[str, np.ndarray]:
  """Returns an encoder's arrays under PyTorch's names, in its layout.

  Args:
    module: an AudioEncoder, PlaylistEncoder or GenreEncoder.
  """
  arrays = {}
  for name, variable in _variables(module):
    value = np.asarray(variable.get_value())
    arrays[name] = np.ascontiguousarray(value if name == _TABLE else value.T)
  return arrays


def _backbone_type(state_dict: Mapping[str, np.ndarray]) -> str:
  """Returns the backbone that the names' prefix belongs to."""
  for backbone, prefix in _PREFIXES.items():
    if any(name.startswith(prefix) for name in state_dict):
      return backbone
  found = ", ".join(list(state_dict)[:3]) or "no names at all"
  raise errors.InputError(
    f"no name of the PyTorch weights starts with "
    f"{' or '.join(_PREFIXES.values())}, found {found}: pass the state_dict "
    f"of an audio encoder"
  )


def _rows(state_dict: Mapping[str, np.ndarray], name: str) -> int | None:
  """Returns the first dimension of an array, None if there is none."""
  shape = np.shape(state_dict.get(name, 0))
  return (shape[0] or None) if shape else None


def _check(
  variables: dict[str, nnx.Variable], state_dict: Mapping[str, np.ndarray]
) -> None:
  """Refuses weights that do not fit, with all that is wrong with them."""
  shapes = {name: one.get_value().shape for name, one in variables.items()}
  expected = {
    name: shape if name == _TABLE else shape[::-1]
    for name, shape in shapes.items()
  }
  problems = [f"{name} is missing" for name in expected.keys() - state_dict]
  for name, value in state_dict.items():
    if name not in expected:
      if name.rsplit(".", 1)[-1] != _COUNTER:
        problems.append(f"{name} is unknown")
    elif np.shape(value) != expected[name]:
      problems.append(
        f"{name} has shape {np.shape(value)}, the network {expected[name]}"
      )
    elif np.asarray(value).dtype.kind not in "fiu":
      problems.append(f"{name} holds {np.asarray(value).dtype}, no numbers")
  if problems:
    raise errors.InputError(
      "the PyTorch weights do not fit the network: "
      + "; ".join(sorted(problems))
      + ": pass the complete state_dict of one encoder"
    )


def _variables(module: nnx.Module) -> Iterator[tuple[str, nnx.Variable]]:
  """Yields all variables of an encoder with their PyTorch names."""
  if isinstance(module, genre_encoder.GenreEncoder):
    yield _TABLE, module.embeddings
  for prefix, layer in _layers(module):
    is_kernel = isinstance(layer, (nnx.Conv, nnx.Linear))
    yield f"{prefix}.weight", layer.kernel if is_kernel else layer.scale
    if layer.bias is not None:
      yield f"{prefix}.bias", layer.bias
    if isinstance(layer, layers.BatchNorm):
      yield f"{prefix}.running_mean", layer.mean
      yield f"{prefix}.running_var", layer.var


def _layers(module: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
  """Yields every layer with weights under its PyTorch name."""
  match module:
    case audio_encoder.AudioEncoder(backbone=resnet.ResNet18() as backbone):
      yield from _resnet_layers(_PREFIXES["resnet"], backbone)
      yield from _mlp_layers(_PROJECTION, module.projection)
    case audio_encoder.AudioEncoder(
      backbone=short_chunk_cnn.ScCnn() as backbone
    ):
      yield from _sc_cnn_layers(_PREFIXES["sc_cnn"], backbone)
      yield from _mlp_layers(_PROJECTION, module.projection)
    case playlist_encoder.PlaylistEncoder():
      yield from _mlp_layers("fc.", module.fc)
      yield "fc.4", module.norm
    case genre_encoder.GenreEncoder():
      yield "w_qs", module.queries
      yield "w_ks", module.keys
      yield "w_vs", module.values
      yield "fc", module.output
      yield "layer_norm", module.norm
    case _:
      raise TypeError(f"{type(module).__name__} has no PyTorch names")


def _resnet_layers(
  prefix: str, backbone: resnet.ResNet18
) -> Iterator[tuple[str, nnx.Module]]:
  yield f"{prefix}conv1", backbone.conv
  yield f"{prefix}bn1", backbone.norm
  for stage in range(1, resnet.STAGES + 1):
    for number in range(resnet.BLOCKS_PER_STAGE):
      block = backbone.blocks[f"stage{stage}_block{number + 1}"]
      name = f"{prefix}layer{stage}.{number}"
      yield f"{name}.conv1", block.conv1
      yield f"{name}.bn1", block.norm1
      yield f"{name}.conv2", block.conv2
      yield f"{name}.bn2", block.norm2
      if block.reshapes:
        yield f"{name}.downsample.0", block.shortcut_conv
        yield f"{name}.downsample.1", block.shortcut_norm


def _sc_cnn_layers(
  prefix: str, backbone: short_chunk_cnn.ScCnn
) -> Iterator[tuple[str, nnx.Module]]:
  yield f"{prefix}0", backbone.norm
  for number in range(1, len(short_chunk_cnn.POOLS) + 1):
    block = backbone.blocks[f"block{number}"]
    yield f"{prefix}{number}.conv", block.conv
    yield f"{prefix}{number}.bn", block.norm


def _mlp_layers(
  prefix: str, mlp: layers.Mlp
) -> Iterator[tuple[str, nnx.Module]]:
  # PyTorch counts the ReLU and the dropout between them.
  yield f"{prefix}0", mlp.hidden
  yield f"{prefix}3", mlp.output

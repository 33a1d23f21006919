"""Encoders as ONNX graphs, written with the helpers of the package `onnx`.

Batch norm is folded into the convolutions. An image is [patch, channel, time,
mel]. Only operators of the set `OPSET` of the standard domain are used, all of
which onnxruntime and onnxruntime-web have.
"""

from collections.abc import Sequence
import importlib
import types
from typing import Any

from flax import nnx
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.models import audio_encoder
from pcl_jax.models import batch_moments
from pcl_jax.models import layers
from pcl_jax.models import resnet
from pcl_jax.models import short_chunk_cnn

OPSET = 17
IR_VERSION = 8
FEATURES, PROJECTION = "features", "projection"
SAMPLES, PATCHES = "samples", "patches"
CHUNK_PATCHES = 16  # Computed at once, however long the audio is.
_HOP = melspectrogram.SETTINGS.hop_samples
_PATCH_SAMPLES = song_patches.FRAMES * _HOP
_END = np.iinfo(np.int64).max


def imported() -> types.ModuleType:
  """Returns the package `onnx`, which the base install leaves out.

  Raises:
    InputError: it is not installed.
  """
  try:
    importlib.import_module("onnx.checker")
    importlib.import_module("onnx.numpy_helper")
    return importlib.import_module("onnx")
  except ImportError as error:
    raise errors.InputError(
      "ONNX files are written with the package onnx, which is not installed: "
      'install it with pip install "pcl_jax[onnx]".'
    ) from error


class _Graph:
  """Nodes and weights of a graph that grows."""

  def __init__(self, prefix: str):
    self._onnx = imported()
    self._prefix = prefix
    self._nodes: list[Any] = []
    self._weights: list[Any] = []

  def weight(self, value: Any, dtype: type = np.float32) -> str:
    """Adds an array; returns its name."""
    name = f"{self._prefix}_weight{len(self._weights)}"
    array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
    self._weights.append(self._onnx.numpy_helper.from_array(array, name))
    return name

  def integers(self, *values: int) -> str:
    """Adds a list of integers; returns its name."""
    return self.weight(values, np.int64)

  def add(
    self, operator: str, *inputs: str, name: str = "", **attributes: Any
  ) -> str:
    """Adds a node of one output; returns the output's name."""
    name = name or f"{self._prefix}_{operator.lower()}{len(self._nodes)}"
    node = self._onnx.helper.make_node
    self._nodes.append(node(operator, inputs, [name], name=name, **attributes))
    return name

  def rows(self, value: str, begin: str, end: str) -> str:
    """Takes a range of the first axis."""
    return self.add("Slice", value, begin, end, self.integers(0))

  def finish(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
    """Returns the GraphProto; inputs and outputs are (name, type, shape)."""
    make = self._onnx.helper.make_tensor_value_info
    return self._onnx.helper.make_graph(
      self._nodes,
      f"pcl_jax_{self._prefix}",
      [make(*one) for one in inputs],
      [make(*one) for one in outputs],
      self._weights,
    )


def _factor_and_offset(norm: layers.BatchNorm) -> tuple[np.ndarray, np.ndarray]:
  """Returns what batch norm multiplies each channel by, and then adds."""
  scale, bias, mean, var = (
    np.asarray(one[...], np.float64)
    for one in (norm.scale, norm.bias, norm.mean, norm.var)
  )
  factor = scale / np.sqrt(var + batch_moments.EPSILON)
  return factor, bias - mean * factor


def _add_convolution(
  graph: _Graph, x: str, conv: nnx.Conv, norm: layers.BatchNorm
) -> str:
  """Adds a convolution and its batch norm, as one."""
  factor, offset = _factor_and_offset(norm)
  if conv.bias is not None:
    offset = offset + factor * np.asarray(conv.bias[...], np.float64)
  kernel = np.asarray(conv.kernel[...], np.float64) * factor
  weight = graph.weight(kernel.transpose(3, 2, 0, 1))
  size = kernel.shape[0]
  return graph.add(
    "Conv",
    x,
    weight,
    graph.weight(offset),
    kernel_shape=[size, size],
    strides=np.broadcast_to(conv.strides, 2).tolist(),
    pads=[size // 2] * 4,
  )


def _add_resnet(graph: _Graph, x: str, backbone: resnet.ResNet18) -> str:
  x = _add_convolution(graph, x, backbone.conv, backbone.norm)
  x = graph.add("Relu", x)
  square = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
  x = graph.add("MaxPool", x, **square)
  for name in sorted(backbone.blocks):
    block = backbone.blocks[name]
    y = _add_convolution(graph, x, block.conv1, block.norm1)
    y = graph.add("Relu", y)
    y = _add_convolution(graph, y, block.conv2, block.norm2)
    if block.reshapes:
      x = _add_convolution(graph, x, block.shortcut_conv, block.shortcut_norm)
    x = graph.add("Relu", graph.add("Add", x, y))
  both = [graph.add(f"Global{one}Pool", x) for one in ("Average", "Max")]
  return graph.add("Flatten", graph.add("Concat", *both, axis=1))


def _add_sc_cnn(graph: _Graph, x: str, backbone: short_chunk_cnn.ScCnn) -> str:
  # Not folded: the convolution pads with zeros after it.
  factor, offset = map(graph.weight, _factor_and_offset(backbone.norm))
  x = graph.add("Add", graph.add("Mul", x, factor), offset)
  for name in sorted(backbone.blocks):
    block = backbone.blocks[name]
    x = _add_convolution(graph, x, block.conv, block.norm)
    pool = {"kernel_shape": block.pool, "strides": block.pool}
    x = graph.add("MaxPool", graph.add("Relu", x), **pool)
  # One mel row is left, so this is the order of channel, mel, time as well.
  return graph.add("Flatten", x)


def _add_backbone(
  graph: _Graph, patches: str, encoder: audio_encoder.AudioEncoder
) -> str:
  """Adds float16 patches [n, 256, 48] -> features [n, features]."""
  float32 = imported().TensorProto.FLOAT
  x = graph.add("Cast", patches, to=float32)
  x = graph.add("Unsqueeze", x, graph.integers(1))
  match encoder.backbone:
    case resnet.ResNet18():
      return _add_resnet(graph, x, encoder.backbone)
    case short_chunk_cnn.ScCnn():
      return _add_sc_cnn(graph, x, encoder.backbone)
  raise errors.InputError(
    f"the backbone {type(encoder.backbone).__name__} has no ONNX form: resnet "
    "and sc_cnn have one."
  )


def _add_projection(
  graph: _Graph, features: str, encoder: audio_encoder.AudioEncoder
) -> None:
  """Adds both outputs of the encoder by their names."""
  x, mlp = features, encoder.projection
  for layer, name in ((mlp.hidden, ""), (mlp.output, PROJECTION)):
    weight = graph.weight(np.asarray(layer.kernel[...]))
    bias = graph.weight(np.asarray(layer.bias[...]))
    x = graph.add("Gemm", x, weight, bias, name=name)
    x = x if name else graph.add("Relu", x)
  graph.add("Identity", features, name=FEATURES)


def _add_feature(graph: _Graph, samples: str) -> str:
  """Adds padded samples -> patches of the feature, float16 [n, 256, 48]."""
  # A frame is two hops: one block of samples, and the one after it.
  blocks = graph.add("Reshape", samples, graph.integers(-1, _HOP))
  first = graph.rows(blocks, graph.integers(0), graph.integers(-1))
  second = graph.rows(blocks, graph.integers(1), graph.integers(_END))
  frames = graph.add("Concat", first, second, axis=1)
  squares = []
  length = melspectrogram.SETTINGS.frame_samples
  angles = np.outer(np.arange(length), np.arange(length // 2 + 1))
  for wave in (np.cos, np.sin):
    waves = melspectrogram.window()[:, None] * wave(2 * np.pi / length * angles)
    part = graph.add("MatMul", frames, graph.weight(waves))
    squares.append(graph.add("Mul", part, part))
  filters = graph.weight(melspectrogram.mel_filters())
  power = graph.add("MatMul", graph.add("Add", *squares), filters)
  offset = graph.weight(melspectrogram.POWER_OFFSET)
  natural = graph.add("Log", graph.add("Add", power, offset))
  feature = graph.add("Mul", natural, graph.weight(1 / np.log(10)))
  half = graph.add("Cast", feature, to=imported().TensorProto.FLOAT16)
  shape = graph.integers(-1, song_patches.FRAMES, song_patches.BANDS)
  return graph.add("Reshape", half, shape)


def _chunk_body(encoder: audio_encoder.AudioEncoder, padded: str) -> Any:
  """Returns the loop's body, which adds a chunk's features to the others."""
  graph, kinds = _Graph("chunk"), imported().TensorProto
  count = encoder.backbone.features
  length = CHUNK_PATCHES * _PATCH_SAMPLES
  begin = graph.add("Mul", "chunk_number", graph.integers(length))
  end = graph.add("Add", begin, graph.integers(length + _HOP))
  patches = _add_feature(graph, graph.rows(padded, begin, end))
  features = _add_backbone(graph, patches, encoder)
  graph.add("Concat", "chunk_before", features, name="chunk_after", axis=0)
  graph.add("Identity", "chunk_go_on", name="chunk_going_on")
  return graph.finish(
    [
      ("chunk_number", kinds.INT64, []),
      ("chunk_go_on", kinds.BOOL, []),
      ("chunk_before", kinds.FLOAT, [None, count]),
    ],
    [
      ("chunk_going_on", kinds.BOOL, []),
      ("chunk_after", kinds.FLOAT, [None, count]),
    ],
  )


def _add_padding(graph: _Graph) -> tuple[str, str]:
  """Adds silence around the samples; returns them and the number of chunks."""
  ones = graph.integers(1)
  length = graph.add("Shape", SAMPLES)
  # ceil(samples / hop) + 1 frames; those after the last whole patch are left
  # out, and silence completes a patch where there is none.
  frames = graph.add("Add", length, graph.integers(2 * _HOP - 1))
  frames = graph.add("Div", frames, graph.integers(_HOP))
  whole = graph.add("Div", frames, graph.integers(song_patches.FRAMES))
  patches = graph.add("Max", whole, ones)
  end = graph.add("Mul", patches, graph.integers(_PATCH_SAMPLES))
  end = graph.add("Add", end, graph.integers(_HOP))
  before = graph.weight(np.zeros(_HOP))
  after = graph.weight(np.zeros(_PATCH_SAMPLES))
  padded = graph.add("Concat", before, SAMPLES, after, axis=0)
  padded = graph.rows(padded, graph.integers(0), end)
  chunks = graph.add("Add", patches, graph.integers(CHUNK_PATCHES - 1))
  chunks = graph.add("Div", chunks, graph.integers(CHUNK_PATCHES))
  return padded, graph.add("Squeeze", chunks)


def _model(graph: _Graph, encoder: Any, source: tuple, rows: str) -> Any:
  """Returns the ModelProto of a graph of one input and both outputs."""
  onnx = imported()
  sizes = encoder.backbone.features, encoder.projection.output.out_features
  outputs = [
    (name, onnx.TensorProto.FLOAT, [rows, size])
    for name, size in zip((FEATURES, PROJECTION), sizes, strict=True)
  ]
  model = onnx.helper.make_model(
    graph.finish([source], outputs),
    ir_version=IR_VERSION,
    opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    producer_name="pcl_jax",
  )
  onnx.checker.check_model(model, full_check=True)
  return model


def of_patches(encoder: audio_encoder.AudioEncoder) -> Any:
  """Returns the network alone as a ModelProto.

  Its input `patches`, float16 [n, 256, 48], gives the outputs `features` and
  `projection`, float32 [n, size].

  Args:
    encoder: with weights.

  Raises:
    InputError: onnx is not installed, or the backbone has no ONNX form.
  """
  graph = _Graph("network")
  features = _add_backbone(graph, PATCHES, encoder)
  _add_projection(graph, features, encoder)
  shape = ["n", song_patches.FRAMES, song_patches.BANDS]
  source = PATCHES, imported().TensorProto.FLOAT16, shape
  return _model(graph, encoder, source, "n")


def of_samples(encoder: audio_encoder.AudioEncoder) -> Any:
  """Returns front end and network as a ModelProto.

  Its input `samples`, float32 [n] at 16 kHz, gives the outputs `features` and
  `projection`, float32 [patches, size], of the patches that
  `SongEncoder.embed(..., per_patch=True)` takes. `CHUNK_PATCHES` of them are
  computed at a time.

  Args:
    encoder: with weights.

  Raises:
    InputError: onnx is not installed, or the backbone has no ONNX form.
  """
  graph = _Graph("song")
  padded, chunks = _add_padding(graph)
  none = graph.weight(np.zeros((0, encoder.backbone.features)))
  body = _chunk_body(encoder, padded)
  features = graph.add("Loop", chunks, "", none, body=body)
  _add_projection(graph, features, encoder)
  source = SAMPLES, imported().TensorProto.FLOAT, ["n"]
  return _model(graph, encoder, source, "patches")

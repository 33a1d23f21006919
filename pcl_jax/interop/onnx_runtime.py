"""The network computed by onnxruntime on the CPU, in place of JAX."""

from collections.abc import Callable
import importlib
import types
from typing import Any

import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import usable_cores
from pcl_jax.embedding import song_encoder
from pcl_jax.interop import onnx_graph
from pcl_jax.models import audio_encoder


def _imported() -> types.ModuleType:
  try:
    return importlib.import_module("onnxruntime")
  except ImportError as error:
    raise errors.InputError(
      "The runtime onnx needs the package onnxruntime, which is not installed: "
      'install it with pip install "pcl_jax[onnx]", or leave out --runtime.'
    ) from error


def check_installed() -> None:
  """Raises InputError where onnx or onnxruntime is not installed."""
  _imported()
  onnx_graph.imported()


def session(model: Any) -> Any:
  """Returns an InferenceSession of a ModelProto, on all cores of the CPU.

  Raises:
    InputError: onnxruntime is not installed.
  """
  runtime = _imported()
  options = runtime.SessionOptions()
  options.intra_op_num_threads = usable_cores.count()
  # Waiting threads would take the cores that decode audio.
  options.add_session_config_entry("session.intra_op.allow_spinning", "0")
  return runtime.InferenceSession(
    model.SerializeToString(), options, providers=["CPUExecutionProvider"]
  )


def make_embedder(
  encoder: audio_encoder.AudioEncoder, layer: str = "features"
) -> Callable:
  """Returns what `compiled_encoder.make_embedder` does, run by onnxruntime."""
  run = session(onnx_graph.of_patches(encoder)).run

  def embed(patches: np.ndarray) -> np.ndarray:
    feed = {onnx_graph.PATCHES: patches.astype(np.float16, copy=False)}
    return run([layer], feed)[0]

  return embed


def run_by_onnx(encoder: song_encoder.SongEncoder) -> song_encoder.SongEncoder:
  """Returns an encoder whose network onnxruntime computes.

  Its vectors are those of `encoder` up to float32's rounding. Its tables say
  the runtime, and are not brought up to date by another one.

  Raises:
    InputError: onnx or onnxruntime is not installed, or the backbone has no
      ONNX form.
  """
  check_installed()
  about = encoder.about | {"runtime": f"onnxruntime {_imported().__version__}"}
  return song_encoder.SongEncoder(
    encoder.network, about, encoder.meta, make_embedder=make_embedder
  )

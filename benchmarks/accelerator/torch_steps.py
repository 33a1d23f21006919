"""A worker that takes the steps of plain PyTorch."""

import os
from typing import Any

import numpy as np

from benchmarks import train_step
from benchmarks.accelerator import workers
from benchmarks.parts import torch_networks

_MIXUP = (7.0, 2.0)  # As in the configs.
torch = torch_networks.torch


class _Steps:
  def __init__(self, step: Any, image: Any):
    self._step, self._image = step, image

  def take(self) -> Any:
    return self._step(self._image)

  def wait(self, last: Any) -> None:
    del last
    if torch.cuda.is_available():
      torch.cuda.synchronize()

  def digest(self, count: int) -> str:
    raise NotImplementedError


def prepare(
  encoder: str, width: int | None, patches: int, careful: bool
) -> tuple[_Steps, dict[str, Any]]:
  """Builds a step: eager with TensorFloat-32, or compiled in bfloat16.

  Args:
    encoder: resnet or sc_cnn.
    width: channels of the first layer; None for the paper's.
    patches: rows of the batch.
    careful: compiled, channels last, bfloat16 (`torch_networks.make_step`).

  Returns:
    What takes steps, and facts.
  """
  torch.set_float32_matmul_precision("high")
  torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  torch.manual_seed(0)
  device = "cuda" if torch.cuda.is_available() else "cpu"
  network = torch_networks.AudioEncoder(encoder, width).to(device)
  shape = (patches, train_step.FRAMES, train_step.BANDS)
  drawn = np.random.default_rng(0).uniform(-2, 1, shape).astype(np.float32)
  image = torch_networks.image_of(drawn).to(device)
  if careful:
    image = image.contiguous(memory_format=torch.channels_last)
  step = torch_networks.make_step(
    network, **train_step.SETTINGS, mixup=_MIXUP, careful=careful
  )
  return _Steps(step, image), {
    "patches": patches,
    "torch": torch.__version__,
    "device": device,
  }


if __name__ == "__main__":
  workers.serve(prepare)

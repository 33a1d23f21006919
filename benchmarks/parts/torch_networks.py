"""The audio encoders and their training step in plain PyTorch, to time against.

Images are [batch, 1, mel, time]. The backbones are those of the module that is
exported, so that all take the same weights by the same names.
"""

from collections.abc import Callable
import importlib
import types
from typing import Any

import numpy as np

from pcl_jax.common import errors


def _imported() -> types.ModuleType:
  """Returns PyTorch, which only the comparison needs."""
  try:
    return importlib.import_module("torch")
  except ImportError as error:
    raise errors.InputError(
      "The comparison needs PyTorch, which is not installed and which nothing "
      "else uses: pip install torch"
    ) from error


torch = _imported()
nn = torch.nn
# Only here, since it imports PyTorch itself.
modeling_pcl = importlib.import_module("pcl_jax.interop.modeling_pcl")

_MIN_NORM = 1e-8
_POSITIVE_OFFSET = 1e-5


_BACKBONES = {
  "resnet": ("resnet_model", modeling_pcl.ResNet18, 64),
  "sc_cnn": ("audio_backbone", modeling_pcl.ScCnn, 128),
}


class AudioEncoder(nn.Module):
  """A backbone and the projection that the loss sees."""

  def __init__(self, backbone: str, width: int | None = None):
    """Draws the weights.

    Args:
      backbone: resnet or sc_cnn.
      width: channels of the first layer; None for the paper's.
    """
    super().__init__()
    name, make, paper_width = _BACKBONES[backbone]
    network = make(width or paper_width)
    self.audio_encoder = nn.ModuleDict({name: network})
    self.fc_audio = nn.ModuleDict(
      {
        "fc": nn.Sequential(
          nn.Linear(network.features, 128),
          nn.ReLU(),
          nn.Dropout(0.0),
          nn.Linear(128, 128),
        )
      }
    )

  def forward(self, x):
    """Returns the projection, [batch, 128]."""
    (backbone,) = self.audio_encoder.values()
    return self.fc_audio["fc"](backbone(x))


def image_of(mel: np.ndarray) -> Any:
  """Returns [batch, frames, bands] as PyTorch's image, on the CPU."""
  image = np.ascontiguousarray(mel.transpose(0, 2, 1)[:, None])
  return torch.from_numpy(image)


def arrays_of(encoder: AudioEncoder) -> dict[str, np.ndarray]:
  """Returns an encoder's weights and statistics by name, copied."""
  return {
    name: value.detach().cpu().numpy().copy()
    for name, value in encoder.state_dict().items()
  }


def mix(images: Any, alpha: float, beta: float) -> Any:
  """Mixes every image with another one of the batch, by a drawn gain."""
  rows = images.shape[0]
  gains = torch.distributions.Beta(alpha, beta).sample((rows, 1, 1, 1))
  gains = gains.to(images.device)
  order = torch.randperm(rows, device=images.device)
  return gains * images + (1 - gains) * images[order]


def nt_xent(z: Any, temperature: float) -> Any:
  """Computes NT-Xent of rows [anchors; positives], as published."""
  rows = z.shape[0]
  z = z / z.norm(dim=1, keepdim=True).clamp_min(_MIN_NORM)
  scores = torch.exp(z @ z.T / temperature)
  scores = scores * (1 - torch.eye(rows, device=z.device))
  partner = scores.diagonal(rows // 2)
  partner = torch.cat([partner, scores.diagonal(-(rows // 2))])
  return (scores.sum(1).log() - (partner + _POSITIVE_OFFSET).log()).mean()


def make_step(
  encoder: AudioEncoder,
  *,
  learning_rate: float,
  weight_decay: float,
  temperature: float,
  mixup: tuple[float, float] | None,
  careful: bool = False,
) -> Callable[[Any], Any]:
  """Returns a function that takes one step of training.

  Args:
    encoder: on the device to train on; changed by each step.
    learning_rate: of Adam.
    weight_decay: L2, added to the gradient.
    temperature: of the loss.
    mixup: parameters of the gains' Beta distribution; None for no mixup.
    careful: compiled, channels last and with bfloat16 convolutions, in place
      of plain float32.

  Returns:
    step(images) -> the loss before the step, a tensor on the device.
  """
  device = next(encoder.parameters()).device
  forward = encoder.train()
  if careful:
    forward = torch.compile(encoder.to(memory_format=torch.channels_last))
  optimizer = torch.optim.Adam(
    encoder.parameters(), lr=learning_rate, weight_decay=weight_decay
  )

  def step(images):
    if mixup is not None:
      images = mix(images, *mixup)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=careful):
      projections = forward(images)
    loss = nt_xent(projections.float(), temperature)
    loss.backward()
    optimizer.step()
    return loss.detach()

  return step

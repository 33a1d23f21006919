"""The audio encoders and their training step in plain PyTorch, to time against.

Images are [batch, 1, mel, time]. The names of parameters and buffers are those
that `pcl_jax.interop.torch_names` knows, so that both take the same weights.
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
functional = torch.nn.functional

_MIN_NORM = 1e-8
_POSITIVE_OFFSET = 1e-5


class BasicBlock(nn.Module):
  """Two 3x3 convolutions around which the input is added."""

  def __init__(self, inputs: int, outputs: int, stride: int):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(outputs)
    self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(outputs)
    self.relu = nn.ReLU(inplace=True)
    self.downsample = None
    if stride != 1 or inputs != outputs:
      self.downsample = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride, bias=False),
        nn.BatchNorm2d(outputs),
      )

  def forward(self, x):
    """Returns [batch, outputs, mel / stride, time / stride]."""
    y = self.relu(self.bn1(self.conv1(x)))
    y = self.bn2(self.conv2(y))
    y += x if self.downsample is None else self.downsample(x)
    return self.relu(y)


class ResNet18(nn.Module):
  """[batch, 1, mel, time] to average and maximum, [batch, 16 width]."""

  def __init__(self, width: int):
    super().__init__()
    self.features = 16 * width
    self.conv1 = nn.Conv2d(1, width, 7, 2, 3, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.relu = nn.ReLU(inplace=True)
    self.maxpool = nn.MaxPool2d(3, 2, 1)
    inputs = width
    for stage in range(4):
      outputs = width * 2**stage
      blocks = nn.Sequential(
        BasicBlock(inputs, outputs, 2 if stage else 1),
        BasicBlock(outputs, outputs, 1),
      )
      self.add_module(f"layer{stage + 1}", blocks)
      inputs = outputs
    for module in self.modules():
      if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")

  def forward(self, x):
    """Returns the averages, then the maxima, of the last feature map."""
    x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    average = functional.adaptive_avg_pool2d(x, 1).flatten(1)
    return torch.cat(
      [average, functional.adaptive_max_pool2d(x, 1).flatten(1)], dim=1
    )


class ConvBlock(nn.Module):
  """A 3x3 convolution, batch norm, ReLU and max pool."""

  def __init__(self, inputs: int, outputs: int, pool: tuple[int, int]):
    super().__init__()
    self.conv = nn.Conv2d(inputs, outputs, 3, 1, 1)
    self.bn = nn.BatchNorm2d(outputs)
    self.relu = nn.ReLU(inplace=True)
    self.pool = nn.MaxPool2d(pool)

  def forward(self, x):
    """Returns [batch, outputs, mel / pool[0], time / pool[1]]."""
    return self.pool(self.relu(self.bn(self.conv(x))))


class ScCnn(nn.Sequential):
  """[batch, 1, mel, time] to the flattened last feature map."""

  def __init__(self, width: int):
    channels = [1] + [width * times for times in (1, 1, 2, 2, 2, 2, 4)]
    pools = [(2, 2)] * 4 + [(1, 2)] * 2 + [(2, 2)]
    blocks = map(ConvBlock, channels[:-1], channels[1:], pools)
    super().__init__(nn.BatchNorm2d(1), *blocks, nn.Flatten())
    self.features = 8 * width


_BACKBONES = {
  "resnet": ("resnet_model", ResNet18, 64),
  "sc_cnn": ("audio_backbone", ScCnn, 128),
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

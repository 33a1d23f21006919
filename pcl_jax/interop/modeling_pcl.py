"""A music audio encoder in PyTorch: samples in, vectors out, all in one file.

  from modeling_pcl import PclEncoder

  encoder = PclEncoder.from_pretrained("FOLDER")
  vector = encoder.embed(samples, sample_rate)

FOLDER is what `pcl-jax export --format=torch --out=FOLDER` has written: this
file, config.json, and the weights as model.safetensors, or model.pt. Needed are
torch and numpy, and soxr for audio of another sample rate than the encoder's.

This file is part of pcl_jax, whose vectors it gives but for rounding, and under
its MIT licence. The weights are not.
"""

import collections
from collections.abc import Iterator
import hashlib
import json
import math
import pathlib
from typing import Any
import warnings

import numpy as np
import torch
from torch import nn

LAYERS = ("features", "projection")
# What config.json may say that is no number.
KNOWN = {
  "format": ("pcl_jax.torch",),
  "format_version": (1,),
  "window": ("symmetric hann",),
  "mel_scale": ("slaney, unit area",),
  "stored_as": ("log10(0.01 + mel power)",),
  "channels": ("mean", "left", "loudest"),
  "backbone_type": ("resnet", "sc_cnn"),
}
POWER_OFFSET = 0.01
LOWEST_RATE_HZ = 1_000
LARGEST_SAMPLE = 1e6
# Of golden vectors, relative to the largest number; by where they were made.
_TOLERANCES = {"cpu": 1e-3, "gpu": 2e-2, "tpu": 5e-2}
_AGAIN = "copy or export it again, or give verify=False."


class FrontEnd:
  """Samples to patches of the log-mel feature, on the CPU."""

  def __init__(self, config: dict[str, Any]):
    """Takes every setting from the content of config.json."""
    feature = config["feature"]
    self.sample_rate_hz: int = feature["sample_rate_hz"]
    self.silence = math.log10(POWER_OFFSET)  # The feature of digital silence.
    self._channels = feature.get("channels", "mean")
    self._hop: int = feature["hop_samples"]
    self._patch_frames: int = config["patch"]["frames"]
    size: int = feature["frame_samples"]
    window = torch.hann_window(size, periodic=False, dtype=torch.float64)
    self._window, self._filters = window.float(), _mel_filters(feature)

  def patches(
    self, audio: Any, sample_rate: int | float, batch_patches: int
  ) -> Iterator[torch.Tensor]:
    """Yields a recording's whole patches, end to end.

    Audio shorter than one patch is filled up with silence; of longer audio,
    what follows the last whole patch is left out. The arguments and errors are
    those of `PclEncoder.embed`.

    Yields:
      float32 [n, frames, mel bands], rounded to float16 as in training.
    """
    mono = self._mono(_checked(audio, sample_rate))
    mono = _resampled(mono, sample_rate, self.sample_rate_hz)
    frames = self._frames(torch.from_numpy(mono))
    length, count = self._patch_frames, len(frames) // self._patch_frames
    if not count:
      short = self._log_mel(frames)
      missing = (0, 0, 0, length - len(short))
      yield nn.functional.pad(short, missing, value=self.silence)[None]
    for begin in range(0, count, batch_patches):
      end = min(begin + batch_patches, count)
      feature = self._log_mel(frames[begin * length : end * length])
      yield feature.reshape(end - begin, length, -1)

  def _mono(self, samples: np.ndarray) -> np.ndarray:
    """Returns what the encoder has learned from of several channels."""
    if self._channels == "mean":
      return samples.mean(axis=1)
    energies = np.square(samples, dtype=np.float64).sum(axis=0)
    channel = energies.argmax() if self._channels == "loudest" else 0
    return np.ascontiguousarray(samples[:, channel])

  def _frames(self, samples: torch.Tensor) -> torch.Tensor:
    """Returns a view of all frames; the first is centred at sample 0."""
    size, hop = len(self._window), self._hop
    last = -(-len(samples) // hop) * hop  # The centre of the last frame.
    after = last + size - size // 2 - len(samples)
    padded = nn.functional.pad(samples, (size // 2, after))
    return padded.unfold(0, size, hop)

  def _log_mel(self, frames: torch.Tensor) -> torch.Tensor:
    """Returns the feature of frames, [frames, mel bands]."""
    # In float64 and rounded after it, as pcl_jax does.
    spectrum = torch.fft.rfft((frames * self._window).double())
    spectrum = spectrum.to(torch.complex64)
    power = (spectrum.real**2 + spectrum.imag**2) @ self._filters
    feature = torch.log10(POWER_OFFSET + power).clamp_min(self.silence)
    return feature.half().float()


def _mel_filters(feature: dict[str, Any]) -> torch.Tensor:
  """Returns triangles of unit area, [bins, mel bands]."""
  rate, size = feature["sample_rate_hz"], feature["frame_samples"]
  # Slaney's scale is linear to 1 kHz, 15 mel, and logarithmic above.
  low, high = (
    hz * 3.0 / 200.0 if hz < 1e3 else 15.0 + 27.0 * math.log(hz / 1e3, 6.4)
    for hz in (feature["low_hz"], feature["high_hz"])
  )
  bands = feature["mel_bands"]
  mel = torch.linspace(low, high, bands + 2, dtype=torch.float64)
  above = 1e3 * torch.exp((mel - 15.0) * math.log(6.4) / 27.0)
  corners_hz = torch.where(mel < 15.0, mel * 200.0 / 3.0, above)
  low, centre, high = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
  bins_hz = torch.arange(size // 2 + 1).double()[:, None] * rate / size
  rising = (bins_hz - low) / (centre - low)
  falling = (high - bins_hz) / (high - centre)
  triangles = torch.minimum(rising, falling).clamp_min(0.0)
  return (triangles * (2.0 / (high - low))).float()


def _checked(audio: Any, sample_rate: int | float) -> np.ndarray:
  """Returns the samples as float32 [samples, channels]."""
  if isinstance(audio, torch.Tensor):
    audio = audio.detach().cpu().numpy()
  samples = np.asarray(audio)
  if not LOWEST_RATE_HZ <= sample_rate < math.inf:
    raise ValueError(
      f"sample_rate is {sample_rate}: give one of at least {LOWEST_RATE_HZ} Hz."
    )
  if not np.issubdtype(samples.dtype, np.floating):
    raise ValueError(
      f"the audio is of type {samples.dtype}: give floating-point numbers of "
      "full scale 1, for int16 by audio / 32768."
    )
  shape = samples.shape
  if len(shape) not in (1, 2) or not samples.size or shape[-1] > shape[0]:
    raise ValueError(
      f"the audio has shape {shape}: give [samples] or [samples, channels], "
      "with more samples than channels; audio.T turns it round."
    )
  # Written so that not-a-number is refused.
  if not -LARGEST_SAMPLE <= samples.min() <= samples.max() <= LARGEST_SAMPLE:
    raise ValueError(
      f"some samples are not finite numbers, or beyond {LARGEST_SAMPLE:g} "
      "where full scale is 1: leave them out, or scale them."
    )
  return samples.reshape(len(samples), -1).astype(np.float32)


def _resampled(mono: np.ndarray, hz: int | float, target_hz: int) -> np.ndarray:
  """Returns audio at the encoder's sample rate; at least one sample."""
  if hz == target_hz:
    return mono
  try:
    import soxr
  except ImportError as error:
    raise ImportError(
      f"audio at {hz} Hz, not {target_hz}, needs soxr: pip install soxr."
    ) from error
  found = soxr.resample(mono, hz, target_hz, quality="HQ")
  return found if len(found) else mono[:1]


class BasicBlock(nn.Module):
  """Two 3x3 convolutions, whose output is added to the input."""

  def __init__(self, inputs: int, outputs: int, stride: int):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(outputs)
    self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(outputs)
    self.relu = nn.ReLU(inplace=True)
    self.downsample = nn.Sequential()
    if stride != 1 or inputs != outputs:
      conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
      self.downsample.extend([conv, nn.BatchNorm2d(outputs)])

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Returns [batch, outputs, mel / stride, time / stride]."""
    y = self.relu(self.bn1(self.conv1(x)))
    y = self.bn2(self.conv2(y))
    y += self.downsample(x)
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
      first = BasicBlock(inputs, outputs, 2 if stage else 1)
      blocks = nn.Sequential(first, BasicBlock(outputs, outputs, 1))
      self.add_module(f"layer{stage + 1}", blocks)
      inputs = outputs

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Returns the averages, then the maxima, of the last feature map."""
    x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


class ScCnn(nn.Sequential):
  """Short-chunk CNN, [batch, 1, mel, time] to [batch, 8 width]."""

  def __init__(self, width: int):
    super().__init__(nn.BatchNorm2d(1))
    self.features, inputs = 8 * width, 1
    pools = [(2, 2)] * 4 + [(1, 2)] * 2 + [(2, 2)]
    for times, pool in zip((1, 1, 2, 2, 2, 2, 4), pools, strict=True):
      block = {
        "conv": nn.Conv2d(inputs, times * width, 3, 1, 1),
        "bn": nn.BatchNorm2d(times * width),
        "relu": nn.ReLU(inplace=True),
        "pool": nn.MaxPool2d(pool),
      }
      self.append(nn.Sequential(collections.OrderedDict(block)))
      inputs = times * width
    self.append(nn.Flatten())


class PclEncoder(nn.Module):
  """Front end, backbone and projection, by the names of their publication."""

  def __init__(self, config: dict[str, Any]):
    """Builds the network of a config.json, with untrained weights."""
    super().__init__()
    _check_config(config)
    self.config, self.front_end = config, FrontEnd(config)
    built = config["architecture"]
    if built["backbone_type"] == "resnet":
      name, network = "resnet_model", ResNet18(built["width"])
    else:
      name, network = "audio_backbone", ScCnn(built["width"])
    fc = nn.Sequential(
      nn.Linear(network.features, built["fc_hidden_dim"]),
      nn.ReLU(),
      nn.Dropout(built["fc_dropout"]),
      nn.Linear(built["fc_hidden_dim"], built["fc_output_dim"]),
    )
    self.audio_encoder = nn.ModuleDict({name: network})
    self.fc_audio = nn.ModuleDict({"fc": fc})

  @classmethod
  def from_pretrained(
    cls, folder: str | pathlib.Path, *, verify: bool = True
  ) -> "PclEncoder":
    """Loads an exported encoder, in evaluation mode, on the CPU.

    Args:
      folder: with config.json and model.safetensors or model.pt.
      verify: refuses weights of another SHA-256 than config.json has, and
        other vectors of the golden audio than golden.npz has, if it is there.

    Raises:
      OSError: a file is missing or cannot be read.
      ValueError: a file is damaged, or is not what this file knows.
    """
    folder = pathlib.Path(folder)
    try:
      config = json.loads((folder / "config.json").read_text("utf-8"))
      encoder = cls(config).eval()
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(f"{folder / 'config.json'}: {error!r}") from None
    weights, golden = folder / "model.safetensors", folder / "golden.npz"
    if not weights.exists() and (folder / "model.pt").exists():
      weights = folder / "model.pt"
    data = weights.read_bytes()
    digest = config.get(weights.name, {}).get("sha256")
    if verify and digest not in (None, hashlib.sha256(data).hexdigest()):
      raise ValueError(
        f"{weights} is not the file that was exported, by its SHA-256: {_AGAIN}"
      )
    try:
      encoder.load_state_dict(_tensors(weights, data))
    except Exception as error:  # Whatever a damaged file causes.
      reason = " ".join(str(error).split())[:300]
      raise ValueError(
        f"{weights} does not hold this encoder's weights ({reason}): {_AGAIN}"
      ) from error
    if verify and golden.exists():
      encoder._check_golden(golden)
    return encoder

  def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns features and projection of patches [batch, frames, mel bands]."""
    (backbone,) = self.audio_encoder.values()
    features = backbone(patches.transpose(1, 2)[:, None])
    return features, self.fc_audio["fc"](features)

  @torch.no_grad()
  def embed(
    self,
    audio: Any,
    sample_rate: int | float,
    *,
    layer: str = "features",
    per_patch: bool = False,
    batch_patches: int = 64,
  ) -> torch.Tensor:
    """Embeds a recording: the mean over its whole patches.

    Args:
      audio: floating-point samples of full scale 1, [samples] or [samples,
        channels], as array or tensor.
      sample_rate: how many samples a second there are, at least 1000.
      layer: `features`, for search and classifiers, or `projection`, which
        the loss saw in training.
      per_patch: gives a vector for each patch in place of their mean.
      batch_patches: patches encoded at once, on the device of the weights.

    Returns:
      float32 [size of the layer] or [patches, size], on the CPU.

    Raises:
      ValueError: an argument is not as above, or training mode is on.
    """
    if layer not in LAYERS:
      raise ValueError(f"layer is {layer!r}: give one of {', '.join(LAYERS)}.")
    if self.training:
      raise ValueError("the encoder is in training mode: call eval() first.")
    weight, found, silent = next(self.parameters()), [], True
    for some in self.front_end.patches(audio, sample_rate, batch_patches):
      silent = silent and bool((some == self.front_end.silence).all())
      vectors = self(some.to(weight.device, weight.dtype))
      found.append(vectors[LAYERS.index(layer)].float().cpu())
    if silent:
      warnings.warn("silent audio: its vector means nothing", stacklevel=3)
    found = torch.cat(found)
    return found if per_patch else found.double().mean(0).float()

  def _check_golden(self, path: pathlib.Path) -> None:
    """Refuses an encoder that gives other vectors than those on file."""
    with np.load(path, allow_pickle=False) as file:
      golden = {name: file[name] for name in file.files}
    rate_hz = int(golden["sample_rate_hz"])
    for layer in LAYERS:
      found = self.embed(golden["samples"], rate_hz, layer=layer)
      off = float((found - torch.from_numpy(golden[layer])).abs().max())
      part = _TOLERANCES[str(golden["platform"])]
      limit = part * float(np.abs(golden[layer]).max())
      if not off <= limit:  # So it is where a number is not finite.
        raise ValueError(
          f"{path.parent} gives other {layer} of its golden audio than it did, "
          f"by {off:.3g} where {limit:.3g} is allowed: {_AGAIN}"
        )


def _check_config(config: dict[str, Any]) -> None:
  """Raises ValueError where a config is not one that this file computes."""
  feature = config["feature"]
  rates_hz = {"sample_rate_hz": (feature["sample_rate_hz"],)}
  found = {"channels": "mean"} | feature | config["architecture"] | config
  for key, known in (KNOWN | rates_hz).items():
    if found.get(key) not in known:
      raise ValueError(
        f"{key} is {found.get(key)!r}, and this file computes {known}: use the "
        "modeling_pcl.py that came with it"
      )


def _tensors(path: pathlib.Path, data: bytes) -> dict[str, torch.Tensor]:
  """Returns the tensors of a file, by name; code in it is never run."""
  if path.suffix == ".pt":
    return torch.load(path, map_location="cpu", weights_only=True)
  # The length of the header, the header, the numbers: no package is needed.
  begin = 8 + int.from_bytes(data[:8], "little")
  header, numbers = json.loads(data[8:begin]), bytearray(data[begin:])
  header.pop("__metadata__", None)
  tensors = {}
  for name, one in header.items():
    first, end = one["data_offsets"]
    if one["dtype"] != "F32":
      raise ValueError(f"{name} is of type {one['dtype']}")
    some = torch.frombuffer(numbers[first:end], dtype=torch.float32)
    tensors[name] = some.reshape(one["shape"])
  return tensors

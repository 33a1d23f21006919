"""Some seconds of generated audio, and the vectors that a bundle must give.

They go through all that a user's recording goes through, so that another
feature, another network and other weights show themselves, whatever they are
due to.
"""

import pathlib
from typing import Any, NamedTuple
import zipfile

import jax
from jaxtyping import Float
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors

_SECONDS = 9  # Two patches and a rest.
_LARGEST = 2**26  # Bytes of the arrays of a file that is read.
# Differences that are allowed, as a part of a vector's largest number. A CPU's
# rounding decides some float16 numbers of the feature; GPUs and TPUs multiply
# with fewer digits.
TOLERANCES = {"cpu": 1e-3, "gpu": 2e-2, "tpu": 5e-2}


class Vectors(NamedTuple):
  """A song's vectors of both layers, the mean over its patches, float32."""

  features: Float[np.ndarray, " features"]
  projection: Float[np.ndarray, " outputs"]


class Golden(NamedTuple):
  """What golden.npz holds.

  Attributes:
    samples: audio of full scale 1 at the feature's rate, float32 [samples].
    vectors: what the encoder gave for it.
    platform: what it was computed on: cpu, gpu or tpu.
  """

  samples: Float[np.ndarray, " samples"]
  vectors: Vectors
  platform: str


def generate() -> Float[np.ndarray, " samples"]:
  """Makes audio with tones that begin and fade, noise and silence.

  Returns:
    9 s at the feature's sample rate, float32 with the values of 16-bit audio.
  """
  rate_hz = melspectrogram.SETTINGS.sample_rate_hz
  time_s = np.arange(_SECONDS * rate_hz) / rate_hz
  noise = np.random.default_rng(0).normal(0, 0.02, len(time_s))
  audio = noise * (time_s > 1.0)  # The first second has one tone alone.
  for number in range(3 * _SECONDS):
    after_s = time_s - number / 3
    hz = 110.0 * 2 ** (number * 7 % 31 / 6)
    fading = np.where(after_s < 0, 0.0, np.exp(-4 * np.maximum(after_s, 0)))
    audio += 0.2 * fading * np.sin(2 * np.pi * hz * after_s)
  return (np.round(audio * 32_767) / 32_768).astype(np.float32)


def platform() -> str:
  """Returns the name under which tolerances are listed for this device."""
  name = jax.local_devices()[0].platform
  return name if name in TOLERANCES else "gpu"


def vectors_of(
  encoder: Any, samples: Float[np.ndarray, " samples"], batch_patches: int
) -> Vectors:
  """Embeds samples of the feature's rate on both layers.

  Only the features need a program, the one that embedding uses.

  Args:
    encoder: a SongEncoder.
    samples: of full scale 1.
    batch_patches: patches encoded at once.
  """
  features = encoder.embed(
    samples,
    sample_rate_hz=melspectrogram.SETTINGS.sample_rate_hz,
    per_patch=True,
    batch_patches=batch_patches,
  ).vectors
  projected = encoder.network.projection(jax.numpy.asarray(features), False)
  return Vectors(features.mean(0), np.asarray(projected).mean(0))


def make(encoder: Any, batch_patches: int) -> Golden:
  """Returns golden audio and what a SongEncoder gives for it."""
  samples = generate()
  found = vectors_of(encoder, samples, batch_patches)
  return Golden(samples, found, platform())


def write(path: pathlib.Path, golden: Golden) -> None:
  """Writes golden.npz."""
  np.savez_compressed(
    path,
    samples=golden.samples,
    sample_rate_hz=np.int32(melspectrogram.SETTINGS.sample_rate_hz),
    platform=np.array(golden.platform),
    **golden.vectors._asdict(),
  )


def read(path: pathlib.Path) -> Golden:
  """Reads golden.npz.

  Raises:
    InputError: it cannot be read, or holds other arrays.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      size = sum(one.file_size for one in archive.infolist())
    if size > _LARGEST:
      raise ValueError(f"its arrays would take {size} bytes")
    with np.load(path, allow_pickle=False) as file:
      vectors = Vectors(*(file[name] for name in Vectors._fields))
      golden = Golden(file["samples"], vectors, str(file["platform"]))
      rate_hz = int(file["sample_rate_hz"])
    if rate_hz != melspectrogram.SETTINGS.sample_rate_hz:
      raise ValueError(f"its sample rate is {rate_hz} Hz")
    for one in (golden.samples, *vectors):
      if one.ndim != 1 or one.dtype != np.float32 or not np.isfinite(one).all():
        raise ValueError(f"an array is {one.dtype}{list(one.shape)}")
    if golden.platform not in TOLERANCES:
      raise ValueError(f"its platform is {golden.platform[:20]!r}")
  except (
    OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile
  ) as error:  # fmt: skip
    raise errors.InputError(
      f"{path} cannot be read as golden audio and its vectors ({error}): "
      "download or export the bundle again."
    ) from error
  return golden


def check(golden: Golden, found: Vectors, where: pathlib.Path) -> None:
  """Compares the vectors that an encoder gives with those on file.

  Args:
    golden: what is on file.
    found: what the encoder gives here.
    where: the bundle, for the message.

  Raises:
    InputError: they differ by more than rounding; it has both values.
  """
  here = platform()
  part = max(TOLERANCES[golden.platform], TOLERANCES[here])
  for name, ours in found._asdict().items():
    expected = getattr(golden.vectors, name)
    if ours.shape != expected.shape:
      raise errors.InputError(
        f"{where}: golden.npz has {len(expected)} {name}, and the network "
        f"gives {len(ours)}: download or export the bundle again."
      )
    limit = part * float(np.abs(expected).max(initial=0.0))
    off = np.abs(ours - expected)
    if not (off <= limit).all():  # So it is where a number is not finite.
      worst = int(np.argmax(np.where(np.isfinite(off), off, np.inf)))
      raise errors.InputError(
        f"{where} gives other embeddings than it was exported with: number "
        f"{worst} of its {name} of the golden audio is {ours[worst]:.6g} here "
        f"({here}), and golden.npz says {expected[worst]:.6g} "
        f"({golden.platform}); {limit:.2g} would be allowed. Download or "
        "export it again, or use the version of pcl_jax that config.json "
        "names; pcl_jax.load(..., verify=False) loads it as it is."
      )

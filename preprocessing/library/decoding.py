"""Decodes many audio files, several at once, and goes on where one fails."""

import dataclasses
import pathlib

from jaxtyping import Float16
import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.audio import decode as audio_file
from pcl_jax.common import usable_cores

MAX_THREADS = 8


@dataclasses.dataclass(frozen=True)
class Decoded:
  """A file's feature, or why it has none.

  Attributes:
    feature: float16 [frames, 48], or None.
    reason: why there is none, or empty.
    needs: what is missing to read the file, or empty.
    damage: what is missing of the feature, or empty.
  """

  feature: Float16[np.ndarray, "frames bands"] | None
  reason: str = ""
  needs: str = ""
  damage: str = ""


def default_threads() -> int:
  """Returns how many files are decoded at once where nothing is said."""
  return min(usable_cores.count(), MAX_THREADS)


def decode(
  path: pathlib.Path,
  from_s: float = 0.0,
  to_s: float | None = None,
  channels: str = channel_mix.MEAN,
) -> Decoded:
  """Computes the feature of a file, or of a part of it; never raises.

  Args:
    path: an audio file.
    from_s: where the part begins, in seconds.
    to_s: where it ends; None for the file's end.
    channels: what is taken of several, one of `channel_mix.CHOICES`.
  """
  if not path.exists():
    return Decoded(
      None, "it is no longer in the folder, or is a link to nowhere"
    )
  damage: list[str] = []
  try:
    feature = audio_file.read_feature(
      path, from_s, to_s, lambda _, reason: damage.append(reason), channels
    )
    return Decoded(feature, damage="; ".join(damage))
  except audio_file.UnreadableAudio as error:
    return Decoded(None, error.reason, error.needs)
  # One strange file must not end a run of hours.
  except Exception as error:  # noqa: BLE001
    return Decoded(None, f"decoding it fails ({type(error).__name__}: {error})")

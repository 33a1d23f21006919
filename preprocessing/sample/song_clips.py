"""Songs of a sample as short files that a browser plays."""

import os
import pathlib

import av
from jaxtyping import Float
import numpy as np

from pcl_jax.common import storage
from preprocessing.sample import synthesis

SUFFIX = ".ogg"
_SECONDS = 6
_BITS_PER_S = 24_000
_EFFORT = {"compression_level": "2"}  # Of 10, which takes as long as playing.
_FADE_S = 0.5


def write(path: pathlib.Path, samples: Float[np.ndarray, " samples"]) -> None:
  """Writes the beginning of a song as Opus in Ogg, faded out.

  Args:
    path: the file.
    samples: the song at 16 kHz, in [-1, 1].
  """
  kept = samples[: _SECONDS * synthesis.RATE_HZ].astype(np.float64)
  fade = min(round(_FADE_S * synthesis.RATE_HZ), len(kept))
  kept[len(kept) - fade :] *= np.linspace(1, 0, fade)
  whole = np.round(kept.clip(-1, 1) * 32767).astype(np.int16)
  path.parent.mkdir(parents=True, exist_ok=True)
  # Exact: without random numbers in the file, the same song is the same bytes.
  # With its protocol and absolute, so that no folder is taken for one.
  exact = {"fflags": "+bitexact"}
  with (
    storage.write_aside(path) as partial,
    av.open(
      f"file:{os.path.abspath(partial)}", "w", format="ogg", options=exact
    ) as file,
  ):
    stream = file.add_stream(
      "libopus",
      synthesis.RATE_HZ,
      _EFFORT,
      layout="mono",
      bit_rate=_BITS_PER_S,
    )
    frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = synthesis.RATE_HZ, 0
    for part in (frame, None):
      file.mux(stream.encode(part))

"""Audio files encoded for tests, and read."""

import pathlib
from unittest import mock

import av
from jaxtyping import Float32
import numpy as np

from pcl_jax.audio import decode

# Of what libsndfile does not write: suffix -> encoder and container.
FORMATS = {
  "m4a": ("aac", "ipod"),
  "aac": ("aac", "adts"),
  "wma": ("wmav2", "asf"),
  "wv": ("wavpack", "wv"),
  "mka": ("aac", "matroska"),
  "ac3": ("ac3", "ac3"),
}


def write(
  path: pathlib.Path,
  samples: Float32[np.ndarray, "n channels"],
  rate_hz: int,
) -> pathlib.Path:
  """Encodes one or two channels as the path's suffix says."""
  encoder, container = FORMATS[path.suffix[1:]]
  options = {"movflags": "+faststart"} if container == "ipod" else {}
  with av.open(str(path), "w", format=container, options=options) as file:
    stream = file.add_stream(encoder, rate=rate_hz)
    stream.layout = ("mono", "stereo")[samples.shape[1] - 1]
    stream.bit_rate = 128_000
    if encoder == "aac":  # Its decoder draws noise, from its beginning on.
      stream.options = {"aac_pns": "0"}
    resampler = av.AudioResampler(
      format=stream.codec_context.format.name,
      layout=stream.layout,
      rate=rate_hz,
      frame_size=stream.codec_context.frame_size or 1024,
    )
    whole = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(samples.T), "fltp", stream.layout.name
    )
    whole.sample_rate, whole.pts = rate_hz, 0
    for frame in (*resampler.resample(whole), *resampler.resample(None)):
      file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
  return path


def read(
  path: pathlib.Path, *part: float, block_samples: int = decode.BLOCK_SAMPLES
) -> Float32[np.ndarray, " n"]:
  """Reads a file's audio, or a part of it, with blocks of this size."""
  with mock.patch.object(decode, "BLOCK_SAMPLES", block_samples):
    return np.concatenate(list(decode.audio_blocks(path, *part)))

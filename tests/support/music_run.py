"""A run, and a folder of audio to embed with it."""

import pathlib

from pcl_jax import embed as command

BATCH = "--batch_patches=4"
# Seconds, and the patches they make: a frame is 0.016 s.
SONGS = {
  "a/one sample.wav": (1 / 16_000, 1),
  "a/short.wav": (1.0, 1),
  "b/c/long.flac": (33.0, 8),
  "b/song.WAV": (9.0, 2),
  "tail.wav": (12.2, 2),
}


def embed(made: pathlib.Path, *flags: str, out: pathlib.Path) -> int | None:
  """Runs python -m pcl_jax.embed with the run of the fixture `made`."""
  return command.main([f"--workdir={made / 'run'}", f"--out={out}", *flags])

"""A data set of random features, as long as Melon's songs."""

import pathlib
import shutil

from benchmarks.accelerator import part_context
from tests.support.tiny import tiny_run

PAIRS = 384  # The configs' batch.
TINY_PAIRS, TINY_WIDTH = 8, 4


def make(context: part_context.Context) -> pathlib.Path:
  """Returns the folder of the data set, which is made where it is absent."""
  folder = context.scratch / "random"
  if not folder.exists():
    partial = context.scratch / "random.partial"
    shutil.rmtree(partial, ignore_errors=True)
    songs, frames = (100, 900) if context.tiny else (6000, 1876)
    tiny_run.make_data_set(partial, frames=frames, songs=songs)
    partial.rename(folder)
  return folder


def changes(context: part_context.Context) -> dict[str, object]:
  """Returns the keys of a config that trains on it, at the part's size."""
  found = {
    "data.dir": str(make(context)),
    "data.batch_size": TINY_PAIRS if context.tiny else PAIRS,
  }
  if context.tiny:
    found["model_params.audio.width"] = TINY_WIDTH
  return found

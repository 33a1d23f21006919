"""Music audio encoders learned from playlists.

  import pcl_jax
  encoder = pcl_jax.load("runs/demo")
  vector = encoder.embed("song.mp3")

docs/python.md shows what else there is. Nothing is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from pcl_jax.common.errors import InputError
  from pcl_jax.common.errors import RunError
  from pcl_jax.embedding.encoder_loading import load
  from pcl_jax.embedding.song_encoder import SongEncoder
  from pcl_jax.embedding.tables.song_table import Table
  from pcl_jax.embedding.tables.song_table import read_table

__all__ = [
  "InputError",
  "RunError",
  "SongEncoder",
  "Table",
  "load",
  "read_table",
]
_HOMES = {
  "InputError": "pcl_jax.common.errors",
  "RunError": "pcl_jax.common.errors",
  "SongEncoder": "pcl_jax.embedding.song_encoder",
  "Table": "pcl_jax.embedding.tables.song_table",
  "load": "pcl_jax.embedding.encoder_loading",
  "read_table": "pcl_jax.embedding.tables.song_table",
}


def __getattr__(name: str) -> Any:
  if name not in _HOMES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])

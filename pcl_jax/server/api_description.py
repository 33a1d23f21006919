"""The addresses of the server as OpenAPI describes them."""

from collections.abc import Sequence
from typing import Any

from pcl_jax.common import versions
from pcl_jax.server import audio_files
from pcl_jax.server import endpoints

_AUDIO = endpoints.Endpoint(
  "/api/audio",
  "The audio of a song, or a range of it.",
  lambda *_: None,
  audio_files.PARAMETERS,
)
_HEALTH = endpoints.Endpoint(
  "/api/health",
  "Whether the server is there, and why it does not serve a newer table.",
  lambda *_: None,
)


def described(every: Sequence[endpoints.Endpoint]) -> dict[str, Any]:
  """Returns the OpenAPI document of addresses, and of audio and health."""
  paths: dict[str, dict[str, Any]] = {}
  for one in (*every, _AUDIO, _HEALTH):
    paths.setdefault(one.path, {})[one.method.lower()] = one.described()
  return {
    "openapi": "3.1.0",
    "info": {
      "title": "pcl_jax",
      "version": versions.own(),
      "description": "Songs of a library that sound alike.",
    },
    "paths": paths,
    "components": {
      "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}
    },
  }

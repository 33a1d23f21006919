"""An audio file that is sent as a query, embedded as the songs were."""

import tempfile
import threading
from typing import Any

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding import song_queries
from pcl_jax.server import api_parameters
from pcl_jax.server import song_api
from pcl_jax.server.endpoints import Library
from pcl_jax.server.endpoints import Values

_BUSY = "another file is being embedded: send it again in a while."


class AudioQueries:
  """Embeds files that are sent, one at a time, by the table's encoder."""

  def __init__(self, workdir: str | None = None):
    """Takes where the encoder is; by default where the table says."""
    self._workdir = workdir
    self._encoder: song_encoder.SongEncoder | None = None
    self._turn = threading.Lock()

  def similar(self, library: Library, values: Values, body: bytes) -> Any:
    """Answers with songs that sound like a file, and like songs of `like`.

    Raises:
      Refusal: the file cannot be read or is silent, another one is being
        embedded, or there is no encoder.
      InputError: as `song_api.alike` does.
    """
    rows = [library.sounding_row(one) for one in values["like"]]
    wanted = [library.query(row) for row in rows]
    return song_api.alike(
      library, values, [self._embedded(library, body), *wanted]
    )

  def _embedded(self, library: Library, body: bytes) -> song_queries.Query:
    if not body:
      raise api_parameters.Refusal(
        400, "the body is empty: send an audio file as it is."
      )
    if not self._turn.acquire(blocking=False):
      raise api_parameters.Refusal(503, _BUSY, {"retry-after": "5"})
    try:
      return self._embed(library, body)
    finally:
      self._turn.release()

  def _embed(self, library: Library, body: bytes) -> song_queries.Query:
    table = library.table
    if self._encoder is None:
      try:
        self._encoder = song_queries.load_encoder(table, self._workdir)
      except errors.InputError as error:
        raise api_parameters.Refusal(
          501, f"files cannot be embedded here: {error}"
        ) from error
    with tempfile.NamedTemporaryFile(prefix="pcl_jax-query-") as file:
      file.write(body)
      file.flush()
      try:
        path = file_names.path(file.name)
        return song_queries.embed_file(
          self._encoder, table, path, refuse_silence=True
        )
      except errors.InputError as error:
        text = str(error).replace(file.name, "the file that was sent")
        raise api_parameters.Refusal(400, text) from error

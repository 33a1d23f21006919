"""The encoders of a strategy, one for each mode that it uses."""

from collections.abc import Mapping
from typing import Any

from flax import nnx
import jax
from jaxtyping import Array, Float
import numpy as np

from pcl_jax.models import audio_encoder
from pcl_jax.models import genre_encoder
from pcl_jax.models import playlist_encoder


class Encoders(nnx.Module):
  """The audio encoder, and the playlist and genre encoders where used."""

  def __init__(
    self,
    *,
    audio_params: Mapping[str, Any],
    cf_params: Mapping[str, Any] | None = None,
    genre_params: Mapping[str, Any] | None = None,
    genre_table: Float[np.ndarray, "codes dims"] | None = None,
    rngs: nnx.Rngs,
  ):
    """Draws the weights; an encoder without arguments is left out.

    `genre_table` has the initial vectors of the genre codes.
    """
    self.audio = audio_encoder.AudioEncoder(**audio_params, rngs=rngs)
    self.cf = (
      None
      if cf_params is None
      else playlist_encoder.PlaylistEncoder(**cf_params, rngs=rngs)
    )
    self.genre_w2v = (
      None
      if genre_params is None
      else genre_encoder.GenreEncoder(genre_table, **genre_params, rngs=rngs)
    )

  def __call__(
    self, batch: Mapping[str, Array], training: bool, key: Array | None = None
  ) -> dict[str, Float[Array, "rows d"]]:
    """Returns each mode's embedding of each row of a batch.

    The batch has `audio` patches [rows, frames, bands] and, where there is an
    encoder for them, `cf` vectors [rows, dims] and `genre_w2v` codes [rows,
    tags]. The key is for dropout, which training turns on.
    """
    keys = (None, None, None) if key is None else jax.random.split(key, 3)
    _, projection = self.audio(batch["audio"], training, keys[0])
    out = {"audio": projection}
    if self.cf is not None:
      out["cf"] = self.cf(batch["cf"], training, keys[1])
    if self.genre_w2v is not None:
      out["genre_w2v"] = self.genre_w2v(batch["genre_w2v"], training, keys[2])
    return out

"""Windows over a recording, as other projects' benchmarks ask for them."""

from typing import Any, NamedTuple

from jaxtyping import Float
import numpy as np

from pcl_jax.audio import decode
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.embedding import song_encoder
from pcl_jax.models import compiled_encoder

TAILS = ("drop", "weight")
_FRAME_S = song_patches.SECONDS / song_patches.FRAMES


class Windows(NamedTuple):
  """How a recording is cut; without arguments, as in the paper.

  A window is embedded as a recording of its own: by the mean over its whole
  patches of 4.096 s, padded with silence where it is shorter than one.

  Attributes:
    window_s: length, rounded to frames of 0.016 s.
    hop_s: from one window's beginning to the next's; None for the length.
    tail: what becomes of the sound after the last whole window. `drop` leaves
      it out, unless there is no whole window; with `weight` one more window
      begins a hop after the last one, which counts by its length.
    layer: `features` or `projection`.
    batch_patches: patches encoded at once.
  """

  window_s: float = song_patches.SECONDS
  hop_s: float | None = None
  tail: str = TAILS[0]
  layer: str = compiled_encoder.LAYERS[0]
  batch_patches: int = 8

  @jax_setup.in_own_types
  def embed(
    self,
    encoder: song_encoder.SongEncoder,
    samples: Any,
    sample_rate_hz: int | float,
  ) -> tuple[Float[np.ndarray, "windows size"], Float[np.ndarray, " windows"]]:
    """Embeds samples, [samples] or [samples, channels], of full scale 1.

    Returns:
      The vectors of the windows, float32, and their weights, at most 1.

    Raises:
      InputError: the samples or the windows are not as above.
    """
    song_encoder.check_choice("tail", self.tail, TAILS)
    song_encoder.check_choice("layer", self.layer, compiled_encoder.LAYERS)
    hop_s = self.window_s if self.hop_s is None else self.hop_s
    lengths_s = (self.window_s, hop_s)
    if not all(_FRAME_S <= one < np.inf for one in lengths_s):
      raise errors.InputError(
        f"window_s is {self.window_s} and hop_s {hop_s}: give at least "
        f"{_FRAME_S} s, the length of a frame."
      )
    window, hop = (round(one / _FRAME_S) for one in lengths_s)
    blocks = decode.sample_blocks(samples, sample_rate_hz, encoder.channels)
    feature = np.concatenate(list(blocks))
    whole = max((len(feature) - window) // hop + 1, 0)
    # The last frame is centred at the end, and mostly beyond it.
    sound, used = len(feature) - 1, hop * (whole - 1) + window
    begins = [hop * number for number in range(whole)]
    if not whole or (self.tail == "weight" and sound > max(used, hop * whole)):
      begins.append(hop * whole)
    cut = [feature[begin : begin + window] for begin in begins]
    pieces = ((i, song_patches.cut(one).patches) for i, one in enumerate(cut))
    size = song_encoder.checked_batch(self.batch_patches)
    batches = song_patches.gathered(pieces, size)
    embedder = compiled_encoder.make_embedder(encoder.network, self.layer)
    found = song_patches.encoded(embedder, batches)
    vectors, _ = song_patches.mean_vectors(found, len(cut))
    lengths = [min(sound - begin, window) for begin in begins]
    return vectors, np.array(lengths) / window

"""Augmentation of patches on the device: what players and rooms change.

Levels, equalisers, noise, gaps and a little tempo differ between recordings of
the same music. Each is done here to the feature, where it costs a small part of
a training step. Strengths in dB are those of the audio: a gain of g dB is a
factor of 10^(g / 20) on its samples and of 10^(g / 10) on the mel power. As the
feature is log10(0.01 + power), it rises by g / 10 where it is far above -2, and
silence stays silence.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
import numpy as np

from pcl_jax.audio import melspectrogram

_CURVES = 8  # Cosines in a random curve; the finest turns every 6 bands.
_NOISE_RANGE_DB = 30.0
_NOISE_PATCHES = 16  # How many patches long the noise of a batch is.


@dataclasses.dataclass(frozen=True)
class Strengths:
  """How strongly patches are changed; what is 0 is left out."""

  gain_db: float = 0.0  # Gains are drawn from -it to it.
  # The gain of the highest band over the lowest is drawn from -it to it; in
  # between it is linear in the bands.
  slope_db: float = 0.0
  equaliser_db: float = 0.0  # Standard deviation of a smooth curve over bands.
  # Noise lies so far below a patch's mean power, or up to 30 dB further.
  noise_db: float = 0.0
  time_masks: int = 0  # Gaps of a patch, in which it is silent.
  time_mask_frames: int = 32  # The longest of them.
  band_masks: int = 0  # Gaps between bands.
  band_mask_bands: int = 6  # The widest of them.
  stretch: float = 0.0  # The tempo changes by up to this share.

  @property
  def is_on(self) -> bool:
    """Whether anything is changed."""
    widths = ("time_mask_frames", "band_mask_bands")
    values = dataclasses.asdict(self)
    return any(value for name, value in values.items() if name not in widths)


def augment(
  key: Key[Array, ""],
  patches: Float[Array, "rows frames bands"],
  strengths: Strengths,
) -> Float[Array, "rows frames bands"]:
  """Changes each patch by strengths of its own, in float32.

  All is drawn for the rows of the global batch, so that the result does not
  depend on the devices.
  """
  s = strengths
  rows, frames, bands = patches.shape
  tempo_key, gain_key, noise_key, time_key, band_key = jax.random.split(key, 5)
  patches = patches.astype(jnp.float32)
  if s.stretch:
    rates = jax.random.uniform(
      tempo_key, (rows,), minval=1 - s.stretch, maxval=1 + s.stretch
    )
    patches = stretched(patches, rates)
  has_gain = s.gain_db or s.slope_db or s.equaliser_db
  if has_gain or s.noise_db:
    power = to_power(patches)
    if has_gain:
      power = amplified(power, draw_gains_db(gain_key, rows, bands, s))
    if s.noise_db:
      power = power + draw_noise(noise_key, power, s.noise_db)
    patches = to_feature(power)
  if s.time_masks:
    shape, most = (rows, s.time_masks), s.time_mask_frames
    gaps = draw_gaps(time_key, shape, frames, most)
    patches = jnp.where(gaps[:, :, None], melspectrogram.SILENCE, patches)
  if s.band_masks:
    shape, most = (rows, s.band_masks), s.band_mask_bands
    gaps = draw_gaps(band_key, shape, bands, most)
    patches = jnp.where(gaps[:, None, :], melspectrogram.SILENCE, patches)
  return patches


def to_power(feature: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
  """Returns the mel power of a feature, at least 0."""
  power = jnp.exp(feature * np.float32(np.log(10)))
  return jnp.maximum(power - melspectrogram.POWER_OFFSET, 0.0)


def to_feature(power: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
  """Returns log10(0.01 + mel power), -2 for silence."""
  feature = jnp.log10(melspectrogram.POWER_OFFSET + power)
  return jnp.maximum(feature, melspectrogram.SILENCE)


def amplified(
  power: Float[Array, "rows frames bands"],
  gains_db: Float[Array, "rows bands"],
) -> Float[Array, "rows frames bands"]:
  """Returns the power after a gain in each band, in dB of the audio."""
  return power * (10.0 ** (gains_db / 10.0))[:, None, :]


def draw_gains_db(
  key: Key[Array, ""], rows: int, bands: int, strengths: Strengths
) -> Float[Array, "rows bands"]:
  """Draws the gain of each band of each patch: level, slope and equaliser."""
  s = strengths
  ends_key, curve_key = jax.random.split(key)
  ends = jax.random.uniform(ends_key, (2, rows, 1), minval=-1.0)
  across = np.linspace(-0.5, 0.5, bands, dtype=np.float32)
  gains_db = s.gain_db * ends[0] + s.slope_db * ends[1] * across[None]
  if s.equaliser_db:
    turns = np.pi * np.outer(np.arange(1, _CURVES + 1), np.arange(bands) + 0.5)
    curves = np.cos(turns / bands).astype(np.float32)
    weights = jax.random.normal(curve_key, (rows, _CURVES))
    scale = s.equaliser_db * (2 / _CURVES) ** 0.5
    gains_db += jnp.matmul(scale * weights, curves, precision="highest")
  return gains_db


def draw_noise(
  key: Key[Array, ""],
  power: Float[Array, "rows frames bands"],
  noise_db: float,
) -> Float[Array, "rows frames bands"]:
  """Draws the power of white noise in a range of bands of each patch.

  Its mean there lies `noise_db` below the mean power of the patch, or up to 30
  dB further; it varies from frame to frame as that of white noise does.
  """
  level_key, range_key, frame_key, place_key = jax.random.split(key, 4)
  rows, frames, bands = power.shape
  below_db = jax.random.uniform(
    level_key, (rows,), minval=noise_db, maxval=noise_db + _NOISE_RANGE_DB
  )
  level = power.mean(axis=(1, 2)) * 10.0 ** (-below_db / 10.0)
  one, other = bands * jax.random.uniform(range_key, (2, rows, 1))
  number = jnp.arange(bands)[None]
  inside = number >= jnp.floor(jnp.minimum(one, other))
  inside &= number < jnp.ceil(jnp.maximum(one, other))
  # A gamma variable is nearly the cube of a normal one (Wilson and Hilferty,
  # 1931), which is drawn without a loop.
  ninth = 1.0 / (9.0 * _noise_shapes()[None])
  drawn = jax.random.normal(frame_key, (_NOISE_PATCHES * frames, bands))
  varied = jnp.maximum(1.0 - ninth + np.sqrt(ninth) * drawn, 0.0) ** 3
  # Random bits are dear on a CPU: patches hear parts of one recording of noise.
  last = (_NOISE_PATCHES - 1) * frames
  starts = jax.random.randint(place_key, (rows, 1), 0, last + 1)
  heard = jnp.take(
    varied, starts + jnp.arange(frames)[None], axis=0, mode="clip"
  )
  return heard * (level[:, None] * inside)[:, None, :]


@functools.cache
def _noise_shapes() -> Float[np.ndarray, " bands"]:
  """Returns the mean squared over the variance of white noise, by band."""
  filters = melspectrogram.mel_filters().astype(np.float64)
  # Bins are correlated as the transform of the squared window says.
  squared = melspectrogram.window().astype(np.float64) ** 2
  correlation = np.abs(np.fft.fft(squared) / squared.sum()) ** 2
  bins = np.arange(len(filters))
  together = correlation[np.abs(bins[:, None] - bins[None, :])]
  variance = np.einsum("ib,ij,jb->b", filters, together, filters)
  return (filters.sum(axis=0) ** 2 / variance).astype(np.float32)


def draw_gaps(
  key: Key[Array, ""], shape: tuple[int, int], places: int, most: int
) -> Bool[Array, "rows places"]:
  """Draws gaps of 0 to `most` adjoining places; True is inside of one.

  Args:
    key: of the draw.
    shape: rows, and gaps of each.
    places: frames or bands.
    most: the largest width.
  """
  width_key, start_key = jax.random.split(key)
  widths = jax.random.randint(width_key, shape, 0, most + 1)
  room = places - widths
  starts = jax.random.randint(start_key, shape, 0, room + 1)
  return in_gaps(starts, widths, places)


def in_gaps(
  starts: Int[Array, "rows gaps"], widths: Int[Array, "rows gaps"], places: int
) -> Bool[Array, "rows places"]:
  """Tells for each place whether it lies in one of the gaps of its row."""
  after = jnp.arange(places)[None, :, None] - starts[:, None, :]
  return ((after >= 0) & (after < widths[:, None, :])).any(axis=-1)


def stretched(
  patches: Float[Array, "rows frames bands"], rates: Float[Array, " rows"]
) -> Float[Array, "rows frames bands"]:
  """Plays patches at another tempo, about their middle frame.

  The frame at a distance t from the middle becomes the one at t * rate, between
  two frames by linear interpolation. Beyond an end the patch is mirrored.
  """
  last = patches.shape[1] - 1
  middle = last / 2
  places = middle + (jnp.arange(last + 1) - middle)[None] * rates[:, None]
  places = last - jnp.abs(last - jnp.abs(places))
  before = jnp.minimum(places.astype(jnp.int32), last - 1)
  share = (places - before)[:, :, None]

  take = jax.vmap(functools.partial(jnp.take, axis=0, mode="clip"))
  return (1.0 - share) * take(patches, before) + share * take(
    patches, before + 1
  )

"""Made-up features and tags that belong together, for tests of probes."""

import numpy as np

from pcl_jax.evaluation.tagging import labelled_sets

SONGS = 200
TAGS = ("calm", "fast", "loud")


def make(
  one_each: bool = False, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, labelled_sets.LabelledSet]:
  """Makes features of which each tag is a noisy linear function.

  Args:
    one_each: whether each song has exactly the tag that fits it best.
    noise: of the tags.
    seed: of everything.

  Returns:
    Features, float32 [200, 8], and the set: 60 % training, 20 % validation.
  """
  rng = np.random.default_rng(seed)
  features = rng.standard_normal((SONGS, 8)) * rng.uniform(0.1, 9, 8) + 3
  plain = (features - 3) / features.std(axis=0)
  fits = plain @ rng.standard_normal((8, 3)) / 8**0.5
  fits += noise * rng.standard_normal(fits.shape)
  labels = fits > 0.6
  if one_each:
    labels = fits == fits.max(axis=1, keepdims=True)
  return features.astype(np.float32), labelled_sets.LabelledSet(
    name="made-up",
    tags=TAGS,
    ids=tuple(f"s{i}" for i in range(SONGS)),
    labels=labels,
    split=np.digitize(rng.random(SONGS), (0.6, 0.8)),
    one_each=one_each,
  )

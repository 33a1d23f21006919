"""Made-up features and tags that belong together, for tests of probes."""

import numpy as np

from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probes
from pcl_jax.evaluation.tagging import tagging_metrics

SONGS = 200
TAGS = ("calm", "fast", "loud")
# Searches whose programs all tests of probes share.
ONE_MEMBER = {"seeds": (0,), "rates": (1e-2,), "decays": (0.0,)}
EIGHT_MEMBERS = {
  "seeds": (0, 1),
  "rates": (1e-3, 1e-2),
  "decays": (0.0, 0.1),
}


def make(
  single_label: bool = False, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, labelled_sets.LabelledSet]:
  """Makes features of which each tag is a noisy linear function.

  Args:
    single_label: whether each song has exactly the tag that fits it best.
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
  if single_label:
    labels = fits == fits.max(axis=1, keepdims=True)
  return features.astype(np.float32), labelled_sets.LabelledSet(
    name="made-up",
    tags=TAGS,
    ids=tuple(f"s{i}" for i in range(SONGS)),
    labels=labels,
    split=np.digitize(rng.random(SONGS), (0.6, 0.8)),
    single_label=single_label,
  )


def train_probe_by_least_squares(
  features: np.ndarray,
  labelled: labelled_sets.LabelledSet,
  *,
  kind: str = "linear",
  song_index: np.ndarray | None = None,
  mean_of: str | None = None,
) -> tuple[task_base.Result, None]:
  """Stands in for `probes.train_probe`; compiles nothing."""
  if song_index is None:
    song_index = np.arange(len(features))
  rows = np.column_stack([features, np.ones(len(features))])
  part = labelled.split[song_index]
  train, test = part == labelled_sets.TRAIN, part == labelled_sets.TEST
  targets = labelled.labels[song_index[train]].astype(np.float64)
  weights = np.linalg.lstsq(rows[train], targets)[0]
  scores = probes.song_scores(
    (rows[test] @ weights).astype(np.float32),
    song_index[test],
    single_label=labelled.single_label,
    mean_of=mean_of,
  )
  settings = {"set": labelled.name, "probe": kind}
  return tagging_metrics.measure(
    scores[None], labelled, settings, draws=20
  ), None

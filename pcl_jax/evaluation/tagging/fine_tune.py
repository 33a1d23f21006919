"""Fine-tuning: encoder and head are trained together on a labelled set.

The head is the paper's MLP. A step takes one random patch from each of its
songs; a song is scored by the mean over the probabilities of the patches of its
grid. With an encoder that has its first weights,
this is training from scratch.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int
import numpy as np
import optax

from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.data import plans
from pcl_jax.data import song_store
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probe_training
from pcl_jax.evaluation.tagging import probes
from pcl_jax.evaluation.tagging import tagging_metrics
from pcl_jax.models import audio_encoder

_HEAD = "mlp"
_MEAN_OF = "probabilities"
_STARTS = 40  # Purpose of the draws of patch starts; training uses others.


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How an encoder is fine-tuned.

  Attributes:
    seeds: seeds of the head's first weights, the order and the patches.
    rates: learning rates of the encoder that are tried.
    head_rate: learning rate of the head.
    batch: patches per step, each from another song.
    rounds: largest number of epochs.
    patience: epochs without a better validation metric until training stops.
  """

  seeds: Sequence[int] = (0,)
  rates: Sequence[float] = (1e-4,)
  head_rate: float = 1e-3
  batch: int = 64
  rounds: int = 30
  patience: int = 5


class State(NamedTuple):
  """A network in training.

  Attributes:
    params: weights of `encoder` and `head`.
    stats: statistics of the encoder's batch norm.
    optimizer: state of Adam, with both rates.
  """

  params: dict[str, Any]
  stats: Any
  optimizer: optax.OptState


@optax.inject_hyperparams
def _adam(
  rate: jax.Array, head_rate: jax.Array
) -> optax.GradientTransformation:
  return optax.partition(
    {"encoder": optax.adam(rate), "head": optax.adam(head_rate)},
    {"encoder": "encoder", "head": "head"},
  )


def _logits(graphdef, params, stats, patches, training):
  # A copy, as variables of the outer trace cannot be changed in this one.
  model = nnx.merge(graphdef, params["encoder"], stats, copy=True)
  features = model(patches.astype(jnp.float32), training)
  found = probe_training.logits(params["head"], features)
  return found, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


@functools.partial(
  jax.jit,
  static_argnames=("graphdef", "single_label"),
  donate_argnames="state",
)
def step(graphdef, state, patches, labels, *, single_label):
  """Returns the state after a step on patches [batch, 256, 48]."""

  def objective(params):
    found, stats = _logits(graphdef, params, state.stats, patches, True)
    return probe_training.losses(found, labels, single_label).mean(), stats

  grads, stats = jax.grad(objective, has_aux=True)(state.params)
  # Both rates are those in the state, not these.
  updates, optimizer = _adam(0.0, 0.0).update(
    grads, state.optimizer, state.params
  )
  return State(optax.apply_updates(state.params, updates), stats, optimizer)


@functools.partial(jax.jit, static_argnames="graphdef")
def score(graphdef, params, stats, patches):
  """Returns the logits of patches, [batch, tags]."""
  return _logits(graphdef, params, stats, patches, False)[0]


@dataclasses.dataclass(frozen=True)
class Tuning:
  """An encoder, the songs it is trained on, and how.

  Attributes:
    encoder: the encoder to start from; it is left as it is.
    store: the store that holds the songs.
    rows: rows of the set's songs in the store.
    labelled: the set.
    plan: the schedule.
  """

  encoder: audio_encoder.AudioEncoder
  store: song_store.SongStore
  rows: Int[np.ndarray, " songs"]
  labelled: labelled_sets.LabelledSet
  plan: Schedule

  def start(self, seed: int, rate: float) -> tuple[nnx.GraphDef, State]:
    """Returns the network's structure, and its state before the first step."""
    graphdef, *variables = nnx.split(
      self.encoder.backbone, nnx.Param, nnx.BatchStat
    )
    # Copies, as a step donates its state.
    params, stats = (
      jax.tree.map(jnp.copy, nnx.to_pure_dict(one)) for one in variables
    )
    head = probe_training.start(
      _HEAD,
      self.encoder.backbone.features,
      len(self.labelled.tags),
      jax.random.key(seed),
    )
    both = {"encoder": params, "head": head}
    optimizer = _adam(jnp.float32(rate), jnp.float32(self.plan.head_rate))
    return graphdef, State(both, stats, optimizer.init(both))

  def batches(
    self, seed: int, number: int
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the patches and labels of a round's steps."""
    train = np.flatnonzero(self.labelled.split == labelled_sets.TRAIN)
    batch = min(self.plan.batch, len(train))
    steps = max(len(train) // batch, probe_training.LEAST_STEPS)
    (order,) = probe_training.draw_order(train, (seed,), number, batch, steps)
    rng = plans.generator(seed, number, _STARTS)
    for chosen in order:
      rows = self.rows[chosen]
      starts = plans.draw_starts(self.store.frames[rows], rng)
      shape = (batch, song_patches.FRAMES, song_patches.BANDS)
      patches = np.zeros(shape, np.float16)
      self.store.read_patches(rows, starts, patches)
      yield patches, self.labelled.labels[chosen].astype(np.float32)

  def scores(
    self, graphdef: nnx.GraphDef, state: State, part: int
  ) -> Float[np.ndarray, "songs tags"]:
    """Scores the songs of a part by the mean over their patches."""
    rows = self.rows[self.labelled.split == part]
    song_index, starts = song_patches.patch_grid(self.store.frames[rows])
    batches = song_patches.read_batches(
      self.store.read_patches, rows[song_index], starts, self.plan.batch
    )
    scorer = functools.partial(score, graphdef, state.params, state.stats)
    found = [logits for _, logits in song_patches.encoded(scorer, batches)]
    return probes.song_scores(
      np.concatenate(found),
      song_index,
      single_label=self.labelled.single_label,
      mean_of=_MEAN_OF,
    )

  def train(
    self, seed: int, rate: float
  ) -> tuple[nnx.GraphDef, State, float, int]:
    """Trains until validation no longer gets better.

    Returns:
      The network's structure, its best state (without that of Adam), its
      validation metric, and the number of rounds.
    """
    labels = self.labelled.labels_of(labelled_sets.VALIDATION)
    graphdef, state = self.start(seed, rate)
    best, highest, best_round = None, -np.inf, -1
    for number in range(self.plan.rounds):
      for patches, wanted in self.batches(seed, number):
        state = step(
          graphdef,
          state,
          patches,
          wanted,
          single_label=self.labelled.single_label,
        )
      found = self.scores(graphdef, state, labelled_sets.VALIDATION)
      metric = probes.validation_metric(
        found, labels, self.labelled.single_label
      )
      if best is None or metric > highest:
        best = jax.tree.map(jnp.copy, state._replace(optimizer=()))
        highest, best_round = metric, number
      if number - best_round >= self.plan.patience:
        break
    return graphdef, best, highest, number + 1

  def describe(self) -> dict[str, Any]:
    """Returns what the numbers follow from, plain values."""
    return dataclasses.asdict(self.plan) | {
      "set": self.labelled.name,
      "head": _HEAD,
      "aggregation": f"mean of patch {_MEAN_OF}",
      "seeds": list(self.plan.seeds),
      "rates": list(self.plan.rates),
      "selected_by": f"validation {self.labelled.chosen_by}",
    }


def fine_tune(
  encoder: audio_encoder.AudioEncoder,
  store: song_store.SongStore,
  rows: Int[np.ndarray, " songs"],
  labelled: labelled_sets.LabelledSet,
  *,
  draws: int = 1000,
  **schedule: Any,
) -> task_base.Result:
  """Trains a copy of an encoder on a labelled set, and measures it.

  One device computes. A song shorter than a patch is padded with silence.

  Args:
    encoder: the encoder to start from; it is left as it is.
    store: the store that holds the songs.
    rows: rows of the set's songs in the store.
    labelled: the task.
    draws: bootstrap resamples of the test songs.
    **schedule: fields of `Schedule`.

  Raises:
    InputError: the set breaks a rule, or no metric is defined.
    RunError: training gave no finite scores.
  """
  labelled.check()
  plan = Schedule(**schedule)
  tuning = Tuning(encoder, store, rows, labelled, plan)
  trained = {
    rate: [tuning.train(seed, rate) for seed in plan.seeds]
    for rate in plan.rates
  }
  means = {
    rate: float(np.mean([metric for _, _, metric, _ in runs]))
    for rate, runs in trained.items()
  }
  rate = max(means, key=lambda one: np.nan_to_num(means[one], nan=-np.inf))
  if not np.isfinite(means[rate]):
    raise errors.RunError(
      f"fine-tuning on {labelled.name}: the validation {labelled.chosen_by} is "
      "undefined, as no tag has both classes there or the scores are not "
      "finite. Give another split, or lower rates."
    )
  scores = [
    tuning.scores(graphdef, state, labelled_sets.TEST)
    for graphdef, state, _, _ in trained[rate]
  ]
  settings = tuning.describe() | {
    "chosen_rate": rate,
    f"chosen_has_validation_{labelled.chosen_by}": means[rate],
    "chosen_rounds": [rounds for *_, rounds in trained[rate]],
  }
  return tagging_metrics.measure(
    np.array(scores), labelled, settings, draws=draws
  )

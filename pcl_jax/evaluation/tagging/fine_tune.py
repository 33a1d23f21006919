"""Fine-tuning: encoder and head are trained together on a labelled set.

A step takes one random patch of each of its songs; a song is scored by the mean
over the patches of its grid. Given an encoder with its first weights it is
training from scratch.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import itertools
from typing import Any

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
from pcl_jax.evaluation.tagging import probe_data
from pcl_jax.evaluation.tagging import probe_training
from pcl_jax.evaluation.tagging import probes
from pcl_jax.evaluation.tagging import tagging_results
from pcl_jax.models import audio_encoder

State = dict[str, Any]
_ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
_STARTS = 40  # Purpose of the draws of patch starts, not one of training's.


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How an encoder is fine-tuned.

  Attributes:
    head: `linear`, or `mlp` for the paper's 160 hidden units.
    seeds: of the head's first weights, the order and the patches.
    rates: learning rates of the encoder that are tried.
    head_rate: learning rate of the head.
    batch: patches a step, each of another song.
    rounds: most epochs.
    patience: epochs without a better validation metric until it stops.
    mean_of: `probabilities` or `logits`, over the patches of a song.
    chosen_by: validation metric that stops and chooses; None: accuracy where
      each song has one tag, else average precision.
  """

  head: str = "mlp"
  seeds: Sequence[int] = (0,)
  rates: Sequence[float] = (1e-4,)
  head_rate: float = 1e-3
  batch: int = 64
  rounds: int = 30
  patience: int = 5
  mean_of: str = "probabilities"
  chosen_by: str | None = None

  def check(self, labelled: labelled_sets.LabelledSet) -> "Schedule":
    """Returns it with its metric; refuses what does not exist."""
    for name, known in (
      ("head", probe_training.KINDS),
      ("mean_of", probes.MEANS),
    ):
      if getattr(self, name) not in known:
        raise errors.InputError(
          f"{name} of fine-tuning is {getattr(self, name)!r}; it is one of "
          f"{', '.join(known)}."
        )
    chosen_by = probes.check_chosen_by(self.chosen_by, labelled)
    return dataclasses.replace(self, chosen_by=chosen_by)


@dataclasses.dataclass(frozen=True)
class _Songs:
  """Where the patches of a set's songs are.

  Attributes:
    store: holds the songs.
    rows: of the set's songs in the store.
    labelled: the set.
  """

  store: song_store.SongStore
  rows: Int[np.ndarray, " songs"]
  labelled: labelled_sets.LabelledSet

  def read(
    self, songs: Int[np.ndarray, " n"], starts: np.ndarray, out: np.ndarray
  ) -> None:
    """Reads patches into `out`, float16 [n, 256, 48]."""
    self.store.read_patches(self.rows[songs], starts, out)

  def frames(self, songs: np.ndarray) -> np.ndarray:
    """Returns the length of songs."""
    return self.store.frames[self.rows[songs]]


@dataclasses.dataclass(frozen=True)
class _Network:
  """Encoder and head, compiled once for all seeds and rates.

  Attributes:
    start: of a seed, the state before the first step.
    step: (state, patches, labels, rate, head_rate) -> (state, loss).
    score: (state, patches) -> logits.
  """

  start: Callable[[int], State]
  step: Callable[..., tuple[State, jax.Array]]
  score: Callable[[State, jax.Array], jax.Array]


def _network(
  encoder: audio_encoder.AudioEncoder, tags: int, head: str, one_each: bool
) -> _Network:
  """Compiles the step and the score of an encoder with a head."""
  graphdef, params, stats = nnx.split(
    encoder.backbone, nnx.Param, nnx.BatchStat
  )
  params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

  def start(seed):
    both = {
      "encoder": jax.tree.map(jnp.copy, params),  # The state is donated.
      "head": probe_training.start(
        head, encoder.backbone.features, tags, jax.random.key(seed)
      ),
    }
    return {
      "params": both,
      "stats": jax.tree.map(jnp.copy, stats),
      "adam": _ADAM.init(both),
    }

  def logits(params, stats, patches, training):
    # A copy, as variables of the outer trace cannot be changed in this one.
    model = nnx.merge(graphdef, params["encoder"], stats, copy=True)
    features = model(patches.astype(jnp.float32), training)
    found = probe_training.logits(params["head"], features)
    return found, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

  def step(state, patches, labels, rate, head_rate):
    def objective(params):
      found, stats = logits(params, state["stats"], patches, True)
      return probe_training.losses(found, labels, one_each).mean(), stats

    (loss, stats), grads = jax.value_and_grad(objective, has_aux=True)(
      state["params"]
    )
    updates, adam = _ADAM.update(grads, state["adam"], state["params"])
    rates = {"encoder": rate, "head": head_rate}
    new = {
      part: jax.tree.map(
        lambda p, u, rate=rates[part]: p - rate * u, values, updates[part]
      )
      for part, values in state["params"].items()
    }
    return {"params": new, "stats": stats, "adam": adam}, loss

  def score(state, patches):
    return logits(state["params"], state["stats"], patches, False)[0]

  return _Network(start, jax.jit(step, donate_argnums=0), jax.jit(score))


def _batches(
  songs: _Songs, schedule: Schedule, seed: int, number: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields the patches and labels of a round's steps."""
  labelled = songs.labelled
  train = np.flatnonzero(labelled.split == labelled_sets.TRAIN)
  batch = min(schedule.batch, len(train))
  steps = max(len(train) // batch, probe_training.LEAST_STEPS)
  order = probe_training.draw_order(
    train.astype(np.int32), (seed,), number, batch, steps
  )[:, 0]
  rng = plans.generator(seed, number, _STARTS)
  for chosen in order:
    starts = plans.draw_starts(songs.frames(chosen), rng)
    (read,) = song_patches.read_batches(songs.read, chosen, starts, batch)
    yield read.patches, labelled.labels[chosen].astype(np.float32)


def _score_part(
  network: _Network, state: State, songs: _Songs, part: int, schedule: Schedule
) -> Float[np.ndarray, "songs tags"]:
  """Scores the songs of a part by the mean over their patches."""
  chosen = np.flatnonzero(songs.labelled.split == part)
  owners, starts = song_patches.patch_grid(songs.frames(chosen))
  batches = song_patches.read_batches(
    lambda some, *where: songs.read(chosen[some], *where),
    owners,
    starts,
    schedule.batch,
  )
  score = functools.partial(network.score, state)
  found = [scores for _, scores in song_patches.encoded(score, batches)]
  return probes.song_scores(
    np.concatenate(found),
    owners,
    one_each=songs.labelled.one_each,
    mean_of=schedule.mean_of,
  )


def _train(
  network: _Network, songs: _Songs, schedule: Schedule, seed: int, rate: float
) -> tuple[State, float, int]:
  """Trains until validation no longer gets better.

  Returns:
    The best state, its validation metric, and the rounds taken.
  """
  labelled = songs.labelled
  labels = labelled.labels[labelled.split == labelled_sets.VALIDATION]
  state, best, score, best_round = network.start(seed), None, -np.inf, -1
  for number in range(schedule.rounds):
    for patches, wanted in _batches(songs, schedule, seed, number):
      state, _ = network.step(state, patches, wanted, rate, schedule.head_rate)
    found = _score_part(
      network, state, songs, labelled_sets.VALIDATION, schedule
    )
    metric = probes.validation_metric(schedule.chosen_by, found, labels)
    if best is None or metric > score:
      best = {
        name: jax.tree.map(jnp.copy, state[name])
        for name in ("params", "stats")
      }
      score, best_round = metric, number
    if number - best_round >= schedule.patience:
      break
  return best, score, number + 1


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
    encoder: to start from; it is left as it is.
    store: holds the songs.
    rows: of the set's songs in the store.
    labelled: the task.
    draws: bootstrap resamples of the test songs.
    **schedule: fields of `Schedule`.

  Raises:
    InputError: the set breaks a rule, or no metric is defined.
    RunError: training gave no finite scores.
  """
  probe_data.check_labels(labelled)
  plan = Schedule(**schedule).check(labelled)
  songs = _Songs(store, rows, labelled)
  network = _network(encoder, len(labelled.tags), plan.head, labelled.one_each)
  trained = {
    (rate, seed): _train(network, songs, plan, seed, rate)
    for rate, seed in itertools.product(plan.rates, plan.seeds)
  }
  means = {
    rate: np.mean([trained[rate, seed][1] for seed in plan.seeds])
    for rate in plan.rates
  }
  rate = max(means, key=lambda one: np.nan_to_num(means[one], nan=-np.inf))
  if not np.isfinite(means[rate]):
    raise errors.RunError(
      f"fine-tuning on {labelled.name}: the validation {plan.chosen_by} is "
      "undefined, as no tag has both classes there or the scores are not "
      "finite. Give another split, or lower rates."
    )
  scores = [
    _score_part(
      network, trained[rate, seed][0], songs, labelled_sets.TEST, plan
    )
    for seed in plan.seeds
  ]
  settings = _describe(labelled, plan) | {
    "chosen_rate": rate,
    f"chosen_has_validation_{plan.chosen_by}": float(means[rate]),
    "chosen_rounds": [trained[rate, seed][2] for seed in plan.seeds],
  }
  return tagging_results.of_scores(
    np.array(scores), labelled, settings, draws=draws
  )


def _describe(
  labelled: labelled_sets.LabelledSet, plan: Schedule
) -> dict[str, Any]:
  return {
    "set": labelled.name,
    "head": plan.head,
    "aggregation": f"mean of patch {plan.mean_of}",
    "seeds": list(plan.seeds),
    "rates": list(plan.rates),
    "head_rate": plan.head_rate,
    "batch": plan.batch,
    "rounds": plan.rounds,
    "patience": plan.patience,
    "selected_by": f"validation {plan.chosen_by}",
  }

"""The optimizer, and how its learning rate changes over a run."""

import optax

from pcl_jax.common import errors

CONSTANT = "constant"  # The paper's.
COSINE = "cosine"  # Falls to 0 along half a cosine, at the run's end.
SCHEDULES = (CONSTANT, COSINE)


def make_schedule(
  kind: str, peak: float, warmup_steps: int, total_steps: int
) -> optax.Schedule:
  """Returns the learning rate as a function of the steps taken before.

  It rises linearly from 0 to its peak, then it is constant or follows a cosine
  that falls to 0.

  Raises:
    InputError: the warm-up is as long as the run.
  """
  if warmup_steps and warmup_steps >= total_steps:
    raise errors.InputError(
      f"config.opt_params.warmup_steps is {warmup_steps} and the run has "
      f"{total_steps} steps: the learning rate would never reach its peak. "
      "Lower it, or raise --config.epochs or --config.steps."
    )
  if kind == CONSTANT:
    after = optax.constant_schedule(peak)
  else:
    after = optax.cosine_decay_schedule(peak, total_steps - warmup_steps)
  if not warmup_steps:
    return after
  rise = optax.linear_schedule(0.0, peak, warmup_steps)
  return optax.join_schedules([rise, after], [warmup_steps])


def make_optimizer(
  learning_rate: optax.Schedule | float, weight_decay: float
) -> optax.GradientTransformationExtraArgs:
  """Returns Adam with L2 added to the gradient before its moments.

  The state holds the number of updates before, also for a constant rate.
  """
  if not callable(learning_rate):
    learning_rate = optax.constant_schedule(learning_rate)
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
    optax.scale_by_learning_rate(learning_rate),
  )

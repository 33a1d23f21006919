"""The optimizer, and how its learning rate goes over a run."""

import jax
import optax

from pcl_jax.common import errors

CONSTANT = "constant"  # The paper's.
COSINE = "cosine"  # Falls to 0 along half a cosine, at the last epoch's end.
SCHEDULES = (CONSTANT, COSINE)


def make_schedule(
  kind: str, peak: float, warmup_steps: int, total_steps: int
) -> optax.Schedule:
  """Returns the learning rate as a function of the steps taken before.

  Args:
    kind: one of `SCHEDULES`.
    peak: the constant, or what the rate falls from.
    warmup_steps: in which it rises linearly from 0 to the peak.
    total_steps: of the run.

  Raises:
    InputError: the warm-up is as long as the run.
  """
  if warmup_steps >= total_steps:
    raise errors.InputError(
      f"config.opt_params.warmup_steps is {warmup_steps} and the run has "
      f"{total_steps} steps: the learning rate would never reach its peak. "
      "Lower it, or raise --config.epochs."
    )
  if kind == CONSTANT:
    if not warmup_steps:
      return optax.constant_schedule(peak)
    return optax.warmup_constant_schedule(0.0, peak, warmup_steps)
  if not warmup_steps:
    return optax.cosine_decay_schedule(peak, total_steps)
  return optax.warmup_cosine_decay_schedule(
    0.0, peak, warmup_steps, total_steps
  )


def make_optimizer(
  learning_rate: float | optax.Schedule, weight_decay: float
) -> optax.GradientTransformationExtraArgs:
  """Returns Adam with L2 added to the gradient before its moments.

  Args:
    learning_rate: a constant, or a function of the number of steps before. Its
      `update` then needs that number as `step`: it is kept by the run, so that
      the optimizer's state is the same with every schedule.
    weight_decay: strength of the L2 penalty, on every parameter.
  """
  if callable(learning_rate):
    scale = _scale_by_schedule(learning_rate)
  else:
    scale = optax.scale(-learning_rate)
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
    scale,
  )


def _scale_by_schedule(
  schedule: optax.Schedule,
) -> optax.GradientTransformationExtraArgs:
  def update(updates, state, params=None, *, step, **others):
    del params, others
    rate = schedule(step)
    return jax.tree.map(lambda x: -rate * x, updates), state

  return optax.GradientTransformationExtraArgs(
    lambda params: optax.ScaleState(), update
  )

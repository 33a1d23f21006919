"""How a run goes on: where it stopped, and what may have changed since then."""

from collections.abc import Collection
import dataclasses
import difflib
from typing import Any

from pcl_jax.audio import channel_mix
from pcl_jax.audio import feature_augmentation
from pcl_jax.audio import melspectrogram
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import manager
from pcl_jax.checkpoint import run_progress
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.training import config_check
from pcl_jax.training import initial_weights
from pcl_jax.training import optimizers
from pcl_jax.training import setup
from pcl_jax.training import train_step

# Keys that decide how long, how fast and how visibly a run goes on, and change
# what is learned by rounding at most. `data.dir` is one of them, since the
# fingerprint of the data set is compared.
HARMLESS = (
  "epochs",  # As `steps`, if the learning rate is constant.
  "steps",
  "early_stop_patience",
  "log_every_steps",
  "save_every_steps",
  "trackers",
  "wandb_params.project",
  "wandb_params.run_name",
  "wandb_params.run_id",
  "data.dir",
  "data.threads",
  "data.stall_s",
  "data.sample_songs",
  "data.sample_seconds",
  "data.songs",  # Goes with the fingerprint.
  "loss_params.tiled_above",
  "loss_params.tile",
  "train.remat",
  "train.max_nonfinite_steps",
  "train.compilation_cache",
)
DATA_SET = "data.fingerprint"
# Keys that checkpoints of earlier versions lack, and what held without them.
_FORMERLY = {
  "init_from": "",
  "trackers": ["tensorboard"],
  "steps": 0,
  "validate_every_steps": 0,
  "loss_params.positives": "partner",
  "data.patches_per_song": 1,
  "train.matmul_precision": "",
  "wandb_params.project": "",
  "wandb_params.run_name": "",
  "wandb_params.run_id": "",
} | {
  f"augmentation.{name}": value
  for name, value in dataclasses.asdict(
    feature_augmentation.Strengths()
  ).items()
}
# An epoch starts again from its beginning where one of these has changed.
_DECIDE_BATCHES = (
  "seed",
  "validate_every_steps",
  "contrast_combos",
  "audio_contrast_params.pair_generation_method",
  "data.batch_size",
  "data.double_window",
  "data.patches_per_song",
  "data.order",
  "data.num_blocks",
  "data.cached_batches",
  DATA_SET,
)
# They are not harmless, and leave the meaning of a validation loss as it was.
_KEEP_LOSS = (
  "seed",
  "epochs",
  "steps",
  "validate_every_steps",
  "augmentation",
  "opt_params",
  "model_params",
  "train",
  "data.patches_per_song",
)
VALIDATION_BATCH = "validation_batch"  # Of a meta: its patches.


@dataclasses.dataclass(frozen=True)
class Changes:
  """Lines that say what has changed since a checkpoint, all of it allowed."""

  lines: list[str]
  other_batches: bool
  other_loss: bool  # Validation losses cannot be compared.


def restore(
  run: setup.Setup,
  checkpoints: manager.Checkpoints,
  allow_change: Collection[str],
) -> tuple[setup.Setup, train_step.State, run_progress.Progress]:
  """Returns where the last start of a run stopped, or its beginning.

  The run says of itself what its checkpoints say of the weights it began with.

  Raises:
    InputError: as `check_changes`, or no checkpoint is good.
  """

  def check(meta: dict[str, Any]) -> None:
    check_changes(meta, run.meta, allow_change)

  restored = checkpoints.restore_newest(run.state, check)
  if restored is None:
    return run, run.state, run_progress.Progress()
  state, meta = restored
  step, epoch = (meta["progress"][name] for name in ("step", "epoch"))
  console.say(f"going on from step {step}, epoch {epoch}")
  progress = progress_of(meta, run.meta, allow_change)
  run = dataclasses.replace(run, meta=initial_weights.recalled(meta) | run.meta)
  return run, state, progress


def progress_of(
  then: dict[str, Any], now: dict[str, Any], allowed: Collection[str]
) -> run_progress.Progress:
  """Returns how far a run is that goes on, and says what has changed.

  Args:
    then: what the checkpoint says about itself.
    now: the `meta` of the run.
    allowed: keys that may have changed, as `check_changes` takes them.

  Raises:
    InputError: as `check_changes`.
  """
  changes = check_changes(then, now, allowed)
  progress = run_progress.Progress(**then["progress"])
  for line in changes.lines:
    console.say(f"changed since then: {line}")
  if changes.other_batches and progress.step_in_epoch:
    progress.step_in_epoch = 0
    console.say(
      f"epoch {progress.epoch} has other batches now and starts from its "
      "beginning"
    )
  if changes.other_loss and progress.best_loss is not None:
    progress.forget_validations()
    console.say(
      "the validation loss means something else now: the best checkpoint and "
      "the patience go by validations from here on"
    )
  return progress


def check_changes(
  then: dict[str, Any], now: dict[str, Any], allowed: Collection[str] = ()
) -> Changes:
  """Refuses to go on from a checkpoint with what would be another run.

  `then` is what the checkpoint says about itself, `now` the `meta` of the run.
  Keys that are `allowed`, or below such a key, may have changed.

  Raises:
    InputError: the format, the feature, the networks or the weights to begin
      with differ, or a key has changed that is neither harmless nor allowed.
  """
  _check_format(then, now)
  a, b = (
    _FORMERLY
    | config_check.flatten(meta["config"])
    | config_check.flatten({"data": meta["data"]})
    for meta in (then, now)
  )
  _check_known(allowed, a.keys() | b.keys())
  changed = _differing(a, b)
  harmful = [key for key in changed if not _is_harmless(key, a, b)]
  _check_networks(then, now, _remedy(harmful, a))
  if (key := initial_weights.KEY) in changed:
    raise errors.InputError(
      f"{_line(key, a, b)}, and only the beginning of a run reads it, so that "
      "no --allow_change gives this run other weights. Give "
      f"--config.{key}={a[key]} as before (nothing need lie there any more), "
      "or another --workdir to begin with other weights."
    )
  refused = [key for key in harmful if not _covers(allowed, key)]
  if refused:
    raise errors.InputError(
      "the checkpoint in --workdir is of another "
      f"{'data set or split' if refused == [DATA_SET] else 'config'}: "
      f"{'; '.join(_line(key, a, b) for key in refused)}. "
      f"{_remedy(refused, a)} Where that is meant, "
      f"--allow_change={','.join(refused)} goes on with it."
    )
  lines = [_line(key, a, b) for key in changed]
  sizes = [meta.get(VALIDATION_BATCH) for meta in (then, now)]
  # Other devices may split another number.
  is_other_size = None not in sizes and sizes[0] != sizes[1]
  if is_other_size:
    lines.append(_line(VALIDATION_BATCH, then, now))
  return Changes(
    lines=lines,
    other_batches=any(key in _DECIDE_BATCHES for key in harmful),
    other_loss=is_other_size
    or any(not _covers(_KEEP_LOSS, key) for key in harmful),
  )


def _check_format(then: dict[str, Any], now: dict[str, Any]) -> None:
  version = then.get("format_version", 1)
  if version != (known := checkpoint_files.FORMAT_VERSION):
    raise errors.InputError(
      f"the checkpoint in --workdir has format version {version} and this "
      f"program trains with version {known}: its encoder can be used, but its "
      "training cannot go on. Give another --workdir."
    )
  melspectrogram.check_settings(then["feature"], "the checkpoint in --workdir")
  channel_mix.check_same(now["feature"], "the data set", then["feature"])


def _remedy(changed: Collection[str], then: dict[str, Any]) -> str:
  """Returns what to do about changed keys; names flags that undo it."""
  flags = [
    f"--config.{key}={then[key]}"
    for key in changed
    if isinstance(then.get(key), int | float | str) and key != DATA_SET
  ]
  listed = f" ({' '.join(flags)})" if flags else ""
  return (
    f"Give the config it was trained with{listed}, or another --workdir; the "
    "checkpoints stay as they are."
  )


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
  return [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]


def _is_harmless(key: str, then: dict[str, Any], now: dict[str, Any]) -> bool:
  if key in ("epochs", "steps"):  # A rate that falls does so until the last.
    schedules = {flat.get("opt_params.lr_schedule") for flat in (then, now)}
    return schedules <= {None, optimizers.CONSTANT}
  if key == "data.order":
    return "blocks" not in (then.get(key), now.get(key))
  return key in HARMLESS


def _line(key: str, then: dict[str, Any], now: dict[str, Any]) -> str:
  return f"{key} was {then.get(key)!r} and is {now.get(key)!r} now"


def _covers(allowed: Collection[str], key: str) -> bool:
  return any(key == one or key.startswith(f"{one}.") for one in allowed)


def _check_known(allowed: Collection[str], keys: Collection[str]) -> None:
  """Refuses a misspelt key, which would allow nothing without a word."""
  for one in allowed:
    if not any(_covers([one], key) for key in keys):
      close = difflib.get_close_matches(one, keys, 1)
      hint = f" Did you mean {close[0]}?" if close else ""
      raise errors.InputError(
        f"--allow_change={one}: the config has no such key.{hint} Give one as "
        "--config has it, such as opt_params.lr, or what stands above it, such "
        f"as opt_params; {DATA_SET} is the data set."
      )


def _check_networks(
  then: dict[str, Any], now: dict[str, Any], remedy: str
) -> None:
  """Refuses networks that the checkpoint's arrays do not fit."""
  a, b = (
    config_check.flatten({"architecture": meta["architecture"]})
    for meta in (then, now)
  )
  lines = [
    _line(key, a, b)
    for key in _differing(a, b)
    # A dropout rate has no array.
    if not (key.endswith("dropout") and key in a and key in b)
  ]
  if lines:
    if then["strategy"] != now["strategy"]:
      lines.insert(0, _line("strategy", then, now))
    raise errors.InputError(
      "the checkpoint in --workdir is of another architecture: "
      f"{'; '.join(lines)}. {remedy}"
    )

"""What of a run may change when it is gone on with."""

from collections.abc import Collection
import dataclasses
import difflib
from typing import Any

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.training import config_check
from pcl_jax.training import optimizers

# They decide how long, how fast and how visibly a run goes on, not what is
# learnt, or that to rounding alone. `data.dir` is one, since what lies there is
# compared itself.
HARMLESS = (
  "epochs",  # But where the learning rate is not constant.
  "early_stop_patience",
  "log_every_steps",
  "save_every_steps",
  "data.dir",
  "data.threads",
  "data.stall_s",
  "data.sample_songs",
  "data.sample_seconds",
  "data.songs",  # Goes with the fingerprint.
  "loss_params.tiled_above",
  "loss_params.tile",
  "train.remat",
  "train.rematerialise",  # The old name of train.remat.
  "train.max_nonfinite_steps",
  "train.compilation_cache",
)
DATA_SET = "data.fingerprint"
# An epoch cannot be gone on with in its middle where one of them has changed.
_DECIDE_BATCHES = (
  "seed",
  "contrast_combos",
  "audio_contrast_params.pair_generation_method",
  "data.batch_size",
  "data.double_window",
  "data.order",
  "data.num_blocks",
  "data.cached_batches",
  DATA_SET,
)
_REMEDY = (
  "Give the config it was trained with, or another --workdir; the checkpoints "
  "stay as they are."
)


@dataclasses.dataclass(frozen=True)
class Changes:
  """What has changed since a checkpoint, all of it allowed.

  Attributes:
    lines: each key, in words, with both values.
    other_batches: whether the epoch under way has other batches now.
  """

  lines: list[str]
  other_batches: bool


def check(
  then: dict[str, Any], now: dict[str, Any], allowed: Collection[str] = ()
) -> Changes:
  """Refuses to go on with a checkpoint of what would be another run.

  Args:
    then: what the checkpoint says about itself.
    now: `meta` of the run that would go on with it.
    allowed: keys of the config, or what stands above them, that may have
      changed; `data.fingerprint` is the data set.

  Raises:
    InputError: the feature or the networks are others, or a key has changed
      that is neither harmless nor allowed.
  """
  melspectrogram.check_settings(then["feature"], "the checkpoint in --workdir")
  a, b = (_flat(meta) for meta in (then, now))
  _check_known(allowed, a.keys() | b.keys())
  _check_networks(then, now)
  changed = [
    key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)
  ]
  refused = [
    key
    for key in changed
    if not _is_harmless(key, a, b) and not _covers(allowed, key)
  ]
  if refused:
    raise errors.InputError(
      "the checkpoint in --workdir is of another "
      f"{'data set or split' if refused == [DATA_SET] else 'config'}: "
      f"{'; '.join(_line(key, a, b) for key in refused)}. {_REMEDY} Where that "
      f"is meant, --allow_change={','.join(refused)} goes on with it."
    )
  return Changes(
    lines=[_line(key, a, b) for key in changed],
    other_batches=any(key in _DECIDE_BATCHES for key in changed),
  )


def _flat(meta: dict[str, Any]) -> dict[str, Any]:
  return config_check.flatten(meta["config"] | {}) | config_check.flatten(
    {"data": meta["data"]}
  )


def _is_harmless(key: str, then: dict[str, Any], now: dict[str, Any]) -> bool:
  if key == "epochs":  # A learning rate that falls does so until the last.
    return all(
      flat.get("opt_params.lr_schedule", optimizers.CONSTANT)
      == optimizers.CONSTANT
      for flat in (then, now)
    )
  return key in HARMLESS


def _line(key: str, then: dict[str, Any], now: dict[str, Any]) -> str:
  return f"{key} was {then.get(key)!r} and is {now.get(key)!r} now"


def _covers(allowed: Collection[str], key: str) -> bool:
  return any(key == one or key.startswith(f"{one}.") for one in allowed)


def _check_known(allowed: Collection[str], keys: Collection[str]) -> None:
  """Refuses what names no key, which would be taken for granted unnoticed."""
  for one in allowed:
    if not any(_covers([one], key) for key in keys):
      close = difflib.get_close_matches(one, keys, 1)
      hint = f" Did you mean {close[0]}?" if close else ""
      raise errors.InputError(
        f"--allow_change={one}: the config has no such key.{hint} Give one as "
        "--config has it, such as opt_params.lr, or what stands above it, such "
        f"as opt_params; {DATA_SET} is the data set."
      )


def _check_networks(then: dict[str, Any], now: dict[str, Any]) -> None:
  """Refuses networks that the checkpoint's arrays do not fit."""
  a, b = (
    config_check.flatten({"architecture": meta["architecture"]})
    for meta in (then, now)
  )
  differing = [
    key
    for key in sorted(a.keys() | b.keys())
    if a.get(key) != b.get(key)
    # It has no array.
    and not (key.endswith("dropout") and key in a and key in b)
  ]
  if differing:
    lines = [_line(key, a, b) for key in differing]
    if then["strategy"] != now["strategy"]:
      lines.insert(0, _line("strategy", then, now))
    raise errors.InputError(
      "the checkpoint in --workdir is of another architecture: "
      f"{'; '.join(lines)}. {_REMEDY}"
    )

"""Kills a trainer at random moments until it is done, and compares the end.

python -m tests.support.chaos --kills=100
python -m tests.support.chaos --kills=20 --seed=3 --out=/tmp/chaos

One run is left alone. Another, of the same config, is started again and again
and ended at random moments: by SIGKILL, by SIGTERM, or by SIGKILL with a bit
flipped in a file of the newest checkpoint or the file cut. It saves after each
step, so that many ends fall into a save or a deletion. Parameters, optimiser
state and metrics.jsonl (but for figures of time) must be bitwise the same at
the end, and every damage must have been found.
"""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from typing import Any

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import errors

KINDS = ("SIGKILL", "SIGTERM", "SIGKILL and damage")
_WEIGHTS = (3, 2, 2)  # How often each.
_STEPS_OF_EPOCH = 4
_MOST_SAVES = 4  # That a start is let finish, before it is ended.
_EARLY = 0.1  # Share of ends that do not wait for any progress.
_WITHIN_S = 0.4  # About as long as a save and a deletion take.
_ASK_AGAIN_S = 0.005
_HANGS_S = 300.0
_RESULT = "result.json"
_LOG = "trainer.log"
_MODULES = ("tests.support.quick_backbone", "tests.support.tiny.tiny_run")


@dataclasses.dataclass
class Tally:
  """What has happened to a run.

  Attributes:
    starts: of the trainer.
    ends: how many of each of `KINDS`.
    in_saves: ends that left an unfinished checkpoint behind.
    damaged: checkpoints that were damaged.
    found: damaged checkpoints that the trainer has moved aside.
    steps: of the run.
    digest: of its end.
  """

  starts: int = 0
  ends: dict[str, int] = dataclasses.field(
    default_factory=lambda: dict.fromkeys(KINDS, 0)
  )
  in_saves: int = 0
  damaged: int = 0
  found: int = 0
  steps: int = 0
  digest: str = ""


def _train(config_json: str, workdir: str) -> None:
  """Trains in a process of its own; leaves a digest at the end of the run."""
  log = os.open(
    pathlib.Path(workdir).with_name(_LOG),
    os.O_WRONLY | os.O_CREAT | os.O_APPEND,
  )
  os.dup2(log, 1)
  os.dup2(log, 2)
  try:
    _train_to_the_end(json.loads(config_json), pathlib.Path(workdir))
  except BaseException:
    traceback.print_exc()
    raise


def _train_to_the_end(values: dict[str, Any], workdir: pathlib.Path) -> None:
  import jax
  import ml_collections

  from pcl_jax.models import audio_encoder
  from pcl_jax.training import loop
  from tests.support import quick_backbone
  from tests.support.tiny import tiny_run

  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 1)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_disable_most_optimizations", True)
  audio_encoder.BACKBONES[quick_backbone.NAME] = quick_backbone.QuickBackbone
  config = ml_collections.ConfigDict(values)
  progress = loop.train_and_evaluate(config, workdir)
  if progress["epoch"] < config.epochs:
    return  # Asked to end.
  result = {
    "steps": progress["step"],
    "digest": digest_of(
      _arrays(config, workdir, progress["step"]), tiny_run.rows_of(workdir)
    ),
  }
  (workdir / _RESULT).write_text(json.dumps(result))


def _arrays(config, workdir: pathlib.Path, step: int) -> list[Any]:
  """Returns the arrays of a step as they are on file."""
  import jax

  from pcl_jax.checkpoint import restore
  from pcl_jax.training import setup

  files = checkpoint_files.CheckpointFiles(workdir)
  state = restore.read_state(files, step, setup.build(config).state)
  return jax.tree.leaves(jax.device_get(state))


def digest_of(arrays: Sequence[Any], rows: Sequence[dict[str, Any]]) -> str:
  """Returns the sha256 of arrays and rows.

  Args:
    arrays: parameters and state of the optimiser.
    rows: of metrics.jsonl.
  """
  digest = hashlib.sha256()
  for array in arrays:
    digest.update(f"{array.dtype}{array.shape}".encode())
    digest.update(array.tobytes())
  digest.update(json.dumps(list(rows), sort_keys=True).encode())
  return digest.hexdigest()


class Trainer:
  """Starts a run in processes that have imported what it needs."""

  def __init__(self, config_json: str, workdir: pathlib.Path):
    self._context = multiprocessing.get_context("forkserver")
    self._context.set_forkserver_preload(list(_MODULES))
    self._config_json, self.workdir = config_json, workdir
    workdir.parent.mkdir(parents=True, exist_ok=True)

  def start(self) -> multiprocessing.Process:
    """Starts the trainer, or starts it again."""
    process = self._context.Process(
      target=_train, args=(self._config_json, os.fspath(self.workdir))
    )
    process.start()
    return process

  def result(self) -> dict[str, Any] | None:
    """Returns the steps and the digest of a run that is done."""
    path = self.workdir / _RESULT
    return json.loads(path.read_text()) if path.exists() else None

  def check(self, process: multiprocessing.Process, *signals: int) -> None:
    """Waits for the end of a process.

    Args:
      process: that was started.
      *signals: that may have ended it.

    Raises:
      RunError: it hangs, or has failed by itself.
    """
    process.join(_HANGS_S)
    code = process.exitcode
    if code is None:
      process.kill()
    if code not in (0, *(-number for number in signals)):
      log = self.workdir.with_name(_LOG).read_text()
      raise errors.RunError(
        f"the trainer ended with exit code {code}:\n{log[-4000:]}"
      )


def _await(process: multiprocessing.Process, is_so: Callable[[], bool]) -> None:
  end = time.monotonic() + _HANGS_S
  while process.is_alive() and not is_so() and time.monotonic() < end:
    time.sleep(_ASK_AGAIN_S)


def _is_sound(files: checkpoint_files.CheckpointFiles, step: int) -> bool:
  return files.has_digest(step) and files.fault(step) is None


def damage(files: checkpoint_files.CheckpointFiles, rng: random.Random) -> bool:
  """Damages the newest step, where a good one would be left; tells whether.

  Args:
    files: of the run.
    rng: decides which file, where, and whether it is cut.
  """
  *others, newest = files.steps() or [0]
  if not _is_sound(files, newest) if others else True:
    return False
  if not any(_is_sound(files, step) for step in others):
    return False
  paths = [
    path
    for path in sorted(files.folder(newest).rglob("*"))
    # Those at the top say when it was finished, and nothing depends on it.
    if path.is_file()
    and path.stat().st_size
    and path.parent.name != str(newest)
  ]
  path = rng.choice(paths)
  data = bytearray(path.read_bytes())
  place = rng.randrange(len(data))
  if rng.random() < 0.5:
    data[place] ^= 1 << rng.randrange(8)
  else:
    data = data[:place]
  path.write_bytes(data)
  return True


def _end(trainer: Trainer, kind: str, rng: random.Random, tally: Tally) -> None:
  """Starts the trainer and ends it in a way, at a moment."""
  files = checkpoint_files.CheckpointFiles(trainer.workdir)
  before = files.latest() or 0
  process = trainer.start()
  tally.starts += 1
  if rng.random() >= _EARLY:  # Else in the middle of the start.
    more = rng.randint(1, _MOST_SAVES)
    _await(process, lambda: (files.latest() or 0) >= before + more)
  process.join(rng.uniform(0, _WITHIN_S))
  if process.exitcode is not None:
    trainer.check(process)
    return
  number = signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL
  with contextlib.suppress(ProcessLookupError):
    os.kill(process.pid, number)
  tally.ends[kind] += 1
  trainer.check(process, number)
  unfinished = files.path.glob("*.orbax-checkpoint-tmp*")
  tally.in_saves += any(True for _ in unfinished)
  # A run that was done when it was killed looks at no checkpoint again.
  if kind == KINDS[2] and trainer.result() is None:
    tally.damaged += damage(files, rng)


def run_broken(
  trainer: Trainer, kills: int, seed: int, say: Callable[[str], None]
) -> Tally:
  """Trains to the end through so many ends before it.

  Args:
    trainer: of the run.
    kills: how often it is ended, where it is not done before.
    seed: of moments, ways and damages.
    say: takes what happens.
  """
  rng, tally = random.Random(seed), Tally()
  kinds = list(KINDS) + rng.choices(KINDS, _WEIGHTS, k=max(kills, 3))
  while sum(tally.ends.values()) < kills and trainer.result() is None:
    kind = kinds[sum(tally.ends.values())]
    _end(trainer, kind, rng, tally)
    latest = checkpoint_files.CheckpointFiles(trainer.workdir).latest()
    say(f"{sum(tally.ends.values())}: {kind}, at step {latest}")
  while trainer.result() is None:
    trainer.check(trainer.start())
    tally.starts += 1
  return _close(trainer, tally)


def _close(trainer: Trainer, tally: Tally) -> Tally:
  files = checkpoint_files.CheckpointFiles(trainer.workdir)
  result = trainer.result()
  tally.found = len(files.moved_aside())
  tally.steps, tally.digest = result["steps"], result["digest"]
  return tally


def run_unbroken(trainer: Trainer) -> Tally:
  """Trains to the end in one start."""
  trainer.check(trainer.start())
  return _close(trainer, Tally(starts=1))


def make_trainers(folder: pathlib.Path, kills: int) -> tuple[Trainer, Trainer]:
  """Makes a data set and two runs on it: one to be left alone, one not.

  Args:
    folder: for all of it.
    kills: that the other is to get; it is as long as they need.
  """
  from tests.support import quick_backbone
  from tests.support.tiny import tiny_run

  data = tiny_run.make_data_set(folder / "data")
  # A start saves half of the most on the mean, and a SIGTERM once more.
  saves = kills * (2 + _MOST_SAVES) // 2
  config = tiny_run.small_config(
    data,
    save_every_steps=1,
    model_params__audio__width=2,
    epochs=max(3, -(-saves // _STEPS_OF_EPOCH)),
    early_stop_patience=10**6,
    train__compilation_cache=os.fspath(folder / "compiled"),
    data__threads=1,
  )
  config.model_params.audio.backbone_type = quick_backbone.NAME
  text = config.to_json()
  return (
    Trainer(text, folder / "unbroken" / "run"),
    Trainer(text, folder / "broken" / "run"),
  )


def summary(unbroken: Tally, broken: Tally) -> str:
  """Returns in words what was done and whether the ends are the same."""
  ends = ", ".join(f"{number} {kind}" for kind, number in broken.ends.items())
  same = broken.digest == unbroken.digest
  return (
    f"{broken.starts} starts, {sum(broken.ends.values())} ends ({ends}), "
    f"{broken.in_saves} of them within a save; {broken.found} of "
    f"{broken.damaged} damaged checkpoints found; {broken.steps} steps; the "
    f"end is {'bitwise the same' if same else 'NOT the same'}\n"
    f"unbroken {unbroken.digest}\nbroken   {broken.digest}"
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Parses the command line; exits 1 where the ends differ."""
  parser = argparse.ArgumentParser(
    prog="python -m tests.support.chaos",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--kills", type=int, default=10)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", help="folder to make; else one that is removed")
  flags = parser.parse_args(argv)
  folder = pathlib.Path(flags.out or tempfile.mkdtemp(prefix="chaos-"))
  alone, other = make_trainers(folder, flags.kills)
  unbroken = run_unbroken(alone)
  print(f"unbroken: {unbroken.steps} steps", flush=True)
  broken = run_broken(
    other, flags.kills, flags.seed, lambda text: print(text, flush=True)
  )
  print(summary(unbroken, broken))
  if flags.out is None:
    shutil.rmtree(folder)
  same = broken.digest == unbroken.digest and broken.found == broken.damaged
  return 0 if same else 1


if __name__ == "__main__":
  sys.exit(main())

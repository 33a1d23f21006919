"""The files of a run's checkpoints: steps, digests, what was moved aside.

    WORKDIR/checkpoints/STEP/     items encoder, rest, meta and metrics
    WORKDIR/checkpoints/index.json  which step is the latest, which the best
    WORKDIR/digests/STEP          sha256 of the files of a step's items, in the
                                  form of `sha256sum`
    WORKDIR/bad/STEP/             a damaged step, with reason.txt

Nothing here needs a device or orbax, so a run under way is not disturbed by
being looked at.
"""

import hashlib
import json
import math
import os
import pathlib
import shutil
import tempfile
from typing import Any

from pcl_jax.common import errors

FOLDER = "checkpoints"
DIGESTS = "digests"
BAD = "bad"
INDEX = "index.json"
TRASH = ".trash"
LOSS = "total"  # The validation loss that ranks steps, by its name.
ENCODER, REST, META, METRICS = "encoder", "rest", "meta", "metrics"
_UNFINISHED = ".orbax-checkpoint-tmp"
_ITEMS = (ENCODER, REST, META, METRICS)
_JSON = {META: "metadata", METRICS: "metrics"}
_REASON = "reason.txt"
_PARTIAL = ".partial"


def loss_of(metrics: dict[str, Any] | None) -> float:
  """Returns the validation loss; infinity where it is absent or not finite."""
  loss = (metrics or {}).get(LOSS)
  is_number = isinstance(loss, int | float) and math.isfinite(loss)
  return float(loss) if is_number else math.inf


def best_of(losses: dict[int, float], number: int) -> list[int]:
  """Returns the steps of the lowest finite losses, the earlier of equal ones.

  Args:
    losses: of each step.
    number: of steps to return, at most.
  """
  finite = [step for step in losses if math.isfinite(losses[step])]
  return sorted(finite, key=lambda step: (losses[step], step))[:number]


def _write(path: pathlib.Path, text: str) -> None:
  partial = path.with_name(path.name + _PARTIAL)
  partial.write_text(text)
  partial.replace(path)


def _sha256(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


class CheckpointFiles:
  """The files of the checkpoints of one run.

  Attributes:
    path: folder of the steps.
  """

  def __init__(self, workdir: str | os.PathLike[str]):
    self._workdir = pathlib.Path(workdir).absolute()
    self.path = self._workdir / FOLDER

  def prepare(self) -> None:
    """Makes the folders and removes what an interruption left.

    Raises:
      InputError: they cannot be made, read or written.
    """
    try:
      for folder in (self.path, self._workdir / DIGESTS):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
          pass
      self.tidy()
    except OSError as error:
      raise errors.InputError(
        f"{self.path} cannot be used as a folder of checkpoints ({error}). "
        "Remove what is in its place, or give a --workdir you may write to, on "
        "a disk that is not full."
      ) from error

  def steps(self) -> list[int]:
    """Returns the steps that were finished, in order."""
    if not self.path.is_dir():
      return []
    names = [one.name for one in self.path.iterdir() if one.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())

  def folder(self, step: int) -> pathlib.Path:
    """Returns the folder of a step."""
    return self.path / str(step)

  def read(self, step: int, item: str) -> dict[str, Any]:
    """Returns what is in a step's `meta` or `metrics`.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not json.
    """
    path = self.folder(step) / item / _JSON[item]
    found = json.loads(path.read_text())
    if not isinstance(found, dict):
      raise ValueError(f"{path} holds no json object")
    return found

  def losses(self) -> dict[int, float]:
    """Returns the validation loss of each step; infinity where unknown."""
    losses = {}
    for step in self.steps():
      try:
        losses[step] = loss_of(self.read(step, METRICS))
      except (OSError, ValueError):
        losses[step] = math.inf
    return losses

  def latest(self) -> int | None:
    """Returns the newest step, None where there is none."""
    return max(self.steps(), default=None)

  def best(self) -> int | None:
    """Returns the step of the lowest validation loss, else the newest."""
    return next(iter(best_of(self.losses(), 1)), self.latest())

  @staticmethod
  def _files_of(folder: pathlib.Path, items: tuple[str, ...]) -> list[str]:
    return [
      path.relative_to(folder).as_posix()
      for item in items
      for path in sorted((folder / item).rglob("*"))
      if path.is_file()
    ]

  def _digest_path(self, step: int) -> pathlib.Path:
    return self._workdir / DIGESTS / str(step)

  def has_digest(self, step: int) -> bool:
    """Tells whether there are digests to verify a step with."""
    return self._digest_path(step).is_file()

  def write_digest(self, step: int) -> None:
    """Writes the digests of a step that is whole but not yet in its place.

    So there is no moment at which a step stands there without them.

    Args:
      step: that is being saved.
    """
    source = next(self.path.glob(f"{step}{_UNFINISHED}*"))
    lines = [
      f"{_sha256(source / name)}  {name}\n"
      for name in self._files_of(source, _ITEMS)
    ]
    _write(self._digest_path(step), "".join(lines))

  def drop_digest(self, step: int) -> None:
    """Removes the digests of a step, before another is saved under its name."""
    self._digest_path(step).unlink(missing_ok=True)

  def fault(self, step: int, items: tuple[str, ...] = _ITEMS) -> str | None:
    """Returns what is wrong with the files of a step, None if nothing.

    Without digests only what is json is looked at.

    Args:
      step: to verify.
      items: of it that are wanted.
    """
    try:
      if self.has_digest(step):
        lines = self._digest_path(step).read_text().splitlines()
        digests = dict(reversed(line.split("  ", 1)) for line in lines)
        for name in self._files_of(self.folder(step), items):
          if digests.pop(name, None) != _sha256(self.folder(step) / name):
            return f"{name} is not what was written, by its sha256"
        absent = [name for name in digests if name.split("/")[0] in items]
        if absent:
          return f"{absent[0]} is missing"
      for item in set(items) & set(_JSON):
        self.read(step, item)
    except FileNotFoundError as error:
      return f"{error.filename} is missing"
    except (OSError, ValueError) as error:  # Of decoding and of json as well.
      return f"it cannot be read: {error}"
    return None

  def move_aside(self, step: int, reason: str) -> pathlib.Path:
    """Moves a damaged step into WORKDIR/bad; returns its new place.

    Args:
      step: to move.
      reason: that is written beside its items.
    """
    folder = self._workdir / BAD
    folder.mkdir(exist_ok=True)
    target, number = folder / str(step), 1
    while target.exists():
      number += 1
      target = folder / f"{step}.{number}"
    # The digests last: a damaged step without them would be trusted.
    self.folder(step).rename(target)
    (target / _REASON).write_text(reason + "\n")
    self.drop_digest(step)
    return target

  def moved_aside(self) -> dict[str, str]:
    """Returns the names of what was moved aside, with the reasons."""
    folder, found = self._workdir / BAD, {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
      reason = path / _REASON
      found[path.name] = reason.read_text().strip() if reason.exists() else ""
    return found

  def tidy(self) -> None:
    """Removes what is neither a step nor belongs to one."""
    shutil.rmtree(self.path / TRASH, ignore_errors=True)
    for path in self.path.glob(f"*{_UNFINISHED}*"):
      shutil.rmtree(path, ignore_errors=True)
    known = {str(step) for step in self.steps()}
    for path in (self._workdir / DIGESTS).iterdir():
      if path.name not in known:
        path.unlink(missing_ok=True)

  def write_index(self) -> None:
    """Writes which step is the latest and which the best, for people."""
    losses = self.losses()
    chosen = {
      "latest": max(losses, default=None),
      "best": next(iter(best_of(losses, 1)), None),
    }
    index = {
      name: {
        "step": step,
        "folder": str(step),
        "validation_loss": losses[step] if losses[step] < math.inf else None,
      }
      for name, step in chosen.items()
      if step is not None
    }
    _write(self.path / INDEX, json.dumps(index, indent=2) + "\n")

  def size(self, step: int) -> int:
    """Returns the bytes of a step."""
    return sum(
      path.stat().st_size
      for path in self.folder(step).rglob("*")
      if path.is_file()
    )

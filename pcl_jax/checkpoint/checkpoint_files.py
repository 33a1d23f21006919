"""The files of a run's checkpoints.

    WORKDIR/checkpoints/STEP/       items encoder, rest, meta and metrics
    WORKDIR/checkpoints/index.json  the latest step and the best
    WORKDIR/digests/STEP            sha256 of the files of a step's items, as
                                    `sha256sum` writes them
    WORKDIR/bad/STEP/               a damaged step, with reason.txt

Nothing here needs a device or orbax, and reading does not disturb a run.
"""

import math
import os
import pathlib
import shutil
import tempfile
from typing import Any

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import storage

FOLDER = "checkpoints"
DIGESTS = "digests"
BAD = "bad"
INDEX = "index.json"
# Raised where checkpoints change so that training cannot go on from old ones.
FORMAT_VERSION = 2
TRASH = ".trash"
LOSS = "total"  # The validation loss that ranks steps, by its name.
# Among the losses: the step after which they mean the same.
COMPARED_SINCE = "compared_since"
ENCODER, REST, META, METRICS = "encoder", "rest", "meta", "metrics"
# Of a config, and of the meta of a run that began with an encoder's weights.
INIT_FROM = "init_from"
# Of a bundle: an encoder as a folder, without a run.
BUNDLE_WEIGHTS, BUNDLE_GOLDEN = "model.safetensors", "golden.npz"
_UNFINISHED = ".orbax-checkpoint-tmp"
_ITEMS = (ENCODER, REST, META, METRICS)
_JSON = {META: "metadata", METRICS: "metrics"}
_REASON = "reason.txt"


def loss_of(metrics: dict[str, Any] | None) -> float:
  """Returns the validation loss; infinity where it is absent or not finite."""
  loss = (metrics or {}).get(LOSS)
  is_number = isinstance(loss, int | float) and math.isfinite(loss)
  return float(loss) if is_number else math.inf


def since_of(metrics: dict[str, Any] | None) -> int:
  """Returns the step after which validation losses mean what this one does."""
  since = (metrics or {}).get(COMPARED_SINCE)
  return int(since) if isinstance(since, int | float) else 0


def best_of(losses: dict[int, float]) -> int | None:
  """Returns the step of the lowest finite loss, the latest of equal ones."""
  finite = [step for step in losses if math.isfinite(losses[step])]
  return min(finite, key=lambda step: (losses[step], -step), default=None)


def is_bundle(folder: str | os.PathLike[str]) -> bool:
  """Tells whether a folder is a bundle, whole or not."""
  path = pathlib.Path(folder)
  return any((path / n).is_file() for n in (BUNDLE_WEIGHTS, BUNDLE_GOLDEN))


def refuse_bundle(folder: str | os.PathLike[str]) -> None:
  """Raises InputError where a folder is a bundle, and a run is needed."""
  if is_bundle(folder):
    raise errors.InputError(
      f"{folder} is a bundle, an encoder without a run: it has no checkpoints "
      "and nothing to go on with. Give the workdir of a run."
    )


def _files_of(folder: pathlib.Path, items: tuple[str, ...]) -> list[str]:
  return [
    path.relative_to(folder).as_posix()
    for item in items
    for path in sorted((folder / item).rglob("*"))
    if path.is_file()
  ]


class CheckpointFiles:
  """The files of the checkpoints of one run; `path` has the steps."""

  def __init__(self, workdir: str | os.PathLike[str]):
    self._workdir = file_names.path(workdir).absolute()
    if not file_names.is_text(str(self._workdir)):
      raise errors.InputError(
        f"--workdir={workdir} has a name that is not UTF-8, and TensorStore "
        "writes no checkpoint there: give a folder of another name."
      )
    self.path = self._workdir / FOLDER

  def prepare(self) -> None:
    """Makes the folders and removes what an interruption left.

    Raises:
      InputError: the folders cannot be made, read or written.
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

  def check_exists(self) -> None:
    """Raises InputError where the folder is not the workdir of a run."""
    refuse_bundle(self._workdir)
    if not self.path.is_dir():
      raise errors.InputError(
        f"{self._workdir} has no folder {FOLDER}, so it is not the workdir of "
        "a run. Train one with python launch.py --config=... --workdir=..."
      )

  def steps(self) -> list[int]:
    """Returns the finished steps, in order."""
    if not self.path.is_dir():
      return []
    names = [one.name for one in self.path.iterdir() if one.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())

  def folder(self, step: int) -> pathlib.Path:
    """Returns the folder of a step."""
    return self.path / str(step)

  def read(self, step: int, item: str) -> dict[str, Any]:
    """Returns a step's `meta` or `metrics`; raises OSError or ValueError."""
    path = self.folder(step) / item / _JSON[item]
    found = storage.read_json(path)
    if not isinstance(found, dict):
      raise ValueError(f"{path} holds no json object")
    return found

  def _metrics(self) -> dict[int, dict[str, Any]]:
    """Returns the metrics of each step; none where they cannot be read."""
    found = {}
    for step in self.steps():
      try:
        found[step] = self.read(step, METRICS)
      except (OSError, ValueError):
        found[step] = {}
    return found

  def losses(self) -> dict[int, float]:
    """Returns the validation loss of each step; infinity where unknown.

    Also where it meant something else than those of later steps do.
    """
    found = self._metrics()
    since = max(map(since_of, found.values()), default=0)
    return {
      step: loss_of(metrics) if since_of(metrics) == since else math.inf
      for step, metrics in found.items()
    }

  def compared_since(self) -> int:
    """Returns the step after which validation losses can be compared."""
    return max(map(since_of, self._metrics().values()), default=0)

  def latest(self) -> int | None:
    """Returns the newest step, None where there is none."""
    return max(self.steps(), default=None)

  def best(self) -> int | None:
    """Returns the step of the lowest validation loss, else the newest."""
    best = best_of(self.losses())
    return self.latest() if best is None else best

  def _digest_path(self, step: int) -> pathlib.Path:
    return self._workdir / DIGESTS / str(step)

  def has_digest(self, step: int) -> bool:
    """Tells whether there are digests to verify a step with."""
    return self._digest_path(step).is_file()

  def write_digest(self, step: int) -> None:
    """Writes the digests of a step that is whole but not yet in its place."""
    source = next(self.path.glob(f"{step}{_UNFINISHED}*"))
    lines = [
      f"{storage.sha256(source / name)}  {name}\n"
      for name in _files_of(source, _ITEMS)
    ]
    storage.write_text(self._digest_path(step), "".join(lines))

  def drop_digest(self, step: int) -> None:
    """Removes the digests of a step, before it is saved again."""
    self._digest_path(step).unlink(missing_ok=True)

  def fault(self, step: int, items: tuple[str, ...] = _ITEMS) -> str | None:
    """Returns what is wrong with items of a step, None if nothing is.

    Without digests only the json files are checked.
    """
    folder = self.folder(step)
    try:
      if self.has_digest(step):
        lines = self._digest_path(step).read_text().splitlines()
        digests = dict(reversed(line.split("  ", 1)) for line in lines)
        for name in _files_of(folder, items):
          if digests.pop(name, None) != storage.sha256(folder / name):
            return f"{name} is not what was written, by its sha256"
        absent = [name for name in digests if name.split("/")[0] in items]
        if absent:
          return f"{absent[0]} is missing"
      for item in set(items) & set(_JSON):
        self.read(step, item)
    except FileNotFoundError as error:
      return f"{error.filename} is missing"
    except (OSError, ValueError) as error:  # ValueError: no text or no json.
      return f"it cannot be read: {error}"
    return None

  def move_aside(self, step: int, reason: str) -> pathlib.Path:
    """Moves a damaged step into WORKDIR/bad with a reason; returns its path."""
    folder = self._workdir / BAD
    folder.mkdir(exist_ok=True)
    target, number = folder / str(step), 1
    while target.exists():
      number += 1
      target = folder / f"{step}.{number}"
    # The digests last: a damaged step without them would be trusted.
    self.folder(step).rename(target)
    (target / _REASON).write_text(reason + "\n", encoding="utf-8")
    self.drop_digest(step)
    return target

  def moved_aside(self) -> dict[str, str]:
    """Returns the reason of each step that was moved aside, by its name."""
    folder, found = self._workdir / BAD, {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
      reason = path / _REASON
      text = reason.read_text(encoding="utf-8") if reason.exists() else ""
      found[path.name] = text.strip()
    return found

  def tidy(self) -> None:
    """Removes files that are not of a finished step."""
    shutil.rmtree(self.path / TRASH, ignore_errors=True)
    for path in self.path.glob(f"*{_UNFINISHED}*"):
      shutil.rmtree(path, ignore_errors=True)
    known = {str(step) for step in self.steps()}
    for path in (self._workdir / DIGESTS).iterdir():
      if path.name not in known:
        path.unlink(missing_ok=True)

  def write_index(self) -> None:
    """Writes for people which step is the latest and which the best."""
    losses = self.losses()
    chosen = {"latest": max(losses, default=None), "best": best_of(losses)}
    index = {
      name: {
        "step": step,
        "folder": str(step),
        "validation_loss": losses[step] if losses[step] < math.inf else None,
      }
      for name, step in chosen.items()
      if step is not None
    }
    storage.write_json(self.path / INDEX, index)

  def size(self, step: int) -> int:
    """Returns the size of a step in bytes."""
    files = [one for one in self.folder(step).rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)

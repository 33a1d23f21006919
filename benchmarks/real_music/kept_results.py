"""Results of the study that are kept beside its page, query by query.

A folder has a file for each row of the tables, and queries.json: the songs that
the values are of. From them the tables are made, without training and without
the music, and runs of several days and machines come into one table.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import hashlib
import pathlib
import re
from typing import Any

from jaxtyping import Int
import numpy as np

from benchmarks.real_music import real_scores
from benchmarks.strategies import strategy_runs
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import dataset
from pcl_jax.evaluation import mel_baselines
from pcl_jax.evaluation import representations
from pcl_jax.library import music_files

QUERIES = "queries.json"
VECTORS = "baselines"  # Folder of NAME.npy, a vector of each song.
_STATISTICS = {
  representations.MEAN_MEL: mel_baselines.mean_mel,
  representations.MEAN_STD_MEL: mel_baselines.mean_std_mel,
}
_DIGITS = 4
_NOT_IN_NAMES = re.compile(r"[^\w+-]+")  # Of files, on every system.
_HOURS = "training_hours"
_ALIKE = 0.005  # Of the hours: machines decode to slightly other lengths.
# Of a run's settings; runs of a row differ in the first, machines in the other.
_OF_A_RUN = ("seed", "data.fingerprint")


@dataclasses.dataclass(frozen=True)
class Run:
  """A training, or a representation without any, on one fold.

  Attributes:
    row: of the tables.
    seed: of the training; 0 where there is none.
    fold: its number.
    scores: of the fold's queries.
    about: `steps`, `training_hours` and `device` of a training.
    settings: that decide the result; the same for all runs of a row.
  """

  row: str
  seed: int
  fold: int
  scores: real_scores.Scores
  about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def finished(out: pathlib.Path, folds: int) -> list[Run]:
  """Returns the runs of `real_runs` that have a result, OUT/ROW-SEED/FOLD."""
  runs = []
  for folder in sorted(out.glob("*-*")):
    row, _, seed = folder.name.rpartition("-")
    for fold in range(folds if seed.isdecimal() else 0):
      path = folder / str(fold) / strategy_runs.RESULT
      if path.exists():
        found = storage.read_json(path)
        about = {key: found[key] for key in ("steps", _HOURS, "device")}
        runs.append(
          Run(row, int(seed), fold, found["scores"], about, found["settings"])
        )
  return runs


def songs_of(data: dataset.DataSet) -> str:
  """Returns a hash of the songs of a data set, whatever their split."""
  digest = hashlib.sha256(data.store.song_ids.tobytes())
  digest.update(data.store.checksums.tobytes())
  return digest.hexdigest()


def of_statistics(
  data: Sequence[dataset.DataSet], out: pathlib.Path
) -> list[Run]:
  """Looks up by chance, by the mel's statistics and by vectors of a folder."""
  songs = np.arange(len(data[0].store), dtype=np.int32)
  of = songs_of(data[0])
  vectors = {representations.CHANCE: None} | {
    name: statistic(data[0].store, songs)
    for name, statistic in _STATISTICS.items()
  }
  for path in sorted((out / VECTORS).glob("*.npy")):
    vectors[path.stem] = rows = np.load(path).astype(np.float32)
    about = path.with_suffix(".json")  # Earlier versions made none.
    if about.exists() and storage.read_json(about) != {"songs": of}:
      raise errors.InputError(
        f"{path} is of other songs: remove it, and --stages=baselines makes it "
        "again."
      )
    if len(rows) != len(songs) or not np.isfinite(rows).all():
      raise errors.InputError(
        f"{path} has the shape {rows.shape}, and should have a finite vector "
        f"of each of {len(songs)} songs: it is of other data. Remove it, and "
        "--stages=baselines makes it again."
      )
  return [
    Run(name, 0, fold, real_scores.measure(one, rows))
    for name, rows in vectors.items()
    for fold, one in enumerate(data)
  ]


def _queries(
  data: Sequence[dataset.DataSet], by_chance: Sequence[real_scores.Scores]
) -> dict[str, Any]:
  """Returns the recordings, and which of them are queries of each fold.

  Songs are named by their files, as numbers differ between machines.
  """
  content = storage.read_made_json(data[0].directory / music_files.IDS)
  names = {number: name for name, number in content["ids"].items()}
  catalogue = data[0].catalogue
  known = catalogue.song_ids[real_scores.recordings(data[0])].tolist()
  songs = sorted(names[one] for one in known)
  place = {name: i for i, name in enumerate(songs)}
  folds = [
    {
      protocol: {
        task: [place[names[song]] for song in columns["songs"]]
        for task, columns in tasks.items()
      }
      for protocol, tasks in scores.items()
    }
    for scores in by_chance
  ]
  rendered = len(catalogue) - len(songs)
  return {"songs": songs, "rendered_scores": rendered, "folds": folds}


def _rounded(scores: real_scores.Scores) -> dict[str, Any]:
  return {
    protocol: {
      task: {
        metric: np.round(columns[metric], _DIGITS).tolist()
        for metric in real_scores.METRICS
      }
      for task, columns in tasks.items()
    }
    for protocol, tasks in scores.items()
  }


def _songs(scores: real_scores.Scores) -> dict[str, Any]:
  return {
    protocol: {task: columns["songs"] for task, columns in tasks.items()}
    for protocol, tasks in scores.items()
  }


def keep(
  folder: pathlib.Path, data: Sequence[dataset.DataSet], runs: Iterable[Run]
) -> list[str]:
  """Adds runs to a folder; those that are there already are replaced.

  Args:
    folder: made where it is absent.
    data: the folds that the runs are of.
    runs: what to add.

  Returns:
    The rows that were written, each with its runs' number.

  Raises:
    InputError: what is there is of other songs or settings.
  """
  folder.mkdir(parents=True, exist_ok=True)
  by_chance = [real_scores.measure(one, None) for one in data]
  queries, path = _queries(data, by_chance), folder / QUERIES
  if path.exists() and storage.read_json(path) != queries:
    raise errors.InputError(
      f"{folder} has results for other queries than those of --data: packages "
      "of another version, or other folds. Give another --kept."
    )
  storage.write_json(path, queries, indent=None)
  by_row: dict[str, list[Run]] = {}
  for run in runs:
    if _songs(run.scores) != _songs(by_chance[run.fold]):
      raise errors.InputError(
        f"{run.row}, seed {run.seed}, fold {run.fold} has other queries than "
        "--data: it is of other songs. Remove its folder, or give another "
        "--out."
      )
    by_row.setdefault(run.row, []).append(run)
  return [_add(folder, row, of_row) for row, of_row in by_row.items()]


def _add(folder: pathlib.Path, row: str, runs: list[Run]) -> str:
  path = folder / f"{_NOT_IN_NAMES.sub('_', row)}.json"
  content = {"row": row, "settings": _shared(runs[0].settings), "runs": {}}
  if path.exists():
    content = storage.read_json(path)
  for run in runs:
    changed = storage.differences(content["settings"], _shared(run.settings))
    if changed:
      raise errors.InputError(
        f"{path} is of other settings ({'; '.join(changed)}): give another "
        "--kept."
      )
    _check_hours(path, content["runs"].values(), run)
    of_seed = content["runs"].setdefault(str(run.seed), {})
    scores = _rounded(run.scores)
    of_seed[str(run.fold)] = {**run.about, "scores": scores}
  storage.write_json(path, content, indent=None)
  return f"{row}: {sum(map(len, content['runs'].values()))} runs"


def _check_hours(
  path: pathlib.Path, seeds: Iterable[Mapping[str, Any]], run: Run
) -> None:
  """Refuses a run that was trained on more or fewer hours than are kept."""
  for of_seed in seeds:
    then = of_seed.get(str(run.fold), {}).get(_HOURS)
    now = run.about.get(_HOURS)
    if then is not None and abs(now - then) > _ALIKE * then:
      raise errors.InputError(
        f"{path} has trainings of {then:.2f} hours on fold {run.fold}, and "
        f"seed {run.seed} was trained on {now:.2f}: give another --kept."
      )


def _shared(settings: Mapping[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in settings.items() if k not in _OF_A_RUN}


@dataclasses.dataclass(frozen=True)
class Kept:
  """What a folder of `keep` has.

  Attributes:
    recordings: how many there are.
    rendered: scores that were trained on.
    folds: how many there are.
    runs: of all rows.
    queries: the songs, and which of them are the queries, as in queries.json.
  """

  recordings: int
  rendered: int
  folds: int
  runs: list[Run]
  queries: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def packages(
    self, protocol: str, task: str, folds: Iterable[int]
  ) -> Int[np.ndarray, " queries"]:
    """Returns the number of the package that each query of some folds is of.

    It is the folder below `games/`; where a library has none, its own folder.
    """
    songs = self.queries["songs"]
    names = [
      "/".join(pathlib.PurePosixPath(songs[place]).parent.parts[:2])
      for fold in folds
      for place in self.queries["folds"][fold][protocol][task]
    ]
    return np.unique(names, return_inverse=True)[1]


def check_same_queries(folder: pathlib.Path, other: pathlib.Path) -> None:
  """Refuses folders whose values, query by query, are not of the same songs.

  Raises:
    InputError: recordings or folds differ, or a folder has no results.
  """
  ours, theirs = map(_read_queries, (folder, other))
  if any(ours[key] != theirs[key] for key in ("songs", "folds")):
    raise errors.InputError(
      f"{other} has results for other queries than {folder}: packages of "
      "another version, or other folds. Give results of the same --data."
    )


def _read_queries(folder: pathlib.Path) -> dict[str, Any]:
  if not (folder / QUERIES).exists():
    raise errors.InputError(
      f"{folder} has no {QUERIES}: --stages=keep makes it from runs."
    )
  return storage.read_json(folder / QUERIES)


def read(folder: pathlib.Path) -> Kept:
  """Reads a folder of results.

  Raises:
    InputError: it has none.
  """
  queries = _read_queries(folder)
  runs = []
  for path in sorted(folder.glob("*.json")):
    if path.name != QUERIES:
      content = storage.read_json(path)
      runs += [
        Run(
          content["row"],
          int(seed),
          int(fold),
          about["scores"],
          {key: value for key, value in about.items() if key != "scores"},
          content["settings"],
        )
        for seed, of_seed in content["runs"].items()
        for fold, about in of_seed.items()
      ]
  songs, rendered = queries["songs"], queries["rendered_scores"]
  return Kept(len(songs), rendered, len(queries["folds"]), runs, queries)

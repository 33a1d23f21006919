"""The table of strategies: look-ups by query, intervals, differences.

A strategy has a score for each seed and query; its value is the mean of all.
The intervals are of a bootstrap over both: each of 4,000 resamples draws as
many queries, the same ones for all rows of the table, and as many seeds of each
strategy, with replacement. A resample of few seeds spreads too little, by
sqrt((n - 1) / n) for n of them, which is made good.
"""

from collections.abc import Mapping
import pathlib
import zlib

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import representations
from pcl_jax.evaluation.retrieval import ranking
from pcl_jax.evaluation.retrieval import relevance

UNTRAINED = representations.UNTRAINED
TASKS = ("sub-genre", "artist")
PRECISION, AVERAGE = "precision at 5", "average precision"
BEGIN, END = "<!-- strategies: begin -->", "<!-- strategies: end -->"
_DRAWS = 4000

# Task -> metric -> a score for each query.
Scores = dict[str, dict[str, list[float]]]


def look_up(
  catalogue: catalogues.Catalogue,
  embeddings: Float[np.ndarray, "songs d"],
  queries: Int[np.ndarray, " queries"],
  candidates: Int[np.ndarray, " candidates"] | None = None,
) -> Scores:
  """Looks up the songs that are nearest to each query.

  Args:
    catalogue: of the songs.
    embeddings: of all of them, [songs, d].
    queries: songs to look up.
    candidates: songs to find; all where not given. A query never finds itself.

  Returns:
    Precision at 5 and average precision of each query that shares a sub-genre,
    or an artist, with another song.
  """
  if candidates is None:
    candidates = np.arange(len(catalogue), dtype=np.int32)
  lists = (relevance.sub_genres(catalogue), catalogue.artists)
  rules = {
    task: relevance.Relevance.of(values)
    for task, values in zip(TASKS, lists, strict=True)
  }
  found = ranking.measure(embeddings, queries, candidates, rules).columns
  scores: Scores = {}
  for task, columns in found.items():
    scores[task] = {}
    for metric in (PRECISION, AVERAGE):
      values = columns[metric.replace(" ", "_")]
      scores[task][metric] = values[~np.isnan(values)].tolist()
  return scores


def resampled(
  scores: Float[np.ndarray, "seeds queries"],
  rng: np.random.Generator,
  groups: Int[np.ndarray, " queries"] | None = None,
) -> Float[np.ndarray, " draws"]:
  """Returns the means of resamples of queries and seeds.

  Args:
    scores: of a row of the table.
    rng: draws the seeds. The queries drawn are the same in every call with as
      many of them.
    groups: number of each query's group; groups are drawn then, not queries.
  """
  seeds = len(scores)
  of_seeds = bootstrap.resampled_means(scores.T, draws=_DRAWS, groups=groups)
  if seeds == 1:
    return of_seeds[:, 0]
  counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), _DRAWS)
  widened = (counts / seeds - 1 / seeds) * np.sqrt(seeds / (seeds - 1))
  return (of_seeds * (1 / seeds + widened)).sum(axis=1)


def draws_of(row: str) -> np.random.Generator:
  """Returns what draws the seeds of a row, whatever other rows there are."""
  return np.random.default_rng(zlib.crc32(row.encode()))


def _array(row: list[Scores], task: str, metric: str) -> np.ndarray:
  return np.array([one[task][metric] for one in row], np.float64)


def _cell(scores: np.ndarray, means: np.ndarray) -> str:
  low, high = bootstrap.percentiles(means)
  cell = f"{scores.mean():.3f} [{low:.3f}, {high:.3f}]"
  if len(scores) > 1:
    of_seeds = scores.mean(axis=1)
    cell += f" ({of_seeds.min():.3f} to {of_seeds.max():.3f})"
  return cell


def _line(*cells: str) -> str:
  return f"| {' | '.join(cells)} |"


def _runs(seeds: int, steps: int | None) -> str:
  return f"{seeds}" if steps is None else f"{seeds} x {steps:,}"


def _metric_table(
  metric: str,
  rows: Mapping[str, list[Scores]],
  steps: Mapping[str, int],
  means: Mapping[tuple[str, str, str], np.ndarray],
) -> list[str]:
  order = sorted(
    rows, key=lambda name: -_array(rows[name], TASKS[0], metric).mean()
  )
  lines = [_line(metric, "seeds x steps", *TASKS), "|---|---|---|---|"]
  for name in order:
    cells = [
      _cell(_array(rows[name], task, metric), means[name, task, metric])
      for task in TASKS
    ]
    lines.append(_line(name, _runs(len(rows[name]), steps.get(name)), *cells))
  return [*lines, ""]


def _difference(a: float, b: float, means: np.ndarray) -> str:
  low, high = bootstrap.percentiles(means)
  text = f"{a - b:+.3f} [{low:+.3f}, {high:+.3f}]"
  return f"**{text}**" if low > 0 or high < 0 else text


def _difference_table(
  task: str,
  rows: Mapping[str, list[Scores]],
  means: Mapping[tuple[str, str, str], np.ndarray],
) -> list[str]:
  value = {
    (name, metric): _array(row, task, metric).mean()
    for name, row in rows.items()
    for metric in (PRECISION, AVERAGE)
  }
  order = sorted(rows, key=lambda name: -value[name, PRECISION])
  lines = [
    _line(
      f"{task}: differences",
      "to untrained, precision at 5",
      "to the next row, precision at 5",
      "to the next row, average precision",
    ),
    "|---|---|---|---|",
  ]
  for i, name in enumerate(order):
    others = [(UNTRAINED, PRECISION)]
    others += [
      (n, m) for n in order[i + 1 : i + 2] for m in (PRECISION, AVERAGE)
    ]
    cells = [
      ""
      if other == name or other not in rows
      else _difference(
        value[name, metric],
        value[other, metric],
        means[name, task, metric] - means[other, task, metric],
      )
      for other, metric in others
    ]
    lines.append(_line(name, *cells, *[""] * (3 - len(cells))))
  return [*lines, ""]


def in_markdown(
  head: str,
  trained: Mapping[str, list[Scores]],
  steps: Mapping[str, int],
  fixed: Mapping[str, list[Scores]],
  *,
  upper: str,
) -> str:
  """Returns the tables that people read.

  Args:
    head: what was measured, and on which machine.
    trained: row -> look-ups of each seed.
    steps: of the rows that were trained.
    fixed: row -> look-ups, of what has no seed.
    upper: row of `fixed` whose queries are others: it is in no difference.
  """
  rows = {**trained, **fixed}
  means = {
    (name, task, metric): resampled(_array(row, task, metric), draws_of(name))
    for name, row in rows.items()
    for task in TASKS
    for metric in (PRECISION, AVERAGE)
  }
  paired = {name: row for name, row in rows.items() if name != upper}
  counts = {
    name: ", ".join(f"{len(row[0][t][PRECISION])} for {t}" for t in TASKS)
    for name, row in rows.items()
  }
  told = f"Queries: {counts[UNTRAINED]}"
  if upper in rows:
    told += f"; of {upper}: {counts[upper]}"
  lines = [head, "", f"{told}.", ""]
  for metric in (PRECISION, AVERAGE):
    lines += _metric_table(metric, rows, steps, means)
  for task in TASKS:
    lines += _difference_table(task, paired, means)
  return "\n".join(lines).rstrip()


def around_markers(path: pathlib.Path) -> tuple[str, str]:
  """Returns what stands before and after the markers of a file.

  Args:
    path: of the file; one that is absent has a title before them.

  Raises:
    InputError: the file has not exactly one of each marker, in order.
  """
  old = (
    path.read_text() if path.exists() else f"# Strategies\n\n{BEGIN}\n{END}\n"
  )
  before, begin, rest = old.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not (begin and end) or BEGIN in rest or END in before + after:
    raise errors.InputError(
      f"{path} has no one place for the table: put the lines {BEGIN} and "
      f"{END} where it belongs, once each, or give a file that does not exist."
    )
  return before, after


def check_place(path: pathlib.Path) -> None:
  """Refuses a file for the table, before the work for it is done.

  Raises:
    InputError: it cannot be written, or as `around_markers`.
  """
  storage.check_writable(path, "give another file as --write")
  around_markers(path)


def write_between_markers(path: pathlib.Path, text: str) -> None:
  """Replaces what stands between the markers of a file.

  Args:
    path: of the file; made where it is absent.
    text: to stand there.

  Raises:
    InputError: as `around_markers`.
  """
  before, after = around_markers(path)
  storage.write_text(path, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")

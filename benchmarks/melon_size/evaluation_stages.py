"""Stages of the evaluation, on a table of vectors and on songs of 30 s."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import itertools
import pathlib

import numpy as np

from benchmarks.melon_size import made_melon
from benchmarks.melon_size import stage_timing
from benchmarks.melon_size.stage_timing import Done
from pcl_jax.audio import alignment
from pcl_jax.common import jax_setup
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.embedding.tables import search
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import mel_baselines
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation import vector_tables
from pcl_jax.evaluation.audit import leakage
from pcl_jax.evaluation.retrieval import playlist_continuation
from pcl_jax.evaluation.retrieval import precision_at_k
from pcl_jax.evaluation.retrieval import ranking
from pcl_jax.evaluation.tagging import few_labels
from pcl_jax.evaluation.tagging import melon_50
from pcl_jax.evaluation.tagging import probes

_FRAMES = 1876  # Of 30 s.
_COMPARED = 3  # Songs that the audit aligns with each test song.
_RETRIEVAL = (
  "artist",
  "artist_other_album",
  "album",
  "sub_genre",
  "playlist_songs",
)
_ROUNDS = 100  # Of a probe, at most.


def _context(
  folder: pathlib.Path, chosen: Sequence[str] = ()
) -> task_base.Context:
  """Opens the data set and its vectors, as the command does."""
  jax_setup.start()
  data = dataset.DataSet(folder)
  vectors = vector_tables.read(folder / made_melon.VECTORS, data).rows
  return task_base.Context(data, vectors, chosen=tuple(chosen))


def _read(folder: pathlib.Path, sizes: made_melon.Sizes) -> Callable[[], Done]:
  data = dataset.DataSet(folder)

  def run() -> Done:
    rows = vector_tables.read(folder / made_melon.VECTORS, data).rows
    return Done(f"{rows.nbytes / 1e9:.1f} GB of float32")

  return run


def _asked(
  catalogue: catalogues.Catalogue, every: int
) -> tuple[catalogues.Catalogue, float]:
  """Leaves a share of the test songs; returns how many times as many it has."""
  tests = catalogue.rows_of(catalogues.TEST)
  split = catalogue.split.copy()
  split[tests] = catalogues.NO_SPLIT
  split[tests[::every]] = catalogues.TEST
  fewer = dataclasses.replace(catalogue, split=split)
  return fewer, len(tests) / len(tests[::every])


def _look_up(
  folder: pathlib.Path, sizes: made_melon.Sizes
) -> Callable[[], Done]:
  context = _context(folder)
  fewer, times = _asked(context.catalogue, sizes.every)

  def run() -> Done:
    begin = stage_timing.now()
    precision_at_k.precisions(fewer, context.embeddings)
    seconds = times * (stage_timing.now() - begin)
    begin = stage_timing.now()
    precision_at_k.by_chance(context.catalogue)
    return Done(
      f"{len(context.queries):,} songs among {len(context.catalogue):,}; "
      f"{len(fewer.rows_of(catalogues.TEST)):,} were looked up",
      seconds + stage_timing.now() - begin,
    )

  return run


def _mel_and_audit(
  folder: pathlib.Path, sizes: made_melon.Sizes
) -> Callable[[], Done]:
  jax_setup.start()
  data = dataset.DataSet(folder)
  rows = np.arange(len(data.store), dtype=np.int32)
  fewer, times = _asked(data.catalogue, sizes.every)

  def run() -> Done:
    begin = stage_timing.now()
    vectors = mel_baselines.mean_mel(data.store, rows)
    middle = stage_timing.now()
    precision_at_k.precisions(fewer, vectors)
    data.catalogue = fewer
    leakage.check_vectors("made-up", data)
    part = stage_timing.now() - middle
    return Done(
      f"all songs are read, of {sizes.frames} frames "
      f"({(middle - begin)[0] / 60:.1f} min); of the test songs, "
      f"{len(fewer.rows_of(catalogues.TEST)):,} were looked up and checked",
      middle - begin + times * part,
    )

  return run


def _retrieval(
  folder: pathlib.Path, sizes: made_melon.Sizes
) -> Callable[[], Done]:
  context = _context(folder, _RETRIEVAL)
  songs = context.queries

  def run() -> Done:
    begin = stage_timing.now()
    rules = {name: registry.TASKS[name].rule(context) for name in _RETRIEVAL}
    middle = stage_timing.now()
    asked = songs[:: sizes.every]
    found = ranking.measure(context.embeddings, asked, songs, rules)
    end = stage_timing.now()
    part = (end - middle) * len(songs) / len(asked)
    for columns in found.columns.values():
      whole = {k: np.resize(one, len(songs)) for k, one in columns.items()}
      bootstrap.mean_metrics(whole)
      bootstrap.mean_metrics(whole)  # Those of chance.
    rest = middle - begin + stage_timing.now() - end
    return Done(
      f"{len(_RETRIEVAL)} tasks, hubs; {len(songs):,} queries and candidates; "
      f"{len(asked):,} queries were ranked",
      rest + part,
    )

  return run


def _nearest_seconds(
  vectors: np.ndarray, problem: playlist_continuation.Problem, every: int
) -> stage_timing.Seconds:
  """Returns the seconds of all lists of neighbours, by a share of them."""
  used = np.unique(problem.contexts.values)
  some, others = used[::every], vectors[problem.candidates]
  begin = stage_timing.now()
  search.top_k(search.unit(vectors[some]), others, search.NEIGHBOURS)
  return (stage_timing.now() - begin) * len(used) / len(some)


def _continuation(
  folder: pathlib.Path, sizes: made_melon.Sizes
) -> Callable[[], Done]:
  """Times shares of the songs and playlists; few candidates show the memory."""
  context = _context(folder)
  lists, vectors = context.catalogue.playlists, context.embeddings
  counts = np.bincount(lists.values, minlength=len(context.catalogue))
  problem = playlist_continuation.split_playlists(
    lists, context.catalogue.split
  )
  few = dataclasses.replace(
    problem, candidates=problem.candidates[:: sizes.every]
  )

  def run() -> Done:
    nearest = _nearest_seconds(vectors, problem, sizes.every)
    found = playlist_continuation.continue_playlists(vectors, few)
    first = next(found)  # Once all lists of neighbours are there.
    begin = stage_timing.now()
    some = np.arange(-(-len(problem.playlists) // sizes.every))
    scored = dataclasses.replace(
      problem,
      playlists=problem.playlists[some],
      contexts=problem.contexts.select(some),
      targets=problem.targets.select(some),
    )
    found = itertools.islice(itertools.chain([first], found), len(some))
    playlist_continuation.score_playlists(scored, found, counts)
    ranked = stage_timing.now() - begin
    ranked *= len(problem.playlists) / len(some)
    used = len(np.unique(problem.contexts.values))
    return Done(
      f"{used:,} songs of {len(problem.playlists):,} playlists, "
      f"{len(problem.candidates):,} candidates; processor: nearest "
      f"{nearest[1] / 60:.1f} min, ranking {ranked[1] / 60:.1f} min",
      nearest + ranked,
    )

  return run


def _probe(
  kind: str, folder: pathlib.Path, sizes: made_melon.Sizes
) -> Callable[[], Done]:
  """Times the second round of a probe, which all further ones resemble."""
  context = _context(folder)

  def run() -> Done:
    begin = stage_timing.now()
    labelled, rows = melon_50.melon_50(context.catalogue)
    features = context.embeddings[rows]

    def probe(rounds: int) -> None:
      if kind == "few labels":
        few_labels.measure(features, labelled, rounds=rounds)
      else:
        probes.train_probe(features, labelled, kind=kind, rounds=rounds)

    times = [begin]
    for rounds in (1, 1, 2):  # The first one compiles, too.
      probe(rounds)
      times.append(stage_timing.now())
    first, second, both = np.diff(times, axis=0)
    one = np.maximum(both - second, 0.0)
    return Done(
      f"{len(rows):,} songs; {_ROUNDS} rounds at most, {one[0]:.1f} s each",
      first + (_ROUNDS - 1) * one,
    )

  return run


def _collapse(
  folder: pathlib.Path, sizes: made_melon.Sizes
) -> Callable[[], Done]:
  context = _context(folder)

  def run() -> Done:
    found = registry.TASKS["collapse"].run(context)
    return Done(f"{len(found.per_item['song_id']):,} songs")

  return run


def _paired_tests(
  folder: pathlib.Path, sizes: made_melon.Sizes
) -> Callable[[], Done]:
  count = len(catalogues.load(folder).rows_of(catalogues.TEST))
  rng = np.random.default_rng(0)
  first, second = rng.random((2, count, len(ranking.MEASURES)))

  def run() -> Done:
    bootstrap.paired_differences(first, second)
    return Done(f"--compare, one task of {count:,} queries, 10,000 resamples")

  return run


def _long_songs(sizes: made_melon.Sizes) -> list[np.ndarray]:
  rows = np.arange(sizes.long_songs + 1)
  return [one for _, one in made_melon.features(rows, _FRAMES)]


def _long_statistics(
  folder: pathlib.Path, sizes: made_melon.Sizes
) -> Callable[[], Done]:
  songs = _long_songs(sizes)

  def run() -> Done:
    begin = stage_timing.now()
    for one in songs:
      mel_baselines.mean_and_std(one)
    seconds = (stage_timing.now() - begin) / len(songs)
    return Done(
      f"{sizes.songs:,} songs; {len(songs):,} were measured, in memory",
      seconds * sizes.songs,
    )

  return run


def _long_alignments(
  folder: pathlib.Path, sizes: made_melon.Sizes
) -> Callable[[], Done]:
  songs = _long_songs(sizes)
  tests = len(catalogues.load(folder).rows_of(catalogues.TEST))

  def run() -> Done:
    begin = stage_timing.now()
    for first, second in itertools.pairwise(songs):
      alignment.align(first, second)
    seconds = (stage_timing.now() - begin) / (len(songs) - 1)
    pairs = _COMPARED * tests
    return Done(
      f"at most {pairs:,} pairs; {len(songs) - 1:,} were measured, in memory",
      seconds * pairs,
    )

  return run


STAGES: Mapping[str, stage_timing.Stage] = {
  "read the vectors": _read,
  "look-up": _look_up,
  "retrieval": _retrieval,
  "playlist continuation": _continuation,
  "Melon-50, MLP": functools.partial(_probe, "mlp"),
  "Melon-50, linear": functools.partial(_probe, "linear"),
  "Melon-50, few labels": functools.partial(_probe, "few labels"),
  "collapse": _collapse,
  "mean mel, audit": _mel_and_audit,
  "mean and deviation, songs of 30 s": _long_statistics,
  "alignments of the audit, songs of 30 s": _long_alignments,
  "paired tests": _paired_tests,
}

"""Measures how changes of the audio move embeddings and mislead a probe."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import pathlib
from typing import Any

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.audio import decode
from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data.splits import stratify
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding.tables import search
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation.robustness import audio_changes
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probes

LEAST_OF_FOLDER = 5  # Songs of a folder that is a class of the probe.
_QUERIES = 1024  # Compared with all clean songs at a time.


@dataclasses.dataclass(frozen=True)
class Embedded:
  """Embeddings of songs, clean and changed.

  Attributes:
    ids: ids of the songs that could be read.
    clean: embedding of each song, float32 [songs, d].
    changed: (name of the change, strength) -> embeddings, [songs, d].
    failures: why songs could not be read, by id.
  """

  ids: tuple[str, ...]
  clean: Float[np.ndarray, "songs d"]
  changed: dict[tuple[str, int | float], Float[np.ndarray, "songs d"]]
  failures: dict[str, str]


def _versions(
  samples: np.ndarray,
  variants: Sequence[tuple[audio_changes.Change, int | float]],
  song: int,
) -> Iterator[np.ndarray]:
  """Yields the recording, then each changed version of it."""
  yield samples
  for change, strength in variants:
    # Each song has noise of its own, the same at every strength.
    number = int.from_bytes(change.name.encode()[:8], "little")
    rng = np.random.default_rng([song, number])
    yield change.apply(samples, strength, rng)


def embed_changes(
  embedder: Callable,
  source: audio_sources.Source,
  changes: Sequence[audio_changes.Change],
  *,
  seconds: float,
  batch_patches: int,
  channels: str = channel_mix.MEAN,
) -> Embedded:
  """Embeds the beginning of each recording, clean and after each change.

  Args:
    embedder: patches [n, 256, 48] to vectors [n, d].
    source: the recordings.
    changes: changes to try.
    seconds: length of the beginning of each recording that is used.
    batch_patches: number of patches encoded at once.
    channels: what is taken of several, one of `channel_mix.CHOICES`.

  Raises:
    InputError: no recording can be read.
  """
  variants = [(c, strength) for c in changes for strength in c.strengths]
  versions = 1 + len(variants)
  failures: dict[str, str] = {}

  def pieces() -> Iterator[tuple[int, np.ndarray]]:
    for song, path in enumerate(source.paths):
      try:
        blocks = list(
          decode.audio_blocks(path, to_s=seconds, channels=channels)
        )
      except errors.InputError as error:
        failures[source.ids[song]] = getattr(error, "reason", str(error))
        continue
      made = _versions(np.concatenate(blocks), variants, song)
      for version, samples in enumerate(made):
        feature = melspectrogram.log_mel(samples).astype(np.float16)
        yield song * versions + version, song_patches.cut(feature).patches

  batches = song_patches.gathered(pieces(), batch_patches)
  found = song_patches.encoded(embedder, batches)
  means, counts = song_patches.mean_vectors(found, len(source.ids) * versions)
  read = np.flatnonzero(counts[::versions])
  if not len(read):
    first, reason = next(iter(failures.items()))
    raise errors.InputError(
      f"none of {len(failures)} recordings can be read (first: {first}: "
      f"{reason}). Give a folder of audio files as --audio."
    )
  means = means.reshape(len(source.ids), versions, -1)[read]
  changed = {
    (change.name, strength): means[:, 1 + number]
    for number, (change, strength) in enumerate(variants)
  }
  ids = tuple(source.ids[song] for song in read)
  return Embedded(ids, means[:, 0], changed, failures)


def similarities(
  clean: Float[np.ndarray, "songs d"], changed: Float[np.ndarray, "songs d"]
) -> tuple[Float[np.ndarray, " songs"], Int[np.ndarray, " songs"]]:
  """Compares changed songs with all clean ones.

  Args:
    clean: embeddings of clean songs.
    changed: embeddings of the same songs after a change.

  Returns:
    The cosine of each changed song with its own clean embedding, and the rank
    of that one among all clean ones, 1 for the nearest.
  """
  clean, changed = search.unit(clean), search.unit(changed)
  own = (clean * changed).sum(axis=1)
  ranks = np.zeros(len(own), np.int64)
  for begin in range(0, len(own), _QUERIES):
    some = np.arange(begin, min(begin + _QUERIES, len(own)))
    cosines = changed[some] @ clean.T
    # Taken from the same product, so that rounding does not decide.
    mine = cosines[np.arange(len(some)), some]
    ranks[some] = 1 + (cosines > mine[:, None]).sum(axis=1)
  return own.astype(np.float32), ranks


def between_songs(clean: Float[np.ndarray, "songs d"]) -> float:
  """Returns the mean cosine of two different clean songs; nan of one song."""
  unit = search.unit(clean).astype(np.float64)
  pairs = len(unit) * (len(unit) - 1)
  if not pairs:
    return float("nan")
  total = (unit.sum(axis=0) ** 2).sum() - (unit**2).sum()
  return float(total / pairs)


def folders(
  ids: Sequence[str],
) -> tuple[labelled_sets.LabelledSet, Int[np.ndarray, " rows"]]:
  """Makes a set in which the tag of a song is its folder.

  Args:
    ids: paths of the songs.

  Returns:
    The set, split 60/20/20 stratified over folders, without the songs of
    folders with fewer than `LEAST_OF_FOLDER`; and the place of each of its
    songs in `ids`.

  Raises:
    InputError: there are fewer than two such folders.
  """
  names = np.array([pathlib.PurePath(one).parent.as_posix() for one in ids])
  known, counts = np.unique(names, return_counts=True)
  tags = known[counts >= LEAST_OF_FOLDER]
  if len(tags) < 2:
    raise errors.InputError(
      f"{len(known)} folders hold the recordings and {len(tags)} of them at "
      f"least {LEAST_OF_FOLDER}; a probe needs two such folders, one for each "
      "class (artists, genres)"
    )
  rows = np.flatnonzero(np.isin(names, tags))
  labels = names[rows][:, None] == tags[None]
  split = stratify.divide(labels, test_share=0.2, validation_share=0.2, seed=0)
  return labelled_sets.LabelledSet(
    name="folders",
    tags=tuple(tags.tolist()),
    ids=tuple(ids[row] for row in rows),
    labels=labels,
    split=split,
    single_label=True,
  ), rows


def _metric(values: np.ndarray) -> dict[str, Any]:
  low, high = bootstrap.bootstrap_interval(np.asarray(values, np.float64))
  return {"value": float(np.mean(values)), "interval_95": [low, high]}


def measure_similarity(
  found: Embedded,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
  """Measures each change: rows of the curves, and columns of all songs."""
  rows, cosines, ranks = [], [], []
  for (change, strength), vectors in found.changed.items():
    cosine, rank = similarities(found.clean, vectors)
    cosines.append(cosine)
    ranks.append(rank)
    rows.append(
      {
        "change": change,
        "strength": strength,
        "cosine": _metric(cosine),
        "found_first": _metric(rank == 1),
        "median_rank": float(np.median(rank)),
      }
    )
  songs = len(found.ids)
  return rows, {
    "song": np.tile(list(map(file_names.shown, found.ids)), len(rows)),
    "change": np.repeat([row["change"] for row in rows], songs),
    "strength": np.repeat([float(row["strength"]) for row in rows], songs),
    "cosine": np.concatenate(cosines).astype(np.float64),
    "rank": np.concatenate(ranks),
  }


def measure_probe(
  found: Embedded, rows: list[dict[str, Any]], **options: Any
) -> dict[str, Any]:
  """Trains a probe for folders on clean songs; adds its drops to the rows.

  Args:
    found: the embeddings.
    rows: rows that `measure_similarity` returned; changed in place.
    **options: options of `probes.train_probe`.

  Returns:
    A description of the probe, or under `not_given` why there is none.
  """
  try:
    labelled, places = folders(found.ids)
    clean, probe = probes.train_probe(found.clean[places], labelled, **options)
  except errors.InputError as error:
    return {"not_given": str(error)}
  test = labelled.split == labelled_sets.TEST
  own = labelled.labels[test].argmax(axis=1)

  def correct(vectors: np.ndarray) -> np.ndarray:
    found = probe.probabilities(vectors[places][test]).argmax(axis=1)
    return (found == own).astype(np.float64)

  right = correct(found.clean)
  for row in rows:
    after = correct(found.changed[row["change"], row["strength"]])
    row["accuracy"] = _metric(after)
    row["drop"] = _metric(right - after)
  return {
    "classes": len(labelled.tags),
    "test_songs": int(test.sum()),
    "clean_accuracy": _metric(right),
    "left_out": {
      f"songs of folders with fewer than {LEAST_OF_FOLDER}": len(found.ids)
      - len(places)
    },
    "settings": clean.settings,
  }

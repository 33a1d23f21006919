"""Melon-50: tagging test songs with their 50 most frequent sub-genres."""

from jaxtyping import Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data.splits import stratify
from pcl_jax.evaluation.retrieval import relevance
from pcl_jax.evaluation.tagging import labelled_sets

TAGS = 50


def frequent_codes(
  codes: np.ndarray, counts: Int[np.ndarray, " codes"]
) -> Int[np.ndarray, " kept"]:
  """Returns the places of the most frequent codes, in the order of the codes.

  Args:
    codes: names, [codes].
    counts: songs that have each. Of equally frequent codes the last by name
      are kept; a code that no song has never is.
  """
  there = np.flatnonzero(counts > 0)
  ranked = sorted(there.tolist(), key=lambda i: (counts[i], codes[i]))
  return np.array(sorted(ranked[-TAGS:], key=lambda i: codes[i]), np.int64)


def _published(split: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Repeats the published mistake: a song may be in two parts.

  Positions among the training and validation songs are read as positions among
  all songs.

  Args:
    split: the right split.

  Returns:
    The songs, and the part of each.
  """
  inner = split[split != labelled_sets.TEST]
  parts = {
    labelled_sets.TRAIN: np.flatnonzero(inner == labelled_sets.TRAIN),
    labelled_sets.VALIDATION: np.flatnonzero(inner == labelled_sets.VALIDATION),
    labelled_sets.TEST: np.flatnonzero(split == labelled_sets.TEST),
  }
  songs = np.concatenate(list(parts.values()))
  return songs, np.repeat(list(parts), [len(part) for part in parts.values()])


def overlap(labelled: labelled_sets.LabelledSet) -> int:
  """Counts the test songs that are training or validation songs as well."""
  test = labelled.split == labelled_sets.TEST
  ids = np.array(labelled.ids)
  return int(np.isin(ids[test], ids[~test]).sum())


def melon_50(
  catalogue: catalogues.Catalogue, *, published_split: bool = False
) -> tuple[labelled_sets.LabelledSet, Int[np.ndarray, " songs"]]:
  """Makes the task from the test songs of a data set.

  Args:
    catalogue: the catalogue of the data set.
    published_split: repeats the mistake of the published script, by which most
      test songs are training or validation songs as well: only to be compared
      with numbers that were measured so.

  Returns:
    The set, and the row in the catalogue of each of its songs. Test songs
    without any of the codes stay, without a tag.

  Raises:
    InputError: no test song has a sub-genre, or there are too few songs.
  """
  songs = catalogue.rows_of(catalogues.TEST)
  has = relevance.as_matrix(relevance.sub_genres(catalogue))[songs]
  counts = np.zeros(len(catalogue.genre_codes), np.int64)
  # Code i is the name i - 1; there may be more names than codes in use.
  used = np.asarray(has.sum(axis=0)).ravel()[1:]
  counts[: len(used)] = used
  kept = frequent_codes(catalogue.genre_codes, counts)
  if not len(kept):
    raise errors.InputError(
      f"none of the {len(songs)} test songs has a sub-genre (a genre code that "
      "does not end in 00), so there is nothing to tag. Give a data set with "
      "genres."
    )
  labels = np.asarray(has[:, kept + 1].toarray() > 0)
  places = np.arange(len(songs))
  split = stratify.divide(labels, test_share=0.2, validation_share=0.2, seed=0)
  if published_split:
    places, split = _published(split)
  rows = songs[places]
  made = labelled_sets.LabelledSet(
    name="melon-50-published" if published_split else "melon-50",
    tags=tuple(str(code) for code in catalogue.genre_codes[kept]),
    ids=tuple(str(i) for i in catalogue.song_ids[rows].tolist()),
    labels=labels[places],
    split=split,
  )
  return made, rows

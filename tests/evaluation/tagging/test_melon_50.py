"""Tests of pcl_jax.evaluation.tagging.melon_50 and its tasks."""

import collections
import dataclasses

from flax import nnx
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import ragged
from pcl_jax.data import song_store
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import fine_tune
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import melon_50
from pcl_jax.evaluation.tagging import probes
from pcl_jax.models import audio_encoder
from tests.support import labelled_example
from tests.support import quick_backbone
from tests.support.tiny import tiny_data


def _catalogue(songs: int = 3000, codes: int = 60) -> catalogues.Catalogue:
  """A catalogue with more sub-genres than are kept; every tenth is a genre."""
  rng = np.random.default_rng(0)
  made = tiny_data.tiny_catalogue(songs)
  lists = [
    sorted(set((1 + rng.geometric(0.03, 3) % codes).tolist()))
    for _ in range(songs)
  ]
  lists[5] = lists[7] = []
  names = [f"GN{i:02d}{0 if i % 10 == 0 else 1:02d}" for i in range(codes)]
  return dataclasses.replace(
    made,
    genres=ragged.Ragged.from_lists(lists),
    # Not in the order of their numbers.
    genre_codes=np.array(names)[rng.permutation(codes)],
  )


@pytest.fixture(scope="module")
def made():
  catalogue = _catalogue()
  return catalogue, *melon_50.melon_50(catalogue)


def test_the_tags_are_the_most_frequent_sub_genres_of_test_songs(made):
  catalogue, labelled, _ = made
  counts = collections.Counter()
  for song in catalogue.rows_of(catalogues.TEST).tolist():
    names = {str(catalogue.genre_codes[c - 1]) for c in catalogue.genres[song]}
    counts.update(name for name in names if not name.endswith("00"))
  assert len(counts) > 50
  pairs = sorted((count, name) for name, count in counts.items())
  assert labelled.tags == tuple(sorted(name for _, name in pairs[-50:]))
  assert labelled.name == "melon-50"


def test_of_equally_frequent_codes_the_last_by_name_are_kept(monkeypatch):
  monkeypatch.setattr(melon_50, "TAGS", 2)
  codes = np.array(["c", "a", "b", "d", "e"])
  found = melon_50.frequent_codes(codes, np.array([3, 3, 3, 0, 2]))
  assert codes[found].tolist() == ["b", "c"]


def test_labels_are_those_of_the_song_in_the_named_column(made):
  catalogue, labelled, rows = made
  assert labelled.ids == tuple(map(str, catalogue.song_ids[rows].tolist()))
  for place in range(0, len(rows), 37):
    names = {
      str(catalogue.genre_codes[c - 1])
      for c in catalogue.genres[int(rows[place])]
    }
    found = {labelled.tags[i] for i in np.flatnonzero(labelled.labels[place])}
    assert found == names & set(labelled.tags)


def test_each_test_song_is_in_one_part_with_its_tags_in_proportion(made):
  catalogue, labelled, rows = made
  np.testing.assert_array_equal(rows, catalogue.rows_of(catalogues.TEST))
  shares = np.bincount(labelled.split) / len(rows)
  np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.02)
  assert melon_50.overlap(labelled) == 0
  common = labelled.labels.sum(axis=0) >= 25
  for part, share in enumerate((0.6, 0.2, 0.2)):
    inside = labelled.labels[labelled.split == part].sum(axis=0)
    found = inside[common] / labelled.labels.sum(axis=0)[common]
    np.testing.assert_allclose(found, share, atol=0.12)


def test_the_published_split_has_the_same_test_songs_also_in_other_parts(made):
  catalogue, right, rows = made
  labelled, places = melon_50.melon_50(catalogue, published_split=True)
  assert labelled.name == "melon-50-published"

  def part(one, songs, number):
    return set(songs[one.split == number].tolist())

  test = part(labelled, places, labelled_sets.TEST)
  assert test == part(right, rows, labelled_sets.TEST)
  # Both were drawn from the rest, and its places read as those of all songs.
  rest = np.array(sorted(set(rows.tolist()) - test))
  for number in (labelled_sets.TRAIN, labelled_sets.VALIDATION):
    inner = np.isin(rest, list(part(right, rows, number)))
    expected = rows[np.flatnonzero(inner)]
    assert part(labelled, places, number) == set(expected.tolist())
  others = set(places.tolist()) - test
  learnt = part(labelled, places, labelled_sets.TRAIN)
  learnt |= part(labelled, places, labelled_sets.VALIDATION)
  assert melon_50.overlap(labelled) == len(learnt & test) > 0.7 * len(test)
  assert len(others) < len(rest)


def test_fewer_sub_genres_than_fifty_are_all_taken_and_none_is_refused():
  catalogue = tiny_data.tiny_catalogue(200)
  labelled, _ = melon_50.melon_50(catalogue)
  in_use = set()
  for song in catalogue.rows_of(catalogues.TEST).tolist():
    in_use.update(catalogue.genres[song].tolist())
  names = [str(catalogue.genre_codes[code - 1]) for code in in_use]
  expected = sorted(name for name in names if not name.endswith("00"))
  assert list(labelled.tags) == expected
  bare = dataclasses.replace(
    catalogue, genres=ragged.Ragged.from_lists([[]] * 200)
  )
  with pytest.raises(errors.InputError, match="none of the 40 test songs has"):
    melon_50.melon_50(bare)


@pytest.fixture
def context(tmp_path):
  """An evaluation of 60 made-up songs, 12 of them test songs."""
  directory = tmp_path / "data"
  directory.mkdir()
  catalogue = tiny_data.tiny_catalogue()
  tiny_data.tiny_store(directory / song_store.FILE_NAME, catalogue, 256)
  # Every song is a test song, so that there are some in each part.
  split = np.full(60, catalogues.TEST, np.int8)
  dataclasses.replace(catalogue, split=split).save(directory)
  return task_base.Context(dataset.DataSet(directory))


def test_the_task_probes_the_embeddings_of_test_songs(
  context, monkeypatch, capsys
):
  asked = []

  def train_probe(features, labelled, **how):
    asked.append((features, labelled))
    return labelled_example.train_probe_by_least_squares(
      features, labelled, **how
    )

  monkeypatch.setattr(probes, "train_probe", train_probe)
  embeddings = np.random.default_rng(0).standard_normal((60, 4))
  context = dataclasses.replace(context, embeddings=embeddings)
  found = registry.TASKS["melon_50_linear"].run(context)
  assert found.settings["probe"] == "linear"
  assert found.settings["tags"] == len(asked[0][1].tags)
  assert found.settings["songs_in_test_and_another_part"] == 0
  np.testing.assert_array_equal(asked[0][0], embeddings)
  assert capsys.readouterr().out == ""
  published = task_base.Options(published_split=True)
  context = dataclasses.replace(context, options=published)
  found = registry.TASKS["melon_50_linear"].run(context)
  features, labelled = asked[1]
  rows = [int(np.flatnonzero(context.catalogue.song_ids == int(one))[0])
          for one in labelled.ids]  # fmt: skip
  np.testing.assert_array_equal(features, embeddings[rows])
  count = found.settings["songs_in_test_and_another_part"]
  assert count > 0
  assert f"{count} of 1" in capsys.readouterr().out


def test_a_data_set_without_sub_genres_has_no_melon_50(context):
  bare = ragged.Ragged.from_lists([[]] * 60)
  catalogue = dataclasses.replace(context.catalogue, genres=bare)
  context.data.catalogue = catalogue
  for name in ("melon_50", "melon_50_few_labels"):
    message = "none of the 60 test songs has a sub-genre"
    with pytest.raises(task_base.NotAvailable, match=message):
      registry.TASKS[name].run(context)


def test_fine_tuning_runs_by_name_alone_and_needs_an_encoder(
  context, monkeypatch
):
  assert "melon_50_fine_tune" not in registry.choose("all")
  assert "melon_50" in registry.choose("all")
  (name,) = registry.choose("melon_50_fine_tune")
  with pytest.raises(task_base.NotAvailable, match="no encoder to fine-tune"):
    registry.TASKS[name].run(context)
  given, measured = [], task_base.Result({}, {})
  monkeypatch.setattr(
    fine_tune, "fine_tune", lambda *given_: given.append(given_) or measured
  )
  quick_backbone.register(monkeypatch)
  encoder = audio_encoder.AudioEncoder(
    quick_backbone.NAME, width=1, rngs=nnx.Rngs(0)
  )
  context = dataclasses.replace(context, encoder=encoder)
  assert registry.TASKS[name].run(context) is measured
  labelled, rows = melon_50.melon_50(context.catalogue)
  assert given[0][:2] == (encoder, context.data.store)
  np.testing.assert_array_equal(given[0][2], rows)
  assert given[0][3].ids == labelled.ids

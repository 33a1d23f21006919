"""Tests of the registry of tasks, and of those of retrieval and playlists."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import ragged
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import report
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.retrieval import retrieval_tasks
from tests.support.tiny import tiny_data

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = tuple(retrieval_tasks.TASKS)


class _Data(dataset.DataSet):
  """A data set of which only the catalogue is asked for."""

  def __init__(self, catalogue):
    self.catalogue = catalogue


def _run(name, embeddings, *, options=None, chosen=(), **changes):
  catalogue = dataclasses.replace(tiny_data.tiny_catalogue(), **changes)
  context = task_base.Context(
    _Data(catalogue),
    embeddings,
    options=options or task_base.Options(),
    chosen=chosen,
  )
  return registry.TASKS[name].run(context)


def _rows(seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal((60, 7))


def test_tasks_are_chosen_by_name_in_the_order_of_the_registry():
  assert registry.choose("hubs, artist") == ("artist", "hubs")
  assert set(NAMES) <= set(registry.choose("all"))
  for bad in ("artist,nope", "", ","):
    with pytest.raises(errors.InputError) as error:
      registry.choose(bad)
    assert all(name in str(error.value) for name in registry.TASKS)
  assert "nope" in str(error.value) or bad == ","


@pytest.mark.parametrize("name", NAMES)
def test_a_task_counts_its_items_and_says_what_it_left_out(name):
  found = _run(name, _rows())
  assert isinstance(found, task_base.Result)
  items = next(iter(found.per_item.values()))
  headline = next(iter(found.metrics.values()))
  assert headline.items == len(items)
  assert headline.low <= headline.value <= headline.high
  for metric, column in found.per_item.items():
    assert len(column) == len(items)
    if metric in found.metrics:
      defined = column[~np.isnan(column)]
      assert found.metrics[metric].items == len(defined)
      if len(defined):
        assert found.metrics[metric].value == pytest.approx(defined.mean())
  catalogue = tiny_data.tiny_catalogue()
  whole = len(catalogue.rows_of(catalogues.TEST))
  if name == "playlist_continuation":
    whole = len(catalogue.playlists)
  assert len(items) + sum(found.left_out.values()) == whole


def test_what_the_data_set_lacks_is_said_not_dropped():
  nothing = ragged.Ragged.from_lists([[]] * 60)
  lacking = {
    "artist": {"artists": nothing},
    "artist_other_album": {"albums": np.full(60, -1, np.int32)},
    "album": {"albums": np.full(60, -1, np.int32)},
    "sub_genre": {"genres": nothing},
    "playlist_songs": {"playlists": ragged.Ragged.from_lists([])},
    "playlist_continuation": {"playlists": ragged.Ragged.from_lists([])},
  }
  untested = {name: {"split": np.zeros(60, np.int8)} for name in NAMES}
  for cases in (lacking, untested):
    for name, changes in cases.items():
      with pytest.raises(task_base.NotAvailable):
        _run(name, _rows(), **changes)
  alone = ragged.Ragged.from_lists([[i] for i in range(60)])
  with pytest.raises(task_base.NotAvailable, match="alike"):
    _run("artist", _rows(), artists=alone)


def test_songs_that_lie_with_their_artist_are_found_by_every_measure():
  artist = np.arange(60) % 6
  lists = ragged.Ragged.from_lists([[int(a)] for a in artist])
  found = _run("artist", np.eye(6)[artist], artists=lists)
  for name in ("average_precision", "r_precision", "ndcg_at_10"):
    assert found.metrics[name].value == 1.0


def test_without_the_same_album_an_encoder_that_knows_albums_finds_less():
  album = np.arange(60) % 12
  artist = album % 6  # Two albums of each.
  lists = ragged.Ragged.from_lists([[int(a)] for a in artist])
  changes = {"artists": lists, "albums": album.astype(np.int32)}
  rows = np.eye(12)[album] + 0.01 * _rows()[:, :1]
  same = _run("artist", rows, **changes)
  other = _run("artist_other_album", rows, **changes)
  assert other.metrics["average_precision"].value < (
    same.metrics["average_precision"].value - 0.1
  )


def test_retrieval_of_one_task_is_that_of_all_of_them():
  one = _run("album", _rows(), chosen=("album",))
  several = _run("album", _rows(), chosen=NAMES)
  for name, metric in one.metrics.items():
    assert several.metrics[name] == metric


def test_more_shared_playlists_make_fewer_songs_alike():
  found = [
    _run("playlist_songs", _rows(), options=task_base.Options(min_playlists=m))
    for m in (1, 2)
  ]
  assert (
    found[1].left_out["queries without a relevant song"]
    > (found[0].left_out["queries without a relevant song"])
  )
  assert found[1].settings["min_playlists"] == 2


def test_an_artist_of_many_songs_can_be_left_out():
  tests = tiny_data.tiny_catalogue().rows_of(catalogues.TEST).tolist()
  lists = [[1] for _ in range(60)]  # One of sixty songs,
  for row in tests[:3]:
    lists[row] = [0]  # and one of three.
  changes = {"artists": ragged.Ragged.from_lists(lists)}
  found = _run("artist", _rows(), **changes)
  assert found.metrics["average_precision"].items == len(tests)
  options = task_base.Options(largest_artist=3)
  limited = _run("artist", _rows(), options=options, **changes)
  assert limited.per_item["song_id"].tolist() == (
    tiny_data.tiny_catalogue().song_ids[tests[:3]].tolist()
  )
  reason = "queries without a relevant song"
  assert limited.left_out[reason] == len(tests) - 3


def test_the_skewness_of_hubs_is_scipys_and_0_where_all_occur_alike():
  counts = np.random.default_rng(0).poisson(2.0, 200)
  found = retrieval_tasks.hubs(counts, 0)
  skewness = found["occurrence_skewness"]
  assert skewness.value == pytest.approx(stats.skew(counts))
  assert skewness.low < skewness.value < skewness.high
  assert found["never_returned"].value == (counts == 0).mean()
  even = retrieval_tasks.hubs(np.full(30, 10), 0)
  assert even["occurrence_skewness"].value == 0.0


def test_playlists_of_one_cluster_are_continued_better_than_by_chance():
  cluster = np.eye(tiny_data.CLUSTERS)[np.arange(60) % tiny_data.CLUSTERS]
  options = task_base.Options(neighbours=3)
  data = _Data(tiny_data.tiny_catalogue())
  rows = cluster + 0.01 * _rows()[:, :4]
  context = task_base.Context(data, rows, options=options)
  task = registry.TASKS["playlist_continuation"]
  recalls = {"clusters": task.run(context).metrics["recall"].value}
  for name, run in (task.baselines | task.chance).items():
    found = run(context)
    assert found.settings == task.run(context).settings | {
      "found_lists_the_published_code_shortens": 0
    }
    recalls[name] = found.metrics["recall"].value
  assert recalls["clusters"] > 1.5 * recalls["chance"]
  assert recalls["popularity"] >= 0.0


def test_lists_that_would_hold_most_candidates_are_shorter_and_said_to_be():
  tests = tiny_data.tiny_catalogue().rows_of(catalogues.TEST)
  half = len(tests) // 2
  for asked, length in ((half, half), (half + 1, 5), (len(tests), 5)):
    options = task_base.Options(neighbours=asked)
    found = _run("playlist_continuation", _rows(), options=options)
    assert found.settings["neighbours"] == length
    assert bool(found.notes) == (length != asked)
  (note,) = found.notes
  assert f"lists of {asked} would hold" in note and "lists of 5 " in note
  assert found.metrics["recall"].value < 1
  shown = report.format_task(
    "playlist_continuation",
    registry.TASKS["playlist_continuation"],
    {"trained": report.as_dict(found)},
  )
  assert note in shown
  split = np.zeros(60, np.int8)
  split[tests[0]] = catalogues.TEST
  with pytest.raises(task_base.NotAvailable, match="1 candidates are too few"):
    _run("playlist_continuation", _rows(), split=split)


@pytest.mark.parametrize(
  "name", [name for name, task in registry.TASKS.items() if task.chance]
)
def test_chance_is_what_vectors_at_random_find(name):
  data = _Data(tiny_data.tiny_catalogue())
  options = task_base.Options(neighbours=3)
  task, values = registry.TASKS[name], []
  for seed in range(12):
    context = task_base.Context(data, _rows(seed), options=options)
    values.append(next(iter(task.run(context).metrics.values())).value)
  (chance,) = task.chance.values()
  found = chance(context)
  expected = next(iter(found.metrics.values())).value
  assert np.mean(values) == pytest.approx(expected, abs=0.06)
  assert found.settings == task.run(context).settings


def test_validation_songs_can_be_targets_of_training_songs_alone():
  options = task_base.Options(split=catalogues.VALIDATION)
  found = _run("playlist_continuation", _rows(), options=options)
  assert found.settings["targets"] == "validation"
  assert found.settings["context"] == ["train"]

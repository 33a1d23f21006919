"""Tests of pcl_jax.evaluation.tagging.fine_tune."""

import dataclasses

from flax import nnx
import jax
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.evaluation.tagging import fine_tune
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.models import audio_encoder
from tests.support import quick_backbone

pytestmark = pytest.mark.usefixtures("quick_compilation")
SONGS = 48
QUICK = {"batch": 8, "rounds": 3, "draws": 20, "rates": (1e-2,)}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> song_store.SongStore:
  """Songs of one to three patches; odd ones are loud in band 20 throughout."""
  rng = np.random.default_rng(0)
  path = tmp_path_factory.mktemp("tune") / "songs.lmdb"
  writer = song_writer.SongWriter(path)
  songs = []
  for i in range(SONGS):
    feature = rng.uniform(-2, -1, (int(rng.integers(200, 900)), 48))
    feature[:, 20] += 0.6 * (i % 2)
    songs.append((i, feature.astype(np.float16)))
  writer.add(songs)
  writer.finish({"kind": "test"})
  return song_store.SongStore(path)


@pytest.fixture
def encoder(monkeypatch) -> audio_encoder.AudioEncoder:
  quick_backbone.register(monkeypatch)
  return audio_encoder.AudioEncoder(
    quick_backbone.NAME, width=1, rngs=nnx.Rngs(0)
  )


def _labelled(single_label: bool = False) -> labelled_sets.LabelledSet:
  odd = np.arange(SONGS) % 2 == 1
  return labelled_sets.LabelledSet(
    name="odd",
    tags=("even", "odd"),
    ids=tuple(map(str, range(SONGS))),
    labels=np.stack([~odd, odd], axis=1),
    split=np.repeat((0, 1, 2), SONGS // 3),
    single_label=single_label,
  )


def _leaves(encoder):
  return [np.array(x) for x in jax.tree.leaves(nnx.state(encoder))]


def _tuning(store, encoder, labelled=None, **schedule) -> fine_tune.Tuning:
  return fine_tune.Tuning(
    encoder,
    store,
    np.arange(SONGS, dtype=np.int32),
    labelled or _labelled(),
    fine_tune.Schedule(batch=8, **schedule),
  )


def test_an_encoder_learns_the_set_and_the_given_one_is_left_as_it_is(
  store, encoder
):
  before = _leaves(encoder)
  rows = np.arange(SONGS, dtype=np.int32)
  found = fine_tune.fine_tune(encoder, store, rows, _labelled(), **QUICK)
  assert found.metrics["roc_auc"].value > 0.9
  for mine, then in zip(_leaves(encoder), before, strict=True):
    np.testing.assert_array_equal(mine, then)
  assert found.settings["aggregation"] == "mean of patch probabilities"
  again = fine_tune.fine_tune(encoder, store, rows, _labelled(), **QUICK)
  assert again.metrics == found.metrics
  still = fine_tune.fine_tune(
    encoder, store, rows, _labelled(), **(QUICK | {"rounds": 1, "rates": (0.0,),
    "head_rate": 0.0})
  )  # fmt: skip
  assert still.metrics["roc_auc"].value < found.metrics["roc_auc"].value


def test_a_step_moves_encoder_and_head_by_rates_of_their_own(store, encoder):
  patches = np.random.default_rng(0).random((8, 256, 48)).astype(np.float16)
  labels = np.eye(2, dtype=np.float32)[[0, 1] * 4]

  def moved(rate, head_rate):
    tuning = _tuning(store, encoder, head_rate=head_rate)
    before = tuning.start(0, rate)[1].params
    state = fine_tune.step(
      *tuning.start(0, rate), patches, labels, single_label=False
    )
    change = jax.tree.map(
      lambda a, b: np.abs(a - b).max(), before, state.params
    )
    return [max(jax.tree.leaves(change[part])) for part in ("encoder", "head")]

  # Adam's first step is as long as its rate.
  np.testing.assert_allclose(moved(0.01, 0.0), [0.01, 0.0], rtol=1e-3)
  np.testing.assert_allclose(moved(0.0, 0.02), [0.0, 0.02], rtol=1e-3)


def test_a_song_is_scored_by_the_mean_over_its_patches(store, encoder):
  tuning = _tuning(store, encoder, _labelled(single_label=True))
  graphdef, state = tuning.start(3, 0.1)
  found = tuning.scores(graphdef, state, labelled_sets.TEST)
  for row, song in zip(found, range(32, 48), strict=True):
    feature = store.read_song(song)
    whole = [feature[i : i + 256] for i in range(0, len(feature) - 255, 256)]
    if not whole:
      silence = np.full((256 - len(feature), 48), -2, np.float16)
      whole = [np.concatenate([feature, silence])]
    logits = [
      fine_tune.score(graphdef, state.params, state.stats, np.array([one] * 8))
      for one in whole
    ]
    expected = np.mean([jax.nn.softmax(one[0]) for one in logits], axis=0)
    np.testing.assert_allclose(row, expected, rtol=1e-4)


def test_training_stops_where_validation_gets_no_better(
  store, encoder, monkeypatch
):
  values = iter([0.3, 0.5, 0.4, 0.2, 0.9])
  states = []
  monkeypatch.setattr(
    fine_tune.probes, "validation_metric", lambda *_: next(values)
  )
  scores = fine_tune.Tuning.scores

  def watched(tuning, graphdef, state, part):
    states.append(jax.tree.map(np.array, state.params))
    return scores(tuning, graphdef, state, part)

  monkeypatch.setattr(fine_tune.Tuning, "scores", watched)
  tuning = _tuning(store, encoder, rounds=9, patience=2)
  _, best, metric, rounds = tuning.train(0, 1e-3)
  assert (metric, rounds) == (0.5, 4)
  for mine, second in zip(
    jax.tree.leaves(best.params), jax.tree.leaves(states[1]), strict=True
  ):
    np.testing.assert_array_equal(mine, second)


def test_an_unfit_set_is_refused(store, encoder):
  rows = np.arange(SONGS, dtype=np.int32)
  empty = dataclasses.replace(_labelled(), split=np.zeros(SONGS, np.int64))
  with pytest.raises(errors.InputError, match="no validation songs"):
    fine_tune.fine_tune(encoder, store, rows, empty)

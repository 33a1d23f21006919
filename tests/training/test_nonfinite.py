"""Tests of skipped steps and of their replay: numbers that go wrong."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest

from pcl_jax.checkpoint import run_progress
from pcl_jax.common import errors
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.training import loop
from pcl_jax.training import metric_writers
from pcl_jax.training import nonfinite
from pcl_jax.training import replay
from pcl_jax.training import setup
from tests.support.tiny import tiny_run

pytestmark = pytest.mark.usefixtures("quickly")


def _spoiling(steps):
  """Makes the patches of some steps of the run no numbers."""

  def wrap(train_step):
    def step(state, batch, key):
      with jax.transfer_guard("allow"):
        if int(state["step"]) + 1 in steps:
          batch = batch | {"audio": batch["audio"] * np.float16(np.nan)}
      return train_step(state, batch, key)

    return step

  return wrap


@pytest.fixture(scope="module")
def skipping(data_dir, tmp_path_factory, quickly):
  """Workdir of a run in which the steps 2, 5 and 6 are not finite."""
  workdir = tmp_path_factory.mktemp("skipping")
  with pytest.MonkeyPatch.context() as patch:
    tiny_run.wrap_step(patch, _spoiling({2, 5, 6}))
    tiny_run.train_on_one(tiny_run.quick_config(data_dir), workdir)
  return workdir


def test_a_step_that_is_not_finite_is_skipped_counted_and_written_down(
  skipping, unbroken, config
):
  rows = tiny_run.rows_of(skipping)
  skipped = [row for row in rows if row["kind"] == nonfinite.KIND]
  assert skipped == [
    {
      "kind": "skipped",
      "step": step,
      "epoch": epoch,
      "skipped_steps": total,
      "skipped_in_a_row": in_a_row,
    }
    for step, epoch, total, in_a_row in (
      (2, 0, 1, 1),
      (5, 1, 2, 1),
      (6, 1, 3, 2),
    )
  ]
  totals = {r["step"]: r["total"] for r in rows if r["kind"] == "train"}
  assert [step for step, total in totals.items() if total is None] == [2, 5, 6]
  assert sorted(p.name for p in (skipping / nonfinite.FOLDER).iterdir()) == [
    "2.json", "5.json", "6.json"
  ]  # fmt: skip
  found = json.loads((skipping / nonfinite.FOLDER / "5.json").read_text())
  run = setup.build(config, jax.devices()[:1])
  plan = run.batches.plan_epoch(1)
  expected = run.batches.data.store.song_ids[plan.songs[0]].tolist()
  assert found["songs"] == expected and len(expected) == 16
  assert found["starts"] == plan.starts[0].tolist()
  assert (found["step"], found["epoch"], found["seed"]) == (5, 1, 0)
  # The first step was the same, and so were its weights.
  assert rows[0] == tiny_run.rows_of(unbroken)[0]


@pytest.mark.parametrize(
  "stop_at",
  [
    pytest.param(2, marks=pytest.mark.long),
    5,
    pytest.param(7, marks=pytest.mark.long),
  ],
)
def test_a_run_with_skipped_steps_is_resumed_bitwise(
  stop_at, skipping, config, tmp_path, monkeypatch
):
  with monkeypatch.context() as patch:
    tiny_run.wrap_step(patch, _spoiling({2, 5, 6}))
    with patch.context() as inner:
      told = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
      tiny_run.wrap_step(inner, tiny_run.at_step(stop_at, told))
      tiny_run.train_on_one(config, tmp_path)
    # What was skipped may be why, and is not saved.
    assert tiny_run.latest_step_of(tmp_path) == {2: None, 5: 4, 7: 7}[stop_at]
    tiny_run.train_on_one(config, tmp_path)
  tiny_run.assert_same_end(tmp_path, skipping, config, tiny_run.LAST)


def test_too_many_skipped_steps_in_a_row_end_the_run(
  data_dir, tmp_path, monkeypatch
):
  config = tiny_run.quick_config(data_dir, train__max_nonfinite_steps=3)
  with monkeypatch.context() as patch:
    tiny_run.wrap_step(patch, _spoiling({2, 5, 6, 7}))
    with pytest.raises(errors.RunError) as caught:
      tiny_run.train_on_one(config, tmp_path)
  for word in ("step 7 is not finite", "3 in a row", "--replay=", "are kept"):
    assert word in str(caught.value)
  assert tiny_run.latest_step_of(tmp_path) == 4


def test_a_replay_finds_what_was_not_finite_first(
  data_dir, skipping, config, tmp_path, monkeypatch, capsys
):
  """The batch is whole again, so a parameter is spoiled in its place."""
  file = skipping / nonfinite.FOLDER / "6.json"
  before = sorted(skipping.rglob("*"))
  lines = replay.replay(config, skipping, file)
  assert "all is finite" in lines[-1]
  build = setup.build

  def spoiled(*arguments):
    run = build(*arguments)
    original = run.train_step

    def step(state, batch, key):
      state, terms = original(state, batch, key)
      bias = state["params"]["audio"]["backbone"]["fc"]["bias"]
      state["params"]["audio"]["backbone"]["fc"]["bias"] = bias.at[0].set(
        np.nan
      )
      return state, terms

    return dataclasses.replace(run, train_step=step)

  monkeypatch.setattr(setup, "build", spoiled)
  lines = replay.replay(config, skipping, file)
  said = "\n".join(lines)
  assert "params/audio/backbone/fc/bias: 1 of 8 are not finite" in said
  assert (
    "first output of a module that is not finite: audio/backbone/fc" in said
  )
  assert "the term total: 1 of 1" in said
  assert "the NaN checker: invalid value" in said
  assert said in capsys.readouterr().out
  assert sorted(skipping.rglob("*")) == before


def test_a_replay_goes_on_with_what_the_run_was_allowed_to_change(
  data_dir, config, tmp_path, monkeypatch
):
  """Also where the epoch under way began anew, its batches being others."""
  with monkeypatch.context() as patch:
    told = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    tiny_run.wrap_step(patch, tiny_run.at_step(2, told))
    tiny_run.train_on_one(config, tmp_path)
  other = tiny_run.quick_config(data_dir, epochs=1, opt_params__lr=5e-5, seed=1)
  allowed = ["opt_params.lr", "seed"]
  with monkeypatch.context() as patch:
    tiny_run.wrap_step(patch, _spoiling({3}))
    loop.train_and_evaluate(
      other, tmp_path, jax.devices()[:1], allow_change=allowed
    )
  file = tmp_path / nonfinite.FOLDER / "3.json"
  with pytest.raises(errors.InputError, match="--allow_change=opt_params.lr"):
    replay.replay(other, tmp_path, file)
  monkeypatch.setattr(replay, "_findings", lambda *_: [])
  (line,) = replay.replay(other, tmp_path, file, allowed)
  assert line.startswith("step 3, epoch 0")


def test_a_replay_of_another_run_is_refused_before_it_trains(
  skipping, config, tmp_path, monkeypatch
):
  monkeypatch.setattr(replay, "_train_up_to", lambda *_: 1 / 0)
  file = tmp_path / "5.json"
  found = json.loads((skipping / nonfinite.FOLDER / "5.json").read_text())
  file.write_text(json.dumps(found | {"starts": found["starts"][::-1]}))
  with pytest.raises(errors.InputError, match="other songs than step 5"):
    replay.replay(config, skipping, file)
  file.write_text(json.dumps(found | {"seed": 3}))
  with pytest.raises(errors.InputError, match="seed 3, .*seed is 0.*--config"):
    replay.replay(config, skipping, file)
  file.write_text("{}")
  with pytest.raises(errors.InputError, match="nonfinite"):
    replay.replay(config, skipping, file)


def _spoil_record(data, song, value):
  """Changes a number of a song's record on the disk, everywhere in it."""
  store = dataset.DataSet(data).store
  feature = store.read_song(song)
  spoiled = np.full_like(feature, value)
  path = data / song_store.FILE_NAME / "data.mdb"
  whole = path.read_bytes()
  assert whole.count(feature.tobytes()) == 1
  path.write_bytes(whole.replace(feature.tobytes(), spoiled.tobytes()))


@pytest.mark.parametrize(
  "value, share",
  [
    (np.nan, 0.001),
    (30000.0, 0.02),
    pytest.param(30000.0, 0.001, marks=pytest.mark.long),
    pytest.param(np.nan, 0.02, marks=pytest.mark.long),
  ],
)
def test_a_damaged_record_is_not_learnt_of_and_named(
  value, share, tmp_path, monkeypatch, capsys
):
  """One of sixty songs is too many, unless so many are let pass."""
  monkeypatch.setattr(nonfinite, "_MOST_DAMAGED", share)
  data = tiny_run.make_data_set(tmp_path / "data")
  opened = dataset.DataSet(data)
  config = tiny_run.quick_config(data, epochs=1)
  run = setup.build(config, jax.devices()[:1])
  song = int(run.batches.plan_epoch(0).songs[1, 0])
  _spoil_record(data, song, value)
  tiny_run.forget_built()
  number = opened.store.song_ids[song]
  named = f"song {number} of"
  if share < 1 / 60:
    with pytest.raises(errors.RunError, match="1 of 60 songs .* damaged"):
      tiny_run.train_on_one(config, tmp_path / "w")
  else:
    progress = tiny_run.train_on_one(config, tmp_path / "w")
    assert progress["skipped_steps"] == 1 and progress["step"] == tiny_run.STEPS
    rows = tiny_run.rows_of(tmp_path / "w")
    assert [r["step"] for r in rows if r["kind"] == nonfinite.KIND] == [2]
    file = tmp_path / "w" / nonfinite.FOLDER / "2.json"
    said = "\n".join(replay.replay(config, tmp_path / "w", file))
    patch = 256 * 48
    assert f"audio: {2 * patch} of {16 * patch} are not finite or" in said
    assert f"beyond 100, in song(s) {number}\n" in said
    assert "all is finite" not in said
  assert named in capsys.readouterr().err


def test_a_damaged_song_of_validation_is_named_and_its_batch_left_out(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(nonfinite, "_MOST_DAMAGED", 0.1)
  data = tiny_run.make_data_set(tmp_path / "data")
  keys = {"data__batch_size": 4, "audio_contrast_params__mixup": False}
  config = tiny_run.quick_config(data, **keys)
  progress = run_progress.Progress()

  def validate(places):
    run = setup.build(config, jax.devices()[:1])
    plan = run.batches.plan_validation()
    plan = dataclasses.replace(
      plan, songs=plan.songs[places], starts=plan.starts[places]
    )
    writer = metric_writers.MetricWriter(tmp_path, 0)
    watch = nonfinite.Watch(run, tmp_path, writer, progress)
    return plan, loop.validate(run, run.state, plan, watch)

  plan, _ = validate([0, 1, 2])
  _, expected = validate([2])
  tiny_run.forget_built()
  spoilt = plan.songs[[0, 1], [3, 0]].tolist()
  for song, value in zip(spoilt, (np.nan, 30000.0), strict=True):
    _spoil_record(data, song, value)
  _, found = validate([0, 1, 2])
  assert found == expected
  said = capsys.readouterr().err
  ids = dataset.DataSet(data).store.song_ids[spoilt]
  assert all(f"song {one} of" in said for one in ids)
  assert "2 of 3 validation batches have features that are not" in said
  with pytest.raises(errors.RunError, match="1 of 1 .*nothing is left.*verify"):
    validate([1])
  monkeypatch.setattr(nonfinite, "_MOST_DAMAGED", 0.001)
  with pytest.raises(errors.RunError, match="2 of 60 songs .* damaged"):
    validate([0, 1, 2])

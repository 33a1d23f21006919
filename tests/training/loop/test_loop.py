"""Tests of the training loop, and of what it writes down."""

import json
import math

from flax import nnx
import jax
import numpy as np
import pytest

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import restore
from pcl_jax.checkpoint import run_progress
from pcl_jax.common import errors
from pcl_jax.training import loop
from pcl_jax.training import metric_writers
from pcl_jax.training import nonfinite
from pcl_jax.training import setup
from tests.support import event_files
from tests.support.tiny import tiny_run

pytestmark = pytest.mark.usefixtures("quickly")

TERM = "audio+audio_self"
# What a validation row says beside the losses.
COLLAPSE = {
  f"collapse_{name}"
  for name in ("effective_rank", "uniformity", "mean_cosine", "alignment")
}


def _fix_losses(monkeypatch, losses):
  """Gives the epochs these validation losses."""
  left = iter(losses)
  monkeypatch.setattr(loop, "validate", lambda *_: {"total": next(left)})


def test_every_step_and_epoch_has_a_row_with_all_terms(unbroken):
  rows = tiny_run.rows_of(unbroken)
  steps = [row for row in rows if row["kind"] == "train"]
  epochs = [row for row in rows if row["kind"] == "validation"]
  assert [row["step"] for row in steps] == list(range(1, 13))
  assert [row["epoch"] for row in steps] == [0] * 4 + [1] * 4 + [2] * 4
  assert [(row["step"], row["epoch"]) for row in epochs] == [
    (4, 0), (8, 1), (12, 2)
  ]  # fmt: skip
  for row in rows:
    more = COLLAPSE if row["kind"] == "validation" else set()
    assert row.keys() == {"kind", "step", "epoch", TERM, "total"} | more
    assert row["total"] == row[TERM] and math.isfinite(row["total"])
    assert all(math.isfinite(row[name]) for name in more)


def test_a_row_says_how_fast_and_how_long_data_was_waited_for(unbroken):
  lines = (unbroken / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines if '"train"' in line]
  assert all(0 <= row["data_wait_share"] <= 1 for row in rows)
  assert all(row["songs_per_s"] >= 0 for row in rows)
  assert rows[1]["songs_per_s"] > 0


def test_tensorboard_shows_the_losses_of_metrics_jsonl(unbroken):
  shown = event_files.scalars(unbroken / "tensorboard")
  for kind in ("train", "validation"):
    found = [(s, v) for name, s, v in shown if name == f"{kind}/total"]
    expected = [
      (row["step"], np.float32(row["total"]))
      for row in tiny_run.rows_of(unbroken)
      if row["kind"] == kind
    ]
    assert found == expected


def test_the_run_leaves_its_config_and_latest_and_best_checkpoints(
  unbroken, config
):
  found = json.loads((unbroken / "config.json").read_text())
  assert found == json.loads(config.to_json())
  rows = tiny_run.rows_of(unbroken)
  validated = {
    row["step"]: row["total"] for row in rows if row["kind"] == "validation"
  }
  best = min(validated, key=validated.get)
  files = checkpoint_files.CheckpointFiles(unbroken)
  assert files.latest() == 12
  assert files.best() == best
  meta = restore.read_meta(files, 12)
  assert meta["strategy"] == "SS" and meta["config"] == found
  assert meta["progress"]["epoch"] == 3
  assert meta["progress"]["best_loss"] == validated[best]


def test_the_encoder_on_file_is_that_of_the_state(unbroken, config):
  state = tiny_run.state_of(unbroken, config, 12)
  encoder, _ = restore.load_encoder(unbroken, "latest")
  _, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)
  for kind, found in (("params", params), ("batch_stats", stats)):
    jax.tree.map(
      np.testing.assert_array_equal,
      nnx.to_pure_dict(found),
      state[kind]["audio"],
    )


def test_the_validation_loss_decides_the_best_checkpoint_and_the_end(
  data_dir, tmp_path, monkeypatch, capsys
):
  config = tiny_run.quick_config(data_dir, epochs=9, early_stop_patience=2)
  _fix_losses(monkeypatch, [3.0, 1.0, 2.0, 1.5, 0.5])
  progress = tiny_run.train_on_one(config, tmp_path)
  assert (progress["epoch"], progress["step"]) == (4, 16)
  assert progress["best_loss"] == 1.0
  said = capsys.readouterr().out
  assert "stopped early: 2 epochs without a better validation loss" in said
  assert "best checkpoint: step 8" in said
  assert tiny_run.train_on_one(config, tmp_path) == progress
  files = checkpoint_files.CheckpointFiles(tmp_path)
  assert (files.best(), files.latest()) == (8, 16)


def test_validation_is_the_same_whenever_and_with_whatever_seed(
  data_dir, tmp_path
):
  losses = []
  for seed in (0, 0, 1):
    config = tiny_run.quick_config(data_dir, seed=seed)
    run = setup.build(config, jax.devices()[:1])
    plan = run.batches.plan_validation()
    if not losses:
      state = run.state
    writer = metric_writers.MetricWriter(tmp_path, 0)
    watch = nonfinite.Watch(run, tmp_path, writer, run_progress.Progress())
    losses += [loop.validate(run, state, plan, watch) for _ in range(2)]
  assert losses.count(losses[0]) == 6
  assert losses[0].keys() == {TERM, "total"} | COLLAPSE


@pytest.mark.long  # test_train_step has a short form of it.
def test_a_run_on_eight_devices_is_that_on_one(unbroken, config, tmp_path):
  loop.train_and_evaluate(config, tmp_path, devices=jax.devices())
  for one, eight in zip(
    tiny_run.rows_of(unbroken), tiny_run.rows_of(tmp_path), strict=True
  ):
    rounded = dict.fromkeys({"total", TERM, *(COLLAPSE & one.keys())}, 0)
    assert {**one, **rounded} == {**eight, **rounded}
    for name in COLLAPSE & one.keys():
      np.testing.assert_allclose(eight[name], one[name], rtol=2e-2, atol=1e-2)
    np.testing.assert_allclose(eight["total"], one["total"], rtol=5e-3)
  first = [tiny_run.rows_of(workdir)[0] for workdir in (unbroken, tmp_path)]
  np.testing.assert_allclose(first[0]["total"], first[1]["total"], rtol=1e-5)


@pytest.mark.long
def test_a_learning_rate_that_is_far_too_high_is_reported(data_dir, tmp_path):
  config = tiny_run.quick_config(data_dir, opt_params__lr=1e30)
  with pytest.raises(errors.RunError, match="not finite.*--config.opt_params"):
    tiny_run.train_on_one(config, tmp_path)


def test_reading_in_blocks_trains_as_well_and_is_another_run(
  data_dir, tmp_path
):
  config = tiny_run.quick_config(
    data_dir, data__order="blocks", data__cached_batches=2
  )
  loop.train_and_evaluate(config, tmp_path, devices=jax.devices()[:1])
  rows = tiny_run.rows_of(tmp_path)
  assert [row["step"] for row in rows if row["kind"] == "validation"]
  config.data.order = "shuffled"
  config.epochs += 1
  with pytest.raises(errors.InputError, match="order was 'blocks' and is 'sh"):
    loop.train_and_evaluate(config, tmp_path, devices=jax.devices()[:1])


def test_songs_in_the_memory_of_the_device_train_the_same_run(
  data_dir, unbroken, config, tmp_path, monkeypatch
):
  """And the run may move them there, or back to the disk, at any step."""
  resident = tiny_run.quick_config(data_dir, data__order="resident")
  with monkeypatch.context() as patch:
    tiny_run.interrupt_after(patch, 5)
    with pytest.raises(tiny_run.Interrupted):
      tiny_run.train_on_one(resident, tmp_path)
  with monkeypatch.context() as patch:
    tiny_run.interrupt_after(patch, 4)
    with pytest.raises(tiny_run.Interrupted):
      tiny_run.train_on_one(config, tmp_path)
  tiny_run.train_on_one(resident, tmp_path)
  tiny_run.assert_same_end(tmp_path, unbroken, config, tiny_run.LAST)


def test_songs_that_do_not_fit_are_refused_before_anything_is_written(
  data_dir, tmp_path, monkeypatch
):
  monkeypatch.setattr("os.sysconf", lambda _: 1000)
  config = tiny_run.quick_config(data_dir, data__order="resident", seed=5)
  with pytest.raises(errors.InputError, match="'resident' and the songs of"):
    tiny_run.train_on_one(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_device_without_memory_is_reported_with_what_helps(
  config, tmp_path, monkeypatch
):
  def exhausted(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 5 GB\nand more")

  tiny_run.wrap_step(monkeypatch, lambda _: exhausted)
  with pytest.raises(errors.RunError) as error:
    tiny_run.train_on_one(config, tmp_path)
  for word in ("microbatches", "remat", "batch_size", "5 GB"):
    assert word in str(error.value)
  assert "and more" not in str(error.value)


def test_what_a_step_takes_is_on_the_devices_already(
  config, tmp_path, monkeypatch
):
  def wrap(train_step):
    return lambda state, batch, key: train_step(
      state, jax.device_get(batch), key
    )

  tiny_run.wrap_step(monkeypatch, wrap)
  with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to"):
    tiny_run.train_on_one(config, tmp_path)


def test_a_trace_of_some_steps_is_written_when_asked_for(
  data_dir, unbroken, tmp_path, capsys
):
  assert not (unbroken / "profile").exists()
  loop.train_and_evaluate(
    tiny_run.quick_config(data_dir, epochs=4),
    tmp_path / "traced",
    jax.devices()[:1],
    profile=True,
  )
  assert list((tmp_path / "traced" / "profile").rglob("*.xplane.pb"))
  assert "wrote a trace" in capsys.readouterr().out


def test_songs_that_share_a_list_are_no_negatives_where_that_is_asked_for(
  data_dir, unbroken, tmp_path
):
  """And the log says how many there are."""
  config = tiny_run.quick_config(
    data_dir, epochs=1, loss_params__exclude_sharing=("playlist", "artist")
  )
  tiny_run.train_on_one(config, tmp_path)
  row, plain = (tiny_run.rows_of(path)[0] for path in (tmp_path, unbroken))
  assert "sharing_share" not in plain
  assert 0 < row["sharing_share"] < 1
  assert row["total"] < plain["total"]


def test_all_songs_of_a_list_are_positives_where_that_is_asked_for(
  data_dir, quickly, tmp_path
):
  """And patches are augmented; the run goes on bitwise."""
  config = tiny_run.quick_config(
    data_dir,
    epochs=2,
    contrast_combos=(),
    audio_contrast_params__pair_generation_method="Artist",
    loss_params__positives="all",
    loss_params__exclude_sharing=("artist", "playlist"),
    augmentation__gain_db=6.0,
    augmentation__stretch=0.1,
  )
  tiny_run.train_on_one(config, tmp_path / "whole")
  row = tiny_run.rows_of(tmp_path / "whole")[0]
  assert 0 < row["positives_share"] < 1 and 0 < row["sharing_share"] < 1
  config.epochs = 1
  tiny_run.train_on_one(config, tmp_path / "parts")
  config.epochs = 2
  tiny_run.train_on_one(config, tmp_path / "parts")
  last = tiny_run.latest_step_of(tmp_path / "whole")
  tiny_run.assert_same_end(tmp_path / "parts", tmp_path / "whole", config, last)


@pytest.mark.long
def test_a_run_in_parts_is_written_down_like_any_other(data_dir, tmp_path):
  config = tiny_run.quick_config(
    data_dir,
    epochs=1,
    train__microbatches=2,
    train__remat=True,
    loss_params__tiled_above=0,
    loss_params__tile=8,
  )
  tiny_run.train_on_one(config, tmp_path)
  assert [row["step"] for row in tiny_run.rows_of(tmp_path)] == [1, 2, 3, 4, 4]


@pytest.mark.long
def test_a_run_in_bfloat16_follows_the_one_in_float32(
  data_dir, unbroken, tmp_path
):
  """Convolutions alone are narrow; the state stays float32."""
  config = tiny_run.quick_config(data_dir, train__compute_dtype="bfloat16")
  tiny_run.train_on_one(config, tmp_path)
  wide, narrow = (
    [row["total"] for row in tiny_run.rows_of(path)]
    for path in (unbroken, tmp_path)
  )
  assert wide != narrow
  np.testing.assert_allclose(narrow, wide, rtol=0.03)
  state = tiny_run.state_of(tmp_path, config, tiny_run.LAST)
  kinds = {x.dtype for x in jax.tree.leaves(state["params"])}
  assert kinds == {np.dtype("float32")}

"""Tests of pcl_jax.training.run_messages."""

import threading

import jax
import pytest

from pcl_jax.checkpoint import run_progress
from pcl_jax.common import console
from pcl_jax.training import loop
from pcl_jax.training import metric_writers
from pcl_jax.training import run_messages
from pcl_jax.training import setup
from tests.support.tiny import tiny_run

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture
def run(config) -> setup.Setup:
  return setup.build(config, jax.devices()[:1])


def test_the_steps_and_the_memory_are_said_before_the_first_step(run, capsys):
  run_messages.say_beginning(
    run, run_progress.Progress(epoch=1, step_in_epoch=3)
  )
  said = capsys.readouterr().out
  assert "4 steps an epoch, 12 in 3 epochs, 5 of them left" in said
  # Of 16 patches, of 256 frames with 48 bands of two bytes.
  assert "0.393 MB of a batch" in said
  numbers = [x.size for x in jax.tree.leaves(run.state["params"])]
  assert f"{3 * 4 * sum(numbers) / 1e6:.1g}" in said
  run_messages.say_beginning(run, run_progress.Progress(epoch=3))
  assert "all 3 epochs are done" in capsys.readouterr().out


def test_devices_that_decide_how_much_is_validated_are_told_of(
  data_dir, monkeypatch, capsys
):
  """Ten validation songs, of which four devices split eight in pairs of two."""
  config = tiny_run.quick_config(data_dir, data__batch_size=16)
  for devices, said in ((1, False), (8, True)):
    run = setup.build(config, jax.devices()[:devices])
    plan = run.batches.plan_validation()
    run_messages.say_validation(run, plan)
    items = len(plan.songs[0]) // 2
    text = f"a validation batch has {items} items, not 16"
    assert items < 16 and (text in capsys.readouterr().out) == said


def test_a_run_of_steps_is_told_in_steps(data_dir, capsys):
  config = tiny_run.quick_config(
    data_dir, epochs=150, steps=15, validate_every_steps=6
  )
  run = setup.build(config, jax.devices()[:1])
  progress = run_progress.Progress(step=14, epoch=2, step_in_epoch=2)
  pace = run_messages.Pace(clock=lambda: 0.0)
  said = run_messages.describe(run, progress, pace)
  assert said == "under way: step 14 of 15"
  run_messages.say_beginning(run, progress)
  said = capsys.readouterr().out
  assert "4 steps an epoch, 15 in rounds of 6, 1 of them left" in said
  progress = run_progress.Progress(step=15, epoch=2, step_in_epoch=3)
  said = run_messages.describe(run, progress, pace)
  assert said == "under way: step 15 of 15, validating"
  run_messages.say_beginning(run, run_progress.Progress(step=15, epoch=3))
  said = capsys.readouterr().out
  assert "all 15 steps are done" in said and "larger --config.steps" in said


def test_the_time_left_is_that_of_the_steps_after_the_first():
  now = 0.0
  pace = run_messages.Pace(clock=lambda: now)
  assert pace.left(10) == ""
  now = 500.0  # Compilation.
  pace.record_step()
  assert pace.left(10) == ""
  for _ in range(4):
    now += 2.5
    pace.record_step()
  assert pace.left(10) == "about 0:00:25 left"
  assert pace.left(100_000) == "about 2 days, 21:26:40 left"


def test_how_far_a_run_is_has_words_for_validation_too(run):
  progress, pace = run_progress.Progress(step=6, epoch=1, step_in_epoch=2), []
  pace = run_messages.Pace(clock=lambda: 0.0)
  said = run_messages.describe(run, progress, pace)
  assert said == "under way: epoch 1 of 3, step 2 of 4"
  progress.step_in_epoch = 4
  said = run_messages.describe(run, progress, pace)
  assert said == "under way: epoch 1 of 3, validating"


def test_where_nothing_is_said_for_a_while_a_line_says_how_far_the_run_is(
  capsys,
):
  said_twice = threading.Event()
  lines = []

  def describe() -> str:
    lines.append("under way")
    if len(lines) == 2:
      said_twice.set()
    return lines[-1]

  beat = run_messages.Heartbeat(describe, quiet_s=1e-3)
  assert said_twice.wait(60)
  beat.close()
  assert capsys.readouterr().out.splitlines() == lines


def test_a_line_of_the_log_puts_the_next_one_off(monkeypatch):
  quiet = iter([29.999, 5.0])  # Something was said while it waited.
  asked_again = threading.Event()

  def quiet_s() -> float:
    left = next(quiet, None)
    if left is None:
      asked_again.set()
    return 0.0 if left is None else left

  monkeypatch.setattr(console, "quiet_s", quiet_s)
  beat = run_messages.Heartbeat(lambda: pytest.fail("is said"))
  assert asked_again.wait(60)
  beat.close()


def test_one_meter_measures_all_epochs_without_their_validations(
  config, tmp_path, monkeypatch, capsys
):
  calls = []
  for name in ("go_on", "pause"):

    def noted(meter, name=name):
      calls.append((name, id(meter)))

    monkeypatch.setattr(metric_writers.Meter, name, noted)
  validate = loop.validate

  def noted_validate(*args):
    calls.append(("validate", None))
    return validate(*args)

  monkeypatch.setattr(loop, "validate", noted_validate)
  config.epochs = 2
  tiny_run.train_on_one(config, tmp_path)
  assert [name for name, _ in calls] == 2 * ["go_on", "pause", "validate"]
  assert len({meter for _, meter in calls} - {None}) == 1
  printed = capsys.readouterr().out.splitlines()
  logged = [line for line in printed if line.startswith("epoch 1 step")]
  assert len(logged) == 4
  assert all(" | about " in line for line in logged)

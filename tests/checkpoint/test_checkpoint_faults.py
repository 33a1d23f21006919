"""Tests of what damage, other networks and other devices do to a resume."""

import functools
import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import pytest

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import manager
from pcl_jax.checkpoint import restore
from pcl_jax.common import errors
from pcl_jax.training import loop
from tests.support import quick_backbone
from tests.support import small_state
from tests.support.tiny import tiny_run

LOSSES = [1.0, 4.0, 3.0, 2.0]  # The best is 1, then 4; the latest 3 and 4.


@functools.cache
def _items(folder):
  return sorted(
    path.relative_to(folder).as_posix()
    for path in folder.rglob("*")
    if path.is_file() and path.parent != folder and path.stat().st_size
  )


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
  """Workdir with the steps 1, 3 and 4."""
  folder = tmp_path_factory.mktemp("three_steps")
  small_state.write(folder, LOSSES)
  return folder


@pytest.fixture
def workdir(three_steps, tmp_path):
  """A copy of it, to be spoiled."""
  return shutil.copytree(three_steps, tmp_path / "copy")


def _spoil(path, how="a bit"):
  data = bytearray(path.read_bytes())
  if how == "a bit":
    data[len(data) // 2] ^= 1
  else:
    data = data[: len(data) // 2]
  path.write_bytes(data)


def _listing(workdir):
  return {
    path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()
  }


def _restore(workdir, like=None, **arguments):
  checkpoints = manager.Checkpoints(workdir)
  try:
    like = small_state.make(9) if like is None else like
    return checkpoints.restore_newest(like, **arguments)
  finally:
    checkpoints.close()


def test_the_newest_step_is_restored_bitwise(workdir):
  state, meta = _restore(workdir)
  small_state.assert_same(state, small_state.make(4))
  assert meta == small_state.meta(4)
  assert not (workdir / "bad").exists()


def test_without_any_step_nothing_is_restored(tmp_path):
  assert _restore(tmp_path / "parents" / "are" / "made") is None


@pytest.mark.parametrize("how", ["a bit", "cut"])
def test_a_damaged_newest_step_is_moved_aside_and_the_one_before_is_used(
  workdir, how, capsys
):
  """Whichever of its files is damaged, it is named with the reason."""
  whole = shutil.copytree(workdir, workdir.with_name("whole"))
  for name in _items(whole / "checkpoints" / "4")[how == "cut" :: 8]:
    shutil.rmtree(workdir)
    shutil.copytree(whole, workdir)
    _spoil(workdir / "checkpoints" / "4" / name, how)
    state, meta = _restore(workdir)
    small_state.assert_same(state, small_state.make(3))
    assert meta == small_state.meta(3)
    reason = (workdir / "bad" / "4" / "reason.txt").read_text()
    assert reason == f"{name} is not what was written, by its sha256\n"
    said = capsys.readouterr().out
    assert said.startswith(f"checkpoint 4 is damaged ({name}")
    assert said.count("\n") == 1 and "bad/4" in said
    assert not (workdir / "digests" / "4").exists()


@pytest.mark.parametrize("gone", ["encoder", "meta/metadata", "rest/d"])
def test_a_step_that_lacks_a_part_is_moved_aside(workdir, gone):
  path = workdir / "checkpoints" / "4" / gone
  shutil.rmtree(path) if path.is_dir() else path.unlink()
  assert _restore(workdir)[1] == small_state.meta(3)
  assert gone in (workdir / "bad" / "4" / "reason.txt").read_text()


def test_a_damaged_best_step_is_moved_aside_as_well(workdir):
  _spoil(workdir / "checkpoints" / "1" / "metrics" / "metrics")
  assert _restore(workdir)[1] == small_state.meta(4)
  assert [path.name for path in (workdir / "bad").iterdir()] == ["1"]
  index = json.loads((workdir / "checkpoints" / "index.json").read_text())
  assert index["best"]["step"] == 4


def test_a_step_saved_again_after_damage_is_good_and_may_be_damaged_again(
  workdir,
):
  for _ in range(2):
    _spoil(workdir / "checkpoints" / "4" / "meta" / "metadata")
    assert _restore(workdir)[1] == small_state.meta(3)
    checkpoints = manager.Checkpoints(workdir)
    checkpoints.save(small_state.make(4), small_state.meta(4))
    checkpoints.close()
    small_state.assert_same(_restore(workdir)[0], small_state.make(4))
  assert sorted(path.name for path in (workdir / "bad").iterdir()) == [
    "4", "4.2"
  ]  # fmt: skip


def test_where_no_step_is_good_each_reason_is_listed_and_nothing_is_moved(
  workdir,
):
  for step, name in ((1, "meta"), (3, "encoder"), (4, "rest")):
    shutil.rmtree(workdir / "checkpoints" / str(step) / name)
  before = _listing(workdir)
  for _ in range(2):  # The second start does not start from step 0.
    with pytest.raises(errors.InputError) as caught:
      _restore(workdir)
    said = str(caught.value)
    for step, name in ((1, "meta"), (3, "encoder"), (4, "rest")):
      assert f"step {step}: {name}/" in said
    assert "start from step 0" in said
    assert _listing(workdir) == before


def test_a_step_without_digests_is_used_with_a_warning(workdir, caplog):
  """As after a copy that left them behind."""
  (workdir / "digests" / "4").unlink()
  assert _restore(workdir)[1] == small_state.meta(4)
  assert "checkpoint 4 in" in caplog.text and "no digests" in caplog.text


def test_without_digests_what_orbax_notices_is_still_damage(workdir):
  (workdir / "digests" / "4").unlink()
  for path in (workdir / "checkpoints" / "4" / "rest").rglob("d/*"):
    _spoil(path, "cut")
  assert _restore(workdir)[1] == small_state.meta(3)
  reason = (workdir / "bad" / "4" / "reason.txt").read_text()
  assert reason.startswith("it cannot be read: ") and len(reason) < 300


def test_a_step_that_is_refused_is_no_damage_and_nothing_is_moved(workdir):
  """Even where a newer one is damaged."""
  _spoil(workdir / "checkpoints" / "4" / "meta" / "metadata")
  before = _listing(workdir)

  def refuse(meta):
    raise errors.InputError(f"another config at {meta['progress']['step']}")

  with pytest.raises(errors.InputError, match="another config at 3"):
    _restore(workdir, check=refuse)
  wider = small_state.make(width=5)
  with pytest.raises(errors.InputError, match="checkpoint 3 .* of other netw"):
    _restore(workdir, like=wider)
  assert _listing(workdir) == before


def test_another_shape_names_the_array_and_both_shapes(workdir):
  with pytest.raises(errors.InputError) as caught:
    _restore(workdir, like=small_state.make(width=5))
  assert (
    "Of its encoder: batch_stats/mean: on file 'float32[4]', here "
    "'float32[5]'; params/fc/bias: on file 'float32[4]', here 'float32[5]'; "
  ) in str(caught.value)


def test_another_type_is_refused_and_never_cast(workdir):
  like = small_state.make()
  like["step"] = like["step"].astype(jnp.float32)
  with pytest.raises(
    errors.InputError, match="step: on file 'int32..', here 'fl"
  ):
    _restore(workdir, like=like)


def test_an_encoder_for_another_model_is_refused_with_the_exact_differences(
  workdir,
):
  """And that of its own loads alone."""
  state = small_state.make(1)
  like = {kind: state[kind]["audio"] for kind in ("params", "batch_stats")}
  files = checkpoint_files.CheckpointFiles(workdir)
  small_state.assert_same(restore.read_encoder(files, 1, like), like)
  zeros = jnp.zeros(2)
  other = {
    "params": {"fc": {"kernel": zeros}, "head": {"a": zeros, "b": zeros}},
    "batch_stats": {"mean": like["batch_stats"]["mean"]},
  }
  with pytest.raises(errors.InputError) as caught:
    restore.read_encoder(files, 1, other)
  assert (
    "Of its encoder: params/fc/bias: on file 'float32[4]', here None; "
    "params/fc/kernel: on file 'float32[3, 4]', here 'float32[2]'; "
    "params/head/a: on file None, here 'float32[2]'; "
    "params/head/b: on file None, here 'float32[2]'. "
  ) in str(caught.value)


@pytest.mark.parametrize("devices", [2, 8])
def test_a_state_comes_back_bitwise_on_another_number_of_devices(
  workdir, devices
):
  state, _ = _restore(workdir, like=small_state.make(9, devices=devices))
  small_state.assert_same(state, small_state.make(4, devices=devices))


def test_no_moment_of_a_deletion_leaves_half_a_step(tmp_path, monkeypatch):
  """A step is renamed first, so a kill while files go leaves trash only."""
  with monkeypatch.context() as patch:
    patch.setattr(shutil, "rmtree", lambda *_, **__: None)
    small_state.write(tmp_path, [4.0, 3.0, 2.0, 1.0])
  files = checkpoint_files.CheckpointFiles(tmp_path)
  trash = files.path / checkpoint_files.TRASH
  assert sorted(path.name for path in trash.iterdir()) == ["1", "2"]
  assert files.steps() == [3, 4]
  for name in _items(trash / "1")[::2]:
    (trash / "1" / name).unlink()
  assert _restore(tmp_path)[1] == small_state.meta(4)
  assert files.steps() == [3, 4] and not trash.exists()
  assert [files.fault(step) for step in files.steps()] == [None, None]


def test_digests_of_a_step_that_was_never_finished_are_dropped(workdir):
  shutil.copy(workdir / "digests" / "4", workdir / "digests" / "5")
  _restore(workdir)
  assert not (workdir / "digests" / "5").exists()


def test_digests_are_those_of_sha256sum(workdir):
  done = subprocess.run(
    ["sha256sum", "--check", "--quiet", "../../digests/4"],
    cwd=workdir / "checkpoints" / "4",
    capture_output=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout


def test_a_step_is_saved_again_only_where_there_are_losses_now(workdir):
  """As after a run that was ended between the last step and the validation."""
  for metrics, expected in ((None, 4), ({"total": 0.5}, 7)):
    checkpoints = manager.Checkpoints(workdir)
    checkpoints.save(small_state.make(7), small_state.meta(4), metrics)
    checkpoints.close()
    small_state.assert_same(_restore(workdir)[0], small_state.make(expected))
  assert checkpoints.files.best() == 4


def test_damaged_digests_are_damage(workdir):
  for text in ("", "abc\n", "\0\0\0"):
    (workdir / "digests" / "4").write_text(text)
    files = checkpoint_files.CheckpointFiles(workdir)
    assert files.fault(4) is not None


@pytest.mark.long  # A program for each number of devices; see test_train_step.
def test_a_run_goes_on_with_other_devices_and_the_same_batches(
  tmp_path, monkeypatch
):
  """The loss of the next step is that of one device, up to rounding."""
  quick_backbone.register(monkeypatch)
  data = tiny_run.make_data_set(tmp_path / "data")
  config = tiny_run.small_config(data, epochs=1)
  config.model_params.audio.backbone_type = quick_backbone.NAME
  tiny_run.train_on_one(config, tmp_path / "run")
  one = tiny_run.rows_of(tmp_path / "run")
  shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
  loop.train_and_evaluate(config, tmp_path / "run", jax.devices()[:2])
  eight = tiny_run.rows_of(tmp_path / "run")
  assert [row["step"] for row in eight] == [1, 2, 3, 4, 4]
  assert eight[:3] == one[:3]
  assert abs(eight[3]["total"] - one[3]["total"]) < 1e-5

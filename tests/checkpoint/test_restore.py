"""Tests of pcl_jax.checkpoint.restore, with a network."""

import functools
import json
import shutil

from flax import nnx
import jax
import numpy as np
import pytest

from pcl_jax.audio import melspectrogram
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import manager
from pcl_jax.checkpoint import restore
from pcl_jax.common import errors
from pcl_jax.models import audio_encoder
from pcl_jax.models import encoders
from pcl_jax.training import optimizers
from pcl_jax.training import train_step
from tests.support import quick_backbone
from tests.support import small_state

pytestmark = pytest.mark.usefixtures("quickly")

AUDIO = {
  "backbone_type": quick_backbone.NAME,
  "width": 1,
  "fc_hidden_dim": 4,
}
META = {
  "architecture": {"audio": AUDIO},
  "feature": melspectrogram.SETTINGS.as_dict(),
}


@functools.cache
def _network():
  model = encoders.Encoders(
    audio_params=AUDIO,
    cf_params={"input_dim": 3, "hidden_dim": 2},
    rngs=nnx.Rngs(0),
  )
  _, state = train_step.new_state(model, optimizers.make_optimizer(0.1, 0.1))
  mesh = train_step.make_mesh(jax.devices()[:1])
  return jax.device_get(state), jax.NamedSharding(mesh, jax.P())


def _state(seed=0):
  """Returns a training state of a very small network, as after `seed` steps."""
  state, sharding = _network()
  state = jax.tree.map(lambda x: (x + seed / 7).astype(x.dtype), state)
  return jax.device_put(state, sharding)


def _meta(step):
  return META | {"progress": {"step": step, "epoch": step // 2}}


def _write(workdir, losses):
  """Saves step 1, 2, ... with these validation losses; None for none."""
  checkpoints = manager.Checkpoints(workdir)
  for step, loss in enumerate(losses, start=1):
    metrics = None if loss is None else {"total": loss}
    checkpoints.save(_state(step), _meta(step), metrics)
  checkpoints.close()


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory, quickly):
  """Workdir with the steps 1, which is the best, and 2."""
  folder = tmp_path_factory.mktemp("two_steps")
  _write(folder, [1.0, 2.0])
  return folder


@pytest.fixture
def workdir(two_steps, tmp_path):
  """A copy of it, to be spoiled."""
  return shutil.copytree(two_steps, tmp_path / "copy")


def test_a_state_without_other_encoders_comes_back_bitwise(tmp_path):
  states = small_state.make(1), small_state.make(9)
  for state in states:
    del state["params"]["cf"]
  checkpoints = manager.Checkpoints(tmp_path)
  checkpoints.save(states[0], small_state.meta(1))
  checkpoints.close()
  restored = restore.read_state(checkpoints.files, 1, states[1])
  small_state.assert_same(restored, states[0])


def _encoder_state(encoder):
  _, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)
  return {
    "params": nnx.to_pure_dict(params), "batch_stats": nnx.to_pure_dict(stats)
  }  # fmt: skip


@pytest.mark.parametrize("which, step", [("best", 1), ("latest", 2)])
def test_the_encoder_alone_is_that_of_the_state(two_steps, which, step):
  encoder, meta = restore.load_encoder(two_steps, which)
  assert isinstance(encoder, audio_encoder.AudioEncoder)
  assert meta == _meta(step)
  state = _state(step)
  for kind, found in _encoder_state(encoder).items():
    expected = state[kind]["audio"]
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_step_that_a_run_deletes_meanwhile_is_no_damage(workdir, monkeypatch):
  files = checkpoint_files.CheckpointFiles
  verify = files.fault

  def fault(self, step, *items):
    if step == 1:  # The run is quicker.
      shutil.rmtree(self.folder(step))
    return verify(self, step, *items)

  monkeypatch.setattr(files, "fault", fault)
  _, meta = restore.load_encoder(workdir)
  assert meta == _meta(2)


def test_loading_an_encoder_disturbs_no_run_that_is_under_way(workdir):
  folder = workdir / checkpoint_files.FOLDER
  half_written = folder / "3.orbax-checkpoint-tmp"
  for path in (half_written, folder / ".trash" / "0"):
    path.mkdir(parents=True)
    (path / "data").touch()
  before = sorted(folder.rglob("*"))
  restore.load_encoder(workdir)
  assert sorted(folder.rglob("*")) == before


def test_a_folder_that_is_no_run_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="not the workdir of a run"):
    restore.load_encoder(tmp_path)
  (tmp_path / checkpoint_files.FOLDER).mkdir()
  with pytest.raises(errors.InputError, match="no finished checkpoint"):
    restore.load_encoder(tmp_path)


def test_an_encoder_of_another_feature_is_refused(tmp_path):
  other = META["feature"] | {"mel_bands": 96}
  checkpoints = manager.Checkpoints(tmp_path)
  checkpoints.save(_state(), _meta(1) | {"feature": other})
  checkpoints.close()
  with pytest.raises(errors.InputError, match="mel_bands: there 96, here 48"):
    restore.load_encoder(tmp_path)


def _spoil(path, how):
  data = bytearray(path.read_bytes())
  if how == "cut":
    data = data[: len(data) // 2]
  elif how == "a bit":
    data[len(data) // 2] ^= 1
  else:
    data = bytes(len(data))
  path.write_bytes(data)


@pytest.mark.parametrize(
  "item, how", [("encoder", "a bit"), ("encoder", "zeros"), ("rest", "cut")]
)
def test_damaged_weights_are_refused_by_their_step(workdir, item, how):
  for path in (workdir / checkpoint_files.FOLDER / "2" / item).rglob("d/*"):
    _spoil(path, how)
  files = checkpoint_files.CheckpointFiles(workdir)
  remedy = f"Move {workdir}/checkpoints/2 away to use step 1"
  with pytest.raises(errors.InputError, match="checkpoint 2 .*" + remedy):
    restore.read_state(files, 2, _state())
  restored = restore.read_state(files, 1, _state())
  small_state.assert_same(restored, _state(1))


@pytest.mark.parametrize("how", ["cut", "removed"])
def test_a_damaged_description_is_refused_by_its_step(workdir, how):
  path = workdir / checkpoint_files.FOLDER / "1" / "meta" / "metadata"
  if how == "removed":
    path.unlink()
  else:
    _spoil(path, how)
  with pytest.raises(errors.InputError, match="checkpoint 1 .* use step 2"):
    restore.load_encoder(workdir)


def test_a_damaged_score_is_refused(workdir):
  path = workdir / checkpoint_files.FOLDER / "1" / "metrics" / "metrics"
  _spoil(path, "cut")
  with pytest.raises(errors.InputError, match="damaged"):
    restore.load_encoder(workdir)


def test_what_a_checkpoint_says_of_itself_is_plain_json(two_steps):
  path = two_steps / checkpoint_files.FOLDER / "1" / "meta" / "metadata"
  assert json.loads(path.read_text()) == _meta(1)

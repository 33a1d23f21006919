"""The folder of a run whose encoder compiles at once."""

import pathlib
from typing import Any

from flax import nnx
import jax
import ml_collections

from configs import ss_sc_cnn
from pcl_jax.audio import melspectrogram
from pcl_jax.checkpoint import manager
from pcl_jax.models import encoders
from pcl_jax.training import loop
from pcl_jax.training import optimizers
from pcl_jax.training import train_step
from tests.support import quick_backbone

AUDIO = {"backbone_type": quick_backbone.NAME, "width": 2, "fc_output_dim": 4}


def save(
  workdir: pathlib.Path,
  *,
  seed: int = 0,
  step: int = 1,
  feature: dict | None = None,
  audio: dict = AUDIO,
  **about: Any,
) -> pathlib.Path:
  """Saves a checkpoint of new weights, without training.

  Args:
    workdir: folder of the run.
    seed: of the weights.
    step: of the checkpoint.
    feature: settings of the feature; by default those there are.
    audio: architecture of the encoder; the quick backbone must be registered.
    **about: what else the checkpoint says, such as its config.

  Returns:
    The folder.
  """
  model = encoders.Encoders(audio_params=audio, rngs=nnx.Rngs(seed))
  _, state = train_step.new_state(model, optimizers.make_optimizer(0.1, 0.0))
  mesh = jax.make_mesh(
    (1,),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:1],
  )
  state = jax.device_put(state, jax.NamedSharding(mesh, jax.P()))
  meta = {
    "progress": {"step": step},
    "strategy": "SS",
    "architecture": {"audio": audio},
    "feature": feature or melspectrogram.SETTINGS.as_dict(),
    **about,
  }
  checkpoints = manager.Checkpoints(workdir)
  checkpoints.save(state, meta)
  checkpoints.close()
  return workdir


def train_epoch(
  workdir: pathlib.Path, data_dir: pathlib.Path, *, seed: int = 0
) -> ml_collections.ConfigDict:
  """Trains strategy SS for an epoch; the quick backbone is registered.

  Args:
    workdir: folder of the run.
    data_dir: data set, of 12 training songs at least.
    seed: of the run.

  Returns:
    Its config.
  """
  config = ss_sc_cnn.get_config("smoke")
  config.data.dir = str(data_dir)
  config.data.batch_size = 12
  config.epochs = 1
  config.seed = seed
  config.model_params.audio.backbone_type = quick_backbone.NAME
  config.audio_contrast_params.mixup = False
  loop.train_and_evaluate(config, workdir, devices=jax.devices()[:1])
  return config

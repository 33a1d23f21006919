"""A config file in the published YAML form.

python launch.py --config=configs/published_yaml.py:my.yaml --workdir=runs/my

A key that the file leaves out keeps its default of configs/common.py. Settings
without a meaning here (GPU numbers, worker processes, cache files) are named in
one warning; files that the file points to must exist. The data itself is read
from --config.data.dir. `wandb_params` names the run where wandb is among the
--config.trackers, and `run_name` the workdir where none is given.
"""

import contextlib
import os
from typing import Any

from absl import logging
from flax import traverse_util
import ml_collections
import yaml

from configs import common
from pcl_jax.common import errors
from pcl_jax.common import file_names

# Published key -> key here. Unlisted keys keep their name and place.
_RENAMED = {
  "dataloader_params.shared.batch_size": "data.batch_size",
  "dataloader_params.contrast_files.max_num_tags": "data.max_num_tags",
  "dataloader_params.contrast_files.double_window": "data.double_window",
}
_WITHOUT_MEANING = (
  "devices",
  "min_cache_batches",
  "save_model_loc",
  "dataloader_params.shared.num_workers",
  "dataloader_params.shared.num_read_ind_batches",
  "model_params.cf.input_dim",  # The vectors have it.
  "model_params.genre_w2v.d_model",
)
_MAY_BE_BLANK = (
  "audio_contrast_params.pair_generation_method",
  "wandb_params.project",
  "wandb_params.run_name",
  "wandb_params.run_id",
)
# Files of the published preparation; the data set's folder replaces them.
_FILES = (
  "dataloader_params.shared.lmdb_cache_file",
  "dataloader_params.shared.lmdb_cache_inds_file",
  "dataloader_params.shared.data_split_files",
  "dataloader_params.contrast_files.sound_tags_file",
  "dataloader_params.contrast_files.cf_emb_file",
  "dataloader_params.audio_pair_files.playlist_file_dir",
  "dataloader_params.audio_pair_files.val_pairs_file",
  "dataloader_params.audio_pair_files.genre_co_file",
  "dataloader_params.audio_pair_files.artist_co_file",
  "model_params.genre_w2v.emb_file",
)
_KINDS = {tuple: "list", float: "number"}  # Of a value, in messages.
# Options of the published networks that the paper never turns on (or off).
_FIXED = {
  "model_params.audio.fc_hidden_batch_norm": False,
  "model_params.audio.fc_output_layer_norm": False,
  "model_params.cf.hidden_batch_norm": False,
  "model_params.cf.output_layer_norm": True,
}


def _read(path: str) -> dict[str, Any]:
  if not path:
    raise errors.InputError(
      "configs/published_yaml.py needs a file after the colon: "
      "--config=configs/published_yaml.py:my.yaml"
    )
  try:
    with open(file_names.path(path), encoding="utf-8") as file:
      content = yaml.safe_load(file)
  except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
    raise errors.InputError(f"{path} cannot be read: {error}") from error
  if not isinstance(content, dict):
    raise errors.InputError(f"{path} holds no keys; see the published form.")
  return content


def _under(key: str, keys: tuple[str, ...]) -> bool:
  return any(key == one or key.startswith(f"{one}.") for one in keys)


def _check_file(path: str, key: str, value: Any) -> None:
  """Files may be given relative to the YAML file or to the working folder."""
  given, beside = file_names.path(str(value)), file_names.path(path).parent
  if not any(os.path.exists(place) for place in (given, beside / given)):
    raise errors.InputError(
      f"{path}: {key} is {str(value)!r} and no such file exists. Correct the "
      "path or remove the key: the data set is read from --config.data.dir."
    )


def _set(config: ml_collections.ConfigDict, path: str, key: str, value: Any):
  name = _RENAMED.get(key, key)
  known = traverse_util.flatten_dict(config.to_dict(), sep=".")
  if isinstance(known.get(name), tuple) and isinstance(value or [], list):
    # A flat pair of modes is accepted later; here lists become tuples.
    value = tuple(
      tuple(one) if isinstance(one, list) else one for one in value or ()
    )
  if name in _MAY_BE_BLANK:
    value = value or ""
  if name not in known:
    raise errors.InputError(
      f"{path}: the key {key} is unknown. Known keys are those of the "
      "published config file; remove it or correct its name."
    )
  default = known[name]
  if isinstance(default, float) and type(value) in (int, str):
    with contextlib.suppress(ValueError):
      value = float(value)  # YAML 1.1 reads 1e-4 as text.
  if type(value) is not type(default):
    raise errors.InputError(
      f"{path}: {key} is {value!r} ({type(value).__name__}), a "
      f"{_KINDS.get(type(default), type(default).__name__)} is needed."
    )
  config.update_from_flattened_dict({name: value})


def get_config(path: str = "") -> ml_collections.ConfigDict:
  """Reads a YAML file in the published form.

  Raises:
    InputError: the file cannot be read, or a key is unknown or of the wrong
      type, asks for a network that is not built, or names a file that does not
      exist.
  """
  tree = traverse_util.flatten_dict(_read(path))
  values = {".".join(map(str, keys)): value for keys, value in tree.items()}
  backbone = values.get("model_params.audio.backbone_type", "resnet")
  if backbone not in common.BACKBONES:
    raise errors.InputError(
      f"{path}: model_params.audio.backbone_type is {backbone!r}; it is one of "
      f"{', '.join(common.BACKBONES)}."
    )
  config = common.get_config(backbone)
  ignored = []
  for key, value in values.items():
    if _under(key, _FILES):
      _check_file(path, key, value)
    if _under(key, _FILES + _WITHOUT_MEANING):
      ignored.append(key)
    elif key in _FIXED:
      if value != _FIXED[key]:
        raise errors.InputError(
          f"{path}: {key} is {value!r}; only {_FIXED[key]} is built, as in "
          "the paper."
        )
    else:
      _set(config, path, key, value)
  if ignored:
    logging.warning(
      "%s: these settings have no meaning here and are left out: %s",
      path,
      ", ".join(ignored),
    )
  return config

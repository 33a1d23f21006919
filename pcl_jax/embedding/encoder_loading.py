"""Loads encoders: of runs, of bundles, and of bundles on a model hub."""

import os
import pathlib
from typing import Any

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import restore
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import golden_audio
from pcl_jax.embedding.bundles import hub_downloads
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.models import audio_encoder

# What tables call the encoder in this package's folder, wherever that lies.
PRETRAINED = "pcl_jax/pretrained"
_PRETRAINED_FOLDER = pathlib.Path(__file__).parents[1] / "pretrained"


def _pretrained() -> pathlib.Path:
  if not checkpoint_files.is_bundle(_PRETRAINED_FOLDER):
    raise errors.InputError(
      "no encoder comes with this installation: give the folder of a run, or a "
      f"bundle, as --workdir (there is no bundle in {_PRETRAINED_FOLDER})."
    )
  return _PRETRAINED_FOLDER


def _load_bundle(
  folder: pathlib.Path, *, verify: bool, batch_patches: int
) -> tuple[audio_encoder.AudioEncoder, dict[str, Any]]:
  network, meta, golden = bundle_files.read(folder, verify=verify)
  if verify:
    encoder = song_encoder.SongEncoder(network, {}, meta)
    found = golden_audio.vectors_of(encoder, golden.samples, batch_patches)
    golden_audio.check(golden, found, folder)
  return network, meta


def load_network(
  workdir: str | os.PathLike[str],
  which: str = "best",
  *,
  verify: bool = True,
  batch_patches: int = song_encoder.BATCH_PATCHES,
) -> tuple[audio_encoder.AudioEncoder, dict[str, Any]]:
  """Loads the network of a run or a bundle in a folder, as `load` does.

  Returns:
    The network, and what its checkpoint or bundle says about itself.
  """
  hub_downloads.check_folder(workdir)
  if checkpoint_files.is_bundle(workdir):
    return _load_bundle(
      pathlib.Path(workdir), verify=verify, batch_patches=batch_patches
    )
  return restore.load_encoder(workdir, which)


def recorded(workdir: str | os.PathLike[str], which: str) -> str:
  """Returns which checkpoint tables and results say they are of.

  A bundle has one encoder, whichever was asked for.
  """
  return "best" if checkpoint_files.is_bundle(workdir) else which


@jax_setup.in_own_types
def load(
  workdir: str | os.PathLike[str] | None = None,
  which: str = "best",
  *,
  verify: bool = True,
  batch_patches: int = song_encoder.BATCH_PATCHES,
) -> song_encoder.SongEncoder:
  """Loads the encoder of a run or a bundle.

  Args:
    workdir: folder of the run, or of a bundle; or the address of a bundle on a
      model hub, hf://USER/NAME or hf://USER/NAME@REVISION. By default the
      bundle in this package's folder `pretrained`, where there is one.
    which: of a run, the `best` checkpoint by validation loss, or the `latest`.
      A bundle has one encoder.
    verify: embeds the golden audio of a bundle, and refuses an encoder that
      gives other vectors than it was exported with; False also loads files
      that were changed.
    batch_patches: patches encoded at once in that; give the number that the
      encoder will be asked for, and one program is compiled.

  Raises:
    InputError: there is no checkpoint, it is damaged, its feature has other
      settings, the bundle is not what was exported or cannot be downloaded,
      or `which` is neither.
  """
  song_encoder.check_choice("which", which, song_encoder.CHECKPOINTS)
  place = None
  if workdir is None or workdir == PRETRAINED:
    workdir, place = _pretrained(), PRETRAINED
  if hub_downloads.is_address(workdir):
    workdir, place = hub_downloads.download(str(workdir), bundle_files.FILES)
  workdir = file_names.path(workdir)
  network, meta = load_network(
    workdir,
    which,
    verify=verify,
    batch_patches=song_encoder.checked_batch(batch_patches),
  )
  which = recorded(workdir, which)
  about = embedding_table.provenance(network, meta, workdir)
  if place is not None:
    about["workdir"] = place
  return song_encoder.SongEncoder(network, about | {"checkpoint": which}, meta)

"""The encoder of a run or bundle, compiled: files and samples to vectors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import os
import pathlib
from typing import Any, NamedTuple

from flax import nnx
import jax
from jaxtyping import Float, Int
import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.audio import decode
from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.common import storage
from pcl_jax.common import usable_cores
from pcl_jax.data import song_store
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding import embedding_run
from pcl_jax.embedding import embedding_shards
from pcl_jax.embedding import table_update
from pcl_jax.embedding.bundles import bundle_config
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import golden_audio
from pcl_jax.embedding.bundles import model_card
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.models import audio_encoder
from pcl_jax.models import compiled_encoder

CHECKPOINTS = ("best", "latest")
BATCH_PATCHES = 64
_MAX_THREADS = 8

_Path = str | os.PathLike[str]


class PatchVectors(NamedTuple):
  """The vectors of a song's patches, float32, and each start in seconds."""

  vectors: Float[np.ndarray, "patches features"]
  starts_s: Float[np.ndarray, " patches"]


def embed_songs(
  encoder: audio_encoder.AudioEncoder,
  store: song_store.SongStore,
  songs: Int[np.ndarray, " songs"],
  *,
  batch_patches: int = BATCH_PATCHES,
) -> Float[np.ndarray, "songs features"]:
  """Embeds songs at positions of a store, float32 [songs, features].

  Each is the mean over the features of the song's whole, non-overlapping
  patches; a shorter song is padded with silence.
  """
  embedder = compiled_encoder.make_embedder(encoder)
  song_index, starts = song_patches.patch_grid(store.frames[songs])
  batches = song_patches.read_batches(
    lambda some, *where: store.read_patches(songs[some], *where),
    song_index,
    starts,
    batch_patches,
  )
  found = song_patches.encoded(embedder, batches)
  return song_patches.mean_vectors(found, len(songs))[0]


class SongEncoder:
  """The audio encoder of a run or bundle, which embeds files and samples.

  A song is cut into whole patches of 4.096 s, end to end, from its beginning.
  Each becomes a vector; the song's vector is their mean. The frames after the
  last whole patch are not used, and a song shorter than one patch is padded
  with silence.

  Attributes:
    network: the audio encoder itself, a flax module.
    about: which encoder this is: workdir, step, SHA-256 of the weights,
      architecture, settings of the feature, versions; plain values.
    meta: what its checkpoint, or its bundle, says about itself.
    channels: what its training took of several, of `channel_mix.CHOICES`.
    features: length of the vectors of the layer `features`.
    projection: length of the vectors of the layer `projection`.
  """

  def __init__(
    self,
    network: audio_encoder.AudioEncoder,
    about: dict[str, Any],
    meta: dict[str, Any],
    *,
    make_embedder: Callable = compiled_encoder.make_embedder,
  ):
    """Wraps a network; `load` gets it from a run or a bundle.

    Args:
      network: the audio encoder.
      about: which encoder this is.
      meta: what its checkpoint, or its bundle, says about itself.
      make_embedder: (network, layer) -> a function as that of
        `compiled_encoder` returns; another one runs the network by other means.
    """
    self._make_embedder = make_embedder
    self.network = network
    self.about = about
    self.meta = meta
    self.channels = channel_mix.of(meta["feature"])
    self.features: int = network.backbone.features
    rows = jax.ShapeDtypeStruct((1, self.features), np.float32)
    outputs = nnx.eval_shape(lambda x: network.projection(x, False), rows)
    self.projection: int = outputs.shape[1]

  @jax_setup.in_own_types
  def embed(
    self,
    audio: Any,
    *,
    sample_rate_hz: int | float | None = None,
    channels: str | None = None,
    per_patch: bool = False,
    layer: str = "features",
    batch_patches: int = BATCH_PATCHES,
    refuse_silence: bool = False,
  ) -> Float[np.ndarray, " features"] | PatchVectors:
    """Embeds a song: an audio file, or samples.

    Args:
      audio: the path of a file of any format and length; or floating-point
        samples of full scale 1, [samples] or [samples, channels].
      sample_rate_hz: how many samples a second there are, at least 1,000; for
        samples only, since a file says so itself.
      channels: what is taken of several channels: their `mean`, which is silent
        where they cancel each other out; the `left` one; or the `loudest`, for
        which a file is decoded twice. By default what the encoder has learned
        from, the mean if its data set does not say otherwise.
      per_patch: gives the vector of each patch in place of their mean.
      layer: `features`, what the backbone gives: for search and classifiers;
        or `projection`, what the loss saw in training.
      batch_patches: patches encoded at once; the network is compiled for each
        number. A CPU has one program for all from 16 on, whose multiples they
        are filled up to.
      refuse_silence: whether a silent song is an error, and not a warning.

    Returns:
      The song's vector, float32 [features]; with `per_patch`, the vectors,
      float32 [patches, features], and where each patch starts, in seconds,
      [patches].

    Raises:
      InputError: the file cannot be read, the samples are not as above, an
        argument has no such value, or the song is silent and silence refused.
    """
    channels = self.channels if channels is None else channels
    if isinstance(audio, str | os.PathLike):
      if sample_rate_hz is not None:
        raise errors.InputError(
          f"sample_rate_hz is {sample_rate_hz} for the file {audio}, which has "
          "its own: leave it out."
        )
      blocks = decode.feature_blocks(file_names.path(audio), channels=channels)
    else:
      blocks = decode.sample_blocks(audio, sample_rate_hz, channels)
    silent = []

    def patches() -> Iterator[tuple[int, np.ndarray]]:
      for piece in song_patches.whole_patches(blocks):
        silent.append(melspectrogram.is_silent(piece.patches))
        yield 0, piece.patches

    batches = song_patches.gathered(patches(), checked_batch(batch_patches))
    found = list(song_patches.encoded(self._embedder(layer), batches))
    if all(silent):
      name = audio if isinstance(audio, str | os.PathLike) else "the audio"
      text = f"{name} is silent, or its channels cancel each other out"
      if refuse_silence:
        raise errors.InputError(f"{text}: give audio that can be heard.")
      console.warn(f"{text}: its vector means nothing")
    if not per_patch:
      return song_patches.mean_vectors(found, 1)[0][0]
    vectors = np.concatenate([some for _, some in found])
    return PatchVectors(vectors, song_patches.SECONDS * np.arange(len(vectors)))

  @jax_setup.in_own_types
  def embed_files(
    self,
    paths: _Path | Iterable[_Path] | audio_sources.Source,
    out: _Path,
    *,
    channels: str | None = None,
    layer: str = "features",
    per_patch: bool = False,
    batch_patches: int = BATCH_PATCHES,
    threads: int | None = None,
    force: bool = False,
    shard: str | None = None,
  ) -> embedding_run.Report | None:
    """Embeds audio files into a table, as `python -m pcl_jax.embed` does.

    Interrupted, the same call goes on. In a finished table of the same encoder
    and settings, only songs that are new or changed are embedded, and those
    that are no longer there are dropped.

    Args:
      paths: files, and folders whose audio files, at any depth, are meant; or
        the songs of a data set, by `audio_sources.data_set_songs`.
      out: the table, a Parquet file; docs/embeddings.md has its columns. Songs
        that cannot be read are listed in OUT.failures.json.
      channels: as `embed` has them; recorded with the feature's settings. A
        data set has its own. Others than the encoder's are warned of.
      layer: `features` or `projection`, as `embed` has them.
      per_patch: writes a row for each patch in place of one for each song.
      batch_patches: patches encoded at once.
      threads: files decoded at once; by default one a core, at most 8.
      force: replaces a finished table.
      shard: `2/8` embeds the second of eight parts of the songs, in a table
        beside `out`; the call that finds all eight there makes `out`.

    Returns:
      What was done; None if the table has all these songs as they are.

    Raises:
      InputError: a path does not exist, there is no audio file, `out` was made
        of other songs or by another encoder, or another process is writing it.
      RunError: not one song can be read.
    """
    part = embedding_shards.parse(shard) if shard else None
    source = self._source(paths, channels)
    out = file_names.path(out)
    threads = threads or min(usable_cores.count(), _MAX_THREADS)
    about = self.about | {
      "layer": layer,
      "per_patch": per_patch,
      "batch_patches": checked_batch(batch_patches),
      "feature": melspectrogram.SETTINGS.as_dict(source.channels),
      "songs_sha256": source.digest,
      "roots": list(source.roots),
    }
    how: dict[str, Any] = {"batch_patches": batch_patches, "threads": threads}
    how["embedder"] = self._embedder(layer)
    like = embedding_table.schema(
      getattr(self, layer),
      about,
      per_patch=per_patch,
      odd_names=not all(map(file_names.is_text, source.ids + source.paths)),
    )
    if out.exists() and not force:
      how["update"] = _plan_update(out, about, source, threads, part)
      if how["update"] is None:
        return None
    storage.check_writable(out, "give another --out")
    if part:
      return embedding_shards.embed_shard(
        part, source, like, out, force=force, **how
      )
    return embedding_run.embed_source(source, like=like, out=out, **how)

  @jax_setup.in_own_types
  def save(
    self,
    out: _Path,
    *,
    license: str = model_card.NO_LICENSE,
    force: bool = False,
  ) -> str:
    """Writes the encoder as a bundle, a folder that `load` takes as well.

    docs/weights.md has its files. The model card has what results.json of the
    run says, if it is of these weights.

    Args:
      out: the folder; its name becomes that of the model.
      license: identifier of the weights' licence, such as cc-by-nc-4.0.
      force: replaces the files of a bundle that is there.

    Returns:
      Why the card has no results; empty where it has.

    Raises:
      InputError: `out` is something else, weights are not finite, or the
        licence is no identifier.
    """
    out = file_names.path(out)
    bundle_files.check_free(out, force=force)
    config, golden, reason = self.described()
    arrays = bundle_files.arrays_of(self.network)
    bundle_files.write(out, arrays, config, golden, license=license)
    return reason

  @jax_setup.in_own_types
  def described(self) -> tuple[dict[str, Any], golden_audio.Golden, str]:
    """Returns what a published encoder says about itself.

    Returns:
      What config.json of a bundle holds, without its files; golden audio and
      its vectors; and why there are no results of an evaluation, empty where
      there are.
    """
    digest = self.about["weights_sha256"]
    workdir = pathlib.Path(self.about["workdir"])
    found, reason = model_card.read_evaluation(workdir, digest)
    kept = None if found else self.meta.get("evaluation")
    if kept and self.meta.get("evaluated_sha256") != digest:
      kept = None
      where = self.about["workdir"]
      reason = f"those of {where}/config.json are of other weights"
    meta = self.meta | {"evaluation": found or kept}
    config = bundle_config.of(self.network, meta, digest)
    golden = golden_audio.make(self, BATCH_PATCHES)
    return config, golden, "" if meta["evaluation"] else reason

  def _source(
    self,
    paths: _Path | Iterable[_Path] | audio_sources.Source,
    channels: str | None,
  ) -> audio_sources.Source:
    """Returns the songs, of the channels that are asked for."""
    if isinstance(paths, audio_sources.Source):
      if channels not in (None, paths.channels):
        raise errors.InputError(
          f"channels is {channels!r} for the songs of a data set, which are "
          f"features of {paths.channels!r} already: leave it out, or give "
          "audio files."
        )
      ours, theirs = self.meta["feature"], {"channels": paths.channels}
      channel_mix.check_same(theirs, "the data set", ours)
      return paths
    channels = self.channels if channels is None else channels
    channel_mix.check(channels)
    if channels != self.channels:
      console.warn(
        f"channels is {channels!r}, and the encoder has learned from "
        f"{self.channels!r}: leave it out to embed songs as it knows them"
      )
    return audio_sources.audio_files(paths, channels)

  def _embedder(self, layer: str) -> Callable:
    check_choice("layer", layer, compiled_encoder.LAYERS)
    return self._make_embedder(self.network, layer)


def _plan_update(
  out: pathlib.Path,
  about: dict[str, Any],
  source: audio_sources.Source,
  threads: int,
  shard: embedding_shards.Shard | None,
) -> table_update.Update | None:
  """Returns what is to be done to a table; None where it is nothing."""
  changed = table_update.has_changed(out, about)
  if shard and changed:
    raise errors.InputError(
      f"{out} exists and is of other songs: bring it up to date without "
      "--shard, or give --force to make it again."
    )
  whole = shard or embedding_table.count_songs(out) >= len(source.ids)
  if whole and not changed:
    return None
  update = table_update.plan(out, source, threads)
  if not update.kept:
    raise errors.InputError(
      f"{out} has none of these {len(source.ids)} songs as they are now, or is "
      "of an earlier version: give another --out, or --force to replace it."
    )
  return update._replace(changed=changed)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
  """Raises InputError where a value is none of the choices."""
  if value not in choices:
    raise errors.InputError(
      f"{name} is {value!r}: give one of {', '.join(choices)}."
    )


def checked_batch(patches: int) -> int:
  """Returns a number of patches; raises InputError where it is below 1."""
  if patches < 1:
    raise errors.InputError(f"batch_patches is {patches}: give at least 1.")
  return patches

"""Tests of import pcl_jax, and of the encoder that pcl_jax.load gives."""

import subprocess
import sys

import jax
import numpy as np
from pyarrow import parquet
import pytest
import soundfile

import pcl_jax
from pcl_jax import embed
from pcl_jax.audio import channel_mix
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.embedding import song_encoder
from tests.support import quick_backbone
from tests.support import quick_run

BATCH = 4
RATE_HZ = 44_100


@pytest.fixture(scope="module")
def song(tmp_path_factory):
  """A song in stereo, 13 s: three patches and a rest."""
  rng = np.random.default_rng(0)
  samples = rng.uniform(-0.5, 0.5, (13 * RATE_HZ, 2)).astype(np.float32)
  path = tmp_path_factory.mktemp("song") / "song.flac"
  soundfile.write(path, samples, RATE_HZ)
  return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Folder of a run; the quick backbone stays registered."""
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    yield quick_run.save(tmp_path_factory.mktemp("run") / "run", step=7)


@pytest.fixture(scope="module")
def encoder(run) -> song_encoder.SongEncoder:
  return pcl_jax.load(run)


def test_nothing_heavy_is_imported_until_it_is_asked_for():
  code = (
    "import sys, pcl_jax; print(set(sys.modules) & "
    "{'jax', 'numpy', 'flax', 'orbax', 'pyarrow', 'soundfile', 'absl'}); "
    "pcl_jax.InputError; print(set(pcl_jax.__all__) <= set(dir(pcl_jax)))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout.split() == ["set()", "True"]
  for name in pcl_jax.__all__:
    assert getattr(pcl_jax, name).__name__ == name
  with pytest.raises(AttributeError, match="no attribute 'embedder'"):
    pcl_jax.embedder  # noqa: B018


def test_a_song_has_the_bits_that_the_command_writes(
  encoder, run, song, tmp_path
):
  flags = [f"--workdir={run}", f"--audio={song}", f"--batch_patches={BATCH}"]
  for layer, length in (("features", 16), ("projection", 4)):
    assert getattr(encoder, layer) == length
    options = {"layer": layer, "batch_patches": BATCH}
    out = tmp_path / f"{layer}.parquet"
    embed.main([*flags, f"--layer={layer}", f"--out={out}"])
    vector = encoder.embed(song, **options)
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(pcl_jax.read_table(out).vectors, vector[None])
    again = tmp_path / "again.parquet"
    encoder.embed_files(str(song), again, force=True, **options)
    assert again.read_bytes() == out.read_bytes()


def test_neither_64_bit_numbers_nor_a_tilde_change_the_bits(
  encoder, run, song, tmp_path, monkeypatch
):
  vector = encoder.embed(song, batch_patches=BATCH)
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "link").symlink_to(run.parent)
  (tmp_path / song.name).symlink_to(song)
  with jax.enable_x64(True):
    other = pcl_jax.load(f"~/link/{run.name}")
    found = other.embed(f"~/{song.name}", batch_patches=BATCH)
    other.embed_files(f"~/{song.name}", "~/a.parquet", batch_patches=BATCH)
    table = pcl_jax.read_table("~/a.parquet")
    (row,) = table.nearest(found, 1).rows
  assert found.dtype == np.float32 and row == 0
  np.testing.assert_array_equal(found, vector)
  np.testing.assert_array_equal(table.vectors, vector[None])
  assert other.about["weights_sha256"] == encoder.about["weights_sha256"]


def test_each_patch_has_the_bits_and_the_start_that_the_command_writes(
  encoder, run, song, tmp_path
):
  out = tmp_path / "out.parquet"
  flags = [f"--workdir={run}", f"--audio={song}", f"--batch_patches={BATCH}"]
  embed.main([*flags, "--per_patch", f"--out={out}"])
  rows = parquet.read_table(out).to_pydict()
  vectors, starts_s = encoder.embed(song, per_patch=True, batch_patches=BATCH)
  assert starts_s.tolist() == rows["start_s"] == [0.0, 4.096, 8.192]
  np.testing.assert_array_equal(vectors, np.float32(rows["vector"]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_have_the_vector_of_their_file(encoder, song, dtype):
  samples, rate_hz = soundfile.read(song, dtype=dtype)
  options = {"batch_patches": BATCH}
  found = encoder.embed(samples, sample_rate_hz=rate_hz, **options)
  np.testing.assert_array_equal(found, encoder.embed(song, **options))
  mono = encoder.embed(samples[:, 0], sample_rate_hz=rate_hz, **options)
  twice = np.repeat(samples[:, :1], 2, axis=1)
  twice = encoder.embed(twice, sample_rate_hz=rate_hz, **options)
  np.testing.assert_array_equal(mono, twice)


def test_audio_without_sound_is_warned_of(encoder, song, capsys):
  samples, _ = soundfile.read(song, dtype="float32")
  samples[:, 1] = -samples[:, 0]
  encoder.embed(samples, sample_rate_hz=RATE_HZ, batch_patches=BATCH)
  assert "channels cancel each other out" in capsys.readouterr().err
  with pytest.raises(errors.InputError, match="the audio is silent"):
    encoder.embed(samples, sample_rate_hz=RATE_HZ, refuse_silence=True)
  expected = encoder.embed(samples[:, 1], sample_rate_hz=RATE_HZ)
  samples[:, 0] *= 0.5
  loudest = {"sample_rate_hz": RATE_HZ, "channels": "loudest"}
  found = encoder.embed(samples, **loudest)
  np.testing.assert_array_equal(found, expected)
  with pytest.raises(pcl_jax.InputError, match="channels is 'right'"):
    encoder.embed(samples, sample_rate_hz=RATE_HZ, channels="right")
  capsys.readouterr()
  encoder.embed(samples[:, 0], sample_rate_hz=RATE_HZ, batch_patches=BATCH)
  assert not capsys.readouterr().err


def test_an_encoder_takes_the_channels_it_has_learned_from(
  run, encoder, song, tmp_path, capsys
):
  feature = melspectrogram.SETTINGS.as_dict("left")
  left = quick_run.save(tmp_path / "left", step=7, feature=feature)
  pcl_jax.load(left).save(tmp_path / "bundle")
  expected = encoder.embed(song, channels="left", batch_patches=BATCH)
  for folder in (left, tmp_path / "bundle"):
    found = pcl_jax.load(folder)
    assert (found.channels, encoder.channels) == ("left", "mean")
    assert found.about["feature"] == feature
    vector = found.embed(song, batch_patches=BATCH)
    np.testing.assert_array_equal(vector, expected)
  flags = [f"--workdir={left}", f"--audio={song}", f"--batch_patches={BATCH}"]
  capsys.readouterr()
  for channels, warnings in ((None, 0), ("left", 0), ("mean", 1)):
    out = tmp_path / f"{channels}.parquet"
    more = [f"--channels={channels}"] * bool(channels)
    embed.main([*flags, f"--out={out}", *more])
    table = pcl_jax.read_table(out)
    said = capsys.readouterr().err
    assert said.count("has learned from 'left'") == warnings
    assert channel_mix.of(table.about["feature"]) == (channels or "left")
    asked = {"channels": channels, "batch_patches": BATCH}
    vector = pcl_jax.load(left).embed(song, **asked)
    np.testing.assert_array_equal(table.vectors[0], vector)


def test_one_sample_is_enough(encoder):
  found = encoder.embed(np.zeros(1), sample_rate_hz=16_000, per_patch=True)
  assert found.vectors.shape == (1, 16)
  assert found.starts_s.tolist() == [0.0]


TONE = np.zeros(RATE_HZ, np.float32)
NAN = np.where(np.arange(RATE_HZ) == 7, np.nan, TONE)


@pytest.mark.parametrize(
  ("audio", "options", "message"),
  [
    ("absent.mp3", {}, "absent.mp3: there is no such file"),
    (".", {}, "it is a folder. One audio file is needed here."),
    (
      "absent.mp3",
      {"sample_rate_hz": RATE_HZ},
      "44100 for the file absent.mp3",
    ),
    ("absent.mp3", {"layer": "last"}, "'last': give one of features, proj"),
    ("absent.mp3", {"batch_patches": 0}, "batch_patches is 0: give at least 1"),
    (TONE, {}, "without sample_rate_hz"),
    (TONE, {"sample_rate_hz": 0}, "sample_rate_hz is 0: .* at least 1000"),
    (TONE, {"sample_rate_hz": np.nan}, "sample_rate_hz is nan"),
    (NAN, {"sample_rate_hz": RATE_HZ}, "not finite numbers"),
    (2e6 + TONE, {"sample_rate_hz": RATE_HZ}, "beyond 1e.06"),
    (TONE[:0], {"sample_rate_hz": RATE_HZ}, r"shape \(0,\)"),
    (TONE[None, :, None], {"sample_rate_hz": RATE_HZ}, "shape .1, 44100, 1"),
    (TONE[None], {"sample_rate_hz": RATE_HZ}, "perhaps by samples.T"),
    (TONE.astype(np.int16), {"sample_rate_hz": RATE_HZ}, "type int16: .*32768"),
  ],
)
def test_bad_input_is_refused(encoder, audio, options, message):
  with pytest.raises(pcl_jax.InputError, match=message):
    encoder.embed(audio, **options)


def test_a_checkpoint_of_no_such_name_is_refused(run):
  with pytest.raises(pcl_jax.InputError, match="'newest': give one of best"):
    pcl_jax.load(run, which="newest")


def test_a_query_of_another_length_is_refused(encoder, song, tmp_path):
  out = tmp_path / "out.parquet"
  encoder.embed_files([song], out, batch_patches=BATCH)
  table = pcl_jax.read_table(out)
  with pytest.raises(pcl_jax.InputError, match=r"shape \(4,\), .* \(16,\)"):
    table.nearest(np.zeros(4, np.float32), 1)

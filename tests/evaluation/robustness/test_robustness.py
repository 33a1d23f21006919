"""Tests of pcl_jax.evaluation.robustness and robustness_measures."""

import functools
import json

import jax.numpy as jnp
import numpy as np
from pyarrow import parquet
import pytest
import soundfile

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding import encoder_loading
from pcl_jax.evaluation.robustness import audio_changes
from pcl_jax.evaluation.robustness import command
from pcl_jax.evaluation.robustness import robustness_measures
from pcl_jax.evaluation.tagging import probes
from pcl_jax.models import compiled_encoder
from preprocessing import sample_audio
from tests.support.tiny import tiny_library

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _bands(patches):
  """An embedder for tests: loudness of each band above silence."""
  return jnp.asarray(patches, jnp.float32).mean(axis=1) + 2.0


@pytest.fixture(scope="module")
def library(tmp_path_factory):
  """Two folders of tones, low and high, and a file that is no audio."""
  root = tmp_path_factory.mktemp("audio")
  for number in range(7):
    for folder, lowest in (("low", 200), ("high", 2000)):
      hz = lowest * 1.09**number
      tiny_library.write_song(root / folder / f"{number}.wav", hz, seconds=0.6)
  (root / "low" / "broken.wav").write_bytes(b"nothing that sounds")
  return root


def _embedded(library, changes, seconds=30.0):
  chosen, _ = command.choose_changes(changes)
  return robustness_measures.embed_changes(
    _bands,
    audio_sources.audio_files([library]),
    chosen,
    seconds=seconds,
    batch_patches=7,
  )


def test_each_version_is_embedded_as_it_would_be_alone(library):
  found = _embedded(library, "gain,tempo")
  assert found.ids[0] == "high/0.wav"
  assert len(found.ids) == 14
  assert list(found.failures) == ["low/broken.wav"]
  samples, _ = soundfile.read(library / found.ids[12], dtype="float32")
  for (name, strength), vectors in found.changed.items():
    change = getattr(audio_changes, name)
    audio = change(samples, strength, np.random.default_rng())
    patch = np.full((1, 256, 48), melspectrogram.SILENCE, np.float16)
    feature = melspectrogram.log_mel(audio)
    patch[0, : len(feature)] = feature
    np.testing.assert_allclose(vectors[12], _bands(patch)[0], atol=2e-3)


def test_only_the_beginning_is_used(library):
  shorter = _embedded(library, "gain", seconds=0.3)
  samples, _ = soundfile.read(library / "low/3.wav", dtype="float32")
  feature = melspectrogram.log_mel(samples[: int(0.3 * 16_000)])
  patch = np.full((1, 256, 48), melspectrogram.SILENCE, np.float16)
  patch[0, : len(feature)] = feature
  place = shorter.ids.index("low/3.wav")
  np.testing.assert_allclose(shorter.clean[place], _bands(patch)[0], atol=2e-3)


def test_similarity_is_the_cosine_and_the_rank_among_all_clean_ones():
  rng = np.random.default_rng(0)
  clean, changed = rng.standard_normal((2, 30, 5))
  cosines, ranks = robustness_measures.similarities(clean, changed)
  for song in range(30):
    all_of_them = [
      float(changed[song] @ one / np.linalg.norm(changed[song]))
      / np.linalg.norm(one)
      for one in clean
    ]
    assert cosines[song] == pytest.approx(all_of_them[song], abs=1e-5)
    nearer = sum(one > all_of_them[song] + 1e-9 for one in all_of_them)
    assert ranks[song] == 1 + nearer
  assert (robustness_measures.similarities(clean, 3 * clean)[1] == 1).all()
  unit = clean / np.linalg.norm(clean, axis=1, keepdims=True)
  pairs = (unit @ unit.T)[~np.eye(30, dtype=bool)]
  assert robustness_measures.between_songs(clean) == pytest.approx(pairs.mean())
  assert np.isnan(robustness_measures.between_songs(clean[:1]))


def test_folders_are_the_classes_and_small_ones_are_left_out():
  ids = [f"{name}/{i}.wav" for name in "ab" for i in range(10)]
  labelled, rows = robustness_measures.folders([*ids, "c/0.wav", "d.wav"])
  assert labelled.tags == ("a", "b")
  assert rows.tolist() == list(range(20))
  np.testing.assert_array_equal(np.bincount(labelled.split), [12, 4, 4])
  np.testing.assert_array_equal(labelled.labels[:10], [[True, False]] * 10)
  with pytest.raises(errors.InputError, match="3 folders .* and 1 of them"):
    robustness_measures.folders([*ids[:10], "c/0.wav", "d.wav"])


@pytest.fixture(scope="module")
def run(library, tmp_path_factory):
  """What the command gives with a stand-in for the encoder."""
  workdir = tmp_path_factory.mktemp("run")
  meta = {"progress": {"step": 7}, "feature": {}}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(encoder_loading, "load_network", lambda *_: (None, meta))
    patch.setattr(compiled_encoder, "make_embedder", lambda _: _bands)
    quick = {"rates": (1e-2,), "decays": (0.0,), "rounds": 30, "seeds": (0,)}
    train_probe = functools.partial(probes.train_probe, **quick)
    patch.setattr(probes, "train_probe", train_probe)
    code = command.main(
      [
        f"--workdir={workdir}",
        f"--audio={library}",
        "--changes=gain,white noise",
        f"--plot={workdir / 'curves.png'}",
      ]
    )
  return workdir, code


def test_the_command_writes_curves_and_fails_at_the_end_for_a_broken_file(
  run, capsys
):
  workdir, code = run
  assert code == errors.EXIT_FAILED
  results = json.loads((workdir / command.FILE_NAME).read_text())
  assert list(results["failures"]) == ["low/broken.wav"]
  rows = {(one["change"], one["strength"]): one for one in results["changes"]}
  loud, quiet = (rows["white noise", db]["cosine"] for db in (0, 40))
  assert loud["value"] < quiet["value"] < 1
  assert rows["gain", -3]["found_first"]["value"] == 1.0
  assert rows["white noise", 0]["drop"]["value"] >= 0
  assert results["probe"]["classes"] == 2
  assert results["probe"]["clean_accuracy"]["value"] == 1.0
  words = command.format_results(results)
  assert "low/broken.wav" in words
  assert "14 recordings" in words
  assert (workdir / "curves.png").read_bytes()[:4] == b"\x89PNG"
  table = parquet.read_table(workdir / command.TABLE_NAME).to_pylist()
  cosines = [
    one["cosine"]
    for one in table
    if one["change"] == "white noise" and one["strength"] == 0
  ]
  assert len(cosines) == 14
  assert np.mean(cosines) == pytest.approx(loud["value"])
  assert not list(workdir.glob("*.partial"))


def test_unknown_changes_and_lengths_are_refused(tmp_path, library):
  with pytest.raises(errors.InputError, match="names reverb; it is all"):
    command.choose_changes("gain,reverb")
  with pytest.raises(errors.InputError, match="--seconds is 0"):
    source = audio_sources.audio_files([library])
    command.measure(tmp_path, source, seconds=0.0)


def test_mp3_that_cannot_be_written_is_reported(monkeypatch):
  monkeypatch.setattr(audio_changes, "has_mp3", lambda: False)
  chosen, missing = command.choose_changes("gain,mp3")
  assert [change.name for change in chosen] == ["gain"]
  assert "MP3" in missing["mp3"]


def test_a_library_of_which_nothing_can_be_read_is_refused(tmp_path):
  (tmp_path / "broken.wav").write_bytes(b"nothing that sounds")
  with pytest.raises(errors.InputError, match="none of 1 recordings"):
    _embedded(tmp_path, "gain")


def test_sample_audio_lies_in_folders_of_artists_and_is_made_once(tmp_path):
  options = {"songs": 8, "artists": 2, "seconds": 1.0}
  paths = sample_audio.make_audio(tmp_path, **options)
  assert len(set(paths)) == 8
  assert {path.parent.name for path in paths} <= {"artist_000", "artist_001"}
  samples, rate_hz = soundfile.read(paths[0])
  assert (len(samples), rate_hz) == (16_000, 16_000)
  assert np.abs(samples).max() > 0.05
  paths[3].unlink()
  before = paths[0].stat().st_mtime_ns
  content = paths[5].read_bytes()
  paths[5].unlink()
  assert sample_audio.make_audio(tmp_path, **options) == paths
  assert paths[0].stat().st_mtime_ns == before
  assert paths[5].read_bytes() == content
  for name, value in (("seconds", 2.0), ("seed", 1), ("songs", 9)):
    with pytest.raises(errors.InputError, match=f"other settings .{name}: the"):
      sample_audio.make_audio(tmp_path, **options | {name: value})
  assert len(list(tmp_path.rglob("*.flac"))) == 8
  with pytest.raises(errors.InputError, match="--artists is 9"):
    sample_audio.make_audio(tmp_path, songs=8, artists=9)

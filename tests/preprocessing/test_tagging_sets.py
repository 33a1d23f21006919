"""Tests of preprocessing.tagging_sets: published sets become prepared ones."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pcl_jax.audio import decode as audio_file
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from preprocessing import tagging_sets
from preprocessing.library import decoding
from preprocessing.tagging import gtzan
from preprocessing.tagging import preparation
from preprocessing.tagging import tagging_coverage
from preprocessing.tagging import tagging_store
from tests.support.tiny import tiny_tagging

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def gtzan_sized(monkeypatch):
  """Takes 30 clips for the published number."""
  monkeypatch.setattr(gtzan, "PUBLISHED", 30)


@pytest.fixture
def small_shards(monkeypatch):
  """Four clips a shard, so that a tiny set has several."""
  monkeypatch.setattr(tagging_store, "SHARD_CLIPS", 4)


def _prepare(folder, name="out", **how):
  lists, audio = folder / "lists", folder / "audio"
  clip_list = preparation.read_lists("gtzan", lists)
  return preparation.prepare(clip_list, audio, folder / name, **how)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """The files of a set that was prepared at one go, four clips a shard."""
  folder = tmp_path_factory.mktemp("whole")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(gtzan, "PUBLISHED", 30)
    patch.setattr(tagging_store, "SHARD_CLIPS", 4)
    tiny_tagging.make_gtzan(folder)
    _prepare(folder, threads=1)
  return tiny_tagging.contents(folder / "out")


def _count_decoding(monkeypatch, stop_at: int = 0) -> list:
  """Returns a list that grows by an entry a file; interrupts at one of them."""
  calls, decode = [], decoding.decode

  def counting(*args):
    calls.append(args)
    if len(calls) == stop_at:
      raise KeyboardInterrupt
    return decode(*args)

  monkeypatch.setattr(decoding, "decode", counting)
  return calls


def test_an_interrupted_preparation_goes_on_and_ends_in_the_same_bytes(
  tmp_path, whole, gtzan_sized, small_shards, monkeypatch
):
  tiny_tagging.make_gtzan(tmp_path)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    _count_decoding(patch, stop_at=14)
    _prepare(tmp_path, threads=1)
  assert not (tmp_path / "out").exists()
  calls = _count_decoding(monkeypatch)
  _prepare(tmp_path, threads=1)
  assert 0 < len(calls) < 30
  assert tiny_tagging.contents(tmp_path / "out") == whole


# TensorFlow is made impossible to import, in a process of its own.
_READ_ALONE = """
import sys

class Without:
  def __init__(self, finder):
    self.finder = finder
  def __getattr__(self, name):
    return getattr(self.finder, name)
  def find_spec(self, name, *rest):
    if name.partition(".")[0] != "tensorflow":
      return self.finder.find_spec(name, *rest)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import numpy as np
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
sources = builder.as_data_source()
found = {}
for split, source in sources.items():
  for record in source:
    name = record["id"].decode()
    found[f"{split}/{name}/mel"] = record["mel"]
    found[f"{split}/{name}/tags"] = np.array(record["tags"])
names = builder.info.features["tags"].feature.names
np.savez(sys.argv[2], names=names, **found)
try:
  import tensorflow
except ModuleNotFoundError:
  sys.exit(0)
sys.exit(1)
"""


def _report(folder):
  return json.loads((folder / tagging_coverage.FILE).read_text())


def test_a_set_is_read_back_without_tensorflow_bit_by_bit(
  tmp_path, gtzan_sized, small_shards
):
  lists, audio = tiny_tagging.make_gtzan(tmp_path)
  long = tiny_tagging.write_clip(
    audio / "genres" / "rock" / "rock.00002.wav", seconds=9
  )
  report = _prepare(tmp_path)
  assert report["name"] == "gtzan-filtered" and not report["partial"]
  metadata = tfds.builder_from_directory(tmp_path / "out").info.metadata
  assert metadata["feature"] == melspectrogram.SETTINGS.as_dict()
  assert metadata["tags"] == list(gtzan.GENRES)
  assert not (tmp_path / "out.partial").exists()
  saved = tmp_path / "read.npz"
  subprocess.run(
    [sys.executable, "-c", _READ_ALONE, tmp_path / "out", saved], check=True
  )
  found = np.load(saved)
  assert found["names"].tolist() == list(gtzan.GENRES)
  expected = 0
  for split, name in zip(
    ("train", "validation", "test"), gtzan.FILES.values(), strict=True
  ):
    for line in (lists / name).read_text().split():
      clip = line[line.index("/") + 1 : -4]
      feature = audio_file.read_feature(audio / "genres" / line)
      mel = found[f"{split}/{clip}/mel"]
      assert mel.dtype == np.float16
      np.testing.assert_array_equal(mel, feature)
      genre = gtzan.GENRES.index(line.partition("/")[0])
      assert found[f"{split}/{clip}/tags"].tolist() == [genre]
      expected += 1
  assert len(found.files) == 2 * expected + 1 == 61
  assert len(found["test/rock.00002/mel"]) > 2 * 256 and long.exists()


def test_two_preparations_are_the_same_bytes_whatever_the_threads(
  tmp_path, whole, gtzan_sized, small_shards
):
  tiny_tagging.make_gtzan(tmp_path)
  _prepare(tmp_path, threads=5)
  assert tiny_tagging.contents(tmp_path / "out") == whole


@pytest.mark.long  # The short form is interrupted, not killed.
def test_a_killed_preparation_goes_on_and_ends_in_the_same_bytes(
  tmp_path, whole, gtzan_sized, small_shards, monkeypatch
):
  tiny_tagging.make_gtzan(tmp_path)
  program = f"""
import os, pathlib, signal
from preprocessing.library import decoding
from preprocessing.tagging import gtzan, preparation, tagging_store
gtzan.PUBLISHED, tagging_store.SHARD_CLIPS = 30, 4
done, decode = [], decoding.decode
def decode_some(*args):
  done.append(args)
  if len(done) == 14:
    os.kill(os.getpid(), signal.SIGKILL)
  return decode(*args)
decoding.decode = decode_some
folder = pathlib.Path({str(tmp_path)!r})
clips = preparation.read_lists("gtzan", folder / "lists")
preparation.prepare(clips, folder / "audio", folder / "out", threads=1)
"""
  killed = subprocess.run(
    [sys.executable, "-c", program], cwd=ROOT, capture_output=True
  )
  assert killed.returncode == -9 and not (tmp_path / "out").exists()
  calls = _count_decoding(monkeypatch)
  _prepare(tmp_path, threads=1)
  assert 0 < len(calls) < 30
  assert tiny_tagging.contents(tmp_path / "out") == whole


@pytest.mark.parametrize(
  "where",
  [
    "finish",
    "rename",
    pytest.param("tidy", marks=pytest.mark.long),
  ],
)
def test_a_preparation_stopped_at_its_end_is_completed(
  tmp_path, whole, gtzan_sized, small_shards, monkeypatch, where
):
  tiny_tagging.make_gtzan(tmp_path)
  replace = preparation._replace

  def interrupt(*arguments, **_):
    if where == "tidy":
      replace(*arguments)
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    if where == "finish":
      patch.setattr(tfds.folder_dataset, "write_metadata", interrupt)
    else:
      patch.setattr(preparation, "_replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
      _prepare(tmp_path)
  _prepare(tmp_path)
  assert tiny_tagging.contents(tmp_path / "out") == whole
  assert not (tmp_path / "out.partial").exists()


def test_missing_clips_are_named_and_refused_then_allowed_by_name(
  tmp_path, gtzan_sized, small_shards
):
  _, audio = tiny_tagging.make_gtzan(tmp_path)
  gone = sorted((audio / "genres").rglob("*.00001.wav"))[:8]
  for path in gone:
    path.unlink()
  (audio / "genres" / "rock" / "rock.00077.wav").write_bytes(b"")
  with pytest.raises(errors.InputError) as caught:
    _prepare(tmp_path)
  message = str(caught.value)
  assert "partial (22 of 30 clips)" in message and "--allow_partial" in message
  assert "blues/blues.00001.wav" in message and "3 more" in message
  listed = _report(tmp_path / "out.partial")["missing"]
  assert list(listed) == [path.stem for path in gone]
  assert not (tmp_path / "out").exists()
  report = _prepare(tmp_path, allow_partial=True)
  assert report["name"] == "gtzan-filtered partial (22 of 30 clips)"
  assert report["splits"] == {"train": 10, "validation": 2, "test": 10}
  assert report["audio_without_labels"] == ["genres/rock/rock.00077.wav"]
  assert report["tags_without_clips"] == {
    "validation": [path.parent.name for path in gone]
  }
  words = tagging_coverage.summary(report, tmp_path / "out")
  assert "partial (22 of 30 clips)" in words and "missing: 8" in words
  assert "tags without a clip in validation" in words
  metadata = tfds.builder_from_directory(tmp_path / "out").info.metadata
  assert metadata["name"] == report["name"]
  assert metadata["left_out"] == {"missing": 8}


def test_corrupt_clips_are_found_when_decoded_and_read_once_mended(
  tmp_path, whole, gtzan_sized, small_shards
):
  _, audio = tiny_tagging.make_gtzan(tmp_path)
  path = audio / "genres" / "pop" / "pop.00000.wav"
  content = path.read_bytes()
  path.write_bytes(b"no audio at all")
  with pytest.raises(errors.InputError, match="1 cannot be read") as caught:
    _prepare(tmp_path)
  assert "pop.00000.wav: it cannot be opened" in str(caught.value)
  path.write_bytes(content)
  report = _prepare(tmp_path)
  assert not report["partial"] and report["clips"] == 30
  assert tiny_tagging.contents(tmp_path / "out") == whole


def test_clips_added_between_two_runs_are_taken_in(
  tmp_path, whole, gtzan_sized, small_shards, monkeypatch
):
  _, audio = tiny_tagging.make_gtzan(tmp_path)
  path = audio / "genres" / "pop" / "pop.00000.wav"
  content = path.read_bytes()
  path.unlink()
  with monkeypatch.context() as patch:
    patch.setattr(tagging_store.Writer, "finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      _prepare(tmp_path, allow_partial=True)
  path.write_bytes(content)
  _prepare(tmp_path)
  assert tiny_tagging.contents(tmp_path / "out") == whole


@pytest.mark.parametrize("how", ["absent", "broken"])
def test_the_known_broken_file_of_gtzan_is_tolerated_and_reported(
  tmp_path, monkeypatch, how
):
  lists, audio = tiny_tagging.make_gtzan(tmp_path)
  path = lists / "train_filtered.txt"
  path.write_text(path.read_text() + "jazz/jazz.00054.wav\n")
  monkeypatch.setattr(gtzan, "PUBLISHED", 31)
  if how == "broken":
    (audio / "genres" / "jazz" / "jazz.00054.wav").write_bytes(b"broken")
  report = _prepare(tmp_path)
  assert report["name"] == "gtzan-filtered" and not report["partial"]
  assert report["clips"] == 30
  assert report["known_to_be_damaged"] == ["jazz.00054"]
  words = tagging_coverage.summary(report, tmp_path / "out")
  assert "known to be damaged in public copies" in words


def test_a_split_without_any_clip_is_refused_even_if_partial_is_allowed(
  tmp_path, gtzan_sized
):
  _, audio = tiny_tagging.make_gtzan(tmp_path)
  for path in (audio / "genres").rglob("*.00002.wav"):
    path.write_bytes(b"broken")
  with pytest.raises(errors.InputError, match="no clip of the split test"):
    _prepare(tmp_path, allow_partial=True)


def test_a_finished_set_is_left_alone_and_made_anew_when_forced(
  tmp_path, gtzan_sized, capsys
):
  tiny_tagging.make_gtzan(tmp_path)
  report = _prepare(tmp_path)
  stamp = os.stat(tmp_path / "out" / "features.json").st_mtime_ns
  assert _prepare(tmp_path) == report
  assert "nothing to do" in capsys.readouterr().out
  assert os.stat(tmp_path / "out" / "features.json").st_mtime_ns == stamp
  before = tiny_tagging.contents(tmp_path / "out")
  assert _prepare(tmp_path, force=True) == report
  assert os.stat(tmp_path / "out" / "features.json").st_mtime_ns != stamp
  assert tiny_tagging.contents(tmp_path / "out") == before


def test_sets_of_other_lists_or_folders_are_not_mixed(
  tmp_path, gtzan_sized, monkeypatch
):
  lists, _ = tiny_tagging.make_gtzan(tmp_path)
  _prepare(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(tagging_store.Writer, "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      _prepare(tmp_path, "begun")
  path = lists / "train_filtered.txt"
  path.write_text(path.read_text().replace("rock/rock.00000.wav\n", ""))
  with pytest.raises(errors.InputError, match="made of other lists"):
    _prepare(tmp_path, allow_partial=True)
  with pytest.raises(errors.InputError, match="not to be mixed"):
    _prepare(tmp_path, "begun", allow_partial=True)
  (tmp_path / "music" / "a").mkdir(parents=True)
  for force in (False, True):
    with pytest.raises(errors.InputError, match="is no tagging set"):
      _prepare(tmp_path, "music", allow_partial=True, force=force)
  assert (tmp_path / "music" / "a").exists()
  report = _prepare(tmp_path, allow_partial=True, force=True)
  assert report["name"] == "gtzan-filtered partial (29 of 30 clips)"


def test_a_folder_without_the_clips_is_refused(tmp_path):
  lists = tiny_tagging.make_gtzan_lists(tmp_path / "lists")
  clip_list = preparation.read_lists("gtzan", lists)
  with pytest.raises(errors.InputError, match="is not a folder"):
    tagging_coverage.cover(tmp_path / "none", clip_list)
  tiny_tagging.write_clip(tmp_path / "music" / "a" / "b.wav")
  with pytest.raises(errors.InputError, match="found 1 other audio files"):
    tagging_coverage.cover(tmp_path / "music", clip_list)


def test_lists_that_are_shorter_than_the_published_make_a_partial_set(
  tmp_path,
):
  tiny_tagging.make_gtzan(tmp_path)
  with pytest.raises(errors.InputError, match="which have 930 clips"):
    _prepare(tmp_path)


def test_the_command_reports_and_its_errors_are_one_message(
  tmp_path, gtzan_sized, capsys
):
  tiny_tagging.make_gtzan(tmp_path)
  flags = ["--set=gtzan", f"--source={tmp_path / 'audio'}"]
  flags += [f"--lists={tmp_path / 'lists'}", f"--out={tmp_path / 'out'}"]
  tagging_sets.main(flags)
  assert (
    "30 clips (10 train, 10 validation, 10 test)" in capsys.readouterr().out
  )
  with pytest.raises(SystemExit) as caught:
    errors.run_command(lambda: tagging_sets.main([*flags, "--split=21k"]))
  assert caught.value.code == 2
  assert capsys.readouterr().err.startswith("error: --split=21k means nothing")

"""Tests of pcl_jax.common.storage."""

import hashlib
import os

import pytest

from pcl_jax.common import errors
from pcl_jax.common import storage
from tests.support import full_disk


def test_a_file_appears_only_once_it_is_whole(tmp_path):
  path = tmp_path / "a.txt"
  with storage.write_aside(path, durable=True) as partial:
    partial.write_text("whole")
    assert not path.exists()
  assert path.read_text() == "whole"
  assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
  path = tmp_path / "a.json"
  storage.write_json(path, {"a": 1})
  with pytest.raises(ValueError, match="JSON compliant"):
    storage.write_json(path, {"a": float("nan")})
  with pytest.raises(KeyboardInterrupt):
    with storage.write_aside(path) as partial:
      partial.write_text("half")
      raise KeyboardInterrupt
  assert storage.read_json(path) == {"a": 1}
  assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_an_error_of_writing_names_the_file(tmp_path):
  path = tmp_path / "a.txt"
  with full_disk.at(4096), pytest.raises(OSError) as caught:
    storage.write_text(path, "x" * 5000)
  assert caught.value.filename == str(path)
  with pytest.raises(FileNotFoundError) as caught:
    with storage.write_aside(path):
      (tmp_path / "other").read_text()
  assert caught.value.filename == str(tmp_path / "other")
  assert not list(tmp_path.iterdir())


def test_file_names_of_any_bytes_come_back(tmp_path):
  name = os.fsdecode(b"caf\xe9 \xc3\xa9.mp3")
  storage.write_json(tmp_path / "names.json", [name])
  assert storage.read_json(tmp_path / "names.json") == [name]


def test_the_digest_is_that_of_the_bytes(tmp_path):
  (tmp_path / "a").write_bytes(b"bytes")
  digest = storage.sha256(tmp_path / "a")
  assert digest == hashlib.sha256(b"bytes").hexdigest()


def test_each_setting_that_differs_is_told_with_both_values():
  told = storage.differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 4})
  assert told == ["b: there 2, here 4", "c: there 3, here None"]


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path):
  free = tmp_path / "new" / "out.json"
  storage.check_writable(free, "give another --out")
  assert list(tmp_path.rglob("*")) == [free.parent]  # And no file.
  free.write_text("old")
  storage.check_writable(free, "give another --out")
  assert free.read_text() == "old"
  with pytest.raises(errors.InputError, match="new is a folder, not a file: g"):
    storage.check_writable(free.parent, "give another --out")
  with pytest.raises(errors.InputError, match="cannot be written .*: give an"):
    storage.check_writable(free / "below.json", "give another --out")

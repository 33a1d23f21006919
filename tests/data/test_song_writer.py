"""Tests of song_writer: stores that cannot be begun, or gone on with."""

import lmdb
import pytest

from pcl_jax.common import errors
from pcl_jax.data import song_writer


def test_a_damaged_partial_store_is_to_be_deleted(tmp_path):
  partial = tmp_path / "s.partial"
  partial.mkdir()
  (partial / "data.mdb").write_bytes(b"x" * 8192)
  with pytest.raises(errors.InputError, match=f"bytes free.*delete {partial},"):
    song_writer.SongWriter(tmp_path / "s")


def test_a_store_that_cannot_be_begun_says_how_much_room_there_is(
  tmp_path, monkeypatch
):
  def full_disk(*_, **__):
    raise lmdb.Error(f"{tmp_path}: No space left on device")

  monkeypatch.setattr(lmdb, "open", full_disk)
  with pytest.raises(errors.InputError, match="No space left.*free") as caught:
    song_writer.SongWriter(tmp_path / "s")
  assert "delete" not in str(caught.value)


def test_a_store_that_another_user_began_is_not_called_damaged(
  tmp_path, monkeypatch
):
  partial = tmp_path / "s.partial"
  partial.mkdir()
  (partial / "data.mdb").write_bytes(b"x" * 8192)

  def denied(*_, **__):
    raise lmdb.ReadonlyError(f"{partial}: Permission denied")

  monkeypatch.setattr(lmdb, "open", denied)
  with pytest.raises(errors.InputError, match="as the user who") as caught:
    song_writer.SongWriter(tmp_path / "s")
  assert "delete" not in str(caught.value)

"""Tests of preprocessing.melon.exclusion."""

import numpy as np
import pytest

from pcl_jax.common import errors
from preprocessing.melon import exclusion

IDS = np.array([3, 999, 1000, 225_000, 225_999, 226_000, 277_123])


def test_published_and_numbered_folders_are_all_their_songs():
  published = exclusion.excluded_songs(["published"], IDS)
  assert set(published) == {225_000, 225_999, 277_123}
  assert set(published.values()) == {"published"}
  assert set(exclusion.excluded_songs(["0,226"], IDS)) == {
    3,
    999,
    226_000,
  }


def test_a_file_of_ids_and_folders_add_up(tmp_path, capsys):
  path = tmp_path / "ids.txt"
  path.write_text("1000\n\n 3 \r\n77\n1000\n5000\n")
  found = exclusion.excluded_songs([str(path), "226,500", "0"], IDS)
  assert set(found) == {3, 999, 1000, 226_000}
  assert found[3] == "ids.txt"  # No path of this machine.
  out = capsys.readouterr().out
  assert "2 of 4 ids have no song in the metadata (77, 5000)" in out
  assert "1 of 2 folders have no song in the metadata (500)" in out


@pytest.mark.parametrize(
  "line", ["abc", "-1", "1,2", "1.0", "4294967296", "٣", "1 2", "9" * 5000]
)
def test_a_bad_line_is_refused_with_its_number(tmp_path, line):
  path = tmp_path / "ids.txt"
  path.write_text(f"1000\n\n{line}\n5\n", encoding="utf-8")
  with pytest.raises(errors.InputError, match="ids.txt, line 3: ") as caught:
    exclusion.excluded_songs([str(path)], IDS)
  assert len(str(caught.value)) < 500


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="--exclude=.*no.txt cannot"):
    exclusion.excluded_songs([str(tmp_path / "no.txt")], IDS)
  (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
  with pytest.raises(errors.InputError, match="cannot be read as a text"):
    exclusion.excluded_songs([str(tmp_path / "binary")], IDS)

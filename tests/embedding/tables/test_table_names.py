"""Tests of pcl_jax.embedding.tables.table_names."""

import os

import pytest

from pcl_jax.embedding.tables import table_names
from tests.support.tiny import tiny_table

ODD = os.fsdecode(b"caf\xe9.mp3")


@pytest.mark.parametrize("names", [(), (ODD, "two\nlines.mp3", "🎵.mp3")])
def test_names_are_found_as_in_a_list_of_them(tmp_path, names):
  table = tiny_table.write(tmp_path / "a.parquet", songs=6, names=names)
  expected = [*names, *(f"{i}.mp3" for i in range(len(names), 6))]
  found = table.ids
  for row, name in enumerate(expected):  # Before all of them are strings.
    assert found[row] == name and found.find(name) == row
    assert table_names.find(table.paths, f"/music/{name}") == row
  for absent in ("7.mp3", r"caf\xe9.mp3", "", os.fsdecode(b"\xff")):
    assert table_names.find(found, absent) is None
  assert found == expected and [*found] == expected and len(found) == 6
  assert found[-1] == expected[-1] and found[2:4] == expected[2:4]
  assert expected[3] in found and found.index(expected[3]) == 3
  with pytest.raises(IndexError):
    found[6]
  assert table_names.find(expected, expected[2]) == 2

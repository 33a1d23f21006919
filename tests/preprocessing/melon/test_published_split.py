"""Tests of melon.published_split: reading pickles without running."""

import os
import pickle
import pickletools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import song_writer
from preprocessing import data_split
from preprocessing.melon import published_split
from tests.support.tiny import tiny_melon

PARTS = ([0, 4, 5, 70_000, 300_000], [7, 9], [11, 12])


def _write(path, value, protocol=2):
  path.write_bytes(pickle.dumps(value, protocol=protocol))
  return path


@pytest.mark.parametrize("protocol", range(6))
def test_a_split_is_what_pickle_makes_of_it(tmp_path, protocol):
  path = _write(tmp_path / "split.pkl", PARTS, protocol)
  found = published_split.read_split(path)
  assert [part.tolist() for part in found] == list(PARTS)


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("kind", ["<i8", ">i8", "<u4", "i1"])
def test_pairs_of_numpy_integers_are_what_pickle_makes_of_them(
  tmp_path, protocol, kind
):
  dtype = np.dtype(kind)
  pairs = [(dtype.type(7), dtype.type(9)), (dtype.type(100), dtype.type(3))]
  path = _write(tmp_path / "pairs.pkl", pairs, protocol)
  assert published_split.read_pairs(path).tolist() == [[7, 9], [100, 3]]


def test_bytes_of_the_other_order_are_read_so(tmp_path):
  written = pickle.dumps([(np.int32(1), np.int32(258))], protocol=3)
  for number in (1, 258):  # C 4 begins four bytes.
    little = b"C\x04" + number.to_bytes(4, "little")
    assert written.count(little) == 1
    written = written.replace(little, b"C\x04" + number.to_bytes(4, "big"))
  assert written.count(b"<") == 1
  path = tmp_path / "pairs.pkl"
  path.write_bytes(written.replace(b"<", b">"))
  assert published_split.read_pairs(path).tolist() == [[1, 258]]


class _Harm:
  """Runs a command where a pickle of it is executed."""

  def __init__(self, function, *arguments):
    self._call = function, arguments

  def __reduce__(self):
    return self._call


@pytest.mark.parametrize(
  "function", [os.mkdir, open, eval, np.fromfile, np.load, getattr, list]
)
def test_a_hostile_pickle_is_refused_and_not_executed(tmp_path, function):
  target = tmp_path / "harm"
  argument = (
    f"__import__('os').mkdir({str(target)!r})" if function is eval else target
  )
  arguments = [str(argument)] + (["x"] if function is getattr else [])
  for value in (_Harm(function, *arguments), (_Harm(function, *arguments), 1)):
    for protocol in (0, 2, 4):
      path = _write(tmp_path / "split.pkl", value, protocol)
      for read in (published_split.read_split, published_split.read_pairs):
        with pytest.raises(errors.InputError, match="cannot be read.*asks for"):
          read(path)
  assert not target.exists()


@pytest.mark.parametrize(
  "stolen",
  [
    np.float64(1.0),
    np.dtype("O"),
    np.array([1, 2]),
    np.datetime64("2020-01-01"),
  ],
)
def test_other_things_of_numpy_are_refused(tmp_path, stolen):
  path = _write(tmp_path / "split.pkl", ([1], [2], [stolen]))
  with pytest.raises(errors.InputError, match="split.pkl"):
    published_split.read_split(path)


@pytest.mark.parametrize(
  "value, said",
  [
    ([[1], [2]], "three lists"),
    ({"train": [1]}, "three lists"),
    (7, "three lists"),
    (([1], [2], [3.0]), "test songs must be a list of song ids"),
    (([1], [-2], [3]), "validation songs must be"),
    (([1], [2**32], [3]), "validation songs must be"),
    (([True], [2], [3]), "train songs must be"),
    (("abc", [2], [3]), "train songs must be"),
    (([1, 5], [2, 5], [3]), "names 1 songs more than once .first: 5"),
  ],
)
def test_a_split_of_another_form_is_refused(tmp_path, value, said):
  with pytest.raises(errors.InputError, match=said):
    published_split.read_split(_write(tmp_path / "s.pkl", value))


@pytest.mark.parametrize(
  "value, said",
  [
    ([(1, 2), (3,)], "list of pairs"),
    ([[1, 2], 3], "list of pairs"),
    ([(1, "2")], "each pair must be"),
    (None, "list of pairs"),
  ],
)
def test_pairs_of_another_form_are_refused(tmp_path, value, said):
  with pytest.raises(errors.InputError, match=said):
    published_split.read_pairs(_write(tmp_path / "p.pkl", value))


def test_an_absent_file_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="none.pkl"):
    published_split.read_split(tmp_path / "none.pkl")


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\xff", b"p4294967295\n"])
def test_a_place_in_the_memo_that_would_fill_the_machine_is_refused(
  tmp_path, put
):
  path = tmp_path / "split.pkl"
  path.write_bytes(b"]" + put + b".")
  with pytest.raises(errors.InputError, match="place 4294967295 of the memo"):
    published_split.read_split(path)


def _opcodes() -> list[bytes]:
  return [one.code.encode("latin-1") for one in pickletools.opcodes]


@settings(max_examples=100, deadline=None)
@given(
  parts=st.lists(
    st.one_of(
      st.sampled_from(_opcodes()),
      st.binary(max_size=6),
      st.sampled_from([b"cnumpy\ndtype\n", b"cposix\nsystem\n", b"\xff" * 8]),
    ),
    max_size=20,
  ),
  cut=st.integers(0, 200),
)
def test_no_bytes_do_more_than_be_refused(tmp_path_factory, parts, cut):
  whole = pickle.dumps((PARTS, np.int64(3)), protocol=2)
  path = tmp_path_factory.getbasetemp() / "fuzz.pkl"
  for content in (b"".join(parts), whole[:cut] + b"".join(parts) + whole[cut:]):
    path.write_bytes(content)
    for read in (published_split.read_split, published_split.read_pairs):
      try:
        read(path)
      except errors.InputError as error:
        assert "fuzz.pkl" in str(error)


def test_what_of_a_split_is_there_is_used_and_the_rest_is_counted(tmp_path):
  ids = np.array([4, 5, 6, 7, 12, 300_000], np.uint32)
  parts = [np.array(part) for part in PARTS]
  split, counts = published_split.assign(ids, parts, tmp_path / "split.pkl")
  assert split.tolist() == [0, 0, catalogues.NO_SPLIT, 1, 2, 0]
  assert counts == {
    "file": "split.pkl",
    "train": {"listed": 5, "without_audio": 2},
    "validation": {"listed": 2, "without_audio": 1},
    "test": {"listed": 2, "without_audio": 1},
    "in_no_part": 1,
  }


def test_a_split_of_which_a_part_would_be_empty_is_refused(tmp_path):
  parts = [np.array(part) for part in PARTS]
  with pytest.raises(errors.InputError, match="2 test songs.*none of them"):
    published_split.assign(
      np.array([0, 4, 7], np.uint32), parts, tmp_path / "split.pkl"
    )


def test_pairs_keep_their_order_and_those_without_audio_are_counted(tmp_path):
  ids = np.array([3, 5, 8, 9], np.uint32)
  split = np.full(4, catalogues.VALIDATION, np.int8)
  rows, counts = published_split.validation_rows(
    ids, split, np.array([[8, 3], [5, 7], [9, 5]]), tmp_path / "p.pkl"
  )
  assert rows.tolist() == [[2, 0], [3, 1]]
  assert counts == {"file": "p.pkl", "listed": 3, "without_audio": 1}


def test_pairs_of_another_split_are_refused(tmp_path):
  ids = np.array([3, 5], np.uint32)
  with pytest.raises(errors.InputError, match="not validation songs.*first: 5"):
    published_split.validation_rows(
      ids, np.array([1, 0], np.int8), np.array([[3, 5]]), tmp_path / "p.pkl"
    )


def test_the_published_files_are_read(shared_dir):
  parts = published_split.read_split(shared_dir / "melon" / "split_ids.pkl")
  assert [len(part) for part in parts] == [515_622, 64_453, 64_453]
  pairs = published_split.read_pairs(shared_dir / "melon" / "val_pairs.pkl")
  assert pairs.shape == (26_341, 2)
  ids = np.sort(np.concatenate(parts)).astype(np.uint32)
  # A tenth of the songs is not there; some are there that the split lacks.
  there = np.union1d(ids[np.arange(len(ids)) % 10 > 0], [1, 2, 3])
  split, found = published_split.assign(
    there.astype(np.uint32), parts, shared_dir / "split_ids.pkl"
  )
  counted = [
    int((split == part).sum()) + found[name]["without_audio"]
    for part, name in enumerate(catalogues.SPLIT_NAMES)
  ]
  assert counted == [515_622, 64_453, 64_453]
  rows, counts = published_split.validation_rows(
    there.astype(np.uint32), split, pairs, shared_dir / "val_pairs.pkl"
  )
  assert len(rows) + counts["without_audio"] == 26_341
  assert (there[rows[0]] == pairs[np.isin(pairs, there).all(axis=1)][0]).all()


@pytest.fixture
def prepared(tmp_path):
  """Metadata of twenty songs, and a store of eighteen of them."""
  tiny_melon.write_meta(
    tmp_path / "kakao_meta",
    [tiny_melon.song(i) for i in range(20)],
    train=[tiny_melon.playlist(7, list(range(20)))],
  )
  writer = song_writer.SongWriter(tmp_path / "songs.lmdb")
  writer.add((i, np.zeros((2, 48), np.float16)) for i in range(18))
  writer.finish({})
  parts = (list(range(9)), [9, 10, 11, 12, 19], [13, 14, 18])
  _write(tmp_path / "split.pkl", parts)
  _write(tmp_path / "pairs.pkl", [(12, 9), (10, 19), (11, 10)])
  return tmp_path


def _command(folder, *more):
  return [
    f"--melon_dir={folder}",
    f"--data={folder}",
    f"--split_from={folder / 'split.pkl'}",
    *more,
  ]


def test_the_command_uses_what_is_given_and_says_what_is_not_there(
  prepared, capsys
):
  pairs = f"--val_pairs_from={prepared / 'pairs.pkl'}"
  data_split.main(_command(prepared, pairs))
  made = catalogues.load(prepared)
  assert made.split.tolist() == [0] * 9 + [1] * 4 + [2] * 2 + [-1] * 3
  assert made.validation_pairs["Playlist"].tolist() == [[12, 9], [11, 10]]
  assert len(made.validation_pairs["Genre"]) > 0
  assert made.learned.tolist() == [True] * 13 + [False] * 5
  said = capsys.readouterr().out
  assert "split.pkl lists 9 train (0 of them without audio), 5 valid" in said
  assert "3 songs of the song store are in none of its parts" in said
  assert "pairs.pkl lists 3 pairs, 1 of them without audio" in said
  data_split.main(_command(prepared, pairs))
  assert "exists already: nothing to do" in capsys.readouterr().out


def test_another_file_is_another_split(prepared):
  data_split.main(_command(prepared))
  _write(prepared / "split.pkl", ([0, 1], [2], [3]))
  with pytest.raises(errors.InputError, match="split_from_sha256.*--force"):
    data_split.main(_command(prepared))
  data_split.main(_command(prepared, "--force"))
  assert (catalogues.load(prepared).split == catalogues.NO_SPLIT).sum() == 14


def test_shares_beside_a_given_split_are_refused(prepared, capsys):
  with pytest.raises(SystemExit):
    data_split.main(_command(prepared, "--test_share=0.2"))
  assert "leave out ['test_share']" in capsys.readouterr().err


def test_a_given_file_that_is_absent_is_refused(prepared):
  (prepared / "split.pkl").unlink()
  with pytest.raises(errors.InputError, match="--split_from=.*cannot be read"):
    data_split.main(_command(prepared))
  assert not (prepared / "catalogue.npz").exists()


def test_vectors_of_a_replaced_split_are_set_aside_and_said(prepared, capsys):
  """They have seen songs that are test songs now."""
  data_split.main(_command(prepared))
  (prepared / "playlist_vectors.npy").write_bytes(b"old")
  _write(prepared / "split.pkl", (list(range(8)), [9, 10], [13, 14]))
  data_split.main(_command(prepared, "--force"))
  assert not (prepared / "playlist_vectors.npy").exists()
  kept = prepared / "playlist_vectors.npy.replaced"
  assert kept.read_bytes() == b"old"
  said = capsys.readouterr().out
  assert "preprocessing.playlist_vectors --data=" in said

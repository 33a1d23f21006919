"""Whatever the published tagging sets' lists hold, it is read or refused."""

import collections
import pathlib
import tempfile

import hypothesis
from hypothesis import strategies as st

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from preprocessing.tagging import gtzan
from preprocessing.tagging import magnatagatune
from preprocessing.tagging import mtg_jamendo
from preprocessing.tagging import tagging_clips
from tests.support.tiny import tiny_tagging

_quick = hypothesis.settings(
  max_examples=20,
  deadline=None,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)

_PIECES = [
  b"TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\r\n",
  b"track_01\ta\tb\t01/1.mp3\t60.5\tinstrument---piano\r\n",
  b"track_02\ta\tb\t02/2.mp3\t1e400\tinstrument---\tx",
  b'"clip_id"\t"tag"\t"mp3_path"\n',
  b'"2"\t"1"\t"f/a.mp3"\n',
  b"blues/blues.00001.wav\r\n",
  b"\xef\xbb\xbf",
  b"\xff\xfe\0",
  b'"',
  b"\t\t\t\t\t\t",
  b"\r",
  b"\0\n",
  "é\u2028\u0661".encode(),
  b"9" * 200_000,
]
_content = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=30)).map(
  b"".join
)


def _is_sound(clip_list):
  ids = [clip.id for clip in clip_list.clips]
  counts = collections.Counter(clip.split for clip in clip_list.clips)
  assert len(set(ids)) == len(ids) and set(counts) == set(tagging_clips.SPLITS)
  for clip in clip_list.clips:
    assert clip.split in (
      catalogues.TRAIN,
      catalogues.VALIDATION,
      catalogues.TEST,
    )
    assert all(0 <= label < len(clip_list.tags) for label in clip.labels)


@_quick
@hypothesis.given(_content, st.integers(0, 2), st.booleans())
def test_whatever_lists_hold_they_are_read_or_refused_in_words(
  content, which, behind
):
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    lists = tiny_tagging.make_gtzan_lists(root / "gtzan")
    tiny_tagging.write_jamendo(root, tiny_tagging.jamendo_rows())
    tiny_tagging.write_mtat(root, tiny_tagging.mtat_rows())
    (tsv,) = root.rglob("*instrument-train.tsv")
    path, read = [
      (lists / "train_filtered.txt", lambda: gtzan.read(lists)),
      (tsv, lambda: mtg_jamendo.read(root, "instrument", 0, "centre")),
      (root / magnatagatune.FILE, lambda: magnatagatune.read(root, "21k")),
    ][which]
    path.write_bytes((path.read_bytes() if behind else b"") + content)
    try:
      _is_sound(read())
    except errors.InputError as error:
      assert str(path.parent) in str(error)


@_quick
@hypothesis.given(
  st.integers(0, 2**32), st.lists(st.integers(0, 3), min_size=12, max_size=12)
)
def test_rows_are_read_as_they_were_written(seed, ends):
  line_ends = ["\n", "\r\n", "\r", " \r\n"]
  rows = tiny_tagging.jamendo_rows()
  every = [row for some in rows.values() for row in some]
  for row, number in zip(every, ends, strict=True):
    row[0], row[3] = f"track_{seed}{row[0][6:]}", f"{number}/{seed}{row[3][3:]}"
  with tempfile.TemporaryDirectory() as folder:
    lists = tiny_tagging.write_jamendo(
      pathlib.Path(folder), rows, end=line_ends[ends[0]]
    )
    found = mtg_jamendo.read(lists, "instrument", 0, "whole")
  assert [clip.id for clip in found.clips] == [row[0] for row in every]
  for clip, row in zip(found.clips, every, strict=True):
    assert [found.tags[i] for i in clip.labels] == sorted(row[5:])

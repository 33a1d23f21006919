"""Tests of the readers of the published tagging sets' lists."""

import collections
import re

import pytest

from pcl_jax.common import errors
from preprocessing.tagging import gtzan
from preprocessing.tagging import magnatagatune
from preprocessing.tagging import mtg_jamendo
from preprocessing.tagging import preparation
from preprocessing.tagging import tagging_clips
from tests.support.tiny import tiny_tagging


def _sizes(clip_list):
  counts = collections.Counter(clip.split for clip in clip_list.clips)
  return tuple(counts[split] for split in tagging_clips.SPLITS)


def _tags_of(clip_list, clip_id):
  (clip,) = (clip for clip in clip_list.clips if clip.id == clip_id)
  return [clip_list.tags[i] for i in clip.labels]


# ---- the real lists ----


def test_the_real_lists_of_moodtheme_have_56_tags_and_the_published_sizes(
  shared_dir,
):
  found = mtg_jamendo.read(shared_dir / "tagging", "moodtheme", 0, "whole")
  assert _sizes(found) == (9_949, 3_802, 4_231)
  assert len(found.tags) == 56 and found.published is None
  assert not any("\r" in tag for tag in found.tags)
  assert found.name == "mtg_jamendo-moodtheme-split0-whole"
  assert _tags_of(found, "track_1420850") == [
    "mood/theme---dramatic",
    "mood/theme---epic",
  ]


def test_the_real_lists_of_gtzan_have_930_clips_of_ten_genres(shared_dir):
  found = gtzan.read(shared_dir / "tagging")
  assert _sizes(found) == (443, 197, 290)
  assert found.published is None and found.single_label
  assert {label for clip in found.clips for label in clip.labels} == set(
    range(10)
  )
  assert "jazz.00054" in {clip.id for clip in found.clips}


def test_the_real_tag_names_of_magnatagatune_are_taken_in_their_order(
  shared_dir, tmp_path
):
  path = shared_dir / "tagging" / "mtat_top50_tags.txt"
  names = path.read_text().split("\n")[:50]
  rows = tiny_tagging.mtat_rows()
  rows[0] = ["clip_id", *sorted(names), *rows[0][51:]]
  lists = tiny_tagging.write_mtat(tmp_path, rows)
  found = magnatagatune.read(lists, "25k", path)
  assert list(found.tags) == names and names[0] == "guitar"


def test_a_wrong_subset_is_refused_by_the_category_of_its_tags(
  shared_dir, tmp_path
):
  for split in tagging_clips.SPLITS:
    name = mtg_jamendo.file_name("moodtheme", split)
    content = (shared_dir / "tagging" / name).read_bytes()
    (tmp_path / mtg_jamendo.file_name("genre", split)).write_bytes(content)
  with pytest.raises(errors.InputError, match="Is it a list of another subset"):
    mtg_jamendo.read(tmp_path, "genre", 0, "whole")


# ---- MTG-Jamendo ----


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n", "\t\r\n"])
def test_line_ends_do_not_change_what_is_read(tmp_path, end):
  rows = tiny_tagging.jamendo_rows()
  for name, how in (("a", "\r\n"), ("b", end)):
    tiny_tagging.write_jamendo(tmp_path / name, rows, end=how)
  expected = mtg_jamendo.read(tmp_path / "a", "instrument", 0, "whole")
  assert mtg_jamendo.read(tmp_path / "b", "instrument", 0, "whole") == expected
  assert len(expected.tags) == 40 and _sizes(expected) == (4, 4, 4)


@pytest.mark.parametrize("subset", mtg_jamendo.SUBSETS)
def test_each_subset_has_its_own_number_of_tags(tmp_path, subset):
  rows = tiny_tagging.jamendo_rows(subset)
  tiny_tagging.write_jamendo(tmp_path, rows, subset)
  found = mtg_jamendo.read(tmp_path, subset, 0, "whole")
  assert len(found.tags) == mtg_jamendo.SUBSETS[subset][1]
  for some in rows.values():
    some[0] = some[0][:5] + [
      "genre---other",
      "instrument---other",
      *some[0][5:],
    ]
    if subset not in ("top50", "genre"):
      some[0].remove("genre---other")
    if subset not in ("top50", "instrument"):
      some[0].remove("instrument---other")
    if subset == "moodtheme":
      some[0].append("mood/theme---other")
  tiny_tagging.write_jamendo(tmp_path, rows, subset)
  number = mtg_jamendo.SUBSETS[subset][1]
  with pytest.raises(errors.InputError, match=f"the subset has {number}"):
    mtg_jamendo.read(tmp_path, subset, 0, "whole")


def test_the_centre_is_the_middle_of_a_track_and_all_of_a_short_one(tmp_path):
  rows = tiny_tagging.jamendo_rows()
  rows["train"][0][4] = "100.0"
  rows["train"][1][4] = "29.0"
  tiny_tagging.write_jamendo(tmp_path, rows)
  found = mtg_jamendo.read(tmp_path, "instrument", 0, "centre")
  long, short = found.clips[:2]
  assert (long.from_s, long.to_s) == (35.45, 64.55)
  assert (short.from_s, short.to_s) == (0.0, None)
  assert found.name == "mtg_jamendo-instrument-split0-centre"
  whole = mtg_jamendo.read(tmp_path, "instrument", 0, "whole")
  assert all(clip.to_s is None for clip in whole.clips)
  assert whole.digest() != found.digest()


def test_lists_of_another_length_than_the_published_ones_are_known(tmp_path):
  tiny_tagging.write_jamendo(tmp_path, tiny_tagging.jamendo_rows())
  found = mtg_jamendo.read(tmp_path, "instrument", 0, "whole")
  assert found.published == 14_395 + 5_466 + 5_115


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda rows: rows["test"].append(rows["train"][0]), "is there twice"),
    (lambda rows: rows["test"].clear(), "no clip is in the split test"),
    (lambda rows: rows["train"][0].__setitem__(0, "948"), "look like"),
    (lambda rows: rows["train"][0].__setitem__(3, "../../948.mp3"), "like"),
    (lambda rows: rows["train"][0].__setitem__(4, "nan"), "look like"),
    (lambda rows: rows["train"].append(["track_1", "a"]), "the tags are"),
    (lambda rows: rows["train"][0].__delitem__(slice(5, None)), "at least one"),
    (lambda rows: rows["train"][0].append("piano"), "CATEGORY---TAG"),
    (lambda rows: rows["train"][0].append("instrument---"), "CATEGORY---TAG"),
    (lambda rows: rows["train"][0].append("instrument---new"), "41 different"),
  ],
)
def test_a_faulty_list_is_refused_in_words(tmp_path, change, message):
  rows = tiny_tagging.jamendo_rows()
  change(rows)
  tiny_tagging.write_jamendo(tmp_path, rows)
  with pytest.raises(errors.InputError, match=message):
    mtg_jamendo.read(tmp_path, "instrument", 0, "whole")


def test_missing_columns_and_missing_lists_are_said(tmp_path):
  tiny_tagging.write_jamendo(tmp_path, tiny_tagging.jamendo_rows())
  with pytest.raises(errors.InputError, match="no lists of genre, split 0"):
    mtg_jamendo.read(tmp_path, "genre", 0, "whole")
  with pytest.raises(errors.InputError, match="no lists of instrument, split"):
    mtg_jamendo.read(tmp_path, "instrument", 1, "whole")
  (path,) = tmp_path.rglob("*instrument-test.tsv")
  path.write_bytes(path.read_bytes().replace(b"\tDURATION", b"", 1))
  with pytest.raises(errors.InputError, match="the first line of a list"):
    mtg_jamendo.read(tmp_path, "instrument", 0, "whole")
  path.write_bytes(b"\xff\xfe\x00")
  with pytest.raises(errors.InputError, match="not text in UTF-8"):
    mtg_jamendo.read(tmp_path, "instrument", 0, "whole")
  path.write_bytes(b"\r\n\r\n")
  with pytest.raises(errors.InputError, match="is empty"):
    mtg_jamendo.read(tmp_path, "instrument", 0, "whole")


# ---- MagnaTagATune ----


def test_the_two_splits_of_magnatagatune_share_partition_and_tags(tmp_path):
  lists = tiny_tagging.write_mtat(tmp_path, tiny_tagging.mtat_rows())
  larger = magnatagatune.read(lists, "25k")
  smaller = magnatagatune.read(lists, "21k")
  assert _sizes(larger) == (36, 3, 9) and _sizes(smaller) == (24, 2, 6)
  assert (larger.name, smaller.name) == (
    "magnatagatune-25k",
    "magnatagatune-21k",
  )
  assert larger.tags == smaller.tags and set(smaller.clips) < set(larger.clips)
  assert all(clip.labels for clip in smaller.clips)
  assert {clip.path[0] for clip in larger.clips if clip.split == 1} == {"c"}
  assert {clip.path[0] for clip in larger.clips if clip.split == 2} == set(
    "def"
  )
  # 29.1 s have 1820 frames.
  assert (larger.min_frames, smaller.min_frames) == (0, 1821)
  assert (larger.published, smaller.published) == (25_860, 21_108)


def test_tags_are_the_50_most_frequent_ties_by_column(tmp_path):
  rows = tiny_tagging.mtat_rows()
  lists = tiny_tagging.write_mtat(tmp_path, rows)
  found = magnatagatune.read(lists, "25k")
  columns = list(zip(*rows, strict=True))[1:-1]
  counts = {column[0]: column.count("1") for column in columns}
  expected = sorted(counts, key=lambda tag: -counts[tag])[:50]
  assert list(found.tags) == expected and found.tags[0] == "tag 0"
  row = rows[8]
  has = {tag for tag, value in zip(rows[0], row, strict=True) if value == "1"}
  assert set(_tags_of(found, row[0])) == has & set(expected) and has


def test_the_three_bad_clips_are_left_out_and_counted(tmp_path):
  rows = tiny_tagging.mtat_rows()
  for row, bad in zip(rows[5:8], magnatagatune.BAD_CLIPS, strict=True):
    row[0] = bad
  lists = tiny_tagging.write_mtat(tmp_path, rows)
  found = magnatagatune.read(lists, "25k")
  ((reason, paths),) = found.excluded.items()
  assert "35644, 55753, 57881" in reason and len(paths) == 3
  assert len(found.clips) == 45
  assert not {clip.id for clip in found.clips} & set(magnatagatune.BAD_CLIPS)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda rows: rows[0].__setitem__(0, "id"), "has clip_id"),
    (lambda rows: rows[0].__setitem__(1, "tag 5"), "names 'tag 5' twice"),
    (lambda rows: [row.__delitem__(slice(1, 30)) for row in rows], "too short"),
    (lambda rows: rows[3].pop(), "the header has 62 columns"),
    (lambda rows: rows[3].__setitem__(4, "2"), "each tag is 0 or 1"),
    (lambda rows: rows[3].__setitem__(0, "x"), "look like 2"),
    (lambda rows: rows[3].__setitem__(-1, "g/a.mp3"), "look like 2"),
    (lambda rows: rows[3].__setitem__(-1, ""), "look like 2"),
    (lambda rows: rows[3].__setitem__(0, rows[4][0]), "is there twice"),
    (lambda rows: rows.__delitem__(slice(1, None)), "has no clip"),
    (lambda rows: rows.__delitem__(slice(37, None)), "split validation"),
  ],
)
def test_faulty_annotations_are_refused_in_words(tmp_path, change, message):
  rows = tiny_tagging.mtat_rows()
  change(rows)
  lists = tiny_tagging.write_mtat(tmp_path, rows)
  with pytest.raises(errors.InputError, match=message):
    magnatagatune.read(lists, "25k")


def test_a_list_of_other_tags_is_refused(tmp_path):
  lists = tiny_tagging.write_mtat(tmp_path, tiny_tagging.mtat_rows())
  path = tmp_path / "tags.txt"
  path.write_text("\n".join(["piano", *tiny_tagging.MTAT_TAGS[:49]]))
  with pytest.raises(errors.InputError, match="'piano' .1 in all"):
    magnatagatune.read(lists, "25k", path)
  path.write_text("\n".join(tiny_tagging.MTAT_TAGS[:49]))
  with pytest.raises(errors.InputError, match="49 lines"):
    magnatagatune.read(lists, "25k", path)
  with pytest.raises(errors.InputError, match="has no annotations_final.csv"):
    magnatagatune.read(tmp_path / "none", "25k")


# ---- GTZAN ----


def test_absent_lists_of_gtzan_are_named_with_where_they_are(tmp_path):
  with pytest.raises(errors.InputError, match="train_filtered.txt") as caught:
    gtzan.read(tmp_path)
  assert "dnn-mgr" in str(caught.value) and "--lists" in str(caught.value)


@pytest.mark.parametrize(
  "line", ["polka/polka.00001.wav", "blues/jazz.00001.wav", "blues.00001.wav"]
)
def test_a_line_that_is_no_clip_of_gtzan_is_refused(tmp_path, line):
  lists = tiny_tagging.make_gtzan_lists(tmp_path / "lists")
  path = lists / "test_filtered.txt"
  path.write_text(path.read_text() + line + "\r\n")
  with pytest.raises(errors.InputError, match=re.escape(repr(line))):
    gtzan.read(lists)


def test_a_clip_in_two_splits_of_gtzan_is_refused(tmp_path):
  lists = tiny_tagging.make_gtzan_lists(tmp_path / "lists")
  content = (lists / "test_filtered.txt").read_text()
  (lists / "valid_filtered.txt").write_text(content)
  with pytest.raises(errors.InputError, match="in validation and test"):
    gtzan.read(lists)


# ---- the choice of a split ----


@pytest.mark.parametrize(
  ("choices", "message"),
  [
    ({"set_name": "magnatagatune"}, "--split is not given; .* 25k, 21k"),
    ({"set_name": "magnatagatune", "split": "0"}, "--split is '0'"),
    ({"set_name": "mtg_jamendo"}, "--subset is not given"),
    ({"set_name": "mtg_jamendo", "subset": "all"}, "--subset is 'all'"),
    (
      {"set_name": "mtg_jamendo", "subset": "genre", "split": "5"},
      "--split is '5'",
    ),
    (
      {"set_name": "mtg_jamendo", "subset": "genre", "part": "end"},
      "--part is 'end'",
    ),
    ({"set_name": "gtzan", "split": "0"}, "means nothing for gtzan"),
    ({"set_name": "magnatagatune", "part": "whole"}, "means nothing"),
    ({"set_name": "fma"}, "--set is 'fma'"),
  ],
)
def test_a_split_that_is_not_said_is_refused(tmp_path, choices, message):
  with pytest.raises(errors.InputError, match=message):
    preparation.read_lists(lists=tmp_path, **choices)

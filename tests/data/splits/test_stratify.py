"""Tests of pcl_jax.data.splits.stratify."""

import numpy as np
import pytest

from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.data.splits import stratify


def test_parts_are_stratified_over_the_codes():
  rng = np.random.default_rng(0)
  genres = ragged.Ragged.from_lists(
    [
      sorted(set((1 + rng.geometric(0.3, 3) % 12).tolist()))
      for _ in range(3000)
    ]
  )
  split = stratify.split_songs(
    genres, 12, test_share=0.1, validation_share=0.1, seed=0
  )
  shares = np.zeros((3, 13))
  np.add.at(shares, (split[genres.list_index()], genres.values), 1)
  totals = shares.sum(axis=0)
  common = totals >= 100
  for part, share in ((catalogues.VALIDATION, 0.1), (catalogues.TEST, 0.1)):
    np.testing.assert_allclose(np.mean(split == part), share, atol=0.005)
    np.testing.assert_allclose(
      shares[part, common] / totals[common], share, atol=0.01
    )


@pytest.mark.parametrize("num_codes", [0, 1, 2])
def test_any_number_of_codes_can_be_split(num_codes):
  lists = [[1 + i % num_codes] if num_codes else [] for i in range(50)]
  lists[7] = []
  split = stratify.split_songs(
    ragged.Ragged.from_lists(lists),
    num_codes,
    test_share=0.2,
    validation_share=0.2,
    seed=3,
  )
  np.testing.assert_allclose(np.bincount(split), [30, 10, 10], atol=1)


@pytest.mark.parametrize("num_codes", [0, 1, 12])
def test_new_songs_fill_up_shares_and_labels_and_known_ones_stay(num_codes):
  rng = np.random.default_rng(0)
  labels = rng.random((3000, num_codes)) < 0.3
  new = np.arange(3000) >= 2000
  split = np.full(3000, stratify.NEW, np.int8)
  shares = {"test_share": 0.1, "validation_share": 0.2}
  split[:2000] = stratify.divide(labels[:2000], **shares, seed=1)
  split[:100] = catalogues.NO_SPLIT
  found = stratify.add_songs(labels, split, new, **shares, seed=3)
  np.testing.assert_array_equal(found[:2000], split[:2000])
  used = found >= 0
  assert np.bincount(found[used]).tolist() == [2030, 580, 290]
  away = [
    labels[used & (found == part)].sum(axis=0)
    - share * labels[used].sum(axis=0)
    for part, share in ((0, 0.7), (1, 0.2), (2, 0.1))
  ]
  assert np.abs(away).sum() <= 5 * num_codes  # Drawn at random, 14 of each.
  again = stratify.add_songs(labels, split, new, **shares, seed=3)
  np.testing.assert_array_equal(again, found)


def test_an_update_without_new_songs_leaves_the_split_as_it_is():
  labels, shares = np.ones((100, 1), bool), {"test_share": 0.1}
  shares |= {"validation_share": 0.1, "seed": 1}
  split = stratify.divide(labels, **shares)
  assert np.bincount(split).tolist() == [80, 10, 10]
  with np.errstate(all="raise"):
    found = stratify.add_songs(labels, split, np.zeros(100, bool), **shares)
  np.testing.assert_array_equal(found, split)


def test_songs_added_one_by_one_keep_the_shares():
  split = np.array([0, 0, 0, 0, 1, 2], np.int8)
  for _ in range(60):
    split = np.append(split, stratify.NEW).astype(np.int8)
    labels = np.zeros((len(split), 0), bool)
    split = stratify.add_songs(
      labels, split, split == stratify.NEW,
      test_share=0.2, validation_share=0.1, seed=0,
    )  # fmt: skip
  assert np.bincount(split).tolist() == [46, 7, 13]

"""Tests of what all config files share."""

import dataclasses

import pytest

from configs import common
from pcl_jax.audio import feature_augmentation
from pcl_jax.common import errors


def test_the_papers_configs_augment_nothing():
  off = feature_augmentation.Strengths()
  assert common.get_config().augmentation.to_dict() == dataclasses.asdict(off)


def test_a_misspelt_config_argument_is_told_what_may_be_meant():
  with pytest.raises(errors.InputError, match="Did you mean 'artist,smoke'"):
    common.split_argument("artis,smoke", common.PAIR_METHODS)
  with pytest.raises(errors.InputError, match="or nothing.$"):
    common.split_argument("xyz", common.PAIR_METHODS)

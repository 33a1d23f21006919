"""Tests of pcl_jax.common.extras."""

import pytest

from pcl_jax.common import errors
from pcl_jax.common import extras


def test_packages_that_are_absent_are_named_with_the_remedy():
  extras.check("it", "numpy", "jax")
  with pytest.raises(errors.InputError, match=r"it needs absent_1 and .*\[all"):
    extras.check("it", "numpy", "absent_1", "absent_2")

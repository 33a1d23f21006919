"""Packages that the base install leaves out."""

import importlib.util

from pcl_jax.common import errors


def check(what: str, *modules: str) -> None:
  """Refuses to begin what would stop in its middle for want of a package.

  Args:
    what: the work, as a subject of the message.
    modules: names of modules that it needs.

  Raises:
    InputError: one of them is not installed.
  """
  absent = [one for one in modules if importlib.util.find_spec(one) is None]
  if absent:
    raise errors.InputError(
      f"{what} needs {' and '.join(absent)}, which the base install leaves "
      'out. Install it with pip install "pcl_jax[all]".'
    )

"""Files that cannot grow, as on a full disk."""

from collections.abc import Iterator
import contextlib
import resource


@contextlib.contextmanager
def at(most: int) -> Iterator[None]:
  """No file of this process grows beyond so many bytes meanwhile."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)

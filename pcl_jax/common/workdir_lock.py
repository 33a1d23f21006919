"""One trainer a workdir, of however many processes."""

from collections.abc import Iterator
import contextlib
import os

from pcl_jax.common import errors
from pcl_jax.common import folder_lock
from pcl_jax.common import hosts


@contextlib.contextmanager
def hold(workdir: str | os.PathLike[str]) -> Iterator[None]:
  """Holds a run's folder; of several processes the first does.

  Args:
    workdir: folder of the run.

  Raises:
    InputError: another trainer holds it; raised in all processes.
  """
  refusal = ""
  with contextlib.ExitStack() as stack:
    if hosts.is_first():
      try:
        stack.enter_context(folder_lock.hold(workdir, "a trainer"))
      except errors.InputError as error:
        refusal = str(error)
    refusal = hosts.hear_first(refusal)
    if refusal:
      raise errors.InputError(f"--workdir: {refusal}")
    yield

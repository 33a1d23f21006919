"""Plans the next epoch while one is trained."""

from collections.abc import Callable
import concurrent.futures

from pcl_jax.data import plans


class PlanAhead:
  """Gives the plans of epochs; the one after is made in a thread meanwhile.

  A plan is a function of its epoch alone, so where it is made does not matter.
  """

  def __init__(self, make: Callable[[int], plans.Plan]):
    """Prepares; nothing is planned yet.

    Args:
      make: epoch -> its plan; called in a thread.
    """
    self._make = make
    self._pool = concurrent.futures.ThreadPoolExecutor(1, "planner")
    self._begun: dict[int, concurrent.futures.Future[plans.Plan]] = {}

  def _begin(self, epoch: int) -> concurrent.futures.Future[plans.Plan]:
    if epoch not in self._begun:
      self._begun[epoch] = self._pool.submit(self._make, epoch)
    return self._begun[epoch]

  def get(self, epoch: int) -> plans.Plan:
    """Returns an epoch's plan, and begins with the next one's.

    Args:
      epoch: from 0.

    Raises:
      InputError: whatever `make` raises for this epoch.
    """
    plan = self._begin(epoch).result()
    # What was planned for other epochs is not needed any more.
    self._begun = {epoch: self._begun[epoch]}
    self._begin(epoch + 1)
    return plan

  def close(self) -> None:
    """Waits for the plan under way, and forgets those not begun."""
    self._pool.shutdown(wait=True, cancel_futures=True)

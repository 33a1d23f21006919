"""The registry: every task that the evaluation knows, by name.

To add a task, derive a class from `task_base.Task` and put an instance into
TASKS. Tasks are compared between runs item by item, and only where their
settings agree; settings that a task finds for itself (`compare.protocol`) may
differ.
"""

from pcl_jax.common import errors
from pcl_jax.evaluation import collapse_task
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.retrieval import retrieval_tasks
from pcl_jax.evaluation.tagging import tagging_tasks

ALL = "all"
NONE = "none"
TASKS: dict[str, task_base.Task] = {
  **retrieval_tasks.TASKS,
  **tagging_tasks.MELON_50,
  **collapse_task.TASKS,
}


def choose(names: str) -> tuple[str, ...]:
  """Returns the tasks that a list names, in the registry's order.

  Args:
    names: names separated by commas; or `all`, which leaves out the slow ones;
      or `none`.

  Raises:
    InputError: a name is unknown, or none was given.
  """
  wanted = [name.strip() for name in names.split(",") if name.strip()]
  if wanted == [ALL]:
    return tuple(name for name, task in TASKS.items() if not task.slow)
  if wanted == [NONE]:
    return ()
  unknown = sorted(set(wanted) - set(TASKS))
  if unknown or not wanted:
    raise errors.InputError(
      f"--tasks={names} names {', '.join(unknown) or 'no task'}; it is "
      f"{ALL}, {NONE}, or any of {', '.join(TASKS)}, separated by commas."
    )
  return tuple(name for name in TASKS if name in wanted)

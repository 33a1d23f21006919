"""How a text for people names the commands: by module, or as `pcl-jax` does."""

import pathlib
import re

NAME, PREPARE, CONFIG = "pcl-jax", "prepare", "pcl:"
COMMANDS = {
  "train": "launch",
  "embed": "pcl_jax.embed",
  "similar": "pcl_jax.similar",
  "index": "pcl_jax.index",
  "duplicates": "pcl_jax.duplicates",
  "export": "pcl_jax.export",
  "import": "pcl_jax.import_weights",
  "evaluate": "pcl_jax.evaluate",
  "report": "pcl_jax.report",
  "serve": "pcl_jax.serve",
  "tag": "pcl_jax.evaluation.tag",
  "robustness": "pcl_jax.evaluation.robustness",
  "checkpoint": "pcl_jax.checkpoint",
  "verify": "pcl_jax.data.verify",
  "inspect": "pcl_jax.data.inspect",
}
# A wheel carries launch.py, configs and preprocessing inside the package, since
# other packages may have modules of these names.
CARRIED = pathlib.Path(__file__).parents[1] / "_carried"
started = CARRIED.is_dir()  # Whether commands are named as the program's.
_MODULE = r"(?:python -m |(?<![\w./-]))"
_FORMS = (
  (r"(?:python |(?<![\w./-]))launch\.py", f"{NAME} train"),
  (rf"{_MODULE}preprocessing\.(\w+)", rf"{NAME} {PREPARE} \1"),
  *(
    (rf"{_MODULE}{re.escape(module)}(?!\w|\.\w)", f"{NAME} {name}")
    for name, module in COMMANDS.items()
    if name != "train"  # Its module is a plain word.
  ),
  (r"--config=configs/(\w+)\.py", rf"--config={CONFIG}\1"),
)


def fit(text: str) -> str:
  """Renames commands, as in `pcl-jax prepare own_library`, if they have to be.

  Texts are written for a checkout: `python -m preprocessing.own_library`.
  """
  if started:
    for form, name in _FORMS:
      text = re.sub(form, name, text)
  return text

"""The parameters of requests: what they may be, and how they are read."""

from collections.abc import Iterable, Mapping
import dataclasses
import math
from typing import Any

from starlette import datastructures

from pcl_jax.common import errors
from pcl_jax.common import file_names

MOST_CHARS = 1000  # Of a value.
MOST_VALUES = 200  # Of a parameter that may be given several times.
_SHOWN = 60  # Characters of a wrong value in a message.
_KINDS = {str: "string", int: "integer", float: "number", bool: "boolean"}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class Refusal(errors.InputError):
  """A request that cannot be answered, and the status that says so."""

  def __init__(
    self, status: int, message: str, headers: Mapping[str, str] | None = None
  ):
    """Takes the status of HTTP, the message for people, and headers."""
    super().__init__(message)
    self.status, self.headers = status, dict(headers or {})


@dataclasses.dataclass(frozen=True)
class Parameter:
  """A parameter of a request.

  Attributes:
    name: its name.
    text: what it is for.
    kind: str, int, float or bool.
    default: what it is where it is not given.
    least: the least number.
    most: the largest number.
    choices: what it may be; anything if empty.
    many: whether it may be given several times; its value is a list.
    required: whether it has to be given.
  """

  name: str
  text: str
  kind: type = str
  default: Any = None
  least: int | float = -math.inf
  most: int | float = math.inf
  choices: tuple[str, ...] = ()
  many: bool = False
  required: bool = False

  def schema(self) -> dict[str, Any]:
    """Returns the parameter as OpenAPI describes it."""
    one: dict[str, Any] = {"type": _KINDS[self.kind]}
    if self.kind is str:
      one["maxLength"] = MOST_CHARS
    if self.choices:
      one["enum"] = list(self.choices)
    if math.isfinite(self.least):
      one["minimum"] = self.least
    if math.isfinite(self.most):
      one["maximum"] = self.most
    if self.default is not None and not self.many:
      one["default"] = self.default
    if self.many:
      one = {"type": "array", "items": one, "maxItems": MOST_VALUES}
    return {
      "name": self.name,
      "in": "query",
      "description": self.text,
      "required": self.required,
      "schema": one,
    }

  def _read_one(self, text: str) -> Any:
    if len(text) > MOST_CHARS:
      raise Refusal(
        400,
        f"{self.name} has {len(text)} characters, and {MOST_CHARS} are the "
        "most: give a shorter one.",
      )
    shown = file_names.shown(text[:_SHOWN])
    try:
      value = _TRUTH[text.lower()] if self.kind is bool else self.kind(text)
    except (ValueError, KeyError) as error:
      kind = "true or false" if self.kind is bool else _KINDS[self.kind]
      raise Refusal(
        400, f"{self.name} is {shown!r}: give a value of the kind {kind}."
      ) from error
    if self.choices and value not in self.choices:
      raise Refusal(
        400, f"{self.name} is {shown!r}: give one of {', '.join(self.choices)}."
      )
    if self.kind in (int, float) and not self.least <= value <= self.most:
      raise Refusal(
        400,
        f"{self.name} is {shown}: give a number from {self.least:g} to "
        f"{self.most:g}.",
      )
    return value

  def read(self, texts: list[str]) -> Any:
    """Returns the value that texts give; raises `Refusal` if they give none."""
    texts = [one for one in texts if one != ""]
    if len(texts) > (MOST_VALUES if self.many else 1):
      raise Refusal(
        400,
        f"{self.name} is given {len(texts)} times: give it at most "
        f"{MOST_VALUES if self.many else 1} times.",
      )
    if self.required and not texts:
      raise Refusal(400, f"{self.name} is missing: {self.text}.")
    values = [self._read_one(one) for one in texts]
    if self.many:
      return values
    return values[0] if values else self.default


def read(
  parameters: Iterable[Parameter],
  given: datastructures.ImmutableMultiDict,
  *,
  strict: bool = True,
) -> Mapping[str, Any]:
  """Reads the parameters of a request.

  Args:
    parameters: those that there are.
    given: the query string.
    strict: refuses what is none of them.

  Returns:
    The value of each parameter.

  Raises:
    Refusal: a value is none that it may have, or too long.
  """
  known = {one.name: one for one in parameters}
  unknown = [one for one in given.keys() if one not in known]
  if strict and unknown:
    raise Refusal(
      400,
      f"there is no parameter {file_names.shown(unknown[0][:_SHOWN])!r} here: "
      f"give some of {', '.join(known) or 'none'}.",
    )
  return {name: one.read(given.getlist(name)) for name, one in known.items()}

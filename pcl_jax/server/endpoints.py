"""What an address of the server answers, and how that is described."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from pcl_jax.server import api_parameters
from pcl_jax.server import served_library

Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Endpoint:
  """An address of the server.

  Attributes:
    path: the address.
    text: what it answers, in a sentence.
    answer: makes the answer from the library and the parameters: plain values,
      or a response.
    parameters: what may be given.
    method: of HTTP.
    body: what the body of a request is; empty for none. `answer` then takes it
      as its third argument: json as plain values, all else as bytes.
    most_bytes: of the body.
    strict: whether unknown parameters are refused.
  """

  path: str
  text: str
  answer: Callable[..., Any]
  parameters: tuple[api_parameters.Parameter, ...] = ()
  method: str = "GET"
  body: str = ""
  most_bytes: int = 1 << 20
  strict: bool = True

  def described(self) -> dict[str, Any]:
    """Returns what OpenAPI says of it."""
    failures = {
      "400": "a parameter is none that it may be",
      "404": "there is no such song, or no such file",
    }
    if self.body:
      failures["413"] = f"the body has more than {self.most_bytes} bytes"
    one: dict[str, Any] = {
      "summary": self.text,
      "parameters": [each.schema() for each in self.parameters],
      "responses": {"200": {"description": "the answer"}}
      | {code: {"description": text} for code, text in failures.items()},
    }
    if self.body:
      schema = {"type": "object"}
      if self.body != "application/json":
        schema = {"type": "string", "format": "binary"}
      content = {self.body: {"schema": schema}}
      one["requestBody"] = {"required": True, "content": content}
    return one


Library = served_library.Library

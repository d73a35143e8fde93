"""Request bodies the way the Go bridge reads them, down to its error texts.

Clients in the field were written against those texts and rules: a key matches in any case, unknown
keys are ignored, `null` is as good as absent, `required` rejects "" and 0, and only the first JSON
value of a body counts.
"""

import json
import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

Kind = Literal["string", "number", "bool", "decimal"]
Value = str | bool | Decimal | None

_GO_TYPES = {"string": "string", "number": "float64", "bool": "bool"}


class BindingError(Exception):
    """The body does not fit; the text is the `error` of the 400 reply."""


@dataclass(frozen=True)
class Field:
    """One field of a request.

    `go_name` is the name in the validator's texts. Kind `decimal` is ours: a score in 0..1 as JSON
    number or decimal string, absent as None.
    """

    name: str
    go_name: str = ""
    kind: Kind = "string"
    required: bool = False


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond what decimal can hold
        return Decimal("Infinity")


def _refuse_constant(text: str) -> Any:
    raise BindingError("invalid character '%s' looking for beginning of value" % text[0])


_DECODER = json.JSONDecoder(parse_float=_number, parse_int=_number, parse_constant=_refuse_constant)
_WHERE = (
    ("Expecting property name", "looking for beginning of object key string"),
    ("Illegal trailing comma", "looking for beginning of value"),
    ("Expecting ':'", "after object key"),
    ("Expecting ','", "after object key:value pair"),
    ("Invalid control", "in string literal"),
    ("Invalid \\", "in string escape code"),
)


def _decode(body: bytes) -> Any:
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise BindingError("EOF")
    try:
        return _DECODER.raw_decode(text)[0]
    except json.JSONDecodeError as error:
        at, message = error.pos, error.msg
    except RecursionError:
        raise BindingError("exceeded max depth") from None
    if at >= len(text.rstrip()) or message.startswith("Unterminated"):
        raise BindingError("unexpected EOF")
    for start, where in _WHERE:
        if message.startswith(start):
            raise BindingError("invalid character '%s' %s" % (text[at], where))
    raise BindingError("invalid character '%s' looking for beginning of value" % text[at])


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, Decimal):
        return "number"
    return "array" if isinstance(value, list) else "object"


def _struct(fields: tuple[Field, ...]) -> str:
    members = []
    for field in fields:
        if field.kind != "decimal" and field.go_name:
            tag = 'json:\\"%s\\"' % field.name
            if field.required:
                tag += ' binding:\\"required\\"'
            members.append('%s %s "%s"' % (field.go_name, _GO_TYPES[field.kind], tag))
    return "struct { %s }" % "; ".join(members)


def _score(field: Field, value: Any) -> Decimal:
    """A score in 0..1, from a number or a decimal string."""
    try:
        score = value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation:
        score = Decimal("NaN")
    if isinstance(value, (bool, list, dict)) or not score.is_finite() or not 0 <= score <= 1:
        raise BindingError("%s must be a decimal between 0 and 1" % field.name)
    if score != round(score, 12):
        raise BindingError("%s has more than 12 decimals" % field.name)
    return score


def _take(field: Field, value: Any) -> Value:
    if field.kind == "decimal":
        return _score(field, value)
    found = _json_type(value)
    if found != field.kind:
        raise BindingError(
            "json: cannot unmarshal %s into Go struct field .%s of type %s" % (found, field.name, _GO_TYPES[field.kind])
        )
    if isinstance(value, bool):
        return value
    if isinstance(value, Decimal):
        if not (value.is_finite() and math.isfinite(float(value))):
            raise BindingError("json: cannot unmarshal number into Go struct field .%s of type float64" % field.name)
        return value
    text = str(value)
    if "\x00" in text:  # not storable as text in PostgreSQL
        raise BindingError("%s must not contain NUL" % field.name)
    # A lone surrogate escape is no text; Go reads it as U+FFFD.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def bind(body: bytes, fields: tuple[Field, ...]) -> dict[str, Any]:
    """Field name -> value; absent ones are "" (string), 0 (number), False (bool), None (decimal).

    Raises BindingError with the text of the Go bridge.
    """
    document = _decode(body)
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise BindingError(
            "json: cannot unmarshal %s into Go value of type %s" % (_json_type(document), _struct(fields))
        )
    given = {key.lower(): value for key, value in document.items()}
    values: dict[str, Any] = {}
    missing = []
    zero: dict[Kind, Value] = {"string": "", "number": Decimal(0), "bool": False, "decimal": None}
    for field in fields:
        value = given.get(field.name)
        values[field.name] = zero[field.kind] if value is None else _take(field, value)
        if field.required and not values[field.name]:
            missing.append(
                "Key: '%s' Error:Field validation for '%s' failed on the 'required' tag"
                % (field.go_name, field.go_name)
            )
    if missing:
        raise BindingError("\n".join(missing))
    return values

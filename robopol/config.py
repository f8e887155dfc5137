"""Typed configuration: one strict conversion from a plain tree to frozen objects.

A config class is a `Config` with typed fields and a ``build`` method. A field that may hold one of several
kinds is annotated ``Annotated[Any, OneOf("policy")]``: its ``kind`` is looked up in `robopol.registry`, never
imported by a path that the tree itself names.

A tree may say a part of a config that a field holds: whatever it leaves out is as in the field's default, as long as
the two are of one kind. A config of another kind has the defaults of that kind.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from robopol.errors import ConfigError
from robopol.registry import lookup, nearest

T = TypeVar("T", bound="Config")


class Config(BaseModel):
    """A frozen, strict, JSON-able description of something that can be built."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def tree(self) -> dict[str, Any]:
        """Return the plain tree (JSON types) that `parse` turns back into this object."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class OneOf:
    """Annotation of a field that holds any registered kind of one group.

    Attributes:
        group: A group of `robopol.registry.KINDS`.
    """

    group: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tell pydantic to choose the class by the value's ``kind``."""
        return core_schema.no_info_plain_validator_function(
            self._choose, serialization=core_schema.plain_serializer_function_ser_schema(lambda v: v.tree())
        )

    def _choose(self, value: Any) -> Config:
        if isinstance(value, Config):
            return value
        if isinstance(value, str):  # a kind's name alone stands for its defaults
            value = {"kind": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            raise ValueError(f"a {self.group} needs a mapping with a 'kind', got {value!r}")
        found: type[Config] = lookup(self.group, value["kind"])
        return found.model_validate_json(json.dumps(_completed(found, value)))


def parse(cls: type[T], tree: Mapping[str, Any]) -> T:
    """Convert a plain tree to a config object, reporting every fault at once.

    Args:
        cls: The config class.
        tree: A tree of JSON types, e.g. from YAML or from a saved ``config.json``. What it says in part is completed
            from the defaults of the fields that hold it.

    Returns:
        The object.

    Raises:
        ConfigError: Names every missing key, unknown key (with the nearest existing names) and value of the
            wrong type.
    """
    tree = _completed(cls, tree)
    try:
        # JSON mode: strict about types, yet a list in the tree may become a tuple.
        return cls.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        faults = [_explain(cls, tree, fault) for fault in error.errors(include_url=False)]
    lines = "\n".join(f"  {fault}" for fault in sorted(faults))
    raise ConfigError(f"the configuration has {len(faults)} fault{'s' * (len(faults) > 1)}:\n{lines}")


def _completed(cls: type[Config], tree: Any) -> Any:
    """Lay what a tree says of a config's fields over their defaults, on every floor that its class knows.

    Kinds that are looked up complete what they hold when they are chosen, see `OneOf`.
    """
    if not isinstance(tree, Mapping):
        return tree
    done = dict(tree)
    for name, field in cls.model_fields.items():
        if name not in done:
            continue
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Config):
            done[name] = _laid_over(default, done[name], field)
        inner = _config_class(field.annotation)
        if inner is None:
            continue
        held = get_origin(field.annotation)
        if held is dict and isinstance(done[name], Mapping):
            done[name] = {key: _completed(inner, one) for key, one in done[name].items()}
        elif isinstance(done[name], list | tuple):
            done[name] = [_completed(inner, one) for one in done[name]]
        elif held is not dict:
            done[name] = _completed(inner, done[name])
    return done


def _laid_over(default: Config, told: Any, field: FieldInfo) -> Any:
    """Return what a tree says of a field, with what it leaves out from the default if that is of the same kind."""
    if isinstance(told, str) and group_of(field) is not None:
        told = {"kind": told}
    kind = getattr(default, "kind", None)
    if not isinstance(told, Mapping) or told.get("kind", kind) != kind:
        return told
    whole = default.tree() | dict(told)
    for name, inner in type(default).model_fields.items():
        own = getattr(default, name)
        if name in told and isinstance(own, Config):
            whole[name] = _laid_over(own, told[name], inner)
    return whole


def _explain(cls: type[Config], tree: Mapping[str, Any], fault: Any) -> str:
    """Say one fault in words."""
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"missing key: {path}"
    if fault["type"] == "extra_forbidden":
        fields = _model_at(cls, tree, fault["loc"][:-1]).model_fields
        where = f"{path.rpartition('.')[0]} has" if "." in path else "the keys are"
        return f"unknown key: {path}{nearest(str(fault['loc'][-1]), fields)}; {where} {', '.join(fields)}"
    message = fault["msg"].removeprefix("Value error, ")
    came = "" if isinstance(fault["input"], Mapping) else f" (got {fault['input']!r})"
    return f"{path}: {message}{came}".removeprefix(": ")


def _model_at(cls: type[Config], tree: Any, loc: tuple[Any, ...]) -> type[Config]:
    """Walk to the config class that describes the branch at ``loc``."""
    item, held = False, None
    for part in loc:
        if isinstance(tree, Mapping) and part not in tree:  # no key, but the kind by which it is one of several classes
            cls = next(c for c in _config_classes(held) if c.model_fields["kind"].default == part)
            continue
        tree = tree[part]
        if isinstance(part, str) and not item:  # else an item, of which the field of the whole says what it is
            field = cls.model_fields[part]
            item = get_origin(field.annotation) is dict
            if item:
                continue
        item, held = False, field.annotation
        group = group_of(field)
        found = _config_class(held)
        if group is not None and isinstance(tree, Mapping):
            default = field.get_default(call_default_factory=True)
            cls = lookup(group, tree.get("kind", getattr(default, "kind", None)))
        elif found is not None:
            cls = found
    return cls


def group_of(field: FieldInfo) -> str | None:
    """Return the group whose kinds a field, or each item of it, may hold; None if it is no such field."""

    def search(annotation: Any, metadata: Sequence[Any]) -> str | None:
        inner = getattr(annotation, "__metadata__", ())
        own = next((m.group for m in (*metadata, *inner) if isinstance(m, OneOf)), None)
        parts = () if own is not None else getattr(annotation, "__args__", ())
        return own or next((group for part in parts if (group := search(part, ())) is not None), None)

    return search(field.annotation, field.metadata)


def _config_class(annotation: Any) -> type[Config] | None:
    """Find the config class inside an annotation such as ``list[Phase] | None``."""
    return next(_config_classes(annotation), None)


def _config_classes(annotation: Any) -> Iterator[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    else:
        for inner in getattr(annotation, "__args__", ()):
            yield from _config_classes(inner)

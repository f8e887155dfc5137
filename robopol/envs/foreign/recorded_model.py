"""A simulator model that came with a dataset, made safe to load.

MJCF names files, and MuJoCo reads them from wherever it is told; it takes in other files, makes plugins, and multiplies
what it reads. A model as MuJoCo itself writes it down (``mj_saveLastXML``), which is how robosuite and robomimic record
one, does none of that but for meshes, textures and heights by their absolute place on the machine of then. Only such a
model passes, and only with files that lie here in the folder of the assets.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from robopol.errors import EnvError

_PLAIN = (
    "mujoco compiler lengthrange option flag size visual global quality headlight map scale rgba statistic default "
    "asset mesh texture material layer hfield worldbody body inertial joint freejoint geom site camera light contact "
    "pair exclude equality connect weld tendon spatial fixed pulley actuator general motor position velocity "
    "intvelocity damper cylinder muscle adhesion sensor keyframe key custom numeric text tuple element"
)
_ELEMENTS = frozenset(_PLAIN.split())
"""What may be in a model; besides, anything but a plugin may be in ``sensor``."""

_FOLDERS = ("meshdir", "texturedir", "assetdir", "strippath")
"""What a compiler is told of folders; with the files' absolute places it says nothing."""

_LARGE = {"size": 1e5, "numeric": 1e5, "texture": 16_384, "hfield": 16_384, "global": 16_384, "quality": 16_384}
"""Element -> the greatest number that one of its attributes may hold, so that it does not take all memory."""

_MOST, _DEEPEST = 100_000, 200
"""Elements of a model, and how deep they may lie in each other."""


def checked(text: str, assets: Path) -> str:
    """Check a recorded model and point it to the files of this machine.

    Args:
        text: MJCF, not trusted.
        assets: The folder that its files must lie in, e.g. ``.../robosuite/models/assets``. Of a recorded place, what
            comes after the last folders of the same three names counts.

    Returns:
        The model with absolute places.

    Raises:
        EnvError: If it is no MJCF, holds something else than a plain model, or names a file that is not there.
    """
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise EnvError("the recorded model declares entities of XML, which no model needs; it is not loaded")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise EnvError(f"the recorded model is not MJCF: {error}") from error
    for count, (element, parent, depth) in enumerate(_walk(root)):
        known = element.tag in _ELEMENTS or (parent == "sensor" and element.tag != "plugin")
        if not known or (element is root) != (element.tag == "mujoco"):
            raise EnvError(
                f"the recorded model has an element <{element.tag}>, which may read files or run code; only plain "
                "models as MuJoCo saves them are loaded"
            )
        if count > _MOST or depth > _DEEPEST:
            raise EnvError(f"the recorded model has more than {_MOST} elements or is nested deeper than {_DEEPEST}")
        if element.tag == "compiler":
            for name in _FOLDERS:
                element.attrib.pop(name, None)
        if element.tag == "size":
            element.attrib.pop("memory", None)  # MuJoCo's own choice is as good
        for name, value in element.attrib.items():
            if name.startswith("file"):
                element.set(name, str(_here(value, assets)))
            elif name == "plugin" or (name == "builtin" and element.tag == "mesh"):
                raise EnvError(f"the recorded model has <{element.tag} {name}='{value}'>, which runs code; not loaded")
            elif element.tag in _LARGE and _greatest(value) > _LARGE[element.tag]:
                raise EnvError(
                    f"the recorded model has <{element.tag} {name}='{value}'>; more than {_LARGE[element.tag]:.0f} is "
                    "taken for an attack on the memory"
                )
    return ElementTree.tostring(root, encoding="unicode")


def _walk(root: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, str, int]]:
    """Yield each element with the name of what it is in and its depth; a stack, since the depth is not trusted."""
    stack = [(root, "", 0)]
    while stack:
        element, parent, depth = stack.pop()
        yield element, parent, depth
        stack += [(inner, str(element.tag), depth + 1) for inner in element]


def _greatest(value: str) -> float:
    """Return the greatest of the numbers that an attribute holds; 0 if there is none."""
    found = [0.0]
    for word in value.split():
        with suppress(ValueError):
            found.append(float(word))
    return max(found)


def _here(place: str, assets: Path) -> Path:
    """Find a recorded file in the assets of this machine.

    Raises:
        EnvError: If it is not one of them.
    """
    parts, name = place.replace("\\", "/").split("/"), list(assets.parts[-3:])
    ends = [end for end in range(3, len(parts)) if parts[end - 3 : end] == name]
    if ends:
        try:
            path = assets.joinpath(*parts[ends[-1] :]).resolve()
            if path.is_relative_to(assets.resolve()) and path.is_file():
                return path
        except (OSError, ValueError):  # a place that no file can have
            pass
    raise EnvError(
        f"the recorded model names the file '{place}', which is none of {'/'.join(name)} here; a model may read "
        "nothing else"
    )

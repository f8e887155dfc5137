"""docs/bridge-checks.md says which test shows what: all that it names is there, and what is slow is called so."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bridge-checks.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(\w+\.py)::(\w+)`")


@cache
def functions_of(name):
    """Return the tests of a file, name -> whether it is slow."""
    (path,) = ROOT.glob(f"tests/**/{name}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    all_slow = any(ast.unparse(node).startswith("pytestmark = pytest.mark.slow") for node in tree.body)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    marks = {one.name: any("mark.slow" in ast.unparse(d) for d in one.decorator_list) for one in functions}
    return {name: all_slow or slow for name, slow in marks.items()}


def cases():
    """Return the paragraphs of the page about a case, number -> text."""
    parts = re.split(r"^\*\*T(\d+)\*\* ", PAGE, flags=re.M)[1:]
    return {int(number): text.split("\n\n")[0] for number, text in zip(parts[::2], parts[1::2], strict=True)}


def test_every_case_is_there_and_names_what_shows_it():
    found = cases()
    assert list(found) == list(range(1, 21))
    assert all(NAMED.search(text) or "benchmarks/bridge.py" in text for text in found.values())


@pytest.mark.parametrize("number", range(1, 21))
def test_what_a_case_names_exists(number):
    text = cases()[number]
    for item in text.split("\n* ")[1:]:
        for file, function in NAMED.findall(item):
            assert function in functions_of(file), f"T{number} names {file}::{function}"
            assert not functions_of(file)[function] or "slow" in item, f"T{number}: {function} is slow"
    for name in re.findall(r"`(benchmarks/\w+\.py)", text):
        assert (ROOT / name).exists()


def test_the_rest_of_the_page_names_what_exists():
    assert len(NAMED.findall(PAGE)) > 60
    for file, function in NAMED.findall(PAGE):
        assert function in functions_of(file), f"{file}::{function}"

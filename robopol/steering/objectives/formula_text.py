"""Read formulas of Signal Temporal Logic from text.

    formula   = or-part ["until" [window] or-part]
    or-part   = and-part {"or" and-part}
    and-part  = unary {"and" unary}
    unary     = "not" unary | "always" [window] unary | "eventually" [window] unary | "(" formula ")" | predicate
    window    = "[" steps "," (steps | "end") "]"
    predicate = sum (">=" | "<=") sum, where "distance(NUMBER, ...)" stands alone on the left of a number
    sum       = ["-"] term {("+" | "-") term},  term = NUMBER | [NUMBER ["*"]] SIGNAL

E.g. ``eventually (distance(0.5, 0.2) <= 0.05) and always[0, 20] (x + 0.5 y >= 0.1)``.
"""

import re
from collections.abc import Sequence

from robopol.errors import ConfigError
from robopol.steering.objectives.formula import (
    Always,
    Eventually,
    Formula,
    Linear,
    Near,
    Not,
    Until,
    Window,
    both,
    either,
)

LONGEST = 2000
"""Characters of a text; it also bounds how deep formulas are nested."""
DEEPEST = 50

_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|(>=|<=|[][()*,+-]))")
_WORDS = ("not", "and", "or", "always", "eventually", "until", "end", "distance")


def read_formula(text: str, signals: Sequence[str]) -> Formula:
    """Read a formula.

    Args:
        text: See the module's text.
        signals: Names of the signals, D.

    Raises:
        ConfigError: Says where the text cannot be read, and what was expected there.
    """
    return _Reader(text, signals).read()


class _Reader:
    """Reads from left to right, one token ahead."""

    def __init__(self, text: str, signals: Sequence[str]) -> None:
        self.text, self.signals, self.depth = text, signals, 0
        if len(text) > LONGEST:
            raise ConfigError(f"a formula has at most {LONGEST} characters, got {len(text)}")
        self.tokens: list[tuple[str, int]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._fault(at + len(text[at:]) - len(text[at:].lstrip()), "a number, a name or a sign")
            self.tokens.append((found.group(found.lastindex or 0), found.start(found.lastindex or 0)))
            at = found.end()
        self.tokens.append(("", len(text)))

    def read(self) -> Formula:
        found = self._formula()
        self._expect("")
        return found

    def _formula(self) -> Formula:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ConfigError(f"the formula is nested more than {DEEPEST} deep")
        first = self._or()
        if self._take("until"):
            first = Until(self._window(), first, self._or())
        self.depth -= 1
        return first

    def _or(self) -> Formula:
        parts = [self._and()]
        while self._take("or"):
            parts.append(self._and())
        return either(parts)

    def _and(self) -> Formula:
        parts = [self._unary()]
        while self._take("and"):
            parts.append(self._unary())
        return both(parts)

    def _unary(self) -> Formula:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ConfigError(f"the formula is nested more than {DEEPEST} deep")
        if self._take("not"):
            found: Formula = Not(self._unary())
        elif self._take("always"):
            found = Always(self._window(), self._unary())
        elif self._take("eventually"):
            found = Eventually(self._window(), self._unary())
        elif self._take("("):
            found = self._formula()
            self._expect(")")
        else:
            found = self._predicate()
        self.depth -= 1
        return found

    def _window(self) -> Window:
        if not self._take("["):
            return Window()
        first = self._steps()
        self._expect(",")
        if self._take("end"):
            last = None
        else:
            at = self.tokens[0][1]
            last = self._steps()
            if last < first:
                raise self._fault(at, f"a number of steps of at least {first}")
        self._expect("]")
        return Window(first, last)

    def _steps(self) -> int:
        word, at = self.tokens.pop(0)
        if not word.isdigit():
            raise self._fault(at, "a whole number of steps")
        return int(word)

    def _predicate(self) -> Formula:
        if self._take("distance"):
            point, at = self._point(), self.tokens[0][1]
            sign = self._comparison()
            weights, radius = self._sum()
            if any(weights):
                raise self._fault(at, "a distance compared with a number")
            near = Near(point, radius)
            return near if sign < 0 else Not(near)
        left, constant = self._sum()
        sign = self._comparison()
        right, other = self._sum()
        weights = [sign * (a - b) for a, b in zip(left, right, strict=True)]
        return Linear(tuple(weights), sign * (constant - other))

    def _comparison(self) -> float:
        word, at = self.tokens.pop(0)
        if word not in (">=", "<="):
            raise self._fault(at, ">= or <=")
        return 1.0 if word == ">=" else -1.0

    def _point(self) -> tuple[float, ...]:
        self._expect("(")
        at, point = self.tokens[0][1], [self._number()]
        while self._take(","):
            point.append(self._number())
        self._expect(")")
        if len(point) != len(self.signals):
            raise self._fault(at, f"{len(self.signals)} numbers, one for each of {', '.join(self.signals)}")
        return tuple(point)

    def _number(self) -> float:
        sign = -1.0 if self._take("-") else 1.0
        word, at = self.tokens.pop(0)
        if not _is_number(word):
            raise self._fault(at, "a number")
        return sign * float(word)

    def _sum(self) -> tuple[list[float], float]:
        weights, constant = [0.0] * len(self.signals), 0.0
        sign = -1.0 if self._take("-") else 1.0
        while True:
            word, at = self.tokens.pop(0)
            factor, starred = 1.0, False
            if _is_number(word):
                factor, starred = float(word), self._take("*")
                if starred or self.tokens[0][0] in self.signals:
                    word, at = self.tokens.pop(0)
            if word in self.signals:
                weights[self.signals.index(word)] += sign * factor
            elif _is_number(word) and not starred:
                constant += sign * factor
            else:
                raise self._fault(at, f"{'' if starred else 'a number or '}one of {', '.join(self.signals)}")
            if self._take("+"):
                sign = 1.0
            elif self._take("-"):
                sign = -1.0
            else:
                return weights, constant

    def _take(self, word: str) -> bool:
        if self.tokens[0][0] != word:
            return False
        self.tokens.pop(0)
        return True

    def _expect(self, word: str) -> None:
        found, at = self.tokens[0]
        if found != word:
            raise self._fault(at, f"'{word}'" if word else "the end, or one of and, or, until")
        self.tokens.pop(0)

    def _fault(self, at: int, expected: str) -> ConfigError:
        return ConfigError(
            f"the formula cannot be read at character {at + 1}: expected {expected}, found "
            f"'{self.text[at : at + 12] or 'its end'}'; the words are {', '.join(_WORDS)}, the signals "
            f"{', '.join(self.signals)}"
        )


def _is_number(word: str) -> bool:
    return bool(word) and (word[0].isdigit() or word[0] == ".")

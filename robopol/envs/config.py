"""Which world: an id and its options."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field

from robopol.config import Config, OneOf, parse
from robopol.envs.spec import Backend, EnvSpec
from robopol.errors import EnvError

if TYPE_CHECKING:
    from robopol.envs.vector import VectorEnv

_FILE_WORDS = {"asset", "dir", "file", "folder", "path", "xml"}
"""What the names of options have in them that take a file."""
_FILE = re.compile(r"[/\\]|^~|\.[A-Za-z]\w*$")
"""What a text has in it that is a file's name: a separator, a home, a suffix."""


class EnvWords(Config):
    """What is said of a world, perhaps without naming it.

    Attributes:
        id: A robopol or gymnasium id; ``robopol list envs`` names them.
        options: Passed to the environment.
        wrappers: What it is wrapped in, from the inside out, e.g. ``[{kind: action_repeat, times: 2}]``.
        backend: How the worlds are stepped: ``auto``, ``serial`` or ``native``, with equal results; or ``warp``,
            together on a GPU.
        threads: How many threads step natively; None is one per usable core.
        workers: Processes that share the worlds, for heavy ones; 0 keeps them in this one. The results are equal.
        cluster: Where the workers are: None is this machine; else the address of a Ray cluster, such as ``auto``, or
            ``local``, which starts one here.
        device: Where ``warp`` simulates; None is the GPU where there is one.
    """

    id: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    wrappers: tuple[Annotated[Any, OneOf("wrapper")], ...] = ()
    backend: Backend = "auto"
    threads: int | None = Field(default=None, ge=1)
    workers: int = Field(default=0, ge=0)
    cluster: str | None = None
    device: str | None = None

    def world(self, own: "EnvConfig | None") -> "EnvConfig | None":
        """Return the world that is named, else one's own, with what is said of it; None if nobody says which.

        Raises:
            ConfigError: If it cannot be said of a world.
            EnvError: If one's own would read files, see `EnvConfig.checked`.
        """
        said = self.model_dump(mode="json", exclude_unset=True)
        if self.id is not None:
            return parse(EnvConfig, said)
        return None if own is None else own.checked().told(said)


class EnvConfig(EnvWords):
    """The world."""

    id: str

    @classmethod
    def of(cls, spec: EnvSpec) -> "EnvConfig":
        """Return the config of a world that exists; how it is stepped is left open."""
        return cls(id=spec.id, options=spec.options, wrappers=spec.wrappers)

    def told(self, said: Mapping[str, Any]) -> "EnvConfig":
        """Return this world with something else said of it: options one by one, all else as a whole.

        Args:
            said: What is said of it, a tree of JSON types.

        Raises:
            ConfigError: If it cannot be said of a world.
        """
        return parse(EnvConfig, _over(self.tree(), said))

    def checked(self) -> Self:
        """Return the config of a world that nobody here named: it comes with a dataset or a checkpoint, not trusted.

        Raises:
            EnvError: If an option names a file, which would be read: an MJCF may pull in others and fill the memory.
        """
        for option, value in self.options.items():
            for text in _files(option, value):
                raise EnvError(
                    f"the world '{self.id}' comes with a dataset or a checkpoint, and its option {option} names the "
                    f"file '{text}', which is not read for it; if you trust it, name the world yourself, with "
                    f"env.id={self.id} and env.options.{option}"
                )
        return self

    def make(self, num_envs: int = 1) -> "VectorEnv":
        """Make a batch of these worlds; see `robopol.envs.make_env`."""
        from robopol.envs.make import make_env

        env = make_env(
            self.id,
            num_envs,
            backend=self.backend,
            threads=self.threads,
            workers=self.workers,
            cluster=self.cluster,
            device=self.device,
            **self.options,
        )
        for wrapper in self.wrappers:
            env = wrapper.build(env)
        return env


def _over(tree: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree in which something else is said of some keys."""
    both = {key: _over(tree[key], value) for key, value in said.items() if isinstance(tree.get(key), dict)}
    return {**tree, **said, **both}


def _files(name: str, value: Any) -> Iterator[str]:
    """Yield the texts in an option, however deep, that name files."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _files(str(key), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _files(name, inner)
    elif isinstance(value, str) and (_FILE.search(value) or _FILE_WORDS & set(name.lower().split("_"))):
        yield value

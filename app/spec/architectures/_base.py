"""The base of every architecture's spec: the inputs that it takes, and the checks before it is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from app.spec.base import SpecModel
from app.spec.data import InputSchema, Tokens, WordPiece
from app.spec.registry import modules

Shape = tuple[int, ...]


class Architecture(SpecModel):
    """A trunk: everything up to the heads. `inputs` says what it takes; `worker/training/networks/architectures/` builds it in Keras.
    `causal`: whether no place of its map sees a later place of the input. `of_parts`: whether it has networks of other architectures in it.

    Layers have names that are unique and stable, since weights are inherited by name.
    """

    inputs: ClassVar[str]  # the name of an input kind
    causal: ClassVar[bool] = False
    of_parts: ClassVar[bool] = False
    arch: str

    @property
    def input_kind(self) -> str:
        """The name of the kind of input that it takes."""
        return self.inputs

    @property
    def label(self) -> str:
        """Its name in a sentence."""
        return self.arch

    def trunk_shape(self, shape: Shape) -> Shape:
        """The trunk's shape for inputs of `shape`; for inputs of the trunk's shape, the same.

        Raises:
            ValueError: it cannot be shown such inputs.
        """
        return shape

    @property
    def known_shape(self) -> Shape | None:
        """The shape of its rows, where the spec says it."""
        return None

    @property
    def pixels(self) -> str | None:
        """Of pictures, the scale in `app.spec.imports` that it makes itself of pixels of 0…1; None: its first layer sees these."""
        return None

    def fitted(self, shape: Shape, input: InputSchema | None = None) -> Architecture:  # noqa: ARG002
        """The same, with all that depends on the inputs written down. Raises ValueError as `trunk_shape`.

        Args:
            shape: of a row as a network sees it.
            input: what else the data say of themselves; None: nothing.
        """
        return self

    @property
    def layer_names(self) -> frozenset[str]:
        """The names of layers that are the spec's own: they stay, even where Keras's counter could have given them."""
        return frozenset()

    @property
    def tokens_seen(self) -> Tokens | WordPiece | None:
        """How it sees texts; None: byte by byte, or no texts."""
        return None

    def seen(self, input: InputSchema) -> InputSchema:
        """A data set's input as the network sees it: texts may be seen in tokens."""
        return input

    def check(self, shape: Shape) -> None:
        """Refuses inputs of `shape`, which it sees, by arithmetic alone: nothing is built.

        Raises:
            ValueError: it does not fit; the message names the layer where it ends, and the shape there.
        """


def trunk_shape(architecture: Architecture, shape: Sequence[int]) -> Shape:
    """The trunk's shape for inputs of `shape`, once it is known that the architecture takes them.

    Raises:
        ValueError: it does not; nothing was built to find out.
    """
    taken = architecture.trunk_shape(tuple(shape))
    wanted = modules("inputs")[architecture.input_kind].DIMENSIONS
    if len(taken) != wanted:
        takes = f"{architecture.arch} takes {architecture.input_kind} inputs of {wanted} dimensions"
        raise ValueError(f"{takes}, the data has shape {list(taken)}")
    architecture.check(taken)
    return taken

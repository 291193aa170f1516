"""What a training step multiplies, in closed form: the products of an encoder with a method.

The step is gone through as the encoder does it, layer by layer, but with :class:`States` in the
place of tensors: nothing is known of them but their size and whether they need a gradient. Every
matrix product is noted on a :class:`Tape`. One of :math:`F` FLOPs forward costs, in the backward
pass,

* :math:`F` for each operand that is a state and needs a gradient: the *activation gradient*;
* :math:`F` if the other operand is a weight that trains: the *weight gradient*.

A state needs a gradient if anything that it was computed from trains, so that the backward pass
ends where nothing below trains. Sums, norms, softmax and look-ups are no products; they only pass
the need on. What a method adds, and which of the encoder's own tensors it trains, it says itself
(:meth:`peftlab.methods.Method.products`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from peftlab.methods.parts.linears import widths

if TYPE_CHECKING:
    from peftlab.encoders import Anatomy
    from peftlab.methods.base import Method

Kernel = Literal["math", "fused"]

#: Stands for the embeddings where a layer is asked for.
EMBEDDINGS = -1


class Work(NamedTuple):
    """FLOPs of matrix products (2 × multiply-accumulates)."""

    forward: int
    activation_gradient: int
    weight_gradient: int

    @property
    def backward(self) -> int:
        """Both kinds of gradient."""
        return self.activation_gradient + self.weight_gradient

    @property
    def total(self) -> int:
        """Forward and backward."""
        return sum(self)


@dataclass(frozen=True)
class States:
    """What is known of a tensor [texts, length, ·]; ``needs`` is whether it needs a gradient."""

    texts: int
    length: int
    needs: bool

    def __or__(self, other: States | bool) -> States:
        """Join with another tensor, or with a vector that trains (True), number by number."""
        needs = other if isinstance(other, bool) else other.needs
        return replace(self, needs=self.needs or needs)

    def behind(self, other: States) -> States:
        """Put other states before these."""
        return replace(self | other, length=other.length + self.length)


class Tape(list[Work]):
    """The products of a step, in their order."""

    def linear(self, x: States, macs: int, trained: bool = True) -> States:
        """Note Wx, of so many multiply-accumulates a state, and return what is known of it."""
        n = 2 * x.texts * x.length * macs
        self.append(Work(n, n * x.needs, n * trained))
        return x | trained

    def product(self, x: States, y: States, macs: int) -> States:
        """Note a product of two states, of so many multiply-accumulates for each of x."""
        n = 2 * x.texts * x.length * macs
        self.append(Work(n, n * (x.needs + y.needs), 0))
        return x | y

    def attention(
        self, query: States, key: States, value: States, d: int, kernel: Kernel
    ) -> States:
        """Note the two products of attention.

        Fused kernels keep no scores: they compute them again, and all gradients if one is needed.
        So the backward pass has 5 products.
        """
        macs = d * key.length
        if kernel == "math":
            return self.product(self.product(query, key, macs), value, macs)
        n = 2 * query.texts * query.length * macs
        result = query | key | value
        self.append(Work(2 * n, 5 * n * result.needs, 0))
        return result


#: A part: given the states at its place, by name, it notes its products and returns its result.
Part = Callable[[Tape, Mapping[str, States]], States]


class WithProducts(Protocol):
    """What stands on the encoder."""

    def products(self, tape: Tape, x: States) -> None:
        """Note the products over an encoder's output x."""


@dataclass(frozen=True)
class Sketch:
    """An encoder with a method, as far as products go. A method draws itself into it.

    Attributes:
        anatomy: Of the encoder.
        weights: Layer and name (of ``LINEARS``) of the encoder's weights that train.
        vectors: The same of its biases and LayerNorms (of ``BIASES``).
        parts: Layer and place → the parts there. The places are those of
            :mod:`peftlab.methods.sites`, and the states that a part can read there:
            ``"<map>.inputs"``, ``"<map>.parts"``: the map's input x. ``"<block>.before"``: h, what
            the block's map gives; x, the residual; z, LN(h + x). ``"<block>.after"``: z.
            ``"prefixes"``: x, the layer's input. In the embeddings ``"words"``, ``"states"`` and
            ``"prompts"``: x.
        trained: Whether the parts that are drawn next train.
    """

    anatomy: Anatomy
    weights: set[tuple[int, str]] = field(default_factory=set)
    vectors: set[tuple[int, str]] = field(default_factory=set)
    parts: defaultdict[tuple[int, str], list[Part]] = field(
        default_factory=lambda: defaultdict(list)
    )
    trained: bool = True

    def frozen(self) -> Sketch:
        """Return the same sketch, into which parts made of maps are drawn that do not train."""
        return replace(self, trained=False)

    def add(self, layer: int, place: str, reads: str, *chains: Sequence[int]) -> None:
        """Draw a part made of linear maps.

        Args:
            layer: Where.
            place: Where in the layer.
            reads: The state that every chain begins with.
            *chains: Of each map of a chain, one after the other, the multiply-accumulates for one
                state. 0 is a vector, which trains and makes no product. The chains' results meet.
        """

        def part(tape: Tape, at: Mapping[str, States]) -> States:
            result = at[reads]
            for chain in chains:
                x = at[reads]
                for macs in chain:
                    x = tape.linear(x, macs, self.trained)
                result |= x
            return result

        self.parts[layer, place].append(part)

    def run(self, tape: Tape, texts: int, length: int, kernel: Kernel) -> States:
        """Note the encoder's products and return what is known of its output."""
        x = States(texts, length, (EMBEDDINGS, "embeddings") in self.vectors)
        for part in self.parts[EMBEDDINGS, "words"]:
            x = x.behind(part(tape, {"x": x}))
        for part in self.parts[EMBEDDINGS, "states"]:
            x |= part(tape, {"x": x})
        for part in self.parts[EMBEDDINGS, "prompts"]:
            x = x.behind(part(tape, {"x": x}))
        for i in range(len(self.anatomy.layers)):
            query = self._linear(tape, i, "query", x)
            key = self._linear(tape, i, "key", x)
            value = self._linear(tape, i, "value", x)
            for part in self.parts[i, "prefixes"]:
                prefix = part(tape, {"x": x})
                key, value = key.behind(prefix), value.behind(prefix)
            gathered = tape.attention(query, key, value, self.anatomy.hidden_size, kernel)
            x = self._block(tape, i, "attention_output", "attention_layernorm", gathered, x)
            wide = self._linear(tape, i, "intermediate", x)
            x = self._block(tape, i, "output", "output_layernorm", wide, x)
        return replace(x, length=length)

    def _linear(self, tape: Tape, i: int, name: str, x: States) -> States:
        """Note a linear map of layer i and the parts at it."""
        for part in self.parts[i, f"{name}.inputs"]:
            x |= part(tape, {"x": x})
        d_in, d_out = widths(self.anatomy, name)
        y = tape.linear(x, d_in * d_out, (i, name) in self.weights) | ((i, name) in self.vectors)
        for part in self.parts[i, f"{name}.parts"]:
            y |= part(tape, {"x": x})
        return y

    def _block(self, tape: Tape, i: int, name: str, norm: str, inner: States, x: States) -> States:
        """Note the block that closes a sublayer of layer i, with the residual x."""
        h = self._linear(tape, i, name, inner)
        trained = (i, norm) in self.vectors
        for part in self.parts[i, f"{name}.before"]:
            h |= part(tape, {"h": h, "x": x, "z": h | x | trained})
        z = h | x | trained
        for part in self.parts[i, f"{name}.after"]:
            z |= part(tape, {"z": z})
        return z


def work(
    anatomy: Anatomy,
    method: Method | None,
    batch: int,
    length: int,
    *,
    head: WithProducts | None = None,
    asked: int | None = None,
    training: bool = True,
    kernel: Kernel = "math",
) -> Work:
    """Return the FLOPs of one step of an encoder with a method, and with a head.

    Of a method whose steps differ by chance (:meth:`peftlab.methods.Method.draws`) it is the
    expectation, rounded.

    Args:
        anatomy: Of the encoder.
        method: None for the bare encoder.
        batch: Texts.
        length: Tokens of each, padding included.
        head: For example ``model.head``.
        asked: States that the head maps in all, such as those of hidden pieces; by default all.
        training: Whether there is a backward pass. Without one the method is the flat one, as it is
            served.
        kernel: How attention is computed: ``"math"``, as two products (eager; on a CPU always with
            dropout), or ``"fused"`` (on a GPU, and on a CPU without dropout).

    Raises:
        SettingsError: The method does not fit the encoder, or the head has no closed form.
    """

    def step(drawn: Method | None) -> Work:
        sketch, tape = Sketch(anatomy), Tape()
        if drawn is not None:
            drawn.products(sketch)
        output = sketch.run(tape, batch, length, kernel)
        if head is not None:
            read = output if asked is None else replace(output, texts=1, length=asked)
            head.products(tape, read)
        return Work(*map(sum, zip(*tape, strict=True)))

    if not training:
        return Work(step(method and method.flat).forward, 0, 0)
    steps = [step(drawn) for drawn in (method.draws(anatomy) if method else (None,))]
    return Work(*(round(Fraction(sum(each), len(steps))) for each in zip(*steps, strict=True)))

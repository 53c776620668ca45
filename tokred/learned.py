"""Methods with trained parameters: how they are built for a backbone, find weights, and say whether they have any.

How to write one (DynamicViT is the example)::

    @register("mine")
    class Mine(LearnedReducer):
        capabilities = Capabilities(trainable=True)

        def __init__(self, keep: float = 1.0, *, weights: str | None = SHIPPED) -> None:
            super().__init__(Schedule(keep=keep), weights)

        def build(self, geometry, host):
            self.scorer = fresh(lambda: nn.Linear(geometry.dim, 1))

        def reduce(self, tokens, probe, site):
            score = run_wide(self.scorer, tokens.patches)[..., 0]
            ...

- ``attach`` (and every dry run, on a copy) calls ``prepare``, which calls ``build`` once the sizes of the backbone are
  known, and then loads weights: those given with ``weights=FILE.safetensors``, else those that come with the package
  for this method on this backbone, else none. ``fresh`` initialises sub-modules without touching global random state.
- ``trained`` is true once weights were loaded or a trainer called ``mark_trained``; it lives in the state dict, so
  copies, pickles and checkpoints keep it. ``describe`` puts it into every result: overriding methods call it too.
- ``tokred compare`` refuses a reducer with ``untrained`` parts unless it is told not to.
- In training, ``reduce`` asks ``self.training``; random numbers come from ``tokens.sample_seed`` (declare the need
  "training_seed") and ``self.step``, which the trainer sets with ``progress``; extra losses come from
  ``training_losses``, which the trainer adds to its own.
- ``tokred.learned_files.save_learned`` writes what ``weights=`` reads: safetensors, never a pickle.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.precision import full_precision
from tokred.reducer import TokenReducer
from tokred.schedule import Schedule

if TYPE_CHECKING:
    from tokred.attach import Run

SHIPPED = "shipped"
"""``weights=`` for those that come with the package, where there are some."""

WHOLE: tuple[slice, ...] = (slice(None),)
"""Logits that are one classification."""

INIT_STD = 0.02

Module = TypeVar("Module", bound=nn.Module)


class LearnedError(ValueError):
    """Weights of a learned method that cannot be used: what was given, and what is allowed."""


class LearnedReducer(TokenReducer):
    """Base of the methods that have parameters of their own.

    Attributes:
        weights: "shipped", a safetensors file, or None for untrained parameters.
        trained_steps: () int64, optimizer steps that the parameters were trained for; part of the state dict.
        provenance: where the weights come from, in words; "" while they are random.
        step: the trainer's step, for random numbers and annealing; see ``progress``.
    """

    trained_steps: Tensor

    def __init__(self, schedule: Schedule, weights: str | None = SHIPPED) -> None:
        super().__init__(schedule)
        self.weights = weights
        self.register_buffer("trained_steps", torch.zeros((), dtype=torch.int64))
        self.provenance = ""
        self.step = 0
        self.steps_total = 1
        self._sizes: tuple[Any, ...] | None = None

    @abstractmethod
    def build(self, geometry: Geometry, host: nn.Module | None) -> None:
        """Create the sub-modules for a backbone, untrained; called again where a backbone has other sizes.

        Args:
            geometry: its sizes.
            host: the model, for methods that start from its weights; None where only sizes are known.
        """

    def sizes(self, geometry: Geometry) -> tuple[Any, ...]:
        """What the shapes of the parameters depend on."""
        return (geometry.dim, geometry.heads, geometry.depth)

    def prepare(self, geometry: Geometry, host: nn.Module | None = None) -> None:
        """Build the parameters for a backbone and load their weights, where that is not yet done.

        Parameters that are there and fit are kept, so what was trained or loaded stays.

        Raises:
            LearnedError: weights that cannot be read or do not fit; trained parameters on a backbone of other sizes.
        """
        sizes = self.sizes(geometry)
        if self._sizes != sizes:
            if self.trained:
                raise LearnedError(
                    f"{self.spec} was trained for a backbone of sizes {self._sizes}, this one has {sizes}: "
                    "make another instance for it"
                )
            self.build(geometry, host)
            self._sizes = sizes
        if host is None or self.trained or self.weights is None:
            return
        from tokred.learned_files import load_learned, shipped_weights

        if self.weights != SHIPPED:
            load_learned(self, self.weights)
        elif (found := shipped_weights(self.method, host)) is not None:
            load_learned(self, found)

    @property
    def trained(self) -> bool:
        """Whether the parameters are more than random numbers."""
        steps = self.trained_steps
        return not steps.is_meta and int(steps) > 0

    def mark_trained(self, steps: int, provenance: str) -> None:
        """State that the parameters were trained.

        Args:
            steps: optimizer steps, at least 1; provenance: where they come from, shown in every result.
        """
        if steps < 1:
            raise LearnedError(f"steps = {steps} is not a whole number of at least 1")
        self.trained_steps.fill_(steps)
        self.provenance = provenance

    def adapt(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
        """Weights of a file, made to fit these settings where the method knows how; and what was done, "" = nothing."""
        return state, ""

    def progress(self, step: int, steps: int) -> None:
        """Told by a trainer before each step: which one it is, from 0, and of how many."""
        self.step, self.steps_total = step, max(1, steps)

    def training_losses(self, student: Run, teacher: Run | None, tasks: Sequence[slice] = WHOLE) -> dict[str, Tensor]:
        """Losses that training adds to the task's, by name, weighted; default none.

        Args:
            student: a forward in training mode with its steps recorded.
            teacher: the unreduced frozen model on the same clips, None where the trainer has none.
            tasks: the parts of the logits that are a classification each.
        """
        return {}

    def describe(self, geometry: Geometry) -> list[str]:
        """Whether it is trained, and on what."""
        if not self.trained:
            return [f"{self.method or type(self).__name__} is untrained: its parameters are random"]
        where = f", {self.provenance}" if self.provenance else ""
        return [f"{self.method or type(self).__name__} is trained ({int(self.trained_steps)} steps{where})"]


def learned_parts(reducer: TokenReducer) -> list[LearnedReducer]:
    """The learned methods in a reducer: itself, or those of a composition."""
    from tokred.compose import parts_of

    return [part for part in parts_of(reducer) if isinstance(part, LearnedReducer)]


def untrained(reducer: TokenReducer) -> list[str]:
    """The learned methods in a reducer whose parameters are random; ask after ``attach`` or ``prepare``."""
    return [part.spec for part in learned_parts(reducer) if not part.trained]


def fresh(make: Callable[[], Module], seed: int = 0) -> Module:
    """A module with parameters from a generator of its own: no global random state is touched.

    Linear and convolution weights are normal with standard deviation 0.02, cut at two of them, biases zero, norms
    the identity: what ViT code bases start from. A module with parameters of another kind has a method
    ``initialise(generator)``.

    Args:
        make: builds the module.
        seed: another seed, another start.
    Raises:
        LearnedError: parameters that nothing here initialises.
    """
    with torch.device("meta"):
        module = make()
    module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, part in module.named_modules():
        own = list(part.parameters(recurse=False))
        initialise = getattr(part, "initialise", None)
        if callable(initialise):
            initialise(generator)
        elif isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.trunc_normal_(part.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, (nn.LayerNorm, nn.GroupNorm)):
            if part.affine if isinstance(part, nn.GroupNorm) else part.elementwise_affine:
                nn.init.ones_(part.weight)
                nn.init.zeros_(part.bias)
        elif own or list(part.buffers(recurse=False)):
            raise LearnedError(
                f"{name or type(part).__name__} has tensors that nothing initialises: give it initialise"
            )
    return module


def run_wide(module: nn.Module, x: Tensor, *more: Tensor | None) -> Tensor:
    """``module(x, *more)`` in float32 or wider, whatever the precision of the model and of autocast: for decisions.

    Differentiable in x and in the parameters. The inputs after x are passed on as they are.
    """
    parameters = dict(module.named_parameters())
    dtype = torch.promote_types(x.dtype, torch.float32)
    for parameter in parameters.values():
        dtype = torch.promote_types(dtype, parameter.dtype)
    with full_precision(x):
        if all(parameter.dtype == dtype for parameter in parameters.values()):
            return module(x.to(dtype), *more)
        wide = {name: parameter.to(dtype) for name, parameter in parameters.items()}
        return torch.func.functional_call(module, wide, (x.to(dtype), *more))


def uniform(integers: Tensor) -> Tensor:
    """Integers of ``tokred.matching.noise`` as float64 numbers inside (0, 1), neither end included."""
    return (integers.double() + 0.5) / math.ldexp(1.0, 31)

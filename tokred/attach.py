"""Attach a reducer to a model with one line, and take it off again.

The attached model wraps the host: nothing is ever written on the host, so there is nothing to undo.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tokred.backbones import adapter_for
from tokred.backbones.adapter import Adapter, Unsupported
from tokred.backbones.verify import verify_adapter
from tokred.backbones.windowed import padding_notes
from tokred.compose import parts_of
from tokred.driver import Observe, actions_of, recorder, run_blocks
from tokred.driver import perform as perform_step
from tokred.dry import dry_run
from tokred.plan import Plan
from tokred.probe import STATISTICS, WINDOW_STATISTICS
from tokred.ranking import is_exporting
from tokred.reducer import Site, SmallerInput, TokenReducer
from tokred.reduction import Reduction
from tokred.schedule import ScheduleError
from tokred.tokens import Tokens, sample_seeds, spread


class Run(NamedTuple):
    """One forward with its inside.

    Args:
        logits: (B, classes); pooled: the vector before the classifier, (B, C).
        tokens: what reached the head, with ``source`` when traced.
        steps: each step's site and reduction, in order.
    """

    logits: Tensor
    pooled: Tensor
    tokens: Tokens
    steps: tuple[tuple[Site, Reduction], ...]


class Attached(nn.Module):
    """A host with a reducer: same call, same output. Attributes it lacks are read from the host.

    Attributes:
        host: the untouched model; reducer: the method.
        plan: token counts at the native input size, None when they depend on the content.
        notes: corrections made and what ran, for reports.
    """

    def __init__(self, host: nn.Module, reducer: TokenReducer, adapter: Adapter) -> None:
        super().__init__()
        geometry = adapter.geometry(host)
        self.host = host
        self.reducer = reducer
        self.adapter = adapter
        self.geometry = geometry
        self._parts = parts_of(reducer)
        self.plan: Plan | None = dry_run(reducer, geometry) if reducer.capabilities.static_counts else None
        self.notes: tuple[str, ...] = (
            tuple(reducer.check(geometry)) if self.plan is None else self.plan.notes
        ) + tuple(reducer.describe(geometry))
        if self.plan is not None and getattr(adapter, "skip_replicas", False):
            place = next((p.device for p in host.parameters()), torch.device("cpu"))
            self.notes += padding_notes(geometry, self.plan, place)
        if reducer.capabilities.stateful and adapter.checkpoints(host):
            self.notes += ("gradient checkpointing is off: a block that runs again would move the state on twice",)
        self._actions = actions_of(self._parts, geometry)
        self._stateful = reducer.capabilities.stateful
        self._proportional = any(part.proportional for part in self._parts)
        self._pool = "mass" if any(part.pool == "mass" for part in self._parts) else "mean"
        self._seeded = "sample_seed" in reducer.capabilities.needs
        self._seeded_in_training = "training_seed" in reducer.capabilities.needs
        self._smaller: SmallerInput | None = reducer.smaller_input(geometry)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The host's call with reduced tokens; returns what the host returns."""
        tokens = self._tokens(self.adapter.read_input(args, kwargs))
        features = self.adapter.features(self.host, tokens, self._pool)
        logits = self.adapter.classify(self.host, features, tokens, self._pool)
        return self.adapter.write_output(self.host, logits, args, kwargs)

    def forward_features(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the host's ``forward_features`` returns, from the reduced tokens."""
        tokens = self._tokens(self.adapter.read_input(args, kwargs))
        return self.adapter.features(self.host, tokens, self._pool)

    def run(
        self, *args: Any, trace: bool = False, record: bool = False, observe: Observe | None = None, **kwargs: Any
    ) -> Run:
        """A forward that also returns its inside.

        Args:
            trace: follow which token carries each original patch (``tokens.source``).
            record: return each step's reduction.
            observe: called with the index of each block and the tokens that left it, and before the first one with
                -1 and those that enter it.
        """
        records: list[tuple[Site, Reduction]] = []
        pixels = self.adapter.read_input(args, kwargs)
        tokens = self._tokens(pixels, trace=trace, records=records if record else None, observe=observe)
        features = self.adapter.features(self.host, tokens, self._pool)
        logits = self.adapter.classify(self.host, features, tokens, self._pool)
        pooled = self.adapter.pooled(self.host, features, tokens, self._pool)
        return Run(logits, pooled, tokens, tuple(records))

    def _tokens(
        self,
        pixels: Tensor,
        trace: bool = False,
        records: list[tuple[Site, Reduction]] | None = None,
        observe: Observe | None = None,
    ) -> Tokens:
        tokens = self.adapter.embed(self.host, pixels, self._smaller)
        if trace:
            b, p = tokens.x.shape[0], tokens.grid.patches
            source = torch.arange(tokens.prefix, tokens.prefix + p, device=tokens.x.device).expand(b, p)
            tokens = replace(tokens, source=source)
        if self._seeded or (self._seeded_in_training and self.reducer.training):
            tokens = replace(tokens, sample_seed=spread(sample_seeds(pixels), tokens.x.shape[0]))
        if not self._stateful:
            return self._blocks(tokens, records, observe)
        steps = self.adapter.steps(self.host, tokens)
        if len(steps) > 1:
            # The host runs its blocks over the clip's own time: each call is a video.
            self.reducer.reset()
        elif is_exporting() and not torch.compiler.is_dynamo_compiling():  # some releases say so when they compile, too
            raise ScheduleError(
                f"{self.reducer.spec} keeps state between forwards, which an exported program would not carry: export "
                "a method without state, or this one on a host that runs its blocks over the clip's own time"
            )
        return self.adapter.joined([self._blocks(step, records, observe) for step in steps])

    def _blocks(self, tokens: Tokens, records: list[tuple[Site, Reduction]] | None, observe: Observe | None) -> Tokens:
        if observe is not None:
            observe(-1, tokens)
        # A block that is run again in the backward pass would move state on twice.
        checkpoint = records is None and not self._stateful and self.adapter.checkpoints(self.host)
        tokens, _ = run_blocks(
            self.adapter,
            self.host,
            tokens,
            self._actions,
            proportional=self._proportional,
            perform=perform_step if records is None else recorder(records),
            checkpoint=checkpoint,
            observe=observe,
        )
        return tokens

    def reset(self) -> None:
        """Start a new video: stateful methods forget the last one."""
        self.reducer.reset()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "host" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self._modules["host"], name)


def attach(model: nn.Module, reducer: TokenReducer, *, skip_replicas: bool = True) -> Attached:
    """The model with the reducer: same call signature, same output shape.

    Args:
        model: one of the project's own backbones, a timm ``VisionTransformer``, a transformers
            ``VideoMAEForVideoClassification`` or a torchvision ``SwinTransformer3d``; it is wrapped, never changed.
        skip_replicas: on hosts with windows, compute no queries for places whose token was dropped: the same tokens
            with fewer multiply-adds. False is the published form.
        reducer: a method; learned methods train with the attached model.
    Raises:
        Unsupported: the model, or a part of it, is not fully understood; the message gives the reason.
        ScheduleError: settings that are impossible on this model, with the numbers.
        TypeError: not a reducer.
    """
    if not isinstance(reducer, TokenReducer):
        hint = " (an instance is needed, not the class)" if isinstance(reducer, type) else ""
        raise TypeError(f"reducer must be a tokred.TokenReducer, got {reducer!r}{hint}")
    if isinstance(model, Attached):
        raise Unsupported("the model has a reducer attached: detach it first, or combine both with tokred.compose")
    adapter = adapter_for(model).with_form(skip_replicas)
    adapter.check(model)
    check_needs(reducer, adapter, model)
    verify_adapter(adapter, model, token_by_token=any(part.evaluates for part in parts_of(reducer)))
    reducer.reset()
    reducer.prepare(adapter.geometry(model), model)
    attached = Attached(model, reducer, adapter)
    # Not attached.train(): that would also switch parts of the host that its owner keeps in another mode.
    attached.training = model.training
    reducer.train(model.training)
    first = next(model.parameters(), None)
    if first is not None and reducer.capabilities.trainable:
        reducer.to(first.device)
    return attached


def detach(model: nn.Module) -> nn.Module:
    """The host again, bit for bit as it was.

    Raises:
        ValueError: nothing is attached.
    """
    if not isinstance(model, Attached):
        raise ValueError(f"{type(model).__name__} has no reducer attached")
    model.reducer.reset()
    return model.host


def check_needs(reducer: TokenReducer, adapter: Adapter, model: nn.Module) -> None:
    """Refuse a reducer that needs what the backbone does not have.

    Raises:
        Unsupported: naming the need.
    """
    geometry = adapter.geometry(model)
    needs = reducer.capabilities.needs
    if not geometry.has_class_token and "class_token" in needs:
        raise Unsupported(f"{reducer.spec} needs a class token; {adapter.name} has none here")
    # The class row is read only where there is a class token; a method that cannot do without needs "class_token". One
    # that can do with received attention reads that where the mean query does not see all tokens.
    spared = {"class_row", "mean_query_row"} if "received" in needs else {"class_row"}
    missing = sorted(needs & set(STATISTICS) - WINDOW_STATISTICS - spared)
    if geometry.stages and missing:
        raise Unsupported(
            f"{reducer.spec} needs {', '.join(missing)}, which {adapter.name} does not have: its attention stays "
            f"inside windows; it has {', '.join(sorted(WINDOW_STATISTICS))}"
        )

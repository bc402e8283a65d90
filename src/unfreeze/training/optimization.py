"""The optimizer, its parameter groups and the rate at each step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from unfreeze.models.layers import LayerGroups
from unfreeze.plan import PlannedPhase

# Bias-corrected Adam; without the correction small data sets fine-tune unreliably (Mosbach et al. 2021,
# arXiv 2006.04884, section 5; Zhang et al. 2021, arXiv 2006.05987).
BETAS = (0.9, 0.999)
EPSILON = 1e-8


def rate_factor(step: int, steps: int, warmup_steps: int, decay: str) -> float:
    """Factor on the peak rate for the update number `step` (from 0) of a phase.

    It rises linearly over `warmup_steps` updates, then falls to 0 at the end of the phase (``linear``, ``cosine``) or
    stays (``constant``).

    >>> [round(rate_factor(s, 10, 2, "linear"), 2) for s in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.12]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    if decay == "constant":
        return 1.0
    return 1.0 - progress if decay == "linear" else 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(
    groups: LayerGroups, phase: PlannedPhase, trainable: Mapping[str, torch.nn.Parameter], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters with one rate for each layer group.

    Biases and normalisation weights (one dimension) are not decayed. Each parameter group carries its layer group's
    ``name``, the ``peak`` rate and the parameters' ``names``.

    Args:
        groups: Says which layer group a name belongs to.
        phase: With the groups' rates.
        trainable: By name; not always the model's own parameters (see `vocabulary`).
        weight_decay: Decoupled.
    """
    parameter_groups: list[dict[str, object]] = []
    for group, rate in phase.learning_rates.items():
        members = {n: trainable[n] for n in groups.parameters(group) if n in trainable}
        for decays in (True, False):
            names = [n for n, p in members.items() if (p.ndim > 1) is decays]
            if names:
                parameter_groups.append(
                    {
                        "params": [members[n] for n in names],
                        "names": names,
                        "name": group,
                        "peak": rate,
                        "lr": rate,
                        "weight_decay": weight_decay if decays else 0.0,
                    }
                )
    return torch.optim.AdamW(parameter_groups, betas=BETAS, eps=EPSILON, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def _named_parameters(optimizer: torch.optim.Optimizer) -> dict[str, torch.nn.Parameter]:
    return {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }


def moments_by_name(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as ``name/exp_avg`` and so on, so that it survives other parameter groups."""
    return {
        f"{name}/{key}": value.detach()
        for name, parameter in _named_parameters(optimizer).items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def drop_partial_moments(optimizer: torch.optim.Optimizer) -> None:
    """Forget the state of parameters for which memory ended before all of it was made; it is made anew."""
    for parameter in list(optimizer.state):
        if 0 < len(optimizer.state[parameter]) < 3:
            del optimizer.state[parameter]


def restore_moments(optimizer: torch.optim.Optimizer, moments: Mapping[str, torch.Tensor]) -> None:
    """Put stored state back for the parameters that are trained now."""
    stored: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in moments.items():
        name, _, kind = key.rpartition("/")
        stored.setdefault(name, {})[kind] = value
    for name, parameter in _named_parameters(optimizer).items():
        if name in stored:
            # Trap: the step counter stays float32 on the parameter's device for the fused kernel, whatever the
            # parameter's own precision is.
            optimizer.state[parameter] = {
                kind: value.to(parameter.device, torch.float32 if kind == "step" else parameter.dtype)
                for kind, value in stored[name].items()
            }

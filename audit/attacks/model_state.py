"""Audit a model without leaving a trace on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from hardroute.audit.attacks.loop import frozen


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Within: eval mode and frozen weights. After: mode, flags, buffers and the global RNG are as they were.

    Attacks freeze the model themselves; around all of them this also covers the forward passes between, an
    attack that draws from the global RNG, and a module that updates its buffers even in eval mode.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), frozen(model):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights lie; the CPU for a model without weights."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

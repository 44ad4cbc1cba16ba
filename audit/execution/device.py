"""Where torch computes: the device that was asked for, or an error; never silently another one."""

from __future__ import annotations

import os

import torch

from hardroute.runtime.errors import BackendError


def require_cuda(name: str) -> None:
    """Raises BackendError, naming the device that was asked for, if this torch sees no GPU."""
    if not torch.cuda.is_available():
        raise BackendError(f"device {name}: this torch sees no CUDA device; use cpu, or a CUDA build of torch")


def open_device(name: str) -> torch.device:
    """The device `name`: "cpu", "cuda" or "cuda:N". Under torchrun, "cuda" is each process's own (LOCAL_RANK).

    On CUDA, convolutions are then made exact and repeatable in this process: TF32's 10 bits would tell the audited
    model from the deployed one.

    Raises BackendError if there is no such device, or this torch cannot use it.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BackendError(f"device {name}: no such device; use cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise BackendError(f"device {name}: use cpu, cuda or cuda:N")
    require_cuda(name)
    index, count = (
        int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index,
        torch.cuda.device_count(),
    )
    if index >= count:
        raise BackendError(f"device {name}: there is no cuda:{index}, only cuda:0 to cuda:{count - 1}")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return torch.device("cuda", index)

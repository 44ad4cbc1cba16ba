"""The processes of one run: `torchrun --nproc_per_node 2 -m hardroute fit ...` trains as one process does.

A batch is split into `shards`, each with batch statistics of its own, whoever computes them; processes share the shards
and add up gradients. So the result does not depend on how many processes there are, up to the order of a sum.
"""

import os
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hardroute.runtime.errors import BackendError

# One process validates and writes while the others wait.
TIMEOUT = timedelta(hours=1)


class ProcessGroup:
    """This process among those of the run. Example: `with ProcessGroup.join("cpu") as processes: ...`

    Attributes:
        rank, size: which one it is, of how many.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def join(cls, device: str) -> "ProcessGroup":
        """What torchrun started; alone without it. Raises BackendError if there are fewer GPUs than processes."""
        if not dist.is_torchelastic_launched():
            return cls()
        if device == "cuda":
            local = int(os.environ["LOCAL_RANK"])
            if local >= torch.cuda.device_count():
                raise BackendError(f"process {local} has no GPU: there are {torch.cuda.device_count()}; start fewer")
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over the processes."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def all_reduce_gradients(self, model: nn.Module) -> None:
        """Adds up the weights' gradients; a weight that no process used keeps none, and so is not moved."""
        if self.size == 1:
            return
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        used = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.float32)
        used = used.to(weights[0].device)
        self.all_reduce([used])
        for weight, count in zip(weights, used.tolist(), strict=True):
            if count and weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        self.all_reduce([weight.grad for weight in weights if weight.grad is not None])

    def barrier(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def __enter__(self) -> "ProcessGroup":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.size > 1:
            dist.destroy_process_group()

"""How much memory a call holds, counted rather than sampled: every tensor's storage from birth to death."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):
    """Bytes of all storages made within that something still holds; `peak` is the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        # The references keep a storage's key from being given to another one.
        self._older: dict[int, StorageWeakRef] = {}
        self._born: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        # A storage first met as an input was there before.
        for storage in _storages((args, kwargs)):
            if _key(storage) not in self._born:
                self._older.setdefault(_key(storage), StorageWeakRef(storage))
        self._born = {key: born for key, born in self._born.items() if not born[0].expired()}
        for storage in _storages(out):
            if _key(storage) not in self._older:
                self._born[_key(storage)] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self._born.values()))
        return out


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _key(storage: torch.UntypedStorage) -> int:
    return storage._cdata


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes that tensors made by `call` hold at once. What an operation allocates and frees inside is not seen."""
    with _Live() as live:
        call()
    return live.peak

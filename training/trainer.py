"""The trainer: runs a schedule of steps over the training clips, epoch by epoch, and can go on where it was killed."""

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models import VideoMoE, build_model
from models.published import start_from
from runtime.clips import ClipArrays
from runtime.errors import BackendError
from training.batches import augment, batches
from training.losses import step_loss
from training.methods import Step, find_method
from training.run import Run, optimizer_state, restore_optimizer
from training.settings import FitSettings
from training.validation import validate


class Reporter(Protocol):
    """What a run tells while it goes; `__main__` shows it, tests collect it."""

    def batch(self, epoch: int, step: str, done: int, total: int, loss: float) -> None: ...
    def epoch(self, metrics: dict[str, Any]) -> None: ...
    def warn(self, text: str) -> None: ...


def learning_rate(progress: float) -> float:
    """Share of the peak learning rate: linear warm-up over a tenth of the run, then a cosine to zero."""
    warm = 0.1
    if progress < warm:
        return progress / warm
    return 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm)))


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for the experts' matrices only: decaying the router's scores would pull it towards collapse."""
    decayed = [p for n, p in model.named_parameters() if p.dim() > 1 and not n.startswith("router.")]
    rest = [p for n, p in model.named_parameters() if p.dim() <= 1 or n.startswith("router.")]
    return [{"params": decayed, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def require_device(device: str) -> None:
    """Raises BackendError if this torch cannot run on `device`, rather than falling back to another."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError("--device cuda: this torch sees no CUDA device; use --device cpu or a CUDA build of torch")


class Trainer:
    """One run over one training and one validation set.

    Raises:
        BackendError: the settings ask for CUDA and there is none.
    """

    def __init__(self, run: Run, train: ClipArrays, val: ClipArrays, reporter: Reporter) -> None:
        self.run, self.train, self.val, self.reporter = run, train, val, reporter
        self.fit: FitSettings = run.record.settings
        self.steps = find_method(self.fit.method).steps
        require_device(self.fit.device)
        if self.fit.device == "cuda":
            torch.set_float32_matmul_precision("high")
        torch.manual_seed(self.fit.seed)
        self.model = build_model(run.record.spec)
        if self.fit.init and not run.finished_epochs:
            start_from(list(self.model.experts), list(self.fit.init))
        self.model.to(self.fit.device)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.fit.average), use_buffers=True)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, self.fit.weight_decay), lr=self.fit.lr)
        by_tensor = {parameter: name for name, parameter in self.model.named_parameters()}
        self.names = [by_tensor[p] for group in self.optimizer.param_groups for p in group["params"]]
        self.batches_per_step = max(len(train.labels) // self.fit.batch, 1)
        if run.finished_epochs:
            self._restore(run.load_resume())

    def go(self) -> None:
        """Train to the last epoch, saving after each."""
        for epoch in range(self.run.finished_epochs, self.fit.epochs):
            began = time.monotonic()
            losses = {}
            for number, step in enumerate(self.steps):
                losses[step.part] = self._sweep(epoch, number, step)
            measured = validate(
                self.exported,
                self.val,
                eps=self.fit.eps,
                steps=10,
                batch=self.fit.batch,
                device=self.fit.device,
                seed=self.fit.seed,
            )
            metrics = {
                "epoch": epoch + 1,
                "loss": losses,
                **measured,
                "seconds": round(time.monotonic() - began, 1),
            }
            self._warn(metrics)
            self.run.save_epoch(epoch + 1, self.exported, self._resume_state(), metrics)
            self.reporter.epoch(metrics)

    @property
    def exported(self) -> VideoMoE:
        """The model that is validated and exported: the averaged weights."""
        averaged: Any = self.average.module
        return averaged if self.fit.average else self.model

    def _sweep(self, epoch: int, number: int, step: Step) -> float:
        """One step of the schedule over all training clips; the mean loss."""
        seed = (self.fit.seed * 10_000 + epoch) * 10 + number
        order = torch.Generator().manual_seed(seed)
        source = torch.Generator(device=self.fit.device).manual_seed(seed)

        def noise(x: Tensor) -> Tensor:
            return torch.empty_like(x).uniform_(-1, 1, generator=source)

        with _only(self.model, step.part):
            total, done = 0.0, 0
            for x, y in batches(self.train, self.fit.batch, self.fit.device, order):
                self._set_learning_rate(epoch, number, done)
                x = augment(x, self.fit.shift, self.fit.flip, order)
                self.model.train()
                loss = step_loss(step, self.model, x, y, self._budget(epoch, number, done), self.fit, noise)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
                self.optimizer.step()
                self.average.update_parameters(self.model)
                total, done = total + loss.item(), done + 1
                self.reporter.batch(epoch + 1, step.part, done, self.batches_per_step, total / done)
        return total / max(done, 1)

    def _progress(self, epoch: int, number: int, done: int) -> float:
        """Share of the run that is done."""
        sweeps = epoch * len(self.steps) + number + done / self.batches_per_step
        return sweeps / (self.fit.epochs * len(self.steps))

    def _budget(self, epoch: int, number: int, done: int) -> float:
        """The inner attack's eps: grows over the first `ramp` of the run."""
        if not self.fit.ramp:
            return self.fit.eps
        return self.fit.eps * min(1.0, self._progress(epoch, number, done) / self.fit.ramp)

    def _set_learning_rate(self, epoch: int, number: int, done: int) -> None:
        rate = self.fit.lr * learning_rate(self._progress(epoch, number, done))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _warn(self, metrics: dict[str, Any]) -> None:
        where = f"epoch {metrics['epoch']}"
        if not all(math.isfinite(loss) for loss in metrics["loss"].values()):
            self.reporter.warn(f"{where}: the loss is not finite; lower --lr")
        if metrics["load_entropy"] < 0.5:
            self.reporter.warn(
                f"{where}: the router is collapsing (load entropy {metrics['load_entropy']:.2f} of 1); raise --balance"
            )

    def _resume_state(self) -> dict[str, Tensor]:
        model = {f"model:{k}": v for k, v in self.model.state_dict().items()}
        average = {f"average:{k}": v for k, v in self.average.state_dict().items()}
        optimizer = {f"optimizer:{k}": v for k, v in optimizer_state(self.optimizer, self.names).items()}
        # Clones: safetensors refuses tensors that share memory.
        return {k: v.detach().clone() for k, v in (model | average | optimizer).items()}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model:"))
        self.average.load_state_dict(part("average:"))
        restore_optimizer(self.optimizer, self.names, part("optimizer:"))


class _only:
    """Inside, only the weights of one part take gradients: "moe" (all), "router" or "experts"."""

    def __init__(self, model: VideoMoE, part: str) -> None:
        parts: dict[str, Callable[[], nn.Module]] = {
            "moe": lambda: model,
            "router": lambda: model.router,
            "experts": lambda: model.experts,
        }
        self.model, self.chosen = model, parts[part]()

    def __enter__(self) -> None:
        self.model.requires_grad_(False)
        self.chosen.requires_grad_(True)

    def __exit__(self, *exception: object) -> None:
        self.model.requires_grad_(True)

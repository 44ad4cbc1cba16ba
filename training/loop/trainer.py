"""The trainer: runs a schedule of steps over the training clips, epoch by epoch, and can go on where it was killed."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from hardroute.audit.evaluation import KINDS, counted
from hardroute.models import Folded, VideoMoE, build_model
from hardroute.models.half_precision import keep_in_fp32
from hardroute.models.published import start_from
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.errors import DataError
from hardroute.training.loop.batches import augment, batches
from hardroute.training.loop.distributed import ProcessGroup
from hardroute.training.loop.monitor import Monitor
from hardroute.training.loop.optimiser import (
    AverageUpdate,
    adamw,
    budget,
    learning_rate,
    names_of,
    optimizer_state,
    restore_optimizer,
)
from hardroute.training.loop.phases import Trainable, copy_first_expert, single_expert, start_steps
from hardroute.training.loop.tracking import EventFile, draw
from hardroute.training.loop.validation import validate
from hardroute.training.losses import put_back, step_gradients
from hardroute.training.methods import Step, find_method
from hardroute.training.precision import Precision
from hardroute.training.run import EpochRecord, Run, ValidatedEpoch, Validation, validated
from hardroute.training.settings import FitSettings


class Reporter(Protocol):
    """What a run tells while it goes. `progress`: share of the whole run that is done."""

    def batch(self, epoch: int, step: str, done: int, total: int, loss: float, progress: float) -> None: ...
    def epoch(self, record: EpochRecord) -> None: ...
    def warn(self, text: str) -> None: ...


class Trainer:
    """One run over one training and one validation set.

    Raises:
        BackendError: the settings ask for CUDA and there is none, or for half precision that it has not.
        MethodError: processes cannot share the shards of a batch evenly.
        DataError: the run's folder is damaged.
    """

    def __init__(
        self,
        run: Run,
        train: ClipArrays,
        val: ClipArrays,
        reporter: Reporter,
        processes: ProcessGroup | None = None,
    ) -> None:
        self.run, self.train, self.val, self.reporter = run, train, val, reporter
        self.fit: FitSettings = run.record.settings
        self.processes = processes or ProcessGroup()
        self.fit.check_processes(self.processes.size)
        self.method = find_method(self.fit.method)
        self.precision = Precision(self.fit.precision, self.fit.device)
        if self.fit.device == "cuda":
            torch.set_float32_matmul_precision("high")
        torch.manual_seed(self.fit.seed)
        self.model = build_model(run.record.spec)
        if self.fit.init and not run.finished_epochs:
            start_from(list(self.model.experts), list(self.fit.init))
        self.model.to(self.fit.device)
        self._prove_arithmetic()
        self.average = AveragedModel(self.model, multi_avg_fn=AverageUpdate(self.fit.average), use_buffers=True)
        self.whole = Trainable(self.model)
        one = self.fit.shared_epochs and self.fit.start == "one"
        self.first = Trainable(single_expert(self.model)) if one else None
        # After the copies were made, which must not be watched as well.
        best = max((epoch.robust for epoch in validated(run.metrics)), default=0.0)
        self.monitor = Monitor(self.model, reporter.warn, best)
        self.optimizer = adamw(self.model, self.fit.lr, self.fit.weight_decay)
        self.names = names_of(self.optimizer, self.model)
        self.batches_per_step = max(train.videos // self.fit.batch, 1)
        if run.finished_epochs:
            self._restore(run.load_resume())

    def go(self) -> None:
        """Trains to the last epoch, saving after each."""
        events = EventFile(self.run.root / "events", self.run.metrics) if self.processes.is_main else None
        for epoch in range(self.run.finished_epochs, self.fit.epochs):
            began = time.monotonic()
            self.monitor.begin(epoch + 1)
            with ExitStack() as stack:
                passes = stack.enter_context(counted(self.model, *self._attacked))
                of_experts = [stack.enter_context(counted(*each)) for each in self._single_experts()]
                losses = self._parted_epoch(epoch) if self._parted(epoch) else self._shared_epoch(epoch)
            self.monitor.end()
            spent = torch.from_numpy(passes.total).to(self.fit.device, torch.float32)
            load = torch.tensor([float(each.total.sum()) for each in of_experts], device=self.fit.device)
            self.processes.all_reduce([spent, load])
            if events:
                record = EpochRecord(
                    epoch=epoch + 1,
                    loss=losses,
                    copies=self.first is not None and not self._parted(epoch),
                    skipped=self.monitor.skipped,
                    trained_load=tuple((load / load.sum().clamp_min(1)).tolist()),
                    passes=dict(zip(KINDS, (int(count) for count in spent), strict=True)),
                )
                if self._due(epoch + 1):
                    found = self._validate()
                    self.monitor.epoch(found)
                    record = ValidatedEpoch(**record.model_dump(), **found.model_dump())
                record = record.model_copy(update={"seconds": round(time.monotonic() - began, 1)})
                self.run.save_epoch(self.exported, self._resume_state(), record)
                events.add(record)
                draw(self.run.root / "dynamics.png", self.run.metrics)
                self.reporter.epoch(record)
            self.processes.barrier()

    @property
    def exported(self) -> VideoMoE:
        """The model that is validated and exported: the averaged weights."""
        averaged: Any = self.average.module
        return averaged

    @property
    def _attacked(self) -> list[VideoMoE]:
        return [trainable.folded.twin for trainable in (self.whole, self.first) if trainable]

    def _single_experts(self) -> list[list[VideoMoE]]:
        """For each expert the mixtures of it alone: as it is trained, and as it is attacked."""
        found = [
            [single_expert(model, j) for model in (self.model, self.whole.folded.twin)]
            for j in range(len(self.model.experts))
        ]
        found[0] += [self.first.folded.twin] if self.first else []
        return found

    def _parted(self, epoch: int) -> bool:
        return epoch >= self.fit.shared_epochs

    def _parted_epoch(self, epoch: int) -> dict[str, float]:
        """One epoch of the schedule; the mean loss of each step."""
        steps = self.method.steps
        return {step.part: self._sweep(self.whole, step, epoch, i, len(steps)) for i, step in enumerate(steps)}

    def _shared_epoch(self, epoch: int) -> dict[str, float]:
        """One epoch of the shared start; the mean loss of each step."""
        steps, losses = start_steps(self.method, self.first is not None), dict[str, float]()
        for i, (step, alone) in enumerate(steps):
            trainable, name = (self.first, self.fit.kinds[0]) if alone and self.first else (self.whole, step.part)
            losses[name] = self._sweep(trainable, step, epoch, i, len(steps))
        if self.first:
            copy_first_expert(self.model.experts, self.optimizer)
            copy_first_expert(self.exported.experts)
        return losses

    def _due(self, epoch: int) -> bool:
        return epoch % self.fit.validate_every == 0 or epoch == self.fit.epochs

    def _validate(self) -> Validation:
        fit = self.fit
        model = Folded(self.exported).refresh()
        return validate(
            model, self.val, eps=fit.eps, steps=10, batch=fit.batch, device=fit.device, seed=fit.seed,
            precision=self.precision,
        )  # fmt: skip

    def _sweep(self, trainable: Trainable, step: Step, epoch: int, number: int, count: int) -> float:
        """One pass over the clips, an epoch's step `number` of `count`; the mean loss."""
        seed = (self.fit.seed * 10_000 + epoch) * 10 + number
        order = torch.Generator().manual_seed(seed)
        trainable.train(keep_norm=self._parted(epoch) and self.fit.norm == "kept")
        with trainable.only(step.part):
            total, followed = 0.0, 0
            for done, (x, y) in enumerate(batches(self.train, self.fit.batch, self.fit.device, order)):
                progress = self._progress(epoch, number, count, done)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.fit.lr * learning_rate(progress)
                # The layout that every network's first layer wants, once instead of in each of its passes.
                x = augment(x, self.fit.shift, self.fit.flip, order).contiguous(memory_format=torch.channels_last_3d)
                eps = budget(progress, self.fit.eps, self.fit.ramp)
                gathered = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
                loss = self._gradients(trainable, step, x, y, eps, seed * 1_000_000 + done)
                moved = math.isfinite(loss) and self.precision.step(self.optimizer, self.model)
                if moved:
                    self.average.update_parameters(self.model)
                    total, followed = total + loss, followed + 1
                else:
                    put_back(gathered)  # what a pass through numbers that are not finite gathered is no statistic
                self.monitor.batch(moved)
                after, mean = self._progress(epoch, number, count, done + 1), total / max(followed, 1)
                self.reporter.batch(epoch + 1, step.part, done + 1, self.batches_per_step, mean, after)
        return total / max(followed, 1)

    def _progress(self, epoch: int, number: int, count: int, batches_done: int) -> float:
        """Share of the run that is done within an epoch's step `number` of `count`."""
        return (epoch + (number + batches_done / self.batches_per_step) / count) / self.fit.epochs

    def _gradients(self, trainable: Trainable, step: Step, x: Tensor, y: Tensor, eps: float, seed: int) -> float:
        """Fills the weights' gradients of one batch, shard by shard; the loss.

        Each shard starts from the same batch statistics and the batch ends with their mean, whoever took which shard.
        """
        processes, shards = self.processes, self.fit.shards
        twin = trainable.folded.refresh()
        self.optimizer.zero_grad(set_to_none=True)
        buffers = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()] if shards > 1 else []
        before = [buffer.clone() for buffer in buffers]
        after = [torch.zeros_like(buffer) for buffer in buffers]
        loss = x.new_zeros(())
        for shard in range(processes.rank, shards, processes.size):
            for buffer, start in zip(buffers, before, strict=True):
                buffer.copy_(start)
            part = step_gradients(
                step, trainable.model, x[shard::shards], y[shard::shards], eps, self.fit,
                self._noise(seed * shards + shard), self.precision, twin, 1 / shards,
            )  # fmt: skip
            loss += part / shards
            for total, buffer in zip(after, buffers, strict=True):
                total += buffer / shards
        processes.all_reduce([loss, *after])
        processes.all_reduce_gradients(self.model)
        for buffer, mean in zip(buffers, after, strict=True):
            buffer.copy_(mean)
        return loss.item()

    def _prove_arithmetic(self) -> None:
        """Keeps in fp32 what half precision gets wrong on one of the processes' machines."""
        fit = self.fit
        shape = (3, fit.frames, fit.size, fit.size)
        batch = max(1, min(fit.batch, self.train.videos) // fit.shards)
        failed = [error.layer for error in self.precision.prove(self.model, shape, batch)]
        if self.precision.name == "fp32":
            return
        names = [name for name, _ in self.model.named_modules()]
        wrong = torch.tensor([float(name in failed) for name in names], device=fit.device)
        self.processes.all_reduce([wrong])
        failed = [name for name, count in zip(names, wrong.tolist(), strict=True) if count]
        keep_in_fp32(self.model, failed)
        if failed:
            self.reporter.warn(
                f"{self.precision.name}: {len(failed)} layers compute in fp32, because their gradients are wrong on "
                f"this machine: {', '.join(failed)}"
            )

    def _noise(self, seed: int) -> Callable[[Tensor], Tensor]:
        source = torch.Generator(device=self.fit.device).manual_seed(seed)
        return lambda x: torch.empty_like(x).uniform_(-1, 1, generator=source)

    def _resume_state(self) -> dict[str, Tensor]:
        model = {f"model:{k}": v for k, v in self.model.state_dict().items()}
        average = {f"average:{k}": v for k, v in self.average.state_dict().items()}
        optimizer = {f"optimizer:{k}": v for k, v in optimizer_state(self.optimizer, self.names).items()}
        scaler = {f"scaler:{k}": v for k, v in self.precision.state().items()}
        # Clones: safetensors refuses tensors that share memory.
        return {k: v.detach().clone() for k, v in (model | average | optimizer | scaler).items()}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        try:
            self.model.load_state_dict(part("model:"))
            self.average.load_state_dict(part("average:"))
            restore_optimizer(self.optimizer, self.names, part("optimizer:"))
            self.precision.restore(part("scaler:"))
        except (KeyError, RuntimeError, ValueError):
            raise DataError(
                f"{self.run.root}: what the run resumes from is not of its settings; start another"
            ) from None

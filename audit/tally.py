"""Who has fallen to what: the books of one evaluation, filled attack by attack."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from audit.budget import verify
from audit.eightbit import nearest_inside, to_frames
from audit.untouched import device_of
from models import VideoMoE
from runtime.clips import to_network

AttackFunction = Callable[..., Tensor]
ByEps = dict[float, np.ndarray]


def judge(model: VideoMoE, x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A fresh deployed forward: class, expert, and class margin (logit of y minus the best other), each (N,).

    A model that answers NaN or infinity has not answered: class -1, which is never right.
    """
    with torch.no_grad():
        logits, route = model(x), model.router(x).argmax(1)
        margin = logits.gather(1, y.unsqueeze(1)).squeeze(1) - logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(1)
        answered = logits.isfinite().all(1)
        label = logits.argmax(1).where(answered, -1)
        return label.cpu().numpy(), route.cpu().numpy(), margin.where(answered, -torch.inf).cpu().numpy()


class Tally:
    """Arrays over all N clips; `Evaluation` documents them. The model must be frozen and in eval mode."""

    def __init__(self, model: VideoMoE, x: Tensor, y: Tensor, radii: tuple[float, ...], batch_size: int) -> None:
        self.model, self.x, self.y, self.radii = model, x, y, radii
        self.device = device_of(model)
        parts = [
            judge(model, x[i : i + batch_size].to(self.device), y[i : i + batch_size].to(self.device))
            for i in range(0, len(x), batch_size)
        ]
        self.clean_label, self.clean_route, margin = (np.concatenate(part) for part in zip(*parts, strict=True))
        self.labels = y.cpu().numpy()
        self.clean = self.clean_label == self.labels
        self.held: dict[str, ByEps] = {}
        self.tested: dict[str, ByEps] = {}
        self.route: dict[str, ByEps] = {}
        frames = to_frames(x)
        self.margin = {radius: margin.copy() for radius in radii}
        self.frames = {radius: frames.copy() for radius in radii}
        self.worst_label = {radius: self.clean_label.copy() for radius in radii}
        self.worst_route = {radius: self.clean_route.copy() for radius in radii}
        self.worst_by = {radius: np.full(len(x), -1) for radius in radii}

    def begin(self, name: str, radius: float, thorough: bool) -> np.ndarray:
        """Opens an attack's books at `radius` (call with rising radii): indices of the clips to run it on."""
        wanted = self.clean if thorough else self.robust(radius)
        smaller = [r for r in self.held.get(name, {}) if r < radius]
        for book, start in ((self.held, self.clean), (self.route, self.clean_route)):
            # What fell at a smaller eps has fallen here: that perturbed clip lies in this box too.
            book.setdefault(name, {})[radius] = (book[name][max(smaller)] if smaller else start).copy()
        held = self.held[name][radius]
        self.tested.setdefault(name, {})[radius] = wanted | (self.clean & ~held)
        return np.flatnonzero(wanted & held)

    def run(self, name: str, attack: AttackFunction, radius: float, some: np.ndarray, steps: int, seed: int) -> None:
        """Attacks the clips `some` (indices) and enters the verdicts."""
        x, y = self.x[some].to(self.device), self.y[some].to(self.device)
        # eps = 0 is the clean clip by definition, whatever an attack would make of it.
        x_adv = attack(self.model, x.clone(), y.clone(), eps=radius, steps=steps, seed=seed) if radius else x
        verify(name, x, x_adv, radius)
        label, route, _ = judge(self.model, x_adv.detach(), y)
        self.held[name][radius][some] = label == self.labels[some]
        self.route[name][radius][some] = route
        self._keep(list(self.held).index(name), radius, some, nearest_inside(x, x_adv.detach(), radius))

    def _keep(self, by: int, radius: float, some: np.ndarray, frames: np.ndarray) -> None:
        """Keeps, at this and every larger eps, the 8-bit clip with the smallest margin so far."""
        rounded = torch.from_numpy(to_network(frames)).to(self.device)
        label, route, margin = judge(self.model, rounded, self.y[some].to(self.device))
        for larger in (r for r in self.radii if r >= radius):
            worse = margin < self.margin[larger][some]
            at = some[worse]
            self.margin[larger][at] = margin[worse]
            self.frames[larger][at] = frames[worse]
            self.worst_label[larger][at] = label[worse]
            self.worst_route[larger][at] = route[worse]
            self.worst_by[larger][at] = by

    def robust(self, radius: float) -> np.ndarray:
        """(N,) bool: right unattacked and under every attack so far at this or a smaller eps."""
        held = self.clean.copy()
        for book in self.held.values():
            for r, stands in book.items():
                if r <= radius:
                    held &= stands
        return held

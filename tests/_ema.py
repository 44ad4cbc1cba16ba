import pathlib
import tempfile

import torch

from hardroute.runtime.clips import to_network
from hardroute.training.loop import Trainer
from tests.support.training import *

for method in ("plain", "at-m"):
    for seed in (0, 1, 2):
        with tempfile.TemporaryDirectory() as d:
            run = new_run(
                pathlib.Path(d),
                method=method,
                epochs=60,
                batch=32,
                average=0.995,
                inner_steps=1,
                validate_every=60,
                eps=2 / 255,
                seed=seed,
            )
            clips = two_signals(8, 0)
            t = Trainer(run, clips, clips, Silent())
            t.go()
            x = torch.from_numpy(to_network(clips.frames))
            y = torch.from_numpy(clips.labels)
            print(
                method,
                seed,
                [(m.eval()(x).argmax(1) == y).float().mean().item() for m in (t.exported, t.model)],
                flush=True,
            )

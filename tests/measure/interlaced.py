"""`python -m tests.measure.interlaced BUNDLE`: whether interlaced copies of clips get the labels of their originals."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import typer

from hardroute import Engine
from hardroute.runtime.cli import main
from hardroute.runtime.datasets import open_set
from tests.support.numbered import Video

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def command(
    bundle: Annotated[str, typer.Argument(help="Bundle that answers.")] = "motion",
    data: Annotated[str, typer.Option(help="Set whose test clips are copied.")] = "motion:train=0,val=0,test=64",
    count: Annotated[int, typer.Option(min=1, help="Clips.")] = 64,
) -> None:
    """Encodes each clip as interlaced H.264 and classifies both. Exit code 1: a label differs."""
    rows = [row for row in open_set(data).rows if row.split == "test"][:count]
    same, apart = 0, []
    with tempfile.TemporaryDirectory() as folder, Engine.load(bundle) as engine:
        for row in rows:
            with av.open(str(row.path)) as container:
                track = container.streams.video[0]
                images = [frame.to_ndarray(format="rgb24") for frame in container.decode(track)]
                rate = track.average_rate or 25
            options = {"x264-params": "interlaced=1:crf=16"}
            video = Video("mp4", "libx264", images=images, rate=rate, options=options)
            original, copy = engine.predict(row.path), engine.predict(video.write(Path(folder) / "copy.mp4"))
            same += original.label == copy.label
            apart.append(float(np.abs(original.probabilities - copy.probabilities).max()))
    typer.echo(f"{same} of {len(rows)} labels equal")
    typer.echo(f"probabilities: {np.mean(apart):.4f} apart on average, {max(apart):.4f} at most")
    if same < len(rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    main(app)

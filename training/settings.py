"""Everything that decides how a run goes, in one validated record that is stored with the run."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models import ExpertSpec, ModelSpec, RouterSpec
from runtime.clips import ClipContract
from runtime.errors import MethodError


class FitSettings(BaseModel):
    """Settings of one run; defaults are those of `python -m training fit`.

    Attributes:
        data: labelled set (folder, or `motion`). method: a name in METHODS.
        expert, experts, width, blocks: kind and number of experts; channels of their first stage, residual blocks of
            each stage. Several kinds, as in "r3d18,tsm", take turns.
        router_width: channels of the router's first layer.
        init: files of published weights that the experts start from; see models.published.
        frames, size: clip contract: frames per clip, height and width in pixels.
        epochs: passes over the training clips for each step of the method's schedule.
        batch: clips per step. lr: peak learning rate of AdamW. weight_decay: its decay (matrices only).
        eps: L-infinity budget in raw pixels. inner_steps: steps of the inner attack.
        lam: weight of the Lipschitz term in the outer loss. inner_lam: in the inner attack.
        ramp: share of the run over which the budget grows from 0 to eps; a model that has not yet learnt the motion
            learns to read the label off a full-size perturbation instead.
        assign: what the router step pulls the router towards: "balanced" shares of each batch, or its own "argmax",
            as the paper has it.
        balance: weight of the load-balancing term wherever the router is trained.
        shift, flip: augmentation: random shift up to so many pixels; mirror half of the clips (never where left and
            right are classes).
        average: decay per step of the averaged weights that are validated and exported; 0 turns averaging off.
        validate_clips: clips of the validation split that are attacked after each epoch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: str
    method: str = "j-tlat"
    expert: str = "r3d18"
    experts: int = Field(default=4, ge=1, le=64)
    width: int = Field(default=16, ge=1, le=512)
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    router_width: int = Field(default=8, ge=1, le=512)
    init: tuple[str, ...] = ()
    frames: int = Field(default=12, ge=1, le=256)
    size: int = Field(default=48, ge=8, le=512)
    epochs: int = Field(default=20, ge=1)
    batch: int = Field(default=32, ge=2)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    eps: float = Field(default=8 / 255, ge=0, le=1)
    inner_steps: int = Field(default=3, ge=1)
    lam: float = Field(default=1e-4, ge=0)
    inner_lam: float = Field(default=1e-4, ge=0)
    ramp: float = Field(default=0.3, ge=0, le=1)
    assign: Literal["balanced", "argmax"] = "balanced"
    balance: float = Field(default=0.5, ge=0)
    shift: int = Field(default=3, ge=0)
    flip: bool = False
    average: float = Field(default=0.995, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)
    device: Literal["cpu", "cuda"] = "cpu"
    validate_clips: int = Field(default=128, ge=1)

    @property
    def contract(self) -> ClipContract:
        return ClipContract(frames=self.frames, height=self.size, width=self.size)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind.strip() for kind in self.expert.split(","))

    def model(self, classes: int) -> ModelSpec:
        """The architecture for a set of so many classes."""
        kinds = self.kinds
        return ModelSpec(
            classes=classes,
            router=RouterSpec(width=self.router_width),
            experts=tuple(
                ExpertSpec(kind=kinds[i % len(kinds)], width=self.width, blocks=self.blocks)
                for i in range(self.experts)
            ),
        )


def settings_from(values: dict[str, Any]) -> FitSettings:
    """FitSettings from plain values. Raises MethodError naming the first setting that is out of range."""
    try:
        return FitSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise MethodError(f"--{name} {first['input']}: {first['msg']}") from None

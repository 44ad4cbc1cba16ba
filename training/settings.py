"""Everything that decides how a run goes, in one validated record that is stored with the run. Loads no torch."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hardroute.models.spec import KINDS, ExpertSpec, ModelSpec, RouterSpec, require_kind
from hardroute.runtime.clips import MAX_CLIPS, ClipContract
from hardroute.runtime.errors import MethodError
from hardroute.training.methods import find_method

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
DENSE = 2  # times the channels of one expert: about the weights of four experts
FORMER = {"together": "shared_start"}  # names that fields had in the records of older runs


def says(default: Any, description: str) -> Any:
    return Field(default, description=description)


def _split(kinds: str) -> tuple[str, ...]:
    return tuple(kind.strip() for kind in kinds.split(","))


class FitSettings(BaseModel):
    """Settings of one run. Each field is an option of `hardroute fit`; its description is the option's help.

    `eps` is an L-inf radius in raw pixels of [0, 1] here, and in 1/255 on the command line. Where a method has its own
    value of a field (`Method.settings`), that is the field's default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    data: str
    method: str = says("j-tlat", "a defence, such as plain, at-m, j-tlat")
    expert: str = says("r3d18", f"kind of expert: {', '.join(KINDS)}; several, as in r3d18,tsm, take turns")
    experts: Annotated[int, Field(ge=1, le=64)] = says(4, "number of experts")
    width: Annotated[int, Field(ge=1, le=512)] = says(16, "channels of an expert's first stage")
    blocks: tuple[int, int, int, int] = says((2, 2, 2, 2), "residual blocks of each stage; 0 leaves one out")
    router_width: Annotated[int, Field(ge=1, le=512)] = says(8, "channels of the router's first layer")
    router_gain: Annotated[float, Field(gt=0, le=1e3)] = says(1.0, "scale of the router's logits")
    init: tuple[str, ...] = says((), "published weights that the experts start from, one file for each kind")
    frames: Annotated[int, Field(ge=1, le=256)] = says(12, "frames per clip")
    size: Annotated[int, Field(ge=8, le=512)] = says(48, "height and width in pixels")
    seconds: Annotated[float, Field(ge=0, le=3600)] = says(0.0, "length of a clip; 0: the whole video")
    clips_per_video: Annotated[int, Field(ge=1, le=MAX_CLIPS)] = says(
        1, "clips cut from each training video, of which each step's pass draws one; several need --seconds"
    )
    epochs: Count = says(20, "passes over the training clips for each step of the schedule")
    batch: Annotated[int, Field(ge=2)] = says(32, "clips per optimiser step")
    lr: Annotated[float, Field(gt=0)] = says(2e-3, "peak learning rate of AdamW")
    weight_decay: Weight = says(5e-4, "weight decay of the experts' matrices")
    eps: Share = says(8 / 255, "L-infinity budget, in 1/255")
    inner_steps: Count = says(3, "steps of the inner attack")
    lam: Weight = says(1e-4, "weight of the outer loss' second term, such as Lip")
    router_lam: Weight = says(1.0, "what the router's step multiplies lam by")
    inner_lam: Weight = says(1e-4, "Lipschitz weight of the inner attack")
    weight_eps: Weight = says(0.0, "size of adversarial weight perturbations, as a share of each layer's; 0: none")
    shared_start: Share = says(0.0, "share of the epochs in which experts learn as one, before they part")
    start: Literal["one", "mixture"] = says(
        "one", "the start trains experts as one network, or the mixture with its router; several kinds: the mixture"
    )
    norm: Literal["batch", "kept"] = says(
        "batch", "once experts have parted, they are normalised by each one's few clips of a batch, or as before"
    )
    weak: Literal["both", "drawn"] = says("both", "weak experts a clip trains: both, or one drawn by its weight")
    ramp: Share = says(0.3, "share of the run over which the budget grows from 0 to eps")
    assign: Literal["balanced", "argmax"] = says("balanced", "targets of the router step: an even split, or its own")
    balance: Weight = says(0.5, "weight of the load-balancing term wherever the router is trained")
    shift: Annotated[int, Field(ge=0)] = says(3, "augmentation: shift by up to so many pixels")
    flip: bool = says(False, "augmentation: mirror half of the clips (not where left and right are classes)")
    average: Annotated[float, Field(ge=0, lt=1)] = says(0.995, "decay per step of the averaged weights; 0 for none")
    seed: Annotated[int, Field(ge=0)] = says(0, "seed of everything random")
    device: Literal["cpu", "cuda"] = says("cpu", "cpu or cuda")
    precision: Literal["fp32", "bf16", "fp16"] = says("fp32", "fp32; bf16 where GPU or processor has it; fp16 on a GPU")
    shards: Count = says(1, "parts of a batch with statistics of their own, for torchrun to share out")
    validate_clips: Count = says(128, "validation clips that are attacked after an epoch")
    validate_every: Count = says(1, "epochs from one validation to the next; the last is always validated")

    @model_validator(mode="before")
    @classmethod
    def _method_first(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = {FORMER.get(name, name): value for name, value in values.items()}
        method, kinds = (values.get(name, cls.model_fields[name].default) for name in ("method", "expert"))
        if not isinstance(method, str) or not isinstance(kinds, str):
            return values
        start = values.get("start", "mixture" if len(set(_split(kinds))) > 1 else "one")
        # A router that was trained with its experts knows which of them is right: its own choice is to be kept.
        own = {"assign": "argmax"} if start == "mixture" else {}
        return {"start": start, **own, **find_method(method).settings, **values}

    @model_validator(mode="after")
    def _kinds_that_go_together(self) -> "FitSettings":
        for kind in self.kinds:
            require_kind(kind)
        if self.start == "one" and len(set(self.kinds)) > 1 and self.shared_start:
            raise MethodError("start one: experts of several kinds cannot learn as one; take start mixture")
        return self

    @property
    def contract(self) -> ClipContract:
        return ClipContract(frames=self.frames, height=self.size, width=self.size, seconds=self.seconds or None)

    @property
    def shared_epochs(self) -> int:
        """Epochs of the shared start (hardroute.training.loop.phases); none where there is one expert."""
        return round(self.shared_start * self.epochs) if find_method(self.method).network == "mixture" else 0

    @property
    def kinds(self) -> tuple[str, ...]:
        return _split(self.expert)

    def model(self, classes: int) -> ModelSpec:
        """The architecture for a set of so many classes; a method for one network has a mixture of one."""
        network = find_method(self.method).network
        count = self.experts if network == "mixture" else 1
        width = self.width * (DENSE if network == "dense" else 1)
        kinds = self.kinds
        return ModelSpec(
            classes=classes,
            router=RouterSpec(
                kind="conv" if network == "mixture" else "constant", width=self.router_width, gain=self.router_gain
            ),
            experts=tuple(
                ExpertSpec(kind=kinds[i % len(kinds)], width=width, blocks=self.blocks) for i in range(count)
            ),
            restore=self.width if find_method(self.method).restore else None,
        )

    def check_processes(self, size: int) -> None:
        """Raises MethodError unless so many processes can share a batch's shards evenly."""
        if self.shards % size or self.batch % self.shards or self.batch // self.shards < 2:
            raise MethodError(
                f"shards {self.shards}: must be a multiple of the {size} processes and divide a batch of {self.batch} "
                "into parts of 2 clips or more"
            )

    def first_difference(self, other: "FitSettings") -> str | None:
        """The first setting that the two do not share, as "name mine, not theirs"; None if they are equal."""
        for name in type(self).model_fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name.replace('_', '-')} {mine}, not {theirs}"
        return None


def settings_from(values: dict[str, Any], prefix: str = "") -> FitSettings:
    """FitSettings from plain values. Raises MethodError naming the first setting that is out of range.

    Args:
        prefix: what stands before the name of a setting where they are typed, such as "--".
    """
    try:
        return FitSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise MethodError(f"{prefix}{name} {first['input']}: {first['msg']}") from None

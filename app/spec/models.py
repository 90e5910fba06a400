"""Models in a spec: references, heads, tasks, stages that train one; and the manifest that stands beside a kept one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from app.spec.architectures.applications import NAMES, PREFIX, ApplicationName, Size
from app.spec.base import SpecModel, TaskName
from app.spec.data import InputSchema, Limit, Name
from app.spec.imports import Origin
from app.spec.tasks import StoredTaskType, TaskType
from app.spec.training import TrainingSpec
from app.spec.variants import AnyArchitecture, Objectives

DATASET_REF = r"^[A-Za-z0-9_.-]{1,128}$"

DatasetRef = Annotated[str, StringConstraints(pattern=DATASET_REF)]
"""A built-in's name or `ds_…`."""

ModelRef = Annotated[
    str,
    StringConstraints(
        max_length=256,
        pattern=r"^(job:job_[0-9a-z]+(/[a-z0-9/_-]+)?|mdl_[0-9a-z]+|model:[^@/\x00-\x1f]{1,128}(@[0-9]+)?|pretrained:[A-Za-z0-9_.-]{1,64})$",
    ),
]
"""`job:ID` (the job's model), `job:ID/source` (a stage's), `mdl_…`, `model:NAME@VERSION` (without `@`: the newest), or
`pretrained:NAME` (the newest model of that name that was sent as a file)."""

FEATURES = "features"
"""What a trunk without heads answers: the numbers that a head would stand on."""

UNFINISHED = "unfinished"
"""The role of a stopped stage's model so far: nothing goes on from it. It gives way to the next one, and to the job's own model."""


HEAD_PARTS = ("hidden", "dropout", "logits")
"""Of a head's layers, in the order in which they are called: a task's layer is called TASK_PART."""


class HeadSpec(SpecModel):
    """An optional hidden layer before a task's output layer."""

    units: int | None = Field(None, ge=1, le=8192)
    activation: Literal["relu", "tanh", "gelu"] = "relu"
    dropout: float = Field(0.0, ge=0, lt=1)


def which_source(value: object) -> str | None:
    """The branch of a union that a value is meant for, so that its faults are named and not those of the other branches."""
    if isinstance(value, str):
        return None if value.startswith("applications:") else "reference"
    if isinstance(value, dict) and "model" in value and "train" not in value:
        return None  # a teacher with its weight, where there is but one
    if isinstance(value, (dict, TrainedHere)):
        return "train"
    return None


class TrainStage(SpecModel):
    """A model that the job trains first, as a stage of its own, and keeps."""

    dataset: DatasetRef
    target: Name | None = None
    architecture: AnyArchitecture | None = None
    limit_train_examples: Limit | None = None
    training: TrainingSpec = TrainingSpec()


class TrainedHere(SpecModel):
    train: TrainStage


class TrainedSource(TrainedHere):
    """`each_seed`: one for each pair of seeds, so that the verdict's interval holds the source's luck too."""

    each_seed: bool = Field(False, exclude_if=lambda each: not each)


ModelSource = Annotated[
    Annotated[ModelRef, Tag("reference")] | Annotated[TrainedHere, Tag("train")],
    Discriminator(
        which_source,
        custom_error_type="model_source",
        custom_error_message='expected a reference to a kept model ("job:…", "model:…", "mdl_…", "pretrained:…"), or {"train": …}',
    ),
]
"""Where knowledge comes from: a kept model, or one to train first."""


class TaskSpec(SpecModel):
    """One head and what it learns.

    `type` null: as the column is (two classes binary, more multiclass, numbers regression, labels multilabel).
    """

    column: Name | None = Field(None, description="null: the column with the task's name")
    dataset: DatasetRef | None = Field(None, description="null: the job's data set")
    type: TaskType | None = None
    units: int | None = Field(None, ge=1, le=65536, description="embedding: numbers of a vector; null: 64")
    weight: float = Field(1.0, ge=0, le=1e6)
    head: HeadSpec = HeadSpec()
    standardize: bool = Field(
        True, description="regression: train on targets of mean 0 and variance 1; answers are in the user's units"
    )
    limit_train_labels: Annotated[int, Field(ge=1)] | None = None
    teacher: ModelSource | None = Field(None, description="what says something about every row of the task's data set")
    objectives: Objectives | None = Field(None, description="of a task with a teacher; null: the job's")


ApplicationRef = Annotated[
    str,
    StringConstraints(max_length=64, pattern=r"^applications:[A-Za-z0-9]+$"),
    Field(json_schema_extra={"enum": [f"{PREFIX}{name}" for name in NAMES]}),
]
"""`applications:NAME`, short for {"applications": NAME}. A transfer's `resolve` tells of any other name, with the nearest."""

WeightsFile = Annotated[str, StringConstraints(max_length=256, pattern=r"^(imagenet|none|[^\x00-\x1f]+\.h5)$")]


class Backbone(SpecModel):
    """A network of keras.applications without its top, to start from.

    `weights`: "imagenet" is the file of Keras's own name in a folder that the operator has opened, or give any `.h5` file there;
    "none": random numbers. `size`: [height, width] that it sees; null: the data's, or its smallest if larger. Nothing is downloaded.
    """

    applications: ApplicationName
    alpha: float = 1.0
    size: Size | None = None
    weights: WeightsFile = "imagenet"
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="of the weights' file")

    @property
    def architecture(self) -> dict[str, Any]:
        return {"arch": "applications", "name": self.applications, "alpha": self.alpha, "size": self.size}


def which_start(value: object) -> str | None:
    """As `which_source`, of a transfer's source, which may also be a network of keras.applications."""
    if isinstance(value, str) and value.startswith("applications:"):
        return "application"
    if isinstance(value, Backbone) or (isinstance(value, dict) and "applications" in value):
        return "backbone"
    return which_source(value)


TransferSource = Annotated[
    Annotated[ModelRef, Tag("reference")]
    | Annotated[TrainedSource, Tag("train")]
    | Annotated[ApplicationRef, Tag("application")]
    | Annotated[Backbone, Tag("backbone")],
    Discriminator(
        which_start,
        custom_error_type="model_source",
        custom_error_message='expected a reference to a kept model ("job:…", "model:…", "mdl_…", "pretrained:…"), {"train": …}, '
        '"applications:NAME" or {"applications": NAME, …}',
    ),
]


class TaskManifest(SpecModel):
    type: StoredTaskType
    column: str
    classes: list[str] | None = Field(None, description="in the order of the outputs; binary: [negative, positive]")
    units: int
    mean: list[float] | None = None
    std: list[float] | None = None


class Manifest(SpecModel):
    """What a kept model is: enough to feed it, to read its answers and to inherit from it."""

    format: Literal[1] = 1
    role: str
    architecture: dict[str, Any]
    input: InputSchema
    canvas: list[Annotated[int, Field(ge=1)]] | None = Field(
        None,
        description="the shape that the first layer with numbers sees, where pictures are resized to it; null: `input`'s",
    )
    tasks: dict[TaskName, TaskManifest]
    heads: dict[TaskName, HeadSpec] = {}
    sharing: dict[str, Any] = Field(
        default={"name": "hard_sharing"}, description="how its tasks share copies of the architecture"
    )
    layers: list[str]
    parameters: int
    sha256: str
    versions: dict[str, str]
    dataset: dict[str, Any] = Field(
        default={}, description="ref and sha256 of what it learnt from; `labelled`: false where that were inputs alone"
    )
    training: dict[str, Any] = Field(
        default={},
        description="steps, seed, batch_size, learning_rate; `unfinished` where it was stopped: steps done of how many",
    )
    rows_file: str | None = Field(
        None, description="npy of (n, 16) uint8 hashes of every input row that trained it, its sources and its teachers"
    )
    rows_shapes: list[list[int]] = Field(
        default=[],
        description="of those rows, where not all have the shape of `input`: equal ones of two shapes are not known",
    )
    edges: list[dict[str, str]] = Field(
        default=[],
        description="relation and target of the models that it comes from: a role of its own job, or another model's id",
    )
    origin: Origin | None = Field(
        None, description="of a model that was sent as a file: no job of this service trained it"
    )
    loading: str = ""

    @property
    def trunk_input(self) -> InputSchema:
        """The trunk's input: `input`, in the shape `canvas`."""
        return self.input if self.canvas is None else self.input.model_copy(update={"shape": self.canvas})

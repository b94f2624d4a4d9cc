"""What a training can be told, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from graphrec.errors import InputError, unknown
from graphrec.training.schedule import ScheduleName

Precision = Literal["32", "bf16", "16"]
Selection = Literal["auto", "valid", "test"]
Mask = Literal["train", "train+valid", "none"]
Task = Literal["rank", "ctr"]
Scaling = Literal["none", "platt"]
Last = Literal["keep", "drop"]

METRIC: Mapping[str, str] = {"rank": "recall@20", "ctr": "auc"}
"""What picks the best epoch of each task where nothing else is asked for."""


@dataclass(frozen=True)
class FitOptions:
    """Options of :func:`graphrec.fit`; all of them are written to the run."""

    epochs: int = 100
    """Passes over the training examples; more take longer and can fit the training pairs too closely."""
    seed: int | None = None
    """Seeds batches, negatives and dropout; None takes the model's own ``seed``, or 0 where it has none."""
    device: str = "auto"
    """Where to train: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU where there is one."""
    devices: int = 1
    """Processes (on the CPU) or GPUs that share each batch; the step's gradient stays that of the whole batch."""
    precision: Precision = "32"
    """Type of dense products in the loss: ``32`` bits, ``bf16``, or ``16`` with loss scaling; sparse products stay
    32."""
    schedule: ScheduleName = "constant"
    """How the learning rate falls over the optimiser's steps, from the optimiser's own rate."""
    warmup: float = 0
    """Steps over which the learning rate rises from zero: a whole number of steps, or a share of all steps below 1."""
    milestones: tuple[float, ...] = (0.5, 0.75)
    """For ``schedule=step``: the shares of the training after which the rate is multiplied by ``decay``."""
    decay: float = 0.1
    """For ``schedule=step``: what the rate is multiplied by at each milestone; smaller falls faster."""
    accumulate: int = 1
    """Batches whose gradients make one step: the step of a batch so many times larger, in the memory of one."""
    clip: float | None = None
    """Largest norm of a step's gradient; longer ones are scaled down; None leaves them."""
    select_on: Selection | None = "auto"
    """Part whose metric picks the best epoch: ``valid``, ``test`` (for comparison with papers that did), None for the
    last epoch; ``auto`` is ``valid`` where the data has such a part, else None."""
    metric: str = "auto"
    """Metric that picks the best epoch; larger is better; ``auto`` is ``recall@20`` (of the longest of
    ``ks`` where there are fewer than 20 items), or ``auc`` for ``task=ctr``."""
    patience: int | None = None
    """Evaluations without a better value after which training stops; a value that only equals the best is not
    better."""
    max_seconds: float | None = None
    """Training ends after the epoch that reaches so many seconds, evaluations included; how many epochs that takes
    depends on the machine. None sets no limit."""
    evaluate_every: int = 1
    """Epochs between evaluations on the selection part; the last epoch is always evaluated."""
    ks: tuple[int, ...] = (20,)
    """Lengths of the lists that are evaluated."""
    task: Task = "rank"
    """What the model is measured on: ``rank`` orders all items, ``ctr`` (click prediction) tells labelled pairs
    apart."""
    auc_batch_size: int = 1024
    """For ``task=ctr``: pairs in a minibatch of ``auc_batch``, the papers' mean of AUC over minibatches."""
    auc_batch_last: Last = "keep"
    """For ``task=ctr``: whether ``auc_batch`` keeps an incomplete last minibatch (RippleNet) or drops it (KGCN)."""
    scaling: Scaling = "none"
    """For ``task=ctr``: ``platt`` fits the test's probabilities on the valid part, for models trained to rank."""
    mask: Mask = "train"
    """What is left out of the ranking in the test evaluation: training pairs, those of ``valid`` too, or
    nothing."""
    checkpoint_every: int | None = None
    """Epochs between checkpoints; None leaves it to ``checkpoint_seconds``."""
    checkpoint_seconds: float | None = 60.0
    """At an epoch's end a checkpoint is written when the last is older than this; None leaves it to
    ``checkpoint_every``."""
    progress: bool = True
    """Whether to show epoch, loss, seconds, time left and validation metric on standard error."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ks", tuple(int(k) for k in self.ks))
        object.__setattr__(self, "milestones", tuple(float(m) for m in self.milestones))
        for name, least in (
            ("epochs", 0),
            ("devices", 1),
            ("accumulate", 1),
            ("evaluate_every", 1),
            ("patience", 1),
            ("checkpoint_every", 1),
            ("auc_batch_size", 1),
        ):
            value = getattr(self, name)
            if value is None and name in ("patience", "checkpoint_every"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}, found {value!r}.")
        for name, words in (
            ("precision", get_args(Precision)),
            ("schedule", get_args(ScheduleName)),
            ("mask", get_args(Mask)),
            ("select_on", get_args(Selection)),
            ("task", get_args(Task)),
            ("auc_batch_last", get_args(Last)),
            ("scaling", get_args(Scaling)),
        ):
            value = getattr(self, name)
            if value not in words and not (name == "select_on" and value is None):
                raise unknown(name, str(value), words)
        if self.metric == "auto":
            object.__setattr__(self, "metric", METRIC[self.task])
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"clip must be above 0, found {self.clip}; None leaves gradients as they are.")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise InputError(f"max_seconds must be above 0, found {self.max_seconds}; None sets no limit.")
        if self.warmup < 0 or (self.warmup >= 1 and self.warmup != int(self.warmup)):
            raise InputError(f"warmup must be a whole number of steps or a share of them below 1, found {self.warmup}.")
        if not self.ks or min(self.ks) < 1:
            raise InputError(f"ks must be positive whole numbers, found {self.ks}.")
        if "@" in self.metric:
            k = self.metric.rpartition("@")[2]
            if not k.isdigit() or int(k) < 1:
                raise InputError(f"metric {self.metric!r} must end in a positive whole number after '@'.")

    @property
    def evaluated_ks(self) -> tuple[int, ...]:
        """``ks`` with the one that the selection metric needs."""
        k = self.metric.rpartition("@")[2] if "@" in self.metric else ""
        return tuple(sorted({*self.ks, int(k)})) if k and self.select_on else self.ks

    def as_config(self) -> dict[str, Any]:
        """The options as JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FitOptions:
        """The options from JSON values; unknown names are refused."""
        known = [entry.name for entry in fields(cls)]
        for name in config:
            if name not in known:
                raise unknown("option of fit", name, known)
        return cls(**config)


FREE_ON_RESUME = frozenset({"device", "devices", "checkpoint_every", "checkpoint_seconds", "progress"})
"""Options that may differ when a training is resumed; a change of any other would change its numbers."""

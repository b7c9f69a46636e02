"""Groups of settings of unlearning methods."""

import dataclasses

from jaxunlearn.settings.fields import field, section


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """Values of hyperparameters that are tried side by side, as further members of one population; empty = no sweep."""

    lr: tuple[float, ...] = field((), "learning rate", low=0.0)
    alpha: tuple[float, ...] = field((), "the method's alpha (selection, weight, step, noise)")
    lam: tuple[float, ...] = field((), "the method's lambda (dampening)")
    beta: tuple[float, ...] = field((), "the method's beta")
    gamma: tuple[float, ...] = field((), "the method's gamma")
    fraction: tuple[float, ...] = field((), "part of the parameters or rows", low=0.0, high=1.0)
    quantile: tuple[float, ...] = field((), "quantile of the pruning rules", low=0.0, high=1.0)
    weight_decay: tuple[float, ...] = field((), "weight decay", low=0.0)


@dataclasses.dataclass(frozen=True)
class ConformalSettings:
    """The conformal-guided loss around unlearning methods (METHOD+conformal)."""

    enable: bool = field(False, "every method of unlearn.methods is wrapped; or name single ones METHOD+conformal")
    lam: tuple[float, ...] = field((), "weight of the loss, several = a sweep; empty = 0.085, pairwise 0.5", low=0.0)
    delta: float = field(0.01, "margin beyond the threshold", low=0.0)
    alpha: float = field(0.05, "level of the threshold", low=1e-4, high=0.9999)
    pairwise: bool = field(False, "each row with the labels of all rows, as published; compat.unlearn=faithful sets it")
    batch: int = field(16, "rows to forget per step; 0 = the run's batch", low=0)
    calibration_rows: int = field(
        0, "test rows on which the threshold of the loss is taken (published 1000, of a class 200); 0 = the population "
        "rows",
        low=0,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class UnlearnSettings:
    """Approximate unlearning."""

    methods: tuple[str, ...] = field(("all",), "names of the method table, or my_module:my_method; all = every one")
    options: tuple[str, ...] = field((), "hyperparameters: ssd.alpha=5 for one method, epochs=3 for all that have it")
    dataset: str = field("", "data set whose published hyperparameters are used; empty = data.name")
    bn: str = field("auto", "BatchNorm: auto = the method's own, frozen, recalibrate on retained rows, faithful, or "
                     "first_epoch (training mode in the first epoch only)",
                     choices=("auto", "frozen", "recalibrate", "faithful", "first_epoch"))  # fmt: skip
    augment: bool = field(True, "unlearning sees the training augmentation (data.augment)")
    conformal: ConformalSettings = section(ConformalSettings)
    sweep: SweepSettings = section(SweepSettings)
    sweeps: tuple[str, ...] = field((), "further sweeps, of any hyperparameter that is a float: strength=0.1;0.2")

"""Settings of unlearning methods."""

import dataclasses

from jaxunlearn.settings.fields import field, section


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """Hyperparameter values to try side by side, as members of one population; empty = no sweep."""

    lr: tuple[float, ...] = field((), "learning rates", low=0.0)
    alpha: tuple[float, ...] = field((), "values of the method's alpha (selection, weight, step, noise)")
    lam: tuple[float, ...] = field((), "values of the method's lambda (dampening)")
    beta: tuple[float, ...] = field((), "values of the method's beta")
    gamma: tuple[float, ...] = field((), "values of the method's gamma")
    fraction: tuple[float, ...] = field((), "fractions of the parameters or rows", low=0.0, high=1.0)
    quantile: tuple[float, ...] = field((), "quantiles of the pruning rules", low=0.0, high=1.0)
    weight_decay: tuple[float, ...] = field((), "weight decays", low=0.0)


@dataclasses.dataclass(frozen=True)
class ConformalSettings:
    """The conformal-guided loss around unlearning methods (METHOD+conformal)."""

    enable: bool = field(False, "wrap every method of unlearn.methods; to wrap single ones, name them METHOD+conformal")
    lam: tuple[float, ...] = field((), "weight of the loss; several = a sweep; empty = 0.085, pairwise 0.5", low=0.0)
    delta: float = field(0.01, "margin beyond the threshold", low=0.0)
    alpha: float = field(0.05, "miscoverage level of the threshold", low=1e-4, high=0.9999)
    pairwise: bool = field(False, "combine each row with the labels of all rows, as published; set by "
                           "compat.unlearn=faithful")  # fmt: skip
    batch: int = field(16, "rows to forget per step; 0 = the run's batch size", low=0)
    calibration_rows: int = field(0, "test rows that calibrate the threshold of the loss (published: 1000, of a class "
                                  "200); 0 = the population rows", low=0)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class UnlearnSettings:
    """Approximate unlearning."""

    methods: tuple[str, ...] = field(("all",), "unlearning methods by name, or my_module:my_method; all = every one")
    options: tuple[str, ...] = field((), "hyperparameters: ssd.alpha=5 for one method, epochs=3 for all methods that "
                                     "have it")  # fmt: skip
    dataset: str = field("", "data set whose published hyperparameters are used; empty = data.name")
    bn: str = field("auto", "BatchNorm mode: auto = the method's own, frozen, recalibrate on retained rows, faithful, "
                    "or first_epoch (training mode in the first epoch only)",
                    choices=("auto", "frozen", "recalibrate", "faithful", "first_epoch"))  # fmt: skip
    augment: bool = field(True, "use the training augmentation (data.augment) while unlearning")
    conformal: ConformalSettings = section(ConformalSettings)
    sweep: SweepSettings = section(SweepSettings)
    sweeps: tuple[str, ...] = field((), "sweeps of further float hyperparameters: strength=0.1;0.2")

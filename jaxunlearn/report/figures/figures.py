"""Figures: records in, matplotlib figures out. No pyplot state; `page` saves them."""

from typing import Any

import numpy as np

from jaxunlearn.report.theme import INK, MEMBER, OTHER, QUIET, wrapped


def exposure(
    log_odds: np.ndarray,
    member: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    pictures: np.ndarray | None = None,
    class_names: tuple[str, ...] = (),
    scale: float = 255.0,
) -> Any:
    """How differently a population answers on rows it trained on and on rows it did not.

    Left: the distribution of the log-odds of the true class, members against non-members, with the band that 80 % of
    the models lie in. Right: for every row its mean over the models that trained on it against its mean over those that
    did not; rows far above the diagonal are remembered rather than understood. Below: the most exposed rows.

    Args:
      log_odds: [M, n] float32 of every model on every row of the pool.
      member: [M, n] bool, whether the model trained on the row.
      labels: [n] class of each row.
      rows: [n] number of each row.
      pictures: [n, H, W, C] raw pictures, or None for data that cannot be shown.
      class_names: names of the classes, may be empty.
      scale: value of a white pixel.
    """
    from matplotlib.figure import Figure

    exposed = _mean(log_odds, member) - _mean(log_odds, ~member)
    strip = pictures is not None and np.isfinite(exposed).any()
    worst = np.argsort(-np.where(np.isfinite(exposed), exposed, -np.inf))[:10]
    names = [wrapped(class_names[labels[row]] if class_names else str(labels[row]), 16) for row in worst]
    more = 0.12 * max(name.count("\n") for name in names) if strip else 0.0
    figure = Figure(figsize=(10, 6.0 + more if strip else 4.4), layout="constrained")
    grid = figure.add_gridspec(2 if strip else 1, 2, height_ratios=[3.6, 1 + more] if strip else [1])
    _distribution(figure.add_subplot(grid[0, 0]), log_odds, member)
    _scatter(figure.add_subplot(grid[0, 1]), log_odds, member)
    if strip:
        assert pictures is not None
        inner = grid[1, :].subgridspec(1, 10)
        for place, (row, name) in enumerate(zip(worst, names, strict=True)):
            _picture(figure.add_subplot(inner[0, place]), pictures[row] / scale, f"row {rows[row]}\n{name}",
                     f"{exposed[row]:+.1f}", first=place == 0)  # fmt: skip
    models, number = log_odds.shape
    title = f"What {models} shadow models remember of {number:,} rows"
    figure.suptitle(title, color=INK, fontsize=13, x=0.01, ha="left")
    return figure


def _mean(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """[n] mean over the models kept for each row; NaN where there are none."""
    kept = kept & np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(kept, values, 0.0).sum(0) / kept.sum(0)


def _distribution(axes: Any, log_odds: np.ndarray, member: np.ndarray) -> None:
    finite = log_odds[np.isfinite(log_odds)]
    if not finite.size:
        return
    low, high = np.percentile(finite, [0.2, 99.8])
    edges = np.linspace(low, high + 1e-6, 61)
    centers = (edges[1:] + edges[:-1]) / 2
    for kept, color, name in ((~member, OTHER, "not trained on it"), (member, MEMBER, "trained on it")):
        chosen = [line[mask & np.isfinite(line)] for line, mask in zip(log_odds, kept, strict=True)]
        densities = np.array([_density(values, edges) for values in chosen if len(values)])
        if not len(densities):
            continue
        if len(densities) > 2:
            axes.fill_between(centers, *np.percentile(densities, [10, 90], axis=0), color=color, alpha=0.2, lw=0)
        pooled = np.concatenate(chosen)
        axes.plot(centers, densities.mean(0), color=color, lw=1.8, label=f"{name} (median {np.median(pooled):.1f})")
    axes.set(xlabel="log-odds of the true class", ylabel="density", title="All models: how sure of the truth?")
    axes.axvline(0, color=QUIET, lw=0.8, ls=":")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    _tidy(axes)


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].astype(float)
    smooth = np.convolve(np.pad(counts, 2, mode="edge"), [0.1, 0.2, 0.4, 0.2, 0.1], mode="valid")
    return smooth / max(smooth.sum(), 1.0) / (edges[1] - edges[0])


def _scatter(axes: Any, log_odds: np.ndarray, member: np.ndarray) -> None:
    inside, outside = _mean(log_odds, member), _mean(log_odds, ~member)
    both = np.isfinite(inside) & np.isfinite(outside)
    if not both.any():
        axes.text(0.5, 0.5, "needs rows that some models trained on and others did not\n(more shadows, ratio below 1)",
                  ha="center", va="center", color=QUIET, transform=axes.transAxes)  # fmt: skip
        axes.set_axis_off()
        return
    inside, outside = inside[both], outside[both]
    gap = inside - outside
    drawn = axes.scatter(outside, inside, c=gap, cmap="YlOrRd", vmin=0, vmax=max(np.percentile(gap, 99), 1e-6),
                         s=9, lw=0, rasterized=len(gap) > 5000)  # fmt: skip
    ends = [min(outside.min(), inside.min()), max(outside.max(), inside.max())]
    axes.plot(ends, ends, color=QUIET, lw=1)
    axes.figure.colorbar(drawn, ax=axes, label="exposure: difference of the two", shrink=0.85)
    axes.set(xlabel="mean log-odds of models that did not train on it", ylabel="mean of models that did",
             title="Each row: understood (on the line) or remembered (above)?")  # fmt: skip
    _tidy(axes)


def _picture(axes: Any, picture: np.ndarray, title: str, note: str, first: bool) -> None:
    shown = np.clip(picture, 0, 1)
    if shown.shape[-1] == 1:
        axes.imshow(shown[..., 0], cmap="gray_r", vmin=0, vmax=1)
    else:
        axes.imshow(shown[..., :3])
    axes.set_title(title, fontsize=7, color=INK)
    axes.set_xlabel(note, fontsize=8, color=MEMBER)
    axes.set_xticks([])
    axes.set_yticks([])
    if first:
        axes.set_ylabel("most\nexposed", fontsize=8, color=INK)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set(fontsize=10.5, color=INK)


def contact_sheet(pictures: np.ndarray, names: tuple[str, ...], title: str) -> Any:
    """Pictures in a grid, one line per class.

    Args:
      pictures: [R, K, H, W, C] float in [0, 1].
      names: R names of the lines.
      title: above the grid.
    """
    from matplotlib.figure import Figure

    number, per_class, height, width, channels = pictures.shape
    gap = max(1, height // 16)
    sheet = np.ones((number, height + gap, per_class, width + gap, channels))
    sheet[:, :height, :, :width] = np.clip(pictures, 0, 1).transpose(0, 2, 1, 3, 4)
    sheet = sheet.reshape(number * (height + gap), per_class * (width + gap), channels)
    shown = [wrapped(name, 24) for name in names]
    longest = max(len(line) for name in shown for line in name.split("\n"))
    inches = 0.8 + 0.075 * max(11, longest) + 0.55 * per_class
    figure = Figure(figsize=(inches, 0.6 + 0.55 * number), layout="constrained")
    axes = figure.add_subplot()
    if channels == 1:
        axes.imshow(1.0 - sheet[..., 0], cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(sheet[..., :3])
    axes.set_yticks((np.arange(number) + 0.5) * (height + gap), shown, fontsize=8)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(wrapped(title, max(12, 6 * per_class)), fontsize=10.5, color=INK, loc="left")
    return figure

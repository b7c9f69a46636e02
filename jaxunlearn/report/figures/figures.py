"""Figures of shadow models and of data sets. No pyplot state; `page` saves them."""

from typing import Any

import numpy as np

from jaxunlearn.report.theme import INK, MEMBER, OTHER, QUIET, wrap_text


def exposure(
    log_odds: np.ndarray,
    member: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    pictures: np.ndarray | None = None,
    class_names: tuple[str, ...] = (),
    scale: float = 255.0,
) -> Any:
    """Draws how differently models answer on rows that they trained on and on rows that they did not.

    Left: the distribution of the log-odds of the true class, members against non-members, with the band that contains
    80 % of the models. Right: each row's mean over the models that trained on it against its mean over the others; rows
    far above the diagonal are memorised rather than understood. Below: the most exposed rows.

    Args:
      log_odds: [M, n] float32 of every model on every row of the pool.
      member: [M, n] bool, whether the model trained on the row.
      labels: [n] class of each row.
      rows: [n] number of each row.
      pictures: [n, H, W, C] raw pictures, or None for data without pictures.
      class_names: names of the classes, may be empty.
      scale: value of a white pixel.
    """
    from matplotlib.figure import Figure

    exposures = _mean(log_odds, member) - _mean(log_odds, ~member)
    has_pictures = pictures is not None and np.isfinite(exposures).any()
    top_rows = np.argsort(-np.where(np.isfinite(exposures), exposures, -np.inf))[:10]
    names = [wrap_text(class_names[labels[row]] if class_names else str(labels[row]), 16) for row in top_rows]
    extra_height = 0.12 * max(name.count("\n") for name in names) if has_pictures else 0.0
    figure = Figure(figsize=(10, 6.0 + extra_height if has_pictures else 4.4), layout="constrained")
    grid = figure.add_gridspec(
        2 if has_pictures else 1, 2, height_ratios=[3.6, 1 + extra_height] if has_pictures else [1]
    )
    _distribution(figure.add_subplot(grid[0, 0]), log_odds, member)
    _scatter(figure.add_subplot(grid[0, 1]), log_odds, member)
    if has_pictures:
        assert pictures is not None
        inner = grid[1, :].subgridspec(1, 10)
        for column, (row, name) in enumerate(zip(top_rows, names, strict=True)):
            _picture(figure.add_subplot(inner[0, column]), pictures[row] / scale, f"row {rows[row]}\n{name}",
                     f"{exposures[row]:+.1f}", is_first=column == 0)  # fmt: skip
    num_models, num_rows = log_odds.shape
    title = f"What {num_models} shadow models memorise of {num_rows:,} rows"
    figure.suptitle(title, color=INK, fontsize=13, x=0.01, ha="left")
    return figure


def _mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the [n] means over each row's models under the mask; NaN without models."""
    mask = mask & np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mask, values, 0.0).sum(0) / mask.sum(0)


def _distribution(axes: Any, log_odds: np.ndarray, member: np.ndarray) -> None:
    finite = log_odds[np.isfinite(log_odds)]
    if not finite.size:
        return
    low, high = np.percentile(finite, [0.2, 99.8])
    edges = np.linspace(low, high + 1e-6, 61)
    centers = (edges[1:] + edges[:-1]) / 2
    for masks, color, name in ((~member, OTHER, "not trained on it"), (member, MEMBER, "trained on it")):
        values_by_model = [row[mask & np.isfinite(row)] for row, mask in zip(log_odds, masks, strict=True)]
        densities = np.array([_density(values, edges) for values in values_by_model if len(values)])
        if not len(densities):
            continue
        if len(densities) > 2:
            axes.fill_between(centers, *np.percentile(densities, [10, 90], axis=0), color=color, alpha=0.2, lw=0)
        pooled = np.concatenate(values_by_model)
        axes.plot(centers, densities.mean(0), color=color, lw=1.8, label=f"{name} (median {np.median(pooled):.1f})")
    axes.set(xlabel="log-odds of the true class", ylabel="density", title="All models: confidence in the true class")
    axes.axvline(0, color=QUIET, lw=0.8, ls=":")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    _tidy(axes)


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].astype(float)
    smooth = np.convolve(np.pad(counts, 2, mode="edge"), [0.1, 0.2, 0.4, 0.2, 0.1], mode="valid")
    return smooth / max(smooth.sum(), 1.0) / (edges[1] - edges[0])


def _scatter(axes: Any, log_odds: np.ndarray, member: np.ndarray) -> None:
    member_means, nonmember_means = _mean(log_odds, member), _mean(log_odds, ~member)
    is_finite = np.isfinite(member_means) & np.isfinite(nonmember_means)
    if not is_finite.any():
        axes.text(0.5, 0.5, "needs rows that only some models trained on\n(more shadow models, shadows.ratio below 1)",
                  ha="center", va="center", color=QUIET, transform=axes.transAxes)  # fmt: skip
        axes.set_axis_off()
        return
    member_means, nonmember_means = member_means[is_finite], nonmember_means[is_finite]
    gap = member_means - nonmember_means
    points = axes.scatter(nonmember_means, member_means, c=gap, cmap="YlOrRd", vmin=0,
                          vmax=max(np.percentile(gap, 99), 1e-6), s=9, lw=0, rasterized=len(gap) > 5000)  # fmt: skip
    ends = [min(nonmember_means.min(), member_means.min()), max(nonmember_means.max(), member_means.max())]
    axes.plot(ends, ends, color=QUIET, lw=1)
    axes.figure.colorbar(points, ax=axes, label="exposure: difference of the two", shrink=0.85)
    axes.set(xlabel="mean log-odds of models not trained on it", ylabel="mean log-odds of models trained on it",
             title="Each row: generalised (on the line) or memorised (above)")  # fmt: skip
    _tidy(axes)


def _picture(axes: Any, picture: np.ndarray, title: str, note: str, is_first: bool) -> None:
    pixels = np.clip(picture, 0, 1)
    if pixels.shape[-1] == 1:
        axes.imshow(pixels[..., 0], cmap="gray_r", vmin=0, vmax=1)
    else:
        axes.imshow(pixels[..., :3])
    axes.set_title(title, fontsize=7, color=INK)
    axes.set_xlabel(note, fontsize=8, color=MEMBER)
    axes.set_xticks([])
    axes.set_yticks([])
    if is_first:
        axes.set_ylabel("most\nexposed", fontsize=8, color=INK)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set(fontsize=10.5, color=INK)


def contact_sheet(pictures: np.ndarray, names: tuple[str, ...], title: str) -> Any:
    """Draws pictures in a grid, one row per class.

    Args:
      pictures: [R, K, H, W, C] float in [0, 1].
      names: R names of the rows.
      title: above the grid.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.report.figures import figures
      >>> figures.contact_sheet(np.zeros((2, 3, 8, 8, 1)), ("cat", "dog"), "pets").axes[0].get_yticks().size
      2
    """
    from matplotlib.figure import Figure

    num_classes, per_class, height, width, channels = pictures.shape
    gap = max(1, height // 16)
    sheet = np.ones((num_classes, height + gap, per_class, width + gap, channels))
    sheet[:, :height, :, :width] = np.clip(pictures, 0, 1).transpose(0, 2, 1, 3, 4)
    sheet = sheet.reshape(num_classes * (height + gap), per_class * (width + gap), channels)
    labels = [wrap_text(name, 24) for name in names]
    max_length = max(len(line) for name in labels for line in name.split("\n"))
    inches = 0.8 + 0.075 * max(11, max_length) + 0.55 * per_class
    figure = Figure(figsize=(inches, 0.6 + 0.55 * num_classes), layout="constrained")
    axes = figure.add_subplot()
    if channels == 1:
        axes.imshow(1.0 - sheet[..., 0], cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(sheet[..., :3])
    axes.set_yticks((np.arange(num_classes) + 0.5) * (height + gap), labels, fontsize=8)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(wrap_text(title, max(12, 6 * per_class)), fontsize=10.5, color=INK, loc="left")
    return figure

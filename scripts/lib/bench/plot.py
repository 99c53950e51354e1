"""The same as bars: one small chart for each measure, all systems in it, on its own scale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.lib.bench.results import Measure, Results, short
from scripts.lib.bench.systems import SYSTEMS

COLORS = {
    "local": "#8a8f98",
    "bare": "#c9ccd1",
    "r2fs-kernel": "#d1495b",
    "r2fs-libfuse": "#edae49",
    "rclone": "#30638e",
    "s3fs": "#00798c",
}
COLUMNS = 4


def draw(parts: dict[str, Results], subtitle: str, path: Path) -> None:
    """`parts`: title → results. The file's extension says its format."""
    charts = list(all_charts(parts))
    rows = -(-len(charts) // COLUMNS)
    figure = Figure(figsize=(4.6 * COLUMNS, 0.9 + 2.0 * rows), layout="constrained")
    figure.suptitle(f"r2fs, its peers and the local disk\n{subtitle}", fontsize=12)
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for at, ax in enumerate(axes.flat):
        if at < len(charts):
            chart(ax, *charts[at])
        else:
            ax.set_axis_off()
    figure.savefig(path, dpi=110)


def all_charts(parts: dict[str, Results]) -> Iterator[tuple[str, Results, Measure]]:
    for title, results in parts.items():
        for measure in results.measures():
            yield title, results, measure


def chart(ax: Axes, part: str, results: Results, measure: Measure) -> None:
    cells = [(name, cell) for name in SYSTEMS if (cell := results.cell(measure.name, name))]
    places = range(len(cells))
    medians = [cell.median for _, cell in cells]
    spread = [
        [cell.median - min(cell.samples) for _, cell in cells],
        [max(cell.samples) - cell.median for _, cell in cells],
    ]
    ax.barh(
        places,
        medians,
        color=[COLORS[name] for name, _ in cells],
        xerr=spread,
        error_kw={"ecolor": "#444444", "elinewidth": 0.8},
    )
    ax.set_yticks(places, [name for name, _ in cells], fontsize=8)
    ax.invert_yaxis()
    for place, (_, cell) in zip(places, cells, strict=True):
        ax.text(0, place, f" {short(cell.median)}", va="center", fontsize=8)
    arrow = "more is better" if measure.more_is_better else "less is better"
    ax.set_title(f"{part}{measure.title}\n{measure.unit}, {arrow}", fontsize=8)
    ax.tick_params(axis="x", labelsize=7)
    ax.set_xlim(left=0)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)

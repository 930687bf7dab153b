"""How long a tree of a thousand rows takes to open, and a toggle of one block and of the whole backbone.

Run it with ``python -m tests.benchmarks.bench_layer_tree``. Medians of five, beside a plain QTreeView over a
QStandardItemModel with the same rows and columns.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtGui import QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QApplication, QTreeView

from app import theme
from app.viewmodels.layer_rows import BACKBONE_ID
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.views.layer_tree import LayerTreeView
from trainer.messages.changes import LayersUnfrozen
from trainer.messages.model_info import LayerInfo, ModelSummary

NUM_STAGES, NUM_BLOCKS, NUM_CONVS = 10, 10, 9
NUM_RUNS = 5
SIZE = (400, 600)


def main() -> None:
    """Print the times."""
    app = QApplication(sys.argv[:1])
    theme.apply(app, "light")
    summary = make_summary()
    ours = [time_ms(lambda: open_ours(app, summary)) for _ in range(NUM_RUNS)]
    plain = [time_ms(lambda: open_plain(app, summary)) for _ in range(NUM_RUNS)]
    tree = LayerTreeViewModel()
    view = LayerTreeView(tree)
    view.resize(*SIZE)
    view.show()
    tree.set_summary(summary)
    app.processEvents()
    block_id = tree.rows[tree.rows[BACKBONE_ID].children[0]].children[0]
    toggles = {
        name: [time_ms(lambda: toggle(app, tree, row_id)) for _ in range(NUM_RUNS)]  # noqa: B023 (called at once)
        for name, row_id in (("toggle of one block", block_id), ("toggle of the backbone", BACKBONE_ID))
    }
    see_all(app, view)
    toggles["… all rows seen before"] = [time_ms(lambda: toggle(app, tree, BACKBONE_ID)) for _ in range(NUM_RUNS)]
    tree.is_live = True
    units = tree.rows[BACKBONE_ID].units
    settled = []
    for number in range(NUM_RUNS):
        frozen = [] if number % 2 else units
        event = LayersUnfrozen(
            layers=units, sentence="", frozen=frozen, num_trainable=5, requested_step=0, applied_step=0, source="user",
            segment=0,
        )  # fmt: skip
        settled.append(time_ms(lambda: settle(app, tree, event)))  # noqa: B023 (called at once)
    toggles["worker's answer, all rows seen"] = settled
    opened, plain_opened = statistics.median(ours), statistics.median(plain)
    print(f"rows                            {len(tree.rows)}")
    print(f"open and expand, Thaw           {opened:.0f} ms")
    print(f"open and expand, plain Qt       {plain_opened:.0f} ms   (ratio {opened / plain_opened:.1f})")
    for name, times in toggles.items():
        print(f"{name:31} {statistics.median(times):.0f} ms")


def make_summary() -> ModelSummary:
    """Make a model of ten stages of ten blocks of nine convolutions."""
    layers = [LayerInfo(fqn="", type="Net", num_params=0, is_unit=False)]
    for stage in range(NUM_STAGES):
        layers.append(LayerInfo(fqn=f"stage{stage}", type="Sequential", num_params=0, is_unit=False))
        for block in range(NUM_BLOCKS):
            fqn = f"stage{stage}.{block}"
            layers.append(LayerInfo(fqn=fqn, type="Block", num_params=0, is_unit=False))
            layers += [
                LayerInfo(
                    fqn=f"{fqn}.conv{conv}",
                    type="Conv2d",
                    num_params=9,
                    is_unit=True,
                    own_params={"weight": 8, "bias": 1},
                )
                for conv in range(NUM_CONVS)
            ]
    layers.append(LayerInfo(fqn="fc", type="Linear", num_params=5, is_unit=True, is_head=True))
    num_params = sum(layer.num_params for layer in layers)
    return ModelSummary(model="net", layers=layers, frozen=[], num_params=num_params, num_trainable=num_params)


def open_ours(app: QApplication, summary: ModelSummary) -> None:
    """Show the model in a fresh tree, expanded."""
    tree = LayerTreeViewModel()
    view = LayerTreeView(tree)
    view.resize(*SIZE)
    view.show()
    tree.set_summary(summary)
    view.tree.expandAll()
    view.grab()
    view.close()
    app.processEvents()


def open_plain(app: QApplication, summary: ModelSummary) -> None:
    """Show the same rows in a plain view of Qt's own."""
    item_model = QStandardItemModel(0, 4)
    items = {"": item_model.invisibleRootItem()}
    for layer in summary.layers[1:]:
        row = [QStandardItem(text) for text in (layer.fqn, layer.type, str(layer.num_params), "")]
        row[0].setCheckable(True)
        items[layer.fqn.rpartition(".")[0]].appendRow(row)
        items[layer.fqn] = row[0]
    view = QTreeView()
    view.setModel(item_model)
    view.resize(*SIZE)
    view.show()
    view.expandAll()
    view.grab()
    view.close()
    app.processEvents()


def toggle(app: QApplication, tree: LayerTreeViewModel, row_id: int) -> None:
    """Freeze a row before a run, and draw it."""
    tree.toggle([row_id])
    app.processEvents()


def settle(app: QApplication, tree: LayerTreeViewModel, event: LayersUnfrozen) -> None:
    """Take what the worker answers to a toggle, and draw it."""
    tree.settle(event)
    app.processEvents()


def see_all(app: QApplication, view: LayerTreeView) -> None:
    """Expand the tree and page through it, so that every row was read."""
    view.tree.expandAll()
    bar = view.tree.verticalScrollBar()
    while bar.value() < bar.maximum():
        bar.setValue(bar.value() + bar.pageStep())
        app.processEvents()
    bar.setValue(0)
    app.processEvents()


def time_ms(work: Callable[[], None]) -> float:
    """Return how long a piece of work takes, in milliseconds."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()

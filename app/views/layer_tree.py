"""LayerTreeView: the model's tree with its freeze check boxes, a filter, presets, and what the freeze costs."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import (
    QEvent,
    QItemSelectionModel,
    QLocale,
    QModelIndex,
    Qt,
)
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.theme import SPACE, palette_of
from app.viewmodels.freeze_presets import Preset
from app.viewmodels.frozen_layers import LayerState
from app.viewmodels.layer_rows import BACKBONE_ID, PARAMETER
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.layer_tree_item_model import ROW_ID_ROLE, Column, LayerFilter, LayerTreeItemModel
from app.viewmodels.quantities import count_text, milliseconds_text
from app.views.elided_label import ElidedLabel
from app.views.filter_box import FilterBox
from app.views.layer_delegate import LayerDelegate
from app.views.layer_rows import LEAST_WIDTHS, LayerRows

_MAX_DEPTH_OFFERED = 5
_EXPANDED_AT_ONCE = 200


class LayerTreeView(QWidget):
    """Title and presets, filter, tree, the sentence for a refusal, and the footer's figures."""

    def __init__(self, layer_tree: LayerTreeViewModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layer_tree = layer_tree
        self.item_model = LayerTreeItemModel(layer_tree, self)
        self.filter = LayerFilter(self.item_model, self)
        self._delegate = LayerDelegate(self)
        self.tree = LayerRows(self.filter, self._delegate, layer_tree)
        self._connect_tree()
        self._stack = QStackedWidget()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2 * SPACE)
        layout.addLayout(self._make_header())
        layout.addWidget(self._make_filter())
        self._stack.addWidget(self._make_empty())
        self._stack.addWidget(self.tree)
        layout.addWidget(self._stack, 1)
        layout.addLayout(self._make_footer())
        self._restyle()
        layer_tree.rows_reset.connect(self._on_rows_reset)
        layer_tree.figures_changed.connect(self._show_figures)
        # Only what is in sight: telling of each of a thousand rows once a second would cost more than painting thirty.
        layer_tree.measures_changed.connect(self.tree.viewport().update)
        layer_tree.cached_changed.connect(self._show_cached)
        layer_tree.states_changed.connect(self._show_cached)
        layer_tree.message_changed.connect(self._show_message)
        layer_tree.columns_changed.connect(self._fit_columns)
        self._fit_columns()
        self._on_rows_reset()
        self._show_figures()
        self._show_cached()
        self._show_message(layer_tree.message)

    def selected_rows(self) -> list[int]:
        """Return the ids of the selected rows, from the top; the present row if none is selected."""
        selection = self.tree.selectionModel()
        indexes = selection.selectedRows(Column.LAYER) or [selection.currentIndex()]
        return sorted({int(index.data(ROW_ID_ROLE)) for index in indexes if index.isValid()})

    def toggle_selected(self) -> None:
        """Freeze the selected rows, or unfreeze them if all of them are frozen."""
        self._layer_tree.toggle(self.selected_rows())

    def select(self, row_ids: list[int]) -> None:
        """Select rows by their ids; the last one becomes the present one."""
        selection = self.tree.selectionModel()
        selection.clearSelection()
        for row_id in row_ids:
            index = self._shown(row_id)
            selection.setCurrentIndex(
                index, QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
            )

    def make_menu(self) -> QMenu:
        """Make the menu of what can be done with the selected rows."""
        rows = self.selected_rows()
        can_freeze = any(self._layer_tree.rows[row].atoms for row in rows)
        menu = QMenu(self)
        states = {self._layer_tree.frozen.state_of(row) for row in rows if self._layer_tree.rows[row].atoms}
        menu.addAction(self.tr("Freeze"), lambda: self._layer_tree.freeze_rows(rows)).setEnabled(
            bool(states - {LayerState.FROZEN})
        )
        menu.addAction(self.tr("Unfreeze"), lambda: self._layer_tree.unfreeze_rows(rows)).setEnabled(
            bool(states - {LayerState.TRAINABLE})
        )
        for text, act in (
            (self.tr("Train only this"), lambda: self._layer_tree.train_only(rows)),
            (self.tr("Invert"), self._layer_tree.invert),
        ):
            menu.addAction(text, act).setEnabled(can_freeze)
        menu.addSeparator()
        menu.addAction(self.tr("Freeze up to here"), lambda: self._layer_tree.freeze_up_to(rows[-1])).setEnabled(
            can_freeze
        )
        menu.addAction(self.tr("Unfreeze from here"), lambda: self._layer_tree.unfreeze_from(rows[0])).setEnabled(
            can_freeze
        )
        types = dict.fromkeys(self._layer_tree.rows[row].type for row in rows if can_freeze)
        for type_name in (each for each in types if each != PARAMETER):
            for text, act_on in (
                (self.tr("Freeze all {}"), self._layer_tree.freeze_type),
                (self.tr("Unfreeze all {}"), self._layer_tree.unfreeze_type),
            ):
                menu.addAction(text.format(type_name), partial(act_on, type_name))
        if self._layer_tree.rows.biases:
            menu.addAction(self.tr("Freeze all biases"), self._layer_tree.freeze_biases)
            menu.addAction(self.tr("Unfreeze all biases"), self._layer_tree.unfreeze_biases)
        menu.addSeparator()
        adapts = menu.addAction(self.tr("Statistics adapt while frozen"))
        adapts.setCheckable(True)
        with_statistics = [row for row in rows if self._layer_tree.frozen.has_statistics(row)]
        adapts.setChecked(bool(with_statistics) and all(map(self._layer_tree.frozen.is_adapting, with_statistics)))
        adapts.setEnabled(bool(with_statistics))
        adapts.toggled.connect(lambda is_adapting: self._layer_tree.set_adapting(rows, is_adapting))
        rate = menu.addAction(self.tr("Change the rate multiplier"), lambda: self.edit_multiplier(rows[-1]))
        rate.setEnabled(bool(rows) and self._layer_tree.rates.has_rate(rows[-1]))
        menu.addSeparator()
        depths = menu.addMenu(self.tr("Expand to depth"))
        for depth in range(1, _MAX_DEPTH_OFFERED + 1):
            depths.addAction(QLocale().toString(depth), partial(self._expand_to, depth))
        menu.addAction(self.tr("Expand all"), self.tree.expandAll)
        menu.addAction(self.tr("Collapse"), self._collapse)
        menu.addMenu(self.make_column_menu(menu))
        return menu

    def make_column_menu(self, parent: QWidget) -> QMenu:
        """Make the menu that chooses the columns."""
        menu = QMenu(self.tr("Columns"), parent)
        for column in sorted(LEAST_WIDTHS):
            action = menu.addAction(self.item_model.title(column))
            action.setCheckable(True)
            action.setChecked(not self.tree.isColumnHidden(column))
            action.toggled.connect(partial(self._layer_tree.choose_column, _key(column)))
        menu.addSeparator()
        menu.addAction(self.tr("By the room there is"), self._layer_tree.forget_columns)
        return menu

    def _fit_columns(self) -> None:
        chosen = self._layer_tree.columns
        self.tree.fit_columns({column: chosen[_key(column)] for column in LEAST_WIDTHS if _key(column) in chosen})

    def _expand_to(self, depth: int) -> None:
        self.tree.collapseAll()
        # Qt counts from the top rows, which are depth 0.
        self.tree.expandToDepth(depth - 1)

    def edit_multiplier(self, row_id: int) -> None:
        """Let the user type a row's rate multiplier, in its cell."""
        index = self._shown(row_id).siblingAtColumn(Column.MULTIPLIER)
        if index.flags() & Qt.ItemFlag.ItemIsEditable:
            if self.tree.isColumnHidden(Column.MULTIPLIER):
                self._layer_tree.choose_column(_key(Column.MULTIPLIER), True)
            self.tree.edit(index)

    def _edit_selected(self) -> None:
        rows = self.selected_rows()
        if rows:
            self.edit_multiplier(rows[-1])

    def _multiply(self, row_id: int, text: str) -> None:
        selected = self.selected_rows()
        self._layer_tree.multiply_rows(selected if row_id in selected else [row_id], text)

    def changeEvent(self, event: QEvent) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange:
            self._restyle()

    # -- what is shown ----------------------------------------------------------------------------------------

    def _on_rows_reset(self) -> None:
        is_empty = self._layer_tree.is_empty
        self._stack.setCurrentIndex(0 if is_empty else 1)
        self.filter_box.setEnabled(not is_empty)
        self.preset_button.setEnabled(not is_empty)
        for preset, action in self._preset_actions.items():
            action.setVisible(self._layer_tree.has_preset(preset))
        self.filter_box.clear()
        widest = max((row.num_params for row in self._layer_tree.rows.in_order()), default=0)
        width = self.tree.fontMetrics().horizontalAdvance(count_text(widest)) + 3 * SPACE
        self.tree.header().resizeSection(Column.PARAMS, max(width, 18 * SPACE))
        self._collapse()

    def _collapse(self) -> None:
        self.tree.collapseAll()
        self.tree.expand(self._shown(BACKBONE_ID))

    def _shown(self, row_id: int) -> QModelIndex:
        return self.filter.mapFromSource(self.item_model.index_of(row_id))

    def _filter(self, text: str) -> None:
        self.filter.set_text(text)
        if not text.strip():
            self._collapse()
        elif len(self._layer_tree.rows) <= _EXPANDED_AT_ONCE or len(text.strip()) > 1:
            self.tree.expandAll()

    def _show_figures(self) -> None:
        tree = self._layer_tree
        self.preset_button.setText(self._preset_text(tree.preset))
        self.trainable_chip.setVisible(not tree.is_empty)
        text = self.tr("{trainable} of {all} trainable")
        self.trainable_chip.setText(
            text.format(trainable=count_text(tree.num_trainable), all=count_text(tree.num_params))
        )
        tip = self.tr("Parameters that the optimizer moves.")
        if tree.frozen.num_behind_trainable:
            behind = self.tr(
                "{count} frozen layers have one before them that learns: only their weights' gradient is saved."
            )
            tip = f"{tip} {behind.format(count=count_text(tree.frozen.num_behind_trainable))}"
        if tree.cached.reason:
            tip = f"{tip} {tree.cached.reason}"
        self.trainable_chip.setToolTip(tip)
        self.drift_chip.setVisible(tree.frozen.num_verified is not None)
        tone = "danger" if tree.frozen.drifted else "ice"
        if self.drift_chip.property("tone") != tone:
            self.drift_chip.setProperty("tone", tone)
            self.drift_chip.style().unpolish(self.drift_chip)
            self.drift_chip.style().polish(self.drift_chip)
        if tree.frozen.drifted:
            self.drift_chip.setText(self.tr("%n layer(s) drifted", "", len(tree.frozen.drifted)))
            self.drift_chip.setToolTip(", ".join(tree.frozen.drifted))
        else:
            self.drift_chip.setText(self.tr("0 drift"))
            proof = self.tr("{count} frozen layers were hashed again: every bit is as it was when they were frozen.")
            lines = [proof.format(count=count_text(tree.frozen.num_verified or 0))]
            if tree.frozen.num_adapting:
                adapting = self.tr("Of {count} of them, that is of the weights: their statistics adapt to the data.")
                lines.append(adapting.format(count=count_text(tree.frozen.num_adapting)))
            self.drift_chip.setToolTip(" ".join(lines))
        self.step_label.setVisible(tree.is_live)
        self.step_label.set_whole_text(self._step_text())

    def _show_cached(self) -> None:
        tree = self._layer_tree
        self.tree.setAccessibleDescription(tree.cached.explanation() if tree.shows_cached else tree.cached.reason)
        self.tree.viewport().update()
        self._show_figures()

    def _step_text(self) -> str:
        tree = self._layer_tree
        text = self.tr("Step {}").format(
            milliseconds_text(tree.step_ms) if tree.step_ms else self.tr("not measured yet")
        )
        if tree.predicted_ms is not None:
            text = self.tr("{}, {} predicted").format(text, milliseconds_text(tree.predicted_ms))
        if tree.cached.progress_text:
            text = f"{text} · {tree.cached.progress_text}"
        if tree.forecast is None:
            return text
        row, is_freeze, predicted_ms = tree.forecast
        change = self.tr("{} frozen: about {}") if is_freeze else self.tr("{} unfrozen: about {}")
        return f"{text} · {change.format(row.fqn, milliseconds_text(predicted_ms))}"

    def _show_message(self, message: str) -> None:
        theme.set_property(self.message, "role", "error" if self._layer_tree.is_refusal else "note")
        self.message.setText(message)
        self.message.setVisible(bool(message))

    def _restyle(self) -> None:
        colors = palette_of(self)
        self._delegate.set_dark(colors.is_dark)
        self.tree.colors = colors
        self.tree.viewport().update()

    # -- parts ------------------------------------------------------------------------------------------------

    def _make_header(self) -> QHBoxLayout:
        title = _label(self.tr("Model"), "heading")
        self.preset_button = QToolButton()
        self.preset_button.setProperty("kind", "menu")
        self.preset_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.preset_button.setAccessibleName(self.tr("What is trained"))
        self.preset_button.setToolTip(self.tr("What is trained; everything else is frozen"))
        menu = QMenu(self)
        self._preset_actions = {
            preset: menu.addAction(self._preset_text(preset), partial(self._layer_tree.apply_preset, preset))
            for preset in (Preset.HEAD_ONLY, Preset.LAST_STAGE, Preset.NORMS, Preset.BIASES, Preset.EVERYTHING)
        }
        self._preset_actions[Preset.BIASES].setToolTip(
            self.tr(
                "All biases and the head learn (BitFit). The statistics of norm layers go on: they freeze with the "
                "whole layer only."
            )
        )
        menu.setToolTipsVisible(True)
        self.preset_button.setMenu(menu)
        header = QHBoxLayout()
        header.addWidget(title)
        header.addStretch(1)
        header.addWidget(self.preset_button)
        return header

    def _make_filter(self) -> QLineEdit:
        self.filter_box = FilterBox(self.tr("Filter layers by name, type or state"), self.tr("Filter layers"))
        self.filter_box.textChanged.connect(self._filter)
        self.filter_box.returnPressed.connect(self.tree.setFocus)
        return self.filter_box

    def _make_empty(self) -> QLabel:
        empty = _label(self.tr("The layers appear when a model is chosen."), "dim")
        empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        empty.setWordWrap(True)
        return empty

    def _connect_tree(self) -> None:
        self.tree.pointed_at.connect(self._layer_tree.point_at)
        self.tree.toggle_pressed.connect(self.toggle_selected)
        self.tree.edit_pressed.connect(self._edit_selected)
        self.tree.menu_wanted.connect(lambda position: self.make_menu().popup(position))
        self.tree.column_menu_wanted.connect(lambda position: self.make_column_menu(self).popup(position))
        self._delegate.multiplier_typed.connect(self._multiply)

    def _make_footer(self) -> QVBoxLayout:
        self.message = _label("", "error")
        self.message.setWordWrap(True)
        self.trainable_chip, self.drift_chip = _label("", "chip-small"), _label("", "chip-small")
        self.trainable_chip.setProperty("tone", "warm")
        self.step_label = ElidedLabel(Qt.TextElideMode.ElideRight, 24 * SPACE)
        self.step_label.setProperty("role", "dim")
        chips = QHBoxLayout()
        chips.setSpacing(2 * SPACE)
        chips.addWidget(self.trainable_chip)
        chips.addWidget(self.drift_chip)
        chips.addStretch(1)
        footer = QVBoxLayout()
        footer.setSpacing(2 * SPACE)
        footer.addWidget(self.message)
        footer.addLayout(chips)
        footer.addWidget(self.step_label)
        return footer

    def _preset_text(self, preset: Preset) -> str:
        return {
            Preset.HEAD_ONLY: self.tr("Head only"),
            Preset.LAST_STAGE: self.tr("Last stage + head"),
            Preset.NORMS: self.tr("Norm layers + head"),
            Preset.BIASES: self.tr("Biases only (BitFit)"),
            Preset.EVERYTHING: self.tr("Everything"),
            Preset.CUSTOM: self.tr("Custom"),
        }[preset]


def _key(column: Column) -> str:
    """Name a column in the settings."""
    return column.name.lower()


def _label(text: str, role: str) -> QLabel:
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setProperty("role", role)
    return label

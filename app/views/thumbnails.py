"""ThumbnailGrid: the images as tiles. Only what is in sight, and the screenful after it, is ever read."""

from __future__ import annotations

from PySide6.QtCore import (
    QAbstractItemModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QRect,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import QHideEvent, QKeyEvent, QPainter, QPaintEvent, QRegion, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QAbstractItemView, QWidget

from app import theme
from app.thumbnail_loader import ThumbnailLoader
from app.viewmodels.image_items import ImageItemModel, PathRole, SplitRole
from app.views.thumbnail_tile import ThumbnailTile

_Index = QModelIndex | QPersistentModelIndex

_SMALL_SIDE, _LARGE_SIDE = 56, 88
"""The height of a tile, and its least width: two rows of the small ones fit where the tab is low."""
_LEAST_HEIGHT_FOR_LARGE = 212


class ThumbnailGrid(QAbstractItemView):
    """A grid of equal tiles.

    Not a QListView: that lays out every row by itself, 60 to 230 ms for 100,000 of them at each change of its width.
    """

    opened = Signal(QModelIndex)
    """A picture was asked for, by a click or by Enter."""

    def __init__(self, images: ImageItemModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.loader = ThumbnailLoader(self)
        self.loader.loaded.connect(lambda _: self.viewport().update())
        self._side, self._num_columns, self._width = _SMALL_SIDE, 1, _SMALL_SIDE
        self._ask_timer = QTimer(self)
        self._ask_timer.setSingleShot(True)
        self._ask_timer.setInterval(0)
        self._ask_timer.timeout.connect(self._ask)
        self.setFrameShape(QAbstractItemView.Shape.NoFrame)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        # Always there, so that the tiles do not move when another class is chosen.
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        self.setTabKeyNavigation(False)
        self.setAccessibleName(self.tr("Images"))
        self.setModel(images)
        self.clicked.connect(self.opened)

    def visible_rows(self) -> range:
        """Return the rows of the tiles that are in sight, wholly or in part."""
        top, height = self.verticalOffset(), self.viewport().height()
        first = top // self._pitch * self._num_columns
        last = (top + height - 1) // self._pitch * self._num_columns + self._num_columns
        return range(first, min(last, self._num_rows()))

    # -- QAbstractItemView ------------------------------------------------------------------------------------

    def visualRect(self, index: _Index) -> QRect:
        """Return where a tile is, in the viewport."""
        line, column = divmod(index.row(), self._num_columns)
        left, top = column * self._width, line * self._pitch - self.verticalOffset()
        return QRect(left, top, self._width - theme.SPACE, self._side)

    def indexAt(self, point: QPoint) -> QModelIndex:
        """Return the tile at a point of the viewport."""
        column, line = point.x() // self._width, (point.y() + self.verticalOffset()) // self._pitch
        row = line * self._num_columns + column
        if not 0 <= column < self._num_columns or not 0 <= row < self._num_rows():
            return QModelIndex()
        index = self.model().index(row, 0)
        return index if self.visualRect(index).contains(point) else QModelIndex()

    def scrollTo(
        self, index: _Index, hint: QAbstractItemView.ScrollHint = QAbstractItemView.ScrollHint.EnsureVisible
    ) -> None:
        """Bring a tile into sight."""
        rect, bar = self.visualRect(index), self.verticalScrollBar()
        if rect.top() < 0:
            bar.setValue(bar.value() + rect.top())
        elif rect.bottom() > self.viewport().height():
            bar.setValue(bar.value() + rect.bottom() + theme.SPACE - self.viewport().height())

    def moveCursor(self, action: QAbstractItemView.CursorAction, modifiers: Qt.KeyboardModifier) -> QModelIndex:
        """Return the tile that a key leads to."""
        actions = QAbstractItemView.CursorAction
        last = self._num_rows() - 1
        row = self.currentIndex().row()
        if last < 0:
            return QModelIndex()
        if row < 0:
            return self.model().index(0, 0)
        screenful = max(1, self.viewport().height() // self._pitch) * self._num_columns
        match action:
            case actions.MoveHome:
                row = 0
            case actions.MoveEnd:
                row = last
            case actions.MoveUp:
                row -= self._num_columns if row >= self._num_columns else 0
            case actions.MoveDown:
                is_last_line = row // self._num_columns == last // self._num_columns
                row += 0 if is_last_line else self._num_columns
            case _:
                row += {
                    actions.MoveLeft: -1,
                    actions.MovePrevious: -1,
                    actions.MoveRight: 1,
                    actions.MoveNext: 1,
                    actions.MovePageUp: -screenful,
                    actions.MovePageDown: screenful,
                }[action]
        return self.model().index(min(max(row, 0), last), 0)

    def horizontalOffset(self) -> int:
        """Return 0: the grid is as wide as its room."""
        return 0

    def verticalOffset(self) -> int:
        """Return how far it is scrolled, in pixels."""
        return self.verticalScrollBar().value()

    def isIndexHidden(self, index: _Index) -> bool:
        """Tell that no tile is hidden."""
        return False

    def setSelection(self, rect: QRect, command: QItemSelectionModel.SelectionFlag) -> None:
        """Select the tile at a rectangle: one at a time."""
        index = self.indexAt(rect.center())
        self.selectionModel().select(QItemSelection(index, index), command)

    def visualRegionForSelection(self, selection: QItemSelection) -> QRegion:
        """Return where the selected tile is."""
        region = QRegion()
        for index in selection.indexes():
            region += self.visualRect(index)
        return region

    def updateGeometries(self) -> None:
        """Fit tiles and scroll bar to the room. The tile that was at the top stays in the topmost line."""
        super().updateGeometries()
        height, bar, before = self.viewport().height(), self.verticalScrollBar(), (self._side, self._num_columns)
        first = self.visible_rows().start
        self._side = _LARGE_SIDE if height >= _LEAST_HEIGHT_FOR_LARGE else _SMALL_SIDE
        self._num_columns = max(1, (self.viewport().width() + theme.SPACE) // self._pitch)
        # The tiles share the whole width: no ragged edge.
        self._width = max((self.viewport().width() + theme.SPACE) // self._num_columns, self._pitch)
        num_lines = -(-self._num_rows() // self._num_columns)
        bar.setRange(0, max(0, num_lines * self._pitch - theme.SPACE - height))
        bar.setPageStep(height)
        bar.setSingleStep(self._pitch // 2)
        if before != (self._side, self._num_columns):
            bar.setValue(first // self._num_columns * self._pitch)
        self._ask_soon()

    def scrollContentsBy(self, dx: int, dy: int) -> None:
        """Draw anew what came into sight, and read it."""
        self.viewport().update()
        self._ask_soon()

    def keyboardSearch(self, search: str) -> None:
        """Do nothing: a name that was not read yet cannot be found, and reading all of them would take long."""

    def setModel(self, model: QAbstractItemModel | None) -> None:
        """Show an item model of images."""
        super().setModel(model)
        if model is not None:
            model.modelReset.connect(self._begin_anew, Qt.ConnectionType.QueuedConnection)
            model.dataChanged.connect(self._ask_soon)
        self._begin_anew()

    # -- events -----------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the tiles in sight."""
        painter, colors = QPainter(self.viewport()), theme.palette_of(self)
        tile = ThumbnailTile(colors, self.devicePixelRatioF())
        model, selection = self.model(), self.selectionModel()
        for row in self.visible_rows():
            index = model.index(row, 0)
            rect = self.visualRect(index)
            if rect.intersects(event.rect()):
                path = index.data(PathRole)
                pixmap = self.loader.pixmap(path) if path else None
                tile.paint(painter, rect, pixmap, path, index.data(SplitRole), is_selected=selection.isSelected(index))
        painter.end()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Fit the tiles to the room."""
        super().resizeEvent(event)
        self.updateGeometries()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Open the picture on Enter, on every desktop."""
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter} and self.currentIndex().isValid():
            self.opened.emit(self.currentIndex())
        else:
            super().keyPressEvent(event)

    def showEvent(self, event: QShowEvent) -> None:
        """Read what is in sight now."""
        super().showEvent(event)
        self._ask_soon()

    def hideEvent(self, event: QHideEvent) -> None:
        """Read nothing that nobody sees."""
        super().hideEvent(event)
        self._ask_soon()

    # -- inside -----------------------------------------------------------------------------------------------

    @property
    def _pitch(self) -> int:
        return self._side + theme.SPACE

    def _num_rows(self) -> int:
        model = self.model()
        return model.rowCount() if model is not None else 0

    def _begin_anew(self) -> None:
        self.verticalScrollBar().setValue(0)
        self.updateGeometries()
        self.viewport().update()

    def _ask_soon(self) -> None:
        # Several things change at once when the grid scrolls: asked for once, after them.
        self._ask_timer.start()

    def _ask(self) -> None:
        model = self.model()
        assert isinstance(model, ImageItemModel)
        side = round(ThumbnailTile.picture_side(self._side) * self.devicePixelRatioF())
        if not self.isVisible():
            self.loader.want([], side)
            return
        rows = self.visible_rows()
        ahead = range(rows.stop, min(rows.stop + len(rows), self._num_rows()))
        model.want_rows(rows.start, max(ahead.stop, rows.stop) - 1)
        images = [model.image(row) for row in (*rows, *ahead)]
        self.loader.want([image.path for image in images if image is not None], side)

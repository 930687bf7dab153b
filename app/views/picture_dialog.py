"""PictureDialog: a picture fitted to its window, or a pair of them side by side; arrows go on, Esc closes."""

from __future__ import annotations

from PySide6.QtCore import QAbstractItemModel, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QImage, QKeyEvent, QPainter, QPaintEvent, QPixmap
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app import theme
from app.backlog import Backlog
from app.thumbnail_loader import PictureRequest, load_picture
from app.viewmodels.picture_page import PageRole, Picture, PicturePage
from app.viewmodels.quantities import count_text, percent_text
from app.views.elided_label import ElidedLabel
from app.views.thumbnail_tile import paint_fitted
from trainer.messages.data_info import ImageView

_SIZE = QSize(760, 620)
_NUM_VIEWS = 6
_VIEW_SIDE = 104
_MAX_SIDE = 2048
"""The longest side that is read, in device pixels: more than the window shows would only take memory."""


class PictureDialog(QDialog):
    """Shows the pictures of one row of an item model after the other."""

    row_changed = Signal(int)
    """The row that is shown now: what lists the rows brings it into sight, so that it is read."""

    views_wanted = Signal(str)
    """The path of an image that is shown alone."""

    def __init__(self, model: QAbstractItemModel, row: int, title: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(title)
        self._model = model
        self._row = row
        self._page: PicturePage | None = None
        self._backlog = Backlog(load_picture, 2, self)
        self._backlog.answered.connect(self._take)
        self._view_files: dict[str, _Canvas] = {}
        self._is_mixed = False
        self._view_backlog = Backlog(load_picture, 2, self)
        self._view_backlog.answered.connect(self._take_view)
        self._build()
        model.dataChanged.connect(self._on_rows_read)
        # Other rows are listed now: what was looked at is not among them, or somewhere else.
        model.modelReset.connect(self.close)
        model.rowsInserted.connect(self.close)
        self.resize(_SIZE.boundedTo(self.screen().availableSize() * 0.9))

    @property
    def row(self) -> int:
        """Return the row that is shown."""
        return self._row

    def show_next(self, num_rows: int) -> None:
        """Go on by so many rows; it stays where the list ends."""
        row = min(max(self._row + num_rows, 0), self._model.rowCount() - 1)
        if row != self._row:
            self._row = row
            self.show_row()
            self.row_changed.emit(row)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Go to the next picture, or back."""
        steps = {Qt.Key.Key_Right: 1, Qt.Key.Key_Down: 1, Qt.Key.Key_Left: -1, Qt.Key.Key_Up: -1}
        if (step := steps.get(Qt.Key(event.key()))) is not None:
            self.show_next(step)
        else:
            super().keyPressEvent(event)

    # -- building ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.sentence = QLabel()
        self.sentence.setTextFormat(Qt.TextFormat.PlainText)
        self.sentence.setWordWrap(True)
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.panes = (_Pane(), _Pane())
        pictures = QHBoxLayout()
        pictures.setSpacing(theme.PANEL_GAP)
        for pane in self.panes:
            pictures.addWidget(pane, 1)
        self._place = QLabel()
        self._place.setProperty("role", "dim")
        self._back, self._on = QPushButton(self.tr("Previous")), QPushButton(self.tr("Next"))
        self._back.clicked.connect(lambda: self.show_next(-1))
        self._on.clicked.connect(lambda: self.show_next(1))
        tools = QHBoxLayout()
        tools.setSpacing(2 * theme.SPACE)
        tools.addWidget(self._place)
        tools.addStretch(1)
        for button in (self._back, self._on):
            # The arrows go from picture to picture, not from button to button.
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            button.setAutoDefault(False)
            tools.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(*[theme.PANEL_PADDING] * 4)
        layout.setSpacing(2 * theme.SPACE)
        layout.addWidget(self.sentence)
        layout.addLayout(pictures, 1)
        layout.addWidget(self._make_views())
        layout.addLayout(tools)

    def _make_views(self) -> QWidget:
        self.views = QWidget()
        self.views_title = QLabel()
        self.views_title.setTextFormat(Qt.TextFormat.PlainText)
        self.views_title.setWordWrap(True)
        self.views_title.setProperty("role", "dim")
        self.view_tiles = tuple(_ViewTile() for _ in range(_NUM_VIEWS))
        self._strip = QWidget()
        strip = QHBoxLayout(self._strip)
        strip.setContentsMargins(0, 0, 0, 0)
        strip.setSpacing(2 * theme.SPACE)
        for tile in self.view_tiles:
            strip.addWidget(tile, 1)
        layout = QVBoxLayout(self.views)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE)
        layout.addWidget(self.views_title)
        layout.addWidget(self._strip)
        self.views.hide()
        return self.views

    # -- what is shown ----------------------------------------------------------------------------------------

    def show_views(self, path: str, views: list[ImageView]) -> None:
        """Show what the model sees of the image at ``path``, epoch by epoch, unless another one is shown by now."""
        if path != self.panes[0].path:
            return
        self.views_title.setText(self._views_text(views))
        # Once there, the line about mixing keeps its place, so that the picture above does not jump.
        self._is_mixed = self._is_mixed or any(view.mixed_share for view in views)
        for tile, view in zip(self.view_tiles, (*views, *[None] * len(self.view_tiles)), strict=False):
            tile.show_view(view, is_mixed=self._is_mixed)
        self._view_files = {
            view.file: tile.canvas for view, tile in zip(views, self.view_tiles, strict=False) if view.file
        }
        self._strip.show()
        self.views.show()
        self._view_backlog.want([PictureRequest(file, _MAX_SIDE) for file in self._view_files])

    def refuse_views(self, path: str, sentence: str) -> None:
        """Say why nobody can tell what the model sees of the image at ``path``."""
        if path == self.panes[0].path:
            self.views_title.setText(sentence)
            self._strip.hide()
            self.views.show()

    def _views_text(self, views: list[ImageView]) -> str:
        first, last = views[0].epoch, views[-1].epoch
        if first is None or last is None:
            return self.tr("As the model sees it, in every epoch")
        if first == last:
            return self.tr("As the model sees it in epoch {}").format(count_text(first))
        return self.tr("As the model sees it in epochs {} to {}").format(count_text(first), count_text(last))

    def _take_view(self, request: PictureRequest, image: QImage) -> None:
        if (canvas := self._view_files.get(request.path)) is not None:
            canvas.show_pixmap(QPixmap.fromImage(image))

    def show_row(self) -> None:
        """Show the present row."""
        num_rows = self._model.rowCount()
        self._place.setText(self.tr("{} of {}").format(count_text(self._row + 1), count_text(num_rows)))
        self._back.setEnabled(self._row > 0)
        self._on.setEnabled(self._row < num_rows - 1)
        self._page = self._model.index(self._row, 0).data(PageRole)
        pictures = self._page.pictures if self._page is not None else ()
        self.sentence.setText(self._page.sentence if self._page is not None else "")
        for pane, picture in zip(self.panes, (*pictures, None, None), strict=False):
            pane.show_picture(picture)
        # The first pane stays while nothing is known, so that the window keeps its shape.
        self.panes[0].show()
        self._backlog.want([PictureRequest(picture.path, _MAX_SIDE) for picture in pictures])
        # The strip stays where it is from picture to picture, so that the picture does not jump.
        self._view_files = {}
        self._view_backlog.want([])
        for tile in self.view_tiles:
            tile.canvas.show_pixmap(None)
        if self._strip.isHidden():
            # The sentence was about another picture.
            self.views_title.clear()
        if len(pictures) == 1:
            self.views_wanted.emit(pictures[0].path)
        else:
            self.views.hide()

    def _on_rows_read(self) -> None:
        if self._page is None:
            self.show_row()

    def _take(self, request: PictureRequest, image: QImage) -> None:
        for pane in self.panes:
            if pane.path == request.path:
                pane.show_image(image)


class _Pane(QWidget):
    """One picture and its name."""

    def __init__(self) -> None:
        super().__init__()
        self.path = ""
        self.canvas = _Canvas()
        self.name = ElidedLabel(Qt.TextElideMode.ElideMiddle, 80)
        self.name.setProperty("role", "dim")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE)
        layout.addWidget(self.canvas, 1)
        layout.addWidget(self.name)

    def show_picture(self, picture: Picture | None) -> None:
        """Name a file whose picture is to come; hide without one."""
        self.setVisible(picture is not None)
        self.path = picture.path if picture is not None else ""
        self.name.set_whole_text(picture.name if picture is not None else "")
        self.canvas.show_pixmap(None)

    def show_image(self, image: QImage) -> None:
        """Show the picture that was read."""
        self.canvas.show_pixmap(QPixmap.fromImage(image))


class _ViewTile(QWidget):
    """What the model sees of an image in an epoch: the picture, the epoch, and what is mixed in."""

    def __init__(self) -> None:
        super().__init__()
        self.canvas = _Canvas()
        self.canvas.setMinimumSize(_VIEW_SIDE, _VIEW_SIDE)
        self.epoch = ElidedLabel(Qt.TextElideMode.ElideRight, 40)
        self.mix = ElidedLabel(Qt.TextElideMode.ElideRight, 40)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.canvas, 1)
        for label in (self.epoch, self.mix):
            label.setProperty("role", "dim")
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            layout.addWidget(label)

    def show_view(self, view: ImageView | None, *, is_mixed: bool) -> None:
        """Say what a view is of, whose picture is to come; hide without one."""
        self.setVisible(view is not None)
        self.canvas.show_pixmap(None)
        if view is None:
            return
        self.canvas.sentence = "" if view.file else self.tr("Not drawn in this epoch.")
        epoch = "" if view.epoch is None else self.tr("epoch {}").format(count_text(view.epoch))
        if view.num_times > 1:
            epoch = self.tr("{epoch} · {number} ×").format(epoch=epoch, number=count_text(view.num_times))
            self.canvas.setToolTip(self.tr("The epoch has this image several times; this is the first."))
        else:
            self.canvas.setToolTip("")
        self.epoch.set_whole_text(epoch)
        self.epoch.setVisible(bool(epoch))
        share = percent_text(view.mixed_share)
        of_class = view.mixed_with or self.tr("no class")
        self.mix.set_whole_text(f"+ {share} {of_class}" if view.mixed_share else "")
        self.mix.setVisible(is_mixed)


class _Canvas(QWidget):
    """Draws a picture as large as it fits; a small one grows by whole steps."""

    def __init__(self) -> None:
        super().__init__()
        self.pixmap: QPixmap | None = None
        self.sentence = ""
        """Why there is no picture; "" while one is to come."""
        self.setMinimumSize(120, 120)

    def show_pixmap(self, pixmap: QPixmap | None) -> None:
        """Draw a picture: null if the file cannot be shown, None while it is read."""
        self.pixmap = pixmap
        self.sentence = ""
        if pixmap is not None and pixmap.isNull():
            self.sentence = self.tr("This file cannot be shown as a picture.")
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter, colors = QPainter(self), theme.palette_of(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colors.panel))
        painter.drawRoundedRect(QRectF(self.rect()), 2 * theme.SPACE, 2 * theme.SPACE)
        room = self.rect().adjusted(theme.SPACE, theme.SPACE, -theme.SPACE, -theme.SPACE)
        if self.sentence:
            painter.setPen(QColor(colors.dim))
            painter.drawText(room, int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap), self.sentence)
        elif self.pixmap is not None:
            paint_fitted(painter, room, self.pixmap, self.devicePixelRatioF())
        painter.end()

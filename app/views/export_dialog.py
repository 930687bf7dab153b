"""ExportDialog: in what form and where a checkpoint is written for others, how far it is, and what came of it."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.viewmodels.export import SHARED_AS, ExportViewModel
from app.viewmodels.quantities import count_text, size_text
from app.views.elided_label import ElidedLabel
from app.views.field_note import FieldNote
from app.views.path_line import PathLine
from trainer.messages.export import CheckpointExported

_WIDTH, _HEIGHT = 560, 320
_SENTENCE_LINES = 2


class ExportDialog(QDialog):
    """Asks, follows and shows what was written. Closed in between, the export goes on."""

    folder_wanted = Signal(object)
    """The folder (a Path) of what was written is to be shown."""
    left = Signal()
    """It was closed while the export goes on."""

    def __init__(self, export: ExportViewModel, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Export"))
        self._export = export
        self._build()
        self.resize(_WIDTH, _HEIGHT)
        export.is_watched = True
        export.changed.connect(self._show)
        self.finished.connect(self._leave)
        self._show()

    # -- building ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self._title = ElidedLabel(Qt.TextElideMode.ElideMiddle, _WIDTH // 2)
        self._title.setProperty("role", "heading")
        self._pages = QStackedWidget()
        self._pages.addWidget(self._make_form())
        self._pages.addWidget(self._make_outcome())
        self.begin, self.stop, self.close_button, self.show_folder = (QPushButton() for _ in range(4))
        self.begin.setText(self.tr("Export"))
        self.begin.setProperty("kind", "primary")
        self.begin.setDefault(True)
        self.begin.clicked.connect(self._export.begin)
        self.stop.setText(self.tr("Cancel the export"))
        self.stop.clicked.connect(self._export.cancel)
        self.show_folder.setText(self.tr("Show in folder"))
        self.show_folder.clicked.connect(self._show_in_folder)
        self.close_button.clicked.connect(self.reject)
        buttons = QHBoxLayout()
        buttons.setSpacing(theme.SPACE * 2)
        buttons.addStretch(1)
        for button in (self.stop, self.show_folder, self.close_button, self.begin):
            button.setAutoDefault(button is self.begin)
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(*[theme.PANEL_PADDING] * 4)
        layout.setSpacing(theme.PANEL_PADDING)
        layout.addWidget(self._title)
        layout.addWidget(self._pages, 1)
        layout.addLayout(buttons)

    def _make_form(self) -> QWidget:
        self.shared_as = QComboBox()
        for choice in SHARED_AS:
            self.shared_as.addItem(self._export.label(choice), choice)
        self.shared_as.setMaxVisibleItems(len(SHARED_AS))
        self.shared_as.setAccessibleName(self.tr("Format"))
        self.shared_as.activated.connect(lambda _: self._export.share_as(self.shared_as.currentData()))
        self._sentence = _words(_SENTENCE_LINES, "note")
        self.to = PathLine()
        self.to.setAccessibleName(self.tr("File"))
        self.to.textEdited.connect(self._export.write_to)
        self._browse = QToolButton()
        self._browse.setProperty("kind", "icon")
        self._browse.setToolTip(self.tr("Choose the file"))
        self._browse.setAccessibleName(self.tr("Choose the file"))
        self._browse.clicked.connect(self._choose_file)
        self.refusal = FieldNote(1)
        self.may_replace = QCheckBox()
        # Its place is kept, so that nothing moves as it comes.
        kept = self.may_replace.sizePolicy()
        kept.setRetainSizeWhenHidden(True)
        self.may_replace.setSizePolicy(kept)
        self.may_replace.toggled.connect(self._export.replace)
        self._fields = QWidget()
        grid = QGridLayout(self._fields)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(theme.PANEL_PADDING)
        grid.setVerticalSpacing(theme.SPACE)
        grid.setColumnStretch(1, 1)
        for row, text in ((0, self.tr("Format")), (2, self.tr("File"))):
            label = QLabel(text)
            label.setProperty("role", "field")
            grid.addWidget(label, row, 0)
        grid.addWidget(self.shared_as, 0, 1, 1, 2)
        grid.addWidget(self._sentence, 1, 1, 1, 2)
        grid.addWidget(self.to, 2, 1)
        grid.addWidget(self._browse, 2, 2)
        grid.addWidget(self.refusal, 3, 1, 1, 2)
        grid.addWidget(self.may_replace, 4, 1, 1, 2)
        self.state = _words(1, "dim")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        form = QWidget()
        layout = QVBoxLayout(form)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(theme.SPACE * 2)
        layout.addWidget(self._fields)
        layout.addStretch(1)
        layout.addWidget(self.state)
        layout.addWidget(self.bar)
        return form

    def _make_outcome(self) -> QWidget:
        self.outcome = QWidget()
        QVBoxLayout(self.outcome).setContentsMargins(0, 0, theme.SPACE * 2, 0)
        scrolled = QScrollArea()
        scrolled.setWidgetResizable(True)
        scrolled.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scrolled.setWidget(self.outcome)
        return scrolled

    # -- what is shown ----------------------------------------------------------------------------------------

    def _show(self) -> None:
        export = self._export
        if export.target is not None:
            title = self.tr("Epoch {epoch} · step {step} of {run}")
            info = export.target.info
            numbers = {"epoch": count_text(info.epoch), "step": count_text(info.step)}
            self._title.set_whole_text(title.format(run=export.target.run_title, **numbers))
        is_over = export.exported is not None
        self.begin.setVisible(not is_over and not export.is_going)
        self.begin.setEnabled(export.can_begin)
        self.stop.setVisible(export.is_going)
        self.show_folder.setVisible(is_over)
        self.close_button.setText(self._close_text())
        theme.set_property(self.close_button, "kind", "primary" if is_over else "")
        if export.exported is None:
            self._show_form()
        elif self._pages.currentIndex() == 0:
            self._show_outcome(export.exported)

    def _close_text(self) -> str:
        if self._export.is_going:
            return self.tr("Go on in the background")
        return self.tr("Cancel") if self._export.exported is None else self.tr("Close")

    def _show_form(self) -> None:
        export = self._export
        self._fields.setEnabled(not export.is_going)
        self.shared_as.setCurrentIndex(SHARED_AS.index(export.shared_as))
        self._sentence.setText(export.sentence)
        theme.set_property(self._sentence, "role", "error" if export.is_code else "note")
        if self.to.text() != export.to:
            self.to.setText(export.to)
        self.may_replace.setVisible(export.taken is not None)
        if export.taken is not None:
            self.may_replace.setText(self.tr("Replace {}, which is there already").format(export.taken.name))
        self.may_replace.setChecked(export.may_replace)
        refusal = "" if export.is_going else export.refusal or export.no_place
        self.refusal.show_text(refusal, is_error=bool(refusal))
        theme.set_property(self.to, "invalid", export.is_place_wrong)
        text, done, total = export.progress if export.is_going else ("", 0, 0)
        self.state.setText(text)
        # It moves by itself as long as it is not known how much there is.
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        self.bar.setVisible(export.is_going)

    def _show_outcome(self, exported: CheckpointExported) -> None:
        layout = self.outcome.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.setSpacing(theme.SPACE * 2)
        place = _words()
        place.setText(self.tr("Exported to {}").format(exported.path))
        layout.addWidget(place)
        warning = [self._export.sentence] if self._export.is_code else []
        for sentence in (*warning, exported.parity.sentence, *exported.notes):
            words = _words(0, "error" if sentence in warning else "")
            words.setText(sentence)
            layout.addWidget(words)
        files = QGridLayout()
        files.setHorizontalSpacing(theme.PANEL_PADDING * 2)
        files.setVerticalSpacing(theme.SPACE)
        files.setColumnStretch(2, 1)
        for row, (name, num_bytes) in enumerate(exported.files.items()):
            for column, text in ((0, name), (1, size_text(num_bytes))):
                label = QLabel(text)
                label.setTextFormat(Qt.TextFormat.PlainText)
                label.setProperty("role", "dim")
                files.addWidget(label, row, column, Qt.AlignmentFlag.AlignRight if column else Qt.AlignmentFlag(0))
        layout.addLayout(files)
        layout.addStretch(1)
        self._pages.setCurrentIndex(1)
        self.close_button.setFocus()

    # -- what the user does -----------------------------------------------------------------------------------

    def _choose_file(self) -> None:
        dialog = QFileDialog(self, self._browse.toolTip(), self._export.to)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(QFileDialog.FileMode.AnyFile)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        # It is asked here, and of the files beside it as well.
        dialog.setOption(QFileDialog.Option.DontConfirmOverwrite)
        dialog.selectFile(Path(self._export.to).name)
        dialog.fileSelected.connect(self._export.write_to)
        dialog.open()

    def _show_in_folder(self) -> None:
        if self._export.exported is not None:
            self.folder_wanted.emit(Path(self._export.exported.path).parent)

    def _leave(self) -> None:
        self._export.changed.disconnect(self._show)
        self._export.is_watched = False
        if self._export.is_going:
            self.left.emit()

    def changeEvent(self, event: QEvent) -> None:
        """Look at the place again where another program was in front."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ActivationChange and self.isActiveWindow():
            self._export.look_again()

    def showEvent(self, event: QShowEvent) -> None:
        """Draw the icon in the theme's colours."""
        self._browse.setIcon(theme.icon("folder", theme.palette_of(self).dim))
        super().showEvent(event)


def _words(num_lines: int = 0, role: str = "") -> QLabel:
    """Return a label for sentences, with room for some lines, empty or not."""
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setWordWrap(True)
    label.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
    label.setProperty("role", role)
    label.setMinimumHeight(num_lines * label.fontMetrics().lineSpacing())
    return label

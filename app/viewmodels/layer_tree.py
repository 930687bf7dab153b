"""LayerTreeViewModel: which layers are frozen, what was asked for and not yet applied, and what a toggle asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from PySide6.QtCore import QObject, Signal

from app.viewmodels.layer_rows import BACKBONE_ID, HEAD_ID, LayerRow, LayerRows
from app.viewmodels.quantities import count_text
from trainer.messages import FreezeChanged, FreezeVerified, ModelSummary, StateRestored


class LayerState(StrEnum):
    """What a row shows. A row without anything to freeze under a row that is partly frozen shows nothing."""

    FROZEN = "frozen"
    TRAINABLE = "trainable"
    PARTLY = "partly"
    NOTHING = ""


class Preset(StrEnum):
    """A freeze set that has a name."""

    HEAD_ONLY = "head only"
    LAST_STAGE = "last stage + head"
    EVERYTHING = "everything"
    CUSTOM = "custom"


@dataclass(frozen=True)
class _Applied:
    """When a unit's present state took hold."""

    applied_step: int
    requested_step: int


@dataclass
class _Pending:
    """A request that no event has answered yet; None where it is not known what was asked for."""

    units: set[str]
    is_freeze: bool | None


class LayerTreeViewModel(QObject):
    """The tree of a model and its freeze set.

    Before a run a toggle changes the set at once; during one it asks, shows pending, and waits for the worker's event.
    """

    rows_reset = Signal()
    """Another model's rows are shown."""
    states_changed = Signal()
    """Rows are in another state."""
    figures_changed = Signal()
    """Only the footer's figures changed."""
    freeze_requested = Signal(list)
    """Freeze these layers (list of names as FreezeLayers takes them)."""
    unfreeze_requested = Signal(list)
    """Unfreeze these layers (list of names as UnfreezeLayers takes them)."""
    frozen_layers_changed = Signal()
    """Before a run, the user chose another ``frozen_layers``."""
    message_changed = Signal(str)
    """The sentence under the tree; "" for none."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._is_live = False
        self.is_closed = False
        """Whether a run is shown that does not train, so that nothing can be changed. The owner says so."""
        self.rows = LayerRows(None)
        self._summary: ModelSummary | None = None
        self._frozen: set[str] = set()
        self._applied: dict[str, _Applied] = {}
        self._pending: dict[str, _Pending] = {}
        self._asked: list[_Pending] = []
        self.num_params = self.num_trainable = 0
        self.num_verified: int | None = None
        self.drifted: list[str] = []
        self.step_ms: float | None = None
        self.message = ""

    # -- what comes in ----------------------------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """Whether a worker holds the run, so that a toggle is a request. The owner says so, from the run's state."""
        return self._is_live

    @is_live.setter
    def is_live(self, is_live: bool) -> None:
        if is_live == self._is_live:
            return
        self._is_live = is_live
        if not is_live:
            self.step_ms = None
            self.drop_pending()

    def set_summary(self, summary: ModelSummary | None) -> None:
        """Show a model and its freeze set; None shows no model. The same model keeps its rows."""
        is_same = self._summary is not None and summary is not None and self._summary.layers == summary.layers
        self._summary = summary
        if not is_same:
            self.rows = LayerRows(summary)
        self.num_params = summary.num_params if summary else 0
        self._take(summary.frozen if summary else [], summary.num_trainable if summary else 0)
        if not is_same:
            self.rows_reset.emit()
        self.states_changed.emit()

    def show_draft(self, summary: ModelSummary, frozen: Sequence[str]) -> None:
        """Show a model for the next run, with the layers that the user wants frozen there."""
        rows = LayerRows(summary)
        units = rows.units_of(frozen)
        num_trainable = summary.num_params - sum(rows.num_params_of[unit] for unit in units)
        self.set_summary(summary.model_copy(update={"frozen": sorted(units), "num_trainable": num_trainable}))

    def leave_run(self) -> None:
        """Become the draft of the next run: the freeze set stays, what was seen in the run goes."""
        self.is_closed = self._is_live = False
        self.step_ms = None
        self._applied, self._pending, self._asked = {}, {}, []
        self.num_verified, self.drifted = None, []
        self._say("")
        self.states_changed.emit()

    def mark_pending(self, command_id: str, layers: Sequence[str]) -> None:
        """Show that a command about these layers is on its way. Call it with the id that the session returns."""
        units = self.rows.units_of(layers)
        asked = next((request for request in self._asked if request.units == units), None)
        if asked is not None:
            self._asked.remove(asked)
        self._pending[command_id] = asked or _Pending(units, None)
        self.states_changed.emit()

    def settle(self, event: FreezeChanged) -> None:
        """Take the freeze set that the worker says is in force."""
        self._frozen = self.rows.units_of_set(event.frozen)
        self.num_trainable = event.num_trainable
        for unit in event.layers:
            self._applied[unit] = _Applied(event.applied_step, event.requested_step)
        self._pending.pop(event.command_id, None)
        self._pending = {key: request for key, request in self._pending.items() if not self._is_so(request)}
        self._asked = []
        self.num_verified, self.drifted = None, []
        self._say("")
        self.states_changed.emit()

    def reject(self, command_id: str, reason: str) -> None:
        """Go back: the worker refused a command of ours. Other commands' ids are passed over."""
        if self._pending.pop(command_id, None) is None:
            return
        self._asked = []
        self._say(reason)
        self.states_changed.emit()

    def verify(self, event: FreezeVerified) -> None:
        """Take the worker's proof that frozen layers did not change (or which did)."""
        self.num_verified, self.drifted = event.num_verified, list(event.drifted)
        self.figures_changed.emit()

    def restore(self, event: StateRestored) -> None:
        """Take the freeze set of a state that was put back."""
        self._take(event.frozen, event.num_trainable)
        self.states_changed.emit()

    def set_step_ms(self, step_ms: float | None) -> None:
        """Say what a step costs now, in milliseconds; None if no run trains."""
        self.step_ms = step_ms
        self.figures_changed.emit()

    def drop_pending(self) -> None:
        """Forget what was asked for: nobody is left to answer."""
        self._pending, self._asked = {}, []
        self.states_changed.emit()

    # -- what the user does -----------------------------------------------------------------------------------

    def toggle(self, row_ids: Iterable[int]) -> None:
        """Freeze the rows, or unfreeze them if all of them are frozen already."""
        ids = [row_id for row_id in row_ids if self.rows[row_id].units]
        if ids and all(self._wanted_frozen(self.rows[row_id]) for row_id in ids):
            self.unfreeze_rows(ids)
        elif ids:
            self.freeze_rows(ids)

    def freeze_rows(self, row_ids: Iterable[int]) -> None:
        """Freeze rows."""
        self._change({unit for row_id in row_ids for unit in self.rows[row_id].units}, set())

    def unfreeze_rows(self, row_ids: Iterable[int]) -> None:
        """Unfreeze rows."""
        self._change(set(), {unit for row_id in row_ids for unit in self.rows[row_id].units})

    def freeze_up_to(self, row_id: int) -> None:
        """Freeze everything from the input to the end of a row."""
        self._change(self.rows.units_up_to(row_id), set())

    def unfreeze_from(self, row_id: int) -> None:
        """Unfreeze everything from the start of a row to the output."""
        self._change(set(), self.rows.units_from(row_id))

    def apply_preset(self, preset: Preset) -> None:
        """Make a named freeze set the present one."""
        frozen = self._preset_units(preset)
        if frozen is not None:
            self._change(frozen, set(self.rows.units) - frozen)

    # -- what is shown ----------------------------------------------------------------------------------------

    @property
    def frozen_layers(self) -> list[str]:
        """Return the freeze set by the fewest names, as ``config.model.frozen`` takes it."""
        return self.rows.names_of(self._frozen)

    @property
    def is_empty(self) -> bool:
        """Whether there is no model to show."""
        return self._summary is None

    @property
    def preset(self) -> Preset:
        """Return the name of the present freeze set."""
        for preset in (Preset.HEAD_ONLY, Preset.LAST_STAGE, Preset.EVERYTHING):
            if self._preset_units(preset) == self._frozen:
                return preset
        return Preset.CUSTOM

    def state_of(self, row_id: int) -> LayerState:
        """Return a row's state, from the units at and below it, or from the row above it if it has none."""
        row = self.rows[row_id]
        if not row.units:
            above = self.state_of(row.parent) if row.parent > 0 else LayerState.NOTHING
            return LayerState.NOTHING if above is LayerState.PARTLY else above
        num_frozen = sum(unit in self._frozen for unit in row.units)
        if num_frozen == 0:
            return LayerState.TRAINABLE
        return LayerState.FROZEN if num_frozen == len(row.units) else LayerState.PARTLY

    def is_pending(self, row_id: int) -> bool:
        """Whether a change of the whole row was asked for and has not been answered."""
        units = self.rows[row_id].units
        return bool(units) and bool(self._requests()) and self._pending_units().issuperset(units)

    def explain(self, row_id: int) -> str:
        """Say a row's state, and since which step, for the tooltip."""
        row, state = self.rows[row_id], self.state_of(row_id)
        if self.is_pending(row_id):
            return self.tr("waiting for the next step boundary")
        if not row.units:
            return self.tr("nothing to freeze: no parameters or buffers")
        if state is LayerState.PARTLY:
            num_frozen = sum(unit in self._frozen for unit in row.units)
            text = self.tr("{frozen} of {all} layers with parameters are frozen")
            return text.format(frozen=count_text(num_frozen), all=count_text(len(row.units)))
        word = self.tr("frozen") if state is LayerState.FROZEN else self.tr("trainable")
        applied = {self._applied.get(unit) for unit in row.units}
        since = applied.pop() if len(applied) == 1 else None
        if since is None:
            return word
        text = self.tr("{state} since step {applied}, asked at {requested}")
        return text.format(
            state=word, applied=count_text(since.applied_step), requested=count_text(since.requested_step)
        )

    # -- inside -----------------------------------------------------------------------------------------------

    def _take(self, frozen: Sequence[str], num_trainable: int) -> None:
        self._frozen, self.num_trainable = self.rows.units_of_set(frozen), num_trainable
        self._applied, self._pending, self._asked = {}, {}, []
        self.num_verified, self.drifted = None, []
        self._say("")

    def _change(self, to_freeze: set[str], to_unfreeze: set[str]) -> None:
        frozen = self._wanted()
        wanted = (frozen | to_freeze) - to_unfreeze
        if self.is_closed:
            self._say(self.tr("The run is not training. Resume it to change what is frozen, or begin a new run."))
            self.states_changed.emit()
            return
        if not any(count and unit not in wanted for unit, count in self.rows.num_params_of.items()):
            self._say(self.tr("Cannot freeze every layer: nothing would be left to train. Leave the head unfrozen."))
            # The check box that was clicked goes back to what is so.
            self.states_changed.emit()
            return
        self._say("")
        if not self.is_live:
            self._frozen = wanted
            self._applied = {}
            self.num_trainable = self.num_params - sum(self.rows.num_params_of[unit] for unit in wanted)
            self.states_changed.emit()
            self.frozen_layers_changed.emit()
            return
        # What is to train comes first: at no moment may everything be frozen.
        if not to_unfreeze.isdisjoint(frozen):
            self._request(to_unfreeze, is_freeze=False)
        if not to_freeze <= frozen:
            self._request(to_freeze, is_freeze=True)

    def _request(self, units: set[str], *, is_freeze: bool) -> None:
        names = self.rows.names_of(units)
        self._asked.append(_Pending(self.rows.units_of(names), is_freeze))
        (self.freeze_requested if is_freeze else self.unfreeze_requested).emit(names)
        self.states_changed.emit()

    def _is_so(self, request: _Pending) -> bool:
        """Tell whether a request has nothing left to change, whoever changed it."""
        if request.is_freeze is None:
            return False
        return request.units <= self._frozen if request.is_freeze else request.units.isdisjoint(self._frozen)

    def _requests(self) -> list[_Pending]:
        return [*self._pending.values(), *self._asked]

    def _pending_units(self) -> set[str]:
        return {unit for request in self._requests() for unit in request.units}

    def _wanted(self) -> set[str]:
        """Return the freeze set as it will be when all that was asked for is applied."""
        wanted = set(self._frozen)
        for request in self._requests():
            if request.is_freeze is not None:
                wanted = wanted | request.units if request.is_freeze else wanted - request.units
        return wanted

    def _wanted_frozen(self, row: LayerRow) -> bool:
        return self._wanted().issuperset(row.units)

    def _preset_units(self, preset: Preset) -> set[str] | None:
        backbone = set(self.rows[BACKBONE_ID].units)
        if preset is Preset.HEAD_ONLY:
            return backbone
        if preset is Preset.LAST_STAGE:
            return backbone - self.rows.last_stage() - set(self.rows[HEAD_ID].units)
        return set() if preset is Preset.EVERYTHING else None

    def _say(self, message: str) -> None:
        if message != self.message:
            self.message = message
            self.message_changed.emit(message)

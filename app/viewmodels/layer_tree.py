"""LayerTreeViewModel: which layers are frozen, what was asked for and not yet applied, and what a toggle asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from PySide6.QtCore import QObject, Signal

from app.viewmodels.cached_layers import CachedLayers
from app.viewmodels.freeze_presets import Preset, preset_sets
from app.viewmodels.freeze_requests import FreezeRequests
from app.viewmodels.frozen_layers import FrozenLayers
from app.viewmodels.layer_rates import MAX_MULTIPLIER, LayerRates, read_multiplier
from app.viewmodels.layer_rows import LayerRow, LayerRows
from app.viewmodels.layer_stats import LayerStats
from app.viewmodels.quantities import count_text
from app.viewmodels.step_cost import StepCost
from trainer.messages.changes import BatchNormChanged, FreezeChanged, RateMultiplierChanged, StateRestored
from trainer.messages.events import FeaturesCached, FreezeVerified, LayerStatsReported, ProgressReported
from trainer.messages.model_info import FrozenFeatures, ModelSummary


class LayerTreeViewModel(QObject):
    """The tree of a model and its freeze set.

    Before a run a toggle changes the set at once; during one it asks, shows pending, and waits for the worker's event.
    """

    rows_reset = Signal()
    """Another model's rows are shown."""
    states_changed = Signal()
    """Rows are in another state."""
    measures_changed = Signal()
    """Rows were measured anew: their gradients and updates, or whether they drifted."""
    columns_changed = Signal()
    """The user chose which columns to see."""
    cached_changed = Signal()
    """Other layers are cached, or could be."""
    figures_changed = Signal()
    """Only the footer's figures changed."""
    freeze_requested = Signal(list)
    """Freeze these layers (list of names as FreezeLayers takes them)."""
    unfreeze_requested = Signal(list)
    """Unfreeze these layers (list of names as UnfreezeLayers takes them)."""
    frozen_layers_changed = Signal()
    """Before a run, the user chose another ``frozen_layers``."""
    multiply_requested = Signal(list, float)
    """Multiply the rate of these layers (list of names as SetRateMultiplier takes them) by this number."""
    batchnorm_requested = Signal(list, bool)
    """Let the statistics of these layers (list of names) adapt while they are frozen, or not."""
    adapting_layers_changed = Signal()
    """Before a run, the user chose other ``adapting_layers``."""
    multipliers_changed = Signal()
    """Before a run, the user chose other ``multipliers``."""
    message_changed = Signal(str)
    """The sentence under the tree; "" for none."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._is_live = False
        self.is_closed = False
        """Whether a run is shown that does not train, so that nothing can be changed. The owner says so."""
        self.rows = LayerRows(None)
        self.frozen = FrozenLayers(self.rows)
        self.rates = LayerRates(self.rows)
        self.stats = LayerStats(self.rows)
        self.cached = CachedLayers(self.rows)
        self._requests = FreezeRequests(self.rows)
        self.columns: dict[str, bool] = {}
        """The columns that the user chose to see or not to see, by name; the others are shown where there is room."""
        self._summary: ModelSummary | None = None
        self._preset_sets: dict[Preset, set[str]] = {}
        self.num_params = self.num_trainable = 0
        self.step_ms: float | None = None
        self.predicted_ms: float | None = None
        """What a step was predicted to cost after the last change; None before there was one."""
        self._cost = StepCost(self.rows, None)
        self._pointed_at: int | None = None
        self.message = ""
        self.is_refusal = False
        """Whether the message says why something was not done."""

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
            self.step_ms = self.predicted_ms = None
            self.drop_pending()

    def set_summary(self, summary: ModelSummary | None) -> None:
        """Show a model and its freeze set; None shows no model. The same model keeps its rows."""
        is_same = self._summary is not None and summary is not None and self._summary.layers == summary.layers
        self._summary = summary
        if not is_same:
            self._show_rows(LayerRows(None) if summary is None else LayerRows.of(summary))
            self._cost = StepCost(self.rows, summary)
        self.num_params = summary.num_params if summary else 0
        self._take(summary.frozen if summary else [], summary.num_trainable if summary else 0)
        self.rates.take(summary.multipliers if summary else {})
        self.frozen.set_adapting(summary.adapting if summary else ())
        self.cached.offer(summary.features if summary else None)
        if not is_same:
            self.rows_reset.emit()
        self.states_changed.emit()
        self.cached_changed.emit()

    def show_draft(
        self,
        summary: ModelSummary,
        frozen: Sequence[str],
        multipliers: Mapping[str, float] | None = None,
        adapting: Sequence[str] = (),
    ) -> None:
        """Show a model for the next run: which layers are to be frozen there, their rates, and whose statistics go on.

        All are named as a configuration names them.
        """
        rows = LayerRows.of(summary)
        atoms = rows.atoms_of(frozen)
        num_trainable = summary.num_params - sum(rows.num_params_of[atom] for atom in atoms)
        by_unit = {unit: number for name, number in (multipliers or {}).items() for unit in rows.units_of([name])}
        draft = {
            "frozen": sorted(atoms),
            "num_trainable": num_trainable,
            "multipliers": by_unit,
            "adapting": sorted(rows.with_statistics & rows.units_of(adapting)),
        }
        self.set_summary(summary.model_copy(update=draft))

    def show_adapting(self, adapting: Sequence[str]) -> None:
        """Show in a draft whose statistics are to go on, named as a configuration names them."""
        if not self.are_adapting(adapting):
            self.frozen.set_adapting(self.rows.with_statistics & self.rows.units_of(adapting))
            self.states_changed.emit()

    def tell(self, sentence: str) -> None:
        """Say something of the draft, until the next choice; "" for nothing."""
        self._say(sentence, is_refusal=False)

    def leave_run(self) -> None:
        """Become the draft of the next run: the freeze set stays, what was seen in the run goes."""
        self.is_closed = self._is_live = False
        self.step_ms = None
        self.frozen.take(self.frozen.atoms)
        self._requests.forget()
        self.predicted_ms = None
        self.rates.forget_asked()
        self.stats = LayerStats(self.rows)
        self._say("")
        self.states_changed.emit()
        self.measures_changed.emit()
        self.offer_features(None)

    def mark_pending(self, command_id: str, layers: Sequence[str]) -> None:
        """Show that a command about these layers is on its way. Call it with the id that the session returns."""
        self._requests.mark_sent(command_id, layers)
        self.states_changed.emit()

    def mark_multiplying(self, command_id: str, layers: Sequence[str]) -> None:
        """Show that another rate of these layers was asked for, by the id that the session returned."""
        self.rates.mark_asked(command_id, layers)
        self.states_changed.emit()

    def settle(self, event: FreezeChanged) -> None:
        """Take the freeze set that the worker says is in force."""
        if event.layers:
            # What was measured before the change tells nothing of after it; kept beside the new measure, to be judged.
            self.predicted_ms = self._predict(self.rows.atoms_of_set(event.frozen))
            self._forget_measured()
        self.frozen.settle(event)
        self.stats.forget(self.frozen.units)
        self.num_trainable = event.num_trainable
        self._requests.settle(event.command_id, self.frozen.atoms)
        self._say("")
        self.states_changed.emit()

    def settle_multiplier(self, event: RateMultiplierChanged) -> None:
        """Take the rate multipliers that the worker says are in force."""
        self.rates.take_answer(event.command_id)
        self.rates.take(event.multipliers)
        self._say("")
        self.states_changed.emit()

    def settle_batchnorm(self, event: BatchNormChanged) -> None:
        """Take which statistics the worker says go on in frozen layers."""
        self._requests.take_answer(event.command_id)
        self.frozen.set_adapting(event.adapting)
        self._say("")
        self.states_changed.emit()
        self.measures_changed.emit()

    def reject(self, command_id: str, reason: str) -> bool:
        """Go back: the worker refused a command of ours. Returns whether it was one."""
        is_multiplier, is_freeze = self.rates.take_answer(command_id), self._requests.take_answer(command_id)
        if not is_multiplier and not is_freeze:
            return False
        self._requests.forget_unsent()
        self._say(reason)
        self.states_changed.emit()
        return True

    def verify(self, event: FreezeVerified) -> None:
        """Take the worker's proof that frozen layers did not change (or which did)."""
        self.frozen.verify(event)
        self.figures_changed.emit()
        self.measures_changed.emit()

    def offer_features(self, features: FrozenFeatures | None) -> None:
        """Take what a run could cache that begins with the draft's freeze set; None where that is not known."""
        if self.cached.told is not None or features is not self.cached.offered:
            self.cached.offer(features)
            self.cached_changed.emit()

    def show_cached(self, event: FeaturesCached) -> None:
        """Take what the worker computes only once an image from now on."""
        self.cached.take(event)
        self.cached_changed.emit()

    def show_stats(self, event: LayerStatsReported) -> None:
        """Take what an update did in each layer."""
        self.stats.take(event)
        self.measures_changed.emit()

    def restore(self, event: StateRestored) -> None:
        """Take the freeze set of a state that was put back."""
        self._forget_measured()
        self._take(event.frozen, event.num_trainable)
        self.rates.take(event.multipliers)
        self.frozen.set_adapting(event.adapting)
        self.states_changed.emit()

    def set_step_ms(self, step_ms: float | None) -> None:
        """Say what a step costs now, in milliseconds; None if no run trains."""
        self.step_ms = step_ms or None
        self.figures_changed.emit()

    def follow(self, event: ProgressReported) -> None:
        """Take what a step costs now, and how far the features are there."""
        self.cached.follow(event)
        if self.cached.is_reading:
            # It was of a step that computes its features.
            self.predicted_ms = None
        self.set_step_ms(event.step_ms)

    def forget_step_ms(self) -> None:
        """Take back what a step costs, and what it was predicted to: from here on, it is made otherwise."""
        self._forget_measured()
        self.predicted_ms = None
        self.figures_changed.emit()

    def point_at(self, row_id: int | None) -> None:
        """Say which row the user points at, for what its change would save; None for none."""
        if row_id != self._pointed_at:
            self._pointed_at = row_id
            self.figures_changed.emit()

    def drop_pending(self) -> None:
        """Forget what was asked for: nobody is left to answer."""
        self._requests.forget()
        self.rates.forget_asked()
        self.states_changed.emit()

    # -- what the user does -----------------------------------------------------------------------------------

    def toggle(self, row_ids: Iterable[int]) -> None:
        """Freeze the rows, or unfreeze them if all of them are frozen already."""
        ids = [row_id for row_id in row_ids if self.rows[row_id].atoms]
        if ids and all(self._wanted_frozen(self.rows[row_id]) for row_id in ids):
            self.unfreeze_rows(ids)
        elif ids:
            self.freeze_rows(ids)

    def freeze_rows(self, row_ids: Iterable[int]) -> None:
        """Freeze rows."""
        self._change({atom for row_id in row_ids for atom in self.rows[row_id].atoms}, set())

    def unfreeze_rows(self, row_ids: Iterable[int]) -> None:
        """Unfreeze rows."""
        self._change(set(), {atom for row_id in row_ids for atom in self.rows[row_id].atoms})

    def freeze_up_to(self, row_id: int) -> None:
        """Freeze everything from the input to the end of a row."""
        self._change(self.rows.atoms_up_to(row_id), set())

    def unfreeze_from(self, row_id: int) -> None:
        """Unfreeze everything from the start of a row to the output."""
        self._change(set(), self.rows.atoms_from(row_id))

    def train_only(self, row_ids: Iterable[int]) -> None:
        """Freeze everything but these rows."""
        atoms = {atom for row_id in row_ids for atom in self.rows[row_id].atoms}
        self._change(set(self.rows.atoms) - atoms, atoms)

    def invert(self) -> None:
        """Freeze what is trainable, and unfreeze what is frozen."""
        frozen = self._wanted()
        self._change(set(self.rows.atoms) - frozen, frozen)

    def freeze_type(self, type_name: str) -> None:
        """Freeze every layer of a type ("BatchNorm2d")."""
        self._change(self.rows.atoms_of_type(type_name), set())

    def unfreeze_type(self, type_name: str) -> None:
        """Unfreeze every layer of a type."""
        self._change(set(), self.rows.atoms_of_type(type_name))

    def freeze_biases(self) -> None:
        """Freeze every bias."""
        self._change(self.rows.biases, set())

    def unfreeze_biases(self) -> None:
        """Unfreeze every bias."""
        self._change(set(), self.rows.biases)

    def choose_column(self, name: str, is_shown: bool) -> None:
        """Show a column or not, whatever the room for it."""
        self.columns = {**self.columns, name: is_shown}
        self.columns_changed.emit()

    def forget_columns(self) -> None:
        """Leave it to the room again which columns are shown."""
        self.columns = {}
        self.columns_changed.emit()

    def has_preset(self, preset: Preset) -> bool:
        """Whether a preset is one of its own in this model: not every model has norm layers, or biases."""
        return preset not in {Preset.NORMS, Preset.BIASES} or (
            self._preset_sets.get(preset) != self._preset_sets.get(Preset.HEAD_ONLY)
        )

    def apply_preset(self, preset: Preset) -> None:
        """Make a named freeze set the present one."""
        frozen = self._preset_sets.get(preset)
        if frozen is not None:
            self._change(frozen, set(self.rows.atoms) - frozen)

    def set_adapting(self, row_ids: Iterable[int], is_adapting: bool) -> None:
        """Let the statistics below rows adapt while these are frozen, or not."""
        units = {unit for row_id in row_ids for unit in self.frozen.statistics_of(row_id)}
        if self.is_closed:
            self._say(self.tr("The run is not training. Resume it to change what statistics do, or begin a new run."))
        elif self.is_live and units:
            self.batchnorm_requested.emit([unit for unit in self.rows.units if unit in units], is_adapting)
        elif units:
            self._say("")
            self.frozen.set_adapting(self.frozen.adapting | units if is_adapting else self.frozen.adapting - units)
            self.states_changed.emit()
            self.adapting_layers_changed.emit()

    def multiply_rows(self, row_ids: Iterable[int], text: str) -> None:
        """Multiply the rate of rows by what was typed."""
        multiplier = read_multiplier(text)
        if multiplier is None:
            sentence = self.tr("{} is no rate multiplier. Type a number above 0, up to {}; 1 is the run's own rate.")
            self._say(sentence.format(text.strip() or '""', count_text(MAX_MULTIPLIER)))
            return
        units = {unit for row_id in row_ids for unit in self.rates.units_of(row_id)}
        if self.is_closed:
            self._say(self.tr("The run is not training. Resume it to change a rate, or begin a new run."))
            return
        self._say("")
        if self.rates.are_all(units, multiplier):
            return
        if self.is_live:
            self.multiply_requested.emit(self.rates.names_of(units), multiplier)
            return
        self.rates.multiply(units, multiplier)
        self.states_changed.emit()
        self.multipliers_changed.emit()

    # -- what is shown ----------------------------------------------------------------------------------------

    @property
    def frozen_layers(self) -> list[str]:
        """Return the freeze set by the fewest names, as ``config.model.frozen`` takes it."""
        return self.rows.names_of(self.frozen.atoms)

    @property
    def adapting_layers(self) -> list[str]:
        """Return whose statistics go on while frozen by the fewest names, as ``config.model.adapting`` takes them."""
        return self.rows.names_of_units(self.frozen.adapting, self.rows.with_statistics)

    def are_adapting(self, layers: Sequence[str]) -> bool:
        """Whether the statistics of just these layers, named as a configuration names them, go on while frozen."""
        return self.frozen.adapting == self.rows.with_statistics & self.rows.units_of(layers)

    @property
    def summary(self) -> ModelSummary | None:
        """Return the model that is shown."""
        return self._summary

    @property
    def is_empty(self) -> bool:
        """Whether there is no model to show."""
        return self._summary is None

    @property
    def preset(self) -> Preset:
        """Return the name of the present freeze set."""
        return next(
            (preset for preset, atoms in self._preset_sets.items() if atoms == self.frozen.atoms), Preset.CUSTOM
        )

    def is_pending(self, row_id: int) -> bool:
        """Whether a change of the whole row was asked for and has not been answered."""
        return self._requests.is_pending(row_id)

    def explain(self, row_id: int) -> str:
        """Say a row's state, and since which step, for the tooltip."""
        if self.is_pending(row_id):
            return self.tr("waiting for the next step boundary")
        told = self.frozen.explain(row_id)
        if not self.shows_cached or self.cached.is_offer or not self.cached.is_whole(row_id):
            return told
        return self.tr("{}; its features are cached").format(told)

    @property
    def shows_cached(self) -> bool:
        """Whether the tree has a line up to which layers are computed only once an image, or could be."""
        return self.cached.is_shown(self.frozen)

    def explain_stats(self, row_id: int) -> str:
        """Say what the last measured update did below a row, or that a frozen row is unchanged."""
        return self.frozen.explain_drift(row_id) or self.stats.explain(row_id)

    @property
    def forecast(self) -> tuple[LayerRow, bool, float] | None:
        """Return the row that is pointed at, whether it would be frozen, and what a step would cost then, in ms."""
        row = None if self._pointed_at is None else self.rows[self._pointed_at]
        if row is None or not row.atoms or self._computing_ms is None or self.is_closed:
            return None
        frozen = self.frozen.atoms
        is_freeze = not frozen.issuperset(row.atoms)
        after = frozen.union(row.atoms) if is_freeze else frozen.difference(row.atoms)
        predicted_ms = self._predict(after)
        return None if predicted_ms is None else (row, is_freeze, predicted_ms)

    def _predict(self, frozen: set[str]) -> float | None:
        """Reckon a step's time with another freeze set from what it takes now; None where that cannot be told.

        It is that of a step which computes its features: after a change, those of other layers are to be cached.
        """
        now, then = self._cost.of(self.frozen.atoms), self._cost.of(frozen)
        is_possible = any(count and atom not in frozen for atom, count in self.rows.num_params_of.items())
        return self._computing_ms * then / now if self._computing_ms and now and is_possible else None

    @property
    def _computing_ms(self) -> float | None:
        """Return what a step takes that computes its features, in milliseconds."""
        return self.cached.computing_ms if self.cached.is_reading else self.step_ms

    # -- inside -----------------------------------------------------------------------------------------------

    def _forget_measured(self) -> None:
        self.step_ms = self.cached.computing_ms = None

    def _show_rows(self, rows: LayerRows) -> None:
        self.rows, self.frozen, self.rates, self.stats = rows, FrozenLayers(rows), LayerRates(rows), LayerStats(rows)
        self.cached = CachedLayers(rows)
        self._requests = FreezeRequests(rows)
        self._preset_sets = preset_sets(rows)

    def _take(self, frozen: Sequence[str], num_trainable: int) -> None:
        self.frozen.take(self.rows.atoms_of_set(frozen))
        self.num_trainable = num_trainable
        self._requests.forget()
        self.rates.forget_asked()
        self.stats = LayerStats(self.rows)
        self._say("")

    def _change(self, to_freeze: set[str], to_unfreeze: set[str]) -> None:
        frozen = self._wanted()
        wanted = (frozen | to_freeze) - to_unfreeze
        if self.is_closed:
            self._say(self.tr("The run is not training. Resume it to change what is frozen, or begin a new run."))
            self.states_changed.emit()
            return
        if not any(count and atom not in wanted for atom, count in self.rows.num_params_of.items()):
            self._say(self.tr("Cannot freeze every layer: nothing would be left to train. Leave the head unfrozen."))
            # The check box that was clicked goes back to what is so.
            self.states_changed.emit()
            return
        self._say("")
        if not self.is_live:
            self.frozen.take(wanted)
            self.num_trainable = self.num_params - sum(self.rows.num_params_of[atom] for atom in wanted)
            self.states_changed.emit()
            self.frozen_layers_changed.emit()
            return
        # What is to train comes first: at no moment may everything be frozen.
        if not to_unfreeze.isdisjoint(frozen):
            self._request(to_unfreeze, is_freeze=False)
        if not to_freeze <= frozen:
            self._request(to_freeze, is_freeze=True)

    def _request(self, atoms: set[str], *, is_freeze: bool) -> None:
        names = self.rows.names_of(atoms)
        self._requests.ask(names, is_freeze=is_freeze)
        (self.freeze_requested if is_freeze else self.unfreeze_requested).emit(names)
        self.states_changed.emit()

    def _wanted(self) -> set[str]:
        """Return the freeze set as it will be when all that was asked for is applied."""
        return self._requests.wanted(self.frozen.atoms)

    def _wanted_frozen(self, row: LayerRow) -> bool:
        return self._wanted().issuperset(row.atoms)

    def _say(self, message: str, *, is_refusal: bool = True) -> None:
        if message != self.message:
            self.message, self.is_refusal = message, is_refusal
            self.message_changed.emit(message)

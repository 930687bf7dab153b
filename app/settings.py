"""What the window remembers between two starts: theme, layout, the values of the run form."""

from __future__ import annotations

import json
from typing import Any, cast, get_args

from PySide6.QtCore import QByteArray, QSettings

from app.theme import Scheme

MAX_RECENT = 8


class Settings:
    """Typed access to QSettings. A value that is missing or damaged reads as its default."""

    def __init__(self, store: QSettings | None = None) -> None:
        self._store = store or QSettings(
            QSettings.Format.IniFormat, QSettings.Scope.UserScope, "thaw-studio", "thaw-studio"
        )

    @property
    def scheme(self) -> Scheme:
        """Return the theme that was chosen: "system", "light" or "dark"."""
        value = self._store.value("theme", "system")
        return cast(Scheme, value) if value in get_args(Scheme) else "system"

    @scheme.setter
    def scheme(self, scheme: Scheme) -> None:
        self._store.setValue("theme", scheme)

    @property
    def form_values(self) -> dict[str, Any]:
        """Return what the run form last held, as RunConfig's nested plain values."""
        try:
            values = json.loads(str(self._store.value("form", "{}")))
        except ValueError:
            return {}
        return values if isinstance(values, dict) else {}

    @form_values.setter
    def form_values(self, values: dict[str, Any]) -> None:
        self._store.setValue("form", json.dumps(values))

    @property
    def recent_data(self) -> list[str]:
        """Return the data sets that were last used, the latest first."""
        try:
            paths = json.loads(str(self._store.value("recent_data", "[]")))
        except ValueError:
            return []
        return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []

    def add_recent_data(self, path: str) -> None:
        """Remember a data set as the latest one."""
        paths = [path, *(known for known in self.recent_data if known != path)][:MAX_RECENT]
        self._store.setValue("recent_data", json.dumps(paths))

    @property
    def export_folder(self) -> str:
        """Return the folder of the latest export, "" before there was one."""
        return str(self._store.value("export_folder", ""))

    @export_folder.setter
    def export_folder(self, folder: str) -> None:
        self._store.setValue("export_folder", folder)

    @property
    def tree_columns(self) -> dict[str, bool]:
        """Return which columns of the model's tree were chosen to be seen (True) or not, by name."""
        return self._chosen("tree_columns")

    @tree_columns.setter
    def tree_columns(self, chosen: dict[str, bool]) -> None:
        self._store.setValue("tree_columns", json.dumps(chosen))

    @property
    def checkpoint_columns(self) -> dict[str, bool]:
        """Return which columns of the checkpoints' table were chosen to be seen (True) or not, by name."""
        return self._chosen("checkpoint_columns")

    @checkpoint_columns.setter
    def checkpoint_columns(self, chosen: dict[str, bool]) -> None:
        self._store.setValue("checkpoint_columns", json.dumps(chosen))

    def _chosen(self, key: str) -> dict[str, bool]:
        try:
            chosen = json.loads(str(self._store.value(key, "{}")))
        except ValueError:
            return {}
        return {str(name): bool(shown) for name, shown in chosen.items()} if isinstance(chosen, dict) else {}

    def layout(self, name: str) -> QByteArray:
        """Return a saved geometry or splitter state, empty if there is none."""
        value = self._store.value(f"layout/{name}")
        return value if isinstance(value, QByteArray) else QByteArray()

    def keep_layout(self, name: str, state: QByteArray) -> None:
        """Remember a geometry or splitter state."""
        self._store.setValue(f"layout/{name}", state)

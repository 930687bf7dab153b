"""Whether a window can open here. Asked before Qt starts, because Qt aborts the process where it cannot."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys

# Shared library → the Debian package that has it; what Qt's own libraries are linked against (readelf -d).
_QT_PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libfontconfig.so.1": "libfontconfig1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libX11.so.6": "libx11-6",
    "libxkbcommon.so.0": "libxkbcommon0",
}
_X11_PACKAGES = {
    "libX11-xcb.so.1": "libx11-xcb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-util.so.1": "libxcb-util1",
}
_WAYLAND_PACKAGES = {
    "libwayland-client.so.0": "libwayland-client0",
    "libwayland-cursor.so.0": "libwayland-cursor0",
}
_IN_THE_TERMINAL = "or stay in the terminal with `thaw demo --terminal` or `thaw train CONFIG.toml`"


def display_problem() -> str:
    """Say in a sentence why no window can open here and what to do, or return "" if one can."""
    if not sys.platform.startswith("linux"):
        return _import_problem()
    platforms = _platforms()
    if not platforms:
        missing = _missing_packages(_QT_PACKAGES | _X11_PACKAGES)
        packages = f" (Qt also needs `apt install {' '.join(missing)}`)" if missing else ""
        return (
            "There is no display for the window, as neither DISPLAY nor WAYLAND_DISPLAY is set: "
            f"log in to a desktop or use `ssh -X`{packages}, {_IN_THE_TERMINAL}."
        )
    missing = _missing_packages(_QT_PACKAGES)
    if missing:
        return _missing_sentence(missing)
    problems = [_platform_problem(platform) for platform in platforms]
    # Qt tries one platform after the other: one that works is enough.
    return problems[0] if all(problems) else _import_problem()


def _platforms() -> list[str]:
    chosen = os.environ.get("QT_QPA_PLATFORM", "")
    if chosen:
        return [part.split(":")[0] for part in chosen.split(";")]
    variables = {"xcb": "DISPLAY", "wayland": "WAYLAND_DISPLAY"}
    return [platform for platform, variable in variables.items() if os.environ.get(variable)]


def _platform_problem(platform: str) -> str:
    if platform == "xcb":
        missing = _missing_packages(_X11_PACKAGES)
        if missing:
            return _missing_sentence(missing)
        return "" if _x11_answers() else _silent_sentence("DISPLAY")
    if platform.startswith("wayland"):
        missing = _missing_packages(_WAYLAND_PACKAGES)
        if missing:
            return _missing_sentence(missing)
        return "" if _wayland_answers() else _silent_sentence("WAYLAND_DISPLAY")
    # offscreen, vnc and their like need no display; Qt names an unknown one itself.
    return ""


def _missing_packages(packages: dict[str, str]) -> list[str]:
    return [package for library, package in packages.items() if not _is_loadable(library)]


def _is_loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _x11_answers() -> bool:
    xcb = ctypes.CDLL("libxcb.so.1")
    xcb.xcb_connect.restype = ctypes.c_void_p
    xcb.xcb_connect.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    for function in (xcb.xcb_connection_has_error, xcb.xcb_disconnect):
        function.argtypes = [ctypes.c_void_p]
    connection = xcb.xcb_connect(None, None)
    answers = bool(xcb.xcb_connection_has_error(connection) == 0)
    xcb.xcb_disconnect(connection)
    return answers


def _wayland_answers() -> bool:
    wayland = ctypes.CDLL("libwayland-client.so.0")
    wayland.wl_display_connect.restype = ctypes.c_void_p
    wayland.wl_display_connect.argtypes = [ctypes.c_char_p]
    wayland.wl_display_disconnect.argtypes = [ctypes.c_void_p]
    display = wayland.wl_display_connect(None)
    if not display:
        return False
    wayland.wl_display_disconnect(display)
    return True


def _import_problem() -> str:
    try:
        importlib.import_module("PySide6.QtWidgets")
    except ImportError as error:
        library = str(error).split(":")[0]
        return (
            f"Qt cannot load {library}, so no window can open: install that library "
            f"(on Debian, `apt-file search {library}` names its package), {_IN_THE_TERMINAL}."
        )
    return ""


def _missing_sentence(packages: list[str]) -> str:
    return (
        f"Qt misses system libraries, so no window can open: on Debian, `apt install {' '.join(packages)}`, "
        f"{_IN_THE_TERMINAL}."
    )


def _silent_sentence(variable: str) -> str:
    return (
        f"No display answers at {variable}={os.environ.get(variable, '')}, so no window can open: mend {variable}, "
        f"{_IN_THE_TERMINAL}."
    )

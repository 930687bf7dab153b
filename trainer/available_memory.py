"""How much memory processes can take: the system's, or what is left of a container's."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def available_bytes(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int:
    """Return the memory that can be taken without swapping, and without being killed for the limit of a container.

    The system's figures tell nothing of such a limit.
    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files

    Args:
        cgroups: Where the system shows its groups of processes (version 2).
        own: The file that says which of them this process is in.

    """
    folder = cgroups
    try:
        for line in own.read_text().splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                folder = cgroups / path.lstrip("/")
    except OSError:
        # Not Linux.
        pass
    left = [psutil.virtual_memory().available]
    for each in (folder, *folder.parents):
        if each == cgroups.parent:
            break
        try:
            left.append(_left_bytes(each))
        except (OSError, ValueError, KeyError):
            # There is no limit, or a system that does not tell of it.
            continue
    return max(0, min(left))


def _left_bytes(folder: Path) -> int:
    limit_bytes, used_bytes = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
    stated = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    # What is only cached of files is given up before anything is killed.
    return limit_bytes - used_bytes + int(stated["active_file"]) + int(stated["inactive_file"])

"""DICOM through the source, whose files are opened in a process apart, beside the same kernel here.

    python bench/images.py FOLDER_OR_ZIP [FILES]

Prints, for rounds that take turns, the CPU seconds and the files a second of both. The peer is the
same source with the kernel called in this process, which a broken file could end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from clinloom.files import listing
from clinloom.sources import dicom
from clinloom.sources._images import apart, instance

ROUNDS = 5
TOLD = {"zone": "UTC", "undated": "reject", "after": 0}


def cpu() -> float:
    """CPU seconds of this process and of its child, which runs on."""
    seconds = sum(os.times()[:2])
    if apart._held is not None:
        with open(f"/proc/{apart._held.pid}/stat") as file:
            used = file.read().rsplit(")", 1)[1].split()[11:13]
        seconds += sum(map(int, used)) / os.sysconf("SC_CLK_TCK")
    return seconds


def in_this_process(kernel: str, data: bytes, told: Mapping[str, Any]) -> dict[str, Any]:
    """What ``apart.examined`` answers."""
    found: dict[str, Any] = {}
    for said in instance.examine(data, told):
        found |= said
    return found


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    begin, used = time.perf_counter(), cpu()
    work()
    return time.perf_counter() - begin, cpu() - used


def main() -> None:
    """Take turns and print the medians."""
    path = sys.argv[1]
    pieces = list(listing(path))[: int(sys.argv[2]) if len(sys.argv) > 2 else 500]
    options = dicom.Options(path=path)

    def through_the_source() -> None:
        for _ in dicom.read(pieces, options, "scans"):
            pass

    def here() -> None:
        dicom.examined = in_this_process
        try:
            through_the_source()
        finally:
            dicom.examined = apart.examined

    rounds: dict[str, list[tuple[float, float]]] = {"apart": [], "here": []}
    start, _ = timed(lambda: [None for _ in dicom.read(pieces[:1], options, "scans")].clear())
    in_this_process("", pieces[0].read(), TOLD)
    for _ in range(ROUNDS):
        rounds["apart"].append(timed(through_the_source))
        rounds["here"].append(timed(here))
    print(f"first file, with the child's start: {start:.2f} s")
    medians = {}
    for name, found in rounds.items():
        wall, used = np.median(np.array(found), axis=0)
        medians[name] = used
        rate = len(pieces) / wall
        print(f"{name:6} {used:7.2f} CPU s {wall:7.2f} s {rate:7.1f} files/s")
    print(f"apart costs {medians['apart'] / medians['here'] - 1:+.1%} CPU")


if __name__ == "__main__":
    main()

"""Files as sources see them: folders, single files and zip archives alike, cut into pieces.

A zip archive is read as a folder. A piece is a file, a member of an archive, or (for line-oriented
formats) a byte range of a large file; pieces are grouped by bytes and handed to workers, which
open them themselves.
"""

from __future__ import annotations

import gzip
import hashlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from clinloom.errors import SourceError

RANGE = 32 << 20  # bytes of a large line-oriented file that one worker reads at once
GROUP = 16 << 20  # bytes of files that one task reads


@dataclass(frozen=True)
class Piece:
    """A file, an archive's member, or the lines of a file that start in ``[start, stop)``."""

    name: str
    path: str
    size: int
    member: str | None = None
    start: int | None = None
    stop: int | None = None

    def read(self) -> bytes:
        """The bytes, decompressed where the name ends in .gz, cut at line ends where ranged."""
        if self.member is not None:
            data = _archive(self.path).read(self.member)
        elif self.start is None:
            data = Path(self.path).read_bytes()
        else:
            return self._lines(self.start, self.stop or self.start)
        return gzip.decompress(data) if self.name.endswith(".gz") else data

    def head(self) -> bytes:
        """The file's first line, without its line end."""
        if self.start is None:
            return self.read().split(b"\n", 1)[0].rstrip(b"\r")
        with open(self.path, "rb") as file:
            return file.readline().rstrip(b"\r\n")

    def _lines(self, start: int, stop: int) -> bytes:
        with open(self.path, "rb") as file:
            if start:
                file.seek(start - 1)
                start += len(file.readline()) - 1  # the line begun before belongs to the last piece
            if start >= stop:
                return b""
            file.seek(start)
            data = file.read(stop - start)
            return data if data.endswith(b"\n") else data + file.readline()


@lru_cache(maxsize=4)
def _archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def listing(path: str, *, include: str = "*", where: str = "") -> list[Piece]:
    """Every file under ``path`` (a folder, a file or a zip archive) whose name fits ``include``.

    Sorted by name. Raises SourceError where nothing is there.
    """
    root = Path(path)
    if not root.exists():
        nearby = root.parent
        while not nearby.exists():
            nearby = nearby.parent
        raise SourceError(
            f"'{path}' does not exist",
            where=where or None,
            mend=f"the nearest folder that does is '{nearby}'; mend the path in the study or"
            " give it with --set",
        )
    try:
        paths = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
        pieces = [piece for file in paths for piece in _members(file, root)]
    except zipfile.BadZipFile:
        raise SourceError(
            "the zip archive cannot be opened", where=where or path, mend="fetch it again"
        ) from None
    found = [p for p in pieces if fnmatch(p.name.rsplit("/", 1)[-1], include)]
    if not found:
        raise SourceError(
            f"no file under '{path}' is named like '{include}'",
            where=where or None,
            mend="is it the right folder?",
        )
    return found


def _members(file: Path, root: Path) -> Iterator[Piece]:
    name = str(file.relative_to(root)) if file != root else file.name
    if file.name.startswith("."):
        return
    if file.suffix.lower() != ".zip":
        yield Piece(name, str(file), file.stat().st_size)
        return
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            hidden = info.filename.startswith("__MACOSX") or "/." in info.filename
            if not info.is_dir() and not hidden:
                member = info.filename
                yield Piece(f"{name}!/{member}", str(file), info.file_size, member)


def fingerprint(pieces: Iterable[Piece]) -> str:
    """A hash that changes when a file is added, removed, renamed or rewritten."""
    digest = hashlib.sha256()
    stamps: dict[str, int] = {}
    for piece in pieces:
        if piece.path not in stamps:
            stamps[piece.path] = Path(piece.path).stat().st_mtime_ns
        digest.update(f"{piece.name}\0{piece.size}\0{stamps[piece.path]}\n".encode())
    return digest.hexdigest()


def groups(pieces: Sequence[Piece], *, splittable: bool, cores: int) -> list[list[Piece]]:
    """Pieces grouped by bytes: few enough for a task's memory, enough tasks for every core."""
    cut = [part for piece in pieces for part in _cut(piece, splittable)]
    total = sum(piece.size for piece in cut)
    limit = max(1 << 16, min(GROUP, total // (4 * cores) + 1))
    out: list[list[Piece]] = []
    held = 0
    for piece in cut:
        if not out or (held + piece.size > limit and held):
            out.append([])
            held = 0
        out[-1].append(piece)
        held += piece.size
    return out


def _cut(piece: Piece, splittable: bool) -> Iterator[Piece]:
    ranged = splittable and piece.member is None and piece.size > RANGE
    if not ranged or piece.name.endswith((".gz", ".parquet", ".json")):
        yield piece
        return
    for start in range(0, piece.size, RANGE):
        stop = min(start + RANGE, piece.size)
        yield Piece(piece.name, piece.path, stop - start, None, start, stop)

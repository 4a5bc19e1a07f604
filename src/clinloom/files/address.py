"""Where something lies: a plain absolute path on this machine, or ``scheme://…`` in a store."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path, PurePosixPath

from clinloom.errors import UsageError, instead

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(/+|(?=$))(.*)", re.DOTALL)
_MENDS = {
    "wasb": "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/…",
    "wasbs": "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/…",
    "adl": "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/…",
    "az": "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/…",
    "dbfs": "give the mounted path: /dbfs/… or /Volumes/…",
    "http": "fetch it first: a web address is no storage",
    "https": "fetch it first: a web address is no storage",
}


class Address(str):
    """A place of a file or folder: text, hashable, picklable, JSON as it stands.

    A place on this machine is a plain absolute path (``/data/x``), any other ``scheme://…``.
    """

    __slots__ = ()

    def __truediv__(self, name: str) -> Address:
        """The address of ``name`` below this one. Raises ValueError where it would lead outside."""
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError("a name below a folder neither begins with / nor holds ..")
        return Address(f"{_with_slash(self)}{name}") if name else self

    @property
    def scheme(self) -> str:
        """One of ``file hdfs s3 abfs abfss gs``."""
        return "file" if self.local else self.split("://", 1)[0]

    @property
    def local(self) -> bool:
        """Whether this machine's own file system (or a mount) holds it."""
        return self.startswith("/")

    @property
    def authority(self) -> str:
        """The bucket, ``container@account``, or name node; nothing for a local path."""
        return "" if self.local else self.split("://", 1)[1].split("/", 1)[0]

    @property
    def key(self) -> str:
        """What follows the authority, without its first slash."""
        if self.local:
            return self[1:]
        return self.split("://", 1)[1].partition("/")[2]

    @property
    def path(self) -> Path:
        """The local path. Raises ValueError where the address lies in a store."""
        if not self.local:
            raise ValueError(f"'{self}' is not on this machine")
        return Path(self)

    @property
    def name(self) -> str:
        """The last part; empty for a bucket."""
        return self.key.rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        """The name's last extension with its dot, as of a path."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Address:
        """The folder that holds it; a bucket or root is its own."""
        above = self.key.rpartition("/")[0]
        if self.local:
            return Address(f"/{above}")
        root = f"{self.scheme}://{self.authority}"
        return Address(f"{root}/{above}" if above else f"{root}/" if not self.authority else root)

    @property
    def uri(self) -> str:
        """What Spark and Hadoop call it: ``file:///…``, ``s3a://…``, ``hdfs://…``, ``abfss://…``."""
        if self.local:
            return f"file://{self}"
        from clinloom.files import registry

        scheme, rest = self.split("://", 1)
        return f"{registry.driver(scheme).HADOOP.get(scheme, scheme)}://{rest}"

    def relative_to(self, root: str) -> str:
        """The rest below ``root``. Raises ValueError where it does not lie there."""
        above = _with_slash(root)
        if not self.startswith(above):
            raise ValueError(f"'{self}' does not lie below '{root}'")
        return self[len(above) :]


def _with_slash(folder: str) -> str:
    return folder if folder.endswith("/") else f"{folder}/"


def address(text: str | os.PathLike[str], *, base: str | Path | None = None) -> Address:
    """The address that ``text`` names.

    A text without a scheme is a local path, whatever a cluster's default file system is: made
    absolute against ``base`` (a folder, or the address of one) or the working directory, ``~``
    expanded. A scheme is only ``name:/``: a lone colon belongs to a file's name. ``s3a:`` and
    ``s3n:`` are ``s3:``. Raises UsageError for an unknown scheme, an address without its bucket,
    and one that carries a secret.
    """
    if isinstance(text, Address):
        return text
    text = os.fspath(text)
    if not text or "\0" in text:
        raise UsageError("an empty text is not an address")
    found = _SCHEME.match(text)
    if not found or not found[2]:
        return _below(text, base)
    scheme = _scheme(found[1].lower())
    if scheme == "file":
        return _file(found[2], found[3])
    return _stored(scheme, found[2], found[3])


def _scheme(written: str) -> str:
    from clinloom.files import registry

    known = registry.names()
    if written not in known:
        raise UsageError(
            f"'{written}:' is not a storage that can be read or written",
            mend=_MENDS.get(written)
            or instead(f"{written}:", [f"{name}:" for name in known], lead="the schemes are"),
        )
    return known[written]


def _below(text: str, base: str | Path | None) -> Address:
    path = os.path.expanduser(text)
    if path.startswith("/"):
        return Address(_plain(path))
    above = address(base) if base is not None else Address(os.getcwd())
    if above.local:
        return Address(_plain(f"{above}/{path}"))
    key = posixpath.normpath(posixpath.join("/", above.key, path)).lstrip("/")
    return Address(f"{above.scheme}://{above.authority}/{key}".rstrip("/"))


def _plain(path: str) -> str:
    """Absolute, without empty parts or dots; ``..`` stays, as links may stand before it."""
    return "/" + str(PurePosixPath(path)).lstrip("/")


def _file(slashes: str, rest: str) -> Address:
    host, _, path = rest.partition("/") if len(slashes) == 2 else ("", "", rest)
    if host not in ("", "localhost"):
        raise UsageError(
            "a 'file:' address names no machine", mend=f"write file:///{host}/… or a plain path"
        )
    return Address(_plain(f"/{path}"))


def _stored(scheme: str, slashes: str, rest: str) -> Address:
    if len(slashes) > 2 or (scheme == "hdfs" and len(slashes) == 1):  # the cluster's own name node
        authority, key = "", rest
    else:
        authority, _, key = rest.partition("/")
    user = authority.rpartition("@")[0]
    signed = re.search(r"[?&](sig|x-amz-signature|x-goog-signature)=", key, re.IGNORECASE)
    if ":" in user or (user and scheme in ("s3", "gs")) or signed:
        raise UsageError(
            f"the {scheme}: address carries a secret",
            mend="name the credentials by references in the storage options",
        )
    if not authority and scheme != "hdfs":
        raise UsageError(
            f"the {scheme}: address names no {'container' if scheme[0] == 'a' else 'bucket'}",
            mend=f"write {scheme}://NAME/…",
        )
    return Address(f"{scheme}://{authority}/{key}".rstrip("/") if authority else f"hdfs:///{key}")

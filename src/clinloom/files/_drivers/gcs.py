"""Google Cloud Storage, through gcsfs: its credentials and session, and the JSON API's requests."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clinloom.errors import UsageError
from clinloom.files.registry import Store, library

from ._objects import MARK, Head, Objects, Refused
from ._ordered import Found

SCHEMES = ("gs",)
ALIASES = {"gcs": "gs"}
HADOOP: dict[str, str] = {}
REQUIRES: str | None = "gcs"
OPTIONS = {
    "project": "the project that is charged",
    "token": "the credentials as JSON, or the path of their file",
    "anon": "true: without credentials",
    "endpoint_url": "the address of a store that is not Google's",
    "requester_pays": "true: the reader is charged",
}
SIDE_BY_SIDE = 16  # requests that are under way at once
PART = 16 << 20  # bytes of a large file that are sent at once


def takes(name: str) -> bool:
    """No other option is passed on."""
    return False


def secret(name: str) -> bool:
    """The credentials."""
    return name == "token"


def connect(authority: str, options: dict[str, Any]) -> Store:
    """A bucket. Without options Google's own chain of credentials holds."""
    core = library("gcsfs.core", extra="gcs")
    given = dict(options)
    if given.pop("anon", False):
        given["token"] = "anon"  # noqa: S105 - the library's word for none
    try:
        if str(given.get("token", "")).startswith("{"):
            given["token"] = json.loads(given["token"])
        fs = core.GCSFileSystem(**given, use_listings_cache=False, skip_instance_cache=True)
    except Exception as error:  # the library's own message may hold the token
        raise UsageError(
            f"the credentials of Google cannot be used ({type(error).__name__})",
            where="storage.gs",
            mend="token is the JSON of a service account, or the path of its file",
        ) from None
    return Gcs(fs, authority)


class Gcs(Objects):
    """A bucket of Google Cloud Storage; an object's version is its generation."""

    async def get(self, key: str, start: int, stop: int | None, version: str | None) -> bytes:
        """objects.get with a range."""
        asked: dict[str, Any] = {"ifGenerationMatch": version} if version else {}
        if start or stop is not None:
            last = "" if stop is None else stop - 1
            asked["headers"] = {"Range": f"bytes={start}-{last}"}
        try:
            _, data = await self._call("GET", key, alt="media", **asked)
        except Exception as error:
            if self.status(error) == 416:  # the range begins at or after the end
                return b""
            raise
        read: bytes = data
        return read

    async def head(self, key: str) -> Head:
        """The object's metadata."""
        found = await self._call("GET", key, json_out=True)
        mark = (found.get("metadata") or {}).get(MARK)
        return Head(int(found["size"]), str(found["generation"]), mark)

    async def send(self, key: str, data: bytes, *, expected: str | None, token: str | None) -> str:
        """objects.insert with ifGenerationMatch: 0 where nothing may be."""
        bound = uuid.uuid4().hex
        told = {"name": key} | ({"metadata": {MARK: token}} if token else {})
        kind = "application/octet-stream"
        body = b"".join(
            [
                f"--{bound}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode(),
                json.dumps(told).encode(),
                f"\r\n--{bound}\r\nContent-Type: {kind}\r\n\r\n".encode(),
                data,
                f"\r\n--{bound}--".encode(),
            ]
        )
        asked = {} if expected is None else {"ifGenerationMatch": expected or "0"}
        place = self.fs.base.replace("/storage/v1/", "/upload/storage/v1/")
        try:
            answer = await self.fs._call(
                "POST",
                f"{place}b/{quote(self.bucket, safe='')}/o",
                uploadType="multipart",
                headers={"Content-Type": f"multipart/related; boundary={bound}"},
                data=body,
                json_out=True,
                **asked,
            )
        except Exception as error:
            if expected is not None and self.status(error) == 412:
                raise Refused from None
            raise
        return str(answer["generation"])

    async def upload(self, built: Path, key: str) -> None:
        """A resumable upload, cancelled where it fails."""
        await self.fs._put_file(
            str(built),
            f"{self.bucket}/{key}",
            chunksize=PART,
            content_type="application/octet-stream",
        )

    async def page(self, prefix: str, after: Any, count: int) -> tuple[list[Found], Any]:
        """objects.list."""
        answer = await self.fs._call(
            "GET",
            "b/{}/o",
            self.bucket,
            prefix=prefix,
            maxResults=count,
            pageToken=after,
            fields="nextPageToken,items(name,size,generation)",
            json_out=True,
        )
        found = [
            Found(o["name"], int(o["size"]), str(o["generation"])) for o in answer.get("items", [])
        ]
        return found, answer.get("nextPageToken")

    async def delete(self, keys: Sequence[str]) -> None:
        """objects.delete, several at once."""
        turn = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(key: str) -> None:
            async with turn:
                try:
                    await self._call("DELETE", key)
                except FileNotFoundError:
                    pass

        await asyncio.gather(*(one(key) for key in keys))

    def status(self, error: Exception) -> int | None:
        """gcsfs raises built-in errors for some of the statuses."""
        if isinstance(error, FileNotFoundError):
            return 404
        if isinstance(error, FileExistsError):
            return 412
        if isinstance(error, OSError) and str(error).startswith("Forbidden"):
            return 403
        if isinstance(error, ValueError) and str(error).startswith("Bad Request"):
            return 400
        code = getattr(error, "code", None)
        if code:
            return int(code)
        module = type(error).__module__.split(".")[0]
        if type(error).__name__ in ("RefreshError", "DefaultCredentialsError"):
            return 401
        reached = isinstance(error, (OSError, asyncio.TimeoutError))
        return 0 if reached or module in ("gcsfs", "aiohttp", "requests", "google") else None

    async def _call(self, method: str, key: str, **asked: Any) -> Any:
        return await self.fs._call(method, "b/{}/o/{}", self.bucket, key, **asked)

"""Azure Blob Storage and Data Lake Storage Gen2, through adlfs and Azure's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinloom.errors import UsageError
from clinloom.files.registry import Store, library

from ._objects import MARK, Head, Objects, Refused
from ._ordered import Found

SCHEMES = ("abfs", "abfss")
ALIASES: dict[str, str] = {}
HADOOP: dict[str, str] = {}
REQUIRES: str | None = "azure"
OPTIONS = {
    "account_name": "the storage account, where the address does not name it",
    "account_host": "the account's blob host, where it is not ACCOUNT.blob.core.windows.net",
    "account_key": "the account's key",
    "connection_string": "all of it in one",
    "sas_token": "a shared access signature",
    "tenant_id": "of the service principal",
    "client_id": "of the service principal",
    "client_secret": "of the service principal",
    "anon": "true: without credentials",
}
SIDE_BY_SIDE = 16  # requests that are under way at once
CHUNKS = 2  # blocks of a large file that are sent at once


def takes(name: str) -> bool:
    """No other option is passed on."""
    return False


def secret(name: str) -> bool:
    """Keys, signatures and the connection string."""
    return name in ("account_key", "connection_string", "sas_token", "client_secret")


def connect(authority: str, options: dict[str, Any]) -> Store:
    """A container. Without options AZURE_STORAGE_… or the default Azure credential hold."""
    adlfs = library("adlfs", extra="azure")
    container, _, host = authority.rpartition("@")
    if not container:
        container, host = host, ""
    given = dict(options)
    if host:
        given["account_name"] = host.split(".")[0]
        if not host.endswith(".core.windows.net") and "account_host" not in given:
            given["account_host"] = host.replace(".dfs.", ".blob.", 1)
    try:
        fs = adlfs.AzureBlobFileSystem(**given, use_listings_cache=False, skip_instance_cache=True)
    except ValueError:
        raise UsageError(
            "the storage account is not known, or its credentials are not well-formed",
            where="storage.abfs",
            mend="write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/… or give account_name",
        ) from None
    return Azure(fs, container)


class Azure(Objects):
    """A container of blobs."""

    async def get(self, key: str, start: int, stop: int | None, version: str | None) -> bytes:
        """Get Blob with a range."""
        condition: dict[str, Any] = self._matching(version) if version else {}
        length = None if stop is None else stop - start
        async with self._blob(key) as blob:
            try:
                stream = await blob.download_blob(
                    offset=start if start or length is not None else None,
                    length=length,
                    **condition,
                )
                data: bytes = await stream.readall()
            except Exception as error:
                if self.status(error) == 416:  # the range begins at or after the end
                    return b""
                raise
        return data

    async def head(self, key: str) -> Head:
        """Get Blob Properties."""
        async with self._blob(key) as blob:
            found = await blob.get_blob_properties()
        if (found.metadata or {}).get("hdi_isfolder") == "true":
            raise FileNotFoundError(key)
        return Head(found.size, found.etag.strip('"'), (found.metadata or {}).get(MARK))

    async def send(self, key: str, data: bytes, *, expected: str | None, token: str | None) -> str:
        """Put Blob with If-None-Match or If-Match."""
        asked: dict[str, Any] = {"metadata": {MARK: token}} if token else {}
        if expected:
            asked |= self._matching(expected)
        try:
            async with self._blob(key) as blob:
                answer = await blob.upload_blob(data, overwrite=expected != "", **asked)
        except Exception as error:
            code = getattr(error, "error_code", None)
            refused = self.status(error) == 412 or code == "BlobAlreadyExists"
            if expected is not None and (refused or (expected and code == "BlobNotFound")):
                raise Refused from None
            raise
        version: str = answer["etag"].strip('"')
        return version

    async def upload(self, built: Path, key: str) -> None:
        """Put Blob, or blocks that appear when their list is put."""
        with built.open("rb") as file:
            async with self._blob(key) as blob:
                await blob.upload_blob(file, overwrite=True, max_concurrency=CHUNKS)

    async def page(self, prefix: str, after: Any, count: int) -> tuple[list[Found], Any]:
        """List Blobs."""
        async with self.fs.service_client.get_container_client(self.bucket) as container:
            listed = container.list_blobs(
                name_starts_with=prefix, include=["metadata"], results_per_page=count
            )
            pages = listed.by_page(continuation_token=after)
            found = [_found(b) async for b in await anext(pages)]
            return found, pages.continuation_token or None

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete Blob, several at once."""
        turn = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(key: str) -> None:
            async with turn, self._blob(key) as blob:
                try:
                    await blob.delete_blob(delete_snapshots="include")
                except Exception as error:
                    if self.status(error) != 404:
                        raise

        await asyncio.gather(*(one(key.rstrip("/")) for key in keys))

    def status(self, error: Exception) -> int | None:
        """azure-core's."""
        if isinstance(error, FileNotFoundError):
            return 404
        code = getattr(error, "status_code", None)
        if code:
            return int(code)
        name, module = type(error).__name__, type(error).__module__
        if name in ("ClientAuthenticationError", "CredentialUnavailableError"):
            return 401
        reached = isinstance(error, (OSError, asyncio.TimeoutError))
        return 0 if reached or module.startswith(("azure.", "aiohttp.")) else None

    def _blob(self, key: str) -> Any:
        return self.fs.service_client.get_blob_client(self.bucket, key)

    def _matching(self, version: str) -> dict[str, Any]:
        core = library("azure.core", extra="azure")
        return {"etag": f'"{version}"', "match_condition": core.MatchConditions.IfNotModified}


def _found(blob: Any) -> Found:
    folder = (blob.metadata or {}).get("hdi_isfolder") == "true"
    return Found(f"{blob.name}/" if folder else blob.name, blob.size, blob.etag.strip('"'))

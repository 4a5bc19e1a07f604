"""Amazon S3 and stores that speak as it does, through s3fs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinloom.files.registry import Store, library

from ._objects import MARK, Head, Objects, Refused
from ._ordered import Found

SCHEMES = ("s3",)
ALIASES = {"s3a": "s3", "s3n": "s3"}
HADOOP = {"s3": "s3a"}
REQUIRES: str | None = "s3"
OPTIONS = {
    "endpoint_url": "the address of a store that is not Amazon's",
    "region": "the region of the buckets",
    "profile": "a profile of the shared AWS configuration",
    "key": "access key",
    "secret": "secret key",
    "token": "session token",
    "anon": "true: without credentials",
    "addressing_style": "path, virtual or auto",
    "verify": "the file of certificates to trust",
    "requester_pays": "true: the reader is charged",
    "sse": "server-side encryption: AES256 or aws:kms",
    "sse_kms_key_id": "the name of the key for aws:kms",
}
PART = 16 << 20  # bytes of a large file that are sent at once


def takes(name: str) -> bool:
    """No other option is passed on."""
    return False


def secret(name: str) -> bool:
    """The access key, its secret and the session token."""
    return name in ("key", "secret", "token")


def connect(authority: str, options: dict[str, Any]) -> Store:
    """A bucket. Without options the AWS chain of credentials holds."""
    s3fs = library("s3fs", extra="s3")
    client = {"region_name": options.get("region"), "verify": options.get("verify")}
    put = {"ServerSideEncryption": "sse", "SSEKMSKeyId": "sse_kms_key_id"}
    direct = ("endpoint_url", "key", "secret", "token", "anon", "profile", "requester_pays")
    kept = {name: options[name] for name in direct if name in options}
    style = options.get("addressing_style")
    fs = s3fs.S3FileSystem(
        **kept,
        client_kwargs={name: value for name, value in client.items() if value is not None},
        config_kwargs={"s3": {"addressing_style": style}} if style else {},
        s3_additional_kwargs={n: options[o] for n, o in put.items() if o in options},
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    fs.retries = 1  # botocore tries again, and so does this room: not a third time between
    return S3(fs, authority)


class S3(Objects):
    """A bucket of S3."""

    async def get(self, key: str, start: int, stop: int | None, version: str | None) -> bytes:
        """GetObject with a range."""
        asked: dict[str, Any] = {"IfMatch": f'"{version}"'} if version else {}
        if start or stop is not None:
            asked["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        try:
            answer = await self._call("get_object", Key=key, **asked)
        except OSError as error:
            if self.status(error) == 416:  # the range begins at or after the end
                return b""
            raise
        async with answer["Body"] as body:
            data: bytes = await body.read()
        return data

    async def head(self, key: str) -> Head:
        """HeadObject."""
        found = await self._call("head_object", Key=key)
        mark = found.get("Metadata", {}).get(MARK)
        return Head(found["ContentLength"], found["ETag"].strip('"'), mark)

    async def send(self, key: str, data: bytes, *, expected: str | None, token: str | None) -> str:
        """PutObject with If-None-Match or If-Match."""
        asked: dict[str, Any] = {"Metadata": {MARK: token}} if token else {}
        if expected is not None:
            asked |= {"IfMatch": f'"{expected}"'} if expected else {"IfNoneMatch": "*"}
        try:
            answer = await self._call("put_object", Key=key, Body=data, **asked)
        except OSError as error:
            # Over a version that was removed meanwhile S3 says that there is no such key.
            if self.status(error) == 412 or (expected and self._code(error) == "NoSuchKey"):
                raise Refused from None
            raise
        version: str = answer["ETag"].strip('"')
        return version

    async def upload(self, built: Path, key: str) -> None:
        """PutObject, or a multipart upload that is aborted where it fails."""
        await self.fs._put_file(
            str(built), f"{self.bucket}/{key}", chunksize=PART, max_concurrency=2
        )

    async def page(self, prefix: str, after: Any, count: int) -> tuple[list[Found], Any]:
        """ListObjectsV2."""
        more = {"ContinuationToken": after} if after else {}
        answer = await self._call("list_objects_v2", Prefix=prefix, MaxKeys=count, **more)
        found = [
            Found(o["Key"], o["Size"], o["ETag"].strip('"')) for o in answer.get("Contents", [])
        ]
        return found, answer.get("NextContinuationToken")

    async def delete(self, keys: Sequence[str]) -> None:
        """DeleteObjects."""
        named = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = await self._call("delete_objects", Delete=named)
        for fault in answer.get("Errors", []):
            code = fault.get("Code")
            raise PermissionError(code) if code == "AccessDenied" else OSError(code)

    def status(self, error: Exception) -> int | None:
        """botocore's, as s3fs wraps it."""
        cause = error.__cause__ if isinstance(error, OSError) and error.__cause__ else error
        answer = getattr(cause, "response", None)
        if isinstance(answer, dict):
            return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
        if isinstance(cause, PermissionError):
            return 403
        name = type(cause).__name__
        if "Credential" in name or name == "ProfileNotFound":
            return 401
        module = type(cause).__module__.split(".")[0]
        reached = isinstance(cause, (OSError, asyncio.TimeoutError))
        return 0 if reached or module in ("botocore", "aiobotocore", "aiohttp") else None

    def _code(self, error: Exception) -> str | None:
        answer = getattr(error.__cause__, "response", None) or {}
        code: str | None = answer.get("Error", {}).get("Code")
        return code

    async def _call(self, method: str, **asked: Any) -> Any:
        return await self.fs._call_s3(method, Bucket=self.bucket, **asked)

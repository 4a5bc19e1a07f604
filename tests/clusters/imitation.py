"""Google Cloud Storage's JSON API, imitated as far as files use it: no emulator is to be had.

Objects live in memory with their generation; conditions, ranges, pages and resumable uploads answer
as the API's reference says (https://cloud.google.com/storage/docs/json_api/v1/objects).
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Bucket:
    """Objects by name: their bytes, generation and metadata."""

    objects: dict[str, tuple[bytes, str, dict]] = field(default_factory=dict)
    generations: itertools.count = field(default_factory=lambda: itertools.count(1700000000000000))
    uploads: dict[str, tuple[str, dict, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str, data: bytes, metadata: dict, match: str | None) -> dict | None:
        """The object's resource, or None where the condition does not hold."""
        with self.lock:
            held = self.objects.get(name, (b"", "0", {}))[1]
            if match is not None and match != held:
                return None
            self.objects[name] = (data, str(next(self.generations)), metadata)
        return self.resource(name)

    def resource(self, name: str) -> dict:
        """What the API tells of an object."""
        data, generation, metadata = self.objects[name]
        told = {"name": name, "size": str(len(data)), "generation": generation}
        return told | ({"metadata": metadata} if metadata else {})


def serve(buckets: dict[str, Bucket]) -> ThreadingHTTPServer:
    """A server on loopback, started."""

    class Api(BaseHTTPRequestHandler):
        """One request."""

        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            """Nothing."""

        def answer(self, status: int, body: bytes | dict = b"", **headers: str) -> None:
            """Send it."""
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            if status >= 400 and not data:
                data = json.dumps({"error": {"code": status, "message": "refused"}}).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def asked(self) -> tuple[Bucket | None, str | None, dict[str, str], bytes]:
            """The bucket, object, parameters and body of the request."""
            url = urlsplit(self.path)
            found = re.fullmatch(r"(?:/upload)?/storage/v1/b/([^/]+)/o(?:/(.*))?", url.path)
            told = {name: values[0] for name, values in parse_qs(url.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            name = unquote(found[2]) if found and found[2] is not None else None
            return buckets.get(found[1]) if found else None, name, told, body

        def do_GET(self) -> None:
            """An object, its bytes, or a page of names."""
            bucket, name, told, _ = self.asked()
            if bucket is None or (name is not None and name not in bucket.objects):
                return self.answer(404)
            if name is None:
                return self.page(bucket, told)
            data, generation, _ = bucket.objects[name]
            if told.get("ifGenerationMatch", generation) != generation:
                return self.answer(412)
            if told.get("alt") != "media":
                return self.answer(200, bucket.resource(name))
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
            if data and int(wanted[1]) >= len(data) or (not data and "Range" in self.headers):
                return self.answer(416)
            stop = int(wanted[2]) + 1 if wanted[2] else len(data)
            return self.answer(206 if "Range" in self.headers else 200, data[int(wanted[1]) : stop])

        def page(self, bucket: Bucket, told: dict[str, str]) -> None:
            """Names in the order of their bytes."""
            prefix, after = told.get("prefix", ""), told.get("pageToken", "")
            names = sorted(n for n in bucket.objects if n.startswith(prefix) and n > after)
            some = names[: int(told.get("maxResults", 1000))]
            more = {"nextPageToken": some[-1]} if len(names) > len(some) else {}
            self.answer(200, {"items": [bucket.resource(n) for n in some], **more})

        def do_POST(self) -> None:
            """A whole object, the beginning of an upload, or a part of one."""
            bucket, _, told, body = self.asked()
            if bucket is None:
                return self.answer(404)
            if told.get("uploadType") == "resumable":
                key = f"upload-{next(bucket.generations)}"
                bucket.uploads[key] = (told["name"], json.loads(body or b"{}"), b"")
                where = f"http://{self.headers['Host']}{urlsplit(self.path).path}?upload_id={key}"
                return self.answer(200, Location=where)
            if "upload_id" in told:
                return self.part(bucket, told["upload_id"], body)
            bound = self.headers["Content-Type"].split("boundary=")[1].strip('"').encode()
            about, data = (
                re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1]
                for part in body.split(b"--" + bound)[1:3]
            )
            told_ = json.loads(about)
            data = data[: -2 if data.endswith(b"\r\n") else -1]
            match = told.get("ifGenerationMatch")
            made = bucket.put(told_["name"], data, told_.get("metadata", {}), match)
            return self.answer(200, made) if made else self.answer(412)

        def part(self, bucket: Bucket, key: str, body: bytes) -> None:
            """The next bytes of an upload; the object is there after the last."""
            name, about, before = bucket.uploads[key]
            data = before + body
            if len(data) < int(self.headers["Content-Range"].rsplit("/", 1)[1]):
                bucket.uploads[key] = (name, about, data)
                return self.answer(308, Range=f"bytes=0-{len(data) - 1}")
            del bucket.uploads[key]
            return self.answer(200, bucket.put(name, data, about.get("metadata", {}), None))

        def do_DELETE(self) -> None:
            """Remove an object, or give up an upload."""
            bucket, name, told, _ = self.asked()
            if bucket is not None and "upload_id" in told:
                bucket.uploads.pop(told["upload_id"], None)
                return self.answer(499)
            if bucket is None or bucket.objects.pop(name, None) is None:
                return self.answer(404)
            return self.answer(204)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server

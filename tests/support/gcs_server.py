"""A fake Google Cloud Storage server with the part of the JSON API that reads and writes objects."""

import base64
import contextlib
import hashlib
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = (
        -1
    )  # headers and body in one packet: two would wait 40 ms for each other (Nagle, delayed acknowledgement)
    objects: dict[str, bytes]
    generations: dict[str, int]
    uploads: dict[str, tuple[str, bytes]]

    def log_message(self, format, *args):
        pass

    def _split(self):
        """Returns the object's name and the query of the request."""
        url = urllib.parse.urlsplit(self.path)
        parts = url.path.split("/b/", 1)[1].split("/o", 1)
        name = urllib.parse.unquote(parts[1].lstrip("/")) if len(parts) > 1 else ""
        return name, dict(urllib.parse.parse_qsl(url.query))

    def _answer(self, status: int, body: object = b"", **headers: str) -> None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _describe(self, name):
        data = self.objects[name]
        host = f"http://{self.headers['Host']}"
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": "bucket",
            "size": str(len(data)),
            "generation": str(self.generations.get(name, 1)),
            "metageneration": "1",
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "updated": "2024-01-01T00:00:00.000Z",
            "timeCreated": "2024-01-01T00:00:00.000Z",
            "mediaLink": f"{host}/download/storage/v1/b/bucket/o/{urllib.parse.quote(name, safe='')}?alt=media",
        }

    def do_GET(self):
        name, query = self._split()
        if not name and "/o" not in self.path:
            self._answer(200, {"kind": "storage#bucket", "name": "bucket"})
        elif not name:
            self._list(query)
        elif name not in self.objects:
            self._answer(404, {"error": {"code": 404, "message": "No such object"}})
        elif query.get("alt") == "media":
            self._media(self.objects[name], self.generations.get(name, 1))
        else:
            self._answer(200, self._describe(name))

    do_HEAD = do_GET  # noqa: N815

    def _media(self, data, generation):
        requested = self.headers.get("Range")
        extra = {"X_Goog_Generation": str(generation)}
        if not requested:
            self._answer(200, data, **extra)
            return
        first, _, last = requested.removeprefix("bytes=").partition("-")
        start = int(first) if first else len(data) - int(last)
        stop = min(len(data), int(last) + 1) if first and last else len(data)
        if start >= len(data):
            self._answer(416)
        else:
            extra["Content_Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            self._answer(206, data[start:stop], **extra)

    def _list(self, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        for name in sorted(self.objects):
            if not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(self._describe(name))
        self._answer(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def do_POST(self):
        name, query = self._split()
        if "upload_id" in query:
            self.do_PUT()
            return
        body = self._body()
        if "rewriteTo" in name or "copyTo" in name:
            source, target = name.split("/rewriteTo/b/bucket/o/")
            self.objects[target] = self.objects[source]
            self._answer(200, {"done": True, "resource": self._describe(target)})
        elif query.get("uploadType") == "resumable":
            target = query.get("name") or json.loads(body)["name"]
            key = str(len(self.uploads))
            self.uploads[key] = (target, b"")
            self._answer(200, Location=f"http://{self.headers['Host']}/upload/b/bucket/o?upload_id={key}")
        elif query.get("uploadType") == "multipart":
            mark = b"\n--" + self.headers["Content-Type"].split("boundary=")[1].strip('"').encode()
            parts = (b"\n" + body.replace(b"\r\n", b"\n")).split(mark)[1:3]
            about, content = (part.split(b"\n\n", 1)[1] for part in parts)
            target = json.loads(about)["name"]
            if self._refused(target, query):
                return
            self.objects[target] = content
            self.generations[target] = self.generations.get(target, 0) + 1
            self._answer(200, self._describe(target))
        else:
            self.objects[query["name"]] = body
            self._answer(200, self._describe(query["name"]))

    def do_PUT(self):
        _, query = self._split()
        target, before = self.uploads[query["upload_id"]]
        data = before + self._body()
        self.uploads[query["upload_id"]] = (target, data)
        if self.headers["Content-Range"].endswith("/*"):
            self._answer(308, Range=f"bytes=0-{len(data) - 1}")
        else:
            self.objects[target] = data
            self._answer(200, self._describe(target))

    def _refused(self, name, query):
        """Answers a request whose condition on the object's generation does not hold."""
        wanted = query.get("ifGenerationMatch")
        have = self.generations.get(name, 1) if name in self.objects else 0
        if wanted is None or int(wanted) == have:
            return False
        self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
        return True

    def do_DELETE(self):
        name, query = self._split()
        if self._refused(name, query):
            return
        found = self.objects.pop(name, None)
        self._answer(204 if found is not None else 404)


@contextlib.contextmanager
def serving():
    """Serves one bucket named `bucket`. Yields the server's address and the bucket's objects by name."""
    handler = type("Bucket", (Handler,), {"objects": {}, "uploads": {}, "generations": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.objects
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

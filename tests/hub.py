"""A small hub on this machine, for the real clients of transformers and datasets.

`serve` answers the parts of the hub's HTTP API that they use, from folders: pass its URL as
HF_ENDPOINT to a new process (`huggingface_hub` reads it when it is imported).
"""

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

SECONDS = 20  # an idle connection is closed after so long


def client_environment(url: str, home: Path) -> dict[str, str]:
    """Name what a client needs in its environment to see this hub and nothing else."""
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        # every other address is asked of this server too, and not found: nothing leaves the machine
        **{f"{scheme}_PROXY": url for scheme in ("HTTP", "HTTPS", "ALL")},
        "NO_PROXY": "127.0.0.1",
    }


@contextmanager
def serve(
    models: dict[str, Path] | None = None,
    datasets: dict[str, Path] | None = None,
    gated: dict[str, int] | None = None,
    log: list[tuple[str, str, int]] | None = None,
) -> Iterator[str]:
    """Serve folders as repositories on the loopback interface, until the block ends.

    Args:
        models: from hub ids to folders written by `save_pretrained`.
        datasets: from hub ids to folders of data files.
        gated: ids whose files nobody may read, and the status that says so: 401 or 403.
        log: to this list the method, the path and the status of every request are added.

    Yields:
        The URL of the hub.
    """
    repositories = {f"models/{name}": Path(folder) for name, folder in (models or {}).items()}
    repositories |= {f"datasets/{name}": Path(folder) for name, folder in (datasets or {}).items()}
    state = {"repositories": repositories, "gated": gated or {}, "log": [] if log is None else log}
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), state | {"timeout": SECONDS}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Say nothing of clients that hang up, as they do in the middle of a stream."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET, HEAD and POST for the repositories of one hub."""

    protocol_version = "HTTP/1.1"
    repositories: dict[str, Path]
    gated: dict[str, int]
    log: list[tuple[str, str, int]]

    def do_GET(self):
        url = urlsplit(self.path)
        path = unquote(url.path).strip("/")
        if path.startswith("api/"):
            self._answer_api(path.removeprefix("api/"), parse_qs(url.query))
        else:
            self._answer_file(path if path.startswith("datasets/") else f"models/{path}")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.headers.get("Content-Type", "")
        form = json.loads(body) if "json" in kind else parse_qs(body.decode())
        name, _, rest = unquote(urlsplit(self.path).path).removeprefix("/api/").partition("/paths-info/")
        folder = self._find(name)
        if folder is not None and rest:
            paths = form["paths"] if isinstance(form["paths"], list) else [form["paths"]]
            self._send_json([_describe(folder, folder / path) for path in paths if (folder / path).exists()])

    def log_request(self, code="-", size="-"):
        self.log.append((self.command, self.path, int(code)))

    def log_message(self, *args):
        """Keep quiet."""

    def _answer_api(self, path: str, query: dict) -> None:
        name, _, below = path.partition("/tree/")
        name = name.split("/revision/")[0]
        folder = self._find(name)
        if folder is None:
            return
        if "/tree/" in path:
            top = folder / "/".join(below.split("/")[1:])  # behind the revision
            if not top.is_dir():
                return self._send_error(404, "EntryNotFound")
            found = top.rglob("*") if query.get("recursive", ["false"])[0].lower() in ("true", "1") else top.iterdir()
            return self._send_json([_describe(folder, file) for file in sorted(found)])
        files = [{"rfilename": file.relative_to(folder).as_posix()} for file in _files(folder)]
        about = {"id": name.partition("/")[2], "sha": _revision(folder), "private": False, "tags": []}
        self._send_json(about | {"siblings": files})

    def _answer_file(self, path: str) -> None:
        name, _, rest = path.partition("/resolve/")
        folder = self._find(name)
        if folder is None:
            return
        if status := self.gated.get(name.partition("/")[2]):
            return self._send_error(status, "GatedRepo")
        file = folder / "/".join(rest.split("/")[1:])
        if not file.is_file():
            return self._send_error(404, "EntryNotFound", _revision(folder))
        content = file.read_bytes()
        first, last = 0, len(content) - 1
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if wanted:
            start, _, end = wanted.partition("-")
            first, last = int(start), min(int(end or last), last)
        self.send_response(206 if wanted else 200)
        self._send_headers(content[first : last + 1], _revision(folder), file, (first, last, len(content)))

    def _find(self, name: str) -> Path | None:
        folder = self.repositories.get(name)
        if folder is None:
            self._send_error(404, "RepoNotFound")
        return folder

    def _send_json(self, value) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self._send_body(json.dumps(value).encode())

    def _send_headers(self, content: bytes, revision: str, file: Path, span: tuple[int, int, int]) -> None:
        self.send_header("X-Repo-Commit", revision)
        self.send_header("ETag", f'"{_digest(file)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", "bytes {}-{}/{}".format(*span))
        self.send_header("Content-Type", "application/octet-stream")
        self._send_body(content)

    def _send_error(self, status: int, code: str, revision: str | None = None) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        if revision:
            self.send_header("X-Repo-Commit", revision)
        self._send_body(json.dumps({"error": code}).encode())

    def _send_body(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def _revision(folder: Path) -> str:
    """Stand in for a commit: it changes when a name or a size does."""
    state = [(str(file.relative_to(folder)), file.stat().st_size) for file in _files(folder)]
    return hashlib.sha1(repr(state).encode()).hexdigest()


def _describe(folder: Path, path: Path) -> dict:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": _revision(path), "size": 0}
    return {"type": "file", "path": name, "oid": _digest(path), "size": path.stat().st_size}

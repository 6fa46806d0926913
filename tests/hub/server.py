"""A server that speaks the Hub's protocol, as far as a client that downloads needs it, and can be
told to misbehave. A second one stands for the hosts that large files are redirected to."""

import dataclasses
import hashlib
import http.server
import json
import socket
import struct
import threading
import urllib.parse


SILENCE = -1  # a status


def git_sha1(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@dataclasses.dataclass
class Repo:
    files: dict  # path: bytes
    commit: str = "1" * 40
    revisions: tuple = ("main",)
    large: tuple = (".safetensors", ".bin", ".parquet")  # kept in LFS: SHA-256, redirected
    gated: bool = False
    private: bool = False
    etags: dict = dataclasses.field(default_factory=dict)  # path: an ETag in place of the true one
    siblings: list = dataclasses.field(default_factory=list)  # names beside those of files

    def is_large(self, path):
        return path.endswith(self.large)

    def etag(self, path):
        digest = sha256 if self.is_large(path) else git_sha1
        return self.etags.get(path, digest(self.files[path]))


@dataclasses.dataclass
class Request:
    method: str
    path: str
    headers: dict
    status: int = 0
    sent: int = 0  # bytes of content


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Small answers are sent at once.
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def answer(self, status, headers=(), content=b"", length=True):
        self.request_log.status = status
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if length and "Content-Length" not in dict(headers):
            self.send_header("Content-Length", str(len(content)))
        if not length:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
            self.request_log.sent += len(content)

    def break_off(self):
        """Resets the connection."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def content(self, content, headers, faults):
        """Sends content, or the range of it that was asked for, as `faults` has it."""
        begin, end, status = 0, len(content), 200
        headers = dict(headers)
        asked = self.headers.get("Range", "")
        condition = self.headers.get("If-Range")
        if faults.conditions and condition and condition != headers.get("ETag"):
            asked = ""
        if faults.ranges and asked.startswith("bytes="):
            first, last = asked[6:].split("-")
            begin, end, status = int(first), min(int(last or end) + 1, end), 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
            if faults.shift_ranges:
                begin, end = max(begin - 1, 0), max(end - 1, 1)
                headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        body = content[begin:end]
        if not faults.lengths:
            return self.answer(status, headers, body, length=False)
        headers["Content-Length"] = str(len(body))
        cut = faults.cut(len(body)) if self.command == "GET" else None
        if cut is None:
            return self.answer(status, headers, body)
        self.request_log.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        self.wfile.flush()
        self.request_log.sent += cut
        if faults.stall:
            faults.stalled.set()
            faults.go_on.wait(60)
        self.break_off()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.request_log = Request(self.command, self.path, dict(self.headers))
        with self.server.lock:
            self.server.log.append(self.request_log)
            fault = next((f for f in self.server.failures
                          if f["count"] > 0 and f["match"] in self.path), None)
            if fault:
                fault["count"] -= 1
        if fault:
            if fault["status"] == 0:
                return self.break_off()
            if fault["status"] == SILENCE:
                self.server.go_on.wait(60)
                return self.break_off()
            return self.answer(fault["status"], fault["headers"], b"sorry")
        self.server.route(self, urllib.parse.unquote(self.path.split("?")[0]))


class Server(http.server.ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1. The name it goes by tells it from others: token rules are
    about host names."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, name, route, context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "https" if context else "http"
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{self.scheme}://{name}:{self.server_address[1]}"
        self.route = route
        self.log, self.failures, self.lock = [], [], threading.Lock()
        self.go_on = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass

    def fail(self, status, count=1, match="", **headers):
        """The next `count` requests for a path with `match` in it are answered with `status`; 0
        resets the connection, SILENCE never answers."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.failures.append({"status": status, "count": count, "match": match,
                              "headers": headers})

    def stop(self):
        self.go_on.set()
        self.shutdown()
        self.server_close()


class Faults:
    """How content is sent."""

    def __init__(self):
        self.ranges = self.lengths = True
        self.shift_ranges = False  # others than those asked for
        self.conditions = True  # If-Range is known
        self.cuts = []  # answers are cut after so many bytes, one after the other
        self.always_cut = None
        self.stall = False  # after a cut, wait before the connection is reset
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.lock = threading.Lock()

    def cut(self, size):
        with self.lock:
            cut = self.cuts.pop(0) if self.cuts else self.always_cut
        return cut if cut is not None and cut < size else None


class Hub:
    def __init__(self, context=None):
        self.models, self.datasets, self.tokens = {}, {}, {"hf_good", "hf_stranger"}
        self.faults = Faults()
        self.storage = Server("localhost", self.route_storage)
        self.server = Server("localhost" if context else "127.0.0.1", self.route, context)
        self.url = self.server.url
        self.storage_etag = lambda digest: f'"{digest[:32]}-7"'  # some other kind of ETag
        self.redirects = {}  # path: where it leads
        self.elsewhere = self.storage.url

    def stop(self):
        self.faults.go_on.set()
        self.server.stop()
        self.storage.stop()

    @property
    def log(self):
        return self.server.log

    def sent(self):
        """Bytes of large files that were sent."""
        return sum(request.sent for request in self.storage.log)

    def clear(self):
        for server in (self.server, self.storage):
            server.log.clear()
            server.failures.clear()

    # ---- routes ----

    def route(self, handler, path):
        if path in self.redirects:
            return handler.answer(307, {"Location": self.redirects[path]})
        api = path.startswith("/api/")
        parts = path.removeprefix("/api").strip("/")
        repos = self.datasets if parts.startswith("datasets/") else self.models
        kind = "revision" if api else "resolve"
        parts = parts.removeprefix("datasets/").removeprefix("models/" if api else "")
        name, found, rest = parts.partition(f"/{kind}/")
        repo = repos.get(name)
        if not found or self.refused(handler, repo, api):
            return found or handler.answer(404)
        revision = next((r for r in (repo.commit, *repo.revisions)
                         if rest == r or rest.startswith(r + "/")), None)
        if revision is None:
            return handler.answer(404, {"X-Error-Code": "RevisionNotFound"})
        if api:
            siblings = [{"rfilename": file} for file in [*repo.files, *repo.siblings]]
            if "blobs=true" in handler.path:
                for sibling, content in zip(siblings, repo.files.values()):
                    sibling["size"] = len(content)
            body = json.dumps({"id": name, "sha": repo.commit, "siblings": siblings})
            return handler.answer(200, {"Content-Type": "application/json"}, body.encode())
        return self.resolve(handler, repo, rest[len(revision) + 1:])

    def refused(self, handler, repo, api):
        """Answers where the repository may not be read; whether it did."""
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.tokens:
            handler.answer(401, {"X-Error-Message": "Invalid credentials"})
        elif repo is None or (repo.private and token != "hf_good"):
            handler.answer(404 if token else 401, {"X-Error-Code": "RepoNotFound",
                                                   "X-Error-Message": "Repository not found"})
        elif repo.gated and not api and token != "hf_good":
            handler.answer(403 if token else 401, {"X-Error-Code": "GatedRepo",
                                                   "X-Error-Message": "Access is restricted"})
        else:
            return False
        return True

    def resolve(self, handler, repo, path):
        headers = {"X-Repo-Commit": repo.commit}
        if path not in repo.files:
            return handler.answer(404, {**headers, "X-Error-Code": "EntryNotFound"})
        content, etag = repo.files[path], repo.etag(path)
        if not repo.is_large(path):
            return handler.content(content, {**headers, "ETag": f'"{etag}"'}, Faults())
        digest = sha256(content)
        self.large = getattr(self, "large", {})
        self.large[digest] = content
        headers.update({"X-Linked-Etag": f'"{etag}"', "ETag": '"of the redirect"',
                        "Location": f"{self.elsewhere}/{digest}?signature=abc"})
        if self.faults.lengths:
            headers["X-Linked-Size"] = str(len(content))
        handler.answer(302, headers)

    def route_storage(self, handler, path):
        content = getattr(self, "large", {}).get(path.strip("/"))
        if content is None:
            return handler.answer(404)
        handler.content(content, {"ETag": self.storage_etag(path.strip("/"))}, self.faults)

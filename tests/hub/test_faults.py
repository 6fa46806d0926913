"""Servers and connections that fail: what is tried again, what is kept, and when it ends."""

import resource
import signal
import subprocess
import time
import unittest

from common import (DRIVER, FILE, FORMAT, INTERRUPTED, OK, OUTPUT, PART, SMALL, HubTest,
                    model, noise)
from server import SILENCE, Repo, sha256

WANTED = [*SMALL, "model.safetensors"]
UNIT = PART // 16  # as the driver has it


class Faults(HubTest):
    def setUp(self):
        super().setUp()
        self.repo = self.hub.models["org/name"] = model()
        self.size = len(self.repo.files["model.safetensors"])

    def pull(self, code=OK, **options):
        result = self.drive("pull", "org/name", code=code, **options)
        if code == OK:
            self.check_snapshot(result, self.repo, WANTED)
            self.assertEqual(self.unfinished(), [])
        return result


class Answers(Faults):
    def test_passing_errors(self):
        for status in (408, 429, 500, 502, 503, 504, 0):
            self.hub.server.fail(status, 2, "/api/")
            self.hub.server.fail(status, 2, "tokenizer.json")
            self.hub.storage.fail(status, 2)
            self.pull(HF_HUB_CACHE=str(self.scratch / str(status)))
            self.assertEqual({failure["count"] for failure in
                              self.hub.server.failures + self.hub.storage.failures}, {0})

    def test_back_off_grows_and_ends(self):
        self.hub.server.fail(503, 100)
        began = time.monotonic()
        error = self.pull(FILE, options=("-b", "0.1"))
        waited = time.monotonic() - began
        self.assertIn("HTTP 503", error)
        self.assertEqual(len(self.hub.log), 5)
        self.assertGreaterEqual(waited, 0.5 * (0.1 + 0.2 + 0.4 + 0.8))

        self.assertIn("note: " + self.hub.url + ": HTTP 503; attempt 2 of 5 follows in", error)

    def test_silence(self):
        """Connections are accepted, and nothing comes."""
        self.hub.server.fail(SILENCE, 100)
        error = self.pull(FILE, options=("-s", "1"))
        self.assertEqual(len(self.hub.log), 3)
        note, again, end = error.splitlines()
        self.assertIn("note: " + self.hub.url + ": nothing came for 1 s; attempt 2 of 3", note)
        self.assertIn("attempt 3 of 3", again)
        self.assertIn("cannot be reached (nothing came for 1 s); check the network", end)
        self.hub.clear()
        self.hub.storage.fail(SILENCE, 100)
        error = self.pull(FILE, options=("-s", "1"))
        self.assertIn("note: model.safetensors: the download broke off (nothing came for 1 s)",
                      error)
        self.assertIn("broke off 3 times (nothing came for 1 s); check the network", error)
        self.hub.clear()
        self.pull()

    def test_connections_that_fall_silent_together(self):
        """That is one failure, not eight."""
        self.faults.cuts, self.faults.stall = [None] + [0] * 8, True
        self.pull(options=("-s", "1"))

    def test_storage_that_stays_down(self):
        self.hub.storage.fail(500, 1000)
        self.assertIn("500", self.pull(FILE))
        self.assertLess(len(self.hub.storage.log), 60)
        self.hub.clear()
        self.pull()

    def test_retry_after(self):
        self.hub.server.fail(429, 1, "/api/", Retry_After="1")
        self.hub.storage.fail(503, 1, Retry_After="1")
        began = time.monotonic()
        self.pull()
        self.assertGreaterEqual(time.monotonic() - began, 2)

    def test_rate_limit(self):
        self.hub.server.fail(429, 1, "/api/", RateLimit='"api";r=0;t=1')
        began = time.monotonic()
        self.pull()
        self.assertGreaterEqual(time.monotonic() - began, 1)

    def test_retry_after_too_long(self):
        self.hub.server.fail(429, 1, "/api/", Retry_After="3000")
        self.assertIn("a wait of 3000 s", self.pull(FILE))
        self.assertEqual(len(self.hub.log), 1)

    def test_lasting_errors_are_not_repeated(self):
        self.hub.server.fail(404, 1, "/api/")
        self.pull(FILE)
        self.assertEqual(len(self.hub.log), 1)
        self.hub.server.fail(418, 1, "/api/")
        self.assertIn("418", self.pull(FILE))

    def test_expired_address(self):
        """The storage's addresses expire: the endpoint is asked for a new one."""
        self.hub.storage.fail(403, 2)
        self.pull()
        self.assertGreater(sum(r.method == "GET" and "model.safetensors" in r.path
                               for r in self.hub.log), 0)

    def test_redirects_without_end(self):
        path = "/api/models/org/name/revision/main"
        self.hub.redirects[path] = path
        self.assertIn("without end", self.pull(FILE))
        self.hub.redirects.clear()
        # The storage redirects every address to the same one.
        for request in range(1):
            self.hub.storage.fail(302, 10000, Location=self.hub.storage.url + "/again")
        self.assertIn("without end", self.pull(FILE))

    def test_redirected_repository(self):
        """A repository that was renamed; the storage redirects once more."""
        self.hub.redirects["/api/models/old/revision/main"] = (
            "/api/models/org/name/revision/main")
        for name in WANTED:
            self.hub.redirects[f"/old/resolve/{self.repo.commit}/{name}"] = (
                f"/org/name/resolve/{self.repo.commit}/{name}")
        digest = sha256(self.repo.files["model.safetensors"])
        self.hub.storage.fail(307, 1, Location=f"/{digest}?again")
        directory = self.drive("pull", "old")
        self.check_snapshot(directory, self.repo, WANTED)
        self.assertEqual(directory.parents[1], self.folder("old"))


class Content(Faults):
    def test_broken_connections(self):
        self.faults.cuts = [PART // 2, 10, 0, PART - 1, PART // 3] * 4
        self.pull()
        self.assertEqual(self.hub.sent(), self.size)

    def test_connections_that_break_again_and_again(self):
        self.faults.always_cut = PART // 5
        self.pull()
        self.assertEqual(self.hub.sent(), self.size)

    def test_nothing_ever_comes(self):
        self.faults.always_cut = 0
        self.assertIn("broke off", self.pull(FILE))
        self.faults.always_cut = None
        self.pull()

    def test_stalled_connection(self):
        self.faults.cuts, self.faults.stall = [PART // 2], True
        self.pull(options=("-s", "1"))
        self.assertEqual(self.hub.sent(), self.size)

    def test_truncated_small_file(self):
        self.repo.files["vocab.txt"] = b"a\nb\n"
        original, served = self.hub.resolve, []

        def resolve(handler, repo, path):
            if path == "vocab.txt" and handler.command == "GET" and not served:
                served.append(path)
                handler.answer(200, {"Content-Length": "4", "X-Repo-Commit": repo.commit}, b"a\n")
                return handler.break_off()
            return original(handler, repo, path)
        self.hub.resolve = resolve
        directory = self.drive("pull", "org/name")
        self.check_snapshot(directory, self.repo, [*WANTED, "vocab.txt"])
        self.assertEqual(served, ["vocab.txt"])

    def test_no_ranges(self):
        self.faults.ranges = False
        self.pull()
        whole = [r for r in self.hub.storage.log if r.sent == self.size]
        self.assertEqual(len(whole), 1)

    def test_no_ranges_and_broken_connections(self):
        self.faults.ranges = False
        self.faults.always_cut = 3 * PART
        self.assertIn("broke off", self.pull(FILE))
        self.faults.always_cut = None
        self.faults.cuts = [9 * PART, 8 * PART]
        self.pull()

    def test_no_lengths(self):
        """Neither the size of the file nor ranges of it."""
        self.faults.lengths = False
        self.pull()

    def test_wrong_ranges(self):
        self.faults.shift_ranges = True
        self.pull()

    def test_more_than_announced(self):
        digest = sha256(self.repo.files["model.safetensors"])
        original = self.hub.route_storage
        self.hub.storage.route = lambda handler, path: (
            handler.content(self.hub.large[digest] + b"more", {}, self.faults))
        self.faults.ranges = False
        self.pull(FORMAT)
        self.hub.storage.route = original
        self.faults.ranges = True
        self.pull()

    def test_wrong_checksums(self):
        wrong = {"model.safetensors": "a" * 64, "merges.txt": "b" * 40}
        for name, etag in wrong.items():
            self.repo.etags = {name: etag}
            self.repo.commit = {"a": "c", "b": "d"}[etag[0]] * 40
            error = self.pull(FORMAT)
            self.assertIn("checksum", error)
            self.assertIn(name, error)
            self.assertEqual(self.unfinished(), [])
            self.assertFalse(list(self.cache.rglob(etag)))
            self.assertFalse(list(self.cache.rglob("refs/main")))
        self.repo.etags = {}
        self.pull()

    def test_changed_in_the_middle(self):
        """The storage sends another version at first, or later: ranges of the two are not put
        together, whether it knows If-Range or not."""
        original = self.hub.route_storage
        for conditions in (True, False):
            for first, second in ((b"old", b"new"), (b"new", b"old")):
                count = iter(range(10000))
                content = self.repo.files["model.safetensors"]

                def route(handler, path):
                    version = first if next(count) < 3 else second
                    other = content if version == b"new" else bytes(len(content))
                    handler.content(other, {"ETag": f'"{version}"'}, self.faults)
                self.hub.storage.route = route
                self.faults.conditions = conditions
                self.faults.ranges = True
                cache = self.scratch / f"{conditions}-{first}"
                code = OK if second == b"new" else FORMAT
                self.pull(code, HF_HUB_CACHE=str(cache))
        self.hub.storage.route = original

    def test_changed_on_the_hub(self):
        self.faults.always_cut, self.faults.stall = PART // 2, True
        process = self.start("pull", "org/name")
        self.assertTrue(self.faults.stalled.wait(30))
        self.repo.files["model.safetensors"] = noise(self.size, 99)
        self.faults.always_cut = None
        self.faults.go_on.set()
        self.assertIn("changed", self.finish(process, FORMAT))


class Interrupted(Faults):
    def stall_after(self, parts):
        """A pull that waits for the server once so many parts are there."""
        self.faults.cuts = [None] * parts
        self.faults.always_cut, self.faults.stall = PART // 2, True
        process = self.start("pull", "org/name", options=("-c", "3"))
        self.assertTrue(self.faults.stalled.wait(30))
        deadline = time.monotonic() + 30
        while self.hub.sent() < parts * PART + 3 * (PART // 2) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)  # for the client to write what was sent
        return process

    def go_on(self):
        self.faults.cuts, self.faults.always_cut = [], None
        self.faults.go_on.set()
        self.hub.clear()

    def test_kill(self):
        process = self.stall_after(4)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        self.assertEqual(len(self.unfinished()), 1)
        self.assertFalse((self.folder("org/name") / "refs").exists())
        self.go_on()
        self.pull()
        self.assertEqual(self.hub.sent(), self.size - 4 * PART - 3 * (PART // 2))

    def test_kill_within_the_only_part(self):
        """What is smaller than a part is gone on with, too, from the last unit that is complete."""
        self.repo = self.hub.models["org/name"] = model(PART - 5)
        self.faults.cuts, self.faults.stall = [10 * UNIT + 7], True
        process = self.start("pull", "org/name")
        self.assertTrue(self.faults.stalled.wait(30))
        time.sleep(0.2)  # for the client to write what was sent
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        self.go_on()
        self.pull()
        self.assertEqual(self.hub.sent(), PART - 5 - 10 * UNIT)

    def test_kill_and_what_was_there_is_damaged(self):
        process = self.stall_after(4)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        with open(self.unfinished()[0], "r+b") as file:
            file.write(b"damage")
        self.go_on()
        self.pull()

    def test_kill_and_another_takes_over(self):
        first = self.stall_after(2)
        second = self.start("pull", "org/name")
        with self.assertRaises(subprocess.TimeoutExpired):
            second.wait(0.5)
        first.send_signal(signal.SIGKILL)
        first.wait(30)
        self.go_on()
        self.check_snapshot(self.finish(second), self.repo, WANTED)
        self.assertLessEqual(self.hub.sent(), self.size - 2 * PART)

    def test_signal(self):
        process = self.stall_after(4)
        process.send_signal(signal.SIGINT)
        self.assertIn("interrupted", self.finish(process, INTERRUPTED))
        self.go_on()
        self.pull()
        self.assertEqual(self.hub.sent(), self.size - 4 * PART - 3 * (PART // 2))

    def test_signal_during_back_off(self):
        self.hub.server.fail(503, 1)
        process = self.start("pull", "org/name", options=("-b", "1000"))
        while not self.hub.log:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        self.finish(process, INTERRUPTED)

    def test_complete_but_not_renamed(self):
        """Killed between the last byte and the new name: only the checksum is left to do."""
        blobs = self.folder("org/name") / "blobs"
        blobs.mkdir(parents=True)
        content = self.repo.files["model.safetensors"]
        (blobs / (sha256(content) + ".bitgauge")).write_bytes(content)
        self.pull()
        self.assertEqual(self.hub.sent(), 0)

    def test_remains_of_something_else(self):
        content = self.repo.files["model.safetensors"]
        units = -(-len(content) // UNIT)
        for remains in (b"", b"x", content + b"\1" * 3, bytes(len(content)) + b"\1" * units,
                        bytes(len(content)) + b"\2" * units, bytes(2 * len(content))):
            blobs = self.folder("org/name") / "blobs"
            blobs.mkdir(parents=True, exist_ok=True)
            blob = blobs / sha256(content)
            blob.unlink(missing_ok=True)
            blob.with_suffix(".bitgauge").write_bytes(remains)
            self.pull()


class Resources(Faults):
    def test_disk_full(self):
        process = subprocess.run(
            [DRIVER, "-p", str(PART), "pull", "org/name"], env=self.environment(),
            capture_output=True, text=True, timeout=60, preexec_fn=lambda: (
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                resource.setrlimit(resource.RLIMIT_FSIZE, (3 * PART, 3 * PART))))
        self.assertEqual(process.returncode, OUTPUT, process.stderr)
        self.assertIn("HF_HUB_CACHE", process.stderr)
        self.pull()

    def test_cache_that_cannot_be_made(self):
        (self.scratch / "home").write_text("a file")
        error = self.pull(OUTPUT)
        self.assertIn(str(self.scratch / "home"), error)
        self.assertIn("Not a directory; name another cache with HF_HOME or HF_HUB_CACHE", error)

    def test_failing_memory(self):
        """Every allocation fails once, and all after it."""
        small = {**SMALL, "model.safetensors.index.json":
                 b'{"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}',
                 "x.safetensors": noise(PART + 1), "y.safetensors": noise(10)}
        self.hub.models["org/name"] = Repo(small)
        # What came before a failure is kept, so that the next call goes further.
        repo = self.hub.models["org/name"]
        self.check_snapshot(self.drive("resolve", "org/name", options=("-a",)), repo, small)
        self.drive("resolve", "org/name", options=("-a",))
        self.drive("resolve", "org/name", options=("-a",), HF_HUB_OFFLINE="1")
        self.hub.datasets["org/set"] = Repo({"a/b.parquet": noise(PART + 1)})
        self.drive("dataset", "org/set", "", "a/b.parquet", options=("-a",))
        self.hub.stop()
        self.drive("resolve", "org/name", options=("-a",))


if __name__ == "__main__":
    unittest.main()

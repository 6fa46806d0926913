"""The cache's layout, what is downloaded, and what is found there without downloading."""

import fcntl
import json
import os
import pathlib
import socket
import subprocess
import time
import unittest

from common import (FILE, FORMAT, OK, PART, SMALL, SOURCE, UNSUPPORTED, USAGE, HubTest, model,
                    noise)
from server import Repo, git_sha1, sha256

WANTED = [*SMALL, "model.safetensors"]


class Layout(HubTest):
    def test_pull(self):
        repo = self.hub.models["org/name"] = model()
        directory = self.drive("pull", "org/name")
        folder = self.folder("org/name")
        self.assertEqual(directory, folder / "snapshots" / repo.commit)
        self.check_snapshot(directory, repo, WANTED)
        self.assertEqual((folder / "refs" / "main").read_text(), repo.commit)
        digest = sha256(repo.files["model.safetensors"])
        self.assertEqual(os.readlink(directory / "model.safetensors"), f"../../blobs/{digest}")
        self.assertEqual({path.name for path in (folder / "blobs").iterdir()},
                         {repo.etag(name) for name in WANTED})
        self.assertTrue((self.cache / ".locks" / folder.name / f"{digest}.lock").exists())
        umask = os.umask(0)
        os.umask(umask)
        self.assertEqual((folder / "blobs" / digest).stat().st_mode & 0o777, 0o666 & ~umask)

    def test_again_asks_once(self):
        self.hub.models["org/name"] = model()
        first = self.drive("resolve", "org/name")
        self.hub.clear()
        self.assertEqual(self.drive("resolve", "org/name"), first)
        self.assertEqual([request.path for request in self.hub.log],
                         ["/api/models/org/name/revision/main?blobs=true"])

    def test_parts_come_over_several_connections(self):
        repo = self.hub.models["org/name"] = model()
        self.drive("pull", "org/name")
        ranges = [request.headers["Range"] for request in self.hub.storage.log]
        self.assertEqual(len(ranges), 11)
        self.assertEqual(len(set(ranges)), 11)
        self.assertEqual(self.hub.sent(), len(repo.files["model.safetensors"]))

    def test_revisions(self):
        repo = self.hub.models["gpt2"] = model(revisions=("main", "refs/pr/1", "v1.0"))
        for revision in ("refs/pr/1", "v1.0", repo.commit):
            directory = self.drive("pull", f"gpt2@{revision}")
            self.assertEqual(directory, self.folder("gpt2") / "snapshots" / repo.commit)
        refs = self.folder("gpt2") / "refs"
        self.assertEqual((refs / "refs" / "pr" / "1").read_text(), repo.commit)
        self.assertEqual((refs / "v1.0").read_text(), repo.commit)
        self.assertFalse((refs / repo.commit).exists())
        self.assertIn("/api/models/gpt2/revision/refs%2Fpr%2F1?blobs=true",
                      [request.path for request in self.hub.log])

    def test_a_new_commit_takes_over_equal_blobs(self):
        repo = self.hub.models["org/name"] = model()
        first = self.drive("pull", "org/name")
        self.hub.clear()
        repo.commit = "2" * 40
        repo.files["config.json"] = b'{"model_type": "opt"}'
        second = self.drive("pull", "org/name")
        self.check_snapshot(second, repo, WANTED)
        self.assertEqual((first / "config.json").read_bytes(), SMALL["config.json"])
        self.assertEqual(self.hub.sent(), 0)

    def test_where_the_cache_is(self):
        self.hub.models["org/name"] = model()
        places = {
            "a": {"HF_HUB_CACHE": str(self.scratch / "a")},
            "b/hub": {"HF_HOME": "~/b"},
            "c/huggingface/hub": {"HF_HOME": "", "XDG_CACHE_HOME": "$HOME/c"},
            ".cache/huggingface/hub": {"HF_HOME": ""},
        }
        for place, extra in places.items():
            directory = self.drive("config", "org/name", **extra)
            self.assertEqual(directory.parents[2], self.scratch / place)

    def test_config_only(self):
        repo = self.hub.models["org/name"] = model()
        self.check_snapshot(self.drive("config", "org/name"), repo, SMALL)
        self.check_snapshot(self.drive("resolve", "org/name"), repo, WANTED)

    def test_data_set(self):
        files = {"data/test-00000-of-00001.parquet": noise(3 * PART), "README.md": b"text"}
        repo = self.hub.datasets["org/set"] = Repo(files, revisions=("main", "refs/convert/parquet"))
        for revision in ("", "refs/convert/parquet"):
            path = self.drive("dataset", "org/set", revision, "data/test-00000-of-00001.parquet")
            folder = self.folder("org/set", "datasets")
            self.assertEqual(path, folder / "snapshots" / repo.commit / "data" /
                             "test-00000-of-00001.parquet")
            self.assertEqual(path.read_bytes(), files["data/test-00000-of-00001.parquet"])
            self.assertTrue(os.readlink(path).startswith("../../../blobs/"))
        error = self.drive("dataset", "org/set", "", "other.parquet", code=FILE)
        self.assertIn('no file "other.parquet" at revision "main"; check the name', error)
        self.assertIn("data set", self.drive("dataset", "org/other", "", "a", code=FILE))
        again = self.drive("dataset", "org/set", "", "data/test-00000-of-00001.parquet",
                           HF_HUB_OFFLINE="1")
        self.assertEqual(again, folder / "snapshots" / repo.commit / "data" /
                         "test-00000-of-00001.parquet")


class Files(HubTest):
    def pull(self, files, **options):
        self.hub.models["org/name"] = Repo({**SMALL, **files})
        return self.drive("pull", "org/name", **options)

    def shards(self, suffix, count=3):
        names = [f"x-{i}-of-{count}.{suffix}" for i in range(count)]
        index = {"weight_map": {f"tensor.{i}": names[i % count] for i in range(2 * count)}}
        return {name: noise(PART, i) for i, name in enumerate(names)}, json.dumps(index).encode()

    def test_shards(self):
        shards, index = self.shards("safetensors")
        files = {**shards, "model.safetensors.index.json": index}
        directory = self.pull({**files, "unlisted.safetensors": b"x"})
        self.check_snapshot(directory, self.hub.models["org/name"], [*SMALL, *files])

    def test_pytorch_only(self):
        directory = self.pull({"pytorch_model.bin": noise(100), "flax_model.msgpack": b"x"})
        self.check_snapshot(directory, self.hub.models["org/name"], [*SMALL, "pytorch_model.bin"])

    def test_pytorch_shards(self):
        shards, index = self.shards("bin")
        files = {**shards, "pytorch_model.bin.index.json": index}
        self.check_snapshot(self.pull(files), self.hub.models["org/name"], [*SMALL, *files])

    def test_empty_file(self):
        directory = self.pull({"model.safetensors": b"", "vocab.txt": b""})
        self.assertEqual((directory / "vocab.txt").read_bytes(), b"")

    def test_nothing_to_read(self):
        error = self.pull({"model.gguf": b"x"}, code=UNSUPPORTED)
        self.assertIn("neither model.safetensors nor pytorch_model.bin", error)
        self.hub.models["org/name"] = Repo({"model.safetensors": b"x"})
        self.assertIn("config.json", self.drive("pull", "org/name", code=UNSUPPORTED))

    def test_hostile_names(self):
        for name in ("../../../evil", "/tmp/evil", "a/../../evil", "a\\evil", "evil\n", "..", "",
                     "a//evil", "\u202eevil", "x" * 300):
            index = json.dumps({"weight_map": {"tensor": name}}).encode()
            self.hub.models["org/name"] = Repo({**SMALL, "model.safetensors.index.json": index,
                                                name: b"evil"}, commit=git_sha1(index))
            error = self.drive("pull", "org/name", code=FORMAT)
            self.assertIn("no name that a file may have", error)
        self.assertFalse(list(self.scratch.rglob("*evil*")))
        self.drive("dataset", "org/name", "", "../../x", code=USAGE)

    def test_hostile_commit_and_etag(self):
        self.hub.models["org/name"] = model(commit="../../../../../" + "e" * 25)
        self.assertIn("does not answer as a Hub", self.drive("pull", "org/name", code=FORMAT))
        self.hub.datasets["org/name"] = Repo({"a.parquet": b"x"}, commit="../" + "e" * 37)
        self.drive("dataset", "org/name", "", "a.parquet", code=FORMAT)
        for etag in ("../../evil", "e" * 39, "e" * 65, "", "E" * 64):
            self.hub.models["org/name"] = model(etags={"model.safetensors": etag})
            self.assertIn("checksum", self.drive("pull", "org/name", code=FORMAT))
        self.assertFalse(list(self.scratch.rglob("*evil*")))

    def test_no_hub_at_all(self):
        self.hub.redirects["/api/models/org/name/revision/main"] = "/page"
        self.hub.models["page"] = model()
        self.assertIn("org/name", self.drive("pull", "org/name", code=FILE))
        for endpoint in ("foo", "ftp://example.org", "https://a b", "http://", "https:///a",
                         "http://:80"):
            error = self.drive("pull", "org/name", code=USAGE, HF_ENDPOINT=endpoint)
            self.assertIn(f"HF_ENDPOINT={endpoint}: this is no address of a Hub", error)
        self.hub.redirects.clear()
        self.hub.server.fail(200, 1)
        error = self.drive("pull", "org/name", code=FORMAT)
        self.assertIn("does not answer as a Hub does (this is no JSON); check HF_ENDPOINT and the "
                      "proxy", error)
        for name in ("../x", "a/b/c", "-x", "x@", "x@..", "x@-a", "a--b", "a/", ""):
            self.drive("pull", name, code=USAGE)


class WithoutTheHub(HubTest):
    def test_offline(self):
        self.hub.models["org/name"] = model()
        error = self.drive("resolve", "org/name", code=FILE, HF_HUB_OFFLINE="1")
        self.assertIn("no file or directory org/name", error)
        self.assertIn("HF_HUB_OFFLINE", error)
        self.drive("config", "org/name")
        error = self.drive("resolve", "org/name", code=FILE, HF_HUB_OFFLINE="1")
        self.assertIn("not complete", error)
        config = self.drive("config", "org/name", HF_HUB_OFFLINE="1")
        directory = self.drive("resolve", "org/name")
        self.hub.clear()
        self.assertEqual(config, directory)
        for value in ("1", "true", "ON", "Yes"):
            self.assertEqual(self.drive("resolve", "org/name", HF_HUB_OFFLINE=value), directory)
        self.assertEqual(self.hub.log, [])
        (directory / "config.json").unlink()
        self.drive("config", "org/name", code=FILE, HF_HUB_OFFLINE="1")

    def test_offline_with_a_shard_missing(self):
        shards = {f"x-{i}.safetensors": noise(10, i) for i in range(2)}
        index = json.dumps({"weight_map": {str(i): f"x-{i}.safetensors" for i in range(2)}})
        self.hub.models["org/name"] = Repo(
            {**SMALL, **shards, "model.safetensors.index.json": index.encode()})
        directory = self.drive("pull", "org/name")
        self.assertEqual(self.drive("resolve", "org/name", HF_HUB_OFFLINE="1"), directory)
        (directory / "x-1.safetensors").resolve().unlink()
        self.assertIn("not complete",
                      self.drive("resolve", "org/name", code=FILE, HF_HUB_OFFLINE="1"))

    def test_network_gone(self):
        repo = self.hub.models["org/name"] = model()
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
            error = self.drive("resolve", "org/name", code=FILE, HF_ENDPOINT=nowhere)
            self.assertIn("no file or directory org/name", error)
            self.assertIn(f"{nowhere} cannot be reached", error)
            self.assertIn("check the network, the proxy and HF_ENDPOINT, or set HF_HUB_OFFLINE=1",
                          error)
            directory = self.drive("resolve", "org/name")
            process = self.start("resolve", "org/name", HF_ENDPOINT=nowhere)
            out, err = process.communicate(timeout=60)
            self.assertEqual((process.returncode, out.strip()), (OK, str(directory)))
            self.assertIn(f"note: using the cached org/name, commit {repo.commit[:12]}", err)
            self.assertIn("cannot be reached", err)
        self.hub.server.fail(503, count=100)
        process = self.start("resolve", "org/name")
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out.strip()), (OK, str(directory)))
        self.assertIn("503", err)

    def test_existing_path_wins(self):
        (self.scratch / "org" / "name").mkdir(parents=True)
        self.assertEqual(self.drive("resolve", "org/name"), pathlib.Path("org/name"))
        self.assertEqual(self.drive("resolve", "./no/such/path"), pathlib.Path("no/such/path"))
        self.assertEqual(self.hub.log, [])

    def test_cache_of_huggingface_hub(self):
        """What huggingface_hub writes, as it writes it: copied from a cache that it made."""
        repo = model()
        folder = self.folder("org/name")
        snapshot = folder / "snapshots" / repo.commit
        for path in (folder / "blobs", folder / "refs", snapshot,
                     self.cache / ".locks" / folder.name):
            path.mkdir(parents=True)
        (folder / "refs" / "main").write_text(repo.commit)
        for name in WANTED:
            (folder / "blobs" / repo.etag(name)).write_bytes(repo.files[name])
            (snapshot / name).symlink_to(f"../../blobs/{repo.etag(name)}")
            (self.cache / ".locks" / folder.name / f"{repo.etag(name)}.lock").touch()
        self.assertEqual(self.drive("resolve", "org/name", HF_HUB_OFFLINE="1"), snapshot)
        # Its unfinished downloads are left alone.
        (folder / "blobs" / "abc.incomplete").write_bytes(b"half")
        self.hub.models["org/name"] = repo
        self.assertEqual(self.drive("resolve", "org/name"), snapshot)
        self.assertEqual(self.hub.sent(), 0)
        self.assertEqual((folder / "blobs" / "abc.incomplete").read_bytes(), b"half")

    def test_damaged_cache(self):
        repo = self.hub.models["org/name"] = model()
        directory = self.drive("pull", "org/name")
        blob = (directory / "model.safetensors").resolve()
        blob.unlink()  # a link to nowhere
        self.check_snapshot(self.drive("pull", "org/name"), repo, WANTED)
        blob.write_bytes(b"short")
        (directory / "model.safetensors").unlink()
        self.check_snapshot(self.drive("pull", "org/name"), repo, WANTED)

    def test_damaged_blobs(self):
        """A wrong size is repaired by every command, a wrong content by a pull."""
        repo = self.hub.models["org/name"] = model()
        directory = self.drive("pull", "org/name")
        content = repo.files["model.safetensors"]
        self.hub.clear()
        self.drive("pull", "org/name")
        self.assertEqual(len(self.hub.log), 1)
        for name in ("model.safetensors", "vocab.json"):
            blob, good = (directory / name).resolve(), repo.files[name]
            for command in ("pull", "resolve"):
                blob.write_bytes(good[:-1])
                self.drive("resolve", "org/name", HF_HUB_OFFLINE="1")
                self.check_snapshot(self.drive(command, "org/name"), repo, WANTED)
            blob.write_bytes(good[:-1] + b"X")
            self.drive("resolve", "org/name")
            self.assertNotEqual(blob.read_bytes(), good)
            process = self.start("pull", "org/name")
            out, err = process.communicate(timeout=60)
            self.assertEqual((process.returncode, out.strip()), (OK, str(directory)), err)
            self.assertIn(f"note: {name} of org/name is damaged in the cache", err)
            self.check_snapshot(directory, repo, WANTED)
        # A copy in place of a link; a blob that no snapshot has a link to yet.
        link = directory / "model.safetensors"
        blob = link.resolve()
        link.unlink()
        link.write_bytes(content[:100])
        self.check_snapshot(self.drive("resolve", "org/name"), repo, WANTED)
        self.assertTrue(link.is_symlink())
        link.unlink()
        blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        self.check_snapshot(self.drive("pull", "org/name"), repo, WANTED)
        self.assertEqual(self.unfinished(), [])

    def test_damaged_data_set(self):
        repo = self.hub.datasets["org/set"] = Repo({"a.parquet": noise(PART)})
        path = self.drive("dataset", "org/set", "", "a.parquet")
        path.resolve().write_bytes(b"short")
        self.drive("dataset", "org/set", "", "a.parquet")
        self.assertEqual(path.read_bytes(), repo.files["a.parquet"])


class Together(HubTest):
    def test_lock_of_another_program(self):
        repo = self.hub.models["org/name"] = model()
        locks = self.cache / ".locks" / self.folder("org/name").name
        locks.mkdir(parents=True)
        with open(locks / f"{repo.etag('model.safetensors')}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            process = self.start("pull", "org/name")
            deadline = time.monotonic() + 60
            snapshot = self.folder("org/name") / "snapshots" / repo.commit
            while not (snapshot / "merges.txt").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            with self.assertRaises(subprocess.TimeoutExpired):
                process.wait(0.3)
            self.assertEqual(self.hub.sent(), 0)
            fcntl.flock(lock, fcntl.LOCK_UN)
            self.check_snapshot(self.finish(process), repo, WANTED)

    def test_several_processes(self):
        repo = self.hub.models["org/name"] = model(60 * PART)
        processes = [self.start("pull", "org/name") for _ in range(4)]
        for process in processes:
            self.check_snapshot(self.finish(process), repo, WANTED)
        self.assertEqual(self.hub.sent(), 60 * PART)
        self.assertEqual(self.unfinished(), [])


class Program(HubTest):
    """bitgauge itself."""

    def run_program(self, *arguments, **extra):
        return subprocess.run([os.environ["BITGAUGE"], *arguments], cwd=self.scratch, timeout=120,
                              env=self.environment(**extra), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)

    def test_pull(self):
        self.hub.models["org/name"] = model()
        result = self.run_program("pull", "org/name")
        self.assertEqual((result.returncode, result.stderr), (OK, ""))
        self.assertTrue((pathlib.Path(result.stdout.strip()) / "model.safetensors").exists())
        result = self.run_program("pull", "org/other")
        self.assertEqual((result.returncode, result.stdout), (FILE, ""))
        self.assertIn("org/other", result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1)

    def test_names_in_place_of_directories(self):
        demo = SOURCE / "models" / "demo-decoder"
        repo = self.hub.models["org/demo"] = Repo(
            {path.name: path.read_bytes() for path in demo.iterdir() if path.is_file()})
        result = self.run_program("tokenize", "org/demo", "--text", "a", "--ids-only")
        self.assertEqual((result.returncode, result.stderr), (OK, ""))
        self.assertEqual(self.hub.sent(), 0)
        result = self.run_program("inspect", "org/demo", "--json")
        self.assertEqual((result.returncode, result.stderr), (OK, ""))
        result = self.run_program("generate", "org/demo", "--prompt", "The", "--precision", "fp32",
                                  "--max-new-tokens", "2", "--json", "-", HF_HUB_OFFLINE="1")
        self.assertEqual((result.returncode, result.stderr), (OK, ""))
        described = json.loads(result.stdout)["models"][0]
        self.assertEqual(described["name"], "org/demo")
        self.assertIn(f"snapshots/{repo.commit}", described["path"])
        result = self.run_program("bench", "--random-weights", "org/demo@v9", "--runs", "1")
        self.assertEqual(result.returncode, FILE)
        self.assertIn('no revision "v9"', result.stderr)


if __name__ == "__main__":
    unittest.main()

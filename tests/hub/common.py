"""What the tests of the Hub's client share: a server, a cache, and the driver."""

import os
import pathlib
import random
import signal
import subprocess
import tempfile
import unittest

from server import Hub, Repo

DRIVER = os.environ["HUB_DRIVER"]
SOURCE = pathlib.Path(__file__).resolve().parents[2]
OK, USAGE, FILE, FORMAT, UNSUPPORTED, MEMORY, OUTPUT, INTERRUPTED = 0, 2, 3, 4, 5, 6, 7, 130
PART = 1 << 16


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


SMALL = {"config.json": b'{"model_type": "gpt2"}', "tokenizer.json": b"{}",
         "vocab.json": b'{"a": 0}', "merges.txt": b"#version: 0.2\n"}


def model(size=10 * PART + 123, **options):
    return Repo({**SMALL, "model.safetensors": noise(size), "README.md": b"# A model\n",
                 "pytorch_model.bin": b"not wanted", "model.onnx": b"nor this",
                 "model.gguf": b"nor this", "tf_model.h5": b"nor this"}, **options)


class HubTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="bitgauge-hub-")
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.cache = self.scratch / "home" / "hub"
        self.hub = Hub()
        self.addCleanup(self.hub.stop)
        self.faults = self.hub.faults

    def environment(self, **extra):
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS", "XDG_"))
                and "proxy" not in name.lower() and "CERT" not in name and "CA_BUNDLE" not in name}
        return {**kept, "HF_HOME": str(self.scratch / "home"), "HF_ENDPOINT": self.hub.url,
                "HOME": str(self.scratch), **extra}

    def start(self, *arguments, options=(), **extra):
        process = subprocess.Popen(
            [DRIVER, "-p", str(PART), *options, *arguments], cwd=self.scratch,
            env=self.environment(**extra), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        return process

    def finish(self, process, code=OK):
        out, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, code, err + out)
        self.assertNotIn("more done than there is", err)
        return pathlib.Path(out.strip()) if code == OK else err.strip()

    def drive(self, *arguments, code=OK, **options):
        """The path that the driver prints or, where it fails with `code`, its error."""
        return self.finish(self.start(*arguments, **options), code)

    def folder(self, name, kind="models"):
        return self.cache / "--".join([kind, *name.split("/")])

    def check_snapshot(self, directory, repo, names):
        """The snapshot holds these files of the repository and no others."""
        there = {str(path.relative_to(directory)) for path in directory.rglob("*")
                 if not path.is_dir()}
        self.assertEqual(there, set(names))
        for name in names:
            self.assertEqual((directory / name).read_bytes(), repo.files[name], name)

    def unfinished(self):
        return list(self.cache.rglob("*.bitgauge"))

"""What the tests of the program share: running it, and the rules that every run keeps."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

PROGRAM = os.environ["BITGAUGE"]
SOURCE = pathlib.Path(__file__).resolve().parents[2]
DECODER = "models/demo-decoder"
CLASSIFIER = "models/demo-classifier"
TEXT = "data/demo-text.txt"
REVIEWS = "data/demo-reviews.tsv"
COMMANDS = ["compare", "perplexity", "classify", "generate", "bench", "inspect", "tokenize",
            "pull", "devices", "help", "version"]
PRECISIONS = ["fp32", "fp16", "bf16", "int8", "nf4", "nf4-dq", "fp4", "fp4-dq"]
PRECISIONS_ON_REQUEST = ["int8-plain"]

# Exit codes, as include/bitgauge/bitgauge.h lists them.
OK, USAGE, FILE, FORMAT, UNSUPPORTED, OUTPUT, ROW, INTERRUPTED = 0, 2, 3, 4, 5, 7, 8, 130


class ProgramTest(unittest.TestCase):
    """Runs the program in the source tree, where the embedded models are."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="bitgauge-test-")
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)

    def run_program(self, *arguments, timeout=280, **options):
        environment = dict(os.environ, **options.pop("env", {}))
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        if "input" in options:
            del options["stdin"]
        result = subprocess.run([PROGRAM, *map(str, arguments)], cwd=SOURCE, env=environment,
                                timeout=timeout, **options)
        result.out = (result.stdout or b"").decode()
        result.err = (result.stderr or b"").decode()
        return result

    def succeeds(self, *arguments, **options):
        result = self.run_program(*arguments, **options)
        self.assertEqual(result.returncode, OK, f"{arguments}: {result.err}\n{result.out}")
        self.assertEqual(result.err, "", f"{arguments} has something to say on standard error")
        return result

    def fails(self, code, *arguments, **options):
        """Fails with `code` (or one of several) and one sentence on standard error."""
        result = self.run_program(*arguments, **options)
        codes = code if isinstance(code, tuple) else (code,)
        self.assertIn(result.returncode, codes, f"{arguments}: {result.err}\n{result.out}")
        lines = result.err.splitlines()
        self.assertEqual(len(lines), 1, f"{arguments}: {result.err}")
        self.assertTrue(lines[0].startswith("bitgauge: "), lines[0])
        self.assertGreater(len(lines[0]), len("bitgauge: ") + 10, lines[0])
        return result

    def results(self, *arguments, **options):
        """The JSON of a measuring command."""
        return json.loads(self.succeeds(*arguments, "--json", "-", **options).out)

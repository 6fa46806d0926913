#!/usr/bin/python3
"""GPUs as a machine without one has them: what is said, and how the program ends. The libraries come from
fake_cuda.c; the real one is there where the build made it."""

import json
import os
import pathlib
import subprocess
import unittest

from common import OK, PROGRAM, ROW, SOURCE, UNSUPPORTED, USAGE, ProgramTest

FAKES = pathlib.Path(os.environ["BITGAUGE_FAKES"])
REAL = pathlib.Path(PROGRAM).with_name("libbitgauge_cuda.so")
BENCH = ("bench", "--random-weights", "tests/fixtures/tiny-gpt2/prefixed", "--prompt-tokens", 2, "--new-tokens", 2,
         "--runs", 1)


class Cuda(ProgramTest):
    def refused(self, library, *said, device="cuda", code=UNSUPPORTED):
        """With that library the device is refused with one sentence, and `devices` gives the reason, too."""
        environment = {"BITGAUGE_CUDA_LIBRARY": str(library)}
        error = self.fails(code, *BENCH, "--device", device, env=environment).err
        for words in said:
            self.assertIn(words, error)
        return error

    def listed(self, library, *said):
        environment = {"BITGAUGE_CUDA_LIBRARY": str(library)}
        answer = json.loads(self.succeeds("devices", "--json", "--threads", 1, env=environment).out)
        self.assertEqual([device["device"] for device in answer["devices"]], ["cpu"])
        for words in said:
            self.assertIn(words, answer["no_gpu"])

    def test_no_library(self):
        missing = self.scratch / "missing.so"
        self.refused(missing, "no GPU can be used", str(missing), "BITGAUGE_CUDA_LIBRARY")
        out = self.succeeds("devices", "--threads", 1, env={"BITGAUGE_CUDA_LIBRARY": str(missing)}).out
        self.assertIn("\ncuda  no GPU can be used: ", out)
        self.assertIn(str(missing), out)

    def test_program_alone(self):
        """A program without the library beside it, or anywhere."""
        if REAL.exists():
            self.skipTest("this build has a CUDA library, which the program finds in the build's folder")
        self.assertIn("libbitgauge_cuda.so is missing", self.refused(""))

    def test_no_library_at_all(self):
        text = self.scratch / "text.so"
        text.write_text("no library")
        self.refused(text, str(text), "cannot be loaded")

    def test_another_version(self):
        self.refused(FAKES / "libfake_old.so", "another version of bitgauge")

    def test_no_device(self):
        self.refused(FAKES / "libfake_none.so", "the driver has none")
        self.listed(FAKES / "libfake_none.so", "the driver has none")

    def test_no_driver(self):
        """The real library on a machine that has no driver."""
        if not REAL.exists():
            self.skipTest("this build has no CUDA library")
        if self.run_program("devices").out.count("\ncuda:"):
            self.skipTest("this machine has a GPU")
        self.refused(REAL, "no GPU can be used", "driver")
        self.listed(REAL, "driver")

    def test_numbers(self):
        two = FAKES / "libfake_two.so"
        self.refused(two, '"cuda:2" is not there', "2 GPUs", device="cuda:2")
        for device in ("cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:99999"):
            self.refused(two, f'"{device}"', "no number", device=device, code=USAGE)
        for device in ("cudas", "gpu", "cpu:1", ""):
            self.refused(two, "is not known", "cuda:N", device=device)

    def test_device_that_cannot_be_opened(self):
        """The one that was named fails: its rows say why, and nothing ran in its place on the CPU."""
        path = self.scratch / "r.json"
        for device, said in (("cuda", "the first GPU"), ("cuda:0", "the first GPU"),
                             ("cuda:1", "the second GPU")):
            result = self.run_program(*BENCH, "--precision", "fp32,nf4", "--device", device, "--json", path,
                                      env={"BITGAUGE_CUDA_LIBRARY": str(FAKES / "libfake_two.so")})
            self.assertEqual(result.returncode, ROW, result.err)
            runs = json.loads(path.read_text())["runs"]
            self.assertEqual([run["status"] for run in runs], ["error", "error"])
            for run in runs:
                self.assertEqual(run["device"], device)
                self.assertIn(said, run["error"])

    def test_the_cpu_needs_none_of_it(self):
        result = self.run_program(*BENCH, env={"BITGAUGE_CUDA_LIBRARY": str(FAKES / "libfake_old.so")})
        self.assertEqual(result.returncode, OK, result.err)


class Script(ProgramTest):
    """scripts/bench-gpu, as far as it goes without a GPU."""

    def run_script(self, *arguments, env=None):
        return subprocess.run(["scripts/bench-gpu", *map(str, arguments)], cwd=SOURCE, stdin=subprocess.DEVNULL,
                              env=dict(os.environ, **(env or {})), capture_output=True, text=True, timeout=200)

    def test_no_gpu(self):
        library = FAKES / "libfake_none.so"
        result = self.run_script("--program", PROGRAM, "--out", self.scratch,
                                 env={"BITGAUGE_CUDA_LIBRARY": str(library)})
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(result.stderr.strip(), "bench-gpu: no GPU can be used: the driver has none")
        self.assertEqual(result.stdout, "")

    def test_options(self):
        for arguments in (["--fast"], ["--only"]):
            result = self.run_script(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        result = self.run_script("--program", PROGRAM, "--device", "cpu", "--only", "gpt5", "--out", self.scratch)
        self.assertEqual(result.returncode, 1)
        self.assertIn("llama-3.2-1b", result.stderr)

    def test_sanitizers(self):
        """scripts/test-gpu: its options, and what it says without a GPU."""
        (self.scratch / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
        (self.scratch / "nvidia-smi").chmod(0o755)
        env = dict(os.environ, PATH=f"{self.scratch}:{os.environ['PATH']}")
        for arguments, status, says in ((["--fast"], 2, "--fast"), (["--jobs"], 2, "--jobs"), (["--only", "x"], 2, '"x"'),
                                        ([], 1, "no NVIDIA GPU")):
            result = subprocess.run(["scripts/test-gpu", *arguments], cwd=SOURCE, stdin=subprocess.DEVNULL, env=env,
                                    capture_output=True, text=True, timeout=60)
            self.assertEqual((result.returncode, result.stdout), (status, ""))
            self.assertIn(says, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)

    def check_calm(self, path, config):
        """calm's model file: tensors one behind the other, as its loader wants them, up to the file's end."""
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        self.assertEqual((8 + length) % 256, 0)
        header = json.loads(data[8 : 8 + length])
        self.assertEqual(header.pop("__metadata__")["dim"], str(config["hidden_size"]))
        at = 0
        for tensor in header.values():
            count = 1
            for n in tensor["shape"]:
                count *= n
            at += count * {"F16": 2, "F32": 4, "U8": 1}[tensor["dtype"]]
            self.assertEqual(tensor["data_offsets"][1], at)
        self.assertEqual(8 + length + at, len(data))
        self.assertEqual(header["model.embed.weight"]["shape"], [config["vocab_size"], config["hidden_size"]])

    def test_table(self):
        """Each kind of row, with small models in the place of the true shapes, on the CPU."""
        shapes = self.scratch / "shapes"
        small = {"gpt2": {"model": "tests/fixtures/tiny-gpt2/prefixed", "n_positions": 128},
                 "distilbert-sst2": {"model": "tests/fixtures/tiny-distilbert/two-labels",
                                     "max_position_embeddings": 128},
                 "llama-3.2-1b": {"model": "tests/fixtures/tiny-llama/gqa-tied", "max_position_embeddings": 512,
                                  "vocab_size": 500}}
        for name, change in small.items():
            config = json.loads((SOURCE / change.pop("model") / "config.json").read_text()) | change
            (shapes / name).mkdir(parents=True)
            (shapes / name / "config.json").write_text(json.dumps(config))
        out = self.scratch / "out"
        calm = self.scratch / "calm"
        calm.write_text(f"""#!/bin/sh
cp "$1" {self.scratch}/model.calm
for rate in 90.5 123.0 4000.0; do echo "# 70 tokens: throughput: $rate tok/s; latency: 1 ms/tok" >&2; done
""")
        calm.chmod(0o755)
        result = self.run_script("--program", PROGRAM, "--device", "cpu", "--shapes", shapes, "--out", out, "--only",
                                 "llama,gpt2,distilbert,scoring", "--precision", "fp16,int8", "--runs", 1, "--windows", 3,
                                 "--calm", calm, "--markdown")
        self.assertEqual(result.returncode, 0, result.stderr)
        lines = [line.strip("| ").split(" | ") for line in result.stdout.splitlines()]
        self.assertEqual([(line[0], line[1]) for line in lines[2:]],
                         [(row, precision) for row in ("llama-3.2-1b", "gpt2", "distilbert", "scoring")
                          for precision in ("fp16", "int8")])
        self.assertEqual((out / "table.md").read_text(), result.stdout)
        gpt2 = json.loads((out / "gpt2.json").read_text())["runs"][0]
        self.assertEqual((gpt2["prefill"]["tokens"], gpt2["decode"]["new_tokens"]), (6, 64))
        figure = float(lines[4][4].replace(",", ""))
        self.assertAlmostEqual(figure, gpt2["decode"]["tokens_per_s"], delta=1)
        self.assertEqual(lines[4][3], "≥ 3,000")
        self.assertEqual((lines[0][-1], lines[2][-1]), ("calm", "123"))
        self.check_calm(self.scratch / "model.calm", json.loads((shapes / "llama-3.2-1b/config.json").read_text()))
        scored = json.loads((out / "scoring.json").read_text())["runs"][0]["perplexity"][0]
        self.assertEqual((scored["tokens"], scored["max_length"], scored["stride"]), (1023, 512, 256))


if __name__ == "__main__":
    unittest.main()

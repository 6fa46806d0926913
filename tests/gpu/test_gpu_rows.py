"""What a row on a GPU goes through, from the worker to the reports, with a backend that stands in for
CUDA's (fake_cuda.c): memory, energy, time, and every way to fail."""

import json
import os
import pathlib
import subprocess
import sys
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(SOURCE / "tests/cli"), str(SOURCE / "tests/report")]
from common import CLASSIFIER, DECODER, OK, ROW, ProgramTest  # noqa: E402

TINY = "tests/fixtures/tiny-gpt2/prefixed"
MIB = 1 << 20


class GpuRows(ProgramTest):
    def bench(self, precisions, *arguments, fake="", model=TINY, code=OK, **variables):
        """The document of a bench on the stand-in, whose plan is `fake`; checked by its schema."""
        path = self.scratch / "results.json"
        result = self.run_program("bench", model, "--device", "cuda", "--precision", precisions,
                                  "--runs", 2, "--prompt-tokens", 4, "--new-tokens", 5, "--json",
                                  path, *arguments, env=dict(variables, BITGAUGE_FAKE=fake))
        self.assertEqual(result.returncode, code, result.err)
        self.table = result.out
        validate = subprocess.run(["/usr/bin/python3", SOURCE / "tests/report/validate.py", path],
                                  capture_output=True, text=True)
        if validate.returncode != 77:  # the schema's module is not everywhere
            self.assertEqual(validate.returncode, 0, validate.stdout)
        document = json.loads(path.read_text())
        self.machine = document["machine"]
        return document["runs"]

    def test_memory_is_the_devices(self):
        runs = self.bench("fp32,nf4", model=DECODER, fake="no-energy")
        for run in runs:
            memory = run["memory"]
            device, allocated = memory["device"], memory["allocated"]
            self.assertEqual(device["source"], "nvml")
            self.assertEqual(device["before"], 100 * MIB)
            self.assertEqual(device["loaded"] - device["before"], allocated["loaded"])
            self.assertEqual(device["peak"] - device["before"], allocated["peak"])
            self.assertGreater(memory["rss_loaded"], memory["rss_before"])
            # The true packed size, and a peak that is weights, keys and values, and working memory.
            self.assertLess(abs(allocated["weights"] / run["weights_bytes"] - 1), 0.02)
            self.assertEqual(allocated["caches"], 6 * 2 * 10 * 256 * 4)  # layers, positions, hidden
            self.assertLessEqual(allocated["peak"], sum(
                allocated[use] for use in ("weights", "activations", "caches", "workspace")))
        ratio = [r["memory"]["device"]["loaded"] - r["memory"]["device"]["before"] for r in runs]
        self.assertAlmostEqual(runs[1]["vs_baseline"]["memory_ratio"], ratio[1] / ratio[0])
        self.assertIn("memory of the GPU as its driver counts it", " ".join(self.table.split()))
        self.assertEqual({r["device_name"] for r in runs}, {"Fake GPU"})
        self.assertEqual(self.machine["gpus"], [
            {"device": "cuda", "name": "Fake GPU", "compute_capability": "9.0",
             "multiprocessors": 1, "memory_bytes": 1 << 30, "driver": "13.0",
             "driver_version": "580.65.06", "bandwidth_bytes_per_s": 1e11}])
        self.assertNotIn("bandwidth_bytes_per_s", self.machine)
        self.assertIn("Fake GPU", self.table)

    def test_a_driver_that_tells_no_processes(self):
        run, = self.bench("nf4", fake="hidden no-energy")
        self.assertNotIn("energy", run["decode"])
        self.assertIn("energy was not measured: it is not wanted", run["notes"])
        self.assertNotIn("Energy", self.table)
        self.assertEqual(run["memory"]["device"]["source"], "cudaMemGetInfo")
        self.assertEqual(run["memory"]["device"]["before"], 0)
        self.assertIn("by how much less of it was free", " ".join(self.table.split()))

    def test_energy_counts_passes(self):
        """A pass of the prompt takes half a joule, a step three quarters, whatever the clock says."""
        runs = self.bench("fp32,nf4", "--batch", 2)
        for run in runs:
            prefill, decode = run["prefill"]["energy"], run["decode"]["energy"]
            self.assertAlmostEqual(prefill["joules_per_token"], 0.5 / (2 * 4))
            self.assertAlmostEqual(decode["joules_per_token"], 0.75 / 2)
            self.assertGreaterEqual(decode["seconds"], 1)
            self.assertAlmostEqual(decode["mean_watts"] * decode["seconds"] / decode["joules"], 1)
            self.assertEqual(len(run["decode"]["device_samples_s"]), 2)
            for device, host in zip(run["decode"]["device_samples_s"], run["decode"]["samples_s"]):
                self.assertGreaterEqual(device, host)  # read around it
        self.assertAlmostEqual(runs[1]["vs_baseline"]["decode_energy_ratio"], 1)
        self.assertIn("Energy", self.table)

    def test_energy_of_a_classifier(self):
        run, = self.bench("nf4", "--batch", 3, model=CLASSIFIER)
        self.assertAlmostEqual(run["prefill"]["energy"]["joules_per_sentence"], 0.5 / 3)
        self.assertNotIn("decode", run)

    def test_a_counter_that_does_not_move(self):
        run, = self.bench("nf4", fake="stuck")
        self.assertIn("energy was not measured: the GPU's counter did not move while it computed",
                      run["notes"])

    def test_the_host_has_neither(self):
        run, = self.results("bench", TINY, "--precision", "nf4", "--runs", 1,
                            "--new-tokens", 5)["runs"]
        self.assertNotIn("device", run["memory"])
        self.assertNotIn("device_name", run)
        self.assertNotIn("energy", run["decode"])
        self.assertNotIn("device_median_s", run["decode"])
        self.assertGreater(run["memory"]["allocated"]["peak"], run["weights_bytes"])

    def failed(self, runs, precision):
        """The reason of the one row that failed."""
        wrong = {run["precision"]: run for run in runs if run["status"] != "ok"}
        self.assertEqual(list(wrong), [precision], runs)
        self.assertNotIn("memory", wrong[precision])
        return wrong[precision]["error"]

    def test_weights_that_do_not_fit(self):
        # 26.5 MiB of matrices at fp32, 13.3 at fp16, and 100 that the context takes.
        runs = self.bench("fp32,fp16", model=DECODER, fake="memory=120 no-energy", code=ROW)
        error = self.failed(runs, "fp32")
        self.assertIn("out of memory on cuda: the weights take about 26.5 MiB at fp32", error)
        self.assertIn("20.0 MiB are available", error)
        self.assertIn("use a lower precision: the weights take about 13.3 MiB at fp16, 8.8 MiB at "
                      "int8, 6.8 MiB at nf4", error)
        error = self.failed(self.bench("nf4", model=DECODER, fake="memory=105", code=ROW), "nf4")
        self.assertIn("use a smaller model, a larger GPU or --device cpu", error)

    def test_a_batch_that_does_not_fit(self):
        def bench(batch, code):
            return self.bench("int8", "--batch", batch, model=DECODER, code=code,
                              fake="memory=115 no-energy")
        error = self.failed(bench(64, ROW), "int8")
        self.assertRegex(error, r"out of memory on cuda:0: [0-9.]+ MiB are wanted for .*, and "
                                r"[0-9.]+ of 115.0 MiB are free; use a smaller --batch")
        batch = int(error.split("a batch of ")[1].split()[0])
        self.assertIn("6.8 MiB at nf4 instead of 8.8 MiB", error)
        # What is said to fit does, and twice as much does not.
        bench(batch, OK)
        self.assertIn("out of memory", self.failed(bench(2 * batch, ROW), "int8"))

    def test_a_text_that_does_not_fit(self):
        result = self.run_program(
            "perplexity", DECODER, "--device", "cuda", "--precision", "nf4", "--protocol",
            "chunks", "--max-length", 512, env={"BITGAUGE_FAKE": "memory=112"})
        self.assertEqual(result.returncode, ROW)
        self.assertIn("; use a shorter --max-length, or", " ".join(result.out.split()))

    def test_a_fault_fails_its_row_and_is_named(self):
        runs = self.bench("fp32,nf4,int8", fake="fault=100 only=nf4 no-energy", code=ROW)
        self.assertEqual([run["status"] for run in runs], ["ok", "error", "ok"])
        self.assertIn("illegal memory access", runs[1]["error"])
        self.assertIn("in what was queued; run again, waiting for each kernel: ", runs[1]["error"])
        self.assertTrue(runs[1]["error"].endswith("in a linear layer of few rows"))
        self.assertTrue(runs[2]["vs_baseline"]["interleaved"])

    def test_a_fault_of_the_baseline(self):
        """The first that succeeds is the baseline."""
        runs = self.bench("bf16,nf4,int8", fake="fault=100 only=bf16 no-energy", code=ROW)
        self.assertEqual([run["status"] for run in runs], ["error", "ok", "ok"])
        self.assertEqual(runs[2]["vs_baseline"]["baseline"], "nf4")

    def test_a_worker_that_ends(self):
        runs = self.bench("fp32,nf4", fake="exit=100 only=nf4 no-energy", code=ROW)
        self.assertIn("ended early, with exit code 9", self.failed(runs, "nf4"))

    def test_devices(self):
        out = self.succeeds("devices").out
        self.assertIn("cuda:0  Fake GPU", out)
        self.assertIn("100 GB/s copying", out)
        self.assertIn("580.65.06, for CUDA 13.0", out)


if __name__ == "__main__":
    assert os.environ["BITGAUGE_CUDA_LIBRARY"]
    unittest.main()

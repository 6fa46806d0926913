"""The measuring commands on the embedded models, end to end."""

import csv
import json
import os
import pathlib
import pty
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from common import (CLASSIFIER, DECODER, FORMAT, INTERRUPTED, OK, OUTPUT, PROGRAM, REVIEWS, ROW,
                    SOURCE, TEXT, UNSUPPORTED, USAGE, ProgramTest)

PROMPTS = ["The capital of France is", "Once upon a time, in a land far, far away,",
           "To be or not to be, that is the", "The future of AI is"]
QUICK = ["--limit", "8", "--max-tokens", "700", "--runs", "3", "--new-tokens", "4",
         "--prompt-tokens", "8", "--max-new-tokens", "4"]


def validate(value):
    """Holds results against the JSON Schema and the sums that it cannot say."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(value, file)
        file.flush()
        result = subprocess.run([sys.executable, SOURCE / "tests/report/validate.py", file.name],
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                check=False)
    if result.returncode == 77:
        raise unittest.SkipTest(result.stdout.strip())
    if result.returncode:
        raise AssertionError(result.stdout)


class Compare(ProgramTest):
    def test_both_embedded_models_with_every_report(self):
        files = {kind: self.scratch / f"report.{kind}" for kind in ("json", "html", "csv", "md")}
        precisions = ["fp32", "int8", "nf4"]
        reports = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
        result = self.succeeds("compare", "--precision", ",".join(precisions), *QUICK, *reports)

        value = json.loads(files["json"].read_text())
        validate(value)
        self.assertEqual(value["schema"], "bitgauge/1")
        self.assertIn(value["version"], self.succeeds("version").out)
        runs = value["runs"]
        self.assertEqual([run["precision"] for run in runs], precisions * 2)
        for run in runs:
            self.assertEqual(run["status"], "ok", run)
            self.assertEqual(run["device"], "cpu")
            self.assertTrue(run["kernels"])
            self.assertGreater(run["load_seconds"], 0)
            self.assertGreater(run["memory"]["rss_loaded"], 0)
            self.assertGreaterEqual(run["memory"]["rss_peak"], run["memory"]["rss_loaded"])
            self.assertGreater(run["prefill"]["median_s"], 0)
            self.assertGreaterEqual(len(run["prefill"]["samples_s"]), 3)
        for fp32, int8, nf4 in (runs[:3], runs[3:]):
            self.assertGreater(fp32["weights_bytes"], int8["weights_bytes"])
            self.assertGreater(int8["weights_bytes"], nf4["weights_bytes"])
            self.assertIn("vs_baseline", nf4)
        for run in runs[:3]:
            self.assertEqual([p["protocol"] for p in run["perplexity"]], ["lines", "sliding"])
            self.assertEqual(run["decode"]["new_tokens"], 4)
            self.assertEqual([g["prompt"] for g in run["generations"]], PROMPTS)
            self.assertNotIn("accuracy", run)
        for run in runs[3:]:
            self.assertEqual(run["accuracy"]["total"], 8)
            self.assertNotIn("perplexity", run)
            self.assertNotIn("generations", run)

        for precision in precisions:
            self.assertIn(precision, result.out)
            self.assertIn(precision, files["md"].read_text())
        with open(files["csv"], newline="") as handle:
            rows = list(csv.DictReader(handle))
        self.assertEqual([row["precision"] for row in rows], precisions * 2)
        html = files["html"].read_text()
        self.assertIn("<svg", html)
        self.assertIn("bitgauge compare", html, "the command to repeat it")
        self.assertEqual(re.findall(r'(?:src|href)="(?:https?:)?//', html), [])

    def test_measurements_can_be_skipped(self):
        value = self.results("compare", DECODER, "--precision", "fp32", "--skip",
                             "bench,perplexity", "--prompt", "One", "Two", "--max-new-tokens", "2")
        run, = value["runs"]
        self.assertEqual([g["prompt"] for g in run["generations"]], ["One", "Two"])
        self.assertNotIn("perplexity", run)
        self.assertNotIn("decode", run)

    def test_json_takes_the_place_of_the_table(self):
        result = self.succeeds("compare", CLASSIFIER, "--precision", "fp32", "--skip", "bench",
                               "--limit", "4", "--json", "-")
        self.assertEqual(json.loads(result.out)["runs"][0]["accuracy"]["total"], 4)


class SingleMeasurements(ProgramTest):
    def test_perplexity(self):
        value = self.results("perplexity", DECODER, "--limit", "10", "--protocol",
                             "lines,sliding,chunks", "--max-length", "64", "--stride", "32",
                             "--max-tokens", "500", "--precision", "fp32,nf4")
        validate(value)
        fp32, nf4 = value["runs"]
        self.assertEqual([p["protocol"] for p in fp32["perplexity"]],
                         ["lines", "sliding", "chunks"])
        for a, b in zip(fp32["perplexity"], nf4["perplexity"]):
            self.assertGreater(a["value"], 1)
            self.assertEqual(a["tokens"], b["tokens"])
            self.assertNotEqual(a["value"], b["value"])

    def test_perplexity_defaults(self):
        run, = self.results("perplexity", DECODER, "--limit", "3")["runs"]
        self.assertEqual(run["precision"], "fp32")
        self.assertEqual([p["protocol"] for p in run["perplexity"]], ["lines"])

    def test_text_is_read_from_the_option(self):
        path = self.scratch / "text.txt"
        path.write_text("The house stood by the river, and the river was wide.\n")
        run, = self.results("perplexity", DECODER, "--text", path)["runs"]
        ids = self.succeeds("tokenize", DECODER, "--ids-only", "--text",
                            path.read_text().rstrip("\n")).out.split()
        self.assertEqual(run["perplexity"][0]["tokens"], len(ids) - 1)

    def test_empty_text(self):
        path = self.scratch / "empty.txt"
        path.write_text("")
        for protocol in ("lines", "sliding", "chunks"):
            result = self.fails((USAGE, FORMAT, ROW), "perplexity", DECODER, "--text", path,
                                "--protocol", protocol)
            self.assertIn("empty.txt", result.err + result.out)

    def test_classify(self):
        value = self.results("classify", CLASSIFIER, "--data", REVIEWS, "--limit", "20", "--pad",
                             "--max-length", "48", "--precision", "fp32,int8")
        validate(value)
        for run in value["runs"]:
            accuracy = run["accuracy"]
            self.assertEqual(accuracy["total"], 20)
            self.assertAlmostEqual(accuracy["value"], accuracy["correct"] / 20)
            self.assertGreater(accuracy["correct"], 10)

    def test_padding_does_not_change_the_answers(self):
        counts = {self.results("classify", CLASSIFIER, "--limit", "20", *pad)["runs"][0]["accuracy"]
                  ["correct"] for pad in ([], ["--pad", "--max-length", "64"])}
        self.assertEqual(len(counts), 1)

    def test_damaged_data(self):
        path = self.scratch / "bad.tsv"
        for text in ("", "text\tclass\na\t1\n", "sentence\tlabel\na fine film\tgood\n",
                     "sentence\tlabel\na fine film\t7\n"):
            path.write_text(text)
            result = self.fails((FORMAT, ROW), "classify", CLASSIFIER, "--data", path)
            self.assertIn("bad.tsv", result.err + result.out)

    def test_generate(self):
        value = self.results("generate", DECODER, "--prompt", *PROMPTS[:2], "--max-new-tokens", "5")
        validate(value)
        run, = value["runs"]
        self.assertEqual([g["prompt"] for g in run["generations"]], PROMPTS[:2])
        for generation in run["generations"]:
            self.assertEqual(len(generation["token_ids"]), 5)

    def test_generate_draws_the_same_for_the_same_seed(self):
        def draw(seed):
            options = ["--prompt", "The", "--max-new-tokens", "16", "--temperature", "1.5",
                       "--top-k", "500", "--top-p", "0.99", "--seed", seed]
            run, = self.results("generate", DECODER, *options)["runs"]
            return run["generations"][0]["token_ids"]
        self.assertEqual(draw("1"), draw("1"))
        self.assertNotEqual(draw("1"), draw("2"))

    def test_bench(self):
        value = self.results("bench", DECODER, "--prompt-tokens", "16", "--new-tokens", "4",
                             "--batch", "2", "--runs", "3", "--threads", "1")
        validate(value)
        run, = value["runs"]
        self.assertEqual(run["prefill"]["tokens"], 16)
        self.assertEqual(run["decode"]["batch"], 2)
        self.assertGreaterEqual(len(run["decode"]["samples_s"]), 3)
        self.assertGreater(run["decode"]["tokens_per_s"], 0)

    def test_bench_with_random_weights(self):
        shutil.copy(SOURCE / DECODER / "config.json", self.scratch / "config.json")
        value = self.results("bench", "--random-weights", self.scratch, "--precision", "fp32,nf4",
                             *["--prompt-tokens", "8", "--new-tokens", "4", "--runs", "3"])
        validate(value)
        true = self.results("bench", DECODER, "--precision", "fp32,nf4", "--prompt-tokens", "8",
                            "--new-tokens", "4", "--runs", "3")
        self.assertEqual([run["weights_bytes"] for run in value["runs"]],
                         [run["weights_bytes"] for run in true["runs"]])

    def test_a_measurement_that_does_not_fit(self):
        self.fails((USAGE, UNSUPPORTED, ROW), "perplexity", CLASSIFIER, "--limit", "2")
        self.fails((USAGE, UNSUPPORTED, ROW), "classify", DECODER, "--limit", "2")
        self.fails((USAGE, UNSUPPORTED, ROW), "generate", CLASSIFIER)

    def test_table_without_json(self):
        self.assertIn("fp16", self.succeeds("perplexity", DECODER, "--limit", "2", "--precision",
                                            "fp16").out)


class Damage(ProgramTest):
    def copy(self, model=DECODER):
        path = self.scratch / "model"
        shutil.copytree(SOURCE / model, path)
        return path

    def test_truncated_weights(self):
        model = self.copy()
        weights = model / "model.safetensors"
        os.truncate(weights, weights.stat().st_size - 1000)
        result = self.fails((FORMAT, ROW), "bench", model, "--runs", "3")
        self.assertIn("model.safetensors", result.err + result.out)

    def test_wrong_shape(self):
        model = self.copy()
        config = json.loads((model / "config.json").read_text())
        config["n_embd" if "n_embd" in config else "hidden_size"] *= 2
        (model / "config.json").write_text(json.dumps(config))
        self.fails((FORMAT, ROW), "bench", model, "--runs", "3")


class FullDisk(ProgramTest):
    QUICK = ["perplexity", DECODER, "--limit", "2"]

    def test_full_device(self):
        for option in ("--json", "--html", "--csv", "--md"):
            self.fails(OUTPUT, *self.QUICK, option, "/dev/full")
        with open("/dev/full", "w") as full:
            self.fails(OUTPUT, *self.QUICK, stdout=full)

    def test_the_old_report_survives(self):
        for kind in ("json", "html", "csv", "md"):
            path = self.scratch / f"report.{kind}"
            path.write_text("old")
            result = self.fails(
                OUTPUT, *self.QUICK, f"--{kind}", path,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16)))
            self.assertIn(path.name, result.err)
            self.assertEqual(path.read_text(), "old")
            path.unlink()
        self.assertEqual(list(self.scratch.iterdir()), [], "a temporary file was left behind")


class Terminal(ProgramTest):
    """The progress bar and Ctrl-C, with standard error on a terminal of our own."""

    def setUp(self):
        super().setUp()
        self.long_text = self.scratch / "long.txt"
        # Seconds of work for one thread, since the bar shows only after the first of them.
        self.long_text.write_text((SOURCE / TEXT).read_text() * 8)

    def start(self, *arguments, term="xterm"):
        try:
            master, slave = pty.openpty()
        except OSError as error:
            self.skipTest(f"no pseudo-terminal here: {error}")
        self.addCleanup(os.close, master)
        environment = dict(os.environ, TERM=term)
        environment.pop("NO_COLOR", None)
        process = subprocess.Popen([PROGRAM, *map(str, arguments)], cwd=SOURCE, env=environment,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave,
                                   start_new_session=True)
        os.close(slave)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, master

    def read_until(self, master, wanted, timeout=120):
        seen, deadline = b"", time.monotonic() + timeout
        while not wanted(seen) and time.monotonic() < deadline:
            if not select.select([master], [], [], 0.2)[0]:
                continue
            try:
                block = os.read(master, 4096)
            except OSError:  # the other side is closed
                break
            if not block:
                break
            seen += block
        self.assertTrue(wanted(seen), seen)
        return seen

    def rest(self, master):
        seen = b""
        while True:
            try:
                block = os.read(master, 4096)
            except OSError:
                return seen
            if not block:
                return seen
            seen += block

    def interrupt(self, number, whole_group):
        path = self.scratch / "report.json"
        process, master = self.start("perplexity", DECODER, "--text", self.long_text, "--limit",
                                     "0", "--threads", "1", "--precision", "fp32,nf4-dq",
                                     "--json", path)
        seen = self.read_until(master, lambda text: b"nf4-dq" in text)
        (os.killpg if whole_group else os.kill)(process.pid, number)
        began = time.monotonic()
        out = process.stdout.read().decode()
        seen += self.rest(master)
        self.assertEqual(process.wait(60), INTERRUPTED, seen)
        self.assertLess(time.monotonic() - began, 20)
        last = seen.split(b"\r\x1b[K")[-1]
        self.assertTrue(last.startswith(b"bitgauge: "), last)
        runs = json.loads(path.read_text())["runs"]
        self.assertEqual((runs[0]["precision"], runs[0]["status"]), ("fp32", "ok"))
        self.assertGreater(runs[0]["perplexity"][0]["value"], 1)
        self.assertNotIn(("nf4-dq", "ok"), [(run["precision"], run["status"]) for run in runs])
        self.assertIn("fp32", out)
        deadline = time.monotonic() + 5
        while self.group_members(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertEqual(self.group_members(process.pid), [], "a worker was left behind")

    @staticmethod
    def group_members(group):
        """Processes of the group, zombies not counted, from /proc."""
        members = []
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except OSError:  # gone meanwhile
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                members.append(int(stat.parent.name))
        return members

    def test_sigint_to_the_program_keeps_finished_rows(self):
        self.interrupt(signal.SIGINT, whole_group=False)

    def test_ctrl_c_reaches_the_whole_group(self):
        self.interrupt(signal.SIGINT, whole_group=True)

    def test_sigterm(self):
        self.interrupt(signal.SIGTERM, whole_group=True)

    def test_progress_is_drawn_and_cleared(self):
        process, master = self.start("perplexity", DECODER, "--text", self.long_text, "--limit",
                                     "0", "--threads", "1")
        seen = self.read_until(master, lambda text: text.count(b"\r") > 3)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        self.assertIn(b"\x1b[36m", seen)
        self.assertIn(b"\x1b[K", seen)
        self.assertNotIn(b"\n", seen)

    def test_no_progress_on_a_dumb_terminal(self):
        process, master = self.start("bench", DECODER, "--runs", "3", "--new-tokens", "4",
                                     term="dumb")
        process.stdout.read()
        self.assertEqual(process.wait(120), OK)
        self.assertEqual(self.rest(master), b"")


if __name__ == "__main__":
    unittest.main(verbosity=2)

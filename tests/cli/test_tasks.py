#!/usr/bin/python3
"""compare --task: named tasks from files and from the Hub's cache, and their place in reports."""

import csv
import io
import json
import shutil
import subprocess
import sys
import unittest

from common import (CLASSIFIER, DECODER, FILE, FORMAT, REVIEWS, SOURCE, TEXT, UNSUPPORTED,
                    USAGE, ProgramTest)

FIXTURES = SOURCE / "tests/fixtures/tasks"
ONLY = ("--skip", "bench,perplexity,classify,generate")
# Where the Hub has each task's data.
HUB = {
    "wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1/test-00000-of-00001.parquet"),
    "sst2": ("nyu-mll/glue", "sst2/validation-00000-of-00001.parquet"),
    "boolq": ("aps/super_glue", "boolq/validation-00000-of-00001.parquet"),
    "hellaswag": ("Rowan/hellaswag", "data/validation-00000-of-00001.parquet"),
    "piqa": ("baber/piqa", "piqa_validation.parquet"),
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy/test-00000-of-00001.parquet"),
    "lambada_openai": ("EleutherAI/lambada_openai", "data/lambada_test.jsonl"),
}


def values(run):
    return {(t["task"], m["metric"]): m["value"] for t in run["tasks"] for m in t["metrics"]}


class Tasks(ProgramTest):
    def test_results_and_reports(self):
        paths = {kind: self.scratch / f"r.{kind}" for kind in ("json", "csv", "md", "html")}
        tasks = f"boolq={FIXTURES}/boolq.parquet,hellaswag={FIXTURES}/hellaswag.jsonl"
        out = self.succeeds("compare", DECODER, "--precision", "fp32,nf4", *ONLY, "--limit", 10,
                            "--task", tasks, *(x for k, p in paths.items() for x in (f"--{k}", p)))
        self.assertIn("acc_norm, %", out.out)
        check = subprocess.run([sys.executable, "tests/report/validate.py", paths["json"]],
                               cwd=SOURCE, capture_output=True, text=True)
        self.assertIn(check.returncode, (0, 77), check.stdout + check.stderr)
        base, run = json.loads(paths["json"].read_text())["runs"]
        self.assertEqual([(t["task"], t["documents"], t["requests"]) for t in base["tasks"]],
                         [("boolq", 10, 20), ("hellaswag", 10, 40)])
        for entry in run["vs_baseline"]["tasks"]:
            for metric in entry["metrics"]:
                key = entry["task"], metric["metric"]
                self.assertAlmostEqual(metric["change"], values(run)[key] - values(base)[key])
        rows = list(csv.DictReader(io.StringIO(paths["csv"].read_text())))
        self.assertEqual(float(rows[1]["hellaswag_acc_norm"]), values(run)["hellaswag", "acc_norm"])
        self.assertEqual(rows[1]["piqa_acc"], "")
        self.assertIn("hellaswag: Δ acc", paths["md"].read_text())
        self.assertIn("hellaswag", paths["html"].read_text())

    def test_from_the_cache_of_the_hub(self):
        """Without a file the data is what the Hub has; here it was downloaded before."""
        for name, (repository, file) in HUB.items():
            root = self.scratch / "hub" / ("datasets--" + repository.replace("/", "--"))
            target = root / "snapshots" / ("0" * 40) / file
            target.parent.mkdir(parents=True, exist_ok=True)
            (root / "refs").mkdir(exist_ok=True)
            (root / "refs/main").write_text("0" * 40)
            if name != "wikitext2":
                shutil.copy(FIXTURES / f"{name}{target.suffix}", target)
        text = self.scratch / "wiki.jsonl"
        text.write_text("".join(json.dumps({"text": line}) + "\n" for line in
                                ["", " = A title = \n", " " + "One two three four five . " * 4]))
        (got,) = self.results("compare", DECODER, "--precision", "fp32", *ONLY, "--limit", 2,
                              "--task", ",".join(["wikitext2=" + str(text), *list(HUB)[1:]]),
                              env={"HF_HOME": str(self.scratch), "HF_HUB_OFFLINE": "1"})["runs"]
        self.assertEqual([t["task"] for t in got["tasks"]], list(HUB)[1:])
        self.assertEqual({p["protocol"] for p in got["perplexity"]}, {"lines", "sliding"})
        self.assertEqual(got["perplexity"][0]["text"], str(text))

    def test_batches_change_nothing(self):
        task = ("--task", f"lambada_openai={FIXTURES}/lambada_openai.jsonl", "--limit", 12)
        alone, together = (
            values(self.results("compare", DECODER, "--precision", "fp32", *ONLY, *task,
                                "--task-batch", n)["runs"][0]) for n in (0, 8))
        self.assertEqual(alone.keys(), together.keys())
        for key, value in alone.items():
            self.assertAlmostEqual(value / together[key] if value else 1, 1, delta=1e-4)

    def test_a_classifier_classifies(self):
        (run,) = self.results("compare", CLASSIFIER, "--precision", "fp32", *ONLY, "--limit", 20,
                              "--task", f"sst2={REVIEWS}")["runs"]
        self.assertEqual(run["accuracy"]["total"], 20)
        self.assertNotIn("tasks", run)
        error = self.fails(UNSUPPORTED, "compare", CLASSIFIER, *ONLY, "--task",
                           f"sst2={REVIEWS},boolq={FIXTURES}/boolq.jsonl").err
        self.assertIn("boolq", error)
        self.fails(USAGE, "compare", CLASSIFIER, "--task", f"sst2={REVIEWS}", "--data", REVIEWS)

    def test_a_text_of_another_kind_of_file(self):
        """The rows of a data file are the lines of a text."""
        rows = self.scratch / "text.jsonl"
        lines = (SOURCE / TEXT).read_text().splitlines()[:40]
        rows.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        plain = self.scratch / "text.txt"
        plain.write_text("".join(line + "\n" if line else " \n" for line in lines))
        a, b = (self.results("perplexity", DECODER, "--precision", "nf4", "--text", path,
                             "--protocol", "lines,chunks")["runs"][0]["perplexity"]
                for path in (rows, plain))
        self.assertEqual([p["value"] for p in a], [p["value"] for p in b])

    def test_refusals(self):
        def refused(code, task):
            return self.fails(code, "compare", DECODER, *ONLY, "--task", task).err
        self.assertIn("boolq", refused(USAGE, "bolq"))
        self.assertIn("twice", refused(USAGE, f"piqa={FIXTURES}/piqa.jsonl,piqa"))
        self.assertIn("names none", refused(USAGE, "piqa="))
        refused(FILE, "piqa=/nowhere/piqa.parquet")
        self.assertIn("goal", refused(FORMAT, f"piqa={FIXTURES}/boolq.jsonl"))
        broken = self.scratch / "broken.jsonl"
        broken.write_text('{"goal": "a", "sol1": "b", "sol2": "c", "label": 0}\n'
                          '{"goal": "a", "sol1": "b", "sol2": "c", "label": 9}\n')
        self.assertIn("line 2", refused(FORMAT, f"piqa={broken}"))
        # The Hub is not asked where it must not be, and nothing is in this cache.
        self.fails((FILE, UNSUPPORTED), "compare", DECODER, *ONLY, "--task", "piqa",
                   env={"HF_HOME": str(self.scratch), "HF_HUB_OFFLINE": "1"})


if __name__ == "__main__":
    unittest.main()

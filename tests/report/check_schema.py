#!/usr/bin/python3
"""Makes sure that validate.py notices mistakes: each of these changes to sample.json must fail."""
import copy
import json
import pathlib
import sys
import tempfile

import validate  # exits with 77 where jsonschema is missing

HERE = pathlib.Path(__file__).resolve().parent
CHANGES = {
    "another schema": lambda d: d.update(schema="bitgauge/2"),
    "no version": lambda d: d.pop("version"),
    "an unknown key": lambda d: d.update(extra=1),
    "a misspelt key in a run": lambda d: d["runs"][0].update(weight_bytes=3),
    "a misspelt key in decode": lambda d: d["runs"][0]["decode"].update(tokens_per_sec=3),
    "an unknown status": lambda d: d["runs"][0].update(status="failed"),
    "an error with no reason": lambda d: d["runs"][7].pop("error"),
    "a reason with no error": lambda d: d["runs"][0].update(error="x"),
    "bytes as text": lambda d: d["runs"][0].update(weights_bytes="26 MiB"),
    "negative bytes": lambda d: d["runs"][0].update(weights_bytes=-1),
    "a time of zero": lambda d: d["runs"][0]["decode"].update(median_s=0),
    "no samples": lambda d: d["runs"][0]["decode"].update(samples_s=[]),
    "a lone bound": lambda d: d["runs"][0]["decode"].update(ci95_s=[1]),
    "an unknown protocol": lambda d: d["runs"][0]["perplexity"][0].update(protocol="words"),
    "a stride by lines": lambda d: d["runs"][0]["perplexity"][0].update(stride=3),
    "an accuracy in per cent": lambda d: d["runs"][8]["accuracy"].update(value=82.0),
    "a model of no task": lambda d: d["models"][0].pop("task"),
    "an unknown model": lambda d: d["runs"][0].update(model="another"),
    "a wrong median": lambda d: d["runs"][0]["prefill"].update(median_s=9.0),
    "a wrong accuracy": lambda d: d["runs"][8]["accuracy"].update(value=0.5),
    "a wrong perplexity": lambda d: d["runs"][0]["perplexity"][0].update(nll_per_token=1.0),
    "an unknown source": lambda d: d["runs"][16]["memory"]["device"].update(source="top"),
    "a peak below what was loaded": lambda d: d["runs"][16]["memory"]["device"].update(peak=1),
    "parts larger than the peak": lambda d: d["runs"][16]["memory"]["allocated"].update(peak=1),
    "energy of nothing": lambda d: d["runs"][16]["decode"]["energy"].update(joules=0),
    "a wrong power": lambda d: d["runs"][16]["decode"]["energy"].update(mean_watts=9.0),
    "device times without a median": lambda d: d["runs"][16]["decode"].pop("device_median_s"),
    "a wrong growth": lambda d: d["runs"][0]["memory"].update(rss_growth=10**12),
}


def main():
    sample = json.loads((HERE / "sample.json").read_text(encoding="utf-8"))
    validator, missed = validate.make_validator(), 0
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "changed.json"
        for name, change in CHANGES.items():
            document = copy.deepcopy(sample)
            change(document)
            path.write_text(json.dumps(document), encoding="utf-8")
            if not list(validate.check(path, validator)):
                missed += 1
                print(f"not noticed: {name}")
    print(f"{len(CHANGES)} changes, {missed} not noticed")
    return 1 if missed else 0


sys.exit(main())

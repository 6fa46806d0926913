#!/usr/bin/python3
"""Validates results documents against docs/results.schema.json, and the sums that a schema cannot
say: validate.py FILE...  Exits with 0 where all are right, 1 where one is not, 77 where the module
jsonschema is missing (Debian: python3-jsonschema)."""
import json
import math
import pathlib
import statistics
import sys

try:
    import jsonschema
except ImportError:
    print("skipped: the Python module jsonschema is missing; apt-get install python3-jsonschema")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2]


def refuse_constant(name):
    raise ValueError(f"{name} is no JSON")


def refuse_duplicates(pairs):
    keys = [key for key, _ in pairs]
    if len(keys) != len(set(keys)):
        raise ValueError(f"a key is there twice: {sorted(keys)}")
    return dict(pairs)


def close(a, b, tolerance=1e-3):
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-12)


def check_run(run):
    """Yields what is wrong in the arithmetic of one run."""
    for name in ("prefill", "time_to_first_token", "decode"):
        timing = run.get(name)
        if not timing:
            continue
        if not close(timing["median_s"], statistics.median(timing["samples_s"])):
            yield f"{name}.median_s is not the median of its samples"
        if "ci95_s" in timing and not timing["ci95_s"][0] <= timing["ci95_s"][1]:
            yield f"{name}.ci95_s is the wrong way round"
    decode = run.get("decode")
    if decode and not close(decode["ms_per_token"],
                            1000 * decode["median_s"] / decode["new_tokens"]):
        yield "decode.ms_per_token is not 1000 * median_s / new_tokens"
    if decode and "tokens_per_s" in decode and not close(
            decode["tokens_per_s"],
            decode["new_tokens"] * decode.get("batch", 1) / decode["median_s"]):
        yield "decode.tokens_per_s is not new_tokens * batch / median_s"
    weights = run.get("weights")
    if decode and "read_bytes_per_s" in decode and not close(
            decode["read_bytes_per_s"],
            (weights or {}).get("read_bytes", -1) * decode["new_tokens"] / decode["median_s"]):
        yield "decode.read_bytes_per_s is not weights.read_bytes * new_tokens / median_s"
    if weights and not 0 <= weights.get("read_bytes", 0) <= run["weights_bytes"]:
        yield "weights.read_bytes is not within weights_bytes"
    if weights and run.get("weights_bytes") != (weights["quantized_bytes"] +
                                                weights["unquantized_bytes"]):
        yield "weights_bytes is not quantized_bytes + unquantized_bytes"
    memory = run.get("memory")
    if memory and "rss_growth" in memory and not (
            0 <= memory["rss_growth"] <= max(0, memory["rss_peak"] - memory["rss_loaded"])):
        yield "memory.rss_growth is not within rss_peak - rss_loaded"
    for place, part in (memory or {}).items():
        if isinstance(part, dict) and not part["peak"] >= max(part["loaded"], part["end"]):
            yield f"memory.{place}.peak is not the most"
        if place == "allocated" and part["peak"] < max(part.get(use, 0) for use in (
                "weights", "activations", "caches", "workspace")):
            yield "memory.allocated.peak is less than its parts"
    for name in ("prefill", "decode"):
        timing = run.get(name, {})
        energy, device = timing.get("energy"), timing.get("device_samples_s")
        if energy and not close(energy["mean_watts"], energy["joules"] / energy["seconds"]):
            yield f"{name}.energy.mean_watts is not joules / seconds"
        if ("device_median_s" in timing) != (device is not None) or (
                device and not close(timing["device_median_s"], statistics.median(device))):
            yield f"{name}.device_median_s is not the median of its samples"
    accuracy = run.get("accuracy")
    if accuracy and not close(accuracy["value"], accuracy["correct"] / accuracy["total"], 1e-5):
        yield "accuracy.value is not correct / total"
    for entry in run.get("perplexity", []):
        if "nll_per_token" in entry and not close(entry["value"],
                                                  math.exp(entry["nll_per_token"])):
            yield f"perplexity by {entry['protocol']} is not exp(nll_per_token)"


def check(path, validator):
    """Yields what is wrong in one file."""
    try:
        document = json.loads(pathlib.Path(path).read_text(encoding="utf-8"),
                              parse_constant=refuse_constant,
                              object_pairs_hook=refuse_duplicates)
    except (OSError, ValueError) as problem:
        yield str(problem)
        return
    errors = list(validator.iter_errors(document))
    for error in errors:
        yield f"{error.json_path}: {error.message[:300]}"
    if errors:
        return
    names = {model["name"] for model in document.get("models", [])}
    for i, run in enumerate(document["runs"]):
        if names and run["model"] not in names:
            yield f"$.runs[{i}]: no entry of models is named {run['model']}"
        for problem in check_run(run):
            yield f"$.runs[{i}] ({run['precision']}): {problem}"


def make_validator():
    schema = json.loads((ROOT / "docs/results.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def main():
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    validator, wrong = make_validator(), 0
    for path in sys.argv[1:]:
        for problem in check(path, validator):
            wrong += 1
            print(f"{path}: {problem}")
    print(f"{len(sys.argv) - 1} files, {wrong} problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

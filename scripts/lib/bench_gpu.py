"""What scripts/bench-gpu runs: the rows, bitgauge's side of them, and the table. peers.py is the other side."""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import calm
import random_llama

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    shape: str
    unit: str  # of the figure: tokens/s of decoding; s for all new tokens, the prompt included; ms for one pass
    targets: dict  # precision -> figure
    prompt: int = 6
    new: int = 64
    batch: int = 1

    def figure(self, run):
        return {"tokens/s": lambda: run["decode"]["tokens_per_s"], "s": lambda: whole(self, run),
                "ms": lambda: 1000 * whole(self, run)}[self.unit]()


ROWS = [
    Row("llama-3.2-1b", "llama-3.2-1b", "tokens/s", {"fp16": 1100, "int8": 1500, "nf4": 1900}),
    Row("phi-2", "phi-2", "tokens/s", {"fp16": 560, "int8": 900, "nf4": 1200}),
    Row("gpt2", "gpt2", "tokens/s", {"fp16": 3000, "int8": 3000, "nf4": 3300}),
    Row("flan-t5-base", "flan-t5-base", "tokens/s", {"fp16": 1500, "int8": 1500, "nf4": 1700}, prompt=32),
    Row("paligemma-3b", "paligemma-3b-pt-224", "s", {"fp16": 0.12, "int8": 0.09, "nf4": 0.07}),
    Row("opt-125m", "opt-125m", "s", {"fp16": 0.10, "int8": 0.10, "nf4": 0.09}, prompt=128, new=200, batch=8),
    Row("distilbert", "distilbert-sst2", "ms", {"fp16": 0.30, "int8": 0.28, "nf4": 0.30}, prompt=128, new=0),
]
CALM = "llama-3.2-1b"  # the row that calm runs, too
SCORING = Row("scoring", "llama-3.2-1b", "ms/window", {}, prompt=512, new=0)
STRIDE = 256
# Scoring is to be so many times as fast as the peer at fp16.
SCORING_TARGET = 5


def whole(row, run):
    """Seconds from the prompt's ids to the last new one, or of a classifier's pass."""
    if row.new == 0:
        return run["prefill"]["median_s"]
    return run["time_to_first_token"]["median_s"] + run["decode"]["median_s"] * (row.new - 1) / row.new


def bytes_a_second(row, run):
    """Of weights, by the steps of decoding or a classifier's pass."""
    if row.new == 0:
        return run["weights"]["read_bytes"] / run["prefill"]["median_s"]
    return run["decode"]["read_bytes_per_s"]


# ---- bitgauge's side -----------------------------------------------------------------------------------------------


def run_program(options, path, *arguments):
    """Runs it with a JSON report to `path`; returns the report. What it prints goes to standard error."""
    command = [options.program, *map(str, arguments), "--device", options.device, "--precision", options.precision,
               "--json", str(path)]
    print("$", " ".join(command), file=sys.stderr, flush=True)
    path.unlink(missing_ok=True)
    status = subprocess.run(command, stdout=sys.stderr).returncode
    if not path.exists():
        sys.exit(f"bench-gpu: {options.program} ended with status {status} and wrote no results")
    return json.loads(path.read_text())


def bench(options, row):
    arguments = ["bench", "--random-weights", options.shapes / row.shape, "--prompt-tokens", row.prompt, "--batch",
                 row.batch, "--runs", options.runs]
    if row.new:
        arguments += ["--new-tokens", row.new]
    return {run["precision"]: run for run in run_program(options, options.out / f"{row.name}.json", *arguments)["runs"]}


def copy_bandwidth(options):
    """Bytes a second of the device, or what is said where it cannot be used."""
    answer = subprocess.run([options.program, "devices", "--json"], stdout=subprocess.PIPE, check=True).stdout
    (options.out / "devices.json").write_bytes(answer)
    answer = json.loads(answer)
    wanted = "cuda:0" if options.device == "cuda" else options.device
    for device in answer["devices"]:
        if device["device"] == wanted:
            name = device.get("name") or device["machine"]["cpu"]
            bandwidth = device.get("bandwidth_bytes_per_s")
            print(f"{name}, {bandwidth / 1e9:.0f} GB/s" if bandwidth else f"{name}, copying not measured", file=sys.stderr)
            return bandwidth
    sys.exit("bench-gpu: " + answer.get("no_gpu", f"there is no device {options.device} here"))


# ---- the table -----------------------------------------------------------------------------------------------------


class Table:
    HEAD = ["row", "precision", "unit", "target", "bitgauge", "of target", "MB read", "GB/s", "of copying", "peer, s",
            "bitgauge, s", "times the peer", "calm"]

    def __init__(self):
        self.lines, self.problems = [], []

    def add(self, row, precision, run, bandwidth, peer):
        line = dict(row=row.name, precision=precision, unit=row.unit)
        target = row.targets.get(precision)
        if target:
            line["target"] = f"{'≥' if row.unit == 'tokens/s' else '≤'} {target:,}"
        if run is None or run["status"] != "ok":
            self.problems.append(f"{row.name}, {precision}: {run['error'] if run else 'not run'}")
            line["bitgauge"] = "failed"
        else:
            figure = row.figure(run)
            line["bitgauge"] = number(figure)
            if target:
                line["of target"] = f"{figure / target if row.unit == 'tokens/s' else target / figure:.2f}×"
            rate = bytes_a_second(row, run)
            line["MB read"] = f"{run['weights']['read_bytes'] / 1e6:,.0f}"
            line["GB/s"] = f"{rate / 1e9:,.0f}"
            line["of copying"] = f"{100 * rate / bandwidth:.0f} %" if bandwidth else ""
            line["bitgauge, s"] = number(whole(row, run))
        self.add_peer(line, peer, whole(row, run) if run and run["status"] == "ok" else None)
        self.lines.append(line)

    def add_peer(self, line, peer, ours):
        if peer and "error" in peer:
            self.problems.append(f"{line['row']}, {line['precision']}, peer: {peer['error']}")
            line["peer, s"] = "–"
        elif peer:
            line["peer, s"] = number(peer["median_s"])
            if ours:
                line["times the peer"] = f"{peer['median_s'] / ours:.1f}×"

    def add_scoring(self, precision, run, windows, peer):
        """Warm beside warm: the peer's second pass over the text, and the program's seconds, which leave out the first
        passes of the two that it makes over the text's beginning on a GPU. The program's include its reading of the text."""
        line = dict(row=SCORING.name, precision=precision, unit=SCORING.unit)
        ours = None
        if run["status"] != "ok":
            self.problems.append(f"scoring, {precision}: {run['error']}")
            line["bitgauge"] = "failed"
        else:
            ours = run["perplexity"][0]["seconds"]
            line["bitgauge"] = number(1000 * ours / windows)
            line["bitgauge, s"] = number(ours)
        self.add_peer(line, peer, ours)
        if ours and peer and "median_s" in peer and precision == "fp16":
            line["target"] = f"≤ {number(1000 * peer['median_s'] / SCORING_TARGET / windows)}"
            line["of target"] = f"{peer['median_s'] / SCORING_TARGET / ours:.2f}×"
        self.lines.append(line)

    def text(self, markdown):
        used = [h for h in self.HEAD if any(line.get(h) for line in self.lines)]
        cells = [used] + [[line.get(h, "") for h in used] for line in self.lines]
        if markdown:
            cells.insert(1, ["---"] * 3 + ["---:"] * (len(used) - 3))
            return "\n".join("| " + " | ".join(row) + " |" for row in cells)
        widths = [max(len(row[i]) for row in cells) for i in range(len(used))]
        return "\n".join("  ".join(cell.ljust(width) if i < 3 else cell.rjust(width)
                                   for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in cells)


def number(x):
    """Three digits that count, at least."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


# ---- running it ----------------------------------------------------------------------------------------------------


def peer_of(options, peers, row, precision, measure):
    """Measures, keeps the result in a file, and turns a failure into {"error": ...}."""
    if peers is None:
        return None
    try:
        result = peers.summary(measure())
    except Exception as error:  # whatever goes wrong inside PyTorch is this cell's problem, not the table's
        result = {"error": f"{type(error).__name__}: {error}".split("\n")[0][:300]}
    peers.forget()
    (options.out / f"{row.name}.{precision}.peer.json").write_text(json.dumps(peers.versions | result, indent=1))
    return result


def run_row(options, table, row, peers, bandwidth):
    shape = options.shapes / row.shape
    runs = bench(options, row)
    for precision in options.precision.split(","):
        peer = peer_of(options, peers, row, precision,
                       lambda: peers.measure(row, shape, precision, options.peer_runs))
        table.add(row, precision, runs.get(precision), bandwidth, peer)
    if peers and options.compile and row.unit == "ms":
        compiled = peer_of(options, peers, row, "fp16-compiled",
                           lambda: peers.measure(row, shape, "fp16", options.peer_runs, compiled=True))
        line = dict(row=row.name, precision="fp16", unit="compiled peer")
        ours = runs.get("fp16")
        table.add_peer(line, compiled, whole(row, ours) if ours and "prefill" in ours else None)
        table.lines.append(line)


def add_calm(options, table, row):
    """calm's tokens/s, on the row's line of fp16 if there is one."""
    line = next((x for x in table.lines if (x["row"], x["precision"]) == (row.name, "fp16")), None)
    if line is None:
        return
    config = json.loads((options.shapes / row.shape / "config.json").read_text())
    with tempfile.TemporaryDirectory(dir=options.out) as directory:
        try:
            calm.write(Path(directory) / "model.calm", config)
            line["calm"] = number(calm.measure(options.calm, Path(directory) / "model.calm", row.new, options.runs))
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
            table.problems.append(f"{row.name}, calm: {error}")


def run_scoring(options, table, peers):
    """A text of random words under a Llama of random weights: the same files for both sides."""
    with tempfile.TemporaryDirectory(dir=options.out) as directory:
        directory = Path(directory)
        config = json.loads((options.shapes / SCORING.shape / "config.json").read_text())
        random_llama.write(directory, config)
        ids = random_llama.write_text(directory / "text.txt", config, SCORING.prompt + STRIDE * (options.windows - 1))
        report = run_program(options, options.out / "scoring.json", "perplexity", directory, "--text",
                             directory / "text.txt", "--protocol", "sliding", "--max-length", SCORING.prompt,
                             "--stride", STRIDE)
        for run in report["runs"]:
            precision = run["precision"]
            peer = peer_of(options, peers, SCORING, precision,
                           lambda: peers.score(directory, ids, precision, SCORING.prompt, STRIDE))
            table.add_scoring(precision, run, options.windows, peer)


def chosen(only):
    rows = ROWS + [SCORING]
    if not only:
        return rows
    for name in only.split(","):
        if not any(row.name.startswith(name) for row in rows):
            sys.exit(f"bench-gpu: no row is called \"{name}\"; there are {', '.join(row.name for row in rows)}")
    return [row for row in rows if row.name.startswith(tuple(only.split(",")))]


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench-gpu", description=__doc__)
    for name, kind, default in (("program", str, None), ("device", str, "cuda"), ("out", Path, Path("bench-gpu")),
                                ("only", str, ""), ("precision", str, "fp16,int8,nf4"), ("runs", int, 7),
                                ("windows", int, 128), ("peer-runs", int, 3), ("calm", str, ""),
                                ("shapes", Path, ROOT / "tests/fixtures/shapes")):
        parser.add_argument(f"--{name}", type=kind, default=default)
    for name in ("peers", "compile", "markdown"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


def main():
    options = parse_arguments()
    rows = chosen(options.only)
    options.out.mkdir(parents=True, exist_ok=True)
    bandwidth = copy_bandwidth(options)
    peers = None
    if options.peers:
        try:
            from peers import Peers
        except ImportError as e:
            sys.exit(f"bench-gpu: --peers needs PyTorch and transformers ({e}); name a Python that has them by --python")
        peers = Peers("cuda:0" if options.device == "cuda" else options.device)
    table = Table()
    for row in rows:
        if row is SCORING:
            run_scoring(options, table, peers)
        else:
            run_row(options, table, row, peers, bandwidth)
            if options.calm and row.name == CALM:
                add_calm(options, table, row)
        # After each row, so that a run that is broken off leaves what it had.
        (options.out / "table.md").write_text(table.text(True) + "\n")
    print(table.text(options.markdown))
    for problem in table.problems:
        print(problem, file=sys.stderr)
    return 1 if table.problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as e:
        sys.exit(f"bench-gpu: {e.filename}: {e.strerror}" if e.filename else f"bench-gpu: {e}")

#!/usr/bin/env python3
"""Writes sample.json, an invented results document for the tests of the report: the shape of real
results (two models, eight precisions each, one that failed; a third one on a GPU) with awkward strings among them. Its
numbers were measured nowhere.  Usage: make_sample.py > sample.json"""
import json
import math
import random

random.seed(7)
MIB = 1 << 20
DECODER = {  # precision: weights MiB, ms per token, prompt ms, perplexity by lines and by sliding
    "fp32": (26.58, 3.31, 11.4, 111.581, 159.788),
    "fp16": (13.29, 1.92, 12.1, 111.583, 159.791),
    "bf16": (13.29, 1.90, 12.0, 111.612, 159.941),
    "int8": (8.46, 1.38, 9.7, 111.702, 160.031),
    "nf4": (6.08, 1.21, 13.9, 114.326, 164.402),
    "nf4-dq": (5.92, 1.25, 14.2, 114.401, 164.518),
    "fp4": (6.08, 1.22, 13.8, 117.914, 170.226),
}
CLASSIFIER = {  # precision: weights MiB, batch ms, correct of 872
    "fp32": (20.8, 41.2, 715), "fp16": (10.4, 43.0, 715), "bf16": (10.4, 43.4, 714),
    "int8": (7.0, 30.1, 716), "nf4": (5.4, 47.7, 711), "nf4-dq": (5.3, 48.9, 712),
    "fp4": (5.4, 47.9, 706), "fp4-dq": (5.3, 49.2, 707),
}
GPU = {  # precision: weights MiB, ms per token, prompt ms, watts
    "fp16": (2364.1, 1.02, 0.91, 412), "int8": (1437.5, 0.71, 0.88, 371),
    "nf4": (1001.9, 0.58, 1.04, 349),
}
PROMPTS = ["The capital of France is", "Once upon a time, in a land far, far away,",
           "To be or not to be, that is the", "The future of AI is"]
BASE = [" the first time in the United States . The United States has been the first time since the"
        " War , and the United States has been the first time since the War .",
        " and the earth was a little more than a hundred years ago. And the earth was a little more"
        " than a hundred years ago.",
        " most common to be called \"<b>the</b> | `question` & answer\".\nThe United States was the"
        " first to be seen 🎬 in the film, and caf\u00e9 na\u00efve 東京.",
        " a single-player game , which is the only one of the most successful games of the series ."]
OTHER = [" the first time in the world . <script>alert('x')</script> It is | not | a table.",
         " and the king said, =1+1 is not a formula.", " question \u202Ebackwards\u202C of the day.",
         " \u001b[31mred\u001b[0m and bright . A new line\nfollows."]


def rounded(x):
    return float(f"{x:.6g}")


def timing(median, spread=0.02, n=15):
    samples = [rounded(median * (1 + abs(random.gauss(0, spread)) - spread / 2)) for _ in range(n)]
    samples[0] = rounded(median * (1 + 4 * spread))
    middle = sorted(samples)[n // 2]
    return {"median_s": middle, "ci95_s": [rounded(middle * (1 - spread / 3)),
                                            rounded(middle * (1 + spread / 2))],
            "samples_s": samples}


def start(model, precision, weights):
    before = random.randint(9, 11) * MIB
    loaded = before + int(weights * MIB * 1.06) + 2 * MIB
    growth = int(random.uniform(3.5, 5.5) * MIB)
    kernel = {"fp32": "sgemv", "fp16": "hgemv", "bf16": "bgemv", "int8": "int8_dot"}.get(
        precision, "nf4_dot" if "nf4" in precision else "fp4_dot")
    run = {"model": model, "precision": precision, "device": "cpu", "status": "ok", "threads": 2,
           "isa": "avx512-vnni", "kernels": [f"{kernel}_avx512", "sgemm_openblas"]}
    if precision not in ("fp32", "fp16", "bf16"):
        run["notes"] = ["embeddings, norms, biases and the output head stay in fp16"]
    total = int(weights * MIB)
    run |= {"weights_bytes": total,
            "weights": {"quantized_bytes": int(total * .4), "unquantized_bytes": total - int(total * .4),
                        "read_bytes": int(total * .9),
                        "checkpoint_ratio": rounded(weights / 13.3)},
            "load_seconds": rounded(0.02 + weights / 900), "quantize_seconds": rounded(weights / 1200),
            "memory": {"rss_before": before, "rss_loaded": loaded, "rss_peak": loaded + growth,
                       "rss_growth": growth},
            "warmup": {"runs": random.randint(3, 5), "settled": precision != "bf16"}}
    return run


def ratio(base, this):
    r = base / this
    return rounded(r), [rounded(r * .985), rounded(r * 1.012)]


def tasks(perplexity):
    """Accuracies that fall as a perplexity rises."""
    boolq, norm, word = (rounded(x - (perplexity - 111) / 300) for x in (.62, .41, .33))
    return [{"task": "boolq", "documents": 3270, "requests": 6540, "metrics": [
                {"metric": "acc", "value": boolq, "stderr": 0.0085}], "seconds": 61.5,
             "data": "data/boolq.parquet"},
            {"task": "hellaswag", "documents": 10042, "requests": 40168, "metrics": [
                {"metric": "acc", "value": rounded(norm - .06), "stderr": 0.0047},
                {"metric": "acc_norm", "value": norm, "stderr": 0.0049}], "seconds": 240.1,
             "data": "data/hellaswag.parquet"},
            {"task": "lambada_openai", "documents": 5153, "requests": 5153, "metrics": [
                {"metric": "acc", "value": word, "stderr": 0.0065},
                {"metric": "perplexity", "value": rounded(perplexity / 3), "stderr": 1.2}],
             "seconds": 80.25, "data": "data/lambada_test.jsonl"}]


def change(metric, base):
    if metric["metric"] == "perplexity":
        return {"metric": "perplexity",
                "change_percent": rounded(100 * (metric["value"] / base["value"] - 1))}
    return {"metric": metric["metric"], "change": rounded(metric["value"] - base["value"])}


def decoder_runs(model):
    runs = []
    for precision, (weights, token, prompt, lines, sliding) in DECODER.items():
        run = start(model, precision, weights)
        prefill, first = timing(prompt / 1e3), timing((prompt + token) / 1e3)
        decode = timing(50 * token / 1e3, 0.03)
        run["prefill"] = {"tokens": 64, "batch": 1} | prefill | {
            "tokens_per_s": rounded(64 / prefill["median_s"])}
        run["time_to_first_token"] = first
        run["decode"] = {"new_tokens": 50, "batch": 1} | decode | {
            "ms_per_token": rounded(decode["median_s"] * 20),
            "tokens_per_s": rounded(50 / decode["median_s"]),
            "read_bytes_per_s": rounded(50 * run["weights"]["read_bytes"] / decode["median_s"])}
        run["perplexity"] = [
            {"protocol": "lines", "max_length": 128, "tokens": 18315, "value": lines,
             "nll_per_token": float(f"{math.log(lines):.9g}"), "seconds": 3.1, "text": "data/encyclopaedia.txt"},
            {"protocol": "sliding", "max_length": 512, "stride": 256, "tokens": 79999,
             "value": sliding, "nll_per_token": float(f"{math.log(sliding):.9g}"), "seconds": 14.2,
             "text": "data/encyclopaedia.txt"}]
        run["tasks"] = tasks(lines)
        run["generations"] = []
        same = 0
        for i, prompt_text in enumerate(PROMPTS):
            generation = {"prompt": prompt_text, "prompt_tokens": 5 + i,
                          "token_ids": list(range(40 + i)), "text": BASE[i], "finish": "length"}
            if "4" in precision and (i + len(precision)) % 4 or precision == "int8" and i == 3:
                words = BASE[i].split(" ")
                at = 3 + (len(precision) * 5 + i) % 8
                generation["text"] = " ".join(words[:at]) + OTHER[i]
                generation["first_difference"] = at
            elif precision != "fp32":
                same += 1
            run["generations"].append(generation)
        if precision != "fp32":
            base, (d, dci), (p, pci) = runs[0], *[
                ratio(runs[0][k]["median_s"], run[k]["median_s"]) for k in ("decode", "prefill")]
            run["vs_baseline"] = {
                "baseline": "fp32",
                "weights_ratio": rounded(run["weights_bytes"] / base["weights_bytes"]),
                "memory_ratio": rounded(weights / 26.58 * 1.02 + .01), "decode_speedup": d,
                "decode_speedup_ci95": dci, "prefill_speedup": p, "prefill_speedup_ci95": pci,
                "interleaved": True, "perplexity_change_percent": [
                    {"protocol": "lines", "value": rounded(100 * (lines / 111.581 - 1))},
                    {"protocol": "sliding", "value": rounded(100 * (sliding / 159.788 - 1))}],
                "tasks": [{"task": t["task"], "metrics": [change(m, b) for m, b in zip(
                    t["metrics"], o["metrics"])]} for t, o in zip(run["tasks"], base["tasks"])],
                "generations_identical": same}
        runs.append(run)
    runs.append({"model": model, "precision": "fp4-dq", "device": "cpu", "status": "error",
                 "error": "model.safetensors: tensor \"transformer.h.0|<attn>.c_attn.weight\" ends "
                          "at byte 9,000,000 but the file has 8,999,999; download the file again"})
    return runs


def classifier_runs(model):
    runs = []
    for precision, (weights, batch, correct) in CLASSIFIER.items():
        run = start(model, precision, weights)
        prefill = timing(batch / 1e3)
        run["prefill"] = {"tokens": 128, "batch": 8} | prefill | {
            "tokens_per_s": rounded(1024 / prefill["median_s"]),
            "sentences_per_s": rounded(8 / prefill["median_s"])}
        run["accuracy"] = {"correct": correct, "total": 872, "value": rounded(correct / 872),
                           "max_length": 128, "padded": False, "seconds": 5.2,
                           "data": "data/reviews.tsv"}
        if precision != "fp32":
            p, pci = ratio(runs[0]["prefill"]["median_s"], prefill["median_s"])
            run["vs_baseline"] = {
                "baseline": "fp32",
                "weights_ratio": rounded(run["weights_bytes"] / runs[0]["weights_bytes"]),
                "memory_ratio": rounded(weights / 20.8), "prefill_speedup": p,
                "prefill_speedup_ci95": pci, "interleaved": True,
                "accuracy_change": rounded((correct - 715) / 872)}
        runs.append(run)
    return runs


def gpu_runs(model):
    """Rows of a GPU: its memory, its clock, its energy; one for which its memory did not suffice."""
    runs = []
    for precision, (weights, token, prompt, watts) in GPU.items():
        run = start(model, precision, weights)
        held, context = run["weights_bytes"], 512 * MIB
        cache, workspace = 3 * MIB, int(61.5 * MIB)
        run |= {"device": "cuda:1", "device_name": "NVIDIA H200 <NVL>", "isa": "sm_90", "threads": 1,
                "kernels": [f"linear_{precision}", "matmul_16_cublaslt"]}
        run["memory"] |= {
            "allocated": {"before": 5248, "loaded": held, "peak": held + cache + workspace,
                          "end": held + cache + workspace, "weights": held, "activations": 2 * MIB,
                          "caches": cache, "workspace": workspace - 2 * MIB},
            "device": {"source": "nvml", "total": 140 << 30, "before": context,
                       "loaded": context + held + 4 * MIB,
                       "peak": context + held + cache + workspace + 9 * MIB,
                       "end": context + held + cache + workspace + 9 * MIB}}
        prefill, first, decode = (timing(x / 1e3, 0.005) for x in (
            prompt, prompt + token, 64 * token))
        for times, count in ((prefill, 6), (decode, 64)):
            times["device_samples_s"] = [rounded(x + 9e-6) for x in times["samples_s"]]
            times["device_median_s"] = rounded(times["median_s"] + 9e-6)
            joules = rounded(watts * 1.02)
            times["energy"] = {"joules": joules, "seconds": 1.02, "mean_watts": watts,
                               "joules_per_token": rounded(watts * times["median_s"] / count)}
        run["prefill"] = {"tokens": 6, "batch": 1} | prefill | {
            "tokens_per_s": rounded(6 / prefill["median_s"])}
        run["time_to_first_token"] = first
        run["decode"] = {"new_tokens": 64, "batch": 1} | decode | {
            "ms_per_token": rounded(decode["median_s"] * 1000 / 64),
            "tokens_per_s": rounded(64 / decode["median_s"]),
            "read_bytes_per_s": rounded(64 * run["weights"]["read_bytes"] / decode["median_s"])}
        if runs:
            base, (d, dci), (p, pci) = runs[0], *[
                ratio(runs[0][k]["median_s"], run[k]["median_s"]) for k in ("decode", "prefill")]
            energy = [rounded(run[k]["energy"]["joules_per_token"] /
                              base[k]["energy"]["joules_per_token"]) for k in ("decode", "prefill")]
            run["vs_baseline"] = {
                "baseline": "fp16",
                "weights_ratio": rounded(held / base["weights_bytes"]),
                "memory_ratio": rounded((held + 4 * MIB) / (base["weights_bytes"] + 4 * MIB)),
                "decode_speedup": d, "decode_speedup_ci95": dci, "prefill_speedup": p,
                "prefill_speedup_ci95": pci, "interleaved": True,
                "decode_energy_ratio": energy[0], "prefill_energy_ratio": energy[1]}
        runs.append(run)
    runs.append({"model": model, "precision": "fp32", "device": "cuda:1", "status": "error",
                 "error": "out of memory on cuda:1: the key cache takes 12.0 GiB, and 3.1 GiB of "
                          "139.7 GiB are free; use a smaller --batch, fewer --prompt-tokens or "
                          "--new-tokens (a batch of 8 fits), or a lower precision: the weights "
                          "take about 2.3 GiB at fp16, 1.4 GiB at int8, 1001.9 MiB at nf4 instead "
                          "of 4.6 GiB"})
    return runs


def model(name, path, architecture, kind, task, parameters, layers, vocab):
    return {"name": name, "path": path, "architecture": architecture, "model_type": kind,
            "task": task, "parameters": parameters, "dtype": "float16", "hidden_size": 256,
            "num_hidden_layers": layers, "vocab_size": vocab, "random_weights": False,
            "checkpoint_bytes": 13940112}


models = [
    model("mini-gpt2", "/home/someone/models/" + "a-very-long-directory-name/" * 8 + "mini-gpt2",
          "GPT2LMHeadModel", "gpt2", "decoder", 6967296, 4, 8192),
    model("mini-distilbert-sst2", "models/demo-classifier",
          "DistilBertForSequenceClassification", "distilbert", "classifier", 5455106, 3, 8192),
    model("mini-llama", "models/mini-llama", "LlamaForCausalLM", "llama", "decoder", 1235814400, 16,
          128256)]
document = {
    "schema": "bitgauge/1", "version": "0.1.0", "created": "2026-11-22T04:00:00Z",
    "command": "bitgauge compare 'models/a & b' --precision "
               "fp32,fp16,bf16,int8,nf4,nf4-dq,fp4,fp4-dq --device cpu --threads 2 "
               "--html bitgauge-report.html",
    "machine": {"cpu": "AMD EPYC <9354>", "architecture": "x86_64", "logical_processors": 2,
                "memory_bytes": 16 << 30, "os": "Debian GNU/Linux 12 (bookworm)",
                "kernel": "6.1.0-28-amd64", "isa": "avx512-vnni",
                "bandwidth_bytes_per_s": 21.4e9,
                "gpus": [{"device": "cuda:1", "name": "NVIDIA H200 <NVL>", "memory_bytes": 140 << 30,
                          "compute_capability": "9.0", "multiprocessors": 132, "driver": "13.0",
                          "bandwidth_bytes_per_s": 4.09e12}]},
    "model": models[0], "models": models,
    "runs": decoder_runs("mini-gpt2") + classifier_runs("mini-distilbert-sst2") +
            gpu_runs("mini-llama")}
print(json.dumps(document, ensure_ascii=False, indent=1))

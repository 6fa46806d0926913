"""calm (github.com/zeux/calm) as a peer at the Llama shape: a model of random weights in its format, and its own figure."""

import json
import re
import statistics
import struct
import subprocess

from random_llama import Weights

PROMPT = "abcdef"  # a token for each letter


def shapes(config, head, kv):
    """Yields (calm's name, shape) of every tensor of weights."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    yield "model.embed.weight", (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for name, *shape in (("attn.norm", hidden), ("attn.wq", heads * head, hidden), ("attn.wk", kv * head, hidden),
                             ("attn.wv", kv * head, hidden), ("attn.wo", hidden, heads * head), ("mlp.norm", hidden),
                             ("mlp.w1", inner, hidden), ("mlp.w2", hidden, inner), ("mlp.w3", inner, hidden)):
            yield f"{layer}{name}.weight", tuple(shape)
    yield "model.norm.weight", (hidden,)
    if not config.get("tie_word_embeddings"):
        yield "model.output.weight", (config["vocab_size"], hidden)


def write(path, config):
    """Weights in fp16, and a tokenizer of printable characters. It has neither a first nor a last token, so that nothing ends
    early."""
    heads, vocab = config["num_attention_heads"], config["vocab_size"]
    kv, head = config.get("num_key_value_heads", heads), config.get("head_dim") or config["hidden_size"] // heads
    header, at = {"__metadata__": {k: str(v) for k, v in dict(
        arch="llama", dtype="fp16", dim=config["hidden_size"], hidden_dim=config["intermediate_size"], head_dim=head,
        n_layers=config["num_hidden_layers"], n_heads=heads, n_kv_heads=kv, vocab_size=vocab,
        max_seq_len=config["max_position_embeddings"], bos_token_id=-1, eos_token_id=-1, rotary_dim=head,
        rope_theta=config.get("rope_theta", 10000.0), norm_eps=config["rms_norm_eps"], norm_type="rmsnorm",
        act_type=config["hidden_act"]).items()}}, 0
    tokens = b"".join((bytes((32 + i,)) if i < 95 else b"[w%d]" % i) + b"\0" for i in range(vocab))

    def place(name, kind, shape, length):
        nonlocal at
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + length]}
        at += length

    for name, shape in shapes(config, head, kv):
        place(name, "F16" if len(shape) > 1 else "F32", shape, 2 * shape[0] * shape[1] if len(shape) > 1 else 4 * shape[0])
    place("tokenizer.tokens", "U8", (len(tokens),), len(tokens))
    place("tokenizer.scores", "F32", (vocab,), 4 * vocab)
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 256)
    weights = Weights()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes(config, head, kv):
            if len(shape) > 1:
                weights.write(file, 2 * shape[0] * shape[1])
            else:
                file.write(struct.pack("<f", 1) * shape[0])
        file.write(tokens)
        file.write(struct.pack(f"<{vocab}f", *(-float(i) for i in range(vocab))))


def measure(program, path, new, runs):
    """The median of its tokens/s, of prompt and new tokens one at a time, as it prints them."""
    command = [program, str(path), "-t", "0", "-n", str(len(PROMPT) + new), "-i", PROMPT, "-r", str(runs)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    rates = [float(x) for x in re.findall(rb"throughput: ([\d.]+) tok/s", answer.stdout)]
    if answer.returncode or not rates:
        raise RuntimeError(f"{program} ended with status {answer.returncode} and {len(rates)} figures")
    return statistics.median(rates)

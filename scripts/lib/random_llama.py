"""A Llama of random weights as files, and a text of random words for it: what a scoring run needs and bench does not."""

import json
import random
import struct

# Values are drawn once and repeated, from one tensor to the next: so no two rows are alike, the period being prime, and no two
# matrices (a gate that is equal to what it multiplies has outliers in most columns).
PERIOD = 1048573


class Weights:
    """The values in fp16, from where the last tensor's ended."""

    def __init__(self):
        draw = random.Random(1)
        self.block = memoryview(struct.pack(f"<{PERIOD}e", *(draw.gauss(0, 0.02) for _ in range(PERIOD))))
        self.at = 0

    def write(self, file, left):
        """So many bytes."""
        while left > 0:
            written = file.write(self.block[self.at : self.at + left])
            left -= written
            self.at = (self.at + written) % len(self.block)


def tensors(config):
    """Yields (name, shape) of every tensor."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield layer + name + ".weight", (hidden,)
        for name, rows, cols in (("self_attn.q_proj", queries, hidden), ("self_attn.k_proj", keys, hidden),
                                 ("self_attn.v_proj", keys, hidden), ("self_attn.o_proj", hidden, queries),
                                 ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden),
                                 ("mlp.down_proj", hidden, inner)):
            yield layer + name + ".weight", (rows, cols)
    yield "model.norm.weight", (hidden,)
    if not config.get("tie_word_embeddings"):
        yield "lm_head.weight", (config["vocab_size"], hidden)


def write(directory, config):
    """config.json, model.safetensors in fp16, and a tokenizer whose words are w0, w1, ..."""
    weights = Weights()
    header, at = {}, 0
    for name, shape in tensors(config):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + 2 * count]}
        at += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(directory / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in header.values():
            begin, end = tensor["data_offsets"]
            if len(tensor["shape"]) == 1:
                file.write(struct.pack("<e", 1) * tensor["shape"][0])
                continue
            weights.write(file, end - begin)
    (directory / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}))
    vocabulary = {f"w{i}": i for i in range(config["vocab_size"])}
    (directory / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"}}))


def write_text(path, config, count):
    """A text of so many words; returns their ids."""
    draw = random.Random(2)
    ids = [draw.randrange(1, config["vocab_size"]) for _ in range(count)]
    path.write_text(" ".join(f"w{i}" for i in ids))
    return ids

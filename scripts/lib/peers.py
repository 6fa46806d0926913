"""transformers' side of scripts/bench-gpu: the same work with random weights, its linear layers replaced by those of
bitsandbytes for int8 and 4 bits as transformers itself replaces them (all but the output head)."""

import gc
import statistics
import time

import torch
import transformers

try:
    import bitsandbytes as bnb
except Exception as error:
    bnb, why_not = None, error

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def quantize(model, precision, device):
    """Replaces the linear layers in place."""
    if bnb is None:
        raise RuntimeError(f"bitsandbytes cannot be imported: {why_not}")
    head = model.get_output_embeddings()
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            turned = isinstance(layer, transformers.pytorch_utils.Conv1D)
            if layer is head or not (turned or type(layer) is torch.nn.Linear):
                continue
            weight = (layer.weight.T.contiguous() if turned else layer.weight).data.cpu()
            rows, cols = weight.shape
            biased = layer.bias is not None
            if precision == "int8":
                new = bnb.nn.Linear8bitLt(cols, rows, biased, has_fp16_weights=False, threshold=6.0)
                new.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
            else:
                kind, _, twice = precision.partition("-")
                new = bnb.nn.Linear4bit(cols, rows, biased, compute_dtype=torch.float16, quant_type=kind,
                                        compress_statistics=bool(twice))
                new.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type=kind,
                                               compress_statistics=bool(twice))
            if biased:
                new.bias = torch.nn.Parameter(layer.bias.data, requires_grad=False)
            setattr(module, name, new.to(device))
            layer.weight = None
    return model


class Peers:
    def __init__(self, device):
        self.device = torch.device(device)
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__,
                         "bitsandbytes": bnb.__version__ if bnb else None}
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.manual_seed(0)

    def forget(self):
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def clock(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def summary(self, samples):
        return {"median_s": statistics.median(samples), "samples_s": samples}

    def model(self, shape, precision):
        config = transformers.AutoConfig.from_pretrained(shape)
        cls = getattr(transformers, config.architectures[0])
        with self.device:
            model = cls._from_config(config, dtype=DTYPES.get(precision, torch.float16)).eval()
        return model if precision in DTYPES else quantize(model, precision, self.device)

    def inputs(self, row, config):
        """The same lengths as bitgauge's; an image before the prompt where the model has eyes."""
        vocabulary = config.get_text_config().vocab_size
        ids = torch.arange(row.batch * row.prompt, device=self.device).reshape(row.batch, -1) * 7919 % (vocabulary - 2)
        ids += 2  # the first are for special use
        inputs = {}
        if hasattr(config, "vision_config"):
            ids[ids == config.image_token_id] -= 1
            vision = config.vision_config
            image = torch.full((row.batch, (vision.image_size // vision.patch_size) ** 2), config.image_token_id,
                               device=self.device)
            ids = torch.cat([image, ids], dim=1)
            inputs["pixel_values"] = torch.rand(row.batch, 3, vision.image_size, vision.image_size, device=self.device)
        return inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    @torch.inference_mode()
    def measure(self, row, shape, precision, runs, compiled=False):
        """Seconds of each run: all new tokens, the prompt included, or a classifier's pass."""
        if self.device.type == "cpu" and precision == "fp16":
            precision = "fp32"
        model = self.model(shape, precision)
        inputs = self.inputs(row, model.config)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        if compiled:
            model.compile(mode="reduce-overhead")
        if row.new:
            def work():
                return model.generate(**inputs, min_new_tokens=row.new, max_new_tokens=row.new, do_sample=False,
                                      pad_token_id=0)
            warm_up = 1
        else:
            def work():
                return model(**inputs).logits
            warm_up, runs = 10, 50
        for _ in range(warm_up):
            work()
        samples = []
        for _ in range(runs):
            start = self.clock()
            work()
            samples.append(self.clock() - start)
        return samples

    @torch.inference_mode()
    def score(self, directory, ids, precision, length, stride):
        """Seconds of scoring each token once in windows, one window at a time; twice, for a warm run."""
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=DTYPES.get(precision, torch.float16))
        model = model.to(self.device).eval()
        if precision not in DTYPES:
            model = quantize(model, precision, self.device)
        ids = torch.tensor(ids, device=self.device)
        samples = []
        for _ in range(2):
            start, nll = self.clock(), 0.0
            for first in range(0, len(ids) - length + 1, stride):
                window = ids[first : first + length]
                logits = model(window[None]).logits[0, :-1].float()
                scored = length - 1 if first == 0 else stride
                nll += torch.nn.functional.cross_entropy(logits[-scored:], window[-scored:], reduction="sum").item()
            samples.append(self.clock() - start)
        return samples[1:]

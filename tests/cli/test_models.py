"""Every architecture through the program: the tiny checkpoints with a vocabulary of their own, the true shapes of
published models with random weights, and a picture."""

import json
import pathlib
import shutil

from common import FILE, FORMAT, SOURCE, UNSUPPORTED, USAGE, ProgramTest, unittest

FIXTURES = SOURCE / "tests/fixtures"
IMAGES = FIXTURES / "images"


class ModelTest(ProgramTest):
    def with_tokenizer(self, model):
        """A copy of a tiny model beside a tokenizer of whole words, as many as it has embeddings."""
        target = self.scratch / model.replace("/", "-")
        shutil.copytree(FIXTURES / model, target, dirs_exist_ok=True)
        config = json.loads((target / "config.json").read_text())
        size = config.get("vocab_size", 61)
        size = config.get("text_config", {}).get("vocab_size", size)
        words = ["<pad>", "<eos>", "<bos>", "<unk>", "caption", "en", "the", "capital", "of", "is"]
        vocab = {word: i for i, word in enumerate(words)}
        vocab.update({f"w{i}": i for i in range(len(words), size)})
        special = [{"id": vocab[word], "content": word, "special": True, "single_word": False, "lstrip": False,
                    "rstrip": False, "normalized": False} for word in words[:4]]
        (target / "tokenizer.json").write_text(json.dumps({
            "version": "1.0", "added_tokens": special, "normalizer": None,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}}))
        (target / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<bos>", "eos_token": "<eos>"}))
        return target


class EveryArchitecture(ModelTest):
    DECODERS = ["tiny-opt/bin", "tiny-opt/after-projected", "tiny-llama/llama3-scaling", "tiny-mistral/sliding",
                "tiny-qwen2/mixed-windows", "tiny-qwen3/qk-norm", "tiny-gemma/tied", "tiny-phi/partial",
                "tiny-t5/gated-untied", "tiny-paligemma/small"]

    def test_decoders_generate_at_every_kind_of_precision(self):
        for name in self.DECODERS:
            with self.subTest(name):
                report = self.scratch / "report.json"
                self.succeeds("generate", self.with_tokenizer(name), "--prompt", "the capital of w20", "--max-new-tokens",
                              5, "--precision", "fp32,bf16,int8,nf4-dq", "--json", report)
                runs = json.loads(report.read_text())["runs"]
                self.assertEqual([run["status"] for run in runs], ["ok"] * 4)
                for run in runs:
                    one = run["generations"][0]
                    ended = one["finish"] == "eos" and "t5" in name
                    self.assertTrue(ended or len(one["token_ids"]) == 5, one)

    def test_generation_config(self):
        """An answer begins with the tokens that are forced, and ends at any of several end tokens."""
        model = self.with_tokenizer("tiny-t5/relu-tied")
        report = self.scratch / "report.json"

        def answer(**generation):
            (model / "generation_config.json").write_text(json.dumps(generation))
            self.succeeds("generate", model, "--prompt", "the capital of w20", "--max-new-tokens", 8, "--json", report)
            return json.loads(report.read_text())["runs"][0]["generations"][0]

        self.assertEqual(answer(forced_bos_token_id=17, eos_token_id=1)["token_ids"][0], 17)
        one = answer(forced_decoder_ids=[[1, 21], [2, 22], [3, 23]], eos_token_id=1)
        self.assertEqual(one["token_ids"][:3], [21, 22, 23])
        # Whatever it writes fourth, as one of several end tokens, is then its last.
        fourth = one["token_ids"][3]
        one = answer(forced_decoder_ids=[[1, 21], [2, 22], [3, 23]], eos_token_id=[1, fourth])
        self.assertEqual((one["token_ids"], one["finish"]), ([21, 22, 23, fourth], "eos"))
        for wrong in ({"forced_decoder_ids": [[1, 5], [3, 6]]}, {"forced_bos_token_id": 9000}, {"eos_token_id": "a"}):
            (model / "generation_config.json").write_text(json.dumps(wrong))
            result = self.fails((FORMAT, UNSUPPORTED), "generate", model, "--prompt", "the")
            self.assertIn("generation_config.json", result.err)

    def test_classifiers(self):
        data = self.scratch / "data.tsv"
        data.write_text("sentence\tlabel\nthe capital of w20\t0\nw21 is w22\t1\n")
        for name in ["tiny-bert/two-labels", "tiny-roberta/two-labels", "tiny-distilbert/two-labels"]:
            with self.subTest(name):
                report = self.scratch / "report.json"
                self.succeeds("classify", self.with_tokenizer(name), "--data", data, "--max-length", 16, "--precision",
                              "fp32,int8,nf4", "--json", report)
                for run in json.loads(report.read_text())["runs"]:
                    self.assertEqual(run["accuracy"]["total"], 2)

    def test_published_shapes_run_with_random_weights(self):
        # The small ones; the others take gigabytes.
        for name in ["distilgpt2", "opt-125m", "distilbert-sst2", "smollm-135m"]:
            with self.subTest(name):
                report = self.scratch / "report.json"
                self.succeeds("bench", "--random-weights", FIXTURES / "shapes" / name, "--precision", "nf4", "--runs", 1,
                              "--prompt-tokens", 4, "--new-tokens", 2, "--json", report, timeout=600)
                (run,) = json.loads(report.read_text())["runs"]
                self.assertEqual(run["status"], "ok")
                self.assertGreater(run["weights_bytes"], 3e7)

    def test_encoder_decoders_are_timed(self):
        report = self.scratch / "report.json"
        self.succeeds("bench", self.with_tokenizer("tiny-t5/relu-tied"), "--precision", "fp32,int8", "--runs", 2,
                      "--batch", 2, "--json", report)
        for run in json.loads(report.read_text())["runs"]:
            self.assertEqual(run["decode"]["batch"], 2)


class Pictures(ModelTest):
    def generate(self, *arguments):
        report = self.scratch / "report.json"
        self.succeeds("generate", self.with_tokenizer("tiny-paligemma/small"), "--prompt", "caption en",
                      "--max-new-tokens", 6, "--json", report, *arguments)
        (run,) = json.loads(report.read_text())["runs"]
        return run["generations"][0]

    def test_a_picture_changes_the_text(self):
        config = json.loads((FIXTURES / "tiny-paligemma/small/config.json").read_text())["vision_config"]
        patches = (config["image_size"] // config["patch_size"]) ** 2
        plain = self.generate()
        jpeg = self.generate("--image", IMAGES / "large.jpg")
        png = self.generate("--image", IMAGES / "square.png")
        self.assertEqual(jpeg["prompt_tokens"], plain["prompt_tokens"] + patches)
        self.assertEqual(jpeg["image"], str(IMAGES / "large.jpg"))
        self.assertNotIn("image", plain)
        texts = {tuple(one["token_ids"]) for one in (plain, jpeg, png)}
        self.assertGreater(len(texts), 1)

    def test_pictures_in_bench(self):
        report = self.scratch / "report.json"
        self.succeeds("bench", FIXTURES / "tiny-paligemma/small", "--prompt-tokens", 6, "--new-tokens", 4, "--runs", 2,
                      "--batch", 2, "--precision", "fp32,int8", "--json", report)
        run = json.loads(report.read_text())["runs"][0]
        self.assertGreater(run["prefill"]["tokens"], 6)

    def test_mistakes(self):
        model = self.with_tokenizer("tiny-paligemma/small")
        damaged = self.scratch / "damaged.png"
        damaged.write_bytes((IMAGES / "square.png").read_bytes()[:200])
        text = self.scratch / "text.png"
        text.write_text("no picture")
        for code, path in [(FILE, "nowhere.png"), (FORMAT, damaged), ((FORMAT, UNSUPPORTED), text)]:
            with self.subTest(path):
                result = self.fails(code, "generate", model, "--image", path, "--prompt", "caption")
                self.assertIn(pathlib.Path(path).name, result.err)
        result = self.fails(UNSUPPORTED, "generate", "models/demo-decoder", "--image", IMAGES / "square.png")
        self.assertIn("image", result.err)
        self.fails(USAGE, "generate", model, "--image")


if __name__ == "__main__":
    unittest.main()

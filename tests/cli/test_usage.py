"""Options, help, errors and exit codes: what needs no model to run."""

import json
import os
import re
import shutil
import subprocess
import unittest

from common import (CLASSIFIER, COMMANDS, DECODER, FILE, FORMAT, OUTPUT, PRECISIONS,
                    PRECISIONS_ON_REQUEST, ROW, UNSUPPORTED, USAGE, ProgramTest)


class Help(ProgramTest):
    def test_every_command_has_help_with_examples(self):
        for command in COMMANDS:
            texts = {self.succeeds(*arguments).out
                     for arguments in ([command, "--help"], [command, "-h"], ["help", command])}
            self.assertEqual(len(texts), 1, f"{command}: three ways to ask, different answers")
            text = texts.pop()
            self.assertTrue(text.startswith(f"usage: bitgauge {command}"), text)
            if command != "version":
                self.assertIn(f"\n  bitgauge {command}", text, "no example")
            for line in text.splitlines():
                if not line.startswith("  bitgauge "):
                    self.assertLessEqual(len(line), 80, line)

    def test_program_help_lists_commands_and_exit_codes(self):
        texts = {self.succeeds(*arguments).out for arguments in (["help"], ["--help"], ["-h"])}
        self.assertEqual(len(texts), 1)
        text = texts.pop()
        for command in COMMANDS:
            self.assertRegex(text, rf"\n  {command} +\S")
        for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 130):
            self.assertRegex(text, rf"\n  {code} +\S")
        self.assertNotIn("worker", text)

    def test_help_shows_defaults(self):
        text = " ".join(self.succeeds("compare", "--help").out.split())
        self.assertIn("(default: " + ",".join(PRECISIONS) + ")", text)
        self.assertIn("tokens decoded after the prompt (default: 50)", text)
        self.assertIn("(default: cpu)", text)
        text = " ".join(self.succeeds("perplexity", "--help").out.split())
        self.assertIn("(default: fp32)", text)
        self.assertIn("(default: lines)", text)
        self.assertIn("(default: 200)", text)

    def test_help_wins_over_missing_arguments(self):
        self.succeeds("perplexity", "--text", "nowhere", "--help")

    def test_version(self):
        version = self.succeeds("version").out
        self.assertRegex(version, r"^bitgauge \d+\.\d+\.\d+\n$")
        self.assertEqual(version, self.succeeds("--version").out)


class ManualPage(ProgramTest):
    def test_has_every_option_and_exit_code(self):
        page = self.succeeds("man").out
        self.assertTrue(page.startswith(".TH BITGAUGE 1 "))
        plain = page.replace("\\-", "-")
        for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "EXIT STATUS", "ENVIRONMENT",
                        "FILES"):
            self.assertIn(f"\n.SH {section}\n", page)
        for command in COMMANDS:
            self.assertIn(f'\n.SS "bitgauge {command}', page)
            for option in re.findall(r"^  (--[a-z-]+)", self.succeeds("help", command).out, re.M):
                self.assertIn(f"\\fB{option}\\fR", plain)
        for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 130):
            self.assertIn(f"\n.B {code}\n", page)

    def test_every_line_is_text_or_a_known_macro(self):
        macros = {"TH", "SH", "SS", "B", "I", "TP", "PP", "nf", "fi", "RS", "RE"}
        for line in self.succeeds("man").out.splitlines():
            if line.startswith("."):
                self.assertIn(line[1:].split(" ")[0], macros, line)
            self.assertFalse(line.startswith("'"), line)
            self.assertNotEqual(line, "")

    @unittest.skipUnless(shutil.which("man") and shutil.which("groff"), "no man or groff here")
    def test_man_has_no_complaints(self):
        path = self.scratch / "bitgauge.1"
        path.write_text(self.succeeds("man").out)
        result = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", str(path)],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                                env=dict(os.environ, MANWIDTH="80", LC_ALL="C.UTF-8"), check=True)
        self.assertEqual(result.stderr.decode(), "")
        plain = re.sub(".\b", "", result.stdout.decode())  # bold is a letter struck twice
        self.assertIn("EXIT STATUS", plain)


class Options(ProgramTest):
    def test_no_command(self):
        self.assertIn("bitgauge help", self.fails(USAGE).err)

    def test_unknown_command(self):
        self.assertIn('did you mean "compare"', self.fails(USAGE, "compre").err)
        self.assertIn("bitgauge help", self.fails(USAGE, "zzzzzz").err)
        self.assertIn("zzzzzz", self.fails(USAGE, "help", "zzzzzz").err)

    def test_unknown_option(self):
        self.assertIn("--threads?", self.fails(USAGE, "compare", "--thread", "2").err)
        self.assertIn("--precision?", self.fails(USAGE, "bench", "m", "--precison=nf4").err)
        self.assertIn("--new-tokens?", self.fails(USAGE, "bench", "m", "--new-token", "4").err)
        self.assertIn("bitgauge bench --help", self.fails(USAGE, "bench", "m", "--zzzzzz").err)
        self.assertIn("-z", self.fails(USAGE, "bench", "m", "-z").err)

    def test_numbers(self):
        for value in ("2x", "", " 2", "1.5", "two", "0x10", "1e3"):
            self.assertIn("whole number", self.fails(USAGE, "compare", f"--threads={value}").err)
        for value in ("0", "-1", "99999999999999999999"):
            self.assertIn("between 1 and", self.fails(USAGE, "compare", "--threads", value).err)
        self.assertIn("a number", self.fails(USAGE, "generate", "m", "--top-p", "nan").err)
        self.assertIn("a number", self.fails(USAGE, "generate", "m", "--temperature", "1x").err)
        self.assertIn("between 0 and 1", self.fails(USAGE, "generate", "m", "--top-p", "1.5").err)
        self.assertIn("--seed", self.fails(USAGE, "generate", "m", "--seed", "-1").err)

    def test_values(self):
        self.assertIn("needs a value", self.fails(USAGE, "compare", "--json").err)
        self.assertIn("needs a value", self.fails(USAGE, "compare", "--json", "--md", "x").err)
        self.assertIn("takes no value", self.fails(USAGE, "classify", "m", "--pad=yes").err)

    def test_arguments(self):
        self.assertIn("MODEL", self.fails(USAGE, "perplexity").err)
        self.assertIn('"b"', self.fails(USAGE, "perplexity", "a", "b").err)
        self.assertIn('"--no"', self.fails(USAGE, "perplexity", "a", "--", "--no").err)
        self.assertIn("--random-weights", self.fails(USAGE, "bench").err)
        self.assertIn("both", self.fails(USAGE, "bench", "a", "--random-weights", "b").err)

    def test_lists(self):
        error = self.fails(USAGE, "compare", "--precision", "fp32,int3").err
        self.assertIn('"int3"', error)
        for precision in PRECISIONS + PRECISIONS_ON_REQUEST:
            self.assertIn(precision, error)
        self.assertIn("empty", self.fails(USAGE, "compare", "--precision", "fp32,,nf4").err)
        self.assertIn("empty", self.fails(USAGE, "compare", "--precision", "").err)
        error = self.fails(USAGE, "perplexity", "m", "--protocol", "slidin").err
        self.assertIn('"sliding"', error)
        self.assertIn("--skip", self.fails(USAGE, "compare", "--skip", "speed").err)
        everything = "bench,perplexity,classify,generate"
        self.assertIn("nothing", self.fails(USAGE, "compare", "--skip", everything).err)

    def test_stride_longer_than_window(self):
        self.fails(USAGE, "perplexity", "m", "--max-length", "64", "--stride", "65")

    def test_worker_is_not_for_hands(self):
        result = self.run_program("worker", "extra")
        self.assertEqual(result.returncode, USAGE)


class Outputs(ProgramTest):
    """Where a report cannot go is said before the work, not after."""

    def test_unwritable(self):
        error = self.fails(OUTPUT, "compare", "--json", self.scratch / "no" / "x.json").err
        self.assertIn("x.json", error)
        self.assertIn("directory", self.fails(OUTPUT, "compare", "--html", self.scratch).err)
        self.assertIn("name of a file", self.fails(USAGE, "compare", "--csv=").err)

    def test_two_reports_in_one_file(self):
        self.assertIn("--md", self.fails(USAGE, "compare", "--csv", "-", "--md", "-").err)

    def test_full_device(self):
        for arguments in (["help"], ["compare", "--help"], ["version"], ["man"],
                          ["tokenize", DECODER, "--text", "a"], ["inspect", DECODER]):
            with open("/dev/full", "w") as full:
                self.fails(OUTPUT, *arguments, stdout=full)

    def test_closed_pipe(self):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as broken:
            self.fails(OUTPUT, "help", stdout=broken)


class Files(ProgramTest):
    def test_missing_model(self):
        nowhere = self.scratch / "nowhere"
        for arguments in (["compare", nowhere], ["perplexity", nowhere], ["classify", nowhere],
                          ["generate", nowhere], ["bench", nowhere], ["inspect", nowhere],
                          ["bench", "--random-weights", nowhere],
                          ["tokenize", nowhere, "--text", "a"]):
            self.assertIn("nowhere", self.fails(FILE, *arguments).err)

    def test_directory_without_a_model(self):
        (self.scratch / "empty").mkdir()
        for command in ("compare", "bench", "generate"):
            result = self.fails(FILE, command, self.scratch / "empty")
            self.assertIn("config.json", result.err)

    def test_missing_text_and_data(self):
        missing = self.scratch / "missing.txt"
        for arguments in (["perplexity", DECODER, "--text", missing],
                          ["classify", CLASSIFIER, "--data", missing]):
            self.assertIn("missing.txt", self.fails(FILE, *arguments).err)
        result = self.fails(FILE, "tokenize", DECODER, "--text-file", missing)
        self.assertIn("missing.txt", result.err)

    def test_embedded_data_that_is_not_there(self):
        error = self.fails(FILE, "compare", env={"BITGAUGE_DATA": str(self.scratch)}).err
        self.assertIn("BITGAUGE_DATA", error)

    def test_unknown_architecture(self):
        (self.scratch / "config.json").write_text(json.dumps(
            {"architectures": ["MambaForCausalLM"], "model_type": "mamba", "hidden_size": 64}))
        result = self.fails((UNSUPPORTED, ROW), "bench", "--random-weights", self.scratch)
        self.assertIn("mamba", (result.err + result.out).lower())

    def test_damaged_configuration(self):
        for text in ("", "{", "[1]", '{"a":1,"a":2}', "\xff"):
            (self.scratch / "config.json").write_text(text, encoding="latin-1")
            result = self.fails((FORMAT, UNSUPPORTED, ROW), "bench", "--random-weights",
                                self.scratch)
            self.assertIn("config.json", result.err + result.out)

    def test_unknown_device(self):
        result = self.fails((USAGE, UNSUPPORTED), "bench", DECODER, "--device", "abacus")
        self.assertIn("abacus", result.err)


class Looking(ProgramTest):
    def test_inspect(self):
        for path in (DECODER, f"{DECODER}/model.safetensors"):
            text = self.succeeds("inspect", path).out
            self.assertIn("wte", text)
            value = json.loads(self.succeeds("inspect", path, "--json").out)
            self.assertIsInstance(value, dict)
        out = self.scratch / "inspect.json"
        self.assertEqual(self.succeeds("inspect", DECODER, "--json", out).out, "")
        self.assertEqual(json.loads(out.read_text()),
                         json.loads(self.succeeds("inspect", "--json", DECODER).out))

    def test_devices(self):
        text = self.succeeds("devices", "--threads", "1").out
        for precision in ("fp32", "int8", "nf4"):
            self.assertIn(precision, text)
        self.assertIsInstance(json.loads(self.succeeds("devices", "--json").out), dict)


class Tokenize(ProgramTest):
    TEXT = "The capital of France is Paris, über 2 million — isn't it?\n\n  Indeed."

    def ids(self, *arguments, **options):
        return [int(x) for x in self.succeeds("tokenize", *arguments, "--ids-only",
                                              **options).out.split()]

    def test_round_trip(self):
        ids = self.ids(DECODER, "--text", self.TEXT)
        self.assertGreater(len(ids), 10)
        text = self.succeeds("tokenize", DECODER, "--decode", ",".join(map(str, ids))).out
        self.assertEqual(text, self.TEXT + "\n")

    def test_the_ways_in_agree(self):
        ids = self.ids(DECODER, "--text", self.TEXT)
        path = self.scratch / "text.txt"
        path.write_text(self.TEXT, encoding="utf-8")
        self.assertEqual(ids, self.ids(DECODER, "--text-file", path))
        self.assertEqual(ids, self.ids(DECODER, "--text-file", "-", input=self.TEXT.encode()))
        value = json.loads(self.succeeds("tokenize", DECODER, "--text", self.TEXT, "--json").out)
        self.assertEqual(value["ids"], ids)
        self.assertEqual(value["text"], self.TEXT)
        self.assertEqual(len(value["tokens"]), len(ids))
        table = self.succeeds("tokenize", DECODER, "--text", self.TEXT).out.splitlines()
        self.assertEqual([int(line.split()[0]) for line in table[1:-1]], ids)
        self.assertEqual(table[-1], f"{len(ids)} tokens")

    def test_special_tokens(self):
        plain = self.ids(CLASSIFIER, "--text", "a fine film", "--no-special")
        special = self.ids(CLASSIFIER, "--text", "a fine film")
        self.assertEqual(len(special), len(plain) + 2)
        self.assertEqual(special[1:-1], plain)
        decode = ["tokenize", CLASSIFIER, "--decode", " ".join(map(str, special))]
        self.assertIn("[CLS]", self.succeeds(*decode).out)
        self.assertEqual(self.succeeds(*decode, "--no-special").out, "a fine film\n")

    def test_pairs_truncation_and_padding(self):
        bert = "tests/fixtures/tokenizers/bert"  # cut to 12 tokens, padded to 14
        both = ["--text", "the tide rises", "--pair", "twice a day and more and more words here"]
        value = json.loads(self.succeeds("tokenize", bert, *both, "--truncate", "--pad", "--json").out)
        self.assertEqual(value["attention_mask"], [1] * 12 + [0] * 2)
        self.assertEqual(value["type_ids"], [0] * 6 + [1] * 6 + [0] * 2)
        self.assertEqual([value["tokens"][i] for i in (0, 5, 11, 13)],
                         ["[CLS]", "[SEP]", "[SEP]", "[PAD]"])
        self.assertGreater(len(self.ids(bert, *both)), 14)
        self.fails(USAGE, "tokenize", bert, "--decode", "1", "--pair", "x")

    def test_sentencepiece_file(self):
        t5 = "tests/fixtures/tokenizers/t5"
        value = json.loads(self.succeeds("tokenize", t5, "--text", "the tide <extra_id_0>", "--json").out)
        self.assertEqual(value["tokens"], ["\u2581the", "\u2581tide", "<extra_id_0>", "</s>"])

    def test_nothing_to_tokenize(self):
        self.assertEqual(self.ids(DECODER, "--text", ""), [])
        self.assertEqual(self.succeeds("tokenize", DECODER, "--decode", "").out, "\n")

    def test_errors(self):
        self.fails(USAGE, "tokenize", DECODER)
        self.fails(USAGE, "tokenize", DECODER, "--text", "a", "--decode", "1")
        self.fails(USAGE, "tokenize", DECODER, "--decode", "1,x")
        self.fails(USAGE, "tokenize", DECODER, "--decode=-1")
        self.fails(USAGE, "tokenize", DECODER, "--decode", "2000000000")
        path = self.scratch / "bad.txt"
        path.write_bytes(b"good \xff bad")
        self.assertIn("bad.txt", self.fails(FORMAT, "tokenize", DECODER, "--text-file", path).err)


if __name__ == "__main__":
    unittest.main(verbosity=2)

#!/usr/bin/env python3
"""Writes texts.json: what Hugging Face `tokenizers` makes of texts, for test_reference.c.

    pip install tokenizers
    python tests/tokenizer/make_reference.py

Run in the root of the source tree. Three kinds of reference:
  demo        the two demonstration tokenizers on about a hundred texts, hostile ones included
  components  one small tokenizer for each normalizer, pre-tokenizer, model setting, added-token
              flag, post-processor and decoder
  digests     the whole WikiText-2 test file with the GPT-2, OPT, BERT and small T5 vocabularies, as
              a count and a hash of the ids; made where ../shared is there, else kept from the old file
"""
import json
import os
import random
import sys

import tokenizers
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

OUT = "tests/tokenizer/texts.json"
SHARED = "../shared"
DEMO = {"demo-decoder": "mini-gpt2", "demo-classifier": "mini-distilbert-sst2"}

SPACES = "\t\n\x0b\x0c\r \x85\xa0\u1680\u180e\u2000\u2003\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"

DEMO_TEXTS = [
    "", " ", "  ", "\n", "\n\n\n", " \n ", "a", " a", "a ", "Hello, world!", "hello   world",
    "The quick brown fox jumps over the lazy dog.",
    "I'll they've WE'RE don't can't it's 'twas rock'n'roll o'clock ''s 's",
    "I\u2019ll they\u2019ve don\u2019t \u2018quoted\u2019 \u201cdouble\u201d \u2026 \u2014 \u2013",
    "na\u00efve caf\u00e9 r\u00e9sum\u00e9 \u00e5ngstr\u00f6m \u00c5 \u00df \u1e9e \u00d8re \u0141\u00f3d\u017a",
    "nai\u0308ve cafe\u0301 re\u0301sume\u0301 A\u030angstro\u0308m",
    "\u0130stanbul \u0131s\u0131k I\u0307 i\u0307 DIYARBAKIR", "\u039f\u03b4\u03c5\u03c3\u03c3\u03b5\u03cd\u03c2 \u03a3\u03a3\u03a3 \u03a3",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0419\u043e\u0433 \u0451\u0436",
    "\u6771\u4eac\u90fd\u306b\u884c\u304d\u307e\u3059\u3002\u30ab\u30bf\u30ab\u30ca \uff76\uff80\uff76\uff85",
    "\u4e2d\u6587\u548cEnglish\u6df7\u5408text\u3002\U00020000\U0002a6d6\U0002f800", "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0660\u0661\u0662\u0663 \u061f \u0640\u0640",
    "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05dc\u05dd", "\u0939\u093f\u0928\u094d\u0926\u0940 \u0915\u094d\u0937 \u0967\u0968\u0969",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0e57\u0e58\u0e59", "Ti\u1ebfng Vi\u1ec7t \u0111\u1ee9c \u01a0n",
    "\U0001f600\U0001f44d\U0001f3fd\U0001f1eb\U0001f1f7", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 \u2764\ufe0f",
    "\U0001fae0\U0001fad6\U0001fac3 new emoji", "a\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307 Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f\u031e\u0320\u034dA",
    "\x00", "a\x00b", "\x01\x02\x03\x1f\x7f\x80\x9f", "bell\x07 back\x08space esc\x1b[31mred",
    "soft\u00adhyphen zero\u200bwidth \u200ejoin\u200d\u200cer\u2060 bom\ufeff", "\ufffd\ufffe\uffff \U0010ffff \ue000 \U000f0000",
    "".join(SPACES), "a" + "b".join(SPACES) + "c", " x" + SPACES + "y" + SPACES,
    "tabs\tand\nnewlines\r\n\n x", "trailing spaces   ", "   leading", "one  two   three    four     ",
    "line one\nline two\n\nline four\n", "\r\r\n\n\r", "0 1 12 123 1234 12345 1234567890 007",
    "3.14159 1e-9 0x1F 1,000,000.00 -5 +7 50% $9.99 \u20ac5 \u00a37", "\u00b2\u00b3\u00b9 \u00bd \u00be \u2460 \u2167 \u2170 x\u2082 \u3007 \u4e00\u4e8c\u4e09",
    "1st 2nd 3rd 4th 21st-century 90's", "a@b.com https://x.y/z?q=1&r=2#frag C:\\Users\\x",
    "for (int i = 0; i < n; ++i) { a[i] += b->c; } // comment", "<html><body class=\"x\">&amp;</body></html>",
    "{\"key\": [1, 2.5, null, true]}", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "!!! ??? ... ,,, --- ___ *** ((()))",
    "\u00a1Hola! \u00bfQu\u00e9? \u00abguillemets\u00bb \u201elow\u201c \u2039x\u203a", "\u2200x\u2208\u211d: \u2211\u222b\u221a \u2260 \u2264 \u2265 \u00b1 \u00d7 \u00f7",
    "\u2190\u2191\u2192\u2193 \u25a0\u25b2\u25cf \u2605\u2606 \u2713\u2717 \u266a", "\ufb01ne \ufb02ow \ufb03 \uff26\uff35\uff2c\uff2c \uff57\uff49\uff44\uff54\uff48",
    "\u212b \u2126 \u1e9b\u0323 \u01c4 \u01c5 \u01c6", "\u2e43\u2e52\u166d\U000111c9\U00011660 \u09fd\u0a76", "\U0001e06b's \U000323af'll \U00011bf3", "\u24b6\u24d0 \U0001f130 \u2070 \u0e3f",
    "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>", "<|endoftext", "<|ENDOFTEXT|>",
    "[CLS] a [SEP] b [MASK] c [PAD] d [UNK]", "[cls] [mask]", "x[MASK]y", "[MASK", "[[MASK]]", "<s> </s> <pad> <unk>",
    "##ing ## #hash ###", "\u0120the \u010a \u0100", "_under_score_ snake_case camelCase PascalCase SCREAMING_CASE",
    "anti\u00addis\u00adestablishmentarianism supercalifragilisticexpialidocious", "a" * 99, "b" * 100, "c" * 101, "ab" * 200,
    "\u00e9" * 101, "\u6771" * 60, " " * 300, "\n" * 50 + "x", "'" * 40, "1" * 250, "word " * 60, "-" * 101 + "a",
    "aaaaaaaaab" * 20 + " " + "the" * 50, "\U0001f600" * 40, "e\u0301" * 80,
    "Mr. O'Neill's dog (a 3-year-old) couldn't've said \"no\"...", " = Robert Boulter = \n", " @-@ @,@ @.@ <unk> ",
    "The film, released in 1999, wasn't bad ; it was n't good , either . do not", "a charming , funny and utterly original movie .",
    "\u1160\u115f\u3164\uffa0 \u034f \u17b4 \u180b", "\U0001d400\U0001d504 \U0001d7d8 \U00010400\U00010428 \U00011f50", "\u200f\u202eabc\u202c \u2066x\u2069",
]

# Short, and between them with something for each component to do.
TEXTS = [
    "", " ", "Hello, World!", "  two  spaces  ", "na\u00efve CAF\u00c9 e\u0301\u0323 \u1e69", "\u0130I\u0131 \u03a3\u03c2 \u1e9e",
    "\ufb01 \uff21 \u2460 \u00bd \u212b \uac01 \u1100\u1161", "a\u0315\u0300\u05aeb \u0344\u0958", "x\ty\nz\r\n\u2028w\x85v", "\u6771\u4eac tower \u3042",
    "a\x00b\x01c\u200bd\ufeffe\ufffd", "don't we'll I'M", "abc123 4\u0665\u00b2x", "a.b--c!? (d) \u00ab\u2026\u00bb", "\u00a1$+<=>^`|~", "_a_b c\u203fd",
    "[X] the [X]", "xthe The THE the.", " a [X]  b[X] ", "foobar foo foobarbaz", "\U0001f600\u200d\U0001f44d\ufe0f", "\u0939\u093f\u0928\u094d\u0926\u0940",
    "\u180ea\xa0b\u3000c\u2003", "aaa\n\n bbb \n", "\u24b6\u2160\u2070 \u20dd\u0903", "the\u2581cat\u2581\u2581sat", "1234567 89", "--a--", "Hello hello HELLO hell",
]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def setting(name, normalizer=None, pre_tokenizer=None, decoder=None, post_processor=None, added=(),
            model="characters", edit=None, decode=()):
    """One case; `model` names one of build_models; `edit` changes the JSON; `decode` adds lists of
    tokens to decode."""
    return dict(name=name, normalizer=normalizer, pre_tokenizer=pre_tokenizer, decoder=decoder,
                post_processor=post_processor, added=added, model=model, edit=edit, decode=decode)


def build_cases():
    n, p, d = normalizers, pre_tokenizers, decoders
    cases = [
        setting("none"),
        setting("NFC", n.NFC()), setting("NFD", n.NFD()), setting("NFKC", n.NFKC()), setting("NFKD", n.NFKD()),
        setting("Lowercase", n.Lowercase()), setting("StripAccents", n.StripAccents()),
        setting("NFD+StripAccents", n.Sequence([n.NFD(), n.StripAccents()])),
        setting("Strip", n.Strip()), setting("Strip left", n.Strip(left=True, right=False)),
        setting("Strip right", n.Strip(left=False, right=True)), setting("Nmt", n.Nmt()),
        setting("Replace string", n.Replace("a", "<>")), setting("Replace regex", n.Replace(Regex(r"\s+"), "_")),
        setting("Replace class", n.Replace(Regex(r"[^\S\n]|\w\b|[\Sx]{3}"), "#")),
        setting("Replace boundaries", n.Replace(Regex(r"\b|x\B."), "|")),
        setting("Replace empty", n.Replace("\u2581", "")), setting("Prepend", n.Prepend("\u2581")),
        setting("ByteLevel normalizer", n.ByteLevel()),
        setting("nested sequence", n.Sequence([n.Sequence([n.NFKC(), n.Lowercase()]), n.Replace("x", "yy")])),
        setting("empty sequence", n.Sequence([])),
    ]
    for clean in (True, False):
        for chinese in (True, False):
            cases.append(setting(f"BertNormalizer {clean} {chinese}",
                                 n.BertNormalizer(clean, chinese, None if clean else chinese, chinese)))
    cases += [
        setting("BertNormalizer accents only", n.BertNormalizer(False, False, True, False)),
        setting("BertNormalizer case only", n.BertNormalizer(False, False, False, True)),
        setting("ByteLevel", None, p.ByteLevel(add_prefix_space=False), d.ByteLevel()),
        setting("ByteLevel prefix", None, p.ByteLevel(add_prefix_space=True), d.ByteLevel()),
        setting("ByteLevel no regex", None, p.ByteLevel(add_prefix_space=True, use_regex=False), d.ByteLevel()),
        setting("BertPreTokenizer", None, p.BertPreTokenizer(), d.WordPiece()),
        setting("Whitespace", None, p.Whitespace(), d.WordPiece(cleanup=False)),
        setting("WhitespaceSplit", None, p.WhitespaceSplit()),
        setting("Digits", None, p.Digits()), setting("Digits individual", None, p.Digits(individual_digits=True)),
        setting("CharDelimiterSplit", None, p.CharDelimiterSplit(" ")),
        setting("Split LLaMA 3", None, p.Sequence([p.Split(Regex(LLAMA3), "isolated"), p.ByteLevel(False, use_regex=False)]), d.ByteLevel()),
        setting("Split GPT-4o", None, p.Split(Regex(GPT4O), "removed", invert=True)),
        setting("Split lines", None, p.Split(Regex(r"^.|.$|\h"), "isolated")),
        setting("Split repeats", None, p.Split(Regex(r"a{,2}b|(?m:e.)|[[:punct:]]|[[:alpha:]\p{N}]\d"), "removed")),
        setting("Split empty matches", None, p.Split(Regex(r"x*"), "isolated")),
        setting("Split empty string", None, p.Split("", "isolated")),
        setting("Sequence", None, p.Sequence([p.WhitespaceSplit(), p.Punctuation(), p.Digits(True)])),
    ]
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        cases.append(setting(f"Punctuation {behavior}", None, p.Punctuation(behavior)))
        for invert in (False, True):
            cases.append(setting(f"Split {behavior} {invert}", None, p.Split("a", behavior, invert)))
            cases.append(setting(f"Split regex {behavior} {invert}", None, p.Split(Regex(r"\w\w|\s"), behavior, invert)))
    marks = dict(normalized=False, special=True)
    special = [AddedToken("[X]", **marks)]
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            cases.append(setting(f"Metaspace {scheme} {split}", None, p.Metaspace(prepend_scheme=scheme, split=split),
                                 d.Metaspace(prepend_scheme=scheme, split=split), added=special))
    # What comes before the text that is left decides whether that is the first.
    for name, normalizer in (("Strip", n.Strip()), ("Nmt", n.Nmt()), ("Bert", n.BertNormalizer()),
                             ("StripAccents", n.StripAccents()), ("Replace", n.Replace(Regex(r"^\w"), "")),
                             ("Replace two", n.Replace("  ", "x")), ("Prepend", n.Prepend("x")), ("NFKC", n.NFKC())):
        cases.append(setting(f"Metaspace first after {name}", normalizer, p.Metaspace(prepend_scheme="first"),
                             d.Metaspace(prepend_scheme="first"), added=special))
    for name, splitter in (("WhitespaceSplit", p.WhitespaceSplit()), ("Whitespace", p.Whitespace()),
                           ("Bert", p.BertPreTokenizer()), ("UnicodeScripts", p.UnicodeScripts()),
                           ("Split", p.Split(Regex(r"\W"), "removed")), ("Digits", p.Digits())):
        cases.append(setting(f"Metaspace first after {name}", None,
                             p.Sequence([splitter, p.Metaspace(replacement="_", prepend_scheme="first")])))
    cases += [
        setting("UnicodeScripts", None, p.UnicodeScripts()), setting("FixedLength", None, p.FixedLength(3)),
        setting("WordLevel", None, p.Whitespace(), model="wordlevel"),
        setting("CTC", None, p.WhitespaceSplit(), d.CTC("##l", "|", False)),
        setting("CTC cleanup", None, p.Sequence([p.Split("", "isolated")]), d.CTC("a", "e", True)),
        setting("Unigram", None, p.Metaspace(), d.Metaspace(), added=special, model="unigram"),
        setting("Unigram whole", None, None, model="unigram"),
        setting("Unigram bytes", None, p.Metaspace(split=False), d.Sequence([d.ByteFallback(), d.Metaspace()]), model="unigram bytes"),
        setting("Unigram odd scores", None, None, model="unigram odd"),
        setting("added", None, p.Whitespace(), added=[AddedToken("[X]", **marks), AddedToken("the", normalized=False)]),
        setting("added single_word", None, p.Whitespace(), added=[AddedToken("the", single_word=True, normalized=False), AddedToken("foo", single_word=True, normalized=False)]),
        setting("added lstrip", None, None, added=[AddedToken("[X]", lstrip=True, **marks)]),
        setting("added rstrip", None, None, added=[AddedToken("[X]", rstrip=True, **marks)]),
        setting("added strip", None, p.ByteLevel(True), d.ByteLevel(), added=[AddedToken("[X]", lstrip=True, rstrip=True, **marks)]),
        setting("added normalized", n.Lowercase(), p.Whitespace(), added=[AddedToken("The", normalized=True), AddedToken("HELLO", normalized=True, special=True)]),
        setting("added mixed", n.Lowercase(), p.Whitespace(), added=[AddedToken("The", normalized=False), AddedToken("hello", normalized=True), AddedToken("[X]", normalized=True)]),
        setting("added longest", None, None, added=[AddedToken(t, normalized=False) for t in ("foo", "foobar", "fo", "bar", "barbaz")]),
        setting("added normalized by bytes", n.ByteLevel(), None, d.ByteLevel(), added=[AddedToken("\u00e9", normalized=True), AddedToken("e\u0301", normalized=True)]),
        setting("template", None, p.Whitespace(), added=[AddedToken("[X]", **marks), AddedToken("[Y]", **marks)],
                post_processor=processors.TemplateProcessing(single="[X] [Y] $A [Y] [X]", special_tokens=[("[X]", 1), ("[Y]", 2)])),
        setting("BertProcessing", None, p.Whitespace(), post_processor=processors.BertProcessing(("b", 2), ("a", 1))),
        setting("RobertaProcessing", None, p.ByteLevel(True), post_processor=processors.RobertaProcessing(("b", 2), ("a", 1))),
        setting("processor sequence", None, p.ByteLevel(True), post_processor=processors.Sequence(
            [processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="a $A b", special_tokens=[("a", 1), ("b", 2)])])),
        setting("WordPiece short words", None, p.Whitespace(), model="short words"),
        setting("BPE", None, p.Whitespace(), model="bpe"),
        setting("BPE merges as strings", None, p.Whitespace(), model="bpe strings"),
        setting("BPE unk", None, p.Whitespace(), model="bpe unk"), setting("BPE fused unk", None, p.Whitespace(), model="bpe fused unk"),
        setting("BPE prefix", None, p.Whitespace(), d.WordPiece(), model="bpe prefix"),
        setting("BPE suffix", None, p.Whitespace(), d.BPEDecoder(suffix="</w>"), model="bpe suffix"),
        setting("BPE ignore merges", None, p.Whitespace(), model="bpe ignore merges"),
        setting("BPE bytes", n.Sequence([n.Prepend("\u2581"), n.Replace(" ", "\u2581")]), None,
                d.Sequence([d.Replace("\u2581", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)]), model="bpe bytes",
                decode=[["<0xE6>", "<0x9D>", "<0xB1>", "a"], ["<0xE6>", "<0x9D>", "a", "<0x41>"], ["\u2581", "\u2581a", "<0xFF>"], []]),
        # Of tokens shorter than what both ends may lose, the library fails; so one end at a time.
        setting("decoder Strip left", None, p.WhitespaceSplit(), d.Strip("#", 2, 0), decode=[["b", "##c"], ["##a"]]),
        setting("decoder Strip right", None, p.WhitespaceSplit(), d.Strip("a", 0, 1), decode=[["a", "##c"], ["##a"]]),
        setting("decoder Replace regex", None, p.WhitespaceSplit(), d.Replace(Regex("[ae]"), "(v)")),
        setting("decoder WordPiece", None, p.WhitespaceSplit(), d.WordPiece(prefix="##", cleanup=True),
                decode=[["a", ".", "?", "!", ",", "'", "##'"], ["##a", "##b", "n", "##'", "##t"], []]),
        setting("decoder ByteLevel foreign", None, p.WhitespaceSplit(), d.ByteLevel(), decode=[["\u4eac", "a"], ["\u00e9"], ["\u00ef", "\u00e9", "\u6771"]]),
    ]
    return cases


def build_models(characters):
    """name -> model in tokenizer.json's form."""
    vocab = {}
    for c in sorted(characters):
        vocab[c] = len(vocab) + 20
        vocab["##" + c] = len(vocab) + 20
    for i, t in enumerate(["[UNK]", "a", "b", "c"]):
        vocab[t] = i
    wordpiece = dict(type="WordPiece", unk_token="[UNK]", continuing_subword_prefix="##",
                     max_input_chars_per_word=100, vocab=vocab)

    def bpe(**options):
        fallback = options.pop("bytes", False)
        tokenizer = Tokenizer(models.BPE(unk_token=options.get("unk_token")))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        keep = {k: v for k, v in options.items() if k in ("continuing_subword_prefix", "end_of_word_suffix")}
        tokenizer.train_from_iterator(
            ["hello hell the then them foo bar foobar foobarbaz baz two spaces world word naive cafe abc a b c d"] * 3,
            trainers.BpeTrainer(vocab_size=120, min_frequency=1, show_progress=False, special_tokens=["<unk>"], **keep))
        model = json.loads(tokenizer.to_str())["model"]
        if fallback:
            for b in range(256):
                model["vocab"][f"<0x{b:02X}>"] = len(model["vocab"])
            for t in ("\u2581", "\u2581a", "\u2581the"):
                model["vocab"][t] = len(model["vocab"])
            model["merges"] += [["\u2581", "a"], ["\u2581", "the"]]
        model.update(options)
        return model

    def unigram(byte_fallback=False, shift=0.0):
        pieces = [["<unk>", 0.0], ["\u2581", -2.0], ["a", -3.0], ["b", -3.5], ["the", -4.0], ["\u2581the", -4.5], ["he", -4.2],
                  ["l", -3.9], ["ll", -5.0], ["o", -3.3], ["t", -3.8], ["h", -3.8], ["e", -3.1], ["hell", -6.0], ["\u2581hell", -6.5],
                  ["oo", -6.6], ["foo", -7.0], ["\u6771\u4eac", -8.0], ["e\u0301", -7.5], ["aa", -6.0], ["aaa", -9.0], ["a", -3.25]]
        if byte_fallback:
            pieces += [[f"<0x{b:02X}>", -9.5] for b in range(256)]
        return dict(type="Unigram", unk_id=0, byte_fallback=byte_fallback, vocab=[[t, s + shift] for t, s in pieces])

    plain = bpe()
    ignoring = bpe(ignore_merges=True)
    ignoring["vocab"]["Hello"] = len(ignoring["vocab"])
    return {
        "characters": wordpiece,
        "wordlevel": dict(type="WordLevel", unk_token="[UNK]", vocab={"[UNK]": 0, "the": 1, "Hello": 2, ".": 3, "a": 4}),
        "unigram": unigram(), "unigram bytes": unigram(True), "unigram odd": unigram(shift=40.0),
        "short words": dict(wordpiece, max_input_chars_per_word=5),
        "bpe": plain,
        "bpe strings": dict(plain, merges=[" ".join(m) for m in plain["merges"]]),
        "bpe unk": bpe(unk_token="<unk>"),
        "bpe fused unk": bpe(unk_token="<unk>", fuse_unk=True),
        "bpe prefix": bpe(unk_token="<unk>", continuing_subword_prefix="##"),
        "bpe suffix": bpe(unk_token="<unk>", end_of_word_suffix="</w>"),
        "bpe ignore merges": ignoring,
        "bpe bytes": bpe(bytes=True, unk_token="<unk>", fuse_unk=True, byte_fallback=True),
    }


def characters_of(cases):
    """Every character that a case's normalizer and pre-tokenizer may give the model."""
    found = set("".join(TEXTS))
    for case in cases:
        for text in TEXTS:
            if case["normalizer"]:
                text = case["normalizer"].normalize_str(text)
            found |= set(text)
            if case["pre_tokenizer"]:
                found |= set("".join(w for w, _ in case["pre_tokenizer"].pre_tokenize_str(text)))
    return found - {"\0"}  # which not every JSON reader takes as a key


def components():
    cases = build_cases()
    model_table = build_models(characters_of(cases))
    results = []
    for case in cases:
        tokenizer = Tokenizer(models.BPE())
        for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
            if case[part]:
                setattr(tokenizer, part, case[part])
        config = json.loads(tokenizer.to_str())
        config["model"] = model_table[case["model"]]
        tokenizer = Tokenizer.from_str(json.dumps(config))
        tokenizer.add_tokens(list(case["added"]))
        config = json.loads(tokenizer.to_str())
        config["model"] = case["model"]
        encoded = [tokenizer.encode(t).ids for t in TEXTS]
        result = dict(name=case["name"], tokenizer={k: v for k, v in config.items() if v}, ids=encoded)
        if case["decoder"] or case["name"] == "none":
            result["decoded"] = [tokenizer.decode(i, skip_special_tokens=False) for i in encoded]
        if any(a.special for a in case["added"]):
            result["skipped"] = [tokenizer.decode(i, skip_special_tokens=True) for i in encoded]
        lists = [[tokenizer.token_to_id(t) for t in tokens] for tokens in case["decode"]]
        assert all(None not in ids for ids in lists), case["name"]
        result["decode"] = [[ids, tokenizer.decode(ids, skip_special_tokens=False)] for ids in lists]
        results.append(result)
    return model_table, results


def demo():
    results = []
    for name, shared in DEMO.items():
        path = f"models/{name}/tokenizer.json"
        if not os.path.exists(path):
            path = f"{SHARED}/models/{shared}/tokenizer.json"
        tokenizer = Tokenizer.from_file(path)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        result = dict(name=name, fallback=shared, texts=[], truncated=[], decode=[])
        for text in DEMO_TEXTS:
            ids = tokenizer.encode(text).ids
            result["texts"].append([ids, tokenizer.decode(ids, skip_special_tokens=False),
                                    tokenizer.encode(text, add_special_tokens=False).ids])
        rng = random.Random(1)
        for n in (1, 2, 3, 5, 8, 13, 40, 40, 40):
            ids = [rng.randrange(tokenizer.get_vocab_size()) for _ in range(n)]
            result["decode"].append([ids, tokenizer.decode(ids, skip_special_tokens=False),
                                     tokenizer.decode(ids, skip_special_tokens=True)])
        for length in (2, 3, 4, 7, 64):
            tokenizer.enable_truncation(length)
            for text in ("", "one two", DEMO_TEXTS[11], "word " * 60):
                result["truncated"].append([length, text, tokenizer.encode(text).ids])
        results.append(result)
    return results


def fnv(lists):
    """64-bit FNV-1a over the ids of all lists, each as 4 bytes, low byte first."""
    value = 0xCBF29CE484222325
    for ids in lists:
        for i in ids:
            for shift in (0, 8, 16, 24):
                value = ((value ^ (i >> shift & 255)) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def shared_tokenizers():
    base = f"{SHARED}/tokenizers"
    gpt2 = Tokenizer(models.BPE.from_file(f"{base}/gpt2/vocab.json", f"{base}/gpt2/merges.txt"))
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    gpt2.add_special_tokens(["<|endoftext|>"])
    bert = Tokenizer(models.WordPiece.from_file(f"{base}/bert-base-uncased/vocab.txt", unk_token="[UNK]"))
    bert.normalizer = normalizers.BertNormalizer()
    bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bert.add_special_tokens(["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"])
    bert.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]",
                                                        special_tokens=[("[CLS]", 101), ("[SEP]", 102)])
    t5 = Tokenizer.from_file(f"{SHARED}/models/mini-t5/tokenizer.json")
    return {"../models/mini-t5": t5, "gpt2": gpt2, "bert-base-uncased": bert, "opt-125m": Tokenizer.from_file(f"{base}/opt-125m/tokenizer.json")}


def digests():
    path = f"{SHARED}/data/wikitext-2-raw/wiki.test.raw"
    if not os.path.exists(path):
        print(f"{path} is not there; the old digests stay", file=sys.stderr)
        with open(OUT, encoding="utf-8") as f:
            return json.load(f)["digests"]
    with open(path, encoding="utf-8", newline="") as f:
        text = f.read()
    results = []
    for name, tokenizer in shared_tokenizers().items():
        for mode, texts in (("whole", [text]), ("lines", text.split("\n"))):
            lists = [tokenizer.encode(t).ids for t in texts]
            results.append(dict(tokenizer=name, mode=mode, count=sum(map(len, lists)), fnv=fnv(lists)))
    return results


def main():
    model_table, cases = components()
    reference = {"made_with": f"tokenizers {tokenizers.__version__}", "demo_texts": DEMO_TEXTS, "demo": demo(),
                 "digests": digests(), "models": model_table, "texts": TEXTS, "components": cases}
    with open(OUT, "w", encoding="utf-8") as f:
        f.write("{")
        for i, (key, value) in enumerate(reference.items()):
            f.write(",\n" if i else "\n")
            f.write(json.dumps(key) + ": ")
            if isinstance(value, list):
                f.write("[\n" + ",\n".join(json.dumps(v, separators=(",", ":")) for v in value) + "\n]")
            else:
                f.write(json.dumps(value, separators=(",", ":")))
        f.write("\n}\n")


if __name__ == "__main__":
    main()

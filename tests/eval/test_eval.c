/* Perplexity, accuracy and generated texts of the embedded models on the embedded data, against
 * transformers (tests/fixtures/README.md says how each expectation was made). */
#include "reference.h"

#include "bitgauge/bitgauge.h"
#include "core/alloc.h"
#include "eval/classify.h"
#include "eval/generate.h"
#include "eval/perplexity.h"

static bg_backend *backend;
static json_t *expected;

static void test_perplexity(void)
{
    /* fp4 and int8 expectations come from an emulation that a rounding sends another way: the
     * tolerances are those of tests/fixtures/README.md. */
    static const struct {
        const char *precision, *key;
        double tolerance;
    } cases[] = {{"fp32", "fp32", 2e-5}, {"fp16", "fp32", 2e-4},    {"bf16", "bf16_weights", 2e-5},
                 {"nf4", "nf4", 2e-5},   {"nf4-dq", "nf4dq", 2e-5}, {"fp4", "fp4", 5e-4},
                 {"int8", "int8", 2e-3}};
    static const struct {
        bg_perplexity_options options;
        const char *key;
    } protocols[] = {{{BG_PROTOCOL_LINES, 128, 0, 200, 0}, "lines"},
                     {{BG_PROTOCOL_SLIDING, 512, 256, 0, 0}, "sliding_512_256"},
                     {{BG_PROTOCOL_CHUNKS, 512, 0, 0, 0}, "chunks_512"}};
    bg_tokenizer *tokenizer;
    OK(bg_tokenizer_open("models/demo-decoder", &tokenizer, &err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_model *model = load_model(backend, "models/demo-decoder", cases[i].precision);
        for (size_t p = 0; p < 3; p++) {
            bg_perplexity got;
            OK(bg_perplexity_measure(model, tokenizer, "data/demo-text.txt", &protocols[p].options,
                                     (bg_progress){0}, &got, &err));
            double value =
                reference(expected, "decoder", cases[i].key, protocols[p].key, "ppl", NULL);
            double tokens =
                reference(expected, "decoder", cases[i].key, protocols[p].key, "tokens", NULL);
            CHECK(got.tokens == (int64_t)tokens, "%s: %lld", protocols[p].key,
                  (long long)got.tokens);
            CHECK(fabs(got.value / value - 1) <= cases[i].tolerance, "%s %s: %.6f, expected %.6f",
                  cases[i].precision, protocols[p].key, got.value, value);
        }
        bg_model_free(model);
    }
    bg_tokenizer_close(tokenizer);
}

static void test_accuracy(void)
{
    bg_tokenizer *tokenizer;
    OK(bg_tokenizer_open("models/demo-classifier", &tokenizer, &err));
    for (int id = 0; id < BG_FORMAT_COUNT; id++) {
        const char *name = bg_formats[id].name;
        bool exact = id == BG_FORMAT_F32 || id == BG_FORMAT_NF4;
        bg_model *model = load_model(backend, "models/demo-classifier", name);
        for (int pad = 0; pad < (exact || id == BG_FORMAT_INT8 ? 2 : 1); pad++) {
            bg_accuracy got;
            OK(bg_classify_measure(model, tokenizer, "data/demo-reviews.tsv", 0, 128, pad,
                                   (bg_progress){0}, &got, &err));
            double correct = reference(expected, "classifier", id == BG_FORMAT_NF4 ? "nf4" : "fp32",
                                       pad ? "padded" : "unpadded", "correct", NULL);
            CHECK(got.total == 220 && fabs((double)got.correct - correct) <= (exact ? 0 : 2),
                  "%s: %lld of %lld, expected %g", name, (long long)got.correct,
                  (long long)got.total, correct);
            CHECK(pad ? got.tokens == 220 * 128 : got.tokens < 220 * 60, "%lld tokens",
                  (long long)got.tokens);
            bg_accuracy_free(&got);
        }
        bg_model_free(model);
    }
    bg_tokenizer_close(tokenizer);
}

/* Fifty tokens after each prompt, greedy. Only fp32 is compared: one near-tie turns a text. */
static void test_greedy(void)
{
    bg_checkpoint *file;
    OK(bg_checkpoint_open_file("tests/fixtures/decoder.safetensors", &file, &err));
    bg_model *model = load_model(backend, "models/demo-decoder", "fp32");
    bg_generate_options options = {.max_new_tokens = 50, .top_p = 1};
    for (int prompt = 0; prompt < 4; prompt++) {
        char name[64];
        snprintf(name, sizeof name, "prompt.%d.ids", prompt);
        const bg_tensor *ids = bg_checkpoint_find(file, name);
        snprintf(name, sizeof name, "greedy.fp32.%d", prompt);
        const bg_tensor *text = bg_checkpoint_find(file, name);
        int32_t start[32];
        memcpy(start, ids->data, ids->bytes);
        bg_generation got;
        OK(bg_generate(model, start, ids->bytes / 4, &options, (bg_progress){0}, &got, &err));
        CHECK(got.n == text->bytes / 4 && memcmp(got.ids, text->data, text->bytes) == 0, "%s",
              name);
        bg_generation_free(&got);
        /* The same seed draws the same text; another seed another. */
        bg_generate_options sampled = {
            .max_new_tokens = 20, .temperature = 1, .top_p = 1, .seed = 5};
        bg_generation a, b, c;
        OK(bg_generate(model, start, ids->bytes / 4, &sampled, (bg_progress){0}, &a, &err));
        OK(bg_generate(model, start, ids->bytes / 4, &sampled, (bg_progress){0}, &b, &err));
        sampled.seed = 6;
        OK(bg_generate(model, start, ids->bytes / 4, &sampled, (bg_progress){0}, &c, &err));
        CHECK(a.n == b.n && memcmp(a.ids, b.ids, a.n * 4) == 0, "repeatable");
        CHECK(memcmp(a.ids, c.ids, a.n * 4) != 0, "seeded");
        bg_generation_free(&a);
        bg_generation_free(&b);
        bg_generation_free(&c);
    }
    bg_generation none;
    int32_t id = 1;
    options.max_new_tokens = 512;
    CHECK(bg_generate(model, &id, 1, &options, (bg_progress){0}, &none, &err) == BG_ERR_USAGE,
          "longer than the model");
    CHECK(bg_generate(model, &id, 0, &options, (bg_progress){0}, &none, &err) == BG_ERR_USAGE,
          "no prompt");
    bg_model_free(model);
    bg_checkpoint_close(file);
}

/* The text of a backend that does not queue, and of one that does, are the same. */
static bg_generation both_texts(const bg_model *model, const bg_generate_options *options)
{
    static const int32_t prompt[] = {3, 5, 7};
    const bg_backend_ops *ops = backend->ops;
    bg_backend_ops queues = *ops;
    bg_generation text, ahead;
    queues.queues = true;
    OK(bg_generate(model, prompt, 3, options, (bg_progress){0}, &text, &err));
    backend->ops = &queues;
    OK(bg_generate(model, prompt, 3, options, (bg_progress){0}, &ahead, &err));
    backend->ops = ops;
    CHECK(text.n == ahead.n && text.ended == ahead.ended && text.ids && ahead.ids &&
              memcmp(text.ids, ahead.ids, text.n * sizeof *text.ids) == 0,
          "%zu and %zu tokens", text.n, ahead.n);
    bg_generation_free(&ahead);
    return text;
}

static void check_ahead(const char *directory, bg_generate_options options)
{
    bg_model *model = load_model(backend, directory, "fp32");
    bg_config *c = &model->config;
    c->n_end_tokens = 0;
    c->forced_ids[0] = 9;
    c->forced_ids[1] = 4;
    for (c->n_forced = 0; c->n_forced < 3; c->n_forced++) {
        c->n_end_tokens = 0;
        bg_generation text = both_texts(model, &options);
        const size_t all = text.first_new + (size_t)options.max_new_tokens, at = text.first_new + 3;
        CHECK(text.n == all && !text.ended, "%zu of %zu tokens", text.n, all);
        size_t end = text.first_new;
        while (text.ids[end] != text.ids[at]) end++;
        c->end_token_ids[c->n_end_tokens++] = text.ids[at];
        options.stop_at_eos = true;
        bg_generation ended = both_texts(model, &options);
        CHECK(ended.ended && ended.n == end + 1 && memcmp(ended.ids, text.ids, ended.n * 4) == 0,
              "%s ends after %zu tokens of %zu", directory, ended.n, end + 1);
        options.stop_at_eos = false;
        bg_generation endless = both_texts(model, &options);
        CHECK(endless.n == all && !endless.ended, "%zu tokens of %zu", endless.n, all);
        bg_generation_free(&text);
        bg_generation_free(&ended);
        bg_generation_free(&endless);
    }
    bg_model_free(model);
}

static void test_ahead(void)
{
    /* All 24 positions of the first. */
    check_ahead("tests/fixtures/tiny-gpt2/prefixed", (bg_generate_options){.max_new_tokens = 21});
    check_ahead("tests/fixtures/tiny-t5/relu-tied", (bg_generate_options){.max_new_tokens = 12});
    check_ahead(
        "tests/fixtures/tiny-gpt2/prefixed",
        (bg_generate_options){
            .max_new_tokens = 20, .temperature = 0.8, .top_k = 20, .top_p = 0.9, .seed = 3});
    bg_model *model = load_model(backend, "tests/fixtures/tiny-gpt2/prefixed", "fp32");
    const bg_generate_options one = {.max_new_tokens = 1}, none = {0}, two = {.max_new_tokens = 2};
    bg_generation text = both_texts(model, &one);
    CHECK(text.n == 4, "one token");
    bg_generation_free(&text);
    text = both_texts(model, &none);
    CHECK(text.n == 3, "no token");
    bg_generation_free(&text);
    /* Logits that overflow are no numbers. */
    bg_weight **norm = &model->parameters[BG_ROLE_FINAL_NORM].weight;
    const size_t hidden = (*norm)->cols;
    float *values = bg_alloc_array(hidden, sizeof *values);
    for (size_t i = 0; i < hidden; i++) values[i] = 3e38f;
    const bg_source source = {"norm", BG_F32, values, 1, hidden, false};
    backend->ops->weight_free(backend, *norm);
    OK(backend->ops->weight_create(backend, &source, BG_FORMAT_F32, norm, &err));
    int32_t id = 1;
    CHECK(bg_generate(model, &id, 1, &two, (bg_progress){0}, &text, &err) == BG_ERR_FORMAT &&
              strstr(err.message, "not numbers"),
          "%s", err.message);
    bg_free(values);
    bg_model_free(model);
}

static void test_refusals(void)
{
    bg_tokenizer *tokenizer;
    OK(bg_tokenizer_open("models/demo-decoder", &tokenizer, &err));
    bg_model *model = load_model(backend, "models/demo-decoder", "nf4");
    bg_perplexity got;
    bg_perplexity_options lines = {BG_PROTOCOL_LINES, 128, 0, 0, 0};
    bg_perplexity_options sliding = {BG_PROTOCOL_SLIDING, 64, 65, 0, 0};
    CHECK(bg_perplexity_measure(model, tokenizer, "/dev/null", &lines, (bg_progress){0}, &got,
                                &err) == BG_ERR_FILE,
          "%s", err.message);
    CHECK(bg_perplexity_measure(model, tokenizer, "models/demo-decoder/model.safetensors", &lines,
                                (bg_progress){0}, &got, &err) == BG_ERR_FORMAT,
          "%s", err.message);
    CHECK(bg_perplexity_measure(model, tokenizer, "data/demo-text.txt", &sliding, (bg_progress){0},
                                &got, &err) == BG_ERR_USAGE,
          "stride over the length");
    lines.max_length = 513;
    CHECK(bg_perplexity_measure(model, tokenizer, "data/demo-text.txt", &lines, (bg_progress){0},
                                &got, &err) == BG_ERR_USAGE,
          "over the model's context");
    lines.max_length = 64;
    int calls = 3;
    bg_progress progress = {refuse, &calls};
    CHECK(bg_perplexity_measure(model, tokenizer, "data/demo-text.txt", &lines, progress, &got,
                                &err) == BG_ERR_INTERRUPTED,
          "interrupted");
    bg_accuracy accuracy;
    CHECK(bg_classify_measure(model, tokenizer, "data/demo-reviews.tsv", 0, 128, true,
                              (bg_progress){0}, &accuracy, &err) == BG_ERR_UNSUPPORTED,
          "a decoder does not classify");
    bg_model_free(model);
    bg_tokenizer_close(tokenizer);
}

int main(void)
{
    OK(bg_backend_open("cpu", 2, &backend, &err));
    OK(bg_json_load("tests/fixtures/reference.json", 1 << 20, &expected, &err));
    if (!expected) return 1;
    RUN(test_perplexity);
    RUN(test_accuracy);
    RUN(test_greedy);
    RUN(test_ahead);
    RUN(test_refusals);
    json_decref(expected);
    backend->ops->free(backend);
    return test_finish();
}

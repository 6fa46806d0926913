/* WikiText-2 and SST-2, where they are there (../shared/data): perplexity and accuracy at every
 * precision against what transformers and bitsandbytes computed on a GPU. On the device that
 * BITGAUGE_TEST_DEVICE says, or the CPU: there it is minutes long, so in a build with sanitizers
 * only part of it runs. */
#include "reference.h"

#include "bitgauge/bitgauge.h"
#include "core/file.h"
#include "eval/classify.h"
#include "eval/perplexity.h"

#define WIKITEXT "../shared/data/wikitext-2-raw/wiki.test.raw"
#define SST2     "../shared/data/sst2/validation.tsv"
#define MODELS   "../shared/models/"
#define RECORDED "../shared/reference/reference.json"

#if defined(__SANITIZE_ADDRESS__)
enum { QUICK = 1 };
#else
enum { QUICK = 0 };
#endif

static bg_backend *backend;
static json_t *expected;

static const struct {
    const char *precision, *key;
    double tolerance; /* relative, of a perplexity */
} cases[] = {
    {"fp32", "fp32", 2e-4},    {"fp16", "fp16", 2e-4}, {"bf16", "bf16", 1e-3},
    {"int8", "int8", 5e-4},    {"nf4", "nf4", 5e-4},   {"fp4", "fp4", 5e-4},
    {"nf4-dq", "nf4dq", 5e-4},
};

static const char *const decoders[] = {"mini-gpt2", "mini-llama", "mini-opt", "mini-phi"};

static void check_perplexity(const char *name, const char *precision, const char *key,
                             double tolerance, bool sliding)
{
    char directory[128];
    bg_tokenizer *tokenizer;
    snprintf(directory, sizeof directory, MODELS "%s", name);
    OK(bg_tokenizer_open(directory, &tokenizer, &err));
    bg_model *model = load_model(backend, directory, precision);
    bg_perplexity_options options = {BG_PROTOCOL_LINES, 128, 0, 200, 0};
    if (sliding) options = (bg_perplexity_options){BG_PROTOCOL_SLIDING, 512, 256, 0, 80000};
    bg_perplexity got;
    OK(bg_perplexity_measure(model, tokenizer, WIKITEXT, &options, (bg_progress){0}, &got, &err));
    double value = reference(expected, name, key, sliding ? "ppl_slide512_256" : "ppl_lines", NULL);
    double tokens = reference(expected, name, key, sliding ? "n_slide" : "n_lines", NULL);
    printf("  %s %s, %s: %.4f, recorded %.4f (%+.4f %%)\n", name, precision,
           sliding ? "sliding" : "lines", got.value, value, 100 * (got.value / value - 1));
    CHECK(got.tokens == (int64_t)tokens, "%lld tokens", (long long)got.tokens);
    CHECK(fabs(got.value / value - 1) <= tolerance, "%s %s: %.5f, recorded %.5f", name, precision,
          got.value, value);
    bg_model_free(model);
    bg_tokenizer_close(tokenizer);
}

/* The sliding windows take half a minute for each model and precision: all of them where
 * BITGAUGE_TEST_ALL is set, otherwise one of each kind of product. */
static void test_wikitext(void)
{
    const bool all = getenv("BITGAUGE_TEST_ALL") != NULL;
    for (size_t m = 0; m < sizeof decoders / sizeof *decoders; m++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            if (QUICK && (m != 1 || i % 4)) continue;
            check_perplexity(decoders[m], cases[i].precision, cases[i].key, cases[i].tolerance,
                             false);
            bool chosen = i == 2 * m || i == 2 * m - 1;
            if (!QUICK && (all || chosen))
                check_perplexity(decoders[m], cases[i].precision, cases[i].key, cases[i].tolerance,
                                 true);
        }
}

static void test_sst2(void)
{
    bg_tokenizer *tokenizer;
    OK(bg_tokenizer_open(MODELS "mini-distilbert-sst2", &tokenizer, &err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(cases[i].key, "bf16") == 0 || QUICK) continue;
        bg_model *model = load_model(backend, MODELS "mini-distilbert-sst2", cases[i].precision);
        bg_accuracy got;
        OK(bg_classify_measure(model, tokenizer, SST2, 0, 128, true, (bg_progress){0}, &got, &err));
        double correct = reference(expected, "mini-distilbert-sst2", cases[i].key, "correct", NULL);
        printf("  %s: %lld of %lld, recorded %g\n", cases[i].precision, (long long)got.correct,
               (long long)got.total, correct);
        CHECK(got.total == 872 && fabs((double)got.correct - correct) <= (i == 0 ? 0 : 2), "%s",
              cases[i].precision);
        bg_accuracy_free(&got);
        bg_model_free(model);
    }
    bg_tokenizer_close(tokenizer);
}

int main(void)
{
    if (!bg_file_exists(RECORDED) || !bg_file_exists(WIKITEXT)) {
        SKIP("%s and %s are not there", RECORDED, WIKITEXT);
        return test_finish();
    }
    const char *device = getenv("BITGAUGE_TEST_DEVICE");
    OK(bg_backend_open(device ? device : "cpu", 0, &backend, &err));
    if (!backend) return test_finish();
    OK(bg_json_load(RECORDED, 1 << 22, &expected, &err));
    if (!expected) return 1;
    RUN(test_wikitext);
    RUN(test_sst2);
    json_decref(expected);
    backend->ops->free(backend);
    return test_finish();
}

/* The trained checkpoints beside the source tree, where they are there, against what transformers
 * and bitsandbytes computed from them on a GPU (../shared/reference): last positions' logits at
 * every precision, greedy continuations, T5's first step, PaliGemma's logits and caption. */
#include "load_model.h"
#include "npz.h"
#include "test.h"

#include "core/alloc.h"
#include "core/json.h"
#include "eval/generate.h"
#include "tokenizer/tokenizer.h"

#define MODELS    "../shared/models/"
#define REFERENCE "../shared/reference/"

static bg_backend *backend;
static json_t *recorded;
static bg_error err;

#define OK(call) CHECK((call) == BG_OK, "%s", err.message)

static const char *const prompts[] = {"The capital of France is",
                                      "Once upon a time, in a land far, far away,",
                                      "To be or not to be, that is the", "The future of AI is"};

/* Logits: fp32 within 1e-3 of the largest difference, 4-bit within 5e-3; int8, whose activations
 * are rounded to 8 bits at every layer, within 2e-2 root mean square. */
static const struct {
    const char *precision, *key;
    double tolerance;
    bool rms;
} precisions[] = {
    {"fp32", "fp32", 1e-3, false},    {"nf4", "nf4", 5e-3, false},  {"fp4", "fp4", 5e-3, false},
    {"nf4-dq", "nf4dq", 5e-3, false}, {"int8", "int8", 2e-2, true},
};

static bg_model *load(const char *name, const char *precision)
{
    char directory[128];
    snprintf(directory, sizeof directory, MODELS "%s", name);
    return load_model(backend, directory, precision);
}

static bool is_there(const char *name)
{
    char directory[128];
    snprintf(directory, sizeof directory, MODELS "%s", name);
    const bool there = bg_is_directory(directory);
    if (!there) SKIP("%s is not there", directory);
    return there;
}

static bg_tokenizer *open_tokenizer(const char *name)
{
    char directory[128];
    bg_tokenizer *tokenizer = NULL;
    snprintf(directory, sizeof directory, MODELS "%s", name);
    OK(bg_tokenizer_open(directory, &tokenizer, &err));
    if (!tokenizer) exit(1);
    return tokenizer;
}

static void compare(const char *what, const float *got, const npy_array *expected, size_t n,
                    double tolerance, bool rms)
{
    double worst = 0, squares = 0;
    CHECK(expected->count == n, "%s: %zu values", what, expected->count);
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - npy_at(expected, i));
        worst = d <= worst ? worst : d;
        squares += d * d;
    }
    double value = rms ? sqrt(squares / (double)n) : worst;
    printf("  %s: %s %.2g\n", what, rms ? "root mean square" : "largest", value);
    CHECK(value <= tolerance, "%s: %g", what, value);
}

static void check_logits(const char *name, const char *precision, const char *key, double tolerance,
                         bool rms)
{
    char path[128], entry[32], what[64];
    snprintf(path, sizeof path, REFERENCE "%s.logits.npz", name);
    bg_model *model = load(name, precision);
    bg_tokenizer *tokenizer = open_tokenizer(name);
    size_t vocabulary = (size_t)model->config.vocab_size;
    float *logits = bg_alloc_array(vocabulary, sizeof *logits);
    for (int i = 0; i < 4; i++) {
        int32_t *ids;
        size_t n;
        OK(bg_tokenizer_encode(tokenizer, prompts[i], strlen(prompts[i]), true, &ids, &n, &err));
        bg_run *run;
        OK(bg_run_create(model, n, 1, n, 1, &run, &err));
        bg_sequence sequence = {.rows = n, .keys = n};
        size_t last = n - 1;
        OK(bg_run_forward(run, ids, &sequence, 1, &err));
        OK(bg_run_select(run, &last, 1, &err));
        OK(bg_run_logits(run, 1, logits, &err));
        snprintf(entry, sizeof entry, "%s_%d", key, i);
        snprintf(what, sizeof what, "%s %s prompt %d", name, precision, i);
        npy_array expected = npz_read(path, entry);
        compare(what, logits, &expected, vocabulary, tolerance, rms);
        free(expected.data);
        bg_run_free(run);
        bg_ids_free(ids);
    }
    bg_free(logits);
    bg_tokenizer_close(tokenizer);
    bg_model_free(model);
}

static const char *const decoders[] = {"mini-gpt2", "mini-llama", "mini-opt", "mini-phi"};

static void test_logits(void)
{
    for (size_t m = 0; m < sizeof decoders / sizeof *decoders; m++) {
        if (!is_there(decoders[m])) continue;
        for (size_t p = 0; p < sizeof precisions / sizeof *precisions; p++)
            check_logits(decoders[m], precisions[p].precision, precisions[p].key,
                         precisions[p].tolerance, precisions[p].rms);
    }
}

/* Greedy text is brittle; at fp32 it must be equal. */
static void test_greedy(void)
{
    const bg_generate_options options = {.max_new_tokens = 50, .top_p = 1};
    for (size_t m = 0; m < sizeof decoders / sizeof *decoders; m++) {
        if (!is_there(decoders[m])) continue;
        bg_model *model = load(decoders[m], "fp32");
        bg_tokenizer *tokenizer = open_tokenizer(decoders[m]);
        const json_t *all = json_object_get(
            json_object_get(json_object_get(recorded, decoders[m]), "fp32"), "greedy");
        CHECK(json_array_size(all) == 4, "%s", decoders[m]);
        for (size_t i = 0; i < json_array_size(all); i++) {
            int32_t *ids;
            size_t n;
            bg_generation g;
            OK(bg_tokenizer_encode(tokenizer, prompts[i], strlen(prompts[i]), true, &ids, &n,
                                   &err));
            OK(bg_generate(model, ids, n, &options, (bg_progress){0}, &g, &err));
            const json_t *expected = json_object_get(json_array_get(all, i), "ids");
            size_t equal = 0;
            while (equal < g.n && equal < json_array_size(expected) &&
                   g.ids[equal] == json_integer_value(json_array_get(expected, equal)))
                equal++;
            CHECK(equal == g.n && equal == json_array_size(expected), "%s prompt %zu: %zu of %zu",
                  decoders[m], i, equal, g.n);
            bg_generation_free(&g);
            bg_ids_free(ids);
        }
        bg_tokenizer_close(tokenizer);
        bg_model_free(model);
    }
}

/* Logits of the decoder's first step for the first sentence of SST-2's validation split. The
 * recorded fp16 model rounds its activations to 16 bits, which this one does not. */
static void test_t5(void)
{
    static const struct {
        const char *precision, *key;
        double tolerance;
        bool rms;
    } cases[] = {{"fp32", "fp32", 1e-3, false},
                 {"fp16", "fp16", 2e-2, true},
                 {"nf4", "nf4", 5e-3, false},
                 {"int8", "int8", 2e-2, true}};
    static const char text[] = "Is this review positive or negative? it 's a charming and often "
                               "affecting journey . ";
    if (!is_there("mini-t5")) return;
    bg_tokenizer *tokenizer = open_tokenizer("mini-t5");
    int32_t *ids, start;
    size_t n;
    OK(bg_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &n, &err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_model *model = load("mini-t5", cases[i].precision);
        size_t vocabulary = (size_t)model->config.vocab_size, row = 0;
        float *logits = bg_alloc_array(vocabulary, sizeof *logits);
        char path[128];
        bg_run *run;
        OK(bg_run_create(model, n, 1, n, 1, &run, &err));
        bg_sequence source = {.rows = n, .keys = n}, first = {.rows = 1, .keys = 1};
        start = (int32_t)model->config.decoder_start_token_id;
        OK(bg_run_encode(run, ids, &source, 1, &err));
        OK(bg_run_forward(run, &start, &first, 1, &err));
        OK(bg_run_select(run, &row, 1, &err));
        OK(bg_run_logits(run, 1, logits, &err));
        snprintf(path, sizeof path, REFERENCE "mini-t5.%s.step0.npy", cases[i].key);
        npy_array expected = npy_read(path);
        snprintf(path, sizeof path, "mini-t5 %s", cases[i].precision);
        compare(path, logits, &expected, vocabulary, cases[i].tolerance, cases[i].rms);
        free(expected.data);
        bg_free(logits);
        bg_run_free(run);
        bg_model_free(model);
    }
    bg_ids_free(ids);
    bg_tokenizer_close(tokenizer);
}

/* Every position's logits, then sixteen greedy tokens, from pixels and ids. */
static void test_paligemma(void)
{
    static const char path[] = REFERENCE "tiny-paligemma.npz";
    if (!is_there("tiny-paligemma")) return;
    npy_array pixels = npz_read(path, "pixel_values"), input = npz_read(path, "input_ids");
    npy_array expected = npz_read(path, "logits"), greedy = npz_read(path, "greedy");
    bg_model *model = load("tiny-paligemma", "fp32");
    const size_t n = input.count, vocabulary = (size_t)model->config.vocab_size;
    float *values = bg_alloc_array(pixels.count, 4);
    float *logits = bg_alloc_array(n * vocabulary, 4);
    int32_t ids[64];
    size_t rows[64];
    for (size_t i = 0; i < pixels.count; i++) values[i] = (float)npy_at(&pixels, i);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)npy_at(&input, i);
        rows[i] = i;
    }
    bg_run *run;
    OK(bg_run_create(model, n, 1, greedy.count, n, &run, &err));
    OK(bg_run_look(run, values, 1, &err));
    bg_sequence sequence = {.rows = n, .keys = n, .prefix = n};
    OK(bg_run_forward(run, ids, &sequence, 1, &err));
    OK(bg_run_select(run, rows, n, &err));
    OK(bg_run_logits(run, n, logits, &err));
    compare("tiny-paligemma fp32", logits, &expected, n * vocabulary, 1e-3, false);
    for (size_t i = n; i < greedy.count; i++) {
        int32_t next;
        size_t last = i == n ? n - 1 : 0;
        OK(bg_run_select(run, &last, 1, &err));
        OK(bg_run_choose(run, 1, &(bg_choice){0}, &err));
        OK(bg_run_chosen(run, 0, 1, &next, &err));
        CHECK(next == (int32_t)npy_at(&greedy, i), "greedy token %zu: %d", i - n, next);
        sequence = (bg_sequence){.rows = 1, .past = i, .keys = i + 1, .prefix = n};
        OK(bg_run_forward(run, &next, &sequence, 1, &err));
    }
    bg_run_free(run);
    bg_model_free(model);
    bg_free(values);
    bg_free(logits);
    free(pixels.data);
    free(input.data);
    free(expected.data);
    free(greedy.data);
}

int main(void)
{
    if (!bg_file_exists(REFERENCE "reference.json")) {
        SKIP("%s is not there", REFERENCE "reference.json");
        return test_finish();
    }
    const char *device = getenv("BITGAUGE_TEST_DEVICE");
    OK(bg_backend_open(device ? device : "cpu", 0, &backend, &err));
    if (!backend) return 1;
    OK(bg_json_load(REFERENCE "reference.json", 1 << 22, &recorded, &err));
    RUN(test_logits);
    RUN(test_greedy);
    RUN(test_t5);
    RUN(test_paligemma);
    json_decref(recorded);
    backend->ops->free(backend);
    return test_finish();
}

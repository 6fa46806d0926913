/* Whole models against transformers and bitsandbytes: the demonstration models at each precision,
 * and tiny ones whose shapes are odd in every direction. tests/fixtures/README.md says where the
 * expected numbers are from. */
#include "test.h"

#include "checkpoint/checkpoint.h"
#include "core/alloc.h"
#include "core/file.h"
#include "core/text.h"
#include "load_model.h"

#include <stdlib.h>
#include <unistd.h>

static bg_backend *backend;
static bg_error err;

#define OK(call) CHECK((call) == BG_OK, "%s", err.message)

static const bg_tensor *find(const bg_checkpoint *file, const char *name)
{
    const bg_tensor *t = bg_checkpoint_find(file, name);
    CHECK(t != NULL, "%s", name);
    if (!t) exit(1);
    return t;
}

static bg_model *load(const char *directory, const char *precision)
{
    return load_model(backend, directory, precision);
}

/* Logits of the rows [first, first + n) of a run. */
static void logits_of(bg_run *run, size_t first, size_t n, float *logits)
{
    size_t *rows = bg_alloc_array(n, sizeof *rows);
    for (size_t i = 0; i < n; i++) rows[i] = first + i;
    OK(bg_run_select(run, rows, n, &err));
    OK(bg_run_logits(run, n, logits, &err));
    bg_free(rows);
}

static double distance(const float *a, const float *b, size_t n)
{
    double squares = 0;
    for (size_t i = 0; i < n; i++) squares += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sqrt(squares / (double)n);
}

/* fp32 and 4-bit: largest absolute difference. int8: root of the mean square, since a rounding in
 * any layer's activations moves single logits further. */
static void test_decoder(void)
{
    static const struct {
        const char *precision, *key;
        double absolute, root_mean_square;
    } cases[] = {
        {"fp32", "fp32", 1e-3, 1e-3}, {"nf4", "nf4", 5e-3, 5e-3}, {"nf4-dq", "nf4dq", 5e-3, 5e-3},
        {"fp4", "fp4", 5e-3, 5e-3},   {"int8", "int8", 1, 2e-2},
    };
    bg_checkpoint *file;
    OK(bg_checkpoint_open_file("tests/fixtures/decoder.safetensors", &file, &err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_model *model = load("models/demo-decoder", cases[i].precision);
        bg_run *run;
        OK(bg_run_create(model, 32, 1, 64, 32, &run, &err));
        for (int prompt = 0; prompt < 4; prompt++) {
            char name[64];
            snprintf(name, sizeof name, "prompt.%d.ids", prompt);
            const bg_tensor *ids = find(file, name);
            size_t n = ids->bytes / 4;
            bg_sequence sequence = {0, n, 0, 0, n, 0};
            int32_t tokens[32];
            memcpy(tokens, ids->data, ids->bytes);
            OK(bg_run_forward(run, tokens, &sequence, 1, &err));
            float got[8192], expected[8192];
            logits_of(run, n - 1, 1, got);
            snprintf(name, sizeof name, "%s.%d", cases[i].key, prompt);
            memcpy(expected, find(file, name)->data, sizeof expected);
            double worst = 0, squares = 0;
            for (int k = 0; k < 8192; k++) {
                double d = (double)got[k] - expected[k];
                worst = fmax(worst, fabs(d));
                squares += d * d / 8192;
            }
            printf("  %s, prompt %d: largest %.2g, root mean square %.2g\n", cases[i].precision,
                   prompt, worst, sqrt(squares));
            CHECK(worst <= cases[i].absolute && sqrt(squares) <= cases[i].root_mean_square,
                  "%s, prompt %d: largest %g, root mean square %g", cases[i].precision, prompt,
                  worst, sqrt(squares));
        }
        bg_run_free(run);
        bg_model_free(model);
    }
    bg_checkpoint_close(file);
}

/* LLM.int8() where activations have outlier columns, and without making any: root of the mean
 * square, which is far below what lies between the two. */
static void test_outliers(void)
{
    enum { N = 24, VOCABULARY = 96 };
    static const char *const cases[][2] = {{"int8", "int8"}, {"int8-plain", "int8_plain"}};
    static float expected[2][N * VOCABULARY], got[N * VOCABULARY];
    bg_checkpoint *file;
    OK(bg_checkpoint_open_file("tests/fixtures/outliers/logits.safetensors", &file, &err));
    int32_t ids[N];
    memcpy(ids, find(file, "ids")->data, sizeof ids);
    for (int i = 0; i < 2; i++)
        memcpy(expected[i], find(file, cases[i][1])->data, sizeof expected[i]);
    const double apart = distance(expected[0], expected[1], N * VOCABULARY);
    for (int i = 0; i < 2; i++) {
        bg_model *model = load("tests/fixtures/outliers", cases[i][0]);
        bg_run *run;
        OK(bg_run_create(model, N, 1, N, N, &run, &err));
        const bg_sequence sequence = {.rows = N, .keys = N};
        OK(bg_run_forward(run, ids, &sequence, 1, &err));
        logits_of(run, 0, N, got);
        const double off = distance(got, expected[i], N * VOCABULARY);
        printf("  %s: root mean square %.2g; the two are %.2g apart\n", cases[i][0], off, apart);
        CHECK(off <= 1.5e-2 && apart > 6e-2, "%s: %g, %g", cases[i][0], off, apart);
        bg_run_free(run);
        bg_model_free(model);
    }
    bg_checkpoint_close(file);
}

/* States of sequences that run together, to the last bit those of each alone. */
static void test_separate(void)
{
    enum { N = 24, HIDDEN_MOST = 512 };
    static const size_t lengths[] = {13, 1, 7, 3};
    static float together[N * HIDDEN_MOST], alone[N * HIDDEN_MOST];
    bg_checkpoint *file;
    OK(bg_checkpoint_open_file("tests/fixtures/outliers/logits.safetensors", &file, &err));
    int32_t ids[N];
    memcpy(ids, find(file, "ids")->data, sizeof ids);
    bg_checkpoint_close(file);
    bg_model *model = load("tests/fixtures/outliers", "int8");
    bg_run *run;
    OK(bg_run_create(model, N, 4, N, N, &run, &err));
    const size_t cols = run->hidden->cols;
    bg_sequence sequences[4];
    size_t row = 0;
    for (size_t i = 0; i < 4; i++) {
        sequences[i] =
            (bg_sequence){.first_row = row, .rows = lengths[i], .slot = i, .keys = lengths[i]};
        row += lengths[i];
    }
    CHECK(row == N && cols <= HIDDEN_MOST && bg_model_separates(model), "%zu rows", row);
    bg_run_separate(run);
    OK(bg_run_forward(run, ids, sequences, 4, &err));
    OK(backend->ops->act_read(backend, run->last, N, together, &err));
    for (size_t i = 0; i < 4; i++) {
        bg_sequence s = sequences[i];
        s.first_row = 0;
        OK(bg_run_forward(run, ids + sequences[i].first_row, &s, 1, &err));
        OK(backend->ops->act_read(backend, run->last, s.rows, alone + sequences[i].first_row * cols,
                                  &err));
    }
    CHECK(memcmp(together, alone, N * cols * sizeof *alone) == 0, "not as alone");
    bg_run_free(run);
    bg_model_free(model);
}

/* The classifier, padded to 128 and not: 4-bit and int8 as tight as their arithmetic allows. */
static void test_classifier(void)
{
    static const struct {
        const char *precision, *key;
        double tolerance;
    } cases[] = {{"fp32", "fp32", 1e-3}, {"nf4", "nf4", 5e-3},           {"nf4-dq", "nf4dq", 5e-3},
                 {"fp4", "fp4", 5e-2},   {"bf16", "bf16_weights", 5e-3}, {"int8", "int8", 0.1}};
    bg_checkpoint *file;
    OK(bg_checkpoint_open_file("tests/fixtures/classifier.safetensors", &file, &err));
    int32_t ids[32][128], lengths[32];
    memcpy(ids, find(file, "ids")->data, sizeof ids);
    memcpy(lengths, find(file, "lengths")->data, sizeof lengths);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_model *model = load("models/demo-classifier", cases[i].precision);
        bg_run *run;
        OK(bg_run_create(model, 128, 1, 128, 1, &run, &err));
        for (int padded = 0; padded < 2; padded++) {
            char name[64];
            float expected[32][2];
            snprintf(name, sizeof name, "%s.%s", cases[i].key, padded ? "padded" : "unpadded");
            memcpy(expected, find(file, name)->data, sizeof expected);
            double worst = 0;
            for (int k = 0; k < 32; k++) {
                size_t n = (size_t)lengths[k];
                bg_sequence sequence = {0, padded ? 128 : n, 0, 0, n, 0};
                float got[2];
                OK(bg_run_forward(run, ids[k], &sequence, 1, &err));
                OK(bg_run_classify(run, &sequence, 1, got, &err));
                for (int j = 0; j < 2; j++)
                    worst = fmax(worst, fabs((double)got[j] - expected[k][j]));
            }
            printf("  %s: largest %.2g\n", name, worst);
            CHECK(worst <= cases[i].tolerance, "%s: %g", name, worst);
        }
        bg_run_free(run);
        bg_model_free(model);
    }
    bg_checkpoint_close(file);
}

/* Decoding token by token through the cache gives what running the text at once gives. */
static void test_cache(void)
{
    bg_model *model = load("models/demo-decoder", "nf4");
    bg_run *run, *steps;
    enum { N = 24 };
    int32_t ids[N];
    for (int i = 0; i < N; i++) ids[i] = i * 331 % 8192;
    OK(bg_run_create(model, N, 2, N, N, &run, &err));
    OK(bg_run_create(model, 4, 2, N, 4, &steps, &err));
    bg_sequence whole = {0, N, 0, 0, N, 0};
    OK(bg_run_forward(run, ids, &whole, 1, &err));
    for (int i = 0; i < N; i++) {
        bg_sequence step = {0, 1, 1, (size_t)i, (size_t)i + 1, 0};
        OK(bg_run_forward(steps, ids + i, &step, 1, &err));
        float a[8192], b[8192];
        logits_of(run, (size_t)i, 1, a);
        logits_of(steps, 0, 1, b);
        double worst = 0;
        for (int k = 0; k < 8192; k++) worst = fmax(worst, fabs((double)a[k] - b[k]));
        CHECK(worst < 2e-4, "token %d: %g", i, worst);
    }
    ids[3] = 8192;
    CHECK(bg_run_forward(run, ids, &whole, 1, &err) == BG_ERR_FORMAT, "id out of range");
    bg_run_free(run);
    bg_run_free(steps);
    bg_model_free(model);
}

/* A configuration that the tensors do not fit: the tensor and the expected shape are named. */
static void check_misfit(const char *from, const char *to, const char *says)
{
    char directory[] = TEMPORARY, path[64], target[4096], *text;
    CHECK(mkdtemp(directory) != NULL, "a temporary directory");
    OK(bg_read_text("tests/fixtures/tiny-gpt2/prefixed/config.json", 1 << 20, &text, NULL, &err));
    char *at = strstr(text, from);
    CHECK(at != NULL, "%s", from);
    bg_text edited = {0};
    bg_text_append(&edited, text, (size_t)(at - text));
    bg_text_puts(&edited, to);
    bg_text_puts(&edited, at + strlen(from));
    snprintf(path, sizeof path, "%s/config.json", directory);
    OK(bg_write_file(path, edited.data, edited.size, &err));
    CHECK(realpath("tests/fixtures/tiny-gpt2/prefixed/model.safetensors", target) != NULL, "path");
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    CHECK(symlink(target, path) == 0, "a link");
    bg_checkpoint *checkpoint;
    bg_model *model;
    OK(bg_checkpoint_open(directory, &checkpoint, &err));
    CHECK(bg_model_load(backend, checkpoint, false, bg_format_by_name("nf4"), (bg_progress){0},
                        &model, &err) == BG_ERR_FORMAT,
          "%s", to);
    CHECK(strstr(err.message, says) && strstr(err.message, directory), "%s", err.message);
    bg_checkpoint_close(checkpoint);
    bg_text_free(&edited);
    bg_free(text);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", directory);
    unlink(path);
    rmdir(directory);
}

static void test_misfits(void)
{
    check_misfit("\"n_layer\": 2", "\"n_layer\": 3",
                 "\"transformer.h.2.ln_1.weight\", of shape (40)");
    check_misfit(
        "\"n_inner\": 56", "\"n_inner\": 64",
        "\"transformer.h.0.mlp.c_fc.weight\" has the shape (40, 56), but config.json asks for "
        "(40, 64)");
    check_misfit("\"n_layer\": 2", "\"n_layer\": 1", "\"transformer.h.1.ln_1.weight\", but");
    check_misfit("\"vocab_size\": 97", "\"vocab_size\": 98", "\"transformer.wte.weight\"");
}

static void test_sizes(void)
{
    bg_model *m = load("models/demo-decoder", "fp32");
    size_t fp32 = m->weights_bytes;
    CHECK(m->n_parameters * 4 == (int64_t)fp32 && m->quantized_bytes == 6 * 786432 * 4, "%zu",
          fp32);
    bg_model_free(m);
    m = load("models/demo-decoder", "nf4");
    CHECK(m->quantized_bytes == 6 * 786432 / 2 + 6 * 786432 / 64 * 4, "%zu", m->quantized_bytes);
    bg_model_free(m);
}

static size_t bytes_of(const bg_parameter *p)
{
    return (p->weight ? p->weight->bytes : 0) + (p->bias ? p->bias->bytes : 0);
}

/* All weights but those named, and an encoder's. */
static void check_read(const char *directory, const char *precision, bool head)
{
    bg_model *m = load(directory, precision);
    const bg_parameter *p = m->parameters;
    size_t rest = m->encoder ? m->encoder->weights_bytes : 0;
    CHECK(!p[BG_ROLE_HEAD].weight == !head, "%s", directory);
    if (head || m->config.arch->task == BG_TASK_CLASSIFIER)
        rest += bytes_of(&p[BG_ROLE_TOKEN_EMBEDDING]);
    rest += bytes_of(&p[BG_ROLE_POSITION_EMBEDDING]) + bytes_of(&p[BG_ROLE_TYPE_EMBEDDING]) +
            bytes_of(&p[BG_ROLE_POSITION_BIAS]);
    for (int64_t i = 0; i < m->config.num_hidden_layers; i++)
        rest += bytes_of(&m->layers[i][BG_ROLE_CROSS_KEY]) +
                bytes_of(&m->layers[i][BG_ROLE_CROSS_VALUE]);
    CHECK(bg_model_read_bytes(m) == m->weights_bytes - rest, "%s at %s: %zu of %zu, not %zu less",
          directory, precision, bg_model_read_bytes(m), m->weights_bytes, rest);
    bg_model_free(m);
}

static void test_read_bytes(void)
{
    static const struct {
        const char *directory;
        bool head;
    } models[] = {{"models/demo-decoder", false},
                  {"models/demo-classifier", false},
                  {"tests/fixtures/tiny-llama/untied-bias", true},
                  {"tests/fixtures/tiny-t5/gated-untied", true},
                  {"tests/fixtures/tiny-t5/relu-tied", false},
                  {"tests/fixtures/tiny-paligemma/small", false}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        check_read(models[i].directory, "fp16", models[i].head);
        check_read(models[i].directory, "nf4", models[i].head);
    }
}

/* Random weights need the configuration alone; allocation failures end cleanly wherever they hit.
 */
static void test_random_and_out_of_memory(void)
{
    bg_checkpoint *checkpoint;
    OK(bg_checkpoint_open_config("tests/fixtures/tiny-gpt2/prefixed", &checkpoint, &err));
    for (long n = 0;; n++) {
        bg_model *model = NULL;
        bg_run *run = NULL;
        bg_alloc_fail_after(n);
        bg_status status = bg_model_load(backend, checkpoint, true, bg_format_by_name("int8"),
                                         (bg_progress){0}, &model, &err);
        if (!status) status = bg_run_create(model, 4, 1, 8, 1, &run, &err);
        int32_t ids[4] = {1, 2, 3, 4};
        bg_sequence sequence = {0, 4, 0, 0, 4, 0};
        if (!status) status = bg_run_forward(run, ids, &sequence, 1, &err);
        const size_t last = 3;
        const double uniform = 0.5;
        const bg_choice how = {.temperature = 1, .top_p = 1, .uniform = &uniform};
        if (!status) status = bg_run_select(run, &last, 1, &err);
        if (!status) status = bg_run_choose(run, 1, &how, &err);
        if (!status) status = bg_run_chosen(run, 0, 1, ids, &err);
        bg_alloc_fail_after(-1);
        bg_run_free(run);
        bg_model_free(model);
        if (!status) {
            CHECK(n > 20, "%ld allocations", n);
            break;
        }
        CHECK(status == BG_ERR_MEMORY, "%ld: %s", n, err.message);
    }
    bg_checkpoint_close(checkpoint);
}

int main(void)
{
    OK(bg_backend_open("cpu", 2, &backend, &err));
    RUN(test_decoder);
    RUN(test_outliers);
    RUN(test_separate);
    RUN(test_classifier);
    RUN(test_cache);
    RUN(test_misfits);
    RUN(test_sizes);
    RUN(test_read_bytes);
    RUN(test_random_and_out_of_memory);
    backend->ops->free(backend);
    return test_finish();
}

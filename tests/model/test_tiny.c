/* Tiny random checkpoints of every architecture and option, against what transformers computes from
 * them: the logits of every position, with the whole text run at once and, for decoders, in steps
 * through the cache; several sequences in a batch. See tests/fixtures/README.md. */
#include "test.h"

#include "core/alloc.h"
#include "model/model.h"

#include <glob.h>
#include <stdlib.h>

static bg_backend *backend;
static bg_error err;

#define OK(call) CHECK((call) == BG_OK, "%s", err.message)

enum { MAX_BATCH = 8, STEPS = 12 };

/* One case of a fixture. */
typedef struct {
    const bg_checkpoint *file;
    int number;
    size_t batch, length; /* of the rows that logits are for */
    size_t source_length; /* of an encoder's text; 0: none */
    int32_t *ids;         /* (batch, length) */
    int32_t *source;      /* (batch, source_length) */
    int32_t lengths[MAX_BATCH], prefix[MAX_BATCH];
    float *pixels; /* NULL: no images */
    size_t n_images;
} tiny_case;

static const bg_tensor *find(const tiny_case *c, const char *what)
{
    char name[64];
    snprintf(name, sizeof name, "case.%d.%s", c->number, what);
    return bg_checkpoint_find(c->file, name);
}

static void *copy(const bg_tensor *t)
{
    void *p = t ? bg_alloc(t->bytes) : NULL;
    if (p) memcpy(p, t->data, t->bytes);
    return p;
}

static bool read_case(const bg_checkpoint *file, int number, tiny_case *c)
{
    *c = (tiny_case){.file = file, .number = number};
    const bg_tensor *ids = find(c, "ids"), *lengths = find(c, "lengths");
    const bg_tensor *decoder = find(c, "decoder_ids"), *prefix = find(c, "prefix");
    const bg_tensor *pixels = find(c, "pixel_values");
    if (!ids || !lengths) return false;
    const bg_tensor *main = decoder ? decoder : ids;
    c->batch = (size_t)main->shape[0];
    c->length = (size_t)main->shape[1];
    CHECK(c->batch <= MAX_BATCH, "case %d: a batch of %zu", number, c->batch);
    if (c->batch > MAX_BATCH) return false;
    c->ids = copy(main);
    c->source = decoder ? copy(ids) : NULL;
    c->source_length = decoder ? (size_t)ids->shape[1] : 0;
    memcpy(c->lengths, lengths->data, 4 * c->batch);
    if (prefix) memcpy(c->prefix, prefix->data, 4 * c->batch);
    c->pixels = copy(pixels);
    c->n_images = pixels ? (size_t)pixels->shape[0] : 0;
    return true;
}

static void free_case(tiny_case *c)
{
    bg_free(c->ids);
    bg_free(c->source);
    bg_free(c->pixels);
}

/* What comes before the decoder's tokens. */
static void run_encoder(bg_run *run, const tiny_case *c)
{
    bg_sequence sequences[MAX_BATCH];
    for (size_t i = 0; i < c->batch; i++)
        sequences[i] = (bg_sequence){.first_row = i * c->source_length,
                                     .rows = c->source_length,
                                     .slot = i,
                                     .keys = (size_t)c->lengths[i]};
    if (c->source) OK(bg_run_encode(run, c->source, sequences, c->batch, &err));
    if (c->pixels) OK(bg_run_look(run, c->pixels, c->n_images, &err));
}

/* Tokens [begin, end) of every sequence, side by side: ids (batch, end - begin). */
static void take_tokens(const tiny_case *c, size_t begin, size_t end, int32_t *ids,
                        bg_sequence *sequences)
{
    const size_t n = end - begin;
    for (size_t i = 0; i < c->batch; i++) {
        memcpy(ids + i * n, c->ids + i * c->length + begin, n * sizeof *ids);
        size_t valid = c->source ? c->length : (size_t)c->lengths[i];
        sequences[i] = (bg_sequence){.first_row = i * n,
                                     .rows = n,
                                     .slot = i,
                                     .past = begin,
                                     .keys = valid < end ? valid : end,
                                     .prefix = (size_t)c->prefix[i]};
    }
}

/* The same, run; their logits go to their places in (batch, length, cols). */
static void run_tokens(bg_run *run, const tiny_case *c, size_t begin, size_t end, size_t cols,
                       float *logits)
{
    const size_t n = end - begin;
    bg_sequence sequences[MAX_BATCH];
    int32_t *ids = bg_alloc_array(c->batch * n, sizeof *ids);
    size_t *rows = bg_alloc_array(n, sizeof *rows);
    const bool classifier = run->model->config.arch->task == BG_TASK_CLASSIFIER;
    take_tokens(c, begin, end, ids, sequences);
    OK(bg_run_forward(run, ids, sequences, c->batch, &err));
    if (classifier) {
        OK(bg_run_classify(run, sequences, c->batch, logits, &err));
    } else {
        for (size_t i = 0; i < c->batch; i++) {
            for (size_t k = 0; k < n; k++) rows[k] = i * n + k;
            OK(bg_run_select(run, rows, n, &err));
            OK(bg_run_logits(run, n, logits + (i * c->length + begin) * cols, &err));
        }
    }
    bg_free(ids);
    bg_free(rows);
}

static double largest_difference(const float *got, const bg_tensor *expected)
{
    double worst = 0;
    for (size_t i = 0; i < expected->bytes / 4; i++) {
        float e;
        memcpy(&e, (const char *)expected->data + 4 * i, 4);
        double d = fabs((double)got[i] - (double)e);
        worst = d <= worst ? worst : d; /* so that NaN is large */
    }
    return worst;
}

/* Every other row of a sequence, the last one first, of a pass that need not finish other rows;
 * `all`: the logits of all rows (batch, length, cols). Returns how far it is from them. */
static double picked_difference(bg_run *run, const tiny_case *c, size_t sequence, size_t cols,
                                const float *all)
{
    const size_t n = (c->length + 1) / 2;
    bg_sequence sequences[MAX_BATCH];
    int32_t *ids = bg_alloc_array(c->batch * c->length, sizeof *ids);
    size_t *rows = bg_alloc_array(n, sizeof *rows);
    float *got = bg_alloc_array(n * cols, sizeof *got);
    double worst = 0;
    take_tokens(c, 0, c->length, ids, sequences);
    for (size_t k = 0; k < n; k++) rows[k] = (sequence + 1) * c->length - 1 - 2 * k;
    OK(bg_run_forward_to(run, ids, sequences, c->batch, rows, n, &err));
    OK(bg_run_logits(run, n, got, &err));
    for (size_t i = 0; i < n * cols; i++) {
        const double d = fabs((double)got[i] - (double)all[rows[i / cols] * cols + i % cols]);
        worst = d <= worst ? worst : d;
    }
    bg_free(ids);
    bg_free(rows);
    bg_free(got);
    return worst;
}

static void check_case(const bg_model *model, const tiny_case *c, const char *directory,
                       const char *precision, const char *key, double tolerance)
{
    const bg_tensor *expected = find(c, key);
    CHECK(expected || strcmp(key, "fp32") != 0, "%s case %d: no %s", directory, c->number, key);
    if (!expected) return; /* newer fixtures have fp32 and nf4 alone */
    const size_t cols = (size_t)expected->shape[expected->rank - 1];
    const size_t longest = c->length > c->source_length ? c->length : c->source_length;
    float *got = bg_calloc(expected->bytes, 1);
    bg_run *run;
    OK(bg_run_create(model, c->batch * longest, c->batch, longest, c->length, &run, &err));
    run_encoder(run, c);
    run_tokens(run, c, 0, c->length, cols, got);
    double worst = largest_difference(got, expected);
    CHECK(worst <= tolerance, "%s %s case %d: %g", directory, precision, c->number, worst);
    for (size_t i = 0; i < c->batch && model->config.arch->task != BG_TASK_CLASSIFIER; i++) {
        run_encoder(run, c);
        worst = picked_difference(run, c, i, cols, got);
        CHECK(worst <= tolerance, "%s %s case %d, some rows of %zu: %g", directory, precision,
              c->number, i, worst);
    }

    /* Again in steps: two thirds at once, the rest token by token. Not where the batch is padded:
     * the padding would be in the cache. */
    bool whole = model->config.arch->task == BG_TASK_CLASSIFIER;
    for (size_t i = 0; i < c->batch && !c->source; i++) whole |= (size_t)c->lengths[i] < c->length;
    size_t first = c->length * 2 / 3;
    for (size_t i = 0; i < c->batch; i++)
        if ((size_t)c->prefix[i] > first) first = (size_t)c->prefix[i];
    if (!whole && first > 0) {
        memset(got, 0, expected->bytes);
        run_encoder(run, c);
        run_tokens(run, c, 0, first, cols, got);
        for (size_t i = first; i < c->length; i++) run_tokens(run, c, i, i + 1, cols, got);
        worst = largest_difference(got, expected);
        CHECK(worst <= tolerance, "%s %s case %d in steps: %g", directory, precision, c->number,
              worst);
    }
    bg_run_free(run);
    bg_free(got);
}

/* STEPS tokens of each sequence behind a first one; `ahead`: a step's tokens are asked for when the
 * next step has been queued. */
static void choose_tokens(bg_run *run, const tiny_case *c, bool ahead, int32_t *chosen)
{
    const size_t n = c->batch;
    int32_t ids[MAX_BATCH];
    size_t rows[MAX_BATCH];
    bg_sequence sequences[MAX_BATCH];
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(i + 5);
        rows[i] = i;
    }
    for (size_t k = 0; k < STEPS; k++, chosen += n) {
        for (size_t i = 0; i < n; i++)
            sequences[i] =
                (bg_sequence){.first_row = i, .rows = 1, .slot = i, .past = k, .keys = k + 1};
        OK(bg_run_forward(run, ahead && k > 0 ? NULL : ids, sequences, n, &err));
        OK(bg_run_select(run, rows, n, &err));
        OK(bg_run_choose(run, n, &(bg_choice){0}, &err));
        if (ahead && k > 0) OK(bg_run_chosen(run, 1, n, chosen - n, &err));
        if (!ahead) OK(bg_run_chosen(run, 0, n, ids, &err));
        if (!ahead) memcpy(chosen, ids, n * sizeof *ids);
    }
    if (ahead) OK(bg_run_chosen(run, 0, n, chosen - n, &err));
}

/* Tokens that the host never sees before they are run are those that it hands on itself. */
static void check_ahead(const bg_model *model, const tiny_case *c, const char *directory,
                        const char *precision)
{
    const size_t longest = c->source_length > STEPS ? c->source_length : STEPS;
    int32_t chosen[3][STEPS * MAX_BATCH];
    bg_run *run;
    if (model->config.arch->task == BG_TASK_CLASSIFIER) return;
    OK(bg_run_create(model, c->batch * longest, c->batch, longest, c->batch, &run, &err));
    for (int i = 0; i < 3; i++) {
        if (c->source) run_encoder(run, c);
        choose_tokens(run, c, i > 0, chosen[i]);
    }
    for (int i = 1; i < 3; i++)
        CHECK(memcmp(chosen[0], chosen[i], STEPS * c->batch * sizeof **chosen) == 0,
              "%s %s: tokens chosen ahead", directory, precision);
    const bg_sequence two = {.rows = 2, .keys = 2};
    CHECK(bg_run_chosen(run, 2, 1, chosen[0], &err) == BG_ERR_INTERNAL, "two choices ago");
    CHECK(bg_run_forward(run, NULL, &two, 1, &err) == (c->batch == 2 ? BG_OK : BG_ERR_INTERNAL),
          "rows that were not chosen");
    bg_run_free(run);
}

static void check(const char *directory, const char *precision, const char *key, double tolerance)
{
    char name[256];
    bg_checkpoint *file, *checkpoint;
    bg_model *model = NULL;
    snprintf(name, sizeof name, "%s/logits.safetensors", directory);
    OK(bg_checkpoint_open_file(name, &file, &err));
    OK(bg_checkpoint_open(directory, &checkpoint, &err));
    OK(bg_model_load(backend, checkpoint, false, bg_format_by_name(precision), (bg_progress){0},
                     &model, &err));
    bg_checkpoint_close(checkpoint);
    tiny_case c;
    int n = 0;
    for (int i = 0; model && read_case(file, i, &c); i++, n++) {
        check_case(model, &c, directory, precision, key, tolerance);
        if (n == 0) check_ahead(model, &c, directory, precision);
        free_case(&c);
    }
    CHECK(n >= 4, "%s: %d cases", directory, n);
    bg_model_free(model);
    bg_checkpoint_close(file);
}

static bool stored_as_f32(const char *directory)
{
    bg_checkpoint *checkpoint;
    OK(bg_checkpoint_open(directory, &checkpoint, &err));
    bool f32 = bg_checkpoint_tensor(checkpoint, 0)->dtype == BG_F32;
    bg_checkpoint_close(checkpoint);
    return f32;
}

/* At 4 bits, what is not quantized is in 16 bits: nothing is lost where the checkpoint is, but a
 * checkpoint stored as F32 (whose expected logits have an fp32 rest) has its embeddings and head
 * rounded by up to 2^-12 of each, and these random models have logits of up to 50. fp4 may code
 * single values on the border between two codes another way than a GPU. */
static void test_tiny(void)
{
    glob_t found;
    int status = glob("tests/fixtures/tiny-*/*/logits.safetensors", 0, NULL, &found);
    CHECK(status == 0 && found.gl_pathc >= 35, "%zu fixtures", status ? 0 : found.gl_pathc);
    for (size_t i = 0; status == 0 && i < found.gl_pathc; i++) {
        char *directory = found.gl_pathv[i];
        *strrchr(directory, '/') = '\0';
        double rest = stored_as_f32(directory) ? 3e-2 : 2e-4;
        /* Two models, one behind the other: rounding in the vision tower goes through both. */
        double rounding = strstr(directory, "paligemma") ? 3e-4 : 1e-4;
        check(directory, "fp32", "fp32", rounding);
        check(directory, "nf4", "nf4", rest);
        check(directory, "nf4-dq", "nf4dq", rest);
        check(directory, "fp4", "fp4", 3e-2);
    }
    if (status == 0) globfree(&found);
}

int main(void)
{
    const char *device = getenv("BITGAUGE_TEST_DEVICE");
    OK(bg_backend_open(device ? device : "cpu", 2, &backend, &err));
    if (!backend) return 1;
    RUN(test_tiny);
    backend->ops->free(backend);
    return test_finish();
}

/* The CPU backend's operations: LLM.int8() products against bitsandbytes' own, and every format's
 * linear layer, for one row and for several, against decoded weights in double precision. */
#include "test.h"

#include "backend/backend.h"
#include "backend/cpu/cpu.h"
#include "checkpoint/checkpoint.h"
#include "core/alloc.h"
#include "quant/half.h"
#include "quant/widen.h"

#include <stdlib.h>

static bg_backend *backend;
static bg_error err;

#define OK(call) CHECK((call) == BG_OK, "%s", err.message)

static float *fixture(const bg_checkpoint *file, const char *name)
{
    const bg_tensor *t = bg_checkpoint_find(file, name);
    if (!t || !bg_widen[t->dtype]) {
        printf("%s is missing from the fixture\n", name);
        exit(1);
    }
    size_t n = t->bytes / bg_dtypes[t->dtype].size;
    float *values = bg_alloc_array(n, sizeof *values);
    bg_widen[t->dtype](t->data, 0, n, values);
    return values;
}

static bg_act *act_of(const float *values, size_t rows, size_t cols)
{
    bg_act *act;
    OK(backend->ops->act_create(backend, rows, cols, false, &act, &err));
    if (values) memcpy(cpu_values(act), values, rows * cols * sizeof(float));
    return act;
}

/* X W^T through LLM.int8(), with the outlier column of X in 16 bits. bitsandbytes rounds to
 * binary16 the integer part, the outliers' weights, their products' sum and the total, by at most
 * 2^-11 of each: that, and nothing more, may lie between the two. */
static void test_llm_int8(void)
{
    bg_checkpoint *file;
    OK(bg_checkpoint_open_file("tests/fixtures/quant.safetensors", &file, &err));
    float *w = fixture(file, "W"), *x = fixture(file, "X"),
          *expected = fixture(file, "int8_matmul_th6");
    bg_source source = {"W", BG_F32, w, 192, 320, false};
    bg_weight *weight;
    OK(backend->ops->weight_create(backend, &source, BG_FORMAT_INT8, &weight, &err));
    bg_act *in = act_of(x, 5, 320), *out = act_of(NULL, 5, 192);
    bg_linear args = {.weight = weight, .in = in, .n_rows = 5, .out = out};
    OK(backend->ops->linear(backend, &args, &err));
    const bg_packed *packed = cpu_packed(weight);
    double worst = 0;
    int outliers = 0;
    for (int c = 0; c < 320; c++) {
        bool is_outlier = false;
        for (int m = 0; m < 5; m++) is_outlier |= fabsf(x[m * 320 + c]) >= 6;
        outliers += is_outlier;
    }
    CHECK(outliers > 0, "the fixture has an outlier column");
    for (int m = 0; m < 5; m++)
        for (int r = 0; r < 192; r++) {
            double e = expected[m * 192 + r], part = 0, magnitude = 0;
            for (int c = 0; c < 320; c++) {
                bool is_outlier = false;
                for (int k = 0; k < 5; k++) is_outlier |= fabsf(x[k * 320 + c]) >= 6;
                if (!is_outlier) continue;
                float v;
                bg_formats[BG_FORMAT_INT8].decode(packed, &v, (size_t)(r * 320 + c), 1);
                part += (double)v * x[m * 320 + c];
                magnitude += fabs((double)v * x[m * 320 + c]);
            }
            double bound = 0x1p-11 * (2 * magnitude + fabs(e - part) + fabs(e)) + 0x1p-24;
            worst = fmax(worst, fabs(cpu_values(out)[m * 192 + r] - e) / bound);
        }
    CHECK(worst <= 1, "%g of what binary16 rounding allows", worst);
    printf("  largest difference: %.2f of what rounding to binary16 allows\n", worst);
    backend->ops->act_free(backend, in);
    backend->ops->act_free(backend, out);
    backend->ops->weight_free(backend, weight);
    bg_free(w);
    bg_free(x);
    bg_free(expected);
    bg_checkpoint_close(file);
}

/* Sequences with outlier columns of their own, none of them in all: to the last bit what each gives
 * alone, and not what they give as one batch. */
static void test_sequences(void)
{
    enum { N = 12, COLS = 72, ROWS = 40 };
    static const bg_sequence sequences[] = {
        {.first_row = 0, .rows = 5}, {.first_row = 5, .rows = 1}, {.first_row = 6, .rows = 6}};
    float w[ROWS * COLS], x[N * COLS];
    for (size_t i = 0; i < ROWS * COLS; i++) w[i] = sinf((float)i);
    for (size_t i = 0; i < N * COLS; i++) x[i] = 3 * cosf((float)i * 0.7f);
    x[2 * COLS + 9] = 50;
    x[4 * COLS + 70] = -20;
    x[8 * COLS + 30] = x[11 * COLS + 9] = 7;
    const bg_source source = {"w", BG_F32, w, ROWS, COLS, false};
    bg_weight *weight;
    OK(backend->ops->weight_create(backend, &source, BG_FORMAT_INT8, &weight, &err));
    bg_act *in = act_of(x, N, COLS), *batch = act_of(NULL, N, ROWS), *out = act_of(NULL, N, ROWS);
    bg_linear args = {.weight = weight, .in = in, .n_rows = N, .out = batch};
    OK(backend->ops->linear(backend, &args, &err));
    args.out = out;
    args.sequences = sequences;
    args.n_sequences = 3;
    OK(backend->ops->linear(backend, &args, &err));
    CHECK(memcmp(cpu_values(batch), cpu_values(out), N * ROWS * sizeof(float)) != 0, "as a batch");
    for (size_t i = 0; i < 3; i++) {
        const size_t first = sequences[i].first_row, n = sequences[i].rows;
        bg_act *own = act_of(x + first * COLS, n, COLS), *alone = act_of(NULL, n, ROWS);
        const bg_linear one = {.weight = weight, .in = own, .n_rows = n, .out = alone};
        OK(backend->ops->linear(backend, &one, &err));
        CHECK(memcmp(cpu_values(alone), cpu_values(out) + first * ROWS, n * ROWS * sizeof(float)) ==
                  0,
              "sequence %zu", i);
        backend->ops->act_free(backend, own);
        backend->ops->act_free(backend, alone);
    }
    backend->ops->act_free(backend, in);
    backend->ops->act_free(backend, batch);
    backend->ops->act_free(backend, out);
    backend->ops->weight_free(backend, weight);
}

/* The same without outlier columns, as bitsandbytes has it at a threshold of 0: of its roundings to
 * binary16 only the result's is left. */
static void test_int8_plain(void)
{
    bg_checkpoint *file;
    OK(bg_checkpoint_open_file("tests/fixtures/quant.safetensors", &file, &err));
    float *w = fixture(file, "W"), *x = fixture(file, "X"),
          *expected = fixture(file, "int8_matmul_th0");
    bg_source source = {"W", BG_F32, w, 192, 320, false};
    bg_weight *weight;
    OK(backend->ops->weight_create(backend, &source, BG_FORMAT_INT8_PLAIN, &weight, &err));
    /* In one batch and row by row: no row decides how another is computed. */
    for (size_t rows = 1; rows <= 5; rows += 4)
        for (size_t first = 0; first < 5; first += rows) {
            bg_act *in = act_of(x + first * 320, rows, 320), *out = act_of(NULL, rows, 192);
            bg_linear args = {.weight = weight, .in = in, .n_rows = rows, .out = out};
            OK(backend->ops->linear(backend, &args, &err));
            double worst = 0;
            for (size_t i = 0; i < rows * 192; i++) {
                double e = expected[first * 192 + i];
                double gap = fabs(cpu_values(out)[i] - e);
                worst = fmax(worst, gap / (0x1p-11 * fabs(e) + 0x1p-24));
            }
            CHECK(worst <= 1, "row %zu: %g of what binary16 rounding allows", first, worst);
            backend->ops->act_free(backend, in);
            backend->ops->act_free(backend, out);
        }
    backend->ops->weight_free(backend, weight);
    bg_free(w);
    bg_free(x);
    bg_free(expected);
    bg_checkpoint_close(file);
}

/* One linear layer with everything in its epilogue. */
static void check_linear(bg_format_id id, size_t n_rows, size_t rows, size_t cols, bool transposed,
                         bool in_place)
{
    float *w = bg_alloc_array(rows * cols, 4), *x = bg_alloc_array(n_rows * cols, 4);
    float *b = bg_alloc_array(rows, 4), *r = bg_alloc_array(n_rows * rows, 4), *plain;
    plain = bg_alloc_array(rows * cols, 4);
    for (size_t i = 0; i < rows * cols; i++) w[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    for (size_t i = 0; i < n_rows * cols; i++) x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    for (size_t i = 0; i < rows; i++) b[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    for (size_t i = 0; i < n_rows * rows; i++) r[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    for (size_t i = 0; i < rows; i++)
        for (size_t c = 0; c < cols; c++)
            plain[i * cols + c] = transposed ? w[c * rows + i] : w[i * cols + c];
    bg_packed packed;
    OK(bg_packed_alloc(id, rows, cols, &packed, &err));
    bg_formats[id].encode(&packed, plain, 0, rows * cols);
    bg_packed_finish(&packed);
    bg_formats[id].decode(&packed, plain, 0, rows * cols);

    bg_source source = {"w", BG_F32, w, rows, cols, transposed},
              bias = {"b", BG_F32, b, 1, rows, false};
    bg_weight *weight, *bias_weight;
    OK(backend->ops->weight_create(backend, &source, id, &weight, &err));
    OK(backend->ops->weight_create(backend, &bias, BG_FORMAT_F32, &bias_weight, &err));
    bg_act *in = act_of(x, n_rows, cols), *residual = act_of(r, n_rows, rows);
    bg_act *out = in_place ? residual : act_of(NULL, n_rows, rows);
    bg_linear args = {.weight = weight,
                      .bias = bias_weight,
                      .in = in,
                      .n_rows = n_rows,
                      .activation = BG_ACTIVATION_RELU,
                      .residual = residual,
                      .out = out};
    OK(backend->ops->linear(backend, &args, &err));
    /* int8 quantizes the activations, too: half a code of each of `cols` products. */
    double tolerance = bg_format_is_int8(id) ? 0.25 * 0.5 / 127 * sqrt((double)cols) * 3 : 2e-5;
    double worst = 0;
    for (size_t m = 0; m < n_rows; m++)
        for (size_t i = 0; i < rows; i++) {
            double y = b[i];
            for (size_t c = 0; c < cols; c++) y += (double)plain[i * cols + c] * x[m * cols + c];
            y = fmax(y, 0) + r[m * rows + i];
            worst = fmax(worst, fabs(cpu_values(out)[m * rows + i] - y));
        }
    CHECK(worst < tolerance, "%s %zu x %zux%zu%s%s: %g", bg_formats[id].name, n_rows, rows, cols,
          transposed ? " transposed" : "", in_place ? " in place" : "", worst);
    backend->ops->act_free(backend, in);
    if (!in_place) backend->ops->act_free(backend, out);
    backend->ops->act_free(backend, residual);
    backend->ops->weight_free(backend, weight);
    backend->ops->weight_free(backend, bias_weight);
    bg_packed_free(&packed);
    bg_free(w);
    bg_free(x);
    bg_free(b);
    bg_free(r);
    bg_free(plain);
}

static void test_linear(void)
{
    static const size_t shapes[][2] = {{40, 56}, {192, 320}, {700, 128}, {3, 1000}};
    for (int id = 0; id < BG_FORMAT_COUNT; id++)
        for (size_t s = 0; s < 4; s++)
            for (size_t n = 1; n <= 7; n += 3)
                check_linear(id, n, shapes[s][0], shapes[s][1], s % 2, n % 2);
}

/* Attention over a cache filled in two steps equals attention at once. */
static void test_attention_in_steps(void)
{
    enum { N = 70, HEADS = 4, KV = 2, D = 8, COLS = (HEADS + 2 * KV) * D };
    float *x = bg_alloc_array(N * COLS, 4);
    for (int i = 0; i < N * COLS; i++) x[i] = (float)rand() / (float)RAND_MAX * 4 - 2;
    bg_act *all = act_of(x, N, COLS), *out = act_of(NULL, N, HEADS * D);
    bg_act *rest = act_of(x + 60 * COLS, N - 60, COLS), *out_rest = act_of(NULL, N - 60, HEADS * D);
    bg_cache *cache;
    OK(backend->ops->cache_create(backend, 2, 2, N, KV, D, &cache, &err));
    bg_sequence whole = {0, N, 0, 0, N, 0}, first = {0, 60, 1, 0, 60, 0},
                second = {0, N - 60, 1, 60, N, 0};
    bg_attention args = {.qkv = all,
                         .key_col = HEADS * D,
                         .value_col = (HEADS + KV) * D,
                         .n_heads = HEADS,
                         .n_kv_heads = KV,
                         .head_dim = D,
                         .scale = 0.3f,
                         .causal = true,
                         .cache = cache,
                         .layer = 1,
                         .sequences = &whole,
                         .n_sequences = 1,
                         .out = out};
    OK(backend->ops->attention(backend, &args, &err));
    float expected[10 * HEADS * D];
    memcpy(expected, cpu_values(out) + 60 * HEADS * D, sizeof expected);
    args.sequences = &first;
    OK(backend->ops->attention(backend, &args, &err));
    args.qkv = rest;
    args.out = out_rest;
    args.sequences = &second;
    OK(backend->ops->attention(backend, &args, &err));
    double worst = 0;
    for (int i = 0; i < 10 * HEADS * D; i++)
        worst = fmax(worst, fabs((double)expected[i] - cpu_values(out_rest)[i]));
    CHECK(worst < 1e-5, "%g", worst);
    /* One query against the definition. */
    double scores[N], sum = 0, y = 0;
    const int q = 65, head = 3, kv = 1;
    for (int j = 0; j <= q; j++) {
        scores[j] = 0;
        for (int k = 0; k < D; k++)
            scores[j] += 0.3 * x[q * COLS + head * D + k] * x[j * COLS + HEADS * D + kv * D + k];
        sum += exp(scores[j]);
    }
    for (int j = 0; j <= q; j++)
        y += exp(scores[j]) / sum * x[j * COLS + (HEADS + KV) * D + kv * D + 5];
    CHECK(fabs(y - expected[(q - 60) * HEADS * D + head * D + 5]) < 1e-5, "the definition");
    second.keys = N + 1;
    CHECK(backend->ops->attention(backend, &args, &err) == BG_ERR_INTERNAL, "beyond the cache");
    bg_act *acts[] = {all, out, rest, out_rest};
    for (int i = 0; i < 4; i++) backend->ops->act_free(backend, acts[i]);
    backend->ops->cache_free(backend, cache);
    bg_free(x);
}

/* Log-likelihoods and the largest logit, over more rows than one chunk holds. */
static void test_head(void)
{
    enum { N = 130, V = 1001, D = 32 };
    float *w = bg_alloc_array(V * D, 4), *x = bg_alloc_array(N * D, 4), *logits;
    logits = bg_alloc_array(N * V, 4);
    for (int i = 0; i < V * D; i++) w[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    for (int i = 0; i < N * D; i++) x[i] = (float)rand() / (float)RAND_MAX * 4 - 2;
    bg_source source = {"w", BG_F32, w, V, D, false};
    bg_weight *head;
    OK(backend->ops->weight_create(backend, &source, BG_FORMAT_F32, &head, &err));
    bg_act *in = act_of(x, N, D);
    int32_t targets[N], ids[N];
    double nll[N], worst = 0;
    for (int i = 0; i < N; i++) targets[i] = i * 7 % V;
    OK(backend->ops->score(backend, head, NULL, in, N, targets, nll, &err));
    bg_ids *chosen;
    OK(backend->ops->ids_create(backend, N, &chosen, &err));
    OK(backend->ops->choose(backend, head, NULL, in, N, &(bg_choice){0}, chosen, &err));
    OK(backend->ops->ids_read(backend, chosen, N, ids, &err));
    /* What an embedding looks up are these ids. */
    bg_act *rows;
    float *looked_up = bg_alloc_array(N * D, 4);
    const bg_lookup lookup = {.table = head, .chosen = chosen, .scale = 1};
    OK(backend->ops->act_create(backend, N, D, false, &rows, &err));
    OK(backend->ops->embed(backend, &lookup, 1, N, rows, &err));
    OK(backend->ops->act_read(backend, rows, N, looked_up, &err));
    int other = 0;
    for (int i = 0; i < N; i++)
        other += memcmp(looked_up + i * D, w + ids[i] * D, D * sizeof *w) != 0;
    CHECK(other == 0, "%d rows looked up are others", other);
    /* Without the first row's, and drawn of one. */
    int32_t next[N];
    double uniform[N] = {0};
    const bg_choice how = {.forbidden = ids,
                           .n_forbidden = 1,
                           .temperature = 1,
                           .top_k = 1,
                           .top_p = 1,
                           .uniform = uniform};
    OK(backend->ops->choose(backend, head, NULL, in, N, &how, chosen, &err));
    OK(backend->ops->ids_read(backend, chosen, N, next, &err));
    for (int i = 0; i < N; i++)
        CHECK((next[i] == ids[i]) == (ids[i] != ids[0]), "row %d: %d, %d", i, next[i], ids[i]);
    backend->ops->act_free(backend, rows);
    backend->ops->ids_free(backend, chosen);
    bg_free(looked_up);
    OK(backend->ops->logits(backend, head, NULL, in, N, logits, &err));
    int wrong = 0;
    for (int i = 0; i < N; i++) {
        double sum = 0, target = 0, best = -1e9;
        int best_id = 0;
        for (int v = 0; v < V; v++) {
            double y = 0;
            for (int k = 0; k < D; k++) y += (double)w[v * D + k] * x[i * D + k];
            sum += exp(y);
            if (v == targets[i]) target = y;
            if (y > best) {
                best = y;
                best_id = v;
            }
            worst = fmax(worst, fabs(y - logits[i * V + v]));
        }
        worst = fmax(worst, fabs(log(sum) - target - nll[i]));
        wrong += ids[i] != best_id;
    }
    CHECK(worst < 1e-5 && wrong == 0, "%g, %d", worst, wrong);
    backend->ops->act_free(backend, in);
    backend->ops->weight_free(backend, head);
    bg_free(w);
    bg_free(x);
    bg_free(logits);
}

static size_t held_bytes(bg_backend *of)
{
    bg_usage usage;
    of->ops->usage(of, &usage);
    return usage.held.total;
}

/* What is held is counted by its use, and at its peak. */
static void test_usage(void)
{
    bg_backend *fresh;
    bg_act *act;
    bg_cache *cache;
    bg_weight *weight;
    bg_usage u;
    float values[128] = {1, 2, 3};
    const bg_source source = {"w", BG_F32, values, 2, 64, false};
    OK(bg_backend_open("cpu", 1, &fresh, &err));
    OK(fresh->ops->act_create(fresh, 4, 64, false, &act, &err));
    OK(fresh->ops->cache_create(fresh, 2, 1, 8, 2, 4, &cache, &err));
    OK(fresh->ops->weight_create(fresh, &source, BG_FORMAT_NF4, &weight, &err));
    fresh->ops->usage(fresh, &u);
    CHECK(u.held.now[BG_USE_ACTIVATIONS] == 1024 && u.held.now[BG_USE_WEIGHTS] == 64 + 8 &&
              u.held.now[BG_USE_CACHES] == 2 * 2 * 8 * 2 * 4 * sizeof(float),
          "%zu %zu %zu", u.held.now[BG_USE_ACTIVATIONS], u.held.now[BG_USE_WEIGHTS],
          u.held.now[BG_USE_CACHES]);
    const size_t all = u.held.total;
    CHECK(all == u.held.peak && !u.device.source && !u.device.name, "the host's memory");
    fresh->ops->act_free(fresh, act);
    fresh->ops->cache_free(fresh, cache);
    fresh->ops->weight_free(fresh, weight);
    fresh->ops->usage(fresh, &u);
    CHECK(u.held.total == u.held.now[BG_USE_WORKSPACE] && u.held.peak == all &&
              u.held.most[BG_USE_ACTIVATIONS] == 1024,
          "%zu left, %zu at peak", u.held.total, u.held.peak);
    CHECK(fresh->ops->joules(fresh) < 0 && fresh->ops->device_seconds(fresh) < 0,
          "the processor counts neither");
    fresh->ops->free(fresh);
}

/* Whatever allocation fails, it is reported and nothing is lost. */
static void test_out_of_memory(void)
{
    static const float w[64 * 64] = {1};
    bg_source source = {"w", BG_F32, w, 64, 64, false};
    for (long n = 0;; n++) {
        bg_backend *fresh = NULL;
        bg_weight *weight = NULL;
        bg_act *in = NULL, *out = NULL;
        bg_alloc_fail_after(n);
        bg_status status = bg_backend_open("cpu", 2, &fresh, &err);
        if (!status)
            status = fresh->ops->weight_create(fresh, &source, BG_FORMAT_NF4_DQ, &weight, &err);
        if (!status) status = fresh->ops->act_create(fresh, 2, 64, false, &in, &err);
        if (!status) status = fresh->ops->act_create(fresh, 2, 64, false, &out, &err);
        bg_linear args = {.weight = weight, .in = in, .n_rows = 2, .out = out};
        if (!status) status = fresh->ops->linear(fresh, &args, &err);
        bg_alloc_fail_after(-1);
        if (fresh) {
            fresh->ops->act_free(fresh, in);
            fresh->ops->act_free(fresh, out);
            fresh->ops->weight_free(fresh, weight);
            CHECK(status != BG_OK || held_bytes(fresh) > 0, "scratch is counted");
            fresh->ops->free(fresh);
        }
        if (status == BG_OK) {
            CHECK(n > 5, "%ld allocations", n);
            break;
        }
        CHECK(status == BG_ERR_MEMORY, "%ld: %s", n, err.message);
    }
}

int main(void)
{
    srand(3);
    OK(bg_backend_open("cpu", 2, &backend, &err));
    if (!backend) return 1;
    printf("%s\n", backend->ops->isa(backend));
    RUN(test_llm_int8);
    RUN(test_sequences);
    RUN(test_int8_plain);
    RUN(test_linear);
    RUN(test_attention_in_steps);
    RUN(test_head);
    RUN(test_usage);
    RUN(test_out_of_memory);
    CHECK(bg_backend_open("tpu", 1, &(bg_backend *){NULL}, &err) == BG_ERR_UNSUPPORTED, "unknown");
    backend->ops->free(backend);
    /* One thread gets the same ranges as several: working memory is sized for them. */
    OK(bg_backend_open("cpu", 1, &backend, &err));
    RUN(test_linear);
    RUN(test_head);
    backend->ops->free(backend);
    return test_finish();
}

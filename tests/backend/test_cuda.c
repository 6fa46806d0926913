/* Every operation of the CUDA backend, at every format, against the scalar CPU kernels; linear
 * layers are in test_cuda_linear.c and test_cuda_blocks.c. Needs a GPU; without one it only checks
 * that the reason is told. */
#include "both.h"

#include "backend/choice.h"
#include "core/clock.h"
#include "quant/half.h"

#include <stdlib.h>

/* ---- weights --------------------------------------------------------------------------------- */

/* Encoded on the GPU as on the CPU: the decoded values are equal to the last bit. */
static void check_encoding(bg_format_id id, bg_dtype dtype, size_t rows, size_t cols,
                           bool transposed)
{
    const size_t n = rows * cols;
    float *x = draw_many(n, 1), *decoded[BOTH];
    uint16_t *narrow = bg_alloc_array(n, 2);
    for (size_t i = 0; i < n; i++) {
        if (i % 97 == 0) x[i] *= 30;
        if (i / 64 % 29 == 3) x[i] = 0; /* whole blocks of zeros */
        narrow[i] = dtype == BG_BF16 ? bg_f32_to_bf16(x[i]) : bg_f32_to_f16(x[i]);
    }
    const bg_source source = {"w",  dtype, dtype == BG_F32 ? (void *)x : (void *)narrow,
                              rows, cols,  transposed};
    int32_t *ids = bg_alloc_array(rows, sizeof *ids);
    for (size_t i = 0; i < rows; i++) ids[i] = (int32_t)i;
    size_t bytes[BOTH];
    for (int d = 0; d < BOTH; d++) {
        bg_weight *w = NULL;
        bg_act *out = NULL;
        OK(backends[d]->ops->weight_create(backends[d], &source, id, &w, &err));
        OK(backends[d]->ops->act_create(backends[d], rows, cols, false, &out, &err));
        const bg_lookup lookup = {w, ids, NULL, 1};
        OK(backends[d]->ops->embed(backends[d], &lookup, 1, rows, out, &err));
        decoded[d] = bg_alloc_array(n, sizeof(float));
        OK(backends[d]->ops->act_read(backends[d], out, rows, decoded[d], &err));
        bytes[d] = w->bytes;
        backends[d]->ops->act_free(backends[d], out);
        backends[d]->ops->weight_free(backends[d], w);
    }
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++)
        wrong += bg_bits_from_float(decoded[CPU][i]) != bg_bits_from_float(decoded[GPU][i]);
    CHECK(wrong == 0 && bytes[CPU] == bytes[GPU], "%s from %s, %zu x %zu%s: %zu values differ",
          bg_formats[id].name, bg_dtypes[dtype].name, rows, cols, transposed ? " transposed" : "",
          wrong);
    bg_free(x);
    bg_free(narrow);
    bg_free(ids);
    for (int d = 0; d < BOTH; d++) bg_free(decoded[d]);
}

static void test_encoding(void)
{
    static const size_t shapes[][2] = {{40, 56}, {192, 320}, {3, 1001}, {700, 128}, {7001, 1500}};
    static const bg_dtype dtypes[] = {BG_F32, BG_F16, BG_BF16};
    for (int id = 0; id < BG_FORMAT_COUNT; id++)
        for (size_t s = 0; s < 5; s++)
            for (int t = 0; t < 3; t++) {
                if (s == 4 && t != 1) continue; /* several panels: once is enough */
                check_encoding((bg_format_id)id, dtypes[t], shapes[s][0], shapes[s][1], false);
                check_encoding((bg_format_id)id, dtypes[t], shapes[s][0], shapes[s][1], true);
            }
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void test_rows(void)
{
    enum { N = 37, COLS = 200 };
    for (int half = 0; half < 2; half++) {
        act in = act_new(N, COLS, half, 3), out = act_new(N, COLS, half, 1);
        weight tables[2] = {weight_new(BG_FORMAT_F16, 50, COLS, 1),
                            weight_new(BG_FORMAT_NF4_DQ, 60, COLS, 1)};
        int32_t ids[2][N];
        size_t from[N], to[N];
        for (int i = 0; i < N; i++) {
            ids[0][i] = i * 7 % 50;
            ids[1][i] = i * 11 % 60;
            from[i] = (size_t)(i * 5 % N);
            to[i] = (size_t)(N - 1 - i);
        }
        for (int d = 0; d < BOTH; d++) {
            const bg_lookup lookups[] = {{tables[0].on[d], ids[0], NULL, 3.5f},
                                         {tables[1].on[d], ids[1], NULL, 1}};
            OK(backends[d]->ops->embed(backends[d], lookups, 2, N, out.on[d], &err));
        }
        CHECK(difference(out, N) == 0, "embedding: %g", difference(out, N));
        for (int scaled = 0; scaled < 2; scaled++) {
            for (int d = 0; d < BOTH; d++) {
                OK(backends[d]->ops->copy_rows(backends[d], in.on[d], from, out.on[d], to, N,
                                               scaled ? 0.3f : 1, &err));
                OK(backends[d]->ops->copy_rows(backends[d], in.on[d], NULL, out.on[d], NULL, 5, 1,
                                               &err));
            }
            CHECK(difference(out, N) == 0, "copied rows: %g", difference(out, N));
        }
        act_drop(in);
        act_drop(out);
        weight_drop(tables[0]);
        weight_drop(tables[1]);
    }
}

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct {
    size_t heads, kv_heads, dim, rope; /* values that turn; 0: none */
    size_t window, prefix;
    bool normed, bias, causal, half;
} attention_case;

/* Each in fp32 and in 16 bits. */
static void run_cases(const attention_case *cases, size_t n, void (*run)(attention_case))
{
    for (size_t i = 0; i < n; i++)
        for (int half = 0; half < 2; half++) {
            attention_case c = cases[i];
            c.half = half;
            run(c);
        }
}

/* Three sequences of different lengths, all at once, some more tokens of each, then 40 steps of
 * one; results are compared after each call. */
static void run_attention(attention_case c)
{
    enum { LENGTH = 300, SLOTS = 4, MORE = 17 };
    static const size_t lengths[] = {70, 1, 33};
    const size_t cols = (c.heads + 2 * c.kv_heads) * c.dim, rows = 70 + 1 + 33;
    act qkv = act_new(rows, cols, c.half, 2), out = act_new(rows, c.heads * c.dim, c.half, 1);
    cache kv = cache_new(2, SLOTS, LENGTH, c.kv_heads, c.dim);
    weight norm = weight_new(BG_FORMAT_F32, 1, c.dim, 1);
    weight rope = weight_new(BG_FORMAT_F32, LENGTH, c.rope ? c.rope : 2, 1);
    weight bias = weight_new(BG_FORMAT_F32, c.heads, 2 * 20 + 1, 1);
    bg_sequence sequences[3];
    size_t row = 0;
    for (size_t i = 0; i < 3; i++) {
        sequences[i] = (bg_sequence){row, lengths[i], (i + 1) % SLOTS, 0, lengths[i], c.prefix};
        row += lengths[i];
    }
    double worst = 0;
    size_t n_rows = rows;
    for (int step = 0; step < 42; step++) {
        float *x = draw_many(rows * cols, 2);
        for (int d = 0; d < BOTH; d++) {
            const bg_norm n = {c.half ? BG_NORM_RMS_OFFSET : BG_NORM_RMS,
                               c.normed ? norm.on[d] : NULL, NULL, 1e-6f};
            OK(backends[d]->ops->act_write(backends[d], qkv.on[d], rows, x, &err));
            const bg_attention args = {.qkv = qkv.on[d],
                                       .key_col = c.heads * c.dim,
                                       .value_col = (c.heads + c.kv_heads) * c.dim,
                                       .n_heads = c.heads,
                                       .n_kv_heads = c.kv_heads,
                                       .head_dim = c.dim,
                                       .query_norm = n,
                                       .key_norm = n,
                                       .rope = c.rope ? rope.on[d] : NULL,
                                       .scale = 0.2f,
                                       .position_bias = c.bias ? bias.on[d] : NULL,
                                       .causal = c.causal,
                                       .window = c.window,
                                       .cache = kv.on[d],
                                       .layer = 1,
                                       .sequences = sequences,
                                       .n_sequences = 3,
                                       .out = out.on[d]};
            OK(backends[d]->ops->attention(backends[d], &args, &err));
        }
        bg_free(x);
        worst = fmax(worst, difference(out, n_rows));
        const size_t next = step == 0 ? MORE : 1;
        n_rows = 3 * next;
        for (size_t i = 0; i < 3; i++) {
            bg_sequence *s = &sequences[i];
            s->past = s->keys;
            s->keys += next;
            s->first_row = i * next;
            s->rows = next;
        }
    }
    CHECK(worst <= (c.half ? 1e-3 : 1e-5), "%zu/%zu heads of %zu, rope %zu, window %zu%s%s: %g",
          c.heads, c.kv_heads, c.dim, c.rope, c.window, c.bias ? ", bias" : "",
          c.half ? ", 16 bits" : "", worst);
    act_drop(qkv);
    act_drop(out);
    cache_drop(kv);
    weight_drop(norm);
    weight_drop(rope);
    weight_drop(bias);
}

static void test_attention(void)
{
    static const attention_case cases[] = {
        {.heads = 4, .kv_heads = 4, .dim = 64, .causal = true},
        {.heads = 16, .kv_heads = 16, .dim = 80}, /* 16 to 64 queries in a block */
        {.heads = 48, .kv_heads = 12, .dim = 64, .causal = true},
        {.heads = 16, .kv_heads = 16, .dim = 64, .rope = 32, .causal = true, .window = 50},
        {.heads = 8, .kv_heads = 2, .dim = 64, .rope = 64, .causal = true},
        {.heads = 6, .kv_heads = 3, .dim = 80, .rope = 32, .causal = true},
        {.heads = 4, .kv_heads = 1, .dim = 256, .rope = 256, .causal = true, .prefix = 20},
        {.heads = 4, .kv_heads = 2, .dim = 128, .rope = 128, .normed = true, .causal = true},
        {.heads = 2, .kv_heads = 2, .dim = 72},
        {.heads = 5, .kv_heads = 5, .dim = 7, .bias = true, .causal = true},
        {.heads = 4, .kv_heads = 4, .dim = 16, .bias = true},
        {.heads = 4, .kv_heads = 2, .dim = 8, .rope = 8, .causal = true, .window = 9},
    };
    run_cases(cases, sizeof cases / sizeof *cases, run_attention);
}

/* So many queries that they fill the GPU, twice, the second time behind the first; in fp32 from a
 * layer whose input was rounded to 16 bits. */
static void run_many(attention_case c)
{
    enum { LENGTH = 600, HIDDEN = 128, ROWS = 257 + 280 };
    const size_t cols = (c.heads + 2 * c.kv_heads) * c.dim;
    act x = act_new(ROWS, HIDDEN, c.half, 1), qkv = act_new(ROWS, cols, c.half, 2);
    act out = act_new(ROWS, c.heads * c.dim, c.half, 1);
    weight w = weight_new(BG_FORMAT_F16, cols, HIDDEN, 0.2f);
    weight rope = weight_new(BG_FORMAT_F32, LENGTH, c.rope ? c.rope : 2, 1);
    cache kv = cache_new(1, 2, LENGTH, c.kv_heads, c.dim);
    for (size_t behind = 0; behind < 2; behind++) {
        const bg_sequence sequences[] = {{0, 257, 1, behind * 257, 257 + behind * 257, c.prefix},
                                         {257, 280, 0, behind * 280, 280 + behind * 280, c.prefix}};
        float *values = draw_many(ROWS * cols, 2);
        for (int d = 0; d < BOTH; d++) {
            const bg_linear linear = {
                .weight = w.on[d], .in = x.on[d], .n_rows = ROWS, .out = qkv.on[d]};
            if (c.half)
                OK(backends[d]->ops->act_write(backends[d], qkv.on[d], ROWS, values, &err));
            else
                OK(backends[d]->ops->linear(backends[d], &linear, &err));
            const bg_attention args = {.qkv = qkv.on[d],
                                       .key_col = c.heads * c.dim,
                                       .value_col = (c.heads + c.kv_heads) * c.dim,
                                       .n_heads = c.heads,
                                       .n_kv_heads = c.kv_heads,
                                       .head_dim = c.dim,
                                       .rope = c.rope ? rope.on[d] : NULL,
                                       .scale = 0.2f,
                                       .causal = c.causal,
                                       .window = c.window,
                                       .cache = kv.on[d],
                                       .sequences = sequences,
                                       .n_sequences = 2,
                                       .out = out.on[d]};
            OK(backends[d]->ops->attention(backends[d], &args, &err));
        }
        bg_free(values);
        const double gap = difference(out, ROWS);
        CHECK(gap <= 1e-3, "%zu/%zu heads of %zu, rope %zu, window %zu, pass %zu%s: %g", c.heads,
              c.kv_heads, c.dim, c.rope, c.window, behind, c.half ? ", 16 bits" : "", gap);
    }
    act_drop(x);
    act_drop(qkv);
    act_drop(out);
    weight_drop(w);
    weight_drop(rope);
    cache_drop(kv);
}

static void test_many(void)
{
    static const attention_case cases[] = {
        {.heads = 32, .kv_heads = 8, .dim = 64, .rope = 64, .causal = true},
        {.heads = 32, .kv_heads = 16, .dim = 64, .causal = true, .window = 50},
        {.heads = 32, .kv_heads = 32, .dim = 80, .rope = 32, .causal = true},
        {.heads = 24, .kv_heads = 24, .dim = 52},
        {.heads = 24, .kv_heads = 8, .dim = 128, .rope = 128, .causal = true, .prefix = 90},
        /* Twice as many: products of warpgroups, where there are any. */
        {.heads = 64, .kv_heads = 16, .dim = 64, .rope = 64, .causal = true},
        {.heads = 64, .kv_heads = 64, .dim = 64, .causal = true, .window = 50},
        {.heads = 64, .kv_heads = 32, .dim = 64},
        {.heads = 48, .kv_heads = 8, .dim = 128, .rope = 128, .causal = true, .prefix = 90},
    };
    run_cases(cases, sizeof cases / sizeof *cases, run_many);
}

/* Attention to keys that `store` wrote, from one row and from several. */
static void test_stored(void)
{
    enum { N = 50, HEADS = 3, D = 24, COLS = 3 * HEADS * D };
    act kv = act_new(2 * N, 2 * HEADS * D, false, 1), q = act_new(6, COLS, false, 1);
    act out = act_new(6, HEADS * D, false, 1);
    cache c = cache_new(1, 2, N, HEADS, D);
    const bg_sequence sources[] = {{0, N, 0, 0, N, 0}, {N, N, 1, 0, N, 0}};
    for (size_t rows = 1; rows <= 3; rows += 2) {
        const bg_sequence sequences[] = {{0, rows, 0, 0, N, 0}, {rows, rows, 1, 0, 17, 0}};
        for (int d = 0; d < BOTH; d++) {
            OK(backends[d]->ops->store(backends[d], c.on[d], 0, kv.on[d], 0, HEADS * D, sources, 2,
                                       &err));
            const bg_attention args = {.qkv = q.on[d],
                                       .n_heads = HEADS,
                                       .n_kv_heads = HEADS,
                                       .head_dim = D,
                                       .stored = true,
                                       .scale = 0.3f,
                                       .cache = c.on[d],
                                       .sequences = sequences,
                                       .n_sequences = 2,
                                       .out = out.on[d]};
            OK(backends[d]->ops->attention(backends[d], &args, &err));
        }
        double gap = difference(out, 2 * rows);
        CHECK(gap <= 1e-5, "%zu rows: %g", rows, gap);
    }
    bg_sequence beyond = {0, 1, 0, N, N + 1, 0};
    CHECK(backends[GPU]->ops->store(backends[GPU], c.on[GPU], 0, kv.on[GPU], 0, HEADS * D, &beyond,
                                    1, &err) == BG_ERR_INTERNAL,
          "beyond the cache");
    act_drop(kv);
    act_drop(q);
    act_drop(out);
    cache_drop(c);
}

/* ---- the head -------------------------------------------------------------------------------- */

static void check_head(bg_format_id id, bool half, size_t n, size_t vocabulary, size_t cols)
{
    weight head = weight_new(id, vocabulary, cols, 0.2f);
    act in = act_new(n, cols, half, 1);
    float *logits[BOTH];
    int32_t *ids[BOTH], *targets = bg_alloc_array(n, sizeof *targets);
    double *nll[BOTH], worst = 0, worst_nll = 0;
    for (size_t i = 0; i < n; i++) targets[i] = (int32_t)(i * 7919 % vocabulary);
    for (int d = 0; d < BOTH; d++) {
        const bg_backend_ops *ops = backends[d]->ops;
        logits[d] = bg_alloc_array(n * vocabulary, sizeof(float));
        ids[d] = bg_alloc_array(n, sizeof(int32_t));
        nll[d] = bg_alloc_array(n, sizeof(double));
        OK(ops->score(backends[d], head.on[d], NULL, in.on[d], n, targets, nll[d], &err));
        bg_ids *chosen;
        OK(ops->ids_create(backends[d], n, &chosen, &err));
        OK(ops->choose(backends[d], head.on[d], NULL, in.on[d], n, &(bg_choice){0}, chosen, &err));
        OK(ops->ids_read(backends[d], chosen, n, ids[d], &err));
        ops->ids_free(backends[d], chosen);
        OK(ops->logits(backends[d], head.on[d], NULL, in.on[d], n, logits[d], &err));
    }
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        worst_nll = fmax(worst_nll, fabs(nll[CPU][i] - nll[GPU][i]));
        for (size_t v = 0; v < vocabulary; v++)
            worst = fmax(worst, fabs((double)logits[CPU][i * vocabulary + v] -
                                     (double)logits[GPU][i * vocabulary + v]));
        /* Of two logits that are all but equal either may be the larger one. */
        const float *x = logits[CPU] + i * vocabulary;
        wrong += fabs((double)x[ids[CPU][i]] - (double)x[ids[GPU][i]]) > 1e-5;
    }
    CHECK(worst < 2e-5 && worst_nll < 2e-5 && wrong == 0, "%s, %zu rows: %g, %g, %zu",
          bg_formats[id].name, n, worst, worst_nll, wrong);
    for (int d = 0; d < BOTH; d++) {
        bg_free(logits[d]);
        bg_free(ids[d]);
        bg_free(nll[d]);
    }
    bg_free(targets);
    weight_drop(head);
    act_drop(in);
}

static void test_head(void)
{
    check_head(BG_FORMAT_F32, false, 130, 1001, 32);
    check_head(BG_FORMAT_F16, false, 1, 5000, 256);
    check_head(BG_FORMAT_BF16, false, 3, 5000, 256);
    check_head(BG_FORMAT_F16, false, 70, 3000, 64);
    check_head(BG_FORMAT_F16, true, 700, 1000, 136);
}

/* The lowest id on a tie, whichever block sees it. */
static void test_ties(void)
{
    enum { V = 20000, D = 4 };
    float *w = bg_calloc(V * D, sizeof *w), x[D] = {1, 0, 0, 0};
    w[123 * D] = w[124 * D] = w[8000 * D] = w[19999 * D] = 2;
    const bg_source source = {"w", BG_F32, w, V, D, false};
    bg_weight *head;
    bg_act *in;
    int32_t id = -1;
    bg_ids *chosen;
    bg_backend *gpu = backends[GPU];
    OK(gpu->ops->weight_create(gpu, &source, BG_FORMAT_F32, &head, &err));
    OK(gpu->ops->act_create(gpu, 1, D, false, &in, &err));
    OK(gpu->ops->act_write(gpu, in, 1, x, &err));
    OK(gpu->ops->ids_create(gpu, 1, &chosen, &err));
    OK(gpu->ops->choose(gpu, head, NULL, in, 1, &(bg_choice){0}, chosen, &err));
    OK(gpu->ops->ids_read(gpu, chosen, 1, &id, &err));
    gpu->ops->ids_free(gpu, chosen);
    CHECK(id == 123, "%d", id);
    gpu->ops->act_free(gpu, in);
    gpu->ops->weight_free(gpu, head);
    bg_free(w);
}

/* Forbidden ids and NaN, and what an embedding makes of the ids. */
static void test_choices(void)
{
    enum { V = 3000, D = 4, N = 3 };
    static const int32_t forbidden[] = {7, 1000, 2999};
    float *w = bg_calloc(V * D, sizeof *w), x[N * D] = {1, 0, 0, 0, 0, NAN, 0, 0, 0, 0, 1, 0};
    w[7 * D] = w[2999 * D] = 3;
    w[1000 * D] = w[2000 * D] = w[1500 * D] = 2;
    w[2999 * D + 2] = w[1 * D + 2] = 1;
    const double uniform[N] = {0.5, 0.5, 0};
    const bg_source source = {"w", BG_F32, w, V, D, false};
    bg_backend *gpu = backends[GPU];
    bg_weight *head;
    bg_act *in, *out;
    bg_ids *chosen;
    int32_t ids[N];
    float rows[N * D];
    OK(gpu->ops->weight_create(gpu, &source, BG_FORMAT_F32, &head, &err));
    OK(gpu->ops->act_create(gpu, N, D, false, &in, &err));
    OK(gpu->ops->act_create(gpu, N, D, false, &out, &err));
    OK(gpu->ops->ids_create(gpu, N, &chosen, &err));
    OK(gpu->ops->act_write(gpu, in, N, x, &err));
    CHECK(gpu->ops->ids_read(gpu, chosen, 1, ids, &err) == BG_ERR_INTERNAL, "nothing was chosen");
    for (int i = 0; i < 5; i++) { /* a choice that is not read is made all the same */
        const bg_choice how = {.forbidden = forbidden,
                               .n_forbidden = i == 4 ? 0 : 3,
                               .temperature = i == 3 ? 0.5 : 0, /* of the largest alone */
                               .top_k = 1,
                               .top_p = 1,
                               .uniform = uniform};
        const bg_lookup lookup = {.table = head, .chosen = chosen, .scale = 1};
        OK(gpu->ops->choose(gpu, head, NULL, in, N, &how, chosen, &err));
        OK(gpu->ops->embed(gpu, &lookup, 1, N, out, &err));
        if (i == 1) continue;
        OK(gpu->ops->ids_read(gpu, chosen, N, ids, &err));
        CHECK(ids[0] == (i == 4 ? 7 : 1500) && ids[1] == -1 && ids[2] == 1, "%d %d %d", ids[0],
              ids[1], ids[2]);
        OK(gpu->ops->act_read(gpu, out, N, rows, &err));
        CHECK(memcmp(rows, w + ids[0] * D, D * 4) == 0 && memcmp(rows + D, w, D * 4) == 0 &&
                  memcmp(rows + 2 * D, w + D, D * 4) == 0,
              "looked up");
    }
    CHECK(gpu->ops->choose(gpu, head, NULL, in, N + 1, &(bg_choice){0}, chosen, &err) ==
              BG_ERR_INTERNAL,
          "more than there is room for");
    gpu->ops->ids_free(gpu, chosen);
    gpu->ops->act_free(gpu, in);
    gpu->ops->act_free(gpu, out);
    gpu->ops->weight_free(gpu, head);
    bg_free(w);
}

/* What the definition chooses from these logits, which stay as they are. */
static int32_t chosen_of(const float *logits, size_t n, const bg_choice *how, double uniform,
                         float *copy, bg_candidate *scratch)
{
    memcpy(copy, logits, n * sizeof *copy);
    return bg_choose(copy, n, how, uniform, scratch);
}

/* Drawn as the definition draws from the same logits; another id only where what was drawn is as
 * near to the border between two as sums in another order come. */
static void check_samples(size_t vocabulary, int draws)
{
    enum { N = 8, D = 32 };
    static const double near = 1e-9;
    static const int32_t forbidden[] = {1, 3, 700};
    static const struct {
        double temperature;
        int top_k;
        double top_p;
    } cases[] = {{1, 0, 1},      {0.7, 50, 1},    {1.3, 0, 0.9},
                 {0.5, 40, 0.8}, {2, 2500, 0.95}, {1, 1, 1}};
    weight head = weight_new(BG_FORMAT_F16, vocabulary, D, 0.5f);
    act in = act_new(N, D, false, 1);
    bg_backend *gpu = backends[GPU];
    bg_ids *chosen;
    float *logits = bg_alloc_array(N * vocabulary, sizeof *logits);
    float *copy = bg_alloc_array(vocabulary, sizeof *copy);
    bg_candidate *scratch = bg_alloc_array(vocabulary, sizeof *scratch);
    bg_random random = {vocabulary};
    OK(gpu->ops->ids_create(gpu, N, &chosen, &err));
    OK(gpu->ops->logits(gpu, head.on[GPU], NULL, in.on[GPU], N, logits, &err));
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        size_t wrong = 0, other = 0;
        for (int i = 0; i < draws; i++) {
            double uniform[N];
            int32_t ids[N];
            for (size_t row = 0; row < N; row++) uniform[row] = bg_random_uniform(&random);
            if (i == 0) uniform[0] = 0;
            const bg_choice how = {.forbidden = forbidden,
                                   .n_forbidden = k % 2 ? 3 : 0,
                                   .temperature = cases[k].temperature,
                                   .top_k = cases[k].top_k,
                                   .top_p = cases[k].top_p,
                                   .uniform = uniform};
            OK(gpu->ops->choose(gpu, head.on[GPU], NULL, in.on[GPU], N, &how, chosen, &err));
            OK(gpu->ops->ids_read(gpu, chosen, N, ids, &err));
            for (size_t row = 0; row < N; row++) {
                const float *x = logits + row * vocabulary;
                const double u = uniform[row];
                if (ids[row] == chosen_of(x, vocabulary, &how, u, copy, scratch)) continue;
                other++;
                wrong += ids[row] != chosen_of(x, vocabulary, &how, u - near, copy, scratch) &&
                         ids[row] != chosen_of(x, vocabulary, &how, u + near, copy, scratch);
            }
        }
        CHECK(wrong == 0 && other < 3, "%zu ids, case %zu: %zu of %d, %zu on a border", vocabulary,
              k, wrong, draws * N, other);
    }
    gpu->ops->ids_free(gpu, chosen);
    bg_free(logits);
    bg_free(copy);
    bg_free(scratch);
    weight_drop(head);
    act_drop(in);
}

/* More ids than are summed at once, and many times as many. */
static void test_samples(void)
{
    check_samples(1001, 20);
    check_samples(5000, 20);
    check_samples(130000, 1);
}

/* The device's clock goes as the host's does. */
static void test_clock(void)
{
    bg_backend *gpu = backends[GPU];
    const double before = bg_seconds(), first = gpu->ops->device_seconds(gpu), begun = bg_seconds();
    double last = first, end = begun;
    for (int i = 0; i < 1000; i++) {
        end = bg_seconds();
        const double now = gpu->ops->device_seconds(gpu);
        CHECK(now >= last, "%g after %g", now, last);
        last = now;
    }
    CHECK(first >= 0 && last - first > end - begun - 1e-3 &&
              last - first < bg_seconds() - before + 1e-3,
          "%g s", last - first);
}

int main(void)
{
    if (!open_both()) {
        CHECK(strstr(err.message, "GPU") && strlen(err.message) > 30, "%s", err.message);
        CHECK(bg_backend_open("cuda:0", 1, &backends[GPU], &err) == BG_ERR_UNSUPPORTED &&
                  !backends[GPU],
              "opened without a GPU");
        return test_finish();
    }
    CHECK(bg_backend_check("cuda:999", &err) == BG_ERR_UNSUPPORTED, "a GPU too many");
    CHECK(bg_backend_check("cuda:x", &err) == BG_ERR_USAGE, "no number");
    printf("%s\n", backends[GPU]->ops->isa(backends[GPU]));
    bg_usage before, after;
    backends[GPU]->ops->usage(backends[GPU], &before);
    RUN(test_encoding);
    RUN(test_rows);
    RUN(test_attention);
    RUN(test_many);
    RUN(test_stored);
    RUN(test_head);
    RUN(test_ties);
    RUN(test_choices);
    RUN(test_samples);
    RUN(test_clock);
    backends[GPU]->ops->usage(backends[GPU], &after);
    CHECK(after.held.total >= before.held.total && after.held.now[BG_USE_ACTIVATIONS] == 0 &&
              after.held.now[BG_USE_CACHES] == 0 && after.held.now[BG_USE_WEIGHTS] == 0,
          "only working memory stays");
    CHECK(after.device.source && after.device.peak >= after.device.used &&
              after.device.used + after.device.available <= after.device.total,
          "the device's memory");
    printf("%s: %zu bytes by %s, energy: %s\n", after.device.name, after.device.used,
           after.device.source ? after.device.source : "nobody",
           after.device.no_energy ? after.device.no_energy : "counted");
    close_both();
    return test_finish();
}

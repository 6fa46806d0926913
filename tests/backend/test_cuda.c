/* Every operation of the CUDA backend, at every format, against the scalar CPU kernels. Needs a
 * GPU; without one it only checks that the reason is told. */
#include "both.h"

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
        const bg_lookup lookup = {w, ids, 1};
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
    static const size_t shapes[][2] = {{40, 56}, {192, 320}, {3, 1001}, {700, 128}, {1500, 7001}};
    static const bg_dtype dtypes[] = {BG_F32, BG_F16, BG_BF16};
    for (int id = 0; id < BG_FORMAT_COUNT; id++)
        for (size_t s = 0; s < 5; s++)
            for (int t = 0; t < 3; t++) {
                if (s == 4 && t != 1) continue; /* several panels: once is enough */
                check_encoding((bg_format_id)id, dtypes[t], shapes[s][0], shapes[s][1], false);
                check_encoding((bg_format_id)id, dtypes[t], shapes[s][0], shapes[s][1], true);
            }
}

/* ---- linear layers --------------------------------------------------------------------------- */

typedef struct {
    bool half, bias, multiplier, addend, residual, in_place;
    bg_activation activation;
} variant;

static double run_linear(bg_format_id id, size_t n_rows, size_t rows, size_t cols, variant v,
                         float input_scale)
{
    weight w = weight_new(id, rows, cols, 0.5f), b = weight_new(BG_FORMAT_F32, 1, rows, 0.5f);
    act in = act_new(n_rows, cols, v.half, input_scale);
    act more = act_new(n_rows, rows, v.half, 1), add = act_new(n_rows, rows, v.half, 1);
    act residual = act_new(n_rows, rows + 3, v.half, 1);
    act out = act_new(n_rows, rows + 3, v.half, 1);
    for (int d = 0; d < BOTH; d++) {
        const bg_linear args = {.weight = w.on[d],
                                .bias = v.bias ? b.on[d] : NULL,
                                .in = in.on[d],
                                .n_rows = n_rows,
                                .activation = v.activation,
                                .multiplier = v.multiplier ? more.on[d] : NULL,
                                .addend = v.addend ? add.on[d] : NULL,
                                .residual = v.residual ? residual.on[d] : NULL,
                                .out = v.in_place ? residual.on[d] : out.on[d],
                                .out_col = v.residual ? 0 : 3};
        OK(backends[d]->ops->linear(backends[d], &args, &err));
    }
    double gap = difference(v.in_place ? residual : out, n_rows);
    weight_drop(w);
    weight_drop(b);
    act_drop(in);
    act_drop(more);
    act_drop(add);
    act_drop(residual);
    act_drop(out);
    return gap;
}

static void test_linear(void)
{
    static const size_t shapes[][2] = {{40, 56},   {192, 320},  {700, 768}, {3, 1000},
                                       {96, 2048}, {130, 2560}, {64, 5120}, {51, 36}};
    static const size_t n_rows[] = {1, 2, 3, 8, 13, 64, 70};
    static const variant variants[] = {
        {.bias = true, .activation = BG_ACTIVATION_GELU_TANH, .residual = true, .in_place = true},
        {.bias = true, .activation = BG_ACTIVATION_RELU},
        {.activation = BG_ACTIVATION_SILU, .multiplier = true},
        {.half = true, .bias = true, .activation = BG_ACTIVATION_GELU_NEW, .residual = true},
        {.half = true, .activation = BG_ACTIVATION_GELU, .multiplier = true, .addend = true},
        {.half = true,
         .bias = true,
         .activation = BG_ACTIVATION_TANH,
         .addend = true,
         .residual = true,
         .in_place = true},
    };
    double worst[2] = {0};
    for (int id = 0; id < BG_FORMAT_COUNT; id++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (size_t n = 0; n < sizeof n_rows / sizeof *n_rows; n++)
                for (size_t k = 0; k < 2; k++) {
                    /* int8 with outliers in some, and without. */
                    const variant v = variants[(s + n * 2 + k * 3) % 6];
                    double gap = run_linear((bg_format_id)id, n_rows[n], shapes[s][0], shapes[s][1],
                                            v, k ? 1.0f : 4.5f);
                    worst[v.half] = fmax(worst[v.half], gap);
                    CHECK(gap <= fmax(tolerance(v.half), code_tolerance((bg_format_id)id)),
                          "%s, %zu rows, %zu x %zu, variant %zu: %g", bg_formats[id].name,
                          n_rows[n], shapes[s][0], shapes[s][1], (s + n * 2 + k * 3) % 6, gap);
                }
    printf("  largest: %.2g in fp32, %.2g in 16 bits\n", worst[0], worst[1]);
}

/* Enough operations that activations are rounded for tensor cores. */
static void test_large_linear(void)
{
    static const variant v = {.bias = true};
    for (int id = 0; id < BG_FORMAT_COUNT; id++) {
        double gap = run_linear((bg_format_id)id, 160, 4096, 2048, v, 1);
        double most = id == BG_FORMAT_BF16                                         ? 4e-3
                      : id == BG_FORMAT_F32 || bg_format_is_int8((bg_format_id)id) ? 5e-6
                                                                                   : 6e-4;
        CHECK(gap <= most, "%s: %g", bg_formats[id].name, gap);
        printf("  %s: %.2g\n", bg_formats[id].name, gap);
    }
}

/* What a layer's operations become when they are queued one after the other: norm and query, key,
 * value; norm, gate and up; and readers of a norm that come later. */
static void run_block(bg_format_id id, size_t n_rows, bool half, size_t hidden)
{
    enum { INNER = 1024, Q = 256, KV = 64 };
    const bg_norm_kind kind = half ? BG_NORM_LAYER : BG_NORM_RMS;
    weight q = weight_new(id, Q, hidden, 0.1f), k = weight_new(id, KV, hidden, 0.1f);
    weight v = weight_new(id, KV, hidden, 0.1f), bias = weight_new(BG_FORMAT_F32, 1, KV, 1);
    weight up = weight_new(id, INNER, hidden, 0.1f), gate = weight_new(id, INNER, hidden, 0.1f);
    weight down = weight_new(id, hidden, INNER, 0.1f), late = weight_new(id, Q, hidden, 0.1f);
    weight norm = weight_new(BG_FORMAT_F32, 1, hidden, 1);
    weight norm_bias = weight_new(BG_FORMAT_F32, 1, hidden, 1);
    act x = act_new(n_rows, hidden, half, 1), normed = act_new(n_rows, hidden, half, 1);
    act qkv = act_new(n_rows, Q + 2 * KV, half, 1), inner = act_new(n_rows, INNER, half, 1);
    act other = act_new(n_rows, Q, half, 1);
    for (int d = 0; d < BOTH; d++) {
        const bg_backend_ops *ops = backends[d]->ops;
        const bg_norm n = {kind, norm.on[d], norm_bias.on[d], 1e-5f};
        const weight parts[] = {q, k, v};
        for (int round = 0; round < 3; round++) {
            OK(ops->norm(backends[d], &n, x.on[d], n_rows, normed.on[d], &err));
            for (size_t i = 0; i < 3; i++) {
                const bg_linear args = {.weight = parts[i].on[d],
                                        .bias = i == 2 ? bias.on[d] : NULL,
                                        .in = normed.on[d],
                                        .n_rows = n_rows,
                                        .out = qkv.on[d],
                                        .out_col = i == 0   ? 0
                                                   : i == 1 ? Q
                                                            : Q + KV};
                OK(ops->linear(backends[d], &args, &err));
            }
            OK(ops->norm(backends[d], &n, x.on[d], n_rows, normed.on[d], &err));
            const bg_linear up_args = {
                .weight = up.on[d], .in = normed.on[d], .n_rows = n_rows, .out = inner.on[d]};
            const bg_linear gate_args = {.weight = gate.on[d],
                                         .in = normed.on[d],
                                         .n_rows = n_rows,
                                         .activation = BG_ACTIVATION_SILU,
                                         .multiplier = inner.on[d],
                                         .out = inner.on[d]};
            const bg_linear down_args = {.weight = down.on[d],
                                         .in = inner.on[d],
                                         .n_rows = n_rows,
                                         .residual = x.on[d],
                                         .out = x.on[d]};
            const bg_linear late_args = {
                .weight = late.on[d], .in = normed.on[d], .n_rows = n_rows, .out = other.on[d]};
            OK(ops->linear(backends[d], &up_args, &err));
            OK(ops->linear(backends[d], &gate_args, &err));
            OK(ops->linear(backends[d], &down_args, &err));
            OK(ops->linear(backends[d], &late_args, &err));
        }
    }
    const act results[] = {qkv, inner, x, other};
    /* Twelve layers deep, roundings add up; quantized activations turn them into whole codes. Many
     * rows are rounded for tensor cores. */
    const bool rounded = id != BG_FORMAT_F32 && n_rows * INNER * hidden >= 1 << 26;
    const double most = bg_format_is_int8(id)             ? 2e-2
                        : rounded && id == BG_FORMAT_BF16 ? 1.5e-2
                        : half                            ? 4e-3
                        : rounded                         ? 2e-3
                                                          : fmax(2e-5, 4 * code_tolerance(id));
    for (size_t i = 0; i < 4; i++) {
        double gap = difference(results[i], n_rows);
        CHECK(gap <= most, "%s, %zu rows%s, result %zu: %g", bg_formats[id].name, n_rows,
              half ? " in 16 bits" : "", i, gap);
    }
    const weight weights[] = {q, k, v, bias, up, gate, down, late, norm, norm_bias};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) weight_drop(weights[i]);
    const act acts[] = {x, normed, qkv, inner, other};
    for (size_t i = 0; i < 5; i++) act_drop(acts[i]);
}

/* So many rows that products come in panels: an up and a gate in turn, and a layer of the result.
 */
static void check_panels(bg_format_id id, bool half)
{
    enum { N = 4200, INNER = 2304, COLS = 64 };
    weight up = weight_new(id, INNER, COLS, 0.3f), gate = weight_new(id, INNER, COLS, 0.3f);
    weight down = weight_new(id, COLS, INNER, 0.1f);
    act x = act_new(N, COLS, half, 1), inner = act_new(N, INNER, half, 1);
    for (int d = 0; d < BOTH; d++) {
        const bg_backend_ops *ops = backends[d]->ops;
        const bg_linear layers[] = {
            {.weight = up.on[d], .in = x.on[d], .n_rows = N, .out = inner.on[d]},
            {.weight = gate.on[d],
             .in = x.on[d],
             .n_rows = N,
             .activation = BG_ACTIVATION_SILU,
             .multiplier = inner.on[d],
             .out = inner.on[d]},
            {.weight = down.on[d],
             .in = inner.on[d],
             .n_rows = N,
             .residual = x.on[d],
             .out = x.on[d]}};
        for (size_t i = 0; i < 3; i++) OK(ops->linear(backends[d], &layers[i], &err));
    }
    const double most = half ? 2e-3 : id == BG_FORMAT_F32 ? 5e-6 : 1e-3;
    CHECK(difference(inner, N) <= most, "%s: %g", bg_formats[id].name, difference(inner, N));
    CHECK(difference(x, N) <= most, "%s: %g", bg_formats[id].name, difference(x, N));
    weight_drop(up);
    weight_drop(gate);
    weight_drop(down);
    act_drop(x);
    act_drop(inner);
}

static void test_panels(void)
{
    check_panels(BG_FORMAT_F32, false);
    check_panels(BG_FORMAT_F16, false);
    check_panels(BG_FORMAT_NF4, false);
    check_panels(BG_FORMAT_INT8, true);
}

static void test_merged(void)
{
    for (int id = 0; id < BG_FORMAT_COUNT; id++)
        for (int half = 0; half < 2; half++) {
            run_block((bg_format_id)id, 1, half, 768);
            run_block((bg_format_id)id, 1, half, 2048);
            run_block((bg_format_id)id, 5, half, 768);
            run_block((bg_format_id)id, 80, half, 320);
            run_block((bg_format_id)id, 200, half, 1024);
        }
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void test_rows(void)
{
    enum { N = 37, COLS = 200 };
    for (int half = 0; half < 2; half++) {
        act in = act_new(N, COLS, half, 3), out = act_new(N, COLS, half, 1);
        weight w = weight_new(BG_FORMAT_F32, 1, COLS, 1), b = weight_new(BG_FORMAT_F32, 1, COLS, 1);
        weight tables[2] = {weight_new(BG_FORMAT_F16, 50, COLS, 1),
                            weight_new(BG_FORMAT_NF4_DQ, 60, COLS, 1)};
        for (int kind = BG_NORM_LAYER; kind <= BG_NORM_RMS_OFFSET; kind++)
            for (int biased = 0; biased < 2; biased++) {
                for (int d = 0; d < BOTH; d++) {
                    const bg_norm norm = {(bg_norm_kind)kind, w.on[d], biased ? b.on[d] : NULL,
                                          1e-6f};
                    OK(backends[d]->ops->norm(backends[d], &norm, in.on[d], N, out.on[d], &err));
                }
                double gap = difference(out, N);
                CHECK(gap <= tolerance(half), "norm %d%s: %g", kind, biased ? " with bias" : "",
                      gap);
            }
        int32_t ids[2][N];
        size_t from[N], to[N];
        for (int i = 0; i < N; i++) {
            ids[0][i] = i * 7 % 50;
            ids[1][i] = i * 11 % 60;
            from[i] = (size_t)(i * 5 % N);
            to[i] = (size_t)(N - 1 - i);
        }
        for (int d = 0; d < BOTH; d++) {
            const bg_lookup lookups[] = {{tables[0].on[d], ids[0], 3.5f},
                                         {tables[1].on[d], ids[1], 1}};
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
        weight_drop(w);
        weight_drop(b);
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

/* Three sequences of different lengths, all at once, then 40 steps of one token, the second of
 * which is in another slot's place; results are compared after each call. */
static void run_attention(attention_case c)
{
    enum { LENGTH = 300, SLOTS = 4 };
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
    for (int step = 0; step < 40; step++) {
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
        worst = fmax(worst, difference(out, step ? 3 : rows));
        for (size_t i = 0; i < 3; i++) {
            bg_sequence *s = &sequences[i];
            s->past = s->keys;
            s->keys++;
            s->first_row = i;
            s->rows = 1;
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
        {.heads = 8, .kv_heads = 2, .dim = 64, .rope = 64, .causal = true},
        {.heads = 6, .kv_heads = 3, .dim = 80, .rope = 32, .causal = true},
        {.heads = 4, .kv_heads = 1, .dim = 256, .rope = 256, .causal = true, .prefix = 20},
        {.heads = 4, .kv_heads = 2, .dim = 128, .rope = 128, .normed = true, .causal = true},
        {.heads = 2, .kv_heads = 2, .dim = 72},
        {.heads = 5, .kv_heads = 5, .dim = 7, .bias = true, .causal = true},
        {.heads = 4, .kv_heads = 4, .dim = 16, .bias = true},
        {.heads = 4, .kv_heads = 2, .dim = 8, .rope = 8, .causal = true, .window = 9},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int half = 0; half < 2; half++) {
            attention_case c = cases[i];
            c.half = half;
            run_attention(c);
        }
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

static void check_head(bg_format_id id, size_t n, size_t vocabulary, size_t cols)
{
    weight head = weight_new(id, vocabulary, cols, 0.2f);
    act in = act_new(n, cols, false, 1);
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
        OK(ops->argmax(backends[d], head.on[d], NULL, in.on[d], n, ids[d], &err));
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
    check_head(BG_FORMAT_F32, 130, 1001, 32);
    check_head(BG_FORMAT_F16, 1, 5000, 256);
    check_head(BG_FORMAT_BF16, 3, 5000, 256);
    check_head(BG_FORMAT_F16, 70, 3000, 64);
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
    bg_backend *gpu = backends[GPU];
    OK(gpu->ops->weight_create(gpu, &source, BG_FORMAT_F32, &head, &err));
    OK(gpu->ops->act_create(gpu, 1, D, false, &in, &err));
    OK(gpu->ops->act_write(gpu, in, 1, x, &err));
    OK(gpu->ops->argmax(gpu, head, NULL, in, 1, &id, &err));
    CHECK(id == 123, "%d", id);
    gpu->ops->act_free(gpu, in);
    gpu->ops->weight_free(gpu, head);
    bg_free(w);
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
    if (bg_backend_check("cuda", &err) != BG_OK) {
        CHECK(strstr(err.message, "GPU") && strlen(err.message) > 30, "%s", err.message);
        CHECK(bg_backend_open("cuda:0", 1, &backends[GPU], &err) == BG_ERR_UNSUPPORTED &&
                  !backends[GPU],
              "opened without a GPU");
        SKIP("%s", err.message);
        return test_finish();
    }
    CHECK(bg_backend_check("cuda:999", &err) == BG_ERR_UNSUPPORTED, "a GPU too many");
    CHECK(bg_backend_check("cuda:x", &err) == BG_ERR_USAGE, "no number");
    setenv("BITGAUGE_ISA", "scalar", 1);
    OK(bg_backend_open("cpu", 0, &backends[CPU], &err));
    OK(bg_backend_open("cuda", 0, &backends[GPU], &err));
    if (!backends[CPU] || !backends[GPU]) return 1;
    printf("%s\n", backends[GPU]->ops->isa(backends[GPU]));
    bg_usage before, after;
    backends[GPU]->ops->usage(backends[GPU], &before);
    RUN(test_encoding);
    RUN(test_rows);
    RUN(test_linear);
    RUN(test_merged);
    RUN(test_panels);
    RUN(test_large_linear);
    RUN(test_attention);
    RUN(test_stored);
    RUN(test_head);
    RUN(test_ties);
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
    for (int d = 0; d < BOTH; d++) backends[d]->ops->free(backends[d]);
    return test_finish();
}

/* Linear layers and norms of the CUDA backend as they follow each other in a model's blocks, where
 * several become one kernel, at every format against the scalar CPU kernels. Needs a GPU. */
#include "both.h"

/* out = silu(in gate^T) * (in up^T) */
static void run_gate(int d, weight up, weight gate, act in, size_t n_rows, act out)
{
    const bg_linear up_args = {
        .weight = up.on[d], .in = in.on[d], .n_rows = n_rows, .out = out.on[d]};
    const bg_linear gate_args = {.weight = gate.on[d],
                                 .in = in.on[d],
                                 .n_rows = n_rows,
                                 .activation = BG_ACTIVATION_SILU,
                                 .multiplier = out.on[d],
                                 .out = out.on[d]};
    OK(backends[d]->ops->linear(backends[d], &up_args, &err));
    OK(backends[d]->ops->linear(backends[d], &gate_args, &err));
}

/* What a layer's operations become when they are queued one after the other: norm and query, key,
 * value; norm, gate and up; and readers of a norm that come later. */
static void run_block(bg_format_id id, size_t n_rows, bool half, size_t hidden, size_t few_rows)
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
            const bg_linear down_args = {.weight = down.on[d],
                                         .in = inner.on[d],
                                         .n_rows = n_rows,
                                         .residual = x.on[d],
                                         .out = x.on[d]};
            const bg_linear late_args = {
                .weight = late.on[d], .in = normed.on[d], .n_rows = n_rows, .out = other.on[d]};
            run_gate(d, up, gate, normed, n_rows, inner);
            OK(ops->linear(backends[d], &down_args, &err));
            OK(ops->linear(backends[d], &late_args, &err));
        }
    }
    const act results[] = {qkv, inner, x, other};
    /* Twelve layers deep, roundings add up; quantized activations turn them into whole codes. Many
     * rows are rounded for tensor cores. */
    const bool rounded = id != BG_FORMAT_F32 && is_rounded(n_rows, INNER, hidden, few_rows);
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

/* Two layers of inputs of their own whose results are added, as in a block whose attention and MLP
 * are parallel. */
static void check_sum(bg_format_id id, size_t n_rows, bool half)
{
    enum { HIDDEN = 256, ONE = 384, TWO = 1280 };
    weight first = weight_new(id, HIDDEN, ONE, 0.1f), second = weight_new(id, HIDDEN, TWO, 0.1f);
    weight bias = weight_new(BG_FORMAT_F32, 1, HIDDEN, 1);
    act one = act_new(n_rows, ONE, half, 4.5f), two = act_new(n_rows, TWO, half, 1);
    act sum = act_new(n_rows, HIDDEN, half, 1), x = act_new(n_rows, HIDDEN, half, 1);
    for (int d = 0; d < BOTH; d++) {
        const bg_linear first_args = {.weight = first.on[d],
                                      .bias = bias.on[d],
                                      .in = one.on[d],
                                      .n_rows = n_rows,
                                      .out = sum.on[d]};
        const bg_linear second_args = {.weight = second.on[d],
                                       .bias = bias.on[d],
                                       .in = two.on[d],
                                       .n_rows = n_rows,
                                       .addend = sum.on[d],
                                       .residual = x.on[d],
                                       .out = x.on[d]};
        OK(backends[d]->ops->linear(backends[d], &first_args, &err));
        OK(backends[d]->ops->linear(backends[d], &second_args, &err));
    }
    const double most = fmax(tolerance(half), code_tolerance(id));
    const double gap = difference(x, n_rows);
    CHECK(gap <= most, "%s, %zu rows%s: %g", bg_formats[id].name, n_rows, half ? " in 16 bits" : "",
          gap);
    const weight weights[] = {first, second, bias};
    for (size_t i = 0; i < 3; i++) weight_drop(weights[i]);
    const act acts[] = {one, two, sum, x};
    for (size_t i = 0; i < 4; i++) act_drop(acts[i]);
}

static void test_sums(void)
{
    static const size_t n_rows[] = {1, 3, 8};
    for (int id = 0; id < BG_FORMAT_COUNT; id++)
        for (size_t i = 0; i < 3; i++)
            for (int half = 0; half < 2; half++) check_sum((bg_format_id)id, n_rows[i], half);
}

/* A norm, an up and a gate of several rows, so wide that shared memory holds the one but not the
 * other as well. */
static void check_wide_pair(bg_format_id id, size_t n_rows, size_t cols, size_t rows)
{
    const bool half = bg_format_is_int8(id);
    weight up = weight_new(id, rows, cols, 0.1f), gate = weight_new(id, rows, cols, 0.1f);
    weight norm = weight_new(BG_FORMAT_F32, 1, cols, 1);
    act x = act_new(n_rows, cols, half, 1), normed = act_new(n_rows, cols, half, 1);
    act inner = act_new(n_rows, rows, half, 1);
    for (int d = 0; d < BOTH; d++) {
        const bg_backend_ops *ops = backends[d]->ops;
        const bg_norm n = {BG_NORM_RMS, norm.on[d], NULL, 1e-5f};
        OK(ops->norm(backends[d], &n, x.on[d], n_rows, normed.on[d], &err));
        run_gate(d, up, gate, normed, n_rows, inner);
    }
    const double gap = difference(inner, n_rows);
    CHECK(gap <= (half ? 2e-2 : 1e-3) && difference(normed, n_rows) <= tolerance(half),
          "%s, %zu rows, %zu x %zu: %g", bg_formats[id].name, n_rows, rows, cols, gap);
    const weight weights[] = {up, gate, norm};
    for (size_t i = 0; i < 3; i++) weight_drop(weights[i]);
    const act acts[] = {x, normed, inner};
    for (size_t i = 0; i < 3; i++) act_drop(acts[i]);
}

static void test_wide_pairs(void)
{
    /* At the border on GPUs with 227 KB a block and 132 multiprocessors, and with 163 KB and 108.
     */
    check_wide_pair(BG_FORMAT_INT8, 7, 3584, 18944);
    check_wide_pair(BG_FORMAT_NF4, 8, 3072, 24576);
    check_wide_pair(BG_FORMAT_INT8, 7, 2048, 8192);
    check_wide_pair(BG_FORMAT_NF4, 5, 2048, 8192);
    check_wide_pair(BG_FORMAT_F16, 3, 4096, 14336);
}

/* Draws, and in int8 outliers in a few columns: those of the rows from `first` on are others. */
static act act_with_outliers(bg_format_id id, size_t rows, size_t cols, bool half, size_t first)
{
    enum { EACH = 5, SEQUENCES = 2 };
    float *values = draw_many(rows * cols, 1);
    const size_t begins[] = {0, first}, ends[] = {first, rows};
    for (size_t s = 0; bg_format_is_int8(id) && s < SEQUENCES; s++)
        for (size_t k = 0; k < EACH && begins[s] < ends[s]; k++) {
            const size_t row = begins[s] + k * 7 % (ends[s] - begins[s]);
            values[row * cols + (k * 37 + s) % cols] = k % 2 ? 9 : -9;
        }
    act a;
    for (int d = 0; d < BOTH; d++) {
        OK(backends[d]->ops->act_create(backends[d], rows, cols, half, &a.on[d], &err));
        OK(backends[d]->ops->act_write(backends[d], a.on[d], rows, values, &err));
    }
    bg_free(values);
    return a;
}

/* So many results that products come in panels: those of an up and of its gate, and a layer of what
 * they give, which nobody else has to find in memory if it `consumes` it. The CPU has only the
 * first rows, a sequence that in int8 has outlier columns of its own. */
static void check_panels(bg_format_id id, bool half, bool consumes, size_t first)
{
    enum { N = 9000, INNER = 4352, COLS = 64 };
    const bg_sequence sequences[] = {{0, first, 0, 0, first, 0},
                                     {first, N - first, 1, 0, N - first, 0}};
    weight up = weight_new(id, INNER, COLS, 0.3f), gate = weight_new(id, INNER, COLS, 0.3f);
    weight down = weight_new(id, COLS, INNER, 0.1f);
    act x = act_with_outliers(id, N, COLS, half, first), inner = act_new(N, INNER, half, 1);
    for (int d = 0; d < BOTH; d++) {
        const bg_backend_ops *ops = backends[d]->ops;
        const size_t n = d == GPU ? N : first, n_sequences = d == GPU ? 2 : 1;
        const bg_linear layers[] = {{.weight = up.on[d],
                                     .in = x.on[d],
                                     .n_rows = n,
                                     .sequences = sequences,
                                     .n_sequences = n_sequences,
                                     .out = inner.on[d]},
                                    {.weight = gate.on[d],
                                     .in = x.on[d],
                                     .n_rows = n,
                                     .sequences = sequences,
                                     .n_sequences = n_sequences,
                                     .activation = BG_ACTIVATION_SILU,
                                     .multiplier = inner.on[d],
                                     .out = inner.on[d]},
                                    {.weight = down.on[d],
                                     .in = inner.on[d],
                                     .consumes = consumes,
                                     .n_rows = n,
                                     .sequences = sequences,
                                     .n_sequences = n_sequences,
                                     .residual = x.on[d],
                                     .out = x.on[d]}};
        for (size_t i = 0; i < 3; i++) OK(ops->linear(backends[d], &layers[i], &err));
    }
    const double most = half ? 2e-3 : id == BG_FORMAT_F32 ? 5e-6 : 1e-3;
    CHECK(consumes || difference(inner, first) <= most, "%s: %g", bg_formats[id].name,
          difference(inner, first));
    CHECK(difference(x, first) <= most, "%s: %g", bg_formats[id].name, difference(x, first));
    weight_drop(up);
    weight_drop(gate);
    weight_drop(down);
    act_drop(x);
    act_drop(inner);
}

static void test_panels(void)
{
    for (int consumes = 0; consumes < 2; consumes++) {
        check_panels(BG_FORMAT_F32, false, consumes, 60);
        check_panels(BG_FORMAT_F16, false, consumes, 60);
        check_panels(BG_FORMAT_NF4, false, consumes, 60);
        check_panels(BG_FORMAT_INT8, true, consumes, 60);
        check_panels(BG_FORMAT_INT8, true, consumes, 256);
    }
}

/* Three layers with results side by side, which may be one product, and one that is added to what
 * lies where its result goes: of so many rows that int8 is multiplied by warpgroups, whose last
 * tile is not full, with outlier columns. */
static void check_many_rows(bg_format_id id, bool half)
{
    enum { N = 3900, COLS = 320, OUT = 1024, KV = 64, QKV = 256 + 2 * KV };
    static const size_t rows[] = {256, KV, KV}, at[] = {0, 256, 256 + KV};
    act x = act_with_outliers(id, N, COLS, half, N);
    act qkv = act_new(N, QKV, half, 1), y = act_new(N, OUT, half, 1);
    weight w[3], o = weight_new(id, OUT, COLS, 0.1f);
    for (size_t i = 0; i < 3; i++) w[i] = weight_new(id, rows[i], COLS, 0.1f);
    for (int d = 0; d < BOTH; d++) {
        for (size_t i = 0; i < 3; i++) {
            const bg_linear args = {.weight = w[i].on[d],
                                    .in = x.on[d],
                                    .n_rows = N,
                                    .out = qkv.on[d],
                                    .out_col = at[i]};
            OK(backends[d]->ops->linear(backends[d], &args, &err));
        }
        const bg_linear args = {
            .weight = o.on[d], .in = x.on[d], .n_rows = N, .residual = y.on[d], .out = y.on[d]};
        OK(backends[d]->ops->linear(backends[d], &args, &err));
    }
    const double most = half ? 2e-3 : 1e-3;
    CHECK(difference(qkv, N) <= most, "%s, side by side: %g", bg_formats[id].name,
          difference(qkv, N));
    CHECK(difference(y, N) <= most, "%s, added: %g", bg_formats[id].name, difference(y, N));
    for (size_t i = 0; i < 3; i++) weight_drop(w[i]);
    weight_drop(o);
    act_drop(x);
    act_drop(qkv);
    act_drop(y);
}

static void test_many_rows(void)
{
    check_many_rows(BG_FORMAT_F16, false);
    check_many_rows(BG_FORMAT_NF4, false);
    check_many_rows(BG_FORMAT_INT8, true);
}

typedef struct {
    weight q, k, v, o, up, down;
} encoder_layer;

typedef struct {
    size_t hidden, inner, head_dim, n_rows, n_sequences;
} encoder_shape;

static encoder_layer layer_new(bg_format_id id, encoder_shape s)
{
    return (encoder_layer){
        weight_new(id, s.hidden, s.hidden, 0.1f), weight_new(id, s.hidden, s.hidden, 0.1f),
        weight_new(id, s.hidden, s.hidden, 0.1f), weight_new(id, s.hidden, s.hidden, 0.1f),
        weight_new(id, s.inner, s.hidden, 0.1f),  weight_new(id, s.hidden, s.inner, 0.1f)};
}

static void layer_drop(encoder_layer l)
{
    const weight weights[] = {l.q, l.k, l.v, l.o, l.up, l.down};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) weight_drop(weights[i]);
}

/* What is in it on the GPU; the caller frees it. */
static float *read_act(act a, size_t rows)
{
    float *x = bg_alloc_array(rows * a.on[GPU]->cols, sizeof *x);
    OK(backends[GPU]->ops->act_read(backends[GPU], a.on[GPU], rows, x, &err));
    return x;
}

/* Layers of an encoder of sentences, with the norms after the residuals: query, key and value side
 * by side, attention, its output, and an MLP. Three times, as a graph is made the second, and has
 * to give the same again, to the bit. Of 4-bit weights, which are decoded to places that
 * come round again, four layers, of others two. */
static void run_encoder(bg_format_id id, bool half, encoder_shape s)
{
    encoder_layer layers[4];
    const size_t n_layers = bg_formats[id].bits == 4 ? 4 : 2;
    for (size_t i = 0; i < n_layers; i++) layers[i] = layer_new(id, s);
    const size_t hidden = s.hidden, n_rows = s.n_rows, heads = hidden / s.head_dim;
    weight bias = weight_new(BG_FORMAT_F32, 1, hidden, 1),
           wide = weight_new(BG_FORMAT_F32, 1, s.inner, 1);
    weight norm = weight_new(BG_FORMAT_F32, 1, hidden, 1);
    act x = act_new(n_rows, hidden, half, 1), qkv = act_new(n_rows, 3 * hidden, half, 1);
    act attended = act_new(n_rows, hidden, half, 1), middle = act_new(n_rows, s.inner, half, 1);
    cache kept = cache_new(n_layers, s.n_sequences, n_rows, heads, s.head_dim);
    bg_sequence sequences[2];
    for (size_t i = 0; i < s.n_sequences; i++) {
        const size_t first = i * n_rows / s.n_sequences,
                     rows = (i + 1) * n_rows / s.n_sequences - first;
        sequences[i] = (bg_sequence){.first_row = first, .rows = rows, .slot = i, .keys = rows};
    }
    double gaps[4] = {0};
    float *const values = draw_many(n_rows * hidden, 1), *results_of[3];
    for (int pass = 0; pass < 3; pass++) {
        for (int d = 0; d < BOTH; d++) {
            const bg_backend_ops *ops = backends[d]->ops;
            const bg_norm n = {BG_NORM_LAYER, norm.on[d], bias.on[d], 1e-12f};
            OK(ops->act_write(backends[d], x.on[d], n_rows, values, &err));
            for (size_t layer = 0; layer < n_layers; layer++) {
                const encoder_layer *l = &layers[layer];
                const weight parts[] = {l->q, l->k, l->v};
                for (size_t i = 0; i < 3; i++) {
                    const bg_linear args = {.weight = parts[i].on[d],
                                            .bias = i == 1 ? NULL : bias.on[d],
                                            .in = x.on[d],
                                            .n_rows = n_rows,
                                            .out = qkv.on[d],
                                            .out_col = i * hidden};
                    OK(ops->linear(backends[d], &args, &err));
                }
                const bg_attention attention = {.qkv = qkv.on[d],
                                                .key_col = hidden,
                                                .value_col = 2 * hidden,
                                                .n_heads = heads,
                                                .n_kv_heads = heads,
                                                .head_dim = s.head_dim,
                                                .scale = 0.125f,
                                                .cache = kept.on[d],
                                                .layer = layer,
                                                .sequences = sequences,
                                                .n_sequences = s.n_sequences,
                                                .out = attended.on[d]};
                OK(ops->attention(backends[d], &attention, &err));
                const bg_linear rest[] = {{.weight = l->o.on[d],
                                           .bias = bias.on[d],
                                           .in = attended.on[d],
                                           .n_rows = n_rows,
                                           .residual = x.on[d],
                                           .out = x.on[d]},
                                          {.weight = l->up.on[d],
                                           .bias = wide.on[d],
                                           .in = x.on[d],
                                           .n_rows = n_rows,
                                           .activation = BG_ACTIVATION_GELU,
                                           .out = middle.on[d]},
                                          {.weight = l->down.on[d],
                                           .bias = bias.on[d],
                                           .in = middle.on[d],
                                           .n_rows = n_rows,
                                           .residual = x.on[d],
                                           .out = x.on[d]}};
                for (size_t i = 0; i < 3; i++) {
                    OK(ops->linear(backends[d], &rest[i], &err));
                    if (i != 1) OK(ops->norm(backends[d], &n, x.on[d], n_rows, x.on[d], &err));
                }
            }
        }
        results_of[pass] = read_act(x, n_rows);
        const act results[] = {qkv, attended, middle, x};
        for (size_t i = 0; i < 4; i++) gaps[i] = fmax(gaps[i], difference(results[i], n_rows));
    }
    const double most = bg_format_is_int8(id)  ? 2e-2
                        : id == BG_FORMAT_BF16 ? 1.5e-2
                        : half                 ? 4e-3
                        : id == BG_FORMAT_F32  ? 2e-5
                                               : 2e-3;
    for (size_t i = 0; i < 4; i++)
        CHECK(gaps[i] <= most, "%s, %zu rows%s of %zu and %zu, result %zu: %g", bg_formats[id].name,
              n_rows, half ? " in 16 bits" : "", hidden, s.inner, i, gaps[i]);
    CHECK(memcmp(results_of[1], results_of[2], n_rows * hidden * sizeof(float)) == 0,
          "%s, %zu rows of %zu and %zu: a graph gives the same again", bg_formats[id].name, n_rows,
          hidden, s.inner);
    for (int pass = 0; pass < 3; pass++) bg_free(results_of[pass]);
    bg_free(values);
    for (size_t i = 0; i < n_layers; i++) layer_drop(layers[i]);
    weight_drop(bias);
    weight_drop(wide);
    weight_drop(norm);
    act_drop(x);
    act_drop(qkv);
    act_drop(attended);
    act_drop(middle);
    cache_drop(kept);
}

static void test_encoder(void)
{
    static const encoder_shape shapes[] = {
        {768, 3072, 64, 130, 1},  {768, 3072, 64, 40, 1},
        {768, 3072, 64, 13, 1},   {768, 3072, 64, 120, 1},
        {640, 1280, 128, 150, 2}, {520, 1160, 40, 257, 1}, /* ends within tiles and steps */
    };
    for (int id = 0; id < BG_FORMAT_COUNT; id++)
        for (int half = 0; half < 2; half++)
            for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
                run_encoder((bg_format_id)id, half, shapes[i]);
}

static void test_merged(void)
{
    for (int id = 0; id < BG_FORMAT_COUNT; id++)
        for (int half = 0; half < 2; half++) {
            run_block((bg_format_id)id, 1, half, 768, FEW_ROWS);
            run_block((bg_format_id)id, 1, half, 2048, FEW_ROWS);
            run_block((bg_format_id)id, 5, half, 768, FEW_ROWS);
            run_block((bg_format_id)id, 13, half, 768, FEW_ROWS);
            run_block((bg_format_id)id, 64, half, 1024, FEW_ROWS);
            run_block((bg_format_id)id, 80, half, 320, FEW_ROWS);
            run_block((bg_format_id)id, 200, half, 1024, FEW_ROWS);
        }
}

static void check_norms(size_t n, size_t cols, bool half)
{
    act in = act_new(n, cols, half, 3), out = act_new(n, cols, half, 1);
    weight w = weight_new(BG_FORMAT_F32, 1, cols, 1), b = weight_new(BG_FORMAT_F32, 1, cols, 1);
    for (int kind = BG_NORM_LAYER; kind <= BG_NORM_RMS_OFFSET; kind++)
        for (int biased = 0; biased < 2; biased++) {
            for (int d = 0; d < BOTH; d++) {
                const bg_norm norm = {(bg_norm_kind)kind, w.on[d], biased ? b.on[d] : NULL, 1e-6f};
                OK(backends[d]->ops->norm(backends[d], &norm, in.on[d], n, out.on[d], &err));
            }
            double gap = difference(out, n);
            CHECK(gap <= tolerance(half), "norm %d%s, %zu rows: %g", kind,
                  biased ? " with bias" : "", n, gap);
        }
    act_drop(in);
    act_drop(out);
    weight_drop(w);
    weight_drop(b);
}

/* A block for each row or for several, more or fewer columns of which are in its registers. */
static void test_norms(void)
{
    for (int half = 0; half < 2; half++) {
        check_norms(37, 200, half);
        check_norms(130, 1000, half);
        check_norms(1100, 200, half);
        check_norms(1100, 1500, half);
        check_norms(2300, 2048, half);
    }
}

/* In a model with long inputs fewer rows are multiplied in tiles: of each format with a backend of
 * its own, which has seen one. */
static void test_long(void)
{
    static const size_t n_rows[] = {1, 3, 4, 5, 8};
    for (int id = 0; id < BG_FORMAT_COUNT; id++) {
        const size_t few_rows = bg_format_is_int8((bg_format_id)id) ? 3 : 4;
        close_both();
        if (!open_both()) return;
        weight longest = weight_new((bg_format_id)id, 8, 5120, 1);
        for (size_t i = 0; i < sizeof n_rows / sizeof *n_rows; i++)
            for (int half = 0; half < 2; half++)
                run_block((bg_format_id)id, n_rows[i], half, 768, few_rows);
        weight_drop(longest);
    }
}

int main(void)
{
    if (!open_both()) return test_finish();
    RUN(test_norms);
    RUN(test_merged);
    RUN(test_encoder);
    RUN(test_sums);
    RUN(test_wide_pairs);
    RUN(test_panels);
    RUN(test_many_rows);
    RUN(test_long);
    close_both();
    return test_finish();
}

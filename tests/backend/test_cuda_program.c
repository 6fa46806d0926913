/* Decoding steps with a long context behind them, on the GPU as one program (program.cuh), against
 * the scalar kernels of the CPU: attention of heads whose keys several blocks share, of windows, of
 * more sequences than a program has at hand and more heads than there are blocks, with norms,
 * turned queries and biases, between linear layers of each family of formats, and beside those of
 * an MLP. */
#include "both.h"

enum { LAYERS = 3, MAX_SEQUENCES = 10 };

typedef struct {
    size_t heads, kv_heads, dim, keys, n_sequences, window;
    size_t rope; /* values that turn; 0: none */
    bool normed, bias;
    bool parallel; /* an MLP of the same input, whose result is added to the attention's */
    bg_norm_kind norm;
} step_case;

/* Keys and values of a sequence's earlier tokens. */
static void fill_cache(cache kv, act rows, const step_case *c, const bg_sequence *sequences)
{
    for (int d = 0; d < BOTH; d++)
        for (size_t layer = 0; layer < LAYERS; layer++)
            for (size_t i = 0; i < c->n_sequences; i++) {
                const bg_sequence all = {0, sequences[i].past, sequences[i].slot,
                                         0, sequences[i].past, 0};
                OK(backends[d]->ops->store(backends[d], kv.on[d], layer, rows.on[d], 0,
                                           c->kv_heads * c->dim, &all, 1, &err));
                OK(backends[d]->ops->synchronize(backends[d], &err));
            }
}

static void run_step(bg_format_id id, const step_case *c)
{
    const bool half = bg_format_is_int8(id);
    const size_t hidden = c->heads * c->dim, narrow = c->kv_heads * c->dim, n = c->n_sequences;
    const size_t cols = hidden + 2 * narrow, wide = 3 * hidden;
    const float scale = 1.5f / sqrtf((float)hidden);
    weight q = weight_new(id, hidden, hidden, scale), k = weight_new(id, narrow, hidden, scale);
    weight v = weight_new(id, narrow, hidden, scale), o = weight_new(id, hidden, hidden, scale);
    weight up = weight_new(id, wide, hidden, scale);
    weight down = weight_new(id, hidden, wide, 0.5f / sqrtf((float)wide));
    weight shift = weight_new(BG_FORMAT_F32, 1, hidden, 1);
    act sum = act_new(n, hidden, half, 1), inner = act_new(n, wide, half, 1);
    act x = act_new(n, hidden, half, 1), qkv = act_new(n, cols, half, 1);
    act attended = act_new(n, hidden, half, 1), kv_rows = act_new(c->keys, 2 * narrow, half, 2);
    cache kv = cache_new(LAYERS, n, c->keys + 2, c->kv_heads, c->dim);
    weight rope = weight_new(BG_FORMAT_F32, c->keys + 2, c->rope ? c->rope : 2, 1);
    weight norm = weight_new(BG_FORMAT_F32, 1, c->dim, 1);
    weight bias = weight_new(BG_FORMAT_F32, c->heads, 2 * 20 + 1, 1);
    bg_sequence sequences[MAX_SEQUENCES];
    for (size_t i = 0; i < n; i++) {
        const size_t past = c->keys - i * c->keys / (2 * n);
        sequences[i] = (bg_sequence){i, 1, n - 1 - i, past, past + 1, 0};
    }
    fill_cache(kv, kv_rows, c, sequences);
    for (int step = 0; step < 2; step++) {
        for (int d = 0; d < BOTH; d++)
            for (size_t layer = 0; layer < LAYERS; layer++) {
                const weight parts[] = {q, k, v};
                for (size_t i = 0; i < 3; i++) {
                    const bg_linear args = {.weight = parts[i].on[d],
                                            .in = x.on[d],
                                            .n_rows = n,
                                            .out = qkv.on[d],
                                            .out_col = i == 0 ? 0 : hidden + (i - 1) * narrow};
                    OK(backends[d]->ops->linear(backends[d], &args, &err));
                }
                const bg_norm of_heads = {c->norm, c->normed ? norm.on[d] : NULL,
                                          c->norm == BG_NORM_LAYER && c->normed ? norm.on[d] : NULL,
                                          1e-6f};
                const bg_attention attention = {.qkv = qkv.on[d],
                                                .key_col = hidden,
                                                .value_col = hidden + narrow,
                                                .n_heads = c->heads,
                                                .n_kv_heads = c->kv_heads,
                                                .head_dim = c->dim,
                                                .query_norm = of_heads,
                                                .key_norm = of_heads,
                                                .rope = c->rope ? rope.on[d] : NULL,
                                                .position_bias = c->bias ? bias.on[d] : NULL,
                                                .scale = 0.2f,
                                                .causal = true,
                                                .window = c->window,
                                                .cache = kv.on[d],
                                                .layer = layer,
                                                .sequences = sequences,
                                                .n_sequences = n,
                                                .out = attended.on[d]};
                OK(backends[d]->ops->attention(backends[d], &attention, &err));
                const bg_linear out[] = {{.weight = up.on[d],
                                          .in = x.on[d],
                                          .n_rows = n,
                                          .activation = BG_ACTIVATION_GELU,
                                          .out = inner.on[d]},
                                         {.weight = o.on[d],
                                          .bias = shift.on[d],
                                          .in = attended.on[d],
                                          .n_rows = n,
                                          .residual = c->parallel ? NULL : x.on[d],
                                          .out = c->parallel ? sum.on[d] : x.on[d]},
                                         {.weight = down.on[d],
                                          .bias = shift.on[d],
                                          .in = inner.on[d],
                                          .n_rows = n,
                                          .addend = sum.on[d],
                                          .residual = x.on[d],
                                          .out = x.on[d]}};
                for (size_t i = !c->parallel; i < (c->parallel ? 3 : 2); i++)
                    OK(backends[d]->ops->linear(backends[d], &out[i], &err));
            }
        /* 4-bit values are rounded to binary16; codes of activations may fall to either side. */
        const double most = half ? 2e-2 : id == BG_FORMAT_F16 ? 2e-5 : 1e-3;
        const act results[] = {x, attended};
        for (size_t i = 0; i < 2; i++) {
            const double gap = difference(results[i], n);
            CHECK(gap <= most,
                  "%s, %zu heads of %zu%s, %zu keys of %zu sequences, step %d, %zu: %g",
                  bg_formats[id].name, c->heads, c->dim, c->parallel ? " beside an MLP" : "",
                  c->keys, n, step, i, gap);
        }
        for (size_t i = 0; i < n; i++) {
            sequences[i].past++;
            sequences[i].keys++;
        }
    }
    const weight weights[] = {q, k, v, o, up, down, shift, rope, norm, bias};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) weight_drop(weights[i]);
    const act acts[] = {x, qkv, attended, kv_rows, sum, inner};
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) act_drop(acts[i]);
    cache_drop(kv);
}

static void test_steps(void)
{
    static const bg_format_id formats[] = {BG_FORMAT_F16, BG_FORMAT_NF4, BG_FORMAT_INT8};
    static const step_case cases[] = {
        {.heads = 4, .kv_heads = 1, .dim = 256, .keys = 1500, .n_sequences = 1, .rope = 256},
        {.heads = 8, .kv_heads = 2, .dim = 64, .keys = 3000, .n_sequences = 2},
        {.heads = 4, .kv_heads = 2, .dim = 128, .keys = 1100, .n_sequences = 1, .window = 700},
        {.heads = 4,
         .kv_heads = 2,
         .dim = 128,
         .keys = 900,
         .n_sequences = 1,
         .rope = 128,
         .normed = true,
         .norm = BG_NORM_RMS},
        {.heads = 4,
         .kv_heads = 4,
         .dim = 64,
         .keys = 150,
         .n_sequences = 1,
         .rope = 32,
         .normed = true,
         .norm = BG_NORM_LAYER},
        {.heads = 8, .kv_heads = 8, .dim = 64, .keys = 900, .n_sequences = 1, .bias = true},
        {.heads = 8, .kv_heads = 8, .dim = 80, .keys = 1000, .n_sequences = 6},
        {.heads = 16, .kv_heads = 16, .dim = 64, .keys = 700, .n_sequences = 10},
        {.heads = 4, .kv_heads = 4, .dim = 32, .keys = 300, .n_sequences = 10},
        /* On some of the blocks, with keys in parts or without, and on all of them. */
        {.heads = 8, .kv_heads = 8, .dim = 64, .keys = 900, .n_sequences = 1, .parallel = true},
        {.heads = 8, .kv_heads = 4, .dim = 80, .keys = 60, .n_sequences = 3, .parallel = true},
        {.heads = 16, .kv_heads = 16, .dim = 64, .keys = 300, .n_sequences = 5, .parallel = true},
        {.heads = 16, .kv_heads = 16, .dim = 64, .keys = 90, .n_sequences = 10, .parallel = true},
    };
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) run_step(formats[f], &cases[i]);
}

int main(void)
{
    if (!open_both()) return test_finish();
    RUN(test_steps);
    close_both();
    return test_finish();
}

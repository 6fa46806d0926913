/* Decoding steps with a long context behind them, on the GPU as one program (program.cuh), against
 * the scalar kernels of the CPU: attention of heads whose keys several blocks share, of windows, of
 * more sequences than a program has at hand and more heads than there are blocks, with norms,
 * turned queries and biases, between linear layers of each family of formats, and beside those of
 * an MLP; layers of many rows; and a step's end, where the head norms what it multiplies and the
 * tokens are chosen. */
#include "both.h"

enum { LAYERS = 3, MAX_SEQUENCES = 10 };

typedef struct {
    size_t heads, kv_heads, dim, keys, n_sequences, window;
    size_t rope; /* values that turn; 0: none */
    bool normed, bias;
    bool parallel; /* an MLP of the same input, whose result is added to the attention's */
    float scale;   /* of the input; 0: 1 */
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
    weight down = weight_new(id, hidden, wide, 0.1f / sqrtf((float)wide));
    weight shift = weight_new(BG_FORMAT_F32, 1, hidden, 0.1f);
    act sum = act_new(n, hidden, half, 1), inner = act_new(n, wide, half, 1);
    act x = act_new(n, hidden, half, c->scale > 0 ? c->scale : 1), qkv = act_new(n, cols, half, 1);
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
        /* 4-bit values are rounded to binary16, as are activations where there are many; codes of
         * these may fall to either side. */
        const bool exact = id == BG_FORMAT_F16 && !is_rounded(n, hidden, hidden, FEW_ROWS);
        const double most = half ? 2e-2 : exact ? 2e-5 : 1e-3;
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
        {.heads = 20, .kv_heads = 20, .dim = 64, .keys = 300, .n_sequences = 8},
        {.heads = 4, .kv_heads = 4, .dim = 32, .keys = 300, .n_sequences = 10},
        {.heads = 4, .kv_heads = 4, .dim = 64, .keys = 40, .n_sequences = 3, .scale = 1e-5f},
        /* On some of the blocks, with keys in parts or without, and on all of them. */
        {.heads = 8, .kv_heads = 8, .dim = 64, .keys = 900, .n_sequences = 1, .parallel = true},
        {.heads = 8, .kv_heads = 4, .dim = 80, .keys = 60, .n_sequences = 3, .parallel = true},
        {.heads = 16, .kv_heads = 16, .dim = 64, .keys = 300, .n_sequences = 5, .parallel = true},
        {.heads = 16, .kv_heads = 16, .dim = 64, .keys = 90, .n_sequences = 10, .parallel = true},
        {.heads = 20, .kv_heads = 20, .dim = 64, .keys = 90, .n_sequences = 8, .parallel = true},
    };
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) run_step(formats[f], &cases[i]);
}

/* ---- the end of a step ----------------------------------------------------------------------- */

enum { HIDDEN = 256, BEFORE = 8, MOST_CHOSEN = 10 };

/* A head whose second half is its first once more, so that each logit is there twice. */
static weight double_head(bg_format_id id, size_t hidden, size_t half)
{
    weight w;
    const size_t n = half * hidden;
    float *x = draw_many(2 * n, 1);
    memcpy(x + n, x, n * sizeof *x);
    const bg_source source = {"w", BG_F32, x, 2 * half, hidden, false};
    for (int d = 0; d < BOTH; d++)
        OK(backends[d]->ops->weight_create(backends[d], &source, id, &w.on[d], &err));
    bg_free(x);
    return w;
}

static bool is_forbidden(const bg_choice *how, int32_t id)
{
    for (size_t i = 0; i < how->n_forbidden; i++)
        if (how->forbidden[i] == id) return true;
    return false;
}

/* Whether it may be chosen from these logits: none that may be is much larger, and of two equal
 * ones it is the first. */
static bool may_be_chosen(const float *logits, size_t half, const bg_choice *how, int32_t id,
                          float most)
{
    const int32_t twin = id - (int32_t)half;
    if (id < 0 || (size_t)id >= 2 * half || is_forbidden(how, id)) return false;
    if (twin >= 0 && !is_forbidden(how, twin)) return false;
    for (size_t i = 0; i < 2 * half; i++)
        if (!is_forbidden(how, (int32_t)i) && logits[i] > logits[id] + most) return false;
    return true;
}

static void run_end(bg_format_id id, bg_format_id spared, const bg_norm_kind *kind, size_t hidden,
                    size_t n, size_t half_vocabulary)
{
    const bool half = bg_format_is_int8(id);
    const size_t vocabulary = 2 * half_vocabulary;
    weight w = weight_new(id, hidden, hidden, 1.5f / sqrtf((float)hidden));
    weight head = double_head(spared, hidden, half_vocabulary);
    weight norm = weight_new(BG_FORMAT_F32, 1, hidden, 1);
    act x = act_new(n, hidden, half, 1), y = act_new(n, hidden, half, 1);
    act normed = act_new(n, hidden, half, 1), in_head = kind ? normed : x;
    float *logits = bg_alloc_array(n * vocabulary, sizeof *logits);
    int32_t ids[BOTH][MOST_CHOSEN], forbidden[MOST_CHOSEN];
    bg_choice how = {.forbidden = forbidden};
    for (int step = 0; step < 3; step++) { /* what was chosen first is forbidden after that */
        for (int d = 0; d < BOTH; d++) {
            const bg_backend_ops *ops = backends[d]->ops;
            bg_ids *chosen;
            for (int layer = 0; layer < BEFORE; layer++) {
                const act in = layer % 2 ? y : x, out = layer % 2 ? x : y;
                const bg_linear args = {
                    .weight = w.on[d], .in = in.on[d], .n_rows = n, .out = out.on[d]};
                const bg_linear added = {.weight = w.on[d],
                                         .in = in.on[d],
                                         .n_rows = n,
                                         .residual = in.on[d],
                                         .out = out.on[d]};
                OK(ops->linear(backends[d], layer % 2 ? &args : &added, &err));
            }
            if (kind) {
                const bg_norm last = {*kind, norm.on[d], *kind == BG_NORM_LAYER ? norm.on[d] : NULL,
                                      1e-6f};
                OK(ops->norm(backends[d], &last, x.on[d], n, normed.on[d], &err));
            }
            OK(ops->ids_create(backends[d], n, &chosen, &err));
            OK(ops->choose(backends[d], head.on[d], NULL, in_head.on[d], n, &how, chosen, &err));
            OK(ops->ids_read(backends[d], chosen, n, ids[d], &err));
            ops->ids_free(backends[d], chosen);
        }
        OK(backends[CPU]->ops->logits(backends[CPU], head.on[CPU], NULL, in_head.on[CPU], n, logits,
                                      &err));
        const double gap = difference(in_head, n);
        size_t wrong = 0;
        for (size_t i = 0; i < n; i++)
            wrong += !may_be_chosen(logits + i * vocabulary, half_vocabulary, &how, ids[GPU][i],
                                    half ? 0.5f : 0.05f);
        CHECK(wrong == 0 && gap <= (half ? 2e-2 : 1e-3),
              "%s, %zu rows, %zu logits, step %d: %zu wrong, first %d (%d); %g",
              bg_formats[id].name, n, vocabulary, step, wrong, ids[GPU][0], ids[CPU][0], gap);
        if (step == 0) memcpy(forbidden, ids[GPU], n * sizeof *forbidden);
        how.n_forbidden = n;
    }
    bg_free(logits);
    const weight weights[] = {w, head, norm};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) weight_drop(weights[i]);
    const act acts[] = {x, y, normed};
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) act_drop(acts[i]);
}

static void test_ends(void)
{
    static const struct {
        bg_format_id layers, head;
        bg_norm_kind norm;
    } models[] = {{BG_FORMAT_F16, BG_FORMAT_F16, BG_NORM_LAYER},
                  {BG_FORMAT_BF16, BG_FORMAT_BF16, BG_NORM_RMS},
                  {BG_FORMAT_NF4, BG_FORMAT_F16, BG_NORM_RMS_OFFSET},
                  {BG_FORMAT_INT8, BG_FORMAT_F16, BG_NORM_LAYER},
                  {BG_FORMAT_INT8, BG_FORMAT_F16, BG_NORM_RMS},
                  {BG_FORMAT_NF4, BG_FORMAT_NF4, BG_NORM_RMS}};
    static const size_t rows[] = {1, 3, 8, MOST_CHOSEN};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            run_end(models[i].layers, models[i].head, &models[i].norm, HIDDEN, rows[k], 20);
            run_end(models[i].layers, models[i].head, &models[i].norm, HIDDEN, rows[k], 2503);
            run_end(models[i].layers, models[i].head, NULL, HIDDEN, rows[k], 2503);
        }
    /* Rows of two and a half quads for each thread, and three of as many for a third of them. */
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        run_end(models[i].layers, models[i].head, &models[i].norm, 2560, 1, 503);
        run_end(models[i].layers, models[i].head, &models[i].norm, 768, 3, 503);
    }
}

/* A head that scores all rows of a norm but the last, in a second text that is like the first, of a
 * model whose layers have no operands of 16 bits. */
static void test_fewer_rows(void)
{
    enum { N = 512, WORDS = 300 };
    weight norm = weight_new(BG_FORMAT_F32, 1, HIDDEN, 1);
    weight head = weight_new(BG_FORMAT_F16, WORDS, HIDDEN, 0.1f);
    act x = act_new(N, HIDDEN, true, 1), normed = act_new(N, HIDDEN, true, 1);
    double *nll[BOTH];
    int32_t targets[N];
    for (size_t i = 0; i < N; i++) targets[i] = (int32_t)(i * 7 % WORDS);
    for (int d = 0; d < BOTH; d++) {
        const bg_backend_ops *ops = backends[d]->ops;
        const bg_norm last = {BG_NORM_RMS, norm.on[d], NULL, 1e-6f};
        nll[d] = bg_alloc_array(N, sizeof(double));
        for (int text = 0; text < 3; text++) {
            OK(ops->norm(backends[d], &last, x.on[d], N, normed.on[d], &err));
            OK(ops->score(backends[d], head.on[d], NULL, normed.on[d], N - 1, targets, nll[d],
                          &err));
        }
    }
    double worst = 0;
    for (size_t i = 0; i + 1 < N; i++) worst = fmax(worst, fabs(nll[CPU][i] - nll[GPU][i]));
    CHECK(worst <= 1e-3, "%g", worst);
    for (int d = 0; d < BOTH; d++) bg_free(nll[d]);
    weight_drop(norm);
    weight_drop(head);
    act_drop(x);
    act_drop(normed);
}

/* Layers of which each block has more tiles than it has warps, alone and as a gate and what it
 * multiplies, of a norm, between small ones. */
static void run_tall(bg_format_id id, size_t n, size_t cols)
{
    enum { ALONE = 17408, PAIRED = 8704 };
    const bool half = bg_format_is_int8(id);
    const float scale = 1.5f / sqrtf((float)cols), input = half ? 4 : 1; /* with outliers */
    weight small = weight_new(id, cols, cols, scale), alone = weight_new(id, ALONE, cols, scale);
    weight up = weight_new(id, PAIRED, cols, scale), gate = weight_new(id, PAIRED, cols, scale);
    act x = act_new(n, cols, half, input), y = act_new(n, cols, half, 1);
    act tall = act_new(n, ALONE, half, 1), inner = act_new(n, PAIRED, half, 1);
    act normed = act_new(n, cols, half, 1);
    weight norm = weight_new(BG_FORMAT_F32, 1, cols, input);
    for (int d = 0; d < BOTH; d++)
        for (int layer = 0; layer < LAYERS; layer++) {
            const act in = layer % 2 ? y : x, out = layer % 2 ? x : y;
            const bg_linear own = {
                .weight = small.on[d], .in = in.on[d], .n_rows = n, .out = out.on[d]};
            OK(backends[d]->ops->linear(backends[d], &own, &err));
            const bg_norm of_row = {BG_NORM_LAYER, norm.on[d], norm.on[d], 1e-5f};
            OK(backends[d]->ops->norm(backends[d], &of_row, out.on[d], n, normed.on[d], &err));
            const bg_linear layers[] = {
                {.weight = alone.on[d], .in = normed.on[d], .n_rows = n, .out = tall.on[d]},
                {.weight = up.on[d], .in = normed.on[d], .n_rows = n, .out = inner.on[d]},
                {.weight = gate.on[d],
                 .in = normed.on[d],
                 .n_rows = n,
                 .activation = BG_ACTIVATION_SILU,
                 .multiplier = inner.on[d],
                 .out = inner.on[d]}};
            for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
                OK(backends[d]->ops->linear(backends[d], &layers[i], &err));
        }
    const act results[] = {tall, inner};
    for (size_t i = 0; i < 2; i++) {
        const double gap = difference(results[i], n);
        CHECK(gap <= (half ? 2e-2 : 1e-3), "%s, %zu rows of %zu, %zu: %g", bg_formats[id].name, n,
              cols, i, gap);
    }
    const weight weights[] = {small, alone, up, gate, norm};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) weight_drop(weights[i]);
    const act acts[] = {x, y, tall, inner, normed};
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) act_drop(acts[i]);
}

static void test_tall(void)
{
    /* Of 512 columns and 1,536 two 4-bit tiles may be multiplied at once, of 640 not. */
    static const struct {
        bg_format_id format;
        size_t cols;
    } layers[] = {{BG_FORMAT_F16, 512},  {BG_FORMAT_INT8, 512},    {BG_FORMAT_NF4, 512},
                  {BG_FORMAT_NF4, 1536}, {BG_FORMAT_NF4_DQ, 1536}, {BG_FORMAT_NF4, 640}};
    static const size_t rows[] = {1, 3, 8};
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
            run_tall(layers[i].format, rows[k], layers[i].cols);
    run_tall(BG_FORMAT_NF4, 1, 2560); /* two and a half quads for each thread */
}

int main(void)
{
    if (!open_both()) return test_finish();
    RUN(test_steps);
    RUN(test_tall);
    RUN(test_fewer_rows);
    RUN(test_ends);
    close_both();
    return test_finish();
}

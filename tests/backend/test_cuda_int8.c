/* LLM.int8() on the GPU: outlier columns of sequences, layers one behind the other, infinities. */
#include "both.h"

/* ---- sequences --------------------------------------------------------------------------------
 */

enum { MOST_SEQUENCES = 40 };

static act act_of(const float *x, size_t rows, size_t cols, bool half)
{
    act a;
    for (int d = 0; d < BOTH; d++) {
        OK(backends[d]->ops->act_create(backends[d], rows, cols, half, &a.on[d], &err));
        if (x) OK(backends[d]->ops->act_write(backends[d], a.on[d], rows, x, &err));
    }
    return a;
}

/* A norm and two layers of its result on one device, of sequences or of rows together. The first
 * one is added to its input where it has as many columns. */
static void norm_and_layers(int d, const bg_norm *norm, const weight w[2], const weight *bias,
                            const act *x, const act *normed, const act out[2], size_t n_rows,
                            const bg_sequence *sequences, size_t n_sequences)
{
    const bg_backend_ops *ops = backends[d]->ops;
    if (norm) OK(ops->norm(backends[d], norm, x->on[d], n_rows, normed->on[d], &err));
    bg_act *in = (norm ? normed : x)->on[d];
    for (size_t i = 0; i < 2; i++) {
        const bool residual = i == 0 && out[i].on[d]->cols == in->cols;
        const bg_linear args = {.weight = w[i].on[d],
                                .bias = i ? bias->on[d] : NULL,
                                .in = in,
                                .n_rows = n_rows,
                                .sequences = sequences,
                                .n_sequences = n_sequences,
                                .activation = i ? BG_ACTIVATION_GELU : BG_ACTIVATION_NONE,
                                .residual = residual ? in : NULL,
                                .out = out[i].on[d]};
        OK(ops->linear(backends[d], &args, &err));
    }
}

typedef struct {
    size_t lengths[MOST_SEQUENCES], n;
    size_t cols, rows[2];
    bool normed;
    bool exact; /* to the last bit what a sequence gives alone */
} sequence_case;

/* Sequences with outlier columns of their own: none, some, the same as another's, and so many that
 * they are not gathered. */
static void check_sequences(sequence_case c)
{
    bg_sequence sequences[MOST_SEQUENCES];
    size_t n_rows = 0;
    for (size_t i = 0; i < c.n; i++) {
        sequences[i] = (bg_sequence){.first_row = n_rows, .rows = c.lengths[i]};
        n_rows += c.lengths[i];
    }
    float *values = draw_many(n_rows * c.cols, 1);
    for (size_t i = 0; i < c.n; i++)
        for (size_t k = 0, j = i % 6; k < j * j * j * 10; k++) {
            const size_t row = sequences[i].first_row + k * 7 % sequences[i].rows;
            values[row * c.cols + (k * 37 + i) % c.cols] = k % 2 ? 9 : -30;
        }
    weight w[2] = {weight_new(BG_FORMAT_INT8, c.rows[0], c.cols, 0.2f),
                   weight_new(BG_FORMAT_INT8, c.rows[1], c.cols, 0.2f)};
    weight bias = weight_new(BG_FORMAT_F32, 1, c.rows[1], 1);
    weight scale = weight_new(BG_FORMAT_F32, 1, c.cols, 4);
    act x = act_of(values, n_rows, c.cols, true), normed = act_of(NULL, n_rows, c.cols, true);
    act out[2] = {act_of(NULL, n_rows, c.rows[0], true), act_of(NULL, n_rows, c.rows[1], true)};
    for (int d = 0; d < BOTH; d++) {
        const bg_norm norm = {BG_NORM_RMS, scale.on[d], NULL, 1e-5f};
        /* On the GPU the last one is a graph. */
        for (int round = d == CPU ? 2 : 0; round < 3; round++)
            norm_and_layers(d, c.normed ? &norm : NULL, w, &bias, &x, &normed, out, n_rows,
                            sequences, c.n);
    }
    for (size_t i = 0; i < 2; i++) {
        const double gap = difference(out[i], n_rows);
        CHECK(gap <= (c.normed ? 2e-2 : tolerance(true)), "%zu rows, %zu x %zu: %g", n_rows,
              c.rows[i], c.cols, gap);
    }
    float *together[2];
    for (size_t i = 0; i < 2; i++) {
        together[i] = bg_alloc_array(n_rows * c.rows[i], sizeof(float));
        OK(backends[GPU]->ops->act_read(backends[GPU], out[i].on[GPU], n_rows, together[i], &err));
    }
    for (size_t s = 0; s < c.n && c.exact; s++) {
        const size_t n = c.lengths[s], first = sequences[s].first_row;
        act own = act_of(values + first * c.cols, n, c.cols, true);
        act own_normed = act_of(NULL, n, c.cols, true);
        act own_out[2] = {act_of(NULL, n, c.rows[0], true), act_of(NULL, n, c.rows[1], true)};
        const bg_norm norm = {BG_NORM_RMS, scale.on[GPU], NULL, 1e-5f};
        norm_and_layers(GPU, c.normed ? &norm : NULL, w, &bias, &own, &own_normed, own_out, n, NULL,
                        0);
        for (size_t i = 0; i < 2; i++) {
            float *alone = bg_alloc_array(n * c.rows[i], sizeof(float));
            OK(backends[GPU]->ops->act_read(backends[GPU], own_out[i].on[GPU], n, alone, &err));
            size_t off = 0;
            for (size_t k = 0; k < n * c.rows[i]; k++)
                off += memcmp(alone + k, together[i] + first * c.rows[i] + k, sizeof(float)) != 0;
            CHECK(off == 0, "sequence %zu of %zu, layer %zu: %zu of %zu differ", s, c.n, i, off,
                  n * c.rows[i]);
            bg_free(alone);
            act_drop(own_out[i]);
        }
        act_drop(own);
        act_drop(own_normed);
    }
    for (size_t i = 0; i < 2; i++) {
        bg_free(together[i]);
        weight_drop(w[i]);
        act_drop(out[i]);
    }
    bg_free(values);
    weight_drop(bias);
    weight_drop(scale);
    act_drop(x);
    act_drop(normed);
}

static void test_sequences(void)
{
    static const sequence_case cases[] = {
        /* The library's product, and our own where a sequence is alone. */
        {{470, 90, 100, 300, 165}, 5, 320, {192, 1040}, .exact = true},
        /* Products by warpgroups, where sequences begin with their tiles; more outlier columns than
         * are gathered. */
        {{256, 768, 100}, 3, 320, {256, 1040}, .exact = true},
        {{512, 768, 256, 90}, 4, 320, {512, 1040}, .exact = true},
        /* Our own where there are so many rows, too: a layer's tiles take turns. */
        {{128, 200, 128, 170, 199, 199}, 6, 768, {768, 3072}, .normed = true, .exact = true},
        {{256, 768}, 2, 1040, {1024, 640}, .exact = true},
        /* Our own alone, of either size of tiles. */
        {{70, 90, 100, 300, 65}, 5, 320, {192, 1040}, .exact = true},
        {{300, 90, 130, 77}, 4, 1024, {512, 208}, .exact = true},
        {{300, 90, 130, 77}, 4, 1024, {512, 208}, .normed = true, .exact = true},
        {{70, 66, 100}, 3, 768, {768, 96}, .exact = true},
        {{70, 66, 100}, 3, 768, {768, 96}, .normed = true, .exact = true},
        /* Results that are not four in line, of either size of tiles. */
        {{70, 66, 100}, 3, 320, {50, 103}, .exact = true},
        {{300, 400, 250}, 3, 320, {1030, 1037}, .exact = true},
        /* More sequences than a warp has lanes, some tiles with many of them. */
        {{30, 12, 7,  25, 19, 40, 3,  22, 31, 18, 9,  28, 16, 35, 11, 24, 20, 6, 33, 27,
          14, 21, 38, 5,  29, 17, 26, 10, 23, 36, 13, 32, 8,  15, 37, 4,  34, 2, 39, 1},
         40,
         320,
         {192, 1040},
         .exact = false},
        /* Long rows, few and many. */
        {{70, 128, 100}, 3, 3072, {640, 96}, .exact = true},
        /* Few rows, whose kernels do not know sequences, and rows of odd lengths. */
        {{3, 1, 20, 7}, 4, 320, {192, 64}, .exact = false},
        {{3, 1, 20, 7, 2, 1}, 6, 1000, {36, 51}, .exact = false},
        {{40, 1, 90, 7, 30}, 5, 1000, {36, 51}, .exact = false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_sequences(cases[i]);
}

/* A product of the library takes what outlier columns' codes add out of its result; the kernel of
 * the layer after it, which has too odd a number of outputs for the library, wants those codes to
 * be 0. */
static void test_odd_outputs(void)
{
    enum { ROWS = 1100, COLS = 320, EVEN = 64, ODD = 24 };
    float *values = draw_many((size_t)ROWS * COLS, 1);
    for (size_t i = 0; i < 20; i++) values[i * 53 * COLS + i * 13] = i % 2 ? 9 : -30;
    const weight w[2] = {weight_new(BG_FORMAT_INT8, EVEN, COLS, 0.2f),
                         weight_new(BG_FORMAT_INT8, ODD, COLS, 0.2f)};
    const weight bias = weight_new(BG_FORMAT_F32, 1, ODD, 1);
    act x = act_of(values, ROWS, COLS, true);
    const act out[2] = {act_of(NULL, ROWS, EVEN, true), act_of(NULL, ROWS, ODD, true)};
    for (int d = 0; d < BOTH; d++) norm_and_layers(d, NULL, w, &bias, &x, NULL, out, ROWS, NULL, 0);
    for (size_t i = 0; i < 2; i++) {
        const double gap = difference(out[i], ROWS);
        CHECK(gap <= tolerance(true), "%zu outputs: %g", out[i].on[CPU]->cols, gap);
        weight_drop(w[i]);
        act_drop(out[i]);
    }
    bg_free(values);
    weight_drop(bias);
    act_drop(x);
}

/* ---- two layers, one behind the other ---------------------------------------------------------
 */

/* An MLP, whose second layer may start while the first one ends, or, where it `waits`, not. */
static float *run_mlp(const weight *up, const weight *wide, const weight *down, act x, act middle,
                      act out, const bg_sequence *sequences, size_t n_sequences, bool waits)
{
    bg_backend *gpu = backends[GPU];
    const size_t n_rows = x.on[GPU]->rows, cols = out.on[GPU]->cols;
    const bg_linear layers[] = {{.weight = up->on[GPU],
                                 .bias = wide->on[GPU],
                                 .in = x.on[GPU],
                                 .n_rows = n_rows,
                                 .sequences = sequences,
                                 .n_sequences = n_sequences,
                                 .activation = BG_ACTIVATION_GELU,
                                 .out = middle.on[GPU]},
                                {.weight = down->on[GPU],
                                 .in = middle.on[GPU],
                                 .n_rows = n_rows,
                                 .sequences = sequences,
                                 .n_sequences = n_sequences,
                                 .residual = x.on[GPU],
                                 .out = out.on[GPU]}};
    float *got = bg_alloc_array(n_rows * cols, sizeof *got);
    /* Again with what the last time left. */
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2; i++) {
            OK(gpu->ops->linear(gpu, &layers[i], &err));
            if (waits) OK(gpu->ops->synchronize(gpu, &err));
        }
        OK(gpu->ops->act_read(gpu, out.on[GPU], n_rows, got, &err));
    }
    return got;
}

/* To the last bit the same either way, with outliers in some columns, of one sequence or of all. */
static void test_mlp(void)
{
    enum { ROWS = 128, MANY = 1000, HIDDEN = 768, INNER = 3072 };
    static const size_t lengths[] = {70, ROWS, MANY};
    static const bg_sequence sequences[] = {{.first_row = 0, .rows = 61},
                                            {.first_row = 61, .rows = 67}};
    weight up = weight_new(BG_FORMAT_INT8, INNER, HIDDEN, 0.1f);
    weight down = weight_new(BG_FORMAT_INT8, HIDDEN, INNER, 0.1f);
    for (int biases = 0; biases < 2; biases++) {
        weight wide = weight_new(BG_FORMAT_F32, 1, INNER, biases ? 5 : 0.5f);
        for (size_t n = 0; n <= 2; n += 2)
            for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
                const size_t rows = lengths[k];
                if (n > 0 && rows != ROWS) continue;
                act x = act_new(rows, HIDDEN, true, 1), middle = act_new(rows, INNER, true, 1);
                act out = act_new(rows, HIDDEN, true, 1);
                float *once = run_mlp(&up, &wide, &down, x, middle, out, sequences, n, false);
                float *apart = run_mlp(&up, &wide, &down, x, middle, out, sequences, n, true);
                size_t off = 0, numbers = 0;
                for (size_t i = 0; i < rows * HIDDEN; i++) {
                    off += memcmp(&once[i], &apart[i], sizeof *once) != 0;
                    numbers += isfinite(once[i]) && once[i] != 0;
                }
                CHECK(off == 0 && numbers > rows * HIDDEN / 2,
                      "%zu rows, %zu sequences: %zu differ, %zu are numbers", rows, n, off,
                      numbers);
                bg_free(once);
                bg_free(apart);
                act_drop(x);
                act_drop(middle);
                act_drop(out);
            }
        weight_drop(wide);
    }
    weight_drop(up);
    weight_drop(down);
}

/* ---- infinities ------------------------------------------------------------------------------ */

/* int8 without outliers: an infinite activation has no code, and the rows that it is in get
 * infinities, the others numbers. */
static void test_infinite(void)
{
    enum { COLS = 320, ROWS = 192 };
    static const size_t sizes[] = {1, 5, 100, 300};
    weight w = weight_new(BG_FORMAT_INT8_PLAIN, ROWS, COLS, 0.5f);
    for (size_t i = 0; i < 4; i++) {
        const size_t n = sizes[i];
        float *values = draw_many(n * COLS, 3), *got[BOTH];
        values[(n - 1) * COLS + 17] = INFINITY;
        act x = act_of(values, n, COLS, true), out = act_of(NULL, n, ROWS, true);
        size_t infinite = 0, off = 0;
        for (int d = 0; d < BOTH; d++) {
            const bg_linear args = {
                .weight = w.on[d], .in = x.on[d], .n_rows = n, .out = out.on[d]};
            OK(backends[d]->ops->linear(backends[d], &args, &err));
            got[d] = bg_alloc_array(n * ROWS, sizeof(float));
            OK(backends[d]->ops->act_read(backends[d], out.on[d], n, got[d], &err));
        }
        for (size_t k = 0; k < n * ROWS; k++) {
            const float c = got[CPU][k], g = got[GPU][k];
            infinite += !isfinite(c);
            off += isnan(c)   ? !isnan(g)
                   : isinf(c) ? g != c
                              : !(fabsf(g - c) <= 2e-3f * fabsf(c) + 2e-3f);
        }
        CHECK(off == 0 && infinite > 0 && infinite <= ROWS, "%zu rows: %zu differ, %zu infinite", n,
              off, infinite);
        for (int d = 0; d < BOTH; d++) bg_free(got[d]);
        bg_free(values);
        act_drop(x);
        act_drop(out);
    }
    weight_drop(w);
}

int main(void)
{
    if (!open_both()) return test_finish();
    RUN(test_sequences);
    RUN(test_odd_outputs);
    RUN(test_mlp);
    RUN(test_infinite);
    close_both();
    return test_finish();
}

/* Linear layers of the CUDA backend, one by one, at every format against the scalar CPU kernels.
 * Needs a GPU. */
#include "both.h"

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
                                       {96, 2048}, {130, 2560}, {64, 3840}, {51, 36}};
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
                    /* Activations that are binary16 lose nothing as fp16. */
                    const bool rounded =
                        is_rounded(n_rows[n], shapes[s][0], shapes[s][1], FEW_ROWS) &&
                        !(v.half && id == BG_FORMAT_F16);
                    /* Of large sums tanh is one, minus one, or of their rounding. */
                    const bool small = rounded && v.activation == BG_ACTIVATION_TANH;
                    double gap =
                        run_linear((bg_format_id)id, n_rows[n], shapes[s][0], shapes[s][1], v,
                                   small ? 0.05f
                                   : k   ? 1.0f
                                         : 4.5f);
                    double most = fmax(tolerance(v.half), code_tolerance((bg_format_id)id));
                    if (rounded)
                        most = fmax(most, rounded_tolerance((bg_format_id)id));
                    else
                        worst[v.half] = fmax(worst[v.half], gap);
                    CHECK(gap <= most, "%s, %zu rows, %zu x %zu, variant %zu: %g",
                          bg_formats[id].name, n_rows[n], shapes[s][0], shapes[s][1],
                          (s + n * 2 + k * 3) % 6, gap);
                }
    printf("  largest: %.2g in fp32, %.2g in 16 bits\n", worst[0], worst[1]);
}

/* A classifier's layers: one row, and nothing that they are merged with. In fp32 a sum that is
 * little beside what it adds up has those numbers' rounding, so tanh has small ones. */
static void test_one_row(void)
{
    static const size_t shapes[][2] = {{768, 768}, {2, 768}, {5, 1024}, {301, 48}};
    static const variant variants[] = {
        {.half = true, .bias = true, .activation = BG_ACTIVATION_RELU},
        {.half = true, .bias = true},
        {.activation = BG_ACTIVATION_TANH},
    };
    for (int id = 0; id < BG_FORMAT_COUNT; id++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (size_t k = 0; k < 6; k++) {
                const variant v = variants[k % 3];
                double gap = run_linear((bg_format_id)id, 1, shapes[s][0], shapes[s][1], v,
                                        !v.half ? 0.05f
                                        : k < 3 ? 1.0f
                                                : 4.5f);
                CHECK(gap <= fmax(tolerance(v.half), code_tolerance((bg_format_id)id)),
                      "%s, %zu x %zu, variant %zu: %g", bg_formats[id].name, shapes[s][0],
                      shapes[s][1], k, gap);
            }
}

/* From the fewest rows on that tensor cores take. */
static void test_large_linear(void)
{
    static const size_t n_rows[] = {9, 24, 33, 64, 160};
    static const variant v = {.bias = true}, narrow = {.half = true, .bias = true};
    for (int id = 0; id < BG_FORMAT_COUNT; id++) {
        const double most = rounded_tolerance((bg_format_id)id);
        double worst = 0;
        for (size_t i = 0; i < sizeof n_rows / sizeof *n_rows; i++) {
            const double gap = run_linear((bg_format_id)id, n_rows[i], 4096, 2048, v, 1);
            CHECK(gap <= most, "%s, %zu rows: %g", bg_formats[id].name, n_rows[i], gap);
            const double half = run_linear((bg_format_id)id, n_rows[i], 4099, 2048, narrow, 1);
            CHECK(half <= fmax(most, tolerance(true)), "%s, %zu rows in 16 bits: %g",
                  bg_formats[id].name, n_rows[i], half);
            worst = fmax(worst, gap);
        }
        printf("  %s: %.2g\n", bg_formats[id].name, worst);
        /* Of few rows, tiles of more outputs where there are more of these. */
        static const size_t n_outputs[] = {6000, 12000};
        for (size_t i = 0; i < 2; i++) {
            const double gap = run_linear((bg_format_id)id, 11, n_outputs[i], 1024, v, 1);
            CHECK(gap <= most, "%s, %zu outputs: %g", bg_formats[id].name, n_outputs[i], gap);
        }
        /* Tiles that decode first, of two groups of rows; the last of them has neither all rows nor
         * all outputs. */
        const double first = run_linear((bg_format_id)id, 140, 1699, 1024, v, 1);
        CHECK(first <= most, "%s, 1,699 outputs: %g", bg_formats[id].name, first);
        if (!bg_format_is_int8((bg_format_id)id)) continue;
        /* More tiles than there are multiprocessors for, by warpgroups where a GPU has them. */
        for (size_t i = 0; i < sizeof n_rows / sizeof *n_rows; i++) {
            const double gap = run_linear((bg_format_id)id, n_rows[i], 8464, 512, v, 4.5f);
            CHECK(gap <= most, "%s, %zu rows, many outputs: %g", bg_formats[id].name, n_rows[i],
                  gap);
        }
        /* So many rows that it is the library's product. */
        const double gap = run_linear((bg_format_id)id, 1100, 512, 768, v, 1);
        CHECK(gap <= most, "%s, many rows: %g", bg_formats[id].name, gap);
    }
}

/* Of activations that are rounded to binary16, what is larger than its largest number becomes that:
 * one entry does not make all of a row's results infinite. */
static void test_cut(void)
{
    enum { N = 13, ROWS = 512, COLS = 768 };
    static const bg_format_id formats[] = {BG_FORMAT_F16, BG_FORMAT_NF4, BG_FORMAT_FP4_DQ};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        weight w = weight_new(formats[f], ROWS, COLS, 0.5f);
        act in = act_new(N, COLS, false, 1), out = act_new(N, ROWS, false, 1);
        float *values = draw_many((size_t)N * COLS, 1);
        for (int d = 0; d < BOTH; d++) {
            for (size_t row = 0; row < N; row++)
                values[row * COLS + row * 50] = (row % 2 ? -1 : 1) * (d == GPU ? 3e5f : 65504);
            const bg_linear args = {
                .weight = w.on[d], .in = in.on[d], .n_rows = N, .out = out.on[d]};
            OK(backends[d]->ops->act_write(backends[d], in.on[d], N, values, &err));
            OK(backends[d]->ops->linear(backends[d], &args, &err));
        }
        const double gap = difference(out, N);
        CHECK(gap <= rounded_tolerance(formats[f]), "%s: %g", bg_formats[formats[f]].name, gap);
        bg_free(values);
        weight_drop(w);
        act_drop(in);
        act_drop(out);
    }
}

/* Where one layer is long, fewer rows of all are multiplied in tiles: of each format with a backend
 * of its own. */
static void test_long_linear(void)
{
    static const size_t n_rows[] = {1, 3, 4, 5, 8};
    static const variant v = {.bias = true, .residual = true}, narrow = {.half = true};
    for (int id = 0; id < BG_FORMAT_COUNT; id++) {
        close_both();
        if (!open_both()) return;
        const size_t few_rows = bg_format_is_int8((bg_format_id)id) ? 3 : 4;
        for (size_t i = 0; i < sizeof n_rows / sizeof *n_rows; i++) {
            const bool rounded = is_rounded(n_rows[i], 64, 5120, few_rows);
            const double most = rounded ? rounded_tolerance((bg_format_id)id)
                                        : fmax(tolerance(false), code_tolerance((bg_format_id)id));
            double gap = run_linear((bg_format_id)id, n_rows[i], 64, 5120, v, 1);
            CHECK(gap <= most, "%s, %zu rows: %g", bg_formats[id].name, n_rows[i], gap);
            gap = run_linear((bg_format_id)id, n_rows[i], 64, 5120, narrow, 4.5f);
            CHECK(gap <= fmax(most, tolerance(true)), "%s, %zu rows in 16 bits: %g",
                  bg_formats[id].name, n_rows[i], gap);
        }
    }
}

int main(void)
{
    if (!open_both()) return test_finish();
    RUN(test_linear);
    RUN(test_one_row);
    RUN(test_large_linear);
    RUN(test_cut);
    RUN(test_long_linear);
    close_both();
    return test_finish();
}

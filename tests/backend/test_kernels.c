/* Every kernel table of this processor against the scalar one, at shapes that end in the middle of
 * registers, tiles and blocks. Depends on src/quant and src/backend/cpu/kernels*.c alone, so that
 * it can be cross-compiled and run in an emulator. */
#include "test.h"

#include "backend/cpu/kernels.h"
#include "core/alloc.h"
#include "quant/half.h"

#include <stdlib.h>

static float noise(void)
{
    return (float)rand() / (float)RAND_MAX * 2 - 1;
}

static float *noise_array(size_t n)
{
    float *x = bg_alloc_array(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = noise();
    return x;
}

static bg_packed packed_noise(bg_format_id id, size_t rows, size_t cols)
{
    float *values = noise_array(rows * cols);
    bg_packed p;
    bg_error err;
    CHECK(bg_packed_alloc(id, rows, cols, &p, &err) == BG_OK, "%s", err.message);
    bg_formats[id].encode(&p, values, 0, rows * cols);
    bg_packed_finish(&p);
    bg_free(values);
    return p;
}

static void pair_up(const float *x, size_t n, size_t lanes, float *out)
{
    if (n % BG_BLOCK) return; /* only whole blocks are paired */
    for (size_t i = 0; i < n; i++) {
        size_t group = i / (2 * lanes) * 2 * lanes, k = i - group;
        out[group + k % 2 * lanes + k / 2] = x[i];
    }
}

/* The sum of n products of numbers up to 1, in another order: each addition may round by half a
 * unit of the partial sum, which random signs keep near sqrt(n). */
static double sum_tolerance(size_t n)
{
    return 4 * sqrt((double)n) * 0x1p-24 * sqrt((double)n) + 1e-6;
}

static void check_matvec(const bg_cpu_kernels *k, bg_format_id id, size_t rows, size_t cols)
{
    bg_packed w = packed_noise(id, rows, cols);
    float *x = noise_array(cols), *paired = noise_array(cols);
    float *expected = noise_array(rows), *got = noise_array(rows);
    int8_t *codes = bg_alloc(cols);
    uint8_t *is_outlier = bg_calloc(cols, 1);
    bg_cpu_input in = {.values = x, .paired = paired, .codes = codes};
    const float threshold = bg_format_is_int8(id) ? bg_formats[id].outlier_threshold : 6;
    if (bg_format_is_int8(id) && cols > 4) {
        x[1] = 7.5f;
        x[cols - 1] = -20.25f;
        is_outlier[1] = is_outlier[cols - 1] = bg_format_has_outliers(id);
    }
    bg_cpu_scalar.quantize_row(x, cols, threshold, is_outlier, codes, &in.absmax);
    int8_t *same = bg_alloc(cols);
    float same_absmax;
    k->quantize_row(x, cols, threshold, is_outlier, same, &same_absmax);
    CHECK(memcmp(codes, same, cols) == 0 && same_absmax == in.absmax, "%s quantize_row %zu", k->isa,
          cols);
    bg_free(same);
    uint8_t *marked = bg_calloc(cols, 1);
    k->mark_outliers(x, cols, threshold, marked);
    CHECK(memcmp(marked, is_outlier, cols) == 0, "%s mark_outliers %zu", k->isa, cols);
    bg_free(marked);
    /* In two ranges, the second starting at an odd row. */
    size_t cut = rows / 2 | 1;
    if (cut > rows) cut = rows;
    pair_up(x, cols, bg_cpu_scalar.pair_lanes, paired);
    bg_cpu_scalar.format[id].matvec(&w, &in, expected, 0, rows);
    pair_up(x, cols, k->pair_lanes, paired);
    k->format[id].matvec(&w, &in, got, 0, cut);
    k->format[id].matvec(&w, &in, got + cut, cut, rows);
    double worst = 0;
    for (size_t r = 0; r < rows; r++) worst = fmax(worst, fabs((double)got[r] - expected[r]));
    CHECK(worst <= sum_tolerance(cols), "%s %s %zux%zu: %g", k->isa, bg_formats[id].name, rows,
          cols, worst);
    bg_packed_free(&w);
    bg_free(x);
    bg_free(paired);
    bg_free(expected);
    bg_free(got);
    bg_free(codes);
    bg_free(is_outlier);
}

static void check_decode(const bg_cpu_kernels *k, bg_format_id id, size_t rows, size_t cols)
{
    bg_packed w = packed_noise(id, rows, cols);
    float *expected = noise_array(rows * cols), *got = noise_array(rows * cols + 1);
    size_t begin = rows > 2 ? 1 : 0;
    got[(rows - begin) * cols] = 42;
    bg_cpu_scalar.format[id].decode(&w, expected, begin, rows);
    k->format[id].decode(&w, got, begin, rows);
    CHECK(memcmp(expected, got, (rows - begin) * cols * sizeof(float)) == 0, "%s %s %zux%zu",
          k->isa, bg_formats[id].name, rows, cols);
    CHECK(got[(rows - begin) * cols] == 42, "wrote past the end");
    bg_packed_free(&w);
    bg_free(expected);
    bg_free(got);
}

static void check_matmul_int8(const bg_cpu_kernels *k, size_t m, size_t rows, size_t cols)
{
    bg_packed w = packed_noise(BG_FORMAT_INT8, rows, cols);
    float *expected = noise_array(m * rows), *got = noise_array(m * (rows + 3));
    float *absmax = noise_array(m);
    int8_t *codes = bg_alloc(m * cols);
    for (size_t i = 0; i < m * cols; i++) codes[i] = (int8_t)(rand() % 255 - 127);
    bg_cpu_scalar.matmul_int8(&w, codes, absmax, m, expected, rows, 0, rows);
    k->matmul_int8(&w, codes, absmax, m, got, rows + 3, 0, rows);
    size_t different = 0; /* integer sums are exact: so is everything after them */
    for (size_t i = 0; i < m; i++)
        for (size_t r = 0; r < rows; r++)
            different += expected[i * rows + r] != got[i * (rows + 3) + r];
    CHECK(different == 0, "%s %zux%zux%zu: %zu differ", k->isa, m, rows, cols, different);
    bg_packed_free(&w);
    bg_free(expected);
    bg_free(got);
    bg_free(absmax);
    bg_free(codes);
}

static void test_products(void)
{
    static const size_t shapes[][2] = {{1, 1},     {3, 7},    {5, 16},   {4, 40},
                                       {9, 64},    {8, 100},  {17, 128}, {33, 192},
                                       {130, 320}, {6, 1037}, {70, 2056}};
    for (int t = 0; bg_cpu_kernel_tables[t]; t++) {
        const bg_cpu_kernels *k = bg_cpu_kernel_tables[t];
        if (!k->supported()) {
            SKIP("this processor has no %s", k->isa);
            continue;
        }
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            for (int id = 0; id < BG_FORMAT_COUNT; id++) {
                if (!bg_formats[id].blockwise || shapes[s][1] % BG_BLOCK == 0)
                    check_matvec(k, id, shapes[s][0], shapes[s][1]);
                check_decode(k, id, shapes[s][0], shapes[s][1]);
            }
            static const size_t batches[] = {1, 5, 9, 16, 23, 300};
            for (size_t m = 0; m < sizeof batches / sizeof *batches; m++)
                check_matmul_int8(k, batches[m], shapes[s][0], shapes[s][1]);
        }
    }
}

/* The functions of vectors, against double precision. */
static void test_elementwise(void)
{
    enum { N = 1003 };
    float x[N], y[N], w[N], b[N];
    for (int t = 0; bg_cpu_kernel_tables[t]; t++) {
        const bg_cpu_kernels *k = bg_cpu_kernel_tables[t];
        if (!k->supported()) continue;
        double worst[BG_ACTIVATION_COUNT] = {0}, sum = 0, total = 0, product = 0;
        for (int f = 0; f < BG_ACTIVATION_COUNT; f++) {
            for (int i = 0; i < N; i++) x[i] = y[i] = noise() * 12;
            k->activation[f](y, N);
            for (int i = 0; i < N; i++) {
                double v = x[i], e = v;
                if (f == BG_ACTIVATION_RELU) e = fmax(v, 0);
                if (f == BG_ACTIVATION_GELU) e = v / 2 * (1 + erf(v / sqrt(2)));
                if (f == BG_ACTIVATION_GELU_TANH || f == BG_ACTIVATION_GELU_NEW)
                    e = v / 2 * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
                if (f == BG_ACTIVATION_TANH) e = tanh(v);
                if (f == BG_ACTIVATION_SILU) e = v / (1 + exp(-v));
                worst[f] = fmax(worst[f], fabs(y[i] - e) / fmax(1, fabs(v)));
            }
            CHECK(worst[f] < 4e-7, "%s activation %d: %g", k->isa, f, worst[f]);
        }
        for (int i = 0; i < N; i++) {
            x[i] = y[i] = noise() * 12;
            w[i] = noise();
            b[i] = noise();
            total += exp(x[i]);
            sum += x[i];
            product += (double)x[i] * w[i];
        }
        CHECK(fabs(k->log_sum_exp(x, N) - log(total)) < 1e-6, "%s log_sum_exp", k->isa);
        CHECK(fabs(k->dot(x, w, N) - product) < 1e-3, "%s dot", k->isa);
        k->softmax(y, N);
        double error = 0, variance = 0, squares = 0, mean = sum / N;
        for (int i = 0; i < N; i++) error = fmax(error, fabs(y[i] - exp(x[i]) / total));
        CHECK(error < 1e-6, "%s softmax %g", k->isa, error);
        for (int i = 0; i < N; i++) {
            variance += (x[i] - mean) * (x[i] - mean) / N;
            squares += (double)x[i] * x[i] / N;
        }
        k->layer_norm(x, w, b, 1e-5f, false, y, N);
        error = 0;
        for (int i = 0; i < N; i++)
            error = fmax(error, fabs(y[i] - ((x[i] - mean) / sqrt(variance + 1e-5) * w[i] + b[i])));
        CHECK(error < 2e-6, "%s layer_norm %g", k->isa, error);
        k->rms_norm(x, w, 1e-6f, false, false, y, N);
        error = 0;
        for (int i = 0; i < N; i++)
            error = fmax(error, fabs(y[i] - x[i] / sqrt(squares + 1e-6) * w[i]));
        CHECK(error < 2e-6, "%s rms_norm %g", k->isa, error);
        k->rms_norm(x, w, 1e-6f, true, false, y, N);
        error = 0;
        for (int i = 0; i < N; i++)
            error = fmax(error, fabs(y[i] - x[i] / sqrt(squares + 1e-6) * (1.0 + w[i])));
        CHECK(error < 2e-6, "%s rms_norm with offset %g", k->isa, error);
        memcpy(y, x, sizeof y);
        k->multiply(w, y, N);
        error = 0;
        for (int i = 0; i < N; i++) error = fmax(error, fabs(y[i] - (double)x[i] * w[i]));
        CHECK(error < 2e-6, "%s multiply %g", k->isa, error);
    }
}

/* In a 16-bit model every kernel table rounds where the scalar one does: to the bit. */
static void test_half(void)
{
    enum { N = 131, PAIRS = 65 };
    float x[2 * N], w[N], b[N], expected[2 * N];
    for (int i = 0; i < N; i++) {
        w[i] = bg_f16_to_f32(bg_f32_to_f16(noise()));
        b[i] = bg_f16_to_f32(bg_f32_to_f16(noise()));
    }
    for (int t = 0; bg_cpu_kernel_tables[t]; t++) {
        const bg_cpu_kernels *k = bg_cpu_kernel_tables[t], *scalar = &bg_cpu_scalar;
        if (!k->supported()) continue;
        for (int offset = 0; offset < 2; offset++) {
            for (int i = 0; i < N; i++) x[i] = bg_f16_to_f32(bg_f32_to_f16(noise() * 9));
            scalar->rms_norm(x, w, 1e-6f, offset, true, expected, N);
            k->rms_norm(x, w, 1e-6f, offset, true, x, N);
            CHECK(memcmp(x, expected, N * sizeof *x) == 0, "%s rms_norm", k->isa);
        }
        for (int i = 0; i < 2 * N; i++)
            x[i] = expected[i] = bg_f16_to_f32(bg_f32_to_f16(noise() * 9));
        scalar->rotate(expected, w, b, true, PAIRS);
        k->rotate(x, w, b, true, PAIRS);
        CHECK(memcmp(x, expected, sizeof x) == 0, "%s rotate", k->isa);
    }
}

/* Pair i is (x[i], x[i + n]); what lies beyond is not touched. */
static void test_rotate(void)
{
    enum { PAIRS = 67, N = 150 };
    float x[N], y[N], cosines[PAIRS], sines[PAIRS];
    for (int i = 0; i < PAIRS; i++) {
        cosines[i] = (float)cos(i);
        sines[i] = (float)sin(i);
    }
    for (int t = 0; bg_cpu_kernel_tables[t]; t++) {
        const bg_cpu_kernels *k = bg_cpu_kernel_tables[t];
        if (!k->supported()) continue;
        for (int i = 0; i < N; i++) x[i] = y[i] = noise();
        k->rotate(y, cosines, sines, false, PAIRS);
        double error = 0;
        for (int i = 0; i < N; i++) {
            double e = x[i];
            if (i < PAIRS)
                e = cos(i) * x[i] - sin(i) * x[i + PAIRS];
            else if (i < 2 * PAIRS)
                e = cos(i - PAIRS) * x[i] + sin(i - PAIRS) * x[i - PAIRS];
            error = fmax(error, fabs(y[i] - e));
        }
        CHECK(error < 3e-7, "%s rotate %g", k->isa, error);
    }
}

/* exp at the ends of its range neither overflows nor turns to NaN. */
static void test_extremes(void)
{
    for (int t = 0; bg_cpu_kernel_tables[t]; t++) {
        const bg_cpu_kernels *k = bg_cpu_kernel_tables[t];
        if (!k->supported()) continue;
        float x[4] = {-1e30f, 0, -3e38f, 1e30f};
        k->softmax(x, 4);
        CHECK(x[3] == 1 && x[0] >= 0 && x[0] < 1e-30f, "%s: %g %g", k->isa, x[3], x[0]);
        float y[5] = {-1e20f, -100, 0, 100, 1e20f};
        k->activation[BG_ACTIVATION_SILU](y, 5);
        CHECK(y[4] == 1e20f && y[2] == 0 && fabsf(y[0]) < 1e-10f, "%s silu", k->isa);
        float z[5] = {-1e10f, -100, 0, 100, 1e10f};
        k->activation[BG_ACTIVATION_GELU_TANH](z, 5);
        CHECK(z[4] == 1e10f && z[0] == 0, "%s gelu_tanh %g", k->isa, z[0]);
    }
}

int main(void)
{
    srand(7);
    RUN(test_products);
    RUN(test_elementwise);
    RUN(test_half);
    RUN(test_rotate);
    RUN(test_extremes);
    return test_finish();
}

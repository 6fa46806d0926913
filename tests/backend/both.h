/* The same weights, activations and caches on the CPU and on the GPU, and how far what they hold is
 * apart. */
#ifndef BG_TESTS_BOTH_H
#define BG_TESTS_BOTH_H

#include "test.h"

#include "backend/backend.h"
#include "core/alloc.h"

#include <stdlib.h>

enum { CPU, GPU, BOTH };

static bg_backend *backends[BOTH];
static bg_error err;

#define OK(call) CHECK((call) == BG_OK, "%s", err.message)

typedef struct {
    bg_act *on[BOTH];
} act;

typedef struct {
    bg_weight *on[BOTH];
} weight;

static uint64_t random_state = 0x9E3779B97F4A7C15ULL;

static float uniform(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (float)(random_state >> 40) / (float)(1 << 24) - 0.5f;
}

/* About normal, with a tail. */
static float draw(void)
{
    return uniform() + uniform() + uniform() + uniform();
}

static float *draw_many(size_t n, float scale)
{
    float *x = bg_alloc_array(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = scale * draw();
    return x;
}

static act act_new(size_t rows, size_t cols, bool half, float scale)
{
    act a;
    float *x = draw_many(rows * cols, scale);
    for (int d = 0; d < BOTH; d++) {
        OK(backends[d]->ops->act_create(backends[d], rows, cols, half, &a.on[d], &err));
        OK(backends[d]->ops->act_write(backends[d], a.on[d], rows, x, &err));
    }
    bg_free(x);
    return a;
}

static void act_drop(act a)
{
    for (int d = 0; d < BOTH; d++) backends[d]->ops->act_free(backends[d], a.on[d]);
}

static weight weight_new(bg_format_id format, size_t rows, size_t cols, float scale)
{
    weight w;
    float *x = draw_many(rows * cols, scale);
    const bg_source source = {"w", BG_F32, x, rows, cols, false};
    for (int d = 0; d < BOTH; d++)
        OK(backends[d]->ops->weight_create(backends[d], &source, format, &w.on[d], &err));
    bg_free(x);
    return w;
}

static void weight_drop(weight w)
{
    for (int d = 0; d < BOTH; d++) backends[d]->ops->weight_free(backends[d], w.on[d]);
}

/* Not every test has one. */
typedef struct {
    bg_cache *on[BOTH];
} cache;

static inline cache cache_new(size_t layers, size_t slots, size_t length, size_t heads, size_t dim)
{
    cache c;
    for (int d = 0; d < BOTH; d++)
        OK(backends[d]->ops->cache_create(backends[d], layers, slots, length, heads, dim, &c.on[d],
                                          &err));
    return c;
}

static inline void cache_drop(cache c)
{
    for (int d = 0; d < BOTH; d++) backends[d]->ops->cache_free(backends[d], c.on[d]);
}

/* ||gpu - cpu|| / ||cpu|| over the first rows; NaN is large. */
static double difference(act a, size_t rows)
{
    const size_t n = rows * a.on[CPU]->cols;
    float *x[BOTH];
    double norm = 0, gap = 0;
    for (int d = 0; d < BOTH; d++) {
        x[d] = bg_alloc_array(n, sizeof *x[d]);
        OK(backends[d]->ops->act_read(backends[d], a.on[d], rows, x[d], &err));
    }
    for (size_t i = 0; i < n; i++) {
        double e = x[CPU][i], g = x[GPU][i];
        norm += e * e;
        gap += (g - e) * (g - e);
    }
    for (int d = 0; d < BOTH; d++) bg_free(x[d]);
    return norm > 0 ? sqrt(gap / norm) : gap > 0 ? 1 : gap == 0 ? 0 : 2;
}

/* In a 16-bit model, sums in another order may now and then round to the next number. */
static inline double tolerance(bool half)
{
    return half ? 4e-4 : 5e-6;
}

/* Programs multiply nf4's values rounded to binary16, of which none is further off than 1.8e-4 of
 * itself; so is no product further off. */
static inline double code_tolerance(bg_format_id id)
{
    return id == BG_FORMAT_NF4 || id == BG_FORMAT_NF4_DQ ? 1.8e-4 : 0;
}

/* Of a layer whose activations and 4-bit weights are rounded to 16 bits. */
static inline double rounded_tolerance(bg_format_id id)
{
    if (id == BG_FORMAT_F32 || bg_format_is_int8(id)) return 5e-6;
    return id == BG_FORMAT_BF16 ? 4e-3 : 6e-4;
}

enum { FEW_ROWS = 8 };

/* Whether activations of a layer may be rounded to 16 bits: those of more than `few_rows`, FEW_ROWS
 * or fewer, where there are many weights or many products. */
static inline bool is_rounded(size_t n_rows, size_t rows, size_t cols, size_t few_rows)
{
    return n_rows > few_rows && (rows * cols > 1 << 18 || n_rows * rows * cols >= 1 << 26);
}

/* Opens the scalar CPU kernels and the GPU that BITGAUGE_TEST_DEVICE says, or the first; without
 * one says why, and skips. */
static bool open_both(void)
{
    const char *wanted = getenv("BITGAUGE_TEST_DEVICE");
    const char *gpu = wanted && strncmp(wanted, "cuda", 4) == 0 ? wanted : "cuda";
    if (bg_backend_check(gpu, &err) != BG_OK) {
        SKIP("%s", err.message);
        return false;
    }
    setenv("BITGAUGE_ISA", "scalar", 1);
    OK(bg_backend_open("cpu", 0, &backends[CPU], &err));
    OK(bg_backend_open(gpu, 0, &backends[GPU], &err));
    return backends[CPU] && backends[GPU];
}

static void close_both(void)
{
    for (int d = 0; d < BOTH; d++) backends[d]->ops->free(backends[d]);
}

#endif

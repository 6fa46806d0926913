/* y = f(x W^T + b) + residual. For one row of x, each weight is read once and decoded in registers
 * (matrix times vector); for several, panels of W are decoded into the cache and multiplied by the
 * BLAS library. int8 has a product of its own for both. */
#include "backend/cpu/cpu.h"
#include "core/checked.h"

#include <cblas.h>
#include <string.h>

/* Rows whose outlier columns are the same. */
typedef struct {
    size_t first_row, rows;
    const int32_t *outliers; /* (n_outliers) ascending */
    size_t n_outliers;
    float *values; /* (rows, n_outliers), rounded to binary16 */
} outlier_group;

typedef struct {
    cpu_backend *cpu;
    const bg_linear *args;
    const bg_packed *w;
    const float *x; /* (n_rows, cols) */
    float *y;       /* out, at its first column; rows `stride` apart */
    size_t stride;
    bool direct;  /* blocks do not run across rows, so that the matvec kernel applies */
    size_t panel; /* rows of w in one panel */
    /* for one row: */
    bg_cpu_input input;
    /* int8: */
    int8_t *codes;         /* (n_rows, cols) */
    float *absmax;         /* (n_rows) */
    outlier_group *groups; /* (n_groups) */
    uint8_t *is_outlier;   /* (n_groups, cols) */
    size_t n_groups;
    bool has_outliers;
} linear_loop;

/* LLM.int8()'s outlier columns, in 16 bits: the weights are decoded to binary16, the products
 * summed in fp32. The codes of these rows were just read, so they are in cache. `own` has room for
 * a group's n_outliers. */
static void add_outliers(const linear_loop *a, float *product, size_t stride, size_t begin,
                         size_t end, float *own)
{
    const bg_cpu_kernels *k = a->cpu->kernels;
    const size_t cols = a->w->cols;
    const int8_t *codes = a->w->codes;
    for (size_t r = begin; r < end; r++) {
        const float scale = a->w->scales[r];
        for (const outlier_group *g = a->groups; g < a->groups + a->n_groups; g++) {
            const size_t n = g->n_outliers;
            if (n == 0) continue;
            for (size_t i = 0; i < n; i++)
                own[i] =
                    (float)codes[r * cols + (size_t)g->outliers[i]] * scale * 7.874015718698502e-3f;
            k->round_half(own, own, n);
            for (size_t m = 0; m < g->rows; m++)
                product[(g->first_row + m) * stride + r - begin] +=
                    k->dot(g->values + m * n, own, n);
        }
    }
}

/* Bias, activation, multiplier, addend and residual for rows [begin, end) of w, that is, these
 * columns of y, while they are in cache. Where the residual or multiplier is what y holds already,
 * the product lies elsewhere until it is done; else it lies in y. */
static void epilogue(const linear_loop *a, float *product, size_t stride, size_t begin, size_t end,
                     float *own)
{
    const bg_cpu_kernels *k = a->cpu->kernels;
    const float *bias = cpu_vector(a->args->bias);
    const float *residual = a->args->residual ? cpu_values(a->args->residual) : NULL;
    const float *multiplier = a->args->multiplier ? cpu_values(a->args->multiplier) : NULL;
    const float *addend = a->args->addend ? cpu_values(a->args->addend) : NULL;
    const bg_activation activation = a->args->activation;
    const bool half = a->args->out->half;
    const size_t n = end - begin;
    for (size_t m = 0; m < a->args->n_rows; m++) {
        float *p = product + m * stride;
        if (bg_format_is_int8(a->w->format))
            k->finish_int8(p, bias ? bias + begin : NULL, n);
        else if (bias)
            k->axpy(1, bias + begin, p, n);
        if (half) k->round_half(p, p, n);
    }
    if (a->has_outliers) add_outliers(a, product, stride, begin, end, own);
    for (size_t m = 0; m < a->args->n_rows; m++) {
        float *p = product + m * stride, *y = a->y + m * a->stride + begin;
        if (half && a->has_outliers) k->round_half(p, p, n);
        if (half && activation == BG_ACTIVATION_GELU_NEW)
            k->gelu_tanh_half(p, n);
        else
            k->activation[activation](p, n);
        if (half && activation != BG_ACTIVATION_NONE) k->round_half(p, p, n);
        if (multiplier) {
            const float *f = multiplier + m * a->args->multiplier->cols + begin;
            k->multiply(f, p, n);
            if (half) k->round_half(p, p, n);
        }
        if (addend) {
            k->axpy(1, addend + m * a->args->addend->cols + begin, p, n);
            if (half) k->round_half(p, p, n);
        }
        if (p != y && !residual)
            memcpy(y, p, n * sizeof *y);
        else if (p != y)
            k->axpy(1, p, y, n);
        else if (residual)
            k->axpy(1, residual + m * a->args->residual->cols + begin, y, n);
        if (half && residual) k->round_half(y, y, n);
    }
}

static bool in_place(const linear_loop *a)
{
    const bg_act *out = a->args->out;
    return a->args->residual == out || a->args->multiplier == out;
}

static void matvec_rows(void *context, size_t begin, size_t end, int thread)
{
    const linear_loop *a = context;
    const bg_cpu_kernels *k = a->cpu->kernels;
    const size_t cols = a->w->cols;
    float *own = a->cpu->own[thread].data;
    float *y = in_place(a) ? own : a->y + begin;
    if (a->direct) {
        k->format[a->w->format].matvec(a->w, &a->input, y, begin, end);
    } else {
        float *row = own + a->panel;
        for (size_t r = begin; r < end; r++) {
            k->format[a->w->format].decode(a->w, row, r, r + 1);
            y[r - begin] = k->dot(row, a->x, cols);
        }
    }
    epilogue(a, y, 0, begin, end, own + a->panel);
}

static void matmul_rows(void *context, size_t begin, size_t end, int thread)
{
    const linear_loop *a = context;
    const bg_packed *w = a->w;
    const size_t cols = w->cols, n_rows = a->args->n_rows;
    const bool apart = in_place(a);
    float *own = a->cpu->own[thread].data;
    float *product = apart ? own : a->y + begin;
    size_t stride = apart ? end - begin : a->stride;
    if (apart) own += n_rows * a->panel;

    if (bg_format_is_int8(w->format)) {
        a->cpu->kernels->matmul_int8(w, a->codes, a->absmax, n_rows, product, stride, begin, end);
    } else {
        const float *panel = (const float *)w->codes + begin * cols;
        if (w->format != BG_FORMAT_F32) {
            a->cpu->kernels->format[w->format].decode(w, own, begin, end);
            panel = own;
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n_rows,
                    (blasint)(end - begin), (blasint)cols, 1, a->x, (blasint)cols, panel,
                    (blasint)cols, 0, product, (blasint)stride);
    }
    epilogue(a, product, stride, begin, end, own);
}

/* Rows [first, first + rows) of the input as a group, whose marks and columns have room here. */
static outlier_group find_outliers(const linear_loop *a, size_t first, size_t rows,
                                   uint8_t *is_outlier, int32_t *outliers)
{
    const size_t cols = a->w->cols;
    const float threshold = bg_formats[a->w->format].outlier_threshold;
    outlier_group g = {.first_row = first, .rows = rows, .outliers = outliers};
    memset(is_outlier, 0, cols);
    for (size_t m = first; m < first + rows; m++)
        a->cpu->kernels->mark_outliers(a->x + m * cols, cols, threshold, is_outlier);
    for (size_t c = 0; c < cols; c++)
        if (is_outlier[c]) outliers[g.n_outliers++] = (int32_t)c;
    return g;
}

/* LLM.int8(): an activation column with an entry of the threshold's magnitude or more anywhere in
 * a sequence (or, if there are none, the batch) is an outlier for all of its rows. Without a
 * threshold only an infinite entry is one, which has no code. */
static bg_status quantize_input(linear_loop *a, bg_error *err)
{
    const bg_linear *l = a->args;
    const size_t cols = a->w->cols, n_rows = l->n_rows;
    const size_t n = bg_max_size(l->n_sequences, 1), total = n * cols;
    const size_t bytes = n * sizeof *a->groups + total + n_rows * cols + 64;
    const size_t floats = n_rows + total + (bytes + 3) / 4;
    BG_TRY(cpu_reserve(a->cpu, &a->cpu->int8, floats, err));
    a->groups = (outlier_group *)(void *)a->cpu->int8.data;
    a->absmax = (float *)(void *)(a->groups + n);
    int32_t *outliers = (int32_t *)(void *)(a->absmax + n_rows);
    a->is_outlier = (uint8_t *)(outliers + total);
    a->codes = (int8_t *)(a->is_outlier + total);
    a->n_groups = n;
    size_t values = 0;
    for (size_t i = 0; i < n; i++) {
        const bg_sequence *s = l->n_sequences ? &l->sequences[i] : NULL;
        a->groups[i] = find_outliers(a, s ? s->first_row : 0, s ? s->rows : n_rows,
                                     a->is_outlier + i * cols, outliers + i * cols);
        values += a->groups[i].rows * a->groups[i].n_outliers;
    }
    a->has_outliers = values > 0;
    BG_TRY(cpu_reserve(a->cpu, &a->cpu->shared, values, err));
    float *row = a->cpu->shared.data;
    for (outlier_group *g = a->groups; g < a->groups + n; g++) {
        g->values = row;
        for (size_t m = g->first_row; m < g->first_row + g->rows; m++, row += g->n_outliers) {
            for (size_t i = 0; i < g->n_outliers; i++)
                row[i] = a->x[m * cols + (size_t)g->outliers[i]];
            a->cpu->kernels->round_half(row, row, g->n_outliers);
        }
    }
    return BG_OK;
}

static void quantize_rows(void *context, size_t begin, size_t end, int thread)
{
    (void)thread;
    const linear_loop *a = context;
    const size_t cols = a->w->cols;
    size_t group = 0;
    for (size_t m = begin; m < end; m++) {
        while (m >= a->groups[group].first_row + a->groups[group].rows) group++;
        a->cpu->kernels->quantize_row(
            a->x + m * cols, cols, bg_formats[a->w->format].outlier_threshold,
            a->is_outlier + group * cols, a->codes + m * cols, a->absmax + m);
    }
}

/* Even places, then odd ones, in groups of two registers (bg_cpu_input.paired). */
static void pair(const float *x, size_t n, size_t lanes, float *out)
{
    for (size_t i = 0; i < n; i += 2 * lanes)
        for (size_t k = 0; k < lanes; k++) {
            out[i + k] = x[i + 2 * k];
            out[i + lanes + k] = x[i + 2 * k + 1];
        }
}

/* Enough work in a range that handing it out costs little; enough ranges that no thread waits long
 * for the last one. */
static size_t matvec_grain(const bg_packed *w, int threads)
{
    size_t row_bytes = w->cols * (size_t)bg_formats[w->format].bits / 8 + 1;
    size_t grain = bg_max_size(16, 32768 / row_bytes), most = w->rows / ((size_t)threads * 4);
    grain = bg_min_size(bg_max_size(grain, most), bg_max_size(16, 524288 / row_bytes));
    return (grain + 3) / 4 * 4;
}

/* A decoded panel that fits into half of a small second-level cache, but not so thin that the
 * library's product loses its stride; and as many panels as give every thread the same. */
static size_t matmul_panel(const bg_packed *w, size_t threads)
{
    size_t most = bg_min_size(bg_max_size(131072 / w->cols, 64), 256);
    size_t panels = (w->rows + most - 1) / most;
    panels = (panels + threads - 1) / threads * threads;
    return ((w->rows + panels - 1) / panels + 15) / 16 * 16;
}

bg_status cpu_linear(bg_backend *backend, const bg_linear *args, bg_error *err)
{
    cpu_backend *cpu = (cpu_backend *)backend;
    const bg_packed *w = cpu_packed(args->weight);
    linear_loop a = {.cpu = cpu,
                     .args = args,
                     .w = w,
                     .x = cpu_values(args->in),
                     .y = cpu_values(args->out) + args->out_col,
                     .stride = args->out->cols};
    const bool blockwise = bg_formats[w->format].blockwise;
    a.direct = !blockwise || w->cols % BG_BLOCK == 0;
    if (bg_format_is_int8(w->format)) {
        BG_TRY(quantize_input(&a, err));
        bg_parallel_for(cpu->threads, args->n_rows, 4, quantize_rows, &a);
    }
    if (args->n_rows == 1) {
        a.panel = matvec_grain(w, bg_threads_count(cpu->threads));
        BG_TRY(cpu_reserve_own(cpu, a.panel + w->cols, err));
        a.input.values = a.x;
        if (blockwise && a.direct) {
            BG_TRY(cpu_reserve(cpu, &cpu->shared, w->cols, err));
            pair(a.x, w->cols, cpu->kernels->pair_lanes, cpu->shared.data);
            a.input.paired = cpu->shared.data;
        }
        if (bg_format_is_int8(w->format)) {
            a.input.codes = a.codes;
            a.input.absmax = a.absmax[0];
        }
        bg_parallel_for(cpu->threads, w->rows, a.panel, matvec_rows, &a);
        return BG_OK;
    }
    a.panel = matmul_panel(w, (size_t)bg_threads_count(cpu->threads));
    BG_TRY(cpu_reserve_own(cpu, a.panel * (w->cols + args->n_rows), err));
    bg_parallel_for(cpu->threads, w->rows, a.panel, matmul_rows, &a);
    return BG_OK;
}

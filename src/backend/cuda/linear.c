/* Linear layers to nodes. Few rows run on kernels of our own, which read the packed weights once,
 * and merge with what stands before them in the queue:
 *   - layers of the same input (query, key and value) are one kernel;
 *   - so are a gate and what it multiplies, whose product alone is then written;
 *   - a norm of one row is computed by the layers behind it (and still written, for others).
 * Many rows are a product of the library between a conversion of its operands and an epilogue. */
#include "backend/cuda/cuda.h"

#include "core/checked.h"

#include <string.h>

enum {
    FEW_ROWS = 64,
    PANEL_BYTES = 64 << 20, /* of decoded weights, and of a product before its epilogue */
    PANEL_ROWS = 64,
    LOOK_BACK = 16, /* nodes among which an operand may be found again */
};

/* Up to so many products and sums, activations are not rounded to 16 bits for the sake of tensor
 * cores: the exact product takes microseconds. */
#define EXACT_OPERATIONS 0x1p26

static void fill_epilogue(const bg_linear *l, cuda_epilogue *e)
{
    e->bias = cuda_vector(l->bias);
    e->activation = l->activation;
    e->half = l->out->half;
    e->out = cuda_values(l->out) + l->out_col;
    e->out_stride = l->out->cols;
    if (l->multiplier) {
        e->multiplier = cuda_values(l->multiplier);
        e->multiplier_stride = l->multiplier->cols;
    }
    if (l->addend) {
        e->addend = cuda_values(l->addend);
        e->addend_stride = l->addend->cols;
    }
    if (l->residual) {
        e->residual = cuda_values(l->residual);
        e->residual_stride = l->residual->cols;
    }
}

static bool plain(const cuda_epilogue *e)
{
    return !e->multiplier && !e->addend && !e->residual;
}

/* ---- few rows: merging ----------------------------------------------------------------------- */

/* What the layer reads as its input is what the last kernel reads, or wrote as its norm. */
static bool same_input(const cuda_linear_args *last, const bg_linear *l)
{
    const float *in = cuda_values(l->in);
    return (last->norm.weight ? last->normed == in : last->in == in) && last->n_rows == l->n_rows &&
           last->cols == l->in->cols && last->w[0].format == l->weight->format;
}

/* Whether the layer writes what the kernel it would be part of reads in other blocks. */
static bool overwrites_input(const cuda_linear_args *last, const bg_linear *l)
{
    const float *out = cuda_values(l->out);
    return out == last->in || out == last->normed;
}

static bool merge_part(cuda_linear_args *last, const bg_linear *l, const cuda_epilogue *e)
{
    if (last->gated || last->n_parts == CUDA_MAX_PARTS || !plain(e)) return false;
    for (int i = 0; i < last->n_parts; i++)
        if (!plain(&last->epilogue[i])) return false;
    last->w[last->n_parts] = *cuda_matrix_of(l->weight);
    last->epilogue[last->n_parts++] = *e;
    return true;
}

static bool merge_gate(cuda_linear_args *last, const bg_linear *l, const cuda_epilogue *e)
{
    const cuda_epilogue *up = &last->epilogue[0];
    if (last->gated || last->n_parts != 1 || !plain(up) || up->activation != BG_ACTIVATION_NONE)
        return false;
    if (e->multiplier != up->out || e->out != up->out || e->addend || e->residual) return false;
    if (e->multiplier_stride != up->out_stride || last->w[0].rows != l->weight->rows) return false;
    last->w[1] = *cuda_matrix_of(l->weight);
    last->epilogue[1] = *e;
    last->n_parts = 2;
    last->gated = true;
    return true;
}

/* Makes the layer part of the last node; false where it cannot be. */
static bool merge(cuda_backend *cuda, const bg_linear *l, const cuda_epilogue *e)
{
    if (cuda->n_nodes == 0) return false;
    cuda_node *node = &cuda->nodes[cuda->n_nodes - 1];
    if (node->kind == NODE_LINEAR) {
        cuda_linear_args *last = &node->args.linear;
        if (!same_input(last, l) || overwrites_input(last, l)) return false;
        return merge_part(last, l, e) || merge_gate(last, l, e);
    }
    if (node->kind != NODE_NORM || l->n_rows != 1) return false;
    const cuda_norm_args norm = node->args.norm;
    const float *out = cuda_values(l->out);
    if (norm.out != cuda_values(l->in) || norm.out == norm.in || norm.n_rows != 1) return false;
    if (out == norm.in || out == norm.out || !plain(e)) return false;
    memset(node, 0, sizeof *node);
    node->kind = NODE_LINEAR;
    cuda_linear_args *a = &node->args.linear;
    a->norm = norm.norm;
    a->norm_half = norm.half;
    a->normed = norm.out;
    a->in = norm.in;
    a->n_rows = 1;
    a->cols = norm.cols;
    a->w[0] = *cuda_matrix_of(l->weight);
    a->epilogue[0] = *e;
    a->n_parts = 1;
    a->reciprocals = cuda_reciprocals(cuda);
    return true;
}

/* ---- operands -------------------------------------------------------------------------------- */

/* The input's codes lie in one piece: codes, absmax, outliers, their number, marks. */
static bg_status quantized_room(cuda_backend *cuda, size_t n_rows, size_t cols, cuda_quantized *q,
                                bg_error *err)
{
    const size_t codes = (n_rows * cols + 255) / 256 * 256;
    const size_t bytes = codes + (n_rows + cols + 1) * 4 + cols;
    BG_TRY(cuda_reserve(cuda, &cuda->quantized, bytes, err));
    char *p = cuda->quantized.data;
    q->codes = (int8_t *)p;
    q->absmax = (float *)(void *)(p + codes);
    q->outliers = (int32_t *)(void *)(q->absmax + n_rows);
    q->n_outliers = q->outliers + cols;
    q->is_outlier = (uint8_t *)(q->n_outliers + 1);
    return BG_OK;
}

/* Whether a node that reads `in` as an operand, `kind` and all, stands among the last ones, with
 * nothing behind it that writes there or uses the operand's room. */
static const cuda_node *find_operand(const cuda_backend *cuda, node_kind kind, const float *in,
                                     size_t count)
{
    for (size_t i = cuda->n_nodes; i > 0 && cuda->n_nodes - i < LOOK_BACK; i--) {
        const cuda_node *n = &cuda->nodes[i - 1];
        const float *out = NULL;
        if (n->kind == kind) return n;
        if (n->kind == NODE_FINISH)
            out = n->args.finish.epilogue.out;
        else if (n->kind == NODE_LINEAR)
            out = n->args.linear.epilogue[0].out;
        else if (n->kind != NODE_GEMM && n->kind != NODE_DECODE)
            return NULL;
        if (out && out >= in && out < in + count) return NULL;
        if (n->kind == NODE_LINEAR && n->args.linear.n_parts > 1) return NULL;
    }
    return NULL;
}

static void quantize_input(cuda_backend *cuda, const bg_linear *l, const cuda_quantized *q)
{
    const float *in = cuda_values(l->in), threshold = cuda_matrix_of(l->weight)->threshold;
    const cuda_node *n = find_operand(cuda, NODE_QUANTIZE, in, l->n_rows * l->in->cols);
    if (n && n->args.quantize.in == in && n->args.quantize.n_rows == l->n_rows &&
        n->args.quantize.cols == l->in->cols && n->args.quantize.threshold == threshold &&
        n->args.quantize.out.codes == q->codes)
        return;
    cuda_quantize_args *a = &cuda_push(cuda, NODE_QUANTIZE)->args.quantize;
    a->in = in;
    a->n_rows = l->n_rows;
    a->cols = l->in->cols;
    a->threshold = threshold;
    a->reciprocals = cuda_reciprocals(cuda);
    a->out = *q;
}

static void convert_input(cuda_backend *cuda, const bg_linear *l, cuda_type type)
{
    const float *in = cuda_values(l->in);
    const size_t count = l->n_rows * l->in->cols;
    const cuda_node *n = find_operand(cuda, NODE_CONVERT, in, count);
    if (n && n->args.convert.in == in && n->args.convert.count == count &&
        n->args.convert.type == type && n->args.convert.out == cuda->operand.data)
        return;
    cuda_convert_args *a = &cuda_push(cuda, NODE_CONVERT)->args.convert;
    a->in = in;
    a->out = cuda->operand.data;
    a->count = count;
    a->type = type;
}

/* ---- few rows -------------------------------------------------------------------------------- */

static bg_status few_rows(cuda_backend *cuda, const bg_linear *l, bg_error *err)
{
    const bool merges = bg_cuda_linear_merges(l->weight->format, l->in->cols, &cuda->launch);
    cuda_epilogue e;
    memset(&e, 0, sizeof e);
    fill_epilogue(l, &e);
    if (merges && merge(cuda, l, &e)) return BG_OK;
    cuda_quantized q = {0};
    const bool int8 = bg_format_is_int8(l->weight->format) && (l->n_rows > 1 || !merges);
    if (int8) BG_TRY(quantized_room(cuda, l->n_rows, l->in->cols, &q, err));
    BG_TRY(cuda_begin(cuda, 0, 2, err));
    if (int8) quantize_input(cuda, l, &q);
    cuda_linear_args *a = &cuda_push(cuda, NODE_LINEAR)->args.linear;
    a->w[0] = *cuda_matrix_of(l->weight);
    a->epilogue[0] = e;
    a->n_parts = 1;
    a->in = cuda_values(l->in);
    a->n_rows = l->n_rows;
    a->cols = l->in->cols;
    a->quantized = q;
    a->reciprocals = cuda_reciprocals(cuda);
    return BG_OK;
}

/* ---- many rows ------------------------------------------------------------------------------- */

static size_t type_size(cuda_type type)
{
    return type == CUDA_F32 ? 4 : type == CUDA_I8 ? 1 : 2;
}

/* What to multiply. Activations that are binary16 already lose nothing as fp16. */
static cuda_type choose_type(const bg_linear *l)
{
    const bg_format_id format = l->weight->format;
    const double operations = (double)l->n_rows * (double)l->weight->rows * (double)l->weight->cols;
    if (bg_format_is_int8(format)) return CUDA_I8;
    if (format == BG_FORMAT_F32) return CUDA_F32;
    if (format == BG_FORMAT_F16 && l->in->half) return CUDA_F16;
    if (operations < EXACT_OPERATIONS) return CUDA_F32;
    return format == BG_FORMAT_BF16 ? CUDA_BF16 : CUDA_F16;
}

/* Whether the matrix is an operand as it lies in memory. */
static bool lies_ready(bg_format_id format, cuda_type type)
{
    return bg_format_is_int8(format) || (format == BG_FORMAT_F32 && type == CUDA_F32) ||
           (format == BG_FORMAT_F16 && type == CUDA_F16) ||
           (format == BG_FORMAT_BF16 && type == CUDA_BF16);
}

typedef struct {
    cuda_type type;
    bool ready;   /* weights need no decoding */
    size_t panel; /* rows of weights at a time */
    const void *x;
    cuda_quantized quantized;
} product;

static bg_status prepare(cuda_backend *cuda, const bg_linear *l, product *p, bg_error *err)
{
    const size_t k = l->in->cols, m = l->n_rows, n = l->weight->rows;
    const size_t weight_bytes = k * type_size(p->type);
    size_t rows = PANEL_BYTES / (m * 4);
    if (!p->ready) rows = bg_min_size(rows, PANEL_BYTES / weight_bytes);
    rows = bg_max_size(rows / PANEL_ROWS * PANEL_ROWS, PANEL_ROWS);
    p->panel = bg_min_size(rows, n);
    if (!p->ready) BG_TRY(cuda_reserve(cuda, &cuda->panel, p->panel * weight_bytes, err));
    BG_TRY(cuda_reserve(cuda, &cuda->product, m * p->panel * 4, err));
    p->x = cuda_values(l->in);
    if (p->type == CUDA_I8) {
        BG_TRY(quantized_room(cuda, m, k, &p->quantized, err));
        p->x = p->quantized.codes;
    } else if (p->type != CUDA_F32) {
        BG_TRY(cuda_reserve(cuda, &cuda->operand, m * k * type_size(p->type), err));
        p->x = cuda->operand.data;
    }
    return cuda_begin(cuda, 0, 1 + 3 * ((n + p->panel - 1) / p->panel), err);
}

static void multiply_panel(cuda_backend *cuda, const bg_linear *l, const product *p,
                           const cuda_epilogue *e, size_t first, size_t n)
{
    const cuda_matrix *w = cuda_matrix_of(l->weight);
    const void *panel = (const char *)w->codes + first * w->cols * type_size(p->type);
    const bool whole = plain(e) && !e->bias && !e->half && e->activation == BG_ACTIVATION_NONE &&
                       e->out_stride == n && first == 0 && p->type != CUDA_I8;
    if (!p->ready) {
        cuda_decode_args *d = &cuda_push(cuda, NODE_DECODE)->args.decode;
        d->w = *w;
        d->out = cuda->panel.data;
        d->first = first;
        d->n_rows = n;
        d->type = p->type;
        panel = cuda->panel.data;
    }
    cuda_gemm_args *g = &cuda_push(cuda, NODE_GEMM)->args.gemm;
    g->x = p->x;
    g->w = panel;
    g->out = whole ? (void *)e->out : cuda->product.data;
    g->m = l->n_rows;
    g->n = n;
    g->k = w->cols;
    g->type = p->type;
    if (whole) return;
    cuda_finish_args *f = &cuda_push(cuda, NODE_FINISH)->args.finish;
    f->product = cuda->product.data;
    f->w = *w;
    f->epilogue = *e;
    f->in = cuda_values(l->in);
    f->in_stride = l->in->cols;
    f->n_rows = l->n_rows;
    f->first = first;
    f->n = n;
    f->quantized = p->quantized;
}

static bg_status many_rows(cuda_backend *cuda, const bg_linear *l, bg_error *err)
{
    cuda_epilogue e;
    memset(&e, 0, sizeof e);
    fill_epilogue(l, &e);
    product p = {.type = choose_type(l)};
    p.ready = lies_ready(l->weight->format, p.type);
    BG_TRY(prepare(cuda, l, &p, err));
    if (p.type == CUDA_I8)
        quantize_input(cuda, l, &p.quantized);
    else if (p.type != CUDA_F32)
        convert_input(cuda, l, p.type);
    for (size_t first = 0; first < l->weight->rows; first += p.panel)
        multiply_panel(cuda, l, &p, &e, first, bg_min_size(p.panel, l->weight->rows - first));
    return BG_OK;
}

bg_status cuda_linear(bg_backend *backend, const bg_linear *args, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    const cuda_gemm_args shape = {.m = args->n_rows,
                                  .n = args->weight->rows,
                                  .k = args->weight->cols,
                                  .type = choose_type(args)};
    if (args->n_rows == 0) return BG_OK;
    if (args->n_rows <= FEW_ROWS || !cuda_matmul_fits(&shape) || !cuda_matmul_get(cuda))
        return few_rows(cuda, args, err);
    return many_rows(cuda, args, err);
}

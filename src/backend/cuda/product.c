/* Linear layers of many rows to nodes: a product of cuBLASLt between a conversion of its operands
 * and an epilogue. The operands, too, of the kernels for few rows. */
#include "backend/cuda/cuda.h"

#include "core/checked.h"

#include <string.h>

enum {
    PANEL_BYTES = 64 << 20, /* of decoded weights, and of a product before its epilogue */
    PANEL_ROWS = 64,
    LOOK_BACK = 16, /* nodes among which an operand may be found again */
};

/* Up to so many products and sums, activations are not rounded to 16 bits for the sake of tensor
 * cores: the exact product takes microseconds. */
#define EXACT_OPERATIONS 0x1p26

void cuda_fill_epilogue(const bg_linear *l, cuda_epilogue *e)
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

/* ---- operands -------------------------------------------------------------------------------- */

/* They lie in one piece: codes, absmax, outliers, their number, marks. */
bg_status cuda_quantized_room(cuda_backend *cuda, size_t n_rows, size_t cols, cuda_quantized *q,
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

void cuda_quantize_input(cuda_backend *cuda, const bg_linear *l, const cuda_quantized *q)
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
        BG_TRY(cuda_quantized_room(cuda, m, k, &p->quantized, err));
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

bg_status cuda_product(cuda_backend *cuda, const bg_linear *l, bg_error *err)
{
    cuda_epilogue e;
    memset(&e, 0, sizeof e);
    cuda_fill_epilogue(l, &e);
    product p = {.type = choose_type(l)};
    p.ready = lies_ready(l->weight->format, p.type);
    BG_TRY(prepare(cuda, l, &p, err));
    if (p.type == CUDA_I8)
        cuda_quantize_input(cuda, l, &p.quantized);
    else if (p.type != CUDA_F32)
        convert_input(cuda, l, p.type);
    for (size_t first = 0; first < l->weight->rows; first += p.panel)
        multiply_panel(cuda, l, &p, &e, first, bg_min_size(p.panel, l->weight->rows - first));
    return BG_OK;
}

bool cuda_product_fits(cuda_backend *cuda, const bg_linear *l)
{
    const cuda_gemm_args shape = {
        .m = l->n_rows, .n = l->weight->rows, .k = l->weight->cols, .type = choose_type(l)};
    return cuda_matmul_fits(&shape) && cuda_matmul_get(cuda);
}

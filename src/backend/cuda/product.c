/* Linear layers of many rows to nodes. Where they are not that many, one kernel of our own does it
 * all, product_tile.cu for int8 and product_mma.cuh for 16 and 4 bits. Of many rows, on a Hopper
 * GPU, int8's layers and binary16's gates are kernels by warpgroups, product_wgmma_int8.cu and
 * product_wgmma.cu; else it is a product of cuBLASLt. Biases and residuals of numbers that are not
 * rounded it adds itself; anything else is done to the product in memory, in panels where it is
 * large. */
#include "backend/cuda/cuda.h"

#include "core/checked.h"

#include <string.h>

enum {
    WEIGHT_BYTES = 64 << 20,   /* of a panel of decoded weights */
    PRODUCT_BYTES = 128 << 20, /* of products before their epilogue */
    PANEL_ROWS = 64,
    WIDE_PANEL_ROWS = 128, /* of bg_cuda_wide's gates */
    ALIGNMENT = 16,        /* of what the library writes, adds and reads */
};

/* Up to so many weights, and products and sums, activations are not rounded to 16 bits for the sake
 * of tensor cores: the exact product takes microseconds. */
#define EXACT_WEIGHTS    0x1p18
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

static size_t type_size(cuda_type type)
{
    return type == CUDA_F32 ? 4 : type == CUDA_I8 ? 1 : 2;
}

/* Whether it has so few, with the layers whose results lie beside its own: queries, keys and values
 * are multiplied alike, since together they are one product. And no product of 16 bits has rows
 * that are no multiples of four. */
static bool is_exact(const bg_linear *l)
{
    if (l->weight->cols % 4 != 0) return true;
    const size_t results = l->out ? l->out->cols : l->weight->rows;
    const double cols = (double)l->weight->cols;
    const double operations = (double)l->n_rows * (double)l->weight->rows * cols;
    return (double)results * cols <= EXACT_WEIGHTS && operations < EXACT_OPERATIONS;
}

/* What to multiply. Activations that are binary16 already lose nothing as fp16. */
cuda_type cuda_product_type(const bg_linear *l)
{
    const bg_format_id format = l->weight->format;
    if (bg_format_is_int8(format)) return CUDA_I8;
    if (format == BG_FORMAT_F32) return CUDA_F32;
    if (format == BG_FORMAT_F16 && l->in->half) return CUDA_F16;
    if (is_exact(l)) return CUDA_F32;
    return format == BG_FORMAT_BF16 ? CUDA_BF16 : CUDA_F16;
}

/* Whether the matrix is an operand as it lies in memory. */
static bool lies_ready(bg_format_id format, cuda_type type)
{
    return bg_format_is_int8(format) || (format == BG_FORMAT_F32 && type == CUDA_F32) ||
           (format == BG_FORMAT_F16 && type == CUDA_F16) ||
           (format == BG_FORMAT_BF16 && type == CUDA_BF16);
}

static bool aligned(const float *p, size_t stride)
{
    return (uintptr_t)p % ALIGNMENT == 0 && stride * sizeof *p % ALIGNMENT == 0;
}

static bool is_direct(const cuda_epilogue *e, cuda_type type)
{
    return type != CUDA_I8 && !e->half && e->activation == BG_ACTIVATION_NONE && !e->multiplier &&
           !e->addend && aligned(e->out, e->out_stride) && aligned(e->bias, 0) &&
           aligned(e->residual, e->residual_stride);
}

/* Whether a gate and what it multiplies, without a bias, may be one product, of which what becomes
 * of both is left. */
static bool may_be_wide(const cuda_backend *cuda, const cuda_product_layer *p)
{
    const cuda_epilogue *e = &p->epilogue;
    return e->multiplier && p->type == CUDA_F16 && e->activation == BG_ACTIVATION_SILU &&
           !e->bias && !e->addend && !e->residual &&
           bg_cuda_wide_fits(p->n_rows, p->w.rows, p->w.cols, true, &cuda->launch);
}

/* Bytes of the weights of the last node, if it can become the product of this layer, too: of rows
 * of the same length, with results beside its own, and with weights before this one's, where they
 * lie or where they are decoded, as long as those of all are no more than a panel. So do queries,
 * keys and values. 0: it cannot. */
static size_t extended_bytes(const cuda_backend *cuda, const cuda_product_layer *p)
{
    const cuda_epilogue *e = &p->epilogue;
    const cuda_node *last = cuda->n_nodes > 0 ? &cuda->nodes[cuda->n_nodes - 1] : NULL;
    if (!last || last->kind != NODE_GEMM || !p->direct || e->bias || e->residual) return 0;
    const cuda_gemm_args *g = &last->args.gemm;
    const size_t bytes = g->n * g->k * type_size(g->type);
    if (!p->ready && bytes + p->w.rows * p->w.cols * type_size(p->type) > WEIGHT_BYTES) return 0;
    const bool follows =
        p->ready ? (const char *)g->w + bytes == p->w.codes : g->w == cuda->panel.data;
    const bool beside =
        (const float *)g->out + g->n == e->out && g->out_stride == e->out_stride && !g->halves;
    return follows && beside && g->type == p->type && g->m == p->n_rows && g->k == p->w.cols &&
                   !g->bias && !g->residual
               ? bytes
               : 0;
}

/* Room for the layer's parts, and how much of it is a panel. */
static bg_status prepare(cuda_backend *cuda, const bg_linear *l, cuda_product_layer *p,
                         bg_error *err)
{
    const size_t k = p->w.cols, m = p->n_rows, n = p->w.rows, weight_bytes = k * type_size(p->type);
    /* With room for the product that a gate of int8 multiplies, and for the decoded weights of both
     * that are one product; of whole tiles where products are by warpgroups. */
    const bool wide = may_be_wide(cuda, p);
    const size_t step = p->type == CUDA_I8 ? CUDA_WIDE_COLS : wide ? WIDE_PANEL_ROWS : PANEL_ROWS;
    const size_t weights = wide ? 2 : 1;
    const size_t products = p->type == CUDA_I8 && p->epilogue.multiplier ? 2 : 1;
    size_t rows = n;
    if (!p->direct) rows = bg_min_size(rows, PRODUCT_BYTES / (products * m * 4));
    if (!p->ready) rows = bg_min_size(rows, WEIGHT_BYTES / (weights * weight_bytes));
    if (rows < n) rows = bg_max_size(rows / step * step, step);
    p->panel = rows;
    const size_t decoded = weights * rows * weight_bytes + extended_bytes(cuda, p);
    if (!p->ready) BG_TRY(cuda_reserve(cuda, &cuda->panel, decoded, err));
    if (!p->direct) BG_TRY(cuda_reserve(cuda, &cuda->product, products * m * rows * 4, err));
    if (p->type == CUDA_I8) {
        BG_TRY(cuda_sequences_room(cuda, l, &p->quantized, err));
        BG_TRY(cuda_outliers_room(cuda, l, &p->quantized, err));
    } else if (p->type != CUDA_F32)
        BG_TRY(cuda_operand_rooms(cuda, m * k, p->type, err));
    const size_t step_bytes = p->type == CUDA_I8 ? cuda_quantized_bytes(l) : 0;
    return cuda_begin(cuda, step_bytes, 4 + 5 * ((n + rows - 1) / rows), err);
}

/* Rows [first, first + n) of the weights, which lie at `panel`, to `out` without a gap. */
static cuda_gemm_args *push_gemm(cuda_backend *cuda, const cuda_product_layer *p, const void *panel,
                                 size_t n, void *out)
{
    cuda_gemm_args *g = &cuda_push(cuda, NODE_GEMM)->args.gemm;
    g->x = p->x;
    g->w = panel;
    g->m = p->n_rows;
    g->n = n;
    g->k = p->w.cols;
    g->type = p->type;
    g->out = out;
    g->out_stride = n;
    return g;
}

/* Weights from a row on, where they need no decoding. */
static const void *rows_from(const cuda_product_layer *p, size_t first)
{
    return (const char *)p->w.codes + first * p->w.cols * type_size(p->type);
}

/* The end of rows [first, first + n) of the weights, and of those of the layer `up` that it
 * multiplies, if there is one; without their products. */
static cuda_finish_args *push_finish(cuda_backend *cuda, const cuda_product_layer *p,
                                     const cuda_product_layer *up, size_t first, size_t n)
{
    cuda_finish_args *f = &cuda_push(cuda, NODE_FINISH)->args.finish;
    f->w = p->w;
    f->epilogue = p->epilogue;
    f->in = p->in;
    f->in_stride = p->w.cols;
    f->n_rows = p->n_rows;
    f->first = first;
    f->n = n;
    f->quantized = p->quantized;
    if (!up) return f;
    f->other.w = up->w;
    f->other.bias = up->epilogue.bias;
    f->other.outlier_weights = up->quantized.outlier_weights;
    return f;
}

static void fill_decode(cuda_decode_args *d, const cuda_product_layer *p, void *out, size_t first,
                        size_t n)
{
    d->w = p->w;
    d->out = out;
    d->first = first;
    d->n_rows = n;
    d->type = p->type;
}

/* Rows [first, first + n) of the weights, decoded if need be: to the room's first or second half.
 */
static const void *panel_of(cuda_backend *cuda, const cuda_product_layer *p, size_t first, size_t n,
                            int half)
{
    if (p->ready) return rows_from(p, first);
    void *out = (char *)cuda->panel.data + half * (n * p->w.cols * type_size(p->type));
    fill_decode(&cuda_push(cuda, NODE_DECODE)->args.decode, p, out, first, n);
    return out;
}

/* Product and end of an int8 layer, and of the layer `up` that it multiplies, if there is one, as
 * one node. False, and nothing queued, where they are none for that. */
static bool push_wide_int8(cuda_backend *cuda, const cuda_product_layer *p,
                           const cuda_product_layer *up, size_t first, size_t n)
{
    if (p->type != CUDA_I8 || !p->on_tiles || !p->epilogue.multiplier != !up) return false;
    const cuda_finish_args *f = push_finish(cuda, p, up, first, n);
    if (bg_cuda_wide_int8_fits(f, &cuda->launch)) return true;
    cuda->n_nodes--;
    return false;
}

static void multiply_panel(cuda_backend *cuda, const cuda_product_layer *p, size_t first, size_t n)
{
    if (push_wide_int8(cuda, p, NULL, first, n)) return;
    const cuda_epilogue *e = &p->epilogue;
    const void *panel = panel_of(cuda, p, first, n, 0);
    cuda_gemm_args *g = push_gemm(cuda, p, panel, n, cuda->product.data);
    if (p->direct) {
        g->bias = e->bias ? e->bias + first : NULL;
        g->residual = e->residual ? e->residual + first : NULL;
        g->residual_stride = e->residual_stride;
        g->out = e->out + first;
        g->out_stride = e->out_stride;
        return;
    }
    push_finish(cuda, p, NULL, first, n)->product = cuda->product.data;
}

/* Whether two products of binary16 can be its end's. */
static bool takes_halves(const cuda_epilogue *e, size_t n)
{
    return !e->half && n % PANEL_ROWS == 0 && aligned(e->out, e->out_stride) &&
           aligned(e->bias, 0) && aligned(e->addend, e->addend_stride) &&
           aligned(e->residual, e->residual_stride);
}

/* Whether `p` is the gate of the layer that was queued last, and whose result it multiplies: where
 * one end does for both, the other's results need not be written. At 16 bits two products are
 * rounded to binary16, 2^-12 of each (the root of its mean square), where they are not one. Their
 * factors were rounded so, too, and what becomes of them is, before it is multiplied. */
static bool gates_last(const cuda_backend *cuda, const cuda_product_layer *p)
{
    const cuda_product_layer *up = &cuda->last_product;
    const cuda_epilogue *e = &up->epilogue;
    const bool halves =
        p->type == CUDA_F16 && takes_halves(&p->epilogue, p->w.rows) && aligned(e->bias, 0);
    return up->end > 0 && cuda->n_nodes == up->end && p->epilogue.multiplier == e->out &&
           p->epilogue.out == e->out && !e->multiplier && !e->addend && !e->residual &&
           e->activation == BG_ACTIVATION_NONE && (p->type == CUDA_I8 || halves) &&
           up->type == p->type && up->ready == p->ready && up->x == p->x &&
           up->n_rows == p->n_rows && up->w.rows == p->w.rows && up->w.cols == p->w.cols &&
           up->w.threshold == p->w.threshold;
}

static void push_wide(cuda_backend *cuda, const cuda_product_layer *p, const void *gate,
                      const void *up, size_t first, size_t n)
{
    cuda_wide_args *a = &cuda_push(cuda, NODE_WIDE)->args.wide;
    a->x = p->x;
    a->w[0] = gate;
    a->w[1] = up;
    a->n_rows = p->n_rows;
    a->rows = n;
    a->cols = p->w.cols;
    a->out = p->epilogue.out;
    a->out_stride = p->epilogue.out_stride;
    a->first = first;
}

static void multiply_gated(cuda_backend *cuda, const bg_linear *l, cuda_product_layer *p)
{
    const cuda_product_layer up = cuda->last_product;
    const size_t rows = p->w.rows, panel = p->panel;
    const bool halves = p->type != CUDA_I8, wide = may_be_wide(cuda, p) && !up.epilogue.bias;
    cuda->n_nodes = up.begin;
    if (!halves) cuda_gather_outliers(cuda, l, &p->quantized);
    for (size_t first = 0; first < rows; first += panel) {
        const size_t n = bg_min_size(panel, rows - first);
        if (push_wide_int8(cuda, p, &up, first, n)) continue;
        char *other = (char *)cuda->product.data + p->n_rows * n * (halves ? 2 : 4);
        const void *w = panel_of(cuda, &up, first, n, wide);
        if (wide) {
            push_wide(cuda, p, panel_of(cuda, p, first, n, 0), w, first, n);
            continue;
        }
        push_gemm(cuda, &up, w, n, other)->halves = halves;
        w = panel_of(cuda, p, first, n, 0);
        push_gemm(cuda, p, w, n, cuda->product.data)->halves = halves;
        cuda_finish_args *f = push_finish(cuda, p, &up, first, n);
        f->product = cuda->product.data;
        f->other.product = other;
    }
    cuda->last_product.end = 0;
}

/* Whether the last node has become the product of this layer, too. Weights that are decoded for it
 * are so before it. */
static bool extend_last(cuda_backend *cuda, const cuda_product_layer *p)
{
    const size_t before = extended_bytes(cuda, p), own = p->w.rows * p->w.cols * type_size(p->type);
    if (before == 0) return false;
    cuda_node *last = &cuda->nodes[cuda->n_nodes - 1];
    if (last->args.gemm.x != p->x) return false;
    if (!p->ready) {
        if (p->panel < p->w.rows || before + own > cuda->panel.bytes) return false;
        cuda_node *product = cuda_push(cuda, NODE_GEMM);
        memcpy(product, last, sizeof *product);
        memset(last, 0, sizeof *last);
        last->kind = NODE_DECODE;
        fill_decode(&last->args.decode, p, (char *)cuda->panel.data + before, 0, p->w.rows);
        last = product;
    }
    last->args.gemm.n += p->w.rows;
    cuda->last_product.end = 0;
    return true;
}

static void multiply(cuda_backend *cuda, cuda_product_layer *p)
{
    if (extend_last(cuda, p)) return;
    p->begin = cuda->n_nodes;
    for (size_t first = 0; first < p->w.rows; first += p->panel)
        multiply_panel(cuda, p, first, bg_min_size(p->panel, p->w.rows - first));
    p->end = cuda->n_nodes;
    cuda->last_product = *p;
}

static bool plain(const cuda_epilogue *e)
{
    return !e->multiplier && !e->addend && !e->residual;
}

static bool apart(const cuda_epilogue *e, const cuda_tile_args *t)
{
    return e->out + t->n_rows * e->out_stride <= t->in || e->out >= t->in + t->n_rows * t->cols;
}

/* A layer of the same input as the last node's becomes part of it. */
static bool merge_tile(cuda_backend *cuda, const cuda_tile_args *wanted)
{
    cuda_node *node = cuda->n_nodes > 0 ? &cuda->nodes[cuda->n_nodes - 1] : NULL;
    if (!node || node->kind != NODE_TILE) return false;
    cuda_tile_args *t = &node->args.tile;
    if (t->in != wanted->in || t->n_rows != wanted->n_rows ||
        t->w[0].format != wanted->w[0].format || t->cols != wanted->cols ||
        t->n_parts == CUDA_MAX_PARTS || !plain(&wanted->epilogue[0]) ||
        !apart(&wanted->epilogue[0], t))
        return false;
    for (int i = 0; i < t->n_parts; i++)
        if (!plain(&t->epilogue[i]) || !apart(&t->epilogue[i], t)) return false;
    t->w[t->n_parts] = wanted->w[0];
    t->epilogue[t->n_parts++] = wanted->epilogue[0];
    return true;
}

static bg_status multiply_tiles(cuda_backend *cuda, const bg_linear *l, const cuda_epilogue *e,
                                bg_error *err)
{
    cuda_tile_args t;
    memset(&t, 0, sizeof t);
    t.w[0] = *cuda_matrix_of(l->weight);
    t.epilogue[0] = *e;
    t.n_parts = 1;
    t.in = cuda_values(l->in);
    t.n_rows = l->n_rows;
    t.cols = l->in->cols;
    BG_TRY(cuda_sequences_room(cuda, l, &t.quantized, err));
    BG_TRY(cuda_begin(cuda, cuda_quantized_bytes(l), 2, err));
    BG_TRY(cuda_put_starts(cuda, l, &t.quantized, err));
    cuda_quantize_input(cuda, l, &t.quantized);
    if (!merge_tile(cuda, &t)) memcpy(&cuda_push(cuda, NODE_TILE)->args.tile, &t, sizeof t);
    return BG_OK;
}

/* Whether two results are columns of the same rows. */
static bool side_by_side(const cuda_epilogue *a, const cuda_epilogue *b)
{
    const float *first = a->out < b->out ? a->out : b->out,
                *last = a->out < b->out ? b->out : a->out;
    return a->out_stride == b->out_stride && (size_t)(last - first) < a->out_stride;
}

/* The last node, if a layer of 16 or 4 bits reads its operand, too, and may become part of it; else
 * NULL. What looks for who wrote an activation takes a node's results for those of one. */
static cuda_mma_args *joined_mma(cuda_backend *cuda, const cuda_mma_args *wanted)
{
    cuda_node *node = cuda->n_nodes > 0 ? &cuda->nodes[cuda->n_nodes - 1] : NULL;
    if (!node || node->kind != NODE_MMA) return NULL;
    cuda_mma_args *t = &node->args.mma;
    if (t->x != wanted->x || t->in != wanted->in || t->n_rows != wanted->n_rows ||
        t->cols != wanted->cols || t->operand.out || t->n_parts == CUDA_MAX_PARTS ||
        !plain(&wanted->epilogue[0]))
        return NULL;
    for (int i = 0; i < t->n_parts; i++)
        if (!plain(&t->epilogue[i]) || !side_by_side(&t->epilogue[i], &wanted->epilogue[0]))
            return NULL;
    return t;
}

static bg_status multiply_mma(cuda_backend *cuda, const bg_linear *l, const cuda_epilogue *e,
                              cuda_type type, bg_error *err)
{
    cuda_mma_args a;
    memset(&a, 0, sizeof a);
    a.w[0] = *cuda_matrix_of(l->weight);
    a.epilogue[0] = *e;
    a.n_parts = 1;
    a.in = cuda_values(l->in);
    a.n_rows = l->n_rows;
    a.cols = l->in->cols;
    /* For the widest layer at once: a pass that had to be run in its middle because a room grew
     * would have lost the kernels that decode the next layers' weights. */
    BG_TRY(cuda_operand_rooms(cuda, a.n_rows * cuda->widest, type, err));
    BG_TRY(cuda_begin(cuda, 0, 2, err));
    a.x = cuda_convert_input(cuda, l, type);
    cuda_mma_args *joined = joined_mma(cuda, &a);
    cuda_decode_ahead(cuda, &a.w[0], a.n_rows, joined);
    if (joined && joined->w[0].format == a.w[0].format) {
        joined->w[joined->n_parts] = a.w[0];
        joined->epilogue[joined->n_parts++] = a.epilogue[0];
    } else {
        memcpy(&cuda_push(cuda, NODE_MMA)->args.mma, &a, sizeof a);
    }
    return BG_OK;
}

static bool fits_tiles(const cuda_backend *cuda, const bg_linear *l)
{
    return bg_cuda_product_tiles(cuda_matrix_of(l->weight), l->n_rows, &cuda->launch);
}

static bool fits_mma(const cuda_backend *cuda, const bg_linear *l)
{
    return bg_cuda_product_mma_fits(cuda_matrix_of(l->weight), l->n_rows, cuda_product_type(l),
                                    &cuda->launch);
}

bg_status cuda_product(cuda_backend *cuda, const bg_linear *l, bg_error *err)
{
    cuda_product_layer p;
    memset(&p, 0, sizeof p); /* also what lies between fields: nodes are compared as bytes */
    cuda_fill_epilogue(l, &p.epilogue);
    p.type = cuda_product_type(l);
    cuda_set_rounded(l->out, p.type != CUDA_F32);
    if (fits_tiles(cuda, l)) return multiply_tiles(cuda, l, &p.epilogue, err);
    if (fits_mma(cuda, l)) return multiply_mma(cuda, l, &p.epilogue, p.type, err);
    p.w = *cuda_matrix_of(l->weight);
    p.in = cuda_values(l->in);
    p.n_rows = l->n_rows;
    p.ready = lies_ready(l->weight->format, p.type);
    p.direct = is_direct(&p.epilogue, p.type);
    BG_TRY(prepare(cuda, l, &p, err));
    if (p.type == CUDA_I8) {
        p.on_tiles = true;
        for (size_t i = 0; i < l->n_sequences; i++)
            p.on_tiles &= l->sequences[i].first_row % CUDA_WIDE_ROWS == 0;
        BG_TRY(cuda_put_starts(cuda, l, &p.quantized, err));
        cuda_quantize_input(cuda, l, &p.quantized);
        cuda_list_outliers(cuda, l, &p.quantized, false);
        p.x = p.quantized.codes;
    } else {
        p.x = cuda_convert_input(cuda, l, p.type);
    }
    if (gates_last(cuda, &p)) {
        multiply_gated(cuda, l, &p);
        return BG_OK;
    }
    if (p.type == CUDA_I8) cuda_gather_outliers(cuda, l, &p.quantized);
    multiply(cuda, &p);
    return BG_OK;
}

bool cuda_product_fits(cuda_backend *cuda, const bg_linear *l)
{
    const cuda_gemm_args shape = {
        .m = l->n_rows, .n = l->weight->rows, .k = l->weight->cols, .type = cuda_product_type(l)};
    /* The library comes last: it is large, and has memory of its own. */
    return cuda_product_tiles(cuda, l) || (cuda_matmul_fits(&shape) && cuda_matmul_get(cuda));
}

bool cuda_product_tiles(const cuda_backend *cuda, const bg_linear *l)
{
    return fits_tiles(cuda, l) || fits_mma(cuda, l);
}

/* Linear layers of few rows to nodes. They run on kernels of our own, which read the packed weights
 * once, and merge with what stands before them in the queue:
 *   - layers of the same input (query, key and value) are one kernel;
 *   - so are a gate and what it multiplies, whose product alone is then written;
 *   - a norm of one row is computed by the layers behind it (and still written, for others).
 * Many rows are in product.c. */
#include "backend/cuda/cuda.h"

#include <string.h>

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

/* ---- few rows -------------------------------------------------------------------------------- */

static bg_status few_rows(cuda_backend *cuda, const bg_linear *l, bg_error *err)
{
    const bool merges = bg_cuda_linear_merges(l->weight->format, l->in->cols, &cuda->launch);
    cuda_epilogue e;
    memset(&e, 0, sizeof e);
    cuda_fill_epilogue(l, &e);
    if (merges && merge(cuda, l, &e)) return BG_OK;
    cuda_quantized q = {0};
    const bool int8 = bg_format_is_int8(l->weight->format) && (l->n_rows > 1 || !merges);
    if (int8) BG_TRY(cuda_quantized_room(cuda, l->n_rows, l->in->cols, &q, err));
    BG_TRY(cuda_begin(cuda, 0, 2, err));
    if (int8) cuda_quantize_input(cuda, l, &q);
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

bg_status cuda_linear(bg_backend *backend, const bg_linear *args, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    if (args->n_rows == 0) return BG_OK;
    if (args->n_rows <= CUDA_FEW_ROWS || !cuda_product_fits(cuda, args))
        return few_rows(cuda, args, err);
    return cuda_product(cuda, args, err);
}

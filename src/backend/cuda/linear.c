/* Linear layers of few rows to nodes. They run on kernels of our own, which read the packed weights
 * once, and merge with what stands before them in the queue:
 *   - layers of the same input (query, key and value) are one node, also with an attention between
 *     them that has nothing to do with the last (a parallel block's MLP);
 *   - so are a gate and what it multiplies, whose product alone is then written;
 *   - of two layers whose results are added (a parallel block's attention and MLP), that which has
 *     nothing to do with the attention runs beside it;
 *   - a norm is computed by the layers behind it (and still written, for others), of one row, and
 *     in a program of as many as are multiplied at once.
 *
 * Many rows are in product.c. LLM.int8()'s layers of several sequences are run one by one where no
 * kernel finds each one's outlier columns. */
#include "backend/cuda/cuda.h"
#include "backend/cuda/program.h"

#include <string.h>

static bool plain(const cuda_epilogue *e)
{
    return !e->multiplier && !e->addend && !e->residual;
}

/* ---- merging --------------------------------------------------------------------------------- */

/* Whether a program takes a layer that no other kernel does. */
static bool program_takes(const cuda_backend *cuda, const cuda_linear_args *a)
{
    cuda_node node;
    cuda_program_room room;
    memset(&node, 0, sizeof node);
    node.kind = NODE_LINEAR;
    node.args.linear = *a;
    return bg_cuda_program_plan(&node, NULL, &cuda->launch, CUDA_MOST_STEPS, &room);
}

static void fill(cuda_backend *cuda, const bg_linear *l, const cuda_epilogue *e,
                 cuda_linear_args *a)
{
    a->w[0] = *cuda_matrix_of(l->weight);
    a->epilogue[0] = *e;
    a->n_parts = 1;
    a->in = cuda_values(l->in);
    a->n_rows = l->n_rows;
    a->cols = l->in->cols;
    a->reciprocals = cuda_reciprocals(cuda);
}

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

/* Whether what a node became can still be run: some only by a program, and that has less room the
 * more parts there are. */
static bool can_run(const cuda_backend *cuda, const cuda_linear_args *a)
{
    return !bg_cuda_linear_needs_program(a, &cuda->launch) || program_takes(cuda, a);
}

static bool merge_part(const cuda_backend *cuda, cuda_linear_args *last, const bg_linear *l,
                       const cuda_epilogue *e)
{
    if (last->paired || last->n_parts == CUDA_MAX_PARTS || !plain(e)) return false;
    for (int i = 0; i < last->n_parts; i++)
        if (!plain(&last->epilogue[i])) return false;
    cuda_linear_args more = *last;
    more.w[more.n_parts] = *cuda_matrix_of(l->weight);
    more.epilogue[more.n_parts++] = *e;
    if (!can_run(cuda, &more)) return false;
    *last = more;
    return true;
}

static bool merge_gate(const cuda_backend *cuda, cuda_linear_args *last, const bg_linear *l,
                       const cuda_epilogue *e)
{
    const cuda_epilogue *up = &last->epilogue[0];
    if (last->paired || last->n_parts > 1 || !plain(up) || up->activation != BG_ACTIVATION_NONE)
        return false;
    if (e->multiplier != up->out || e->out != up->out || e->addend || e->residual) return false;
    if (e->multiplier_stride != up->out_stride || last->w[0].rows != l->weight->rows) return false;
    cuda_linear_args both = *last;
    both.w[1] = *cuda_matrix_of(l->weight);
    both.epilogue[1] = *e;
    both.n_parts = 2;
    both.paired = true;
    if (!can_run(cuda, &both)) return false;
    *last = both;
    return true;
}

static bool merge_norm(cuda_backend *cuda, cuda_node *node, const bg_linear *l,
                       const cuda_epilogue *e)
{
    const cuda_norm_args norm = node->args.norm;
    const float *out = cuda_values(l->out);
    if (norm.out != cuda_values(l->in) || norm.out == norm.in || norm.n_rows != l->n_rows)
        return false;
    if (out == norm.in || out == norm.out || !plain(e)) return false;
    cuda_linear_args a;
    memset(&a, 0, sizeof a);
    fill(cuda, l, e, &a);
    a.norm = norm.norm;
    a.norm_half = norm.half;
    a.normed = norm.out;
    a.in = norm.in;
    if (!can_run(cuda, &a)) return false;
    memset(node, 0, sizeof *node);
    node->kind = NODE_LINEAR;
    node->args.linear = a;
    return true;
}

/* Makes the layer part of a node that is there; false where it cannot be. */
static bool merge(cuda_backend *cuda, const bg_linear *l, const cuda_epilogue *e)
{
    if (cuda->n_nodes == 0) return false;
    cuda_node *node = &cuda->nodes[cuda->n_nodes - 1];
    const float *out = cuda_values(l->out);
    if (node->kind == NODE_NORM) return merge_norm(cuda, node, l, e);
    if (node->kind == NODE_ATTEND_ONE && cuda->n_nodes > 1) {
        const cuda_attention_args *a = &node->args.attention;
        if (out == a->qkv || out == a->out || a->out == cuda_values(l->in)) return false;
        node--;
    }
    if (node->kind != NODE_LINEAR) return false;
    cuda_linear_args *last = &node->args.linear;
    const bool newest = node == &cuda->nodes[cuda->n_nodes - 1];
    if (!same_input(last, l) || overwrites_input(last, l)) return false;
    return merge_part(cuda, last, l, e) || (newest && merge_gate(cuda, last, l, e));
}

/* ---- beside attention ------------------------------------------------------------------------ */

/* A layer whose addend is the last one's result, while the last one reads that of an attention,
 * need not wait for the attention. The two change places: this one writes its result where the last
 * one would have, as an addend of the last one, which writes the sum. False where they cannot. */
static bool move_beside(cuda_backend *cuda, const cuda_linear_args *a)
{
    if (cuda->n_nodes < 2) return false;
    cuda_node *node = &cuda->nodes[cuda->n_nodes - 1], *attention = node - 1;
    if (node->kind != NODE_LINEAR || attention->kind != NODE_ATTEND_ONE) return false;
    const cuda_linear_args *last = &node->args.linear;
    const cuda_epilogue *addend = &last->epilogue[0], *e = &a->epilogue[0];
    if (last->n_parts > 1 || last->norm.weight || !plain(addend) ||
        addend->activation != BG_ACTIVATION_NONE || last->n_rows != a->n_rows)
        return false;
    if (e->addend != addend->out || e->addend_stride != addend->out_stride || e->multiplier ||
        e->residual == e->addend || e->activation != BG_ACTIVATION_NONE ||
        last->w[0].rows != a->w[0].rows)
        return false;
    const cuda_attention_args *attends = &attention->args.attention;
    if (a->in == attends->out || a->in == addend->out || attends->qkv == addend->out ||
        attends->out == addend->out || last->in == e->out)
        return false;
    cuda_node sum = *node;
    float *part = addend->out;
    cuda_epilogue *of_sum = &sum.args.linear.epilogue[0], *own = &node->args.linear.epilogue[0];
    *of_sum = *e;
    of_sum->bias = addend->bias;
    node->args.linear = *a;
    own->out = part;
    own->out_stride = of_sum->addend_stride;
    own->addend = own->residual = NULL;
    own->addend_stride = own->residual_stride = 0;
    attention->beside = true;
    *cuda_push(cuda, NODE_LINEAR) = sum;
    return true;
}

/* ---- few rows -------------------------------------------------------------------------------- */

static bg_status few_rows(cuda_backend *cuda, const bg_linear *l, bg_error *err)
{
    const bool merges = bg_cuda_linear_merges(l->weight->format, l->in->cols, &cuda->launch);
    cuda_epilogue e;
    cuda_linear_args a;
    memset(&e, 0, sizeof e);
    memset(&a, 0, sizeof a);
    cuda_fill_epilogue(l, &e);
    if (merges && merge(cuda, l, &e)) return BG_OK;
    fill(cuda, l, &e, &a);
    const bool int8 = bg_format_is_int8(l->weight->format) && (l->n_rows > 1 || !merges) &&
                      !program_takes(cuda, &a);
    if (int8) BG_TRY(cuda_quantized_room(cuda, l->n_rows, l->in->cols, &a.quantized, err));
    BG_TRY(cuda_begin(cuda, int8 ? cuda_quantized_bytes(l) : 0, 3, err));
    if (!int8 && move_beside(cuda, &a)) return BG_OK;
    if (int8) {
        cuda_quantize_input(cuda, l, &a.quantized);
        cuda_list_outliers(cuda, l, &a.quantized, true);
    }
    cuda_push(cuda, NODE_LINEAR)->args.linear = a;
    return BG_OK;
}

/* Whether a layer of more than `least` rows is multiplied in tiles, or, where it has many, by the
 * library. */
static bool is_product(cuda_backend *cuda, const bg_linear *l, size_t least)
{
    if (l->n_rows > CUDA_FEW_ROWS) return cuda_product_fits(cuda, l);
    return l->n_rows > least && cuda_product_tiles(cuda, l);
}

bg_status cuda_linear(bg_backend *backend, const bg_linear *args, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    if (args->n_rows == 0) return BG_OK;
    cuda_set_rounded(args->out, false);
    return is_product(cuda, args, cuda->least_rows) ? cuda_product(cuda, args, err)
                                                    : few_rows(cuda, args, err);
}

/* ---- layers of sequences --------------------------------------------------------------------- */

/* The rows of one sequence. */
static bg_act *part(const bg_act *act, size_t first, cuda_act *room)
{
    if (!act) return NULL;
    *room = *(const cuda_act *)(const void *)act;
    room->values += first * act->cols;
    room->base.rows -= first;
    return &room->base;
}

static bg_status one_by_one(bg_backend *backend, const bg_linear *l, bg_error *err)
{
    for (size_t i = 0; i < l->n_sequences; i++) {
        const size_t first = l->sequences[i].first_row;
        cuda_act in, multiplier, addend, residual, out;
        bg_linear one = *l;
        one.sequences = NULL;
        one.n_sequences = 0;
        one.n_rows = l->sequences[i].rows;
        one.in = part(l->in, first, &in);
        one.multiplier = part(l->multiplier, first, &multiplier);
        one.addend = part(l->addend, first, &addend);
        one.residual = part(l->residual, first, &residual);
        one.out = part(l->out, first, &out);
        BG_TRY(cuda_linear(backend, &one, err));
    }
    return BG_OK;
}

bg_status cuda_linear_of_sequences(bg_backend *backend, const bg_linear *l, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    if (l->n_sequences <= 1 || !bg_format_is_int8(l->weight->format))
        return cuda_linear(backend, l, err);
    return is_product(cuda, l, 0) ? cuda_product(cuda, l, err) : one_by_one(backend, l, err);
}

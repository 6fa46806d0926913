/* What matrix products read: activations as 16-bit numbers. They mostly cost no kernel: what writes
 * the activations (a norm, attention, a linear layer's end) is told to write them in 16 bits, too.
 * There are two rooms for them, so that one can be filled while the other is still read. */
#include "backend/cuda/cuda.h"

enum { LOOK_BACK = 64 }; /* nodes among which a writer or an earlier operand is looked for */

/* ---- who wrote an activation ----------------------------------------------------------------- */

/* Where a node writes: columns [first, first + cols) of rows `stride` apart; out NULL: to no
 * activation that a layer reads. */
typedef struct {
    bool known;
    const float *out;
    size_t rows, first, cols, stride;
    cuda_operand *operand; /* NULL where the node cannot write one */
} writing;

static writing written_by(cuda_node *n)
{
    const writing nothing = {.known = true};
    switch (n->kind) {
    case NODE_NORM:
    case NODE_NORM_MANY: {
        cuda_norm_args *a = &n->args.norm;
        return (writing){true,
                         a->out,
                         a->n_rows,
                         0,
                         a->cols,
                         a->cols,
                         n->kind == NODE_NORM_MANY ? &a->operand : NULL};
    }
    case NODE_FINISH: {
        cuda_finish_args *a = &n->args.finish;
        return (writing){true,
                         a->epilogue.out,
                         a->n_rows,
                         a->first,
                         a->n,
                         a->epilogue.out_stride,
                         a->w.threshold > 0 ? NULL : &a->operand};
    }
    case NODE_TILE: {
        cuda_tile_args *a = &n->args.tile;
        const float *out = a->epilogue[0].out;
        for (int i = 1; i < a->n_parts; i++)
            if (a->epilogue[i].out < out) out = a->epilogue[i].out;
        return (writing){true, out, a->n_rows, 0, a->w[0].rows, a->epilogue[0].out_stride, NULL};
    }
    case NODE_MMA: {
        cuda_mma_args *a = &n->args.mma;
        const bool alone = a->n_parts == 1;
        const float *out = a->epilogue[0].out;
        for (int i = 1; i < a->n_parts; i++)
            if (a->epilogue[i].out < out) out = a->epilogue[i].out;
        const size_t stride = a->epilogue[0].out_stride;
        return (writing){true,
                         out,
                         a->n_rows,
                         0,
                         alone ? a->w[0].rows : stride,
                         stride,
                         alone ? &a->operand : NULL};
    }
    case NODE_ATTEND: {
        cuda_attention_args *a = &n->args.attention;
        return (writing){true,          a->out,     a->max_rows * a->n_sequences, 0, a->out_stride,
                         a->out_stride, &a->operand};
    }
    case NODE_GEMM: {
        const cuda_gemm_args *a = &n->args.gemm;
        return (writing){true, a->out, a->m, 0, a->n, a->out_stride, NULL};
    }
    case NODE_PLACE: {
        const cuda_attention_args *a = &n->args.attention;
        return (writing){true,          a->qkv, a->max_rows * a->n_sequences, 0, a->qkv_stride,
                         a->qkv_stride, NULL};
    }
    case NODE_WIDE: {
        cuda_wide_args *a = &n->args.wide;
        if (!a->w[1]) return nothing;
        return (writing){true, a->out, a->n_rows, a->first, a->rows, a->out_stride, &a->operand};
    }
    case NODE_LINEAR: {
        const cuda_linear_args *a = &n->args.linear;
        if (a->n_parts > 1 || a->norm.weight) return (writing){0};
        const cuda_epilogue *e = &a->epilogue[0];
        return (writing){true, e->out, a->n_rows, 0, a->w[0].rows, e->out_stride, NULL};
    }
    case NODE_QUANTIZE:
    case NODE_LIST:
    case NODE_GATHER:
    case NODE_CONVERT:
    case NODE_DECODE:
    case NODE_SCORE_PANEL:
        return nothing;
    default:
        return (writing){0};
    }
}

static bool overlaps(const writing *w, const float *in, size_t count)
{
    return w->out && w->out < in + count && in < w->out + w->rows * w->stride;
}

/* Whether columns that are written were written again, later, by nodes that have been found: all
 * from `left` on. */
static bool superseded(const writing *w, const float *in, size_t cols, size_t left)
{
    if (w->stride != cols || w->out < in) return false;
    const size_t first = (size_t)(w->out - in) + w->first;
    return first >= left && first + w->cols <= cols;
}

bool cuda_may_write(cuda_node *n, const float *in, size_t count)
{
    const writing w = written_by(n);
    return !w.known || overlaps(&w, in, count);
}

/* ---- 16-bit numbers -------------------------------------------------------------------------- */

static size_t type_size(cuda_type type)
{
    return type == CUDA_F32 ? 4 : 2;
}

/* Which room a node writes to or reads; CUDA_OPERANDS: none. */
static int room_of(const cuda_backend *cuda, const void *p)
{
    int i = 0;
    while (i < CUDA_OPERANDS && (!p || cuda->operand[i].data != p)) i++;
    return i;
}

/* A room that no node behind the writer reads or writes. */
static int free_room(const bool taken[CUDA_OPERANDS + 1])
{
    int i = 0;
    while (i < CUDA_OPERANDS && taken[i]) i++;
    return i;
}

/* The operand from what is queued: one that was written before, or one that the nodes which write
 * `in`, several where its columns came in panels, can write as well. NULL: neither. */
static const void *queued_operand(cuda_backend *cuda, const float *in, size_t n_rows, size_t cols,
                                  cuda_type type)
{
    bool taken[CUDA_OPERANDS + 1] = {false}, lost[CUDA_OPERANDS + 1] = {false};
    cuda_operand *panels[LOOK_BACK];
    size_t n_panels = 0, left = cols; /* columns whose writers have not been found */
    for (size_t i = cuda->n_nodes; i > 0 && cuda->n_nodes - i < LOOK_BACK; i--) {
        cuda_node *n = &cuda->nodes[i - 1];
        const writing w = written_by(n);
        if (!w.known) return NULL;
        if (n->kind == NODE_CONVERT) {
            const cuda_convert_args *c = &n->args.convert;
            const int room = room_of(cuda, c->out);
            if (c->in == in && c->count == n_rows * cols && c->type == type && !lost[room])
                return c->out;
            taken[room] = lost[room] = true;
        }
        if (n->kind == NODE_GEMM) taken[room_of(cuda, n->args.gemm.x)] = true;
        if (n->kind == NODE_MMA) taken[room_of(cuda, n->args.mma.x)] = true;
        if (n->kind == NODE_WIDE) taken[room_of(cuda, n->args.wide.x)] = true;
        if (overlaps(&w, in, n_rows * cols) && !superseded(&w, in, cols, left)) {
            if (w.out != in || w.stride != cols || !w.operand || w.first + w.cols != left)
                return NULL;
            if (n->kind == NODE_WIDE && type != CUDA_F16) return NULL;
            /* The room is for n_rows, and the head may want fewer than were normed. Of attention's
             * rows only the most that there may be is known. */
            if (w.rows != n_rows && n->kind != NODE_ATTEND) return NULL;
            if (w.operand->out) {
                const bool same = n_panels == 0 && w.operand->type == type;
                return same && !lost[room_of(cuda, w.operand->out)] ? w.operand->out : NULL;
            }
            panels[n_panels++] = w.operand;
            left = w.first;
        }
        if (left == 0) break;
        if (w.operand && w.operand->out) {
            const int room = room_of(cuda, w.operand->out);
            taken[room] = lost[room] = true;
        }
    }
    const int room = free_room(taken);
    if (left > 0 || room == CUDA_OPERANDS) return NULL;
    for (size_t i = 0; i < n_panels; i++)
        *panels[i] = (cuda_operand){.out = cuda->operand[room].data, .type = type};
    return cuda->operand[room].data;
}

bg_status cuda_operand_rooms(cuda_backend *cuda, size_t count, cuda_type type, bg_error *err)
{
    for (int i = 0; i < CUDA_OPERANDS; i++)
        BG_TRY(cuda_reserve(cuda, &cuda->operand[i], count * type_size(type), err));
    return BG_OK;
}

/* Whether a node may read `count` values of an activation as they are in fp32. */
static bool may_read(const cuda_node *n, const float *in, size_t count)
{
    const cuda_epilogue *e = &n->args.finish.epilogue;
    const float *read[3] = {NULL};
    switch (n->kind) {
    case NODE_DECODE:
        return false;
    case NODE_GEMM:
        read[0] = n->args.gemm.residual;
        read[1] = n->args.gemm.x;
        break;
    case NODE_FINISH:
        if (n->args.finish.w.threshold > 0) return true;
        read[0] = e->multiplier;
        read[1] = e->addend;
        read[2] = e->residual;
        break;
    default:
        return true;
    }
    for (int i = 0; i < 3; i++)
        if (read[i] && read[i] >= in && read[i] < in + count) return true;
    return false;
}

/* Where nobody else reads an activation, those who write the operand `x` need write nothing else.
 * The nodes behind them have been queued for layers of this very input. */
static void leave_out(cuda_backend *cuda, const float *in, size_t n_rows, size_t cols,
                      const void *x)
{
    cuda_operand *writers[LOOK_BACK];
    size_t n_writers = 0, left = cols;
    for (size_t i = cuda->n_nodes; left > 0; i--) {
        if (i == 0 || cuda->n_nodes - i >= LOOK_BACK) return;
        cuda_node *n = &cuda->nodes[i - 1];
        const writing w = written_by(n);
        if (!w.known) return;
        if (overlaps(&w, in, n_rows * cols)) {
            if (superseded(&w, in, cols, left)) continue;
            if (w.out != in || w.stride != cols || !w.operand || w.operand->out != x ||
                n->kind == NODE_MMA || w.first + w.cols != left)
                return;
            writers[n_writers++] = w.operand;
            left = w.first;
        } else if (may_read(n, in, n_rows * cols)) {
            return;
        }
    }
    for (size_t i = 0; i < n_writers; i++) writers[i]->alone = true;
}

const void *cuda_convert_input(cuda_backend *cuda, const bg_linear *l, cuda_type type)
{
    const float *in = cuda_values(l->in);
    if (type == CUDA_F32) return in;
    const void *there = queued_operand(cuda, in, l->n_rows, l->in->cols, type);
    if (there && l->consumes) leave_out(cuda, in, l->n_rows, l->in->cols, there);
    if (there) return there;
    cuda_convert_args *a = &cuda_push(cuda, NODE_CONVERT)->args.convert;
    a->in = in;
    a->out = cuda->operand[0].data;
    a->count = l->n_rows * l->in->cols;
    a->type = type;
    return a->out;
}

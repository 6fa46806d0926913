/* LLM.int8()'s activations as nodes: which sequences they are of, the room that they take, and what
 * quantizes them: the norm that writes them where it is the last node, or a node of its own. Where
 * their outlier columns are is gathered in masks, zeros in the step's data before. */
#include "backend/cuda/cuda.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <math.h>

enum {
    LOOK_BACK = 64, /* nodes among which the same codes are looked for */
    CHUNK = 64,     /* outlier columns that are multiplied at once */
    MASK_BITS = 32,
};

static size_t rounded(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Of a mask of columns. */
static size_t mask_bytes(size_t n_sequences, size_t cols)
{
    return n_sequences * ((cols + MASK_BITS - 1) / MASK_BITS) * sizeof(uint32_t);
}

/* Arrays in one piece, each aligned for any type. */
static bg_status quantized_room(cuda_backend *cuda, size_t n_rows, size_t cols, size_t n_sequences,
                                cuda_quantized *q, bg_error *err)
{
    const struct {
        void *field;
        size_t bytes;
    } parts[] = {{&q->codes, n_rows * cols},
                 {&q->absmax, n_rows * sizeof *q->absmax},
                 {&q->n_outliers, n_sequences * sizeof *q->n_outliers},
                 {&q->outliers, n_sequences * cols * sizeof *q->outliers}};
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) bytes += rounded(parts[i].bytes, 256);
    BG_TRY(cuda_reserve(cuda, &cuda->quantized, bytes, err));
    char *p = cuda->quantized.data;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        memcpy(parts[i].field, &p, sizeof p);
        p += rounded(parts[i].bytes, 256);
    }
    q->n_sequences = (int)n_sequences;
    return BG_OK;
}

bg_status cuda_quantized_room(cuda_backend *cuda, size_t n_rows, size_t cols, cuda_quantized *q,
                              bg_error *err)
{
    return quantized_room(cuda, n_rows, cols, 1, q, err);
}

bg_status cuda_sequences_room(cuda_backend *cuda, const bg_linear *l, cuda_quantized *q,
                              bg_error *err)
{
    return quantized_room(cuda, l->n_rows, l->in->cols, bg_max_size(l->n_sequences, 1), q, err);
}

bg_status cuda_outliers_room(cuda_backend *cuda, const bg_linear *l, cuda_quantized *q,
                             bg_error *err)
{
    const cuda_matrix *w = cuda_matrix_of(l->weight);
    const size_t n = bg_max_size(l->n_sequences, 1);
    /* All columns of one sequence; where infinities alone are outliers, hardly any. */
    q->room = isfinite(w->threshold) ? rounded((w->cols + n - 1) / n, CHUNK) : CHUNK;
    const size_t in_bytes = rounded(l->n_rows * q->room * 2, 256);
    const size_t weight_bytes = n * w->rows * q->room * 2;
    const bool second = l->multiplier;
    BG_TRY(cuda_reserve(cuda, &cuda->outliers, in_bytes + (1 + second) * weight_bytes, err));
    q->outlier_in = cuda->outliers.data;
    q->outlier_weights = (char *)cuda->outliers.data + in_bytes + second * weight_bytes;
    return BG_OK;
}

static size_t starts_bytes(const bg_linear *l)
{
    return l->n_sequences > 1 ? (l->n_sequences + 1) * sizeof(int32_t) : 0;
}

size_t cuda_quantized_bytes(const bg_linear *l)
{
    return starts_bytes(l) + mask_bytes(bg_max_size(l->n_sequences, 1), l->in->cols);
}

bg_status cuda_put_starts(cuda_backend *cuda, const bg_linear *l, cuda_quantized *q, bg_error *err)
{
    const size_t bytes = starts_bytes(l);
    if (bytes == 0) return BG_OK;
    int32_t *starts = bg_alloc(bytes);
    if (!starts) return bg_fail_memory(err, bytes, "sequences");
    for (size_t i = 0; i < l->n_sequences; i++) starts[i] = (int32_t)l->sequences[i].first_row;
    starts[l->n_sequences] = (int32_t)l->n_rows;
    /* Every layer's are the same, and there once. */
    if (cuda->starts_at + bytes <= cuda->step_bytes &&
        memcmp(cuda->step->host + cuda->starts_at, starts, bytes) == 0) {
        q->starts = (const void *)(cuda->step->device + cuda->starts_at);
    } else {
        cuda->starts_at = cuda->step_bytes;
        q->starts = cuda_put(cuda, starts, bytes);
    }
    bg_free(starts);
    return BG_OK;
}

/* The mask of the nodes that have quantized this very input, which is wanted without one; NULL:
 * there are none. */
static uint32_t *quantized_already(const cuda_backend *cuda, const cuda_quantize_args *wanted)
{
    for (size_t i = cuda->n_nodes; i > 0 && cuda->n_nodes - i < LOOK_BACK; i--) {
        cuda_node *n = &cuda->nodes[i - 1];
        const cuda_quantize_args *there = NULL;
        if (n->kind == NODE_QUANTIZE) there = &n->args.quantize;
        if (n->kind == NODE_NORM_MANY && n->args.norm.quantize.out.codes)
            there = &n->args.norm.quantize;
        if (there) {
            cuda_quantize_args bare;
            memcpy(&bare, there, sizeof bare);
            bare.out.mask = NULL;
            return memcmp(&bare, wanted, sizeof bare) == 0 ? there->out.mask : NULL;
        }
        if (cuda_may_write(n, wanted->in, wanted->n_rows * wanted->cols)) return NULL;
    }
    return NULL;
}

/* The norm that wrote the input, if it is the last node. */
static cuda_norm_args *last_norm(cuda_backend *cuda, const cuda_quantize_args *wanted)
{
    cuda_node *last = cuda->n_nodes > 0 ? &cuda->nodes[cuda->n_nodes - 1] : NULL;
    if (!last || last->kind != NODE_NORM_MANY) return NULL;
    cuda_norm_args *norm = &last->args.norm;
    const bool same =
        norm->out == wanted->in && norm->n_rows == wanted->n_rows && norm->cols == wanted->cols;
    return same && bg_cuda_norm_quantizes(norm->cols) ? norm : NULL;
}

/* The same of attention. */
static cuda_attention_args *last_attention(cuda_backend *cuda, const cuda_quantize_args *wanted)
{
    cuda_node *last = cuda->n_nodes > 0 ? &cuda->nodes[cuda->n_nodes - 1] : NULL;
    return last && last->kind == NODE_ATTEND && last->args.attention.out == wanted->in
               ? &last->args.attention
               : NULL;
}

void cuda_quantize_input(cuda_backend *cuda, const bg_linear *l, cuda_quantized *q)
{
    cuda_quantize_args a;
    memset(&a, 0, sizeof a); /* also what lies between fields: nodes are compared as bytes */
    a.in = cuda_values(l->in);
    a.n_rows = l->n_rows;
    a.cols = l->in->cols;
    a.threshold = cuda_matrix_of(l->weight)->threshold;
    a.reciprocals = cuda_reciprocals(cuda);
    memcpy(&a.out, q, sizeof a.out);
    /* What a layer gathers is its own. */
    a.out.outlier_in = a.out.outlier_weights = NULL;
    a.out.room = 0;
    q->mask = quantized_already(cuda, &a);
    if (q->mask) return;
    q->mask = cuda_put_zeros(cuda, mask_bytes((size_t)q->n_sequences, a.cols));
    a.out.mask = q->mask;
    cuda_norm_args *norm = last_norm(cuda, &a);
    cuda_attention_args *attention = last_attention(cuda, &a);
    if (attention) attention->alone = true;
    memcpy(norm ? &norm->quantize : &cuda_push(cuda, NODE_QUANTIZE)->args.quantize, &a, sizeof a);
}

/* Each mask is of one input. A list that cleared codes does for who did not ask for that, too. */
static bool listed_already(const cuda_backend *cuda, const cuda_quantized *q, bool clear)
{
    for (size_t i = cuda->n_nodes; i > 0 && cuda->n_nodes - i < LOOK_BACK; i--) {
        const cuda_node *n = &cuda->nodes[i - 1];
        if (n->kind == NODE_LIST && n->args.list.quantized.mask == q->mask &&
            (n->args.list.clear || !clear))
            return true;
    }
    return false;
}

void cuda_list_outliers(cuda_backend *cuda, const bg_linear *l, const cuda_quantized *q, bool clear)
{
    if (listed_already(cuda, q, clear)) return;
    cuda_list_args *a = &cuda_push(cuda, NODE_LIST)->args.list;
    a->n_rows = l->n_rows;
    a->cols = l->in->cols;
    a->clear = clear;
    memcpy(&a->quantized, q, sizeof a->quantized);
    a->quantized.outlier_in = a->quantized.outlier_weights = NULL;
    a->quantized.room = 0;
}

/* Whether the input's outlier columns, as it was quantized last, have been gathered. */
static bool gathered_already(const cuda_backend *cuda, const cuda_gather_args *wanted)
{
    for (size_t i = cuda->n_nodes; i > 0 && cuda->n_nodes - i < LOOK_BACK; i--) {
        const cuda_node *n = &cuda->nodes[i - 1];
        const cuda_quantized *q = &n->args.gather.quantized, *own = &wanted->quantized;
        if (n->kind == NODE_GATHER)
            return n->args.gather.in == wanted->in && q->codes == own->codes &&
                   q->starts == own->starts && q->outlier_in == own->outlier_in &&
                   q->room == own->room;
        if (n->kind == NODE_QUANTIZE ||
            (n->kind == NODE_NORM_MANY && n->args.norm.quantize.out.codes))
            return false;
    }
    return false;
}

void cuda_gather_outliers(cuda_backend *cuda, const bg_linear *l, const cuda_quantized *q)
{
    cuda_gather_args a;
    memset(&a, 0, sizeof a);
    a.in = cuda_values(l->in);
    a.n_rows = l->n_rows;
    a.w = *cuda_matrix_of(l->weight);
    memcpy(&a.quantized, q, sizeof a.quantized);
    a.input = !gathered_already(cuda, &a);
    memcpy(&cuda_push(cuda, NODE_GATHER)->args.gather, &a, sizeof a);
}

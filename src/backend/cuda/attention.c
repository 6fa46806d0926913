/* Attention and storing to nodes. */
#include "backend/cuda/cuda.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <string.h>

/* The number of keys decides how much memory a kernel gets; rounded up to this, it changes seldom.
 */
enum { KEY_STEP = 256 };

static bg_status check(const bg_cache *cache, const bg_sequence *sequences, size_t n, bool stored,
                       bg_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const bg_sequence *s = &sequences[i];
        size_t end = stored ? s->keys : s->past + s->rows;
        if (end > cache->max_length || s->keys > end || s->slot >= cache->n_slots)
            return bg_fail(err, BG_ERR_INTERNAL, "attention: a sequence is longer than its cache");
    }
    if (cache->head_dim > MAX_HEAD_DIM)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "heads of %zu values are more than the %d that the CUDA backend takes; use "
                       "--device cpu",
                       cache->head_dim, MAX_HEAD_DIM);
    return BG_OK;
}

/* Sequences in the step's data; every layer's are the same, and there once. */
static bg_status put_sequences(cuda_backend *cuda, const bg_sequence *sequences, size_t n,
                               cuda_attention_args *a, bg_error *err)
{
    const size_t bytes = n * sizeof(cuda_sequence);
    cuda_sequence *narrow = bg_calloc(n, sizeof *narrow);
    if (!narrow) return bg_fail_memory(err, bytes, "sequences");
    for (size_t i = 0; i < n; i++) {
        const bg_sequence *s = &sequences[i];
        narrow[i] = (cuda_sequence){(int32_t)s->first_row, (int32_t)s->rows, (int32_t)s->slot,
                                    (int32_t)s->past,      (int32_t)s->keys, (int32_t)s->prefix};
        a->max_rows = bg_max_size(a->max_rows, s->rows);
        a->max_keys = bg_max_size(a->max_keys, s->keys);
    }
    a->max_keys = (a->max_keys + KEY_STEP) / KEY_STEP * KEY_STEP;
    a->n_sequences = n;
    if (cuda->sequences_bytes == bytes &&
        memcmp(cuda->step->host + cuda->sequences_at, narrow, bytes) == 0) {
        a->sequences = (const void *)(cuda->step->device + cuda->sequences_at);
    } else {
        cuda->sequences_at = cuda->step_bytes;
        cuda->sequences_bytes = bytes;
        a->sequences = cuda_put(cuda, narrow, bytes);
    }
    bg_free(narrow);
    return BG_OK;
}

/* Rows of all sequences, where each is its own first ones; else 0. */
static size_t whole_rows(const bg_sequence *sequences, size_t n)
{
    size_t rows = 0;
    for (size_t i = 0; i < n; i++) {
        if (sequences[i].past > 0 || sequences[i].first_row != rows) return 0;
        rows += sequences[i].rows;
    }
    return rows;
}

/* A pass of some rows begins early at its second attention, where hardly anything that is queued
 * decodes weights for what follows (ahead.c). */
static bool begins_early(const cuda_backend *cuda, const bg_attention *args, size_t n_rows)
{
    if (args->stored || n_rows <= CUDA_LEAST_ROWS || n_rows == args->n_sequences) return false;
    for (size_t i = 0; i < cuda->n_nodes; i++)
        if (cuda->nodes[i].kind == NODE_ATTEND) return true;
    return false;
}

static void take_cache(cuda_attention_args *a, const bg_cache *cache, size_t layer)
{
    const cuda_cache *c = (const cuda_cache *)(const void *)cache;
    const size_t at = layer * cache->n_slots * cache->n_heads * cache->max_length * cache->head_dim;
    a->keys = c->keys + at;
    a->values = c->values + at;
    a->max_length = cache->max_length;
    a->n_kv_heads = cache->n_heads;
    a->head_dim = cache->head_dim;
}

static bool attends_wide(const cuda_backend *cuda, cuda_attention_args a, size_t n_rows)
{
    bg_cuda_attend_plan(&a, &cuda->launch);
    return bg_cuda_attends_wide(&a, n_rows, &cuda->launch);
}

/* Whether the last node, the product that queries, keys and values are, has become one that writes
 * what is wanted of them instead. */
static bool widen_last(cuda_backend *cuda, const cuda_attention_args *a, size_t n_rows,
                       size_t columns)
{
    cuda_node *last = cuda->n_nodes > 0 ? &cuda->nodes[cuda->n_nodes - 1] : NULL;
    if (!last || last->kind != NODE_GEMM) return false;
    const cuda_gemm_args g = last->args.gemm;
    if (g.type != CUDA_F16 || g.halves || g.bias || g.residual || g.out != a->qkv ||
        g.m != n_rows || g.n != columns || g.out_stride != columns || a->query_col != 0 ||
        a->key_col != a->n_heads * a->head_dim ||
        a->value_col != a->key_col + a->n_kv_heads * a->head_dim ||
        !bg_cuda_wide_fits(n_rows, columns, g.k, false, &cuda->launch))
        return false;
    memset(last, 0, sizeof *last);
    last->kind = NODE_WIDE;
    cuda_wide_args *w = &last->args.wide;
    w->x = g.x;
    w->w[0] = g.w;
    w->n_rows = n_rows;
    w->rows = columns;
    w->cols = g.k;
    memcpy(&w->attention, a, sizeof *a);
    return true;
}

bg_status cuda_attention_op(bg_backend *backend, const bg_attention *args, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    BG_TRY(check(args->cache, args->sequences, args->n_sequences, args->stored, err));
    /* Filled in apart, and then copied as bytes: nodes are compared so. */
    cuda_node node;
    memset(&node, 0, sizeof node);
    cuda_attention_args *a = &node.args.attention;
    take_cache(a, args->cache, args->layer);
    a->qkv = cuda_values(args->qkv);
    a->qkv_stride = args->qkv->cols;
    a->query_col = args->query_col;
    a->key_col = args->key_col;
    a->value_col = args->value_col;
    a->n_heads = args->n_heads;
    a->stored = args->stored;
    a->half = args->qkv->half;
    a->rounded = !args->stored && cuda_is_rounded(args->qkv);
    a->out_half = args->out->half;
    a->query_norm = cuda_norm_of(&args->query_norm);
    a->key_norm = cuda_norm_of(&args->key_norm);
    if (args->rope) {
        a->rope = cuda_vector(args->rope);
        a->rope_dim = args->rope->cols;
    }
    a->scale = args->scale;
    if (args->position_bias) {
        a->position_bias = cuda_vector(args->position_bias);
        a->bias_cols = args->position_bias->cols;
    }
    a->causal = args->causal;
    a->window = args->window;
    a->out = cuda_values(args->out);
    a->out_stride = args->out->cols;
    const size_t n_rows = whole_rows(args->sequences, args->n_sequences);
    const bool wide = attends_wide(cuda, *a, n_rows);
    if (!wide && begins_early(cuda, args, n_rows)) BG_TRY(cuda_start_early(cuda, err));
    const size_t columns = (a->n_heads + 2 * a->n_kv_heads) * a->head_dim;
    const size_t halves = n_rows * columns * sizeof(uint16_t);
    if (wide) BG_TRY(cuda_reserve(cuda, &cuda->halves, halves, err));
    BG_TRY(cuda_begin(cuda, args->n_sequences * sizeof(cuda_sequence), 2, err));
    BG_TRY(put_sequences(cuda, args->sequences, args->n_sequences, a, err));
    if (bg_cuda_attends_one(a)) {
        a->partial = cuda->parts;
        memcpy(&cuda_push(cuda, NODE_ATTEND_ONE)->args, &node.args, sizeof node.args);
        return BG_OK;
    }
    bg_cuda_attend_plan(a, &cuda->launch);
    if (wide) {
        a->halves = cuda->halves.data;
        a->fresh = false;
    }
    if (!a->fresh && !(wide && widen_last(cuda, a, n_rows, columns)))
        memcpy(&cuda_push(cuda, NODE_PLACE)->args, &node.args, sizeof node.args);
    memcpy(&cuda_push(cuda, NODE_ATTEND)->args, &node.args, sizeof node.args);
    return BG_OK;
}

bg_status cuda_store(bg_backend *backend, bg_cache *cache, size_t layer, const bg_act *kv,
                     size_t key_col, size_t value_col, const bg_sequence *sequences,
                     size_t n_sequences, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    BG_TRY(check(cache, sequences, n_sequences, false, err));
    BG_TRY(cuda_begin(cuda, n_sequences * sizeof(cuda_sequence), 1, err));
    cuda_attention_args *a = &cuda_push(cuda, NODE_PLACE)->args.attention;
    bg_status status = put_sequences(cuda, sequences, n_sequences, a, err);
    if (status != BG_OK) {
        cuda->n_nodes--;
        return status;
    }
    take_cache(a, cache, layer);
    a->qkv = cuda_values(kv);
    a->qkv_stride = kv->cols;
    a->key_col = key_col;
    a->value_col = value_col;
    a->store_only = true;
    return BG_OK;
}

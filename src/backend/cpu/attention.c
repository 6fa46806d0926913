/* softmax(scale * Q K^T + bias + mask) V, over keys and values in the cache. First every sequence's
 * new keys and values are written, a key-value head at a time; then one task is one head of one
 * sequence. */
#include "backend/cpu/cpu.h"
#include "core/checked.h"

#include <cblas.h>
#include <string.h>

/* Queries in one tile: its scores against all keys are the working memory of a thread. */
enum { TILE = 64 };

/* ---- keys and values into the cache ---------------------------------------------------------- */

typedef struct {
    cpu_backend *cpu;
    bg_cache *cache;
    size_t layer;
    const bg_act *kv;
    size_t key_col, value_col;
    const bg_norm *key_norm; /* NULL: none */
    const bg_weight *rope;   /* NULL: none */
    const bg_sequence *sequences;
} store_loop;

/* Where a head's keys and values begin in their halves of a cache. */
static size_t plane(const bg_cache *cache, size_t layer, size_t slot, size_t kv_head)
{
    return ((layer * cache->n_slots + slot) * cache->n_heads + kv_head) * cache->max_length *
           cache->head_dim;
}

/* A head's query or key, normed and turned to its position in place. */
static void place(const cpu_backend *cpu, const bg_norm *norm, const bg_weight *rope, bool half,
                  size_t position, float *x, size_t n)
{
    if (norm && norm->weight) cpu_norm_row(cpu, norm, half, x, x, n);
    if (!rope) return;
    const float *angles = cpu_vector(rope) + position * rope->cols;
    cpu->kernels->rotate(x, angles, angles + rope->cols / 2, half, rope->cols / 2);
}

static void store_heads(void *context, size_t begin, size_t end, int thread)
{
    (void)thread;
    const store_loop *a = context;
    const cpu_cache *cache = (const cpu_cache *)(const void *)a->cache;
    const size_t d = a->cache->head_dim, heads = a->cache->n_heads;
    for (size_t task = begin; task < end; task++) {
        const bg_sequence *s = &a->sequences[task / heads];
        const size_t head = task % heads, at = plane(a->cache, a->layer, s->slot, head);
        for (size_t i = 0; i < s->rows; i++) {
            const float *row = cpu_values(a->kv) + (s->first_row + i) * a->kv->cols;
            float *key = cache->keys + at + (s->past + i) * d;
            memcpy(key, row + a->key_col + head * d, d * sizeof(float));
            place(a->cpu, a->key_norm, a->rope, a->kv->half, s->past + i, key, d);
            memcpy(cache->values + at + (s->past + i) * d, row + a->value_col + head * d,
                   d * sizeof(float));
        }
    }
}

static void store(store_loop *loop, size_t n_sequences)
{
    size_t rows = 0, heads = loop->cache->n_heads;
    for (size_t i = 0; i < n_sequences; i++) rows += loop->sequences[i].rows;
    /* A decoding step's few rows are written sooner than another thread wakes up. */
    if (rows * heads * loop->cache->head_dim < 16384)
        store_heads(loop, 0, n_sequences * heads, 0);
    else
        bg_parallel_for(loop->cpu->threads, n_sequences * heads, 1, store_heads, loop);
}

static bg_status check_room(const bg_cache *cache, const bg_sequence *sequences, size_t n,
                            bool stored, bg_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const bg_sequence *s = &sequences[i];
        size_t end = stored ? s->keys : s->past + s->rows;
        if (end > cache->max_length || s->keys > end || s->slot >= cache->n_slots)
            return bg_fail(err, BG_ERR_INTERNAL, "attention: a sequence is longer than its cache");
    }
    return BG_OK;
}

bg_status cpu_store(bg_backend *backend, bg_cache *cache, size_t layer, const bg_act *kv,
                    size_t key_col, size_t value_col, const bg_sequence *sequences,
                    size_t n_sequences, bg_error *err)
{
    BG_TRY(check_room(cache, sequences, n_sequences, false, err));
    store_loop loop = {
        (cpu_backend *)backend, cache, layer, kv, key_col, value_col, NULL, NULL, sequences};
    store(&loop, n_sequences);
    return BG_OK;
}

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct {
    cpu_backend *cpu;
    const bg_attention *args;
} attention_loop;

/* scores (n, visible) = scale * q (n, head_dim; rows `stride` apart) times keys. In a 16-bit model
 * to the last bit, since a weight that is rounded to 16 bits may lie on the border of two. */
static void score(const attention_loop *loop, const float *q, size_t stride, size_t n,
                  const float *keys, size_t visible, float *scores)
{
    const bg_cpu_kernels *k = loop->cpu->kernels;
    const size_t d = loop->args->head_dim;
    const float scale = loop->args->scale;
    if (n > 1 && !loop->args->out->half) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n, (blasint)visible,
                    (blasint)d, scale, q, (blasint)stride, keys, (blasint)d, 0, scores,
                    (blasint)visible);
        return;
    }
    float (*const dot)(const float *, const float *, size_t) =
        loop->args->out->half ? k->dot_exact : k->dot;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < visible; j++)
            scores[i * visible + j] = scale * dot(q + i * stride, keys + j * d, d);
}

/* Scores to weights; returns what their product with the values is still to be divided by. */
static float weights(const attention_loop *loop, float *scores, size_t n)
{
    if (loop->args->out->half) return loop->cpu->kernels->exp_half(scores, n);
    loop->cpu->kernels->softmax(scores, n);
    return 1;
}

static void finish(const attention_loop *loop, float *out, float sum)
{
    if (!loop->args->out->half) return;
    for (size_t i = 0; i < loop->args->head_dim; i++) out[i] /= sum;
    loop->cpu->kernels->round_half(out, out, loop->args->head_dim);
}

/* Keys [first, end) that a query sees. */
typedef struct {
    size_t first, end;
} range;

static range visible_to(const bg_attention *a, const bg_sequence *s, size_t position)
{
    if (!a->causal) return (range){0, s->keys};
    size_t end = bg_min_size(bg_max_size(position + 1, s->prefix), s->keys);
    size_t first = a->window && position + 1 > a->window ? position + 1 - a->window : 0;
    return (range){bg_min_size(first, end), end};
}

/* scores[j] is of key first + j. */
static void add_bias(const bg_attention *a, size_t head, size_t position, size_t first, size_t n,
                     float *scores)
{
    const ptrdiff_t most = (ptrdiff_t)a->position_bias->cols / 2;
    const float *middle = cpu_vector(a->position_bias) + head * a->position_bias->cols + most;
    ptrdiff_t distance = (ptrdiff_t)first - (ptrdiff_t)position;
    for (size_t j = 0; j < n; j++, distance++)
        scores[j] += middle[distance < -most ? -most : distance > most ? most : distance];
}

/* One tile: n queries from position `position` on, in rows `stride` apart. */
static void attend_tile(const attention_loop *loop, const bg_sequence *s, size_t head,
                        size_t position, const float *q, size_t stride, size_t n, float *out,
                        float *scores)
{
    const bg_attention *a = loop->args;
    const bg_cpu_kernels *k = loop->cpu->kernels;
    const cpu_cache *cache = (const cpu_cache *)(const void *)a->cache;
    const size_t d = a->head_dim, out_cols = a->out->cols;
    const size_t at = plane(a->cache, a->layer, s->slot, head / (a->n_heads / a->n_kv_heads));
    range all = visible_to(a, s, position);
    all.end = visible_to(a, s, position + n - 1).end;
    const size_t visible = all.end > all.first ? all.end - all.first : 0;
    const float *keys = cache->keys + at + all.first * d;
    const float *values = cache->values + at + all.first * d;
    float sums[TILE];

    if (visible == 0) {
        for (size_t i = 0; i < n; i++) memset(out + i * out_cols, 0, d * sizeof(float));
        return;
    }
    score(loop, q, stride, n, keys, visible, scores);
    for (size_t i = 0; i < n; i++) {
        const range mine = visible_to(a, s, position + i);
        float *row = scores + i * visible;
        const size_t before = mine.first - all.first, count = mine.end - mine.first;
        if (a->position_bias) add_bias(a, head, position + i, all.first, visible, row);
        sums[i] = count ? weights(loop, row + before, count) : 1;
        memset(row, 0, before * sizeof(float));
        memset(row + before + count, 0, (visible - before - count) * sizeof(float));
    }
    if (n == 1) {
        memset(out, 0, d * sizeof(float));
        for (size_t j = 0; j < visible; j++) k->axpy(scores[j], values + j * d, out, d);
    } else {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)n, (blasint)d,
                    (blasint)visible, 1, scores, (blasint)visible, values, (blasint)d, 0, out,
                    (blasint)out_cols);
    }
    for (size_t i = 0; i < n; i++) finish(loop, out + i * out_cols, sums[i]);
}

static void attention_tasks(void *context, size_t begin, size_t end, int thread)
{
    const attention_loop *loop = context;
    const bg_attention *a = loop->args;
    const size_t d = a->head_dim, in_cols = a->qkv->cols;
    for (size_t task = begin; task < end; task++) {
        const bg_sequence *s = &a->sequences[task / a->n_heads];
        const size_t head = task % a->n_heads;
        float *q = cpu_values(a->qkv) + s->first_row * in_cols + a->query_col + head * d;
        float *out = cpu_values(a->out) + s->first_row * a->out->cols + head * d;
        for (size_t first = 0; first < s->rows; first += TILE) {
            const size_t n = bg_min_size(TILE, s->rows - first), position = s->past + first;
            for (size_t i = 0; i < n; i++)
                place(loop->cpu, &a->query_norm, a->rope, a->qkv->half, position + i,
                      q + (first + i) * in_cols, d);
            attend_tile(loop, s, head, position, q + first * in_cols, in_cols, n,
                        out + first * a->out->cols, loop->cpu->own[thread].data);
        }
    }
}

bg_status cpu_attention(bg_backend *backend, const bg_attention *args, bg_error *err)
{
    cpu_backend *cpu = (cpu_backend *)backend;
    size_t rows = 1;
    BG_TRY(check_room(args->cache, args->sequences, args->n_sequences, args->stored, err));
    for (size_t i = 0; i < args->n_sequences; i++)
        rows = bg_max_size(rows, bg_min_size(TILE, args->sequences[i].rows));
    BG_TRY(cpu_reserve_own(cpu, rows * args->cache->max_length, err));
    if (!args->stored) {
        store_loop loop = {cpu,
                           args->cache,
                           args->layer,
                           args->qkv,
                           args->key_col,
                           args->value_col,
                           &args->key_norm,
                           args->rope,
                           args->sequences};
        store(&loop, args->n_sequences);
    }
    attention_loop loop = {cpu, args};
    bg_parallel_for(cpu->threads, args->n_sequences * args->n_heads, 1, attention_tasks, &loop);
    return BG_OK;
}

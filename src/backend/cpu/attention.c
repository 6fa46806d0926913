/* softmax(scale * Q K^T + mask) V, over keys and values in the cache. One task is one key-value
 * head of one sequence: it writes its new keys and values, then serves its group of query heads. */
#include "backend/cpu/cpu.h"
#include "core/checked.h"

#include <cblas.h>
#include <string.h>

/* Queries in one tile: its scores against all keys are the working memory of a thread. */
enum { TILE = 64 };

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

static void attend(const attention_loop *loop, const bg_sequence *s, size_t kv_head, int thread)
{
    const bg_attention *a = loop->args;
    const bg_cpu_kernels *k = loop->cpu->kernels;
    const cpu_cache *cache = (const cpu_cache *)(const void *)a->cache;
    const size_t d = a->head_dim, in_cols = a->qkv->cols, out_cols = a->out->cols;
    const size_t plane = a->cache->max_length * d;
    const size_t at =
        ((a->layer * a->cache->n_slots + s->slot) * a->cache->n_heads + kv_head) * plane;
    float *keys = cache->keys + at, *values = cache->values + at;
    const float *in = cpu_values(a->qkv) + s->first_row * in_cols;

    for (size_t i = 0; i < s->rows; i++) {
        const float *row = in + i * in_cols;
        memcpy(keys + (s->past + i) * d, row + a->key_col + kv_head * d, d * sizeof(float));
        memcpy(values + (s->past + i) * d, row + a->value_col + kv_head * d, d * sizeof(float));
    }
    float *scores = loop->cpu->own[thread].data, sums[TILE];
    const size_t group = a->n_heads / a->n_kv_heads;
    for (size_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (size_t first = 0; first < s->rows; first += TILE) {
            size_t n = bg_min_size(TILE, s->rows - first);
            /* Keys that the last query of the tile may see, and so all that any of them may. */
            size_t visible = a->causal ? bg_min_size(s->past + first + n, s->keys) : s->keys;
            const float *q = in + first * in_cols + a->query_col + head * d;
            float *out = cpu_values(a->out) + (s->first_row + first) * out_cols + head * d;
            if (n == 1) {
                score(loop, q, in_cols, 1, keys, visible, scores);
                float sum = weights(loop, scores, visible);
                memset(out, 0, d * sizeof(float));
                for (size_t j = 0; j < visible; j++) k->axpy(scores[j], values + j * d, out, d);
                finish(loop, out, sum);
                continue;
            }
            score(loop, q, in_cols, n, keys, visible, scores);
            for (size_t i = 0; i < n; i++) {
                size_t mine = a->causal ? bg_min_size(s->past + first + i + 1, visible) : visible;
                float *row = scores + i * visible;
                sums[i] = weights(loop, row, mine);
                memset(row + mine, 0, (visible - mine) * sizeof(float));
            }
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)n, (blasint)d,
                        (blasint)visible, 1, scores, (blasint)visible, values, (blasint)d, 0, out,
                        (blasint)out_cols);
            for (size_t i = 0; i < n; i++) finish(loop, out + i * out_cols, sums[i]);
        }
    }
}

static void attention_tasks(void *context, size_t begin, size_t end, int thread)
{
    const attention_loop *loop = context;
    size_t heads = loop->args->n_kv_heads;
    for (size_t i = begin; i < end; i++)
        attend(loop, &loop->args->sequences[i / heads], i % heads, thread);
}

bg_status cpu_attention(bg_backend *backend, const bg_attention *args, bg_error *err)
{
    cpu_backend *cpu = (cpu_backend *)backend;
    size_t rows = 1;
    for (size_t i = 0; i < args->n_sequences; i++) {
        const bg_sequence *s = &args->sequences[i];
        rows = bg_max_size(rows, bg_min_size(TILE, s->rows));
        if (s->past + s->rows > args->cache->max_length || s->keys > s->past + s->rows)
            return bg_fail(err, BG_ERR_INTERNAL, "attention: a sequence is longer than its cache");
    }
    BG_TRY(cpu_reserve_own(cpu, rows * args->cache->max_length, err));
    attention_loop loop = {cpu, args};
    bg_parallel_for(cpu->threads, args->n_sequences * args->n_kv_heads, 1, attention_tasks, &loop);
    return BG_OK;
}

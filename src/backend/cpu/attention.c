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
    float *scores = loop->cpu->own[thread].data;
    const size_t group = a->n_heads / a->n_kv_heads;
    for (size_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (size_t first = 0; first < s->rows; first += TILE) {
            size_t n = bg_min_size(TILE, s->rows - first);
            /* Keys that the last query of the tile may see, and so all that any of them may. */
            size_t visible = a->causal ? bg_min_size(s->past + first + n, s->keys) : s->keys;
            const float *q = in + first * in_cols + a->query_col + head * d;
            float *out = cpu_values(a->out) + (s->first_row + first) * out_cols + head * d;
            if (n == 1) {
                for (size_t j = 0; j < visible; j++)
                    scores[j] = a->scale * k->dot(q, keys + j * d, d);
                k->softmax(scores, visible);
                memset(out, 0, d * sizeof(float));
                for (size_t j = 0; j < visible; j++) k->axpy(scores[j], values + j * d, out, d);
                continue;
            }
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n, (blasint)visible,
                        (blasint)d, a->scale, q, (blasint)in_cols, keys, (blasint)d, 0, scores,
                        (blasint)visible);
            for (size_t i = 0; i < n; i++) {
                size_t mine = a->causal ? bg_min_size(s->past + first + i + 1, visible) : visible;
                float *row = scores + i * visible;
                k->softmax(row, mine);
                memset(row + mine, 0, (visible - mine) * sizeof(float));
            }
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)n, (blasint)d,
                        (blasint)visible, 1, scores, (blasint)visible, values, (blasint)d, 0, out,
                        (blasint)out_cols);
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

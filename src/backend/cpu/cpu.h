/* The CPU backend: weights and activations in host memory, activations and sums in fp32. */
#ifndef BG_BACKEND_CPU_CPU_H
#define BG_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "core/threads.h"

bg_status bg_cpu_open(const char *device, int threads, bg_backend **out, bg_error *err);

/* ---- shared by the files of this folder ------------------------------------------------------ */

typedef struct {
    bg_weight base;
    bg_packed packed;
} cpu_weight;

typedef struct {
    bg_act base;
    float *values; /* (rows, cols) */
} cpu_act;

typedef struct {
    bg_cache base;
    float *keys, *values; /* (n_layers, n_slots, n_heads, max_length, head_dim) each */
} cpu_cache;

typedef struct {
    bg_ids base;
    int32_t *values; /* (rows) */
} cpu_ids;

typedef struct {
    float *data;
    size_t count;
} cpu_scratch;

typedef struct {
    bg_backend base;
    bg_threads *threads;
    const bg_cpu_kernels *kernels;
    bg_tally held;
    /* Room for one operation: `shared` for all threads, `own` one for each. They grow when an
     * operation wants more and stay. */
    cpu_scratch shared, int8, *own;
    cpu_act *logits; /* chunk of logits, for choose and score */
} cpu_backend;

static inline const bg_packed *cpu_packed(const bg_weight *w)
{
    return &((const cpu_weight *)(const void *)w)->packed;
}

static inline const float *cpu_vector(const bg_weight *w)
{
    return w ? cpu_packed(w)->codes : NULL;
}

static inline float *cpu_values(const bg_act *act)
{
    return ((const cpu_act *)(const void *)act)->values;
}

static inline int32_t *cpu_id_values(const bg_ids *ids)
{
    return ((const cpu_ids *)(const void *)ids)->values;
}

/* Grows a scratch to `count` floats. */
bg_status cpu_reserve(cpu_backend *cpu, cpu_scratch *scratch, size_t count, bg_error *err);
/* Grows the scratch of every thread. */
bg_status cpu_reserve_own(cpu_backend *cpu, size_t count, bg_error *err);

/* Aligned, zeroed memory that counts as held by the backend. */
void *cpu_alloc(cpu_backend *cpu, bg_use use, size_t bytes, const char *what, bg_error *err);
void cpu_release(cpu_backend *cpu, bg_use use, void *p, size_t bytes);

bg_status cpu_weight_create(bg_backend *backend, const bg_source *source, bg_format_id format,
                            bg_weight **out, bg_error *err);
void cpu_weight_free(bg_backend *backend, bg_weight *weight);
bg_status cpu_act_create(bg_backend *backend, size_t rows, size_t cols, bool half, bg_act **out,
                         bg_error *err);
bg_status cpu_linear(bg_backend *backend, const bg_linear *args, bg_error *err);
/* One row of cpu_norm; `out` may be `in`. */
void cpu_norm_row(const cpu_backend *cpu, const bg_norm *norm, bool half, const float *in,
                  float *out, size_t n);
bg_status cpu_attention(bg_backend *backend, const bg_attention *args, bg_error *err);
bg_status cpu_store(bg_backend *backend, bg_cache *cache, size_t layer, const bg_act *kv,
                    size_t key_col, size_t value_col, const bg_sequence *sequences,
                    size_t n_sequences, bg_error *err);
bg_status cpu_logits(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                     const bg_act *in, size_t n_rows, float *logits, bg_error *err);
bg_status cpu_choose(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                     const bg_act *in, size_t n_rows, const bg_choice *how, bg_ids *ids,
                     bg_error *err);
bg_status cpu_score(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                    const bg_act *in, size_t n_rows, const int32_t *targets, double *nll,
                    bg_error *err);

#endif

/* What the forward pass asks of a device. A backend is an object with the functions below; weights,
 * activations and caches are its own and live in its memory: nothing outside a backend looks into
 * them. Every function returns a status; work may be queued, and is finished when `synchronize`,
 * `act_read`, or a function that returns host values comes back; `ids_read` alone waits for no more
 * than what it reads.
 *
 * An activation is a matrix (rows, cols): one row for each token of the batch. Functions that take
 * n_rows work on the first n_rows of it. */
#ifndef BG_BACKEND_BACKEND_H
#define BG_BACKEND_BACKEND_H

#include "backend/usage.h"
#include "core/dtype.h"
#include "core/error.h"
#include "quant/format.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bg_backend bg_backend;

/* A matrix of weights in some format, or a vector as (1, n) in fp32. Each backend extends it. */
typedef struct {
    bg_format_id format;
    size_t rows, cols; /* (out_features, in_features) */
    size_t bytes;      /* held for it, scales included */
} bg_weight;

/* Each backend extends these, too. What is written to an activation that is `half` is rounded to
 * binary16, by every operation and between its steps as PyTorch rounds in a model of that type; a
 * backend may store it so. LLM.int8() is defined on such activations. */
typedef struct {
    size_t rows, cols;
    bool half;
} bg_act;

typedef struct {
    size_t n_layers, n_slots, max_length, n_heads, head_dim;
    size_t bytes;
} bg_cache;

/* Token ids that stay where they are chosen: an embedding may look them up, and the host read them.
 */
typedef struct {
    size_t rows;
} bg_ids;

/* Where a weight comes from: host memory, usually a mapped file. */
typedef struct {
    const char *name;  /* for errors */
    bg_dtype dtype;    /* a floating-point type */
    const void *data;  /* not necessarily aligned */
    size_t rows, cols; /* shape of the weight to make */
    bool transposed;   /* data is (cols, rows), as GPT-2's Conv1D stores it */
} bg_source;

typedef enum {
    BG_ACTIVATION_NONE,
    BG_ACTIVATION_RELU,
    BG_ACTIVATION_GELU,      /* x/2 (1 + erf(x/sqrt 2)) */
    BG_ACTIVATION_GELU_TANH, /* its tanh approximation */
    BG_ACTIVATION_GELU_NEW,  /* the same, but in a 16-bit model rounded at every step */
    BG_ACTIVATION_SILU,
    BG_ACTIVATION_TANH,
    BG_ACTIVATION_COUNT,
} bg_activation;

typedef enum {
    BG_NORM_LAYER,      /* (x - mean) / sqrt(variance + eps) * weight + bias */
    BG_NORM_RMS,        /* x / sqrt(mean of squares + eps) * weight */
    BG_NORM_RMS_OFFSET, /* ... * (1 + weight), as Gemma's */
} bg_norm_kind;

/* A norm, as far as it is the same for every layer. */
typedef struct {
    bg_norm_kind kind;
    const bg_weight *weight, *bias; /* (1, n); bias may be NULL */
    float eps;
} bg_norm;

/* One row of the sum that makes an embedding: scale * table[ids[i]]. */
typedef struct {
    const bg_weight *table; /* (n, hidden) */
    const int32_t *ids;     /* (n_rows), host memory, each in [0, table->rows) */
    const bg_ids *chosen; /* taken in their place where ids is NULL; an id that is not in the table
                             counts as 0 */
    float scale;
} bg_lookup;

/* One sequence of a batch. Its new tokens are `rows` consecutive rows of the activations. */
typedef struct {
    size_t first_row, rows;
    size_t slot;   /* of the cache */
    size_t past;   /* positions that the slot holds already */
    size_t keys;   /* positions, counted from 0, that may be attended to; the rest is padding */
    size_t prefix; /* positions that every token sees, though they come after it */
} bg_sequence;

/* softmax(scale * Q K^T + bias + mask) V. New queries and keys are first normed head by head, then
 * turned to their positions, where those are given; then keys and values are written to the cache
 * behind `past`, and attention goes over the cache. */
typedef struct {
    bg_act *qkv; /* queries, keys and values side by side; queries and keys may be changed: */
    size_t query_col, key_col, value_col;
    size_t n_heads, n_kv_heads, head_dim; /* n_heads is a multiple of n_kv_heads */
    bool stored;                  /* there are queries only: bg_backend_ops.store wrote the keys */
    bg_norm query_norm, key_norm; /* over head_dim; weight NULL: none */
    const bg_weight *rope; /* (positions, d): d/2 cosines, then sines, of the angle that the pair
                              (x[i], x[i + d/2]) of a head turns by; NULL: none */
    float scale;           /* of the scores */
    /* (n_heads, 2 D + 1): what is added to a score, from column D + (key's position - query's),
     * where distances beyond D count as D. NULL: nothing. */
    const bg_weight *position_bias;
    bool causal;
    size_t window; /* a query sees so many keys, its own the last; 0: all. Causal only */
    bg_cache *cache;
    size_t layer;
    const bg_sequence *sequences;
    size_t n_sequences;
    bg_act *out; /* (rows, n_heads * head_dim) */
} bg_attention;

typedef struct {
    const bg_weight *weight; /* (out, in) */
    const bg_weight *bias;   /* (1, out), or NULL */
    const bg_act *in;        /* (rows, in) */
    size_t n_rows;
    bool consumes; /* `in` is not read any more, until it is written again */
    /* LLM.int8(): the outlier columns of each sequence's rows are found by themselves, as if it was
     * run alone. The rows of all are n_rows. None: those of all rows together. */
    const bg_sequence *sequences;
    size_t n_sequences;
    bg_activation activation; /* applied after the bias */
    const bg_act *multiplier; /* (rows, out) multiplies that, or NULL; may be `out` */
    const bg_act *addend;     /* (rows, out) is added to that, or NULL; not `out`, and used up */
    const bg_act *residual;   /* (rows, out) added last, or NULL; may be `out` */
    bg_act *out;              /* columns [out_col, out_col + out features) are written */
    size_t out_col;
} bg_linear;

/* How a token is chosen from its logits. With a temperature of 0 it is that of the largest, the
 * lowest id on a tie. Else the logits are divided by the temperature, the top_k largest are kept
 * (0: all), then the smallest set whose probability reaches top_p, ordered by logit and then id,
 * and the number in [0, 1) of the row says which of them it is. */
typedef struct {
    /* (n_forbidden) host memory, each in [0, head->rows): their logits count as -infinity. */
    const int32_t *forbidden;
    size_t n_forbidden;
    double temperature;
    int top_k;
    double top_p;
    const double *uniform; /* (n_rows) host memory; temperature over 0 */
} bg_choice;

typedef struct {
    const char *name; /* "cpu" */
    /* Operations are queued: who reads a choice may have queued first what follows from it, and the
     * device is not idle meanwhile. */
    bool queues;

    void (*free)(bg_backend *backend);

    /* The instruction set or architecture in use: "avx512-vnni". Static or owned by the backend. */
    const char *(*isa)(const bg_backend *backend);
    int (*threads)(const bg_backend *backend);
    /* Names of the kernels that run for weights of a format: for one row (decoding) and for
     * several (prefill). */
    const char *(*kernel)(const bg_backend *backend, bg_format_id format, bool several_rows);
    /* About so many rows a pass should have where it may have many: more make it no faster. */
    size_t (*rows_at_once)(const bg_backend *backend);
    /* Memory in use. Strings are the backend's. */
    void (*usage)(bg_backend *backend, bg_usage *out);
    /* The device's energy counter, in joules since some fixed moment, all that runs on it included;
     * it may move only some times a second. Negative: there is none. */
    double (*joules)(bg_backend *backend);
    /* The device's own clock, in seconds since some fixed moment, read when all that was queued is
     * done. Negative: it has none. */
    double (*device_seconds)(bg_backend *backend);

    /* Matrices of about so many bytes are created next: room for all may be taken at once. */
    void (*expect)(bg_backend *backend, size_t bytes);
    /* Encodes a source in the wanted format, straight from where it lies. */
    bg_status (*weight_create)(bg_backend *backend, const bg_source *source, bg_format_id format,
                               bg_weight **out, bg_error *err);
    void (*weight_free)(bg_backend *backend, bg_weight *weight);

    bg_status (*act_create)(bg_backend *backend, size_t rows, size_t cols, bool half, bg_act **out,
                            bg_error *err);
    void (*act_free)(bg_backend *backend, bg_act *act);
    /* Copies host floats (n_rows, cols) to the first n_rows. */
    bg_status (*act_write)(bg_backend *backend, bg_act *act, size_t n_rows, const float *values,
                           bg_error *err);
    /* Copies the first n_rows to host floats (n_rows, cols). */
    bg_status (*act_read)(bg_backend *backend, const bg_act *act, size_t n_rows, float *values,
                          bg_error *err);

    bg_status (*cache_create)(bg_backend *backend, size_t n_layers, size_t n_slots,
                              size_t max_length, size_t n_heads, size_t head_dim, bg_cache **out,
                              bg_error *err);
    void (*cache_free)(bg_backend *backend, bg_cache *cache);

    bg_status (*ids_create)(bg_backend *backend, size_t rows, bg_ids **out, bg_error *err);
    void (*ids_free)(bg_backend *backend, bg_ids *ids);
    /* Waits for the last choice of the first n_rows, but not for what was queued after it, and
     * copies them to host memory. */
    bg_status (*ids_read)(bg_backend *backend, bg_ids *ids, size_t n_rows, int32_t *values,
                          bg_error *err);

    bg_status (*embed)(bg_backend *backend, const bg_lookup *lookups, size_t n_lookups,
                       size_t n_rows, bg_act *out, bg_error *err);
    /* `out` may be `in`. */
    bg_status (*norm)(bg_backend *backend, const bg_norm *norm, const bg_act *in, size_t n_rows,
                      bg_act *out, bg_error *err);
    bg_status (*linear)(bg_backend *backend, const bg_linear *args, bg_error *err);
    bg_status (*attention)(bg_backend *backend, const bg_attention *args, bg_error *err);
    /* Writes the keys and values of each sequence's rows of `kv` to a layer of the cache, behind
     * `past`, as they are. */
    bg_status (*store)(bg_backend *backend, bg_cache *cache, size_t layer, const bg_act *kv,
                       size_t key_col, size_t value_col, const bg_sequence *sequences,
                       size_t n_sequences, bg_error *err);
    /* out row out_rows[i] = scale * in row in_rows[i]; NULL rows are 0, 1, ...; `out` is not `in`.
     */
    bg_status (*copy_rows)(bg_backend *backend, const bg_act *in, const size_t *in_rows,
                           bg_act *out, const size_t *out_rows, size_t n_rows, float scale,
                           bg_error *err);

    /* Logits of rows of `in` under an output head, (n_rows, head->rows), into host memory. */
    bg_status (*logits)(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                        const bg_act *in, size_t n_rows, float *logits, bg_error *err);
    /* The id chosen for each row, to the first n_rows of `ids`; -1 where a logit is NaN. What was
     * queued starts, and is not waited for. */
    bg_status (*choose)(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                        const bg_act *in, size_t n_rows, const bg_choice *how, bg_ids *ids,
                        bg_error *err);
    /* For each row, -log softmax(logits)[targets[i]]. The logits are reduced where they arise. */
    bg_status (*score)(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                       const bg_act *in, size_t n_rows, const int32_t *targets, double *nll,
                       bg_error *err);

    bg_status (*synchronize)(bg_backend *backend, bg_error *err);
} bg_backend_ops;

struct bg_backend {
    const bg_backend_ops *ops;
};

/* For backends: what a cache of so many values of `value_bytes` is; its bytes are those of keys and
 * values. An error where it is larger than memory can be. */
bg_status bg_cache_measure(size_t n_layers, size_t n_slots, size_t max_length, size_t n_heads,
                           size_t head_dim, size_t value_bytes, bg_cache *out, bg_error *err);

/* Whether there is a device of the name that --device takes: "cpu", "cuda", which is the first GPU,
 * or "cuda:N". The error says why there is not. */
bg_status bg_backend_check(const char *device, bg_error *err);
/* Opens it; threads as in bg_threads_create. */
bg_status bg_backend_open(const char *device, int threads, bg_backend **out, bg_error *err);

#endif

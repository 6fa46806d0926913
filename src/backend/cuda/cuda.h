/* The CUDA backend, host side. Operations are not run when they are called: they are queued, each
 * as one or more nodes (what to launch, and with which arguments), and run when a result is asked
 * for. That is what lets a norm and the layers behind it become one kernel, and a decoding step one
 * graph that is launched with a single call: see queue.c.
 *
 *   device.c   opening, what a GPU is
 *   memory.c   memory, errors; arena.c
 *   measure.c  memory, energy and time as the driver tells them; nvml.c
 *   queue.c    the queue, the step's data, graphs
 *   weights.c  weights, activations and caches; ids.c, token ids that stay on the device
 *   ops.c      operations to nodes; the longer ones are linear.c (few rows), product.c (many),
 *              attention.c and head.c
 *   quantized.c  LLM.int8()'s activations; operand.c, those of 16 bits; ahead.c, weights of 4 bits
 *              that are decoded before their layer's turn
 *   matmul.c   cuBLASLt, loaded at run time
 *   *.cu       kernels; kernels.h is what they share with the host
 */
#ifndef BG_BACKEND_CUDA_CUDA_H
#define BG_BACKEND_CUDA_CUDA_H

#include "backend/cuda/arena.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/library.h"

#include <string.h>

typedef struct {
    bg_weight base;
    cuda_matrix matrix;
    void *memory; /* all arrays in one piece */
    size_t held;  /* bytes of it */
} cuda_weight;

typedef struct {
    bg_act base;
    float *values; /* (rows, cols) */
    bool rounded;  /* by the linear layer that wrote it last, whose operands had been rounded */
} cuda_act;

typedef struct {
    bg_cache base;
    float *keys, *values; /* (n_layers, n_slots, n_heads, max_length, head_dim) each */
} cuda_cache;

typedef struct {
    bg_ids base;
    int32_t *values; /* (rows) */
    /* The same in page-locked memory, where the host sees them come: until then they are
     * no id. */
    int32_t *seen;
    size_t n_chosen;     /* by the last choice */
    uint64_t written_by; /* its launch */
} cuda_ids;

/* ---- the queue ------------------------------------------------------------------------------- */

enum { MAX_NODES = 2048, MAX_GRAPHS = 64, MAX_SEEN = 128 };

/* A list of nodes that was run before. */
typedef struct {
    cudaGraphExec_t exec;
    cuda_node *nodes;
    cuda_node *there; /* planned, on the device */
    size_t n_nodes;
    uint64_t last_use;
} cuda_graph;

typedef struct {
    void *data;
    size_t bytes;
} cuda_room;

/* The step's data: positions, row numbers. Gathered in page-locked memory, and copied to the device
 * in one piece before the nodes run. */
typedef struct {
    char *host, *device;
    size_t bytes;
    uint64_t read_by; /* the last launch that reads it */
} cuda_step;

/* Two steps take turns; the last is for the rest of a pass that has begun early. */
enum { CUDA_STEPS = 3, CUDA_REST = 2 };

enum { CUDA_OPERANDS = 2 };

/* A linear layer of many rows as it is queued. */
typedef struct {
    cuda_matrix w;
    cuda_epilogue epilogue;
    const float *in; /* (n_rows, cols) */
    const void *x;   /* the same as an operand */
    size_t n_rows;
    cuda_type type;
    bool ready;    /* weights need no decoding */
    bool direct;   /* the library's result is the layer's */
    bool on_tiles; /* all sequences begin with multiples of CUDA_WIDE_ROWS */
    size_t panel;  /* rows of weights at a time */
    cuda_quantized quantized;
    size_t begin, end; /* its nodes */
} cuda_product_layer;

typedef struct cuda_matmul cuda_matmul;

/* What the driver is asked for. */
typedef struct {
    struct cuda_nvml *nvml; /* NULL: there is none */
    const char *no_energy;  /* why there is no energy counter; NULL: there is one */
    bool stranger;          /* NVML knows a process of this number, but it is another */
    bool by_process;        /* it tells what memory this process has */
    size_t available_at_start;
    bool known; /* the last reading: */
    size_t total, available, used;
    size_t peak;    /* the most of `used` */
    size_t read_at; /* the tally's peak at the last reading */
    cudaEvent_t marks[2];
    size_t n_marks;
    double seconds; /* from the first mark to the last */
} cuda_meter;

/* A kernel in the queue that may decode weights: which node, and how many products are queued
 * before it, and up to it. */
typedef struct {
    size_t node, before, through;
    cuda_spare spare;
    bool known; /* spare is */
} cuda_host;

/* Where in the room a layer's decoded weights are, in bytes, and which product reads them. */
typedef struct {
    size_t begin, end, reader;
} cuda_place;

enum { CUDA_HOSTS = 4, CUDA_PLACES = 32 };

/* ahead.c's: the last of these in a queue that was looked through so far before it is launched. */
typedef struct {
    uint64_t launched;
    size_t looked, products, n_hosts, n_places, next; /* next: in the room */
    cuda_host hosts[CUDA_HOSTS];
    cuda_place places[CUDA_PLACES];
    cuda_room room;
    bool refused;
} cuda_ahead;

typedef struct {
    bg_backend base;
    int index;
    char name[256], isa[32];
    cuda_launch launch;
    bg_tally held;
    cuda_arena weights;
    cudaError_t piece_error; /* why it got no piece */
    size_t refused;          /* bytes of the last allocation that failed */
    cuda_meter meter;

    cuda_node *nodes;   /* (MAX_NODES) */
    cuda_node *planned; /* the same with programs' plans */
    cuda_node *there;   /* the planned on the device, where there is no graph of them */
    unsigned *counters; /* CUDA_PROGRAM_COUNTERS zeros */
    float *parts;       /* of attention in programs, for each multiprocessor: all bits set */
    float *shares;      /* (CUDA_SHARES_FLOATS) sums of shares of a layer's columns in programs */
    size_t n_nodes;
    cuda_graph graphs[MAX_GRAPHS];
    uint64_t seen[MAX_SEEN];
    size_t n_seen;
    uint64_t uses;
    bool use_graphs, check_each;

    /* How many launches of the queue there were; how many are known to read nothing any more. */
    uint64_t launched, finished;

    /* One step's data is gathered while another's may still be read. */
    cuda_step steps[CUDA_STEPS], *step, *after_rest;
    cudaStream_t copies;
    cudaEvent_t copied;
    size_t step_bytes, step_capacity;
    size_t sequences_at, sequences_bytes; /* the last ones put there */

    /* Page-locked memory that kernels write results to. */
    char *results;
    size_t results_bytes;

    /* Room for one operation. Each grows when an operation wants more, and stays. */
    cuda_room operand[CUDA_OPERANDS], panel, product, quantized, outliers, logits, partial, halves;
    size_t starts_at;  /* in the step's data, where sequences began last */
    size_t widest;     /* columns of an activation */
    size_t least_rows; /* CUDA_LEAST_ROWS or fewer: see_length in weights.c */
    cuda_ahead ahead;

    cuda_product_layer last_product;
    float *tables; /* codes of nf4 and fp4, the dynamic map, reciprocals */
    cuda_matmul *matmul;
} cuda_backend;

/* Begins an operation: there is room then for so many bytes of step data (in at most four pieces)
 * and so many nodes, if need be because what was queued has been run. Whatever else may run the
 * queue, such as cuda_reserve, comes before this. */
bg_status cuda_begin(cuda_backend *cuda, size_t step_bytes, size_t n_nodes, bg_error *err);
/* Copies n bytes to the step's data; returns where they will be on the device. */
const void *cuda_put(cuda_backend *cuda, const void *data, size_t n);
/* The same with n zeros. */
void *cuda_put_zeros(cuda_backend *cuda, size_t n);
/* Adds a node; its arguments are all zero. */
cuda_node *cuda_push(cuda_backend *cuda, node_kind kind);
/* Runs everything that is queued. */
bg_status cuda_start(cuda_backend *cuda, bg_error *err);
/* The same where nothing runs, so that what follows is queued meanwhile: 12 to 25 us of the host's
 * for a small encoder. Before cuda_begin. */
bg_status cuda_start_early(cuda_backend *cuda, bg_error *err);
/* Runs everything that is queued, and waits for it. */
bg_status cuda_flush(cuda_backend *cuda, bg_error *err);
/* Until a kernel has written a word of page-locked memory, or nothing runs any more. */
bg_status cuda_look_for(cuda_backend *cuda, const int32_t *word, int32_t unwritten, bg_error *err);
/* The caller has seen the last kernel's result: nothing that was queued reads anything now. */
void cuda_has_finished(cuda_backend *cuda);
/* Runs all and waits before memory goes that what is queued or runs may use. A failure is reported
 * to who asks for its result. */
void cuda_run_first(cuda_backend *cuda);
bg_status cuda_queue_create(cuda_backend *cuda, bg_error *err);
void cuda_queue_free(cuda_backend *cuda);

/* ---- memory and errors ----------------------------------------------------------------------- */

/* Memory of the device; NULL with an error that says what was asked and what was free. */
void *cuda_take(cuda_backend *cuda, bg_use use, size_t bytes, const char *what, bg_error *err);
void cuda_give(cuda_backend *cuda, bg_use use, void *p, size_t bytes);
/* The same for working memory. */
void *cuda_alloc(cuda_backend *cuda, size_t bytes, const char *what, bg_error *err);
void cuda_release(cuda_backend *cuda, void *p, size_t bytes);
bg_status cuda_reserve(cuda_backend *cuda, cuda_room *room, size_t bytes, bg_error *err);
/* Page-locked room for results, as large as asked for. */
bg_status cuda_reserve_results(cuda_backend *cuda, size_t bytes, bg_error *err);
/* BG_OK, or the error in words. */
bg_status cuda_check(cudaError_t e, const char *what, bg_error *err);

/* ---- measuring ------------------------------------------------------------------------------- */

/* The GPU of that number as NVML knows it; to be closed. NULL, and why, where it does not. */
struct cuda_nvml *cuda_nvml_of(int index, const char **reason);
/* Before the device is opened, and after. */
void cuda_meter_prepare(cuda_backend *cuda);
void cuda_meter_start(cuda_backend *cuda);
void cuda_meter_free(cuda_backend *cuda);
/* Asks for the memory in use now. */
void cuda_meter_read(cuda_backend *cuda);
void cuda_usage(bg_backend *backend, bg_usage *out);
double cuda_joules(bg_backend *backend);
double cuda_device_seconds(bg_backend *backend);

/* Parts of `tables`. */
const float *cuda_code(const cuda_backend *cuda, bg_format_id format);
const float *cuda_map(const cuda_backend *cuda);
const float *cuda_reciprocals(const cuda_backend *cuda);

/* ---- operations ------------------------------------------------------------------------------ */

extern const bg_backend_ops cuda_ops;
bg_status cuda_open(int index, bg_backend **out, bg_error *err);
void cuda_free(bg_backend *backend);

bg_status cuda_weight_create(bg_backend *backend, const bg_source *source, bg_format_id format,
                             bg_weight **out, bg_error *err);
void cuda_weight_free(bg_backend *backend, bg_weight *weight);
/* Gives back the room that encoding took: the first activation means that loading is over. */
void cuda_end_loading(cuda_backend *cuda);
bg_status cuda_act_create(bg_backend *backend, size_t rows, size_t cols, bool half, bg_act **out,
                          bg_error *err);
void cuda_act_free(bg_backend *backend, bg_act *act);
bg_status cuda_act_write(bg_backend *backend, bg_act *act, size_t n_rows, const float *values,
                         bg_error *err);
bg_status cuda_act_read(bg_backend *backend, const bg_act *act, size_t n_rows, float *values,
                        bg_error *err);
bg_status cuda_cache_create(bg_backend *backend, size_t n_layers, size_t n_slots, size_t max_length,
                            size_t n_heads, size_t head_dim, bg_cache **out, bg_error *err);
void cuda_cache_free(bg_backend *backend, bg_cache *cache);

bg_status cuda_ids_create(bg_backend *backend, size_t rows, bg_ids **out, bg_error *err);
void cuda_ids_free(bg_backend *backend, bg_ids *ids);
bg_status cuda_ids_read(bg_backend *backend, bg_ids *ids, size_t n_rows, int32_t *values,
                        bg_error *err);
/* Before a launch that writes them. */
bg_status cuda_ids_await(cuda_backend *cuda, cuda_ids *ids, size_t n_rows, bg_error *err);

bg_status cuda_linear(bg_backend *backend, const bg_linear *args, bg_error *err);
/* The same where LLM.int8() tells sequences apart. */
bg_status cuda_linear_of_sequences(bg_backend *backend, const bg_linear *args, bg_error *err);
bg_status cuda_attention_op(bg_backend *backend, const bg_attention *args, bg_error *err);
bg_status cuda_store(bg_backend *backend, bg_cache *cache, size_t layer, const bg_act *kv,
                     size_t key_col, size_t value_col, const bg_sequence *sequences,
                     size_t n_sequences, bg_error *err);
bg_status cuda_logits(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                      const bg_act *in, size_t n_rows, float *logits, bg_error *err);
bg_status cuda_choose(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                      const bg_act *in, size_t n_rows, const bg_choice *how, bg_ids *ids,
                      bg_error *err);
bg_status cuda_score(bg_backend *backend, const bg_weight *head, const bg_weight *bias,
                     const bg_act *in, size_t n_rows, const int32_t *targets, double *nll,
                     bg_error *err);

/* ---- linear layers of many rows -------------------------------------------------------------- */

/* Whether a layer is multiplied in tiles or else by cuBLASLt, which is opened where tiles do not
 * take it; and the layer as a product, queued. */
bool cuda_product_fits(cuda_backend *cuda, const bg_linear *l);
/* Whether in tiles. */
bool cuda_product_tiles(const cuda_backend *cuda, const bg_linear *l);
bg_status cuda_product(cuda_backend *cuda, const bg_linear *l, bg_error *err);
/* The weights of a layer of 4 bits and so many rows become those that a kernel in the queue decodes
 * before, where one can; `joined`: the last node, where the layer becomes part of that, or NULL. */
void cuda_decode_ahead(cuda_backend *cuda, cuda_matrix *w, size_t n_rows,
                       const cuda_mma_args *joined);
/* What is multiplied there. */
cuda_type cuda_product_type(const bg_linear *l);
/* What a layer wants done with its product; *e is all zero before. */
void cuda_fill_epilogue(const bg_linear *l, cuda_epilogue *e);
/* Room for the codes of an int8 layer's input, of rows together or of its sequences. It stays where
 * it is until the next call. */
bg_status cuda_quantized_room(cuda_backend *cuda, size_t n_rows, size_t cols, cuda_quantized *q,
                              bg_error *err);
bg_status cuda_sequences_room(cuda_backend *cuda, const bg_linear *l, cuda_quantized *q,
                              bg_error *err);
/* The same for its outlier columns, gathered; those of a layer with a multiplier may be used
 * together with those of what it is multiplied by, if that is the layer before it. */
bg_status cuda_outliers_room(cuda_backend *cuda, const bg_linear *l, cuda_quantized *q,
                             bg_error *err);
/* What all of that takes of the step's data. */
size_t cuda_quantized_bytes(const bg_linear *l);
/* Where its sequences begin. */
bg_status cuda_put_starts(cuda_backend *cuda, const bg_linear *l, cuda_quantized *q, bg_error *err);
/* Queues what fills the codes and the mask, unless the last nodes do so for this very input. */
void cuda_quantize_input(cuda_backend *cuda, const bg_linear *l, cuda_quantized *q);
/* Queues what lists the outlier columns, unless that has been done; `clear` as in cuda_list_args.
 */
void cuda_list_outliers(cuda_backend *cuda, const bg_linear *l, const cuda_quantized *q,
                        bool clear);
/* Queues what gathers outlier columns, of the input unless that has been done. */
void cuda_gather_outliers(cuda_backend *cuda, const bg_linear *l, const cuda_quantized *q);
/* Whether a node may write to `count` values of an activation. */
bool cuda_may_write(cuda_node *n, const float *in, size_t count);

/* Room for so many numbers of a 16-bit type, before cuda_convert_input. */
bg_status cuda_operand_rooms(cuda_backend *cuda, size_t count, cuda_type type, bg_error *err);
/* A layer's input as an operand of a type, written by what is queued or by a node of its own. */
const void *cuda_convert_input(cuda_backend *cuda, const bg_linear *l, cuda_type type);

/* ---- cuBLASLt -------------------------------------------------------------------------------- */

/* Whether there is the library; nothing of the device is taken. */
bool cuda_matmul_exists(void);
/* The library, loaded on the first call; NULL where it is missing. */
cuda_matmul *cuda_matmul_get(cuda_backend *cuda);
void cuda_matmul_free(cuda_backend *cuda);
/* Whether it can do this product: int8 wants multiples of 16. */
bool cuda_matmul_fits(const cuda_gemm_args *args);
cudaError_t cuda_matmul_run(cuda_backend *cuda, const cuda_gemm_args *args);

static inline const cuda_matrix *cuda_matrix_of(const bg_weight *w)
{
    return &((const cuda_weight *)(const void *)w)->matrix;
}

static inline const float *cuda_vector(const bg_weight *w)
{
    return w ? (const float *)cuda_matrix_of(w)->codes : NULL;
}

static inline float *cuda_values(const bg_act *act)
{
    return ((const cuda_act *)(const void *)act)->values;
}

static inline void cuda_set_rounded(bg_act *act, bool rounded)
{
    ((cuda_act *)act)->rounded = rounded;
}

static inline bool cuda_is_rounded(const bg_act *act)
{
    return ((const cuda_act *)(const void *)act)->rounded;
}

static inline const cuda_ids *cuda_ids_of(const bg_ids *ids)
{
    return (const cuda_ids *)(const void *)ids;
}

static inline cuda_norm cuda_norm_of(const bg_norm *norm)
{
    cuda_norm n;
    memset(&n, 0, sizeof n); /* also what lies between its fields: nodes are compared as bytes */
    n.kind = norm->kind;
    n.weight = cuda_vector(norm->weight);
    n.bias = norm->kind == BG_NORM_LAYER ? cuda_vector(norm->bias) : NULL; /* others have none */
    n.eps = norm->eps;
    return n;
}

#endif

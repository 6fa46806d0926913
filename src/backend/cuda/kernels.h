/* What the host side and the kernels share: the arguments of each kernel, and the functions that
 * launch them. Pointers are to device memory. The arguments hold nothing that changes from one
 * decoding step to the next but for places that take turns: ids, positions and row numbers are read
 * from the step's data on the device, so that a step is the same list of launches as the one before
 * the last, and can be replayed as a graph. */
#ifndef BG_BACKEND_CUDA_KERNELS_H
#define BG_BACKEND_CUDA_KERNELS_H

#include "backend/backend.h"

#include <cuda_runtime_api.h>

/* The device's view of a bg_packed. */
typedef struct {
    const void *codes;
    const float *scales;
    const uint8_t *scale_codes;
    const float *scale_absmax;
    const float *scale_map; /* (256) */
    const float *code;      /* (16) values of the 4-bit codes */
    float scale_offset;
    float threshold; /* LLM.int8()'s, as bg_format has it; 0 for other formats */
    bg_format_id format;
    size_t rows, cols;
} cuda_matrix;

/* What a matrix product's operands are. */
typedef enum { CUDA_F32, CUDA_F16, CUDA_BF16, CUDA_I8 } cuda_type;

/* A second copy of what a kernel writes, of a 16-bit type and without gaps, because a matrix
 * product reads it next; out NULL: none. */
typedef struct {
    void *out;
    cuda_type type;
    bool alone; /* the first copy is not written: nobody reads it */
} cuda_operand;

/* How to launch. */
typedef struct {
    cudaStream_t stream;
    int multiprocessors;
    int max_shared; /* bytes that a block can have */
    /* Programmatic dependent launch (compute capability 9.0 and later): a kernel starts while the
     * one before it ends, and waits for its results where it needs them. */
    bool overlap;
    bool tensor_cores; /* products of 16 x 16 binary16 numbers: 8.0 and later */
    bool programs;     /* compute capability 8.0 and later */
    bool warpgroups;   /* products of warpgroups: compute capability 9.0 alone */
} cuda_launch;

enum { CUDA_MAX_LOOKUPS = 3, CUDA_MAX_PARTS = 4 };

typedef struct {
    cuda_matrix tables[CUDA_MAX_LOOKUPS];
    const int32_t *ids[CUDA_MAX_LOOKUPS];
    float scales[CUDA_MAX_LOOKUPS];
    size_t n_lookups, n_rows, cols;
    float *out;
    bool half;
} cuda_embed_args;

/* (n) each; weight NULL: no norm. */
typedef struct {
    bg_norm_kind kind;
    const float *weight, *bias;
    float eps;
} cuda_norm;

typedef struct {
    const float *in;
    float *out;
    const int32_t *in_rows, *out_rows; /* NULL: 0, 1, ... */
    size_t n_rows, cols;
    float scale;
    bool half;
} cuda_copy_args;

/* Ids that are chosen: which may not be, and where they go, on the device and for the host. */
typedef struct {
    const int32_t *forbidden; /* (n_forbidden) */
    size_t n_forbidden;
    int32_t *ids, *seen; /* (n_rows) */
    uint64_t *largest;   /* of the largest logits: (n_rows) zeros */
} cuda_choice;

/* ---- linear layers --------------------------------------------------------------------------- */

/* What becomes of a product, in the order of bg_linear. Matrices have rows `..._stride` apart. */
typedef struct {
    const float *bias;
    const float *multiplier, *addend, *residual;
    size_t multiplier_stride, addend_stride, residual_stride;
    bg_activation activation;
    bool half;
    float *out; /* at its first column */
    size_t out_stride;
} cuda_epilogue;

/* LLM.int8()'s activations, made by bg_cuda_quantize or a norm. Outlier columns are those of a
 * sequence, whose rows [starts[i], starts[i + 1]) are; one of all rows where `starts` is NULL. */
typedef struct {
    int8_t *codes;       /* (n_rows, cols) */
    float *absmax;       /* (n_rows) */
    int32_t *outliers;   /* (n_sequences, cols) their columns, ascending */
    int32_t *n_outliers; /* (n_sequences) */
    const int32_t *starts;
    int n_sequences;
    /* A bit for each column, set where it is one (n_sequences, cols / 32 rounded up); zeros before.
     * The lists above are made from it: by bg_cuda_list, or by bg_cuda_product_tile itself. */
    uint32_t *mask;
    /* For a library's product or one by warpgroups, by bg_cuda_gather: the outlier columns as
     * binary16, of the input (n_rows, room) and of a layer's weights (n_sequences, outputs, room),
     * of sequences that have no more than `room`, a multiple of 64. */
    void *outlier_in, *outlier_weights;
    size_t room;
} cuda_quantized;

/* Shares of a layer's columns at most. */
enum { CUDA_MOST_SHARES = 5 };

/* One to four layers of one input: query, key and value; or a pair, of which the first one's
 * result, not written, multiplies the second one's, activated. */
typedef struct {
    cuda_matrix w[CUDA_MAX_PARTS];
    cuda_epilogue epilogue[CUDA_MAX_PARTS];
    int n_parts;
    bool paired;
    const float *in; /* (n_rows, cols) */
    size_t n_rows, cols;
    /* With a norm, it is that of `in` (half or not as norm_half; one row, or in programs as many as
     * are multiplied at once) that is multiplied; it is also written to `normed`. */
    cuda_norm norm;
    bool norm_half;
    float *normed;
    cuda_quantized quantized; /* int8 with several rows, but for programs */
    const float *reciprocals; /* (1024), see cuda_encode_args */
    /* Programs: of each row's largest output, where that is all that comes next; ids NULL: none. */
    cuda_choice choice;
    /* Programs: the plan, bg_cuda_program_plan's. */
    uint32_t rows_at_once, row_shift; /* the former's logarithm, rounded up */
    uint32_t piece_steps, pieces;     /* of a tile */
    uint32_t sums_bytes;
    double inverse; /* of cols */
    /* The first block that has tiles; rows of a tile; tiles of each block, and blocks that have one
     * more; a part's first tile. */
    uint32_t first_block, tile_rows, tiles_each, tiles_extra, first_tile[CUDA_MAX_PARTS];
    /* Shares of the columns (0: one), each with as many blocks, which write its outputs so far from
     * the share's before; steps of a share. How many of them the epilogue's addend is the sum of,
     * but for the first, and how far they are from each other. */
    uint32_t shares, share_blocks, share_inverse, share_steps, more_addends;
    size_t share_stride, addends_stride;
} cuda_linear_args;

typedef struct {
    const float *in;
    size_t n_rows, cols;
    float threshold;
    const float *reciprocals;
    cuda_quantized out;
} cuda_quantize_args;

/* Lists the outlier columns. */
typedef struct {
    size_t n_rows, cols;
    bool clear; /* codes in outlier columns become 0; else who multiplies leaves them out */
    cuda_quantized quantized;
} cuda_list_args;

/* Fills outlier_in, if `input`, and outlier_weights; codes in outlier columns become 0. */
typedef struct {
    const float *in;
    size_t n_rows;
    cuda_matrix w;
    bool input;
    cuda_quantized quantized;
} cuda_gather_args;

typedef struct {
    cuda_norm norm;
    const float *in;
    float *out;
    size_t n_rows, cols;
    bool half;
    /* bg_cuda_norm_many alone: */
    cuda_operand operand;
    cuda_quantize_args quantize; /* of `out`; codes NULL: none */
} cuda_norm_args;

/* Activations as the operand of a matrix product. */
typedef struct {
    const float *in;
    void *out;
    size_t count;
    cuda_type type;
} cuda_convert_args;

/* Rows [first, first + n) of a matrix as such an operand. */
typedef struct {
    cuda_matrix w;
    void *out;
    size_t first, n_rows;
    cuda_type type;
} cuda_decode_args;

/* What products that are written as binary16 numbers are multiplied by: up to a million there are
 * no infinities, and what is lost below is a millionth. */
#define CUDA_HALF_SCALE 0.0625f

/* out (m, n) = x (m, k) w (n, k)^T + bias + residual; out is fp32, or int32 for int8, which has
 * neither bias nor residual. NULL: none. */
typedef struct {
    const void *x, *w;
    const float *bias, *residual;
    void *out;
    size_t m, n, k;
    size_t out_stride, residual_stride;
    cuda_type type;
    bool halves; /* out is binary16, times CUDA_HALF_SCALE; neither bias nor residual */
} cuda_gemm_args;

/* What multiplies a layer's results: the product of a layer of the same input, whose own results
 * are not wanted. */
typedef struct {
    const void *product; /* as the layer's; NULL: there is none, or not in memory either */
    cuda_matrix w;
    const float *bias;
    const void *outlier_weights;
} cuda_other_product;

/* The end of a linear layer whose product lies in memory: columns [first, first + n). */
typedef struct {
    const void *product; /* (n_rows, n) fp32, or int32 for int8; NULL: bg_cuda_wide_int8 makes it */
    cuda_matrix w;
    cuda_epilogue epilogue;
    const float *in;
    size_t in_stride;
    size_t n_rows, first, n;
    cuda_quantized quantized;
    /* The epilogue has a multiplier then. But for int8, both products are binary16 then, as
     * cuda_gemm_args has them. */
    cuda_other_product other;
    cuda_operand operand; /* of the epilogue's out; not for int8 */
} cuda_finish_args;

/* int8 layers of up to a thousand rows, all in one: up to four of one input. */
typedef struct {
    cuda_matrix w[CUDA_MAX_PARTS];
    cuda_epilogue epilogue[CUDA_MAX_PARTS];
    int n_parts;
    const float *in;
    size_t n_rows, cols;
    cuda_quantized quantized;
} cuda_tile_args;

/* 4-bit weights of layers to come (ahead.c), all of one format, that a kernel's blocks which have
 * nothing else to do decode to binary16; how many blocks of threads do so, and blocks of codes. */
enum { CUDA_MOST_COMING = 4 };

typedef struct {
    struct {
        const void *codes;
        const float *scales;
        const uint8_t *scale_codes;
        const float *scale_absmax;
        void *out;
        float scale_offset;
        uint32_t blocks;
    } w[CUDA_MOST_COMING];
    const float *code, *scale_map;
    uint32_t n, decoders, blocks;
} cuda_coming;

/* What a launch leaves idle: blocks of threads, and how many blocks of codes these decode before
 * the others are done. */
typedef struct {
    uint32_t decoders, blocks;
} cuda_spare;

/* Layers of 16 or 4 bits of a hundred rows or two, all in one: up to four of one input. */
typedef struct {
    cuda_matrix w[CUDA_MAX_PARTS];
    cuda_epilogue epilogue[CUDA_MAX_PARTS];
    int n_parts;
    const void *x;   /* (n_rows, cols) of bfloat16 where weights are, of binary16 elsewhere */
    const float *in; /* what it was made from */
    size_t n_rows, cols;
    cuda_operand operand; /* of the epilogue's out; one part only */
    cuda_coming coming;
} cuda_mma_args;

/* ---- attention ------------------------------------------------------------------------------- */

/* Values of a head, and parts of its keys, at most; and numbers that a block is sent by all parts
 * of its head: for each of two warps two of each, and together as many values as a head has. */
enum { MAX_HEAD_DIM = 256, CUDA_MOST_PARTS = 16 };
enum { CUDA_PART_FLOATS = MAX_HEAD_DIM + 2 * 2 * CUDA_MOST_PARTS };

/* A bg_sequence, in the step's data. */
typedef struct {
    int32_t first_row, rows, slot, past, keys, prefix;
} cuda_sequence;

typedef struct {
    float *qkv;
    size_t qkv_stride, query_col, key_col, value_col;
    size_t n_heads, n_kv_heads, head_dim;
    bool stored, half, out_half;
    bool rounded; /* all came from products whose operands had been rounded */
    cuda_norm query_norm, key_norm;
    const float *rope;
    size_t rope_dim;
    float scale;
    const float *position_bias;
    size_t bias_cols;
    bool causal;
    size_t window;
    /* One layer's planes: (n_slots, n_kv_heads, max_length, head_dim). */
    float *keys, *values;
    size_t max_length;
    const cuda_sequence *sequences;
    size_t n_sequences;
    size_t max_rows; /* of a sequence */
    size_t max_keys; /* rounded up, so that it stays the same for many steps */
    float *out;
    size_t out_stride;
    cuda_operand operand; /* bg_cuda_attend alone */
    /* No product follows at once, whose blocks would want room beside bg_cuda_attend's: these may
     * have a multiprocessor each. */
    bool alone;
    /* bg_cuda_attend_plan's: new keys and values are in qkv alone, and bg_cuda_attend writes them
     * to the cache; it turns the queries. */
    bool fresh, turn;
    /* bg_cuda_attend_wide's queries, keys and values, binary16 (rows, n_heads + 2 n_kv_heads,
     * head_dim), queries and keys turned: bg_cuda_place writes them besides, or bg_cuda_wide what
     * it has in place of qkv; NULL: none. */
    void *halves;
    /* Programs: heads that share keys; the logarithms of the parts of a head's keys, each with a
     * block, and of the lanes that share a key; a quarter of the rows of the cache that are in
     * shared memory at once; and inverses for program.cuh's divide. */
    uint32_t group, parts_shift, key_shift, ready_rows;
    uint32_t head_inverse, group_inverse, column_inverse;
    /* What parts send each other: CUDA_PART_FLOATS for each multiprocessor, all bits set, and so
     * again when it is done. */
    float *partial;
    /* bg_backend_ops.store: keys and values go to the cache as they are, and nothing else is done.
     */
    bool store_only;
    cuda_coming coming; /* bg_cuda_attend alone, in tiles */
} cuda_attention_args;

/* ---- the head -------------------------------------------------------------------------------- */

enum { CUDA_ARGMAX_PARTS = 32 };

typedef struct {
    const float *logits; /* (n_rows, cols) */
    size_t n_rows, cols;
    uint64_t *partial;      /* argmax: (n_rows, CUDA_ARGMAX_PARTS) */
    cuda_choice choice;     /* argmax */
    const int32_t *targets; /* score */
    double *nll;            /* score */
} cuda_head_args;

/* Sampling; bg_choice says what the numbers are. */
typedef struct {
    cuda_choice choice;
    const float *logits; /* (n_rows, cols) */
    size_t n_rows, cols, top_k;
    double temperature, top_p;
    const double *uniform; /* (n_rows) */
    void *room;            /* bg_cuda_sample_room's bytes */
} cuda_sample_args;

/* Scoring by panels of the vocabulary: columns [first, first + cols) of the logits. */
typedef struct {
    const float *logits; /* (n_rows, cols) */
    size_t n_rows, first, cols;
    size_t panel, n_panels;
    const int32_t *targets;
    float *maxima;   /* (n_rows, n_panels) */
    float *sums;     /* (n_rows, n_panels) of exp(logit - maximum) */
    float *expected; /* (n_rows) logits of the targets */
    double *nll;
} cuda_score_args;

/* Logits of a panel that bg_cuda_wide makes; rows of its two blocks that share weights. */
enum { CUDA_WIDE_COLS = 256, CUDA_WIDE_ROWS = 256 };

/* Products of many rows by binary16 weights that do not come to memory. Of a gated MLP what follows
 * does, silu(x w[0]^T) * (x w[1]^T); of the head what each panel of CUDA_WIDE_COLS logits adds to
 * `score`; of queries, keys and values what attention has of them, its `halves` and its cache. */
typedef struct {
    const void *x;    /* (n_rows, cols) binary16 */
    const void *w[2]; /* (rows, cols) each; the second one NULL: no gated MLP */
    size_t n_rows, rows, cols;
    float *out;
    size_t out_stride, first; /* the first of its columns that is written */
    cuda_operand operand;     /* of out */
    cuda_score_args score;
    cuda_attention_args attention; /* halves NULL: the head */
} cuda_wide_args;

/* ---- encoding -------------------------------------------------------------------------------- */

/* A panel of a weight: rows [first, first + n_rows), whose source lies on the device. */
typedef struct {
    cuda_matrix w;
    bg_dtype dtype;
    const void *source; /* (n_rows, cols), or transposed (cols, n_rows) */
    bool transposed;
    size_t first, n_rows;
    float *values;            /* (n_rows, cols) room for the widened source */
    const float *reciprocals; /* (1024) bg_gpu_reciprocal(1 + i / 1024) */
    /* What is written; w's own arrays, but not const. */
    void *codes;
    float *scales;
} cuda_encode_args;

/* Double quantization of all of a matrix's scales. */
typedef struct {
    const float *scales;
    size_t blocks;
    float offset;
    const float *map;
    uint8_t *scale_codes;
    float *scale_absmax;
} cuda_double_quant_args;

/* ---- nodes ----------------------------------------------------------------------------------- */

typedef enum {
    NODE_EMBED,
    NODE_NORM,
    NODE_NORM_MANY,
    NODE_COPY,
    NODE_LINEAR,
    NODE_QUANTIZE,
    NODE_LIST,
    NODE_GATHER,
    NODE_CONVERT,
    NODE_DECODE,
    NODE_GEMM,
    NODE_FINISH,
    NODE_TILE,
    NODE_MMA,
    NODE_PLACE,
    NODE_ATTEND,
    NODE_ATTEND_ONE,
    NODE_ARGMAX,
    NODE_SAMPLE,
    NODE_SCORE,
    NODE_SCORE_PANEL,
    NODE_SCORE_PANELS,
    NODE_WIDE,
    NODE_KINDS,
} node_kind;

/* Unused bytes are zero, so that nodes can be compared as bytes. */
typedef struct {
    node_kind kind;
    bool beside; /* of attention: the next, a layer, does not depend on it, and may run beside it */
    union {
        cuda_embed_args embed;
        cuda_norm_args norm;
        cuda_copy_args copy;
        cuda_linear_args linear;
        cuda_quantize_args quantize;
        cuda_list_args list;
        cuda_gather_args gather;
        cuda_convert_args convert;
        cuda_decode_args decode;
        cuda_gemm_args gemm;
        cuda_finish_args finish;
        cuda_tile_args tile;
        cuda_mma_args mma;
        cuda_attention_args attention;
        cuda_head_args head;
        cuda_sample_args sample;
        cuda_score_args score;
        cuda_wide_args wide;
    } args;
} cuda_node;

#ifdef __cplusplus
extern "C" {
#endif

/* Each launches its kernels and returns the launch's error. */
cudaError_t bg_cuda_embed(const cuda_embed_args *a, const cuda_launch *l);
cudaError_t bg_cuda_norm_rows(const cuda_norm_args *a, const cuda_launch *l);
/* The same for many rows, and with an operand or codes. Codes where bg_cuda_norm_quantizes. */
cudaError_t bg_cuda_norm_many(const cuda_norm_args *a, const cuda_launch *l);
bool bg_cuda_norm_quantizes(size_t cols);
cudaError_t bg_cuda_copy_rows(const cuda_copy_args *a, const cuda_launch *l);
cudaError_t bg_cuda_round(float *values, size_t n, const cuda_launch *l);
/* Whether bg_cuda_linear has a kernel that merges parts and norms for this format and row length;
 * if not, it does one part at a time, without a norm. */
bool bg_cuda_linear_merges(bg_format_id format, size_t cols, const cuda_launch *l);
/* Whether only a program can run it: a norm, or quantizing, of several rows, or quantizing one
 * that is too long for the kernel. */
bool bg_cuda_linear_needs_program(const cuda_linear_args *a, const cuda_launch *l);
/* Few rows: weights are decoded in registers. */
cudaError_t bg_cuda_linear(const cuda_linear_args *a, const cuda_launch *l);
cudaError_t bg_cuda_quantize(const cuda_quantize_args *a, const cuda_launch *l);
cudaError_t bg_cuda_list(const cuda_list_args *a, const cuda_launch *l);
cudaError_t bg_cuda_convert(const cuda_convert_args *a, const cuda_launch *l);
cudaError_t bg_cuda_decode(const cuda_decode_args *a, const cuda_launch *l);
cudaError_t bg_cuda_finish(const cuda_finish_args *a, const cuda_launch *l);
/* Up to LEAST_ROWS, in a model with long inputs fewer, a layer's weights are read once and
 * multiplied by each row. Up to some hundred rows are multiplied in tiles. Of what tiles do not
 * take, up to FEW_ROWS are multiplied by reading the weights again for every LEAST_ROWS, more as a
 * product of cuBLASLt or of warpgroups. */
enum { CUDA_LEAST_ROWS = 8, CUDA_FEW_ROWS = 64 };

/* Whether a layer is one for bg_cuda_product_tile. */
bool bg_cuda_product_tiles(const cuda_matrix *w, size_t n_rows, const cuda_launch *l);
cudaError_t bg_cuda_product_tile(const cuda_tile_args *a, const cuda_launch *l);
/* Whether a layer of this input's type is one for bg_cuda_product_mma. */
bool bg_cuda_product_mma_fits(const cuda_matrix *w, size_t n_rows, cuda_type type,
                              const cuda_launch *l);
cudaError_t bg_cuda_product_mma(const cuda_mma_args *a, const cuda_launch *l);
cuda_spare bg_cuda_product_mma_spare(const cuda_mma_args *a, const cuda_launch *l);
cudaError_t bg_cuda_gather(const cuda_gather_args *a, const cuda_launch *l);
cudaError_t bg_cuda_finish_int8(const cuda_finish_args *a, const cuda_launch *l);
/* Writes new keys and values to the cache, and turns the queries. */
cudaError_t bg_cuda_place(const cuda_attention_args *a, const cuda_launch *l);
/* Attention after bg_cuda_place, which is left out where `fresh`; any number of rows. */
cudaError_t bg_cuda_attend(const cuda_attention_args *a, const cuda_launch *l);
cuda_spare bg_cuda_attend_spare(const cuda_attention_args *a, const cuda_launch *l);
/* Fills in what bg_cuda_attend does itself of what bg_cuda_place would do. */
void bg_cuda_attend_plan(cuda_attention_args *a, const cuda_launch *l);
/* The same without tensor cores: for GPUs and heads that they do not do for. */
cudaError_t bg_cuda_attend_exact(const cuda_attention_args *a, const cuda_launch *l);
/* bg_cuda_attend's, where what bg_cuda_attends_flash says is true, which it may be asked of what
 * tensor cores can do: queries that fill the GPU, each factor one binary16 number. */
cudaError_t bg_cuda_attend_flash(const cuda_attention_args *a, const cuda_launch *l);
bool bg_cuda_attends_flash(const cuda_attention_args *a, const cuda_launch *l);
/* The same with products of warpgroups, for sequences that are whole, of so many rows together:
 * where it is true, `halves` says whether it is done. */
cudaError_t bg_cuda_attend_wide(const cuda_attention_args *a, const cuda_launch *l);
bool bg_cuda_attends_wide(const cuda_attention_args *a, size_t n_rows, const cuda_launch *l);
/* Both in one, where each sequence has one row and max_keys fits (bg_cuda_attends_one). */
cudaError_t bg_cuda_attend_one(const cuda_attention_args *a, const cuda_launch *l);
bool bg_cuda_attends_one(const cuda_attention_args *a);
cudaError_t bg_cuda_argmax(const cuda_head_args *a, const cuda_launch *l);
/* Working memory of bg_cuda_sample. */
cudaError_t bg_cuda_sample_room(size_t cols, size_t *bytes);
cudaError_t bg_cuda_sample(const cuda_sample_args *a, const cuda_launch *l);
cudaError_t bg_cuda_score(const cuda_head_args *a, const cuda_launch *l);
/* What a panel contributes, and the log-likelihoods when all have. */
cudaError_t bg_cuda_score_panel(const cuda_score_args *a, const cuda_launch *l);
cudaError_t bg_cuda_score_panels(const cuda_score_args *a, const cuda_launch *l);
cudaError_t bg_cuda_wide(const cuda_wide_args *a, const cuda_launch *l);
/* Whether products of such shapes are for bg_cuda_wide, or bg_cuda_wide_int8. */
bool bg_cuda_wide_fits(size_t n_rows, size_t rows, size_t cols, bool gated, const cuda_launch *l);
/* An int8 layer, product and end in one, and with that of a multiplier's that is `other`. */
cudaError_t bg_cuda_wide_int8(const cuda_finish_args *a, const cuda_launch *l);
/* Whether it is for that, where its sequences begin with multiples of CUDA_WIDE_ROWS. */
bool bg_cuda_wide_int8_fits(const cuda_finish_args *a, const cuda_launch *l);
cudaError_t bg_cuda_encode(const cuda_encode_args *a, const cuda_launch *l);
cudaError_t bg_cuda_double_quant(const cuda_double_quant_args *a, const cuda_launch *l);
/* Has the driver load these kernels, which it would otherwise with a model's first weight: their
 * code would count as weights. */
cudaError_t bg_cuda_encode_load(void);

/* Name of the kernel for few rows. */
const char *bg_cuda_linear_name(bg_format_id format);

#ifdef __cplusplus
}
#endif
#endif

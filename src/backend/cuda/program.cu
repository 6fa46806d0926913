/* Which nodes a program takes - all that a decoding step has - and how it runs them. */
#include "backend/cuda/program_kernel.cuh"

#include <algorithm>
#include <cstring>

static bool has_room(const cuda_program_room *room, const cuda_launch *l)
{
    return room->tables + LEAST_SLOTS * (size_t)room->piece_steps * room->step_bytes +
               room->bytes <=
           program_shared(l);
}

/* Steps of a piece, so that all warps have one where a block has few steps. */
static uint32_t piece_length(size_t steps, unsigned most)
{
    const size_t n = (steps + STEP_WARPS - 1) / STEP_WARPS;
    return (uint32_t)(n < most ? n : most);
}

/* Rows of a tile: with as few tiles for a block as 16 rows give it, but as low as they can be, so
 * that all blocks' shares are about equal. Fills in how the tiles lie on `units` blocks; returns
 * the most that one has. */
static size_t plan_tiles(cuda_linear_args &a, size_t units)
{
    const int n_parts = a.paired ? 1 : a.n_parts;
    size_t rows = 0, tiles = 0;
    for (int i = 0; i < n_parts; i++) rows += a.w[i].rows;
    const size_t each = (rows + TILE * units - 1) / (TILE * units);
    a.tile_rows = (uint32_t)((rows + each * units - 1) / (each * units));
    for (;; a.tile_rows++) {
        tiles = 0;
        for (int i = 0; i < CUDA_MAX_PARTS; i++) {
            a.first_tile[i] = i < n_parts ? (uint32_t)tiles : UINT32_MAX;
            if (i < n_parts) tiles += (a.w[i].rows + a.tile_rows - 1) / a.tile_rows;
        }
        if (tiles <= each * units || a.tile_rows == TILE) break;
    }
    a.tiles_each = (uint32_t)(tiles / units);
    a.tiles_extra = (uint32_t)(tiles % units);
    return (tiles + units - 1) / units * (a.paired ? 2 : 1);
}

/* Sums of a block's tiles: sums_of(t, n_tiles, ...).first. */
template <kind K> static size_t most_sums(const cuda_linear_args &a, size_t n_tiles)
{
    const bool joint =
        is_4bit(K) && a.rows_at_once <= PACKED_ROWS && may_be_joint(a.share_steps, a.piece_steps);
    const size_t abreast = n_tiles / STEP_WARPS * STEP_WARPS;
    return abreast * (joint ? 2 : 1) +
           (n_tiles - abreast) * std::min((size_t)a.pieces, (size_t)STEP_WARPS);
}

/* Of a model of 16-bit activations. Only programs of int8 weights have such layers. */
static bool is_half(const cuda_linear_args &a)
{
    bool half = a.norm.weight && a.norm_half;
    for (int i = 0; i < a.n_parts; i++) half |= a.epilogue[i].half;
    return half;
}

/* `busy`: blocks that have something else to do; the others have the layer. */
template <kind K>
static bool plan_kind(cuda_linear_args &a, const cuda_launch *l, size_t busy, unsigned most_steps,
                      cuda_program_room *room)
{
    using shape = step_shape<K>;
    const size_t all_steps = a.cols / shape::COLS, shares = std::max(a.shares, 1u);
    const size_t steps = all_steps / shares;
    if (a.cols % shape::COLS != 0 || a.cols >= 1 << 16) return false;
    if (shares > 1 && (!has_shares(K) || is_half(a) || all_steps % shares != 0)) return false;
    a.inverse = 1 / (double)a.cols;
    a.first_block = (uint32_t)busy;
    a.share_blocks = (uint32_t)(((size_t)l->multiprocessors - busy) / shares);
    if (a.share_blocks == 0) return false;
    a.share_inverse = inverse_of(a.share_blocks);
    a.share_steps = (uint32_t)steps;
    const size_t most = plan_tiles(a, a.share_blocks);
    if (is_half(a) && is_4bit(K)) return false;
    if (a.norm.weight && !a.norm_half && K == KIND_INT8) return false;
    for (size_t rows = MOST_ROWS; rows > 0; rows /= 2) {
        const size_t at_once = a.n_rows < rows ? a.n_rows : rows;
        /* One row's outlier columns are every row's. */
        if (K == KIND_INT8 && at_once < a.n_rows) return false;
        if (a.norm.weight && at_once < a.n_rows) return false;
        size_t input =
            staged_bytes(tile_shape<K>::PARTS, (unsigned)at_once, (unsigned)steps * shape::COLS);
        if (a.norm.weight) input += shared_norm_bytes((unsigned)at_once, (unsigned)a.cols);
        uint32_t row_shift = 0;
        while (1u << row_shift < at_once) row_shift++;
        for (uint32_t length = piece_length(most * steps, most_steps); length > 0; length--) {
            a.rows_at_once = (uint32_t)at_once;
            a.row_shift = row_shift;
            a.piece_steps = length;
            a.pieces = (uint32_t)((steps + length - 1) / length);
            /* A block with a tile less may have more sums. */
            size_t sums = most_sums<K>(a, most);
            const size_t less = a.paired ? 2 : 1;
            if (most > less) sums = std::max(sums, most_sums<K>(a, most - less));
            if (K == KIND_INT8) sums += most; /* products with outlier columns */
            a.sums_bytes = (uint32_t)aligned16(sums * (TILE << row_shift) * 4);
            const size_t tables =
                is_half(a) ? tile_shape<KIND_INT8>::TABLES : tile_shape<K>::TABLES;
            *room = {a.sums_bytes + input, tables, length, shape::PITCH};
            if (has_room(room, l)) return true;
        }
    }
    return false;
}

typedef bool (*plan_function)(cuda_linear_args &a, const cuda_launch *l, size_t busy,
                              unsigned most_steps, cuda_program_room *room);

/* What a format's values are multiplied by before they are rounded to fp16: fp4's are then exact
 * (twelfths), and of nf4's none is further off than 1.8e-4 of itself (3.3e-4 without). */
static const struct {
    const char *name; /* of what runs one row */
    plan_function plan;
    program_launch packed, launch;
    float code_scale;
} formats[BG_FORMAT_COUNT] = {
    /* fp32 */ {},
    {"program_fp16_cuda", plan_kind<KIND_F16>, program_f16_packed, program_f16, 1},
    {"program_bf16_cuda", plan_kind<KIND_BF16>, program_bf16_packed, program_bf16, 1},
    {"program_int8_cuda", plan_kind<KIND_INT8>, program_int8_packed, program_int8, 1},
    {"program_4bit_cuda", plan_kind<KIND_4BIT>, program_4bit_packed, program_4bit, 1.3662f},
    {"program_4bit_cuda", plan_kind<KIND_4BIT_DQ>, program_4bit_dq_packed, program_4bit_dq,
     1.3662f},
    {"program_4bit_cuda", plan_kind<KIND_4BIT>, program_4bit_packed, program_4bit, 12},
    {"program_4bit_cuda", plan_kind<KIND_4BIT_DQ>, program_4bit_dq_packed, program_4bit_dq, 12},
    {"program_int8_cuda", plan_kind<KIND_INT8>, program_int8_packed, program_int8, 1},
};

/* Lanes that share a key, each with up to KEY_FOURS of its fours: the logarithm. */
static uint32_t key_shift(size_t head_dim)
{
    uint32_t shift = LEAST_KEY_SHIFT;
    while ((size_t)4 * KEY_FOURS << shift < head_dim) shift++;
    return shift;
}

/* Into how many parts a head's keys are divided, for so many blocks at most: the logarithm.
 * `shares`: the other blocks have a layer. */
static uint32_t parts_shift(const cuda_attention_args &a, bool shares, size_t units)
{
    /* Adding up what parts have takes as long as so many times the keys at once, and a layer's time
     * on fewer blocks grows by that of so many. */
    enum { LEAST_TIMES = 6, LEAST_BESIDE = 24 };
    const size_t keys = STEP_THREADS >> a.key_shift, heads = a.n_heads * a.n_sequences;
    uint32_t shift = 0;
    if (a.max_keys < (shares ? LEAST_BESIDE : LEAST_TIMES) * keys) return 0;
    while (2u << shift <= CUDA_MOST_PARTS && heads << (shift + 1) <= units &&
           keys << (shift + 1) < a.max_keys)
        shift++;
    return shift;
}

/* Blocks that have some of a planned node, while the others may have a layer; a layer that only a
 * few could have is for all. */
static size_t busy_blocks(const cuda_node *node, const cuda_launch *l)
{
    if (!node) return 0;
    const cuda_attention_args &a = node->args.attention;
    const size_t busy = a.n_heads * a.n_sequences << a.parts_shift;
    return 2 * busy <= (size_t)l->multiprocessors ? busy : 0;
}

/* `shares`: a layer runs at the same time. */
static bool plan_attention(cuda_attention_args &a, bool shares, const cuda_launch *l,
                           cuda_program_room *room)
{
    /* A layer of several rows wants more room as well. */
    const size_t ready = program_shared(l) / 8 * (a.n_sequences < 4 ? 2 : 3);
    const size_t row = a.head_dim * sizeof(float);
    a.group = (uint32_t)(a.n_heads / a.n_kv_heads);
    a.key_shift = key_shift(a.head_dim);
    a.parts_shift = parts_shift(a, shares, (size_t)l->multiprocessors / (shares ? 2 : 1));
    const size_t at_once = STEP_THREADS >> a.key_shift;
    size_t rows = std::min(ready / row, 2 * a.max_keys) / STAGES;
    if (rows > at_once) rows -= rows % at_once;
    a.ready_rows = (uint32_t)rows;
    room->bytes = a.ready_rows * STAGES * row + a.max_keys * sizeof(float);
    a.head_inverse = inverse_of(a.n_heads);
    a.group_inverse = inverse_of(a.group);
    a.column_inverse = inverse_of(a.head_dim / 4);
    return rows > 0 && a.head_dim % 4 == 0 && a.qkv_stride % 4 == 0 && a.out_stride % 4 == 0 &&
           a.half == a.out_half;
}

static bool plan(cuda_node *node, const cuda_node *beside, const cuda_launch *l,
                 unsigned most_steps, cuda_program_room *room)
{
    switch (node->kind) {
    case NODE_EMBED:
        return node->args.embed.n_rows <= MOST_ROWS;
    case NODE_NORM:
        room->bytes = staged_bytes(PARTS_F16, 1, (unsigned)node->args.norm.cols);
        return node->args.norm.n_rows <= MOST_ROWS &&
               node->args.norm.n_rows <= (size_t)l->multiprocessors &&
               node->args.norm.cols % 4 == 0;
    case NODE_COPY:
        return node->args.copy.n_rows <= MOST_ROWS;
    case NODE_ATTEND_ONE:
        return plan_attention(node->args.attention, node->beside, l, room);
    case NODE_LINEAR: {
        const plan_function plans = formats[node->args.linear.w[0].format].plan;
        return plans && plans(node->args.linear, l, busy_blocks(beside, l), most_steps, room);
    }
    default:
        return false;
    }
}

bool bg_cuda_program_plan(cuda_node *node, const cuda_node *beside, const cuda_launch *l,
                          unsigned most_steps, cuda_program_room *room)
{
    *room = {};
    return l->programs && plan(node, beside, l, most_steps, room) && has_room(room, l);
}

bool bg_cuda_program_shares(cuda_program_room *room, const cuda_program_room *other,
                            const cuda_launch *l)
{
    const cuda_program_room both = {std::max(room->bytes, other->bytes),
                                    std::max(room->tables, other->tables),
                                    std::max(room->piece_steps, other->piece_steps),
                                    std::max(room->step_bytes, other->step_bytes)};
    if (!has_room(&both, l)) return false;
    *room = both;
    return true;
}

/* ---- shares of columns ----------------------------------------------------------------------- */

/* About how long the block that has most of a planned layer takes, in cycles: eight warps a step
 * each in what 4-bit codes' look-ups or 16-bit weights' way from memory take, and staging. */
static size_t estimate(const cuda_linear_args &a)
{
    enum { STEPS_CYCLES = 470, EIGHT_COLUMNS_CYCLES = 5 };
    const size_t tiles = a.tiles_each + (a.tiles_extra > 0), shares = std::max(a.shares, 1u);
    const size_t rest = tiles % STEP_WARPS * a.pieces;
    const size_t steps =
        tiles / STEP_WARPS * a.share_steps + (rest + STEP_WARPS - 1) / STEP_WARPS * a.piece_steps;
    return steps * STEPS_CYCLES + a.cols / shares * a.rows_at_once / 8 * EIGHT_COLUMNS_CYCLES;
}

bool bg_cuda_program_divide(cuda_node *layer, cuda_node *sum, const cuda_node *attention,
                            float *sums, const cuda_launch *l, unsigned most_steps,
                            cuda_program_room *room)
{
    const cuda_linear_args &whole = layer->args.linear;
    const cuda_epilogue &e = whole.epilogue[0];
    cuda_linear_args &next = sum->args.linear;
    cuda_epilogue &of_sum = next.epilogue[0];
    const size_t rows = whole.w[0].rows, count = whole.n_rows * rows;
    if (whole.n_parts > 1 || whole.norm.weight || e.activation != BG_ACTIVATION_NONE ||
        e.multiplier || e.addend || e.residual || sum->kind != NODE_LINEAR || next.n_parts > 1 ||
        of_sum.addend != e.out || next.n_rows != whole.n_rows || next.w[0].rows != rows ||
        is_half(next))
        return false;
    cuda_node best = *layer;
    cuda_program_room best_room = {};
    for (uint32_t shares = 2; shares <= CUDA_MOST_SHARES; shares++) {
        cuda_node divided = *layer;
        cuda_program_room its;
        divided.args.linear.shares = shares;
        if (shares * count > CUDA_SHARES_FLOATS ||
            !bg_cuda_program_plan(&divided, attention, l, most_steps, &its) ||
            !bg_cuda_program_shares(&its, room, l) ||
            divided.args.linear.rows_at_once != whole.rows_at_once ||
            estimate(divided.args.linear) >= estimate(best.args.linear))
            continue;
        best = divided;
        best_room = its;
    }
    cuda_linear_args &a = best.args.linear;
    if (a.shares < 2) return false;
    a.epilogue[0].out = sums;
    a.epilogue[0].out_stride = rows;
    a.share_stride = next.addends_stride = count;
    next.more_addends = a.shares - 1;
    of_sum.addend = sums;
    of_sum.addend_stride = rows;
    *layer = best;
    *room = best_room;
    return true;
}

/* ---- families of programs -------------------------------------------------------------------- */

const char *bg_cuda_program_name(bg_format_id format, const cuda_launch *l)
{
    enum { USUAL = 2048 };
    cuda_node node;
    cuda_program_room room;
    memset(&node, 0, sizeof node);
    node.kind = NODE_LINEAR;
    cuda_linear_args &a = node.args.linear;
    a.w[0].rows = a.w[0].cols = a.cols = USUAL;
    a.w[0].format = format;
    a.n_parts = 1;
    a.n_rows = 1;
    return bg_cuda_program_plan(&node, NULL, l, MOST_STEPS, &room) ? formats[format].name : NULL;
}

static bool is_packed(const cuda_node *linear)
{
    return linear->args.linear.rows_at_once <= PACKED_ROWS;
}

/* Whose programs run a layer: those of its weights, but for a spared one of a 16-bit model. */
static bg_format_id format_of(const cuda_node *linear)
{
    const cuda_linear_args &a = linear->args.linear;
    return is_half(a) ? BG_FORMAT_INT8 : a.w[0].format;
}

static bool is_16bit(const cuda_node *linear)
{
    return bg_formats[format_of(linear)].bits == 16;
}

/* The function that runs a program that a linear layer leads. */
static program_launch runs(const cuda_node *linear)
{
    return is_packed(linear) ? formats[format_of(linear)].packed
                             : formats[format_of(linear)].launch;
}

bool bg_cuda_program_leads(const cuda_node *linear, const cuda_node *other)
{
    return !other || (is_16bit(other) && !is_16bit(linear));
}

/* Attention in a 16-bit model is only in programs of int8 weights, and no other is. */
static bool fits(const cuda_node *linear, const cuda_node *other)
{
    if (other->kind != NODE_ATTEND_ONE) return true;
    return other->args.attention.half == bg_format_is_int8(format_of(linear));
}

bool bg_cuda_program_joins(const cuda_node *linear, const cuda_node *other)
{
    if (other->kind != NODE_LINEAR) return fits(linear, other);
    if (is_packed(linear) != is_packed(other)) return false;
    if (is_16bit(other) && !is_16bit(linear))
        return !other->args.linear.norm.weight || !bg_format_is_int8(format_of(linear));
    return runs(linear) == runs(other) &&
           linear->args.linear.w[0].code == other->args.linear.w[0].code;
}

/* Whether MOST_QUADS make a row short, of one that is normed, and USUAL_QUADS do not. */
static bool has_long_row(const cuda_linear_args &a)
{
    const size_t quads = a.cols / 4, threads = STEP_THREADS >> a.row_shift;
    return a.norm.weight && quads > USUAL_QUADS * threads && quads <= MOST_QUADS * threads;
}

/* Whether a block has tiles abreast. */
static bool has_abreast(const cuda_linear_args &a)
{
    const size_t tiles = a.tiles_each + (a.tiles_extra > 0);
    return (a.paired ? 2 : 1) * tiles >= STEP_WARPS;
}

cudaError_t bg_cuda_program(const cuda_node *host, const cuda_node *nodes, size_t n,
                            unsigned *counters, cuda_program_room room, const cuda_launch *l)
{
    const cuda_node *leader = NULL;
    bool long_rows = false, joint = false, single = false;
    for (size_t i = 0; i < n; i++) {
        if (host[i].kind != NODE_LINEAR) continue;
        if (bg_cuda_program_leads(&host[i], leader)) leader = &host[i];
        const cuda_linear_args &a = host[i].args.linear;
        long_rows |= has_long_row(a);
        if (bg_formats[a.w[0].format].bits > 4 || !has_abreast(a)) continue;
        (may_be_joint(a.share_steps, a.piece_steps) ? joint : single) = true;
    }
    if (!leader) return cudaErrorInvalidValue;
    const cuda_linear_args &a = leader->args.linear;
    const program_args args = {nodes,
                               (int)n,
                               counters,
                               a.w[0].code,
                               formats[format_of(leader)].code_scale,
                               1 / formats[format_of(leader)].code_scale,
                               a.w[0].scale_map,
                               a.reciprocals,
                               0,
                               room.piece_steps,
                               long_rows,
                               joint && !single};
    return runs(leader)(args, room.bytes, l);
}

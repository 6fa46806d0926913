/* Attention of many queries on tensor cores, scores never in memory. A block has some 16s of
 * queries of one head, and goes over the keys it sees in tiles, of which several warps for each 16
 * queries have a share each; what they find comes together at the end. With few warps for the same
 * queries less is read, with many there are more blocks and shorter ways: that is chosen by how
 * much of the GPU the queries fill.
 *
 * Where activations are fp32, each factor is two binary16 numbers: x = high + low / 2048, which is
 * 22 bits of it whatever its size, and low times low is left out. The largest score so far and the
 * sums that belong to it are carried along (FlashAttention, https://arxiv.org/abs/2205.14135).
 *
 * Where they are binary16, one number is all there is, and the keys are gone over twice, first for
 * each query's largest score: a weight is rounded after that was taken off.
 *
 * Blocks behind those of the sequences decode weights of layers to come (ahead.c).
 *
 * Where new keys and values are the cache's as they are, they are read from the activations, and
 * blocks write those of their own rows to the cache. */
#include "backend/cuda/attention_stage.cuh"
#include "backend/cuda/decode_share.cuh"
#include "backend/cuda/mma.cuh"
#include "backend/cuda/operand.cuh"

enum { GAP = 8 };

/* Blocks of codes, by a block that has no queries in the time of one that has. */
enum { MOST_DECODED = 512 };

/* DIM: columns of a head, rounded up. GROUPS of 16 queries; SPLIT warps for each of them, with KEYS
 * keys each of a tile. */
template <int DIM_, int GROUPS_, int SPLIT_, int KEYS_, bool HALF_> struct attend_shape {
    static constexpr int DIM = DIM_, GROUPS = GROUPS_, SPLIT = SPLIT_, KEYS = KEYS_;
    static constexpr bool HALF = HALF_;
    static constexpr int QUERIES = 16 * GROUPS, TILE = SPLIT * KEYS;
    static constexpr int PITCH = DIM + GAP, WARPS = GROUPS * SPLIT, THREADS = WARPS * WARP;
    static constexpr int PARTS = HALF ? 1 : 2; /* of a number */
    /* Scores of a tile that stays for both passes do, too, where they are few. */
    static constexpr bool STAYS = KEYS <= 16;
    static constexpr int QUERY_SIZE = QUERIES * PITCH, KEY_SIZE = TILE * PITCH;
    static constexpr int FOURS = DIM / 4, COLUMNS = DIM / 8;
    /* Rows that the threads bring at once, a four each. */
    static constexpr int BROUGHT = THREADS / FOURS;
    /* How many times they do so for the queries, and how many of them with the first keys. */
    static constexpr int OWN = (QUERIES + BROUGHT - 1) / BROUGHT, EARLY = OWN < 4 ? OWN : 4;
    static constexpr int STAGED = (QUERY_SIZE + 2 * KEY_SIZE) * PARTS * (int)sizeof(__half);
    /* What the warps found: largest scores, sums, results. */
    static constexpr int FOUND = WARPS * 16 * (PITCH + 2) * (int)sizeof(float);
    static constexpr int MOST_AT = STAGED; /* of binary16, between the passes */
    static constexpr int BOTH = STAGED + (HALF ? WARPS * 16 * (int)sizeof(float) : 0);
    static constexpr size_t SHARED = BOTH > FOUND ? BOTH : FOUND;
    /* Of a multiprocessor: with wide heads it is registers that are short. */
    static constexpr bool TWICE = 2 * (SHARED + 1024) <= 228 << 10;
    static constexpr int BLOCKS = TWICE && (DIM <= 80 || THREADS <= 128) ? 2 : 1;
};

/* Products of a warp's 16 queries with a tile's keys. */
template <typename S>
static __device__ __forceinline__ void multiply_keys(const __half *queries, const __half *keys,
                                                     float score[S::KEYS / 8][4])
{
    float cross[S::HALF ? 1 : S::KEYS / 8][4] = {};
#pragma unroll
    for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) score[j][i] = 0;
#pragma unroll 4
    for (int k = 0; k < S::DIM; k += 16) {
        uint32_t high[4], low[4];
        load_a(high, queries + k, S::PITCH);
        if (!S::HALF) load_a(low, queries + S::QUERY_SIZE + k, S::PITCH);
#pragma unroll
        for (int j = 0; j < S::KEYS / 8; j += 2) {
            uint32_t b[4];
            load_b_pair(b, keys + j * 8 * S::PITCH + k, S::PITCH);
            mma_half(score[j], high, b);
            mma_half(score[j + 1], high, b + 2);
            if (S::HALF) continue;
            mma_half(cross[j], low, b);
            mma_half(cross[j + 1], low, b + 2);
            load_b_pair(b, keys + S::KEY_SIZE + j * 8 * S::PITCH + k, S::PITCH);
            mma_half(cross[j], high, b);
            mma_half(cross[j + 1], high, b + 2);
        }
    }
    if (!S::HALF)
#pragma unroll
        for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) score[j][i] += cross[j][i] * (1 / LOW_SCALE);
}

/* Adds the products of a tile's weights with its values, `values` at the warp's first column. */
template <typename S>
static __device__ __forceinline__ void multiply_values(const float weight[S::KEYS / 8][4],
                                                       const __half *values, float y[S::COLUMNS][4])
{
    uint32_t high[S::KEYS / 16][4], low[S::HALF ? 1 : S::KEYS / 16][4];
#pragma unroll
    for (int t = 0; t < S::KEYS / 16; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float *p = &weight[2 * t + i / 2][i % 2 * 2];
            high[t][i] = half_pair(p[0], p[1]);
            /* At most 1, so that what is lost below binary16's smallest number does not matter. */
            if (!S::HALF) low[t][i] = half_pair(p[0] - round_half(p[0]), p[1] - round_half(p[1]));
        }
#pragma unroll
    for (int j = 0; j < S::COLUMNS; j += 2) {
        float cross[2][4] = {};
#pragma unroll
        for (int t = 0; t < S::KEYS / 16; t++) {
            uint32_t b[4];
            load_b_pair_transposed(b, values + t * 16 * S::PITCH + j * 8, S::PITCH);
            mma_half(y[j], high[t], b);
            mma_half(y[j + 1], high[t], b + 2);
            if (S::HALF) continue;
            mma_half(y[j], low[t], b);
            mma_half(y[j + 1], low[t], b + 2);
            load_b_pair_transposed(b, values + S::KEY_SIZE + t * 16 * S::PITCH + j * 8, S::PITCH);
            mma_half(cross[0], high[t], b);
            mma_half(cross[1], high[t], b + 2);
        }
        if (!S::HALF)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                y[j][i] += cross[0][i] * (1 / LOW_SCALE);
                y[j + 1][i] += cross[1][i] * (1 / LOW_SCALE);
            }
    }
}

/* A thread's two queries. */
struct query_pair {
    int position[2];
    key_range sees[2];
    float max[2], sum[2];
};

/* Scale, bias and mask. */
template <typename S>
static __device__ __forceinline__ void score_tile(const cuda_attention_args &a, size_t head,
                                                  const query_pair &q, int tile,
                                                  float score[S::KEYS / 8][4])
{
    const int first = tile + (int)threadIdx.x % 4 * 2;
    if (a.position_bias) {
#pragma unroll
        for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                score[j][i] = a.scale * score[j][i] +
                              bias_of(a, head, first + j * 8 + i % 2 - q.position[i / 2]);
    } else {
#pragma unroll
        for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) score[j][i] *= a.scale;
    }
#pragma unroll
    for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int key = first + j * 8 + i % 2;
            if (key < q.sees[i / 2].first || key >= q.sees[i / 2].end) score[j][i] = -INFINITY;
        }
}

/* Scores to weights, with the largest score as far as it is known; what was summed with a smaller
 * one is scaled to it. */
template <typename S>
static __device__ __forceinline__ void weigh_tile(query_pair &q, float score[S::KEYS / 8][4],
                                                  float y[S::COLUMNS][4])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if (!S::HALF) {
            float most = q.max[r];
#pragma unroll
            for (int j = 0; j < S::KEYS / 8; j++)
                most = fmaxf(most, fmaxf(score[j][r * 2], score[j][r * 2 + 1]));
            most = quad_max(most);
            const float rescale = q.max[r] == -INFINITY ? 0 : expf(q.max[r] - most);
            raise_max<S>(q, r, most, rescale, y);
        }
        const float most = q.max[r] == -INFINITY ? 0 : q.max[r]; /* then there is nothing to see */
#pragma unroll
        for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
            for (int i = r * 2; i < r * 2 + 2; i++) {
                const float w = expf(score[j][i] - most);
                q.sum[r] += w;
                score[j][i] = S::HALF ? round_half(w) : w;
            }
    }
}

/* ---- what the warps found -------------------------------------------------------------------- */

/* For each 16 queries and each of their warps: results (16, PITCH), and behind them all the largest
 * scores and the sums (16 each). */
template <typename S> struct findings {
    float *results, *most, *sums;

    __device__ __forceinline__ explicit findings(void *room)
        : results((float *)room), most(results + S::WARPS * 16 * S::PITCH),
          sums(most + S::WARPS * 16)
    {
    }
};

template <typename S>
static __device__ __forceinline__ void
put_findings(const findings<S> &f, int warp, const query_pair &q, const float y[S::COLUMNS][4])
{
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = warp * 16 + lane / 4 + r * 8;
        const float sum = quad_sum(q.sum[r]);
        if (lane % 4 == 0) {
            f.most[row] = q.max[r];
            f.sums[row] = sum;
        }
#pragma unroll
        for (int j = 0; j < S::COLUMNS; j++)
            *(float2 *)(f.results + row * S::PITCH + j * 8 + lane % 4 * 2) =
                make_float2(y[j][r * 2], y[j][r * 2 + 1]);
    }
}

/* The largest score of a query, row `row` of its group, in all of the group's warps. */
template <typename S>
static __device__ __forceinline__ float most_of(const float *most, int group, int row)
{
    float x = most[group * S::SPLIT * 16 + row];
#pragma unroll
    for (int i = 1; i < S::SPLIT; i++) x = fmaxf(x, most[(group * S::SPLIT + i) * 16 + row]);
    return x;
}

/* A query's largest score in all keys, for each of its warps. */
template <typename S>
static __device__ __forceinline__ void share_most(query_pair &q, int warp, float *most)
{
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float x = quad_max(q.max[r]);
        if (lane % 4 == 0) most[warp * 16 + lane / 4 + r * 8] = x;
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; r++) q.max[r] = most_of<S>(most, warp / S::SPLIT, lane / 4 + r * 8);
}

/* Four columns of a query's result. */
template <typename S>
static __device__ __forceinline__ float4 gather(const findings<S> &f, int query, int c)
{
    const int group = query / 16, row = query % 16;
    const float most = most_of<S>(f.most, group, row);
    float4 y = make_float4(0, 0, 0, 0);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < S::SPLIT; i++) {
        const int at = (group * S::SPLIT + i) * 16 + row;
        const float4 x = *(const float4 *)(f.results + at * S::PITCH + c);
        float share = 1; /* all weights were made with the same largest score */
        if (!S::HALF) share = f.most[at] == -INFINITY ? 0 : expf(f.most[at] - most);
        sum = __fmaf_rn(share, f.sums[at], sum);
        y.x = __fmaf_rn(share, x.x, y.x);
        y.y = __fmaf_rn(share, x.y, y.y);
        y.z = __fmaf_rn(share, x.z, y.z);
        y.w = __fmaf_rn(share, x.w, y.w);
    }
    if (S::HALF)
        return make_float4(round_half(y.x / sum), round_half(y.y / sum), round_half(y.z / sum),
                           round_half(y.w / sum));
    const float inverse = 1.0f / sum;
    return make_float4(y.x * inverse, y.y * inverse, y.z * inverse, y.w * inverse);
}

template <typename S>
static __global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    attend_mma(const __grid_constant__ cuda_attention_args a)
{
    if (!MMA) return; /* bg_cuda_attend does not come here then */
    if (blockIdx.z >= a.n_sequences) {
        const unsigned layer = blockIdx.z - (unsigned)a.n_sequences;
        decode_share<S::THREADS>(a.coming,
                                 (layer * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
        return;
    }
    extern __shared__ __align__(16) __half room[];
    __half *queries = room, *keys = queries + S::QUERY_SIZE * S::PARTS;
    __half *values = keys + S::KEY_SIZE * S::PARTS;
    const findings<S> found(room);
    /* The step's data are older than all that is queued. */
    const cuda_sequence s = a.sequences[blockIdx.z];
    /* The last queries see the most keys: they begin first. */
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * S::QUERIES, d = (int)a.head_dim;
    const size_t head = blockIdx.y, sharing = a.n_heads / a.n_kv_heads;
    const int last = min(first + S::QUERIES, s.rows) - 1;
    const int warp = (int)threadIdx.x / WARP, group = warp / S::SPLIT,
              lane = (int)threadIdx.x % WARP;
    const int share = warp % S::SPLIT * S::KEYS; /* where in a tile the warp's keys are */
    const int own = first + group * 16 + lane / 4;
    const int column = (int)threadIdx.x % S::FOURS * 4, brought = (int)threadIdx.x / S::FOURS;
    const key_rows rows = rows_of(a, s, head / sharing, column);
    query_pair q;
    for (int r = 0; r < 2; r++) {
        q.position[r] = s.past + min(own + r * 8, last);
        q.sees[r] = visible_to(a, s, q.position[r]);
        q.max[r] = -INFINITY;
        q.sum[r] = 0;
    }
    const int begin = visible_to(a, s, s.past + first).first;
    const int end = visible_to(a, s, s.past + last).end;
    const int group_end = visible_to(a, s, s.past + min(first + group * 16 + 15, last)).end;
    let_next_start();
    wait_for_earlier();
    if (first >= s.rows) return;

    const float *query =
        a.qkv + (size_t)(s.first_row + first) * a.qkv_stride + a.query_col + head * a.head_dim;
    const int n_own = brought < S::BROUGHT && column < d ? last - first + 1 : 0;
    float4 early[S::EARLY];
#pragma unroll
    for (int i = 0; i < S::EARLY; i++) {
        const int row = brought + i * S::BROUGHT;
        early[i] =
            row < n_own ? query_at(a, query, s.past + first, row, column) : make_float4(0, 0, 0, 0);
    }
#pragma unroll 1
    for (int row = brought + S::EARLY * S::BROUGHT; row < S::QUERIES && brought < S::BROUGHT;
         row += S::BROUGHT)
        put_values<S>(queries + row * S::PITCH + column, S::QUERY_SIZE,
                      row < n_own ? query_at(a, query, s.past + first, row, column)
                                  : make_float4(0, 0, 0, 0));
    float y[S::COLUMNS][4] = {};
    float score[S::KEYS / 8][4];
    const bool once = end - begin <= S::TILE; /* then a tile stays for both passes */
    constexpr int first_pass = S::HALF ? 0 : 1;
    const bool kept = a.fresh && head % sharing == 0;
    const key_range own_keys = {kept ? s.past + first : 0, kept ? s.past + last + 1 : 0};
    for (int pass = first_pass; pass < 2; pass++) {
        for (int tile = begin; tile < end; tile += S::TILE) {
            if (pass == first_pass || !once) {
                __syncthreads();
                stage_tile<S>(keys, values, rows, tile, min(S::TILE, end - tile), pass == 1 || once,
                              own_keys);
                if (tile == begin && pass == first_pass && brought < S::BROUGHT) {
#pragma unroll
                    for (int i = 0; i < S::EARLY; i++) {
                        const int row = brought + i * S::BROUGHT;
                        if (row < S::QUERIES)
                            put_values<S>(queries + row * S::PITCH + column, S::QUERY_SIZE,
                                          early[i]);
                    }
                }
                __syncthreads();
            }
            if (tile + share >= group_end) continue;
            if (pass == first_pass || !once || !S::STAYS) {
                multiply_keys<S>(queries + group * 16 * S::PITCH, keys + share * S::PITCH, score);
                score_tile<S>(a, head, q, tile + share, score);
            }
            if (pass == 0) {
#pragma unroll
                for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
                    for (int i = 0; i < 4; i++) q.max[i / 2] = fmaxf(q.max[i / 2], score[j][i]);
                continue;
            }
            weigh_tile<S>(q, score, y);
            multiply_values<S>(score, values + share * S::PITCH, y);
        }
        if (pass == 0) share_most<S>(q, warp, (float *)((char *)room + S::MOST_AT));
    }
    __syncthreads();
    put_findings<S>(found, warp, q, y);
    __syncthreads();
#pragma unroll 1
    for (int row = brought; row < n_own; row += S::BROUGHT) {
        const key_range sees = visible_to(a, s, s.past + first + row);
        const size_t to =
            (size_t)(s.first_row + first + row) * a.out_stride + head * a.head_dim + (size_t)column;
        float4 x = make_float4(0, 0, 0, 0);
        if (sees.end > sees.first) x = gather<S>(found, row, column);
        if (!a.operand.alone) *(float4 *)(a.out + to) = x;
        if (a.operand.out) put_four(a.operand.type, a.operand.out, to, x);
    }
}

template <typename S> static bool fits(const cuda_launch *l)
{
    return S::SHARED <= (size_t)l->max_shared;
}

template <typename S>
static cudaError_t launch_shape(const cuda_attention_args *a, const cuda_launch *l)
{
    static_assert(MOST_DECODED * SHARE_BYTES <= S::SHARED, "a decoder's share has room");
    dim3 grid(blocks_for(a->max_rows, S::QUERIES), (unsigned)a->n_heads, (unsigned)a->n_sequences);
    if (a->coming.n > 0) grid.z += blocks_for(a->coming.decoders, grid.x * grid.y);
    const size_t shared = a->alone ? shared_alone(S::SHARED, grid, l) : S::SHARED;
    return launch(attend_mma<S>, grid, S::THREADS, shared, *a, l);
}

/* The shapes by the largest head they take and the queries of a block, for fp32 and for binary16.
 */
#define SHAPE(dim, groups, split, keys)                                                            \
    {                                                                                              \
        dim, groups * 16,                                                                          \
            {attend_shape<dim, groups, split, keys, false>::BLOCKS,                                \
             attend_shape<dim, groups, split, keys, true>::BLOCKS},                                \
            {fits<attend_shape<dim, groups, split, keys, false>>,                                  \
             fits<attend_shape<dim, groups, split, keys, true>>},                                  \
        {                                                                                          \
            launch_shape<attend_shape<dim, groups, split, keys, false>>,                           \
                launch_shape<attend_shape<dim, groups, split, keys, true>>                         \
        }                                                                                          \
    }

static const struct {
    size_t head_dim, queries;
    size_t at_once[2]; /* blocks of a multiprocessor */
    bool (*fits[2])(const cuda_launch *l);
    cudaError_t (*launch[2])(const cuda_attention_args *a, const cuda_launch *l);
} shapes[] = {
    SHAPE(64, 4, 2, 32),  SHAPE(64, 2, 4, 32),  SHAPE(64, 1, 8, 16),  SHAPE(80, 4, 2, 32),
    SHAPE(80, 2, 4, 32),  SHAPE(80, 1, 8, 16),  SHAPE(128, 4, 2, 32), SHAPE(128, 2, 4, 16),
    SHAPE(128, 1, 4, 16), SHAPE(256, 4, 2, 16), SHAPE(256, 2, 4, 16), SHAPE(256, 1, 4, 16),
};

enum { SHAPES = sizeof shapes / sizeof *shapes };

static size_t blocks_of(const cuda_attention_args *a, int shape)
{
    return blocks_for(a->max_rows, shapes[shape].queries) * a->n_heads * a->n_sequences;
}

/* Of those that the head's size and the GPU allow, the one with the most queries that fills it, or
 * the one with the fewest; -1: none. */
static int choose(const cuda_attention_args *a, const cuda_launch *l)
{
    int best = -1;
    if (!l->tensor_cores || !attends_in_line(a)) return best;
    for (int i = 0; i < SHAPES; i++) {
        if (shapes[i].head_dim < a->head_dim || !shapes[i].fits[a->out_half](l)) continue;
        if (best >= 0 && shapes[best].head_dim != shapes[i].head_dim) break;
        best = i;
        if (blocks_of(a, i) >= (size_t)l->multiprocessors) break;
    }
    return best;
}

void bg_cuda_attend_plan(cuda_attention_args *a, const cuda_launch *l)
{
    if (choose(a, l) < 0) return;
    a->fresh = !a->stored && !a->rope && !a->query_norm.weight && !a->key_norm.weight;
    a->turn = a->rope && !a->query_norm.weight && a->rope_dim % 8 == 0 &&
              (uintptr_t)a->rope % sizeof(float4) == 0;
}

/* The shape of this file's kernel; -1: another one attends. */
static int chosen(const cuda_attention_args *a, const cuda_launch *l)
{
    const int shape = choose(a, l);
    return shape < 0 || a->halves || bg_cuda_attends_flash(a, l) ? -1 : shape;
}

cuda_spare bg_cuda_attend_spare(const cuda_attention_args *a, const cuda_launch *l)
{
    const int shape = chosen(a, l);
    if (shape < 0) return (cuda_spare){0, 0};
    const size_t taken = blocks_of(a, shape);
    const size_t room = shapes[shape].at_once[a->out_half] * (size_t)l->multiprocessors;
    const uint32_t decoders = taken > 0 && taken < room ? (uint32_t)(room - taken) : 0;
    return (cuda_spare){decoders, decoders * MOST_DECODED};
}

cudaError_t bg_cuda_attend(const cuda_attention_args *a, const cuda_launch *l)
{
    const int shape = chosen(a, l);
    if (shape >= 0) return shapes[shape].launch[a->out_half](a, l);
    if (a->coming.n > 0) return cudaErrorInvalidValue; /* nobody would decode it */
    if (a->halves) return bg_cuda_attend_wide(a, l);
    return choose(a, l) >= 0 ? bg_cuda_attend_flash(a, l) : bg_cuda_attend_exact(a, l);
}

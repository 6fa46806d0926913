/* Attention of so many queries that they fill the GPU, each factor one binary16 number, scores
 * never in memory (FlashAttention, https://arxiv.org/abs/2205.14135). A block has 128 queries, of
 * up to four heads that share keys: what it reads of those, it reads for all. A warp has 16 of
 * them. Keys and values come two tiles ahead (cp.async), and become binary16 numbers on the way
 * from one place in shared memory to another.
 *
 * Activations that are binary16 lose nothing. Those that are fp32 are rounded here where they are
 * results of products whose operands were rounded to 16 bits, or fewer, themselves: an input off by
 * 2^-12 of itself (the root of its mean square) makes the queries, keys and values off by as much
 * of a sum's terms, of which the sum is no more than all. What this adds is of the same size, once,
 * and of the weights, which are at most 1. Results of exact products go to attention_mma.cu. Values
 * below 2^-14 lose more than that, and those beyond binary16's become its largest.
 *
 * For binary16 activations the keys are gone over twice, first for each query's largest score: a
 * weight is rounded after that was taken off. */
#include "backend/cuda/attention_stage.cuh"
#include "backend/cuda/copy.cuh"
#include "backend/cuda/mma.cuh"
#include "backend/cuda/operand.cuh"

enum { GAP = 8, MOST_HEADS = 4, AT_ONCE = 2 };

/* DIM: columns of a head, rounded up; KEYS of a tile. */
template <int DIM_, int KEYS_, bool HALF_> struct flash_shape {
    static constexpr int DIM = DIM_, KEYS = KEYS_;
    static constexpr bool HALF = HALF_;
    static constexpr int WARPS = 8, THREADS = WARPS * WARP, QUERIES = 16 * WARPS;
    static constexpr int PITCH = DIM + GAP, COLUMNS = DIM / 8, FOURS = DIM / 4;
    static constexpr int QUERY_SIZE = QUERIES * PITCH, KEY_SIZE = KEYS * PITCH;
    /* Rows that the threads bring at once, a four each, and how many times for a tile. */
    static constexpr int BROUGHT = THREADS / FOURS, EACH = (KEYS + BROUGHT - 1) / BROUGHT;
    static constexpr int BLOCKS = DIM <= 64 ? 2 : 1; /* of a multiprocessor: its registers */
    /* Two tiles as they come, of keys and of values, in fours; two as binary16. */
    static constexpr int COMING = 2 * EACH * THREADS;
    static constexpr size_t SHARED =
        2 * COMING * sizeof(float4) + (QUERY_SIZE + 4 * KEY_SIZE) * sizeof(__half);
};

/* Heads of a block: a power of two that divides those that share keys. */
static __host__ __device__ __forceinline__ int heads_of_block(const cuda_attention_args &a)
{
    const unsigned sharing = (unsigned)a.n_heads / (unsigned)a.n_kv_heads;
    return sharing % MOST_HEADS == 0 ? MOST_HEADS : sharing % 2 == 0 ? 2 : 1;
}

/* A thread's fours of a tile, on their way to places of its own; behind the last key it again,
 * which no query sees there. */
template <typename S>
static __device__ __forceinline__ void fetch(float4 *to, const key_rows &r, bool with_values,
                                             int first, int end)
{
    const int row = (int)threadIdx.x / S::FOURS;
#pragma unroll
    for (int i = 0; i < S::EACH; i++) {
        const int position = min(first + row + i * S::BROUGHT, end - 1);
        const bool there = position < r.fresh;
        const size_t at = there ? (size_t)(unsigned)position * r.dim
                                : (size_t)(unsigned)(position - r.fresh) * r.stride;
        copy_or_clear_16((char *)(to + i * S::THREADS), (there ? r.keys : r.new_keys) + at, true);
        if (with_values)
            copy_or_clear_16((char *)(to + (S::EACH + i) * S::THREADS),
                             (there ? r.values : r.new_values) + at, true);
    }
}

static __device__ __forceinline__ void put_halves(__half *to, float4 x)
{
    *(uint2 *)to = make_uint2(half_pair(within_half(x.x), within_half(x.y)),
                              half_pair(within_half(x.z), within_half(x.w)));
}

template <typename S> static __device__ __forceinline__ void put_tile(__half *tile, const float4 *x)
{
    const int row = (int)threadIdx.x / S::FOURS, c = (int)threadIdx.x % S::FOURS * 4;
    if (row >= S::BROUGHT) return;
#pragma unroll
    for (int i = 0; i < S::EACH; i++) {
        const int at = row + i * S::BROUGHT;
        if (at < S::KEYS) put_halves(tile + at * S::PITCH + c, x[i * S::THREADS]);
    }
}

/* What is known of a thread's two queries. */
struct query_pair {
    float max[2], sum[2];
};

/* Scores of a warp's queries, scaled and masked; where weights need not be what expf makes
 * of them, times log2(e). */
template <typename S>
static __device__ __forceinline__ void score_tile(const cuda_attention_args &a,
                                                  const cuda_sequence &s, int position,
                                                  const __half *queries, const __half *keys,
                                                  int tile, bool all, float score[S::KEYS / 8][4])
{
#pragma unroll
    for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) score[j][i] = 0;
#pragma unroll 1
    for (int k = 0; k < S::DIM; k += 16) {
        uint32_t left[4];
        load_a(left, queries + k, S::PITCH);
#pragma unroll
        for (int j = 0; j < S::KEYS / 8; j += 2) {
            uint32_t right[4];
            load_b_pair(right, keys + j * 8 * S::PITCH + k, S::PITCH);
            mma_half(score[j], left, right);
            mma_half(score[j + 1], left, right + 2);
        }
    }
    const float scale = S::HALF ? a.scale : a.scale * LOG2_E;
    const int first = tile + (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) score[j][i] *= scale;
    if (all) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const key_range sees = visible_to(a, s, position + r * 8);
#pragma unroll
        for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int key = first + j * 8 + i;
                if (key < sees.first || key >= sees.end) score[j][r * 2 + i] = -INFINITY;
            }
    }
}

template <typename S>
static __device__ __forceinline__ float largest(const float score[S::KEYS / 8][4], int r, float x)
{
#pragma unroll
    for (int j = 0; j < S::KEYS / 8; j++) x = fmaxf(x, fmaxf(score[j][r * 2], score[j][r * 2 + 1]));
    return x;
}

/* Scores to weights, as pairs of binary16; what was summed with a smaller score as the largest is
 * scaled to it. */
template <typename S>
static __device__ __forceinline__ void weigh_tile(query_pair &q, const float score[S::KEYS / 8][4],
                                                  float y[S::COLUMNS][4],
                                                  uint32_t weights[S::KEYS / 16][4])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if (!S::HALF) {
            const float most = quad_max(largest<S>(score, r, q.max[r]));
            const float rescale = q.max[r] == -INFINITY ? 0 : power_of_two(q.max[r] - most);
            raise_max<S>(q, r, most, rescale, y);
        }
        const float most = q.max[r] == -INFINITY ? 0 : q.max[r]; /* then there is nothing to see */
#pragma unroll
        for (int j = 0; j < S::KEYS / 8; j++) {
            float w[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float x = score[j][r * 2 + i] - most;
                w[i] = S::HALF ? expf(x) : power_of_two(x);
                q.sum[r] += w[i];
            }
            weights[j / 2][j % 2 * 2 + r] = half_pair(w[0], w[1]);
        }
    }
}

template <typename S>
static __device__ __forceinline__ void multiply_values(const uint32_t weights[S::KEYS / 16][4],
                                                       const __half *values, float y[S::COLUMNS][4])
{
#pragma unroll
    for (int t = 0; t < S::KEYS / 16; t++)
#pragma unroll
        for (int j = 0; j < S::COLUMNS; j += 2) {
            uint32_t right[4];
            load_b_pair_transposed(right, values + t * 16 * S::PITCH + j * 8, S::PITCH);
            mma_half(y[j], weights[t], right);
            mma_half(y[j + 1], weights[t], right + 2);
        }
}

/* Two columns of a result. */
static __device__ __forceinline__ void put_pair(const cuda_attention_args &a, size_t to, float x,
                                                float y)
{
    if (!a.operand.alone) *(float2 *)(a.out + to) = make_float2(x, y);
    if (a.operand.out) ((uint32_t *)a.operand.out)[to / 2] = pack_pair(a.operand.type, x, y);
}

/* The block's own rows, n from position `first` on, to the cache. */
template <typename S>
static __device__ __forceinline__ void keep_rows(const key_rows &r, int first, int n)
{
    const int row = (int)threadIdx.x / S::FOURS, c = (int)threadIdx.x % S::FOURS * 4;
    if (row >= S::BROUGHT || c >= (int)r.dim) return;
#pragma unroll 1
    for (int i = row; i < n; i += S::BROUGHT) {
        const size_t from = (size_t)(unsigned)(first + i - r.fresh) * r.stride;
        const size_t to = (size_t)(unsigned)(first + i) * r.dim;
        *(float4 *)(r.keys + to) = *(const float4 *)(r.new_keys + from);
        *(float4 *)(r.values + to) = *(const float4 *)(r.new_values + from);
    }
}

template <typename S>
static __global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    attend_flash(const __grid_constant__ cuda_attention_args a)
{
    if (!MMA) return; /* bg_cuda_attend does not come here then */
    extern __shared__ __align__(16) float4 room[];
    float4 *const coming = room + threadIdx.x;
    __half *const queries = (__half *)(room + 2 * S::COMING), *const keys = queries + S::QUERY_SIZE;
    __half *const values = keys + 2 * S::KEY_SIZE;
    /* The step's data are older than all that is queued. */
    const cuda_sequence s = a.sequences[blockIdx.z];
    const int heads = heads_of_block(a), positions = S::QUERIES / heads;
    /* The last queries see the most keys: they begin first. */
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * positions;
    const int last = min(first + positions, s.rows) - 1;
    const unsigned first_head = blockIdx.y * (unsigned)heads;
    const unsigned sharing = (unsigned)a.n_heads / (unsigned)a.n_kv_heads;
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const unsigned head = first_head + (unsigned)(warp * 16 / positions);
    const int own = first + warp * 16 % positions;
    const int column = (int)threadIdx.x % S::FOURS * 4, brought = (int)threadIdx.x / S::FOURS;
    /* Behind a head's last columns, those again: the queries have zeros there. */
    const key_rows rows = rows_of(a, s, first_head / sharing, min(column, (int)a.head_dim - 4));
    const int position = s.past + own + lane / 4; /* of the first, the second is 8 behind it */
    query_pair q = {{-INFINITY, -INFINITY}, {0, 0}};
    const int begin = visible_to(a, s, s.past + first).first;
    const int end = visible_to(a, s, s.past + last).end;
    /* What one of the warp's queries sees, and what all of them do. */
    const key_range low = visible_to(a, s, s.past + min(own, last));
    const key_range high = visible_to(a, s, s.past + min(own + 15, last));
    let_next_start();
    wait_for_earlier();
    if (first >= s.rows) return;

    /* Tiles in turn; of the first pass, if there are two, only keys. */
    const int n = (end - begin + S::KEYS - 1) / S::KEYS, total = S::HALF ? 2 * n : n;
    for (int i = 0; i < 2; i++) {
        if (i < total)
            fetch<S>(coming + i * S::COMING, rows, !S::HALF || i >= n,
                     begin + (i < n ? i : i - n) * S::KEYS, end);
        end_of_group();
    }
    const float *query =
        a.qkv + (size_t)s.first_row * a.qkv_stride + a.query_col + first_head * a.head_dim;
#pragma unroll 1
    for (int row = brought; row < S::QUERIES && brought < S::BROUGHT; row += AT_ONCE * S::BROUGHT) {
        float4 v[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int r = row + i * S::BROUGHT, at = first + r % positions;
            v[i] = make_float4(0, 0, 0, 0);
            if (r >= S::QUERIES || at > last || column >= (int)a.head_dim) continue;
            v[i] = query_at(a, query + (size_t)(r / positions) * a.head_dim, s.past, at, column);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int r = row + i * S::BROUGHT;
            if (r < S::QUERIES) put_halves(queries + r * S::PITCH + column, v[i]);
        }
    }
    const __half *const mine = queries + warp * 16 * S::PITCH;
    float y[S::COLUMNS][4] = {};
#pragma unroll 1
    for (int i = 0; i < total; i++) {
        const bool weighs = !S::HALF || i >= n;
        const int tile = begin + (i < n ? i : i - n) * S::KEYS;
        float4 *const came = coming + i % 2 * S::COMING;
        __half *const k = keys + i % 2 * S::KEY_SIZE, *const v = values + i % 2 * S::KEY_SIZE;
        wait_for_groups<1>();
        put_tile<S>(k, came);
        if (weighs) put_tile<S>(v, came + S::EACH * S::THREADS);
        if (i + 2 < total)
            fetch<S>(came, rows, !S::HALF || i + 2 >= n,
                     begin + (i + 2 < n ? i + 2 : i + 2 - n) * S::KEYS, end);
        end_of_group();
        __syncthreads();
        if (tile < high.end && tile + S::KEYS > low.first) {
            float score[S::KEYS / 8][4];
            const bool all = tile >= high.first && tile + S::KEYS <= low.end;
            score_tile<S>(a, s, position, mine, k, tile, all, score);
            if (weighs) {
                uint32_t weights[S::KEYS / 16][4];
                weigh_tile<S>(q, score, y, weights);
                multiply_values<S>(weights, v, y);
            } else {
                for (int r = 0; r < 2; r++) q.max[r] = largest<S>(score, r, q.max[r]);
            }
        }
        if (S::HALF && i == n - 1)
            for (int r = 0; r < 2; r++) q.max[r] = quad_max(q.max[r]);
    }
    if (a.fresh && first_head % sharing == 0) keep_rows<S>(rows, s.past + first, last - first + 1);

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int at = own + lane / 4 + r * 8;
        const float sum = quad_sum(q.sum[r]);
        if (at > last) continue;
        const key_range sees = visible_to(a, s, s.past + at);
        const bool some = sees.end > sees.first;
        const float inverse = 1.0f / sum;
        const size_t to =
            (size_t)(s.first_row + at) * a.out_stride + head * a.head_dim + (size_t)(lane % 4 * 2);
#pragma unroll
        for (int j = 0; j < S::COLUMNS; j++) {
            if (j * 8 + lane % 4 * 2 >= (int)a.head_dim) continue;
            const float u = y[j][r * 2], v = y[j][r * 2 + 1];
            if (!some)
                put_pair(a, to + j * 8, 0, 0);
            else if (S::HALF)
                put_pair(a, to + j * 8, round_half(u / sum), round_half(v / sum));
            else
                put_pair(a, to + j * 8, u * inverse, v * inverse);
        }
    }
}

template <typename S>
static cudaError_t launch_shape(const cuda_attention_args *a, const cuda_launch *l)
{
    const unsigned heads = (unsigned)heads_of_block(*a);
    const dim3 grid(blocks_for(a->max_rows, S::QUERIES / heads), (unsigned)a->n_heads / heads,
                    (unsigned)a->n_sequences);
    return launch(attend_flash<S>, grid, S::THREADS, S::SHARED, *a, l);
}

/* By the largest head they take, for fp32 and for binary16. */
#define SHAPE(dim, keys)                                                                           \
    {                                                                                              \
        dim, flash_shape<dim, keys, false>::SHARED,                                                \
        {                                                                                          \
            launch_shape<flash_shape<dim, keys, false>>,                                           \
                launch_shape<flash_shape<dim, keys, true>>                                         \
        }                                                                                          \
    }

static const struct {
    size_t head_dim, shared;
    cudaError_t (*launch[2])(const cuda_attention_args *a, const cuda_launch *l);
} shapes[] = {SHAPE(64, 48), SHAPE(80, 32), SHAPE(128, 32)};

enum { SHAPES = sizeof shapes / sizeof *shapes };

static int choose(const cuda_attention_args *a)
{
    int i = 0;
    while (i < SHAPES && shapes[i].head_dim < a->head_dim) i++;
    return i;
}

bool bg_cuda_attends_flash(const cuda_attention_args *a, const cuda_launch *l)
{
    const int shape = choose(a);
    const unsigned heads = (unsigned)heads_of_block(*a);
    const size_t blocks =
        blocks_for(a->max_rows * heads, 128) * (a->n_heads / heads) * a->n_sequences;
    return (a->out_half || a->rounded) && !a->position_bias && shape < SHAPES &&
           shapes[shape].shared <= (size_t)l->max_shared && blocks >= (size_t)l->multiprocessors;
}

cudaError_t bg_cuda_attend_flash(const cuda_attention_args *a, const cuda_launch *l)
{
    return shapes[choose(a)].launch[a->out_half](a, l);
}

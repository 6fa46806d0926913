/* Attention of many queries on tensor cores, scores never in memory. A block has 64 queries of one
 * head, each warp 16 of them, and goes over the keys it sees in tiles.
 *
 * Where activations are fp32, each factor is two binary16 numbers: x = high + low / 2048, which is
 * 22 bits of it whatever its size, and low times low is left out. The largest score so far and the
 * sums that belong to it are carried along (FlashAttention, https://arxiv.org/abs/2205.14135).
 *
 * Where they are binary16, one number is all there is, and the keys are gone over twice, first for
 * each query's largest score: a weight is rounded after that was taken off. */
#include "backend/cuda/attention.cuh"
#include "backend/cuda/mma.cuh"
#include "backend/cuda/operand.cuh"

enum { QUERIES = 64, GROUPS = QUERIES / 16, GAP = 8 };

#define LOW_SCALE 2048.0f

/* DIM: columns of a head, rounded up. SPLIT: warps that share the columns of 16 queries' results.
 */
template <int DIM_, int KEYS_, int SPLIT_, bool HALF_> struct attend_shape {
    static constexpr int DIM = DIM_, KEYS = KEYS_, SPLIT = SPLIT_;
    static constexpr bool HALF = HALF_;
    static constexpr int PITCH = DIM + GAP, THREADS = GROUPS * SPLIT * WARP;
    static constexpr int PARTS = HALF ? 1 : 2; /* of a number */
    static constexpr int QUERY_SIZE = QUERIES * PITCH, KEY_SIZE = KEYS * PITCH;
    static constexpr int BLOCKS = DIM == 64 ? 3 : 1; /* of a multiprocessor */
    static constexpr int COLUMNS = DIM / SPLIT / 8;  /* eights of columns of a warp's results */
    static constexpr size_t SHARED = (QUERY_SIZE + 2 * KEY_SIZE) * PARTS * sizeof(__half);
};

template <typename S>
static __device__ __forceinline__ void put_parts(__half *high, int size, int at, float x)
{
    const __half h = __float2half_rn(x);
    high[at] = h;
    if (!S::HALF) high[size + at] = __float2half_rn((x - __half2float(h)) * LOW_SCALE);
}

/* n rows of d values, `stride` apart, as (rows, DIM) with zeros around. */
template <typename S>
static __device__ __forceinline__ void stage(__half *to, int size, int rows, const float *from,
                                             size_t stride, int n, int d)
{
    constexpr int FOURS = S::DIM / 4;
    if (d % 4 == 0 && stride % 4 == 0) {
#pragma unroll 8
        for (int i = (int)threadIdx.x; i < rows * FOURS; i += S::THREADS) {
            const int r = i / FOURS, c = i % FOURS * 4;
            float4 x = make_float4(0, 0, 0, 0);
            if (r < n && c < d) x = *(const float4 *)(from + (size_t)r * stride + c);
            const float v[4] = {x.x, x.y, x.z, x.w};
            float low[4];
#pragma unroll
            for (int k = 0; k < 4; k++) low[k] = (v[k] - round_half(v[k])) * LOW_SCALE;
            const int at = r * S::PITCH + c;
            *(uint2 *)(to + at) =
                make_uint2(pack_pair(CUDA_F16, v[0], v[1]), pack_pair(CUDA_F16, v[2], v[3]));
            if (!S::HALF)
                *(uint2 *)(to + size + at) = make_uint2(pack_pair(CUDA_F16, low[0], low[1]),
                                                        pack_pair(CUDA_F16, low[2], low[3]));
        }
        return;
    }
    for (int i = (int)threadIdx.x; i < rows * S::DIM; i += S::THREADS) {
        const int r = i / S::DIM, c = i % S::DIM;
        put_parts<S>(to, size, r * S::PITCH + c, r < n && c < d ? from[(size_t)r * stride + c] : 0);
    }
}

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
            high[t][i] = pack_pair(CUDA_F16, p[0], p[1]);
            /* At most 1, so that what is lost below binary16's smallest number does not matter. */
            if (!S::HALF)
                low[t][i] = pack_pair(CUDA_F16, p[0] - round_half(p[0]), p[1] - round_half(p[1]));
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

/* Of the four lanes that share a query. */
static __device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 2));
}

static __device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(0xFFFFFFFF, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFF, x, 2);
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
#pragma unroll
    for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int r = i / 2, key = tile + j * 8 + (int)threadIdx.x % 4 * 2 + i % 2;
            float x = a.scale * score[j][i];
            if (a.position_bias) x += bias_of(a, head, key - q.position[r]);
            score[j][i] = key < q.sees[r].first || key >= q.sees[r].end ? -INFINITY : x;
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
            q.max[r] = most;
            q.sum[r] *= rescale;
#pragma unroll
            for (int j = 0; j < S::COLUMNS; j++) {
                y[j][r * 2] *= rescale;
                y[j][r * 2 + 1] *= rescale;
            }
        }
#pragma unroll
        for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
            for (int i = r * 2; i < r * 2 + 2; i++) {
                const float w = score[j][i] == -INFINITY ? 0 : expf(score[j][i] - q.max[r]);
                q.sum[r] += w;
                score[j][i] = S::HALF ? round_half(w) : w;
            }
    }
}

/* A pair of a row's results, columns c and c + 1. */
static __device__ __forceinline__ void write_pair(const cuda_attention_args &a, size_t at, int c,
                                                  float u, float v)
{
    const int d = (int)a.head_dim;
    if (c + 1 < d && at % 2 == 0) {
        *(float2 *)(a.out + at) = make_float2(u, v);
        if (a.operand.out) ((uint32_t *)a.operand.out)[at / 2] = pack_pair(a.operand.type, u, v);
        return;
    }
    if (c < d) {
        a.out[at] = u;
        if (a.operand.out) put(a.operand.type, a.operand.out, at, u);
    }
    if (c + 1 < d) {
        a.out[at + 1] = v;
        if (a.operand.out) put(a.operand.type, a.operand.out, at + 1, v);
    }
}

template <typename S>
static __device__ __forceinline__ void write_results(const cuda_attention_args &a, size_t at,
                                                     const key_range &sees, float sum, int begin,
                                                     int r, const float y[S::COLUMNS][4])
{
#pragma unroll
    for (int j = 0; j < S::COLUMNS; j++) {
        const int c = begin + j * 8 + (int)threadIdx.x % 4 * 2;
        float u = 0, v = 0;
        if (sees.end > sees.first) {
            u = S::HALF ? round_half(y[j][r * 2] / sum) : y[j][r * 2] * (1.0f / sum);
            v = S::HALF ? round_half(y[j][r * 2 + 1] / sum) : y[j][r * 2 + 1] * (1.0f / sum);
        }
        write_pair(a, at + (size_t)c, c, u, v);
    }
}

template <typename S>
static __global__ void __launch_bounds__(S::THREADS, S::BLOCKS) attend_mma(cuda_attention_args a)
{
    if (!MMA) return; /* bg_cuda_attend does not come here then */
    extern __shared__ __align__(16) __half room[];
    __half *queries = room, *keys = queries + S::QUERY_SIZE * S::PARTS;
    __half *values = keys + S::KEY_SIZE * S::PARTS;
    wait_for_earlier();
    let_next_start();
    const cuda_sequence s = a.sequences[blockIdx.z];
    /* The last queries see the most keys: they begin first. */
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES, d = (int)a.head_dim;
    if (first >= s.rows) return;
    const size_t head = blockIdx.y, kv = head / (a.n_heads / a.n_kv_heads);
    const size_t at = plane(a, s.slot, kv);
    const int last = min(first + QUERIES, s.rows) - 1;
    const int warp = (int)threadIdx.x / WARP, group = warp % GROUPS, lane = (int)threadIdx.x % WARP;
    const int begin_column = warp / GROUPS * (S::DIM / S::SPLIT);
    const int own = first + group * 16 + lane / 4;

    stage<S>(queries, S::QUERY_SIZE, QUERIES,
             a.qkv + (size_t)(s.first_row + first) * a.qkv_stride + a.query_col + head * a.head_dim,
             a.qkv_stride, last - first + 1, d);
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
    float y[S::COLUMNS][4] = {};

    for (int pass = S::HALF ? 0 : 1; pass < 2; pass++) {
        for (int tile = begin; tile < end; tile += S::KEYS) {
            const int n = min(S::KEYS, end - tile);
            const size_t from = at + (size_t)tile * a.head_dim;
            __syncthreads();
            stage<S>(keys, S::KEY_SIZE, S::KEYS, a.keys + from, a.head_dim, n, d);
            if (pass == 1)
                stage<S>(values, S::KEY_SIZE, S::KEYS, a.values + from, a.head_dim, n, d);
            __syncthreads();
            if (tile >= group_end) continue;
            float score[S::KEYS / 8][4];
            multiply_keys<S>(queries + group * 16 * S::PITCH, keys, score);
            score_tile<S>(a, head, q, tile, score);
            if (pass == 0) {
#pragma unroll
                for (int j = 0; j < S::KEYS / 8; j++)
#pragma unroll
                    for (int i = 0; i < 4; i++) q.max[i / 2] = fmaxf(q.max[i / 2], score[j][i]);
                continue;
            }
            weigh_tile<S>(q, score, y);
            multiply_values<S>(score, values + begin_column, y);
        }
        if (pass == 0)
            for (int r = 0; r < 2; r++) q.max[r] = quad_max(q.max[r]);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        q.sum[r] = quad_sum(q.sum[r]);
        if (own + r * 8 > last) continue;
        const size_t row = (size_t)(s.first_row + own + r * 8) * a.out_stride + head * a.head_dim;
        write_results<S>(a, row, q.sees[r], q.sum[r], begin_column, r, y);
    }
}

template <typename S> static bool fits(const cuda_launch *l)
{
    return S::SHARED <= (size_t)l->max_shared;
}

template <typename S>
static cudaError_t launch_shape(const cuda_attention_args *a, const cuda_launch *l)
{
    const dim3 grid(blocks_for(a->max_rows, QUERIES), (unsigned)a->n_heads,
                    (unsigned)a->n_sequences);
    return launch(attend_mma<S>, grid, S::THREADS, S::SHARED, *a, l);
}

/* The shapes by the largest head they take, for fp32 and for binary16. */
#define SHAPE(dim, keys, split)                                                                    \
    {                                                                                              \
        dim,                                                                                       \
            {fits<attend_shape<dim, keys, split, false>>,                                          \
             fits<attend_shape<dim, keys, split, true>>},                                          \
        {                                                                                          \
            launch_shape<attend_shape<dim, keys, split, false>>,                                   \
                launch_shape<attend_shape<dim, keys, split, true>>                                 \
        }                                                                                          \
    }

static const struct {
    size_t head_dim;
    bool (*fits[2])(const cuda_launch *l);
    cudaError_t (*launch[2])(const cuda_attention_args *a, const cuda_launch *l);
} shapes[] = {SHAPE(64, 64, 1), SHAPE(80, 64, 1), SHAPE(128, 64, 1), SHAPE(256, 32, 2)};

cudaError_t bg_cuda_attend(const cuda_attention_args *a, const cuda_launch *l)
{
    size_t i = 0;
    while (i < sizeof shapes / sizeof *shapes && shapes[i].head_dim < a->head_dim) i++;
    if (!l->tensor_cores || i == sizeof shapes / sizeof *shapes || !shapes[i].fits[a->out_half](l))
        return bg_cuda_attend_exact(a, l);
    return shapes[i].launch[a->out_half](a, l);
}

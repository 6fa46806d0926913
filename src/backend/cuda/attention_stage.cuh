/* What attention on tensor cores reads, brought to shared memory as binary16 numbers; S is an
 * attend_shape (attention_mma.cu). A thread has four columns of its own. */
#ifndef BG_BACKEND_CUDA_ATTENTION_STAGE_CUH
#define BG_BACKEND_CUDA_ATTENTION_STAGE_CUH

#include "backend/cuda/attention.cuh"

#define LOW_SCALE 2048.0f
#define LOG2_E    1.4426950408889634f

static __device__ __forceinline__ uint32_t half_pair(float x, float y)
{
    const __half2 pair = __floats2half2_rn(x, y);
    return *(const uint32_t *)&pair;
}

template <typename S>
static __device__ __forceinline__ void put_values(__half *to, int size, float4 x)
{
    const uint2 high = make_uint2(half_pair(x.x, x.y), half_pair(x.z, x.w));
    *(uint2 *)to = high;
    if (S::HALF) return;
    const float low[4] = {x.x - round_half(x.x), x.y - round_half(x.y), x.z - round_half(x.z),
                          x.w - round_half(x.w)};
    *(uint2 *)(to + size) = make_uint2(half_pair(low[0] * LOW_SCALE, low[1] * LOW_SCALE),
                                       half_pair(low[2] * LOW_SCALE, low[3] * LOW_SCALE));
}

/* Where a sequence's keys and values lie: those before `fresh` in the cache, others in the
 * activations. All at a thread's own column. */
struct key_rows {
    float *keys, *values;               /* of the cache */
    const float *new_keys, *new_values; /* at position `fresh` */
    unsigned dim, stride;
    int fresh;
};

static __device__ __forceinline__ key_rows rows_of(const cuda_attention_args &a,
                                                   const cuda_sequence &s, size_t head, int column)
{
    const size_t at = plane(a, s.slot, head) + (size_t)column;
    const float *row = a.qkv + (size_t)s.first_row * a.qkv_stride + head * a.head_dim + column;
    return {a.keys + at,
            a.values + at,
            row + a.key_col,
            row + a.value_col,
            (unsigned)a.head_dim,
            (unsigned)a.qkv_stride,
            a.fresh ? s.past : INT32_MAX};
}

/* n keys from position `first` on, and their values, as tiles (TILE, DIM) with zeros around. With
 * their values, those of `own` are written to the cache: each block sees the keys of its queries
 * that are keys.
 */
template <typename S>
static __device__ __forceinline__ void stage_tile(__half *keys, __half *values, const key_rows &r,
                                                  int first, int n, bool with_values, key_range own)
{
    enum { AT_ONCE = 4 };
    const int row = (int)threadIdx.x / S::FOURS, c = (int)threadIdx.x % S::FOURS * 4;
    if (row >= S::BROUGHT) return;
#pragma unroll 1
    for (int begin = row; begin < S::TILE; begin += AT_ONCE * S::BROUGHT) {
        float4 k[AT_ONCE], v[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int at = begin + i * S::BROUGHT, position = first + at;
            const bool old = position < r.fresh;
            const size_t from = old ? (size_t)(unsigned)position * r.dim
                                    : (size_t)(unsigned)(position - r.fresh) * r.stride;
            k[i] = v[i] = make_float4(0, 0, 0, 0);
            if (at >= n || c >= (int)r.dim) continue;
            k[i] = *(const float4 *)((old ? r.keys : r.new_keys) + from);
            if (with_values) v[i] = *(const float4 *)((old ? r.values : r.new_values) + from);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int at = begin + i * S::BROUGHT, to = at * S::PITCH + c;
            if (at >= S::TILE) break;
            put_values<S>(keys + to, S::KEY_SIZE, k[i]);
            if (!with_values) continue;
            put_values<S>(values + to, S::KEY_SIZE, v[i]);
            const int position = first + at;
            if (position < own.first || position >= own.end || c >= (int)r.dim) continue;
            *(float4 *)(r.keys + (size_t)(unsigned)position * r.dim) = k[i];
            *(float4 *)(r.values + (size_t)(unsigned)position * r.dim) = v[i];
        }
    }
}

/* Within 2^-22 of itself, 0 where it would be subnormal. */
static __device__ __forceinline__ float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
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

/* Brings what was summed with a smaller score as the largest of query r of a thread's two to
 * `most`: `rescale` times as much. */
template <typename S, typename Q>
static __device__ __forceinline__ void raise_max(Q &q, int r, float most, float rescale,
                                                 float y[S::COLUMNS][4])
{
    q.max[r] = most;
    q.sum[r] *= rescale;
#pragma unroll
    for (int j = 0; j < S::COLUMNS; j++) {
        y[j][r * 2] *= rescale;
        y[j][r * 2 + 1] *= rescale;
    }
}

/* Columns c to c + 3 of a query, turned to its position as `place_head` does. */
static __device__ __forceinline__ float4 turned(const cuda_attention_args &a, const float *query,
                                                int position, int c, float4 x)
{
    const int pairs = (int)a.rope_dim / 2;
    if (c >= 2 * pairs) return x;
    const bool first = c < pairs;
    const float *angles = a.rope + (size_t)position * a.rope_dim + (first ? c : c - pairs);
    const float4 other = *(const float4 *)(query + (first ? c + pairs : c - pairs));
    const float4 cosines = *(const float4 *)angles, sines = *(const float4 *)(angles + pairs);
    float y[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float v = first ? -(&other.x)[i] : (&other.x)[i];
        y[i] = round_if(a.half, round_if(a.half, (&x.x)[i] * (&cosines.x)[i]) +
                                    round_if(a.half, v * (&sines.x)[i]));
    }
    return make_float4(y[0], y[1], y[2], y[3]);
}

/* Columns c to c + 3 of a query, `row` behind the one at position `first`. */
static __device__ __forceinline__ float4 query_at(const cuda_attention_args &a, const float *query,
                                                  int first, int row, int c)
{
    query += (size_t)(unsigned)row * a.qkv_stride;
    const float4 x = *(const float4 *)(query + c);
    return a.turn ? turned(a, query, first + row, c, x) : x;
}

#endif

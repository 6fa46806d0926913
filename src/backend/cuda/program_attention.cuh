/* Attention of one query of each sequence, as a node of a program: a block for each head of each
 * sequence. Keys and values of earlier tokens are asked for before the wait; a short context is
 * then in registers when the query arrives. Heads that share keys each norm and turn the new one
 * for themselves; the first of them writes it to the cache. */
#ifndef BG_BACKEND_CUDA_PROGRAM_ATTENTION_CUH
#define BG_BACKEND_CUDA_PROGRAM_ATTENTION_CUH

#include "backend/cuda/attention.cuh"
#include "backend/cuda/program.cuh"

/* Four lanes share a key. READY: fours of a key, and of values, that a thread asks for early. */
enum { KEY_LANES = 4, READY = 4, KEYS_AT_ONCE = STEP_THREADS / KEY_LANES };

struct attention_rooms {
    float query[MAX_HEAD_DIM], key[MAX_HEAD_DIM], value[MAX_HEAD_DIM];
    float max[STEP_WARPS], sum[STEP_WARPS];
    float partial[STEP_THREADS * 4];
};

/* One head's row of the cache, or of the new token. */
struct head_task {
    cuda_sequence s;
    unsigned head, kv, d;
    size_t at; /* of the head's plane in the cache */
    int own;   /* the position whose key is not in the cache yet; -1: all are */
    key_range all;
    int n;
};

static __device__ __forceinline__ head_task task_of(const cuda_attention_args &a, unsigned task)
{
    head_task t;
    const unsigned sequence = a.n_sequences == 1 ? 0 : divide(task, a.head_inverse);
    t.s = a.sequences[sequence];
    t.head = task - sequence * (unsigned)a.n_heads;
    t.kv = divide(t.head, a.group_inverse);
    t.d = (unsigned)a.head_dim;
    t.at = plane(a, t.s.slot, t.kv);
    t.own = a.stored ? -1 : t.s.past;
    t.all = visible_to(a, t.s, t.s.past);
    t.n = t.all.end - t.all.first;
    return t;
}

template <bool HALF> struct dot_type {
    typedef float type;
};
template <> struct dot_type<true> {
    typedef double type;
};

/* Fours of a key, and of values, on their way at once. */
struct ready_rows {
    float4 keys[READY], values[READY];
};

/* A thread's columns of values: the first, and which of the keys that are looked at together. */
struct value_share {
    unsigned column, lane, lanes;
};

static __device__ __forceinline__ value_share values_of(const cuda_attention_args &a, unsigned d)
{
    const unsigned columns = d / 4, lane = divide(threadIdx.x, a.column_inverse);
    return {(threadIdx.x - lane * columns) * 4, lane, divide(STEP_THREADS, a.column_inverse)};
}

static __device__ __forceinline__ float4 cached(const float *rows, const head_task &t, unsigned j,
                                                unsigned column)
{
    const int position = t.all.first + (int)j;
    if ((int)j >= t.n || position == t.own || column >= t.d) return make_float4(0, 0, 0, 0);
    return load_fresh((const float4 *)(rows + t.at + (size_t)position * t.d + column));
}

static __device__ __forceinline__ void get_keys(const cuda_attention_args &a, const head_task &t,
                                                unsigned j, ready_rows &r)
{
#pragma unroll
    for (unsigned i = 0; i < READY; i++)
        r.keys[i] = cached(a.keys, t, j, (threadIdx.x % KEY_LANES + i * KEY_LANES) * 4);
}

static __device__ __forceinline__ void get_values(const cuda_attention_args &a, const head_task &t,
                                                  const value_share &v, unsigned begin,
                                                  ready_rows &r)
{
#pragma unroll
    for (unsigned i = 0; i < READY; i++)
        r.values[i] = v.lane < v.lanes ? cached(a.values, t, begin + i * v.lanes, v.column)
                                       : make_float4(0, 0, 0, 0);
}

/* In a 16-bit model to the last bit: a weight that is rounded may lie on the border of two. */
template <typename T>
static __device__ __forceinline__ void add_dot(T &sum, const float4 &q, const float4 &k)
{
    if constexpr (sizeof(T) == sizeof(double)) {
        sum += (double)q.x * (double)k.x;
        sum += (double)q.y * (double)k.y;
        sum += (double)q.z * (double)k.z;
        sum += (double)q.w * (double)k.w;
    } else {
        sum = __fmaf_rn(q.x, k.x, sum);
        sum = __fmaf_rn(q.y, k.y, sum);
        sum = __fmaf_rn(q.z, k.z, sum);
        sum = __fmaf_rn(q.w, k.w, sum);
    }
}

/* The product of the query and key j, whose first fours are ready: the same in all its lanes. */
template <typename T>
static __device__ __forceinline__ float dot_key(const cuda_attention_args &a, const head_task &t,
                                                unsigned j, const ready_rows &r,
                                                const attention_rooms &rooms)
{
    const unsigned part = threadIdx.x % KEY_LANES;
    const bool own = t.all.first + (int)j == t.own;
    T sum = 0;
#pragma unroll
    for (unsigned i = 0; i < READY; i++) {
        const unsigned column = (part + i * KEY_LANES) * 4;
        if (column < t.d)
            add_dot(sum, *(const float4 *)(rooms.query + column),
                    own ? *(const float4 *)(rooms.key + column) : r.keys[i]);
    }
#pragma unroll 2
    for (unsigned column = (part + READY * KEY_LANES) * 4; column < t.d; column += KEY_LANES * 4)
        add_dot(sum, *(const float4 *)(rooms.query + column),
                own ? *(const float4 *)(rooms.key + column) : cached(a.keys, t, j, column));
    for (int i = KEY_LANES / 2; i > 0; i /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, i);
    return (float)sum;
}

template <bool HALF>
static __device__ __forceinline__ void attend_task(const cuda_attention_args &a, const head_task &t,
                                                   ready_rows &r, attention_rooms &rooms,
                                                   float *scores)
{
    const float *row = a.qkv + (size_t)t.s.first_row * a.qkv_stride;
    const unsigned warp = threadIdx.x / WARP;
    const team everybody = {0, STEP_WARPS, threadIdx.x, STEP_THREADS};
    if (warp == 0)
        place_head(a.query_norm, a.rope, a.rope_dim, HALF, (size_t)t.s.past,
                   row + a.query_col + (size_t)t.head * t.d, rooms.query, t.d);
    if (warp == 1 && !a.stored)
        place_head(a.key_norm, a.rope, a.rope_dim, HALF, (size_t)t.s.past,
                   row + a.key_col + (size_t)t.kv * t.d, rooms.key, t.d);
    if (warp == 2 && !a.stored)
        for (unsigned i = threadIdx.x % WARP; i < t.d; i += WARP)
            rooms.value[i] = load_fresh(row + a.value_col + (size_t)t.kv * t.d + i);
    step_sync();
    if (!a.stored && t.head == t.kv * a.group)
        for (unsigned i = threadIdx.x; i < t.d; i += STEP_THREADS) {
            a.keys[t.at + (size_t)t.own * t.d + i] = rooms.key[i];
            a.values[t.at + (size_t)t.own * t.d + i] = rooms.value[i];
        }

    typedef typename dot_type<HALF>::type dot;
    const unsigned own_key = threadIdx.x / KEY_LANES;
    float max = -INFINITY;
#pragma unroll 1
    for (unsigned j = own_key; j < ((unsigned)t.n + 7) / 8 * 8; j += KEYS_AT_ONCE) {
        if (j != own_key) get_keys(a, t, j, r);
        const float product = dot_key<dot>(a, t, j, r, rooms);
        if ((int)j >= t.n) continue;
        float score = a.scale * product;
        if (a.position_bias) score += bias_of(a, t.head, t.all.first + (int)j - t.s.past);
        if (threadIdx.x % KEY_LANES == 0) scores[j] = score;
        max = fmaxf(max, score);
    }
    max = team_max(everybody, max, rooms.max);
    float sum = 0;
    for (int j = (int)threadIdx.x; j < t.n; j += STEP_THREADS) {
        const float weight = expf(scores[j] - max);
        sum += weight;
        scores[j] = round_if(HALF, weight);
    }
    sum = team_sum(everybody, sum, rooms.sum);

    const value_share v = values_of(a, t.d);
    float4 y = make_float4(0, 0, 0, 0);
    if (v.lane < v.lanes) {
#pragma unroll 1
        for (unsigned begin = v.lane; (int)begin < t.n; begin += READY * v.lanes) {
            if (begin != v.lane) get_values(a, t, v, begin, r);
#pragma unroll
            for (unsigned i = 0; i < READY; i++) {
                const unsigned j = begin + i * v.lanes;
                if ((int)j >= t.n) continue;
                const float w = scores[j];
                const float4 x = t.all.first + (int)j == t.own
                                     ? *(const float4 *)(rooms.value + v.column)
                                     : r.values[i];
                y.x = __fmaf_rn(w, x.x, y.x);
                y.y = __fmaf_rn(w, x.y, y.y);
                y.z = __fmaf_rn(w, x.z, y.z);
                y.w = __fmaf_rn(w, x.w, y.w);
            }
        }
        *(float4 *)(rooms.partial + v.lane * t.d + v.column) = y;
    }
    step_sync();
    for (unsigned i = threadIdx.x; i < t.d; i += STEP_THREADS) {
        float total = 0;
#pragma unroll 8
        for (unsigned k = 0; k < v.lanes; k++) total += rooms.partial[k * t.d + i];
        if (t.n > 0) total = HALF ? round_half(total / sum) : total * (1.0f / sum);
        a.out[(size_t)t.s.first_row * a.out_stride + (size_t)t.head * t.d + i] = total;
    }
}

template <bool HALF>
static __device__ __forceinline__ void run_attention(const cuda_attention_args &a,
                                                     const all_blocks &blocks,
                                                     attention_rooms &rooms, char *shared)
{
    const unsigned tasks = (unsigned)(a.n_heads * a.n_sequences);
    bool waited = false;
#pragma unroll 1
    for (unsigned task = blockIdx.x; task < tasks; task += gridDim.x) {
        const head_task t = task_of(a, task);
        const value_share v = values_of(a, t.d);
        ready_rows ready;
        get_keys(a, t, threadIdx.x / KEY_LANES, ready);
        get_values(a, t, v, v.lane, ready);
        if (a.rope && threadIdx.x * 32 < (unsigned)a.rope_dim)
            ask_for(a.rope + (size_t)t.s.past * a.rope_dim + threadIdx.x * 32);
        if (waited)
            step_sync();
        else
            blocks.wait();
        waited = true;
        attend_task<HALF>(a, t, ready, rooms, (float *)shared);
    }
    if (!waited) blocks.wait();
}

#endif

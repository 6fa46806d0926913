/* Attention of one query of each sequence, as a node of a program: a block for each head of each
 * sequence, or several, each for some of the keys, where the context is long and there are blocks
 * enough. Keys and values of earlier tokens are asked for before the wait; a short context is then
 * in registers when the query arrives. Heads that share keys each norm and turn the new one for
 * themselves; the first of them writes it to the cache. */
#ifndef BG_BACKEND_CUDA_PROGRAM_ATTENTION_CUH
#define BG_BACKEND_CUDA_PROGRAM_ATTENTION_CUH

#include "backend/cuda/attention.cuh"
#include "backend/cuda/program.cuh"

/* READY: fours of a key, and of values, that a thread has on their way at once. That is all of a
 * key that it looks at: 4, 8 or 16 lanes share one. */
enum { READY = 4, LEAST_KEY_SHIFT = 2 };

struct attention_rooms {
    float query[MAX_HEAD_DIM], key[MAX_HEAD_DIM], value[MAX_HEAD_DIM];
    int max[STEP_WARPS];
    float sum[STEP_WARPS];
    float partial[STEP_THREADS * 4];
    float all_max;
    bool last;
};

/* One head's row of the cache, or of the new token; or a part of its keys. */
struct head_task {
    cuda_sequence s;
    unsigned number, part; /* the head's among all sequences', and which of its keys' parts */
    unsigned head, kv, d;
    size_t at;                  /* of the head's plane in the cache */
    const float *keys, *values; /* the first that are looked at, of n */
    int first, n;
    unsigned own; /* which of them is not in the cache yet; others: none */
};

static __device__ __forceinline__ head_task task_of(const cuda_attention_args &a,
                                                    const cuda_sequence *sequences, unsigned task)
{
    head_task t;
    t.number = divide(task, a.parts_inverse);
    t.part = task - t.number * a.parts;
    const unsigned sequence = a.n_sequences == 1 ? 0 : divide(t.number, a.head_inverse);
    t.s = sequences[sequence];
    t.head = t.number - sequence * (unsigned)a.n_heads;
    t.kv = divide(t.head, a.group_inverse);
    t.d = (unsigned)a.head_dim;
    t.at = plane(a, t.s.slot, t.kv);
    const key_range all = visible_to(a, t.s, t.s.past);
    const int each = (int)divide((unsigned)(all.end - all.first) + a.parts - 1, a.parts_inverse);
    t.first = min(all.first + (int)t.part * each, all.end);
    t.n = min(all.end - t.first, each);
    t.own = a.stored ? UINT32_MAX : (unsigned)(t.s.past - t.first);
    t.keys = a.keys + t.at + (size_t)t.first * t.d;
    t.values = a.values + t.at + (size_t)t.first * t.d;
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

static __device__ __forceinline__ float4 load_if(bool there, const float *p)
{
    return there ? load_fresh((const float4 *)p) : make_float4(0, 0, 0, 0);
}

/* Whether the cache has the task's key j. */
static __device__ __forceinline__ bool is_cached(const head_task &t, unsigned j)
{
    return (int)j < t.n && j != t.own;
}

static __device__ __forceinline__ void get_keys(const cuda_attention_args &a, const head_task &t,
                                                unsigned j, float4 keys[READY])
{
    const unsigned lanes = 1u << a.key_shift, column = (threadIdx.x & (lanes - 1)) * 4;
    const bool there = is_cached(t, j);
    const float *p = t.keys + (j * t.d + column);
#pragma unroll
    for (unsigned i = 0; i < READY; i++)
        keys[i] = load_if(there && column + i * 4 * lanes < t.d, p + i * 4 * lanes);
}

static __device__ __forceinline__ void get_values(const head_task &t, const value_share &v,
                                                  unsigned begin, float4 values[READY])
{
    const float *p = t.values + (begin * t.d + v.column);
#pragma unroll
    for (unsigned i = 0; i < READY; i++)
        values[i] =
            load_if(v.lane < v.lanes && is_cached(t, begin + i * v.lanes), p + i * v.lanes * t.d);
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

/* The product of the query and key j: the same in all its lanes. */
template <typename T>
static __device__ __forceinline__ float dot_key(const cuda_attention_args &a, const head_task &t,
                                                unsigned j, const float4 keys[READY],
                                                const attention_rooms &rooms)
{
    const unsigned lanes = 1u << a.key_shift, part = threadIdx.x & (lanes - 1);
    const bool own = j == t.own;
    T sum = 0;
#pragma unroll
    for (unsigned i = 0; i < READY; i++) {
        const unsigned column = (part + i * lanes) * 4;
        if (column < t.d)
            add_dot(sum, *(const float4 *)(rooms.query + column),
                    own ? *(const float4 *)(rooms.key + column) : keys[i]);
    }
    for (unsigned i = lanes / 2; i > 0; i /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, (int)i);
    return (float)sum;
}

/* ---- parts ----------------------------------------------------------------------------------- */

/* Blocks that share a head tell each other their largest score, and the last to be done adds what
 * all have: a head's parts are in turn, each with its largest score, sum and values. */
enum { PART_MAX, PART_SUM, PART_VALUES = 4 };

static __device__ __forceinline__ float *part_of(const cuda_attention_args &a, const head_task &t,
                                                 unsigned part)
{
    return a.partial + (t.number * a.parts + part) * CUDA_PART_FLOATS;
}

static __device__ __forceinline__ unsigned add_released(unsigned *counter)
{
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
    return before;
}

/* The largest score of all parts of a head. */
static __device__ __forceinline__ float
max_of_parts(const cuda_attention_args &a, const head_task &t, float max, attention_rooms &rooms)
{
    unsigned *arrived = a.arrived + 2 * t.number, n;
    if (threadIdx.x < WARP) {
        if (threadIdx.x == 0) {
            part_of(a, t, t.part)[PART_MAX] = max;
            add_released(arrived);
        }
        __syncwarp();
        do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(n) : "l"(arrived) : "memory");
        while (n < a.parts);
        for (unsigned i = threadIdx.x; i < a.parts; i += WARP)
            max = fmaxf(max, load_fresh(part_of(a, t, i) + PART_MAX));
        max = warp_max(max);
        if (threadIdx.x == 0) rooms.all_max = max;
    }
    step_sync();
    return rooms.all_max;
}

/* Whether the block is the last of its head's to have written its sum and values. */
static __device__ __forceinline__ bool is_last_part(const cuda_attention_args &a,
                                                    const head_task &t, attention_rooms &rooms)
{
    step_sync();
    if (threadIdx.x == 0) {
        unsigned *arrived = a.arrived + 2 * t.number;
        rooms.last = add_released(arrived + 1) + 1 == a.parts;
        if (rooms.last) arrived[0] = arrived[1] = 0;
    }
    step_sync();
    return rooms.last;
}

/* ---- a task ---------------------------------------------------------------------------------- */

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
    if (!a.stored && t.part == 0 && t.head == t.kv * a.group)
        for (unsigned i = threadIdx.x; i < t.d; i += STEP_THREADS) {
            a.keys[t.at + (size_t)t.s.past * t.d + i] = rooms.key[i];
            a.values[t.at + (size_t)t.s.past * t.d + i] = rooms.value[i];
        }

    typedef typename dot_type<HALF>::type dot;
    const unsigned own_key = threadIdx.x >> a.key_shift, keys_at_once = STEP_THREADS >> a.key_shift;
    float max = -INFINITY;
#pragma unroll 1
    for (unsigned j = own_key; j < ((unsigned)t.n + 7) / 8 * 8; j += keys_at_once) {
        float4 next[READY];
        get_keys(a, t, j + keys_at_once, next);
        const float product = dot_key<dot>(a, t, j, r.keys, rooms);
#pragma unroll
        for (int i = 0; i < READY; i++) r.keys[i] = next[i];
        if ((int)j >= t.n) continue;
        float score = a.scale * product;
        if (a.position_bias) score += bias_of(a, t.head, t.first + (int)j - t.s.past);
        if ((threadIdx.x & ((1u << a.key_shift) - 1)) == 0) scores[j] = score;
        max = fmaxf(max, score);
    }
    max = team_max(everybody, max, rooms.max);
    if (a.parts > 1) max = max_of_parts(a, t, max, rooms);
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
            float4 next[READY];
            get_values(t, v, begin + READY * v.lanes, next);
#pragma unroll
            for (unsigned i = 0; i < READY; i++) {
                const unsigned j = begin + i * v.lanes;
                if ((int)j >= t.n) continue;
                const float w = scores[j];
                const float4 x =
                    j == t.own ? *(const float4 *)(rooms.value + v.column) : r.values[i];
                y.x = __fmaf_rn(w, x.x, y.x);
                y.y = __fmaf_rn(w, x.y, y.y);
                y.z = __fmaf_rn(w, x.z, y.z);
                y.w = __fmaf_rn(w, x.w, y.w);
            }
#pragma unroll
            for (int i = 0; i < READY; i++) r.values[i] = next[i];
        }
        *(float4 *)(rooms.partial + v.lane * t.d + v.column) = y;
    }
    step_sync();
    float total = 0; /* of column threadIdx.x: heads have no more than there are threads */
    if (threadIdx.x < t.d) {
#pragma unroll 8
        for (unsigned k = 0; k < v.lanes; k++) total += rooms.partial[k * t.d + threadIdx.x];
    }
    if (a.parts > 1) {
        float *part = part_of(a, t, t.part);
        if (threadIdx.x < t.d) part[PART_VALUES + threadIdx.x] = total;
        if (threadIdx.x == 0) part[PART_SUM] = sum;
        if (!is_last_part(a, t, rooms)) return;
        total = sum = 0;
#pragma unroll 8
        for (unsigned k = 0; k < a.parts; k++) {
            const float *other = part_of(a, t, k);
            sum += load_fresh(other + PART_SUM);
            if (threadIdx.x < t.d) total += load_fresh(other + PART_VALUES + threadIdx.x);
        }
    }
    if (threadIdx.x >= t.d) return;
    if (sum > 0) total = HALF ? round_half(total / sum) : total * (1.0f / sum);
    a.out[(size_t)t.s.first_row * a.out_stride + (size_t)t.head * t.d + threadIdx.x] = total;
}

/* `sequences`: a.sequences, or what they are in shared memory. */
template <bool HALF>
static __device__ __forceinline__ void
run_attention(const cuda_attention_args &a, const cuda_sequence *sequences,
              const all_blocks &blocks, attention_rooms &rooms, char *shared)
{
    const unsigned tasks = (unsigned)(a.n_heads * a.n_sequences) * a.parts;
    bool waited = false;
#pragma unroll 1
    for (unsigned task = blockIdx.x; task < tasks; task += gridDim.x) {
        const head_task t = task_of(a, sequences, task);
        const value_share v = values_of(a, t.d);
        ready_rows ready;
        get_keys(a, t, threadIdx.x >> a.key_shift, ready.keys);
        get_values(t, v, v.lane, ready.values);
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

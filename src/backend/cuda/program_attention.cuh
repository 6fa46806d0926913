/* Attention of one query of each sequence, as a node of a program: a block for each head of each
 * sequence, or several, each for some of the keys, where the context is long and there are blocks
 * enough. Keys and values of earlier tokens are asked for before the wait; a short context, or a
 * part of a longer one, is then in registers when the query arrives. Heads that share keys each
 * norm and turn the new one for themselves; the first of them writes it to the cache. */
#ifndef BG_BACKEND_CUDA_PROGRAM_ATTENTION_CUH
#define BG_BACKEND_CUDA_PROGRAM_ATTENTION_CUH

#include "backend/cuda/attention.cuh"
#include "backend/cuda/program_input.cuh"

/* Of a key that 4, 8 or 16 lanes share, each looks at KEY_FOURS fours. A thread has fours of
 * READY_KEYS keys on their way to registers, and of READY_VALUES values to shared memory. */
enum { LEAST_KEY_SHIFT = 2, KEY_FOURS = 4, READY_KEYS = 2, READY_VALUES = 8 };
enum { READY_VALUE_BYTES = READY_VALUES * STEP_THREADS * 16 };

struct attention_rooms {
    float query[MAX_HEAD_DIM], key[MAX_HEAD_DIM], value[MAX_HEAD_DIM];
    double norm_sums[2][STEP_WARPS];
    int max[STEP_WARPS];
    float partial[STEP_THREADS * 4]; /* (lanes, head_dim), value_share's */
    float weights[STEP_THREADS];     /* (lanes) */
};

/* One head's row of the cache, or of the new token; or a part of its keys. */
struct head_task {
    cuda_sequence s;
    unsigned number, part; /* the head's among all sequences', and which of its keys' parts */
    unsigned head, kv, d;
    size_t at;                  /* of the head's plane in the cache */
    const float *keys, *values; /* the first that are looked at, of n */
    int first, n;
    int own; /* which of them is not in the cache yet, n or more where none is: the last one */
};

static __device__ __forceinline__ head_task task_of(const cuda_attention_args &a,
                                                    const cuda_sequence *sequences, unsigned task)
{
    head_task t;
    t.number = task >> a.parts_shift;
    t.part = task - (t.number << a.parts_shift);
    const unsigned sequence = a.n_sequences == 1 ? 0 : divide(t.number, a.head_inverse);
    t.s = sequences[sequence];
    t.head = t.number - sequence * (unsigned)a.n_heads;
    t.kv = divide(t.head, a.group_inverse);
    t.d = (unsigned)a.head_dim;
    t.at = plane(a, t.s.slot, t.kv);
    const key_range all = visible_to(a, t.s, t.s.past);
    const int each = (all.end - all.first + (1 << a.parts_shift) - 1) >> a.parts_shift;
    t.first = min(all.first + (int)t.part * each, all.end);
    t.n = min(all.end - t.first, each);
    t.own = a.stored ? t.n : t.s.past - t.first;
    t.keys = a.keys + t.at + (size_t)t.first * t.d;
    t.values = a.values + t.at + (size_t)t.first * t.d;
    return t;
}

static __device__ __forceinline__ unsigned tasks_of(const cuda_attention_args &a)
{
    return (unsigned)(a.n_heads * a.n_sequences) << a.parts_shift;
}

/* ---- the cache ------------------------------------------------------------------------------- */

/* A thread's fours of keys, and what is added to their scores. */
struct ready_keys {
    float4 fours[READY_KEYS][KEY_FOURS];
    float biases[READY_KEYS];
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

/* From key `first` of the task, of which the thread has every lanes-th. */
static __device__ __forceinline__ void get_keys(const cuda_attention_args &a, const head_task &t,
                                                unsigned first, ready_keys &r)
{
    const unsigned lanes = 1u << a.key_shift, column = (threadIdx.x & (lanes - 1)) * 4;
    const unsigned at_once = STEP_THREADS >> a.key_shift;
    unsigned j = first + (threadIdx.x >> a.key_shift);
    const float *p = t.keys + j * t.d;
#pragma unroll
    for (unsigned k = 0; k < READY_KEYS; k++) {
#pragma unroll
        for (unsigned i = 0; i < KEY_FOURS; i++) {
            /* What there is not is multiplied by nothing. */
            const unsigned c = column + i * 4 * lanes;
            r.fours[k][i] = load_if((int)j < min(t.n, t.own), p + (c < t.d ? c : 0));
        }
        r.biases[k] = 0;
        if (a.position_bias && (int)j < t.n)
            r.biases[k] = bias_of(a, t.head, t.first + (int)j - t.s.past);
        j += at_once;
        p += at_once * t.d;
    }
}

/* To `to`, for READY_VALUE_BYTES; a thread reads what it has copied, and waits for no other. */
static __device__ __forceinline__ void get_values(const head_task &t, const value_share &v,
                                                  unsigned first, float *to)
{
    if (v.lane >= v.lanes) return;
    const unsigned apart = v.lanes * t.d, at = v.lane * t.d + v.column;
    const float *p = t.values + (first * t.d + at);
    int j = (int)(first + v.lane);
    to += at;
#pragma unroll
    for (unsigned k = 0; k < READY_VALUES; k++) {
        if (j < min(t.n, t.own)) copy_fresh_16(to, p);
        j += (int)v.lanes;
        p += apart;
        to += apart;
    }
}

/* Brings what the block will look at from memory to the second-level cache, by one warp. */
static __device__ __forceinline__ void fetch_rows(const cuda_attention_args &a,
                                                  const cuda_sequence *sequences)
{
#if __CUDA_ARCH__ >= 900
    const unsigned tasks = tasks_of(a);
    for (unsigned task = blockIdx.x + threadIdx.x % WARP * gridDim.x; task < tasks;
         task += WARP * gridDim.x) {
        const head_task t = task_of(a, sequences, task);
        const unsigned bytes = (unsigned)t.n * t.d * sizeof(float);
        if (bytes == 0 || t.head != t.kv * a.group) continue;
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(t.keys), "r"(bytes));
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(t.values), "r"(bytes));
    }
#endif
}

/* ---- the new token --------------------------------------------------------------------------- */

/* Half of the warps have the query and the others the new key, each thread a pair of values: two
 * that rope turns together, or two that it leaves. All but what they are is known before the wait;
 * constants are loaded so that they cannot be put off until then. */
struct head_pair {
    team half;
    bool is_key, there, turned;
    unsigned first, second; /* columns */
    const float *from;      /* the head's, and the value of column threadIdx.x, if there is one */
    const float *value;
    float cosine, sine;
    float weights[2], biases[2]; /* the norm's */
};

static_assert(MAX_HEAD_DIM / 2 <= STEP_THREADS / 2, "half of the warps have a head");

static __device__ __forceinline__ const cuda_norm &norm_of(const cuda_attention_args &a,
                                                           const head_pair &p)
{
    return p.is_key ? a.key_norm : a.query_norm;
}

static __device__ __forceinline__ head_pair pair_of(const cuda_attention_args &a,
                                                    const head_task &t)
{
    head_pair p;
    unsigned number;
    p.half = team_of(1, &number);
    const unsigned i = p.half.lane, pairs = a.rope ? (unsigned)a.rope_dim / 2 : 0;
    p.is_key = number > 0;
    p.there = i < t.d / 2 && !(p.is_key && a.stored);
    p.turned = p.there && i < pairs;
    p.first = p.turned ? i : i + pairs;
    p.second = i + (p.turned ? pairs : t.d / 2);
    if (p.turned) {
        const float *angles = a.rope + (size_t)t.s.past * a.rope_dim + i;
        p.cosine = load_fresh(angles);
        p.sine = load_fresh(angles + pairs);
    }
    const float *row = a.qkv + (unsigned)t.s.first_row * (unsigned)a.qkv_stride;
    p.from =
        row + (p.is_key ? (unsigned)a.key_col + t.kv * t.d : (unsigned)a.query_col + t.head * t.d);
    p.value = a.stored || threadIdx.x >= t.d
                  ? NULL
                  : row + ((unsigned)a.value_col + t.kv * t.d + threadIdx.x);
    const cuda_norm &norm = norm_of(a, p);
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const unsigned column = k ? p.second : p.first;
        p.weights[k] = p.there && norm.weight ? load_fresh(norm.weight + column) : 1;
        p.biases[k] = p.there && norm.bias ? load_fresh(norm.bias + column) : 0;
    }
    return p;
}

/* 1 / n by one of Newton's steps from the reciprocal's 24 bits. */
static __device__ __forceinline__ double exact_inverse(unsigned n)
{
    const double x = (double)n, y = (double)__frcp_rn((float)n);
    return y * (2 - x * y);
}

/* As place_head has it. */
template <bool HALF>
static __device__ __forceinline__ void norm_pair(const cuda_attention_args &a, const head_pair &p,
                                                 unsigned d, float &u, float &v,
                                                 attention_rooms &rooms)
{
    const cuda_norm &norm = norm_of(a, p);
    const bool centered = norm.kind == BG_NORM_LAYER;
    const double inverse = exact_inverse(d);
    norm_state s = {0, 0};
    if (a.query_norm.kind == BG_NORM_LAYER || a.key_norm.kind == BG_NORM_LAYER) {
        const double sum = team_sum(p.half, (double)u + (double)v, rooms.norm_sums[0]);
        if (centered) s.mean = (float)(sum * inverse);
    }
    const double x = p.there ? (double)u - (double)s.mean : 0;
    const double y = p.there ? (double)v - (double)s.mean : 0;
    const double squares = team_sum(p.half, x * x + y * y, rooms.norm_sums[1]);
    s.scale = exact_scale(squares, inverse, norm.eps);
    /* The next float towards zero, of one that is positive. */
    if (centered && HALF) s.scale = __uint_as_float(__float_as_uint(s.scale) - 1);
    if (!norm.weight) return;
    const bool biased = norm.bias != NULL;
    u = norm_apply(norm.kind, biased, s, HALF, u, p.weights[0], p.biases[0]);
    v = norm_apply(norm.kind, biased, s, HALF, v, p.weights[1], p.biases[1]);
}

/* Puts query, key and value of the new token into shared memory, and the latter two into the cache;
 * the block may read them after a barrier. */
template <bool HALF>
static __device__ __forceinline__ void place_token(const cuda_attention_args &a, const head_task &t,
                                                   const head_pair &p, attention_rooms &rooms)
{
    float u = 0, v = 0, value = 0;
    if (p.there) {
        u = load_fresh(p.from + p.first);
        v = load_fresh(p.from + p.second);
    }
    if (p.value) value = load_fresh(p.value);
    if (a.query_norm.weight || a.key_norm.weight) norm_pair<HALF>(a, p, t.d, u, v, rooms);
    if (p.turned) {
        const float uc = round_if(HALF, u * p.cosine), vs = round_if(HALF, -v * p.sine);
        const float vc = round_if(HALF, v * p.cosine), us = round_if(HALF, u * p.sine);
        u = round_if(HALF, uc + vs);
        v = round_if(HALF, vc + us);
    }
    if (p.there) {
        float *to = p.is_key ? rooms.key : rooms.query;
        to[p.first] = u;
        to[p.second] = v;
    }
    if (p.value) rooms.value[threadIdx.x] = value;
    if (a.stored || t.part > 0 || t.head != t.kv * a.group) return;
    const size_t at = t.at + (size_t)t.s.past * t.d;
    if (p.there && p.is_key) {
        a.keys[at + p.first] = u;
        a.keys[at + p.second] = v;
    }
    if (p.value) a.values[at + threadIdx.x] = value;
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* In a 16-bit model to the last bit: a weight that is rounded may lie on the border of two. Its
 * queries and keys are 16-bit numbers, whose products fp32 has exactly. */
template <bool HALF> struct dot_type {
    typedef float type;
};
template <> struct dot_type<true> {
    typedef double type;
};

template <typename T>
static __device__ __forceinline__ T dot_four(T sum, const float4 &q, const float4 &k)
{
    if constexpr (sizeof(T) == sizeof(double)) {
        sum += (double)(q.x * k.x);
        sum += (double)(q.y * k.y);
        sum += (double)(q.z * k.z);
        sum += (double)(q.w * k.w);
    } else {
        sum = __fmaf_rn(q.x, k.x, sum);
        sum = __fmaf_rn(q.y, k.y, sum);
        sum = __fmaf_rn(q.z, k.z, sum);
        sum = __fmaf_rn(q.w, k.w, sum);
    }
    return sum;
}

/* Writes the scores of the task's keys, and returns the largest that the thread has seen. */
template <bool HALF>
static __device__ __forceinline__ float score_keys(const cuda_attention_args &a, const head_task &t,
                                                   ready_keys &r, const attention_rooms &rooms,
                                                   float *scores)
{
    typedef typename dot_type<HALF>::type dot;
    const unsigned lanes = 1u << a.key_shift, lane = threadIdx.x & (lanes - 1);
    const unsigned own_key = threadIdx.x >> a.key_shift, at_once = STEP_THREADS >> a.key_shift;
    /* A warp goes on until all of its keys are done. */
    const unsigned warps_key = own_key & ~((WARP >> a.key_shift) - 1);
    float4 query[KEY_FOURS];
#pragma unroll
    for (unsigned i = 0; i < KEY_FOURS; i++) {
        const unsigned column = (lane + i * lanes) * 4;
        query[i] = column < t.d ? *(const float4 *)(rooms.query + column) : make_float4(0, 0, 0, 0);
    }
    float max = -INFINITY;
    unsigned begin = 0;
#pragma unroll 1
    while ((int)(begin + warps_key) < t.n) {
        dot sums[READY_KEYS];
#pragma unroll
        for (unsigned k = 0; k < READY_KEYS; k++) {
            if ((int)(begin + k * at_once + own_key) == t.own) {
#pragma unroll
                for (unsigned i = 0; i < KEY_FOURS; i++) {
                    const unsigned column = (lane + i * lanes) * 4;
                    r.fours[k][i] = *(const float4 *)(rooms.key + (column < t.d ? column : 0));
                }
            }
            sums[k] = 0;
#pragma unroll
            for (unsigned i = 0; i < KEY_FOURS; i++)
                sums[k] = dot_four(sums[k], query[i], r.fours[k][i]);
        }
#pragma unroll 1
        for (unsigned i = lanes / 2; i > 0; i /= 2)
#pragma unroll
            for (unsigned k = 0; k < READY_KEYS; k++)
                sums[k] += __shfl_xor_sync(0xFFFFFFFF, sums[k], (int)i);
#pragma unroll
        for (unsigned k = 0; k < READY_KEYS; k++) {
            const unsigned j = begin + k * at_once + own_key;
            if ((int)j >= t.n) continue;
            const float score = a.scale * (float)sums[k] + r.biases[k];
            if (lane == 0) scores[j] = score;
            max = fmaxf(max, score);
        }
        begin += READY_KEYS * at_once;
        if ((int)begin < t.n) get_keys(a, t, begin, r);
    }
    return max;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* A weighted sum of values, and the sum of the weights. */
struct value_sum {
    float total; /* of column threadIdx.x, if a head has so many: no more than there are threads */
    float weights;
};

/* The task's values, each times its weight. `ready`: get_values'. */
template <bool HALF>
static __device__ __forceinline__ value_sum add_values(const head_task &t, const value_share &v,
                                                       const float *scores, float max, float *ready,
                                                       attention_rooms &rooms)
{
    const int n = v.lane < v.lanes ? t.n : 0;
    float4 y = make_float4(0, 0, 0, 0);
    float weights = 0;
#pragma unroll 1
    for (unsigned begin = 0; (int)begin < n;) {
        const int first = (int)(begin + v.lane);
        float w[READY_VALUES];
#pragma unroll
        for (int k = 0; k < READY_VALUES; k++) {
            const int j = first + k * (int)v.lanes;
            w[k] = j < n ? expf(scores[j] - max) : 0;
            weights += w[k];
            w[k] = round_if(HALF, w[k]);
        }
        const float *p = ready + v.lane * t.d + v.column;
        wait_for_copies();
#pragma unroll
        for (int k = 0; k < READY_VALUES; k++) {
            const int j = first + k * (int)v.lanes;
            if (j < n) {
                const float4 x = *(const float4 *)(j == t.own ? rooms.value + v.column : p);
                y.x = __fmaf_rn(w[k], x.x, y.x);
                y.y = __fmaf_rn(w[k], x.y, y.y);
                y.z = __fmaf_rn(w[k], x.z, y.z);
                y.w = __fmaf_rn(w[k], x.w, y.w);
            }
            p += v.lanes * t.d;
        }
        begin += READY_VALUES * v.lanes;
        if ((int)begin < n) get_values(t, v, begin, ready);
    }
    if (v.lane < v.lanes) {
        *(float4 *)(rooms.partial + v.lane * t.d + v.column) = y;
        if (v.column == 0) rooms.weights[v.lane] = weights;
    }
    step_sync();
    value_sum sum = {0, 0};
    const unsigned column = min(threadIdx.x, t.d - 1);
#pragma unroll 4
    for (unsigned k = 0; k < v.lanes; k++) {
        sum.total += rooms.partial[k * t.d + column];
        sum.weights += rooms.weights[k];
    }
    return sum;
}

/* ---- parts ----------------------------------------------------------------------------------- */

/* Each of the blocks that share a head adds up what all have for some of its columns: one in
 * `parts` fours. The others send it their largest score, sum and values of these columns. There is
 * no other sign of what has come than that it is no longer NOTHING, which is no result of
 * arithmetic: a way to memory and back is all it takes. Who reads it makes it NOTHING again. */
enum { PART_MAX, PART_SUM, PART_ENDS };

#define NOTHING 0xFFFFFFFF

/* What one block is sent: PART_ENDS numbers of each part, then each part's values. */
struct part_box {
    float *ends, *values;
    unsigned fours; /* of a part's values */
};

static __device__ __forceinline__ part_box box_of(const cuda_attention_args &a, const head_task &t,
                                                  unsigned part)
{
    float *p = a.partial + ((t.number << a.parts_shift) + part) * CUDA_PART_FLOATS;
    const unsigned parts = 1u << a.parts_shift;
    return {p, p + parts * PART_ENDS, (t.d / 4 + parts - 1) >> a.parts_shift};
}

static __device__ __forceinline__ void send(float *to, float x)
{
    asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(to), "f"(x) : "memory");
}

static __device__ __forceinline__ bool has_come(float x)
{
    return __float_as_uint(x) != NOTHING;
}

static __device__ __forceinline__ float look(const float *p)
{
    float x;
    asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(x) : "l"(p) : "memory");
    return x;
}

static __device__ __forceinline__ float4 look_at_four(const float *p)
{
    float4 x;
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                 : "l"(p)
                 : "memory");
    return x;
}

static __device__ __forceinline__ void send_end(const cuda_attention_args &a, const head_task &t,
                                                unsigned which, float x)
{
    if (threadIdx.x >> a.parts_shift == 0)
        send(box_of(a, t, threadIdx.x).ends + t.part * PART_ENDS + which, x);
}

/* The largest score of all parts of a head, for 16-bit models, whose weights are rounded when it
 * has been taken off. */
static __device__ __forceinline__ float max_of_parts(const cuda_attention_args &a,
                                                     const head_task &t, float max)
{
    const unsigned parts = 1u << a.parts_shift, part = threadIdx.x & (parts - 1);
    send_end(a, t, PART_MAX, max);
    const float *from = box_of(a, t, t.part).ends + part * PART_ENDS + PART_MAX;
    do max = look(from);
    while (!has_come(max));
    return warp_max(max);
}

static __device__ __forceinline__ void send_part(const cuda_attention_args &a, const head_task &t,
                                                 const value_sum &sum)
{
    send_end(a, t, PART_SUM, sum.weights);
    if (threadIdx.x >= t.d) return;
    const unsigned four = threadIdx.x / 4, part = four & ((1u << a.parts_shift) - 1);
    const part_box to = box_of(a, t, part);
    send(to.values + (t.part * to.fours + (four >> a.parts_shift)) * 4 + threadIdx.x % 4,
         sum.total);
}

template <bool HALF> static __device__ __forceinline__ float divided(float total, float sum)
{
    if (!(sum > 0)) return total;
    return HALF ? round_half(total / sum) : total * (1.0f / sum);
}

/* Adds up the block's columns, by one warp; lanes side by side have a part each. */
template <bool HALF>
static __device__ __forceinline__ void add_parts(const cuda_attention_args &a, const head_task &t,
                                                 float *out)
{
    enum { MOST_FOURS = MAX_HEAD_DIM / 4 / WARP };
    const unsigned parts = 1u << a.parts_shift, part = threadIdx.x & (parts - 1);
    const unsigned first = threadIdx.x >> a.parts_shift, apart = WARP >> a.parts_shift;
    const part_box box = box_of(a, t, t.part);
    float *ends = box.ends + part * PART_ENDS, *from[MOST_FOURS];
    unsigned columns[MOST_FOURS];
    float4 x[MOST_FOURS];
#pragma unroll
    for (unsigned k = 0; k < MOST_FOURS; k++) {
        const unsigned four = first + k * apart;
        columns[k] = four < box.fours ? ((four << a.parts_shift) + t.part) * 4 : t.d;
        from[k] = box.values + (part * box.fours + four) * 4;
        x[k] = make_float4(0, 0, 0, 0);
    }
    float max, sum;
    bool all;
    do {
        max = look(ends + PART_MAX);
        sum = look(ends + PART_SUM);
        all = has_come(max) && has_come(sum);
#pragma unroll
        for (unsigned k = 0; k < MOST_FOURS; k++)
            if (columns[k] < t.d) {
                x[k] = look_at_four(from[k]);
                all = all && has_come(x[k].x) && has_come(x[k].y) && has_come(x[k].z) &&
                      has_come(x[k].w);
            }
    } while (!all);
    __syncwarp();
    const float nothing = __uint_as_float(NOTHING);
    if (first == 0) ends[PART_MAX] = ends[PART_SUM] = nothing;
#pragma unroll
    for (unsigned k = 0; k < MOST_FOURS; k++)
        if (columns[k] < t.d) *(float4 *)from[k] = make_float4(nothing, nothing, nothing, nothing);

    const float most = warp_max(max);
    /* Parts without keys have the largest of nothing. */
    const float factor = HALF || max == most ? 1 : expf(max - most);
    sum *= factor;
#pragma unroll
    for (unsigned k = 0; k < MOST_FOURS; k++) {
        x[k].x *= factor;
        x[k].y *= factor;
        x[k].z *= factor;
        x[k].w *= factor;
    }
#pragma unroll 1
    for (int i = 1; i < (int)parts; i *= 2) {
        sum += __shfl_xor_sync(0xFFFFFFFF, sum, i);
#pragma unroll
        for (unsigned k = 0; k < MOST_FOURS; k++) {
            x[k].x += __shfl_xor_sync(0xFFFFFFFF, x[k].x, i);
            x[k].y += __shfl_xor_sync(0xFFFFFFFF, x[k].y, i);
            x[k].z += __shfl_xor_sync(0xFFFFFFFF, x[k].z, i);
            x[k].w += __shfl_xor_sync(0xFFFFFFFF, x[k].w, i);
        }
    }
    if (part > 0) return;
#pragma unroll
    for (unsigned k = 0; k < MOST_FOURS; k++)
        if (columns[k] < t.d)
            *(float4 *)(out + columns[k]) =
                make_float4(divided<HALF>(x[k].x, sum), divided<HALF>(x[k].y, sum),
                            divided<HALF>(x[k].z, sum), divided<HALF>(x[k].w, sum));
}

/* ---- a task ---------------------------------------------------------------------------------- */

template <bool HALF>
static __device__ __forceinline__ void attend_task(const cuda_attention_args &a, const head_task &t,
                                                   const head_pair &pair, const value_share &v,
                                                   ready_keys &r, float *values,
                                                   attention_rooms &rooms, float *scores)
{
    const team everybody = {0, STEP_WARPS, threadIdx.x, STEP_THREADS};
    const bool alone = a.parts_shift == 0;
    float *out = a.out + (size_t)t.s.first_row * a.out_stride + (size_t)t.head * t.d;
    place_token<HALF>(a, t, pair, rooms);
    step_sync();
    float max = team_max(everybody, score_keys<HALF>(a, t, r, rooms, scores), rooms.max);
    if (!alone) {
        if (HALF)
            max = max_of_parts(a, t, max);
        else
            send_end(a, t, PART_MAX, max);
    }
    const value_sum sum = add_values<HALF>(t, v, scores, max, values, rooms);
    if (alone) {
        if (threadIdx.x < t.d) out[threadIdx.x] = divided<HALF>(sum.total, sum.weights);
        return;
    }
    send_part(a, t, sum);
    if (threadIdx.x < WARP) add_parts<HALF>(a, t, out);
}

/* `sequences`: a.sequences, or what they are in shared memory. */
template <bool HALF>
static __device__ __forceinline__ void
run_attention(const cuda_attention_args &a, const cuda_sequence *sequences,
              const all_blocks &blocks, attention_rooms &rooms, char *shared)
{
    const unsigned tasks = tasks_of(a);
    float *values = (float *)shared, *scores = (float *)(shared + READY_VALUE_BYTES);
    bool waited = false;
#pragma unroll 1
    for (unsigned task = blockIdx.x; task < tasks; task += gridDim.x) {
        const head_task t = task_of(a, sequences, task);
        const value_share v = values_of(a, t.d);
        ready_keys ready;
        get_keys(a, t, 0, ready);
        get_values(t, v, 0, values);
        const head_pair pair = pair_of(a, t);
        if (waited)
            step_sync();
        else
            blocks.wait();
        waited = true;
        attend_task<HALF>(a, t, pair, v, ready, values, rooms, scores);
    }
    if (!waited) blocks.wait();
}

#endif

/* Attention of one query of each sequence, as a node of a program: a block for each head of each
 * sequence, or several, each for some of the keys, where the context is long and there are blocks
 * enough. Keys and values of earlier tokens are asked for before the wait, as many as there is room
 * for in shared memory. Heads that share keys each norm and turn the new one for themselves; the
 * first of them writes it to the cache.
 *
 * Hardly any of its instructions is run often: they come from memory slower than they are run, and
 * loops that are not unrolled are faster here. */
#ifndef BG_BACKEND_CUDA_PROGRAM_ATTENTION_CUH
#define BG_BACKEND_CUDA_PROGRAM_ATTENTION_CUH

#include "backend/cuda/program_cache.cuh"
#include "backend/cuda/program_input.cuh"

/* Lanes that share a key are 4, 8 or 16, by the head's width; each has up to KEY_FOURS of it. */
enum { LEAST_KEY_SHIFT = 2, KEY_FOURS = 4, MOST_LANES = MAX_HEAD_DIM / 4 / KEY_FOURS };

struct attention_rooms {
    float query[MAX_HEAD_DIM], key[MAX_HEAD_DIM], value[MAX_HEAD_DIM];
    double norm_sums[2 * STEP_WARPS];
    int max[STEP_WARPS];
    alignas(16) float partial[STEP_THREADS * 4]; /* (lanes, head_dim), value_share's */
    float weights[STEP_THREADS];                 /* (lanes) */
    float all_max;
};

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
    if (p.there && norm.weight) {
        p.weights[0] = load_fresh(norm.weight + p.first);
        p.weights[1] = load_fresh(norm.weight + p.second);
        p.biases[0] = norm.bias ? load_fresh(norm.bias + p.first) : 0;
        p.biases[1] = norm.bias ? load_fresh(norm.bias + p.second) : 0;
    }
    return p;
}

/* As place_head has it. */
template <bool HALF>
static __device__ __forceinline__ void norm_pair(const cuda_attention_args &a, const head_pair &p,
                                                 unsigned d, float &u, float &v,
                                                 attention_rooms &rooms)
{
    const cuda_norm &norm = norm_of(a, p);
    const bool centered = norm.kind == BG_NORM_LAYER;
    const double inverse = exact_inverse(d), x = (double)u, y = (double)v;
    double sum = x + y, squares = x * x + y * y;
    team_sums(p.half, sum, squares, rooms.norm_sums);
    norm_state s = {0, 0};
    if (centered) {
        s.mean = (float)(sum * inverse);
        const double mean = (double)s.mean;
        squares += mean * (mean * (double)d - 2 * sum);
    }
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
    const unsigned row = (unsigned)(t.s.past - t.first) * t.d;
    float *keys = (float *)t.keys + row, *values = (float *)t.values + row;
    if (p.there && p.is_key) {
        keys[p.first] = u;
        keys[p.second] = v;
    }
    if (p.value) values[threadIdx.x] = value;
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
        sum += ((double)(q.x * k.x) + (double)(q.y * k.y)) +
               ((double)(q.z * k.z) + (double)(q.w * k.w));
    } else {
        sum = __fmaf_rn(q.x, k.x, sum);
        sum = __fmaf_rn(q.y, k.y, sum);
        sum = __fmaf_rn(q.z, k.z, sum);
        sum = __fmaf_rn(q.w, k.w, sum);
    }
    return sum;
}

/* What the lanes of a key have. */
template <typename T> static __device__ __forceinline__ T key_sum(T x, unsigned lanes)
{
    constexpr bool FOURS = DOUBLE_MMA && sizeof(T) == sizeof(double);
    if constexpr (FOURS) x = four_sum(x);
#pragma unroll
    for (unsigned apart = FOURS ? 1 << LEAST_KEY_SHIFT : 1; apart < MOST_LANES; apart *= 2)
        if (apart < lanes) x += __shfl_xor_sync(0xFFFFFFFF, x, (int)apart);
    return x;
}

/* T5's biases are where the scores will be. */
static __device__ __forceinline__ void get_biases(const cuda_attention_args &a, const head_task &t,
                                                  float *scores)
{
    if (!a.position_bias) return;
#pragma unroll 1
    for (int j = (int)threadIdx.x; j < t.n; j += STEP_THREADS)
        scores[j] = bias_of(a, t.head, t.first + j - t.s.past);
}

/* Writes the scores of the task's keys, and returns the largest that the thread has seen. The first
 * piece of keys is there; the first of values is when this returns, after a barrier. */
template <bool HALF>
static __device__ __forceinline__ float score_keys(const cuda_attention_args &a, const head_task &t,
                                                   const cache_pieces &c,
                                                   const attention_rooms &rooms, float *scores)
{
    typedef typename dot_type<HALF>::type dot;
    const unsigned lanes = 1u << a.key_shift, lane = threadIdx.x & (lanes - 1);
    const int own_key = (int)(threadIdx.x >> a.key_shift), at_once = STEP_THREADS >> a.key_shift;
    float max = -INFINITY;
#pragma unroll 1
    for (int piece = 0; piece < c.keys; piece++) {
        if (piece > 0) step_sync();
        const float *room = room_of(c, piece);
        const int first = piece * c.rows, n = min(t.n - first, c.rows);
        /* A warp goes on until all of its keys are done. */
#pragma unroll 1
        for (int i = own_key; i < (n + 7) / 8 * 8; i += at_once) {
            const int j = first + min(i, n - 1);
            const float *key = j == t.own ? rooms.key : room + (j - first) * (int)t.d;
            dot sum = 0;
#pragma unroll
            for (unsigned k = 0; k < KEY_FOURS; k++) {
                const unsigned column = (lane + k * lanes) * 4;
                if (column < t.d)
                    sum = dot_four(sum, *(const float4 *)(rooms.query + column),
                                   *(const float4 *)(key + column));
            }
            sum = key_sum(sum, lanes);
            if (i >= n || lane > 0) continue;
            float score = a.scale * (float)sum;
            if (a.position_bias) score += scores[j];
            scores[j] = score;
            max = fmaxf(max, score);
        }
        if (piece + STAGES < 2 * c.keys) step_sync();
        get_piece(t, c, piece + STAGES);
        wait_for_piece();
    }
    return max;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* A thread's columns of values: the first, and which of the keys that are looked at together. */
struct value_share {
    unsigned column, lane, lanes;
};

static __device__ __forceinline__ value_share values_of(const cuda_attention_args &a, unsigned d)
{
    const unsigned columns = d / 4, lane = divide(threadIdx.x, a.column_inverse);
    return {(threadIdx.x - lane * columns) * 4, lane, divide(STEP_THREADS, a.column_inverse)};
}

/* A weighted sum of values, and the sum of the weights. */
struct value_sum {
    float total; /* of column threadIdx.x, if a head has so many: no more than there are threads */
    float weights;
};

/* The task's values, each times its weight. */
template <bool HALF>
static __device__ __forceinline__ value_sum add_values(const head_task &t, const cache_pieces &c,
                                                       const value_share &v, float *scores,
                                                       float max, attention_rooms &rooms)
{
#pragma unroll 1
    for (int j = (int)threadIdx.x; j < t.n; j += STEP_THREADS) scores[j] = expf(scores[j] - max);
    step_sync();
    float4 y = make_float4(0, 0, 0, 0);
    float weights = 0;
#pragma unroll 1
    for (int piece = c.keys; piece < 2 * c.keys; piece++) {
        if (piece > c.keys) step_sync();
        const int first = (piece - c.keys) * c.rows;
        const int n = v.lane < v.lanes ? min(t.n - first, c.rows) : 0;
        const float *room = room_of(c, piece);
#pragma unroll 2
        for (int i = (int)v.lane; i < n; i += (int)v.lanes) {
            const int j = first + i;
            const float weight = scores[j], w = round_if(HALF, weight);
            const float *value = j == t.own ? rooms.value : room + i * (int)t.d;
            const float4 x = *(const float4 *)(value + v.column);
            weights += weight;
            y.x = __fmaf_rn(w, x.x, y.x);
            y.y = __fmaf_rn(w, x.y, y.y);
            y.z = __fmaf_rn(w, x.z, y.z);
            y.w = __fmaf_rn(w, x.w, y.w);
        }
        if (piece + STAGES < 2 * c.keys) step_sync();
        get_piece(t, c, piece + STAGES);
        wait_for_piece();
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

template <bool HALF> static __device__ __forceinline__ float divided(float total, float sum)
{
    if (!(sum > 0)) return total;
    return HALF ? round_half(total / sum) : total * (1.0f / sum);
}

/* ---- parts ----------------------------------------------------------------------------------- */

/* Each of the blocks that share a head adds up what all have for some of its columns: one in
 * `parts` fours. The others send it their largest score, sum and values of these columns. There is
 * no other sign of what has come than that it is no longer NOTHING, which is no result of
 * arithmetic: a way to memory and back is all it takes. Few warps look for it, so as not to be in
 * the way of what they wait for: a four for each lane. They make it NOTHING again; what both read
 * is sent to each. */
enum { PART_MAX, PART_SUM, PART_ENDS };
enum { ADDING_WARPS = MAX_HEAD_DIM / 4 / WARP };

#define NOTHING 0xFFFFFFFF

static_assert(CUDA_PART_FLOATS >= MAX_HEAD_DIM + ADDING_WARPS * CUDA_MOST_PARTS * PART_ENDS,
              "room");

/* What one block is sent: for each warp PART_ENDS numbers of each part, and each part's fours. */
struct part_box {
    float *ends, *values;
    unsigned fours; /* of a part */
};

static __device__ __forceinline__ part_box box_of(const cuda_attention_args &a, const head_task &t,
                                                  unsigned part)
{
    float *p = a.partial + ((t.number << a.parts_shift) + part) * CUDA_PART_FLOATS;
    const unsigned parts = 1u << a.parts_shift;
    return {p, p + ADDING_WARPS * PART_ENDS * parts, (t.d / 4 + parts - 1) >> a.parts_shift};
}

static __device__ __forceinline__ void send(float *to, float x)
{
    asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(to), "f"(x) : "memory");
}

static __device__ __forceinline__ float2 look_at_ends(const float *p)
{
    float2 x;
    asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];"
                 : "=f"(x.x), "=f"(x.y)
                 : "l"(p)
                 : "memory");
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

/* NOTHING if one of them is. */
static __device__ __forceinline__ uint32_t larger_bits(float a, float b)
{
    return max(__float_as_uint(a), __float_as_uint(b));
}

/* One of PART_ENDS to all blocks. */
static __device__ __forceinline__ void send_end(const cuda_attention_args &a, const head_task &t,
                                                unsigned which, float x)
{
    const unsigned warp = threadIdx.x >> a.parts_shift;
    const unsigned part = threadIdx.x - (warp << a.parts_shift);
    if (warp < ADDING_WARPS)
        send(box_of(a, t, part).ends + ((warp << a.parts_shift) + t.part) * PART_ENDS + which, x);
}

/* The warp's of one part. */
static __device__ __forceinline__ float *ends_of(const cuda_attention_args &a, const part_box &box,
                                                 unsigned part)
{
    return box.ends + ((threadIdx.x / WARP << a.parts_shift) + part) * PART_ENDS;
}

/* The largest score of all parts, for 16-bit models, whose weights are rounded when it has been
 * taken off. */
static __device__ __forceinline__ float
max_of_parts(const cuda_attention_args &a, const head_task &t, float max, attention_rooms &rooms)
{
    send_end(a, t, PART_MAX, max);
    if (threadIdx.x < WARP) {
        const unsigned part = threadIdx.x & ((1u << a.parts_shift) - 1);
        const float *from = ends_of(a, box_of(a, t, t.part), part);
        do max = look_at_ends(from).x;
        while (__float_as_uint(max) == NOTHING);
        max = warp_max(max);
        if (threadIdx.x == 0) rooms.all_max = max;
    }
    step_sync();
    return rooms.all_max;
}

/* What is in all parts, and the output. Lanes side by side have a part each. */
template <bool HALF>
static __device__ __forceinline__ void add_parts(const cuda_attention_args &a, const head_task &t,
                                                 float max, const value_sum &own, float *out)
{
    const unsigned parts = 1u << a.parts_shift;
    if (threadIdx.x < t.d) {
        const unsigned four = threadIdx.x / 4;
        const part_box to = box_of(a, t, four & (parts - 1));
        send(to.values + (t.part * to.fours + (four >> a.parts_shift)) * 4 + threadIdx.x % 4,
             own.total);
    }
    if (!HALF) send_end(a, t, PART_MAX, max);
    send_end(a, t, PART_SUM, own.weights);
    if (threadIdx.x >= ADDING_WARPS * WARP) return;
    const unsigned part = threadIdx.x & (parts - 1), four = threadIdx.x >> a.parts_shift;
    const unsigned column = ((four << a.parts_shift) + t.part) * 4;
    const bool there = column < t.d;
    const part_box box = box_of(a, t, t.part);
    float *ends = ends_of(a, box, part), *from = box.values + (part * box.fours + four) * 4;
    float2 end;
    float4 x = make_float4(0, 0, 0, 0);
    uint32_t bits;
    do {
        end = look_at_ends(ends);
        if (there) x = look_at_four(from);
        bits = ::max(larger_bits(x.x, x.y), larger_bits(x.z, x.w));
    } while (::max(bits, larger_bits(end.x, end.y)) == NOTHING);
    __syncwarp();
    const float nothing = __uint_as_float(NOTHING);
    if (threadIdx.x % WARP < parts) *(float2 *)ends = make_float2(nothing, nothing);
    if (there) *(float4 *)from = make_float4(nothing, nothing, nothing, nothing);
    /* Parts without keys have the largest of nothing. */
    const float most = warp_max(end.x), factor = HALF || end.x == most ? 1 : expf(end.x - most);
    float sum = end.y * factor;
    x = make_float4(x.x * factor, x.y * factor, x.z * factor, x.w * factor);
#pragma unroll 1
    for (int apart = 1; apart < (int)parts; apart *= 2) {
        sum += __shfl_xor_sync(0xFFFFFFFF, sum, apart);
        x.x += __shfl_xor_sync(0xFFFFFFFF, x.x, apart);
        x.y += __shfl_xor_sync(0xFFFFFFFF, x.y, apart);
        x.z += __shfl_xor_sync(0xFFFFFFFF, x.z, apart);
        x.w += __shfl_xor_sync(0xFFFFFFFF, x.w, apart);
    }
    if (part == 0 && there)
        *(float4 *)(out + column) = make_float4(divided<HALF>(x.x, sum), divided<HALF>(x.y, sum),
                                                divided<HALF>(x.z, sum), divided<HALF>(x.w, sum));
}

/* ---- a task ---------------------------------------------------------------------------------- */

template <bool HALF>
static __device__ __forceinline__ void
attend_task(const cuda_attention_args &a, const head_task &t, const head_pair &pair,
            const cache_pieces &c, const value_share &v, attention_rooms &rooms, float *scores)
{
    const team everybody = {0, STEP_WARPS, threadIdx.x, STEP_THREADS};
    const bool alone = a.parts_shift == 0;
    float *out = a.out + (unsigned)t.s.first_row * (unsigned)a.out_stride + t.head * t.d;
    place_token<HALF>(a, t, pair, rooms);
    wait_for_piece();
    step_sync();
    float max = team_max(everybody, score_keys<HALF>(a, t, c, rooms, scores), rooms.max);
    if (HALF && !alone) max = max_of_parts(a, t, max, rooms);
    const value_sum sum = add_values<HALF>(t, c, v, scores, max, rooms);
    if (!alone)
        add_parts<HALF>(a, t, max, sum, out);
    else if (threadIdx.x < t.d)
        out[threadIdx.x] = divided<HALF>(sum.total, sum.weights);
}

/* `sequences`: a.sequences, or what they are in shared memory. Returns whether it has waited for
 * the other blocks, as it does where there is something to do. */
template <bool HALF>
static __device__ __forceinline__ bool
run_attention(const cuda_attention_args &a, const cuda_sequence *sequences,
              const all_blocks &blocks, attention_rooms &rooms, char *shared)
{
    const unsigned tasks = tasks_of(a);
    bool waited = false;
#pragma unroll 1
    for (unsigned task = blockIdx.x; task < tasks; task += gridDim.x) {
        const head_task t = task_of(a, sequences, task);
        const cache_pieces c = pieces_of(a, t, (float *)shared);
        float *scores = (float *)shared + a.ready_rows * STAGES * t.d;
        if (waited) step_sync(); /* nobody reads what was in the room before */
#pragma unroll 1
        for (int piece = 0; piece < STAGES; piece++) get_piece(t, c, piece);
        const head_pair pair = pair_of(a, t);
        const value_share v = values_of(a, t.d);
        get_biases(a, t, scores);
        if (!waited) blocks.wait();
        waited = true;
        attend_task<HALF>(a, t, pair, c, v, rooms, scores);
    }
    return waited;
}

#endif

/* The input of a linear layer of a program, put into shared memory by every block for itself:
 * normed where a norm is merged with the layer, and then in a form that tensor cores multiply
 * exactly:
 *   - with 16-bit and 4-bit weights as two halves, high and low, whose sum is the fp32 value to 22
 *     bits (16 for bf16), or for fp16, whose values are scaled, to 2^-21 of the row's largest;
 *   - for LLM.int8() as codes.
 * A row lies in quads of 16 bytes: four fp32 values, and in the end, in the same place, their high
 * halves and their low halves. A thread has the same quads all the time. */
#ifndef BG_BACKEND_CUDA_PROGRAM_INPUT_CUH
#define BG_BACKEND_CUDA_PROGRAM_INPUT_CUH

#include "backend/cuda/program_row.cuh"

enum { MOST_ROWS = 8, PACKED_ROWS = 4 }; /* of activations at once */

enum part_type { PARTS_F16, PARTS_BF16, CODES_INT8 };

struct input_rooms {
    double sums[2 * STEP_WARPS];
    int most[STEP_WARPS];
    float scale[MOST_ROWS]; /* what sums are multiplied by: the power of two, or the row's absmax */
    int n_outliers;         /* where there are any */
};

/* In shared memory. */
struct staged_input {
    char *quads;
    unsigned pitch; /* of rows of quads, in bytes */
    /* int8: rows of codes, marks of outlier columns, and their list. */
    char *codes;
    unsigned code_pitch;
    uint32_t *marks;
    uint16_t *outliers;
};

/* Rows apart by so many bytes want different banks. */
static __host__ __device__ __forceinline__ unsigned row_pitch(unsigned bytes)
{
    return (bytes + 127) / 128 * 128 + 64;
}

static __host__ __device__ __forceinline__ size_t aligned16(size_t n)
{
    return (n + 15) / 16 * 16;
}

static __host__ __device__ __forceinline__ size_t staged_bytes(part_type type, unsigned rows,
                                                               unsigned cols)
{
    size_t bytes = rows * (size_t)row_pitch(cols * 4);
    if (type == CODES_INT8)
        bytes += rows * (size_t)row_pitch(cols) + aligned16((cols + 31) / 32 * 4) +
                 aligned16((size_t)cols * 2);
    return bytes;
}

static __device__ __forceinline__ staged_input staged_at(char *p, part_type type, unsigned rows,
                                                         unsigned cols)
{
    staged_input s = {p, row_pitch(cols * 4)};
    if (type != CODES_INT8) return s;
    s.codes = p + rows * s.pitch;
    s.code_pitch = row_pitch(cols);
    s.marks = (uint32_t *)(s.codes + rows * s.code_pitch);
    s.outliers = (uint16_t *)((char *)s.marks + aligned16((cols + 31) / 32 * 4));
    return s;
}

/* ---- halves ---------------------------------------------------------------------------------- */

/* The power of two that brings `most` to [2^13, 2^14); 1 for nothing and for what is not finite. */
static __device__ __forceinline__ float split_scale(float most)
{
    const int exponent = (int)(__float_as_uint(most) >> 23 & 0xFF);
    if (exponent == 0 || exponent == 0xFF) return 1;
    return __uint_as_float((uint32_t)min(max(127 + 13 - (exponent - 127), 1), 253) << 23);
}

/* 1 / scale of a power of two that split_scale gives. */
static __device__ __forceinline__ float inverse_power(float scale)
{
    return __uint_as_float((254u << 23) - __float_as_uint(scale));
}

static __device__ __forceinline__ float4 as_float4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
    return make_float4(__uint_as_float(x), __uint_as_float(y), __uint_as_float(z),
                       __uint_as_float(w));
}

static __device__ __forceinline__ float4 split_half(const float4 &x, float scale)
{
    const __half2 h0 = __floats2half2_rn(x.x * scale, x.y * scale);
    const __half2 h1 = __floats2half2_rn(x.z * scale, x.w * scale);
    const float2 f0 = __half22float2(h0), f1 = __half22float2(h1);
    const __half2 l0 = __floats2half2_rn(x.x * scale - f0.x, x.y * scale - f0.y);
    const __half2 l1 = __floats2half2_rn(x.z * scale - f1.x, x.w * scale - f1.y);
    return as_float4(*(const uint32_t *)&h0, *(const uint32_t *)&h1, *(const uint32_t *)&l0,
                     *(const uint32_t *)&l1);
}

static __device__ __forceinline__ float4 split_bfloat(const float4 &x)
{
    const __nv_bfloat162 h0 = __floats2bfloat162_rn(x.x, x.y);
    const __nv_bfloat162 h1 = __floats2bfloat162_rn(x.z, x.w);
    const float2 f0 = __bfloat1622float2(h0), f1 = __bfloat1622float2(h1);
    const __nv_bfloat162 l0 = __floats2bfloat162_rn(x.x - f0.x, x.y - f0.y);
    const __nv_bfloat162 l1 = __floats2bfloat162_rn(x.z - f1.x, x.w - f1.y);
    return as_float4(*(const uint32_t *)&h0, *(const uint32_t *)&h1, *(const uint32_t *)&l0,
                     *(const uint32_t *)&l1);
}

template <part_type TYPE>
static __device__ __forceinline__ float4 split(const float4 &x, float scale)
{
    return TYPE == PARTS_BF16 ? split_bfloat(x) : split_half(x, scale);
}

/* What activations are scaled by as a rule, in one pass with looking for the largest: from one of
 * 2^-10 on, halves hold 2^-21 of it, and up to 2^9 none is too large. */
#define USUAL_SCALE 64.0f

/* Splits a row; another scale than the usual one takes another pass. */
template <part_type TYPE, int Q>
static __device__ __forceinline__ void split_row(const input_row<Q> &row, const float4 (&first)[Q],
                                                 const team &t, unsigned m, input_rooms &rooms)
{
    constexpr float USUAL = TYPE == PARTS_F16 ? USUAL_SCALE : 1;
    float most = 0, scale = USUAL;
    bool done = false;
    take_row(row, first, [&](const float4 &x, int) INLINE {
        most = fmaxf(most, largest(x));
        return split<TYPE>(x, USUAL);
    });
    if (TYPE == PARTS_F16) {
        float all;
        most = team_most(t, most, rooms.most, &all);
        if (most > 0 && !(most >= 0x1p-10f && most <= 0x1p9f)) {
            scale = split_scale(most);
#pragma unroll 1
            for (unsigned q = row.lane; q < row.fours; q += row.threads)
                row.quads[quad_place(q)] =
                    split<TYPE>(load_fresh((const float4 *)row.in + q), scale);
        } else {
            done = t.warps == STEP_WARPS; /* all warps know, and have met since */
        }
    }
    if (t.lane == 0 && row.fours > 0) rooms.scale[m] = inverse_power(scale);
    if (!done) step_sync();
}

/* A normed row's scale: no value of it is near 2^20, and 2^-21 is little beside them. */
#define NORMED_SCALE 0.0625f

/* ---- LLM.int8() ------------------------------------------------------------------------------ */

/* The numbers of the set bits of `words` words, ascending, to `list`, by the first warp: a lane has
 * consecutive words. Returns how many there are. */
static __device__ __forceinline__ int list_bits(const uint32_t *bits, unsigned words,
                                                uint16_t *list)
{
    const unsigned each = (words + WARP - 1) / WARP, first = threadIdx.x * each;
    const unsigned end = min(first + each, words);
    int n = 0;
#pragma unroll 1
    for (unsigned i = first; i < end; i++) n += __popc(bits[i]);
    int at = n; /* with all lanes before this one */
    for (int i = 1; i < WARP; i *= 2) {
        const int before = __shfl_up_sync(0xFFFFFFFF, at, i);
        if ((int)threadIdx.x >= i) at += before;
    }
    const int all = __shfl_sync(0xFFFFFFFF, at, WARP - 1);
    at -= n;
#pragma unroll 1
    for (unsigned i = first; i < end; i++)
        for (uint32_t left = bits[i]; left; left &= left - 1)
            list[at++] = (uint16_t)(i * 32 + (unsigned)__ffs((int)left) - 1);
    return all;
}

/* Four numbers between -127 and 127 to codes: rounded by a number so large that its last place is
 * 1. NaN becomes some code. */
static __device__ __forceinline__ uint32_t pack_codes(const float4 &x, float factor)
{
    const float large = 12582912;
    const uint32_t a = __float_as_uint(x.x * factor + large);
    const uint32_t b = __float_as_uint(x.y * factor + large);
    const uint32_t c = __float_as_uint(x.z * factor + large);
    const uint32_t d = __float_as_uint(x.w * factor + large);
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

/* Zero for what is not coded: outliers, and what became as large when it was rounded. */
static __device__ __forceinline__ float4 coded(const float4 &x, float threshold, uint32_t marks)
{
    const auto one = [&](float y, int i)
                         INLINE { return marks >> i & 1 || !(fabsf(y) < threshold) ? 0 : y; };
    return make_float4(one(x.x, 0), one(x.y, 1), one(x.z, 2), one(x.w, 3));
}

/* Where four codes lie: a lane that multiplies wants every fourth four of a step. */
static __device__ __forceinline__ unsigned code_place(unsigned q)
{
    return (q & ~15u) | (q & 3) << 2 | (q >> 2 & 3);
}

/* Which of four values are outliers. */
static __device__ __forceinline__ uint32_t marks_of(const float4 &x, float threshold)
{
    return (uint32_t)(fabsf(x.x) >= threshold) | (uint32_t)(fabsf(x.y) >= threshold) << 1 |
           (uint32_t)(fabsf(x.z) >= threshold) << 2 | (uint32_t)(fabsf(x.w) >= threshold) << 3;
}

/* Where a thread puts what it has of a short row, and finds the rows' largest values: worked out
 * before the wait. */
struct code_places {
    /* The first's, in shared memory: a row's threads lie between a thread's quads. */
    uint32_t quad, code;
    int *own;              /* the warp's largest */
    const int *team, *all; /* one of those of the team, and of the block */
    float *scale;
};

template <int Q>
static __device__ __forceinline__ code_places code_places_of(const input_row<Q> &row, const team &t,
                                                             unsigned m, const staged_input &s,
                                                             input_rooms &rooms)
{
    static_assert(WARP % 16 == 0, "what a place changes is alike in all quads of a thread");
    const unsigned thread = settled(threadIdx.x); /* not all the time in registers for this */
    return {settled(shared_address(row.quads + quad_place(row.lane))),
            settled(shared_address(s.codes + m * s.code_pitch + code_place(row.lane) * 4)),
            settled_room(rooms.most + thread / WARP),
            settled_room(rooms.most + t.first_warp + (thread & (t.warps - 1))),
            settled_room(rooms.most + thread % STEP_WARPS),
            settled_room(rooms.scale + m)};
}

/* A thread's quad number i of a short row, if it has it, and four codes. Without branches. */
template <int Q>
static __device__ __forceinline__ void put_quad(const code_places &p, const input_row<Q> &row,
                                                unsigned i, const float4 &x)
{
    asm volatile(
        "{.reg .pred wanted;\n"
        "setp.ne.u32 wanted, %5, 0;\n"
        "@wanted st.shared.v4.f32 [%0], {%1, %2, %3, %4};}" ::"r"(p.quad + i * row.threads * 16),
        "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w), "r"((unsigned)is_ready(row, i))
        : "memory");
}

template <int Q>
static __device__ __forceinline__ void put_codes(const code_places &p, const input_row<Q> &row,
                                                 unsigned i, uint32_t codes)
{
    asm volatile("{.reg .pred wanted;\n"
                 "setp.ne.u32 wanted, %2, 0;\n"
                 "@wanted st.shared.u32 [%0], %1;}" ::"r"(p.code + i * row.threads * 4),
                 "r"(codes), "r"((unsigned)is_ready(row, i))
                 : "memory");
}

template <int Q>
static __device__ __forceinline__ void put_scale(const code_places &p, const input_row<Q> &row,
                                                 const team &t, float scale)
{
    if (t.lane == 0 && row.fours > 0) *p.scale = scale;
}

/* team_most of rows whose places are known; the team's comes first. */
static __device__ __forceinline__ float most_at(const code_places &p, float x, float *all)
{
#if __CUDA_ARCH__ >= 800
    int most = __reduce_max_sync(0xFFFFFFFF, __float_as_int(x));
    if (threadIdx.x % WARP == 0) *p.own = most;
    step_sync();
    most = *p.team;
    const int others = *p.all;
    most = __reduce_max_sync(0xFFFFFFFF, most);
    *all = __int_as_float(__reduce_max_sync(0xFFFFFFFF, others));
    return __int_as_float(most);
#else
    return *all = x;
#endif
}

/* What codes are values times; of a row of nothing all are 0. */
static __device__ __forceinline__ float code_factor(const float *reciprocals, float most)
{
    const float least = 0x1p-24f; /* of fp16 */
    return 127 * half_reciprocal(reciprocals, fmaxf(most, least));
}

/* Codes of rows that may have outliers, once more if they are short, and of long ones. */
template <int Q>
static __device__ __forceinline__ void
quantize_rest(unsigned cols, float threshold, bool any, const team &t, unsigned m,
              const input_row<Q> &row, const code_places &places, const staged_input &s,
              const float *reciprocals, input_rooms &rooms, float scale)
{
    const unsigned words = (cols + 31) / 32;
    if (any) {
#pragma unroll 1
        for (unsigned i = threadIdx.x; i < words; i += STEP_THREADS) s.marks[i] = 0;
        step_sync();
        float most = 0, all;
        row.template each<1>([&](const float4 &x, unsigned q) INLINE {
            const uint32_t marks = marks_of(x, threshold);
            if (marks) atomicOr(&s.marks[q / 8], marks << 4 * q % 32);
            most = fmaxf(most, largest(coded(round_four(x), threshold, marks)));
        });
        scale = team_most(t, most, (int *)rooms.sums, &all);
        if (threadIdx.x < WARP) {
            const int n = list_bits(s.marks, words, s.outliers);
            if (threadIdx.x == 0) rooms.n_outliers = n;
        }
        put_scale(places, row, t, scale);
    }
    const float factor = code_factor(reciprocals, scale);
    uint32_t *codes = (uint32_t *)(s.codes + m * s.code_pitch);
    row.each([&](const float4 &x, unsigned q) INLINE {
        float4 y = round_four(x);
        if (any) y = coded(y, threshold, s.marks[q / 8] >> 4 * q % 32);
        codes[code_place(q)] = pack_codes(y, factor);
    });
}

/* The codes of a row whose values are in its quads, and of a short one, rounded, in `first`; `most`
 * is the thread's largest, rounded to fp16 as all that is coded. A value is an outlier before it is
 * rounded, and one in one row makes its column one of all rows. Returns whether there may be any.
 * A short row has its codes before that is asked: as a rule there are none. */
template <int Q>
static __device__ __forceinline__ bool
quantize_row(unsigned cols, float threshold, float most, const team &t, unsigned m,
             const input_row<Q> &row, const float4 (&first)[Q], const code_places &places,
             const staged_input &s, const float *reciprocals, input_rooms &rooms)
{
    float all;
    const float scale = most_at(places, most, &all);
    const float factor = code_factor(reciprocals, scale);
    put_scale(places, row, t, scale);
#pragma unroll
    for (int i = 0; i < Q; i++) put_codes(places, row, i, pack_codes(first[i], factor));
    const bool any = all >= threshold;
    if (__builtin_expect(any || !is_short(row), false))
        quantize_rest(cols, threshold, any, t, m, row, places, s, reciprocals, rooms, scale);
    step_sync();
    return any;
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* What is done to a layer's input. */
struct layer_input {
    const float *in;
    float *normed; /* of a layer with a norm: written by one block */
    cuda_norm norm;
    float threshold;
};

/* The block that writes normed rows. Others have as many tiles, or more. */
static __device__ __forceinline__ bool writes_normed(const cuda_norm &norm)
{
    return norm.weight && blockIdx.x == gridDim.x - 1;
}

/* The row of team number m, of `rows` from `first` on, `apart` from each other; that of a team
 * without one has nothing. */
template <int Q>
static __device__ __forceinline__ input_row<Q>
row_of(const float *in, unsigned apart, unsigned cols, const team &t, unsigned m, unsigned first,
       unsigned rows, const staged_input &s)
{
    const bool there = m < rows;
    return input_row_at<Q>(in + (size_t)(first + (there ? m : 0)) * apart, s.quads + m * s.pitch,
                           there ? cols / 4 : 0, t.lane, t.threads);
}

/* A layer's input, the row of each team, which was asked for; the block may read all of them when
 * this returns, and it returns whether there may be outliers. HALF: of a model of 16-bit
 * activations. `places`: int8's, as `tables`, its reciprocals. */
template <part_type TYPE, bool HALF, int Q>
static __device__ __forceinline__ bool
stage_input(const input_row<Q> &row, float4 (&first)[Q], unsigned cols, const layer_input &to_do,
            bool writes, const team &t, unsigned m, const ready_norm<Q> &ready,
            const code_places &places, const staged_input &s, input_rooms &rooms,
            const char *tables)
{
    const cuda_norm &norm = to_do.norm;
    const bool has_norm = norm.weight != NULL;
    float *to = writes ? to_do.normed + (row.in - to_do.in) : NULL;
    float scale = 1;
    if constexpr (TYPE == CODES_INT8) {
        float most = 0;
        if (has_norm) {
            const norm_state n =
                norm_of<HALF>(norm, cols, ready.inverse, t, row, first, rooms.sums);
            if (is_short(row)) {
#pragma unroll
                for (int i = 0; i < Q; i++) {
                    if (i > 0 && row.fours <= i * row.threads) break; /* nobody has it */
                    const float4 y =
                        normed(norm, HALF, n, first[i], ready.weight[i], ready.bias[i]);
                    put_quad(places, row, i, y);
                    most = fmaxf(most, is_ready(row, i) ? largest(y) : 0);
                    first[i] = y;
                }
                if (to) {
                    float4 *at = (float4 *)to + settled(row.lane); /* here, not for all blocks */
#pragma unroll
                    for (int i = 0; i < Q; i++)
                        if (is_ready(row, i)) at[i * row.threads] = first[i];
                }
            } else {
                each_normed(norm, HALF, n, row, first, ready, to, [&](const float4 &y, int) INLINE {
                    most = fmaxf(most, largest(y));
                    return y;
                });
            }
        } else if (is_short(row)) {
#pragma unroll
            for (int i = 0; i < Q; i++) {
                put_quad(places, row, i, first[i]);
                first[i] = round_four(first[i]); /* 0 of no quad */
                most = fmaxf(most, largest(first[i]));
            }
        } else {
            see_row(row, first,
                    [&](const float4 &x) INLINE { most = fmaxf(most, largest(round_four(x))); });
        }
        return quantize_row(cols, to_do.threshold, most, t, m, row, first, places, s,
                            (const float *)tables, rooms);
    } else if (has_norm) {
        const norm_state n = norm_of<HALF>(norm, cols, ready.inverse, t, row, first, rooms.sums);
        each_normed(norm, HALF, n, row, first, ready, to,
                    [&](const float4 &y, int) INLINE { return split<TYPE>(y, NORMED_SCALE); });
        if (TYPE == PARTS_F16) scale = 1 / NORMED_SCALE;
    } else {
        split_row<TYPE>(row, first, t, m, rooms);
        return false;
    }
    if (t.lane == 0 && row.fours > 0) rooms.scale[m] = scale;
    step_sync();
    return false;
}

#endif

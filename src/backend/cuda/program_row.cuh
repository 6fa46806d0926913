/* A row of activations of a program, and its norm. It lies in shared memory in quads of 16 bytes; a
 * thread has the same ones all the time, those of a short row in registers. */
#ifndef BG_BACKEND_CUDA_PROGRAM_ROW_CUH
#define BG_BACKEND_CUDA_PROGRAM_ROW_CUH

#include "backend/cuda/program.cuh"

/* Where quad q lies: 4-bit weights want four quads that are four apart at once, and with every
 * other eight turned by two none of them share a bank. */
static __host__ __device__ __forceinline__ unsigned quad_place(unsigned q)
{
    return q ^ (q >> 2 & 2);
}

/* ---- quads ----------------------------------------------------------------------------------- */

/* Quads that a thread has in registers, Q in all that follows: those of a short row, or the first
 * of a long one. As a rule, and in programs of rows that three times as many as there are threads
 * make short: registers that others need not give away. */
enum { USUAL_QUADS = 2, MOST_QUADS = 3 };

/* A thread's quads of its row. */
template <int Q> struct input_row {
    enum { LONG = 1 << Q };
    const float *in;
    float4 *quads; /* in shared memory */
    unsigned fours, lane, threads;
    unsigned ready; /* a bit for each of Q of a short row; of a long one LONG */
    const float4 *from[Q];

    /* x = f(x) for each quad, two at a time: what is written may be what is read next, for all that
     * the compiler knows. */
    template <typename F> __device__ __forceinline__ void change(F f) const
    {
#pragma unroll 1
        for (unsigned q = lane; q < fours; q += 2 * threads) {
            float4 *const x0 = quads + quad_place(q), *const x1 = quads + quad_place(q + threads);
            const bool both = q + threads < fours;
            const float4 a = *x0, b = both ? *x1 : a;
            *x0 = f(a);
            if (both) *x1 = f(b);
        }
    }
    template <int AT_ONCE = 4, typename F> __device__ __forceinline__ void each(F f) const
    {
#pragma unroll(AT_ONCE)
        for (unsigned q = lane; q < fours; q += threads) f(quads[quad_place(q)], q);
    }
};

static __device__ __forceinline__ float largest(const float4 &x)
{
    return fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
}

/* What a row is asked for with is worked out here, before the wait. */
template <int Q>
static __device__ __forceinline__ input_row<Q>
input_row_at(const float *in, char *quads, unsigned fours, unsigned lane, unsigned threads)
{
    input_row<Q> row = {
        in, (float4 *)settled_room(quads), fours, lane, threads, input_row<Q>::LONG};
    if (fours <= Q * threads) {
        row.ready = 0;
#pragma unroll
        for (unsigned i = 0; i < Q; i++) row.ready |= (unsigned)(lane + i * threads < fours) << i;
    }
    row.ready = settled(row.ready);
#pragma unroll
    for (unsigned i = 0; i < Q; i++)
        row.from[i] = settled((const float4 *)in + (lane + i * threads));
    return row;
}

template <int Q> static __device__ __forceinline__ bool is_short(const input_row<Q> &row)
{
    return !(row.ready & input_row<Q>::LONG);
}

/* Whether quad number i of the thread's is one of a short row. */
template <int Q> static __device__ __forceinline__ bool is_ready(const input_row<Q> &row, int i)
{
    return row.ready >> i & 1;
}

/* Asks for a row, all of it at once: a short one comes to registers, a long one to shared memory.
 */
template <int Q>
static __device__ __forceinline__ void ask_row(const input_row<Q> &row, float4 (&x)[Q])
{
#pragma unroll
    for (int i = 0; i < Q; i++)
        if (is_ready(row, i)) x[i] = load_fresh(row.from[i]);
    if (is_short(row)) return;
#pragma unroll 4
    for (unsigned q = row.lane; q < row.fours; q += row.threads)
        copy_16(row.quads + quad_place(q), (const float4 *)row.in + q);
}

/* Calls f(four) of a row that was asked for, which comes to shared memory if it is long. */
template <int Q, typename F>
static __device__ __forceinline__ void see_row(const input_row<Q> &row, const float4 (&x)[Q], F f)
{
    if (!is_short(row)) {
        wait_for_copies();
        row.each([&](const float4 &y, unsigned) INLINE { f(y); });
        return;
    }
#pragma unroll
    for (int i = 0; i < Q; i++)
        if (is_ready(row, i)) f(x[i]);
}

/* y = f(x, i) for each four x of a row that was asked for, on its way to where it lies in shared
 * memory: of a short one i is the quad's number among the thread's, else Q. */
template <int Q, typename F>
static __device__ __forceinline__ void take_row(const input_row<Q> &row, const float4 (&x)[Q], F f)
{
    if (!is_short(row)) {
        wait_for_copies();
        row.change([&](const float4 &y) INLINE { return f(y, (int)Q); });
        return;
    }
#pragma unroll
    for (int i = 0; i < Q; i++)
        if (is_ready(row, i)) row.quads[quad_place(row.lane + i * row.threads)] = f(x[i], i);
}

/* ---- its norm -------------------------------------------------------------------------------- */

/* The sum of a row and that of its squares, in double precision where they have to round as on the
 * CPU or may nearly cancel. */
template <typename T> struct row_sums {
    T sum, squares;

    __device__ __forceinline__ void add(const float4 &x, bool centered)
    {
        const T a = (T)x.x, b = (T)x.y, c = (T)x.z, d = (T)x.w;
        if (centered) sum += (a + b) + (c + d);
        squares += fma(a, a, b * b) + fma(c, c, d * d);
    }
};

/* 1 / n by one of Newton's steps from the reciprocal's 24 bits. */
static __device__ __forceinline__ double exact_inverse(unsigned n)
{
    const double x = (double)n, y = (double)__frcp_rn((float)n);
    return y * (2 - x * y);
}

/* How a row that was asked for is moved and scaled. CENTERED: by a layer norm; `inverse`:
 * 1 / cols. */
template <bool HALF, typename T, bool CENTERED, int Q>
static __device__ __forceinline__ norm_state norm_of(const cuda_norm &norm, unsigned cols,
                                                     double inverse, const team &t,
                                                     const input_row<Q> &row, float4 (&first)[Q],
                                                     double *room)
{
    norm_state n = {0, 0};
    row_sums<T> s = {0, 0};
    see_row(row, first, [&](const float4 &x) INLINE { s.add(x, CENTERED); });
    if (CENTERED) {
        team_sums(t, s.sum, s.squares, (T *)room);
        n.mean = (float)(s.sum * (T)inverse);
        const T mean = (T)n.mean;
        s.squares += mean * (mean * (T)cols - 2 * s.sum);
    } else {
        s.squares = team_sum(t, s.squares, (T *)room);
    }
    if (HALF)
        n.scale = exact_scale((double)s.squares, inverse, norm.eps);
    else
        n.scale = rsqrtf((float)(s.squares * (T)inverse) + norm.eps);
    /* The next float towards zero, of one that is positive. */
    if (HALF && CENTERED) n.scale = __uint_as_float(__float_as_uint(n.scale) - 1);
    return n;
}

template <bool HALF, int Q>
static __device__ __forceinline__ norm_state norm_of(const cuda_norm &norm, unsigned cols,
                                                     double inverse, const team &t,
                                                     const input_row<Q> &row, float4 (&first)[Q],
                                                     double *room)
{
    if (norm.kind == BG_NORM_LAYER)
        return norm_of<HALF, double, true>(norm, cols, inverse, t, row, first, room);
    if constexpr (HALF)
        return norm_of<true, double, false>(norm, cols, inverse, t, row, first, room);
    else
        return norm_of<false, float, false>(norm, cols, inverse, t, row, first, room);
}

/* What a norm takes besides its row, got before the wait: weights for a thread's first quads, and
 * where those of the others are. */
template <int Q> struct ready_norm {
    float4 weight[Q], bias[Q];
    const float *weights, *biases; /* in shared memory where several rows want them */
    double inverse;                /* of the number of columns */
};

static __host__ __device__ __forceinline__ size_t shared_norm_bytes(unsigned rows, unsigned cols)
{
    return rows > 1 ? 2 * (size_t)cols * sizeof(float) : 0;
}

/* Of several rows: to `room`, which is for shared_norm_bytes. The block may read them after
 * wait_for_copies and a barrier. */
template <int Q>
static __device__ __forceinline__ void share_norm(const cuda_norm &norm, unsigned cols, float *room,
                                                  ready_norm<Q> &r)
{
    for (unsigned c = threadIdx.x * 4; c < cols; c += STEP_THREADS * 4) {
        copy_16(room + c, norm.weight + c);
        if (norm.bias) copy_16(room + cols + c, norm.bias + c);
    }
    r.weights = room;
    r.biases = norm.bias ? room + cols : NULL;
}

static __device__ __forceinline__ float4 read_weights(const float *p, unsigned q)
{
    return p ? __ldg((const float4 *)p + q) : make_float4(0, 0, 0, 0);
}

template <int Q>
static __device__ __forceinline__ void get_norm_ready(const cuda_norm &norm, unsigned cols,
                                                      double inverse, const team &t,
                                                      ready_norm<Q> &r)
{
    r.inverse = inverse;
    r.weights = norm.weight;
    r.biases = norm.bias;
#pragma unroll
    for (unsigned i = 0; i < Q; i++) {
        const unsigned q = t.lane + i * t.threads;
        const bool wanted = norm.weight && 4 * q < cols;
        r.weight[i] = read_weights(wanted ? norm.weight : NULL, q);
        r.bias[i] = read_weights(wanted ? norm.bias : NULL, q);
    }
}

static __device__ __forceinline__ float4 round_four(const float4 &x)
{
    const float2 a = __half22float2(__floats2half2_rn(x.x, x.y));
    const float2 b = __half22float2(__floats2half2_rn(x.z, x.w));
    return make_float4(a.x, a.y, b.x, b.y);
}

/* Four values of a normed row, norm_apply's, with no branch for each: the mean is 0 where none is
 * taken off, and so is the bias that is not there. */
static __device__ __forceinline__ float4 normed(const cuda_norm &norm, bool half,
                                                const norm_state &s, const float4 &x,
                                                const float4 &w, const float4 &b)
{
    const float offset = norm.kind == BG_NORM_RMS_OFFSET ? 1 : 0;
    float4 y = make_float4((x.x - s.mean) * s.scale, (x.y - s.mean) * s.scale,
                           (x.z - s.mean) * s.scale, (x.w - s.mean) * s.scale);
    if (half && norm.kind == BG_NORM_RMS) y = round_four(y);
    y = make_float4(__fmaf_rn(y.x, w.x + offset, b.x), __fmaf_rn(y.y, w.y + offset, b.y),
                    __fmaf_rn(y.z, w.z + offset, b.z), __fmaf_rn(y.w, w.w + offset, b.w));
    return half ? round_four(y) : y;
}

/* f(four, i) of the normed row, i as in take_row, after norm_of; the row is also written to `to`,
 * if any. */
template <int Q, typename F>
static __device__ __forceinline__ void
each_normed(const cuda_norm &norm, bool half, const norm_state &s, const input_row<Q> &row,
            const float4 (&first)[Q], const ready_norm<Q> &r, float *to, F f)
{
#pragma unroll
    for (int i = 0; i < Q; i++) {
        const unsigned q = row.lane + i * row.threads;
        if (q >= row.fours) break;
        const float4 x = is_short(row) ? first[i] : row.quads[quad_place(q)];
        const float4 y = normed(norm, half, s, x, r.weight[i], r.bias[i]);
        if (to) ((float4 *)to)[q] = y;
        row.quads[quad_place(q)] = f(y, i);
    }
#pragma unroll 1
    for (unsigned q = row.lane + Q * row.threads; q < row.fours; q += row.threads) {
        const float4 y =
            normed(norm, half, s, row.quads[quad_place(q)], ((const float4 *)r.weights)[q],
                   r.biases ? ((const float4 *)r.biases)[q] : make_float4(0, 0, 0, 0));
        if (to) ((float4 *)to)[q] = y;
        row.quads[quad_place(q)] = f(y, (int)Q);
    }
}

#endif

/* Attention over the cache: softmax(scale * Q K^T + bias + mask) V. Here keys and values get their
 * places, and one query for each sequence its answer; many queries are in attention_tile.cu. */
#include "backend/cuda/attention_stage.cuh"
#include "backend/cuda/operand.cuh"

enum {
    PLACE_HEADS = 8, /* of a block */
    FOURS_THREADS = 256,
    FOURS_ROWS = 4, /* of a block */
    ONE_THREADS = 256,
    KEY_LANES = 2,
    AHEAD = 8, /* values on their way at once */
    ONE_MAX_KEYS = 8192,
};

/* A block for each row of each sequence and eight heads, a warp each. */
static __global__ void place_rows(cuda_attention_args a)
{
    wait_for_earlier();
    let_next_start();
    const cuda_sequence s = a.sequences[blockIdx.y];
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, d = (unsigned)a.head_dim;
    if ((int)blockIdx.x >= s.rows) return;
    float *row = a.qkv + (size_t)(s.first_row + (int)blockIdx.x) * a.qkv_stride;
    const size_t position = (size_t)s.past + blockIdx.x;
    const bool untouched = !a.query_norm.weight && !a.rope;
    const size_t queries = a.store_only || a.turn || untouched ? 0 : a.n_heads;
    const size_t stored = a.stored ? 0 : a.n_kv_heads;
    const size_t warps = blockDim.x / WARP, first = blockIdx.z * warps + warp;
    for (size_t head = first; head < queries + stored; head += warps * gridDim.z) {
        if (head < queries) {
            float *q = row + a.query_col + head * d;
            place_head(a.query_norm, a.rope, a.rope_dim, a.half, position, q, q, d);
            continue;
        }
        const size_t kv = head - queries, at = plane(a, s.slot, kv) + position * d;
        place_head(a.key_norm, a.rope, a.rope_dim, a.half, position, row + a.key_col + kv * d,
                   a.keys + at, d);
        for (unsigned i = lane; i < d; i += WARP) a.values[at + i] = row[a.value_col + kv * d + i];
    }
}

/* Keys without norms, and values, and queries where `halves` are wanted of all: a block for each
 * FOURS_ROWS rows of a sequence, a thread for four columns of each. */
static __global__ void __launch_bounds__(FOURS_THREADS)
    place_fours(const __grid_constant__ cuda_attention_args a)
{
    wait_for_earlier();
    let_next_start();
    const cuda_sequence s = a.sequences[blockIdx.y];
    const int d = (int)a.head_dim, queries = a.halves ? (int)a.n_heads * d : 0;
    const int columns = (int)a.n_kv_heads * d, all = queries + 2 * columns;
    const int first = (int)blockIdx.x * FOURS_ROWS;
    for (int i = (int)threadIdx.x * 4; i < all; i += FOURS_THREADS * 4) {
        const bool query = i < queries, values = i >= queries + columns;
        const int own = i - (query ? 0 : values ? queries + columns : queries);
        const int head = own / d, c = own % d;
        const float *from = a.qkv + (size_t)s.first_row * a.qkv_stride +
                            (query    ? a.query_col
                             : values ? a.value_col
                                      : a.key_col) +
                            (size_t)(head * d);
        float *to = (values ? a.values : a.keys) + plane(a, s.slot, query ? 0 : (size_t)head) + c;
        float4 x[FOURS_ROWS];
#pragma unroll
        for (int r = 0; r < FOURS_ROWS; r++) {
            const float *row = from + (size_t)min(first + r, s.rows - 1) * a.qkv_stride;
            x[r] = *(const float4 *)(row + c);
            if (a.rope && !values)
                x[r] = turned(a, row, s.past + min(first + r, s.rows - 1), c, x[r]);
        }
#pragma unroll
        for (int r = 0; r < FOURS_ROWS; r++) {
            const size_t row = (size_t)(s.first_row + first + r);
            if (first + r >= s.rows) break;
            if (!query) *(float4 *)(to + (size_t)(s.past + first + r) * a.head_dim) = x[r];
            if (a.halves) put_four(CUDA_F16, a.halves, row * (size_t)all + (size_t)i, x[r]);
        }
    }
}

cudaError_t bg_cuda_place(const cuda_attention_args *a, const cuda_launch *l)
{
    const bool queries = !a->store_only && !a->turn && (a->query_norm.weight || a->rope);
    if (a->stored && !queries) return cudaSuccess;
    if (!queries && !a->key_norm.weight && attends_in_line(a))
        return launch(place_fours,
                      dim3(blocks_for(a->max_rows, FOURS_ROWS), (unsigned)a->n_sequences),
                      FOURS_THREADS, 0, *a, l);
    const size_t heads = (queries ? a->n_heads : 0) + (a->stored ? 0 : a->n_kv_heads);
    const dim3 grid((unsigned)a->max_rows, (unsigned)a->n_sequences,
                    blocks_for(heads, PLACE_HEADS));
    return launch(place_rows, grid, PLACE_HEADS * WARP, 0, *a, l);
}

/* ---- one query for each sequence ------------------------------------------------------------- */

/* A block for each head of each sequence. Heads that share keys each norm and turn the new one for
 * themselves; the first of them writes it to the cache. */
static __global__ void __launch_bounds__(ONE_THREADS) attend_one(cuda_attention_args a)
{
    extern __shared__ __align__(16) float scores[]; /* (max_keys) */
    __shared__ __align__(16) float query[MAX_HEAD_DIM], key[MAX_HEAD_DIM];
    __shared__ float room[ONE_THREADS / WARP];
    __shared__ float partial[ONE_THREADS * 4];
    wait_for_earlier();
    let_next_start();
    const cuda_sequence s = a.sequences[blockIdx.y];
    const size_t head = blockIdx.x, group = a.n_heads / a.n_kv_heads, kv = head / group;
    const int d = (int)a.head_dim;
    const size_t at = plane(a, s.slot, kv);
    const float *row = a.qkv + (size_t)s.first_row * a.qkv_stride;
    const float *own_value = row + a.value_col + kv * a.head_dim;
    const unsigned warp = threadIdx.x / WARP;
    const int own = a.stored ? -1 : s.past; /* the position whose key is not in the cache yet */

    if (warp == 0)
        place_head(a.query_norm, a.rope, a.rope_dim, a.half, (size_t)s.past,
                   row + a.query_col + head * a.head_dim, query, a.head_dim);
    if (warp == 1 && !a.stored)
        place_head(a.key_norm, a.rope, a.rope_dim, a.half, (size_t)s.past,
                   row + a.key_col + kv * a.head_dim, key, a.head_dim);
    __syncthreads();
    if (!a.stored && head % group == 0)
        for (int i = (int)threadIdx.x; i < d; i += ONE_THREADS) {
            a.keys[at + (size_t)own * a.head_dim + (size_t)i] = key[i];
            a.values[at + (size_t)own * a.head_dim + (size_t)i] = own_value[i];
        }

    /* Two lanes share a key, so that a short context is one round of loads, all on their way at
     * once; a warp goes on until all of its keys are done. */
    const key_range all = visible_to(a, s, s.past);
    const int n = all.end - all.first, part = (int)threadIdx.x % KEY_LANES;
    float max = -INFINITY;
    for (int j = (int)threadIdx.x / KEY_LANES; j < (n + WARP - 1) / WARP * WARP;
         j += ONE_THREADS / KEY_LANES) {
        const int position = all.first + min(j, n - 1);
        const float *k = position == own ? key : a.keys + at + (size_t)position * a.head_dim;
        float sum = 0;
        if (a.out_half) {
            /* To the last bit: a weight that is rounded may lie on the border of two. */
            double exact = 0;
#pragma unroll 8
            for (int i = part; i < d; i += KEY_LANES) exact += (double)query[i] * (double)k[i];
            for (int i = KEY_LANES / 2; i > 0; i /= 2)
                exact += __shfl_xor_sync(0xFFFFFFFF, exact, i);
            sum = (float)exact;
        } else {
            if (d % 4 == 0) {
#pragma unroll 8
                for (int i = part * 4; i < d; i += KEY_LANES * 4) {
                    const float4 u = *(const float4 *)(query + i), v = *(const float4 *)(k + i);
                    sum = __fmaf_rn(u.x, v.x, sum);
                    sum = __fmaf_rn(u.y, v.y, sum);
                    sum = __fmaf_rn(u.z, v.z, sum);
                    sum = __fmaf_rn(u.w, v.w, sum);
                }
            } else {
                for (int i = part; i < d; i += KEY_LANES) sum = __fmaf_rn(query[i], k[i], sum);
            }
            for (int i = KEY_LANES / 2; i > 0; i /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, i);
        }
        if (j >= n) continue;
        float score = a.scale * sum;
        if (a.position_bias) score += bias_of(a, head, position - s.past);
        if (part == 0) scores[j] = score;
        max = fmaxf(max, score);
    }
    max = block_max(max, room);
    float sum = 0;
    for (int j = (int)threadIdx.x; j < n; j += ONE_THREADS) {
        const float weight = expf(scores[j] - max);
        sum += weight;
        scores[j] = round_if(a.out_half, weight);
    }
    sum = block_sum(sum, room);

    /* Four columns a thread, and as many keys side by side as threads are left. */
    const int columns = (d + 3) / 4, lanes = ONE_THREADS / columns;
    const int c = (int)threadIdx.x % columns * 4, lane = (int)threadIdx.x / columns;
    float4 y = make_float4(0, 0, 0, 0);
    if (lane < lanes) {
        for (int begin = lane; begin < n; begin += lanes * AHEAD) {
            float4 x[AHEAD];
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                const int j = begin + k * lanes, position = all.first + j;
                const float *v =
                    position == own ? own_value : a.values + at + (size_t)position * a.head_dim;
                x[k] = make_float4(0, 0, 0, 0);
                if (j >= n) continue;
                if (d % 4 == 0) {
                    x[k] = *(const float4 *)(v + c);
                } else {
                    x[k].x = v[c];
                    x[k].y = c + 1 < d ? v[c + 1] : 0;
                    x[k].z = c + 2 < d ? v[c + 2] : 0;
                    x[k].w = c + 3 < d ? v[c + 3] : 0;
                }
            }
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                const int j = begin + k * lanes;
                const float w = j < n ? scores[j] : 0;
                y.x = __fmaf_rn(w, x[k].x, y.x);
                y.y = __fmaf_rn(w, x[k].y, y.y);
                y.z = __fmaf_rn(w, x[k].z, y.z);
                y.w = __fmaf_rn(w, x[k].w, y.w);
            }
        }
        float *to = partial + lane * columns * 4 + c;
        to[0] = y.x;
        to[1] = y.y;
        to[2] = y.z;
        to[3] = y.w;
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < d; i += ONE_THREADS) {
        float total = 0;
#pragma unroll 8
        for (int k = 0; k < lanes; k++) total += partial[k * columns * 4 + i];
        if (n > 0) total = a.out_half ? round_half(total / sum) : total * (1.0f / sum);
        a.out[(size_t)s.first_row * a.out_stride + head * a.head_dim + (size_t)i] = total;
    }
}

bool bg_cuda_attends_one(const cuda_attention_args *a)
{
    /* Rows of float4 need their start aligned: columns are multiples of head_dim. */
    return a->max_rows == 1 && a->max_keys <= ONE_MAX_KEYS && a->head_dim <= MAX_HEAD_DIM &&
           (a->head_dim % 4 != 0 || a->qkv_stride % 4 == 0);
}

cudaError_t bg_cuda_attend_one(const cuda_attention_args *a, const cuda_launch *l)
{
    return launch(attend_one, dim3((unsigned)a->n_heads, (unsigned)a->n_sequences), ONE_THREADS,
                  a->max_keys * sizeof(float), *a, l);
}

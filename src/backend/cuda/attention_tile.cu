/* Attention of many queries without tensor cores. Scores are never in memory: a tile of queries
 * goes over the keys twice, first for the largest score of each query, then for the weights and
 * their products with the values. Twice, because in a 16-bit model a weight is rounded after the
 * largest score is taken off; with a running maximum it would be another number. */
#include "backend/cuda/attention.cuh"
#include "backend/cuda/operand.cuh"

enum {
    QUERIES = 16, /* of a tile */
    KEYS = 32,    /* of a tile */
    ATTEND_THREADS = 256,
    OWNERS = ATTEND_THREADS / QUERIES, /* threads that share a query */
};

/* A block for each 16 queries of each head of each sequence. Each query has 16 threads: they take
 * its scores with two keys each of a tile of 32, and then its output's columns in turn. DIM:
 * columns of a thread. */
template <int DIM>
static __global__ void __launch_bounds__(ATTEND_THREADS) attend_tile(cuda_attention_args a)
{
    extern __shared__ __align__(16) float shared[];
    wait_for_earlier();
    let_next_start();
    const cuda_sequence s = a.sequences[blockIdx.z];
    const int d = (int)a.head_dim, pitch = d + 1, first = (int)blockIdx.x * QUERIES;
    if (first >= s.rows) return;
    float *queries = shared, *keys = queries + QUERIES * pitch;
    float *weights = keys + KEYS * pitch; /* (QUERIES, KEYS) */
    const size_t head = blockIdx.y, kv = head / (a.n_heads / a.n_kv_heads);
    const size_t at = plane(a, s.slot, kv);
    const int q = (int)threadIdx.x / OWNERS, own = (int)threadIdx.x % OWNERS;
    const int last = min(first + QUERIES, s.rows) - 1;
    const bool there = first + q <= last;

    for (int i = (int)threadIdx.x; i < QUERIES * d; i += ATTEND_THREADS) {
        const int r = min(first + i / d, last);
        queries[i / d * pitch + i % d] = a.qkv[(size_t)(s.first_row + r) * a.qkv_stride +
                                               a.query_col + head * a.head_dim + (size_t)(i % d)];
    }
    const int position = s.past + min(first + q, last);
    const key_range mine = visible_to(a, s, position);
    const int begin = visible_to(a, s, s.past + first).first;
    const int end = visible_to(a, s, s.past + last).end;
    float max = -INFINITY, sum = 0, y[DIM] = {};

    for (int pass = 0; pass < 2; pass++) {
        for (int tile = begin; tile < end; tile += KEYS) {
            const int n = min(KEYS, end - tile);
            __syncthreads();
            for (int i = (int)threadIdx.x; i < n * d; i += ATTEND_THREADS)
                keys[i / d * pitch + i % d] = a.keys[at + (size_t)tile * a.head_dim + (size_t)i];
            __syncthreads();
            float score[KEYS / OWNERS];
#pragma unroll
            for (int k = 0; k < KEYS / OWNERS; k++) {
                const int j = own + k * OWNERS, where = tile + j;
                float dot = 0;
                if (a.out_half) {
                    double exact = 0; /* as in attend_one */
                    for (int i = 0; i < d; i++)
                        exact += (double)queries[q * pitch + i] * (double)keys[j * pitch + i];
                    dot = (float)exact;
                } else {
                    for (int i = 0; i < d; i++)
                        dot = __fmaf_rn(queries[q * pitch + i], keys[j * pitch + i], dot);
                }
                score[k] = a.scale * dot;
                if (a.position_bias && j < n) score[k] += bias_of(a, head, where - position);
                if (j >= n || where < mine.first || where >= mine.end) score[k] = -INFINITY;
                max = pass == 0 ? fmaxf(max, score[k]) : max;
            }
            if (pass == 0) continue;
#pragma unroll
            for (int k = 0; k < KEYS / OWNERS; k++) {
                const float weight = score[k] == -INFINITY ? 0 : expf(score[k] - max);
                sum += weight;
                weights[q * KEYS + own + k * OWNERS] = round_if(a.out_half, weight);
            }
            __syncthreads();
            for (int i = (int)threadIdx.x; i < n * d; i += ATTEND_THREADS)
                keys[i / d * pitch + i % d] = a.values[at + (size_t)tile * a.head_dim + (size_t)i];
            __syncthreads();
            for (int j = 0; j < n; j++) {
                const float w = weights[q * KEYS + j];
#pragma unroll
                for (int i = 0; i < DIM; i++)
                    if (own + i * OWNERS < d)
                        y[i] = __fmaf_rn(w, keys[j * pitch + own + i * OWNERS], y[i]);
            }
        }
        if (pass == 0)
            for (int i = OWNERS / 2; i > 0; i /= 2)
                max = fmaxf(max, __shfl_xor_sync(0xFFFFFFFF, max, i));
    }
    for (int i = OWNERS / 2; i > 0; i /= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, i);
    if (!there) return;
    float *out = a.out + (size_t)(s.first_row + first + q) * a.out_stride + head * a.head_dim;
#pragma unroll
    for (int i = 0; i < DIM; i++) {
        const int c = own + i * OWNERS;
        if (c >= d) break;
        float result = 0;
        if (mine.end > mine.first)
            result = a.out_half ? round_half(y[i] / sum) : y[i] * (1.0f / sum);
        out[c] = result;
        if (a.operand.out)
            put(a.operand.type, a.operand.out, (size_t)(out - a.out) + (size_t)c, result);
    }
}

cudaError_t bg_cuda_attend_exact(const cuda_attention_args *a, const cuda_launch *l)
{
    const size_t shared = ((QUERIES + KEYS) * (a->head_dim + 1) + QUERIES * KEYS) * sizeof(float);
    const dim3 grid(blocks_for(a->max_rows, QUERIES), (unsigned)a->n_heads,
                    (unsigned)a->n_sequences);
    if (a->head_dim <= 64) return launch(attend_tile<4>, grid, ATTEND_THREADS, shared, *a, l);
    if (a->head_dim <= 128) return launch(attend_tile<8>, grid, ATTEND_THREADS, shared, *a, l);
    if (a->head_dim <= 256) return launch(attend_tile<16>, grid, ATTEND_THREADS, shared, *a, l);
    return cudaErrorInvalidConfiguration;
}

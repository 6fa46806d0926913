/* Products of many rows on a Hopper GPU whose results are not wanted as they are: a gated MLP's two
 * layers of one input, of which one operand is left, queries, keys and values, which are turned and
 * rounded, and the head's logits, of which each row's log-likelihood needs three numbers. Each is
 * used where it is computed, in registers; a library's product would write it to memory for another
 * kernel to read. At a GPU's limit of power, where such products run, that is time. */
#include "backend/cuda/attention_stage.cuh"
#include "backend/cuda/operand.cuh"
#include "backend/cuda/wide.cuh"

enum { DEPTH = DEPTH_BYTES / 2 }; /* columns of a tile */

struct wide_args {
    CUtensorMap x, w[2];
    cuda_wide_args of;
};

/* ---- what becomes of sums -------------------------------------------------------------------- */

/* Word i of lane q of a quad becomes word q of its lane i. */
static __device__ __forceinline__ void transpose_quad(uint32_t w[4], bool odd, bool high)
{
    uint32_t a = __shfl_xor_sync(0xFFFFFFFF, odd ? w[0] : w[1], 1);
    uint32_t b = __shfl_xor_sync(0xFFFFFFFF, odd ? w[2] : w[3], 1);
    w[0] = odd ? a : w[0];
    w[1] = odd ? w[1] : a;
    w[2] = odd ? b : w[2];
    w[3] = odd ? w[3] : b;
    a = __shfl_xor_sync(0xFFFFFFFF, high ? w[0] : w[2], 2);
    b = __shfl_xor_sync(0xFFFFFFFF, high ? w[1] : w[3], 2);
    w[0] = high ? a : w[0];
    w[1] = high ? b : w[1];
    w[2] = high ? w[2] : a;
    w[3] = high ? w[3] : b;
}

/* Two of silu(gate) * up, by one reciprocal for both: what binds is how many of these and of powers
 * there are. 2^60 stands for larger powers, so that their product is finite; what it is divided by
 * leaves nothing that binary16 could hold, and next to nothing in fp32. */
static __device__ __forceinline__ float2 gated(float2 gate, float2 up)
{
    const float a = 1.0f + power_of_two(fminf(gate.x * -LOG2_E, 60.0f));
    const float b = 1.0f + power_of_two(fminf(gate.y * -LOG2_E, 60.0f));
    const float both = hopper_reciprocal(a * b);
    return make_float2(gate.x * up.x * (b * both), gate.y * up.y * (a * both));
}

/* The first half of the columns are the gate's, the others what it multiplies. Four columns of
 * eight and a quad's lanes change places, so that a lane writes 16 bytes. */
static __device__ __forceinline__ void finish_gated(const cuda_wide_args &a,
                                                    const float (&sums)[SUMS], int row, int col)
{
    enum { UP = SUMS / 2 };
    const int lane = (int)threadIdx.x % WARP, quad = lane % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const size_t m = (size_t)(row + lane / 4 + r * 8), at = m * a.out_stride + a.first;
#pragma unroll
        for (int j = 0; j < UP; j += 16) {
            float2 y[4];
            uint32_t w[4], beyond = 0;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int k = j + i * 4 + r * 2;
                y[i] = gated(make_float2(sums[k], sums[k + 1]),
                             make_float2(sums[k + UP], sums[k + 1 + UP]));
                float *out = a.out + at + (size_t)(col + k / 4 * 8 + quad * 2);
                if (!a.operand.alone && m < a.n_rows) *(float2 *)out = y[i];
                const __half2 pair = __floats2half2_rn(y[i].x, y[i].y);
                w[i] = *(const uint32_t *)&pair;
                /* Carries to a number's sign where its exponent is an infinity's. */
                beyond |= (w[i] & 0x7C007C00) + 0x04000400;
            }
            if (beyond & 0x80008000)
                for (int i = 0; i < 4; i++) w[i] = pack_pair(CUDA_F16, y[i].x, y[i].y);
            if (!a.operand.out) continue;
            transpose_quad(w, quad & 1, quad & 2);
            __half *out = (__half *)a.operand.out + at + (size_t)(col + j * 2 + quad * 8);
            if (m < a.n_rows) *(uint4 *)out = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
}

/* A row's largest of these logits, the sum of their exponentials less that, and its target's. */
static __device__ __forceinline__ void finish_logits(const cuda_wide_args &a, float (&sums)[SUMS],
                                                     int row, int col)
{
    const cuda_score_args &s = a.score;
    const int lane = (int)threadIdx.x % WARP, quad = lane % 4;
    const int left = (int)a.rows - col - quad * 2; /* columns up to the last one */
    if (col + COLS > (int)a.rows)
#pragma unroll
        for (int k = 0; k < SUMS; k++)
            if (k / 4 * 8 + k % 2 >= left) sums[k] = -INFINITY;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const size_t m = (size_t)(row + lane / 4 + r * 8);
        float most = -INFINITY, sum = 0;
#pragma unroll
        for (int k = r * 2; k < SUMS; k += 4) most = fmaxf(most, fmaxf(sums[k], sums[k + 1]));
        most = quad_max(most);
        const float shift = -most * LOG2_E;
#pragma unroll
        for (int k = r * 2; k < SUMS; k += 4)
            sum += power_of_two(__fmaf_rn(sums[k], LOG2_E, shift)) +
                   power_of_two(__fmaf_rn(sums[k + 1], LOG2_E, shift));
        /* What rounding has the shift off is the same for all of the row's. */
        sum = quad_sum(sum) * power_of_two(__fmaf_rn(-most, LOG2_E, -shift));
        if (m >= a.n_rows) continue;
        if (quad == 0) {
            s.maxima[m * s.n_panels + (size_t)(col / COLS)] = most;
            s.sums[m * s.n_panels + (size_t)(col / COLS)] = sum;
        }
        const int target = s.targets[m] - col - quad * 2;
        if (target < 0 || target >= COLS || target % 8 > 1) continue;
        float expected = -INFINITY;
#pragma unroll
        for (int k = r * 2; k < SUMS; k += 4) {
            if (target == k / 4 * 8) expected = fmaxf(expected, sums[k]);
            if (target == k / 4 * 8 + 1) expected = fmaxf(expected, sums[k + 1]);
        }
        s.expected[m] = expected;
    }
}

/* Heads of queries, keys and values, DIM columns each: queries and keys turned to their positions,
 * all as binary16, keys and values to the cache. A column and what it turns with are a thread's. */
template <int DIM>
static __device__ __forceinline__ void finish_heads(const cuda_wide_args &of,
                                                    const float (&sums)[SUMS], int row, int col)
{
    enum { HALF = DIM / 2, PAIRS = HALF / 8, PARTNER = PAIRS * 4 };
    const cuda_attention_args &a = of.attention;
    const int lane = (int)threadIdx.x % WARP, quad = lane % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int m = row + lane / 4 + r * 8;
        const bool there = m < (int)of.n_rows;
        int i = 0;
        while (i + 1 < (int)a.n_sequences && m >= a.sequences[i + 1].first_row) i++;
        const cuda_sequence s = a.sequences[i];
        const size_t position = (size_t)(unsigned)(s.past + min(m - s.first_row, s.rows - 1));
        const float *angles = a.rope + position * DIM + quad * 2;
        float2 cosine[PAIRS], sine[PAIRS];
#pragma unroll
        for (int j = 0; j < PAIRS; j++) {
            cosine[j] = a.rope ? *(const float2 *)(angles + j * 8) : make_float2(1, 1);
            sine[j] = a.rope ? *(const float2 *)(angles + j * 8 + HALF) : make_float2(0, 0);
        }
#pragma unroll
        for (int h = 0; h < COLS / DIM; h++) {
            const int first = col + h * DIM, head = first / DIM - (int)a.n_heads;
            const bool query = head < 0, value = head >= (int)a.n_kv_heads;
            if (first >= (int)of.rows) continue;
            const size_t own = (size_t)(unsigned)(query   ? 0
                                                  : value ? head - (int)a.n_kv_heads
                                                          : head);
            float *to = (value ? a.values : a.keys) + plane(a, s.slot, own) + position * DIM;
            uint32_t low[PAIRS], high[PAIRS];
#pragma unroll
            for (int j = 0; j < PAIRS; j++) {
                const int k = (h * 2 * PAIRS + j) * 4 + r * 2;
                float2 x = make_float2(sums[k], sums[k + 1]), u = x;
                float2 y = make_float2(sums[k + PARTNER], sums[k + 1 + PARTNER]), v = y;
                const float2 c = cosine[j], n = sine[j];
                if (!value) {
                    x = make_float2(u.x * c.x - v.x * n.x, u.y * c.y - v.y * n.y);
                    y = make_float2(v.x * c.x + u.x * n.x, v.y * c.y + u.y * n.y);
                }
                if (there && !query) {
                    *(float2 *)(to + j * 8 + quad * 2) = x;
                    *(float2 *)(to + j * 8 + quad * 2 + HALF) = y;
                }
                low[j] = pack_pair(CUDA_F16, x.x, x.y);
                high[j] = pack_pair(CUDA_F16, y.x, y.y);
            }
            __half *out = (__half *)a.halves + (size_t)(unsigned)m * of.rows + first + quad * 8;
#pragma unroll
            for (int j = 0; j < PAIRS; j += 4) {
                transpose_quad(low + j, quad & 1, quad & 2);
                transpose_quad(high + j, quad & 1, quad & 2);
                if (!there) continue;
                *(uint4 *)(out + j * 8) = make_uint4(low[j], low[j + 1], low[j + 2], low[j + 3]);
                *(uint4 *)(out + j * 8 + HALF) =
                    make_uint4(high[j], high[j + 1], high[j + 2], high[j + 3]);
            }
        }
    }
}

/* ---- the product ----------------------------------------------------------------------------- */

/* What becomes of sums; or a head's columns. */
enum { GATED = 0, LOGITS = 1 };

template <int KIND>
static __device__ __forceinline__ void bring_tiles(const wide_args &a, const ring &r)
{
    const tile_range tiles = tiles_of(a.of.n_rows, a.of.rows, KIND == GATED);
    const int rank = (int)rank_in_cluster();
    const CUtensorMap *w = KIND == GATED ? &a.w[rank] : &a.w[0];
    stage s = {0, 0};
    for (int t = blockIdx.x / CLUSTER; t < tiles.n; t += gridDim.x / CLUSTER) {
        const tile_place p = place_of(tiles, t);
        const int row = p.row + rank * ROWS, col = p.col + (KIND == GATED ? 0 : rank * HALF_COLS);
        for (int k = 0; k < (int)a.of.cols; k += DEPTH) bring_stage(r, s, &a.x, row, w, col, k);
    }
}

template <int KIND>
static __device__ __forceinline__ void multiply(const wide_args &a, const ring &r)
{
    const tile_range tiles = tiles_of(a.of.n_rows, a.of.rows, KIND == GATED);
    const int group = (int)threadIdx.x / GROUP - 1, rank = (int)rank_in_cluster();
    const int own = rank * ROWS + group * GROUP_ROWS + (int)threadIdx.x % GROUP / WARP * 16;
    float sums[SUMS];
    stage s = {0, 0};
    for (int t = blockIdx.x / CLUSTER; t < tiles.n; t += gridDim.x / CLUSTER) {
        int before = 0;
        for (int k = 0; k < (int)a.of.cols; k += DEPTH) {
            const stage_tiles tile = await_stage(r, s, group);
            begin_products();
#pragma unroll
            for (int i = 0; i < DEPTH / 16; i++)
                multiply_tiles(sums, tile.x + i * 2, tile.w + i * 2, k || i);
            end_of_products();
            /* These run; the ones before are over. */
            wait_for_products<1>();
            if (k > 0) release(r, before);
            before = s.i;
            advance(s);
        }
        wait_for_products<0>();
        release(r, before);
        keep_behind(sums);
        const tile_place p = place_of(tiles, t);
        if constexpr (KIND == GATED)
            finish_gated(a.of, sums, p.row + own, p.col);
        else if constexpr (KIND == LOGITS)
            finish_logits(a.of, sums, p.row + own, p.col);
        else
            finish_heads<KIND>(a.of, sums, p.row + own, p.col);
    }
}

template <int KIND>
static __global__ void __launch_bounds__(THREADS, 1)
    product_wide(const __grid_constant__ wide_args a)
{
    if (!BG_WGMMA_HERE) __trap(); /* the driver took code for another architecture */
    extern __shared__ char room[];
    __shared__ __align__(8) uint64_t barriers[2 * STAGES];
    const ring r = begin_wide(room, barriers);
    if (threadIdx.x < GROUP) {
        give_registers<24>();
        if (threadIdx.x == 0) bring_tiles<KIND>(a, r);
        __syncwarp();
    } else {
        take_registers<240>();
        multiply<KIND>(a, r);
    }
    cluster_end(); /* the other block may still write here */
}

/* ---- launching ------------------------------------------------------------------------------- */

bool bg_cuda_wide_fits(size_t n_rows, size_t rows, size_t cols, bool gated, const cuda_launch *l)
{
#ifdef BG_WGMMA
    const size_t least = 512; /* rows, below which a block would have few tiles or none */
    return l->warpgroups && n_rows >= least && cols % 8 == 0 &&
           (!gated || rows % (COLS / 2) == 0) && rows < INT32_MAX && n_rows < INT32_MAX;
#else
    return false;
#endif
}

cudaError_t bg_cuda_wide(const cuda_wide_args *a, const cuda_launch *l)
{
    const bool gated = a->w[1];
    wide_args args = {.of = *a};
    cudaError_t e = describe_halves(&args.x, a->x, a->n_rows, a->cols, ROWS);
    for (int i = 0; i < 1 + gated && e == cudaSuccess; i++)
        e = describe_halves(&args.w[i], a->w[i], a->rows, a->cols, HALF_COLS);
    if (e != cudaSuccess) return e;
    if (gated) return launch_wide(product_wide<GATED>, args, l);
    if (!a->attention.halves) return launch_wide(product_wide<LOGITS>, args, l);
    return a->attention.head_dim == 64 ? launch_wide(product_wide<64>, args, l)
                                       : launch_wide(product_wide<128>, args, l);
}

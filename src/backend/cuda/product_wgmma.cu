/* Products of many rows on a Hopper GPU whose results are not wanted as they are: a gated MLP's two
 * layers of one input, of which one operand is left, queries, keys and values, which are turned and
 * rounded, and the head's logits, of which each row's log-likelihood needs three numbers. Each is
 * used where it is computed, in registers; a library's product would write it to memory for another
 * kernel to read. At a GPU's limit of power, where such products run, that is time.
 *
 * A block has two warpgroups that multiply, 64 rows of 256 outputs each, and one whose first thread
 * brings tiles 64 columns deep, as many ahead as there is room. Two blocks are a cluster with the
 * same outputs: each brings half of the weights for both. Blocks stay for all tiles, those of all
 * rows for an output before the next ones, so that activations stay in the second-level cache. */
#include "backend/cuda/attention_stage.cuh"
#include "backend/cuda/operand.cuh"
#include "backend/cuda/wgmma.cuh"

#include <cstring>

enum {
    GROUP = 128, /* threads of a warpgroup */
    GROUPS = 2,  /* that multiply */
    THREADS = (GROUPS + 1) * GROUP,
    CLUSTER = 2,
    GROUP_ROWS = 64,
    ROWS = GROUPS * GROUP_ROWS,
    COLS = CUDA_WIDE_COLS,
    DEPTH = 64, /* columns of a tile: what 128 bytes hold */
    STAGES = 4,
    SUMS = GROUP_ROWS * COLS / GROUP, /* of a thread */
    X_BYTES = ROWS * DEPTH * 2,
    W_BYTES = COLS * DEPTH * 2,
    STAGE_BYTES = X_BYTES + W_BYTES,
    STAGE_ALIGN = 1024, /* where swizzled rows begin again */
    SHARED = STAGES * STAGE_BYTES + STAGE_ALIGN,
};

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

/* Tiles of outputs that a cluster makes: all rows' for the first outputs, then the next ones'. */
struct tile_range {
    int clusters_of_rows, cols, n; /* how many; outputs of a tile's first matrix; how many tiles */
};

template <int KIND> static __device__ __forceinline__ tile_range tiles_of(const cuda_wide_args &a)
{
    tile_range t;
    t.clusters_of_rows = ((int)a.n_rows + CLUSTER * ROWS - 1) / (CLUSTER * ROWS);
    t.cols = KIND == GATED ? COLS / 2 : COLS;
    t.n = t.clusters_of_rows * (((int)a.rows + t.cols - 1) / t.cols);
    return t;
}

/* A place in the ring of stages. */
struct stage {
    int i;
    unsigned parity;
};

static __device__ __forceinline__ void advance(stage &s)
{
    s.parity ^= s.i == STAGES - 1;
    s.i = s.i == STAGES - 1 ? 0 : s.i + 1;
}

template <int KIND>
static __device__ __forceinline__ void bring_tiles(const wide_args &a, uint32_t stages,
                                                   uint32_t full, uint32_t empty)
{
    const tile_range tiles = tiles_of<KIND>(a.of);
    const int rank = (int)rank_in_cluster();
    const CUtensorMap *w = KIND == GATED ? &a.w[rank] : &a.w[0];
    stage s = {0, 0};
    for (int t = blockIdx.x / CLUSTER; t < tiles.n; t += gridDim.x / CLUSTER) {
        const int row = (t % tiles.clusters_of_rows * CLUSTER + rank) * ROWS;
        const int col =
            t / tiles.clusters_of_rows * tiles.cols + (KIND == GATED ? 0 : rank * COLS / 2);
        for (int k = 0; k < (int)a.of.cols; k += DEPTH) {
            const uint32_t to = stages + s.i * STAGE_BYTES, barrier = full + s.i * 8;
            barrier_wait(empty + s.i * 8, s.parity ^ 1);
            barrier_expect(barrier, STAGE_BYTES);
            copy_tile(to, &a.x, barrier, k, row);
            copy_tile_to_both(to + X_BYTES + rank * (W_BYTES / 2), w, barrier, k, col);
            advance(s);
        }
    }
}

/* Tells both blocks of the cluster that this warpgroup needs a stage no more. */
static __device__ __forceinline__ void release(uint32_t empty, int i)
{
    if (threadIdx.x % GROUP < CLUSTER) barrier_arrive(empty + i * 8, threadIdx.x % GROUP);
}

template <int KIND>
static __device__ __forceinline__ void multiply(const wide_args &a, uint32_t stages, uint32_t full,
                                                uint32_t empty)
{
    const tile_range tiles = tiles_of<KIND>(a.of);
    const int group = (int)threadIdx.x / GROUP - 1, rank = (int)rank_in_cluster();
    const int own = rank * ROWS + group * GROUP_ROWS + (int)threadIdx.x % GROUP / WARP * 16;
    float sums[SUMS];
    stage s = {0, 0};
    for (int t = blockIdx.x / CLUSTER; t < tiles.n; t += gridDim.x / CLUSTER) {
        int before = 0;
        for (int k = 0; k < (int)a.of.cols; k += DEPTH) {
            const uint32_t from = stages + s.i * STAGE_BYTES;
            const uint64_t x = tile_at(from + group * (X_BYTES / GROUPS));
            const uint64_t w = tile_at(from + X_BYTES);
            barrier_wait(full + s.i * 8, s.parity);
            begin_products();
#pragma unroll
            for (int i = 0; i < DEPTH / 16; i++) multiply_tiles(sums, x + i * 2, w + i * 2, k || i);
            end_of_products();
            /* These run; the ones before are over. */
            wait_for_products<1>();
            if (k > 0) release(empty, before);
            before = s.i;
            advance(s);
        }
        wait_for_products<0>();
        release(empty, before);
        keep_behind(sums);
        const int row = t % tiles.clusters_of_rows * CLUSTER * ROWS + own;
        const int col = t / tiles.clusters_of_rows * tiles.cols;
        if constexpr (KIND == GATED)
            finish_gated(a.of, sums, row, col);
        else if constexpr (KIND == LOGITS)
            finish_logits(a.of, sums, row, col);
        else
            finish_heads<KIND>(a.of, sums, row, col);
    }
}

template <int KIND>
static __global__ void __launch_bounds__(THREADS, 1)
    product_wide(const __grid_constant__ wide_args a)
{
    if (!BG_WGMMA_HERE) __trap(); /* the driver took code for another architecture */
    extern __shared__ char room[];
    __shared__ __align__(8) uint64_t barriers[2 * STAGES];
    const uint32_t full = shared_address(barriers), empty = full + STAGES * 8;
    const uint32_t stages = (shared_address(room) + STAGE_ALIGN - 1) / STAGE_ALIGN * STAGE_ALIGN;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_create(full + i * 8, 1);
            barrier_create(empty + i * 8, GROUPS * CLUSTER);
        }
        barriers_are_created();
    }
    cluster_wait();
    wait_for_earlier();
    let_next_start();
    if (threadIdx.x < GROUP) {
        give_registers<24>();
        if (threadIdx.x == 0) bring_tiles<KIND>(a, stages, full, empty);
        __syncwarp();
    } else {
        take_registers<240>();
        multiply<KIND>(a, stages, full, empty);
    }
    cluster_end(); /* the other block may still write here */
}

/* ---- launching ------------------------------------------------------------------------------- */

/* (rows, cols) of binary16 in tiles of so many rows, as products want them. */
static cudaError_t describe(CUtensorMap *map, const void *values, size_t rows, size_t cols,
                            unsigned tile_rows)
{
    static __typeof__(&cuTensorMapEncodeTiled) encode;
    const cuuint64_t sizes[2] = {cols, rows}, strides[1] = {cols * 2};
    const cuuint32_t tile[2] = {DEPTH, tile_rows}, steps[2] = {1, 1};
    if (!encode) {
        void *function = NULL;
        cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
        cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                         cudaEnableDefault, &found);
#else
        cudaError_t e =
            cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
        if (e != cudaSuccess) return e;
        if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
        memcpy(&encode, &function, sizeof encode);
    }
    const CUresult r =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, (void *)values, sizes, strides, tile, steps,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <int KIND> static cudaError_t launch_wide(const wide_args &a, const cuda_launch *l)
{
    const void *kernel = (const void *)product_wide<KIND>;
    cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    if (e == cudaSuccess)
        e = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                 cudaSharedmemCarveoutMaxShared);
    if (e != cudaSuccess) return e;
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim = {CLUSTER, 1, 1};
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)l->multiprocessors / CLUSTER * CLUSTER);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = SHARED;
    config.stream = l->stream;
    config.attrs = attributes;
    config.numAttrs = l->overlap ? 2 : 1;
    return cudaLaunchKernelEx(&config, product_wide<KIND>, a);
}

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
    cudaError_t e = describe(&args.x, a->x, a->n_rows, a->cols, ROWS);
    for (int i = 0; i < 1 + gated && e == cudaSuccess; i++)
        e = describe(&args.w[i], a->w[i], a->rows, a->cols, COLS / 2);
    if (e != cudaSuccess) return e;
    if (gated) return launch_wide<GATED>(args, l);
    if (!a->attention.halves) return launch_wide<LOGITS>(args, l);
    return a->attention.head_dim == 64 ? launch_wide<64>(args, l) : launch_wide<128>(args, l);
}

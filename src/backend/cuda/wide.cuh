/* What products of many rows by warpgroups are made of: a ring of stages in shared memory, filled
 * by the tensor memory accelerator, and how they are launched.
 *
 * A block has two warpgroups that multiply, 64 rows of 256 outputs each, and one whose first thread
 * brings tiles of 128 bytes of each row, as many ahead as there is room. Two blocks are a cluster
 * with the same outputs: each brings half of the weights for both. Blocks stay for all tiles, those
 * of all rows for an output before the next ones, so that activations stay in the second-level
 * cache. */
#ifndef BG_BACKEND_CUDA_WIDE_CUH
#define BG_BACKEND_CUDA_WIDE_CUH

#include "backend/cuda/tensor_map.cuh"
#include "backend/cuda/wgmma.cuh"

enum {
    GROUPS = 2, /* that multiply */
    THREADS = (GROUPS + 1) * GROUP,
    CLUSTER = 2,
    GROUP_ROWS = 64,
    ROWS = GROUPS * GROUP_ROWS,
    COLS = CUDA_WIDE_COLS,
    HALF_COLS = COLS / 2, /* whose weights a block brings for both */
    STAGES = 4,
    SUMS = GROUP_ROWS * COLS / GROUP, /* of a thread */
    X_BYTES = ROWS * DEPTH_BYTES,
    W_BYTES = COLS * DEPTH_BYTES,
    STAGE_BYTES = X_BYTES + W_BYTES,
    SHARED = STAGES * STAGE_BYTES + STAGE_ALIGN,
};

/* ---- tiles ----------------------------------------------------------------------------------- */

/* Tiles of outputs that clusters make: all rows' for the first outputs, then the next ones'. */
struct tile_range {
    int clusters_of_rows, cols, n; /* how many; outputs of a tile's first matrix; how many tiles */
};

/* `gated`: half of a tile is of a second matrix. */
static __device__ __forceinline__ tile_range tiles_of(size_t n_rows, size_t outputs, bool gated)
{
    tile_range t;
    t.clusters_of_rows = ((int)n_rows + CLUSTER * ROWS - 1) / (CLUSTER * ROWS);
    t.cols = gated ? HALF_COLS : COLS;
    t.n = t.clusters_of_rows * (((int)outputs + t.cols - 1) / t.cols);
    return t;
}

/* Where a cluster's tile begins. */
struct tile_place {
    int row, col;
};

static __device__ __forceinline__ tile_place place_of(const tile_range &tiles, int t)
{
    return {t % tiles.clusters_of_rows * CLUSTER * ROWS, t / tiles.clusters_of_rows * tiles.cols};
}

/* ---- stages ---------------------------------------------------------------------------------- */

/* Where the stages lie, and their barriers: those that say that one is full, and empty. */
struct ring {
    uint32_t stages, full, empty;
};

/* A place in the ring. */
struct stage {
    int i;
    unsigned parity;
};

static __device__ __forceinline__ void advance(stage &s)
{
    s.parity ^= s.i == STAGES - 1;
    s.i = s.i == STAGES - 1 ? 0 : s.i + 1;
}

/* By all threads; what earlier kernels wrote may be read behind it. */
static __device__ __forceinline__ ring begin_wide(const char *room, uint64_t *barriers)
{
    ring r;
    r.stages = (shared_address(room) + STAGE_ALIGN - 1) / STAGE_ALIGN * STAGE_ALIGN;
    r.full = shared_address(barriers);
    r.empty = r.full + STAGES * 8;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_create(r.full + i * 8, 1);
            barrier_create(r.empty + i * 8, GROUPS * CLUSTER);
        }
        barriers_are_created();
    }
    cluster_wait();
    wait_for_earlier();
    let_next_start();
    return r;
}

/* Until a stage is empty. */
static __device__ __forceinline__ void await_room(const ring &r, stage s)
{
    barrier_wait(r.empty + s.i * 8, s.parity ^ 1);
}

/* Brings a stage: rows of x, and this block's half of the weights for both, each from a column on.
 */
static __device__ __forceinline__ void bring_stage(const ring &r, stage &s, const CUtensorMap *x,
                                                   int row, const CUtensorMap *w, int output,
                                                   int col)
{
    const uint32_t to = r.stages + s.i * STAGE_BYTES, barrier = r.full + s.i * 8;
    await_room(r, s);
    barrier_expect(barrier, STAGE_BYTES);
    copy_tile(to, x, barrier, col, row);
    copy_tile_to_both(to + X_BYTES + rank_in_cluster() * (W_BYTES / 2), w, barrier, col, output);
    advance(s);
}

/* What a warpgroup multiplies of a stage, when it has come. */
struct stage_tiles {
    uint64_t x, w;
};

static __device__ __forceinline__ stage_tiles await_stage(const ring &r, stage s, int group)
{
    const uint32_t from = r.stages + s.i * STAGE_BYTES;
    barrier_wait(r.full + s.i * 8, s.parity);
    return {tile_at(from + group * (X_BYTES / GROUPS)), tile_at(from + X_BYTES)};
}

/* Tells both blocks of the cluster that this warpgroup needs a stage no more. */
static __device__ __forceinline__ void release(const ring &r, int i)
{
    if (threadIdx.x % GROUP < CLUSTER) barrier_arrive(r.empty + i * 8, threadIdx.x % GROUP);
}

/* ---- launching ------------------------------------------------------------------------------- */

static cudaError_t describe_halves(CUtensorMap *map, const void *values, size_t rows, size_t cols,
                                   unsigned tile_rows)
{
    return describe(map, values, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, rows, cols, tile_rows);
}

template <typename Args>
static cudaError_t launch_wide(void (*kernel)(Args), const Args &args, const cuda_launch *l)
{
    cudaError_t e = cudaFuncSetAttribute((const void *)kernel,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    if (e == cudaSuccess)
        e = cudaFuncSetAttribute((const void *)kernel,
                                 cudaFuncAttributePreferredSharedMemoryCarveout,
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
    return cudaLaunchKernelEx(&config, kernel, args);
}

#endif

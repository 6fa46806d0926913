/* The kernel that runs a program. Its linear layers have weights of one family of formats, and all
 * of up to four rows of activations or all of more: a kernel for every family would need too many
 * registers. Included by one file for each family. */
#ifndef BG_BACKEND_CUDA_PROGRAM_KERNEL_CUH
#define BG_BACKEND_CUDA_PROGRAM_KERNEL_CUH

#include "backend/cuda/program_attention.cuh"
#include "backend/cuda/program_linear.cuh"
#include "backend/cuda/program_rows.cuh"

struct program_args {
    const cuda_node *nodes;
    int n_nodes;
    unsigned *counters;
    const float *code; /* of 4-bit weights, and what its values are multiplied by in the table */
    float code_scale;
    const float *scale_map; /* of double quantization */
};

typedef cudaError_t (*program_launch)(const program_args &args, size_t shared,
                                      const cuda_launch *l);

/* Up to PACKED_ROWS rows of activations at once, and up to MOST_ROWS. */
cudaError_t program_f16_packed(const program_args &args, size_t shared, const cuda_launch *l);
cudaError_t program_f16(const program_args &args, size_t shared, const cuda_launch *l);
cudaError_t program_bf16_packed(const program_args &args, size_t shared, const cuda_launch *l);
cudaError_t program_bf16(const program_args &args, size_t shared, const cuda_launch *l);
cudaError_t program_int8_packed(const program_args &args, size_t shared, const cuda_launch *l);
cudaError_t program_int8(const program_args &args, size_t shared, const cuda_launch *l);
cudaError_t program_4bit_packed(const program_args &args, size_t shared, const cuda_launch *l);
cudaError_t program_4bit(const program_args &args, size_t shared, const cuda_launch *l);
cudaError_t program_4bit_dq_packed(const program_args &args, size_t shared, const cuda_launch *l);
cudaError_t program_4bit_dq(const program_args &args, size_t shared, const cuda_launch *l);

enum { NODE_WORDS = sizeof(cuda_node) / 4 };

static_assert(sizeof(cuda_node) % 4 == 0 && NODE_WORDS <= (int)STEP_THREADS,
              "a thread copies a word");

/* What the nodes' functions have for themselves. */
union rooms_of_nodes {
    input_rooms inputs[2];
    attention_rooms attention;
    double sums[STEP_WARPS];
    uint64_t keys[STEP_WARPS];
};

template <kind K, bool PACKED>
static __global__ void __launch_bounds__(STEP_THREADS, 1) run_program(program_args p)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ __align__(16) char dynamic[];
    __shared__ __align__(16) uint32_t nodes[2][NODE_WORDS];
    __shared__ __align__(16) rooms_of_nodes rooms;
    const uint32_t *words = (const uint32_t *)p.nodes;
    char *shared = dynamic;
    all_blocks blocks = {p.counters, 0};
    if constexpr (K == KIND_4BIT_DQ)
        for (unsigned i = threadIdx.x; i < 256; i += STEP_THREADS)
            ((float *)(dynamic + PAIR_TABLE_BYTES))[i] = p.scale_map[i];
    if constexpr (is_4bit(K)) {
        uint32_t *table = (uint32_t *)dynamic;
        for (unsigned i = threadIdx.x; i < PAIR_TABLE_BYTES / 4; i += STEP_THREADS) {
            const unsigned byte = i / WARP;
            const __half2 pair = __floats2half2_rn(p.code[byte >> 4] * p.code_scale,
                                                   p.code[byte & 15] * p.code_scale);
            table[i] = *(const uint32_t *)&pair;
        }
    }
    shared += tile_shape<K>::TABLES;
    if (threadIdx.x < NODE_WORDS) nodes[0][threadIdx.x] = __ldg(words + threadIdx.x);
    __syncthreads();
    for (int i = 0; i < p.n_nodes; i++) {
        uint32_t next = 0;
        if (i + 1 < p.n_nodes && threadIdx.x < NODE_WORDS)
            next = __ldg(words + (size_t)(i + 1) * NODE_WORDS + threadIdx.x);
        const cuda_node &node = *(const cuda_node *)nodes[i & 1];
        switch (node.kind) {
        case NODE_EMBED:
            run_embed(node.args.embed, blocks);
            break;
        case NODE_NORM:
            run_norm(node.args.norm, blocks, rooms.sums);
            break;
        case NODE_COPY:
            run_copy(node.args.copy, blocks);
            break;
        case NODE_ATTEND_ONE:
            run_attention<K == KIND_INT8>(node.args.attention, blocks, rooms.attention, shared);
            break;
        case NODE_ARGMAX:
            run_argmax(node.args.head, blocks, rooms.keys);
            break;
        default:
            run_linear<K, PACKED>(node.args.linear, blocks, dynamic, 1 / p.code_scale, shared,
                                  rooms.inputs);
        }
        if (i + 1 == p.n_nodes) break;
        if (threadIdx.x < NODE_WORDS) nodes[(i + 1) & 1][threadIdx.x] = next;
        blocks.arrive();
    }
    /* Nobody waits any more when the last block leaves. */
    if (threadIdx.x == 0 && atomicAdd(p.counters + 1, 1u) + 1 == gridDim.x) {
        p.counters[0] = 0;
        p.counters[1] = 0;
    }
#endif
}

template <kind K, bool PACKED>
static cudaError_t launch_program(const program_args &args, size_t shared, const cuda_launch *l)
{
    cudaError_t e = cudaFuncSetAttribute((const void *)run_program<K, PACKED>,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (e != cudaSuccess) return e;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)l->multiprocessors);
    config.blockDim = dim3(STEP_THREADS);
    config.dynamicSmemBytes = shared;
    config.stream = l->stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, run_program<K, PACKED>, args);
}

#endif

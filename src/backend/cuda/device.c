/* What a GPU is and has, and how the backend is opened. */
#include "backend/cuda/cuda.h"

#include "backend/cuda/nvml.h"
#include "core/alloc.h"
#include "quant/blockwise.h"
#include "quant/dynamic_map.h"
#include "quant/reciprocal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- counting ---------------------------------------------------------------------------------
 */

static int count_devices(bg_error *err)
{
    int n = 0, driver = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0) return n;
    cudaGetLastError();
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
        bg_fail(err, BG_ERR_UNSUPPORTED,
                "no GPU can be used: no NVIDIA driver is installed (libcuda.so.1 is missing)");
    else if (e == cudaErrorInsufficientDriver)
        bg_fail(err, BG_ERR_UNSUPPORTED,
                "no GPU can be used: the NVIDIA driver is for CUDA %d.%d, and this program needs "
                "%d.%d; install a newer driver",
                driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                CUDART_VERSION % 1000 / 10);
    else
        bg_fail(err, BG_ERR_UNSUPPORTED,
                "no GPU can be used: the NVIDIA driver is there but finds no device (%s)",
                cudaGetErrorString(e == cudaSuccess ? cudaErrorNoDevice : e));
    return 0;
}

/* ---- tables ---------------------------------------------------------------------------------- */

enum { NF4_AT = 0, FP4_AT = 16, MAP_AT = 32, RECIPROCALS_AT = 32 + 256, TABLE_FLOATS = 1312 };

const float *cuda_code(const cuda_backend *cuda, bg_format_id format)
{
    return cuda->tables + (bg_formats[format].code == bg_nf4_code ? NF4_AT : FP4_AT);
}

const float *cuda_map(const cuda_backend *cuda)
{
    return cuda->tables + MAP_AT;
}

const float *cuda_reciprocals(const cuda_backend *cuda)
{
    return cuda->tables + RECIPROCALS_AT;
}

static bg_status create_tables(cuda_backend *cuda, bg_error *err)
{
    float tables[TABLE_FLOATS];
    memcpy(tables + NF4_AT, bg_nf4_code, sizeof bg_nf4_code);
    memcpy(tables + FP4_AT, bg_fp4_code, sizeof bg_fp4_code);
    memcpy(tables + MAP_AT, bg_dynamic_map(), 256 * sizeof(float));
    for (int i = 0; i < 1024; i++)
        tables[RECIPROCALS_AT + i] = bg_gpu_reciprocal(1 + (float)i / 1024);
    cuda->tables = cuda_alloc(cuda, sizeof tables, "tables", err);
    if (!cuda->tables) return BG_ERR_MEMORY;
    return cuda_check(cudaMemcpy(cuda->tables, tables, sizeof tables, cudaMemcpyHostToDevice),
                      "tables", err);
}

/* ---- opening --------------------------------------------------------------------------------- */

static bool is_set(const char *name)
{
    const char *value = getenv(name);
    return value && strcmp(value, "0") != 0;
}

static bg_status prepare(cuda_backend *cuda, bg_error *err)
{
    struct cudaDeviceProp p;
    cuda_meter_prepare(cuda);
    /* The host waits for each token: rather with its processor than asleep. */
    cudaInitDevice(cuda->index, cudaDeviceScheduleSpin, cudaInitDeviceFlagsAreValid);
    BG_TRY(cuda_check(cudaSetDevice(cuda->index), "opening the GPU", err));
    BG_TRY(cuda_check(cudaGetDeviceProperties(&p, cuda->index), "opening the GPU", err));
    if (p.major < 7)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s has compute capability %d.%d; the CUDA backend needs 7.0 or later; use "
                       "--device cpu",
                       p.name, p.major, p.minor);
    snprintf(cuda->name, sizeof cuda->name, "%s", p.name);
    snprintf(cuda->isa, sizeof cuda->isa, "sm_%d%d", p.major, p.minor);
    cuda->launch.multiprocessors = p.multiProcessorCount;
    cuda->launch.max_shared = (int)p.sharedMemPerBlockOptin;
    cuda->launch.overlap = p.major >= 9 && !is_set("BITGAUGE_CUDA_NO_OVERLAP");
    cuda->launch.tensor_cores = p.major >= 8;
    cuda->launch.warpgroups = p.major == 9 && p.minor == 0;
    cuda->launch.programs =
        p.major >= 8 && p.cooperativeLaunch && !is_set("BITGAUGE_CUDA_NO_PROGRAMS");
    cuda->use_graphs = !is_set("BITGAUGE_CUDA_NO_GRAPHS");
    cuda->check_each = is_set("BITGAUGE_CUDA_CHECK");
    BG_TRY(cuda_check(cudaStreamCreateWithFlags(&cuda->launch.stream, cudaStreamNonBlocking),
                      "opening the GPU", err));
    BG_TRY(cuda_check(bg_cuda_encode_load(), "loading kernels", err));
    BG_TRY(cuda_queue_create(cuda, err));
    cuda_meter_start(cuda);
    return create_tables(cuda, err);
}

bg_status cuda_open(int index, bg_backend **out, bg_error *err)
{
    *out = NULL;
    cuda_backend *cuda = bg_calloc(1, sizeof *cuda);
    if (!cuda) return bg_fail_memory(err, sizeof *cuda, "the CUDA backend");
    cuda->base.ops = &cuda_ops;
    cuda->index = index;
    cuda->least_rows = CUDA_LEAST_ROWS;
    bg_status status = prepare(cuda, err);
    if (status != BG_OK) {
        cuda_free(&cuda->base);
        return status;
    }
    *out = &cuda->base;
    return BG_OK;
}

void cuda_free(bg_backend *backend)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    if (cuda->launch.stream) cudaStreamSynchronize(cuda->launch.stream);
    cuda_queue_free(cuda);
    cuda_matmul_free(cuda);
    cuda_room *const rooms[] = {
        &cuda->outliers,  &cuda->operand[0], &cuda->operand[1], &cuda->panel,  &cuda->product,
        &cuda->quantized, &cuda->logits,     &cuda->partial,    &cuda->halves, &cuda->ahead.room};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        cuda_release(cuda, rooms[i]->data, rooms[i]->bytes);
    cuda_release(cuda, cuda->tables, TABLE_FLOATS * sizeof(float));
    cudaFreeHost(cuda->results);
    cuda_arena_free(&cuda->weights);
    cuda_meter_free(cuda);
    if (cuda->launch.stream) cudaStreamDestroy(cuda->launch.stream);
    bg_free(cuda);
}

/* ---- describing ------------------------------------------------------------------------------ */

/* The best of several copies of half a gigabyte, timed by the device. */
static double measure_copy(void)
{
    enum { BYTES = 512 << 20, RUNS = 12 };
    void *from = NULL, *to = NULL;
    cudaEvent_t begin = NULL, end = NULL;
    float best = 0;
    cudaError_t e = cudaMalloc(&from, BYTES);
    if (e == cudaSuccess) e = cudaMalloc(&to, BYTES);
    if (e == cudaSuccess) e = cudaMemset(from, 1, BYTES);
    if (e == cudaSuccess) e = cudaEventCreate(&begin);
    if (e == cudaSuccess) e = cudaEventCreate(&end);
    for (int i = 0; e == cudaSuccess && i < RUNS; i++) {
        float ms = 0;
        cudaEventRecord(begin, 0);
        cudaMemcpyAsync(to, from, BYTES, cudaMemcpyDeviceToDevice, 0);
        cudaEventRecord(end, 0);
        e = cudaEventSynchronize(end);
        if (e == cudaSuccess) e = cudaEventElapsedTime(&ms, begin, end);
        if (e == cudaSuccess && (best == 0 || ms < best)) best = ms;
    }
    if (begin) cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
    cudaFree(from);
    cudaFree(to);
    cudaGetLastError();
    return e == cudaSuccess && best > 0 ? 2.0 * BYTES / (best / 1e3) : 0;
}

static bg_status describe(int index, bg_cuda_device *out, bg_error *err)
{
    struct cudaDeviceProp p;
    *out = (bg_cuda_device){0};
    BG_TRY(cuda_check(cudaSetDevice(index), "looking at the GPU", err));
    BG_TRY(cuda_check(cudaGetDeviceProperties(&p, index), "looking at the GPU", err));
    snprintf(out->name, sizeof out->name, "%s", p.name);
    out->major = p.major;
    out->minor = p.minor;
    out->multiprocessors = p.multiProcessorCount;
    out->l2_bytes = (size_t)p.l2CacheSize;
    BG_TRY(cuda_check(cudaMemGetInfo(&out->free_bytes, &out->memory_bytes), "looking at the GPU",
                      err));
    cudaDriverGetVersion(&out->driver);
    cudaRuntimeGetVersion(&out->runtime);
    const char *reason;
    cuda_nvml *nvml = cuda_nvml_of(index, &reason);
    cuda_nvml_driver(nvml, out->driver_version, sizeof out->driver_version);
    cuda_nvml_close(nvml);
    out->copy_bytes_per_s = measure_copy();
    return BG_OK;
}

__attribute__((visibility("default"))) extern const bg_cuda_library bg_cuda_library_table;
const bg_cuda_library bg_cuda_library_table = {BG_CUDA_ABI, count_devices, describe, cuda_open};

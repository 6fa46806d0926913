/* Matrix products through cuBLASLt, loaded when the first one is wanted: the library is large, and
 * decoding does without it. Where it is missing, our own kernels do its work, slower. */
#include "backend/cuda/cuda.h"

#include "core/alloc.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum { WORKSPACE = 32 << 20, MAX_PLANS = 128 };

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

/* The functions of the library that are used; members have its names. */
#define FUNCTIONS(F)                                                                               \
    F(cublasLtCreate)                                                                              \
    F(cublasLtDestroy)                                                                             \
    F(cublasLtMatmul)                                                                              \
    F(cublasLtMatmulDescCreate)                                                                    \
    F(cublasLtMatmulDescDestroy)                                                                   \
    F(cublasLtMatmulDescSetAttribute)                                                              \
    F(cublasLtMatrixLayoutCreate)                                                                  \
    F(cublasLtMatrixLayoutDestroy)                                                                 \
    F(cublasLtMatmulPreferenceCreate)                                                              \
    F(cublasLtMatmulPreferenceDestroy)                                                             \
    F(cublasLtMatmulPreferenceSetAttribute)                                                        \
    F(cublasLtMatmulAlgoGetHeuristic)

/* How a product of one shape is computed. */
typedef struct {
    cuda_type type;
    size_t m, n, k;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, out;
    cublasLtMatmulAlgo_t algorithm;
} plan;

struct cuda_matmul {
#define MEMBER(f) __typeof__(f) *f;
    FUNCTIONS(MEMBER)
#undef MEMBER
    void *library;
    cublasLtHandle_t handle;
    void *workspace;
    plan plans[MAX_PLANS];
    size_t n_plans;
};

static const struct {
    cudaDataType_t operand, result, scale;
    cublasComputeType_t compute;
} types[] = {
    [CUDA_F32] = {CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F},
    [CUDA_F16] = {CUDA_R_16F, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F},
    [CUDA_BF16] = {CUDA_R_16BF, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F},
    [CUDA_I8] = {CUDA_R_8I, CUDA_R_32I, CUDA_R_32I, CUBLAS_COMPUTE_32I},
};

static void *open_library(void)
{
    static const char *const places[] = {
        "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR),
        "/usr/local/cuda/lib64/libcublasLt.so." TEXT(CUBLAS_VER_MAJOR),
        "/usr/local/cuda/targets/x86_64-linux/lib/libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        void *library = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
        if (library) return library;
    }
    return NULL;
}

static bool load(cuda_backend *cuda, cuda_matmul *m)
{
    m->library = open_library();
    if (!m->library) return false;
#define LOAD(f)                                                                                    \
    {                                                                                              \
        void *symbol = dlsym(m->library, #f);                                                      \
        if (!symbol) return false;                                                                 \
        memcpy(&m->f, &symbol, sizeof symbol);                                                     \
    }
    FUNCTIONS(LOAD)
#undef LOAD
    if (m->cublasLtCreate(&m->handle) != CUBLAS_STATUS_SUCCESS) {
        m->handle = NULL;
        return false;
    }
    m->workspace = cuda_alloc(cuda, WORKSPACE, "cuBLASLt's workspace", NULL);
    return m->workspace != NULL;
}

cuda_matmul *cuda_matmul_get(cuda_backend *cuda)
{
    if (!cuda->matmul) {
        cuda->matmul = bg_calloc(1, sizeof *cuda->matmul);
        if (!cuda->matmul) return NULL;
        if (!load(cuda, cuda->matmul)) {
            if (cuda->matmul->handle) cuda->matmul->cublasLtDestroy(cuda->matmul->handle);
            cuda->matmul->handle = NULL;
        }
    }
    return cuda->matmul->handle ? cuda->matmul : NULL;
}

void cuda_matmul_free(cuda_backend *cuda)
{
    cuda_matmul *m = cuda->matmul;
    if (!m) return;
    for (size_t i = 0; i < m->n_plans; i++) {
        m->cublasLtMatmulDescDestroy(m->plans[i].desc);
        m->cublasLtMatrixLayoutDestroy(m->plans[i].w);
        m->cublasLtMatrixLayoutDestroy(m->plans[i].x);
        m->cublasLtMatrixLayoutDestroy(m->plans[i].out);
    }
    if (m->handle) m->cublasLtDestroy(m->handle);
    cuda_release(cuda, m->workspace, WORKSPACE);
    /* The library stays loaded: it does not like to go while a device is open. */
    bg_free(m);
    cuda->matmul = NULL;
}

bool cuda_matmul_fits(const cuda_gemm_args *args)
{
    if (args->type == CUDA_I8) return args->n % 16 == 0 && args->k % 16 == 0;
    return args->type == CUDA_F32 || args->k % 4 == 0;
}

/* The library's matrices are column-major, so that ours look transposed: out^T (n, m) = w x^T with
 * w as (k, n) transposed and x as (k, m). */
static bool make_plan(cuda_matmul *l, const cuda_gemm_args *a, plan *p)
{
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const size_t workspace = WORKSPACE;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int n_found = 0;
    *p = (plan){.type = a->type, .m = a->m, .n = a->n, .k = a->k};
    bool ok = l->cublasLtMatmulDescCreate(&p->desc, types[a->type].compute, types[a->type].scale) ==
              CUBLAS_STATUS_SUCCESS;
    ok = ok && l->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                                 sizeof transpose) == CUBLAS_STATUS_SUCCESS;
    ok = ok && l->cublasLtMatrixLayoutCreate(&p->w, types[a->type].operand, a->k, a->n,
                                             (int64_t)a->k) == CUBLAS_STATUS_SUCCESS;
    ok = ok && l->cublasLtMatrixLayoutCreate(&p->x, types[a->type].operand, a->k, a->m,
                                             (int64_t)a->k) == CUBLAS_STATUS_SUCCESS;
    ok = ok && l->cublasLtMatrixLayoutCreate(&p->out, types[a->type].result, a->n, a->m,
                                             (int64_t)a->n) == CUBLAS_STATUS_SUCCESS;
    ok = ok && l->cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS;
    ok = ok && l->cublasLtMatmulPreferenceSetAttribute(
                   preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                   sizeof workspace) == CUBLAS_STATUS_SUCCESS;
    ok = ok && l->cublasLtMatmulAlgoGetHeuristic(l->handle, p->desc, p->w, p->x, p->out, p->out,
                                                 preference, 1, &found,
                                                 &n_found) == CUBLAS_STATUS_SUCCESS;
    if (preference) l->cublasLtMatmulPreferenceDestroy(preference);
    ok = ok && n_found > 0;
    if (ok) p->algorithm = found.algo;
    return ok;
}

static void free_plan(cuda_matmul *l, plan *p)
{
    if (p->desc) l->cublasLtMatmulDescDestroy(p->desc);
    if (p->w) l->cublasLtMatrixLayoutDestroy(p->w);
    if (p->x) l->cublasLtMatrixLayoutDestroy(p->x);
    if (p->out) l->cublasLtMatrixLayoutDestroy(p->out);
    *p = (plan){0};
}

/* Plans of recent shapes are kept; when all places are taken, all are given up. */
static plan *get_plan(cuda_matmul *l, const cuda_gemm_args *a)
{
    for (size_t i = 0; i < l->n_plans; i++) {
        plan *p = &l->plans[i];
        if (p->type == a->type && p->m == a->m && p->n == a->n && p->k == a->k) return p;
    }
    if (l->n_plans == MAX_PLANS)
        while (l->n_plans > 0) free_plan(l, &l->plans[--l->n_plans]);
    plan *p = &l->plans[l->n_plans];
    if (!make_plan(l, a, p)) {
        free_plan(l, p);
        return NULL;
    }
    l->n_plans++;
    return p;
}

cudaError_t cuda_matmul_run(cuda_backend *cuda, const cuda_gemm_args *args)
{
    static const float one = 1, zero = 0;
    static const int32_t int_one = 1, int_zero = 0;
    cuda_matmul *l = cuda->matmul;
    const bool integer = args->type == CUDA_I8;
    plan *p = get_plan(l, args);
    if (!p) return cudaErrorNotSupported;
    cublasStatus_t status = l->cublasLtMatmul(
        l->handle, p->desc, integer ? (const void *)&int_one : (const void *)&one, args->w, p->w,
        args->x, p->x, integer ? (const void *)&int_zero : (const void *)&zero, args->out, p->out,
        args->out, p->out, &p->algorithm, l->workspace, WORKSPACE, cuda->launch.stream);
    return status == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorLaunchFailure;
}

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
    cuda_gemm_args shape; /* pointers say only whether there is one */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, residual, out;
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

bool cuda_matmul_exists(void)
{
    static bool asked, there;
    if (!asked) there = open_library() != NULL; /* it stays */
    asked = true;
    return there;
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

bool cuda_matmul_fits(const cuda_gemm_args *args)
{
    if (args->type == CUDA_I8) return args->n % 16 == 0 && args->k % 16 == 0;
    return args->type == CUDA_F32 || args->k % 4 == 0;
}

/* What is known of the addresses: that they are multiples of this. */
enum { ALIGNMENT = 16 };

static cublasStatus_t set_preference(cuda_matmul *l, cublasLtMatmulPreference_t preference)
{
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const size_t workspace = WORKSPACE;
    const uint32_t alignment = ALIGNMENT;
    cublasStatus_t status = l->cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    for (size_t i = 0; i < 4 && status == CUBLAS_STATUS_SUCCESS; i++)
        status = l->cublasLtMatmulPreferenceSetAttribute(preference, alignments[i], &alignment,
                                                         sizeof alignment);
    return status;
}

static cublasStatus_t describe(cuda_matmul *l, const cuda_gemm_args *a, plan *p)
{
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue =
        a->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    cublasStatus_t status =
        l->cublasLtMatmulDescCreate(&p->desc, types[a->type].compute, types[a->type].scale);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = l->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                                   sizeof transpose);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = l->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                   &epilogue, sizeof epilogue);
    return status;
}

/* The library's matrices are column-major, so that ours look transposed: out^T (n, m) = w x^T with
 * w as (k, n) transposed and x as (k, m). */
static bool make_plan(cuda_matmul *l, const cuda_gemm_args *a, plan *p)
{
    const cudaDataType_t operand = types[a->type].operand;
    const cudaDataType_t result = a->halves ? CUDA_R_16F : types[a->type].result;
    const size_t residual_stride = a->residual ? a->residual_stride : a->out_stride;
    const struct {
        cublasLtMatrixLayout_t *layout;
        cudaDataType_t type;
        size_t rows, cols, stride;
    } layouts[] = {{&p->w, operand, a->k, a->n, a->k},
                   {&p->x, operand, a->k, a->m, a->k},
                   {&p->residual, result, a->n, a->m, residual_stride},
                   {&p->out, result, a->n, a->m, a->out_stride}};
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int n_found = 0;
    *p = (plan){.shape = *a};
    bool ok = describe(l, a, p) == CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        ok = ok && l->cublasLtMatrixLayoutCreate(
                       layouts[i].layout, layouts[i].type, layouts[i].rows, layouts[i].cols,
                       (int64_t)layouts[i].stride) == CUBLAS_STATUS_SUCCESS;
    ok = ok && l->cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS;
    ok = ok && set_preference(l, preference) == CUBLAS_STATUS_SUCCESS;
    ok = ok && l->cublasLtMatmulAlgoGetHeuristic(l->handle, p->desc, p->w, p->x, p->residual,
                                                 p->out, preference, 1, &found,
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
    if (p->residual) l->cublasLtMatrixLayoutDestroy(p->residual);
    if (p->out) l->cublasLtMatrixLayoutDestroy(p->out);
    *p = (plan){0};
}

static bool same_shape(const cuda_gemm_args *a, const cuda_gemm_args *b)
{
    return a->type == b->type && a->halves == b->halves && a->m == b->m && a->n == b->n &&
           a->k == b->k && a->out_stride == b->out_stride &&
           a->residual_stride == b->residual_stride && !a->bias == !b->bias &&
           !a->residual == !b->residual;
}

void cuda_matmul_free(cuda_backend *cuda)
{
    cuda_matmul *m = cuda->matmul;
    if (!m) return;
    while (m->n_plans > 0) free_plan(m, &m->plans[--m->n_plans]);
    if (m->handle) m->cublasLtDestroy(m->handle);
    cuda_release(cuda, m->workspace, WORKSPACE);
    /* The library stays loaded: it does not like to go while a device is open. */
    bg_free(m);
    cuda->matmul = NULL;
}

/* Plans of recent shapes are kept; when all places are taken, all are given up. */
static plan *get_plan(cuda_matmul *l, const cuda_gemm_args *a)
{
    for (size_t i = 0; i < l->n_plans; i++)
        if (same_shape(&l->plans[i].shape, a)) return &l->plans[i];
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

cudaError_t cuda_matmul_run(cuda_backend *cuda, const cuda_gemm_args *a)
{
    static const float zero = 0, one = 1, half_scale = CUDA_HALF_SCALE;
    static const int32_t int_zero = 0, int_one = 1;
    cuda_matmul *l = cuda->matmul;
    const bool integer = a->type == CUDA_I8;
    const void *const alpha = integer     ? (const void *)&int_one
                              : a->halves ? (const void *)&half_scale
                                          : (const void *)&one;
    const void *const beta = integer       ? (const void *)&int_zero
                             : a->residual ? (const void *)&one
                                           : (const void *)&zero;
    plan *p = get_plan(l, a);
    if (!p) return cudaErrorNotSupported;
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    if (a->bias)
        status = l->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                   &a->bias, sizeof a->bias);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = l->cublasLtMatmul(l->handle, p->desc, alpha, a->w, p->w, a->x, p->x, beta,
                                   a->residual ? a->residual : a->out, p->residual, a->out, p->out,
                                   &p->algorithm, l->workspace, WORKSPACE, cuda->launch.stream);
    return status == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorLaunchFailure;
}

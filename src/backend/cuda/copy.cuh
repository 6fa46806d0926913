/* Copies to shared memory that a thread asks for and does not wait for (cp.async, compute
 * capability 8.0 and later), in groups that come in their order. */
#ifndef BG_BACKEND_CUDA_COPY_CUH
#define BG_BACKEND_CUDA_COPY_CUH

#include <cstdint>

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 bytes, not from the first-level cache: also of what other blocks have just written. */
static __device__ __forceinline__ void copy_16(void *to, const void *from)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from)
                 : "memory");
#endif
}

/* 4 bytes. */
static __device__ __forceinline__ void copy_4(void *to, const void *from)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from)
                 : "memory");
#endif
}

/* 16 bytes, or zeros. */
static __device__ __forceinline__ void copy_or_clear_16(char *to, const void *from, bool there)
{
#if __CUDA_ARCH__ >= 800
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes)
                 : "memory");
#endif
}

/* What the thread has asked for since the last group is one. */
static __device__ __forceinline__ void end_of_group()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Until all but the thread's last N groups have come. */
template <int N> static __device__ __forceinline__ void wait_for_groups()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

#endif

#include "backend/cpu/kernels.h"

#include <stdlib.h>
#include <string.h>

const bg_cpu_kernels *const bg_cpu_kernel_tables[] = {
    &bg_cpu_scalar,
#if defined(__x86_64__)
    &bg_cpu_avx2,   &bg_cpu_avx512, &bg_cpu_avx512_vnni,
#elif defined(__aarch64__)
    &bg_cpu_neon,
#endif
    NULL,
};

bg_status bg_cpu_kernels_choose(const bg_cpu_kernels **out, bg_error *err)
{
    const char *wanted = getenv("BITGAUGE_ISA");
    *out = NULL;
    for (int i = 0; bg_cpu_kernel_tables[i]; i++) {
        const bg_cpu_kernels *table = bg_cpu_kernel_tables[i];
        if ((!wanted || strcmp(wanted, table->isa) == 0) && table->supported()) *out = table;
    }
    if (*out) return BG_OK;
    return bg_fail(err, BG_ERR_UNSUPPORTED,
                   "BITGAUGE_ISA=%s names no instruction set that this program and processor have; "
                   "unset it, or see `bitgauge devices`",
                   wanted);
}

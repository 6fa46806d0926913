/* The AVX-512 kernels with VNNI's integer products: the same source under other compiler options.
 */
#include "backend/cpu/kernels_avx512.c"

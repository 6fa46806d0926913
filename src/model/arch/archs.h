/* The architectures, one file each. */
#ifndef BG_MODEL_ARCH_ARCHS_H
#define BG_MODEL_ARCH_ARCHS_H

#include "model/arch.h"

extern const bg_arch bg_arch_gpt2;
extern const bg_arch bg_arch_distilbert;

#endif

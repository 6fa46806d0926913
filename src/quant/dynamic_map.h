/* The 8-bit dynamic data type that scales are quantized with. */
#ifndef BG_QUANT_DYNAMIC_MAP_H
#define BG_QUANT_DYNAMIC_MAP_H

/* The 256 values of bitsandbytes' signed dynamic data type (Dettmers 2016, arXiv:1511.04561),
 * ascending; static. */
const float *bg_dynamic_map(void);

#endif

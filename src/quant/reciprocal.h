/* The reciprocal that bitsandbytes' kernels work with. They are compiled for fast arithmetic, where
 * 1 / x is the GPU's rcp.approx.ftz.f32, within one unit in the last place of the true value. Now
 * and then that unit decides a code: an element of exactly half its row's absmax lands on 63.5. To
 * be equal to the last bit, the CPU must divide as the GPU does. */
#ifndef BG_QUANT_RECIPROCAL_H
#define BG_QUANT_RECIPROCAL_H

/* 1 / x for x > 0 as an NVIDIA GPU approximates it where x has a mantissa of at most 11 bits, as
 * every value of a binary16 or bfloat16 checkpoint has; correctly rounded for others. x = 0 gives
 * infinity. (The GPU also takes a subnormal x for 0; here it is not.) */
float bg_gpu_reciprocal(float x);

#endif

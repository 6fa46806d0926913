/* Resident memory of this process, as the kernel counts it. */
#ifndef BG_BENCH_MEMORY_H
#define BG_BENCH_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes of resident memory now, and the most there were since the start or the last reset; 0 where
 * the system does not say. */
int64_t bg_resident_bytes(void);
int64_t bg_peak_resident_bytes(void);

/* Gives freed memory back to the system, so that what is allocated next is seen to grow. */
void bg_return_memory(void);

/* Lets the peak begin anew; false where the system cannot, and the peak is that of the whole
 * process. */
bool bg_reset_peak(void);

#endif

/* Numbers in groups of seven bits, the lowest first, as Protocol Buffers and Thrift have them
 * (LEB128).
 */
#ifndef BG_CORE_VARINT_H
#define BG_CORE_VARINT_H

#include <stdbool.h>
#include <stdint.h>

/* Reads one from *at on and moves *at behind it; false where the bytes end first or there are more
 * than ten. */
static inline bool bg_read_varint(const uint8_t **at, const uint8_t *end, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        *out |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

/* 0, -1, 1, -2, ... are 0, 1, 2, 3, ...: small numbers of both signs take few groups. */
static inline int64_t bg_unzigzag(uint64_t n)
{
    return (int64_t)(n >> 1 ^ -(n & 1));
}

#endif

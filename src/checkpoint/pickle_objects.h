/* What a pickle may build out of names, for pickle.c alone: memory for values, the table of names,
 * and the calls. */
#ifndef BG_CHECKPOINT_PICKLE_OBJECTS_H
#define BG_CHECKPOINT_PICKLE_OBJECTS_H

#include "checkpoint/pickle.h"

#include <stdbool.h>

/* Where in a pickle something is wrong. */
typedef struct {
    bg_pickle *pickle;
    const char *where;
    size_t at; /* offset of the opcode */
    bg_error *err;
} bg_pickle_place;

bg_status bg_pickle_refuse(const bg_pickle_place *place, bg_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Zeroed memory that lives as long as the pickle. */
bg_status bg_pickle_alloc(const bg_pickle_place *place, size_t bytes, void *out);

/* A container of copies of n values. */
bg_status bg_pickle_items(const bg_pickle_place *place, bg_value_kind kind, const bg_value *values,
                          size_t n, bg_value *out);
bg_status bg_pickle_extend(const bg_pickle_place *place, bg_items *items, const bg_value *values,
                           size_t n);

/* Name and module need not be NUL-terminated. */
bg_status bg_pickle_global(const bg_pickle_place *place, const char *module, size_t module_size,
                           const char *name, size_t name_size, bg_value *out);
/* Opcode REDUCE: what Python would call. */
bg_status bg_pickle_call(const bg_pickle_place *place, const bg_value *function,
                         const bg_value *arguments, bg_value *out);
/* Opcode BINPERSID: a storage. */
bg_status bg_pickle_persistent(const bg_pickle_place *place, const bg_value *id, bg_value *out);

#endif

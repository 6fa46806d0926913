/* Python pickles (https://peps.python.org/pep-3154, and Python's pickletools) as torch.save writes
 * them, protocols 2 to 5, read into plain values. No code is ever run: what a pickle may name is a
 * table in pickle_objects.c, of tensors, their storages and element types, and OrderedDict. Any
 * other name, and any other opcode, is refused by name. */
#ifndef BG_CHECKPOINT_PICKLE_H
#define BG_CHECKPOINT_PICKLE_H

#include "checkpoint/checkpoint.h"
#include "core/pool.h"

#include <stddef.h>
#include <stdint.h>

enum {
    BG_PICKLE_MAX_BYTES = 100 * 1000 * 1000,
    BG_PICKLE_MAX_MEMORY = 512 * 1024 * 1024, /* of all values of one pickle */
    BG_PICKLE_MAX_STACK = 1 << 20,            /* values */
    BG_PICKLE_MAX_DEPTH = 1000,               /* marks: containers begun and not ended */
};

typedef enum {
    BG_VALUE_NONE,
    BG_VALUE_BOOL,
    BG_VALUE_INT,
    BG_VALUE_BIG_INT, /* more than 64 bits: text, size as for a string, little-endian */
    BG_VALUE_FLOAT,
    BG_VALUE_STRING,
    BG_VALUE_TUPLE,
    BG_VALUE_LIST,
    BG_VALUE_DICT,
    BG_VALUE_GLOBAL,
    BG_VALUE_STORAGE,
    BG_VALUE_TENSOR,
    BG_VALUE_KIND_COUNT,
} bg_value_kind;

typedef struct bg_items bg_items;
typedef struct bg_storage bg_storage;
typedef struct bg_strided bg_strided;
typedef struct bg_global bg_global;

typedef struct {
    bg_value_kind kind;
    uint32_t size; /* bytes of text */
    union {
        int64_t integer; /* INT, and BOOL: 0 or 1 */
        double real;
        const char *text; /* in the pickle's bytes; not NUL-terminated, not checked to be UTF-8 */
        bg_items *items;  /* TUPLE, LIST, DICT */
        const bg_global *global;
        bg_storage *storage;
        bg_strided *tensor;
    };
} bg_value;

/* A container. A DICT holds a key, its value, the next key, ... in the order they were set; a key
 * may be there twice, which Python would take for the later one. A container may hold itself. */
struct bg_items {
    bg_value *at;
    size_t count, capacity;
};

/* A block of numbers beside the pickle, which tensors are views of. */
struct bg_storage {
    bg_storage *next;
    const char *key; /* its name in the file, of key_size bytes */
    uint32_t key_size;
    bg_dtype dtype;                 /* BG_U8 where untyped */
    size_t numel;                   /* of the whole storage, as the pickle says */
    size_t view_offset, view_numel; /* the part meant; the whole but in the legacy format */
    const uint8_t *data;            /* set by the file's reader: the part meant, and its bytes */
    size_t bytes;
};

struct bg_strided {
    const bg_storage *storage;
    bg_dtype dtype;
    int rank;
    size_t offset; /* in elements, from the storage's beginning; so are strides */
    size_t shape[BG_MAX_RANK], strides[BG_MAX_RANK];
};

/* One pickle, which owns all values but the text in them. */
typedef struct {
    bg_value root;
    bg_storage *storages; /* a list of all; the same one several times where several tensors are of
                             it */
    size_t used;          /* bytes of the pickle, up to and with its STOP */
    bg_pool pool;
} bg_pickle;

/* Reads the pickle that begins at data; it may end before size. `where` names it in errors. On
 * failure nothing is left to free. */
bg_status bg_pickle_load(const uint8_t *data, size_t size, const char *where, bg_pickle *out,
                         bg_error *err);
void bg_pickle_free(bg_pickle *pickle);

/* "a dictionary", ... */
extern const char *const bg_value_kind_names[BG_VALUE_KIND_COUNT];

bool bg_value_is(const bg_value *value, const char *text);
/* The value of that key in a DICT, or NULL. */
const bg_value *bg_dict_find(const bg_items *dict, const char *key);

#endif

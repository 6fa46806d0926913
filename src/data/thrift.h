/* The Thrift compact protocol, as far as reading goes: a struct's fields are described by a table
 * and copied into a C struct. Fields that the table does not name are skipped. Nothing in the bytes
 * is trusted; nesting is limited.
 * https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md */
#ifndef BG_DATA_THRIFT_H
#define BG_DATA_THRIFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that are still to be read. */
typedef struct {
    const uint8_t *at, *end;
} bg_thrift;

typedef struct {
    const char *data; /* NULL where the field is absent */
    size_t size;
} bg_thrift_string;

/* A list of structs, which are read one by one from `items`. */
typedef struct {
    bg_thrift items;
    size_t n;
} bg_thrift_list;

typedef enum {
    BG_THRIFT_INT,     /* int64_t, of whatever width */
    BG_THRIFT_BOOL,    /* bool */
    BG_THRIFT_STRING,  /* bg_thrift_string, in place */
    BG_THRIFT_LIST,    /* bg_thrift_list */
    BG_THRIFT_STRUCT,  /* what `fields` describe, offsets counted from the outer struct's */
    BG_THRIFT_PRESENT, /* bool: true if the field is there, whatever is in it */
} bg_thrift_kind;

/* A row of the table; a row with id 0 ends it. */
typedef struct bg_thrift_field {
    int id;
    bg_thrift_kind kind;
    size_t offset;
    const struct bg_thrift_field *fields;
} bg_thrift_field;

/* Reads a struct into `out`, in which absent fields are left alone. False if the bytes are none. */
bool bg_thrift_read(bg_thrift *t, const bg_thrift_field *fields, void *out);

#endif

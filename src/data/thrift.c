#include "data/thrift.h"

#include "core/varint.h"

#include <string.h>

enum { MAX_NESTING = 16 };

/* The types on the wire. In a struct a truth value is its type. */
enum { STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT };

static bool read_byte(bg_thrift *t, uint8_t *out)
{
    if (t->at == t->end) return false;
    *out = *t->at++;
    return true;
}

static bool read_varint(bg_thrift *t, uint64_t *out)
{
    return bg_read_varint(&t->at, t->end, out);
}

static bool read_int(bg_thrift *t, int type, int64_t *out)
{
    uint64_t zigzag;
    uint8_t byte;
    if (type == BYTE) {
        if (!read_byte(t, &byte)) return false;
        *out = (int8_t)byte;
        return true;
    }
    if (type < I16 || type > I64 || !read_varint(t, &zigzag)) return false;
    *out = bg_unzigzag(zigzag);
    return true;
}

static bool advance(bg_thrift *t, uint64_t n)
{
    if (n > (size_t)(t->end - t->at)) return false;
    t->at += n;
    return true;
}

static bool read_string(bg_thrift *t, bg_thrift_string *out)
{
    uint64_t n;
    if (!read_varint(t, &n)) return false;
    *out = (bg_thrift_string){(const char *)t->at, (size_t)n};
    return advance(t, n);
}

/* Of a list or set. An item takes a byte or more, so that there are no more of them than bytes. */
static bool read_list_header(bg_thrift *t, int *type, size_t *n)
{
    uint8_t head;
    if (!read_byte(t, &head)) return false;
    uint64_t count = head >> 4;
    *type = head & 15;
    if (count == 15 && !read_varint(t, &count)) return false;
    *n = (size_t)count;
    return count <= (size_t)(t->end - t->at);
}

/* The id and type of a struct's next field; STOP after the last. */
static bool read_field_header(bg_thrift *t, int *id, int *type)
{
    uint8_t head;
    int64_t value = *id;
    if (!read_byte(t, &head)) return false;
    *type = head & 15;
    if (*type == STOP) return true;
    if (head >> 4)
        value += head >> 4;
    else if (!read_int(t, I16, &value))
        return false;
    *id = (int)value;
    return value > 0 && value <= INT16_MAX;
}

static bool skip(bg_thrift *t, int type, bool in_list, int nesting);

static bool skip_items(bg_thrift *t, const int *types, int n_types, size_t n, int nesting)
{
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < n_types; k++)
            if (!skip(t, types[k], true, nesting)) return false;
    return true;
}

static bool skip_struct(bg_thrift *t, int nesting)
{
    for (int id = 0, type;;) {
        if (!read_field_header(t, &id, &type)) return false;
        if (type == STOP) return true;
        if (!skip(t, type, false, nesting)) return false;
    }
}

static bool skip_map(bg_thrift *t, int nesting)
{
    uint64_t n;
    uint8_t types;
    if (!read_varint(t, &n)) return false;
    if (n == 0) return true;
    if (!read_byte(t, &types) || n > (size_t)(t->end - t->at)) return false;
    return skip_items(t, (int[]){types >> 4, types & 15}, 2, (size_t)n, nesting);
}

static bool skip(bg_thrift *t, int type, bool in_list, int nesting)
{
    bg_thrift_string string;
    int64_t number;
    size_t n;
    int item;
    if (nesting == MAX_NESTING) return false;
    switch (type) {
    case TRUE:
    case FALSE:
        return !in_list || advance(t, 1);
    case BYTE:
    case I16:
    case I32:
    case I64:
        return read_int(t, type, &number);
    case DOUBLE:
        return advance(t, 8);
    case BINARY:
        return read_string(t, &string);
    case LIST:
    case SET:
        return read_list_header(t, &item, &n) && skip_items(t, &item, 1, n, nesting + 1);
    case MAP:
        return skip_map(t, nesting + 1);
    case STRUCT:
        return skip_struct(t, nesting + 1);
    default:
        return false;
    }
}

static bool read_list(bg_thrift *t, bg_thrift_list *out)
{
    int item;
    if (!read_list_header(t, &item, &out->n) || (out->n && item != STRUCT)) return false;
    out->items = *t;
    return skip_items(t, &item, 1, out->n, 1);
}

static bool read_value(bg_thrift *t, int type, const bg_thrift_field *f, void *base)
{
    void *out = (char *)base + f->offset;
    switch (f->kind) {
    case BG_THRIFT_INT:
        return read_int(t, type, out);
    case BG_THRIFT_BOOL:
        *(bool *)out = type == TRUE;
        return type == TRUE || type == FALSE;
    case BG_THRIFT_STRING:
        return type == BINARY && read_string(t, out);
    case BG_THRIFT_LIST:
        return type == LIST && read_list(t, out);
    case BG_THRIFT_STRUCT:
        return type == STRUCT && bg_thrift_read(t, f->fields, base);
    case BG_THRIFT_PRESENT:
        *(bool *)out = true;
        return skip(t, type, false, 0);
    }
    return false;
}

bool bg_thrift_read(bg_thrift *t, const bg_thrift_field *fields, void *out)
{
    for (int id = 0, type;;) {
        if (!read_field_header(t, &id, &type)) return false;
        if (type == STOP) return true;
        const bg_thrift_field *f = fields;
        while (f->id && f->id != id) f++;
        if (!(f->id ? read_value(t, type, f, out) : skip(t, type, false, 0))) return false;
    }
}

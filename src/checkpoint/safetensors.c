#include "checkpoint/safetensors.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "core/json.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGAIN "; the file is damaged or cut short: download it again"

/* What is needed to judge one entry of the header. */
typedef struct {
    const char *path;
    const uint8_t *buffer; /* the tensors' bytes */
    size_t buffer_size;
    bg_error *err;
} reader;

static uint64_t read_u64(const uint8_t *p)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--) value = value << 8 | p[i];
    return value;
}

static bg_status refuse(const reader *r, const char *name, const char *what)
{
    return bg_fail(r->err, BG_ERR_FORMAT, "%s: tensor \"%.200s\": %s" AGAIN, r->path, name, what);
}

static bg_status parse_dtype(const reader *r, const char *name, const json_t *entry, bg_dtype *out)
{
    const char *text = json_string_value(json_object_get(entry, "dtype"));
    if (!text) return refuse(r, name, "\"dtype\" must be a string");
    for (int i = 0; i < BG_DTYPE_COUNT; i++) {
        if (strcmp(text, bg_dtypes[i].safetensors) == 0) {
            *out = (bg_dtype)i;
            return BG_OK;
        }
    }
    return bg_fail(r->err, BG_ERR_UNSUPPORTED,
                   "%s: tensor \"%.200s\": element type \"%.40s\" is not supported (F64, F32, F16, "
                   "BF16, I64, I32, I16, I8, U8 and BOOL are); use a checkpoint in one of those",
                   r->path, name, text);
}

/* The shape, and in *bytes what a tensor of it takes. */
static bg_status parse_shape(const reader *r, const char *name, const json_t *entry,
                             bg_tensor *tensor, size_t *bytes)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) return refuse(r, name, "\"shape\" must be an array");
    size_t rank = json_array_size(shape);
    if (rank > BG_MAX_RANK)
        return bg_fail(r->err, BG_ERR_FORMAT,
                       "%s: tensor \"%.200s\": shape has %zu dimensions, more than %d" AGAIN,
                       r->path, name, rank, (int)BG_MAX_RANK);
    tensor->rank = (int)rank;
    *bytes = bg_dtypes[tensor->dtype].size;
    bool overflow = false;
    for (size_t i = 0; i < rank; i++) {
        const json_t *dimension = json_array_get(shape, i);
        json_int_t length = json_integer_value(dimension);
        if (!json_is_integer(dimension) || length < 0)
            return refuse(r, name, "\"shape\" must be of whole numbers that are not negative");
        tensor->shape[i] = length;
        if (!bg_mul_size(*bytes, (size_t)length, bytes)) overflow = true;
    }
    /* As in the reference implementation, a zero does not excuse an overflow before it. */
    if (overflow) return refuse(r, name, "\"shape\" overflows: it takes 2^64 bytes or more");
    return BG_OK;
}

static bg_status parse_offsets(const reader *r, const char *name, const json_t *entry,
                               bg_tensor *tensor, size_t expected)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last) ||
        json_integer_value(first) < 0 || json_integer_value(last) < 0)
        return refuse(r, name, "\"data_offsets\" must be two whole numbers, not negative");
    unsigned long long begin = (unsigned long long)json_integer_value(first);
    unsigned long long end = (unsigned long long)json_integer_value(last);
    if (begin > end || end > r->buffer_size)
        return bg_fail(r->err, BG_ERR_FORMAT,
                       "%s: tensor \"%.200s\": data_offsets [%llu, %llu) lie outside the %zu bytes "
                       "of data" AGAIN,
                       r->path, name, begin, end, r->buffer_size);
    if (end - begin != expected)
        return bg_fail(r->err, BG_ERR_FORMAT,
                       "%s: tensor \"%.200s\": data_offsets [%llu, %llu) are %llu bytes, but its "
                       "shape and type take %zu" AGAIN,
                       r->path, name, begin, end, end - begin, expected);
    tensor->data = r->buffer + begin;
    tensor->bytes = expected;
    return BG_OK;
}

static bg_status parse_tensor(const reader *r, const char *name, const json_t *entry,
                              bg_tensor *tensor)
{
    size_t bytes = 0;
    *tensor = (bg_tensor){.name = name, .file = r->path};
    if (!json_is_object(entry)) return refuse(r, name, "its header entry must be an object");
    BG_TRY(parse_dtype(r, name, entry, &tensor->dtype));
    BG_TRY(parse_shape(r, name, entry, tensor, &bytes));
    return parse_offsets(r, name, entry, tensor, bytes);
}

static int by_place(const void *a, const void *b)
{
    const bg_tensor *x = a, *y = b;
    const uint8_t *from_x = x->data, *from_y = y->data;
    if (from_x != from_y) return from_x < from_y ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The tensors, sorted by place, must fill the buffer: a byte of two tensors, or of none, means that
 * header and data do not belong together (or that something is hidden between them). */
static bg_status check_places(const reader *r, const bg_tensor *tensors, size_t count)
{
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        size_t begin = (size_t)((const uint8_t *)tensors[i].data - r->buffer);
        if (begin < at)
            return bg_fail(r->err, BG_ERR_FORMAT,
                           "%s: tensor \"%.200s\" overlaps \"%.200s\" at data offset %zu" AGAIN,
                           r->path, tensors[i].name, tensors[i - 1].name, begin);
        if (begin > at)
            return bg_fail(r->err, BG_ERR_FORMAT,
                           "%s: data bytes %zu to %zu, before tensor \"%.200s\", belong to no "
                           "tensor" AGAIN,
                           r->path, at, begin, tensors[i].name);
        at = begin + tensors[i].bytes;
    }
    if (at != r->buffer_size)
        return bg_fail(r->err, BG_ERR_FORMAT,
                       "%s: data bytes %zu to %zu, at the end, belong to no tensor" AGAIN, r->path,
                       at, r->buffer_size);
    return BG_OK;
}

static bg_status check_metadata(const reader *r, json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return bg_fail(r->err, BG_ERR_FORMAT, "%s: \"__metadata__\" must be an object" AGAIN,
                       r->path);
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return bg_fail(r->err, BG_ERR_FORMAT,
                           "%s: \"__metadata__\": \"%.200s\" must be a string" AGAIN, r->path, key);
    }
    return BG_OK;
}

/* Names live on in one block, so that the header, many times their size, need not. */
static bg_status keep_names(const reader *r, bg_safetensors *file)
{
    size_t total = 0;
    for (size_t i = 0; i < file->count; i++) total += strlen(file->tensors[i].name) + 1;
    file->names = bg_alloc(total);
    if (!file->names) return bg_fail_memory(r->err, total, "tensor names");
    char *at = file->names;
    for (size_t i = 0; i < file->count; i++) {
        size_t n = strlen(file->tensors[i].name) + 1;
        memcpy(at, file->tensors[i].name, n);
        file->tensors[i].name = at;
        at += n;
    }
    return BG_OK;
}

static bg_status read_header(const reader *r, json_t *header, bg_safetensors *file)
{
    if (!json_is_object(header))
        return bg_fail(r->err, BG_ERR_FORMAT, "%s: header: must be a JSON object" AGAIN, r->path);
    size_t entries = json_object_size(header);
    if (entries > BG_SAFETENSORS_MAX_TENSORS)
        return bg_fail(r->err, BG_ERR_FORMAT,
                       "%s: header: %zu tensors are more than the %d that a file may have; split "
                       "the checkpoint into shards",
                       r->path, entries, (int)BG_SAFETENSORS_MAX_TENSORS);
    file->tensors = bg_alloc_array(entries, sizeof *file->tensors);
    if (!file->tensors) return bg_fail_memory(r->err, entries * sizeof(bg_tensor), "tensors");
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            BG_TRY(check_metadata(r, entry));
            file->metadata = json_incref(entry);
        } else {
            BG_TRY(parse_tensor(r, name, entry, &file->tensors[file->count]));
            file->count++;
        }
    }
    qsort(file->tensors, file->count, sizeof *file->tensors, by_place);
    BG_TRY(check_places(r, file->tensors, file->count));
    return keep_names(r, file);
}

/* Other files that are often given, or found, in the place of a safetensors file. */
static const struct {
    const char *start;
    const char *says;
} other_formats[] = {
    {"version https://git-lfs",
     "is a Git LFS pointer, not the file itself; run \"git lfs pull\", or "
     "download the file from its page"},
    {"GGUF", "is a GGUF file, which this version does not read; give the original model"},
    {"\x89HDF", "is an HDF5 file, which this version does not read; convert it with "
                "save_pretrained of the Python package transformers"},
    {"<!DOCTYPE", "is a web page, not a checkpoint; download the file itself"},
    {"<html", "is a web page, not a checkpoint; download the file itself"},
};

static bg_status bad_length(const uint8_t *data, size_t size, const char *path, bg_error *err)
{
    for (size_t i = 0; i < sizeof other_formats / sizeof *other_formats; i++) {
        size_t n = strlen(other_formats[i].start);
        if (size >= n && memcmp(data, other_formats[i].start, n) == 0)
            return bg_fail(err, BG_ERR_UNSUPPORTED, "%s: %s", path, other_formats[i].says);
    }
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: header length at offset 0 is %llu, more than the format's limit of %d; the "
                   "file is damaged, or no safetensors file: download it again",
                   path, (unsigned long long)read_u64(data), (int)BG_SAFETENSORS_MAX_HEADER);
}

bg_status bg_safetensors_parse(const uint8_t *data, size_t size, const char *path,
                               bg_safetensors *out, bg_error *err)
{
    *out = (bg_safetensors){0};
    if (size < 8)
        return bg_fail(err, BG_ERR_FORMAT, "%s: %zu bytes are too few for a checkpoint" AGAIN, path,
                       size);
    uint64_t length = read_u64(data);
    if (length > BG_SAFETENSORS_MAX_HEADER) return bad_length(data, size, path, err);
    if (length > size - 8)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: header length at offset 0 is %llu, but only %zu bytes follow" AGAIN,
                       path, (unsigned long long)length, size - 8);
    reader r = {
        .path = path, .buffer = data + 8 + length, .buffer_size = size - 8 - length, .err = err};
    char where[PATH_MAX + 16];
    json_t *header = NULL;
    snprintf(where, sizeof where, "%s: header", path);
    BG_TRY(bg_json_parse((const char *)data + 8, (size_t)length, where, &header, err));
    bg_status status = read_header(&r, header, out);
    json_decref(header);
    if (status != BG_OK) bg_safetensors_free(out);
    return status;
}

void bg_safetensors_free(bg_safetensors *file)
{
    bg_free(file->tensors);
    bg_free(file->names);
    json_decref(file->metadata);
    *file = (bg_safetensors){0};
}

/* From a pickle's values to tensors: where the dictionary of them is, which lie in the file as they
 * are, and copies of those that do not. */
#include "checkpoint/pytorch.h"

#include "checkpoint/pytorch_container.h"
#include "checkpoint/safetensors.h"
#include "core/alloc.h"
#include "core/checked.h"

#include <string.h>
#include <utf8proc.h>

#define AGAIN "; the file is damaged: download it again"

/* Copies may take as much as the file, and this. A stride of 0 makes a large tensor out of a few
 * bytes: nothing but masks is saved so. */
enum { COPIES_SLACK = 16 * 1024 * 1024 };

typedef struct {
    const char *path;
    size_t size; /* of the file */
    bg_error *err;
    bg_pytorch *out;
    const bg_strided **strided; /* for each tensor: where it comes from */
} builder;

/* ---- where the tensors are ------------------------------------------------------------------- */

static bool has_tensor(const bg_items *dict)
{
    for (size_t i = 0; i + 1 < dict->count; i += 2)
        if (dict->at[i + 1].kind == BG_VALUE_TENSOR) return true;
    return false;
}

static bg_status find_state_dict(const builder *b, const bg_value *root, const bg_items **out)
{
    static const char *const keys[] = {"state_dict", "model", "module"};
    enum { LEVELS = 3 };
    if (root->kind != BG_VALUE_DICT)
        return bg_fail(b->err, BG_ERR_UNSUPPORTED,
                       "%s: holds %s, not a dictionary of tensors; save the model's state_dict() "
                       "with torch.save",
                       b->path, bg_value_kind_names[root->kind]);
    const bg_items *dict = root->items;
    for (int level = 0; level < LEVELS && !has_tensor(dict); level++) {
        const bg_value *inner = NULL;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
            const bg_value *value = bg_dict_find(dict, keys[i]);
            if (!inner && value && value->kind == BG_VALUE_DICT) inner = value;
        }
        if (!inner) break;
        dict = inner->items;
    }
    if (!has_tensor(dict))
        return bg_fail(b->err, BG_ERR_UNSUPPORTED,
                       "%s: there are no tensors in its dictionary, nor under \"state_dict\", "
                       "\"model\" or \"module\" in it; save the model's state_dict() with "
                       "torch.save",
                       b->path);
    *out = dict;
    return BG_OK;
}

/* ---- one tensor ------------------------------------------------------------------------------ */

bg_status bg_storage_place(bg_storage *s, const uint8_t *data, size_t size, const char *path,
                           bg_error *err)
{
    size_t bytes, item = bg_dtypes[s->dtype].size;
    if (!bg_mul_size(s->numel, item, &bytes) || bytes != size)
        return bg_fail(
            err, BG_ERR_FORMAT,
            "%s: storage \"%.*s\" has %zu bytes, but should have %zu elements of %s" AGAIN, path,
            (int)bg_min_size(s->key_size, 64), s->key, size, s->numel, bg_dtypes[s->dtype].name);
    s->data = data + s->view_offset * item;
    s->bytes = s->view_numel * item;
    return BG_OK;
}

static bg_status refuse(const builder *b, const bg_tensor *t, const char *what)
{
    return bg_fail(b->err, BG_ERR_FORMAT, "%s: tensor \"%.200s\": %s" AGAIN, b->path, t->name,
                   what);
}

/* Shape and type; and checks that every element lies in the storage. */
static bg_status measure(const builder *b, const bg_strided *s, bg_tensor *t)
{
    const size_t item = bg_dtypes[s->dtype].size;
    size_t bytes = item, last = s->offset;
    bool overflow = false, empty = false;
    t->dtype = s->dtype;
    t->rank = s->rank;
    for (int i = 0; i < s->rank; i++) {
        t->shape[i] = (int64_t)s->shape[i];
        empty |= s->shape[i] == 0;
        overflow |= !bg_mul_size(bytes, s->shape[i], &bytes);
    }
    if (overflow) return refuse(b, t, "its shape overflows: it takes 2^64 bytes or more");
    t->bytes = bytes;
    if (empty) return BG_OK;
    for (int i = 0; i < s->rank; i++) {
        size_t reach;
        if (!bg_mul_size(s->shape[i] - 1, s->strides[i], &reach) ||
            !bg_add_size(last, reach, &last))
            return refuse(b, t, "its strides overflow");
    }
    if (last >= s->storage->bytes / item)
        return bg_fail(b->err, BG_ERR_FORMAT,
                       "%s: tensor \"%.200s\": reaches element %zu of a storage of %zu" AGAIN,
                       b->path, t->name, last, s->storage->bytes / item);
    return BG_OK;
}

static bool in_order(const bg_strided *s)
{
    size_t stride = 1;
    for (int i = s->rank - 1; i >= 0; i--) {
        if (s->shape[i] == 0) return true;
        if (s->shape[i] != 1 && s->strides[i] != stride) return false;
        stride *= s->shape[i];
    }
    return true;
}

/* Writes the elements one after the other; the last dimension runs fastest. */
static void copy_in_order(const bg_strided *s, size_t bytes, uint8_t *to)
{
    const size_t item = bg_dtypes[s->dtype].size;
    size_t at[BG_MAX_RANK] = {0}, element = s->offset;
    for (size_t done = 0; done < bytes; done += item) {
        memcpy(to + done, s->storage->data + element * item, item);
        for (int i = s->rank - 1; i >= 0; i--) {
            element += s->strides[i];
            if (++at[i] < s->shape[i]) break;
            element -= s->shape[i] * s->strides[i];
            at[i] = 0;
        }
    }
}

/* ---- all tensors ----------------------------------------------------------------------------- */

/* A C string of valid UTF-8, copied to *at, which moves on. */
static bg_status keep_name(const builder *b, const bg_value *key, char **at, bg_tensor *t)
{
    if (key->kind != BG_VALUE_STRING)
        return bg_fail(b->err, BG_ERR_FORMAT, "%s: a tensor's name is %s, not a string" AGAIN,
                       b->path, bg_value_kind_names[key->kind]);
    memcpy(*at, key->text, key->size);
    (*at)[key->size] = '\0';
    t->name = *at;
    *at += key->size + 1;
    if (strlen(t->name) != key->size) return refuse(b, t, "there is a NUL character in its name");
    for (size_t i = 0; i < key->size;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)t->name + i,
                                              (utf8proc_ssize_t)(key->size - i), &c);
        if (n <= 0) return refuse(b, t, "its name is no UTF-8");
        i += (size_t)n;
    }
    return BG_OK;
}

static bg_status list_tensors(builder *b, const bg_items *dict)
{
    size_t names = 0, n = 0;
    for (size_t i = 0; i + 1 < dict->count; i += 2) {
        if (dict->at[i + 1].kind != BG_VALUE_TENSOR) continue;
        n++;
        if (dict->at[i].kind == BG_VALUE_STRING) names += (size_t)dict->at[i].size + 1;
    }
    if (n > BG_SAFETENSORS_MAX_TENSORS)
        return bg_fail(b->err, BG_ERR_UNSUPPORTED,
                       "%s: %zu tensors are more than the %d that a file may have; split the "
                       "checkpoint into shards",
                       b->path, n, (int)BG_SAFETENSORS_MAX_TENSORS);
    b->out->tensors = bg_calloc(n, sizeof *b->out->tensors);
    b->out->names = bg_alloc(names);
    b->strided = bg_alloc_array(n, sizeof *b->strided);
    if (!b->out->tensors || !b->out->names || !b->strided)
        return bg_fail_memory(b->err, n * sizeof *b->out->tensors + names, "tensors");
    char *at = b->out->names;
    for (size_t i = 0; i + 1 < dict->count; i += 2) {
        if (dict->at[i + 1].kind != BG_VALUE_TENSOR) continue;
        bg_tensor *t = &b->out->tensors[b->out->count];
        const bg_strided *s = dict->at[i + 1].tensor;
        t->file = b->path;
        BG_TRY(keep_name(b, &dict->at[i], &at, t));
        BG_TRY(measure(b, s, t));
        b->strided[b->out->count++] = s;
    }
    return BG_OK;
}

static bg_status place_tensors(builder *b)
{
    enum { ALIGNMENT = 16 };
    bg_pytorch *out = b->out;
    const size_t limit = b->size + COPIES_SLACK;
    size_t total = 0, at = 0;
    for (size_t i = 0; i < out->count; i++) {
        bg_tensor *t = &out->tensors[i];
        const bg_strided *s = b->strided[i];
        if (t->bytes == 0) {
            t->data = s->storage->data;
        } else if (in_order(s)) {
            t->data = s->storage->data + s->offset * bg_dtypes[s->dtype].size;
        } else if (t->bytes > limit - total) {
            return bg_fail(b->err, BG_ERR_UNSUPPORTED,
                           "%s: tensor \"%.200s\": its elements are not in order, and a copy in "
                           "order takes %zu bytes, with others of its kind more than the file; "
                           "call contiguous() on it before it is saved",
                           b->path, t->name, t->bytes);
        } else {
            total += t->bytes;
        }
    }
    if (!total) return BG_OK;
    total += out->count * ALIGNMENT; /* each copy is aligned */
    out->copies = bg_alloc_aligned(total);
    if (!out->copies)
        return bg_fail_memory(b->err, total, "tensors whose elements are not in order");
    out->copies_size = total;
    for (size_t i = 0; i < out->count; i++) {
        bg_tensor *t = &out->tensors[i];
        if (t->data) continue;
        t->data = (uint8_t *)out->copies + at;
        copy_in_order(b->strided[i], t->bytes, (uint8_t *)out->copies + at);
        at += (t->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    return BG_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* A safetensors file begins with its header's length, which may spell these beginnings; but they
 * are not followed by zeros in files of the other formats. */
static bool is_header_length(const uint8_t *data)
{
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | data[i];
    return length <= BG_SAFETENSORS_MAX_HEADER;
}

/* Of a zip archive they may be, where no flag is set; then '{' would be its first entry's method of
 * compression. */
static bool is_zip(const uint8_t *data, size_t size)
{
    return size >= 9 && memcmp(data, "PK\3\4", 4) == 0 &&
           (!is_header_length(data) || data[8] != '{');
}

static bool is_pickle(const uint8_t *data, size_t size)
{
    return size >= 8 && data[0] == 0x80 && data[1] >= 2 && data[1] <= 5 && !is_header_length(data);
}

/* The first format of all, last written in 2017. */
static bool is_tar(const uint8_t *data, size_t size)
{
    return size >= 512 && memcmp(data + 257, "ustar", 5) == 0 && !is_header_length(data);
}

bool bg_pytorch_detect(const uint8_t *data, size_t size)
{
    return is_zip(data, size) || is_pickle(data, size) || is_tar(data, size);
}

bg_status bg_pytorch_parse(const uint8_t *data, size_t size, const char *path, bg_pytorch *out,
                           bg_error *err)
{
    builder b = {.path = path, .size = size, .err = err, .out = out};
    bg_pickle pickle;
    const bg_items *dict = NULL;
    *out = (bg_pytorch){0};
    if (is_tar(data, size))
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: is a tar archive, the format of PyTorch before 0.1.10; load it with "
                       "torch.load and save it again",
                       path);
    BG_TRY((is_zip(data, size) ? bg_pytorch_load_zip : bg_pytorch_load_legacy)(data, size, path,
                                                                               &pickle, err));
    bg_status status = find_state_dict(&b, &pickle.root, &dict);
    if (status == BG_OK) status = list_tensors(&b, dict);
    if (status == BG_OK) status = place_tensors(&b);
    bg_free(b.strided);
    bg_pickle_free(&pickle);
    if (status != BG_OK) bg_pytorch_free(out);
    return status;
}

void bg_pytorch_free(bg_pytorch *file)
{
    bg_free(file->tensors);
    bg_free(file->names);
    bg_free_aligned(file->copies, file->copies_size);
    *file = (bg_pytorch){0};
}

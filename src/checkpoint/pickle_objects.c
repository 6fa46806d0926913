#include "checkpoint/pickle_objects.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define AGAIN "; the file is damaged: download it again"

/* ---- errors ---------------------------------------------------------------------------------- */

bg_status bg_pickle_refuse(const bg_pickle_place *place, bg_status status, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return bg_fail(place->err, status, "%s: pickle, byte %zu: %s", place->where, place->at, what);
}

const char *const bg_value_kind_names[BG_VALUE_KIND_COUNT] = {
    [BG_VALUE_NONE] = "None",
    [BG_VALUE_BOOL] = "a truth value",
    [BG_VALUE_INT] = "an integer",
    [BG_VALUE_BIG_INT] = "an integer of more than 64 bits",
    [BG_VALUE_FLOAT] = "a floating-point number",
    [BG_VALUE_STRING] = "a string",
    [BG_VALUE_TUPLE] = "a tuple",
    [BG_VALUE_LIST] = "a list",
    [BG_VALUE_DICT] = "a dictionary",
    [BG_VALUE_GLOBAL] = "a class or function",
    [BG_VALUE_STORAGE] = "a storage",
    [BG_VALUE_TENSOR] = "a tensor",
};

/* ---- memory ---------------------------------------------------------------------------------- */

bg_status bg_pickle_alloc(const bg_pickle_place *place, size_t bytes, void *out)
{
    void *memory;
    place->pickle->pool.limit = BG_PICKLE_MAX_MEMORY;
    BG_TRY(bg_pool_alloc(&place->pickle->pool, bytes, 1, place->where, &memory, place->err));
    memcpy(out, &memory, sizeof memory);
    return BG_OK;
}

void bg_pickle_free(bg_pickle *pickle)
{
    bg_pool_free(&pickle->pool);
    *pickle = (bg_pickle){0};
}

bg_status bg_pickle_extend(const bg_pickle_place *place, bg_items *items, const bg_value *values,
                           size_t n)
{
    if (n > items->capacity - items->count) {
        size_t capacity = items->count + bg_max_size(n, items->count);
        bg_value *at = NULL;
        BG_TRY(bg_pickle_alloc(place, capacity * sizeof *at, &at));
        if (items->count) memcpy(at, items->at, items->count * sizeof *at);
        items->at = at;
        items->capacity = capacity;
    }
    if (n) memcpy(items->at + items->count, values, n * sizeof *values);
    items->count += n;
    return BG_OK;
}

bg_status bg_pickle_items(const bg_pickle_place *place, bg_value_kind kind, const bg_value *values,
                          size_t n, bg_value *out)
{
    bg_items *items = NULL;
    BG_TRY(bg_pickle_alloc(place, sizeof *items, &items));
    *out = (bg_value){.kind = kind, .items = items};
    return bg_pickle_extend(place, items, values, n);
}

bool bg_value_is(const bg_value *value, const char *text)
{
    return value->kind == BG_VALUE_STRING && value->size == strlen(text) &&
           memcmp(value->text, text, value->size) == 0;
}

const bg_value *bg_dict_find(const bg_items *dict, const char *key)
{
    for (size_t i = dict->count; i >= 2; i -= 2)
        if (bg_value_is(&dict->at[i - 2], key)) return &dict->at[i - 1];
    return NULL;
}

/* ---- the names ------------------------------------------------------------------------------- */

typedef bg_status call_fn(const bg_pickle_place *place, const bg_global *global,
                          const bg_items *arguments, bg_value *out);
static call_fn call_ordered_dict, call_size, rebuild_tensor, rebuild_parameter;

/* One thing a pickle may name. A name that is no function is a type: of a storage's elements, or of
 * a tensor's. */
struct bg_global {
    const char *module, *name;
    call_fn *call;
    size_t min_arguments, max_arguments; /* of a function */
    bool storage, untyped;
    bg_dtype dtype;
};

static const bg_global globals[] = {
    {"collections", "OrderedDict", call_ordered_dict, 0, 1, false, false, 0},
    {"torch", "Size", call_size, 1, 1, false, false, 0},
    /* (storage, offset, size, stride) and what training wants; v3 has the element type as well */
    {"torch._utils", "_rebuild_tensor", rebuild_tensor, 4, 4, false, false, 0},
    {"torch._utils", "_rebuild_tensor_v2", rebuild_tensor, 6, 7, false, false, 0},
    {"torch._utils", "_rebuild_tensor_v3", rebuild_tensor, 7, 8, false, true, 0},
    {"torch._utils", "_rebuild_parameter", rebuild_parameter, 3, 3, false, false, 0},
#define STORAGE(name, type)                                                                        \
    {                                                                                              \
        "torch", name, NULL, 0, 0, true, false, type                                               \
    }
    STORAGE("DoubleStorage", BG_F64),
    STORAGE("FloatStorage", BG_F32),
    STORAGE("HalfStorage", BG_F16),
    STORAGE("BFloat16Storage", BG_BF16),
    STORAGE("LongStorage", BG_I64),
    STORAGE("IntStorage", BG_I32),
    STORAGE("ShortStorage", BG_I16),
    STORAGE("CharStorage", BG_I8),
    STORAGE("ByteStorage", BG_U8),
    STORAGE("BoolStorage", BG_BOOL),
    {"torch.storage", "UntypedStorage", NULL, 0, 0, true, true, BG_U8},
#define TYPE(name, type)                                                                           \
    {                                                                                              \
        "torch", name, NULL, 0, 0, false, false, type                                              \
    }
    TYPE("float64", BG_F64),
    TYPE("float32", BG_F32),
    TYPE("float16", BG_F16),
    TYPE("bfloat16", BG_BF16),
    TYPE("int64", BG_I64),
    TYPE("int32", BG_I32),
    TYPE("int16", BG_I16),
    TYPE("int8", BG_I8),
    TYPE("uint8", BG_U8),
    TYPE("bool", BG_BOOL),
};

static bool same(const char *text, const char *p, size_t n)
{
    return strlen(text) == n && memcmp(text, p, n) == 0;
}

bg_status bg_pickle_global(const bg_pickle_place *place, const char *module, size_t module_size,
                           const char *name, size_t name_size, bg_value *out)
{
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++) {
        if (same(globals[i].module, module, module_size) &&
            same(globals[i].name, name, name_size)) {
            *out = (bg_value){.kind = BG_VALUE_GLOBAL, .global = &globals[i]};
            return BG_OK;
        }
    }
    return bg_pickle_refuse(place, BG_ERR_UNSUPPORTED,
                            "asks for the Python object \"%.*s.%.*s\", but only tensors of common "
                            "types and plain containers are read, and no code of a file is ever "
                            "run; save the model's state_dict() alone, or as safetensors",
                            (int)bg_min_size(module_size, 100), module,
                            (int)bg_min_size(name_size, 100), name);
}

/* ---- calls ----------------------------------------------------------------------------------- */

bg_status bg_pickle_call(const bg_pickle_place *place, const bg_value *function,
                         const bg_value *arguments, bg_value *out)
{
    if (function->kind != BG_VALUE_GLOBAL || arguments->kind != BG_VALUE_TUPLE)
        return bg_pickle_refuse(place, BG_ERR_FORMAT, "calls %s with %s" AGAIN,
                                bg_value_kind_names[function->kind],
                                bg_value_kind_names[arguments->kind]);
    const bg_global *g = function->global;
    size_t n = arguments->items->count;
    if (!g->call)
        return bg_pickle_refuse(place, BG_ERR_UNSUPPORTED,
                                "calls %s.%s, which is only known as a type; save the model's "
                                "state_dict() alone",
                                g->module, g->name);
    if (n < g->min_arguments || n > g->max_arguments)
        return bg_pickle_refuse(place, BG_ERR_FORMAT, "%s.%s has %zu arguments" AGAIN, g->module,
                                g->name, n);
    return g->call(place, g, arguments->items, out);
}

static bg_status wrong(const bg_pickle_place *place, const bg_global *g, const char *what,
                       const bg_value *value)
{
    return bg_pickle_refuse(place, BG_ERR_FORMAT, "%s.%s: %s cannot be %s" AGAIN, g->module,
                            g->name, what, bg_value_kind_names[value->kind]);
}

/* Python 2 gives a list of pairs; Python 3 nothing, and sets the items one by one. */
static bg_status call_ordered_dict(const bg_pickle_place *place, const bg_global *g,
                                   const bg_items *arguments, bg_value *out)
{
    BG_TRY(bg_pickle_items(place, BG_VALUE_DICT, NULL, 0, out));
    if (arguments->count == 0) return BG_OK;
    const bg_value *list = &arguments->at[0];
    if (list->kind != BG_VALUE_LIST) return wrong(place, g, "its argument", list);
    for (size_t i = 0; i < list->items->count; i++) {
        const bg_value *pair = &list->items->at[i];
        if ((pair->kind != BG_VALUE_LIST && pair->kind != BG_VALUE_TUPLE) ||
            pair->items->count != 2)
            return wrong(place, g, "an item", pair);
        BG_TRY(bg_pickle_extend(place, out->items, pair->items->at, 2));
    }
    return BG_OK;
}

static bg_status call_size(const bg_pickle_place *place, const bg_global *g,
                           const bg_items *arguments, bg_value *out)
{
    if (arguments->at[0].kind != BG_VALUE_TUPLE)
        return wrong(place, g, "its argument", &arguments->at[0]);
    *out = arguments->at[0];
    return BG_OK;
}

static bg_status read_count(const bg_pickle_place *place, const bg_global *g, const char *what,
                            const bg_value *value, size_t *out)
{
    if (value->kind != BG_VALUE_INT) return wrong(place, g, what, value);
    if (value->integer < 0)
        return bg_pickle_refuse(place, BG_ERR_FORMAT,
                                "%s.%s: %s is %lld, but cannot be negative" AGAIN, g->module,
                                g->name, what, (long long)value->integer);
    *out = (size_t)value->integer;
    return BG_OK;
}

static bg_status rebuild_tensor(const bg_pickle_place *place, const bg_global *g,
                                const bg_items *arguments, bg_value *out)
{
    const bg_value *a = arguments->at;
    bg_strided *t;
    if (a[0].kind != BG_VALUE_STORAGE) return wrong(place, g, "the storage", &a[0]);
    if (a[2].kind != BG_VALUE_TUPLE) return wrong(place, g, "the size", &a[2]);
    if (a[3].kind != BG_VALUE_TUPLE) return wrong(place, g, "the stride", &a[3]);
    size_t rank = a[2].items->count;
    if (rank > BG_MAX_RANK || a[3].items->count != rank)
        return bg_pickle_refuse(place, BG_ERR_FORMAT,
                                "%s.%s: a size of %zu dimensions with %zu strides, where at most "
                                "%d of both are read" AGAIN,
                                g->module, g->name, rank, a[3].items->count, (int)BG_MAX_RANK);
    BG_TRY(bg_pickle_alloc(place, sizeof *t, &t));
    *t = (bg_strided){.storage = a[0].storage, .dtype = a[0].storage->dtype, .rank = (int)rank};
    if (g->untyped) {
        if (a[6].kind != BG_VALUE_GLOBAL || a[6].global->call || a[6].global->storage)
            return wrong(place, g, "the element type", &a[6]);
        t->dtype = a[6].global->dtype;
    }
    BG_TRY(read_count(place, g, "the storage offset", &a[1], &t->offset));
    for (size_t i = 0; i < rank; i++) {
        BG_TRY(read_count(place, g, "a dimension", &a[2].items->at[i], &t->shape[i]));
        BG_TRY(read_count(place, g, "a stride", &a[3].items->at[i], &t->strides[i]));
    }
    *out = (bg_value){.kind = BG_VALUE_TENSOR, .tensor = t};
    return BG_OK;
}

static bg_status rebuild_parameter(const bg_pickle_place *place, const bg_global *g,
                                   const bg_items *arguments, bg_value *out)
{
    if (arguments->at[0].kind != BG_VALUE_TENSOR)
        return wrong(place, g, "its data", &arguments->at[0]);
    *out = arguments->at[0];
    return BG_OK;
}

/* ("storage", type, key, location, numel), in the legacy format with None or (key, offset, numel)
 * of a part behind it. Where the tensor was does not matter. */
bg_status bg_pickle_persistent(const bg_pickle_place *place, const bg_value *id, bg_value *out)
{
    static const bg_global storage = {.module = "torch", .name = "storage"};
    if (id->kind != BG_VALUE_TUPLE || id->items->count < 5 || id->items->count > 6 ||
        !bg_value_is(&id->items->at[0], "storage"))
        return bg_pickle_refuse(place, BG_ERR_UNSUPPORTED,
                                "a persistent id that is no storage; save the model's "
                                "state_dict() alone with torch.save");
    const bg_value *a = id->items->at;
    if (a[1].kind != BG_VALUE_GLOBAL || !a[1].global->storage)
        return wrong(place, &storage, "its type", &a[1]);
    if (a[2].kind != BG_VALUE_STRING) return wrong(place, &storage, "its key", &a[2]);
    bg_storage *s;
    BG_TRY(bg_pickle_alloc(place, sizeof *s, &s));
    *s = (bg_storage){.key = a[2].text, .key_size = a[2].size, .dtype = a[1].global->dtype};
    BG_TRY(read_count(place, &storage, "the number of elements", &a[4], &s->numel));
    s->view_numel = s->numel;
    if (id->items->count == 6 && a[5].kind != BG_VALUE_NONE) {
        if (a[5].kind != BG_VALUE_TUPLE || a[5].items->count != 3)
            return wrong(place, &storage, "its part", &a[5]);
        const bg_value *part = a[5].items->at;
        BG_TRY(read_count(place, &storage, "the offset of a part", &part[1], &s->view_offset));
        BG_TRY(read_count(place, &storage, "the size of a part", &part[2], &s->view_numel));
        if (s->view_offset > s->numel || s->view_numel > s->numel - s->view_offset)
            return bg_pickle_refuse(place, BG_ERR_FORMAT,
                                    "a part of %zu elements at %zu ends behind the storage's "
                                    "%zu" AGAIN,
                                    s->view_numel, s->view_offset, s->numel);
    }
    s->next = place->pickle->storages;
    place->pickle->storages = s;
    *out = (bg_value){.kind = BG_VALUE_STORAGE, .storage = s};
    return BG_OK;
}

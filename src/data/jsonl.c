/* JSON: an object for each line, or an array of objects. Rows may differ in their keys, so each
 * column holds only what is there; the cells between are null. */
#include "core/alloc.h"
#include "core/json.h"
#include "data/reader.h"

#include <string.h>

enum { MAX_KEYS = 2048, MAX_DEPTH = 32 };

/* A key somewhere in the rows: the tree of them is what the rows have been seen to look like. */
typedef struct node {
    struct node *parent;
    const char *key;
    size_t depth; /* the root's, a row itself, is 0 */
    struct node **children;
    size_t n_children, capacity;
    bool filled;  /* it was not hollow at least once */
    size_t *rows; /* (n) where it was there, ascending */
    bg_value *values;
    size_t n, n_capacity;
} node;

typedef struct {
    bg_table *table;
    node *nodes[MAX_KEYS + 1]; /* (n_nodes) in the order of their first appearance; nodes[0] is the
                                  root */
    size_t n_nodes;
    node *columns[MAX_KEYS + 1]; /* (table->n_columns) */
} reader;

/* ---- the tree -------------------------------------------------------------------------------- */

static bg_status add_node(reader *r, node *parent, const char *key, node **out, bg_error *err)
{
    const char *path = r->table->path;
    char *copy;
    if (r->n_nodes > MAX_KEYS || (parent && parent->depth == MAX_DEPTH))
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: its rows have more than %d different keys, or keys nested deeper than "
                       "%d; leave out what is not needed",
                       path, MAX_KEYS, MAX_DEPTH);
    if (parent && parent->n_children == parent->capacity) {
        size_t capacity = parent->capacity ? 2 * parent->capacity : 8;
        node **more = bg_realloc_array(parent->children, capacity, sizeof *more);
        if (!more) return bg_fail_memory(err, capacity * sizeof *more, path);
        parent->children = more;
        parent->capacity = capacity;
    }
    BG_TRY(bg_pool_copy(&r->table->pool, key, strlen(key), path, &copy, err));
    node *n = bg_calloc(1, sizeof *n);
    if (!n) return bg_fail_memory(err, sizeof *n, path);
    n->parent = parent;
    n->key = copy;
    n->depth = parent ? parent->depth + 1 : 0;
    if (parent) parent->children[parent->n_children++] = n;
    r->nodes[r->n_nodes++] = *out = n;
    return BG_OK;
}

/* The child of that key, which is made if it is new. Rows mostly have the same keys in the same
 * order: `expected` is looked at first. */
static bg_status child(reader *r, node *parent, const char *key, size_t expected, node **out,
                       bg_error *err)
{
    if (expected < parent->n_children && strcmp(parent->children[expected]->key, key) == 0) {
        *out = parent->children[expected];
        return BG_OK;
    }
    for (size_t i = 0; i < parent->n_children; i++)
        if (strcmp(parent->children[i]->key, key) == 0) {
            *out = parent->children[i];
            return BG_OK;
        }
    return add_node(r, parent, key, out, err);
}

/* ---- values ---------------------------------------------------------------------------------- */

/* The key on the way from `from` down to `to`, one step below `from`. */
static const node *step(const node *from, const node *to)
{
    while (to->parent != from) to = to->parent;
    return to;
}

/* What `json`, found at node `from`, has at node `to`, which is `from` or below it. An array is a
 * list of what its items have there. */
static bg_status extract(reader *r, const json_t *json, const node *from, const node *to,
                         bg_value *out, bg_error *err)
{
    bg_pool *pool = &r->table->pool;
    const char *where = r->table->path;
    *out = (bg_value){.kind = BG_VALUE_NULL};
    if (json_is_array(json)) {
        void *items;
        size_t n = json_array_size(json);
        BG_TRY(bg_pool_alloc(pool, n, sizeof(bg_value), where, &items, err));
        bg_value *list = items;
        for (size_t i = 0; i < n; i++)
            BG_TRY(extract(r, json_array_get(json, i), from, to, &list[i], err));
        *out = (bg_value){.kind = BG_VALUE_LIST, .size = n, .list = list};
        return BG_OK;
    }
    if (from != to) {
        if (!json_is_object(json)) return BG_OK;
        const node *next = step(from, to);
        return extract(r, json_object_get(json, next->key), next, to, out, err);
    }
    if (json_is_string(json)) {
        char *copy;
        size_t size = json_string_length(json);
        BG_TRY(bg_pool_copy(pool, json_string_value(json), size, where, &copy, err));
        *out = (bg_value){.kind = BG_VALUE_STRING, .size = size, .string = copy};
    } else if (json_is_integer(json)) {
        *out = (bg_value){.kind = BG_VALUE_INT, .integer = json_integer_value(json)};
    } else if (json_is_real(json)) {
        *out = (bg_value){.kind = BG_VALUE_REAL, .real = json_real_value(json)};
    } else if (json_is_boolean(json)) {
        *out = (bg_value){.kind = BG_VALUE_BOOL, .boolean = json_is_true(json)};
    }
    return BG_OK;
}

/* Nulls and lists do not tell whether objects or something else might be in them. */
static bool is_hollow(const bg_value *v)
{
    bool hollow = v->kind == BG_VALUE_NULL || v->kind == BG_VALUE_LIST;
    for (size_t i = 0; hollow && v->kind == BG_VALUE_LIST && i < v->size; i++)
        hollow = is_hollow(&v->list[i]);
    return hollow;
}

/* Puts what `json`, found at node `from`, has at node `to` into this row of to's column. */
static bg_status put(reader *r, const json_t *json, const node *from, node *to, bg_error *err)
{
    const char *where = r->table->path;
    if (to->n == to->n_capacity) {
        size_t capacity = to->n_capacity ? 2 * to->n_capacity : 64;
        size_t *rows = bg_realloc_array(to->rows, capacity, sizeof *rows);
        if (!rows) return bg_fail_memory(err, capacity * sizeof *rows, where);
        to->rows = rows;
        bg_value *values = bg_realloc_array(to->values, capacity, sizeof *values);
        if (!values) return bg_fail_memory(err, capacity * sizeof *values, where);
        to->values = values;
        to->n_capacity = capacity;
    }
    bg_value *v = &to->values[to->n];
    BG_TRY(extract(r, json, from, to, v, err));
    if (!is_hollow(v)) to->filled = true;
    to->rows[to->n++] = r->table->rows - 1;
    return BG_OK;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static bool holds_object(const json_t *json)
{
    if (json_is_object(json)) return true;
    bool found = false;
    for (size_t i = 0; !found && i < json_array_size(json); i++)
        found = holds_object(json_array_get(json, i));
    return found;
}

/* Makes the nodes for the keys of the objects in a list. */
static bg_status learn(reader *r, const json_t *json, node *at, bg_error *err)
{
    const char *key;
    json_t *value;
    size_t i = 0;
    for (size_t k = 0; k < json_array_size(json); k++)
        BG_TRY(learn(r, json_array_get(json, k), at, err));
    json_object_foreach((json_t *)json, key, value)
    {
        node *below;
        BG_TRY(child(r, at, key, i++, &below, err));
        BG_TRY(learn(r, value, below, err));
    }
    return BG_OK;
}

/* Each leaf below a list of objects is a column of lists. */
static bg_status spread(reader *r, const json_t *json, const node *from, node *at, bg_error *err)
{
    if (at->n_children == 0) return put(r, json, from, at, err);
    for (size_t i = 0; i < at->n_children; i++) BG_TRY(spread(r, json, from, at->children[i], err));
    return BG_OK;
}

static bg_status visit(reader *r, const json_t *json, node *at, bg_error *err)
{
    if (json_is_array(json) && holds_object(json)) {
        BG_TRY(learn(r, json, at, err));
        return spread(r, json, at, at, err);
    }
    if (!json_is_object(json)) return put(r, json, at, at, err);
    const char *key;
    json_t *value;
    size_t i = 0;
    json_object_foreach((json_t *)json, key, value)
    {
        node *below;
        BG_TRY(child(r, at, key, i++, &below, err));
        BG_TRY(visit(r, value, below, err));
    }
    return BG_OK;
}

static bg_status add_row(reader *r, json_t *json, size_t start, size_t line, bg_error *err)
{
    if (!json_is_object(json))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s, line %zu: expected an object, {\"column\": value, ...}, for each row",
                       r->table->path, line);
    BG_TRY(bg_table_add_row(r->table, start, err));
    return visit(r, json, r->nodes[0], err);
}

static const char *skip_blanks(const char *at, const char *end, size_t *line)
{
    for (; at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'); at++)
        if (*at == '\n') ++*line;
    return at;
}

static size_t count_lines(const char *from, const char *to)
{
    size_t n = 0;
    while ((from = memchr(from, '\n', (size_t)(to - from)))) {
        n++;
        from++;
    }
    return n;
}

/* The rows from *at on, as long as `separator` is between them (0: a line's end). */
static bg_status read_rows(reader *r, const char **at, const char *end, char separator,
                           size_t *line, bg_error *err)
{
    const bg_table *t = r->table;
    for (;;) {
        const char *from = *at = skip_blanks(*at, end, line), *stop = end;
        if (from == end && !separator) return BG_OK;
        if (!separator) {
            stop = memchr(from, '\n', (size_t)(end - from));
            if (!stop) stop = end;
        }
        json_t *json;
        size_t used;
        BG_TRY(bg_json_parse_next(from, (size_t)(stop - from), t->path, *line, &used, &json, err));
        bg_status status = add_row(r, json, (size_t)(from - t->data), *line, err);
        json_decref(json);
        if (status != BG_OK) return status;
        *line += count_lines(from, from + used);
        *at = skip_blanks(from + used, stop, line);
        if (separator) {
            if (*at == end || **at != separator) return BG_OK;
            ++*at;
        } else if (*at != stop) {
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s, line %zu: something follows the object; write each on a line of "
                           "its own",
                           t->path, *line);
        }
    }
}

static bg_status read_array(reader *r, const char *at, const char *end, size_t *line, bg_error *err)
{
    at = skip_blanks(at + 1, end, line);
    if (at == end || *at != ']') BG_TRY(read_rows(r, &at, end, ',', line, err));
    const char *wanted = "',' or ']'";
    if (at < end && *at == ']') {
        at = skip_blanks(at + 1, end, line);
        if (at == end) return BG_OK;
        wanted = "nothing more";
    }
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s, line %zu: expected %s here; the file is damaged or cut short",
                   r->table->path, *line, wanted);
}

/* ---- the reader ------------------------------------------------------------------------------ */

static size_t path_length(const node *n)
{
    return strlen(n->key) + (n->parent->parent ? path_length(n->parent) + 1 : 0);
}

static bg_status add_column(reader *r, node *n, bg_error *err)
{
    size_t size = path_length(n);
    char *name = bg_alloc(size + 1), *to = name + size;
    if (!name) return bg_fail_memory(err, size + 1, r->table->path);
    for (const node *up = n; up->parent; up = up->parent) {
        size_t length = strlen(up->key);
        if (up != n) *--to = '.';
        to = memcpy(to - length, up->key, length);
    }
    r->columns[r->table->n_columns] = n;
    bg_status status = bg_table_add_column(r->table, name, size, err);
    bg_free(name);
    return status;
}

static bg_status open_json(bg_table *t, bg_error *err)
{
    reader *r = t->state = bg_calloc(1, sizeof *r);
    node *root;
    if (!r) return bg_fail_memory(err, sizeof *r, t->path);
    r->table = t;
    BG_TRY(add_node(r, NULL, "", &root, err));
    size_t line = 1;
    const char *end = t->data + t->size, *at = skip_blanks(t->data, end, &line);
    if (at < end && *at == '[')
        BG_TRY(read_array(r, at, end, &line, err));
    else
        BG_TRY(read_rows(r, &at, end, 0, &line, err));
    for (size_t i = 1; i < r->n_nodes; i++)
        if (r->nodes[i]->filled || !r->nodes[i]->n_children)
            BG_TRY(add_column(r, r->nodes[i], err));
    return BG_OK;
}

static bg_status load_json(bg_table *t, size_t column, bg_value *cells, bg_error *err)
{
    (void)err;
    const reader *r = t->state;
    const node *n = r->columns[column];
    /* A hollow list where other rows have a list of objects is one of no objects, or of nulls: it
     * stands for each of their keys. */
    for (const node *up = n->parent; up; up = up->parent)
        for (size_t i = 0; i < up->n; i++)
            if (is_hollow(&up->values[i])) cells[up->rows[i]] = up->values[i];
    for (size_t i = 0; i < n->n; i++) cells[n->rows[i]] = n->values[i];
    return BG_OK;
}

static void close_json(bg_table *t)
{
    reader *r = t->state;
    if (!r) return;
    for (size_t i = 0; i < r->n_nodes; i++) {
        bg_free(r->nodes[i]->children);
        bg_free(r->nodes[i]->rows);
        bg_free(r->nodes[i]->values);
        bg_free(r->nodes[i]);
    }
    bg_free(r);
}

const bg_reader bg_reader_json = {open_json, load_json, close_json};

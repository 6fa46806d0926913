/* The pickle machine: a stack of values, marks on it, and a memo. */
#include "checkpoint/pickle.h"

#include "checkpoint/pickle_objects.h"
#include "core/alloc.h"
#include "core/checked.h"

#include <string.h>

#define AGAIN "; the file is damaged or cut short: download it again"

typedef struct {
    const uint8_t *data;
    size_t size, at; /* at: behind the bytes read so far */
    bg_pickle_place place;
    bg_value *stack;
    size_t depth, stack_capacity;
    size_t marks[BG_PICKLE_MAX_DEPTH]; /* heights of the stack */
    size_t n_marks;
    bg_value *memo; /* kind BG_VALUE_KIND_COUNT: nothing there */
    size_t memo_capacity, n_puts;
    bool stopped;
} machine;

/* ---- bytes, stack, memo ---------------------------------------------------------------------- */

static bg_status refuse(const machine *m, const char *what)
{
    return bg_pickle_refuse(&m->place, BG_ERR_FORMAT, "%s" AGAIN, what);
}

static bg_status take(machine *m, uint64_t n, const uint8_t **out)
{
    if (n > m->size - m->at)
        return bg_pickle_refuse(&m->place, BG_ERR_FORMAT,
                                "an argument of %llu bytes, where %zu are left" AGAIN,
                                (unsigned long long)n, m->size - m->at);
    *out = m->data + m->at;
    m->at += (size_t)n;
    return BG_OK;
}

/* A little-endian unsigned number. */
static bg_status take_number(machine *m, int bytes, uint64_t *out)
{
    const uint8_t *p = NULL;
    BG_TRY(take(m, (uint64_t)bytes, &p));
    *out = 0;
    for (int i = bytes - 1; i >= 0; i--) *out = *out << 8 | p[i];
    return BG_OK;
}

static bg_status grow_stack(machine *m)
{
    if (m->depth == BG_PICKLE_MAX_STACK)
        return bg_pickle_refuse(&m->place, BG_ERR_UNSUPPORTED,
                                "more than %d values on the stack; split the checkpoint into "
                                "shards",
                                (int)BG_PICKLE_MAX_STACK);
    size_t capacity = bg_max_size(256, 2 * m->stack_capacity);
    bg_value *stack = bg_realloc_array(m->stack, capacity, sizeof *stack);
    if (!stack) return bg_fail_memory(m->place.err, capacity * sizeof *stack, "a pickle's stack");
    m->stack = stack;
    m->stack_capacity = capacity;
    return BG_OK;
}

static bg_status push(machine *m, bg_value value)
{
    if (m->depth == m->stack_capacity) BG_TRY(grow_stack(m));
    m->stack[m->depth++] = value;
    return BG_OK;
}

/* The lowest height down to which values may be taken: a mark is not passed by accident. */
static size_t base(const machine *m)
{
    return m->n_marks ? m->marks[m->n_marks - 1] : 0;
}

/* The uppermost n values, in *out; they stay until m->depth is lowered. */
static bg_status top(machine *m, size_t n, bg_value **out)
{
    if (m->depth - base(m) < n) return refuse(m, "takes a value from an empty stack");
    *out = m->stack + m->depth - n;
    return BG_OK;
}

/* The values above the last mark, which is taken away. */
static bg_status to_mark(machine *m, bg_value **values, size_t *n)
{
    if (!m->n_marks) return refuse(m, "goes back to a mark that is not there");
    size_t mark = m->marks[--m->n_marks];
    *values = m->stack + mark;
    *n = m->depth - mark;
    m->depth = mark;
    return BG_OK;
}

/* Replaces the uppermost n values by one. */
static bg_status replace(machine *m, size_t n, bg_value value)
{
    m->depth -= n;
    return push(m, value);
}

/* Picklers number the memo's places one after the other, from 0 or 1. */
static bg_status put(machine *m, uint64_t index)
{
    enum { SLACK = 1024 };
    bg_value *value = NULL;
    BG_TRY(top(m, 1, &value));
    if (index > m->n_puts + SLACK)
        return bg_pickle_refuse(&m->place, BG_ERR_FORMAT,
                                "memo place %llu, where %zu are in use" AGAIN,
                                (unsigned long long)index, m->n_puts);
    if (index >= m->memo_capacity) {
        size_t capacity = bg_max_size((size_t)index + SLACK, 2 * m->memo_capacity);
        bg_value *memo = bg_realloc_array(m->memo, capacity, sizeof *memo);
        if (!memo) return bg_fail_memory(m->place.err, capacity * sizeof *memo, "a pickle's memo");
        for (size_t i = m->memo_capacity; i < capacity; i++)
            memo[i] = (bg_value){.kind = BG_VALUE_KIND_COUNT};
        m->memo = memo;
        m->memo_capacity = capacity;
    }
    m->memo[index] = *value;
    m->n_puts++;
    return BG_OK;
}

static bg_status get(machine *m, uint64_t index)
{
    if (index >= m->memo_capacity || m->memo[index].kind == BG_VALUE_KIND_COUNT)
        return bg_pickle_refuse(&m->place, BG_ERR_FORMAT, "nothing is at memo place %llu" AGAIN,
                                (unsigned long long)index);
    return push(m, m->memo[index]);
}

/* ---- opcodes: `argument` is the row's number in the table below ------------------------------ */

static bg_status op_proto(machine *m, int argument)
{
    uint64_t protocol;
    (void)argument;
    BG_TRY(take_number(m, 1, &protocol));
    if (protocol < 2 || protocol > 5)
        return bg_pickle_refuse(&m->place, BG_ERR_UNSUPPORTED,
                                "protocol %llu, where 2 to 5 are read; save the checkpoint again "
                                "with torch.save",
                                (unsigned long long)protocol);
    return BG_OK;
}

/* A frame only says how much could be read at once. */
static bg_status op_frame(machine *m, int argument)
{
    uint64_t length;
    BG_TRY(take_number(m, argument, &length));
    return length <= m->size - m->at ? BG_OK : refuse(m, "a frame is longer than the pickle");
}

static bg_status op_stop(machine *m, int argument)
{
    bg_value *value;
    (void)argument;
    BG_TRY(top(m, 1, &value));
    if (m->depth != 1 || m->n_marks) return refuse(m, "ends with values left over");
    m->stopped = true;
    return BG_OK;
}

static bg_status op_mark(machine *m, int argument)
{
    (void)argument;
    if (m->n_marks == BG_PICKLE_MAX_DEPTH)
        return bg_pickle_refuse(&m->place, BG_ERR_UNSUPPORTED,
                                "containers are nested more than %d deep; save the model's "
                                "state_dict() alone",
                                (int)BG_PICKLE_MAX_DEPTH);
    m->marks[m->n_marks++] = m->depth;
    return BG_OK;
}

static bg_status op_pop(machine *m, int argument)
{
    bg_value *value;
    if (m->n_marks && m->depth == base(m)) {
        m->n_marks--; /* as Python does */
        return BG_OK;
    }
    BG_TRY(top(m, 1, &value));
    m->depth -= (size_t)argument;
    return BG_OK;
}

static bg_status op_pop_mark(machine *m, int argument)
{
    bg_value *values = NULL;
    size_t n = 0;
    (void)argument;
    return to_mark(m, &values, &n);
}

static bg_status op_none(machine *m, int argument)
{
    (void)argument;
    return push(m, (bg_value){.kind = BG_VALUE_NONE});
}

static bg_status op_bool(machine *m, int argument)
{
    return push(m, (bg_value){.kind = BG_VALUE_BOOL, .integer = argument});
}

/* Four bytes are signed, fewer are not. */
static bg_status op_int(machine *m, int argument)
{
    uint64_t n = 0;
    BG_TRY(take_number(m, argument, &n));
    int64_t value = argument == 4 ? (int32_t)(uint32_t)n : (int64_t)n;
    return push(m, (bg_value){.kind = BG_VALUE_INT, .integer = value});
}

/* A two's complement number of any length, little-endian. */
static bg_status op_long(machine *m, int argument)
{
    uint64_t n = 0;
    const uint8_t *p = NULL;
    BG_TRY(take_number(m, argument, &n));
    BG_TRY(take(m, n, &p));
    if (n > 8)
        return push(
            m, (bg_value){.kind = BG_VALUE_BIG_INT, .size = (uint32_t)n, .text = (const char *)p});
    uint64_t value = n && p[n - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = n; i-- > 0;) value = value << 8 | p[i];
    return push(m, (bg_value){.kind = BG_VALUE_INT, .integer = (int64_t)value});
}

static bg_status op_float(machine *m, int argument)
{
    const uint8_t *p = NULL;
    uint64_t bits = 0;
    BG_TRY(take(m, (uint64_t)argument, &p));
    for (int i = 0; i < argument; i++) bits = bits << 8 | p[i]; /* big-endian, alone of all */
    bg_value value = {.kind = BG_VALUE_FLOAT};
    memcpy(&value.real, &bits, sizeof value.real);
    return push(m, value);
}

static bg_status op_string(machine *m, int argument)
{
    uint64_t n = 0;
    const uint8_t *p = NULL;
    BG_TRY(take_number(m, argument, &n));
    if (n > UINT32_MAX) return refuse(m, "a string of 4 GiB or more");
    BG_TRY(take(m, n, &p));
    return push(m,
                (bg_value){.kind = BG_VALUE_STRING, .size = (uint32_t)n, .text = (const char *)p});
}

static bg_status op_empty(machine *m, int argument)
{
    bg_value value = {0};
    BG_TRY(bg_pickle_items(&m->place, (bg_value_kind)argument, NULL, 0, &value));
    return push(m, value);
}

static bg_status op_tuple(machine *m, int argument)
{
    bg_value *values = NULL, value = {0};
    BG_TRY(top(m, (size_t)argument, &values));
    BG_TRY(bg_pickle_items(&m->place, BG_VALUE_TUPLE, values, (size_t)argument, &value));
    return replace(m, (size_t)argument, value);
}

static bg_status op_tuple_to_mark(machine *m, int argument)
{
    bg_value *values = NULL, value = {0};
    size_t n = 0;
    (void)argument;
    BG_TRY(to_mark(m, &values, &n));
    BG_TRY(bg_pickle_items(&m->place, BG_VALUE_TUPLE, values, n, &value));
    return push(m, value);
}

/* Puts n values into the container on top of the stack, which values lie above. */
static bg_status extend(machine *m, bg_value_kind kind, const bg_value *values, size_t n)
{
    bg_value *container = NULL;
    BG_TRY(top(m, 1, &container));
    if (container->kind != kind)
        return bg_pickle_refuse(&m->place, BG_ERR_FORMAT, "puts items into %s" AGAIN,
                                bg_value_kind_names[container->kind]);
    if (kind == BG_VALUE_DICT && n % 2) return refuse(m, "a dictionary's key has no value");
    return bg_pickle_extend(&m->place, container->items, values, n);
}

static bg_status op_append(machine *m, int argument)
{
    const size_t n = argument == BG_VALUE_DICT ? 2 : 1;
    bg_value *values = NULL;
    BG_TRY(top(m, n + 1, &values));
    m->depth -= n;
    return extend(m, (bg_value_kind)argument, values + 1, n);
}

static bg_status op_append_to_mark(machine *m, int argument)
{
    bg_value *values = NULL;
    size_t n = 0;
    BG_TRY(to_mark(m, &values, &n));
    return extend(m, (bg_value_kind)argument, values, n);
}

/* Two lines: a module and a name in it. */
static bg_status op_global(machine *m, int argument)
{
    const char *text[2];
    size_t sizes[2];
    bg_value value = {0};
    (void)argument;
    for (int i = 0; i < 2; i++) {
        text[i] = (const char *)m->data + m->at;
        const char *end = memchr(text[i], '\n', m->size - m->at);
        if (!end) return refuse(m, "a name does not end");
        sizes[i] = (size_t)(end - text[i]);
        m->at += sizes[i] + 1;
    }
    BG_TRY(bg_pickle_global(&m->place, text[0], sizes[0], text[1], sizes[1], &value));
    return push(m, value);
}

static bg_status op_stack_global(machine *m, int argument)
{
    bg_value *v = NULL, value = {0};
    (void)argument;
    BG_TRY(top(m, 2, &v));
    if (v[0].kind != BG_VALUE_STRING || v[1].kind != BG_VALUE_STRING)
        return refuse(m, "a module or name is no string");
    BG_TRY(bg_pickle_global(&m->place, v[0].text, v[0].size, v[1].text, v[1].size, &value));
    return replace(m, 2, value);
}

static bg_status op_reduce(machine *m, int argument)
{
    bg_value *v = NULL, value = {0};
    (void)argument;
    BG_TRY(top(m, 2, &v));
    BG_TRY(bg_pickle_call(&m->place, &v[0], &v[1], &value));
    return replace(m, 2, value);
}

/* Attributes of an object. An OrderedDict has some when it is a state_dict ("_metadata", the
 * version of each layer); they are not needed. */
static bg_status op_build(machine *m, int argument)
{
    bg_value *v = NULL;
    (void)argument;
    BG_TRY(top(m, 2, &v));
    if (v[0].kind != BG_VALUE_DICT || v[1].kind != BG_VALUE_DICT)
        return bg_pickle_refuse(&m->place, BG_ERR_UNSUPPORTED,
                                "sets the state of %s; save the model's state_dict() alone",
                                bg_value_kind_names[v[0].kind]);
    m->depth--;
    return BG_OK;
}

static bg_status op_persistent(machine *m, int argument)
{
    bg_value *v = NULL, value = {0};
    (void)argument;
    BG_TRY(top(m, 1, &v));
    BG_TRY(bg_pickle_persistent(&m->place, v, &value));
    return replace(m, 1, value);
}

static bg_status op_put(machine *m, int argument)
{
    uint64_t index;
    BG_TRY(take_number(m, argument, &index));
    return put(m, index);
}

static bg_status op_get(machine *m, int argument)
{
    uint64_t index;
    BG_TRY(take_number(m, argument, &index));
    return get(m, index);
}

static bg_status op_memoize(machine *m, int argument)
{
    (void)argument;
    return put(m, m->n_puts);
}

/* All of pickle's opcodes; those without a function are known by name alone. */
static const struct {
    const char *name;
    bg_status (*run)(machine *m, int argument);
    int argument;
} opcodes[256] = {
    [0x80] = {"PROTO", op_proto, 0},
    [0x95] = {"FRAME", op_frame, 8},
    ['.'] = {"STOP", op_stop, 0},
    ['('] = {"MARK", op_mark, 0},
    ['0'] = {"POP", op_pop, 1},
    ['1'] = {"POP_MARK", op_pop_mark, 0},
    ['2'] = {"DUP", NULL, 0},
    /* plain values */
    ['N'] = {"NONE", op_none, 0},
    [0x88] = {"NEWTRUE", op_bool, 1},
    [0x89] = {"NEWFALSE", op_bool, 0},
    ['K'] = {"BININT1", op_int, 1},
    ['M'] = {"BININT2", op_int, 2},
    ['J'] = {"BININT", op_int, 4},
    [0x8a] = {"LONG1", op_long, 1},
    [0x8b] = {"LONG4", op_long, 4},
    ['G'] = {"BINFLOAT", op_float, 8},
    ['U'] = {"SHORT_BINSTRING", op_string, 1}, /* Python 2's */
    ['T'] = {"BINSTRING", op_string, 4},
    [0x8c] = {"SHORT_BINUNICODE", op_string, 1},
    ['X'] = {"BINUNICODE", op_string, 4},
    [0x8d] = {"BINUNICODE8", op_string, 8},
    ['I'] = {"INT", NULL, 0},
    ['L'] = {"LONG", NULL, 0},
    ['F'] = {"FLOAT", NULL, 0},
    ['S'] = {"STRING", NULL, 0},
    ['V'] = {"UNICODE", NULL, 0},
    ['C'] = {"SHORT_BINBYTES", NULL, 0},
    ['B'] = {"BINBYTES", NULL, 0},
    [0x8e] = {"BINBYTES8", NULL, 0},
    [0x96] = {"BYTEARRAY8", NULL, 0},
    [0x97] = {"NEXT_BUFFER", NULL, 0},
    [0x98] = {"READONLY_BUFFER", NULL, 0},
    /* containers */
    [')'] = {"EMPTY_TUPLE", op_empty, BG_VALUE_TUPLE},
    [0x85] = {"TUPLE1", op_tuple, 1},
    [0x86] = {"TUPLE2", op_tuple, 2},
    [0x87] = {"TUPLE3", op_tuple, 3},
    ['t'] = {"TUPLE", op_tuple_to_mark, 0},
    [']'] = {"EMPTY_LIST", op_empty, BG_VALUE_LIST},
    ['a'] = {"APPEND", op_append, BG_VALUE_LIST},
    ['e'] = {"APPENDS", op_append_to_mark, BG_VALUE_LIST},
    ['}'] = {"EMPTY_DICT", op_empty, BG_VALUE_DICT},
    ['s'] = {"SETITEM", op_append, BG_VALUE_DICT},
    ['u'] = {"SETITEMS", op_append_to_mark, BG_VALUE_DICT},
    ['l'] = {"LIST", NULL, 0},
    ['d'] = {"DICT", NULL, 0},
    [0x8f] = {"EMPTY_SET", NULL, 0},
    [0x90] = {"ADDITEMS", NULL, 0},
    [0x91] = {"FROZENSET", NULL, 0},
    /* objects */
    ['c'] = {"GLOBAL", op_global, 0},
    [0x93] = {"STACK_GLOBAL", op_stack_global, 0},
    ['R'] = {"REDUCE", op_reduce, 0},
    ['b'] = {"BUILD", op_build, 0},
    ['Q'] = {"BINPERSID", op_persistent, 0},
    ['P'] = {"PERSID", NULL, 0},
    ['i'] = {"INST", NULL, 0},
    ['o'] = {"OBJ", NULL, 0},
    [0x81] = {"NEWOBJ", NULL, 0},
    [0x92] = {"NEWOBJ_EX", NULL, 0},
    [0x82] = {"EXT1", NULL, 0},
    [0x83] = {"EXT2", NULL, 0},
    [0x84] = {"EXT4", NULL, 0},
    /* the memo */
    ['q'] = {"BINPUT", op_put, 1},
    ['r'] = {"LONG_BINPUT", op_put, 4},
    ['h'] = {"BINGET", op_get, 1},
    ['j'] = {"LONG_BINGET", op_get, 4},
    [0x94] = {"MEMOIZE", op_memoize, 0},
    ['p'] = {"PUT", NULL, 0},
    ['g'] = {"GET", NULL, 0},
};

static bg_status step(machine *m)
{
    const uint8_t *opcode = NULL;
    m->place.at = m->at;
    BG_TRY(take(m, 1, &opcode));
    if (opcodes[*opcode].run) return opcodes[*opcode].run(m, opcodes[*opcode].argument);
    if (!opcodes[*opcode].name)
        return bg_pickle_refuse(&m->place, BG_ERR_FORMAT, "0x%02x is no opcode" AGAIN, *opcode);
    return bg_pickle_refuse(&m->place, BG_ERR_UNSUPPORTED,
                            "the opcode %s is none that a checkpoint of tensors and plain "
                            "containers needs; save the model's state_dict() alone with torch.save",
                            opcodes[*opcode].name);
}

bg_status bg_pickle_load(const uint8_t *data, size_t size, const char *where, bg_pickle *out,
                         bg_error *err)
{
    *out = (bg_pickle){0};
    machine *m = bg_calloc(1, sizeof *m);
    if (!m) return bg_fail_memory(err, sizeof *m, "reading a pickle");
    m->data = data;
    m->size = bg_min_size(size, BG_PICKLE_MAX_BYTES);
    m->place = (bg_pickle_place){.pickle = out, .where = where, .err = err};
    bg_status status = grow_stack(m);
    if (status == BG_OK && (size == 0 || *data != 0x80))
        status = refuse(m, "does not begin with its protocol");
    while (status == BG_OK && !m->stopped) status = step(m);
    if (status == BG_OK) {
        out->root = m->stack[0];
        out->used = m->at;
    } else {
        bg_pickle_free(out);
    }
    bg_free(m->stack);
    bg_free(m->memo);
    bg_free(m);
    return status;
}

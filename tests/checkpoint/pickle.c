/* The pickle machine: what it builds, and what it refuses. Whole checkpoints are in pytorch.c. */
#include "test.h"

#include "checkpoint/pickle.h"
#include "core/alloc.h"

#include <stdlib.h>

/* A pickle of protocol 2 and its size. */
#define PICKLE(body) "\x80\x02" body ".", sizeof("\x80\x02" body ".") - 1

static bg_status load(const char *bytes, size_t size, bg_pickle *out, bg_error *err)
{
    /* in a block of just that size, so that the sanitizer sees a read behind it */
    uint8_t *exact = malloc(size ? size : 1);
    memcpy(exact, bytes, size);
    bg_status status = bg_pickle_load(exact, size, "dir/x.bin", out, err);
    free(exact);
    return status;
}

static void test_plain_values(void)
{
    static const char bytes[] = "\x80\x04\x95\x01\0\0\0\0\0\0\0"    /* PROTO, FRAME */
                                "]\x94("                            /* [ MARK */
                                "NK\xff"                            /* None 255 */
                                "M\xff\xff"                         /* 65535 */
                                "J\xfe\xff\xff\xff"                 /* -2 */
                                "\x8a\x05\0\0\0\0\x80"              /* -2^39 */
                                "\x8a\x00"                          /* 0 */
                                "G\x40\x09\x21\xfb\x54\x44\x2d\x18" /* pi */
                                "\x88\x89"                          /* True False */
                                "X\x03\0\0\0abc\x8c\x01z\x94"       /* "abc" "z" */
                                "(KKt\x85"                          /* ((75,),) */
                                "}\x8c\x01kK\x07sK\x01K\x02\x86"    /* {"k": 7} (1, 2) */
                                "\x8a\x0a\1\2\3\4\5\6\7\10\11\12"   /* 80 bits */
                                "K\x01"
                                "0" /* pushed and popped */
                                "(K\x01K\x02"
                                "1" /* the same to a mark */
                                "e.more";
    bg_pickle p;
    bg_error err = {0};
    CHECK(bg_pickle_load((const uint8_t *)bytes, sizeof bytes - 1, "x", &p, &err) == BG_OK, "%s",
          err.message);
    if (err.status != BG_OK) return;
    CHECK(p.used == sizeof bytes - 1 - 4, "%zu bytes", p.used);
    CHECK(p.root.kind == BG_VALUE_LIST && p.root.items->count == 15, "no list");
    const bg_value *v = p.root.items->at;
    CHECK(v[0].kind == BG_VALUE_NONE, "None");
    static const long long integers[] = {255, 65535, -2, -549755813888, 0};
    for (int i = 0; i < 5; i++)
        CHECK(v[1 + i].kind == BG_VALUE_INT && v[1 + i].integer == integers[i], "%lld",
              (long long)v[1 + i].integer);
    CHECK(v[6].kind == BG_VALUE_FLOAT && v[6].real == 3.141592653589793, "%g", v[6].real);
    CHECK(v[7].kind == BG_VALUE_BOOL && v[7].integer == 1 && v[8].integer == 0, "truth values");
    CHECK(bg_value_is(&v[9], "abc") && bg_value_is(&v[10], "z"), "strings");
    CHECK(v[11].kind == BG_VALUE_TUPLE && v[11].items->count == 1, "a tuple");
    CHECK(v[12].kind == BG_VALUE_DICT && bg_dict_find(v[12].items, "k")->integer == 7, "a dict");
    CHECK(!bg_dict_find(v[12].items, "q"), "a key that is not there");
    CHECK(v[13].kind == BG_VALUE_TUPLE && v[13].items->at[1].integer == 2, "a tuple of two");
    CHECK(v[14].kind == BG_VALUE_BIG_INT && v[14].size == 10 && v[14].text[9] == 10, "80 bits");
    bg_pickle_free(&p);
}

/* torch.ones(2, 3), as an OrderedDict of Python 2 would hold it, with a Parameter and its memo. */
static const char tensors[] = "\x80\x02"
                              "ccollections\nOrderedDict\nq\x01]q\x02]q\x03(U\x01wq\x04"
                              "ctorch._utils\n_rebuild_parameter\n("
                              "ctorch._utils\n_rebuild_tensor\n(("
                              "U\x07storagectorch\nHalfStorage\nU\x03keyU\x03"
                              "cpuK\x08(U\x01vK\x01K\x07ttQ"
                              "K\x01K\x02K\x03\x86K\x03K\x01\x86tRq\x05\x88h\x01)RtRea\x85R.";

static void test_tensors(void)
{
    bg_pickle p;
    bg_error err = {0};
    CHECK(load(tensors, sizeof tensors - 1, &p, &err) == BG_OK, "%s", err.message);
    if (err.status != BG_OK) return;
    CHECK(p.root.kind == BG_VALUE_DICT && p.root.items->count == 2, "no dict");
    const bg_value *v = &p.root.items->at[1];
    CHECK(v->kind == BG_VALUE_TENSOR, "no tensor");
    if (v->kind == BG_VALUE_TENSOR) {
        const bg_strided *t = v->tensor;
        CHECK(t->dtype == BG_F16 && t->rank == 2 && t->offset == 1, "wrong tensor");
        CHECK(t->shape[0] == 2 && t->shape[1] == 3 && t->strides[0] == 3 && t->strides[1] == 1,
              "wrong shape");
        CHECK(t->storage->numel == 8 && t->storage->view_offset == 1 &&
                  t->storage->view_numel == 7 && t->storage->key_size == 3,
              "wrong storage");
        CHECK(p.storages == t->storage && !p.storages->next, "wrong list of storages");
    }
    bg_pickle_free(&p);
}

#define STORAGE                                                                                    \
    "(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"                                         \
    "0X\x03\0\0\0cpuK\x06tQ"
#define TENSOR(arguments) PICKLE("ctorch._utils\n_rebuild_tensor_v2\n(" arguments "tR")

static void test_refused(void)
{
    static const struct {
        const char *bytes;
        size_t size;
        bg_status status;
        const char *says;
    } cases[] = {
        /* not a pickle, or cut short */
        {"", 0, BG_ERR_FORMAT, "byte 0: does not begin"},
        {"}.", 2, BG_ERR_FORMAT, "does not begin"},
        {"\x80", 1, BG_ERR_FORMAT, "1 bytes, where 0 are left"},
        {"\x80\x01.", 3, BG_ERR_UNSUPPORTED, "protocol 1"},
        {"\x80\x06.", 3, BG_ERR_UNSUPPORTED, "protocol 6"},
        {"\x80\x02", 2, BG_ERR_FORMAT, "byte 2: an argument of 1 bytes"},
        {"\x80\x02}", 3, BG_ERR_FORMAT, "byte 3: an argument of 1 bytes"},
        {PICKLE("J\1\2"), BG_ERR_FORMAT, "4 bytes, where 3"},
        {PICKLE("X\xff\xff\xff\xff"), BG_ERR_FORMAT, "4294967295 bytes, where 1"},
        {PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), BG_ERR_FORMAT, "4 GiB"},
        {PICKLE("\x8b\xff\xff\xff\x7f"), BG_ERR_FORMAT, "2147483647 bytes"},
        {PICKLE("\x95\xff\xff\xff\xff\xff\xff\xff\xff"), BG_ERR_FORMAT, "frame"},
        {PICKLE("ccollections"), BG_ERR_FORMAT, "does not end"},
        /* a stack that does not come out */
        {PICKLE(""), BG_ERR_FORMAT, "empty stack"},
        {PICKLE("NN"), BG_ERR_FORMAT, "left over"},
        {PICKLE("(N"), BG_ERR_FORMAT, "left over"},
        {PICKLE("Nt"), BG_ERR_FORMAT, "mark"},
        {PICKLE("1"), BG_ERR_FORMAT, "mark"},
        {PICKLE("0"), BG_ERR_FORMAT, "empty stack"},
        {PICKLE("N("
                "\x85"),
         BG_ERR_FORMAT, "empty stack"},
        {PICKLE("]N(a"), BG_ERR_FORMAT, "empty stack"},
        {PICKLE("}(Nu"), BG_ERR_FORMAT, "has no value"},
        {PICKLE("](NNu"), BG_ERR_FORMAT, "items into a list"},
        {PICKLE("}Na"), BG_ERR_FORMAT, "items into a dictionary"},
        {PICKLE(")(Ne"), BG_ERR_FORMAT, "items into a tuple"},
        {PICKLE("(e"), BG_ERR_FORMAT, "empty stack"},
        /* the memo */
        {PICKLE("h\x05"), BG_ERR_FORMAT, "place 5"},
        {PICKLE("Nq\x01h\x02"), BG_ERR_FORMAT, "place 2"},
        {PICKLE("Nr\xff\xff\xff\xff"), BG_ERR_FORMAT, "place 4294967295"},
        {PICKLE("j\xff\xff\xff\xff"), BG_ERR_FORMAT, "place 4294967295"},
        {PICKLE("q\x01"), BG_ERR_FORMAT, "empty stack"},
        /* code */
        {PICKLE("cos\nsystem\n(X\x02\0\0\0lstR"), BG_ERR_UNSUPPORTED, "\"os.system\""},
        {PICKLE("cbuiltins\neval\n"), BG_ERR_UNSUPPORTED, "\"builtins.eval\""},
        {PICKLE("c__builtin__\nexec\n"), BG_ERR_UNSUPPORTED, "no code of a file is ever run"},
        {PICKLE("X\x02\0\0\0osX\x06\0\0\0system\x93"), BG_ERR_UNSUPPORTED, "\"os.system\""},
        {PICKLE("NX\x06\0\0\0system\x93"), BG_ERR_FORMAT, "no string"},
        {PICKLE("ctorch\nload\n"), BG_ERR_UNSUPPORTED, "\"torch.load\""},
        {PICKLE("ctorch._utils\n_rebuild_sparse_tensor\n"), BG_ERR_UNSUPPORTED, "sparse"},
        {PICKLE("ctorch\nComplexFloatStorage\n"), BG_ERR_UNSUPPORTED, "ComplexFloatStorage"},
        {PICKLE("ccollections\nOrderedDict\x1b[2J\n"), BG_ERR_UNSUPPORTED, "OrderedDict?[2J"},
        {PICKLE("ios\nsystem\n"), BG_ERR_UNSUPPORTED, "opcode INST"},
        {PICKLE("ccollections\nOrderedDict\n)\x81"), BG_ERR_UNSUPPORTED, "opcode NEWOBJ"},
        {PICKLE("(ccollections\nOrderedDict\no"), BG_ERR_UNSUPPORTED, "opcode OBJ"},
        {PICKLE("\x82\x01"), BG_ERR_UNSUPPORTED, "opcode EXT1"},
        {PICKLE("P1\n"), BG_ERR_UNSUPPORTED, "opcode PERSID"},
        {PICKLE("C\x01x"), BG_ERR_UNSUPPORTED, "opcode SHORT_BINBYTES"},
        {PICKLE("\x8f"), BG_ERR_UNSUPPORTED, "opcode EMPTY_SET"},
        {PICKLE("I1\n"), BG_ERR_UNSUPPORTED, "opcode INT "},
        {PICKLE("\xff"), BG_ERR_FORMAT, "0xff is no opcode"},
        {PICKLE("\0"), BG_ERR_FORMAT, "0x00 is no opcode"},
        /* calls */
        {PICKLE("N)R"), BG_ERR_FORMAT, "calls None with a tuple"},
        {PICKLE("ccollections\nOrderedDict\nNR"), BG_ERR_FORMAT, "with None"},
        {PICKLE("ctorch\nFloatStorage\n)R"), BG_ERR_UNSUPPORTED, "torch.FloatStorage"},
        {PICKLE("ctorch\nfloat16\n)R"), BG_ERR_UNSUPPORTED, "torch.float16"},
        {PICKLE("ccollections\nOrderedDict\nNN\x86R"), BG_ERR_FORMAT, "2 arguments"},
        {PICKLE("ccollections\nOrderedDict\nN\x85R"), BG_ERR_FORMAT, "cannot be None"},
        {PICKLE("ccollections\nOrderedDict\n]Na\x85R"), BG_ERR_FORMAT, "item cannot be None"},
        {PICKLE("ccollections\nOrderedDict\n])a\x85R"), BG_ERR_FORMAT, "item cannot be a tuple"},
        {PICKLE("ctorch\nSize\nN\x85R"), BG_ERR_FORMAT, "cannot be None"},
        {PICKLE("ctorch._utils\n_rebuild_parameter\nNNN\x87R"), BG_ERR_FORMAT, "cannot be None"},
        {PICKLE("]}b"), BG_ERR_UNSUPPORTED, "state of a list"},
        {PICKLE("ccollections\nOrderedDict\n)RNb"), BG_ERR_UNSUPPORTED, "state of a dictionary"},
        /* storages */
        {PICKLE("NQ"), BG_ERR_UNSUPPORTED, "persistent id"},
        {PICKLE("(X\x06\0\0\0moduleNNNNtQ"), BG_ERR_UNSUPPORTED, "persistent id"},
        {PICKLE("(X\x07\0\0\0storageNNNNtQ"), BG_ERR_FORMAT, "type cannot be None"},
        {PICKLE("(X\x07\0\0\0storagectorch\nfloat16\nNNNtQ"), BG_ERR_FORMAT, "type cannot be"},
        {PICKLE("(X\x07\0\0\0storagectorch\nHalfStorage\nNNNtQ"), BG_ERR_FORMAT, "key cannot"},
        {PICKLE("(X\x07\0\0\0storagectorch\nHalfStorage\nX\0\0\0\0NNtQ"), BG_ERR_FORMAT,
         "number of elements cannot be None"},
        {PICKLE("(X\x07\0\0\0storagectorch\nHalfStorage\nX\0\0\0\0NJ\xff\xff\xff\xfftQ"),
         BG_ERR_FORMAT, "is -1"},
        {PICKLE("(X\x07\0\0\0storagectorch\nHalfStorage\nX\0\0\0\0NK\x04(NK\x02K\x03ttQ"),
         BG_ERR_FORMAT, "3 elements at 2"},
        {PICKLE("(X\x07\0\0\0storagectorch\nHalfStorage\nX\0\0\0\0NK\x04K\x01tQ"), BG_ERR_FORMAT,
         "part cannot be"},
        /* tensors */
        {TENSOR("NNNNNN"), BG_ERR_FORMAT, "storage cannot be None"},
        {TENSOR(STORAGE "NNNNN"), BG_ERR_FORMAT, "size cannot be None"},
        {TENSOR(STORAGE "N)NNN"), BG_ERR_FORMAT, "stride cannot be None"},
        {TENSOR(STORAGE "N)]NN"), BG_ERR_FORMAT, "stride cannot be a list"},
        {TENSOR(STORAGE "N))NN"), BG_ERR_FORMAT, "offset cannot be None"},
        {TENSOR(STORAGE "J\xff\xff\xff\xff))NN"), BG_ERR_FORMAT, "offset is -1"},
        {TENSOR(STORAGE "K\0K\1\x85)NN"), BG_ERR_FORMAT, "1 dimensions with 0 strides"},
        {TENSOR(STORAGE "K\0(NNNNNNNNNt(NNNNNNNNNtNN"), BG_ERR_FORMAT, "9 dimensions"},
        {TENSOR(STORAGE "K\0N\x85N\x85NN"), BG_ERR_FORMAT, "dimension cannot be None"},
        {TENSOR(STORAGE "K\0\x8a\x09\0\0\0\0\0\0\0\0\1\x85N\x85NN"), BG_ERR_FORMAT,
         "more than 64 bits"},
        {TENSOR(STORAGE "K\0K\1\x85J\xff\xff\xff\xff\x85NN"), BG_ERR_FORMAT, "stride is -1"},
        {TENSOR("N"), BG_ERR_FORMAT, "1 arguments"},
        {PICKLE("ctorch._utils\n_rebuild_tensor_v3\n(" STORAGE "K\0))NNNtR"), BG_ERR_FORMAT,
         "element type cannot be None"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_pickle p;
        bg_error err = {0};
        bg_status status = load(cases[i].bytes, cases[i].size, &p, &err);
        CHECK(status == cases[i].status && err.status == status, "case %zu (%s): %d: %s", i,
              cases[i].says, status, err.message);
        CHECK(strncmp(err.message, "dir/x.bin: pickle, byte ", 24) == 0, "case %zu: %s", i,
              err.message);
        CHECK(strstr(err.message, cases[i].says), "case %zu: %s: no \"%s\"", i, err.message,
              cases[i].says);
        CHECK(strstr(err.message, "download") || strstr(err.message, "save"), "no remedy: %s",
              err.message);
    }
}

/* A block of `count` copies of a few bytes behind a beginning. */
static bg_status repeat(const char *first, const char *bytes, size_t count, bg_error *err)
{
    size_t head = strlen(first), n = strlen(bytes), size = head + count * n;
    char *text = malloc(size);
    memcpy(text, first, head);
    for (size_t i = 0; i < count; i++) memcpy(text + head + i * n, bytes, n);
    bg_pickle p;
    bg_status status = bg_pickle_load((uint8_t *)text, size, "x", &p, err);
    if (status == BG_OK) bg_pickle_free(&p);
    free(text);
    return status;
}

/* Nesting, stacks and values without end stop at a limit; a list may hold itself. */
static void test_limits(void)
{
    bg_error err = {0};
    bg_pickle p;
    CHECK(load(PICKLE("(t"), &p, &err) == BG_OK, "%s", err.message);
    CHECK(p.root.kind == BG_VALUE_TUPLE && p.root.items->count == 0, "no empty tuple");
    bg_pickle_free(&p);
    CHECK(repeat("\x80\x02", "(", 1u << 20, &err) == BG_ERR_UNSUPPORTED, "%s", err.message);
    CHECK(strstr(err.message, "nested more than 1000"), "%s", err.message);
    CHECK(repeat("\x80\x02", "N", (1u << 20) + 2, &err) == BG_ERR_UNSUPPORTED, "%s", err.message);
    CHECK(strstr(err.message, "on the stack"), "%s", err.message);
    CHECK(repeat("\x80\x02", "\x94", 4, &err) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(repeat("\x80\x02", "]\x94", 1u << 18, &err) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(repeat("\x80\x02]", "\x85", 1u << 18, &err) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(strstr(err.message, "are left"), "%s", err.message);
    /* containers that are thrown away at once */
    CHECK(repeat("\x80\x02", "]0", (1u << 24) + 4096, &err) == BG_ERR_UNSUPPORTED, "%s",
          err.message);
    CHECK(strstr(err.message, "more than 512 MiB"), "%s", err.message);

    static const char self[] = "\x80\x02]q\x01h\x01"
                               "ah\x01"
                               "a}q\x02h\x02h\x02sb.";
    CHECK(load(self, sizeof self - 1, &p, &err) == BG_ERR_UNSUPPORTED, "%s", err.message);
    static const char list[] = "\x80\x02]q\x01h\x01"
                               "ah\x01"
                               "a.";
    CHECK(load(list, sizeof list - 1, &p, &err) == BG_OK, "%s", err.message);
    CHECK(p.root.items->count == 2 && p.root.items->at[1].items == p.root.items, "no such list");
    bg_pickle_free(&p);
}

static void test_allocation_failures(void)
{
    static const char bytes[] = "\x80\x02}q\x01(X\x01\0\0\0k]q\x02K\x01"
                                "aX\x01\0\0\0tN\x85u.";
    long n = 0;
    for (bg_status status = BG_ERR_MEMORY; status != BG_OK && n < 100; n++) {
        bg_pickle p;
        bg_error err = {0};
        bg_alloc_fail_after(n);
        status = bg_pickle_load((const uint8_t *)bytes, sizeof bytes - 1, "x", &p, &err);
        bg_alloc_fail_after(-1);
        CHECK(status == BG_OK || status == BG_ERR_MEMORY, "after %ld: %s", n, err.message);
        if (status == BG_OK) bg_pickle_free(&p);
    }
    CHECK(n == 5, "%ld allocations", n - 1);
}

int main(void)
{
    RUN(test_plain_values);
    RUN(test_tensors);
    RUN(test_refused);
    RUN(test_limits);
    RUN(test_allocation_failures);
    return test_finish();
}

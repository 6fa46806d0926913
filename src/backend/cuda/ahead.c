/* Decoding ahead. A product that multiplies codes decodes them while its input is waited for and
 * its result is. Attention and products, in tiles, leave some of a GPU idle while they last: there
 * 4-bit weights of the layers that follow are decoded to memory, and these then multiply binary16
 * numbers, which the GPU's cache still has.
 *
 * Kernels start before the ones before them are over (wait_for_earlier), and two things must hold:
 * - A layer copies its weights before it waits. All products let the next kernel start only when
 *   they have waited themselves; so with one of them between, the kernel that decoded is over.
 * - Blocks that decode do not wait, and the kernels before them may still read what was decoded to
 *   the same place before. With a product between the last reader and them, it is over as well.
 * Nothing of one queue runs beside the next: a graph ends, or its nodes are copied, between them.
 */
#include "backend/cuda/cuda.h"
#include "core/checked.h"

#include <string.h>

enum {
    ROOM_BYTES = 10 << 20,
    MOST_WEIGHTS = ROOM_BYTES / 2 / sizeof(uint16_t), /* of a matrix */
};

/* Takes note of attentions and products that were queued since the last call. */
static void look_through(cuda_backend *cuda)
{
    cuda_ahead *a = &cuda->ahead;
    if (a->launched != cuda->launched) {
        a->launched = cuda->launched;
        a->looked = a->products = a->n_hosts = a->n_places = a->next = 0;
    }
    for (; a->looked < cuda->n_nodes; a->looked++) {
        const node_kind kind = cuda->nodes[a->looked].kind;
        const size_t before = a->products;
        a->products += kind == NODE_MMA;
        if (kind == NODE_MMA || kind == NODE_ATTEND)
            a->hosts[a->n_hosts++ % CUDA_HOSTS] =
                (cuda_host){.node = a->looked, .before = before, .through = a->products};
    }
}

static cuda_coming *coming_of(cuda_node *n)
{
    return n->kind == NODE_ATTEND ? &n->args.attention.coming : &n->args.mma.coming;
}

/* Worked out once, as that takes its time. */
static cuda_spare spare_of(cuda_host *host, const cuda_node *n, const cuda_launch *l)
{
    if (!host->known)
        host->spare = n->kind == NODE_ATTEND ? bg_cuda_attend_spare(&n->args.attention, l)
                                             : bg_cuda_product_mma_spare(&n->args.mma, l);
    host->known = true;
    return host->spare;
}

/* Of a size that stays, so that nothing queued has to be run for it; where it is refused, layers go
 * on multiplying codes. */
static char *room_for_coming(cuda_backend *cuda)
{
    cuda_ahead *a = &cuda->ahead;
    if (!a->room.data && !a->refused) {
        const size_t refused = cuda->refused; /* nothing that anybody asked for */
        a->room.data = cuda_alloc(cuda, ROOM_BYTES, "decoded weights", NULL);
        a->room.bytes = a->room.data ? ROOM_BYTES : 0;
        a->refused = !a->room.data;
        cuda->refused = refused;
    }
    return a->room.data;
}

/* Where the host may write what product number `reader` will read; NULL: nowhere. Places come
 * round: those that are not remembered were read by products more than CUDA_HOSTS before. */
static void *place_for(cuda_backend *cuda, const cuda_host *host, size_t bytes, size_t reader)
{
    _Static_assert(CUDA_PLACES / CUDA_MAX_PARTS > CUDA_HOSTS + 2, "hosts are behind these readers");
    cuda_ahead *a = &cuda->ahead;
    char *const room = room_for_coming(cuda);
    if (!room) return NULL;
    const size_t begin = a->next + bytes <= ROOM_BYTES ? a->next : 0, end = begin + bytes;
    for (size_t i = 1; i <= bg_min_size(a->n_places, CUDA_PLACES); i++) {
        const cuda_place *p = &a->places[(a->n_places - i) % CUDA_PLACES];
        if (p->reader < host->before) break; /* and all that were read before that */
        if (p->begin < end && begin < p->end) return NULL;
    }
    a->places[a->n_places++ % CUDA_PLACES] = (cuda_place){begin, end, reader};
    a->next = end;
    return room + begin;
}

static bool is_decoded(const cuda_backend *cuda, const cuda_matrix *w)
{
    const char *at = w->codes, *room = cuda->ahead.room.data;
    return room && at >= room && at < room + ROOM_BYTES;
}

/* Measured on compute capability 9.0. Of an MLP's first matrix, usually four times as long as wide,
 * not: it has the most tiles, which share decoding it (product_decoded.cuh). Nor of large ones,
 * which take longer than kernels of some hundred rows. */
static bool is_worth_it(const cuda_launch *l, const cuda_matrix *w)
{
    return l->overlap && l->warpgroups && bg_formats[w->format].bits == 4 &&
           w->rows <= 3 * w->cols && w->rows * w->cols <= MOST_WEIGHTS;
}

/* Matrices that are to be decoded all, or not at all: query, key and value, which are to be one
 * node. A square one that does not follow attention may be its first. */
static uint32_t alike(const cuda_backend *cuda, const cuda_matrix *w)
{
    const bool leads = cuda->n_nodes > 0 && cuda->nodes[cuda->n_nodes - 1].kind != NODE_ATTEND;
    return leads && w->rows == w->cols ? 3 : 1;
}

/* Whether the host, which leaves so much idle, decodes n more matrices like this one. */
static bool takes(const cuda_coming *c, cuda_spare spare, const cuda_matrix *w, uint32_t n)
{
    return c->n + n <= CUDA_MOST_COMING &&
           (c->n == 0 || (c->code == w->code && c->scale_map == w->scale_map)) &&
           c->blocks + n * (w->rows * w->cols / BG_BLOCK) <= spare.blocks;
}

static void add(cuda_coming *c, cuda_spare spare, const cuda_matrix *w, void *out)
{
    const uint32_t blocks = (uint32_t)(w->rows * w->cols / BG_BLOCK);
    c->code = w->code;
    c->scale_map = w->scale_map;
    c->w[c->n].codes = w->codes;
    c->w[c->n].scales = w->scales;
    c->w[c->n].scale_codes = w->scale_codes;
    c->w[c->n].scale_absmax = w->scale_absmax;
    c->w[c->n].scale_offset = w->scale_offset;
    c->w[c->n].blocks = blocks;
    c->w[c->n++].out = out;
    c->blocks += blocks;
    c->decoders = spare.decoders;
}

void cuda_decode_ahead(cuda_backend *cuda, cuda_matrix *w, size_t n_rows,
                       const cuda_mma_args *joined)
{
    cuda_ahead *a = &cuda->ahead;
    if (!is_worth_it(&cuda->launch, w) || (joined && !is_decoded(cuda, &joined->w[0]))) return;
    cuda_matrix decoded;
    memset(&decoded, 0, sizeof decoded); /* also what lies between: nodes are compared as bytes */
    decoded.format = BG_FORMAT_F16;
    decoded.rows = w->rows;
    decoded.cols = w->cols;
    if (!joined && !bg_cuda_product_mma_fits(&decoded, n_rows, CUDA_F16, &cuda->launch)) return;
    look_through(cuda);
    const size_t reader = a->products + !joined; /* the number of its product */
    const uint32_t n = joined ? 1 : alike(cuda, w);
    for (size_t i = 1; i <= bg_min_size(a->n_hosts, CUDA_HOSTS); i++) {
        cuda_host *host = &a->hosts[(a->n_hosts - i) % CUDA_HOSTS];
        if (host->through + 1 >= reader) continue;
        cuda_node *node = &cuda->nodes[host->node];
        const cuda_spare spare = spare_of(host, node, &cuda->launch);
        if (!takes(coming_of(node), spare, w, n)) continue;
        void *out = place_for(cuda, host, w->rows * w->cols * sizeof(uint16_t), reader);
        if (!out) continue;
        add(coming_of(node), spare, w, out);
        decoded.codes = out;
        *w = decoded;
        return;
    }
}

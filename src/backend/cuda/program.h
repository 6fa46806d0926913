/* Programs, steps in one launch (program.cuh), as the host sees them: program.cu. */
#ifndef BG_BACKEND_CUDA_PROGRAM_H
#define BG_BACKEND_CUDA_PROGRAM_H

#include "backend/cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Shared memory that nodes need: bytes, tables of their weights' format, and for the weights'
 * pieces the longest of so many steps, each of so many bytes. */
typedef struct {
    size_t bytes, tables;
    unsigned piece_steps, step_bytes;
} cuda_program_room;

/* Steps that a piece of a layer's weights may have, and one in a program that begins with a layer
 * of 4 bits. */
enum { CUDA_MOST_STEPS = 8, CUDA_SHORT_STEPS = 4 };

/* Whether a program takes the node, in pieces of up to so many steps; writes the plan into it, and
 * what it needs. `beside`: a planned node that runs at the same time, or NULL. */
bool bg_cuda_program_plan(cuda_node *node, const cuda_node *beside, const cuda_launch *l,
                          unsigned most_steps, cuda_program_room *room);
/* Divides a planned layer beside `attention` among its blocks by columns as well as by rows, where
 * that is faster, and has the next, planned layer add up the shares; both at `sums` until then, of
 * CUDA_SHARES_FLOATS. False, and nothing changed, where it stays as it is. */
bool bg_cuda_program_divide(cuda_node *layer, cuda_node *sum, const cuda_node *attention,
                            float *sums, const cuda_launch *l, unsigned most_steps,
                            cuda_program_room *room);
enum { CUDA_SHARES_FLOATS = 1 << 16 };
/* Makes *room do for both; false, and nothing changed, where there is not so much. */
bool bg_cuda_program_shares(cuda_program_room *room, const cuda_program_room *other,
                            const cuda_launch *l);
/* Whether a linear layer says what kind of program it and another (NULL: none yet) are of: spared
 * ones of 16 bits are of any. */
bool bg_cuda_program_leads(const cuda_node *linear, const cuda_node *other);
/* Whether a planned node can be of the program that a planned linear layer leads. */
bool bg_cuda_program_joins(const cuda_node *linear, const cuda_node *other);
enum { CUDA_PROGRAM_COUNTERS = 2 };

/* Runs n planned nodes that join; they lie in host and in device memory. `counters`: two zeros on
 * the device, which are zeros again when it is done; `room` does for all. */
cudaError_t bg_cuda_program(const cuda_node *host, const cuda_node *nodes, size_t n,
                            unsigned *counters, cuda_program_room room, const cuda_launch *l);

/* The program's name where one row of activations is multiplied by weights of the format in one, at
 * usual widths and as far as the GPU's shared memory goes; NULL: in a kernel for few rows. */
const char *bg_cuda_program_name(bg_format_id format, const cuda_launch *l);

#ifdef __cplusplus
}
#endif
#endif

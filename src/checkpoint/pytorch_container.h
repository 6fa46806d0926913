/* The two containers that torch.save has written: each reads the pickle in it and finds the bytes
 * of every storage (bg_storage.data and .bytes) in the file. For pytorch.c alone. */
#ifndef BG_CHECKPOINT_PYTORCH_CONTAINER_H
#define BG_CHECKPOINT_PYTORCH_CONTAINER_H

#include "checkpoint/pickle.h"

/* A zip archive: NAME/data.pkl, NAME/data/KEY for each storage, NAME/byteorder. */
bg_status bg_pytorch_load_zip(const uint8_t *data, size_t size, const char *path, bg_pickle *out,
                              bg_error *err);

/* Before PyTorch 1.6: pickles of a magic number, the format's version, the machine's byte order,
 * the object, and a list of storage keys; then the storages in that order, each an int64 of its
 * number of elements and the elements. */
bg_status bg_pytorch_load_legacy(const uint8_t *data, size_t size, const char *path, bg_pickle *out,
                                 bg_error *err);

/* Lays a storage on the `size` bytes of the whole at `data`, which must be as many as the pickle
 * says. */
bg_status bg_storage_place(bg_storage *storage, const uint8_t *data, size_t size, const char *path,
                           bg_error *err);

#endif

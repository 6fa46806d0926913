/* Small files in a temporary directory, good ones and hostile ones. */
#ifndef BG_TESTS_CHECKPOINT_FILES_H
#define BG_TESTS_CHECKPOINT_FILES_H

#include "test.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char files_directory[64];
static char files_names[64][96];
static int files_count;

static inline const char *files_begin(void)
{
    strcpy(files_directory, TEMPORARY);
    if (!mkdtemp(files_directory)) {
        perror(files_directory);
        exit(1);
    }
    files_count = 0;
    return files_directory;
}

/* directory/name, in a buffer that the next call overwrites. */
static inline const char *files_path(const char *name)
{
    static char path[sizeof files_directory + sizeof files_names];
    snprintf(path, sizeof path, "%s/%s", files_directory, name);
    return path;
}

static inline void files_write(const char *name, const void *bytes, size_t size)
{
    const char *path = files_path(name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
    for (int i = 0; i < files_count; i++)
        if (strcmp(files_names[i], name) == 0) return;
    snprintf(files_names[files_count++], sizeof files_names[0], "%s", name);
}

static inline void files_text(const char *name, const char *text)
{
    files_write(name, text, strlen(text));
}

static inline void files_remove(const char *name)
{
    unlink(files_path(name));
}

static inline void files_end(void)
{
    for (int i = 0; i < files_count; i++) files_remove(files_names[i]);
    if (rmdir(files_directory) != 0) perror(files_directory);
}

/* A safetensors file of that header and so many bytes 0, 1, 2, ...; released with free, and of
 * exactly its size, so that the address sanitizer sees the first byte read behind it. */
static inline uint8_t *make_safetensors(const char *header, size_t header_size, size_t data_size,
                                        size_t *size)
{
    *size = 8 + header_size + data_size;
    uint8_t *bytes = malloc(*size);
    if (!bytes) exit(1);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)header_size >> 8 * i);
    memcpy(bytes + 8, header, header_size);
    for (size_t i = 0; i < data_size; i++) bytes[8 + header_size + i] = (uint8_t)i;
    return bytes;
}

static inline void files_safetensors(const char *name, const char *header, size_t data_size)
{
    size_t size;
    uint8_t *bytes = make_safetensors(header, strlen(header), data_size, &size);
    files_write(name, bytes, size);
    free(bytes);
}

#endif

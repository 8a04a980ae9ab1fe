/* A filesystem over a store in memory, without a mount, and short ways to use it. */
#pragma once

#include "fusefs/fs.h"

#include "tests/support/memory_store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

static struct store *store;
static struct fs *fs;
static struct fs_caller caller = {.uid = 1, .gid = 2};

static G_GNUC_UNUSED void set_up_store(void)
{
    store = memory_store_new();
}

static G_GNUC_UNUSED void tear_down_store(void)
{
    store_unref(store);
}

static G_GNUC_UNUSED void set_up(void)
{
    struct fs_options options = {.sync_interval_ms = 200, .attr_ttl_ms = 200};

    store = memory_store_new();
    fs = fs_new(store, &options);
}

static G_GNUC_UNUSED void tear_down(void)
{
    fs_drain(fs, 1000, NULL);
    fs_free(fs);
    store_unref(store);
}

static G_GNUC_UNUSED struct fs_file *create(const char *name, struct stat *st)
{
    struct fs_file *file;

    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, name, 0644, O_RDWR, &file, st), 0);
    return file;
}

static G_GNUC_UNUSED void collect(void *user, const struct iovec *iov, unsigned count)
{
    GByteArray *bytes = user;

    for (unsigned i = 0; i < count; i++)
        g_byte_array_append(bytes, iov[i].iov_base, iov[i].iov_len);
}

static G_GNUC_UNUSED GByteArray *read_all(struct fs_file *file)
{
    GByteArray *bytes = g_byte_array_new();
    guint before;

    do {
        before = bytes->len;
        cr_assert_eq(fs_read(fs, &caller, file, bytes->len, 128 * 1024, collect, bytes), 0);
    } while (bytes->len > before);
    return bytes;
}

static G_GNUC_UNUSED char *in_store(const char *key, size_t *size)
{
    char *data = NULL;

    return store_read(store, key, 1u << 30, &data, size, NULL, NULL) ? data : NULL;
}

/* What another client does: a copy of the object onto itself. */
static G_GNUC_UNUSED void chmod_elsewhere(const char *key, const char *mode)
{
    g_autoptr(StoreCall) copy = store_call_new(STORE_COPY, key);
    struct store_object object = {0};

    cr_assert(store_head(store, key, &object, NULL));
    copy->source_key = g_strdup(key);
    copy->metadata = g_hash_table_ref(object.metadata);
    store_call_set_metadata(copy, "mode", mode);
    cr_assert(store_run(store, copy, NULL));
    store_object_clear(&object);
}

/* A store that lists what it likes: absurd names, sizes, dates, metadata, and pages that never end.
 * Every name that a directory shows can be a file's, and all of it can be looked up, opened, read.
 *
 * shape: a line of input is one object: SIZE TIME NAME=VALUE KEY, separated by tabs.
 */
#include "config/error.h"
#include "fusefs/fs.h"
#include "storage/file_attrs.h"
#include "storage/store_driver.h"

#include <fcntl.h>
#include <string.h>

#define OBJECTS_MAX 20
#define NAMES_MAX   1000
#define READ_BYTES  4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct liar {
    struct store base;
    GPtrArray *objects; /* struct store_object */
};

static const struct store_object *find(struct liar *liar, const char *key)
{
    for (guint i = 0; i < liar->objects->len; i++)
        if (strcmp(((const struct store_object *)liar->objects->pdata[i])->key, key) == 0)
            return liar->objects->pdata[i];
    return NULL;
}

static void list(struct liar *liar, struct store_call *call)
{
    unsigned limit = call->limit ? call->limit : liar->base.caps.max_list_entries;

    for (guint i = 0; i < liar->objects->len && call->objects->len < limit; i++) {
        const struct store_object *object = liar->objects->pdata[i];
        const char *slash;

        if (!g_str_has_prefix(object->key, call->key))
            continue;
        slash = call->delimiter ? strchr(object->key + strlen(call->key), '/') : NULL;
        if (slash) {
            g_ptr_array_add(call->prefixes, g_strndup(object->key, slash + 1 - object->key));
        } else {
            struct store_object *copy = g_new0(struct store_object, 1);

            store_object_copy(copy, object);
            g_ptr_array_add(call->objects, copy);
        }
    }
}

static GError *answer(struct liar *liar, struct store_call *call)
{
    const struct store_object *object = call->key ? find(liar, call->key) : NULL;
    GError *error = NULL;

    if (call->verb == STORE_LIST)
        list(liar, call);
    else if (call->verb == STORE_UPLOADS)
        ;
    else if (!object)
        error_set(&error, ENOENT, "%s: no such key", call->key);
    else if (call->verb == STORE_HEAD || call->verb == STORE_GET)
        store_object_copy(&call->object, object);
    else
        error_set(&error, EACCES, "%s: refused", call->key);
    if (!error && call->verb == STORE_GET) {
        memset(call->iov[0].iov_base, 0, call->iov[0].iov_len);
        call->received_bytes = call->iov[0].iov_len;
    }
    return error;
}

static void start(struct store *store, struct store_call *call)
{
    GError *error = answer((struct liar *)store, call);

    store_complete(call, error);
}

static void cancel(struct store *store, struct store_call *call)
{
}

static void liar_free(struct store *store)
{
    g_ptr_array_unref(((struct liar *)store)->objects);
    g_free(store);
}

static const struct store_driver driver = {
    .name = "liar", .start = start, .cancel = cancel, .free = liar_free};

static void add_object(struct liar *liar, const char *line)
{
    g_auto(GStrv) words = g_strsplit(line, "\t", 4);
    struct store_object *object;
    char *value;

    if (g_strv_length(words) != 4 || !*words[3] || liar->objects->len >= OBJECTS_MAX)
        return;
    object = g_new0(struct store_object, 1);
    object->key = g_strdup(words[3]);
    object->etag = g_strdup("etag");
    object->size_bytes = MIN(g_ascii_strtoull(words[0], NULL, 10), G_MAXINT64); /* as drivers do */
    object->mtime_ns = g_ascii_strtoll(words[1], NULL, 10);
    object->metadata = metadata_new();
    value = strchr(words[2], '=');
    if (value)
        g_hash_table_replace(object->metadata, g_strndup(words[2], value - words[2]),
                             g_strdup(value + 1));
    g_ptr_array_add(liar->objects, object);
}

static struct store *liar_new(const char *text)
{
    struct liar *liar = g_new0(struct liar, 1);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    store_init(&liar->base, &driver, "liar://");
    liar->base.caps = (struct store_caps){.max_part_bytes = 1 << 20,
                                          .max_put_bytes = 1 << 20,
                                          .max_object_bytes = UINT64_C(5) << 40,
                                          .max_parts = 10000,
                                          .max_key_bytes = 1024,
                                          .max_delete_keys = 1000,
                                          .max_list_entries = 1000,
                                          .max_metadata_bytes = 2048,
                                          .parallel = 1,
                                          .has_prefix_and_key = true};
    liar->objects = g_ptr_array_new_with_free_func((GDestroyNotify)store_object_free);
    for (char **line = lines; *line; line++)
        add_object(liar, *line);
    return &liar->base;
}

/* --- what a program does with it --- */

static struct fs_caller caller;

static void take(void *user, const struct iovec *iov, unsigned count)
{
    size_t *bytes = user;

    for (unsigned i = 0; i < count; i++)
        *bytes += iov[i].iov_len;
}

static void read_file(struct fs *fs, uint64_t ino)
{
    size_t bytes = 0;
    struct fs_file *file;
    bool keep;

    if (fs_open(fs, &caller, ino, O_RDONLY, &file, &keep) != 0)
        return;
    fs_read(fs, &caller, file, 0, READ_BYTES, take, &bytes);
    g_assert(bytes <= READ_BYTES);
    fs_release(fs, file);
}

static void look(struct fs *fs, uint64_t ino, unsigned depth);

static void look_at(struct fs *fs, uint64_t parent, const char *name, unsigned depth)
{
    g_autofree char *target = NULL;
    struct stat st;

    g_assert(*name && strlen(name) <= 255 && !strchr(name, '/'));
    if (fs_lookup(fs, &caller, parent, name, &st) != 0)
        return;
    g_assert(st.st_size >= 0 && st.st_mtim.tv_nsec >= 0 && st.st_mtim.tv_nsec < 1000000000);
    if (S_ISDIR(st.st_mode))
        look(fs, st.st_ino, depth + 1);
    else if (S_ISLNK(st.st_mode))
        fs_readlink(fs, &caller, st.st_ino, &target);
    else
        read_file(fs, st.st_ino);
    fs_forget(fs, st.st_ino, 1);
}

static void look(struct fs *fs, uint64_t ino, unsigned depth)
{
    struct fs_entry entry;
    struct fs_dir *dir;

    if (depth > 4 || fs_opendir(fs, &caller, ino, &dir) != 0)
        return;
    for (uint64_t i = 0; fs_dir_entry(dir, i, &entry); i++) {
        g_assert(i < NAMES_MAX);
        if (strcmp(entry.name, ".") != 0 && strcmp(entry.name, "..") != 0)
            look_at(fs, ino, entry.name, depth);
        else
            g_assert(i < 2);
    }
    fs_closedir(fs, dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    struct store *store = liar_new(text);
    const struct fs_options options = {.read_only = true, .budget_bytes = 16 << 20};
    struct fs *fs = fs_new(store, &options);

    g_setenv("DSTACK_LOG", "error", TRUE);
    store_unref(store);
    look(fs, FS_ROOT, 0);
    fs_free(fs);
    return 0;
}

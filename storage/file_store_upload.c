/* Uploads: DIR/.dstack-tmp/uploads/ID holds the key ("key"), the metadata ("meta") and a file for
 * each part ("part-N"), which a commit joins. */
#include "storage/file_store.h"

#include "config/autofd.h"
#include "config/error.h"
#include "config/random_id.h"
#include "storage/beneath.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ID_LENGTH 32

static bool is_upload_id(const char *id)
{
    return strlen(id) == ID_LENGTH && strspn(id, "0123456789abcdef") == ID_LENGTH;
}

static bool write_small(int dir_fd, const char *name, const char *text)
{
    g_auto(fd_t) fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    size_t size = strlen(text);

    return fd >= 0 && write(fd, text, size) == (ssize_t)size;
}

static char *read_small(int dir_fd, const char *name, size_t *size)
{
    g_auto(fd_t) fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    g_autofree char *text = g_malloc(65537);
    ssize_t count = fd < 0 ? -1 : read(fd, text, 65536);

    if (count < 0)
        return NULL;
    text[count] = '\0';
    if (size)
        *size = (size_t)count;
    return g_steal_pointer(&text);
}

void file_store_begin(struct file_store *store, struct store_call *call, GError **error)
{
    g_autofree char *path = file_store_path(call->key, error);
    g_autofree char *id = random_id();
    g_autofree char *dir_path = g_strconcat(FILE_STORE_UPLOADS "/", id, NULL);
    g_autofree char *metadata =
        call->metadata ? file_store_format_metadata(call->metadata) : g_strdup("");
    g_auto(fd_t) dir = -1;

    if (!path)
        return;
    dir = file_store_open_tmp(store, dir_path);
    if (dir < 0 || !write_small(dir, "meta", metadata) || !write_small(dir, "key", call->key)) {
        file_store_error(error, errno, "begin an upload of", call->key);
        return;
    }
    call->upload_id = g_steal_pointer(&id);
}

/* The directory of the call's upload; -1 and ENOENT. */
static int open_upload(struct file_store *store, const struct store_call *call, GError **error)
{
    g_autofree char *path =
        g_strconcat(FILE_STORE_TMP "/" FILE_STORE_UPLOADS "/", call->upload_id, NULL);
    g_auto(fd_t) dir = -1;
    g_autofree char *key = NULL;

    if (is_upload_id(call->upload_id))
        dir = beneath_open(store->root_fd, path, O_RDONLY | O_DIRECTORY, 0);
    if (dir >= 0)
        key = read_small(dir, "key", NULL);
    if (key && g_str_equal(key, call->key))
        return fd_steal(&dir);
    error_set(error, ENOENT, "%s: no such upload", call->key);
    return -1;
}

static bool fill_part(struct file_store *store, struct store_call *call, struct file_temp *temp,
                      GError **error)
{
    struct stat st;
    g_auto(fd_t) source = -1;

    if (call->verb == STORE_PART)
        return file_temp_write(temp, call, error);
    source = file_store_open_object(store, call->source_key, call->if_match, &st, error);
    if (source < 0)
        return false;
    if (call->offset + call->length > (uint64_t)st.st_size)
        return error_set(error, EINVAL, "%s: the range is outside the object", call->source_key);
    return file_temp_append(temp, source, call->offset, call->length, call, error);
}

void file_store_part(struct file_store *store, struct store_call *call, GError **error)
{
    g_autofree char *name = g_strdup_printf("part-%u", call->part_number);
    g_auto(fd_t) dir = open_upload(store, call, error);
    g_auto(file_temp_t) temp = {.tmp_fd = -1, .fd = -1};
    struct timespec now[2] = {{.tv_nsec = UTIME_OMIT}};
    struct stat st;

    if (dir < 0 || !file_temp_open(&temp, store, error) || !fill_part(store, call, &temp, error))
        return;
    clock_gettime(CLOCK_REALTIME, &now[1]);
    if (futimens(temp.fd, now) < 0 || fstat(temp.fd, &st) < 0 ||
        renameat(temp.tmp_fd, temp.name, dir, name) < 0) {
        if (errno == ENOENT)
            error_set(error, ENOENT, "%s: no such upload", call->key);
        else
            file_store_error(error, errno, "keep a part of", call->key);
        return;
    }
    g_clear_pointer(&temp.name, g_free);
    call->part_etag = file_store_etag(&st);
}

static bool append_part(int dir, const struct store_part *part, struct file_temp *temp,
                        struct store_call *call, GError **error)
{
    g_autofree char *name = g_strdup_printf("part-%u", part->number);
    g_auto(fd_t) fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    g_autofree char *etag = NULL;
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0)
        etag = file_store_etag(&st);
    if (!etag || g_strcmp0(etag, part->etag) != 0)
        return error_set(error, EINVAL, "%s: part %u of the upload is not there", call->key,
                         part->number);
    return file_temp_append(temp, fd, 0, (uint64_t)st.st_size, call, error);
}

void file_store_commit(struct file_store *store, struct store_call *call, GError **error)
{
    g_auto(fd_t) dir = open_upload(store, call, error);
    g_auto(file_temp_t) temp = {.tmp_fd = -1, .fd = -1};
    g_autoptr(GHashTable) metadata = NULL;
    g_autofree char *text = NULL;
    size_t size;

    if (dir < 0 || !file_temp_open(&temp, store, error))
        return;
    text = read_small(dir, "meta", &size);
    if (!text || !call->parts || !call->parts->len) {
        error_set(error, EINVAL, "%s: an upload without parts", call->key);
        return;
    }
    metadata = file_store_parse_metadata(text, size);
    for (unsigned i = 0; i < call->parts->len; i++)
        if (!append_part(dir, &g_array_index(call->parts, struct store_part, i), &temp, call,
                         error))
            return;
    if (file_store_publish(&temp, call, metadata, error))
        file_store_remove_upload(store, call->upload_id, error);
}

void file_store_abort(struct file_store *store, struct store_call *call, GError **error)
{
    file_store_remove_upload(store, call->upload_id, error);
}

static bool remove_files(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!dir) {
        fd_close(&fd);
        return false;
    }
    while ((entry = readdir(dir)))
        if (!g_str_equal(entry->d_name, ".") && !g_str_equal(entry->d_name, ".."))
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    return true;
}

/* A part may arrive meanwhile: again until the directory is empty. */
bool file_store_remove_upload(struct file_store *store, const char *upload_id, GError **error)
{
    g_autofree char *path = g_strconcat(FILE_STORE_TMP "/" FILE_STORE_UPLOADS "/", upload_id, NULL);
    const char *name;
    g_auto(fd_t) parent = -1;
    g_auto(fd_t) dir = -1;

    if (!is_upload_id(upload_id))
        return true;
    parent = beneath_open_parent(store->root_fd, path, false, false, &name);
    dir = beneath_open(store->root_fd, path, O_RDONLY | O_DIRECTORY, 0);
    if (parent < 0 || dir < 0)
        return errno == ENOENT || file_store_error(error, errno, "abort an upload", upload_id);
    for (int tries = 0; tries < 100; tries++) {
        if (!remove_files(dir))
            break;
        if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return true;
        if (errno != ENOTEMPTY && errno != EEXIST)
            break;
    }
    return file_store_error(error, errno, "abort an upload", upload_id);
}

static int compare_uploads(const void *a, const void *b)
{
    const struct store_upload *x = *(struct store_upload *const *)a;
    const struct store_upload *y = *(struct store_upload *const *)b;
    int order = strcmp(x->key, y->key);

    return order ? order : strcmp(x->upload_id, y->upload_id);
}

static void add_upload(int uploads_fd, const char *id, const struct store_call *call,
                       GPtrArray *found)
{
    g_auto(fd_t) dir = openat(uploads_fd, id, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    g_autofree char *key = dir < 0 ? NULL : read_small(dir, "key", NULL);
    struct store_upload *upload;
    struct stat st;

    if (!key || !g_str_has_prefix(key, call->key) ||
        fstatat(dir, "key", &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    upload = g_new0(struct store_upload, 1);
    upload->key = g_steal_pointer(&key);
    upload->upload_id = g_strdup(id);
    upload->started_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
    g_ptr_array_add(found, upload);
}

static void upload_free(void *data)
{
    struct store_upload *upload = data;

    if (!upload)
        return;
    g_free(upload->key);
    g_free(upload->upload_id);
    g_free(upload);
}

/* "ID KEY" of the last one. */
static bool is_listed_before(const struct store_call *call, const struct store_upload *upload)
{
    const char *space = call->token ? strchr(call->token, ' ') : NULL;
    int order = space ? strcmp(upload->key, space + 1) : 1;

    if (order)
        return order < 0;
    return strncmp(upload->upload_id, call->token, (size_t)(space - call->token)) <= 0;
}

void file_store_uploads(struct file_store *store, struct store_call *call, GError **error)
{
    unsigned limit = call->limit ? MIN(call->limit, FILE_STORE_LIST_MAX) : FILE_STORE_LIST_MAX;
    g_autoptr(GPtrArray) found = g_ptr_array_new_with_free_func(upload_free);
    int fd = beneath_open(store->root_fd, FILE_STORE_TMP "/" FILE_STORE_UPLOADS,
                          O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct store_upload *last = NULL;
    struct dirent *entry;

    if (!dir) {
        if (errno != ENOENT)
            file_store_error(error, errno, "list the uploads of", store->base.url);
        fd_close(&fd);
        return;
    }
    while ((entry = readdir(dir)))
        if (is_upload_id(entry->d_name))
            add_upload(dirfd(dir), entry->d_name, call, found);
    closedir(dir);
    g_ptr_array_sort(found, compare_uploads);
    for (unsigned i = 0; i < found->len; i++) {
        if (is_listed_before(call, found->pdata[i]))
            continue;
        if (last && call->uploads->len == limit) {
            call->next_token = g_strdup_printf("%s %s", last->upload_id, last->key);
            return;
        }
        last = g_steal_pointer(&found->pdata[i]);
        g_ptr_array_add(call->uploads, last);
    }
}

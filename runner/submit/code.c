#include "runner/submit/code.h"
#include "config/autofd.h"
#include "config/error.h"
#include "config/log.h"
#include "config/paths.h"
#include "config/units.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    BLOCK = 1024 * 1024,
    PART = 16 * 1024 * 1024,
    LARGE = 100 * 1024 * 1024,
};

/* --- which files --- */

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool in_git(const char *dir)
{
    const char *argv[] = {"git", "-C", dir, "rev-parse", "--is-inside-work-tree", NULL};
    GSpawnFlags flags = G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL;
    g_autofree char *answer = NULL;
    int status;

    return g_spawn_sync(NULL, (char **)argv, NULL, flags, NULL, NULL, &answer, NULL, &status,
                        NULL) &&
           status == 0 && g_str_has_prefix(answer, "true");
}

/* What git lists in DIR, separated by zero bytes: a pipe, since g_spawn_sync hands out strings. */
static bool ask_git(const char *dir, GString *all, GError **error)
{
    const char *argv[] = {
        "git", "-C", dir, "ls-files", "-z", "--cached", "--others", "--exclude-standard", NULL};
    g_auto(fd_t) fd = -1;
    char block[65536];
    int status;
    GPid pid;
    ssize_t got;

    if (!g_spawn_async_with_pipes(NULL, (char **)argv, NULL,
                                  G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid,
                                  NULL, &fd, NULL, error))
        return false;
    while ((got = TEMP_FAILURE_RETRY(read(fd, block, sizeof block))) > 0)
        g_string_append_len(all, block, got);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return (got == 0 && status == 0) || error_set(error, EIO, "git ls-files in %s failed", dir);
}

/* The files of the repository DIR/BELOW. A submodule and a clone inside it are one name to git
 * each: they are asked for their own. */
static bool list_git(const char *dir, const char *below, GPtrArray *files, GError **error)
{
    g_autofree char *top = g_build_filename(dir, below, NULL);
    g_autoptr(GString) all = g_string_new(NULL);

    if (!ask_git(top, all, error))
        return false;
    for (const char *at = all->str; at < all->str + all->len; at += strlen(at) + 1) {
        g_autofree char *name = *below ? g_build_filename(below, at, NULL) : g_strdup(at);
        g_autofree char *mark = g_build_filename(dir, name, ".git", NULL);

        if (g_file_test(mark, G_FILE_TEST_EXISTS)) {
            if (!list_git(dir, name, files, error))
                return false;
        } else {
            g_ptr_array_add(files, g_steal_pointer(&name));
        }
    }
    return true;
}

static bool list_directory(const char *dir, const char *below, GPtrArray *files, GError **error)
{
    g_autofree char *path = g_build_filename(dir, below, NULL);
    g_autoptr(GDir) entries = g_dir_open(path, 0, error);
    const char *name;

    if (!entries)
        return false;
    while ((name = g_dir_read_name(entries))) {
        g_autofree char *relative = *below ? g_build_filename(below, name, NULL) : g_strdup(name);
        g_autofree char *full = g_build_filename(dir, relative, NULL);
        struct stat st;

        if (strcmp(name, ".git") == 0 || lstat(full, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode) && !list_directory(dir, relative, files, error))
            return false;
        if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))
            g_ptr_array_add(files, g_steal_pointer(&relative));
    }
    return true;
}

/* Where runs and artifacts are kept is no code, even when it is in the directory. */
static void leave_out_home(const char *dir, GPtrArray *files)
{
    g_autofree char *home = dstack_home(), *real_home = realpath(home, NULL);
    g_autofree char *real_dir = realpath(dir, NULL);
    g_autofree char *top = real_dir ? g_strconcat(real_dir, "/", NULL) : NULL;
    g_autofree char *below = NULL;

    if (!real_home || !top || !g_str_has_prefix(real_home, top))
        return;
    below = g_strconcat(real_home + strlen(top), "/", NULL);
    for (guint i = files->len; i-- > 0;)
        if (g_str_has_prefix(files->pdata[i], below))
            g_ptr_array_remove_index(files, i);
}

GPtrArray *code_files(const char *dir, GError **error)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);
    bool listed;

    if (strcmp(dir, "/") == 0) {
        error_set(error, EINVAL, "all of / would be code: run dstack in a project's directory");
        return NULL;
    }
    listed = in_git(dir) ? list_git(dir, "", files, error) : list_directory(dir, "", files, error);

    if (!listed)
        return NULL;
    leave_out_home(dir, files);
    g_ptr_array_sort(files, by_name);
    for (guint i = files->len; i-- > 1;) /* an unmerged file is listed once for each stage */
        if (strcmp(files->pdata[i], files->pdata[i - 1]) == 0)
            g_ptr_array_remove_index(files, i);
    return g_steal_pointer(&files);
}

/* Every run takes the code along: data among it is a mistake more often than not, and slow. */
static void warn_if_large(const char *dir, const GPtrArray *files)
{
    uint64_t bytes = 0;

    for (guint i = 0; i < files->len; i++) {
        g_autofree char *path = g_build_filename(dir, files->pdata[i], NULL);
        struct stat st;

        if (lstat(path, &st) == 0 && S_ISREG(st.st_mode))
            bytes += (uint64_t)st.st_size;
    }
    if (bytes > LARGE) {
        g_autofree char *size = size_format(bytes);

        log_warning("the code in %s has %s: keep data elsewhere, or have git ignore it", dir, size);
    }
}

/* --- to the store and back --- */

static char *code_key(const char *sha256)
{
    return g_strdup_printf("code/%s.tar.zst", sha256);
}

static int temporary_file(GError **error)
{
    const char *dir = g_get_tmp_dir();
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0) {
        g_autofree char *path = g_build_filename(dir, "dstack-code-XXXXXX", NULL);

        fd = g_mkstemp_full(path, O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0)
            error_set_errno(error, errno, "make a temporary file in %s", dir);
        else
            unlink(path);
    }
    return fd;
}

static bool hash_file(int fd, char **sha256, uint64_t *size, GError **error)
{
    g_autoptr(GChecksum) checksum = g_checksum_new(G_CHECKSUM_SHA256);
    g_autofree guchar *block = g_malloc(BLOCK);
    ssize_t got;

    *size = 0;
    while ((got = pread(fd, block, BLOCK, (off_t)*size)) > 0) {
        g_checksum_update(checksum, block, got);
        *size += (uint64_t)got;
    }
    if (got < 0)
        return error_set_errno(error, errno, "read the snapshot");
    *sha256 = g_strdup(g_checksum_get_string(checksum));
    return true;
}

static bool read_whole(int fd, char *buffer, size_t size, uint64_t offset, GError **error)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = pread(fd, buffer + done, size - done, (off_t)(offset + done));

        if (got <= 0)
            return error_set_errno(error, got < 0 ? errno : EIO, "read the snapshot");
        done += (size_t)got;
    }
    return true;
}

static bool upload_parts(struct store *root, const char *key, int fd, uint64_t size,
                         const char *upload, GError **error)
{
    g_autoptr(StoreCall) commit = store_call_commit(key, upload);
    uint64_t part_bytes = MAX((uint64_t)PART, size / (store_caps(root)->max_parts - 1) + 1);
    g_autofree char *buffer = g_malloc(part_bytes);
    unsigned number = 1;

    for (uint64_t offset = 0; offset < size; offset += part_bytes, number++) {
        size_t length = MIN(part_bytes, size - offset);
        g_autoptr(StoreCall) part = NULL;

        if (!read_whole(fd, buffer, length, offset, error))
            return false;
        part = store_call_part(key, upload, number, buffer, length);
        if (!store_run(root, part, error))
            return false;
        store_call_add_part(commit, number, part->part_etag);
    }
    return store_run(root, commit, error);
}

static bool upload(struct store *root, const char *key, int fd, uint64_t size, GError **error)
{
    g_autoptr(StoreCall) begin = NULL;

    if (size <= PART) {
        g_autofree char *buffer = g_malloc(size + 1);

        return read_whole(fd, buffer, size, 0, error) &&
               store_write(root, key, buffer, size, NULL, NULL, error);
    }
    begin = store_call_new(STORE_BEGIN, key);
    if (!store_run(root, begin, error))
        return false;
    if (!upload_parts(root, key, fd, size, begin->upload_id, error)) {
        g_autoptr(StoreCall) abort = store_call_new(STORE_ABORT, key);

        abort->upload_id = g_strdup(begin->upload_id);
        store_run(root, abort, NULL);
        return false;
    }
    return true;
}

static char *reference_key(const char *sha256, const char *reference)
{
    return g_strdup_printf("code/%s!%s", sha256, reference);
}

/* The reference comes first: who releases the last one of the others sees it. */
static bool upload_once(struct store *root, const char *sha256, const char *reference, int fd,
                        uint64_t size, GError **error)
{
    g_autofree char *key = code_key(sha256), *needed = reference_key(sha256, reference);
    struct store_object there = {0};
    bool found;

    if (!store_write(root, needed, "", 0, NULL, NULL, error))
        return false;
    found = store_head(root, key, &there, NULL) && there.size_bytes == size;
    store_object_clear(&there);
    return found || upload(root, key, fd, size, error);
}

/* What is full is not DIR, nor the store. */
static bool pack(const char *dir, GPtrArray *files, int fd, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (code_pack(dir, files, fd, &why))
        return true;
    if (error_is(why, ENOSPC))
        return error_set_errno(error, ENOSPC,
                               "%s has no room for the snapshot: free some, or set TMPDIR",
                               g_get_tmp_dir());
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

bool code_save(struct store *root, const char *dir, const char *reference, char **sha256,
               GError **error)
{
    g_autoptr(GPtrArray) files = code_files(dir, error);
    g_autofree char *name = NULL;
    g_auto(fd_t) fd = -1;
    uint64_t size;

    if (files)
        warn_if_large(dir, files);
    if (!files || (fd = temporary_file(error)) < 0 || !pack(dir, files, fd, error) ||
        !hash_file(fd, &name, &size, error))
        return false;
    if (!upload_once(root, name, reference, fd, size, error)) {
        code_release(root, name, reference, NULL);
        return false;
    }
    *sha256 = g_steal_pointer(&name);
    return true;
}

static bool note_one(const struct store_object *object, void *user, GError **error)
{
    *(bool *)user = true;
    return false; /* one is enough */
}

bool code_release(struct store *root, const char *sha256, const char *reference, GError **error)
{
    g_autofree char *key = code_key(sha256), *ours = reference_key(sha256, reference);
    g_autofree char *all = reference_key(sha256, "");
    bool needed = false;

    return store_delete(root, ours, error) &&
           store_list(root, all, false, note_one, &needed, error) &&
           (needed || store_delete(root, key, error));
}

static bool download(struct store *root, const char *key, int fd, GError **error)
{
    g_autofree char *buffer = g_malloc(PART);
    g_autofree char *etag = NULL;

    for (uint64_t offset = 0;;) {
        g_autoptr(StoreCall) get = store_call_get(key, offset, buffer, PART);

        get->if_match = g_strdup(etag);
        if (!store_run(root, get, error))
            return false;
        if (!etag)
            etag = g_strdup(get->object.etag);
        for (uint64_t done = 0; done < get->received_bytes;) {
            ssize_t put =
                pwrite(fd, buffer + done, get->received_bytes - done, (off_t)(offset + done));

            if (put < 0)
                return error_set_errno(error, errno, "save the snapshot");
            done += (uint64_t)put;
        }
        offset += get->received_bytes;
        if (get->received_bytes < PART)
            return true;
    }
}

bool code_restore(struct store *root, const char *sha256, const char *dir, GError **error)
{
    g_autofree char *key = code_key(sha256);
    g_autofree char *found = NULL;
    g_auto(fd_t) fd = temporary_file(error);
    uint64_t size;

    if (fd < 0 || !download(root, key, fd, error) || !hash_file(fd, &found, &size, error))
        return false;
    if (g_strcmp0(found, sha256) != 0)
        return error_set(error, EIO, "%s is damaged: its SHA-256 is %s", key, found);
    return code_unpack(fd, dir, error);
}

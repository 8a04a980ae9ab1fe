#include "runner/job/read_ahead.h"
#include "config/autofd.h"
#include "config/log.h"
#include "runner/work_dir.h"
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

enum { BLOCK = 1024 * 1024, FILES_MAX = 100000, DEPTH_MAX = 32 };

struct read_ahead {
    GPtrArray *paths;
    uint64_t limit_bytes;
    int stop; /* atomic */
    pthread_t thread;
};

struct found {
    char *path;
    int64_t mtime_ns;
    uint64_t size;
};

static bool is_stopped(const int *stop)
{
    return __atomic_load_n(stop, __ATOMIC_ACQUIRE);
}

static void found_clear(gpointer data)
{
    g_free(((struct found *)data)->path);
}

static void find_files(const char *directory, unsigned depth, GArray *files, const int *stop)
{
    g_autoptr(GDir) dir = g_dir_open(directory, 0, NULL);
    const char *name;

    while (dir && !is_stopped(stop) && files->len < FILES_MAX && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(directory, name, NULL);
        struct stat st;

        if (lstat(path, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
            find_files(path, depth + 1, files, stop);
        } else if (S_ISREG(st.st_mode) && st.st_size > 0) {
            struct found file = {g_steal_pointer(&path),
                                 st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec,
                                 (uint64_t)st.st_size};

            g_array_append_val(files, file);
        }
    }
}

static gint newest_first(gconstpointer a, gconstpointer b)
{
    const struct found *left = a, *right = b;

    return left->mtime_ns < right->mtime_ns ? 1 : left->mtime_ns > right->mtime_ns ? -1 : 0;
}

/* A file that cannot be read is for the commands to complain of. */
static uint64_t read_file(const char *path, char *block, const int *stop)
{
    g_auto(fd_t) fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    uint64_t bytes = 0;
    ssize_t got;

    while (fd >= 0 && !is_stopped(stop) && (got = read(fd, block, BLOCK)) > 0)
        bytes += (uint64_t)got;
    return bytes;
}

uint64_t read_ahead_newest(GPtrArray *paths, uint64_t limit_bytes, const int *stop)
{
    g_autoptr(GArray) files = g_array_new(FALSE, FALSE, sizeof(struct found));
    g_autofree char *block = g_malloc(BLOCK);
    uint64_t bytes = 0;

    g_array_set_clear_func(files, found_clear);
    for (guint i = 0; i < paths->len; i++)
        find_files(paths->pdata[i], 0, files, stop);
    g_array_sort(files, newest_first);
    for (guint i = 0; i < files->len && !is_stopped(stop); i++) {
        const struct found *file = &g_array_index(files, struct found, i);

        if (file->size > limit_bytes - MIN(bytes, limit_bytes))
            break; /* older ones are wanted less than this one */
        bytes += read_file(file->path, block, stop);
    }
    return bytes;
}

static uint64_t free_memory(void)
{
    g_autofree char *text = NULL;
    const char *found;

    if (!g_file_get_contents("/proc/meminfo", &text, NULL, NULL))
        return 0;
    found = strstr(text, "MemAvailable:");
    return found ? g_ascii_strtoull(found + strlen("MemAvailable:"), NULL, 10) * 1024 : 0;
}

static void *run_ahead(void *user)
{
    struct read_ahead *ahead = user;
    int64_t began_us = g_get_monotonic_time();
    uint64_t bytes = read_ahead_newest(ahead->paths, ahead->limit_bytes, &ahead->stop);

    log_info("%" G_GUINT64_FORMAT " bytes of mounted artifacts were read ahead in %.2f s", bytes,
             (double)(g_get_monotonic_time() - began_us) / G_USEC_PER_SEC);
    return NULL;
}

static void read_ahead_free(struct read_ahead *ahead)
{
    g_ptr_array_unref(ahead->paths);
    g_free(ahead);
}

struct read_ahead *read_ahead_start(const struct run *run)
{
    struct read_ahead *ahead;

    if (run->attempt < 2)
        return NULL;
    ahead = g_new0(struct read_ahead, 1);
    ahead->paths = g_ptr_array_new_with_free_func(g_free);
    ahead->limit_bytes = free_memory() / 4;
    for (guint i = 0; i < run->artifacts->len; i++) {
        const struct run_artifact *artifact = run->artifacts->pdata[i];

        if (artifact->mount)
            g_ptr_array_add(ahead->paths, work_dir_path(run, artifact->path));
    }
    if (ahead->paths->len && pthread_create(&ahead->thread, NULL, run_ahead, ahead) == 0)
        return ahead;
    read_ahead_free(ahead);
    return NULL;
}

void read_ahead_cancel(struct read_ahead *ahead)
{
    if (ahead)
        __atomic_store_n(&ahead->stop, 1, __ATOMIC_RELEASE);
}

void read_ahead_stop(struct read_ahead *ahead)
{
    if (!ahead)
        return;
    read_ahead_cancel(ahead);
    pthread_join(ahead->thread, NULL);
    read_ahead_free(ahead);
}

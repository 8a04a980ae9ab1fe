/* Many threads on one filesystem at once: writes, reads, fsyncs, renames, listings. Under
 * ThreadSanitizer it finds races; without it, that every file holds what was written last. */
#include "fusefs/fs.h"
#include "fusefs/journal.h"
#include "fusefs/lease.h"

#include "tests/support/memory_store.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORKERS 4
#define ROUNDS  8
#define PIECE   (1u << 20)
#define PIECES  10

static struct fs *fs;

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "failed: %s\n", what);
    abort();
}

static void compare(void *user, const struct iovec *iov, unsigned count)
{
    const uint8_t *byte = user;

    must(count > 0, "read came to the end");
    for (unsigned i = 0; i < count; i++)
        for (size_t j = 0; j < iov[i].iov_len; j += 997)
            must(((uint8_t *)iov[i].iov_base)[j] == *byte, "bytes read are those written");
}

static void check_file(struct fs_file *file, struct fs_caller *caller, uint8_t byte)
{
    for (unsigned i = 0; i < PIECES; i++)
        must(fs_read(fs, caller, file, (uint64_t)i * PIECE, 128 * 1024, compare, &byte) == 0,
             "read");
}

static void round_of(unsigned worker, unsigned round, uint8_t *data)
{
    struct fs_caller caller = {0};
    g_autofree char *name = g_strdup_printf("f%u", worker);
    g_autofree char *moved = g_strdup_printf("g%u", worker);
    uint8_t byte = worker * 16 + round;
    struct fs_file *file;
    struct fs_entry entry;
    struct fs_dir *dir;
    struct stat st;

    must(fs_create(fs, &caller, FS_ROOT, name, 0644, O_RDWR, &file, &st) == 0, "create");
    memset(data, byte, PIECE);
    for (unsigned i = 0; i < PIECES; i++)
        must(fs_write(fs, &caller, file, (uint64_t)i * PIECE, data, PIECE) == 0, "write");
    if (round % 2)
        check_file(file, &caller, byte);
    must(fs_fsync(fs, &caller, file) == 0, "fsync");
    check_file(file, &caller, byte);
    must(fs_rename(fs, &caller, FS_ROOT, name, FS_ROOT, moved, 0) == 0, "rename");
    check_file(file, &caller, byte);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    must(fs_opendir(fs, &caller, FS_ROOT, &dir) == 0, "opendir");
    for (uint64_t at = 0; fs_dir_entry(dir, at, &entry); at++)
        if (fs_dir_stat(fs, dir, &entry, &st) ||
            (at > 1 && fs_lookup(fs, &caller, FS_ROOT, entry.name, &st) == 0))
            fs_forget(fs, st.st_ino, 1);
    fs_closedir(fs, dir);
}

static void *work(void *user)
{
    unsigned worker = GPOINTER_TO_UINT(user);
    g_autofree uint8_t *data = g_malloc(PIECE);

    for (unsigned round = 0; round < ROUNDS; round++)
        round_of(worker, round, data);
    return NULL;
}

/* Renames of the directory that everybody else writes in. */
static void *rename_directories(void *user)
{
    static const char *const names[] = {"d0", "d1"};
    struct fs_caller caller = {0};

    for (unsigned i = 0; i < 2 * ROUNDS; i++) {
        must(fs_rename(fs, &caller, FS_ROOT, names[i % 2], FS_ROOT, names[(i + 1) % 2], 0) == 0,
             "rename of a directory");
        g_usleep(3000);
    }
    return NULL;
}

static uint64_t directory;

static void *write_below(void *user)
{
    struct fs_caller caller = {0};
    g_autofree uint8_t *data = g_malloc(PIECE);
    g_autofree char *name = g_strdup_printf("below%u", GPOINTER_TO_UINT(user));

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint8_t byte = GPOINTER_TO_UINT(user) * 16 + round;
        struct fs_file *file;
        struct stat st;

        must(fs_create(fs, &caller, directory, name, 0644, round % 2 ? O_RDWR : O_WRONLY, &file,
                       &st) == 0,
             "create below");
        memset(data, byte, PIECE);
        for (unsigned i = 0; i < PIECES; i++)
            must(fs_write(fs, &caller, file, (uint64_t)i * PIECE, data, PIECE) == 0, "write below");
        must(fs_fsync(fs, &caller, file) == 0, "fsync below");
        check_file(file, &caller, byte);
        fs_release(fs, file);
        must(fs_unlink(fs, &caller, directory, name) == 0, "unlink below");
        fs_forget(fs, st.st_ino, 1);
    }
    return NULL;
}

static void run_below(void)
{
    struct fs_caller caller = {0};
    pthread_t threads[WORKERS];
    struct stat st;

    must(fs_mkdir(fs, &caller, FS_ROOT, "d0", 0755, &st) == 0, "mkdir");
    directory = st.st_ino;
    for (unsigned i = 0; i < WORKERS; i++)
        must(pthread_create(&threads[i], NULL, i ? write_below : rename_directories,
                            GUINT_TO_POINTER(i)) == 0,
             "thread");
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
}

static void run(bool exclusive)
{
    struct fs_options options = {.budget_bytes = 64 << 20, .sync_interval_ms = 50};
    struct lease_options how = {.exclusive = exclusive, .ttl_ms = 1000};
    struct store *store = memory_store_new();
    struct lease_record *previous;
    pthread_t threads[WORKERS];
    char journal_dir[] = "/tmp/dstack-race.XXXXXX";

    must(mkdtemp(journal_dir) != NULL, "directory");
    if (exclusive)
        options.journal = journal_open(journal_dir, "", options.budget_bytes, NULL);
    must(!exclusive || (options.journal && journal_begin(options.journal, NULL)), "journal");
    options.lease = lease_acquire(store, &how, &previous, NULL);
    must(options.lease != NULL, "lease");
    fs = fs_new(store, &options);
    for (unsigned i = 0; i < WORKERS; i++)
        must(pthread_create(&threads[i], NULL, work, GUINT_TO_POINTER(i)) == 0, "thread");
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    run_below();
    must(fs_drain(fs, 20000, NULL), "drain");
    must(fs_peak_bytes(fs) <= options.budget_bytes, "memory stays in its budget");
    fs_free(fs);
    must(!journal_close(options.journal), "nothing is unsaved");
    must(rmdir(journal_dir) == 0, "nothing is left of the journal");
    lease_release(options.lease);
    must(memory_store_uploads(store) == 0, "no upload is left");
    store_unref(store);
}

int main(void)
{
    run(false);
    run(true);
    printf("%u workers, %u rounds each\n", WORKERS, ROUNDS);
    return 0;
}

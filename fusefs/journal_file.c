/* The journal's file: where it is, whose it is, and what earlier mounts left. */
#include "fusefs/journal_internal.h"

#include "config/autofd.h"
#include "config/error.h"
#include "config/log.h"
#include "config/process_id.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORGOTTEN_S (14 * 86400)
#define TOUCH_S     3600
#define SLACK_SLOTS 48 /* for chains, and for slots that are not full */

/* Processes of other PID namespaces are of the same boot. */
static char *boot_id(void)
{
    g_autofree char *machine = machine_id();

    return g_strndup(machine, strcspn(machine, "/"));
}

static char *default_directory(void)
{
    const char *given = g_getenv("DSTACK_JOURNAL_DIR");

    if (given && *given)
        return g_strdup(given);
    return g_strdup_printf("/dev/shm/dstack-%u", (unsigned)geteuid());
}

/* A directory of ours that nobody else can look or write into. */
static int open_directory(const char *path, GError **error)
{
    g_auto(fd_t) fd = -1;
    struct stat st;

    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        error_set_errno(error, errno, "make the directory of the journal, %s", path);
        return -1;
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        error_set_errno(error, errno, "open the directory of the journal, %s", path);
        return -1;
    }
    if (st.st_uid != geteuid() || (st.st_mode & 077)) {
        error_set(error, EPERM,
                  "the directory of the journal, %s, is not ours alone (owner, mode 0700)", path);
        return -1;
    }
    return fd_steal(&fd);
}

static void old_free(void *data)
{
    struct journal_old *old = data;

    if (old->data)
        munmap((void *)old->data, old->size);
    if (old->fd >= 0)
        close(old->fd);
    g_free(old->path);
    g_free(old);
}

/* Its mount was killed before it held anything. */
static bool is_empty(const struct journal_old *old)
{
    return old->size < JOURNAL_SLOT || !*(const char *)old->data;
}

/* False, and why, when OLD is nothing to recover from. */
static bool check_old(const struct journal_old *old, const char *source, GError **error)
{
    const struct journal_header *header = (const void *)old->data;

    if (memcmp(header->magic, JOURNAL_MAGIC, sizeof(header->magic)) != 0 ||
        header->version != JOURNAL_VERSION || header->files != JOURNAL_FILES ||
        !memchr(header->source, '\0', sizeof(header->source)) ||
        !g_str_has_prefix(source, header->source))
        return error_set(error, EINVAL, "%s is no journal of this version and store", old->path);
    return true;
}

static bool is_of_this_boot(const struct journal_old *old)
{
    const struct journal_header *header = (const void *)old->data;
    g_autofree char *boot = boot_id();

    return strncmp(header->boot, boot, sizeof(header->boot)) == 0;
}

/* NULL: in use (no *ERROR), not ours, or cannot be had. */
static struct journal_old *open_old(int directory, const char *path, const char *name,
                                    GError **error)
{
    struct journal_old *old = g_new0(struct journal_old, 1);
    struct stat st;
    void *data;

    old->path = g_build_filename(path, name, NULL);
    old->fd = openat(directory, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (old->fd < 0 || fstat(old->fd, &st) != 0) {
        error_set_errno(error, errno, "open %s", old->path);
    } else if (!S_ISREG(st.st_mode) || st.st_uid != geteuid()) {
        error_set(error, EPERM, "%s is not ours", old->path);
    } else if (flock(old->fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            error_set_errno(error, errno, "lock %s", old->path);
    } else {
        old->size = st.st_size;
        data = old->size ? mmap(NULL, old->size, PROT_READ, MAP_SHARED, old->fd, 0) : NULL;
        if (data != MAP_FAILED) {
            old->data = data;
            return old;
        }
        error_set_errno(error, errno, "map %s", old->path);
    }
    old_free(old);
    return NULL;
}

bool journal_old_is_backed(const struct journal_old *old, uint64_t pos, uint64_t length)
{
    off_t hole;

    if (pos > old->size || length > old->size - pos)
        return false;
    hole = lseek(old->fd, (off_t)pos, SEEK_HOLE);
    return hole >= 0 && (uint64_t)hole >= pos + length;
}

bool journal_old_cross_out(const struct journal_old *old, uint32_t index, GError **error)
{
    uint64_t none = 0;

    if (pwrite(old->fd, &none, sizeof(none), JOURNAL_TABLE + (off_t)index * (off_t)sizeof(none)) ==
        sizeof(none))
        return true;
    return error_set_errno(error, errno, "write %s", old->path);
}

bool journal_old_remove(struct journal *journal, GError **error)
{
    const struct journal_old *old = journal->old->pdata[0];

    if (unlink(old->path) != 0)
        return error_set_errno(error, errno, "remove %s", old->path);
    g_ptr_array_remove_index(journal->old, 0); /* its memory is free then */
    return true;
}

/* Takes over the file NAME that a dead mount left. What is of another version stays. */
static void take_old(struct journal *journal, int directory, const char *path, const char *name,
                     const char *source)
{
    g_autoptr(GError) why = NULL;
    struct journal_old *old = open_old(directory, path, name, &why);

    if (old && !is_empty(old) && check_old(old, source, &why) && is_of_this_boot(old)) {
        g_ptr_array_add(journal->old, old);
        return;
    }
    if (why) {
        log_error("%s: what it holds is not recovered", why->message);
    } else if (old) {
        if (!is_empty(old))
            log_error("%s is of an earlier boot: what it held is not recovered", old->path);
        if (unlinkat(directory, name, 0) != 0)
            log_warning("remove %s: %s", old->path, g_strerror(errno));
    }
    if (old)
        old_free(old);
}

/* Files of dead mounts that nobody has come back for, of whatever store: nobody holds their lock,
 * and their owners have not touched them for long. */
static void remove_forgotten(const char *path, int directory)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_auto(fd_t) fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ||
            now - st.st_mtime < FORGOTTEN_S || flock(fd, LOCK_EX | LOCK_NB) != 0)
            continue;
        if (unlinkat(directory, name, 0) == 0)
            log_warning("removed %s/%s: for %d days nobody has mounted what it was to be saved to",
                        path, name, FORGOTTEN_S / 86400);
    }
}

static int compare_numbers(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* The numbers N of files HASH.N, ascending. */
static GArray *list_numbers(const char *path, const char *hash)
{
    GArray *numbers = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        uint64_t number;

        if (!g_str_has_prefix(name, hash) || name[strlen(hash)] != '.')
            continue;
        if (g_ascii_string_to_unsigned(name + strlen(hash) + 1, 10, 1, UINT32_MAX, &number, NULL))
            g_array_append_val(numbers, number);
    }
    g_array_sort(numbers, compare_numbers);
    return numbers;
}

static void fill(GArray *stack, uint32_t first, uint32_t end)
{
    for (uint32_t i = end; i-- > first;)
        g_array_append_val(stack, i);
}

static bool fail_to_begin(struct journal *journal, int code, const char *what, GError **error)
{
    if (journal->fd >= 0)
        unlink(journal->path);
    return error_set_errno(error, code, "%s the journal %s", what, journal->path);
}

static int64_t now_s(void)
{
    return g_get_monotonic_time() / G_USEC_PER_SEC;
}

bool journal_begin(struct journal *journal, GError **error)
{
    struct journal_header header = {.version = JOURNAL_VERSION, .files = JOURNAL_FILES};
    g_autofree char *boot = boot_id();
    void *data;

    /* Locked before it has a size: an empty file is nobody's journal. */
    journal->fd = open(journal->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (journal->fd < 0 || flock(journal->fd, LOCK_EX | LOCK_NB) != 0 ||
        ftruncate(journal->fd, (off_t)journal->bytes) != 0 ||
        fallocate(journal->fd, 0, 0, JOURNAL_SLOT) != 0)
        return fail_to_begin(journal, errno, "make", error);
    data = mmap(NULL, journal->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, journal->fd, 0);
    if (data == MAP_FAILED)
        return fail_to_begin(journal, errno, "map", error);
    journal->data = data;
    journal->table = (_Atomic uint64_t *)(void *)(journal->data + JOURNAL_TABLE);
    header.bytes = journal->bytes;
    g_strlcpy(header.boot, boot, sizeof(header.boot));
    g_strlcpy(header.source, journal->source, sizeof(header.source));
    memcpy(journal->data + sizeof(header.magic), (uint8_t *)&header + sizeof(header.magic),
           sizeof(header) - sizeof(header.magic));
    memcpy(journal->data, JOURNAL_MAGIC, sizeof(header.magic));
    pthread_mutex_lock(&journal->lock);
    fill(journal->unused, 1, journal->bytes / JOURNAL_SLOT);
    fill(journal->indices, 0, JOURNAL_FILES);
    pthread_mutex_unlock(&journal->lock);
    atomic_store(&journal->touched_s, now_s());
    return true;
}

void journal_touch(struct journal *journal)
{
    int64_t now = now_s(), touched_s = atomic_load(&journal->touched_s);

    if (!touched_s || now - touched_s < TOUCH_S ||
        !atomic_compare_exchange_strong(&journal->touched_s, &touched_s, now))
        return;
    if (futimens(journal->fd, NULL) != 0)
        log_warning("%s: set its time: %s", journal->path, g_strerror(errno));
}

static struct journal *journal_new(uint64_t bytes)
{
    struct journal *journal = g_new0(struct journal, 1);

    journal->fd = -1;
    journal->bytes =
        ((bytes + JOURNAL_SLOT - 1) / JOURNAL_SLOT + SLACK_SLOTS) * (uint64_t)JOURNAL_SLOT;
    journal->old = g_ptr_array_new_with_free_func(old_free);
    journal->slots = g_new0(struct journal_slot *, journal->bytes / JOURNAL_SLOT);
    journal->unused = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    journal->warm = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    journal->indices = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    for (unsigned i = 0; i < JOURNAL_CLASSES; i++)
        journal->partial[i] = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    pthread_mutex_init(&journal->lock, NULL);
    return journal;
}

static void journal_destroy(struct journal *journal)
{
    if (journal->data)
        munmap(journal->data, journal->bytes);
    if (journal->fd >= 0)
        close(journal->fd);
    for (uint64_t i = 0; i < journal->bytes / JOURNAL_SLOT; i++)
        g_free(journal->slots[i]);
    g_free(journal->slots);
    g_ptr_array_unref(journal->old);
    g_array_unref(journal->unused);
    g_array_unref(journal->warm);
    g_array_unref(journal->indices);
    for (unsigned i = 0; i < JOURNAL_CLASSES; i++)
        g_array_unref(journal->partial[i]);
    pthread_mutex_destroy(&journal->lock);
    g_free(journal->source);
    g_free(journal->path);
    g_free(journal);
}

struct journal *journal_open(const char *directory, const char *source, uint64_t bytes,
                             GError **error)
{
    g_autofree char *path = directory ? g_strdup(directory) : default_directory();
    g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, source, -1);
    g_autoptr(GArray) numbers = NULL;
    g_auto(fd_t) fd = open_directory(path, error);
    struct journal *journal;
    uint64_t last = 0;

    if (fd < 0)
        return NULL;
    hash[32] = '\0';
    journal = journal_new(bytes);
    journal->is_shared = !directory;
    numbers = list_numbers(path, hash);
    for (guint i = 0; i < numbers->len; i++) {
        g_autofree char *name = NULL;

        last = g_array_index(numbers, uint64_t, i);
        name = g_strdup_printf("%s.%" G_GUINT64_FORMAT, hash, last);
        take_old(journal, fd, path, name, source);
    }
    if (!directory)
        remove_forgotten(path, fd); /* what was taken is locked */
    journal->path = g_strdup_printf("%s/%s.%" G_GUINT64_FORMAT, path, hash, last + 1);
    journal->source = g_strdup(source);
    return journal;
}

/* Whether FD's file still has its name. */
static bool is_linked(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && st.st_nlink > 0;
}

bool journal_close(struct journal *journal)
{
    bool left = false;

    if (!journal)
        return false;
    if (journal->data && journal->indices->len < JOURNAL_FILES)
        left = true;
    else if (journal->data && unlink(journal->path) != 0)
        log_warning("remove %s: %s", journal->path, g_strerror(errno));
    for (guint i = 0; i < journal->old->len; i++)
        left = left || is_linked(((struct journal_old *)journal->old->pdata[i])->fd);
    journal_destroy(journal);
    return left;
}

unsigned journal_old_count(const struct journal *journal)
{
    return journal->old->len;
}

const struct journal_old *journal_old_at(const struct journal *journal, unsigned index)
{
    return journal->old->pdata[index];
}

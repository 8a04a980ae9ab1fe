/* What a process that is killed at any moment leaves: replayed against a model of its files. */
#include "tests/unit/fusefs/journal_fixture.h"

#include <sys/mman.h>

#define FILES     3
#define OPS       150
#define SIZE_MOST (5 * MIB)

/* For 2,000 kills; CTest's own limit is shorter unless tests are long. */
TestSuite(journal_kills, .init = set_up_directory, .fini = tear_down_directory, .timeout = 3000);

/* --- a program: what it does follows from its seed --- */

struct model {
    char name[8];
    GByteArray *bytes;     /* as the program sees it */
    GByteArray *published; /* as everybody does; NULL: not there */
};

struct run {
    GRand *rand;
    struct model models[FILES];
    struct fs_file *files[FILES]; /* NULL in the model's own run */
    bool live;
};

/* In memory that the parent has too. */
struct progress {
    atomic_uint begun, ended;
};

static GByteArray *copy_of(const GByteArray *bytes)
{
    GByteArray *copy = g_byte_array_new();

    if (bytes->len)
        g_byte_array_append(copy, bytes->data, bytes->len);
    return copy;
}

static void publish_model(struct model *model)
{
    if (model->published)
        g_byte_array_unref(model->published);
    model->published = copy_of(model->bytes);
}

static void open_file(struct run *run, unsigned i, int flags)
{
    struct stat st;

    if (run->live)
        must(
            fs_create(fs, &caller, FS_ROOT, run->models[i].name, 0644, flags, &run->files[i], &st));
}

static void run_start(struct run *run, unsigned seed, bool live)
{
    run->rand = g_rand_new_with_seed(seed);
    run->live = live;
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(run->models[i].name, sizeof(run->models[i].name), "%c0", 'a' + i);
        run->models[i].bytes = g_byte_array_new();
        run->models[i].published = NULL;
        open_file(run, i, i == 1 ? O_RDWR : O_WRONLY);
    }
}

static void run_clear(struct run *run)
{
    for (unsigned i = 0; i < FILES; i++) {
        g_byte_array_unref(run->models[i].bytes);
        if (run->models[i].published)
            g_byte_array_unref(run->models[i].published);
    }
    g_rand_free(run->rand);
}

static void write_some(struct run *run, unsigned i, uint64_t offset, uint64_t size)
{
    struct model *model = &run->models[i];
    g_autofree uint8_t *data = g_malloc(size);
    uint64_t word = g_rand_int(run->rand);
    guint before = model->bytes->len;

    for (uint64_t j = 0; j < size; j += sizeof(word)) {
        word = word * 6364136223846793005ull + 1442695040888963407ull;
        memcpy(data + j, &word, MIN(sizeof(word), size - j));
    }
    if (run->live)
        must(fs_write(fs, &caller, run->files[i], offset, data, size));
    if (offset + size > before) {
        g_byte_array_set_size(model->bytes, offset + size);
        if (offset > before)
            memset(model->bytes->data + before, 0, offset - before);
    }
    memcpy(model->bytes->data + offset, data, size);
}

static void cut(struct run *run, unsigned i, uint64_t size)
{
    struct model *model = &run->models[i];
    struct stat st = {.st_size = size};
    guint before = model->bytes->len;

    if (run->live)
        must(fs_setattr(fs, &caller, run->files[i]->inode->ino, &st, FS_SET_SIZE, &st));
    g_byte_array_set_size(model->bytes, size);
    if (size > before)
        memset(model->bytes->data + before, 0, size - before);
}

static void move(struct run *run, unsigned i)
{
    struct model *model = &run->models[i];
    char to[8];

    snprintf(to, sizeof(to), "%c%c", model->name[0], model->name[1] == '0' ? '1' : '0');
    if (run->live)
        must(fs_rename(fs, &caller, FS_ROOT, model->name, FS_ROOT, to, 0));
    g_strlcpy(model->name, to, sizeof(model->name));
    publish_model(model);
}

static void reopen(struct run *run, unsigned i, int flags)
{
    struct model *model = &run->models[i];

    if (run->live) {
        must(fs_flush(fs, &caller, run->files[i]));
        fs_release(fs, run->files[i]);
    }
    publish_model(model);
    open_file(run, i, flags);
    if (flags & O_TRUNC)
        g_byte_array_set_size(model->bytes, 0);
}

static void step(struct run *run)
{
    unsigned i = g_rand_int_range(run->rand, 0, FILES), what = g_rand_int_range(run->rand, 0, 20);
    uint64_t place = g_rand_int_range(run->rand, 0, SIZE_MOST / 2);
    uint64_t size = 1 + g_rand_int_range(run->rand, 0, what % 2 ? 3000 : 700000);
    uint64_t end = run->models[i].bytes->len;

    if (what < 9)
        write_some(run, i, end < SIZE_MOST - size ? end : place, size);
    else if (what < 14)
        write_some(run, i, MIN(place, end + 9000), size);
    else if (what < 15)
        cut(run, i, MIN(place, end + 5000));
    else if (what < 17)
        reopen(run, i, O_WRONLY);
    else if (what < 18)
        reopen(run, i, O_WRONLY | O_TRUNC);
    else
        move(run, i);
}

static void child(unsigned seed, struct progress *progress)
{
    struct run run = {0};

    start();
    run_start(&run, seed, true);
    for (unsigned i = 0; i < OPS; i++) {
        atomic_store(&progress->begun, i + 1);
        step(&run);
        atomic_store(&progress->ended, i + 1);
    }
    pause();
}

/* --- what is there after it --- */

/* Whether a file is what the program saw: under its name, or beside it with the last whole one (or
 * none) under it. */
static bool is_as_in(const struct model *model)
{
    g_autofree char *aside = g_strconcat(model->name, ".recovered", NULL);

    return is_same(model->name, model->bytes) ||
           (is_same(aside, model->bytes) && is_same(model->name, model->published)) ||
           (model->bytes->len == 0 && is_same(model->name, model->published));
}

/* Each file is as after the last operation that ended, or as after the one that was under way. */
static void check(unsigned seed, const struct progress *progress)
{
    unsigned begun = atomic_load(&progress->begun), ended = atomic_load(&progress->ended);
    bool is_right[FILES] = {false};
    struct run run = {0};

    run_start(&run, seed, false);
    for (unsigned n = 0; n <= begun; n++) {
        for (unsigned i = 0; n >= ended && i < FILES; i++)
            is_right[i] = is_right[i] || is_as_in(&run.models[i]);
        step(&run);
    }
    run_clear(&run);
    for (unsigned i = 0; i < FILES; i++)
        cr_assert(is_right[i], "seed %u: file %u is not as after operation %u or %u", seed, i,
                  ended, begun);
}

/* A recovery that is killed too, at any moment. */
static void crash_recovery(unsigned seed)
{
    pid_t pid = fork();

    if (pid == 0) {
        start();
        fs_recover(fs, NULL, NULL);
        _exit(0);
    }
    g_usleep(seed * 733 % 30000);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void crash_once(unsigned seed, struct progress *progress)
{
    g_autoptr(GError) error = NULL;
    pid_t pid;

    atomic_store(&progress->begun, 0);
    atomic_store(&progress->ended, 0);
    pid = fork();
    if (pid == 0) {
        child(seed, progress);
        _exit(0);
    }
    while (atomic_load(&progress->begun) < seed * 7 % OPS && atomic_load(&progress->ended) < OPS)
        g_usleep(50);
    g_usleep(seed * 137 % 997);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    if (seed % 2)
        crash_recovery(seed);
    start();
    cr_assert(fs_recover(fs, NULL, &error), "seed %u: %s", seed, error ? error->message : "");
    cr_assert_eq(fs_recovered(fs)->lost->len, 0, "seed %u: %s", seed,
                 fs_recovered(fs)->lost->len ? (char *)fs_recovered(fs)->lost->pdata[0] : "");
    check(seed, progress);
    cr_assert_not(stop(), "nothing is left for a third one");
}

Test(journal_kills, a_process_killed_at_any_moment_loses_nothing)
{
    unsigned rounds = g_getenv("DSTACK_TEST_LONG") ? 2000 : 12;
    struct progress *progress =
        mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    cr_assert_neq(progress, MAP_FAILED);
    g_setenv("DSTACK_LOG", "error", TRUE); /* that something was recovered is no news */
    for (unsigned seed = 1; seed <= rounds; seed++) {
        tear_down_directory();
        set_up_directory();
        crash_once(seed, progress);
    }
    munmap(progress, sizeof(*progress));
}

/* Who may write: leases taken, refused, lost, taken over; and what the next mount clears up. */
#include "tests/unit/fusefs/fixture.h"

#include "config/error.h"
#include "fusefs/lease.h"
#include "fusefs/staged.h"
#include "tests/support/held_store.h"

#include <pthread.h>
#include <stdatomic.h>

#define TTL_MS 1000

TestSuite(lease, .init = set_up_store, .fini = tear_down_store, .timeout = 60);

static struct lease *take(bool exclusive, struct lease_record **previous, GError **error)
{
    struct lease_options options = {.exclusive = exclusive, .ttl_ms = TTL_MS};

    return lease_acquire(store, &options, previous, error);
}

static struct lease *must_take(bool exclusive)
{
    g_autoptr(LeaseRecord) previous = NULL;
    g_autoptr(GError) error = NULL;
    struct lease *lease = take(exclusive, &previous, &error);

    cr_assert_not_null(lease, "%s", error ? error->message : "");
    return lease;
}

/* A lease that a process of this machine left when it ended. */
static struct lease_record *dead_record(void)
{
    struct lease_record *record = lease_record_new(60000);

    record->pid = 1;
    record->start_ticks += 12345;
    return record;
}

static void put_record(const char *key, const struct lease_record *record)
{
    g_autofree char *text = lease_record_format(record);

    cr_assert(store_write(store, key, text, strlen(text), NULL, NULL, NULL));
}

static bool exists(const char *key)
{
    struct store_object object = {0};
    bool found = store_head(store, key, &object, NULL);

    store_object_clear(&object);
    return found;
}

Test(lease, a_second_writer_is_refused_and_told_who_writes)
{
    struct lease *first = must_take(true);
    g_autoptr(LeaseRecord) previous = NULL;
    g_autoptr(GError) error = NULL;

    cr_assert_null(take(true, &previous, &error));
    cr_assert(error_is(error, EBUSY));
    cr_assert_not_null(strstr(error->message, g_get_host_name()), "%s", error->message);
    cr_assert_not_null(strstr(error->message, "pid"), "%s", error->message);
    g_clear_error(&error);
    cr_assert_null(take(false, &previous, &error));
    cr_assert(error_is(error, EBUSY));
    cr_assert(lease_is_held(first));
    lease_release(first);
    cr_assert_not(exists(LEASE_KEY));
}

Test(lease, writers_that_share_are_let_in_and_keep_an_exclusive_one_out)
{
    struct lease *one = must_take(false), *two = must_take(false);
    g_autoptr(LeaseRecord) previous = NULL;
    g_autoptr(GError) error = NULL;

    cr_assert_null(take(true, &previous, &error));
    cr_assert(error_is(error, EBUSY));
    cr_assert_not(exists(LEASE_KEY));
    lease_release(one);
    lease_release(two);
    lease_release(must_take(true));
}

Test(lease, the_lease_of_a_process_that_has_ended_is_taken_at_once)
{
    g_autoptr(LeaseRecord) dead = dead_record(), previous = NULL;
    g_autoptr(GError) error = NULL;
    int64_t began = g_get_monotonic_time();
    struct lease *lease;

    put_record(LEASE_KEY, dead);
    lease = take(true, &previous, &error);
    cr_assert_not_null(lease);
    cr_assert_lt(g_get_monotonic_time() - began, 1000000);
    cr_assert_not_null(previous);
    cr_assert_str_eq(previous->owner, dead->owner);
    lease_release(lease);
}

Test(lease, a_silent_one_of_another_machine_is_taken_when_it_has_lapsed)
{
    g_autoptr(LeaseRecord) away = lease_record_new(TTL_MS), previous = NULL;
    int64_t began = g_get_monotonic_time();
    struct lease *lease;

    g_free(away->machine);
    away->machine = g_strdup("elsewhere");
    put_record(LEASE_KEY, away);
    lease = take(true, &previous, NULL);
    cr_assert_not_null(lease);
    cr_assert_geq(g_get_monotonic_time() - began, TTL_MS * 1000);
    lease_release(lease);
}

Test(lease, a_beat_whose_answer_was_lost_is_no_takeover)
{
    struct lease *lease = must_take(true);
    g_autoptr(LeaseRecord) record = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    size_t size;

    cr_assert(store_read(store, LEASE_KEY, LEASE_RECORD_MAX, &text, &size, NULL, NULL));
    record = lease_record_parse(text, size, NULL);
    record->beats++;
    put_record(LEASE_KEY, record);
    g_usleep(TTL_MS * 1000); /* four beats */
    cr_assert(lease_is_held(lease));
    cr_assert(lease_assure(lease, NULL, NULL, &error), "%s", error ? error->message : "");
    lease_release(lease);
    cr_assert_not(exists(LEASE_KEY));
}

Test(lease, who_lost_it_writes_nothing_any_more)
{
    struct lease *lease = must_take(true);
    struct fs_options options = {.lease = lease, .sync_interval_ms = 100};
    g_autoptr(LeaseRecord) theirs = lease_record_new(60000);
    struct fs_file *file;
    struct stat st;
    g_autoptr(GPtrArray) unsaved = NULL;

    fs = fs_new(store, &options);
    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "x", 0644, O_RDWR, &file, &st), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "mine", 4), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    put_record(LEASE_KEY, theirs);
    cr_assert(store_write(store, "x", "theirs", 6, NULL, NULL, NULL));
    for (int i = 0; i < 40 && lease_is_held(lease); i++)
        g_usleep(50000);
    cr_assert_not(lease_is_held(lease));
    cr_assert_eq(fs_write(fs, &caller, file, 0, "MINE", 4), ESTALE);
    cr_assert_eq(fs_unlink(fs, &caller, FS_ROOT, "x"), ESTALE);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    fs_drain(fs, 0, &unsaved);
    fs_free(fs);
    lease_release(lease);
    {
        size_t size;
        g_autofree char *data = in_store("x", &size);

        cr_assert_str_eq(data, "theirs");
        cr_assert(exists(LEASE_KEY));
    }
}

Test(lease, dirty_data_of_a_lost_lease_does_not_overwrite)
{
    struct lease *lease = must_take(true);
    struct fs_options options = {.lease = lease, .sync_interval_ms = 60000};
    g_autoptr(LeaseRecord) theirs = lease_record_new(60000);
    g_autoptr(GPtrArray) unsaved = NULL;
    struct fs_file *file;
    struct stat st;

    fs = fs_new(store, &options);
    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "x", 0644, O_RDWR, &file, &st), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "mine", 4), 0);
    put_record(LEASE_KEY, theirs);
    for (int i = 0; i < 40 && lease_is_held(lease); i++)
        g_usleep(50000);
    cr_assert_eq(fs_fsync(fs, &caller, file), ESTALE);
    fs_release(fs, file);
    cr_assert_not(fs_drain(fs, 0, &unsaved));
    cr_assert_eq(unsaved->len, 1);
    fs_free(fs);
    lease_release(lease);
    cr_assert_not(exists("x"));
}

static char *begin_upload(const char *key)
{
    g_autoptr(StoreCall) begin = store_call_new(STORE_BEGIN, key);

    cr_assert(store_run(store, begin, NULL));
    return g_strdup(begin->upload_id);
}

static void mount_and_clear(bool exclusive)
{
    g_autoptr(LeaseRecord) previous = NULL;
    g_autoptr(GError) error = NULL;
    struct lease *lease = take(exclusive, &previous, &error);
    struct fs_options options = {.lease = lease};

    cr_assert_not_null(lease);
    fs = fs_new(store, &options);
    cr_assert(fs_clear_leftovers(fs, previous, &error), "%s", error ? error->message : "");
    fs_free(fs);
    lease_release(lease);
}

Test(lease, the_next_mount_aborts_uploads_and_removes_staged_objects)
{
    g_autoptr(LeaseRecord) dead = dead_record();
    g_autofree char *id = begin_upload("big");
    g_autofree char *staged = g_strconcat(STAGED_PREFIX, dead->owner, "/0", NULL);

    g_free(begin_upload("foreign"));
    g_usleep(1200000); /* long before that mount ended */
    g_ptr_array_add(dead->uploads, lease_upload_new("big", id));
    put_record(LEASE_KEY, dead);
    cr_assert(store_write(store, staged, "x", 1, NULL, NULL, NULL));
    cr_assert(store_write(store, "kept", "x", 1, NULL, NULL, NULL));
    mount_and_clear(true);
    cr_assert_eq(memory_store_uploads(store), 1, "somebody else's upload stays");
    cr_assert_not(exists(staged));
    cr_assert_not(exists(LEASE_KEY));
    cr_assert(exists("kept"));
}

Test(lease, uploads_whose_id_is_not_written_down_are_aborted_too)
{
    g_autoptr(LeaseRecord) dead = dead_record();

    g_free(begin_upload("foreign"));
    g_free(begin_upload("lost")); /* its answer never came */
    g_usleep(1200000);
    g_ptr_array_add(dead->uploads, lease_upload_new("lost", ""));
    put_record(LEASE_KEY, dead);
    g_free(begin_upload("late")); /* killed before the next beat */
    mount_and_clear(true);
    cr_assert_eq(memory_store_uploads(store), 1, "somebody else's upload stays");
}

Test(lease, a_mount_that_shares_clears_up_behind_writers_that_ended)
{
    g_autoptr(LeaseRecord) dead = dead_record(), alive = lease_record_new(60000);
    g_autofree char *id = begin_upload("big"), *theirs = begin_upload("other");
    g_autofree char *staged = g_strconcat(STAGED_PREFIX, dead->owner, "/0", NULL);
    g_autofree char *used = g_strconcat(STAGED_PREFIX, alive->owner, "/0", NULL);
    g_autofree char *dead_key = g_strconcat(WRITERS_PREFIX, dead->owner, NULL);
    g_autofree char *alive_key = g_strconcat(WRITERS_PREFIX, alive->owner, NULL);

    g_ptr_array_add(dead->uploads, lease_upload_new("big", id));
    g_ptr_array_add(alive->uploads, lease_upload_new("other", theirs));
    put_record(dead_key, dead);
    put_record(alive_key, alive);
    cr_assert(store_write(store, staged, "x", 1, NULL, NULL, NULL));
    cr_assert(store_write(store, used, "x", 1, NULL, NULL, NULL));
    mount_and_clear(false);
    cr_assert_eq(memory_store_uploads(store), 1);
    cr_assert_not(exists(staged));
    cr_assert_not(exists(dead_key));
    cr_assert(exists(used));
    cr_assert(exists(alive_key));
}

Test(lease, a_rename_of_a_directory_that_was_interrupted_is_finished)
{
    g_autoptr(LeaseRecord) dead = dead_record();

    g_ptr_array_add(dead->renames, lease_rename_new("from/", "to/"));
    put_record(LEASE_KEY, dead);
    cr_assert(store_write(store, "from/b", "b", 1, NULL, NULL, NULL));
    cr_assert(store_write(store, "from/c", "c", 1, NULL, NULL, NULL));
    cr_assert(store_write(store, "to/a", "a", 1, NULL, NULL, NULL));
    cr_assert(store_write(store, "to/b", "b", 1, NULL, NULL, NULL));
    mount_and_clear(true);
    cr_assert(exists("to/a") && exists("to/b") && exists("to/c"));
    cr_assert(!exists("from/b") && !exists("from/c"));
}

/* Taken over, and given up before anything was cleared up: a mountpoint was bad, say. */
static void take_and_give_up(void (*give_up)(struct lease *lease))
{
    g_autoptr(LeaseRecord) previous = NULL;
    struct lease *lease = take(true, &previous, NULL);

    cr_assert_not_null(lease);
    give_up(lease);
}

/* As a process that is killed leaves it. */
static void note_dead(struct lease *lease)
{
    g_autoptr(LeaseRecord) record = NULL;
    g_autofree char *text = NULL;
    size_t size;

    cr_assert(store_read(store, LEASE_KEY, LEASE_RECORD_MAX, &text, &size, NULL, NULL));
    lease_abandon(lease);
    record = lease_record_parse(text, size, NULL);
    record->pid = 1;
    record->start_ticks += 12345;
    put_record(LEASE_KEY, record);
}

static void release_dead(struct lease *lease)
{
    g_autoptr(LeaseRecord) record = NULL;
    g_autofree char *text = NULL;
    size_t size;

    lease_release(lease);
    cr_assert(store_read(store, LEASE_KEY, LEASE_RECORD_MAX, &text, &size, NULL, NULL));
    record = lease_record_parse(text, size, NULL);
    record->pid = 1; /* this process goes on */
    record->start_ticks += 12345;
    put_record(LEASE_KEY, record);
}

static void *move_d_to_e(void *user)
{
    return GINT_TO_POINTER(fs_rename(fs, &caller, FS_ROOT, "d", FS_ROOT, "e", 0));
}

static int make_file(uint64_t dir, const char *name)
{
    struct fs_file *file;
    struct stat st;
    int error = fs_create(fs, &caller, dir, name, 0644, O_WRONLY, &file, &st);

    if (error)
        return error;
    error = fs_fsync(fs, &caller, file);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    return error;
}

/* A rename of d to e whose end could not be written down. */
static void rename_unrecorded(struct store *held, uint64_t dir)
{
    pthread_t thread;
    void *error;

    cr_assert_eq(make_file(dir, "f"), 0);
    held_store_hold(held, STORE_DELETE_MANY, NULL);
    pthread_create(&thread, NULL, move_d_to_e, NULL);
    while (!held_store_waiting(held))
        g_usleep(1000);
    held_store_fail(held, STORE_PUT, LEASE_KEY, EIO);
    held_store_release(held);
    pthread_join(thread, &error);
    cr_assert_eq(GPOINTER_TO_INT(error), 0);
}

/* The next mount would take what comes to the old name for what was to be moved. */
Test(lease, nothing_is_made_until_the_end_of_a_rename_is_written_down)
{
    struct store *below = store, *held = held_store_new(below);
    struct lease_options how = {.exclusive = true, .ttl_ms = 60000};
    g_autoptr(LeaseRecord) previous = NULL;
    struct stat st;
    struct lease *lease;

    store = held;
    lease = lease_acquire(held, &how, &previous, NULL);
    fs = fs_new(store, &(struct fs_options){.lease = lease});
    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "d", 0755, &st), 0);
    cr_assert_eq(make_file(FS_ROOT, "x"), 0);
    rename_unrecorded(held, st.st_ino);
    cr_expect_eq(fs_mkdir(fs, &caller, FS_ROOT, "d", 0755, &st), EIO);
    cr_expect_eq(fs_rename(fs, &caller, FS_ROOT, "x", FS_ROOT, "y", 0), EIO);
    held_store_fail(held, STORE_PUT, LEASE_KEY, 0);
    cr_expect_eq(fs_mkdir(fs, &caller, FS_ROOT, "d", 0755, &st), 0);
    cr_expect_eq(make_file(st.st_ino, "g"), 0);
    fs_free(fs);
    note_dead(lease);
    mount_and_clear(true);
    cr_expect(exists("d/g") && !exists("e/g"));
    store_unref(held);
    store = below;
}

static void *let_go(void *held)
{
    g_usleep(300000);
    held_store_release(held);
    return NULL;
}

/* A process that was stopped for longer than its lease lives goes on, and has not noticed yet. */
static void change_too_late(int (*change)(void))
{
    struct store *below = store, *held = held_store_new(below);
    g_autoptr(LeaseRecord) theirs = lease_record_new(60000);
    struct lease *lease;
    pthread_t thread;
    struct stat st;

    store = held;
    lease = must_take(true);
    fs = fs_new(store, &(struct fs_options){.lease = lease});
    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "d", 0755, &st), 0);
    cr_assert_eq(make_file(FS_ROOT, "x"), 0);
    cr_assert_eq(make_file(FS_ROOT, "y"), 0);
    held_store_hold(held, STORE_PUT, LEASE_KEY);
    g_usleep(TTL_MS * 1100);
    store = below;
    put_record(LEASE_KEY, theirs);
    pthread_create(&thread, NULL, let_go, held);
    cr_expect_eq(change(), ESTALE);
    cr_expect(exists("x") && exists("y") && exists("d/"));
    pthread_join(thread, NULL);
    fs_free(fs);
    lease_release(lease);
    store_unref(held);
}

static int move_over(void)
{
    return fs_rename(fs, &caller, FS_ROOT, "x", FS_ROOT, "y", 0);
}

Test(lease, nothing_is_renamed_under_one_that_may_be_gone)
{
    change_too_late(move_over);
}

static int unlink_one(void)
{
    return fs_unlink(fs, &caller, FS_ROOT, "x");
}

Test(lease, nothing_is_unlinked_under_one_that_may_be_gone)
{
    change_too_late(unlink_one);
}

static int remove_dir(void)
{
    return fs_rmdir(fs, &caller, FS_ROOT, "d");
}

Test(lease, no_directory_is_removed_under_one_that_may_be_gone)
{
    change_too_late(remove_dir);
}

static bool is_impatient(const struct fs_caller *who)
{
    return atomic_load((atomic_bool *)who->user);
}

static atomic_bool patience_is_over;

static void *sync_impatiently(void *file)
{
    struct fs_caller who = caller;

    who.interrupted = is_impatient;
    who.user = &patience_is_over;
    return GINT_TO_POINTER(fs_fsync(fs, &who, file));
}

static void *move_impatiently(void *user)
{
    struct fs_caller who = caller;

    who.interrupted = is_impatient;
    who.user = &patience_is_over;
    return GINT_TO_POINTER(fs_rename(fs, &who, FS_ROOT, "d", FS_ROOT, "e", 0));
}

Test(lease, who_renames_a_directory_can_be_interrupted)
{
    struct store *below = store, *held = held_store_new(below);
    struct lease *lease;
    pthread_t thread;
    struct stat st;
    int64_t began;
    void *error;

    store = held;
    lease = must_take(true);
    fs = fs_new(store, &(struct fs_options){.lease = lease});
    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "d", 0755, &st), 0);
    held_store_hold(held, STORE_PUT, LEASE_KEY);
    pthread_create(&thread, NULL, move_impatiently, NULL);
    while (!held_store_waiting(held))
        g_usleep(1000);
    atomic_store(&patience_is_over, true);
    began = g_get_monotonic_time();
    pthread_join(thread, &error);
    cr_expect_eq(GPOINTER_TO_INT(error), EINTR);
    cr_expect_lt(g_get_monotonic_time() - began, 1000000);
    cr_expect(exists("d/") && !exists("e/"));
    held_store_release(held);
    cr_expect_eq(fs_rename(fs, &caller, FS_ROOT, "d", FS_ROOT, "e", 0), 0);
    fs_free(fs);
    lease_release(lease);
    store_unref(held);
    store = below;
    cr_expect_not(exists(LEASE_KEY));
}

/* The store is silent, and with it the lease is not sure any more. */
Test(lease, who_waits_for_it_can_be_interrupted)
{
    struct store *below = store, *held = held_store_new(below);
    struct fs_file *files[3];
    pthread_t threads[3];
    struct lease *lease;
    struct stat st;
    int64_t began;
    void *error;

    store = held;
    lease = must_take(true);
    fs = fs_new(store, &(struct fs_options){.lease = lease, .sync_interval_ms = 60000});
    for (unsigned i = 0; i < 3; i++) {
        g_autofree char *name = g_strdup_printf("f%u", i);

        files[i] = create(name, &st);
        cr_assert_eq(fs_write(fs, &caller, files[i], 0, "x", 1), 0);
    }
    held_store_hold(held, STORE_PUT, LEASE_KEY);
    g_usleep(TTL_MS * 900);
    for (unsigned i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, sync_impatiently, files[i]);
    g_usleep(200000);
    atomic_store(&patience_is_over, true);
    began = g_get_monotonic_time();
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(threads[i], &error);
        cr_expect_eq(GPOINTER_TO_INT(error), EINTR);
    }
    cr_expect_lt(g_get_monotonic_time() - began, 1000000);
    held_store_release(held);
    for (unsigned i = 0; i < 3; i++) {
        cr_expect_eq(fs_fsync(fs, &caller, files[i]), 0);
        fs_release(fs, files[i]);
    }
    fs_free(fs);
    lease_release(lease);
    store_unref(held);
    store = below;
}

static void leave_unfinished(void)
{
    g_autoptr(LeaseRecord) dead = dead_record();
    g_autofree char *id = begin_upload("big");

    g_ptr_array_add(dead->uploads, lease_upload_new("big", id));
    g_free(begin_upload("foreign"));
    g_usleep(1200000); /* long before that mount ended */
    g_ptr_array_add(dead->renames, lease_rename_new("from/", "to/"));
    cr_assert(store_write(store, "from/b", "b", 1, NULL, NULL, NULL));
    put_record(LEASE_KEY, dead);
    g_free(begin_upload("late")); /* its id was not written down any more */
}

Test(lease, what_a_dead_mount_left_outlives_those_who_give_up)
{
    leave_unfinished();
    g_usleep(1200000);
    take_and_give_up(release_dead);
    take_and_give_up(note_dead);
    mount_and_clear(true);
    cr_assert(exists("to/b") && !exists("from/b"));
    cr_assert_eq(memory_store_uploads(store), 1, "somebody else's upload stays");
    cr_assert_not(exists(LEASE_KEY));
}

Test(lease, an_upload_that_could_not_be_aborted_is_left_to_the_next_mount)
{
    static char block[6u << 20];
    struct store *below = store, *held = held_store_new(below);
    struct lease *lease;
    struct fs_file *file;
    struct stat st;

    store = held;
    lease = must_take(true);
    fs = fs_new(store, &(struct fs_options){.lease = lease, .part_bytes = 5u << 20});
    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "big", 0644, O_WRONLY, &file, &st), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, block, sizeof(block)), 0);
    while (!memory_store_uploads(below))
        g_usleep(1000);
    held_store_fail(held, STORE_ABORT, NULL, EIO);
    cr_assert_eq(fs_unlink(fs, &caller, FS_ROOT, "big"), 0);
    fs_release(fs, file);
    fs_free(fs);
    release_dead(lease);
    cr_assert_geq(memory_store_uploads(below), 1); /* another may have begun meanwhile */
    held_store_fail(held, STORE_ABORT, NULL, 0);
    mount_and_clear(true);
    cr_assert_eq(memory_store_uploads(below), 0);
    cr_assert_not(exists(LEASE_KEY));
    store_unref(held);
    store = below;
}

Test(lease, a_lease_that_is_none_of_ours_is_refused)
{
    static const char *const bodies[] = {
        "",
        "x",
        "{}",
        "[1]",
        "{\"version\": 2}",
        "{\"version\":1,\"owner\":\"../x\",\"host\":\"h\",\"machine\":\"m\",\"pid\":1,"
        "\"start_ticks\":1,\"since\":\"s\",\"beats\":1,\"ttl_ms\":2000,\"uploads\":[],\"renames\":["
        "]}",
        "{\"version\":1,\"owner\":\"a\",\"host\":\"h\",\"machine\":\"m\",\"pid\":1,"
        "\"start_ticks\":1,\"since\":\"s\",\"beats\":1,\"ttl_ms\":2000,\"uploads\":[],"
        "\"renames\":[{\"from\":\"a/\",\"to\":\"a/b/\"}]}",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(bodies); i++) {
        g_autoptr(GError) error = NULL;

        cr_assert_null(lease_record_parse(bodies[i], strlen(bodies[i]), &error), "%s", bodies[i]);
        cr_assert(error_is(error, EINVAL));
    }
    {
        g_autoptr(LeaseRecord) record = lease_record_new(5000), again = NULL;
        g_autofree char *text = NULL;

        g_ptr_array_add(record->uploads, lease_upload_new("k \"x\"", "id"));
        text = lease_record_format(record);
        again = lease_record_parse(text, strlen(text), NULL);
        cr_assert_not_null(again);
        cr_assert_str_eq(again->owner, record->owner);
        cr_assert_str_eq(((struct lease_upload *)again->uploads->pdata[0])->key, "k \"x\"");
    }
}

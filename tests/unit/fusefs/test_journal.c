/* What a killed process leaves, where it has to be just so. */
#include "tests/unit/fusefs/journal_fixture.h"

#include "storage/store_driver.h"
#include "tests/support/faulty_store.h"
#include "tests/support/held_store.h"

TestSuite(journal, .init = set_up_directory, .fini = tear_down_directory, .timeout = 60);

/* Runs SCENARIO in a process that is killed at its end, on a store under LAYER. */
static void crash_after(void (*scenario)(void), struct store *(*layer)(struct store *))
{
    int status;
    pid_t pid;

    pid = fork();
    if (pid == 0) {
        start_on(layer);
        scenario();
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, &status, 0);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the scenario itself failed");
}

static void recover(void)
{
    g_autoptr(GError) error = NULL;

    start();
    cr_assert(fs_recover(fs, NULL, &error), "%s", error ? error->message : "");
}

static void must_be(const char *key, const GByteArray *bytes)
{
    cr_assert(is_same(key, bytes), "%s", key);
}

static GByteArray *pattern(uint64_t size)
{
    GByteArray *bytes = g_byte_array_new();

    g_byte_array_set_size(bytes, size);
    for (uint64_t i = 0; i < size; i++)
        bytes->data[i] = i * 7 + i / 4096;
    return bytes;
}

static struct fs_file *create_to_write(const char *name)
{
    struct fs_file *file;
    struct stat st;

    must(fs_create(fs, &caller, FS_ROOT, name, 0644, O_WRONLY, &file, &st));
    return file;
}

static void write_pattern(struct fs_file *file, uint64_t size)
{
    g_autoptr(GByteArray) bytes = pattern(size);

    for (uint64_t at = 0; at < size; at += MIB)
        must(fs_write(fs, &caller, file, at, bytes->data + at, MIN(MIB, size - at)));
}

static void close_in_vain(struct fs_file *file)
{
    if (fs_flush(fs, &caller, file) != EIO)
        abort();
    fs_release(fs, file);
}

static void wait_for_parts(unsigned count)
{
    while (held_store_calls(store, STORE_PART) < count)
        g_usleep(1000);
    g_usleep(100000); /* their answers */
}

static void *fsync_file(void *file)
{
    fs_fsync(fs, &caller, file);
    return NULL;
}

/* A part that was sent, and then written to, and an fsync that is under way. */
static void change_a_sent_part(void)
{
    struct fs_file *file = create_to_write("f");

    pthread_t thread;

    write_pattern(file, 3 * MIB);
    wait_for_parts(3);
    must(fs_write(fs, &caller, file, MIB + 10, "changed", 7));
    held_store_hold(store, STORE_PART, NULL); /* no new image tells of it */
    pthread_create(&thread, NULL, fsync_file, file);
    while (!held_store_waiting(store))
        g_usleep(1000);
}

Test(journal, a_part_that_changed_after_it_was_sent_is_sent_again)
{
    g_autoptr(GByteArray) bytes = pattern(3 * MIB);

    crash_after(change_a_sent_part, held_store_new);
    recover();
    memcpy(bytes->data + MIB + 10, "changed", 7);
    must_be("f", bytes);
    cr_assert_not(stop());
}

/* More than the budget: what was sent is nowhere else. */
static void send_more_than_fits(void)
{
    struct fs_file *file = create_to_write("f");

    held_store_fail(store, STORE_COMMIT, NULL, EIO);
    write_pattern(file, 60 * MIB + 12345);
    close_in_vain(file);
}

Test(journal, an_upload_is_gone_on_with_where_it_was)
{
    g_autoptr(GByteArray) bytes = pattern(60 * MIB + 12345);

    crash_after(send_more_than_fits, held_store_new);
    recover();
    must_be("f", bytes);
    cr_assert_lt(fs_recovered(fs)->bytes, 61 * MIB);
    cr_assert_not(stop());
}

/* The same, but still being written: a store cannot read parts, and it is not to be seen. */
static void send_and_go_on(void)
{
    write_pattern(create_to_write("f"), 60 * MIB);
    write_pattern(create_to_write("g"), 1000);
}

Test(journal, what_cannot_be_had_is_said_and_holds_nothing_up)
{
    g_autoptr(GByteArray) bytes = pattern(1000);

    crash_after(send_and_go_on, held_store_new);
    recover();
    must_be("f", NULL);
    must_be("f.recovered", NULL);
    must_be("g.recovered", bytes);
    cr_assert_eq(fs_recovered(fs)->lost->len, 1);
    cr_assert_str_eq(fs_recovered(fs)->lost->pdata[0], "f");
    cr_assert_not(stop());
}

/* Two closes that fail, one behind the other. */
static void close_two_in_vain(void)
{
    struct fs_file *z = create_to_write("z"), *a = create_to_write("a");

    held_store_fail(store, STORE_PUT, NULL, EIO);
    write_pattern(z, 100);
    write_pattern(a, 200);
    close_in_vain(z);
    if (fs_flush(fs, &caller, a) != EIO)
        abort();
    fs_release(fs, a);
}

Test(journal, what_was_closed_first_is_there_first_and_a_failure_keeps_all)
{
    g_autoptr(GByteArray) first = pattern(100), second = pattern(200);
    g_autoptr(GError) error = NULL;

    crash_after(close_two_in_vain, held_store_new);
    start_on(held_store_new);
    held_store_fail(store, STORE_PUT, "z", EIO);
    cr_assert_not(fs_recover(fs, NULL, &error));
    cr_assert_not_null(strstr(error->message, "z"), "%s", error->message);
    must_be("z", NULL);
    must_be("a", NULL);
    cr_assert(stop(), "it stays for the next one");
    recover();
    must_be("z", first);
    must_be("a", second);
    cr_assert_eq(fs_recovered(fs)->aside->len, 0);
    cr_assert_not(stop());
}

static void be_killed_before_the_answer(uint64_t old_size, uint64_t size)
{
    struct fs_file *file = create_to_write("f");
    struct stat to = {0}, st;
    pthread_t thread;

    write_pattern(file, old_size);
    must(fs_fsync(fs, &caller, file));
    must(fs_lookup(fs, &caller, FS_ROOT, "f", &st));
    must(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_SIZE, &st));
    write_pattern(file, size);
    g_usleep(100000);
    faulty_store_delay_answers(store, 20000);
    pthread_create(&thread, NULL, fsync_file, file);
    g_usleep(500000);
    must(fs_write(fs, &caller, file, size, "more", 4));
}

static void kill_before_put_answers(void)
{
    be_killed_before_the_answer(100, 3000);
}

static void kill_before_put_of_less_answers(void)
{
    be_killed_before_the_answer(5000, 3000);
}

/* Both what the store took, of which nobody knew, and what came later. */
static void land(void (*be_killed)(void))
{
    g_autoptr(GByteArray) bytes = pattern(3000);

    crash_after(be_killed, faulty_store_new);
    g_byte_array_append(bytes, (const guint8 *)"more", 4);
    recover();
    must_be("f", bytes);
    must_be("f.recovered", NULL);
    cr_assert_not(stop());
}

Test(journal, a_publish_that_landed_is_what_it_goes_on_from)
{
    land(kill_before_put_answers);
}

Test(journal, a_shorter_one_that_landed_is_what_it_goes_on_from)
{
    land(kill_before_put_of_less_answers);
}

/* The journal began to tell of a file that was only added to; then it became another one. */
static void be_killed_before_a_rewrite_answers(void)
{
    struct fs_file *file = create_to_write("f");
    struct stat to = {.st_size = 1000}, st;
    pthread_t thread;

    write_pattern(file, 3000);
    must(fs_fsync(fs, &caller, file));
    must(fs_write(fs, &caller, file, 3000, "more", 4));
    write_pattern(file, 1000);
    must(fs_lookup(fs, &caller, FS_ROOT, "f", &st));
    must(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_SIZE, &st));
    faulty_store_delay_answers(store, 20000);
    pthread_create(&thread, NULL, fsync_file, file);
    g_usleep(500000);
}

Test(journal, a_rewrite_that_landed_is_known_as_ours)
{
    g_autoptr(GByteArray) bytes = pattern(1000);

    crash_after(be_killed_before_a_rewrite_answers, faulty_store_new);
    recover();
    must_be("f", bytes);
    must_be("f.recovered", NULL);
    cr_assert_eq(fs_recovered(fs)->lost->len, 0);
    cr_assert_not(stop());
}

/* A store without small parts: small files stay in memory too while they are written. */
static struct store *faulty_s3_new(struct store *store_below)
{
    struct store *faulty = faulty_store_new(store_below);

    faulty->caps.min_part_bytes = 5 * MIB;
    return faulty;
}

/* Bytes were added, and published before anybody knew; then others were changed. */
static void be_killed_before_a_growth_answers(void)
{
    struct fs_file *file = create_to_write("f");
    pthread_t thread;

    write_pattern(file, 3000);
    must(fs_fsync(fs, &caller, file));
    must(fs_write(fs, &caller, file, 3000, "more", 4));
    faulty_store_delay_answers(store, 20000);
    pthread_create(&thread, NULL, fsync_file, file);
    g_usleep(300000);
    must(fs_write(fs, &caller, file, 10, "changed", 7));
}

Test(journal, a_growth_that_landed_is_the_base_of_what_was_rewritten)
{
    g_autoptr(GByteArray) bytes = pattern(3000);

    crash_after(be_killed_before_a_growth_answers, faulty_s3_new);
    recover();
    g_byte_array_append(bytes, (const guint8 *)"more", 4);
    memcpy(bytes->data + 10, "changed", 7);
    must_be("f", bytes);
    cr_assert_eq(fs_recovered(fs)->lost->len, 0);
    cr_assert_not(stop());
}

static void *rename_directory(void *user)
{
    fs_rename(fs, &caller, FS_ROOT, "old", FS_ROOT, "new", 0);
    return NULL;
}

/* It is saved with the rename, and not to be saved under its new name. */
Test(journal, nothing_is_left_of_a_new_file_whose_directory_moved)
{
    struct fs_file *file;
    struct stat st;

    start();
    must(fs_mkdir(fs, &caller, FS_ROOT, "old", 0755, &st));
    must(fs_create(fs, &caller, st.st_ino, "f", 0644, O_RDWR, &file, &st));
    rename_directory(NULL);
    must(fs_flush(fs, &caller, file));
    fs_release(fs, file);
    cr_assert_not(stop());
}

/* In a directory whose files are copied, but not yet deleted where they were. */
static struct fs_file *open_in_moving_directory(void)
{
    struct fs_file *file;
    pthread_t thread;
    struct stat st;

    must(fs_mkdir(fs, &caller, FS_ROOT, "old", 0755, &st));
    must(fs_create(fs, &caller, st.st_ino, "f", 0644, O_WRONLY, &file, &st));
    must(fs_write(fs, &caller, file, 0, "first ", 6));
    must(fs_fsync(fs, &caller, file));
    held_store_hold(store, STORE_DELETE_MANY, NULL);
    pthread_create(&thread, NULL, rename_directory, NULL);
    while (!held_store_waiting(store))
        g_usleep(1000);
    return file;
}

static void be_killed_while_a_directory_moves(void)
{
    must(fs_write(fs, &caller, open_in_moving_directory(), 6, "second", 6));
}

Test(journal, a_file_goes_along_with_its_directory)
{
    struct lease_record *previous = lease_record_new(1000);
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    crash_after(be_killed_while_a_directory_moves, held_store_new);
    g_ptr_array_add(previous->renames, lease_rename_new("old/", "new/"));
    start();
    fs_clear_leftovers(fs, previous, NULL); /* no lease of its own, and it says so at the end */
    g_byte_array_append(bytes, (const guint8 *)"first second", 12);
    must_be("new/f", bytes);
    must_be("old/f", NULL);
    cr_assert_not(stop());
    lease_record_free(previous);
}

/* The same, but bytes that were there before are changed, and not all of them; with an fsync. */
static void be_killed_while_a_directory_moves_with_a_rewrite(void)
{
    struct fs_file *file = open_in_moving_directory();
    pthread_t sync;

    must(fs_write(fs, &caller, file, 1, "IRS", 3));
    pthread_create(&sync, NULL, fsync_file, file);
    g_usleep(100000);
}

static void expect_rewritten_in_new(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    g_byte_array_append(bytes, (const guint8 *)"fIRSt ", 6);
    cr_expect_eq(fs_recovered(fs)->lost->len, 0);
    must_be("new/f", bytes);
    must_be("old/f", NULL);
    must_be("new/f.recovered", NULL);
    cr_assert_not(stop());
}

Test(journal, a_rewritten_file_goes_along_with_its_directory)
{
    struct lease_record *previous = lease_record_new(1000);

    crash_after(be_killed_while_a_directory_moves_with_a_rewrite, held_store_new);
    g_ptr_array_add(previous->renames, lease_rename_new("old/", "new/"));
    start();
    fs_clear_leftovers(fs, previous, NULL);
    expect_rewritten_in_new();
    lease_record_free(previous);
}

static char *lineage_in_store(const char *key)
{
    struct store_object object = {0};
    char *lineage;

    cr_assert(store_head(store, key, &object, NULL));
    lineage = g_strdup(g_hash_table_lookup(object.metadata, LINEAGE));
    store_object_clear(&object);
    return lineage;
}

/* The journal began to tell of a file that grew; then it became another one, and an fsync of it
 * waits for a rename of a directory. */
static void be_killed_before_a_rewrite_is_published(void)
{
    struct fs_file *file = create_to_write("f");
    pthread_t move, sync;
    struct stat st;

    must(fs_mkdir(fs, &caller, FS_ROOT, "old", 0755, &st));
    must(fs_write(fs, &caller, file, 0, "first ", 6));
    must(fs_fsync(fs, &caller, file));
    held_store_hold(store, STORE_DELETE_MANY, NULL);
    pthread_create(&move, NULL, rename_directory, NULL);
    while (!held_store_waiting(store))
        g_usleep(1000);
    must(fs_write(fs, &caller, file, 6, "more", 4));
    must(fs_write(fs, &caller, file, 1, "IRS", 3));
    pthread_create(&sync, NULL, fsync_file, file);
    g_usleep(100000);
}

/* Or readers elsewhere, who have the beginning of the old one, would read on in it. */
Test(journal, a_rewritten_file_is_another_one)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autofree char *before = NULL, *after = NULL;

    crash_after(be_killed_before_a_rewrite_is_published, held_store_new);
    start();
    before = lineage_in_store("f");
    cr_assert(fs_recover(fs, NULL, NULL));
    g_byte_array_append(bytes, (const guint8 *)"fIRSt more", 10);
    must_be("f", bytes);
    after = lineage_in_store("f");
    cr_expect_str_neq(before, after);
    cr_assert_not(stop());
}

static void change_the_mode_of_an_open_file(void)
{
    struct fs_file *file = create_to_write("f");
    struct stat to = {.st_mode = 0600}, st;

    write_pattern(file, 3000);
    must(fs_fsync(fs, &caller, file));
    must(fs_setattr(fs, &caller, file->inode->ino, &to, FS_SET_MODE, &st));
}

Test(journal, attributes_of_a_file_that_was_replaced_are_no_loss)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    crash_after(change_the_mode_of_an_open_file, NULL);
    start();
    cr_assert(store_write(store, "f", "theirs", 6, NULL, NULL, NULL));
    cr_assert(fs_recover(fs, NULL, NULL));
    g_byte_array_append(bytes, (const guint8 *)"theirs", 6);
    must_be("f", bytes);
    must_be("f.recovered", NULL);
    cr_expect_eq(fs_recovered(fs)->lost->len, 0, "nothing of it was lost");
    cr_assert_not(stop());
}

static void write_under_a_long_name(void)
{
    g_autofree char *name = g_strnfill(250, 'n');

    write_pattern(create_to_write(name), 100);
}

Test(journal, a_name_that_is_too_long_to_grow_is_cut)
{
    g_autofree char *cut = g_strnfill(241, 'n'), *name = g_strconcat(cut, ".recovered", NULL);
    g_autoptr(GByteArray) bytes = pattern(100);

    crash_after(write_under_a_long_name, NULL);
    recover();
    must_be(name, bytes);
    cr_assert_not(stop());
}

/* --- bytes that nobody wrote --- */

static bool is_backed_here(const void *user, uint64_t pos, uint64_t length)
{
    return true;
}

static GPtrArray *read_now(const uint8_t *data, unsigned *damaged)
{
    return journal_read(data, journal->bytes, is_backed_here, NULL, damaged);
}

/* Neighbours remove what nobody has come back for; a mount that lived for long was just there. */
Test(journal, its_time_is_when_its_owner_was_last_there)
{
    const struct timespec long_ago[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    struct stat st;

    start();
    cr_assert_eq(futimens(journal->fd, long_ago), 0);
    atomic_fetch_sub(&journal->touched_s, 7200);
    for (int i = 0; i < 100 && fstat(journal->fd, &st) == 0 && st.st_mtime < 1500000000; i++)
        g_usleep(50000);
    cr_expect_gt(st.st_mtime, g_get_real_time() / G_USEC_PER_SEC - 60);
    cr_expect_not(stop());
}

/* Each byte of a chain, changed: the chain is left out, or cut there, or says the same. */
Test(journal, a_damaged_chain_is_noticed)
{
    uint64_t pos;
    struct fs_file *file;
    unsigned damaged;
    uint8_t *chain;

    start();
    file = create_to_write("f");
    write_pattern(file, 3000);
    must(fs_write(fs, &caller, file, 100, "in the middle", 13));
    must(fs_write(fs, &caller, file, 9000, "behind a hole", 13));
    pos = atomic_load(&journal->table[JOURNAL_FILES - journal->indices->len - 1]);
    for (unsigned i = 0; !pos && i < JOURNAL_FILES; i++)
        pos = atomic_load(&journal->table[i]);
    cr_assert_neq(pos, 0);
    chain = journal->data + pos;
    for (unsigned i = 0; i < JOURNAL_CHUNK; i++) {
        g_autoptr(GPtrArray) entries = NULL;

        chain[i] ^= 0x41;
        entries = read_now(journal->data, &damaged);
        if (entries->len && !damaged) {
            struct journal_entry *entry = entries->pdata[0];
            g_autoptr(GByteArray) bytes = pattern(3000);

            cr_assert_str_eq(entry->path, "f", "byte %u", i);
            cr_assert_geq(layout_size(&entry->layout), 3000, "byte %u", i);
            cr_assert_eq(memcmp(layout_at(&entry->layout, 0)->buffer->data, bytes->data, 100), 0);
        }
        chain[i] ^= 0x41;
    }
    must(fs_flush(fs, &caller, file));
    fs_release(fs, file);
    cr_assert_not(stop());
}

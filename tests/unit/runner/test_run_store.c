/* Runs in a store: claims, conditional moves, listings, wishes and losses. */
#include "config/error.h"
#include "runner/machine.h"
#include "runner/run/lost.h"
#include "runner/run/run_store.h"
#include "storage/store_driver.h"
#include "tests/support/faulty_store.h"
#include "tests/support/held_store.h"
#include "tests/support/memory_store.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static struct run *make(struct store *root, const char *name)
{
    struct run *run = run_new("demo", name);
    g_autoptr(GError) error = NULL;

    run->workflow = g_strdup("hello");
    run->provider = g_strdup("bash");
    run->submitted_ms = run_now_ms();
    cr_assert(run_store_create(root, run, &error), "%s", error ? error->message : "");
    return run;
}

static void must_move(struct store *root, struct run *run, enum run_status to)
{
    g_autoptr(GError) error = NULL;

    cr_assert(run_store_move(root, run, to, NULL, &error), "%s", error ? error->message : "");
}

static void own(struct run *run, pid_t pid, uint64_t start_ticks)
{
    run->owner.host = g_strdup("here");
    run->owner.machine = machine_id();
    run->owner.pid = pid;
    run->owner.start_ticks = start_ticks;
}

Test(run_store, a_name_is_claimed_once)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) first = make(root, "a-1");
    g_autoptr(Run) second = run_new("demo", "a-1");
    g_autoptr(GError) error = NULL;

    second->provider = g_strdup("bash");
    cr_assert_not(run_store_create(root, second, &error));
    cr_assert(error_is(error, EEXIST), "%s", error->message);
}

Test(run_store, names_are_chosen_and_differ)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    for (int i = 0; i < 50; i++) {
        g_autoptr(Run) run = make(root, NULL);

        cr_assert(run_name_is_valid(run->name));
        cr_assert(g_hash_table_add(seen, g_strdup(run->name)), "%s twice", run->name);
    }
}

Test(run_store, the_second_writer_is_refused)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) mine = make(root, "a-1");
    g_autoptr(Run) theirs = run_store_load(root, "demo", "a-1", NULL);
    g_autoptr(GError) error = NULL;

    must_move(root, theirs, RUN_SUBMITTED);
    cr_assert_not(run_store_move(root, mine, RUN_FAILED, "x", &error));
    cr_assert(error_is(error, ESTALE), "%s", error->message);
    cr_assert_eq(mine->status, RUN_PENDING);
    cr_assert_null(mine->reason);
}

/* The store carried a try out and its answer was lost: the next one is not somebody else's. */
Test(run_store, a_try_that_landed_is_our_own)
{
    static const enum run_status NEXT[] = {RUN_SUBMITTED, RUN_FAILED};

    for (unsigned i = 0; i < G_N_ELEMENTS(NEXT); i++) {
        g_autoptr(Store) memory = memory_store_new();
        g_autoptr(Store) root = faulty_store_new(memory);
        g_autoptr(Run) run = make(root, "a-1");
        g_autoptr(Run) theirs = NULL, now = NULL;
        g_autoptr(GError) error = NULL;

        faulty_store_lose(root, STORE_PUT, 1, 1, ETIMEDOUT);
        cr_assert_not(run_store_move(root, run, RUN_SUBMITTED, NULL, &error));
        cr_assert(error_is(error, ETIMEDOUT), "%s", error->message);
        theirs = run_store_load(root, "demo", "a-1", NULL);
        cr_assert_eq(theirs->status, RUN_SUBMITTED);
        must_move(root, run, NEXT[i]); /* the same again, or what came in between */
        now = run_store_load(root, "demo", "a-1", NULL);
        cr_assert_eq(now->status, NEXT[i]);
        cr_assert_not(run_store_move(root, theirs, RUN_FAILED, NULL, NULL));
    }
}

Test(run_store, without_conditional_writes_etags_are_compared)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) mine = NULL, theirs = NULL;
    g_autoptr(GError) error = NULL;

    root->caps.has_put_if_match = root->caps.has_put_if_absent = false;
    mine = make(root, "a-1");
    theirs = run_store_load(root, "demo", "a-1", NULL);
    must_move(root, theirs, RUN_SUBMITTED);
    cr_assert_not(run_store_move(root, mine, RUN_FAILED, NULL, &error));
    cr_assert(error_is(error, ESTALE), "%s", error->message);
}

Test(run_store, illegal_moves_are_refused)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = make(root, "a-1");
    g_autoptr(GError) error = NULL;

    cr_assert_not(run_store_move(root, run, RUN_DONE, NULL, &error));
    cr_assert(error_is(error, EPERM), "%s", error->message);
}

static struct run_summary *only_one(GPtrArray *list)
{
    cr_assert_not_null(list);
    cr_assert_eq(list->len, 1);
    return list->pdata[0];
}

Test(run_store, the_listing_of_finished_runs_reads_no_document)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = make(root, "a-1");
    g_autoptr(GPtrArray) list = NULL;
    struct run_summary *summary;

    must_move(root, run, RUN_FAILED);
    /* A document that nobody can parse shows whether it was read. */
    cr_assert(store_write(root, "runs/demo/a-1.json", "?", 1, NULL, NULL, NULL));
    list = run_store_list(root, "demo", NULL);
    summary = only_one(list);
    cr_assert_eq(summary->status, RUN_FAILED);
    cr_assert_str_eq(summary->workflow, "hello");
}

Test(run_store, a_marker_that_is_behind_is_repaired)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = make(root, "a-1");
    g_autoptr(GPtrArray) list = NULL;

    run->status = RUN_FAILED; /* as if its writer had died before the marker */
    cr_assert(run_store_save(root, run, NULL));
    list = run_store_list(root, "demo", NULL);
    cr_assert_eq(only_one(list)->status, RUN_FAILED);
    cr_assert(store_write(root, "runs/demo/a-1.json", "?", 1, NULL, NULL, NULL));
    g_ptr_array_unref(g_steal_pointer(&list));
    list = run_store_list(root, "demo", NULL);
    cr_assert_eq(only_one(list)->status, RUN_FAILED);
}

Test(run_store, a_dead_runner_is_noticed)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = make(root, "a-1");
    g_autoptr(GPtrArray) list = NULL;

    must_move(root, run, RUN_SUBMITTED);
    own(run, getpid(), process_start_ticks(getpid()) + 1); /* this PID, another process */
    must_move(root, run, RUN_DOWNLOADING);
    list = run_store_list(root, "demo", NULL);
    cr_assert_eq(only_one(list)->status, RUN_FAILED);
    cr_assert_str_eq(only_one(list)->reason, "runner lost");
}

Test(run_store, a_living_runner_is_left_alone)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = make(root, "a-1");
    g_autoptr(GPtrArray) list = NULL;

    must_move(root, run, RUN_SUBMITTED);
    own(run, getpid(), process_start_ticks(getpid()));
    must_move(root, run, RUN_DOWNLOADING);
    list = run_store_list(root, "demo", NULL);
    cr_assert_eq(only_one(list)->status, RUN_DOWNLOADING);
}

static struct run *make_elsewhere(struct store *root)
{
    struct run *run = make(root, "a-1");

    must_move(root, run, RUN_SUBMITTED);
    own(run, 1, 1);
    g_free(run->owner.machine);
    run->owner.machine = g_strdup("elsewhere");
    run->started_ms = run_now_ms();
    must_move(root, run, RUN_DOWNLOADING);
    return run;
}

static bool is_lost(struct store *root, struct run *run)
{
    g_autoptr(GError) error = NULL;
    struct run_fate fate;

    cr_assert(run_find_fate(root, run, &fate, &error), "%s", error ? error->message : "");
    g_free(fate.reason);
    return fate.is_lost;
}

Test(run_store, a_runner_elsewhere_is_lost_when_its_heart_stops)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = make_elsewhere(root);

    cr_assert_not(is_lost(root, run)); /* it has had no time for a beat */
    memory_store_set_clock(root, 2 * BEAT_LOST_MS);
    cr_assert(is_lost(root, run));
    cr_assert(store_write(root, "runs/demo/a-1.beat", "", 0, NULL, NULL, NULL));
    cr_assert_not(is_lost(root, run));
    memory_store_set_clock(root, 4 * BEAT_LOST_MS);
    cr_assert(is_lost(root, run));
}

Test(run_store, ages_are_the_stores_own)
{
    static const int64_t AHEAD_MS[] = {-3600000, 3600000};

    for (unsigned i = 0; i < G_N_ELEMENTS(AHEAD_MS); i++) {
        g_autoptr(Store) root = memory_store_new();
        g_autoptr(Run) run = NULL;

        memory_store_set_clock(root, AHEAD_MS[i]);
        run = make_elsewhere(root);
        cr_assert(store_write(root, "runs/demo/a-1.beat", "", 0, NULL, NULL, NULL));
        cr_assert_not(is_lost(root, run), "ahead by %" G_GINT64_FORMAT, AHEAD_MS[i]);
        memory_store_set_clock(root, AHEAD_MS[i] + 2 * BEAT_LOST_MS);
        cr_assert(is_lost(root, run), "ahead by %" G_GINT64_FORMAT, AHEAD_MS[i]);
    }
}

/* What `dstack run` leaves when it is killed at the worst moment, of any attempt. */
Test(run_store, an_attempt_that_nobody_took_ends)
{
    static const struct {
        unsigned attempt;
        bool submitted, restarts;
        enum run_status ends;
    } CASES[] = {
        {1, false, false, RUN_FAILED},     {1, true, false, RUN_FAILED},
        {2, false, false, RUN_FAILED},     {2, true, false, RUN_FAILED},
        {2, false, true, RUN_INTERRUPTED}, {2, true, true, RUN_INTERRUPTED},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(CASES); i++) {
        g_autoptr(Store) root = memory_store_new();
        g_autoptr(Run) run = run_new("demo", "a-1");
        g_autoptr(GPtrArray) early = NULL, late = NULL;

        run->provider = g_strdup("bash");
        run->attempt = CASES[i].attempt;
        run->submitted_ms = run_now_ms() - 86400000; /* its first attempt was long ago */
        run->resources.interruptible = CASES[i].restarts;
        cr_assert(run_store_create(root, run, NULL));
        if (CASES[i].submitted) {
            run->engine_job = g_strdup("7 7 elsewhere");
            must_move(root, run, RUN_SUBMITTED);
        }
        early = run_store_list(root, "demo", NULL);
        cr_assert_eq(only_one(early)->status, run->status, "case %u", i);
        memory_store_set_clock(root, UNTAKEN_LOST_MS + 1000);
        late = run_store_list(root, "demo", NULL);
        cr_assert_eq(only_one(late)->status, CASES[i].ends, "case %u", i);
        cr_assert(strstr(only_one(late)->reason, "within 10 minutes"), "%s",
                  only_one(late)->reason);
    }
}

Test(run_store, a_stop_may_become_an_abort_only)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = make(root, "a-1");
    enum stop_wish wish;

    must_move(root, run, RUN_SUBMITTED);
    own(run, getpid(), process_start_ticks(getpid()));
    must_move(root, run, RUN_DOWNLOADING);
    cr_assert(run_store_stop_wish(root, "demo", "a-1", &wish, NULL));
    cr_assert_eq(wish, STOP_NONE);
    cr_assert(run_store_request_stop(root, "demo", "a-1", false, NULL));
    cr_assert(run_store_stop_wish(root, "demo", "a-1", &wish, NULL));
    cr_assert_eq(wish, STOP_GRACEFUL);
    cr_assert(run_store_request_stop(root, "demo", "a-1", true, NULL));
    cr_assert(run_store_request_stop(root, "demo", "a-1", false, NULL));
    cr_assert(run_store_stop_wish(root, "demo", "a-1", &wish, NULL));
    cr_assert_eq(wish, STOP_ABORT);
}

static void *stop_it(void *root)
{
    return run_store_request_stop(root, "demo", "a-1", false, NULL) ? root : NULL;
}

/* The wish arrives when its runner has written the last status and removed what wishes there were.
 */
Test(run_store, a_stop_that_comes_too_late_leaves_no_wish)
{
    g_autoptr(Store) memory = memory_store_new();
    g_autoptr(Store) root = held_store_new(memory);
    g_autoptr(Run) run = make(root, "a-1");
    pthread_t thread;
    void *stopped;
    bool has;

    must_move(root, run, RUN_SUBMITTED);
    own(run, getpid(), process_start_ticks(getpid()));
    must_move(root, run, RUN_DOWNLOADING);
    held_store_hold(root, STORE_PUT, ".stop");
    cr_assert_eq(pthread_create(&thread, NULL, stop_it, root), 0);
    while (held_store_waiting(root) == 0)
        g_usleep(1000);
    must_move(memory, run, RUN_FAILED);
    run_store_remove_signs(memory, run);
    held_store_release(root);
    pthread_join(thread, &stopped);
    cr_assert_null(stopped, "it was told that the run would stop");
    cr_assert(store_has(memory, "runs/demo/a-1.stop", &has, NULL));
    cr_assert_not(has);
}

Test(run_store, a_run_nobody_has_is_stopped_at_once)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = make(root, "a-1");
    g_autoptr(Run) now = NULL;
    g_autoptr(GError) error = NULL;

    cr_assert(run_store_request_stop(root, "demo", "a-1", false, &error), "%s",
              error ? error->message : "");
    now = run_store_load(root, "demo", "a-1", NULL);
    cr_assert_eq(now->status, RUN_STOPPED);
    cr_assert_not(run_store_request_stop(root, "demo", "a-1", true, &error));
    cr_assert(error_is(error, EPERM), "%s", error->message);
    cr_assert(run_store_remove(root, "demo", "a-1", NULL));
    cr_assert_null(run_store_load(root, "demo", "a-1", NULL));
}

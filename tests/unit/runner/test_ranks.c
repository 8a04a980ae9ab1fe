/* Ranks that see each other end, or vanish. */
#include "config/error.h"
#include "runner/job/ranks.h"
#include "tests/support/faulty_store.h"
#include "tests/support/memory_store.h"
#include <criterion/criterion.h>
#include <string.h>

#define S G_USEC_PER_SEC

static struct store *store;
static struct run *run;
static struct ranks *ranks; /* as rank 0 of three sees them */

static void set_up(void)
{
    g_setenv("SLURM_JOB_ID", "7", TRUE);
    g_unsetenv("SLURM_RESTART_COUNT");
    store = memory_store_new();
    run = run_new("demo", "a-b-1");
    run->lifetime.nodes = 3;
    cr_assert(ranks_open(store, run, NULL));
    ranks = ranks_new(store, run);
}

static void tear_down(void)
{
    ranks_free(ranks);
    run_free(run);
    store_unref(store);
}

TestSuite(ranks, .init = set_up, .fini = tear_down);

static void end(unsigned rank, enum run_status status, unsigned whose, const char *why)
{
    struct rank_end it = {status, whose, (char *)why};
    unsigned before = run->rank;

    run->rank = rank;
    cr_assert(ranks_tell_end(store, run, &it, NULL));
    run->rank = before;
}

static void beat(unsigned rank)
{
    g_autofree char *key = g_strdup_printf("runs/demo/a-b-1.rank-%u", rank);

    g_usleep(1000); /* another time than the last one's */
    cr_assert(store_write(store, key, "7.0", 3, NULL, NULL, NULL));
}

static void expect(int64_t now_us, enum run_status status, const char *text, bool over)
{
    bool bad;
    struct rank_end it;
    g_autofree char *said = NULL;

    cr_assert(ranks_look(ranks, now_us, &bad, NULL));
    ranks_verdict(ranks, &it);
    said = rank_end_text(&it);
    cr_assert_eq(it.status, status, "%s", run_status_name(it.status));
    cr_assert_eq(bad, status != RUN_DONE);
    cr_assert_str_eq(said ? said : "", text);
    cr_assert_eq(ranks_have_ended(ranks), over);
    rank_end_clear(&it);
}

Test(ranks, all_end_well)
{
    expect(1 * S, RUN_DONE, "", false);
    end(1, RUN_DONE, 1, NULL);
    expect(2 * S, RUN_DONE, "", false);
    end(2, RUN_DONE, 2, NULL);
    expect(3 * S, RUN_DONE, "", true);
    expect(900 * S, RUN_DONE, "", true); /* who has ended needs no pulse */
}

Test(ranks, the_worst_end_counts)
{
    end(2, RUN_STOPPED, 2, "SIGTERM");
    expect(1 * S, RUN_STOPPED, "rank 2: SIGTERM", false);
    end(1, RUN_FAILED, 1, "exit status 7");
    expect(2 * S, RUN_FAILED, "rank 1: exit status 7", true);
}

Test(ranks, a_partner_that_went_away_counts_more_than_what_that_made_fail)
{
    end(1, RUN_FAILED, 1, "connection reset");
    expect(1 * S, RUN_FAILED, "rank 1: connection reset", false);
    end(2, RUN_INTERRUPTED, 2, "preempted");
    expect(2 * S, RUN_INTERRUPTED, "rank 2: preempted", true);
}

Test(ranks, one_that_only_passes_it_on_names_who_began)
{
    end(1, RUN_FAILED, 2, "exit status 3");
    expect(1 * S, RUN_FAILED, "rank 2: exit status 3", false);
}

Test(ranks, one_without_a_pulse_is_lost)
{
    beat(1);
    end(2, RUN_DONE, 2, NULL);
    expect(1 * S, RUN_DONE, "", false);
    expect(60 * S, RUN_DONE, "", false);
    beat(1);
    expect(100 * S, RUN_DONE, "", false);
    expect(159 * S, RUN_DONE, "", false);
    expect(161 * S, RUN_INTERRUPTED, "rank 1: no sign of it for 60 s", true);
}

Test(ranks, one_that_never_began_is_lost_later)
{
    end(2, RUN_DONE, 2, NULL);
    expect(1 * S, RUN_DONE, "", false);
    expect(120 * S, RUN_DONE, "", false);
    expect(122 * S, RUN_INTERRUPTED, "rank 1: it did not begin in 120 s", true);
}

Test(ranks, a_store_that_is_away_makes_nobody_lost)
{
    struct store *away = faulty_store_new(store);
    struct ranks *others = ranks_new(away, run);
    bool bad;

    beat(1);
    beat(2);
    cr_assert(ranks_look(others, 1 * S, &bad, NULL));
    faulty_store_fail(away, STORE_LIST, 1, 1, EHOSTUNREACH);
    cr_assert_not(ranks_look(others, 100 * S, &bad, NULL));
    cr_assert_not(bad);
    cr_assert(ranks_look(others, 150 * S, &bad, NULL));
    cr_assert_not(bad);
    cr_assert(ranks_look(others, 161 * S, &bad, NULL));
    cr_assert(bad);
    ranks_free(others);
    store_unref(away);
}

Test(ranks, another_start_says_nothing_about_this_one)
{
    static const char *const texts[] = {"7.1 failed 1 x", "failed", "7.0 sunny 1 x", ""};
    bool ours;

    for (guint i = 0; i < G_N_ELEMENTS(texts); i++) {
        cr_assert(store_write(store, "runs/demo/a-b-1.rank-1.end", texts[i], strlen(texts[i]), NULL,
                              NULL, NULL));
        expect(1 * S, RUN_DONE, "", false);
    }
    cr_assert(
        store_write(store, "runs/demo/a-b-1.rank-9.end", "7.0 failed 9 x", 14, NULL, NULL, NULL));
    expect(2 * S, RUN_DONE, "", false);
    cr_assert(ranks_are_ours(store, run, &ours, NULL) && ours);
    g_setenv("SLURM_RESTART_COUNT", "1", TRUE);
    cr_assert(ranks_are_ours(store, run, &ours, NULL) && !ours);
    cr_assert(ranks_open(store, run, NULL));
    cr_assert(ranks_are_ours(store, run, &ours, NULL) && ours);
}

Test(ranks, a_run_of_one_node_has_none)
{
    run->lifetime.nodes = 1;
    cr_assert_null(ranks_new(store, run));
}

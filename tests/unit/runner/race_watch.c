/* A watched job: its signals, the store's wishes, other ranks' ends and each cloud's notices, all
 * at once, while the runner's thread asks. Run under the thread sanitizer. */
#include "runner/job/job_watch.h"
#include "runner/job/notice.h"
#include "tests/support/memory_store.h"
#include "tests/support/script_server.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 3, LIMIT_MS = 20000 };

static int failures;

static void expect(bool fine, const char *what)
{
    if (fine)
        return;
    fprintf(stderr, "not so: %s\n", what);
    failures++;
}

/* Of all three: none at first, then one. */
static void answer(struct script_exchange *exchange, void *user)
{
    bool quiet = __atomic_load_n((int *)user, __ATOMIC_ACQUIRE);

    if (strstr(exchange->target, "/token"))
        script_answer(exchange, 200, NULL, "t");
    else if (strstr(exchange->target, "compute/name"))
        script_answer(exchange, 200, NULL, "vm");
    else if (quiet && strstr(exchange->target, "wait_for_change"))
        script_wait(exchange, 200);
    else if (quiet)
        script_answer(exchange, 404, NULL, "");
    else if (strstr(exchange->target, "wait_for_change"))
        script_answer(exchange, 200, "ETag: 2\r\n", "TRUE");
    else if (strstr(exchange->target, "instance-action"))
        script_answer(exchange, 200, NULL, "{\"action\": \"stop\"}");
    else
        script_answer(exchange, 200, NULL,
                      "{\"Events\": [{\"EventType\": \"Preempt\", \"Resources\": [\"vm\"]}]}");
}

static void ask_all(struct job_watch *watch)
{
    enum run_status ends;
    g_autofree char *why = job_watch_why(watch, &ends);
    struct rank_end end;

    job_watch_left_ms(watch);
    job_watch_look(watch);
    ranks_have_ended(watch->ranks);
    ranks_verdict(watch->ranks, &end);
    rank_end_clear(&end);
}

static void wait_for_wish(struct job_watch *watch, enum stop_wish wish)
{
    for (int i = 0; i < LIMIT_MS && job_watch_wish(watch) != wish; i++) {
        ask_all(watch);
        g_usleep(1000);
    }
    expect(job_watch_wish(watch) == wish, "the wish came in time");
}

/* What comes from everywhere while it is watched. */
static void disturb(struct store *store, struct job_watch *watch, int round)
{
    g_autoptr(Run) other = run_new("demo", "a-b-1");
    struct rank_end end = {RUN_INTERRUPTED, 1, (char *)"gone"};

    other->rank = 1;
    expect(ranks_tell_end(store, other, &end, NULL), "a rank ended");
    wait_for_wish(watch, STOP_INTERRUPT);
    if (round == 0)
        return;
    kill(getpid(), SIGTERM);
    wait_for_wish(watch, STOP_GRACEFUL);
    expect(store_write(store, "runs/demo/a-b-1.stop", "abort", 5, NULL, NULL, NULL), "a wish");
    wait_for_wish(watch, STOP_ABORT);
}

static void watch_once(const char *cloud, const char *url, int *quiet, int round)
{
    g_autoptr(Store) store = memory_store_new();
    g_autoptr(Run) run = run_new("demo", "a-b-1");
    struct job_watch watch;
    struct notices *notices;

    __atomic_store_n(quiet, round == 1, __ATOMIC_RELEASE);
    g_setenv("DSTACK_CLOUD", cloud, TRUE);
    g_setenv("DSTACK_METADATA_URL", url, TRUE);
    run->lifetime.nodes = 2;
    expect(ranks_open(store, run, NULL) && job_watch_start(&watch, store, run, NULL), "it begins");
    notices = notices_start(&watch);
    expect(notices != NULL, cloud);
    if (round == ROUNDS - 1) {
        ask_all(&watch); /* ends while all of them begin */
    } else {
        disturb(store, &watch, round);
    }
    notices_stop(notices);
    job_watch_stop(&watch);
}

int main(void)
{
    static const char *const clouds[] = {"aws", "gcp", "azure"};
    int quiet = 0;
    struct script_server *server;
    g_autofree char *url = NULL;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    server = script_server_start(NULL, answer, &quiet);
    url = g_strdup_printf("http://127.0.0.1:%u", script_server_port(server));
    for (int round = 0; round < ROUNDS; round++)
        for (guint i = 0; i < G_N_ELEMENTS(clouds); i++)
            watch_once(clouds[i], url, &quiet, round);
    script_server_stop(server);
    return failures ? 1 : 0;
}

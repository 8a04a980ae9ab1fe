/* The ranks of a run on several nodes: one runner on each, of which rank 0 has the run.
 *
 * shape:   below runs/REPO/, of each start of the job:
 *            RUN.rank-R      the start's name; written anew while R lives, so its time is R's pulse
 *            RUN.rank-R.end  how R ended: "START STATUS RANK REASON", RANK being whose fault it is
 *          Every rank looks at all of them. One that ends otherwise than done, or whose pulse
 * stops, ends all. They are removed when the next start begins, and at the run's end. verdict: of
 * several bad ends the one that lets the run go on counts (interrupted), then failed, then stopped:
 * a rank whose partner went away fails, too. limits:  a rank is lost after a minute without a
 * pulse; while the store cannot be listed, none is. threads: one that looks and beats; any may ask
 * what was seen.
 */
#pragma once

#include "runner/job/launch.h"

enum { RANK_BEAT_MS = 10000, RANK_LOST_MS = 60000, RANK_JOIN_MS = 120000 };

/* This process's; 0 for runs on one machine. */
unsigned ranks_own(const struct run *run);

/* DSTACK_NODES, DSTACK_NODE_RANK, DSTACK_MASTER_ADDR and DSTACK_MASTER_PORT. */
void ranks_set_environment(struct launch *launch);

/* Rank 0: the others may join. */
bool ranks_open(struct store *root, const struct run *run, GError **error);

/* Whether they have begun with this process's start of the job. */
bool ranks_are_ours(struct store *root, const struct run *run, bool *ours, GError **error);

/* Rank R: waits until rank 0 has the run, for a while; the run is the caller's. What is written
 * down of it is rank 0's: this one has an id, a work directory and a log of its own. */
struct run *ranks_join(struct store *root, const char *repo, const char *name, unsigned rank,
                       GError **error);

/* RUN, as loaded, to what RANK has of it on this machine. */
void ranks_become(struct run *run, unsigned rank);

/* How one ended; DONE: nothing is known that is bad. */
struct rank_end {
    enum run_status status;
    unsigned rank; /* whose fault it is */
    char *why;     /* may be NULL */
};
void rank_end_clear(struct rank_end *end);

/* "rank 1: exit status 7"; the caller's. NULL: nothing to say. */
char *rank_end_text(const struct rank_end *end);

/* RUN->rank has ended. */
bool ranks_tell_end(struct store *root, const struct run *run, const struct rank_end *end,
                    GError **error);

struct ranks *ranks_new(struct store *root, const struct run *run); /* NULL: it has one node */
void ranks_free(struct ranks *ranks);                               /* takes NULL */

/* This one lives. */
bool ranks_beat(struct ranks *ranks, GError **error);

/* Looks at the others, NOW_US by a monotonic clock. *IS_BAD: all are to end. */
bool ranks_look(struct ranks *ranks, int64_t now_us, bool *is_bad, GError **error);

/* Of what was seen: whether no other rank is on its way any more; and the worst of their ends. */
bool ranks_have_ended(struct ranks *ranks);
void ranks_verdict(struct ranks *ranks, struct rank_end *end);
